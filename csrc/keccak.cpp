// The twin of gensyn_verify/program/keccak.py, for the many small digests of Merkle trees. Portable: one digest is a
// serial chain, so vectors would not help. Source: the Keccak reference, version 3.0, sections 1.2 and 2.
#include "keccak.h"

#include <algorithm>
#include <cstring>

namespace gv {

namespace {

constexpr size_t RATE = 136;  // bytes: 1600 - 2 * 256 bits

constexpr uint64_t ROUND_CONSTANTS[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b,
    0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088,
    0x0000000080008009, 0x000000008000000a, 0x000000008000808b, 0x800000000000008b, 0x8000000000008089,
    0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};

inline uint64_t rotate(uint64_t x, int n) { return n ? x << n | x >> (64 - n) : x; }

// rho and pi: lane `i` (x + 5 y) rotates by ROTATION[i] and moves to TARGET[i] = y + 5 (2x + 3y mod 5).
constexpr int ROTATION[25] = {0,  1,  62, 28, 27, 36, 44, 6,  55, 20, 3,  10, 43,
                              25, 39, 41, 45, 15, 21, 8,  18, 2,  61, 56, 14};
constexpr int target(int i) { return i / 5 + 5 * ((2 * (i % 5) + 3 * (i / 5)) % 5); }

void permute(uint64_t a[25]) {
    for (uint64_t constant : ROUND_CONSTANTS) {
        uint64_t column[5], b[25];
#pragma GCC unroll 5
        for (int x = 0; x < 5; x++) column[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
#pragma GCC unroll 25
        for (int i = 0; i < 25; i++) {
            const uint64_t theta = column[(i + 4) % 5] ^ rotate(column[(i + 1) % 5], 1);
            b[target(i)] = rotate(a[i] ^ theta, ROTATION[i]);
        }
#pragma GCC unroll 25
        for (int i = 0; i < 25; i++) {
            const int row = i - i % 5;
            a[i] = b[i] ^ (~b[row + (i + 1) % 5] & b[row + (i + 2) % 5]);
        }
        a[0] ^= constant;
    }
}

// Takes its input in pieces, so that a prefix needs no copy of what follows it.
class Sponge {
  public:
    Sponge& take(const void* data, size_t n) {
        const uint8_t* p = static_cast<const uint8_t*>(data);
        while (n) {
            const size_t part = std::min(n, RATE - filled_);
            std::memcpy(block_ + filled_, p, part);
            p += part, n -= part, filled_ += part;
            if (filled_ == RATE) absorb();
        }
        return *this;
    }

    void digest(uint8_t out[32]) {
        std::memset(block_ + filled_, 0, RATE - filled_);
        block_[filled_] |= 0x01;
        block_[RATE - 1] |= 0x80;
        absorb();
        std::memcpy(out, state_, 32);
    }

  private:
    void absorb() {
        for (size_t lane = 0; lane < RATE / 8; lane++) {
            uint64_t word;
            std::memcpy(&word, block_ + 8 * lane, 8);
            state_[lane] ^= word;
        }
        permute(state_);
        filled_ = 0;
    }

    uint64_t state_[25] = {};
    uint8_t block_[RATE];
    size_t filled_ = 0;
};

}  // namespace

void keccak256(const uint8_t* data, size_t n, uint8_t out[32]) { Sponge().take(data, n).digest(out); }

void merkle_root(const std::vector<std::string_view>& leaves, uint8_t out[32]) {
    std::vector<uint8_t> level(std::max<size_t>(1, leaves.size()) * 32);  // of no leaves: zeros
    for (size_t i = 0; i < leaves.size(); i++)
        Sponge().take("\x00", 1).take(leaves[i].data(), leaves[i].size()).digest(&level[32 * i]);
    for (size_t n = leaves.size(); n > 1; n = (n + 1) / 2) {
        for (size_t i = 0; i < n / 2; i++) Sponge().take("\x01", 1).take(&level[64 * i], 64).digest(&level[32 * i]);
        if (n & 1) std::memmove(&level[n / 2 * 32], &level[(n - 1) * 32], 32);  // an odd last node moves up
    }
    uint8_t count[8];
    for (int i = 0; i < 8; i++) count[i] = uint8_t(uint64_t(leaves.size()) >> (56 - 8 * i));
    Sponge().take("\x02", 1).take(count, 8).take(level.data(), 32).digest(out);
}

}  // namespace gv

// BLAKE3 with its tree. Chunks of 1024 bytes give chaining values (level 0); parents pair neighbours level by level,
// an odd last node moves up unchanged, which is the same tree as "the left side holds the largest power of two".
// Source: the BLAKE3 paper, sections 2.1 to 2.6. Definition: gensyn_verify/commit/tensor.py.
#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "threads.h"

namespace gv::GV_ISA {

namespace {

constexpr uint32_t IV[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
constexpr uint32_t CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8;
constexpr int PERMUTATION[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
constexpr size_t CHUNK = 1024, CV = 32;

inline uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

void compress(uint32_t cv[8], const uint8_t block[64], uint32_t length, uint64_t counter, uint32_t flags) {
    uint32_t m[16], v[16];
    std::memcpy(m, block, 64);
    std::memcpy(v, cv, 32);
    std::memcpy(v + 8, IV, 16);
    v[12] = uint32_t(counter), v[13] = uint32_t(counter >> 32), v[14] = length, v[15] = flags;
    auto mix = [&](int a, int b, int c, int d, uint32_t x, uint32_t y) {
        v[a] += v[b] + x, v[d] = rotate(v[d] ^ v[a], 16), v[c] += v[d], v[b] = rotate(v[b] ^ v[c], 12);
        v[a] += v[b] + y, v[d] = rotate(v[d] ^ v[a], 8), v[c] += v[d], v[b] = rotate(v[b] ^ v[c], 7);
    };
    for (int round = 0; round < 7; round++) {
        for (int i = 0; i < 4; i++) mix(i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1]);
        for (int i = 0; i < 4; i++)
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i]);
        uint32_t next[16];
        for (int i = 0; i < 16; i++) next[i] = m[PERMUTATION[i]];
        std::memcpy(m, next, 64);
    }
    for (int i = 0; i < 8; i++) cv[i] = v[i] ^ v[i + 8];
}

void hash_chunk(const uint8_t* p, size_t n, uint64_t counter, uint32_t extra, uint8_t* out) {
    uint32_t cv[8];
    std::memcpy(cv, IV, 32);
    uint32_t flags = CHUNK_START;
    for (; n > 64; p += 64, n -= 64, flags = 0) compress(cv, p, 64, counter, flags);
    uint8_t last[64] = {};
    if (n) std::memcpy(last, p, n);
    compress(cv, last, uint32_t(n), counter, flags | CHUNK_END | extra);
    std::memcpy(out, cv, CV);
}

void hash_parent(const uint8_t* pair, uint32_t extra, uint8_t* out) {
    uint32_t cv[8];
    std::memcpy(cv, IV, 32);
    compress(cv, pair, 64, 0, PARENT | extra);
    std::memcpy(out, cv, CV);
}

}  // namespace

void blake3(const Blake3Args& args) {
    const size_t chunks = std::max<size_t>(1, (args.n + CHUNK - 1) / CHUNK);
    if (chunks == 1) {
        hash_chunk(args.data, args.n, 0, ROOT, args.root);
        if (args.tree) std::memcpy(args.tree, args.root, CV);
        return;
    }
    uint8_t* own = args.tree ? nullptr : new uint8_t[blake3_tree_bytes(args.n)];
    uint8_t* level = args.tree ? args.tree : own;
    parallel_for(int64_t(chunks), [&](int64_t c) {
        hash_chunk(args.data + c * CHUNK, std::min(CHUNK, args.n - c * CHUNK), c, 0, level + c * CV);
    });
    for (size_t n = chunks; n > 1;) {
        uint8_t* next = level + n * CV;
        for (size_t i = 0; i < n / 2; i++) hash_parent(level + 2 * i * CV, n == 2 ? ROOT : 0, next + i * CV);
        if (n & 1) std::memcpy(next + n / 2 * CV, level + (n - 1) * CV, CV);
        level = next, n = (n + 1) / 2;
    }
    std::memcpy(args.root, level, CV);
    delete[] own;
}

}  // namespace gv::GV_ISA

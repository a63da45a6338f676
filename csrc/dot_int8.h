// dot of i8: exact sums modulo 2^32, whose order is free. Values of k lie side by side in words, as instructions that
// multiply and add want them: two as 16-bit halves, which every instruction set has, or four as bytes for AVX-512 VNNI.
//
// A block of k of b is packed into panels NR columns wide, then blocks of rows of a are packed and multiplied by all of
// them; what a block of k gives is added to c.
#pragma once
#include <algorithm>

#include "dot_pack.h"
#include "dot_tile.h"
#include "scratch.h"

namespace gv {
namespace {

constexpr int64_t INT8_WORDS = 256;  // of a block of k: a panel of b is in L1, a block of a in L2
constexpr int64_t INT8_ROWS = 16 * MR, INT8_COLUMNS = 16 * NR;  // of a block of a, of b

struct Pairs {
    static constexpr int VALUES = 2;
    static uint32_t word(const int8_t* x, int64_t step) { return uint32_t(uint16_t(x[0])) | uint32_t(x[step]) << 16; }
    static constexpr uint32_t FLIP_A = 0;
    static U bias(U) { return U{}; }
    // |a b + a' b'| is at most 2^15.
    static U add_products(U a, U b, U acc) {
#if defined(GV_ISA_avx512)
        return acc + (U)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(GV_ISA_avx2)
        return acc + (U)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
        return acc + (U)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
        const auto low = [](U x) { return (U)((I)(x << 16) >> 16); };
        const auto high = [](U x) { return (U)((I)x >> 16); };
        return acc + low(a) * low(b) + high(a) * high(b);
#endif
    }
};

#if defined(GV_ISA_avx512)
// The instruction wants a without sign: a + 128 is multiplied, and 128 b subtracted from every sum in advance.
struct Quads {
    static constexpr int VALUES = 4;
    static uint32_t word(const int8_t* x, int64_t step) {
        const auto byte = [&](int i) { return uint32_t(uint8_t(x[i * step])) << 8 * i; };
        return byte(0) | byte(1) | byte(2) | byte(3);
    }
    static constexpr uint32_t FLIP_A = 0x80808080;
    static U bias(U b) { return U{} - add_products(splat(uint32_t(0x80808080u)), b, U{}); }
    static U add_products(U a, U b, U acc) {
        asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));  // an intrinsic would want all of this file for VNNI
        return acc;
    }
    static bool supported() {
        static const bool vnni = __builtin_cpu_supports("avx512vnni");
        return vnni;
    }
};
#endif

// rows x count (k) elements of x to out[r * row + word * step], all bits of `flip` flipped; what is missing of the last
// word is 0.
template <class Words>
void pack_words(const Side& x, int64_t rows, int64_t count, uint32_t* out, int64_t row, int64_t step, uint32_t flip) {
    const int8_t* const data = static_cast<const int8_t*>(x.data);
    const int64_t whole = count / Words::VALUES, rest = count % Words::VALUES;
    if (x.row != 1)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t w = 0; w < whole; w++)
                out[r * row + w * step] = Words::word(data + r * x.row + w * Words::VALUES, 1) ^ flip;
    else
        for (int64_t w = 0; w < whole; w++) {
            const int8_t* from = data + w * Words::VALUES * x.step;
            uint32_t* const to = out + w * step;
            for (int64_t r = 0; r < rows; r++) to[r * row] = Words::word(from + r, x.step) ^ flip;
        }
    for (int64_t r = 0; rest && r < rows; r++) {
        int8_t last[Words::VALUES] = {};
        for (int64_t i = 0; i < rest; i++) last[i] = data[r * x.row + (count - rest + i) * x.step];
        out[r * row + whole * step] = Words::word(last, 1) ^ flip;
    }
}

// c (+)= a[mr, words] times a panel of b: a row of what sums begin with, then the words.
template <class Words, int mr, int nv>
__attribute__((noinline)) void int8_tile(const uint32_t* a, int64_t a_row, const uint32_t* b, int64_t words,
                                         uint32_t* c, int64_t c_row, int last, bool first) {
    U acc[mr][nv];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) acc[i][j] = load<U>(b + j * W);
    for (int64_t w = 0; w < words; w++) {
        b += NR;
        U row[nv];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) row[j] = load<U>(b + j * W);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            const U x = splat(a[i * a_row + w]);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[i][j] = Words::add_products(x, row[j], acc[i][j]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            uint32_t* const to = c + i * c_row + j * W;
            if (j < nv - 1 || last == W) {
                store(to, first ? acc[i][j] : load<U>(to) + acc[i][j]);
            } else {
                U sum{};
                if (!first) std::memcpy(&sum, to, size_t(last) * 4);
                sum += acc[i][j];
                std::memcpy(to, &sum, size_t(last) * 4);
            }
        }
}

using Int8Tile = decltype(&int8_tile<Pairs, 1, 1>);
template <class Words>
struct Integers {
    template <int mr, int nv>
    static constexpr Int8Tile tile = int8_tile<Words, mr, nv>;
};

thread_local Scratch int8_a, int8_b;

template <class Words>
void multiply_words(const Side& a, const Side& b, int64_t m, int64_t n, int64_t k, uint32_t* c, int64_t c_row) {
    static constexpr Sizes<Int8Tile> sizes = tiles<Integers<Words>, Int8Tile>();
    uint32_t* const rows = static_cast<uint32_t*>(int8_a.get(size_t(INT8_ROWS * INT8_WORDS) * 4));
    uint32_t* const panels = static_cast<uint32_t*>(int8_b.get(size_t(INT8_COLUMNS * (INT8_WORDS + 1)) * 4));
    constexpr int64_t BLOCK_K = INT8_WORDS * Words::VALUES;
    for (int64_t k0 = 0; k0 < k; k0 += BLOCK_K) {
        const int64_t count = std::min(BLOCK_K, k - k0), words = (count + Words::VALUES - 1) / Words::VALUES;
        for (int64_t j0 = 0; j0 < n; j0 += INT8_COLUMNS) {
            const int64_t columns = std::min(INT8_COLUMNS, n - j0);
            for (int64_t j = 0; j < columns; j += NR) {
                uint32_t* const panel = panels + j * (words + 1);
                pack_words<Words>(b.at(0, j0 + j, k0), std::min<int64_t>(NR, columns - j), count, panel + NR, 1, NR, 0);
                for (int v = 0; v < NR; v += W) {
                    U bias{};
                    for (int64_t w = 1; w <= words; w++) bias += Words::bias(load<U>(panel + w * NR + v));
                    store(panel + v, bias);
                }
            }
            for (int64_t i0 = 0; i0 < m; i0 += INT8_ROWS) {
                const int64_t height = std::min(INT8_ROWS, m - i0);
                pack_words<Words>(a.at(0, i0, k0), height, count, rows, words, 1, Words::FLIP_A);
                for (int64_t j = 0; j < columns; j += NR) {
                    const int width = int(std::min<int64_t>(NR, columns - j)), vectors = (width + W - 1) / W;
                    for (int64_t i = 0; i < height; i += MR)
                        sizes[size_t(vectors - 1)][size_t(std::min<int64_t>(MR, height - i) - 1)](
                            rows + i * words, words, panels + j * (words + 1), words, c + (i0 + i) * c_row + j0 + j,
                            c_row, width - (vectors - 1) * W, k0 == 0);
                }
            }
        }
    }
}

// c[m, n], rows c_row apart, of a[m, k] and b[k, n]; k > 0
void multiply_int8(const Side& a, const Side& b, int64_t m, int64_t n, int64_t k, uint32_t* c, int64_t c_row) {
#if defined(GV_ISA_avx512)
    if (k > Pairs::VALUES && Quads::supported()) return multiply_words<Quads>(a, b, m, n, k, c, c_row);
#endif
    multiply_words<Pairs>(a, b, m, n, k, c, c_row);
}

}  // namespace
}  // namespace gv

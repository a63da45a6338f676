// dot of i8: exact sums modulo 2^32, whose order is free. Two values of k lie side by side as the 16-bit halves of a
// word, because instruction sets multiply and add such pairs: |a b + a' b'| is at most 2^15.
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

constexpr int64_t PAIRS = 256;  // of a block of k: a panel of b is in L1, a block of a in L2
constexpr int64_t INT8_ROWS = 16 * MR, INT8_COLUMNS = 16 * NR;  // of a block of a, of b

// acc + the two products of the halves of a and b in every lane
inline U add_products(U a, U b, U acc) {
#if defined(GV_ISA_avx512) && defined(__AVX512VNNI__)
    return (U)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif defined(GV_ISA_avx512)
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

template <int mr, int nv>
__attribute__((noinline)) void int8_tile(const uint32_t* a, int64_t a_row, const uint32_t* b, int64_t pairs,
                                         uint32_t* c, int64_t c_row, int last, bool first) {
    U acc[mr][nv] = {};
    for (int64_t p = 0; p < pairs; p++, b += NR) {
        U row[nv];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) row[j] = load<U>(b + j * W);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            const U x = splat(a[i * a_row + p]);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[i][j] = add_products(x, row[j], acc[i][j]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            uint32_t* const to = c + i * c_row + j * W;
            const size_t bytes = size_t(j == nv - 1 ? last : W) * 4;
            U sum{};
            if (!first) std::memcpy(&sum, to, bytes);
            sum += acc[i][j];
            std::memcpy(to, &sum, bytes);
        }
}

using Int8Tile = decltype(&int8_tile<1, 1>);
template <int nv, int... rows>
constexpr std::array<Int8Tile, MR> int8_tiles_of_width(std::integer_sequence<int, rows...>) {
    return {int8_tile<rows + 1, nv>...};
}
template <int... widths>
constexpr std::array<std::array<Int8Tile, MR>, NV> int8_tiles(std::integer_sequence<int, widths...>) {
    return {int8_tiles_of_width<widths + 1>(std::make_integer_sequence<int, MR>())...};
}
constexpr auto INT8_TILES = int8_tiles(std::make_integer_sequence<int, NV>());  // [nv - 1][mr - 1]

// rows x count (k) elements of x into words out[r * row + pair * step]; an odd count ends in a pair with 0.
void pack_pairs(const Side& x, int64_t rows, int64_t count, uint32_t* out, int64_t row, int64_t step) {
    const int8_t* const data = static_cast<const int8_t*>(x.data);
    const auto word = [](int8_t low, int8_t high) { return uint32_t(uint16_t(low)) | uint32_t(high) << 16; };
    if (x.row != 1)
        for (int64_t r = 0; r < rows; r++) {
            const int8_t* from = data + r * x.row;
            uint32_t* to = out + r * row;
            for (int64_t p = 0; p < count / 2; p++) to[p * step] = word(from[2 * p], from[2 * p + 1]);
        }
    else
        for (int64_t p = 0; p < count / 2; p++) {
            const int8_t *low = data + 2 * p * x.step, *high = low + x.step;
            uint32_t* to = out + p * step;
            for (int64_t r = 0; r < rows; r++) to[r * row] = word(low[r], high[r]);
        }
    if (count % 2)
        for (int64_t r = 0; r < rows; r++)
            out[r * row + count / 2 * step] = word(data[r * x.row + (count - 1) * x.step], 0);
}

thread_local Scratch int8_a, int8_b;

// c[m, n], rows c_row apart, of a[m, k] and b[k, n]; k > 0
void multiply_int8(const Side& a, const Side& b, int64_t m, int64_t n, int64_t k, uint32_t* c, int64_t c_row) {
    uint32_t* const rows = static_cast<uint32_t*>(int8_a.get(size_t(INT8_ROWS * PAIRS) * 4));
    uint32_t* const panels = static_cast<uint32_t*>(int8_b.get(size_t(INT8_COLUMNS * PAIRS) * 4));
    for (int64_t k0 = 0; k0 < k; k0 += 2 * PAIRS) {
        const int64_t count = std::min(2 * PAIRS, k - k0), pairs = (count + 1) / 2;
        for (int64_t j0 = 0; j0 < n; j0 += INT8_COLUMNS) {
            const int64_t columns = std::min(INT8_COLUMNS, n - j0);
            for (int64_t j = 0; j < columns; j += NR)
                pack_pairs(b.at(0, j0 + j, k0), std::min<int64_t>(NR, columns - j), count, panels + j * pairs, 1, NR);
            for (int64_t i0 = 0; i0 < m; i0 += INT8_ROWS) {
                const int64_t height = std::min(INT8_ROWS, m - i0);
                pack_pairs(a.at(0, i0, k0), height, count, rows, pairs, 1);
                for (int64_t j = 0; j < columns; j += NR) {
                    const int width = int(std::min<int64_t>(NR, columns - j)), vectors = (width + W - 1) / W;
                    for (int64_t i = 0; i < height; i += MR)
                        INT8_TILES[vectors - 1][std::min<int64_t>(MR, height - i) - 1](
                            rows + i * pairs, pairs, panels + j * pairs, pairs, c + (i0 + i) * c_row + j0 + j, c_row,
                            width - (vectors - 1) * W, k0 == 0);
                }
            }
        }
    }
}

}  // namespace
}  // namespace gv

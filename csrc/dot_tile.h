// The register tile of dot: up to MR x NR sums over some blocks of k. In a block every sum is a chain acc = fma(a, b,
// acc) from +0 in ascending k; at its end the chain is added to c. Which sums share a tile, and whether operands come
// packed or straight from the tensor, changes no chain.
#pragma once
#include <array>
#include <utility>

#include "simd.h"

namespace {

// Rows and vectors of a tile: as many accumulators as the registers hold, with one row of b beside them.
#if defined(GV_ISA_avx512)
constexpr int MR = 8, NV = 3;
#elif defined(GV_ISA_avx2)
constexpr int MR = 6, NV = 2;
#elif defined(__aarch64__)
constexpr int MR = 8, NV = 3;
#else
constexpr int MR = 4, NV = 2;
#endif
constexpr int NR = NV * W;
constexpr int PREFETCH = 16;  // k steps

constexpr int64_t BLOCK = 128;  // of k: the numerics

struct TileArgs {
    int64_t blocks, rest;  // BLOCK steps each but for the last block, which has `rest`
    const float *a, *b;    // a[i * a_row + k * a_step], packed 1 and MR; b[k * b_step + j], packed NR
    int64_t a_row, a_step, b_step;
    float* c;  // c[i * c_row + j]
    int64_t c_row;
    int last;                      // lanes in use of the last vector, 1 to W
    bool first_block, last_block;  // c starts here; c is complete after this
};

template <int nv>
inline F load_row(const float* p, int j, int last) {
    return j == nv - 1 && last != W ? load_first(p + j * W, last) : load<F>(p + j * W);
}

// c = chains, or c + chains; NaN becomes canonical where c is complete. Loops are unrolled so that chains stay in
// registers.
template <int mr, int nv>
inline void finish(const TileArgs& t, bool first, bool complete, F (&acc)[mr][nv]) {
    if (!first) {
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[i][j] = load_row<nv>(t.c + i * t.c_row, j, t.last) + acc[i][j];
    }
    if (complete) {
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[i][j] = canonical(acc[i][j]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            if (j == nv - 1 && t.last != W)
                store_first(t.c + i * t.c_row + j * W, acc[i][j], t.last);
            else
                store(t.c + i * t.c_row + j * W, acc[i][j]);
        }
}

template <int mr, int nv, bool packed_a, bool packed_b>
__attribute__((noinline)) void tile(const TileArgs& t) {
    const int64_t a_row = packed_a ? 1 : t.a_row, a_step = packed_a ? MR : t.a_step, b_step = packed_b ? NR : t.b_step;
    const int last = packed_b ? W : t.last;
    // A pointer per three rows, which are base, base + stride and base + 2 stride of an address.
    const float *b = t.b, *a0 = t.a, *a3 = a0 + 3 * a_row, *a6 = a3 + 3 * a_row;
    for (int64_t block = 0; block < t.blocks; block++) {
        F acc[mr][nv];
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) {
                acc[i][j] = F{};
                __builtin_prefetch(t.c + i * t.c_row + j * W, 1);
            }
        for (int64_t k = block + 1 < t.blocks ? BLOCK : t.rest; k > 0; k--) {
            if (packed_a) __builtin_prefetch(a0 + PREFETCH * MR);
            F row[nv];
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) {
                if (packed_b || mr > MR / 2) __builtin_prefetch(b + PREFETCH * b_step + j * W);
                row[j] = load_row<nv>(b, j, last);
            }
#pragma GCC unroll 16
            for (int i = 0; i < mr; i++) {
                const float* a = i < 3 ? a0 : i < 6 ? a3 : a6;
                const F x = splat(a[i % 3 * a_row]);
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) acc[i][j] = fma(x, row[j], acc[i][j]);
            }
            a0 += a_step, a3 += a_step, a6 += a_step, b += b_step;
        }
        finish(t, t.first_block && block == 0, t.last_block && block + 1 == t.blocks, acc);
    }
}

using Tile = void (*)(const TileArgs&);

// Of::tile<mr, nv> at [nv - 1][mr - 1].
template <class Tile>
using Sizes = std::array<std::array<Tile, MR>, NV>;
template <class Of, class Tile, int nv, int... rows>
constexpr std::array<Tile, MR> tiles_of_width(std::integer_sequence<int, rows...>) {
    return {Of::template tile<rows + 1, nv>...};
}
template <class Of, class Tile, int... widths>
constexpr Sizes<Tile> tiles_of(std::integer_sequence<int, widths...>) {
    return {tiles_of_width<Of, Tile, widths + 1>(std::make_integer_sequence<int, MR>())...};
}
template <class Of, class Tile>
constexpr Sizes<Tile> tiles() {
    return tiles_of<Of, Tile>(std::make_integer_sequence<int, NV>());
}

template <bool packed_a, bool packed_b>
struct Floats {
    template <int mr, int nv>
    static constexpr Tile tile = ::tile<mr, nv, packed_a, packed_b>;
};
// By packed_a and packed_b.
constexpr Sizes<Tile> TILES[2][2] = {
    {tiles<Floats<false, false>, Tile>(), tiles<Floats<false, true>, Tile>()},
    {tiles<Floats<true, false>, Tile>(), tiles<Floats<true, true>, Tile>()},
};

}  // namespace

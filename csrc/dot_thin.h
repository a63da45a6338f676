// Thin products: a has few rows, and b comes with its columns contiguous along k (a matrix times a vector, in the
// layout of most weights). Packing b would cost more than using it once. So W columns are read W values of k at a time,
// transposed in registers, and multiplied there; the chains of the W sums lie in the lanes of one vector for every row
// of a. Blocks of k, chains and the order of their sums are those of dot.cpp.
#pragma once
#include "dot_pack.h"
#include "dot_tile.h"

namespace gv {
namespace {

constexpr int THIN = 4;  // rows

// Up to W steps of k from k0 on for up to W columns of b.
template <Dtype D, int rows, bool whole>
inline void thin_steps(const Side& a, const Side& b, int64_t k0, int columns, int steps, F (&acc)[rows]) {
    const char* p = static_cast<const char*>(b.data) + k0 * dtype_size(D);
    F r[W];
#pragma GCC unroll 16
    for (int j = 0; j < W; j++, p += b.row * dtype_size(D))
        r[j] = whole ? load_widened<D>(p) : j < columns ? load_first_widened<D>(p, steps) : F{};
    transpose(r);
#pragma GCC unroll 16
    for (int step = 0; step < W; step++) {
        if (!whole && step >= steps) break;
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++)
            acc[i] = fma(splat(a.floats()[i * a.row + (k0 + step) * a.step]), r[step], acc[i]);
    }
}

template <Dtype D, int rows>
void thin_columns(const Side& a, const Side& b, int columns, int64_t k, float* c, int64_t c_row) {
    F total[rows] = {};
    for (int64_t begin = 0, end; begin < k; begin = end) {
        end = k - begin <= BLOCK + BLOCK / 2 ? k : begin + BLOCK;
        F acc[rows] = {};
        int64_t k0 = begin;
        if (columns == W)
            for (; k0 + W <= end; k0 += W) thin_steps<D, rows, true>(a, b, k0, W, W, acc);
        for (; k0 < end; k0 += W)
            thin_steps<D, rows, false>(a, b, k0, columns, int(std::min<int64_t>(W, end - k0)), acc);
        for (int i = 0; i < rows; i++) total[i] = begin == 0 ? acc[i] : total[i] + acc[i];
    }
    for (int i = 0; i < rows; i++) store_first(c + i * c_row, canonical(total[i]), columns);
}

// c[i * c_row + j] of m rows, 1 to THIN, and n columns. a is f32.
void thin(const Side& a, const Side& b, int64_t m, int64_t n, int64_t k, float* c, int64_t c_row) {
    with_dtype(b.dtype, [&](auto dtype) {
        constexpr Dtype D = dtype.value;
        if constexpr (D == Dtype::f32 || D == Dtype::bf16 || D == Dtype::f16) {
            constexpr decltype(&thin_columns<D, 1>) by_rows[THIN] = {thin_columns<D, 1>, thin_columns<D, 2>,
                                                                     thin_columns<D, 3>, thin_columns<D, 4>};
            for (int64_t j = 0; j < n; j += W)
                by_rows[m - 1](a, b.at(0, j, 0), int(std::min<int64_t>(W, n - j)), k, c + j, c_row);
        }
    });
}

}  // namespace
}  // namespace gv

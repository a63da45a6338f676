// gather: rows by index, bits untouched. scatter_add: rows start at +0 and take their contributions in ascending
// source order; threads split the columns of a row, or the target rows, so every element keeps its order.
// Definition: backends/reference.py, run_gather and run_scatter_add.
#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "scratch.h"
#include "simd.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int64_t SERIAL = 1 << 15;  // bytes or elements below which one thread is faster

void fill_outside(uint8_t* out, int64_t row, Dtype dtype) {
    const uint32_t nan = dtype == Dtype::f32 ? 0x7FC00000u : dtype == Dtype::bf16 ? 0x7FC0u : 0x7E00u;
    if (dtype == Dtype::f32)
        for (int64_t i = 0; i < row; i++) std::memcpy(out + 4 * i, &nan, 4);
    else if (dtype == Dtype::bf16 || dtype == Dtype::f16)
        for (int64_t i = 0; i < row; i++) std::memcpy(out + 2 * i, &nan, 2);
    else
        std::memset(out, 0, size_t(row * dtype_size(dtype)));
}

// Adds the sources whose target lies in [first, last) into rows of f32 or u32 registers.
template <class Load, class T>
void add_rows(const ScatterAddArgs& g, T* sums, int64_t first, int64_t last, Load load) {
    for (int64_t i = 0; i < g.count; i++) {
        const int64_t target = g.index[i];
        if (target < first || target >= last) continue;
        T* sum = sums + (target - first) * g.row;
        for (int64_t j = 0; j < g.row; j++) sum[j] += load(i * g.row + j);
    }
}

template <class T>
void add_typed(const ScatterAddArgs& g, T* sums, int64_t first, int64_t last) {
    std::fill(sums, sums + (last - first) * g.row, T(0));
    const void* s = g.source;
    switch (g.source_dtype) {
        case Dtype::f32:
            return add_rows(g, sums, first, last, [=](int64_t i) { return T(static_cast<const float*>(s)[i]); });
        case Dtype::bf16:
            return add_rows(g, sums, first, last,
                            [=](int64_t i) { return T(widen_bf16(static_cast<const uint16_t*>(s)[i])); });
        case Dtype::f16:
            return add_rows(g, sums, first, last,
                            [=](int64_t i) { return T(widen_f16(static_cast<const uint16_t*>(s)[i])); });
        case Dtype::u8:
        case Dtype::boolean:
            return add_rows(g, sums, first, last, [=](int64_t i) { return T(static_cast<const uint8_t*>(s)[i]); });
        default:
            return add_rows(g, sums, first, last, [=](int64_t i) { return T(static_cast<const uint32_t*>(s)[i]); });
    }
}

void scatter_rows(const ScatterAddArgs& g, int64_t first, int64_t last) {
    const int64_t n = (last - first) * g.row;
    if (g.out_dtype == Dtype::f32) {
        float* out = static_cast<float*>(g.out) + first * g.row;
        add_typed(g, out, first, last);
        for (int64_t i = 0; i < n; i++) out[i] = canonical(out[i]);
    } else if (g.out_dtype == Dtype::i32 || g.out_dtype == Dtype::u32) {
        add_typed(g, static_cast<uint32_t*>(g.out) + first * g.row, first, last);
    } else {
        // Narrow outputs: one row at a time in registers, stored once.
        static thread_local Scratch scratch;
        void* row = scratch.get(size_t(g.row) * 4);
        for (int64_t r = first; r < last; r++) {
            if (g.out_dtype == Dtype::u8) {
                add_typed(g, static_cast<uint32_t*>(row), r, r + 1);
                for (int64_t j = 0; j < g.row; j++)
                    static_cast<uint8_t*>(g.out)[r * g.row + j] = uint8_t(static_cast<uint32_t*>(row)[j]);
            } else {
                add_typed(g, static_cast<float*>(row), r, r + 1);
                uint16_t* out = static_cast<uint16_t*>(g.out) + r * g.row;
                for (int64_t j = 0; j < g.row; j++) {
                    const float x = static_cast<float*>(row)[j];
                    out[j] = g.out_dtype == Dtype::bf16 ? narrow_bf16(x) : narrow_f16(x);
                }
            }
        }
    }
}

}  // namespace

void gather(const GatherArgs& g) {
    const int64_t bytes = g.row * dtype_size(g.dtype);
    const int64_t rows_a_task = bytes ? std::max<int64_t>(1, SERIAL / bytes) : g.count;
    if (g.count == 0 || bytes == 0) return;
    parallel_for((g.count + rows_a_task - 1) / rows_a_task, [&](int64_t task) {
        const int64_t last = std::min(g.count, (task + 1) * rows_a_task);
        for (int64_t i = task * rows_a_task; i < last; i++) {
            uint8_t* out = static_cast<uint8_t*>(g.out) + i * bytes;
            const int64_t from = g.index[i];
            if (from >= 0 && from < g.rows)
                std::memcpy(out, static_cast<const uint8_t*>(g.data) + from * bytes, size_t(bytes));
            else
                fill_outside(out, g.row, g.dtype);
        }
    });
}

void scatter_add(const ScatterAddArgs& g) {
    if (g.rows == 0 || g.row == 0) return;
    // Each thread owns a range of target rows and reads all indices: ascending order for every element.
    const int64_t tasks = g.count * g.row < SERIAL ? 1 : std::min<int64_t>(get_threads(), g.rows);
    parallel_for(tasks, [&](int64_t t) { scatter_rows(g, g.rows * t / tasks, g.rows * (t + 1) / tasks); });
}

}  // namespace gv::GV_ISA

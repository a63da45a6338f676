// gather: rows by index, bits untouched. scatter_add: rows start at +0 and take their contributions in ascending
// source order; threads split the columns of a row, or the target rows, so every element keeps its order.
// Definition: backends/reference.py, run_gather and run_scatter_add.
#include <algorithm>
#include <cstring>

#include "scalar_ops.h"
#include "scratch.h"
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

// Adds the sources whose target row lies in [first, last) to `sums`, registers of those rows.
template <class T>
void add_rows(const ScatterAddArgs& g, T* sums, int64_t first, int64_t last) {
    static thread_local Scratch scratch;
    const int64_t size = dtype_size(g.source_dtype);
    const bool direct = size == 4;
    std::fill(sums, sums + (last - first) * g.row, T(0));
    uint32_t* widened = direct ? nullptr : static_cast<uint32_t*>(scratch.get(size_t(g.row + W) * 4));
    for (int64_t i = 0; i < g.count; i++) {
        const int64_t target = g.index[i];
        if (target < first || target >= last) continue;
        const uint8_t* source = static_cast<const uint8_t*>(g.source) + i * g.row * size;
        if (!direct) load_elements(g.source_dtype, source, 1, g.row, widened);
        const T* add = reinterpret_cast<const T*>(direct ? static_cast<const void*>(source) : widened);
        T* sum = sums + (target - first) * g.row;
        for (int64_t j = 0; j < g.row; j++) sum[j] += add[j];
    }
}

void scatter_rows(const ScatterAddArgs& g, int64_t first, int64_t last) {
    static thread_local Scratch scratch;
    const int64_t n = (last - first) * g.row, size = dtype_size(g.out_dtype);
    uint8_t* out = static_cast<uint8_t*>(g.out) + first * g.row * size;
    // Registers are the output itself where it is 32 bits wide, else memory of their own, stored once at the end.
    uint32_t* sums =
        size == 4 ? reinterpret_cast<uint32_t*>(out) : static_cast<uint32_t*>(scratch.get(size_t(n + W) * 4));
    const bool is_float = g.out_dtype == Dtype::f32 || g.out_dtype == Dtype::bf16 || g.out_dtype == Dtype::f16;
    if (is_float)
        add_rows(g, reinterpret_cast<float*>(sums), first, last);
    else
        add_rows(g, sums, first, last);
    if (size != 4) return store_elements(g.out_dtype, out, {sums, W}, n);
    if (is_float)
        for (int64_t i = 0; i < n; i++) sums[i] = (sums[i] & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC00000u : sums[i];
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

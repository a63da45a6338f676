// reduce: y[o] = sum, max, min, argmax or argmin over the reduced axes of x, in the order of docs/numerics.md,
// section 6.
//
// A sum has 64 lanes and segments of 2,048 values, whose sums are summed by the same rule until one is left. One warp
// takes one segment: thread t has lanes t and t + 32, so that a fold is one addition and five shuffles. Where the kept
// axis is the contiguous one, a thread block takes 32 neighbouring rows instead, and each of its 8 warps 8 of the
// lanes. The kernel is launched once a level; from the second on it reads the level before it from scratch memory.
//
// Extremes need no order: min and max of section 4 are associative and commutative, and so is "the first of the best".
#include "device.h"

namespace gv {
namespace {

struct ReduceParameters {
    u64 x, y;
    i64 rows, length;  // outputs; values of each
    i64 x_dtype, y_dtype;
    i64 op;              // 0 sum, 1 max, 2 min, 3 argmax, 4 argmin
    i64 segments;        // of a row, in this level: y has rows x segments elements
    Axes kept, reduced;  // strides of x in elements
};

__device__ __forceinline__ u32 add(u32 a, u32 b, bool floats) {
    return floats ? as_bits(__fadd_rn(as_float(a), as_float(b))) : a + b;
}

__device__ __forceinline__ void finish(const ReduceParameters& p, i64 row, i64 segment, u32 sum) {
    store(p.y, row * p.segments + segment, p.y_dtype, p.length ? sum : 0);  // the empty sum is +0
}

// Whether a is the maximum (minimum) of a and b. A NaN beats every number.
__device__ __forceinline__ bool beats(u32 a, u32 b, i64 dtype, bool largest) {
    if (is_float(dtype)) {
        const float x = as_float(a), y = as_float(b);
        if (is_nan(x) || is_nan(y)) return is_nan(x) && !is_nan(y);
        return largest ? x > y : x < y;
    }
    if (is_signed(dtype)) return largest ? i32(a) > i32(b) : i32(a) < i32(b);
    return largest ? a > b : a < b;
}

struct Best {
    u32 value;
    i32 position;  // -1: none yet
};

// The better one; of equals the first. As values -0 is below +0, as positions they are equal.
__device__ __forceinline__ Best better(Best a, Best b, const ReduceParameters& p) {
    const bool largest = p.op == 1 || p.op == 3, positions = p.op >= 3;
    if (a.position < 0 || b.position < 0) return a.position < 0 ? b : a;
    if (beats(a.value, b.value, p.x_dtype, largest)) return a;
    if (beats(b.value, a.value, p.x_dtype, largest)) return b;
    if (positions) return a.position < b.position ? a : b;
    // Two equal numbers, or zeros of which one may be -0.
    if (is_float(p.x_dtype) && !is_nan(as_float(a.value))) a.value = largest ? a.value & b.value : a.value | b.value;
    return a;
}

}  // namespace
}  // namespace gv

// A warp a segment.
GV_KERNEL(gv_sum_rows, gv::ReduceParameters, 256, 1) {
    using namespace gv;
    const bool floats = is_float(p.x_dtype);
    const u32 zero = floats ? 0x80000000u : 0u;  // -0: the identity of addition
    const int lane = threadIdx.x % 32;
    const i64 warps = thread_count() / 32;
#pragma unroll 1
    for (i64 w = thread_index() / 32; w < p.rows * p.segments; w += warps) {
        const i64 row = w / p.segments, segment = w % p.segments, base = p.kept.offset(row);
        const i64 begin = segment * SEGMENT, end = begin + SEGMENT < p.length ? begin + SEGMENT : p.length;
        u32 low = zero, high = zero;  // lanes `lane` and `lane` + 32
        for (i64 i = begin + lane; i < end; i += LANES) {
            low = add(low, load(p.x, base + p.reduced.offset(i), p.x_dtype), floats);
            if (i + 32 < end) high = add(high, load(p.x, base + p.reduced.offset(i + 32), p.x_dtype), floats);
        }
        u32 sum = add(low, high, floats);
        for (int half = 16; half > 0; half /= 2) sum = add(sum, __shfl_down_sync(0xFFFFFFFFu, sum, half), floats);
        if (lane == 0) finish(p, row, segment, sum);
    }
}

// 32 neighbouring rows a thread block of 256; blockIdx.y counts segments.
GV_KERNEL(gv_sum_columns, gv::ReduceParameters, 256, 1) {
    using namespace gv;
    constexpr int WARPS = 8, EACH = LANES / WARPS;
    GV_SHARED(u32, sums);  // [warp][32]
    const bool floats = is_float(p.x_dtype);
    const int column = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 row = i64(blockIdx.x) * 32 + column;
#pragma unroll 1
    for (i64 segment = blockIdx.y; segment < p.segments; segment += gridDim.y) {
        const i64 begin = segment * SEGMENT, end = begin + SEGMENT < p.length ? begin + SEGMENT : p.length;
        const i64 base = row < p.rows ? p.kept.offset(row) : 0;
        u32 lanes[EACH];
#pragma unroll
        for (int j = 0; j < EACH; j++) lanes[j] = floats ? 0x80000000u : 0u;
        for (i64 i = begin; i < end && row < p.rows; i += LANES)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                const i64 at = i + j * WARPS + warp;
                if (at < end) lanes[j] = add(lanes[j], load(p.x, base + p.reduced.offset(at), p.x_dtype), floats);
            }
        // Lanes 32, 16 and 8 apart are the thread's own, lanes 4, 2 and 1 apart those of other warps.
#pragma unroll
        for (int half = EACH / 2; half > 0; half /= 2)
#pragma unroll
            for (int j = 0; j < half; j++) lanes[j] = add(lanes[j], lanes[j + half], floats);
        sums[warp * 32 + column] = lanes[0];
        __syncthreads();
        for (int half = WARPS / 2; half > 0; half /= 2) {
            if (warp < half)
                sums[warp * 32 + column] = add(sums[warp * 32 + column], sums[(warp + half) * 32 + column], floats);
            __syncthreads();
        }
        if (warp == 0 && row < p.rows) finish(p, row, segment, sums[column]);
    }
}

// A thread block a row. Shared memory: two words a warp.
GV_KERNEL(gv_extreme, gv::ReduceParameters, 256, 1) {
    using namespace gv;
    GV_SHARED(u32, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll 1
    for (i64 row = blockIdx.x; row < p.rows; row += gridDim.x) {
        const i64 base = p.kept.offset(row);
        Best best{0, -1};
        for (i64 i = threadIdx.x; i < p.length; i += blockDim.x)
            best = better(best, {load(p.x, base + p.reduced.offset(i), p.x_dtype), i32(i)}, p);
        for (int half = 16; half > 0; half /= 2) {
            const u32 value = __shfl_down_sync(0xFFFFFFFFu, best.value, half);
            const i32 position = __shfl_down_sync(0xFFFFFFFFu, best.position, half);
            best = better(best, {value, position}, p);
        }
        if (lane == 0) shared[2 * warp] = best.value, shared[2 * warp + 1] = u32(best.position);
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < warps; w++) best = better(best, {shared[2 * w], i32(shared[2 * w + 1])}, p);
            store(p.y, row, p.y_dtype, p.op >= 3 ? u32(best.position) : best.value);
        }
        __syncthreads();
    }
}

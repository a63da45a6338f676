// sort: stable positions of each row of the last axis. An element becomes a key of 64 bits, its value in an order that
// integers have and below it its position, so that no two keys are equal and any correct sort is stable. Keys are
// sorted by bitonic merging: steps over up to TILE keys in shared memory, wider ones in device memory. A row is filled
// up to a power of two; a tile has many short rows, or a part of a long one.
#include "device.h"

namespace gv {
namespace {

struct SortParameters {
    u64 x, keys, out;  // keys: u64 [rows][padded], filled up to whole tiles
    i64 dtype, rows, row, padded;
    i64 size, distance;  // of the bitonic step
    i64 targets;         // above 0: x are i32 rows of a scatter, and those outside of 0 .. targets - 1 come last
};

constexpr int TILE = 2048;

__device__ __forceinline__ u32 ordered(u32 bits, const SortParameters& p) {
    if (p.targets > 0) return bits < u64(p.targets) ? bits : 0xFFFFFFFFu;
    if (is_float(p.dtype)) {
        if (is_nan(as_float(bits))) return 0xFFFFFFFFu;
        if (bits == 0x80000000u) bits = 0;  // -0 equals +0
        return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    }
    return is_signed(p.dtype) ? bits ^ 0x80000000u : bits;
}

__device__ __forceinline__ void exchange(u64& a, u64& b, bool ascending) {
    if ((a > b) == ascending) {
        const u64 t = a;
        a = b, b = t;
    }
}

// Steps with distances from `distance` down to 1, of merges of `size` keys, over a tile in shared memory. `first`: of
// the tile's keys, in its row.
__device__ __forceinline__ void merge(u64* tile, i64 first, i64 padded, i64 size, int distance) {
    for (; distance > 0; distance /= 2) {
        for (int t = threadIdx.x; t < TILE / 2; t += blockDim.x) {
            const int i = t / distance * 2 * distance + t % distance;
            exchange(tile[i], tile[i + distance], ((first + i) & (padded - 1) & size) == 0);
        }
        __syncthreads();
    }
}

__device__ __forceinline__ i64 tiles(const SortParameters& p) { return (p.rows * p.padded + TILE - 1) / TILE; }

}  // namespace
}  // namespace gv

GV_KERNEL(gv_sort_keys, gv::SortParameters, 256, 1) {
    using namespace gv;
#pragma unroll 1
    for (i64 e = thread_index(); e < tiles(p) * TILE; e += thread_count()) {
        const i64 row = e / p.padded, i = e % p.padded;
        const bool filled = row < p.rows && i < p.row;
        const u64 key = filled ? u64(ordered(load(p.x, row * p.row + i, p.dtype), p)) << 32 | u64(i) : ~u64(0);
        reinterpret_cast<u64*>(p.keys)[e] = key;
    }
}

// Sorts the rows of every tile, or of a longer row every tile (size 0), or ends a merge of `size` keys whose wider
// steps are done.
GV_KERNEL(gv_sort_tile, gv::SortParameters, 256, 1) {
    using namespace gv;
    GV_SHARED(u64, tile);
#pragma unroll 1
    for (i64 block = blockIdx.x; block < tiles(p); block += gridDim.x) {
        u64* const keys = reinterpret_cast<u64*>(p.keys) + block * TILE;
        const i64 first = block * TILE % p.padded;
        for (int i = threadIdx.x; i < TILE; i += blockDim.x) tile[i] = keys[i];
        __syncthreads();
        if (p.size)
            merge(tile, first, p.padded, p.size, TILE / 2);
        else
            for (int size = 2; size <= TILE && size <= p.padded; size *= 2)
                merge(tile, first, p.padded, size, size / 2);
        // The next tile's keys come to where this thread has just read, so nobody has to wait.
        for (int i = threadIdx.x; i < TILE; i += blockDim.x) keys[i] = tile[i];
    }
}

GV_KERNEL(gv_sort_step, gv::SortParameters, 256, 1) {
    using namespace gv;
#pragma unroll 1
    for (i64 t = thread_index(); t < p.rows * p.padded / 2; t += thread_count()) {
        const i64 i = t / p.distance * 2 * p.distance + t % p.distance;
        u64* const keys = reinterpret_cast<u64*>(p.keys) + i;
        exchange(keys[0], keys[p.distance], ((i % p.padded) & p.size) == 0);
    }
}

GV_KERNEL(gv_sort_positions, gv::SortParameters, 256, 1) {
    using namespace gv;
#pragma unroll 1
    for (i64 e = thread_index(); e < p.rows * p.row; e += thread_count())
        reinterpret_cast<i32*>(p.out)[e] = i32(reinterpret_cast<const u64*>(p.keys)[e / p.row * p.padded + e % p.row]);
}

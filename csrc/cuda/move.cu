// copy, fill, gather and scatter_add: bits move; scatter_add adds in ascending order of the source, without atomics.
#include "device.h"

namespace gv {
namespace {

struct CopyParameters {
    u64 source, target;
    i64 size, count;  // bytes an element; elements
    Axes from, to;
};
struct FillParameters {
    u64 target;
    i64 size, count, bits;
};
struct GatherParameters {
    u64 data, index, out;
    i64 rows, row, count;
    i64 size, outside;  // bytes an element; the bits of an element whose index is outside of the rows
};
struct ScatterParameters {
    u64 source, sorted, out;  // sorted: of every source row its target << 32 | its number, in ascending order
    i64 rows, row, count;
    i64 source_dtype, out_dtype;
};

__device__ __forceinline__ u32 get(u64 at, i64 element, i64 size) {
    if (size == 4) return reinterpret_cast<const u32*>(at)[element];
    return size == 2 ? reinterpret_cast<const u16*>(at)[element] : reinterpret_cast<const u8*>(at)[element];
}
__device__ __forceinline__ void put(u64 at, i64 element, i64 size, u32 bits) {
    if (size == 4)
        reinterpret_cast<u32*>(at)[element] = bits;
    else if (size == 2)
        reinterpret_cast<u16*>(at)[element] = u16(bits);
    else
        reinterpret_cast<u8*>(at)[element] = u8(bits);
}

}  // namespace
}  // namespace gv

GV_KERNEL(gv_copy, gv::CopyParameters, 256, 1) {
#pragma unroll 1
    for (gv::i64 e = gv::thread_index(); e < p.count; e += gv::thread_count())
        gv::put(p.target, p.to.offset(e), p.size, gv::get(p.source, p.from.offset(e), p.size));
}

// A matrix whose axes change places: from.strides {1, a}, to.strides {b, 1}. Tiles of 32 x 32 go through shared memory,
// so that both sides are read and written along their contiguous axis. blockDim is 32 x 8; blockIdx.z the third axis.
GV_KERNEL(gv_transpose, gv::CopyParameters, 256, 1) {
    using namespace gv;
    GV_SHARED(u32, tile);  // [32][33]
    const int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
    const i64 rows = p.from.shape[1], columns = p.from.shape[2];
    const i64 from = i64(blockIdx.z) * p.from.strides[0], to = i64(blockIdx.z) * p.to.strides[0];
    const i64 row0 = i64(blockIdx.x) * 32, column0 = i64(blockIdx.y) * 32;
    for (int j = ty; j < 32; j += 8)
        if (row0 + tx < rows && column0 + j < columns)
            tile[j * 33 + tx] = get(p.source, from + row0 + tx + (column0 + j) * p.from.strides[2], p.size);
    __syncthreads();
    for (int i = ty; i < 32; i += 8)
        if (row0 + i < rows && column0 + tx < columns)
            put(p.target, to + (row0 + i) * p.to.strides[1] + column0 + tx, p.size, tile[tx * 33 + i]);
}

GV_KERNEL(gv_fill, gv::FillParameters, 256, 1) {
#pragma unroll 1
    for (gv::i64 e = gv::thread_index(); e < p.count; e += gv::thread_count())
        gv::put(p.target, e, p.size, gv::u32(p.bits));
}

GV_KERNEL(gv_gather, gv::GatherParameters, 256, 1) {
    using namespace gv;
#pragma unroll 1
    for (i64 e = thread_index(); e < p.count * p.row; e += thread_count()) {
        const i64 i = e / p.row, at = reinterpret_cast<const i32*>(p.index)[i];
        const bool inside = at >= 0 && at < p.rows;
        put(p.out, e, p.size, inside ? get(p.data, at * p.row + e % p.row, p.size) : u32(p.outside));
    }
}

// A thread an element of the output: finds the first source row of its target, and adds them all in their order.
GV_KERNEL(gv_scatter_add, gv::ScatterParameters, 256, 1) {
    using namespace gv;
    const u64* const sorted = reinterpret_cast<const u64*>(p.sorted);
    const bool floats = is_float(p.source_dtype);
#pragma unroll 1
    for (i64 e = thread_index(); e < p.rows * p.row; e += thread_count()) {
        const i64 target = e / p.row, column = e % p.row;
        i64 low = 0, high = p.count;
        while (low < high) {
            const i64 middle = (low + high) / 2;
            if (i64(sorted[middle] >> 32) < target)
                low = middle + 1;
            else
                high = middle;
        }
        u32 sum = 0;
        for (; low < p.count && i64(sorted[low] >> 32) == target; low++) {
            const u32 x = load(p.source, i64(u32(sorted[low])) * p.row + column, p.source_dtype);
            sum = floats ? as_bits(__fadd_rn(as_float(sum), as_float(x))) : sum + x;
        }
        store(p.out, e, p.out_dtype, sum);
    }
}

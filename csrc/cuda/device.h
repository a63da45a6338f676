// What the CUDA kernels share: names that a host compiler can stand in for, loads and stores of tensor elements, and
// the order constants of docs/numerics.md.
//
// Compiled by nvcc to PTX (-fmad=false --ftz=false --prec-div=true --prec-sqrt=true), and by an ordinary C++ compiler
// with tests/emulation/cuda.h in place of CUDA. A kernel takes one struct of 64-bit integers, so that whoever launches
// it needs no header: docs/devices.md lists the structs.
#pragma once
#ifdef __CUDACC__
#define GV_SHARED(T, name)                                     \
    extern __shared__ __align__(16) unsigned char gv_shared[]; \
    T* const name = reinterpret_cast<T*>(gv_shared)
// A kernel with parameters `p`, of at most `threads` in a block, where so many blocks should fit a multiprocessor.
#define GV_KERNEL(name, Parameters, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Parameters p)
#else
#include "cuda.h"
#endif

namespace gv {

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef long long i64;
typedef unsigned long long u64;

// The codes of program/types.py.
enum { F32 = 0, BF16 = 1, F16 = 2, I32 = 3, U32 = 4, U8 = 5, BOOLEAN = 6, I8 = 7 };

constexpr u32 NAN_BITS = 0x7FC00000u;
constexpr int DOT_BLOCK = 128;  // values of k in a block of dot
constexpr int LANES = 64;       // of a sum
constexpr int SEGMENT = 2048;   // values of a sum's segment
constexpr int MAX_AXES = 16;

__device__ __forceinline__ float as_float(u32 bits) { return __uint_as_float(bits); }
__device__ __forceinline__ u32 as_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ bool is_nan(float x) { return x != x; }
__device__ __forceinline__ u32 canonical(float x) { return is_nan(x) ? NAN_BITS : as_bits(x); }

// binary16. The device converts exactly and rounds once, to nearest even, subnormals and all; on the host by integers.
#ifdef __CUDACC__
__device__ __forceinline__ float widen_f16(u16 h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}
__device__ __forceinline__ u16 narrow_f16(float x) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return is_nan(x) ? 0x7E00 : h;
}
#else
inline float widen_f16(u16 h) { return emulation::f16_to_f32(h); }
inline u16 narrow_f16(float x) { return is_nan(x) ? 0x7E00 : emulation::f32_to_f16(x); }
#endif
__device__ __forceinline__ u16 narrow_bf16(float x) {
    const u32 bits = as_bits(x);
    return is_nan(x) ? u16(0x7FC0) : u16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// The register of a stored element: its bits.
__device__ __forceinline__ u32 load(u64 at, i64 element, i64 dtype) {
    switch (dtype) {
        case BF16:
            return u32(reinterpret_cast<const u16*>(at)[element]) << 16;
        case F16:
            return as_bits(widen_f16(reinterpret_cast<const u16*>(at)[element]));
        case U8:
        case BOOLEAN:
            return reinterpret_cast<const u8*>(at)[element];
        case I8:
            return u32(reinterpret_cast<const i8*>(at)[element]);
        default:
            return reinterpret_cast<const u32*>(at)[element];
    }
}
// The one rounding, and the one NaN, at the store of a float.
__device__ __forceinline__ void store_float(u64 at, i64 element, i64 dtype, float x) {
    switch (dtype) {
        case BF16:
            reinterpret_cast<u16*>(at)[element] = narrow_bf16(x);
            break;
        case F16:
            reinterpret_cast<u16*>(at)[element] = narrow_f16(x);
            break;
        default:
            reinterpret_cast<u32*>(at)[element] = canonical(x);
    }
}
__device__ __forceinline__ void store(u64 at, i64 element, i64 dtype, u32 bits) {
    switch (dtype) {
        case U8:
        case BOOLEAN:
        case I8:
            reinterpret_cast<u8*>(at)[element] = u8(bits);
            break;
        case I32:
        case U32:
            reinterpret_cast<u32*>(at)[element] = bits;
            break;
        default:
            store_float(at, element, dtype, as_float(bits));
    }
}
__device__ __forceinline__ bool is_float(i64 dtype) { return dtype <= F16; }
__device__ __forceinline__ bool is_signed(i64 dtype) { return dtype == I32 || dtype == I8; }  // of integers

// Axes, the last one fastest: the offset of position `i` in row-major order.
struct Axes {
    i64 rank;
    i64 shape[MAX_AXES], strides[MAX_AXES];

    __device__ __forceinline__ i64 offset(i64 i) const {
        if (rank == 1) return i * strides[0];  // the most frequent by far
        i64 sum = 0;
        for (int axis = int(rank) - 1; axis >= 0; axis--) {
            const i64 d = shape[axis];
            // 64-bit division is a subroutine on a GPU.
            const i64 q = (i | d) >> 32 ? i / d : i64(u32(i) / u32(d));
            sum += (i - q * d) * strides[axis];
            i = q;
        }
        return sum;
    }
};

__device__ __forceinline__ i64 thread_index() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ i64 thread_count() { return i64(gridDim.x) * blockDim.x; }

}  // namespace gv

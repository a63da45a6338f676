// CUDA C++ for a host compiler: what csrc/cuda uses of it, on the threads of threads.h. Build with -ffp-contract=off.
#pragma once
#include "threads.h"

#define __device__
#define __forceinline__ inline
// A kernel is a function of the address of its parameters, found by its name; NAME_bytes is their size.
#define GV_KERNEL(name, Parameters, threads, blocks)                                            \
    extern "C" const size_t name##_bytes = sizeof(Parameters);                                  \
    static void body_of_##name(const Parameters& p);                                            \
    extern "C" void name(const void* p) { body_of_##name(*static_cast<const Parameters*>(p)); } \
    static void body_of_##name(const Parameters& p)
#define GV_SHARED(T, name) T* const name = static_cast<T*>(emulation::shared_memory())
#ifndef GV_EMULATE_ASYNC
#define GV_EMULATE_ASYNC true
#endif

namespace emulation {
// What a launch does to an element of a dot before it is stored.
inline const std::function<float(float, int64_t)>* ending = nullptr;
inline void epilogue(float& x, int64_t at) {
    if (ending) x = (*ending)(x, at);
}
}  // namespace emulation

#define threadIdx (emulation::self->thread)
#define blockIdx (emulation::self->block)
#define blockDim (emulation::self->threads)
#define gridDim (emulation::self->blocks)

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline void __syncthreads() { emulation::barrier(); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { emulation::warp_barrier(mask); }
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
    return emulation::exchange(mask, value, unsigned(source) % emulation::WARP);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
    return emulation::exchange(mask, value, emulation::self->index % emulation::WARP + delta);
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline int __dp4a(int a, int b, int c) {
    unsigned sum = unsigned(c);
    for (int byte = 0; byte < 32; byte += 8) sum += unsigned(int8_t(a >> byte) * int8_t(b >> byte));
    return int(sum);
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t both = uint64_t(y) << 32 | x;
    unsigned out = 0;
    for (int byte = 0; byte < 4; byte++) out |= unsigned(both >> 8 * (selector >> 4 * byte & 7) & 255) << 8 * byte;
    return out;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

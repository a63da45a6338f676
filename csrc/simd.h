// Vectors of 32-bit lanes for the instruction set of this translation unit, by GCC/Clang vector extensions.
// Include it in kernel units only: everything is in an unnamed namespace, so that units compiled with other flags
// never share code. W is the lane count; the operators + - * / < == & | ^ >> << work lane by lane, `m ? a : b` selects.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#if defined(GV_ISA_avx512)
constexpr int W = 16;
#elif defined(GV_ISA_avx2)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float F __attribute__((vector_size(W * 4)));
typedef int32_t I __attribute__((vector_size(W * 4)));
typedef uint32_t U __attribute__((vector_size(W * 4)));

template <class V, class T> inline V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T> inline void store(T* p, V v) { std::memcpy(p, &v, sizeof v); }
inline F splat(float x) { return F{} + x; }  // +0 + x == x except for x == -0: use splat_bits there
inline U splat(uint32_t x) { return U{} + x; }

// The exact a*b+c of four-or-fewer-wide targets without a fused instruction: binary64 holds the product exactly
// (24 + 24 <= 53 bits), the sum is rounded to odd there (Boldo and Melquiond 2008), and then once to binary32.
inline float fma_by_double(float a, float b, float c) {
    const double p = double(a) * double(b), d = double(c), s = p + d;
    const double bb = s - p, error = (p - (s - bb)) + (d - bb);  // TwoSum: s + error == p + d exactly
    uint64_t bits;
    std::memcpy(&bits, &s, 8);
    if (error != 0 && error == error && (bits & 1) == 0) bits += ((error > 0) == (s > 0)) ? 1 : uint64_t(-1);
    double odd;
    std::memcpy(&odd, &bits, 8);
    return float(odd);
}

inline float fma1(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return fma_by_double(a, b, c);
#endif
}

inline F fma(F a, F b, F c) {
#if defined(GV_ISA_avx512)
    return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(GV_ISA_avx2)
    return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    F r;
    for (int i = 0; i < W; i++) r[i] = fma1(a[i], b[i], c[i]);
    return r;
#endif
}

}  // namespace

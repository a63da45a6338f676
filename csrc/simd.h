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

template <class V, class T>
inline V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T>
inline void store(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
}
// A store past the caches, for what nobody reads soon: memory need not be read first. p is aligned to a vector.
// `end_streams` orders such stores before all later ones.
template <class V>
inline void stream(uint32_t* p, V v) {
#if defined(GV_ISA_avx512)
    _mm512_stream_si512((__m512i*)p, (__m512i)v);
#elif defined(GV_ISA_avx2)
    _mm256_stream_si256((__m256i*)p, (__m256i)v);
#else
    store(p, v);
#endif
}
inline void end_streams() {
#if defined(GV_ISA_avx512) || defined(GV_ISA_avx2)
    _mm_sfence();
#endif
}
// The first n lanes, 1 <= n <= W, and nothing beyond them in memory; the other lanes of the vector are +0.
inline F load_first(const float* p, int n) {
#if defined(GV_ISA_avx512)
    return (F)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
#else
    F v{};
    std::memcpy(&v, p, size_t(n) * 4);
    return v;
#endif
}
inline void store_first(float* p, F v, int n) {
#if defined(GV_ISA_avx512)
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
#else
    std::memcpy(p, &v, size_t(n) * 4);
#endif
}
inline F splat(float x) { return x - F{}; }  // x - 0 is x, for -0 too
inline U splat(uint32_t x) { return U{} + x; }
inline F canonical(F a) { return a == a ? a : (F)splat(uint32_t(0x7FC00000)); }  // a NaN is one value

// Without a fused instruction: binary64 holds the product exactly (24 + 24 <= 53 bits, exponents far from its limits),
// the sum is rounded to odd there, and so the rounding to binary32 is that of the exact a*b+c (Boldo and Melquiond
// 2008).
typedef double D2 __attribute__((vector_size(16)));
typedef int64_t Q2 __attribute__((vector_size(16)));
inline D2 fma_to_odd(D2 a, D2 b, D2 c) {
    const D2 product = a * b, sum = product + c;
    const D2 from_c = sum - product, error = (product - (sum - from_c)) + (c - from_c);  // TwoSum: sum + error is exact
    const Q2 bits = (Q2)sum, even = ~bits & 1, inward = ((Q2)error ^ bits) >> 63;        // all ones where signs differ
    const Q2 inexact = (Q2)(error != D2{}) & (Q2)(error == error);  // error is NaN where sum is infinite
    return (D2)(bits + (((even ^ inward) - inward) & inexact));     // one step towards the exact sum
}

inline float fma1(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    float r = float(fma_to_odd(D2{a}, D2{b}, D2{c})[0]);
#if defined(__x86_64__)
    asm("" : "+x"(r));  // gcc 12 -O2 loses this rounding where r becomes a double again (SLP vectoriser)
#endif
    return r;
#endif
}

inline F fma(F a, F b, F c) {
#if defined(GV_ISA_avx512)
    return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(GV_ISA_avx2)
    return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif defined(__x86_64__)
    // By conversion instructions: from scalar conversions of lanes gcc 12 -O2 loses roundings.
    const __m128 x = (__m128)a, y = (__m128)b, z = (__m128)c;
    const D2 low = fma_to_odd((D2)_mm_cvtps_pd(x), (D2)_mm_cvtps_pd(y), (D2)_mm_cvtps_pd(z));
    const D2 high = fma_to_odd((D2)_mm_cvtps_pd(_mm_movehl_ps(x, x)), (D2)_mm_cvtps_pd(_mm_movehl_ps(y, y)),
                               (D2)_mm_cvtps_pd(_mm_movehl_ps(z, z)));
    return (F)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)low), _mm_cvtpd_ps((__m128d)high));
#else
    F r;
    for (int i = 0; i < W; i++) r[i] = fma1(a[i], b[i], c[i]);
    return r;
#endif
}

}  // namespace

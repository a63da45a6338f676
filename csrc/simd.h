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

// Bits, storage dtypes. A NaN is one value: 0x7FC00000, in bf16 0x7FC0, in f16 0x7E00.
inline uint32_t bits_of(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return u;
}
inline float float_of(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}
inline float canonical(float x) { return x == x ? x : float_of(0x7FC00000); }
inline F canonical(F x) { return (F)(x == x ? (U)x : splat(uint32_t(0x7FC00000))); }

inline float widen_bf16(uint16_t h) { return float_of(uint32_t(h) << 16); }
inline uint16_t narrow_bf16(float x) {
    if (x != x) return 0x7FC0;
    const uint32_t u = bits_of(x);
    return uint16_t((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

inline float widen_f16(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = h & 0x7FFF;
    if (magnitude >= 0x7C00) return float_of(sign | 0x7F800000 | (magnitude & 0x3FF) << 13);
    if (magnitude < 0x400) return float_of(sign | bits_of(float(magnitude) * 0x1p-24f));  // subnormal, exact
    return float_of(sign | ((magnitude << 13) + (112u << 23)));
}
inline uint16_t narrow_f16(float x) {
    if (x != x) return 0x7E00;
    const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7FFFFFFF;
    if (magnitude >= 0x47800000) return uint16_t(sign | 0x7C00);  // 2^16 and above; from 65520 the carry below gives inf
    if (magnitude < 0x38800000)  // below 2^-14: one unit in the last place of 0.5 is 2^-24, so the addition rounds
        return uint16_t(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3F000000));
    return uint16_t(sign | ((magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13));
}

}  // namespace

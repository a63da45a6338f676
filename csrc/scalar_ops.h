// What every operation of scalar programs computes, lane by lane, and how elements are loaded and stored.
// One function an operation, named as in program/scalar.py with '.' as '_'; the definition in words is
// docs/numerics.md. A NaN may have any payload inside a register: `canonical` makes it the one NaN wherever its bits
// can be seen.
#pragma once
#include <utility>

#include "kernels.h"
#include "simd.h"

namespace gv {
namespace {

typedef I M;  // booleans: all ones or all zeros

inline F canonical(F a) { return a == a ? a : (F)splat(uint32_t(0x7FC00000)); }
inline F zero_where(M m, F a) { return (F)((U)a & ~(U)m); }

inline F add_f32(F a, F b) { return a + b; }
inline F sub_f32(F a, F b) { return a - b; }
inline F mul_f32(F a, F b) { return a * b; }
inline F div_f32(F a, F b) { return a / b; }
inline F fma_f32(F a, F b, F c) { return fma(a, b, c); }
inline F neg_f32(F a) { return (F)((U)a ^ splat(0x80000000u)); }
inline F abs_f32(F a) { return (F)((U)a & splat(0x7FFFFFFFu)); }

inline F sqrt_f32(F a) {
#if defined(GV_ISA_avx512)
    return (F)_mm512_sqrt_ps((__m512)a);
#elif defined(GV_ISA_avx2)
    return (F)_mm256_sqrt_ps((__m256)a);
#elif defined(__x86_64__)
    return (F)_mm_sqrt_ps((__m128)a);
#elif defined(__aarch64__)
    return (F)vsqrtq_f32((float32x4_t)a);
#else
    F r;
    for (int i = 0; i < W; i++) r[i] = __builtin_sqrtf(a[i]);
    return r;
#endif
}

inline M eq_f32(F a, F b) { return a == b; }
inline M lt_f32(F a, F b) { return a < b; }
inline M le_f32(F a, F b) { return a <= b; }

// x86 gives b where a and b are equal or one is NaN: equal values differ at most in the sign of zero, which `and` and
// `or` of the two orders settle.
inline F max_or_second(F a, F b) {
#if defined(GV_ISA_avx512)
    return (F)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(GV_ISA_avx2)
    return (F)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (F)_mm_max_ps((__m128)a, (__m128)b);
#else
    return a > b ? a : b;
#endif
}
inline F min_or_second(F a, F b) {
#if defined(GV_ISA_avx512)
    return (F)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(GV_ISA_avx2)
    return (F)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (F)_mm_min_ps((__m128)a, (__m128)b);
#else
    return a < b ? a : b;
#endif
}
// A NaN on either side makes a + b a NaN.
inline F nan_of(F a, F b, F r) {
    const F s = a + b;
    return ((a == a) & (b == b)) != 0 ? r : s;
}
inline F max_f32(F a, F b) { return nan_of(a, b, (F)((U)max_or_second(a, b) & (U)max_or_second(b, a))); }
inline F min_f32(F a, F b) { return nan_of(a, b, (F)((U)min_or_second(a, b) | (U)min_or_second(b, a))); }

inline I add_i32(I a, I b) { return (I)((U)a + (U)b); }
inline I sub_i32(I a, I b) { return (I)((U)a - (U)b); }
inline I mul_i32(I a, I b) { return (I)((U)a * (U)b); }
inline U add_u32(U a, U b) { return a + b; }
inline U sub_u32(U a, U b) { return a - b; }
inline U mul_u32(U a, U b) { return a * b; }

// Products of even and of odd lanes, 64 bits each; the high halves are merged.
inline U mulhi_u32(U a, U b) {
#if defined(GV_ISA_avx512)
    const __m512i even = _mm512_mul_epu32((__m512i)a, (__m512i)b);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), _mm512_srli_epi64((__m512i)b, 32));
    return (U)_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
#elif defined(GV_ISA_avx2)
    const __m256i even = _mm256_mul_epu32((__m256i)a, (__m256i)b);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), _mm256_srli_epi64((__m256i)b, 32));
    return (U)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
#else
    U r;
    for (int i = 0; i < W; i++) r[i] = uint32_t(uint64_t(a[i]) * b[i] >> 32);
    return r;
#endif
}
// As unsigned numbers, negative operands are 2^32 too large: take that off the high half.
inline I mulhi_i32(I a, I b) {
    const U u = mulhi_u32((U)a, (U)b);
    return (I)(u - ((U)(a >> 31) & (U)b) - ((U)(b >> 31) & (U)a));
}

inline I min_i32(I a, I b) { return a < b ? a : b; }
inline I max_i32(I a, I b) { return a > b ? a : b; }
inline U min_u32(U a, U b) { return a < b ? a : b; }
inline U max_u32(U a, U b) { return a > b ? a : b; }

inline I and_i32(I a, I b) { return a & b; }
inline I or_i32(I a, I b) { return a | b; }
inline I xor_i32(I a, I b) { return a ^ b; }
inline I not_i32(I a) { return ~a; }
inline U and_u32(U a, U b) { return a & b; }
inline U or_u32(U a, U b) { return a | b; }
inline U xor_u32(U a, U b) { return a ^ b; }
inline U not_u32(U a) { return ~a; }
inline M and_boolean(M a, M b) { return a & b; }
inline M or_boolean(M a, M b) { return a | b; }
inline M xor_boolean(M a, M b) { return a ^ b; }
inline M not_boolean(M a) { return ~a; }

inline I shl_i32(I a, U b) { return (I)((U)a << (b & splat(31u))); }
inline I shr_i32(I a, U b) { return a >> (I)(b & splat(31u)); }
inline U shl_u32(U a, U b) { return a << (b & splat(31u)); }
inline U shr_u32(U a, U b) { return a >> (b & splat(31u)); }

inline M eq_i32(I a, I b) { return a == b; }
inline M lt_i32(I a, I b) { return a < b; }
inline M le_i32(I a, I b) { return a <= b; }
inline M eq_u32(U a, U b) { return a == b; }
inline M lt_u32(U a, U b) { return a < b; }
inline M le_u32(U a, U b) { return a <= b; }

inline F select_f32(M m, F a, F b) { return m ? a : b; }
inline I select_i32(M m, I a, I b) { return m ? a : b; }
inline U select_u32(M m, U a, U b) { return m ? a : b; }
inline M select_boolean(M m, M a, M b) { return (m & a) | (~m & b); }

// Only values in range reach the conversion, so nothing depends on what a CPU gives outside it.
inline I f32_to_i32(F a) {
    const F limit = splat(0x1p31f);
    const M low = a < -limit, high = a >= limit, bad = low | high | (a != a);
    const I r = __builtin_convertvector(zero_where(bad, a), I);
    return high ? I{} + INT32_MAX : low ? I{} + INT32_MIN : r;
}
inline U f32_to_u32(F a) {
    const M positive = a > F{}, high = a >= splat(0x1p32f), upper = a >= splat(0x1p31f);
    const F shifted = upper ? a - splat(0x1p31f) : a;  // exact: both have exponent 31
    const I r = __builtin_convertvector(zero_where(~positive | high, shifted), I);
    const U u = (U)r ^ ((U)upper & splat(0x80000000u));
    return high ? splat(0xFFFFFFFFu) : u;
}
inline F i32_to_f32(I a) { return __builtin_convertvector(a, F); }
inline F u32_to_f32(U a) {
#if defined(GV_ISA_avx512)
    return (F)_mm512_cvtepu32_ps((__m512i)a);
#else
    // Both halves are exact; the one rounding is the addition's.
    const F high = __builtin_convertvector((I)(a >> 16), F), low = __builtin_convertvector((I)(a & splat(0xFFFFu)), F);
    return high * splat(0x1p16f) + low;
#endif
}
inline U boolean_to_u32(M m) { return (U)m & splat(1u); }
inline U f32_bits_to_u32(F a) { return (U)canonical(a); }
inline F u32_bits_to_f32(U a) { return (F)a; }
inline U i32_bits_to_u32(I a) { return (U)a; }
inline I u32_bits_to_i32(U a) { return (I)a; }

// Storage. H and Q hold W elements of 2 bytes and of 1 byte.
typedef uint16_t H __attribute__((vector_size(W * 2)));
typedef uint8_t Q __attribute__((vector_size(W)));
typedef int8_t S __attribute__((vector_size(W)));

inline U widen_bf16(H h) { return __builtin_convertvector(h, U) << 16; }
// Exponents move by 112; as a product with a power of two this also normalises subnormals, exactly.
inline U widen_f16(H h) {
    const U u = __builtin_convertvector(h, U), magnitude = u & splat(0x7FFFu);
    const U finite = (U)((F)(magnitude << 13) * splat(0x1p112f)), special = (magnitude << 13) | splat(0x7F800000u);
    return (magnitude >= splat(0x7C00u) ? special : finite) | ((u & splat(0x8000u)) << 16);
}
inline H narrow_bf16(F a) {
    const U u = (U)a, rounded = (u + splat(0x7FFFu) + ((u >> 16) & splat(1u))) >> 16;
    return __builtin_convertvector(a == a ? rounded : splat(0x7FC0u), H);
}
// Normal results round in the integer representation; subnormal ones by adding 0.5, whose ulp is their unit 2^-24.
inline H narrow_f16(F a) {
    const U u = (U)a, magnitude = u & splat(0x7FFFFFFFu), sign = (u >> 16) & splat(0x8000u);
    const U normal = (magnitude + splat(0xFFFu) + ((magnitude >> 13) & splat(1u)) - splat(112u << 23)) >> 13;
    const U subnormal = (U)((F)magnitude + splat(0.5f)) - (U)splat(0.5f);
    U r = magnitude < splat(113u << 23) ? subnormal : normal;
    r = magnitude >= splat(0x477FF000u) ? splat(0x7C00u) : r;  // 65520 and above
    return __builtin_convertvector(a == a ? r | sign : splat(0x7E00u), H);
}

// One vector of registers from W elements at p, and back.
template <Dtype D>
inline U load_element(const void* p) {
    if constexpr (D == Dtype::bf16)
        return widen_bf16(load<H>(static_cast<const uint16_t*>(p)));
    else if constexpr (D == Dtype::f16)
        return widen_f16(load<H>(static_cast<const uint16_t*>(p)));
    else if constexpr (D == Dtype::u8)
        return __builtin_convertvector(load<Q>(static_cast<const uint8_t*>(p)), U);
    else if constexpr (D == Dtype::i8)
        return (U) __builtin_convertvector(load<S>(static_cast<const int8_t*>(p)), I);
    else if constexpr (D == Dtype::boolean)
        return (U)(__builtin_convertvector(load<Q>(static_cast<const uint8_t*>(p)), U) != U{});
    else
        return load<U>(static_cast<const uint32_t*>(p));
}
template <Dtype D>
inline void store_element(void* p, U v) {
    if constexpr (D == Dtype::f32)
        store(static_cast<uint32_t*>(p), canonical((F)v));
    else if constexpr (D == Dtype::bf16)
        store(static_cast<uint16_t*>(p), narrow_bf16((F)v));
    else if constexpr (D == Dtype::f16)
        store(static_cast<uint16_t*>(p), narrow_f16((F)v));
    else if constexpr (D == Dtype::u8 || D == Dtype::i8)
        store(static_cast<uint8_t*>(p), __builtin_convertvector(v, Q));
    else if constexpr (D == Dtype::boolean)
        store(static_cast<uint8_t*>(p), __builtin_convertvector(v & splat(1u), Q));
    else
        store(static_cast<uint32_t*>(p), v);
}

// Calls body(std::integral_constant<Dtype, D>) for the dtype at run time.
template <Dtype D>
struct DtypeConstant {
    static constexpr Dtype value = D;
};
template <class Body>
inline void with_dtype(Dtype d, Body&& body) {
    switch (d) {
        case Dtype::f32:
            return body(DtypeConstant<Dtype::f32>{});
        case Dtype::bf16:
            return body(DtypeConstant<Dtype::bf16>{});
        case Dtype::f16:
            return body(DtypeConstant<Dtype::f16>{});
        case Dtype::i32:
            return body(DtypeConstant<Dtype::i32>{});
        case Dtype::u32:
            return body(DtypeConstant<Dtype::u32>{});
        case Dtype::u8:
            return body(DtypeConstant<Dtype::u8>{});
        case Dtype::boolean:
            return body(DtypeConstant<Dtype::boolean>{});
        case Dtype::i8:
            return body(DtypeConstant<Dtype::i8>{});
    }
}

// The first n lanes from p, 0 < n < W, reading nothing beyond them; the others from `rest`.
template <class V>
inline V load_part(const uint32_t* p, int64_t n, V rest) {
#if defined(GV_ISA_avx512)
    return (V)_mm512_mask_loadu_epi32((__m512i)rest, __mmask16((1u << n) - 1), p);
#elif defined(GV_ISA_avx2)
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    return (V)_mm256_blendv_epi8((__m256i)rest, _mm256_maskload_epi32(reinterpret_cast<const int*>(p), mask), mask);
#else
    U u = (U)rest;
    for (int64_t i = 0; i < n; i++) u[i] = p[i];
    return (V)u;
#endif
}

// The next vector's worth of 32-bit registers: step W for a tensor, 0 for one vector that serves all elements.
struct Operand {
    const uint32_t* at;
    int64_t step;
};
typedef void (*PublishedLoop)(int64_t vectors, const Operand* x, uint32_t* const* y);

template <int... i>
inline U pick_even(U a, U b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (2 * i)...);
}
inline U even_lanes(U a, U b) { return pick_even(a, b, std::make_integer_sequence<int, W>()); }

// n elements, `stride` apart, into registers at dst, which has room for whole vectors; what lies beyond n is undefined.
template <Dtype D>
inline void load_elements(const uint8_t* src, int64_t stride, int64_t n, uint32_t* dst) {
    constexpr int size = dtype_size(D);
    alignas(64) uint8_t part[W * 4] = {};
    int64_t i = 0;
    if (stride == 1) {
        for (; i + W <= n; i += W) store(dst + i, load_element<D>(src + i * size));
        if (i == n) return;
        std::memcpy(part, src + i * size, size_t(n - i) * size);
        store(dst + i, load_element<D>(part));
    } else if (stride == 0) {
        for (int j = 0; j < W; j++) std::memcpy(part + j * size, src, size);
        for (const U v = load_element<D>(part); i < n; i += W) store(dst + i, v);
    } else {
        if constexpr (size == 4)  // the odd elements are loaded too, but never past the last even one
            if (stride == 2)
                for (; i + W < n; i += W)
                    store(dst + i,
                          even_lanes(load<U>((const uint32_t*)src + 2 * i), load<U>((const uint32_t*)src + 2 * i + W)));
        while (i < n) {
            const int64_t m = n - i < W ? n - i : W;
            for (int64_t j = 0; j < m; j++) std::memcpy(part + j * size, src + (i + j) * stride * size, size);
            store(dst + i, load_element<D>(part));
            i += m;
        }
    }
}
inline void load_elements(Dtype d, const void* src, int64_t stride, int64_t n, uint32_t* dst) {
    with_dtype(d, [&](auto c) { load_elements<c.value>(static_cast<const uint8_t*>(src), stride, n, dst); });
}
inline void store_elements(Dtype d, void* dst, Operand x, int64_t n) {
    with_dtype(d, [&](auto c) {
        constexpr int size = dtype_size(c.value);
        uint8_t* out = static_cast<uint8_t*>(dst);
        const uint32_t* at = x.at;
        int64_t i = 0;
        for (; i + W <= n; i += W, at += x.step) store_element<c.value>(out + i * size, load<U>(at));
        if (i == n) return;
        alignas(64) uint8_t part[W * 4];
        store_element<c.value>(part, load<U>(at));
        std::memcpy(out + i * size, part, size_t(n - i) * size);
    });
}

}  // namespace
}  // namespace gv

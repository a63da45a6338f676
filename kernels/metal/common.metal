// What the Metal kernels share: their signature, storage, the scalar operations of docs/numerics.md, sections 2 to 4,
// and the guard against flushed subnormals. Other files follow this one in one source.
//
// A register is a `uint` that holds the 32 bits of a value (a boolean: 0 or 1). A float exists only inside of the six
// operations that round: add, sub (as add), mul, div, sqrt, fma. All else is done by integers, so that nothing but
// those six can flush a subnormal, choose a NaN or a zero, or be contracted.
//
// The guard. An Apple GPU may take a subnormal operand for a zero, and give a zero, of either sign, where the result is
// subnormal before it is rounded (Metal Shading Language Specification, "Edge case behavior in flush to zero mode"). An
// operation raises `risky` where that can have happened: an operand is subnormal, or the result is a zero (or
// subnormal) that exact arithmetic need not give. Where no operation of a call was risky its bits are those of IEEE
// 754; otherwise the host computes the call again.
#include <metal_stdlib>
#if __METAL_VERSION__ >= 320  // before, whoever compiles turns fast math off
#pragma METAL fp math_mode(safe)
#endif
#pragma METAL fp contract(off)

using namespace metal;

#ifndef GV_SHARED  // tests/emulation/metal has its own
#define GV_SHARED(type, name) threadgroup type name
#define GV_LIMIT [[max_total_threads_per_threadgroup(256)]]  // or the compiler may settle for fewer
#endif

// Every kernel takes the arena, and numbers that it reads as a struct of 64-bit integers; places are bytes in the
// arena.
#define GV_KERNEL(name)                                                                                             \
    GV_LIMIT kernel void name(device uchar* arena [[buffer(0)]], constant long* given [[buffer(1)]],                \
                              uint3 group [[threadgroup_position_in_grid]], uint3 groups [[threadgroups_per_grid]], \
                              uint3 size [[threads_per_threadgroup]], uint me [[thread_index_in_threadgroup]],      \
                              uint lane [[thread_index_in_simdgroup]],                                              \
                              uint simdgroup [[simdgroup_index_in_threadgroup]])
#define GV_THREAD (long(group.x) * size.x + me)
#define GV_THREADS (long(groups.x) * size.x)

namespace gv {

// The codes of program/types.py.
enum { F32 = 0, BF16 = 1, F16 = 2, I32 = 3, U32 = 4, U8 = 5, BOOLEAN = 6, I8 = 7 };
enum : uint { SIGN = 0x80000000u, INFINITE = 0x7F800000u, NOT_A_NUMBER = 0x7FC00000u };
enum { DOT_BLOCK = 128, LANES = 64, SEGMENT = 2048, MAX_AXES = 16 };

// ---- bits ----

inline bool is_nan(uint x) { return (x & ~SIGN) > INFINITE; }
inline bool is_zero(uint x) { return (x & ~SIGN) == 0; }
inline bool is_tiny(uint x) { return (x & INFINITE) == 0; }  // zero or subnormal
inline bool is_subnormal(uint x) { return is_tiny(x) && !is_zero(x); }
inline bool is_infinite(uint x) { return (x & ~SIGN) == INFINITE; }
inline uint exponent(uint x) { return x >> 23 & 0xFF; }  // biased by 127
inline uint canonical(uint x) { return is_nan(x) ? uint(NOT_A_NUMBER) : x; }
inline bool is_float(long dtype) { return dtype <= F16; }
inline bool is_signed(long dtype) { return dtype == I32 || dtype == I8; }  // of integers

// ---- the operations that round ----

inline uint add(uint a, uint b, thread bool& risky) {
    const uint r = as_type<uint>(as_type<float>(a) + as_type<float>(b));
    const bool exact_zero = (a ^ b) == SIGN || is_zero(a | b);
    risky = risky || is_subnormal(a) || is_subnormal(b) || (is_tiny(r) && !exact_zero);
    return r;
}
inline uint subtract(uint a, uint b, thread bool& risky) { return add(a, b ^ SIGN, risky); }
inline uint multiply(uint a, uint b, thread bool& risky) {
    const uint r = as_type<uint>(as_type<float>(a) * as_type<float>(b));
    risky = risky || is_subnormal(a) || is_subnormal(b) || (is_tiny(r) && !is_zero(a) && !is_zero(b));
    return r;
}
inline uint divide(uint a, uint b, thread bool& risky) {
    const uint r = as_type<uint>(as_type<float>(a) / as_type<float>(b));
    risky = risky || is_subnormal(a) || is_subnormal(b) || (is_tiny(r) && !is_zero(a) && !is_infinite(b));
    return r;
}
inline uint root(uint a, thread bool& risky) {  // the root of a normal number is normal
    risky = risky || is_subnormal(a);
    return as_type<uint>(precise::sqrt(as_type<float>(a)));
}
// With e the exponents of a and b: a product is a multiple of 2^(ea + eb - 46), which is 2^-126, the smallest normal
// number, or more if ea + eb >= -80. Then the sum is zero or normal: an addend that is no multiple of 2^-126 is below
// 2^-102, too small to cancel a product of 2^-80 or more.
enum { LEAST_EXPONENTS = -80 + 2 * 127 };
inline uint multiply_add(uint a, uint b, uint c, thread bool& risky) {
    const uint r = as_type<uint>(fma(as_type<float>(a), as_type<float>(b), as_type<float>(c)));
    const bool far = exponent(a) + exponent(b) < LEAST_EXPONENTS && !is_zero(a) && !is_zero(b);
    risky = risky || is_subnormal(a) || is_subnormal(b) || is_subnormal(c) || (is_tiny(r) && far);
    return r;
}

// ---- floats by integers ----

// Ascends with x, -0 just below +0; not for NaN.
inline uint order(uint x) { return x & SIGN ? ~x : x | SIGN; }
inline uint one_zero(uint x) { return is_zero(x) ? 0 : x; }
inline bool unordered(uint a, uint b) { return is_nan(a) || is_nan(b); }
inline uint equal(uint a, uint b) { return !unordered(a, b) && one_zero(a) == one_zero(b); }
inline uint less(uint a, uint b) { return !unordered(a, b) && order(one_zero(a)) < order(one_zero(b)); }
inline uint less_equal(uint a, uint b) { return !unordered(a, b) && order(one_zero(a)) <= order(one_zero(b)); }
inline uint minimum(uint a, uint b) { return is_nan(a) ? a : is_nan(b) ? b : order(a) < order(b) ? a : b; }
inline uint maximum(uint a, uint b) { return is_nan(a) ? a : is_nan(b) ? b : order(a) > order(b) ? a : b; }

// |x| toward zero, for |x| below 2^32.
inline uint whole(uint x) {
    const uint e = exponent(x), m = (x & 0x7FFFFF) | 0x800000;
    return e < 127 ? 0 : e < 150 ? m >> (150 - e) : m << (e - 150);
}
inline uint to_i32(uint x) {
    if (is_nan(x)) return 0;
    if (exponent(x) >= 127 + 31) return x & SIGN ? 0x80000000u : 0x7FFFFFFFu;
    return x & SIGN ? 0 - whole(x) : whole(x);
}
inline uint to_u32(uint x) {
    if (is_nan(x) || x & SIGN) return 0;
    return exponent(x) >= 127 + 32 ? 0xFFFFFFFFu : whole(x);
}
inline uint from_u32(uint x) {
    if (x == 0) return 0;
    const uint shift = clz(x), bits = x << shift, kept = bits >> 8, lost = bits & 0xFF;
    return ((127 + 31 - shift) << 23) + (kept - 0x800000) + uint(lost > 0x80 || (lost == 0x80 && (kept & 1)));
}
inline uint from_i32(uint x) { return x & SIGN ? SIGN | from_u32(0 - x) : from_u32(x); }

// ---- integers ----

inline uint high_i32(uint a, uint b) { return uint(mulhi(int(a), int(b))); }
inline uint high_u32(uint a, uint b) { return mulhi(a, b); }
inline uint shift_right_i32(uint a, uint n) { return uint(int(a) >> (n & 31)); }

// ---- storage ----

inline uint widen_f16(uint h) {
    const uint sign = (h & 0x8000) << 16, rest = h & 0x7FFF;
    if (rest >= 0x7C00) return sign | ((rest << 13) + 0x70000000);
    if (rest >= 0x400) return sign | ((rest << 13) + 0x38000000);
    if (rest == 0) return sign;
    const uint shift = clz(rest);  // a subnormal: an integer times 2^-24
    return sign | (127 + 31 - 24 - shift) << 23 | (rest << (shift - 8) & 0x7FFFFF);
}
// Rounded once, to nearest even.
inline uint narrow_f16(uint x) {
    const uint sign = x >> 16 & 0x8000, m = x & ~SIGN;
    if (m > INFINITE) return 0x7E00;
    if (m >= 0x477FF000) return sign | 0x7C00;  // from 65520 on
    if (m < 0x33000000) return sign;            // below half of the smallest
    if (m >= 0x38800000) return sign | (m + 0xFFF + (m >> 13 & 1) - 0x38000000) >> 13;
    const uint shift = 126 - (m >> 23), bits = (m & 0x7FFFFF) | 0x800000;
    const uint kept = bits >> shift, lost = bits & ((1u << shift) - 1), half_unit = 1u << (shift - 1);
    return sign | (kept + uint(lost > half_unit || (lost == half_unit && (kept & 1))));
}
inline uint widen_i8(uint x) { return uint(int(x << 24) >> 24); }
inline uint narrow_bf16(uint x) { return is_nan(x) ? 0x7FC0 : (x + 0x7FFF + (x >> 16 & 1)) >> 16; }

inline uint get(device const uchar* at, long element, long bytes) {
    if (bytes == 4) return ((device const uint*)at)[element];
    return bytes == 2 ? ((device const ushort*)at)[element] : at[element];
}
inline void put(device uchar* at, long element, long bytes, uint bits) {
    if (bytes == 4)
        ((device uint*)at)[element] = bits;
    else if (bytes == 2)
        ((device ushort*)at)[element] = ushort(bits);
    else
        at[element] = uchar(bits);
}
inline long bytes_of(long dtype) { return dtype >= U8 ? 1 : dtype == BF16 || dtype == F16 ? 2 : 4; }
// The register of a stored element, and the stored element of a register.
inline uint widen(uint stored, long dtype) {
    return dtype == BF16 ? stored << 16 : dtype == F16 ? widen_f16(stored) : dtype == I8 ? widen_i8(stored) : stored;
}
inline uint narrow(uint x, long dtype) {
    return dtype == F32 ? canonical(x) : dtype == BF16 ? narrow_bf16(x) : dtype == F16 ? narrow_f16(x) : x;
}
inline uint load(device const uchar* at, long element, long dtype) {
    return widen(get(at, element, bytes_of(dtype)), dtype);
}
inline void store(device uchar* at, long element, long dtype, uint x) {
    put(at, element, bytes_of(dtype), narrow(x, dtype));
}

// ---- places ----

// i / d for numbers that are not negative. 64-bit division is slow on a GPU.
inline long quotient(long i, long d) { return (i | d) >> 31 ? i / d : long(int(i) / int(d)); }

// Axes, the last one fastest.
struct Axes {
    long rank;
    long shape[MAX_AXES], strides[MAX_AXES];
};
// The offset of position `i` in row-major order.
inline long offset(constant Axes& axes, long i) {
    if (axes.rank == 1) return i * axes.strides[0];
    long sum = 0;
    for (int axis = int(axes.rank) - 1; axis >= 0; axis--) {
        const long d = axes.shape[axis];
        const long q = quotient(i, d);
        sum += (i - q * d) * axes.strides[axis];
        i = q;
    }
    return sum;
}

// Tells the host that a call was risky.
inline void raise(device uchar* arena, long flag) {
    atomic_store_explicit((device atomic_uint*)(arena + flag), 1u, memory_order_relaxed);
}

}  // namespace gv

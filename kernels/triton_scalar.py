"""Registers, storage and the scalar operations of docs/numerics.md, sections 2 to 4, in Triton.

Memory is integers of the width of a dtype (`CARRIERS`); what a float is, is decided here, in registers. Kernels that
use this file are compiled with enable_fp_fusion=False, and use of float arithmetic + - *, tl.fma, tl.div_rn,
tl.sqrt_rn and comparisons alone: those are single IEEE 754 operations. The rest of this file is integers. Not to be
used, because approximate, flushing or without an order: `/`, unary minus (0 - x), tl.sqrt, tl.exp, tl.minimum, tl.sum,
tl.dot on floats, float atomics. The audit (triton_audit) reads what the compilers made of it.

Nothing here comes from Triton's own library of jitted functions, so that the interpreter (TRITON_INTERPRET=1) runs it
whoever imported Triton first.
"""

import triton
import triton.language as tl

CARRIERS = {
    "f32": "i32", "bf16": "i16", "f16": "i16", "i32": "i32", "u32": "i32", "u8": "u8", "boolean": "u8", "i8": "u8",
}  # fmt: skip


# ---- bits -------------------------------------------------------------------------------------------------------


@triton.jit
def bits_of(x):
    """The 32 bits of a register as u32."""
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def real(bits):
    """f32 with these bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def is_nan(x):
    return (bits_of(x) & 0x7FFFFFFF) > 0x7F800000


@triton.jit
def canonical(x):
    """The bits of a computed f32: every NaN is one."""
    return tl.where(is_nan(x), 0x7FC00000, bits_of(x))


# ---- storage ----------------------------------------------------------------------------------------------------


@triton.jit
def widen_f16(h):
    """f32 of the bits of an f16 (as u32): exact. A subnormal is an integer times 2^-24."""
    m = h & 0x7FFF
    normal = (m << 13) + tl.where(m >= 0x7C00, 0x70000000, 0x38000000).to(tl.uint32)
    subnormal = bits_of(m.to(tl.float32) * 5.9604644775390625e-08)
    return real(((h & 0x8000) << 16) | tl.where(m < 0x400, subnormal, normal))


@triton.jit
def narrow_f16(x):
    """Bits of f16 (as u32), rounded once to nearest even.

    Below 2^-14 the sum with 0.5, whose last place is 2^-24, rounds to the grid of f16's subnormals.
    """
    b = bits_of(x)
    m = b & 0x7FFFFFFF
    normal = (m - 0x38000000 + 0xFFF + ((m >> 13) & 1)) >> 13
    subnormal = bits_of(real(m) + 0.5) - 0x3F000000
    h = tl.where(m < 0x38800000, subnormal, normal)
    h = tl.where(m >= 0x477FF000, 0x7C00, h)
    return tl.where(m > 0x7F800000, 0x7E00, h | ((b >> 16) & 0x8000))


@triton.jit
def narrow_bf16(x):
    """Bits of bf16 (as u32), rounded once: plus half a unit, less one if the kept part is even; carries may run on."""
    b = bits_of(x)
    return tl.where(is_nan(x), 0x7FC0, (b + 0x7FFF + ((b >> 16) & 1)) >> 16)


@triton.jit
def widen(x, DTYPE: tl.constexpr):
    """The register (f32, i32, u32 or bool) of a loaded element: exact."""
    if DTYPE == "f32":
        return x.to(tl.float32, bitcast=True)
    elif DTYPE == "bf16":
        return real(x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16)
    elif DTYPE == "f16":
        return widen_f16(x.to(tl.uint16, bitcast=True).to(tl.uint32))
    elif DTYPE == "u32":
        return x.to(tl.uint32, bitcast=True)
    elif DTYPE == "u8":
        return x.to(tl.uint32)
    elif DTYPE == "boolean":
        return x != 0
    elif DTYPE == "i8":
        return x.to(tl.int8, bitcast=True).to(tl.int32)
    else:
        return x


@triton.jit
def narrow(x, DTYPE: tl.constexpr):
    """The stored element of a register: floats round once, and every NaN is the canonical one."""
    if DTYPE == "f32":
        return canonical(x).to(tl.int32, bitcast=True)
    elif DTYPE == "bf16":
        return narrow_bf16(x).to(tl.uint16).to(tl.int16, bitcast=True)
    elif DTYPE == "f16":
        return narrow_f16(x).to(tl.uint16).to(tl.int16, bitcast=True)
    elif DTYPE == "u32":
        return x.to(tl.int32, bitcast=True)
    elif DTYPE == "i32":
        return x
    else:  # u8 and i8 keep the low 8 bits; a boolean is 0 or 1
        return x.to(tl.uint8)


# ---- scalar operations ------------------------------------------------------------------------------------------


@triton.jit
def boolean(comparison):
    """The same: but Triton's interpreter takes what comes of comparing two scalars for a number of their type."""
    return tl.where(comparison, tl.full((), 1, tl.int1), tl.full((), 0, tl.int1))


@triton.jit
def negative(x):
    return real(bits_of(x) ^ 0x80000000)


@triton.jit
def magnitude(x):
    return real(bits_of(x) & 0x7FFFFFFF)


@triton.jit
def minimum(a, b):
    """NaN if either is NaN; -0 < +0."""
    smaller = tl.where((a < b) | ((a == b) & (bits_of(a) >= 0x80000000)), a, b)
    return tl.where(is_nan(a), a, tl.where(is_nan(b), b, smaller))


@triton.jit
def maximum(a, b):
    larger = tl.where((a > b) | ((a == b) & (bits_of(a) < 0x80000000)), a, b)
    return tl.where(is_nan(a), a, tl.where(is_nan(b), b, larger))


@triton.jit
def mulhi_i32(a, b):
    return ((a.to(tl.int64) * b.to(tl.int64)) >> 32).to(tl.int32)


@triton.jit
def mulhi_u32(a, b):
    return ((a.to(tl.uint64) * b.to(tl.uint64)) >> 32).to(tl.uint32)


@triton.jit
def truncate_i32(x):
    """Toward zero, saturating; NaN gives 0. Only what fits reaches the machine's conversion."""
    fits = (x >= -2147483648.0) & (x < 2147483648.0)
    whole = tl.where(fits, x, 0.0).to(tl.int32)
    return tl.where(x >= 2147483648.0, 0x7FFFFFFF, tl.where(x < -2147483648.0, -0x80000000, whole))


@triton.jit
def truncate_u32(x):
    fits = (x >= 0.0) & (x < 4294967296.0)
    whole = tl.where(fits, x, 0.0).to(tl.uint32)
    return tl.where(x >= 4294967296.0, 0xFFFFFFFF, whole)


_FLOAT = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "tl.div_rn({0}, {1})", "sqrt": "tl.sqrt_rn({0})",
    "fma": "tl.fma({0}, {1}, {2})", "min": "minimum({0}, {1})", "max": "maximum({0}, {1})", "neg": "negative({0})",
    "abs": "magnitude({0})", "eq": "boolean({0} == {1})", "lt": "boolean({0} < {1})", "le": "boolean({0} <= {1})",
}  # fmt: skip
_INTEGER = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "mulhi": "mulhi_TYPE({0}, {1})",
    "min": "tl.where({0} < {1}, {0}, {1})", "max": "tl.where({0} > {1}, {0}, {1})",
    "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "not": "~{0}",
    "shl": "{0} << ({1} & 31).to(tl.TYPE)", "shr": "{0} >> ({1} & 31).to(tl.TYPE)",
    "eq": "boolean({0} == {1})", "lt": "boolean({0} < {1})", "le": "boolean({0} <= {1})",
}  # fmt: skip
_LONG = {"i32": "int32", "u32": "uint32"}
EXPRESSIONS = {
    **{f"{name}.f32": text for name, text in _FLOAT.items()},
    **{
        f"{name}.{t}": text.replace("mulhi_TYPE", f"mulhi_{t}").replace("TYPE", _LONG[t])
        for t in _LONG
        for name, text in _INTEGER.items()
    },
    **{f"{name}.boolean": _INTEGER[name] for name in ("and", "or", "xor", "not")},
    **{f"select.{reg}": "tl.where({0}, {1}, {2})" for reg in ("f32", "i32", "u32", "boolean")},
    "f32_to_i32": "truncate_i32({0})",
    "f32_to_u32": "truncate_u32({0})",
    "i32_to_f32": "{0}.to(tl.float32)",
    "u32_to_f32": "{0}.to(tl.float32)",
    "boolean_to_u32": "{0}.to(tl.uint32)",
    "f32_bits_to_u32": "canonical({0})",
    "u32_bits_to_f32": "real({0})",
    "i32_bits_to_u32": "bits_of({0})",
    "u32_bits_to_i32": "{0}.to(tl.int32, bitcast=True)",
}


# ---- integer keys -----------------------------------------------------------------------------------------------


@triton.jit
def order_key(x, ZEROS_EQUAL: tl.constexpr):
    """u32 that ascends with x, NaN after everything else; -0 is just below +0, or equal to it."""
    b = x.to(tl.uint32, bitcast=True)
    if x.dtype == tl.float32:
        if ZEROS_EQUAL:
            b = tl.where(b == 0x80000000, 0, b)
        key = tl.where(b >= 0x80000000, ~b, b | 0x80000000)
        return tl.where(is_nan(x), 0xFFFFFFFF, key)
    elif x.dtype == tl.int32:
        return b ^ 0x80000000
    else:
        return b


@triton.jit
def from_order_key(key, REG: tl.constexpr):
    """The register whose order_key this is."""
    if REG == "f32":
        return real(tl.where(key >= 0x80000000, key ^ 0x80000000, ~key))
    elif REG == "i32":
        return (key ^ 0x80000000).to(tl.int32, bitcast=True)
    else:
        return key


# ---- places -----------------------------------------------------------------------------------------------------


@triton.jit
def offset(e, SHAPE: tl.constexpr, STRIDES: tl.constexpr):
    """Where element number e (row-major) of a strided tensor lies. The first length does not matter."""
    at = e * 0
    for i in tl.static_range(1, len(SHAPE)):
        at += (e % SHAPE[len(SHAPE) - i]) * STRIDES[len(SHAPE) - i]
        e = e // SHAPE[len(SHAPE) - i]
    return at + e * STRIDES[0]

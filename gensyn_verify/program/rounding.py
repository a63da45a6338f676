"""Rounding to integers, division with a whole quotient, and remainders, of floats and of integers, as scalar programs.

The machine has no integer division: a quotient is estimated in binary32 and corrected.
"""

from __future__ import annotations

from gensyn_verify.program.scalar import Operand, Scalar
from gensyn_verify.program.types import Reg

INFINITY = float("inf")
NAN = float("nan")
WHOLE = 2.0**23  # from here on every binary32 is an integer


def copysign(x: Operand, sign: Scalar) -> Scalar:
    """The size of x with the sign of another number; NaN counts as positive."""
    size = sign.builder.literal(x).bits(Reg.u32) & 0x7FFFFFFF
    return (size | (sign.bits(Reg.u32) & 0x80000000)).bits(Reg.f32)


def _small(x: Scalar, rounded: Scalar) -> Scalar:
    """`rounded`, with the sign of x, where x can have a fraction; else x."""
    return x.builder.select(x.abs() < WHOLE, copysign(rounded, x), x)


def trunc(x: Scalar) -> Scalar:
    return x if x.reg is not Reg.f32 else _small(x, x.to(Reg.i32).to(Reg.f32))


def round_even(x: Scalar) -> Scalar:
    """To the nearest integer, ties to even."""
    return x if x.reg is not Reg.f32 else _small(x, (x.abs() + WHOLE) - WHOLE)


def floor(x: Scalar) -> Scalar:
    if x.reg is not Reg.f32:
        return x
    t = trunc(x)
    return x.builder.select(x < t, t - 1.0, t)


def ceil(x: Scalar) -> Scalar:
    if x.reg is not Reg.f32:
        return x
    t = trunc(x)
    return x.builder.select(t < x, copysign(t + 1.0, x), t)


def frac(x: Scalar) -> Scalar:
    return x - trunc(x)


def fmod(x: Scalar, y: Scalar) -> Scalar:
    """x - y trunc(x / y), exactly; the sign is that of x. NaN for infinite x and for y = 0.

    The quotient may have 277 bits. It is taken 24 at a time: from above, x modulo each of the finite y 2^(24 k). A
    rounded quotient below 2^24 is at most one too large once truncated, so what is left lies between minus one and
    one divisor, and a multiple of the last place of divisor or dividend that small is a binary32: the fma is exact.
    """
    if x.reg is not Reg.f32:
        return x - trunc_div(x, y) * y
    b = x.builder
    r, step = x.abs(), y.abs()
    steps = [step]
    for _ in range(11):
        steps.append(steps[-1] * 2.0**24)
    for s in reversed(steps):
        quotient = (r / s).to(Reg.i32).to(Reg.f32)
        r = b.select(s < INFINITY, b.fma(-quotient, s, r), r)
    r = b.select(r < 0.0, r + step, r)
    defined = (x.abs() < INFINITY) & (step > 0.0)
    return b.select(defined, copysign(r, x), NAN)


def remainder(x: Scalar, y: Scalar) -> Scalar:
    """x - y floor(x / y): the sign is that of y."""
    b, r = x.builder, fmod(x, y)
    other_sign = ~r.equals(0) & ((r < 0) ^ (y < 0))
    return b.select(other_sign, r + y, r)


def trunc_div(x: Scalar, y: Scalar) -> Scalar:
    if x.reg is Reg.f32:
        return trunc(x / y)
    if x.reg is Reg.u32:
        return _unsigned_div(x, y)
    b = x.builder
    negative = (x ^ y) < 0
    q = _unsigned_div(_size(x), _size(y)).bits(Reg.i32)
    return b.select(negative, 0 - q, q)


def floor_div(x: Scalar, y: Scalar) -> Scalar:
    """floor(x / y): of floats, the integer nearest to (x - remainder) / y, rounded; x / y where y is 0."""
    b = x.builder
    if x.reg is not Reg.f32:
        q = trunc_div(x, y)
        inexact = ~(q * y).equals(x)
        return b.select(inexact & ((x ^ y) < 0), q - 1, q)
    r = fmod(x, y)
    q = (x - r) / y
    q = b.select(~r.equals(0.0) & ((r < 0.0) ^ (y < 0.0)), q - 1.0, q)
    whole = floor(q)
    whole = b.select(q - whole > 0.5, whole + 1.0, whole)
    whole = b.select(q.equals(0.0), copysign(0.0, x / y), whole)
    return b.select(y.equals(0.0), x / y, whole)


def _size(x: Scalar) -> Scalar:
    return x.builder.select(x < 0, 0 - x, x).bits(Reg.u32)


def _unsigned_div(x: Scalar, y: Scalar) -> Scalar:
    """Floor of the quotient of two u32 up to 2^31: an estimate within 2^10, one within 1, and the last correction."""
    b = x.builder
    q = (x.to(Reg.f32) / y.to(Reg.f32)).to(Reg.u32)
    for _ in range(2):
        rest = (x - q * y).bits(Reg.i32)
        q = (q.bits(Reg.i32) + (rest.to(Reg.f32) / y.to(Reg.f32)).to(Reg.i32)).bits(Reg.u32)
    rest = (x - q * y).bits(Reg.i32)
    q = b.select(rest < 0, q - 1, q)
    return b.select(rest >= y.bits(Reg.i32), q + 1, q)

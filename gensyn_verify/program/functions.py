"""exp, log, tanh ... as published scalar programs: nothing to trust beyond IEEE-754 and integers.

Every function takes a Scalar and appends its instructions to that Scalar's builder. Derivations, the origin of every
coefficient and the measured error over all 2^32 inputs are in docs/elementary.md; the digests of the complete result
tables are in tests/vectors/elementary.json.

A coefficient is written as the binary32 it is, in hexadecimal. A polynomial is evaluated by Horner's rule, one fma a
coefficient, highest degree first.
"""

from __future__ import annotations

from gensyn_verify.program.scalar import Operand, Scalar
from gensyn_verify.program.types import Reg

INFINITY = float("inf")
_hex = float.fromhex

# x + MAGIC - MAGIC is x rounded to an integer, to nearest even, for |x| < 2^22, and the low bits of x + MAGIC are
# that integer in two's complement.
MAGIC = _hex("0x1.8p23")
LOG2_E = _hex("0x1.715476p0")
LN2_HIGH = _hex("0x1.62e430p-1")  # the binary32 nearest to ln 2; it has 20 significant bits
LN2_LOW = _hex("-0x1.05c610p-29")  # ln 2 - LN2_HIGH

# e^f = 1 + f + f^2 q(f) on |f| <= ln(2)/2: q, lowest degree first.
EXP = [_hex(c) for c in ("0x1.fffffcp-2", "0x1.555492p-3", "0x1.5558b4p-5", "0x1.1239a0p-7", "0x1.6a4960p-10")]


def _horner(x: Scalar, coefficients: list[float]) -> Scalar:
    """The polynomial with these coefficients, lowest degree first; at least two."""
    total: Operand = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = x.builder.fma(total, x, c)
    assert isinstance(total, Scalar)
    return total


def exp(x: Scalar) -> Scalar:
    """e^x: x = n ln 2 + f, and e^x = 2^n e^f, rounded once more only where the result is subnormal."""
    b = x.builder
    shifted = b.fma(x, LOG2_E, MAGIC)
    n = shifted - MAGIC
    f = b.fma(n, -LN2_LOW, b.fma(n, -LN2_HIGH, x))  # the inner fma is exact
    r = _horner(f, [1.0, 1.0, *EXP])
    # 2^n may exceed the range of binary32 both ways, so it is applied in two halves; only the second can round.
    whole = shifted.bits(Reg.u32)
    half = whole >> 1
    r = r * _power_of_two(half) * _power_of_two(whole - half)
    r = b.select(x > _hex("0x1.62e42ep6"), INFINITY, r)  # the largest x with a finite result
    return b.select(x < _hex("-0x1.9fe368p6"), 0.0, r)  # the least x with a nonzero result


def _power_of_two(n: Scalar) -> Scalar:
    """2^n for an integer n in the low 9 bits of a u32, -126 <= n <= 127."""
    return ((n << 23) + (127 << 23)).bits(Reg.f32)

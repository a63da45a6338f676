"""exp, log, tanh ... as published scalar programs: nothing to trust beyond IEEE-754 and integers.

Every function takes a Scalar and appends its instructions to that Scalar's builder. Derivations, the origin of every
coefficient and the measured error over all 2^32 inputs are in docs/elementary.md; the digests of the complete result
tables are in tests/vectors/elementary.json.

A coefficient is written as the binary32 it is, in hexadecimal. A polynomial is evaluated by Horner's rule, one fma a
coefficient, highest degree first. There are no branches: where two formulas share the range, both are computed and
one is selected.
"""

from __future__ import annotations

from gensyn_verify.program.scalar import Operand, Scalar
from gensyn_verify.program.types import Reg

INFINITY = float("inf")
NAN = float("nan")
_hex = float.fromhex


def _f32(*coefficients: str) -> list[float]:
    return [_hex(c) for c in coefficients]


# x + MAGIC - MAGIC is x rounded to an integer, to nearest even, for |x| < 2^22, and the low bits of x + MAGIC are
# that integer in two's complement.
MAGIC = _hex("0x1.8p23")
LOG2_E = _hex("0x1.715476p0")
LN2_HIGH = _hex("0x1.62e430p-1")  # the binary32 nearest to ln 2; a multiple of 2^-21
LN2_LOW = _hex("-0x1.05c610p-29")  # ln 2 - LN2_HIGH
THIRD_HIGH, THIRD_LOW = _hex("0x1.555556p-2"), _hex("-0x1.555556p-27")

# e^f = 1 + f + f^2 EXP(f) on |f| <= ln(2)/2.
EXP = _f32("0x1.fffffcp-2", "0x1.555492p-3", "0x1.5558b4p-5", "0x1.1239a0p-7", "0x1.6a4960p-10")
EXP_NEGATED = [c * (-1) ** k for k, c in enumerate(EXP)]  # e^-g = 1 - g + g^2 EXP_NEGATED(g)
# ln(1 + f) = f + f^2 LOG(f) on -1/4 <= f < 1/2.
LOG = _f32("-0x1.000002p-1", "0x1.5555aep-2", "-0x1.000028p-2", "0x1.99697ep-3", "-0x1.54eec8p-3", "0x1.288334p-3",
           "-0x1.0d97cap-3", "0x1.accb6ap-4", "-0x1.7197a2p-5")  # fmt: skip
# tanh x = x + x^3 TANH(x^2) on |x| <= 0.55.
TANH = _f32("-0x1.55554ap-2", "0x1.110cf0p-3", "-0x1.b91f20p-5", "0x1.58ec78p-6", "-0x1.99565ep-8")
# erf x = x + x ERF_SMALL(x^2) on |x| <= 0.88.
ERF_SMALL = _f32("0x1.06eba8p-3", "-0x1.812718p-2", "0x1.ce2246p-4", "-0x1.b6fe00p-6", "0x1.49f00ep-8",
                 "-0x1.458ecap-11")  # fmt: skip
# ln(1 - erf x) = -x - x ERF_LARGE(x) on 0.88 <= x <= 4.
ERF_LARGE = _f32("0x1.073578p-3", "0x1.457a64p-1", "0x1.af4134p-4", "-0x1.774a98p-6", "0x1.a60b8ap-9",
                 "-0x1.c20798p-13")  # fmt: skip
# sin r = r + r^3 SIN(r^2) and cos r = 1 + r^2 COS(r^2) on |r| <= pi/4.
SIN = _f32("-0x1.555546p-3", "0x1.110778p-7", "-0x1.9954p-13")
COS = _f32("-0x1p-1", "0x1.55554ap-5", "-0x1.6c0c2ap-10", "0x1.99e910p-16")
# tan r = r + r^3 (1/3 + r^2 TAN(r^2)) on |r| <= pi/4.
TAN = _f32("0x1.110fccp-3", "0x1.ba88e2p-5", "0x1.5f8b1ap-6", "0x1.56102p-7", "0x1.1b6e18p-11", "0x1.1187d8p-8")
# 2/pi in words of 32 bits, after one word of zeros.
TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
QUARTER_PI = _hex("0x1.921fb6p-1")
HALF_PI_HIGH = _hex("0x1.921fb6p0")
HALF_PI_LOW = _hex("-0x1.777a5cp-25")  # pi/2 - HALF_PI_HIGH


def _horner(x: Scalar, coefficients: list[float]) -> Scalar:
    """The polynomial with these coefficients, lowest degree first; at least two."""
    total: Operand = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = x.builder.fma(total, x, c)
    assert isinstance(total, Scalar)
    return total


def _power_of_two(n: Scalar, scale: int = 0) -> Scalar:
    """2^(n + scale) for an integer n in the low 9 bits of a u32, -126 <= n + scale <= 127."""
    return ((n << 23) + ((127 + scale) << 23)).bits(Reg.f32)


def _sign(x: Scalar) -> Scalar:
    """-1 for x < 0, else 1."""
    return x.builder.select(x < 0.0, -1.0, x.builder.literal(1.0))


def _with_sign(size: Scalar, x: Scalar) -> Scalar:
    """`size` negated where the sign bit of x is set."""
    return size * ((x.bits(Reg.u32) & 0x80000000) | 0x3F800000).bits(Reg.f32)


def _two_sum(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """a + b and what rounding it lost, for |a| >= |b| or a = 0."""
    s = a + b
    return s, b - (s - a)


def _product(a: Scalar, low: Scalar | float, x: Scalar | float, x_low: Scalar | float = 0.0) -> tuple[Scalar, Scalar]:
    """(a + low) (x + x_low) as a product and what rounding it lost."""
    b = a.builder
    p = a * x
    error = b.fma(a, x, -p)
    error = b.fma(low, x, error)
    return p, error if x_low == 0.0 and isinstance(x_low, float) else b.fma(a, x_low, error)


def _cube(s: Scalar, s_low: Scalar, p: list[float]) -> tuple[Scalar, Scalar]:
    """s^3 (1/3 + s^2 P(s^2)) of s + s_low as a product and what rounding it lost."""
    b = s.builder
    q, q_low = _product(s, s_low, s, s_low)
    u, u_low = _two_sum(b.literal(THIRD_HIGH), b.fma(q, _horner(q, p), THIRD_LOW))
    v, v_low = _product(q, q_low, u, u_low)
    return _product(v, v_low, s, s_low)


def _root(u: Scalar, low: Scalar) -> tuple[Scalar, Scalar]:
    """sqrt(u + low) as a root and what rounding it lost, |low| small beside u; (0, 0) for zeros."""
    r = u.sqrt()
    return r, (u.builder.fma(-r, r, u) + low) / (r + r).max(_hex("0x1p-100"))


def _less(high: Scalar, low: Scalar, t: Scalar, rest: Scalar) -> Scalar:
    """(high + low) - (t + rest) with one rounding of consequence, for high >= |t| or high = 0."""
    difference, lost = _two_sum(high, -t)
    return difference + (lost + (low - rest))


# ---- exponentials -----------------------------------------------------------------------------------------------


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


def expm1(x: Scalar) -> Scalar:
    """e^x - 1 = (2^n - 1) + 2^n f + 2^n (e^f - 1 - f), and the error of the first sum joins the last term."""
    b = x.builder
    y = b.select(x < -20.0, -20.0, x)  # the result is -1 from -17.4 down
    shifted = b.fma(y, LOG2_E, MAGIC)
    n = shifted - MAGIC
    f = b.fma(n, -LN2_HIGH, y)  # exact; what is left, n LN2_LOW, enters to first order: e^(f + low) = e^f (1 + low)
    low = n * -LN2_LOW
    s = b.fma(f * f, _horner(f, EXP), b.fma(low, f, low))
    t = _power_of_two(shifted.bits(Reg.u32), -1)  # 2^(n - 1), because 2^128 is not a binary32; doubled at the end
    h = t - 0.5
    a = b.fma(t, f, h)
    error = b.fma(t, f, h - a) + ((t - h) - 0.5)
    r = a + b.fma(t, s, error)
    r = b.select(x > _hex("0x1.62e42ep6"), INFINITY, r + r)
    return b.select(x.abs() < _hex("0x1p-25"), x, r)


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + e^-x), the denominator kept as a sum of two binary32 and the quotient corrected once."""
    b = x.builder
    y = b.select(x < -104.0, -104.0, x)  # 0 from -103.98 down
    y = b.select(y > 30.0, 30.0, y)  # 1 from 17.33 up
    shifted = b.fma(y, -LOG2_E, MAGIC)
    n = shifted - MAGIC
    g = b.fma(n, LN2_LOW, b.fma(n, LN2_HIGH, y))  # e^-x = 2^n e^-g
    p = b.fma(g * g, _horner(g, [-c for c in EXP_NEGATED]), g)  # 1 - e^-g
    # d + low = -(1 + e^-x) / 2^32, so that neither d nor 1/d leaves the normal range.
    t = _power_of_two(shifted.bits(Reg.u32), -32)
    h = -_hex("0x1p-32") - t
    lost = -_hex("0x1p-32") - (h + t)
    d = b.fma(t, p, h)
    low = b.fma(t, p, h - d) + lost
    q = -1.0 / d
    q = b.fma(q, b.fma(q, low, b.fma(q, d, 1.0)), q)
    return q * _hex("0x1p-32")


def tanh(x: Scalar) -> Scalar:
    """Up to 0.55 an odd polynomial; above, 1 - 2 / (e^2x + 1), with denominator and quotient as in `sigmoid`."""
    b = x.builder
    s = x * x
    small = b.fma(_horner(s, TANH) * s, x, x)
    y = x.abs()
    y = b.select(y > 10.0, 10.0, y)  # the result is 1 from 9.02 up
    shifted = b.fma(y, 2 * LOG2_E, MAGIC)
    n = shifted - MAGIC
    g = b.fma(n, -LN2_HIGH / 2, y)  # exact, and e^2x = 2^n e^2g: what LN2_LOW would change is lost in 1 - ...
    p = b.fma(g * g, _horner(g, [c * 2.0 ** (k + 1) for k, c in enumerate(EXP)]), g)  # (e^2g - 1) / 2
    t = _power_of_two(shifted.bits(Reg.u32))
    h = b.fma(t, 0.5, 0.5)
    d = b.fma(t, p, h)  # d + low = (e^2x + 1) / 2
    low = b.fma(t, p, h - d)
    q = -1.0 / d
    q = b.fma(q, b.fma(q, low, b.fma(q, d, 1.0)), q)
    sign = _sign(x)
    r = b.select(x.abs() > 0.55, b.fma(q, sign, sign), small)
    return b.select(x.equals(0.0), x, r)  # `small` is +0 at -0


def erf(x: Scalar) -> Scalar:
    """Up to 0.88 an odd polynomial; above, 1 - e^-(v + low), where v + low = x + x P(x)."""
    b = x.builder
    small = b.fma(_horner(x * x, ERF_SMALL), x, x)
    y = x.abs()
    y = b.select(y > 4.0, 4.0, y)  # the result is 1 from 3.92 up
    p = _horner(y, ERF_LARGE)
    v = b.fma(p, y, y)
    low = b.fma(p, y, y - v)
    shifted = b.fma(v, -LOG2_E, MAGIC)
    n = shifted - MAGIC
    g = b.fma(n, LN2_HIGH, v) + low  # e^-v = 2^n e^-g; the fma is exact, and LN2_LOW would be lost in 1 - ...
    r = _horner(g, [1.0, -1.0, *EXP_NEGATED])
    sign = _sign(x)
    large = b.fma(r, _power_of_two(shifted.bits(Reg.u32), 256) * sign, sign)  # 256 more flips the sign: -2^n
    return b.select(x.abs() > 0.88, large, small)


# ---- logarithms -------------------------------------------------------------------------------------------------

_THREE_QUARTERS = 0x3F400000
_EXPONENT = 0xFF800000


def _log(e: Scalar, f: Scalar) -> Scalar:
    """e ln 2 + ln(1 + f), where e is an i32 in units of 2^-23."""
    b = e.builder
    return b.fma(e.to(Reg.f32), LN2_HIGH * 2.0**-23, b.fma(f * f, _horner(f, LOG), f))


def _log_special(x: Scalar, r: Scalar) -> Scalar:
    """r where 0 < x < infinity, else ln x."""
    b = x.builder
    return b.select(x > 0.0, b.select(x < INFINITY, r, x), b.select(x.equals(0.0), b.literal(-INFINITY), NAN))


def _split(x: Scalar) -> tuple[Scalar, Scalar]:
    """e and f of x = 2^e (1 + f), -1/4 <= f < 1/2, for 0 < x < infinity; e is an i32 in units of 2^-23."""
    b = x.builder
    subnormal = x < _hex("0x1p-126")
    bits = b.select(subnormal, x * _hex("0x1p23"), x).bits(Reg.u32)
    e = (bits - _THREE_QUARTERS) & _EXPONENT
    f = (bits - e).bits(Reg.f32) - 1.0
    e = e - b.select(subnormal, b.literal(23 << 23, Reg.u32), 0)
    return e.bits(Reg.i32), f


def log(x: Scalar) -> Scalar:
    """ln x = e ln 2 + ln(1 + f)."""
    return _log_special(x, _log(*_split(x)))


def log1p(x: Scalar) -> Scalar:
    """ln(1 + x) = e ln 2 + ln(1 + f), where 1 + f = 2^-e (1 + x) is formed from x itself."""
    b = x.builder
    u = x + 1.0
    e = (u.bits(Reg.u32) - _THREE_QUARTERS) & _EXPONENT
    t = ((129 << 23) - e).bits(Reg.f32)  # 4 * 2^-e, because 2^-128 is not a normal binary32
    f = b.fma(t, x * 0.25, b.fma(t, 0.25, -1.0))
    r = _log_special(u, _log(e.bits(Reg.i32), f))
    return b.select(x.abs() < _hex("0x1p-25"), x, r)


# ---- circular functions -----------------------------------------------------------------------------------------


def _words(k: Scalar, count: int) -> list[Scalar]:
    """TWO_OVER_PI[k : k + count], 0 <= k <= 4."""
    b = k.builder
    words: list[Scalar] = [b.literal(w, Reg.u32) for w in TWO_OVER_PI]
    odd = ~(k & 1).equals(0)
    step = [b.select(odd, words[i + 1], words[i]) for i in range(count + 2)]
    two = ~(k & 2).equals(0)
    step = [b.select(two, step[i + 2], step[i]) for i in range(count)]
    four = k.equals(4)
    return [b.select(four, words[i + 4], step[i]) for i in range(count)]


def _reduce(bits: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """x = quadrants pi/2 + high + low + lost for |x| >= pi/4, given the bits of |x|, by Payne and Hanek's method.

    `lost` matters where high + low is so small that it has one part; sine and cosine, which round it, do without.

    |x| = m 2^(E - 150). Of 2/pi, bits whose product with m is a multiple of 4 do not matter; the 96 bits after them
    give |x| 2/pi mod 4 with 62 fraction bits, of which at least 31 are significant for every binary32.
    """
    b = bits.builder
    m = (bits & 0x7FFFFF) | 0x800000
    start = (bits >> 23) - 120  # E - 151 is the first bit of 2/pi that matters; 31 of the zero word's come before bit 1
    w = _words(start >> 5, 4)
    left = start & 31
    right = left ^ 31
    w = [(w[i] << left) | ((w[i + 1] >> 1) >> right) for i in range(3)]
    r1 = m * w[1] + m.mulhi(w[2])
    carry = (r1 < m * w[1]).to(Reg.u32)
    r0 = m * w[0] + m.mulhi(w[1]) + carry
    # Round to the nearest quarter turn. The fraction, y - 1/2 turn, is the exact sum of a multiple of 2^-24 and, for
    # the few x close to a multiple of pi/2, of 24 and of 8 further bits.
    y = r0 + 0x20000020
    rest = (((y << 26) | (r1 >> 6)) ^ 0x80000000).bits(Reg.i32)
    a = (((y >> 6) << 8) ^ 0x80000000).bits(Reg.i32).to(Reg.f32)  # units of 2^-32
    c = (rest & ~0xFF).to(Reg.f32)  # units of 2^-56
    d = (rest & 0xFF).to(Reg.f32)
    product = a * (HALF_PI_HIGH * 2.0**-32)
    error = b.fma(a, HALF_PI_HIGH * 2.0**-32, -product)
    error = b.fma(a, HALF_PI_LOW * 2.0**-32, error)
    error = b.fma(c, HALF_PI_LOW * 2.0**-56, error)
    error = b.fma(d, HALF_PI_HIGH * 2.0**-56, error)
    total = b.fma(c, HALF_PI_HIGH * 2.0**-56, error)
    high = product + total
    low = total - (high - product)
    return y, high, low, b.fma(c, HALF_PI_HIGH * 2.0**-56, -total) + error


def _turned(x: Scalar, quadrants: int, exact: bool = False) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """|x| + quadrants pi/2 = turn + r + low, |r| <= pi/4, and r^2; the top two bits of `turn` count quarter turns."""
    b = x.builder
    y = x.abs()
    turn, high, low, lost = _reduce(y.bits(Reg.u32))
    low = low + lost if exact else low
    near = y < QUARTER_PI
    r = b.select(near, y, high)
    low = b.select(near, 0.0, low)
    turn = b.select(near, b.literal(0, Reg.u32), turn) + (quadrants << 30)
    return turn, r, low, b.fma(r, r, r * (low + low))


def _sine(x: Scalar, quadrants: int, sign: Scalar) -> Scalar:
    """sin(|x| + quadrants pi/2), its sign flipped where the top bit of `sign` is set."""
    b = x.builder
    turn, r, low, s = _turned(x, quadrants)
    sine = r + b.fma(_horner(s, SIN) * s, r, low)
    cosine = b.fma(s, _horner(s, COS), 1.0)
    value = b.select((turn & 0x40000000).equals(0), sine, cosine)
    one = (((turn ^ sign) & 0x80000000) | 0x3F800000).bits(Reg.f32)
    return b.select(x.abs() < INFINITY, value * one, NAN)


def sin(x: Scalar) -> Scalar:
    """sin x; NaN for infinities."""
    return _sine(x, 0, x.bits(Reg.u32))


def cos(x: Scalar) -> Scalar:
    """cos x = sin(|x| + pi/2); NaN for infinities."""
    return _sine(x, 1, x.builder.literal(0, Reg.u32))


def tan(x: Scalar) -> Scalar:
    """tan x; NaN for infinities. In odd quadrants -1 / tan r, of tan r as a sum of two binary32."""
    b = x.builder
    turn, r, low, _ = _turned(x, 0, exact=True)
    w, w_low = _cube(r, low, TAN)
    t, rest = _two_sum(r, w)
    t, rest = _two_sum(t, rest + (low + w_low))
    q = -1.0 / t
    q = b.fma(q, b.fma(q, rest, b.fma(q, t, 1.0)), q)
    value = b.select((turn & 0x40000000).equals(0), t, q)
    return b.select(x.abs() < INFINITY, _with_sign(value, x), NAN)


# ---- powers -----------------------------------------------------------------------------------------------------

LOG2_E_LOW = _hex("0x1.4ae0cp-26")  # log2 e - LOG2_E
LOG10_2_HIGH, LOG10_2_LOW = _hex("0x1.344136p-2"), _hex("-0x1.ec10c0p-27")

# atanh s = s + s^3 (1/3 + s^2 ATANH(s^2)) on |s| <= 1/5: the series is as good as a fit.
ATANH = [1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13]


def _log1p(f: Scalar, f_low: Scalar | None = None) -> tuple[Scalar, Scalar]:
    """ln(1 + f + f_low) to about 2^-31 of its size: 2 atanh(s), s = f / (2 + f), all as sums of two binary32."""
    b = f.builder
    d, d_low = _two_sum(b.literal(2.0), f)
    s = f / d
    rest = b.fma(-s, d_low, b.fma(-s, d, f))
    s_low = (rest if f_low is None else b.fma(-s, f_low, rest) + f_low) / d
    w, w_low = _cube(s, s_low, ATANH)
    high, low = _two_sum(s, w)
    low = low + (s_low + w_low)
    return high + high, low + low


def _log2(x: Scalar) -> tuple[Scalar, Scalar]:
    """log2 x = high + low for 0 < x < infinity, to about 2^-31 of its size."""
    b = x.builder
    e, f = _split(x)
    whole = e.to(Reg.f32) * 2.0**-23
    high, low = _product(*_log1p(f), LOG2_E, LOG2_E_LOW)
    total, rest = _two_sum(whole, high)
    rest = b.select(whole.equals(0.0), low, rest + low)
    total = b.select(whole.equals(0.0), high, total)
    return _two_sum(total, rest)


def _log_of_sum(x: Scalar, x_low: Scalar, doublings: Scalar) -> Scalar:
    """ln(x + x_low) + doublings ln 2 for 0 < x < infinity; x_low as large beside x as a rounding."""
    e, f = _split(x)
    f, f_low = _two_sum(f, x_low * ((127 << 23) - e.bits(Reg.u32)).bits(Reg.f32))
    whole, whole_low = _product(x.builder.fma(e.to(Reg.f32), 2.0**-23, doublings), 0.0, LN2_HIGH, LN2_LOW)
    high, low = _log1p(f, f_low)
    total, rest = _two_sum(whole, high)
    return total + (rest + (whole_low + low))


def _exp2(high: Scalar, low: Scalar | None = None) -> Scalar:
    """2^(high + low) = 2^n e^(f ln 2), rounded once more only where the result is subnormal."""
    b = high.builder
    y = high.max(-160.0).min(160.0)
    shifted = y + MAGIC
    n = shifted - MAGIC
    f, f_low = (y - n, b.literal(0.0)) if low is None else _two_sum(y - n, low)
    f, f_low = _product(f, f_low, LN2_HIGH, LN2_LOW)
    r, lost = _two_sum(b.literal(1.0), f)
    r = r + b.fma(f * f, _horner(f, EXP), b.fma(f_low, r, lost))
    whole = shifted.bits(Reg.u32)
    half = whole >> 1
    r = r * _power_of_two(half) * _power_of_two(whole - half)
    r = b.select(high > 128.0, INFINITY, r)
    r = b.select(high < -150.0, 0.0, r)
    return b.select(high.equals(high), r, NAN)


def exp2(x: Scalar) -> Scalar:
    """2^x = 2^n 2^f, with f = x - n exact."""
    return _exp2(x)


def log2(x: Scalar) -> Scalar:
    high, _ = _log2(x)
    return _log_special(x, high)


def log10(x: Scalar) -> Scalar:
    high, low = _product(*_log2(x), LOG10_2_HIGH, LOG10_2_LOW)
    return _log_special(x, high + low)


def pow(x: Scalar, y: Scalar, y_low: float = 0.0) -> Scalar:
    """x^y = 2^(y log2 |x|), the exponent as a sum of two binary32; negative x have integer powers alone.

    `y_low` is what y lacks of the exponent meant, for x >= 0.

    x^0 and 1^y are 1 whatever the other is; all special cases are those of IEEE 754.
    """
    b = x.builder
    size, bound = x.abs(), _hex("0x1.fffffep127")
    z = y.max(-bound).min(bound)
    high, low = _log2(size)
    r = _exp2(*_product(high, low, z, y_low))
    positive = y > 0.0
    at_zero = b.select(positive, 0.0, b.literal(INFINITY))
    at_infinity = b.select(positive, INFINITY, b.literal(0.0))
    r = b.select(size.equals(0.0), at_zero, b.select(size.equals(INFINITY), at_infinity, r))
    # Whether y is an integer, and an odd one: from 2^24 on all are even.
    near = y.abs() < _hex("0x1p24")
    whole = b.select(near, z, 0.0).to(Reg.i32)
    integer = whole.to(Reg.f32).equals(y) | ~near
    odd = integer & near & ~(whole & 1).equals(0)
    negative = ~(x.bits(Reg.u32) & 0x80000000).equals(0)
    r = b.select(odd & negative, -r, r)
    r = b.select((x < 0.0) & ~integer & (size < INFINITY), NAN, r)
    r = b.select(x.equals(x) & y.equals(y), r, NAN)
    return b.select(y.equals(0.0) | x.equals(1.0), 1.0, r)


# ---- inverse circular functions ---------------------------------------------------------------------------------

# atan t = t - t^3 (1/3 + t^2 ATAN(t^2)) on |t| <= 1.
ATAN = _f32("-0x1.9996aep-3", "0x1.244e98p-3", "-0x1.c249eep-4", "0x1.5ccefap-4", "-0x1.e9ac06p-5", "0x1.0d88b2p-5",
            "-0x1.82bc74p-7", "0x1.042b3ap-9")  # fmt: skip
# asin t = t + t^3 ASIN(t^2) on |t| <= 1/2.
ASIN = _f32("0x1.5555c8p-3", "0x1.330204p-4", "0x1.747bb8p-5", "0x1.8c3e5p-6", "0x1.595c6p-5")


def _angle(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar]:
    """atan(x / y) = t + rest for 0 <= x <= y, with what rounding the quotient lost."""
    b = x.builder
    t = b.select(x.equals(y), 1.0, x / y)
    # The remainder of the division is a binary32 as long as the divisor is not very small.
    scale = b.select(y < _hex("0x1p-20"), _hex("0x1p100"), b.literal(1.0))
    x, y = x * scale, y * scale
    lost = b.select((t > _hex("0x1p-30")) & (t < 1.0), b.fma(-t, y, x) / y, 0.0)
    w, w_low = _cube(t, lost, ATAN)
    t, rest = _two_sum(t, -w)
    return _two_sum(t, rest + (lost - w_low))


def atan(x: Scalar) -> Scalar:
    """atan |x|, or pi/2 - atan(1 / |x|) from 1 on."""
    b, y = x.builder, x.abs()
    t, rest = _angle(y.min(1.0), y.max(1.0))
    outer = _less(b.literal(HALF_PI_HIGH), b.literal(HALF_PI_LOW), t, rest)
    return _with_sign(b.select(y > 1.0, outer, t), x)


def atan2(y: Scalar, x: Scalar) -> Scalar:
    """The angle of the point (x, y): 0, pi/2 or pi plus or minus atan(min / max); the special cases are those of C."""
    b = x.builder
    up, over = y.abs(), x.abs()
    t, rest = _angle(up.min(over), up.max(over))
    origin = up.max(over).equals(0.0)
    t, rest = b.select(origin, 0.0, t), b.select(origin, 0.0, rest)
    steep, left = up > over, ~(x.bits(Reg.u32) & 0x80000000).equals(0)
    high = b.select(steep, HALF_PI_HIGH, b.select(left, 2 * HALF_PI_HIGH, b.literal(0.0)))
    low = b.select(steep, HALF_PI_LOW, b.select(left, 2 * HALF_PI_LOW, b.literal(0.0)))
    sign = b.select(steep ^ left, 1.0, b.literal(-1.0))
    return _with_sign(_less(high, low, sign * t, sign * rest), y)


def _half_arc(y: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Whether y > 1/2, and t + rest = asin y, there (pi/2 - asin y) / 2 = asin sqrt((1 - y) / 2), for 0 <= y <= 1."""
    b = y.builder
    outer = y > 0.5
    s = b.select(outer, (1.0 - y) * 0.5, y * y)
    root, lost = _root(s, b.literal(0.0))
    t = b.select(outer, root, y)
    return outer, t, b.fma(_horner(s, ASIN) * s, t, b.select(outer, lost, 0.0))


def asin(x: Scalar) -> Scalar:
    """asin x; NaN outside -1 to 1."""
    b = x.builder
    outer, t, rest = _half_arc(x.abs())
    large = _less(b.literal(HALF_PI_HIGH), b.literal(HALF_PI_LOW), t + t, rest + rest)
    return _with_sign(b.select(outer, large, t + rest), x)


def acos(x: Scalar) -> Scalar:
    """acos x: pi/2 - asin x; beyond 1/2 in size twice the half arc, or pi less that; NaN outside -1 to 1."""
    b = x.builder
    outer, t, rest = _half_arc(x.abs())
    right = x > 0.0
    high = b.select(outer, b.select(right, 0.0, b.literal(2 * HALF_PI_HIGH)), HALF_PI_HIGH)
    low = b.select(outer, b.select(right, 0.0, b.literal(2 * HALF_PI_LOW)), HALF_PI_LOW)
    k = b.select(outer, b.select(right, -2.0, b.literal(2.0)), _sign(x))
    return _less(high, low, k * t, k * rest)


# ---- hyperbolic functions and their inverses --------------------------------------------------------------------

# sinh f = f + f^3 SINH(f^2) and cosh f = 1 + f^2 COSH(f^2) on |f| <= ln(2)/2.
SINH = _f32("0x1.555556p-3", "0x1.110fbep-7", "0x1.a2e308p-13")
COSH = _f32("0x1p-1", "0x1.5554e6p-5", "0x1.6d4f22p-10")


def _hyperbolic(y: Scalar, odd: bool) -> Scalar:
    """sinh y or cosh y for y >= 0: with y = n ln 2 + f, h cosh f + k sinh f, h and k = (2^n -+ 2^-n) / 2 in some order.

    Everything is computed at half size, because 2^128 is not a binary32.
    """
    b = y.builder
    shifted = b.fma(y, LOG2_E, MAGIC)
    n = shifted - MAGIC
    f = b.fma(n, -LN2_HIGH, y)  # exact
    low = n * -LN2_LOW
    a = _power_of_two(shifted.bits(Reg.u32), -2)
    c = 0.0625 / a
    h, k = (a - c, a + c) if odd else (a + c, a - c)
    t = b.fma(k, f, h)
    lost = b.fma(k, f, h - t) + ((a - h) - c if odd else (a - h) + c)
    s = f * f
    tail = b.fma(_horner(s, SINH) * s, f, b.fma(low, f, low))
    r = t + b.fma(h, _horner(s, COSH) * s, b.fma(k, tail, lost))
    return b.select(y > _hex("0x1.65a9f8p6"), INFINITY, r + r)  # the largest y with a finite result


def sinh(x: Scalar) -> Scalar:
    """(e^x - e^-x) / 2."""
    y = x.abs()
    return _with_sign(x.builder.select(y < _hex("0x1p-16"), y, _hyperbolic(y, True)), x)


def cosh(x: Scalar) -> Scalar:
    """(e^x + e^-x) / 2."""
    return _hyperbolic(x.abs(), False)


_HUGE = _hex("0x1p30")  # from here on sqrt(x^2 + 1) is x
_SMALL = _hex("0x1p-6")  # below, two terms after x are enough


def _inverse_hyperbolic(y: Scalar, one: float) -> Scalar:
    """ln(y + sqrt(y^2 + one)), or for huge y, where that is ln(2 y), ln(y / 4) + 3 ln 2."""
    b = y.builder
    c = y.min(_HUGE)
    s = c * c
    u, lost = _two_sum(s.max(1.0), s.min(1.0)) if one > 0 else _two_sum(s, b.literal(one))
    r, r_low = _root(*_two_sum(u, lost + b.fma(c, c, -s)))
    z, z_low = _two_sum(r, c) if one > 0 else _two_sum(c, r)
    huge = y > _HUGE
    return _log_of_sum(
        b.select(huge, 0.25 * y, z), b.select(huge, 0.0, z_low + r_low), b.select(huge, 3.0, b.literal(0.0))
    )


def asinh(x: Scalar) -> Scalar:
    """ln(x + sqrt(x^2 + 1))."""
    b, y = x.builder, x.abs()
    s = y * y
    small = b.fma(b.fma(s, 3 / 40, -1 / 6) * s, y, y)
    r = b.select(y < _SMALL, small, _inverse_hyperbolic(y, 1.0))
    return _with_sign(b.select(y < INFINITY, r, y), x)


def acosh(x: Scalar) -> Scalar:
    """ln(x + sqrt(x^2 - 1)); NaN below 1."""
    b = x.builder
    r = b.select(x < INFINITY, _inverse_hyperbolic(x, -1.0), x)
    return b.select(x < 1.0, NAN, r)


def atanh(x: Scalar) -> Scalar:
    """ln((1 + x) / (1 - x)) / 2, infinite at -1 and 1; NaN beyond."""
    b, y = x.builder, x.abs()
    s = y * y
    small = b.fma(b.fma(s, 1 / 5, 1 / 3) * s, y, y)
    one = b.literal(1.0)
    up, up_low = _two_sum(one, y)
    down, down_low = _two_sum(one, -y)
    q = up / down
    q_low = (b.fma(-q, down, up) + b.fma(-q, down_low, up_low)) / down
    r = b.select(y < _SMALL, small, 0.5 * _log_of_sum(q, q_low, b.literal(0.0)))
    r = b.select(y < 1.0, r, b.select(y.equals(1.0), INFINITY, b.literal(NAN)))
    return _with_sign(r, x)


# ---- others -----------------------------------------------------------------------------------------------------

# (1 + 2 x) e^(x^2) erfc x = ERFCX_HIGH + ERFCX_LOW + t ERFCX(t), t = (x - 5/2) / (x + 5/2), on 0.49 <= x <= 10.1.
ERFCX_HIGH, ERFCX_LOW = _hex("0x1.43cc7p0"), _hex("-0x1.3193b6p-25")
ERFCX = _f32("-0x1.f52c6p-4", "-0x1.959a96p-4", "0x1.42d3aep-3", "-0x1.a5c46ap-4", "0x1.0c555p-5", "0x1.f625c2p-11",
             "-0x1.1d006p-8", "0x1.b0637cp-12", "0x1.1898aap-11")  # fmt: skip


def erfc(x: Scalar) -> Scalar:
    """1 - erf x: up to 1/2 in size by the polynomial of `erf`; above, e^(-x^2) times a quotient, or 2 less that.

    Square, exponential, numerator and denominator are sums of two binary32.
    """
    b = x.builder
    one = b.literal(1.0)
    small, lost = _two_sum(one, -x)
    small = small + b.fma(-_horner(x * x, ERF_SMALL), x, lost)
    y = x.abs().min(10.1)  # the result is 0 from 10.06 up
    s = y * y
    shifted = b.fma(s, -LOG2_E, MAGIC)
    n = shifted - MAGIC
    g, g_low = _two_sum(b.fma(n, LN2_HIGH, s), b.fma(n, LN2_LOW, b.fma(y, y, -s)))  # e^(-y^2) = 2^n e^-(g + g_low)
    e, lost = _two_sum(one, -g)
    e, e_low = _two_sum(e, b.fma(g * g, _horner(g, EXP_NEGATED), lost - g_low))
    t = (y - 2.5) / (y + 2.5)
    p = _horner(t, ERFCX)
    w = b.fma(p, t, ERFCX_HIGH)
    p, p_low = _product(e, e_low, w, b.fma(p, t, ERFCX_HIGH - w) + ERFCX_LOW)
    d, d_low = _two_sum(y + y, one)
    q = p / d
    q = q + (b.fma(-q, d, p) + b.fma(-q, d_low, p_low)) / d
    whole = shifted.bits(Reg.u32)
    half = whole >> 1
    q = q * _power_of_two(half) * _power_of_two(whole - half)
    return b.select(x.abs() < 0.5, small, b.select(x < 0.0, 2.0 - q, q))


def hypot(x: Scalar, y: Scalar) -> Scalar:
    """sqrt(x^2 + y^2), both scaled to the size of 1; infinite if either is, even beside NaN."""
    b = x.builder
    x, y = x.abs(), y.abs()
    high, low = x.max(y), x.min(y)
    size = (high.bits(Reg.u32) & 0x7F800000).max(1 << 23).min(253 << 23)
    scale = ((254 << 23) - size).bits(Reg.f32)
    p, p_low = _product(high * scale, 0.0, high * scale)
    q, q_low = _product(low * scale, 0.0, low * scale)
    u, u_low = _two_sum(p, q)
    r, r_low = _root(u, u_low + (p_low + q_low))
    r = (r + r_low) * size.bits(Reg.f32)
    return b.select(x.equals(INFINITY) | y.equals(INFINITY), INFINITY, r)

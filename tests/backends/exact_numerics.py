"""The numerics a second time, in integers alone, written from docs/numerics.md.

It shares no code with the package, so that an error in the definition cannot hide in the vectors made from it. A value
is its bit pattern, an int; booleans are 0 and 1. Slow: for vectors and small samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Format:
    """A binary interchange format: widths of exponent and fraction, and the bits of the one NaN."""

    exponent: int
    fraction: int

    @property
    def bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent) - 1) << self.fraction

    @property
    def nan(self) -> int:
        return self.infinity | 1 << (self.fraction - 1)

    @property
    def sign(self) -> int:
        return 1 << (self.exponent + self.fraction)


F32, BF16, F16 = Format(8, 23), Format(8, 7), Format(5, 10)
NAN, INF = F32.nan, F32.infinity


def is_nan(bits: int, f: Format = F32) -> bool:
    return bits & ~f.sign > f.infinity


def is_inf(bits: int, f: Format = F32) -> bool:
    return bits & ~f.sign == f.infinity


def is_zero(bits: int, f: Format = F32) -> bool:
    return bits & ~f.sign == 0


def negative(bits: int, f: Format = F32) -> bool:
    return bits & f.sign != 0


def number(bits: int, f: Format = F32) -> tuple[int, int]:
    """(n, e): finite bits stand for n * 2^e."""
    exponent, fraction = (bits & ~f.sign) >> f.fraction, bits & ((1 << f.fraction) - 1)
    significand = fraction | (1 << f.fraction if exponent else 0)
    return (-significand if negative(bits, f) else significand), max(exponent, 1) - f.bias - f.fraction


def rounded(n: int, e: int, f: Format = F32, zero: int = 0) -> int:
    """n * 2^e to nearest, ties to even, subnormals kept, overflow to infinity; `zero` where n is 0."""
    if n == 0:
        return zero
    sign, n = (f.sign, -n) if n < 0 else (0, n)
    least = 1 - f.bias - f.fraction  # the exponent of a subnormal's last bit
    unit = max(e + n.bit_length() - 1 - f.fraction, least)
    if unit <= e:
        significand = n << (e - unit)
    else:
        drop = unit - e
        significand, rest, half = n >> drop, n & ((1 << drop) - 1), 1 << (drop - 1)
        significand += rest > half or (rest == half and significand & 1)
    # The leading bit of the significand adds one to the exponent field, and so does a carry out of the rounding.
    return sign | min(((unit - least) << f.fraction) + significand, f.infinity)


# ---- binary32


def add(a: int, b: int) -> int:
    if is_nan(a) or is_nan(b):
        return NAN
    if is_inf(a):
        return NAN if is_inf(b) and a != b else a
    if is_inf(b):
        return b
    (n, e), (m, g) = number(a), number(b)
    low = min(e, g)
    # An exact zero is -0 only as the sum of two -0.
    return rounded((n << (e - low)) + (m << (g - low)), low, zero=a & b & F32.sign)


def sub(a: int, b: int) -> int:
    return add(a, b if is_nan(b) else b ^ F32.sign)


def mul(a: int, b: int) -> int:
    sign = (a ^ b) & F32.sign
    if is_nan(a) or is_nan(b):
        return NAN
    if is_inf(a) or is_inf(b):
        return NAN if is_zero(a) or is_zero(b) else sign | INF
    (n, e), (m, g) = number(a), number(b)
    return rounded(n * m, e + g, zero=sign)


def div(a: int, b: int) -> int:
    sign = (a ^ b) & F32.sign
    if is_nan(a) or is_nan(b) or (is_inf(a) and is_inf(b)) or (is_zero(a) and is_zero(b)):
        return NAN
    if is_inf(a) or is_zero(b):
        return sign | INF
    if is_inf(b):
        return sign
    (n, e), (m, g) = number(a), number(b)
    quotient, rest = divmod(abs(n) << 64, abs(m))
    quotient = quotient << 1 | (rest != 0)  # more bits than rounding can tell apart, and whether any follow
    return rounded(-quotient if sign else quotient, e - g - 65, zero=sign)


def sqrt(a: int) -> int:
    if is_zero(a):
        return a
    if is_nan(a) or negative(a):
        return NAN
    if is_inf(a):
        return a
    n, e = number(a)
    n, e = (n << 65, e - 65) if e % 2 else (n << 64, e - 64)
    root = math.isqrt(n)
    return rounded(root << 1 | (root * root != n), e // 2 - 1)


def fma(a: int, b: int, c: int) -> int:
    """a * b + c rounded once."""
    if is_nan(a) or is_nan(b) or is_nan(c):
        return NAN
    product_sign = (a ^ b) & F32.sign
    if is_inf(a) or is_inf(b):
        if is_zero(a) or is_zero(b) or (is_inf(c) and c != product_sign | INF):
            return NAN
        return product_sign | INF
    if is_inf(c):
        return c
    (n, e), (m, g), (k, h) = number(a), number(b), number(c)
    low = min(e + g, h)
    total = (n * m << (e + g - low)) + (k << (h - low))
    return rounded(total, low, zero=product_sign & c)


def minimum(a: int, b: int) -> int:
    return NAN if is_nan(a) or is_nan(b) else (a if _order(a) <= _order(b) else b)


def maximum(a: int, b: int) -> int:
    return NAN if is_nan(a) or is_nan(b) else (a if _order(a) >= _order(b) else b)


def _order(bits: int) -> int:
    """Ascends with the number, and from -0 to +0."""
    return -(bits & ~F32.sign) - 1 if negative(bits) else bits


def real(bits: int) -> int:
    """Ascends with the number, infinities included, and is equal for -0 and +0."""
    return -(bits & ~F32.sign) if negative(bits) else bits


def equal(a: int, b: int) -> int:
    return int(not is_nan(a) and not is_nan(b) and real(a) == real(b))


def less(a: int, b: int) -> int:
    return int(not is_nan(a) and not is_nan(b) and real(a) < real(b))


def less_equal(a: int, b: int) -> int:
    return int(not is_nan(a) and not is_nan(b) and real(a) <= real(b))


def f32_to_integer(a: int, low: int, high: int) -> int:
    if is_nan(a):
        return 0
    if is_inf(a):
        return (low if negative(a) else high) & MASK
    n, e = number(a)
    magnitude = abs(n) << e if e >= 0 else abs(n) >> -e
    return max(low, min(high, -magnitude if n < 0 else magnitude)) & MASK


# ---- integers


def signed(bits: int) -> int:
    return bits - (1 << 32) if bits >> 31 else bits


def _integer_operations(name: str, number: Callable[[int], int]) -> dict[str, Callable[..., int]]:
    """`number` reads 32 bits as the type's integer."""
    return {
        f"add.{name}": lambda a, b: (a + b) & MASK,
        f"sub.{name}": lambda a, b: (a - b) & MASK,
        f"mul.{name}": lambda a, b: (a * b) & MASK,
        f"mulhi.{name}": lambda a, b: (number(a) * number(b) >> 32) & MASK,
        f"min.{name}": lambda a, b: min(a, b, key=number),
        f"max.{name}": lambda a, b: max(a, b, key=number),
        f"and.{name}": lambda a, b: a & b,
        f"or.{name}": lambda a, b: a | b,
        f"xor.{name}": lambda a, b: a ^ b,
        f"not.{name}": lambda a: a ^ MASK,
        f"shl.{name}": lambda a, n: (a << n % 32) & MASK,
        f"shr.{name}": lambda a, n: (number(a) >> n % 32) & MASK,
        f"eq.{name}": lambda a, b: int(a == b),
        f"lt.{name}": lambda a, b: int(number(a) < number(b)),
        f"le.{name}": lambda a, b: int(number(a) <= number(b)),
    }


OPERATIONS: dict[str, Callable[..., int]] = {
    "add.f32": add, "sub.f32": sub, "mul.f32": mul, "div.f32": div, "sqrt.f32": sqrt, "fma.f32": fma,
    "min.f32": minimum, "max.f32": maximum,
    "neg.f32": lambda a: NAN if is_nan(a) else a ^ F32.sign,
    "abs.f32": lambda a: NAN if is_nan(a) else a & ~F32.sign,
    "eq.f32": equal, "lt.f32": less, "le.f32": less_equal,
    **_integer_operations("i32", signed),
    **_integer_operations("u32", int),
    "and.boolean": lambda a, b: a & b, "or.boolean": lambda a, b: a | b, "xor.boolean": lambda a, b: a ^ b,
    "not.boolean": lambda a: 1 - a,
    **{f"select.{t}": lambda c, a, b: a if c else b for t in ("f32", "i32", "u32", "boolean")},
    "f32_to_i32": lambda a: f32_to_integer(a, -(1 << 31), (1 << 31) - 1),
    "f32_to_u32": lambda a: f32_to_integer(a, 0, (1 << 32) - 1),
    "i32_to_f32": lambda a: rounded(signed(a), 0),
    "u32_to_f32": lambda a: rounded(a, 0),
    "boolean_to_u32": int,
    "f32_bits_to_u32": lambda a: NAN if is_nan(a) else a,
    "u32_bits_to_f32": int,
    "i32_bits_to_u32": int,
    "u32_bits_to_i32": int,
}  # fmt: skip


# ---- storage


def widen(bits: int, f: Format) -> int:
    """The binary32 of a stored bf16 or f16: exact."""
    if is_nan(bits, f):
        return NAN
    sign = F32.sign if negative(bits, f) else 0
    return sign | INF if is_inf(bits, f) else rounded(*number(bits, f), zero=sign)


def narrow(bits: int, f: Format) -> int:
    """The stored bf16, f16 or f32 of a binary32: one rounding."""
    if is_nan(bits):
        return f.nan
    sign = f.sign if negative(bits) else 0
    return sign | f.infinity if is_inf(bits) else rounded(*number(bits), f, zero=sign)


# ---- sums in their order


def dot_blocks(k: int) -> list[int]:
    """Block lengths: 128 each, and a remainder of at most 64 belongs to the last of them."""
    full, rest = divmod(k, 128)
    if full == 0 or rest == 0:
        return [128] * full + [rest] * (rest > 0)
    return [128] * (full - 1) + [128 + rest] if rest <= 64 else [128] * full + [rest]


def dot(a: Sequence[int], b: Sequence[int], blocks: Sequence[int] | None = None) -> int:
    """The sum of a[i] * b[i]; `blocks` overrides the lengths, to show what a wrong order gives."""
    total, start = 0, 0
    for n, length in enumerate(dot_blocks(len(a)) if blocks is None else blocks):
        chain = 0
        for i in range(start, start + length):
            chain = fma(a[i], b[i], chain)
        total = chain if n == 0 else add(total, chain)
        start += length
    return total


def fold(lanes: list[int]) -> int:
    """Lane l takes lane l + h for h = half the lanes, a quarter, ... 1."""
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [add(lanes[i], lanes[i + half]) for i in range(half)]
    return lanes[0]


def sum_lanes(x: Sequence[int], lanes: int = 64, start: int = F32.sign) -> list[int]:
    """Element i goes to lane i mod 64, in ascending order; a lane starts at -0, the exact identity."""
    sums = [start] * lanes
    for i, v in enumerate(x):
        sums[i % lanes] = add(sums[i % lanes], v)
    return sums


def segment_sums(x: Sequence[int]) -> list[int]:
    return [fold(sum_lanes(x[i : i + 2048])) for i in range(0, len(x), 2048)]


def reduce_sum(x: Sequence[int]) -> int:
    """Sums of segments of 2,048, summed by the same rule until one is left; +0 of nothing."""
    if not x:
        return 0
    while len(x) > 2048:
        x = segment_sums(x)
    return fold(sum_lanes(x))


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10: four words of one block."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        p, q = x0 * 0xD2511F53, x2 * 0xCD9E8D57
        x0, x1, x2, x3 = (q >> 32) ^ x1 ^ k0, q & MASK, (p >> 32) ^ x3 ^ k1, p & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [x0, x1, x2, x3]


def random_word(element: int, stream: int, step: int, seed: Sequence[int]) -> int:
    block = element // 4
    return philox([block & MASK, block >> 32, stream, step], seed)[element % 4]

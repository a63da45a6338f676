"""The definition itself, against exact rational arithmetic and published vectors."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from gensyn_verify.backends import reference

SPECIAL = [
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x80800000, 0x3F800000, 0xBF800000,
    0x3F7FFFFF, 0x3F800001, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF,
    0x33800000, 0x4B800000, 0x1A000000, 0x5F000000,
]  # fmt: skip


def f32(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


def round_to_f32(x: Fraction) -> int:
    """The bits of x != 0 rounded to binary32, to nearest even, by integers alone."""
    sign, x = (0x80000000, -x) if x < 0 else (0, x)
    exponent = max(x.numerator.bit_length() - x.denominator.bit_length() - 24, -149)
    while x / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    scaled = x / Fraction(2) ** exponent
    while scaled < 1 << 23 and exponent > -149:
        exponent -= 1
        scaled *= 2
    q = scaled.numerator // scaled.denominator
    rest = scaled - q
    q += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and q & 1)
    if q == 1 << 24:
        q, exponent = 1 << 23, exponent + 1
    if q >= 1 << 23:
        biased = exponent + 150
        return sign | (0x7F800000 if biased >= 255 else (biased << 23) | (q - (1 << 23)))
    return sign | q


def exact_fma(a: int, b: int, c: int) -> int:
    x, y, z = (float(f32(v)) for v in (a, b, c))
    if any(math.isnan(v) for v in (x, y, z)) or (math.isinf(x) and y == 0) or (x == 0 and math.isinf(y)):
        return 0x7FC00000
    if math.isinf(x) or math.isinf(y):
        negative = math.copysign(1, x) * math.copysign(1, y) < 0
        if math.isinf(z) and (z < 0) != negative:
            return 0x7FC00000
        return 0xFF800000 if negative else 0x7F800000
    if math.isinf(z):
        return c
    total = Fraction(x) * Fraction(y) + Fraction(z)
    if total == 0:
        product_sign, sum_sign = (a ^ b) >> 31, c >> 31
        exact_zeros = Fraction(x) * Fraction(y) == 0
        both_negative = product_sign == 1 and sum_sign == 1
        return 0x80000000 if both_negative and (exact_zeros or product_sign == sum_sign) else 0
    return round_to_f32(total)


def fma_bits(triples: list[tuple[int, int, int]]) -> list[int]:
    a, b, c = (np.array(column, np.uint32).view(np.float32) for column in zip(*triples, strict=True))
    with np.errstate(all="ignore"):
        r = reference.fma(a, b, c)
    return [0x7FC00000 if np.isnan(x) else int(x.view(np.uint32)) for x in r]


def test_fma_rounds_once_on_special_values() -> None:
    triples = [(a, b, c) for a in SPECIAL for b in SPECIAL for c in SPECIAL]
    assert fma_bits(triples) == [exact_fma(*t) for t in triples]


def test_fma_rounds_once_near_ties_and_in_the_subnormal_range() -> None:
    rng = random.Random(1)
    triples = []
    for _ in range(6000):
        a, b = rng.getrandbits(32), rng.getrandbits(32)
        if rng.random() < 0.6:  # c close to a ulp or half an ulp of the product: where double rounding would show
            product = float(f32(a)) * float(f32(b))
            shift = rng.choice([0, 23, 24, 25, 26, 48, 49, 50, 60])
            with np.errstate(all="ignore"):
                c = int(np.float32(product * 2.0**-shift * rng.choice([1, -1])).view(np.uint32))
        else:
            c = rng.getrandbits(32)
        triples.append((a, b, c))
        small = rng.getrandbits(31) % 0x0C000000  # products that land among the subnormals
        triples.append((small, rng.getrandbits(31) % 0x3F800000, rng.getrandbits(24)))
        # a 25-bit exact product that is a tie, plus a far addend
        odd = 0x3F800000 | (rng.getrandbits(23) | 1)
        triples.append((odd, 0x3FC00000, rng.choice([0x00000001, 0x80000001, 0x2F000000, 0xAF000000])))
    assert fma_bits(triples) == [exact_fma(*t) for t in triples]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    found = reference.philox(tuple(np.array(c) for c in counter), key)  # type: ignore[arg-type]
    assert tuple(int(w) for w in found) == words


@pytest.mark.parametrize(
    ("k", "lengths"),
    [
        (0, []), (1, [1]), (128, [128]), (192, [192]), (193, [128, 65]), (256, [128, 128]), (320, [128, 192]),
        (321, [128, 128, 65]), (1024, [128] * 8), (1088, [128] * 7 + [192]),
    ],
)  # fmt: skip
def test_dot_blocks_have_65_to_192_values(k: int, lengths: list[int]) -> None:
    blocks = list(reference.dot_blocks(k))
    assert [end - start for start, end in blocks] == lengths
    assert [start for start, _ in blocks] == [sum(lengths[:i]) for i in range(len(lengths))]


def test_sum_keeps_the_sign_of_zero_and_starts_segments_anew() -> None:
    assert np.signbit(reference.reduce_sum(np.full((1, 3), -0.0, np.float32))[0])
    assert not np.signbit(reference.reduce_sum(np.zeros((1, 0), np.float32))[0])
    x = np.zeros((1, 2048 * 64 + 1), np.float32)
    x[0, 0], x[0, 64] = 2.0**24, 1.0  # one lane: 2^24 + 1 rounds back to 2^24
    assert reference.reduce_sum(x)[0] == 2.0**24
    x[0, 65] = 1.0  # another lane: folded one by one into 2^24, lost as well
    assert reference.reduce_sum(x)[0] == 2.0**24
    x[0, 2048], x[0, 4096] = 1.0, 1.0  # other segments, lanes 1 and 2 of the sum of segments: folded, lost
    assert reference.reduce_sum(x)[0] == 2.0**24
    x[0, 2048 + 2], x[0, 2048 * 33] = 1.0, 1.0  # lanes 1 and 33 meet before lane 0 does: 2 + 1 survive as 2^24 + 4
    assert reference.reduce_sum(x)[0] == 2.0**24 + 4


def test_narrow_floats_round_to_nearest_even_at_the_store() -> None:
    from gensyn_verify.backends.arrays import narrow
    from gensyn_verify.program.types import Dtype

    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, np.nan, -0.0], np.float32)
    assert narrow(x, Dtype.bf16).tolist() == [0x3F80, 0x3F82, 0x7F80, 0x7FC0, 0x8000]
    y = np.array([65519.0, 65520.0, 2.0**-25, 3 * 2.0**-25, np.nan], np.float32)
    assert narrow(y, Dtype.f16).view(np.uint16).tolist() == [0x7BFF, 0x7C00, 0x0000, 0x0002, 0x7E00]

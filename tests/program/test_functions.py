"""The published elementary functions: their bits on every backend, their errors, their special values.

All 2^32 inputs, and millions of pairs, are checked by tests/exhaustive/elementary.py; here, every 4093rd input and all
boundaries, and fewer pairs.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache

import mpmath
import numpy as np
import pytest
from exhaustive import elementary
from exhaustive.elementary import (
    BINARY,
    COMPILED,
    CORRUPTIONS,
    NAMES,
    U32,
    UNARY,
    VECTORS,
    Worst,
    digest,
    evaluate,
    inputs_of,
    pairs,
    sample,
)
from native import ISAS, machine

from gensyn_verify.program import functions

FILE = json.loads(VECTORS.read_text())
PUBLISHED = FILE["functions"]
INF, NAN = 0x7F800000, 0x7FC00000
ODD = ["tanh", "erf", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh"]
EVEN = ["cos", "cosh"]
mpmath.mp.prec = 320  # enough for the reduction of 2^127 with 100 bits to spare


def u32(*bits: int) -> U32:
    return np.array(bits, np.uint32)


def bits_of(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def value_of(bits: int) -> mpmath.mpf:
    return mpmath.mpf(float(u32(bits).view(np.float32)[0]))


@lru_cache(maxsize=1)
def sampled(name: str) -> U32:
    """Results over the sample, by the best instruction set."""
    with machine(ISAS[0]):
        return evaluate(name, inputs_of(name), "cpu")


TRUTH = {name: getattr(mpmath, name, None) for name in NAMES} | {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log1p": lambda x: mpmath.log(1 + x),
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x, 2),
    "pow": lambda x, y: x**y,
}


def exact_error(name: str, x: tuple[int, ...], y: int) -> float:
    """Error of a finite result in units of the last place of the true value, by arithmetic of 320 bits."""
    truth = TRUTH[name](*map(value_of, x))
    exponent = max(mpmath.frexp(truth)[1] - 1, -126)
    return float(abs(value_of(y) - truth) / mpmath.mpf(2) ** (exponent - 23))


# ---- bits


def test_vector_file_is_what_its_generator_writes() -> None:
    """All of it but the digests over all inputs and the largest errors, which a sweep writes."""
    assert list(PUBLISHED) == NAMES
    swept = ("digest", "max_ulp", "worst_input")
    entries = {n: {**elementary.describe(n), **{k: PUBLISHED[n][k] for k in swept}} for n in NAMES}
    assert VECTORS.read_text() == elementary.text(entries)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("name", "compiled"),
    [*((n, True) for n in COMPILED), *((n, False) for n in NAMES)],
    ids=lambda v: v if isinstance(v, str) else "compiled" if v else "machine",
)
def test_every_instruction_set_gives_the_published_bits(name: str, isa: str, compiled: bool) -> None:
    with machine(isa):
        assert digest(evaluate(name, inputs_of(name), "cpu", compiled)) == PUBLISHED[name]["sample"]


@pytest.mark.parametrize("name", NAMES)
def test_the_definition_gives_the_published_bits(name: str) -> None:
    assert digest(evaluate(name, inputs_of(name), "reference")) == PUBLISHED[name]["sample"]


@pytest.mark.parametrize("name", NAMES)
def test_published_points(name: str) -> None:
    *x, y = np.array([[int(v, 16) for v in p] for p in PUBLISHED[name]["points"]], np.uint32).T
    assert (evaluate(name, np.array(x), "reference") == y).all()


@pytest.mark.parametrize(("name", "x", "wrong", "reason"), CORRUPTIONS)
def test_results_of_wrong_implementations_are_refused(name: str, x: tuple[int, ...], wrong: int, reason: str) -> None:
    """By the bits, and, where more than a rounding is wrong, by the measure of errors too."""
    inputs = u32(*x).reshape(-1, 1)
    assert int(evaluate(name, inputs, "reference")[0]) != wrong, reason
    worst = Worst()
    worst.add(name, inputs, u32(wrong))
    assert worst.ulp >= 1, reason


# ---- errors


@pytest.mark.parametrize("name", NAMES)
def test_errors_over_the_sample_stay_within_the_published_bound(name: str) -> None:
    worst = Worst()
    worst.add(name, inputs_of(name), sampled(name))
    assert worst.ulp < float(PUBLISHED[name]["max_ulp"]) + 1e-4 <= 1, worst


@pytest.mark.parametrize("name", [n for n in NAMES if float(PUBLISHED[n]["max_ulp"]) > 0.5])
def test_the_published_bound_is_attained_where_the_file_says(name: str) -> None:
    x = tuple(int(v, 16) for v in PUBLISHED[name]["worst_input"])
    y = int(evaluate(name, u32(*x).reshape(-1, 1), "reference")[0])
    assert exact_error(name, x, y) == pytest.approx(float(PUBLISHED[name]["max_ulp"]), abs=1e-4)


def hardest_argument(exponent: int) -> int:
    """Bits of an m 2^exponent, 2^23 <= m < 2^24, as close as any to a multiple of pi/2, or nearly.

    The m that bring m * ratio closest to an integer are the denominators of its continued fraction and, where those
    are too small, their multiples.
    """
    ratio = mpmath.mpf(2) ** exponent * 2 / mpmath.pi
    rest, before, denominator = ratio - mpmath.floor(ratio), 0, 1
    candidates = []
    while denominator < 1 << 24:
        candidates.append(denominator * -(-(1 << 23) // denominator))
        rest = 1 / rest
        whole = int(mpmath.floor(rest))
        rest, before, denominator = rest - whole, denominator, whole * denominator + before
    m = min(candidates, key=lambda m: abs(m * ratio - mpmath.nint(m * ratio)))
    return ((exponent + 150) << 23) + m - (1 << 23)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_hardest_arguments_of_every_exponent_are_reduced_exactly(name: str) -> None:
    inputs = u32(*(hardest_argument(e) for e in range(-23, 105)))
    results = evaluate(name, inputs, "reference")
    errors = [exact_error(name, (int(x),), int(y)) for x, y in zip(inputs, results, strict=True)]
    assert max(errors) < 1


# ---- special values and symmetry

SPECIAL = {
    # name: (at -infinity, at -0, at +0, at +infinity)
    "exp": (0.0, 1.0, 1.0, np.inf),
    "expm1": (-1.0, -0.0, 0.0, np.inf),
    "log": (np.nan, -np.inf, -np.inf, np.inf),
    "log1p": (np.nan, -0.0, 0.0, np.inf),
    "tanh": (-1.0, -0.0, 0.0, 1.0),
    "erf": (-1.0, -0.0, 0.0, 1.0),
    "sigmoid": (0.0, 0.5, 0.5, 1.0),
    "sin": (np.nan, -0.0, 0.0, np.nan),
    "cos": (np.nan, 1.0, 1.0, np.nan),
    "tan": (np.nan, -0.0, 0.0, np.nan),
    "exp2": (0.0, 1.0, 1.0, np.inf),
    "log2": (np.nan, -np.inf, -np.inf, np.inf),
    "log10": (np.nan, -np.inf, -np.inf, np.inf),
    "asin": (np.nan, -0.0, 0.0, np.nan),
    "acos": (np.nan, np.pi / 2, np.pi / 2, np.nan),
    "atan": (-np.pi / 2, -0.0, 0.0, np.pi / 2),
    "sinh": (-np.inf, -0.0, 0.0, np.inf),
    "cosh": (np.inf, 1.0, 1.0, np.inf),
    "asinh": (-np.inf, -0.0, 0.0, np.inf),
    "acosh": (np.nan, np.nan, np.nan, np.inf),
    "atanh": (np.nan, -0.0, 0.0, np.nan),
    "erfc": (2.0, 1.0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str) -> None:
    found = evaluate(name, u32(INF | 0x80000000, 0x80000000, 0, INF), "reference")
    assert found.tolist() == [bits_of(v) for v in SPECIAL[name]]


@pytest.mark.parametrize("name", UNARY)
def test_every_nan_gives_the_one_nan(name: str) -> None:
    payloads = u32(NAN, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0xFF812345)
    assert (evaluate(name, payloads, "reference") == NAN).all()


@pytest.mark.parametrize("name", UNARY)
def test_only_nan_and_arguments_outside_the_domain_give_nan(name: str) -> None:
    x = sample().view(np.float32)
    outside = {
        **dict.fromkeys(("log", "log2", "log10"), x < 0),
        **dict.fromkeys(("sin", "cos", "tan"), np.isinf(x)),
        **dict.fromkeys(("asin", "acos", "atanh"), np.abs(x) > 1),
        "log1p": x < -1,
        "acosh": x < 1,
    }.get(name, np.zeros(x.shape, bool))
    assert (np.isnan(sampled(name).view(np.float32)) == (np.isnan(x) | outside)).all()


@pytest.mark.parametrize("name", [*ODD, *EVEN])
def test_odd_and_even_functions_are_so_in_every_bit(name: str) -> None:
    x, y = sample(), sampled(name)
    mirrored = evaluate(name, x ^ np.uint32(0x80000000), "cpu")
    flip = np.where(np.isnan(y.view(np.float32)), 0, 0x80000000 if name in ODD else 0).astype(np.uint32)
    assert (mirrored == y ^ flip).all()


def test_subnormal_results_of_exp_are_rounded_once() -> None:
    """Every one that the sample of multiples of 2^-16 gives, within the bound of normal results."""
    x = np.arange(-104 << 16, -87 << 16, 37, dtype=np.int64).astype(np.float32) / np.float32(65536)
    worst = Worst()
    worst.add("exp", x.view(np.uint32), evaluate("exp", x.view(np.uint32), "cpu"))
    assert worst.ulp < float(PUBLISHED["exp"]["max_ulp"])


# ---- functions of two variables


def binary32(x: float) -> float:
    return float(np.float32(x))


@pytest.mark.parametrize("name", BINARY)
def test_special_cases_are_those_of_c(name: str) -> None:
    """All pairs of zeros, infinities, NaN, integers, fractions and extremes, against Python's math module."""
    values = [0.0, 1.0, 2.0, 3.0, 0.5, 1.5, 2.0**24, 2.0**24 - 1, 2.0**-149, 2.0**-126, 2.0**127, np.inf, np.nan]
    values += [-v for v in values]
    x, y = np.array([(a, b) for a in values for b in values], np.float32).T
    found = evaluate(name, np.stack([x, y]).view(np.uint32), "reference").view(np.float32)

    def expected(a: float, b: float) -> float:
        if name == "remainder":
            r = expected_of("fmod", a, b)
            return binary32(r + b) if r and (r < 0) != (b < 0) else r
        return expected_of(name, a, b)

    for a, b, r in zip(x.tolist(), y.tolist(), found.tolist(), strict=True):
        wanted = expected(a, b)
        same = math.isnan(r) if math.isnan(wanted) else math.copysign(1, r) == math.copysign(1, wanted)
        assert same, (a, b, r, wanted)
        assert math.isnan(wanted) or r == pytest.approx(wanted, rel=2.0**-23, abs=2.0**-149), (a, b, r, wanted)


def expected_of(name: str, a: float, b: float) -> float:
    """math.name(a, b), rounded; where that raises, what C returns."""
    try:
        with np.errstate(over="ignore"):
            return binary32(getattr(math, name)(a, b))
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        if name == "pow" and a == 0:
            return math.copysign(math.inf, a) if abs(b) % 2 == 1 else math.inf
        return math.nan


def test_fmod_is_exact_for_quotients_of_all_sizes() -> None:
    """Up to 277 bits, against math.fmod of the same numbers, which is exact in binary64."""
    rng = np.random.Generator(np.random.Philox(3))
    x = rng.integers(0x7E000000, 0x7F800000, 4000, dtype=np.uint32)
    y = rng.integers(1, 0x01000000, 4000, dtype=np.uint32) >> rng.integers(0, 24, 4000, dtype=np.uint32)
    x, y = np.append(x, 0x7F7FFFFF).astype(np.uint32), np.append(np.maximum(y, 1), 3).astype(np.uint32)
    mixed = pairs(2000)
    inputs = np.concatenate([np.stack([x, y]), mixed], axis=1)
    inputs = inputs[:, ((inputs & 0x7FFFFFFF) < INF).all(axis=0) & ((inputs[1] & 0x7FFFFFFF) > 0)]
    found = evaluate("fmod", inputs, "reference").view(np.float32).tolist()
    a, b = (v.tolist() for v in inputs.view(np.float32))
    wanted = [math.fmod(p, q) for p, q in zip(a, b, strict=True)]
    assert found == wanted
    assert math.log2(max(abs(p / q) for p, q in zip(a, b, strict=True))) > 275


# ---- constants


def test_words_of_two_over_pi() -> None:
    scaled = int(mpmath.floor(mpmath.mpf(2) ** 224 * 2 / mpmath.pi))
    words = [scaled >> (32 * k) & 0xFFFFFFFF for k in reversed(range(7))]
    assert list(functions.TWO_OVER_PI) == [0, *words]


@pytest.mark.parametrize(
    ("high", "low", "constant"),
    [
        (functions.LN2_HIGH, functions.LN2_LOW, mpmath.log(2)),
        (functions.HALF_PI_HIGH, functions.HALF_PI_LOW, mpmath.pi / 2),
        (functions.THIRD_HIGH, functions.THIRD_LOW, mpmath.mpf(1) / 3),
        (functions.LOG2_E, functions.LOG2_E_LOW, 1 / mpmath.log(2)),
        (functions.LOG10_2_HIGH, functions.LOG10_2_LOW, mpmath.log10(2)),
    ],
)
def test_split_constants(high: float, low: float, constant: mpmath.mpf) -> None:
    assert high == float(np.float32(float(constant)))
    assert low == float(np.float32(float(constant - mpmath.mpf(high))))


def test_reduction_by_the_high_part_of_ln_2_is_exact() -> None:
    """What `exp`, `expm1`, `sigmoid`, `tanh` and `erf` rest on: the fma that subtracts n LN2_HIGH rounds nothing."""
    x = sample().view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) < 104)].astype(np.float64)
    n = np.rint(x * np.log2(np.e))
    difference = x - n * functions.LN2_HIGH  # exact in binary64: n is 0 for small x
    exact = difference.astype(np.float32).astype(np.float64) == difference
    assert exact.all()

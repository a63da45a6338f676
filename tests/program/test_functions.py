"""The published elementary functions: their bits on every backend, their errors, their special values.

All 2^32 inputs are checked by tests/exhaustive/elementary.py; here, every 4093rd and all boundaries.
"""

from __future__ import annotations

import json
from functools import lru_cache

import mpmath
import numpy as np
import pytest
from exhaustive import elementary
from exhaustive.elementary import CORRUPTIONS, NAMES, U32, VECTORS, Worst, digest, evaluate, sample
from native import ISAS, machine

from gensyn_verify.program import functions

FILE = json.loads(VECTORS.read_text())
PUBLISHED = FILE["functions"]
INF, NAN = 0x7F800000, 0x7FC00000
ODD = ["tanh", "erf", "sin"]
mpmath.mp.prec = 320  # enough for the reduction of 2^127 with 100 bits to spare


def u32(*bits: int) -> U32:
    return np.array(bits, np.uint32)


def bits_of(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def value_of(bits: int) -> mpmath.mpf:
    return mpmath.mpf(float(u32(bits).view(np.float32)[0]))


@lru_cache(maxsize=1)
def sampled(name: str) -> U32:
    """Results over the sample, by compiled code of the best instruction set."""
    with machine(ISAS[0]):
        return evaluate(name, sample(), "cpu")


TRUTH = {name: getattr(mpmath, name, None) for name in NAMES} | {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log1p": lambda x: mpmath.log(1 + x),
}


def exact_error(name: str, x: int, y: int) -> float:
    """Error of a finite result in units of the last place of the true value, by arithmetic of 320 bits."""
    truth = TRUTH[name](value_of(x))
    exponent = max(mpmath.frexp(truth)[1] - 1, -126)
    return float(abs(value_of(y) - truth) / mpmath.mpf(2) ** (exponent - 23))


# ---- bits


def test_vector_file_is_what_its_generator_writes() -> None:
    """All of it but the digests over all inputs and the largest errors, which a sweep writes."""
    assert list(PUBLISHED) == NAMES
    swept = ("digest", "max_ulp", "worst_input")
    entries = {n: {**elementary.describe(n), **{k: PUBLISHED[n][k] for k in swept}} for n in NAMES}
    assert VECTORS.read_text() == elementary.text(entries)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "machine"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_set_gives_the_published_bits(name: str, isa: str, compiled: bool) -> None:
    with machine(isa):
        assert digest(evaluate(name, sample(), "cpu", compiled)) == PUBLISHED[name]["sample"]


@pytest.mark.parametrize("name", NAMES)
def test_the_definition_gives_the_published_bits(name: str) -> None:
    assert digest(evaluate(name, sample(), "reference")) == PUBLISHED[name]["sample"]


@pytest.mark.parametrize("name", NAMES)
def test_published_points(name: str) -> None:
    points = np.array([[int(v, 16) for v in p] for p in PUBLISHED[name]["points"]], np.uint32)
    assert (evaluate(name, points[:, 0].copy(), "reference") == points[:, 1]).all()


@pytest.mark.parametrize(("name", "x", "wrong", "reason"), CORRUPTIONS)
def test_results_of_wrong_implementations_are_refused(name: str, x: int, wrong: int, reason: str) -> None:
    """By the bits, and, where more than a rounding is wrong, by the measure of errors too."""
    assert int(evaluate(name, u32(x), "reference")[0]) != wrong, reason
    worst = Worst()
    worst.add(name, u32(x), u32(wrong))
    assert worst.ulp >= 1, reason


# ---- errors


@pytest.mark.parametrize("name", NAMES)
def test_errors_over_the_sample_stay_within_the_published_bound(name: str) -> None:
    worst = Worst()
    worst.add(name, sample(), sampled(name))
    assert worst.ulp < float(PUBLISHED[name]["max_ulp"]) + 1e-4 <= 1, worst


@pytest.mark.parametrize("name", NAMES)
def test_the_published_bound_is_attained_where_the_file_says(name: str) -> None:
    x = int(PUBLISHED[name]["worst_input"], 16)
    y = int(evaluate(name, u32(x), "reference")[0])
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


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_hardest_arguments_of_every_exponent_are_reduced_exactly(name: str) -> None:
    inputs = u32(*(hardest_argument(e) for e in range(-23, 105)))
    results = evaluate(name, inputs, "reference")
    errors = [exact_error(name, int(x), int(y)) for x, y in zip(inputs, results, strict=True)]
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
}


@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str) -> None:
    found = evaluate(name, u32(INF | 0x80000000, 0x80000000, 0, INF), "reference")
    assert found.tolist() == [bits_of(v) for v in SPECIAL[name]]


@pytest.mark.parametrize("name", NAMES)
def test_every_nan_gives_the_one_nan(name: str) -> None:
    payloads = u32(NAN, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0xFF812345)
    assert (evaluate(name, payloads, "reference") == NAN).all()


@pytest.mark.parametrize("name", NAMES)
def test_only_nan_and_arguments_outside_the_domain_give_nan(name: str) -> None:
    x = sample().view(np.float32)
    outside = {"log": x < 0, "log1p": x < -1, "sin": np.isinf(x), "cos": np.isinf(x)}.get(name, np.zeros(x.shape, bool))
    assert (np.isnan(sampled(name).view(np.float32)) == (np.isnan(x) | outside)).all()


@pytest.mark.parametrize("name", [*ODD, "cos"])
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

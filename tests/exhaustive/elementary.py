"""Every elementary function on all 2^32 inputs, on every instruction set: `python tests/exhaustive/elementary.py`.

For each function the results, as little-endian u32 in the order of the input bits, are hashed with BLAKE3 and compared
with tests/vectors/elementary.json, and their error is measured against binary64. Functions of two variables run on the
2^24 and more pairs of `pairs`. Functions that the build compiles (`program/published.py`) run as compiled loops on
every instruction set and in the virtual machine on the first; all others run in the virtual machine. `--write` makes
the vector file anew from the first instruction set; the test suite recomputes all of it but the digests of the full
tables. Exit code 1 on any difference.

References are NumPy's and PyTorch's binary64 functions, wrong by at most a few units of 2^-53, so the errors stated
here are right to 1e-7 ulp.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from blake3 import blake3
from tqdm import tqdm

from gensyn_verify import _native, backends
from gensyn_verify.backends.cpu import Executor
from gensyn_verify.program import (
    Dtype,
    Program,
    Reg,
    ScalarBuilder,
    ScalarProgram,
    TensorType,
    functions,
    ops,
    published,
    rounding,
)
from gensyn_verify.program.program import Input, Node, Output

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "elementary.json"
BLOCK = 1 << 18  # results stay in cache until they are hashed
SAMPLE_STEP = 4093  # a prime: the sample meets every residue of the mantissa
ERROR_STEP = 251
SAMPLE_PAIRS = 1 << 16  # of each group, in the test suite
SWEEP_PAIRS = 1 << 22  # and here

U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]
Json = dict[str, Any]


def _torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[F64], F64]:
    return lambda x: function(torch.from_numpy(x)).numpy()


def _remainder(x: F64, y: F64) -> F64:
    r = np.fmod(x, y)
    return np.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)


UNARY: dict[str, Callable[..., F64]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "erf": _torch(torch.special.erf), "sigmoid": _torch(torch.sigmoid), "sin": _torch(torch.sin),
    "cos": _torch(torch.cos), "tan": np.tan, "exp2": np.exp2, "log2": np.log2, "log10": np.log10,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "erfc": _torch(torch.special.erfc),
}  # fmt: skip
BINARY: dict[str, Callable[..., F64]] = {
    "pow": np.power, "atan2": np.arctan2, "hypot": np.hypot, "fmod": np.fmod, "remainder": _remainder,
}  # fmt: skip
TRUTH = UNARY | BINARY
NAMES = list(TRUTH)
COMPILED = [n for n in NAMES if n in published.PUBLISHED]
SIGN = 0x80000000


def arity(name: str) -> int:
    return 2 if name in BINARY else 1


# ---- programs


def scalar_program(name: str, compiled: bool) -> ScalarProgram:
    """The function. A second output, the input, makes it a program that the build has not compiled."""
    b = ScalarBuilder()
    x = [b.input(Reg.f32) for _ in range(arity(name))]
    y = getattr(rounding if name in ("fmod", "remainder") else functions, name)(*x)
    return b.build(y) if compiled else b.build(y, x[0])


def program(name: str, n: int, compiled: bool = True) -> Program:
    """One or two f32[n] to f32[n], one map node."""
    scalar = scalar_program(name, compiled)
    t = TensorType(Dtype.f32, (n,))
    inputs = tuple(Input("batch", f"x{i}", t) for i in range(arity(name)))
    outputs = tuple(Output("metric", f"y{i}", len(inputs) + i) for i in range(len(scalar.outputs)))
    operands = tuple(range(len(inputs)))
    node = Node(ops.Map(0, (n,), (Dtype.f32,) * len(outputs)), operands, (t,) * len(outputs))
    return Program(inputs, (scalar,), (node,), outputs)


def named(inputs: U32) -> dict[str, npt.NDArray[np.float32]]:
    """A program's inputs of the bits of its variables: u32[n], of two variables u32[2, n]."""
    return {f"x{i}": x.view(np.float32) for i, x in enumerate(np.atleast_2d(inputs))}


def evaluate(name: str, inputs: U32, backend: str, compiled: bool = True) -> U32:
    """Result bits of input bits, u32[n] or, of two variables, u32[2, n]."""
    p = program(name, inputs.shape[-1], compiled)
    result: U32 = backends.evaluate(p, named(inputs), backend)["y0"].view(np.uint32)
    return result


# ---- errors


class Worst:
    """The largest error so far, in units of the last place of the true value, and its input.

    A result that is the true value rounded once counts as half a unit, whatever its error. Where the true value rounds
    to NaN or to an infinity, or is zero, any other result, a zero of the other sign too, counts as an infinite error.
    """

    def __init__(self) -> None:
        self.ulp = 0.5
        self.input: tuple[int, ...] = (0,)

    def add(self, name: str, inputs: U32, results: U32) -> None:
        with np.errstate(all="ignore"):
            truth = TRUTH[name](*(x.astype(np.float64) for x in named(inputs).values()))
            rounded = truth.astype(np.float32)
        bits = np.where(np.isnan(rounded), np.uint32(0x7FC00000), rounded.view(np.uint32))
        differ = np.flatnonzero(bits != results)
        if not len(differ):
            return
        truth, found = truth[differ], results[differ].view(np.float32).astype(np.float64)
        unit = np.ldexp(1.0, np.frexp(np.maximum(np.abs(truth), 2.0**-126))[1] - 24)
        special = ~np.isfinite(rounded[differ]) | ~np.isfinite(found) | (truth == 0)
        with np.errstate(all="ignore"):
            errors = np.where(special, np.inf, np.abs(found - truth) / unit)
        at = int(errors.argmax())
        if errors[at] > self.ulp:
            self.ulp, self.input = float(errors[at]), tuple(np.atleast_2d(inputs)[:, differ[at]].tolist())

    def __str__(self) -> str:
        return f"{self.ulp:.4f} ulp at {' '.join(f'{x:08x} ({np.uint32(x).view(np.float32)!s})' for x in self.input)}"


# ---- the sample that the test suite checks


def boundaries() -> U32:
    """Both signs of: the neighbourhoods of every threshold of a formula or of the range, of powers of two, of numbers
    near odd multiples of ln(2)/2, multiples of pi/2 and powers of ten; subnormals, extremes, infinities and NaN of many
    payloads.
    """
    thresholds = [
        2.0**-25, 0.25, 0.3333333, 0.5, 0.55, 0.75, 0.88, 1.0, 1.5, 2.0, 4.0, 9.01, 10.0, 17.3287, 20.0, 30.0,
        87.33654, 88.02969, 88.37626, 88.72283, 103.27893, 103.97208, 104.0, 9.194549, 10.05, 10.1, 89.415985, 126.0,
        149.0, 150.0,
    ]  # fmt: skip
    near = [np.float32(t) for t in thresholds]
    near += [np.float32(m * 2.0**e) for e in range(-126, 128) for m in (1.0, 1.5, 1.75)]
    near += [np.float32((n + 0.5) * np.log(2)) for n in range(151)] + [np.float32(n * np.log(2)) for n in range(152)]
    near += [np.float32(n * np.pi / 4) for n in range(1, 400)] + [np.float32(10.0**n) for n in range(-45, 39)]
    near += [np.float32(v) for v in np.geomspace(1e2, 3.4e38, 300)]
    points: list[int] = []
    for value in near:
        center = int(value.view(np.uint32))
        points += range(center - 8, center + 9)
    points += [1 << k for k in range(23)] + [(1 << k) - 1 for k in range(24)]  # subnormals
    points += range(0x7F7FFFF0, 0x7F800010)
    points += [0x7F800000 + (1 << k) for k in range(23)] + [0x7FFFFFFF]
    # The binary32 numbers closest, for their size, to multiples of pi/2.
    points += [0x3FC90FDB, 0x40490FDB, 0x437CE5F1, 0x50A3E87F, 0x53B146A6, 0x5C87BCD0, 0x6A1976F1, 0x6F79BE45]
    positive = np.unique(np.array([p for p in points if 0 <= p < SIGN], np.uint32))
    return np.concatenate([positive, positive | np.uint32(SIGN)])


def sample() -> U32:
    """Every SAMPLE_STEP-th bit pattern from 0, then the boundaries."""
    return np.concatenate([np.arange(0, 1 << 32, SAMPLE_STEP, np.uint64).astype(np.uint32), boundaries()])


def pairs(count: int) -> U32:
    """u32[2, n]: all pairs of some boundary values and `count` pairs each of arbitrary bits, of values between 2^-k and
    2^k for k = 16, 4 and 1, and of numbers around 1 with large ones, from NumPy's Philox4x64 with key 0.
    """
    edges = [0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]
    edges += [int(np.float32(v).view(np.uint32)) for v in (0.1, 0.3333333, 0.5, 1.5, 2, 3, 4, 5, 7, 10, 31, 64, 149)]
    edges += [(k << 23) + d for k in (1, 20, 64, 105, 115, 126, 127, 128, 149, 150, 151, 200) for d in (-1, 0, 1)]
    values = np.unique(np.array(edges, np.uint32))
    values = np.concatenate([values, values | np.uint32(SIGN)])
    every = np.stack(np.meshgrid(values, values, indexing="ij")).reshape(2, -1)
    parts = [every]
    bits = np.random.Philox(key=0)

    def words() -> U32:
        return bits.random_raw(count).astype("<u8").view(np.uint32).reshape(count, 2).T

    parts.append(words())
    for k in (16, 4, 1):
        raw = words()
        exponent = (raw >> 8) % np.uint32(2 * k) + np.uint32(127 - k)
        parts.append((words() & np.uint32(0x807FFFFF)) | (exponent << 23))
    near, large = words()
    parts.append(np.stack([near % np.uint32(1 << 17) + np.uint32(0x3F7F0000), large % np.uint32(5 << 24) + 0x46000000]))
    return np.ascontiguousarray(np.concatenate(parts, axis=1).astype(np.uint32))


def inputs_of(name: str) -> U32:
    """The sample of a function."""
    return pairs(SAMPLE_PAIRS) if name in BINARY else sample()


def digest(results: U32) -> str:
    return blake3(results.astype("<u4").tobytes()).hexdigest()


# ---- all inputs


def _blocks(name: str) -> Iterator[U32]:
    """All inputs of a sweep; the last block of pairs is filled with zeros."""
    if name in BINARY:
        every = pairs(SWEEP_PAIRS)
        every = np.pad(every, ((0, 0), (0, -every.shape[1] % BLOCK)))
        yield from (np.ascontiguousarray(every[:, i : i + BLOCK]) for i in range(0, every.shape[1], BLOCK))
    else:
        offsets = np.arange(BLOCK, dtype=np.uint32)
        yield from (offsets + np.uint32(start) for start in range(0, 1 << 32, BLOCK))


def sweep(name: str, compiled: bool, error_step: int, title: str) -> tuple[str, Worst]:
    """The digest of the full table under the instruction set in force, and the error at every error_step-th input."""
    executor = Executor(program(name, BLOCK, compiled))
    hasher, worst = blake3(), Worst()
    for n, inputs in enumerate(tqdm(_blocks(name), title, leave=False, unit="block", mininterval=1)):
        results = executor.step(named(inputs), {})["y0"].view(np.uint32)
        hasher.update(results.astype("<u4", copy=False).view(np.uint8).data)
        if error_step:
            chosen = slice(n % error_step, None, error_step)
            worst.add(name, np.ascontiguousarray(inputs[..., chosen]), np.ascontiguousarray(results[chosen]))
    return hasher.hexdigest(), worst


def check(names: Iterable[str], isas: list[str], machine: bool, error_step: int) -> bool:
    """Print one line a function and path; whether every digest is the published one."""
    published = json.loads(VECTORS.read_text())["functions"]
    good = True
    for name in names:
        paths = [(isa, True) for isa in isas] + [(isas[0], False)] * (machine and name in COMPILED)
        for isa, compiled in paths:
            _native.use_isa(isa)
            path = f"{name:9} {isa:9} {'compiled' if compiled and name in COMPILED else 'machine '}"
            found, worst = sweep(name, compiled, error_step, path)
            same = found == published[name]["digest"]
            good &= same
            error = f"; at most {worst}" if error_step else ""
            print(f"{path} {'same digest' if same else f'DIFFERS: {found}'}{error}", flush=True)
    return good


# ---- the vector file

COMMENT = [
    "docs/elementary.md. Values are binary32 bit patterns in hexadecimal.",
    "program: the scalar program's record (docs/formats.md), hashed with BLAKE3.",
    "digest: BLAKE3 of the results for all 2^32 inputs in the order of their bits, each as a little-endian u32.",
    "  Of functions of two variables: for the pairs of pairs() in tests/exhaustive/elementary.py, then zeros.",
    "sample: the same over the inputs of inputs_of() there.",
    "max_ulp, worst_input: the largest error over all these inputs, against binary64, and where it occurs.",
    "points: [input, result] or [input, input, result].",
    "corruptions: results that a plausible wrong implementation gives and that must be refused.",
]
POINTS = {
    "exp": (0x00000000, 0x80000001, 0x3F800000, 0xC2CE8ECF, 0xC2CFF1B4, 0xC2CFF1B5, 0x42B17217, 0x42B17218),
    "expm1": (0x00000001, 0x80000000, 0x33000000, 0x3F000000, 0xBEB17218, 0x4188AA00, 0xC18AA123, 0x42B17217),
    "log": (0x00000000, 0x80000000, 0x00000001, 0x007FFFFF, 0x3F7FFFFF, 0x3F800000, 0xBF800000, 0x7F7FFFFF),
    "log1p": (0x80000000, 0x00000001, 0x3EFFFFFF, 0x3F000000, 0xBF7FFFFF, 0xBF800000, 0xBF800001, 0x7F7FFFFF),
    "tanh": (0x80000000, 0x00000001, 0x3F0CCCCD, 0x3F0CCCCE, 0xBF800000, 0x41102CB3, 0x41102CB4, 0x7F800000),
    "erf": (0x80000000, 0x00000001, 0x3F6147AE, 0x3F6147AF, 0xBF800000, 0x407AD447, 0x40800000, 0x7F800000),
    "sigmoid": (0x00000000, 0xC2CFF1B4, 0xC2AEAC50, 0x41880000, 0x418AA123, 0xC1880000, 0x80000001, 0x7F800000),
    "sin": (0x80000000, 0x00000001, 0x3F490FDB, 0x3F490FDC, 0x40490FDB, 0x5C87BCD0, 0x7F7FFFFF, 0xFF800000),
    "cos": (0x80000000, 0x00000001, 0x3F490FDB, 0x3FC90FDB, 0x40490FDB, 0x6F79BE45, 0x7F7FFFFF, 0x7F800000),
    "tan": (0x80000000, 0x00000001, 0x3F490FDB, 0x3FC90FDB, 0x40490FDB, 0x5C87BCD0, 0x6F79BE45, 0x7F7FFFFF),
    "exp2": (0x00000000, 0x80000001, 0x3F000000, 0xC3150000, 0xC3160000, 0xC3160001, 0x42FFFFFF, 0x43000000),
    "log2": (0x00000000, 0x80000000, 0x00000001, 0x007FFFFF, 0x3F7FFFFF, 0x3F800001, 0xBF800000, 0x7F7FFFFF),
    "log10": (0x00000000, 0x80000000, 0x00000001, 0x41200000, 0x3F7FFFFF, 0x49742400, 0xBF800000, 0x7F7FFFFF),
    "asin": (0x80000000, 0x00000001, 0x3F000000, 0x3F000001, 0x3F7FFFFF, 0xBF800000, 0x3F800001, 0x38D1B717),
    "acos": (0x80000000, 0x00000001, 0x3F000000, 0x3F000001, 0x3F7FFFFF, 0xBF800000, 0x3F800001, 0xBF000001),
    "atan": (0x80000000, 0x00000001, 0x3ED413CD, 0x3F7FFFFF, 0x3F800001, 0x7F7FFFFF, 0xBF800000, 0x4C000000),
    "sinh": (0x80000000, 0x00000001, 0x3EB17218, 0x3EB17219, 0x42B2D4FC, 0x42B2D4FD, 0xC1A00000, 0x3A800000),
    "cosh": (0x80000000, 0x00000001, 0x3EB17218, 0x3EB17219, 0x42B2D4FC, 0x42B2D4FD, 0xC1A00000, 0x39B504F3),
    "asinh": (0x80000000, 0x00000001, 0x3C7FFFFF, 0x3C800000, 0x4E800000, 0x4E800001, 0xBF800000, 0x7F7FFFFF),
    "acosh": (0x3F800001, 0x3F7FFFFF, 0x3FC00000, 0x40000000, 0x4E800000, 0x4E800001, 0xBF800000, 0x7F7FFFFF),
    "atanh": (0x80000000, 0x00000001, 0x3C7FFFFF, 0x3C800000, 0x3F7FFFFF, 0xBF7FFFFF, 0xBF800000, 0x3F800001),
    "erfc": (0x80000000, 0x00000001, 0x3EFFFFFF, 0x3F000000, 0x41131F88, 0x4120DFF0, 0x41200000, 0xC0800000),
}
EVERYWHERE = (0x3F800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7F800001)
PAIRS: dict[str, tuple[tuple[int, int], ...]] = {
    "pow": (
        (0xC0000000, 0x40400000), (0xC0000000, 0x40000000), (0xC0000000, 0x3F000000), (0x80000000, 0xC0400000),
        (0x80000000, 0xC0000000), (0xBF800000, 0x7F800000), (0x7FC00000, 0x00000000), (0x3F800000, 0x7FC00000),
        (0x3F800001, 0x4E800000), (0x00000001, 0x3F000000), (0x40000000, 0xC3150000), (0x3DCCCCCD, 0x42180000),
    ),
    "atan2": (
        (0x00000000, 0x80000000), (0x80000000, 0x80000000), (0x80000000, 0x00000000), (0x7F800000, 0xFF800000),
        (0x3F800000, 0xFF800000), (0xFF800000, 0x00000000), (0x00000001, 0x00000003), (0xBF800000, 0x80000001),
    ),
    "hypot": (
        (0x7F000000, 0x7F000000), (0x00000003, 0x00000004), (0x7F800000, 0x7FC00000), (0x7FC00000, 0x3F800000),
        (0x80000000, 0x00000000), (0x40400000, 0xC0800000), (0x7F7FFFFF, 0x3F800000),
    ),
    "fmod": (
        (0x7F7FFFFF, 0x00000001), (0x7F7FFFFF, 0x00000003), (0x7F7FFFFF, 0x3DCCCCCD), (0xFF7FFFFF, 0x007FFFFF),
        (0xC0A00000, 0x40400000), (0x40A00000, 0x7F800000), (0x7F800000, 0x40A00000), (0x3F800000, 0x00000000),
        (0x80000000, 0x3F800000), (0x00000005, 0x00000003), (0x40A00000, 0x7FC00000),
    ),
    "remainder": (
        (0x7F7FFFFF, 0xBDCCCCCD), (0xC0A00000, 0x40400000), (0xBF800000, 0x7F800000), (0x80000001, 0x7F7FFFFF),
        (0xC0C00000, 0x40400000), (0x7F800000, 0x40A00000), (0x3F800000, 0x80000000),
    ),
}  # fmt: skip
CORRUPTIONS: tuple[tuple[str, tuple[int, ...], int, str], ...] = (
    ("exp", (0xC2CE8ECF,), 0x00000000, "subnormal result flushed to zero"),
    ("exp", (0x42B17217,), 0x7F800000, "2^128 formed before the polynomial is applied"),
    ("expm1", (0x80000000,), 0x00000000, "sign of zero lost"),
    ("log", (0x80000000,), 0x7FC00000, "ln(-0) is -infinity, as at +0"),
    ("log", (0x00000001,), 0xFF800000, "subnormal input flushed to zero"),
    ("log1p", (0x00000001,), 0x00000000, "ln(1 + x) by rounding 1 + x"),
    ("tanh", (0x80000000,), 0x00000000, "sign of zero lost"),
    ("erf", (0x80000000,), 0x00000000, "sign of zero lost"),
    ("sigmoid", (0xC2B40000,), 0x00000000, "e^-x overflows"),
    ("sin", (0x5C87BCD0,), 0xB2E426E4, "argument reduced with 64 bits of 2/pi"),
    ("sin", (0x7F7FFFFF,), 0x7FC00000, "huge arguments given up"),
    ("cos", (0xFFC12345,), 0xFFC12345, "NaN payload kept"),
    ("tan", (0x474D246F,), 0xCC6B2A5E, "reduced argument rounded to binary32"),
    ("exp2", (0xC3150000,), 0x00000000, "subnormal result flushed to zero"),
    ("log2", (0x00000001,), 0xFF800000, "subnormal input flushed to zero"),
    ("asin", (0x80000000,), 0x00000000, "sign of zero lost"),
    ("acos", (0x3F7FFFFF,), 0x39800000, "pi/2 - asin x"),
    ("sinh", (0x42B2D4FC,), 0x7F800000, "e^x overflows"),
    ("asinh", (0x7F7FFFFF,), 0x7F800000, "x^2 overflows"),
    ("acosh", (0x3F800001,), 0x00000000, "x^2 - 1 by rounding x^2"),
    ("erfc", (0x41000000,), 0x00000000, "1 - erf x"),
    ("pow", (0xBF800000, 0x7F800000), 0x7FC00000, "(-1)^infinity is 1"),
    ("pow", (0x3DCCCCCD, 0x42180000), 0x006CE40F, "logarithm and exponent of binary32"),
    ("atan2", (0x80000000, 0x80000000), 0x80000000, "sign of the zero in x lost"),
    ("hypot", (0x7F000000, 0x00000000), 0x7F800000, "x^2 overflows"),
    ("fmod", (0x7F7FFFFF, 0x3DCCCCCD), 0x7FC00000, "quotients of more than 24 bits given up"),
    ("fmod", (0x7F7FFFFF, 0x41300000), 0x00000000, "quotient rounded"),
    ("remainder", (0xC0A00000, 0x40400000), 0xC0000000, "sign of the dividend"),
)


def hexadecimal(x: Iterable[int]) -> list[str]:
    return [f"{v:08x}" for v in x]


def describe(name: str) -> Json:
    """What the vector file says about a function, without the full table."""
    from gensyn_verify.program.encoding import scalar_record

    scalar = scalar_program(name, True)
    rows = PAIRS[name] if name in BINARY else [(x,) for x in POINTS[name] + EVERYWHERE]
    columns = np.array(rows, np.uint32).T.copy()
    results = evaluate(name, columns, "cpu")
    return {
        "instructions": len(scalar.code),
        "program": blake3(scalar_record(scalar)).hexdigest(),
        "sample": digest(evaluate(name, inputs_of(name), "cpu")),
        "points": [hexadecimal([*x, y]) for x, y in zip(rows, results.tolist(), strict=True)],
    }


def write(names: Iterable[str], isa: str) -> None:
    """Make the entries of these functions anew, measuring the error at every input."""
    _native.use_isa(isa)
    entries = json.loads(VECTORS.read_text())["functions"] if VECTORS.exists() else {}
    for name in names:
        full, worst = sweep(name, True, 1, f"{name:9} {isa}")
        print(f"{name:9} {worst}", flush=True)
        entries[name] = {
            **describe(name),
            "digest": full,
            "max_ulp": f"{worst.ulp:.4f}",
            "worst_input": hexadecimal(worst.input),
        }
        VECTORS.write_text(text({n: entries[n] for n in NAMES if n in entries}))


def text(entries: Json) -> str:
    corruptions = [
        {"function": f, "input": hexadecimal(x), "result": f"{y:08x}", "reason": why} for f, x, y, why in CORRUPTIONS
    ]
    document = {"_comment": COMMENT, "functions": entries, "corruptions": corruptions}
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    isas = _native.supported_isas()
    parser.add_argument("--isa", action="append", choices=isas, help="instruction set (default: all); may be repeated")
    parser.add_argument("--function", action="append", choices=NAMES, help="default: all; may be repeated")
    parser.add_argument("--errors", choices=("none", "sample", "full"), default="sample", help="inputs to measure at")
    parser.add_argument("--no-machine", action="store_true", help="leave out the virtual machine")
    parser.add_argument("--write", action="store_true", help=f"make the entries of {VECTORS.name} anew")
    args = parser.parse_args()
    names, chosen = args.function or NAMES, args.isa or isas
    if args.write:
        write(names, chosen[0])
        return 0
    step = {"none": 0, "sample": ERROR_STEP, "full": 1}[args.errors]
    return 0 if check(names, chosen, not args.no_machine, step) else 1


if __name__ == "__main__":
    sys.exit(main())

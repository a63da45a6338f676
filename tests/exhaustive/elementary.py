"""Every elementary function on all 2^32 inputs, on every instruction set: `python tests/exhaustive/elementary.py`.

For each function the results, as little-endian u32 in the order of the input bits, are hashed with BLAKE3 and compared
with tests/vectors/elementary.json, and their error is measured against binary64. The compiled loops run on every
instruction set, the virtual machine on the first. `--write` makes the vector file anew from the first instruction set;
the test suite recomputes all of it but the digests of the full tables. Exit code 1 on any difference.

References are NumPy's and PyTorch's binary64 functions, wrong by at most a few units of 2^-53, so the errors stated
here are right to 1e-7 ulp.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from blake3 import blake3
from tqdm import tqdm

from gensyn_verify import _native, backends
from gensyn_verify.backends.cpu import Executor
from gensyn_verify.program import Dtype, Program, Reg, ScalarBuilder, ScalarProgram, TensorType, functions, ops
from gensyn_verify.program.program import Input, Node, Output

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "elementary.json"
BLOCK = 1 << 18  # results stay in cache until they are hashed
SAMPLE_STEP = 4093  # a prime: the sample meets every residue of the mantissa
ERROR_STEP = 251

U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]
Json = dict[str, Any]


def _torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[F64], F64]:
    return lambda x: function(torch.from_numpy(x)).numpy()


TRUTH: dict[str, Callable[[F64], F64]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "erf": _torch(torch.special.erf), "sigmoid": _torch(torch.sigmoid), "sin": _torch(torch.sin),
    "cos": _torch(torch.cos),
}  # fmt: skip
NAMES = list(TRUTH)
SIGN = 0x80000000


# ---- programs


def scalar_program(name: str, compiled: bool) -> ScalarProgram:
    """The function of one variable. A second output, the input, makes it a program that the build has not compiled."""
    b = ScalarBuilder()
    x = b.input(Reg.f32)
    y = getattr(functions, name)(x)
    return b.build(y) if compiled else b.build(y, x)


def program(name: str, n: int, compiled: bool = True) -> Program:
    """f32[n] to f32[n], one map node."""
    scalar = scalar_program(name, compiled)
    t = TensorType(Dtype.f32, (n,))
    outputs = tuple(Output("metric", f"y{i}", 1 + i) for i in range(len(scalar.outputs)))
    node = Node(ops.Map(0, (n,), (Dtype.f32,) * len(outputs)), (0,), (t,) * len(outputs))
    return Program((Input("batch", "x", t),), (scalar,), (node,), outputs)


def evaluate(name: str, inputs: U32, backend: str, compiled: bool = True) -> U32:
    """Result bits of input bits."""
    p = program(name, len(inputs), compiled)
    result: U32 = backends.evaluate(p, {"x": inputs.view(np.float32)}, backend)["y0"].view(np.uint32)
    return result


# ---- errors


class Worst:
    """The largest error so far, in units of the last place of the true value, and its input.

    A result that is the true value rounded once counts as half a unit, whatever its error. Where the true value rounds
    to NaN or to an infinity, or is zero, any other result, a zero of the other sign too, counts as an infinite error.
    """

    def __init__(self) -> None:
        self.ulp, self.input = 0.5, 0

    def add(self, name: str, inputs: U32, results: U32) -> None:
        with np.errstate(all="ignore"):
            truth = TRUTH[name](inputs.view(np.float32).astype(np.float64))
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
            self.ulp, self.input = float(errors[at]), int(inputs[differ[at]])

    def __str__(self) -> str:
        return f"{self.ulp:.4f} ulp at {self.input:08x} ({np.uint32(self.input).view(np.float32)!s})"


# ---- the sample that the test suite checks


def boundaries() -> U32:
    """Both signs of: the neighbourhoods of every threshold of a formula or of the range, of powers of two, of numbers
    near odd multiples of ln(2)/2 and of multiples of pi/2; subnormals, extremes, infinities and NaN of many payloads.
    """
    thresholds = [
        2.0**-25, 0.25, 0.3333333, 0.5, 0.55, 0.75, 0.88, 1.0, 1.5, 2.0, 4.0, 9.01, 10.0, 17.3287, 20.0, 30.0,
        87.33654, 88.02969, 88.37626, 88.72283, 103.27893, 103.97208, 104.0,
    ]  # fmt: skip
    near = [np.float32(t) for t in thresholds]
    near += [np.float32(m * 2.0**e) for e in range(-126, 128) for m in (1.0, 1.5, 1.75)]
    near += [np.float32((n + 0.5) * np.log(2)) for n in range(151)] + [np.float32(n * np.log(2)) for n in range(152)]
    near += [np.float32(n * np.pi / 4) for n in range(1, 400)]
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


def digest(results: U32) -> str:
    return blake3(results.astype("<u4").tobytes()).hexdigest()


# ---- all inputs


def sweep(name: str, compiled: bool, error_step: int, title: str) -> tuple[str, Worst]:
    """The digest of the full table under the instruction set in force, and the error at every error_step-th input."""
    executor = Executor(program(name, BLOCK, compiled))
    hasher, worst = blake3(), Worst()
    offsets = np.arange(BLOCK, dtype=np.uint32)
    for start in tqdm(range(0, 1 << 32, BLOCK), title, leave=False, unit="block", mininterval=1):
        inputs = offsets + np.uint32(start)
        results = executor.step({"x": inputs.view(np.float32)}, {})["y0"].view(np.uint32)
        hasher.update(results.astype("<u4", copy=False).view(np.uint8).data)
        if error_step:
            chosen = slice(start // BLOCK % error_step, None, error_step)
            worst.add(name, np.ascontiguousarray(inputs[chosen]), np.ascontiguousarray(results[chosen]))
    return hasher.hexdigest(), worst


def check(names: Iterable[str], isas: list[str], machine: bool, error_step: int) -> bool:
    """Print one line a function and path; whether every digest is the published one."""
    published = json.loads(VECTORS.read_text())["functions"]
    paths = [(isa, True) for isa in isas] + [(isas[0], False)] * machine
    good = True
    for name in names:
        for isa, compiled in paths:
            _native.use_isa(isa)
            path = f"{name:8} {isa:9} {'compiled' if compiled else 'machine '}"
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
    "sample: the same over the inputs of sample() in tests/exhaustive/elementary.py.",
    "max_ulp, worst_input: the largest error over all inputs, against binary64, and where it occurs.",
    "points: [input, result].",
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
}
EVERYWHERE = (0x3F800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7F800001)
CORRUPTIONS = (
    ("exp", 0xC2CE8ECF, 0x00000000, "subnormal result flushed to zero"),
    ("exp", 0x42B17217, 0x7F800000, "2^128 formed before the polynomial is applied"),
    ("expm1", 0x80000000, 0x00000000, "sign of zero lost"),
    ("log", 0x80000000, 0x7FC00000, "ln(-0) is -infinity, as at +0"),
    ("log", 0x00000001, 0xFF800000, "subnormal input flushed to zero"),
    ("log1p", 0x00000001, 0x00000000, "ln(1 + x) by rounding 1 + x"),
    ("tanh", 0x80000000, 0x00000000, "sign of zero lost"),
    ("erf", 0x80000000, 0x00000000, "sign of zero lost"),
    ("sigmoid", 0xC2B40000, 0x00000000, "e^-x overflows"),
    ("sin", 0x5C87BCD0, 0xB2E426E4, "argument reduced with 64 bits of 2/pi"),
    ("sin", 0x7F7FFFFF, 0x7FC00000, "huge arguments given up"),
    ("cos", 0xFFC12345, 0xFFC12345, "NaN payload kept"),
)


def describe(name: str) -> Json:
    """What the vector file says about a function, without the full table."""
    from gensyn_verify.program.encoding import scalar_record

    scalar = scalar_program(name, True)
    inputs = np.array(POINTS[name] + EVERYWHERE, np.uint32)
    results = evaluate(name, inputs, "cpu")
    return {
        "instructions": len(scalar.code),
        "program": blake3(scalar_record(scalar)).hexdigest(),
        "sample": digest(evaluate(name, sample(), "cpu")),
        "points": [[f"{x:08x}", f"{y:08x}"] for x, y in zip(inputs.tolist(), results.tolist(), strict=True)],
    }


def write(names: Iterable[str], isa: str) -> None:
    """Make the entries of these functions anew, measuring the error at every input."""
    _native.use_isa(isa)
    entries = json.loads(VECTORS.read_text())["functions"] if VECTORS.exists() else {}
    for name in names:
        full, worst = sweep(name, True, 1, f"{name:8} {isa}")
        print(f"{name:8} {worst}", flush=True)
        entries[name] = {
            **describe(name),
            "digest": full,
            "max_ulp": f"{worst.ulp:.4f}",
            "worst_input": f"{worst.input:08x}",
        }
        VECTORS.write_text(text({n: entries[n] for n in NAMES if n in entries}))


def text(entries: Json) -> str:
    corruptions = [
        {"function": f, "input": f"{x:08x}", "result": f"{y:08x}", "reason": why} for f, x, y, why in CORRUPTIONS
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

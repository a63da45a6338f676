"""What `gverify doctor` checks: that the kernels of this machine give the published bits.

One program uses every node kind, every dtype and every published function on inputs that include NaN, infinities,
subnormals, signed zeros and indices out of range; every output must have the root that tests/vectors/selftest.json
states. It and the numeric vectors run on the reference backend and on every instruction set that the CPU has, with
one thread and with all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gensyn_verify.backends import evaluate
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.backends.reference import philox
from gensyn_verify.cli import vectors
from gensyn_verify.errors import BackendError
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType, Value, functions
from gensyn_verify.program.scalar import OPERATIONS, Scalar

FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "sin", "cos")
# Exponents of the inputs: `any` is every bit pattern there is, `near` are values around 1 as in a training step.
INPUTS = {
    "any": TensorType(Dtype.f32, (4099,)),
    "a": TensorType(Dtype.f32, (2, 9, 1300)),
    "b": TensorType(Dtype.f32, (1300, 17)),
    "long": TensorType(Dtype.f32, (2, 70001)),
    "bf16": TensorType(Dtype.bf16, (33, 40)),
    "f16": TensorType(Dtype.f16, (33, 40)),
    "i32": TensorType(Dtype.i32, (33, 40)),
    "u32": TensorType(Dtype.u32, (33, 40)),
    "u8": TensorType(Dtype.u8, (33, 40)),
    "boolean": TensorType(Dtype.boolean, (33, 40)),
    "index": TensorType(Dtype.i32, (64,)),
    "seed": TensorType(Dtype.u32, (2,)),
    "step": TensorType(Dtype.u32, ()),
    "i8": TensorType(Dtype.i8, (33, 40)),
}
NEAR_ONE = ("a", "b", "long")


@dataclass(frozen=True)
class Check:
    """One line of the self-test; `detail` says what was found where it is not ok."""

    name: str
    ok: bool
    detail: str = ""


def build() -> Program:
    """The self-test program; its digest is part of the vector."""
    g = ProgramBuilder()
    x = {name: g.input("batch", name, type) for name, type in INPUTS.items()}
    out = {
        "dot": g.dot(x["a"], x["b"]),
        "dot_transposed": g.dot(x["b"], g.slice(x["a"], (0, 0, 0), (1, 9, 1300)), transpose_a=True, transpose_b=True),
        "dot_narrow": g.dot(x["bf16"], x["f16"], transpose_b=True),
        "dot_i8": g.dot(x["i8"], x["i8"], transpose_b=True, dtype=Dtype.i32),
        "sum": g.reduce("sum", x["long"], (1,)),
        "random": g.random(x["seed"], x["step"], (1001,)),
        "sort": g.sort(x["any"]),
        "scan": g.scan(_running, [g.full((), 0, Dtype.bf16)], [x["bf16"]])[0],
        "gather": g.gather(x["bf16"], x["index"]),
        "scatter": g.scatter_add(g.slice(x["a"], (0, 0, 0), (1, 8, 640)), g.slice(x["index"], (0,), (1,)), 3),
        "arithmetic": g.map(_arithmetic, x["any"], g.slice(x["any"], (4098,), (4099,), (-1,))),
        "integers": g.map(_integers, x["i32"], x["i32"]),
        "mixed": g.map(_mixed, x["u32"], x["u8"], x["boolean"]),
        "narrow": g.map(lambda a, b: a * b, x["i32"], x["i8"], dtype=Dtype.i8),
        "to_f16": g.map(lambda v: v, x["any"], dtype=Dtype.f16),
        "to_bf16": g.map(lambda v: v, x["any"], dtype=Dtype.bf16),
        **_extremes(g, x),
        **_layouts(g, x["f16"]),
    }
    for name in FUNCTIONS:
        out[name] = g.map(getattr(functions, name), x["any"])
    for name, value in out.items():
        g.output("metric", name, value)
    return g.build()


def _arithmetic(a: Scalar, b: Scalar) -> Scalar:
    f = a.builder.fma(a, b, -a) + (a / b).min(b.abs().sqrt()) * 0.3
    return a.builder.select(a <= b, f, f.max(a - b))


def _integers(a: Scalar, b: Scalar) -> Scalar:
    return (a * b + a.mulhi(b) - (a >> 3)) ^ (b << 7) & ~a


def _mixed(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    return a.builder.select(c, a.mulhi(b) | a, (b + a >> 2).max(b))


def _running(y: Scalar, x: Scalar) -> Scalar:
    return y.builder.fma(y, 0.75, x)


def _extremes(g: ProgramBuilder, x: dict[str, Value]) -> dict[str, Value]:
    names = ("max", "min", "argmax", "argmin")
    return {f"{n}_{t}": g.reduce(n, x[t], (0,)) for n in names for t in ("f16", "bf16", "i32", "u32", "i8")}


def _layouts(g: ProgramBuilder, x: Value) -> dict[str, Value]:
    padded = g.pad(x, (1, 0), (2, 3), (0, 1), fill_bits=0x8000)
    return {
        "window": g.window(padded, (3, 2), (2, 3), (1, 2)),
        "concat": g.concat([g.permute(padded, (1, 0)), g.broadcast(g.slice(padded, (0, 0), (1, 1)), (5, 36))], 0),
    }


def inputs() -> dict[str, Array]:
    """Philox words as bits of the inputs, so that they depend on nothing but this file."""
    arrays = {}
    for stream, (name, type) in enumerate(INPUTS.items()):
        blocks = np.arange((type.elements + 3) // 4)
        counter = (blocks, np.zeros_like(blocks), np.full_like(blocks, stream), np.zeros_like(blocks))
        words = np.stack(philox(counter, (0x67767374, 1)), -1).reshape(-1)[: type.elements]
        arrays[name] = _shaped(name, words).reshape(type.shape)
    return arrays


def _shaped(name: str, words: Array) -> Array:
    dtype, carrier = INPUTS[name].dtype, CARRIER[INPUTS[name].dtype]
    if name == "index":
        return (words % 40).astype(np.int32) - 4  # a few on either side of the 33 rows
    if name in NEAR_ONE:
        return (words & np.uint32(0x80FFFFFF) | np.uint32(0x3F000000)).view(np.float32)
    if dtype is Dtype.boolean:
        return (words & 1).astype(np.bool_)
    if name == "any":
        special = [0, 1 << 31, 1, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF]
        words[: len(special)] = special
    return words.astype(f"<u{carrier.itemsize}").view(carrier)


def roots(backend: str) -> dict[str, str]:
    """The BLAKE3 root of every output of the self-test program on `backend`, by name."""
    from gensyn_verify.commit import tensor_root

    return {name: tensor_root(array).hex() for name, array in evaluate(build(), inputs(), backend).items()}


def vector() -> dict[str, Any]:
    """The content of tests/vectors/selftest.json; `python -m gensyn_verify.cli.selftest` prints it."""
    return {
        "_comment": [
            "BLAKE3 roots of the outputs of the program in gensyn_verify/cli/selftest.py, on any backend and machine.",
            "program: its digest. `gverify doctor` compares them.",
        ],
        "program": build().digest.hex(),
        "roots": roots("reference"),
    }


@contextmanager
def _machine(isa: str, threads: int) -> Iterator[None]:
    from gensyn_verify import _native

    before = _native.isa(), _native.get_threads()
    try:
        _native.use_isa(isa)
        _native.set_threads(threads)
        yield
    finally:
        _native.use_isa(before[0])
        _native.set_threads(before[1])


def checks() -> Iterator[Check]:
    """Every check of this machine, one after the other."""
    from gensyn_verify import _native

    same = _native.operation_names() == [name.replace(".", "_") for name in OPERATIONS]
    stale = "it has other scalar operations than the package defines; install the package again"
    yield Check("native build belongs to this package", same, "" if same else stale)
    if not same:
        return
    expected, cases = vectors.load("selftest"), list(vectors.numeric_cases())
    digest = build().digest.hex()
    yield Check("program digest", digest == expected["program"], f"expected {expected['program']}, found {digest}")
    yield _compare("reference", expected["roots"], "reference", cases)
    for isa in _native.supported_isas():
        for threads in sorted({1, max(2, _native.get_threads())}):
            with _machine(isa, threads):
                name = f"{isa}, {threads} thread{'s' * (threads > 1)}"
                yield _compare(name, expected["roots"], "cpu", cases)
                registers = _native.worker_control_registers()
                if any(registers):
                    yield Check(f"{name}: control registers", False, f"bits that change results are set: {registers}")


def check_device(backend: str) -> Check:
    """The self-test program and every numeric vector on a device."""
    try:
        return _compare(backend, vectors.load("selftest")["roots"], backend, list(vectors.numeric_cases()))
    except BackendError as error:
        return Check(backend, False, str(error))


def _compare(name: str, expected: dict[str, str], backend: str, cases: list[vectors.Case]) -> Check:
    """The self-test program and every numeric vector on one backend as it is set up now."""
    found = roots(backend)
    wrong = [f"output {k!r} of the self-test" for k in expected if expected[k] != found.get(k)]
    wrong += [f"{c.file}.json: {c.why}" for c in cases if not c.holds(backend)]
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Check(name, not wrong, f"other bits than published in {', '.join(wrong[:3])}{more}" if wrong else "")


if __name__ == "__main__":
    print(json.dumps(vector(), indent=1))

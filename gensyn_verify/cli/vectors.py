"""The published numeric vectors as programs of one node each, with the bits that they must give.

Reads scalar_ops, dot, reduce, layout, gather_scatter, sort_scan and philox.json (docs/numerics.md), and elementary.json
(docs/elementary.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gensyn_verify.backends import evaluate
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.backends.reference import philox
from gensyn_verify.errors import BackendError
from gensyn_verify.program import (
    Dtype,
    Input,
    Node,
    Output,
    Program,
    Reg,
    ScalarProgram,
    TensorType,
    functions,
    ops,
    published,
    rounding,
)
from gensyn_verify.program.scalar import OPERATIONS, Constant, Instruction

Json = dict[str, Any]
_LAYOUTS = {op.__name__.lower(): op for op in ops.OPS if op.kind == "layout"}


def folder() -> Path:
    """Where the vectors are: in the package once installed, in tests/ of a source tree."""
    package = Path(__file__).resolve().parent.parent
    for place in (package / "vectors", package.parent / "tests" / "vectors"):
        if place.is_dir():
            return place
    raise BackendError(f"no vectors beside {package}: the installation is incomplete; install the package again")


def load(name: str) -> Json:
    content: Json = json.loads(folder().joinpath(f"{name}.json").read_text("utf-8"))
    return content


@dataclass(frozen=True)
class Case:
    """Inputs of one node, and the bits of its outputs."""

    file: str
    why: str
    op: ops.Op
    inputs: tuple[Array, ...]
    dtypes: tuple[Dtype, ...]
    results: tuple[Array, ...]
    scalars: tuple[ScalarProgram, ...] = ()

    def holds(self, backend: str) -> bool:
        """Whether `backend` gives the published bits."""
        found = self._run(backend)
        return all(f.tobytes() == r.tobytes() and f.shape == r.shape for f, r in zip(found, self.results, strict=True))

    def _run(self, backend: str) -> list[Array]:
        types = [TensorType(d, x.shape) for d, x in zip(self.dtypes, self.inputs, strict=True)]
        outs = self.op.infer(types, self.scalars)
        names, results = [f"x{i}" for i in range(len(types))], [f"y{i}" for i in range(len(outs))]
        program = Program(
            tuple(Input("batch", name, t) for name, t in zip(names, types, strict=True)),
            self.scalars,
            (Node(self.op, tuple(range(len(types))), outs),),
            tuple(Output("metric", name, len(types) + i) for i, name in enumerate(results)),
        )
        found = evaluate(program, dict(zip(names, self.inputs, strict=True)), backend)
        return [found[name] for name in results]


def numeric_cases() -> Iterator[Case]:
    """Every case of every numeric vector file."""
    yield from _scalar_cases(load("scalar_ops"))
    for name, entry in load("elementary")["functions"].items():
        function = getattr(functions, name, None) or getattr(rounding, name)
        scalar = published.trace(function, *[Reg.f32] * (len(entry["points"][0]) - 1))
        yield _scalar_case("elementary", name, scalar, [(row[:-1], row[-1:]) for row in entry["points"]])
    for c in load("dot")["cases"]:
        yield _case("dot", c, ops.Dot(c["transpose_a"], c["transpose_b"], Dtype[c["dtype"]]), c["a"], c["b"])
    for c in load("reduce")["cases"]:
        reduction = ops.Reduce(ops.REDUCTIONS.index(c["op"]), tuple(c["axes"]), Dtype[c["dtype"]])
        yield _case("reduce", c, reduction, c["x"])
    for c in load("layout")["cases"]:
        attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in c["attributes"].items()}
        yield _case("layout", c, _LAYOUTS[c["op"]](**attributes), *c["inputs"])
    gather_scatter = load("gather_scatter")
    for c in gather_scatter["gather"]:
        yield _case("gather_scatter", c, ops.Gather(), c["data"], c["index"])
    for c in gather_scatter["scatter_add"]:
        yield _case("gather_scatter", c, ops.ScatterAdd(c["rows"], Dtype[c["dtype"]]), c["source"], c["index"])
    sort_scan = load("sort_scan")
    for c in sort_scan["sort"]:
        yield _case("sort_scan", c, ops.Sort(), c["x"])
    for c in sort_scan["scan"]:
        scan = ops.Scan(0, tuple(c["shape"]), tuple(Dtype[d] for d in c["dtypes"]))
        arrays, dtypes = tuple(map(read_tensor, c["inputs"])), tuple(Dtype[t["dtype"]] for t in c["inputs"])
        results = tuple(map(read_tensor, c["results"]))
        yield Case("sort_scan", c["why"], scan, arrays, dtypes, results, (_read_scalar_program(c["program"]),))
    for c in load("philox")["cases"]:
        seed, step = ({"dtype": "u32", "shape": s, "bits": b} for s, b in (([2], c["seed"]), ([], [f"{c['step']:x}"])))
        random = ops.Random(c["stream"], tuple(c["result"]["shape"]))
        yield _case("philox", {"why": f"stream {c['stream']}", **c}, random, seed, step)


def _case(file: str, case: Json, op: ops.Op, *inputs: Json) -> Case:
    arrays, dtypes = tuple(map(read_tensor, inputs)), tuple(Dtype[t["dtype"]] for t in inputs)
    return Case(file, case["why"], op, arrays, dtypes, (read_tensor(case["result"]),))


def _scalar_cases(content: Json) -> Iterator[Case]:
    for name, entry in content["operations"].items():
        regs, code = OPERATIONS[name].operands, Instruction(name, tuple(range(len(entry["operands"]))))
        scalar = ScalarProgram(regs, (), (code,), (len(regs),))
        yield _scalar_case("scalar_ops", name, scalar, [(row[:-1], row[-1:]) for row in entry["cases"]])
    for p in content["programs"]:
        yield _scalar_case("scalar_ops", p["name"], _read_scalar_program(p), p["cases"])
    for entry in content["storage"]:
        load, store = Dtype[entry["load"]], Dtype[entry["store"]]
        x, y = (_array(d, bits) for d, bits in zip((load, store), zip(*entry["cases"], strict=True), strict=True))
        scalar, op = ScalarProgram((load.reg,), (), (), (0,)), ops.Map(0, x.shape, (store,))
        yield Case("scalar_ops", f"{load.name} to {store.name}", op, (x,), (load,), (y,), (scalar,))


def _read_scalar_program(p: Json) -> ScalarProgram:
    return ScalarProgram(
        tuple(Reg[r] for r in p["inputs"]),
        tuple(Constant(Reg[r], int(bits, 16)) for r, bits in p["constants"]),
        tuple(Instruction(op, tuple(args)) for op, *args in p["code"]),
        tuple(p["outputs"]),
    )


def _scalar_case(file: str, why: str, scalar: ScalarProgram, rows: Sequence[Sequence[list[str]]]) -> Case:
    """A scalar program as one map over vectors; a row holds its inputs and its outputs."""
    ins, outs = (tuple(Dtype[r.name] for r in regs) for regs in (scalar.inputs, scalar.output_types))
    x, y = (
        tuple(_array(d, column) for d, column in zip(dtypes, zip(*side, strict=True), strict=True))
        for dtypes, side in zip((ins, outs), zip(*rows, strict=True), strict=True)
    )
    return Case(file, why, ops.Map(0, (len(rows),), outs), x, ins, y, (scalar,))


def read_tensor(t: Json) -> Array:
    """The carrier array of a tensor that a vector writes as bits or as a pattern."""
    dtype = Dtype[t["dtype"]]
    if "bits" in t:
        return _array(dtype, t["bits"]).reshape(t["shape"])
    count = TensorType(dtype, tuple(t["shape"])).elements
    block = np.arange((count + 3) // 4)
    stream, zero = np.full_like(block, t["pattern"]), np.zeros_like(block)
    w = np.stack(philox((block, zero, stream, zero), (1, 2)), -1).reshape(-1)[:count]
    if dtype is Dtype.f16:
        bits = w >> 16 & 0x8000 | (11 + (w >> 23) % 8) << 10 | w >> 13 & 0x3FF
    elif dtype.is_float:
        bits = (w & 0x807FFFFF | (120 + (w >> 23) % 16) << 23) >> (32 - 8 * dtype.size)
    else:
        bits = w >> (32 - 8 * dtype.size)
    return _carrier(dtype, bits).reshape(t["shape"])


def _array(dtype: Dtype, bits: Sequence[str]) -> Array:
    return _carrier(dtype, np.array([int(b, 16) for b in bits], np.uint32))


def _carrier(dtype: Dtype, bits: Array) -> Array:
    return bits.astype(f"<u{dtype.size}").view(CARRIER[dtype])

"""Writes tests/vectors/sequence.json: `python tests/protocol/pinpoint/make_sequences.py`. The test suite compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "protocol")]

import numpy as np  # noqa: E402
from contracts.referee import leaf_of, scalar_of  # noqa: E402
from strategies import LAYOUTS, random_tensor  # noqa: E402

from gensyn_verify.backends.arrays import Array  # noqa: E402
from gensyn_verify.program import ops  # noqa: E402
from gensyn_verify.program.scalar import ScalarBuilder, ScalarProgram  # noqa: E402
from gensyn_verify.program.types import Dtype, Reg, TensorType  # noqa: E402
from gensyn_verify.protocol.pinpoint.sequence import (  # noqa: E402
    Constant,
    Operand,
    Result,
    Sequence,
    Source,
    sequence,
    stored_bits,
)

FILE = TESTS / "vectors" / "sequence.json"
COMMENT = [
    "Sequences of docs/dispute.md, section 3. `leaf` is the node leaf (or the source), `scalar` the record of the",
    "scalar program, or empty; `element` is step, output, element and value. The root of operand q is the number q.",
    "`operations` are some of the `length` operations: t, code, three operands, result, and of every operand where it",
    "lies: kind (0 constant, 1 earlier result, 2 element), dtype, raw, index (or the constant), tensor, its bytes.",
]
F32, BF16, F16, I32, U32, U8, BOOL, I8 = Dtype
NAN = np.float32(np.nan)
Case = tuple[str, ops.Op, list[Array], list[Dtype], list[int]]


def dots(rng: np.random.Generator) -> Iterator[Case]:
    for k, transposed, dtype in ((0, 0, F32), (1, 0, F16), (192, 1, F32), (193, 0, BF16), (322, 1, F32)):
        x = random_tensor(rng, dtype, (k, 2) if transposed else (2, k), special=0)
        y = random_tensor(rng, F32, (2, 3, k) if transposed else (k, 3), special=0)
        op = ops.Dot(bool(transposed), bool(transposed), dtype)
        yield f"dot of {k}", op, [x, y], [dtype, F32], [0, 11 if transposed else 5]


def integers(rng: np.random.Generator) -> Iterator[Case]:
    """What is particular to i8: its dot, loads with sign, stores of the low bits, an order with negative numbers."""
    for k, transposed in ((0, 0), (1, 1), (193, 0), (322, 1)):
        x = random_tensor(rng, I8, (k, 2) if transposed else (2, k))
        y = random_tensor(rng, I8, (2, 3, k) if transposed else (k, 3))
        op = ops.Dot(bool(transposed), bool(transposed), I32)
        yield f"dot of {k} of i8", op, [x, y], [I8] * 2, [0, 11 if transposed else 5]
    x = np.array([[-128, 127, -1, 3, -1], [100, 100, -3, 0, 0]], np.int8)
    for op, name in enumerate(ops.REDUCTIONS):
        yield f"{name} of i8", ops.Reduce(op, (1,), I32 if name.startswith("arg") else I8), [x], [I8], [0, 1]
    yield "sum of i8 into i32", ops.Reduce(0, (1,), I32), [x], [I8], [0, 1]
    index = np.array([0, 2, 0], np.int32)
    yield "pad of i8", ops.Pad((0, 1), (0, 0), (0, 0), 0x80), [x], [I8], [0, 1]
    yield "gather of i8", ops.Gather(), [x, index], [I8, I32], [0, 5]
    yield "scatter_add of i8", ops.ScatterAdd(2, I8), [np.repeat(x[:1], 3, 0), index], [I8, I32], [0, 1]
    yield "sort of i8", ops.Sort(), [x], [I8], [0, 3, 7]


def reductions(rng: np.random.Generator) -> Iterator[Case]:
    for n in (0, 1, 70, 2049, 4200):
        yield f"sum of {n}", ops.Reduce(0, (1,), F32), [random_tensor(rng, F32, (2, n), special=0)], [F32], [1]
    for dtype in (I32, U32):
        yield f"sum of {dtype.name}", ops.Reduce(0, (0,), dtype), [random_tensor(rng, dtype, (66, 2))], [dtype], [1]
    x = np.array([[3, 1, NAN, 5], [2, -0.0, 0.0, 2], [1, 2, 0, NAN]], np.float32)
    for op, name in list(enumerate(ops.REDUCTIONS))[1:]:
        out = I32 if name.startswith("arg") else F32
        yield name, ops.Reduce(op, (1,), out), [x], [F32], [0, 1, 2]
        yield f"{name} of one", ops.Reduce(op, (0, 2), out), [x.reshape(1, 12, 1)], [F32], [3]
        for dtype in (I32, U32):
            some = rng.permutation(np.arange(-3, 4)).astype(np.int32).view(np.uint32 if dtype is U32 else np.int32)
            yield f"{name} of {dtype.name}", ops.Reduce(op, (0,), I32 if out is I32 else dtype), [some], [dtype], [0]


def layouts(rng: np.random.Generator) -> Iterator[Case]:
    x, y = random_tensor(rng, BF16, (3, 4, 5)), random_tensor(rng, BF16, (3, 2, 5))
    for op in LAYOUTS:
        places = [0, 7] if not isinstance(op, ops.Pad) else [0, 7 * 15 + 2, 2 * 7 * 15 + 2 * 15 + 5, 3 * 15 + 14]
        yield op.__class__.__name__.lower(), op, [x], [BF16], places
    yield "broadcast of one", ops.Broadcast((3, 4, 5)), [x[:, :1]], [BF16], [33]
    yield "concat", ops.Concat(1), [x, y[:, :0], y], [BF16] * 3, [0, 24, 50]


def rows(rng: np.random.Generator) -> Iterator[Case]:
    index = np.array([[1, -1, 5], [0, 6, 1]], np.int32)
    for dtype in (F32, BF16, I32, BOOL):
        x = random_tensor(rng, dtype, (6, 2), special=0)
        yield f"gather of {dtype.name}", ops.Gather(), [x, index], [dtype, I32], [1, 2, 9]
    for dtype in (F16, I32, U32):
        x = random_tensor(rng, dtype, (2, 3, 2), special=0)
        yield f"scatter_add of {dtype.name}", ops.ScatterAdd(2, dtype), [x, index], [dtype, I32], [3]
    nothing = random_tensor(rng, F32, (0, 2))
    yield "scatter_add of nothing", ops.ScatterAdd(2, F32), [nothing, index[:0, 0]], [F32, I32], [3]
    seed = random_tensor(rng, U32, (2,))
    yield "random", ops.Random(7, (5, 3)), [seed, np.array(9, np.uint32)], [U32] * 2, [0, 14]
    x = np.array([[3, 1, NAN, 1, -0.0, 0.0], [NAN, NAN, 2, 1, 0, -1]], np.float32)
    yield "sort", ops.Sort(), [x], [F32], [1, 3, 4, 6, 10]
    for dtype in (I32, U32):
        yield f"sort of {dtype.name}", ops.Sort(), [random_tensor(rng, dtype, (2, 5))], [dtype], [7]


def mapped() -> tuple[ScalarProgram, tuple[Dtype, ...], tuple[Dtype, ...]]:
    """Operations with one, two and three operands on every register type, stored in every dtype."""
    b = ScalarBuilder()
    x, half, i, u, flag = b.input(Reg.f32), b.input(Reg.f32), b.input(Reg.i32), b.input(Reg.u32), b.input(Reg.boolean)
    y = b.fma(x, half, x * 1.5)
    code = b.build(y, -half, y, i * i, u >> 3, u, b.select(flag, x, y) < half)
    return code, (F32, F16, I32, U32, BOOL), (F32, BF16, F16, I32, U32, U8, BOOL)


def scanned() -> ScalarProgram:
    b = ScalarBuilder()
    total, last, x = b.input(Reg.f32), b.input(Reg.f32), b.input(Reg.f32)
    return b.build(total + x, b.select(x < 0.0, last, x * 0.5))


def sequences(rng: np.random.Generator) -> Iterator[tuple[str, Sequence, list[Array]]]:
    """(name, sequence, operand tensors as stored bits)."""
    for make in (dots, reductions, layouts, rows, integers):
        for name, op, tensors, dtypes, elements in make(rng):
            reads = [TensorType(d, t.shape) for d, t in zip(dtypes, tensors, strict=True)]
            (type,) = op.infer(reads, [])
            flat = [stored_bits(t) for t in tensors]
            for e in elements:
                yield f"{name}, element {e}", sequence(op, reads, type, None, 0, e, e % 5), flat
    code, dtypes, stores = mapped()
    shapes = [(3, 4), (4,), (3, 1), (), (1, 4)]
    yield from multiple("map", ops.Map(0, (3, 4), stores), code, shapes, dtypes, 7, rng)
    scan = ops.Scan(0, (4, 3), (F32, BF16))
    for e in (1, 10):
        yield from multiple("scan", scan, scanned(), [(3,), (), (4, 1)], (F32, BF16, F32), e, rng)
    b = ScalarBuilder()
    total, x = b.input(Reg.i32), b.input(Reg.i32)
    code, scan = b.build(total + x * 3), ops.Scan(0, (4,), (I8,))
    yield from multiple("scan of i8", scan, code, [(), (4,)], (I8, I8), 3, rng)
    for role, shape, type, batch in (("batch", (23, 2), (5, 2), 5), ("scalar", (11, 2), (2,), 0)):
        data = random_tensor(rng, F16, shape, special=0)
        source = Source(role, shape[0], (3, 4) if batch else (0, 0), batch)
        for step in (0, 3, 10):
            s = sequence(source, [TensorType(F16, shape)], TensorType(F16, type), element=1, step=step)
            yield f"{role} of step {step}", s, [stored_bits(data)]


def multiple(
    name: str,
    op: ops.Map | ops.Scan,
    code: ScalarProgram,
    shapes: list[tuple[int, ...]],
    dtypes: tuple[Dtype, ...],
    element: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, Sequence, list[Array]]]:
    """One sequence an output."""
    tensors = [random_tensor(rng, d, s, special=0) for d, s in zip(dtypes, shapes, strict=True)]
    reads = [TensorType(d, s) for d, s in zip(dtypes, shapes, strict=True)]
    for n, type in enumerate(op.infer(reads, [code])):
        s = sequence(op, reads, type, code, n, element)
        yield f"{name}, output {n}, element {element}", s, [stored_bits(t) for t in tensors]


def place(s: Sequence, operand: Operand) -> list[int]:
    """What `StepVerifier.locate` says of an operand."""
    if isinstance(operand, Constant):
        return [0, 0, 0, operand.value, 0, 0]
    if isinstance(operand, Result):
        return [1, operand.load.code if operand.load else 0, int(operand.load is None), operand.index, 0, 0]
    type = s.reads[operand.tensor]
    return [2, type.dtype.code, int(operand.raw), operand.index, operand.tensor, type.nbytes]


def case(name: str, s: Sequence, tensors: list[Array], most: int = 12) -> dict[str, Any]:
    """All operations, of a long sequence some; n - 66 adds, in a sum of several segments, the second of their sums."""
    results, n = s.results(tensors), s.length
    chosen = range(n) if n <= most else sorted({0, 1, 63, 64, 128, n // 2, n - 66, *range(n - 7, n)} & set(range(n)))
    operations = []
    for t in chosen:
        values = s.operands(t, tensors, results[:t])
        operation, operands = s.operation(t, values), [*values, 0, 0, 0][:3]
        places = [x for q in range(3) for x in place(s, operation.operand(q))]
        operations.append([t, operation.code, *map(int, operands), int(results[t]), *places])
    return {
        "name": name,
        "leaf": leaf_of(s).hex(),
        "scalar": scalar_of(s).hex(),
        "element": [s.step, s.output, s.element, s.value],
        "length": n,
        "operations": operations,
    }


def text() -> str:
    cases = [case(*s) for s in sequences(np.random.default_rng(3))]
    lines = ",\n".join(f"  {json.dumps(c)}" for c in cases)
    return f'{{\n "_comment": {json.dumps(COMMENT)},\n "sequences": [\n{lines}\n ]\n}}\n'


if __name__ == "__main__":
    FILE.write_text(text())

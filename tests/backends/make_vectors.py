"""Writes scalar_ops, dot, reduce, philox, layout and gather_scatter.json: `python tests/backends/make_vectors.py`.

Every result is computed by the reference backend and, independently, by exact_numerics.py or by the index formulas
below; the two must agree or nothing is written. Deterministic: the test suite runs it and compares with the files.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import exact_numerics as exact
import numpy as np

from gensyn_verify import backends
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.program import ops
from gensyn_verify.program.program import Input, Node, Output, Program
from gensyn_verify.program.scalar import OPERATIONS, Constant, Instruction, ScalarBuilder, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, TensorType

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
Json = dict[str, Any]

Index = tuple[int, ...]

UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}

TENSOR = (
    "A tensor is {dtype, shape, bits}: bits are its elements in row-major order, in hexadecimal; a boolean is 0 or 1."
)


# ---- tensors as JSON


def to_array(dtype: Dtype, shape: Sequence[int], bits: Sequence[int]) -> Array:
    return np.array(bits, UNSIGNED[dtype.size]).view(CARRIER[dtype]).reshape(shape)


def to_bits(array: Array) -> list[int]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return [int(x) for x in flat.view(UNSIGNED[flat.dtype.itemsize])]


def hexadecimal(bits: Sequence[int], dtype: Dtype) -> list[str]:
    digits = 1 if dtype is Dtype.boolean else 2 * dtype.size
    return [f"{b:0{digits}x}" for b in bits]


def shaped(dtype: str, *shape: int) -> Json:
    """A tensor type, for what is rejected before any element is read."""
    return {"dtype": dtype, "shape": list(shape)}


def tensor(dtype: Dtype, shape: Sequence[int], bits: Sequence[int]) -> Json:
    return {"dtype": dtype.name, "shape": list(shape), "bits": hexadecimal(bits, dtype)}


def pattern_bits(stream: int, count: int, dtype: Dtype) -> list[int]:
    """What `PATTERN` says in words."""
    words = [w for block in range((count + 3) // 4) for w in exact.philox([block, 0, stream, 0], (1, 2))][:count]
    if dtype is Dtype.f16:
        return [w >> 16 & 0x8000 | (11 + (w >> 23) % 8) << 10 | w >> 13 & 0x3FF for w in words]
    if dtype.is_float:
        return [(w & 0x807FFFFF | (120 + (w >> 23) % 16) << 23) >> (32 - 8 * dtype.size) for w in words]
    return [w >> (32 - 8 * dtype.size) for w in words]


PATTERN = (
    "{dtype, shape, pattern: s} is generated: element e comes from w, element e of stream s of Philox4x32-10 at step 0,"
    " seed (1, 2) (see philox.json). f32: sign of w, exponent field 120 + (w >> 23) % 16, fraction w & 0x7fffff; bf16:"
    " the high half of that; f16: sign of w, exponent field 11 + (w >> 23) % 8, fraction (w >> 13) & 0x3ff; integers:"
    " the high bits of w."
)


def read_tensor(t: Json) -> Array:
    """The NumPy carrier of a tensor written as bits or as a pattern."""
    dtype = Dtype[t["dtype"]]
    count = int(np.prod(t["shape"], dtype=np.int64))
    bits = [int(b, 16) for b in t["bits"]] if "bits" in t else pattern_bits(t["pattern"], count, dtype)
    return to_array(dtype, t["shape"], bits)


def run_one(op: ops.Op, inputs: Sequence[Array], dtypes: Sequence[Dtype], backend: str = "reference",
            scalars: tuple[ScalarProgram, ...] = ()) -> list[Array]:  # fmt: skip
    """The outputs of one node on a backend."""
    types = [TensorType(d, x.shape) for x, d in zip(inputs, dtypes, strict=True)]
    outs = op.infer(types, scalars)
    program = Program(
        tuple(Input("batch", f"x{i:02}", t) for i, t in enumerate(types)),
        scalars,
        (Node(op, tuple(range(len(types))), outs),),
        tuple(Output("metric", f"y{i:02}", len(types) + i) for i in range(len(outs))),
    )
    results = backends.evaluate(program, {f"x{i:02}": x for i, x in enumerate(inputs)}, backend)
    return [results[f"y{i:02}"] for i in range(len(outs))]


def agree(what: str, definition: Sequence[int], independent: Sequence[int]) -> list[int]:
    if list(definition) != list(independent):
        raise AssertionError(f"{what}: the reference gives {definition}, exact arithmetic {independent}")
    return list(definition)


# ---- scalar operations

FLOATS = [
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x80800000, 0x3F800000, 0xBF800000,
    0x3F800001, 0x3F7FFFFF, 0x40400000, 0x33800000, 0x4B800001, 0x4EFFFFFF, 0x4F000000, 0xCF000000, 0x4F7FFFFF,
    0x4F800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345,
]  # fmt: skip
INTEGERS = [
    0, 1, 2, 31, 32, 33, 0x0000FFFF, 0x00010000, 0x00FFFFFF, 0x01000001, 0x7FFFFFFF, 0x80000000, 0x80000001,
    0xFFFFFF7F, 0xFFFFFF80, 0xFFFFFFFE, 0xFFFFFFFF,
]  # fmt: skip
SPECIAL = {Reg.f32: FLOATS, Reg.i32: INTEGERS, Reg.u32: INTEGERS, Reg.boolean: [0, 1]}


def operand_sets(regs: Sequence[Reg], rng: random.Random) -> list[tuple[int, ...]]:
    """All special values of one operand; a sample of pairs and triples; random bits; values of near exponents."""
    if all(r is Reg.boolean for r in regs):
        return list(itertools.product((0, 1), repeat=len(regs)))
    cases = [tuple(rng.choice(SPECIAL[r]) for r in regs) for _ in range(48)]
    if len(regs) == 1:
        cases = [(v,) for v in SPECIAL[regs[0]]]
    for _ in range(24):
        cases.append(tuple(rng.getrandbits(1 if r is Reg.boolean else 32) for r in regs))
        near = rng.randrange(100, 150)
        cases.append(
            tuple(
                rng.getrandbits(32) & 0x807FFFFF | (near + rng.randrange(3)) << 23 if r is Reg.f32
                else rng.getrandbits(1 if r is Reg.boolean else 32)
                for r in regs
            )
        )  # fmt: skip
    return list(dict.fromkeys(cases))


# (operands, why): what random values do not find.
CHOSEN: dict[str, list[tuple[int, ...]]] = {
    # a tie of 25 bits decided by an addend far below, an exact tie, a subnormal result, exact cancellation to +0,
    # two zeros of opposite sign, two -0, overflow only after the addition, the product overflows and returns
    "fma.f32": [
        (0x3F800001, 0x3FC00000, 0x00000001), (0x3F800001, 0x3FC00000, 0x80000001), (0x3F800001, 0x3FC00000, 0),
        (0x00800001, 0x3F000000, 0x00000001), (0x40400000, 0x3F800000, 0xC0400000), (0x80000000, 0x3F800000, 0),
        (0x80000000, 0x3F800000, 0x80000000), (0x7F7FFFFF, 0x3F800000, 0x73000000),
        (0x7F7FFFFF, 0x40000000, 0xFF7FFFFF),
        (0x7F800000, 0x00000000, 0x3F800000), (0x7F800000, 0x3F800000, 0xFF800000), (0x0D800000, 0x8D800000, 0),
    ],
    "add.f32": [
        (0x3F800000, 0x33800000), (0x3F800001, 0x33800000), (0x7F7FFFFF, 0x73000000), (0x7F7FFFFF, 0x72FFFFFF),
        (0x3F800000, 0xBF800000), (0x80000000, 0x80000000), (0x80000000, 0), (0x00800000, 0x80000001),
    ],
    "mul.f32": [(0x00800000, 0x3F7FFFFF), (0x1A000000, 0x1A000000), (0x9A000000, 0x1A000000), (0x00000003, 0x3F000000)],
    "div.f32": [(0x00000001, 0x40000000), (0x3F800000, 0x40400000), (0x7F7FFFFF, 0x00000001), (0x00000003, 0x40000000)],
    "sqrt.f32": [(0x40000000,), (0x40400000,), (0x00000002,), (0x3F7FFFFF,), (0x4B7FFFFF,), (0xBF800000,)],
    "i32_to_f32": [(0x01000001,), (0x01000003,), (0xFEFFFFFF,), (0x7FFFFFC0,), (0x7FFFFFBF,)],
    "u32_to_f32": [(0x01000001,), (0x01000003,), (0x80000080,), (0x80000180,), (0xFFFFFF80,), (0xFFFFFF7F,)],
    "f32_to_i32": [(0x3FFFFFFF,), (0xBFFFFFFF,), (0xCF000001,), (0xCEFFFFFF,)],
    "f32_to_u32": [(0xBF7FFFFF,), (0x4F7FFFFF,), (0x4EFFFFFF,), (0x4F000001,)],
}  # fmt: skip


def scalar_program(operation: str) -> ScalarProgram:
    regs = OPERATIONS[operation].operands
    return ScalarProgram(regs, (), (Instruction(operation, tuple(range(len(regs)))),), (len(regs),))


def run_scalars(program: ScalarProgram, cases: Sequence[Sequence[int]], backend: str = "reference") -> list[list[int]]:
    """The output bits of a scalar program for every case, by a map node."""
    dtypes = [Dtype[r.name] for r in program.inputs]
    columns = [to_array(d, (len(cases),), c) for d, c in zip(dtypes, zip(*cases, strict=True), strict=True)]
    op = ops.Map(0, (len(cases),), tuple(Dtype[r.name] for r in program.output_types))
    outputs = [to_bits(y) for y in run_one(op, columns, dtypes, backend, (program,))]
    return [list(row) for row in zip(*outputs, strict=True)]


def stored(bits: int, reg: Reg) -> int:
    return exact.NAN if reg is Reg.f32 and exact.is_nan(bits) else bits


def exact_scalars(program: ScalarProgram, case: Sequence[int]) -> list[int]:
    values = [*case, *(c.bits for c in program.constants)]
    for i in program.code:
        values.append(exact.OPERATIONS[i.op](*(values[a] for a in i.args)))
    return [stored(values[v], r) for v, r in zip(program.outputs, program.output_types, strict=True)]


def operation_vectors(rng: random.Random) -> Iterator[tuple[str, Json]]:
    for name, op in OPERATIONS.items():
        cases = [*CHOSEN.get(name, ()), *operand_sets(op.operands, rng)]
        program = scalar_program(name)
        results = run_scalars(program, cases)
        rows = []
        for case, result in zip(cases, results, strict=True):
            agree(f"{name}{case}", result, exact_scalars(program, case))
            types = [*op.operands, op.result]
            rows.append([hexadecimal([b], Dtype[r.name])[0] for b, r in zip([*case, *result], types, strict=True)])
        yield (
            name,
            {
                "code": op.code,
                "operands": [r.name for r in op.operands],
                "result": op.result.name,
                "cases": rows,
            },
        )


F, U = Reg.f32, Reg.u32
# name, input types, constants, code, outputs: programs in which an optimizer's liberty would show.
PROGRAMS: list[tuple[str, list[Reg], list[Constant], list[tuple[str, tuple[int, ...]]], list[int]]] = [
    ("a product and a sum round twice", [F, F, F], [], [("mul.f32", (0, 1)), ("add.f32", (3, 2))], [4]),
    ("the negative of a fused result", [F, F, F], [], [("fma.f32", (0, 1, 2)), ("neg.f32", (3,))], [4]),
    ("a fused operation with a negated factor", [F, F, F], [], [("neg.f32", (0,)), ("fma.f32", (3, 1, 2))], [4]),
    ("adding +0 turns -0 into +0", [F], [Constant(F, 0)], [("add.f32", (0, 1))], [2]),
    ("x - x is no constant", [F], [], [("sub.f32", (0, 0))], [1]),
    ("x times 0 is no constant", [F], [Constant(F, 0)], [("mul.f32", (0, 1))], [2]),
    ("a quotient is no product with the inverse", [F], [Constant(F, 0x40400000)], [("div.f32", (0, 1))], [2]),
    ("(x + y) - y is not x", [F, F, F], [], [("add.f32", (0, 1)), ("sub.f32", (3, 1)), ("sub.f32", (4, 2))], [4, 5]),
    ("the bits of any NaN are those of the one NaN", [F], [],
     [("neg.f32", (0,)), ("f32_bits_to_u32", (0,)), ("f32_bits_to_u32", (1,))], [2, 3]),
    ("bits to float and back", [U], [], [("u32_bits_to_f32", (0,)), ("f32_bits_to_u32", (1,))], [1, 2]),
    ("the square root of the inverse rounds twice", [F], [Constant(F, 0x3F800000)],
     [("sqrt.f32", (0,)), ("div.f32", (1, 2))], [3]),
    ("an input, a constant and one value twice as outputs", [F], [Constant(U, 7)], [("abs.f32", (0,))], [0, 1, 2, 2]),
]  # fmt: skip
CHOSEN_PROGRAMS = [
    (0x40400000, 0x3F800000, 0xC0400000), (0x3F800001, 0x3F800001, 0xBF800002), (0x80000000, 0x3F800000, 0),
    (0x4B800000, 0x3F800001, 0x80000000),
]  # fmt: skip


def program_vectors(rng: random.Random) -> Iterator[Json]:
    for name, inputs, constants, code, outputs in PROGRAMS:
        program = ScalarProgram(
            tuple(inputs), tuple(constants), tuple(Instruction(o, a) for o, a in code), tuple(outputs)
        )
        cases = [tuple(c[: len(inputs)]) for c in CHOSEN_PROGRAMS] + operand_sets(inputs, rng)[:40]
        results = run_scalars(program, cases)
        for case, result in zip(cases, results, strict=True):
            agree(f"{name} {case}", result, exact_scalars(program, case))
        ins = [Dtype[r.name] for r in inputs]
        outs = [Dtype[r.name] for r in program.output_types]
        yield {
            "name": name,
            "inputs": [r.name for r in inputs],
            "constants": [[c.reg.name, f"{c.bits:08x}"] for c in constants],
            "code": [[o, *a] for o, a in code],
            "outputs": outputs,
            "cases": [
                [[hexadecimal([b], d)[0] for b, d in zip(row, dtypes, strict=True)]
                 for row, dtypes in ((case, ins), (result, outs))]
                for case, result in zip(cases, results, strict=True)
            ],
        }  # fmt: skip


REJECTED_PROGRAMS: list[Json] = [
    {"why": "reads its own value", "inputs": ["f32"], "constants": [], "code": [["neg.f32", 1]], "outputs": [1]},
    {"why": "reads a later value", "inputs": ["f32"], "constants": [], "code": [["neg.f32", 2], ["neg.f32", 0]],
     "outputs": [2]},
    {"why": "adds a float to an integer", "inputs": ["f32", "i32"], "constants": [], "code": [["add.f32", 0, 1]],
     "outputs": [2]},
    {"why": "shifts by a signed amount", "inputs": ["i32"], "constants": [], "code": [["shl.i32", 0, 0]],
     "outputs": [1]},
    {"why": "a NaN constant that is not the one NaN", "inputs": [], "constants": [["f32", "7f800001"]], "code": [],
     "outputs": [0]},
    {"why": "a boolean constant that is neither 0 nor 1", "inputs": [], "constants": [["boolean", "00000002"]],
     "code": [], "outputs": [0]},
    {"why": "constants out of order", "inputs": [], "constants": [["u32", "00000002"], ["u32", "00000001"]],
     "code": [], "outputs": [0]},
    {"why": "a constant twice", "inputs": [], "constants": [["u32", "00000001"], ["u32", "00000001"]], "code": [],
     "outputs": [0]},
    {"why": "an unknown operation", "inputs": ["f32"], "constants": [], "code": [["exp.f32", 0]], "outputs": [1]},
    {"why": "too few operands", "inputs": ["f32"], "constants": [], "code": [["fma.f32", 0, 0]], "outputs": [1]},
    {"why": "no outputs", "inputs": ["f32"], "constants": [], "code": [["neg.f32", 0]], "outputs": []},
    {"why": "an output that does not exist", "inputs": ["f32"], "constants": [], "code": [], "outputs": [1]},
]  # fmt: skip


def read_scalar_program(p: Json) -> ScalarProgram:
    return ScalarProgram(
        tuple(Reg[r] for r in p["inputs"]),
        tuple(Constant(Reg[r], int(b, 16)) for r, b in p["constants"]),
        tuple(Instruction(o, tuple(args)) for o, *args in p["code"]),
        tuple(p["outputs"]),
    )


STORES = {Dtype.f32: exact.F32, Dtype.bf16: exact.BF16, Dtype.f16: exact.F16}


def register_bits(bits: int, dtype: Dtype) -> int:
    """The 32 bits of the register that holds a stored element."""
    if dtype in (Dtype.bf16, Dtype.f16):
        return exact.widen(bits, STORES[dtype])
    return (bits ^ 0x80) - 0x80 & exact.MASK if dtype is Dtype.i8 else bits


def identity(reg: Reg) -> ScalarProgram:
    return ScalarProgram((reg,), (), (), (0,))


def convert(source: Dtype, target: Dtype, bits: Sequence[int], backend: str = "reference") -> list[int]:
    """Load `source`, store `target`, through a map node that computes nothing."""
    op = ops.Map(0, (len(bits),), (target,))
    x = to_array(source, (len(bits),), bits)
    return to_bits(run_one(op, [x], [source], backend, (identity(source.reg),))[0])


def storage_vectors(rng: random.Random) -> Iterator[Json]:
    for dtype, f in STORES.items():
        if dtype is not Dtype.f32:
            specials = [0, 1, (1 << f.fraction) - 1, 1 << f.fraction, f.infinity - 1, f.infinity, f.infinity + 1, f.nan]
            specials += [f.sign | b for b in specials] + [rng.getrandbits(16) for _ in range(24)]
            loaded = agree("load", convert(dtype, Dtype.f32, specials), [exact.widen(b, f) for b in specials])
            rows = zip(hexadecimal(specials, dtype), hexadecimal(loaded, Dtype.f32), strict=True)
            yield {"load": dtype.name, "store": "f32", "cases": [list(r) for r in rows]}
        # Neighbours of every rounding boundary near special exponents, and ties with an even and an odd last bit.
        cut, wide = 23 - f.fraction, list(FLOATS)
        for exponent in (1, 90, 102, 103, 112, 113, 127, 142, 254):
            for kept in (0, 1, (1 << f.fraction) - 1):
                for low in (0, 1, (1 << cut >> 1) - 1, 1 << cut >> 1, (1 << cut >> 1) + 1, (1 << cut) - 1):
                    if low >= 0:
                        wide.append(rng.getrandbits(1) << 31 | exponent << 23 | kept << cut | low & ((1 << cut) - 1))
        wide = list(dict.fromkeys(wide))
        saved = agree("store", convert(Dtype.f32, dtype, wide), [exact.narrow(b, f) for b in wide])
        rows = zip(hexadecimal(wide, Dtype.f32), hexadecimal(saved, dtype), strict=True)
        yield {"load": "f32", "store": dtype.name, "cases": [list(r) for r in rows]}
    words = [*INTEGERS, 0xFF, 0x100, 0x1FF]
    for wide_dtype, dtype, right in (
        (Dtype.u32, Dtype.u8, [0, 1, 127, 128, 255]),
        (Dtype.i32, Dtype.i8, [0, 1, 127, 0xFFFFFF80, 0xFFFFFFFF]),
    ):
        saved = agree("store", convert(wide_dtype, dtype, words), [w & 0xFF for w in words])
        rows = zip(hexadecimal(words, wide_dtype), hexadecimal(saved, dtype), strict=True)
        yield {"load": wide_dtype.name, "store": dtype.name, "cases": [list(r) for r in rows]}
        octets = [0, 1, 127, 128, 255]
        loaded = agree("load", convert(dtype, wide_dtype, octets), right)
        rows = zip(hexadecimal(octets, dtype), hexadecimal(loaded, wide_dtype), strict=True)
        yield {"load": dtype.name, "store": wide_dtype.name, "cases": [list(r) for r in rows]}


def scalar_ops() -> Json:
    rng = random.Random(1)
    return {
        "_comment": [
            "docs/numerics.md, sections 2 to 4. Values are bit patterns in hexadecimal; a boolean is 0 or 1.",
            "operations: each case holds the operands and, last, the result as a map node stores it.",
            "programs: inputs, constants and instructions are numbered in that order; each case is [inputs, outputs].",
            "storage: each case is [bits that are loaded, bits that are stored] by a map node that computes nothing.",
            "rejected: scalar programs that a decoder must refuse.",
        ],
        "operations": dict(operation_vectors(rng)),
        "programs": list(program_vectors(rng)),
        "storage": list(storage_vectors(rng)),
        "rejected": REJECTED_PROGRAMS,
    }


# ---- dot


def read_dot(case: Json) -> tuple[ops.Dot, list[Array], list[Dtype]]:
    op = ops.Dot(case["transpose_a"], case["transpose_b"], Dtype[case["dtype"]])
    return op, [read_tensor(case["a"]), read_tensor(case["b"])], [Dtype[case[x]["dtype"]] for x in "ab"]


def registers(x: Array, dtype: Dtype) -> Array:
    """The registers of stored elements, as bits."""
    return np.array([register_bits(b, dtype) for b in to_bits(x)], np.uint32).reshape(x.shape)


def product_and_sum(row: list[int], column: list[int]) -> int:
    return sum(exact.signed(x) * exact.signed(y) for x, y in zip(row, column, strict=True)) & exact.MASK


def exact_dot(case: Json, blocks: Callable[[int], list[int]] = exact.dot_blocks) -> list[int]:
    op, (a, b), (da, db) = read_dot(case)
    x, y = registers(a, da), registers(b, db)
    x = np.swapaxes(x, -1, -2) if op.transpose_a else x
    y = y if op.transpose_b else np.swapaxes(y, -1, -2)
    out = []
    for batch in np.ndindex(*(x.shape[:-2] or y.shape[:-2])):
        rows, columns = (x[batch] if x.ndim > 2 else x), (y[batch] if y.ndim > 2 else y)
        for row in rows:
            for column in columns:
                values = [int(v) for v in row], [int(v) for v in column]
                if op.dtype is Dtype.i32:
                    out.append(product_and_sum(*values))
                else:
                    out.append(exact.narrow(exact.dot(*values, blocks(len(row))), STORES[op.dtype]))
    return out


# name -> block lengths of a mistaken order
WRONG_BLOCKS: dict[str, Callable[[int], list[int]]] = {
    "one chain over all of k": lambda k: [k],
    "a remainder of at most 64 as a block of its own": lambda k: [128] * (k // 128) + [k % 128] * (k % 128 > 0),
    "the remainder joined whatever its length": lambda k: [128] * (k // 128 - 1) + [128 + k % 128],
    "blocks of 256": lambda k: [256] * (k // 256) + [k % 256] * (k % 256 > 0),
}


def dot_case(why: str, a: Json, b: Json, dtype: str = "f32", ta: bool = False, tb: bool = False) -> Json:
    case: Json = {"why": why, "a": a, "b": b, "transpose_a": ta, "transpose_b": tb, "dtype": dtype}
    op, arrays, dtypes = read_dot(case)
    (y,) = run_one(op, arrays, dtypes)
    right = agree(why, to_bits(y), exact_dot(case))
    case["result"] = tensor(op.dtype, y.shape, right)
    wrong = {}
    k = arrays[0].shape[-2 if ta else -1]
    if k > 128 and op.dtype.is_float:
        for name, blocks in WRONG_BLOCKS.items():
            found = exact_dot(case, blocks)
            if found != right:
                wrong[name] = hexadecimal(found, op.dtype)
    case["wrong"] = wrong
    return case


def pattern(stream: int, *shape: int, dtype: str = "f32") -> Json:
    return {"dtype": dtype, "shape": list(shape), "pattern": stream}


def row(*bits: int) -> Json:
    return tensor(Dtype.f32, (1, len(bits)), bits)


def column(*bits: int) -> Json:
    return tensor(Dtype.f32, (len(bits), 1), bits)


TINY, MINUS_TINY, ONE, BIG = 0x0D800000, 0x8D800000, 0x3F800000, 0x7F7FFFFF  # 2^-100, -2^-100, 1, the largest


def dot() -> Json:
    lengths = (1, 2, 127, 128, 129, 192, 193, 255, 256, 257, 320, 321, 449, 768, 1025)
    cases = [dot_case(f"k = {k}", pattern(2 * k, 1, k), pattern(2 * k + 1, k, 1)) for k in lengths]
    cases += [
        dot_case("k = 0 gives +0", tensor(Dtype.f32, (2, 0), []), tensor(Dtype.f32, (0, 2), [])),
        dot_case("a chain starts at +0: one product of -0 gives +0", row(0x80000000), column(ONE)),
        dot_case("a product that underflows below zero gives -0", row(MINUS_TINY), column(TINY)),
        dot_case("so padding k with zeros is not exact", row(MINUS_TINY, 0), column(TINY, 0)),
        dot_case("but padding with a product of -0 is", row(MINUS_TINY, 0x80000000), column(TINY, ONE)),
        dot_case("the total starts as block 0, not as +0 plus block 0",
                 row(*[0] * 127, MINUS_TINY, *[0] * 127, MINUS_TINY),
                 column(*[0] * 127, TINY, *[0] * 127, TINY)),
        dot_case("one rounding a step: 3 * 1 - 3, and the low half of a square",
                 row(0x3F800001, ONE), column(0x3F800001, 0xBF800002)),
        dot_case("subnormals are kept", row(0x00000001, 0x00400000), column(0x3F800000, 0x3F000000)),
        dot_case("an intermediate overflow stays", row(BIG, BIG, 0xFF7FFFFF), column(ONE, ONE, ONE)),
        dot_case("the fused product does not overflow before the sum", row(0xFF7FFFFF, BIG), column(ONE, 0x40000000)),
        dot_case("infinity times zero", row(0x7F800000, ONE), column(0, ONE)),
        dot_case("infinities of opposite sign", row(0x7F800000, 0xFF800000), column(ONE, ONE)),
        dot_case("a NaN payload does not survive", row(0xFFC12345, ONE), column(ONE, ONE)),
        dot_case("bf16 widens exactly and stores once", pattern(1, 3, 5, dtype="bf16"), pattern(2, 5, 2, dtype="bf16"),
                 "bf16"),
        dot_case("f16 times f32 stored as f16", pattern(3, 2, 7, dtype="f16"), pattern(4, 7, 3), "f16"),
        dot_case("overflow at the store of f16", tensor(Dtype.f16, (1, 1), [0x7BFF]), column(0x40000000), "f16"),
        dot_case("a transposed", pattern(5, 4, 3), pattern(6, 4, 2), ta=True),
        dot_case("b transposed", pattern(5, 3, 4), pattern(6, 2, 4), tb=True),
        dot_case("both transposed, two batches", pattern(7, 2, 4, 3), pattern(8, 2, 2, 4), ta=True, tb=True),
        dot_case("one matrix for every batch", pattern(9, 3, 4), pattern(10, 2, 4, 2)),
        dot_case("the same on the right", pattern(11, 2, 3, 4), pattern(12, 4, 2)),
        dot_case("i8 into i32", pattern(13, 3, 200, dtype="i8"), pattern(14, 200, 2, dtype="i8"), "i32"),
        dot_case("i8, both transposed, two batches", pattern(15, 2, 5, 3, dtype="i8"), pattern(16, 2, 2, 5, dtype="i8"),
                 "i32", ta=True, tb=True),
        dot_case("i8 by itself at its extremes", tensor(Dtype.i8, (2, 2), [0x80, 0x80, 0x7F, 0x80]),
                 tensor(Dtype.i8, (2, 2), [0x80, 0x7F, 0x80, 0x80]), "i32"),
        dot_case("k = 0 of i8", tensor(Dtype.i8, (1, 0), []), tensor(Dtype.i8, (0, 1), []), "i32"),
        dot_case("no rows", tensor(Dtype.f32, (0, 2), []), column(ONE, ONE)),
    ]  # fmt: skip
    return {
        "_comment": [
            "docs/numerics.md, section 5.",
            TENSOR,
            PATTERN,
            "wrong: results of mistaken orders; an implementation that gives one of these has that order.",
        ],
        "blocks": {str(k): exact.dot_blocks(k) for k in (0, 1, 64, 128, 129, 192, 193, 256, 320, 321, 768, 1024, 1088)},
        "cases": cases,
        "rejected": [
            {"why": "inner dimensions differ", "a": shaped("f32", 2, 3), "b": shaped("f32", 4, 2)},
            {"why": "batches differ", "a": shaped("f32", 2, 2, 3), "b": shaped("f32", 3, 3, 2)},
            {"why": "no matrix", "a": shaped("f32", 3), "b": shaped("f32", 3, 2)},
            {"why": "integers", "a": shaped("i32", 2, 3), "b": shaped("f32", 3, 2)},
            {"why": "i8 into a float", "a": shaped("i8", 2, 3), "b": shaped("i8", 3, 2)},
            {"why": "i8 times a float", "a": shaped("i8", 2, 3), "b": shaped("f32", 3, 2)},
        ],
    }  # fmt: skip


# ---- reduce


def read_reduce(case: Json) -> tuple[ops.Reduce, Array, Dtype]:
    op = ops.Reduce(ops.REDUCTIONS.index(case["op"]), tuple(case["axes"]), Dtype[case["dtype"]])
    return op, read_tensor(case["x"]), Dtype[case["x"]["dtype"]]


def rows_of(x: Array, axes: Sequence[int]) -> list[list[int]]:
    """The values of every output in row-major order of the reduced axes, by indices alone."""
    kept = [a for a in range(x.ndim) if a not in axes]
    flat, rows = to_bits(x), []
    for outer in itertools.product(*(range(x.shape[a]) for a in kept)):
        values = []
        for inner in itertools.product(*(range(x.shape[a]) for a in axes)):
            where = dict(zip([*kept, *axes], [*outer, *inner], strict=True))
            position = 0
            for axis, d in enumerate(x.shape):
                position = position * d + where[axis]
            values.append(flat[position])
        rows.append(values)
    return rows


def exact_position(values: list[int], dtype: Dtype, largest: bool) -> int:
    if dtype.is_float:
        for i, v in enumerate(values):
            if exact.is_nan(v):
                return i
    number = {Reg.f32: exact.real, Reg.i32: exact.signed, Reg.u32: int}[dtype.reg]
    best = (max if largest else min)(number(v) for v in values)  # type: ignore[operator]
    return next(i for i, v in enumerate(values) if number(v) == best)  # type: ignore[operator]


def exact_reduce(op: ops.Reduce, x: Array, dtype: Dtype) -> list[int]:
    name, out = ops.REDUCTIONS[op.op], []
    for values in rows_of(x, op.axes):
        values = [register_bits(v, dtype) for v in values]  # noqa: PLW2901
        reg = dtype.reg.name
        if name == "sum":
            if dtype.is_float:
                out.append(exact.narrow(exact.reduce_sum(values), STORES[op.dtype]))
            else:
                out.append(sum(values) % (1 << 8 * op.dtype.size))
        elif name in ("max", "min"):
            total = values[0]
            for v in values[1:]:
                total = exact.OPERATIONS[f"{name}.{reg}"](total, v)
            out.append(exact.narrow(total, STORES[dtype]) if dtype.is_float else total % (1 << 8 * dtype.size))
        else:
            out.append(exact_position(values, dtype, name == "argmax"))
    return out


def fold_neighbours(lanes: list[int]) -> int:
    """The fold's distances reversed: 1, 2, 4, ..."""
    while len(lanes) > 1:
        lanes = [exact.add(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    return lanes[0]


def chain(values: Sequence[int]) -> int:
    total = exact.F32.sign
    for v in values:
        total = exact.add(total, v)
    return total


WRONG_SUMS: dict[str, Callable[[list[int]], int]] = {
    "left to right": chain,
    "32 lanes": lambda v: exact.fold(exact.sum_lanes(v, 32)),
    "neighbouring lanes folded first": lambda v: fold_neighbours(exact.sum_lanes(v)),
    "no segments": lambda v: exact.fold(exact.sum_lanes(v)),
    "segments added left to right": lambda v: chain(exact.segment_sums(v)),
    "lanes that start at +0": lambda v: exact.fold(exact.sum_lanes(v, start=0)),
}


def reduce_case(why: str, name: str, x: Json, axes: Sequence[int] = (0,), dtype: str = "f32") -> Json:
    case: Json = {"why": why, "op": name, "x": x, "axes": list(axes), "dtype": dtype}
    op, array, source = read_reduce(case)
    (y,) = run_one(op, [array], [source])
    right = agree(why, to_bits(y), exact_reduce(op, array, source))
    case["result"] = tensor(op.dtype, y.shape, right)
    wrong = {}
    if name == "sum" and source is Dtype.f32 and op.dtype is Dtype.f32 and array.ndim == 1 and 0 < array.size < 5000:
        for mistake, total in WRONG_SUMS.items():
            found = [exact.narrow(total(to_bits(array)), exact.F32)]
            if found != right:
                wrong[mistake] = hexadecimal(found, op.dtype)
    case["wrong"] = wrong
    return case


def vector(*bits: int, dtype: Dtype = Dtype.f32) -> Json:
    return tensor(dtype, (len(bits),), bits)


def rejected_reduce(why: str, name: str, x: Json, axes: list[int], dtype: str) -> Json:
    return {"why": why, "op": name, "x": x, "axes": axes, "dtype": dtype}


def reduce() -> Json:
    minus_zero, nan, inf, minus_inf = 0x80000000, 0x7FC00000, 0x7F800000, 0xFF800000
    cases = [
        reduce_case(f"n = {n}", "sum", pattern(n, n))
        for n in (1, 2, 63, 64, 65, 127, 128, 129, 1000, 2048, 2049, 4100, 64 * 2048 + 5)
    ]
    cases += [
        reduce_case("the empty sum is +0", "sum", tensor(Dtype.f32, (2, 0), []), (1,)),
        reduce_case("lanes start at -0, so -0 alone stays -0", "sum", vector(minus_zero)),
        reduce_case("-0 everywhere stays -0", "sum", vector(*[minus_zero] * 70)),
        reduce_case("+0 among -0 wins", "sum", vector(*[minus_zero] * 69, 0)),
        reduce_case("subnormals are kept", "sum", vector(1, 1, 0x007FFFFF)),
        reduce_case("infinities of opposite sign", "sum", vector(inf, ONE, minus_inf)),
        reduce_case("a NaN payload does not survive", "sum", vector(ONE, 0xFF800001)),
        reduce_case("bf16 is summed in f32 and stored as f32", "sum", pattern(1, 130, dtype="bf16"), (0,), "f32"),
        reduce_case("and rounds once where it is stored as bf16", "sum", pattern(1, 130, dtype="bf16"), (0,), "bf16"),
        reduce_case("f16 overflows at the store", "sum", vector(0x7BFF, 0x7BFF, dtype=Dtype.f16), (0,), "f16"),
        reduce_case("i32 wraps", "sum", vector(0x7FFFFFFF, 1, dtype=Dtype.i32), (0,), "i32"),
        reduce_case("u8 is summed in u32", "sum", pattern(2, 70, dtype="u8"), (0,), "u32"),
        reduce_case("and keeps its low 8 bits as u8", "sum", pattern(2, 70, dtype="u8"), (0,), "u8"),
        reduce_case("i8 is summed in i32", "sum", pattern(2, 70, dtype="i8"), (0,), "i32"),
        reduce_case("and keeps its low 8 bits as i8", "sum", pattern(2, 70, dtype="i8"), (0,), "i8"),
        reduce_case("last axis", "sum", pattern(3, 3, 67), (1,)),
        reduce_case("first axis", "sum", pattern(3, 67, 3), (0,)),
        reduce_case("values in row-major order of the reduced axes", "sum", pattern(4, 5, 3, 7, 4), (0, 2)),
        reduce_case("all axes", "sum", pattern(4, 5, 3, 7), (0, 1, 2)),
        reduce_case("no axes: stored as it is, NaN canonical", "sum", vector(ONE, 0xFFC12345, minus_zero), ()),
    ]
    values = (minus_zero, 0, ONE, ONE, 0xBF800000, 1, 0x80000001)
    for name in ("max", "min", "argmax", "argmin"):
        out = "i32" if name.startswith("arg") else "f32"
        cases += [
            reduce_case("equal values: the lowest position", name, vector(*values), (0,), out),
            reduce_case("-0 and +0: ordered for max and min, equal for positions", name,
                        tensor(Dtype.f32, (2, 2), (minus_zero, 0, 0, minus_zero)), (1,), out),
            reduce_case("infinities", name, vector(ONE, inf, minus_inf, inf, minus_inf), (0,), out),
            reduce_case("NaN, and of positions the first", name, vector(ONE, 0xFFC00001, inf, nan), (0,), out),
            reduce_case("one value", name, vector(nan), (0,), out),
            reduce_case("over two axes of three", name, pattern(5, 4, 3, 9), (0, 2), out),
            reduce_case("signed", name, vector(1, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFF, dtype=Dtype.i32), (0,), "i32"),
            reduce_case("unsigned", name, vector(1, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF, dtype=Dtype.u32), (0,),
                        "i32" if name.startswith("arg") else "u32"),
            reduce_case("u8", name, pattern(6, 70, dtype="u8"), (0,), "i32" if name.startswith("arg") else "u8"),
            reduce_case("i8", name, pattern(6, 70, dtype="i8"), (0,), "i32" if name.startswith("arg") else "i8"),
            reduce_case("bf16", name, pattern(7, 70, dtype="bf16"), (0,), "i32" if name.startswith("arg") else "bf16"),
        ]  # fmt: skip
    return {
        "_comment": [
            "docs/numerics.md, section 6.",
            TENSOR,
            PATTERN,
            "wrong: results of mistaken orders of addition; an implementation that gives one of these has that order.",
        ],
        "cases": cases,
        "rejected": [
            rejected_reduce("an axis that does not exist", "sum", shaped("f32", 2), [1], "f32"),
            rejected_reduce("axes out of order", "sum", shaped("f32", 2, 2), [1, 0], "f32"),
            rejected_reduce("an axis twice", "sum", shaped("f32", 2, 2), [1, 1], "f32"),
            rejected_reduce("max of nothing", "max", shaped("f32", 0), [0], "f32"),
            rejected_reduce("max changes the dtype", "max", shaped("bf16", 2), [0], "f32"),
            rejected_reduce("a position that is not i32", "argmax", shaped("f32", 2), [0], "f32"),
            rejected_reduce("a float sum stored as integer", "sum", shaped("f32", 2), [0], "i32"),
            rejected_reduce("booleans", "sum", shaped("boolean", 2), [0], "u32"),
        ],
    }  # fmt: skip


# ---- random


def philox() -> Json:
    # The known answers of the authors' library (Random123, kat_vectors, philox4x32 10).
    known = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((exact.MASK,) * 4, (exact.MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
         (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ]  # fmt: skip
    for counter, key, words in known:
        agree("philox", exact.philox(counter, key), words)
    counters: list[tuple[Index, Index]] = [*(k[:2] for k in known), ((5, 1, 7, 9), (3, 4))]
    cases = []
    for seed, step, stream, shape in (
        ((0, 0), 0, 0, (4,)), ((1, 2), 0, 0, (7,)), ((1, 2), 1, 0, (7,)), ((1, 2), 0, 1, (2, 3)),
        ((0xFFFFFFFF, 0x80000000), 0xFFFFFFFF, 0xFFFFFFFF, (1,)), ((3, 5), 2, 9, (3, 0)), ((3, 5), 2, 9, ()),
        ((7, 11), 100, 4, (5, 13)),
    ):  # fmt: skip
        op = ops.Random(stream, shape)
        inputs = [np.array(seed, np.uint32), np.array(step, np.uint32)]
        (y,) = run_one(op, inputs, [Dtype.u32, Dtype.u32])
        words = [exact.random_word(e, stream, step, seed) for e in range(y.size)]
        result = tensor(Dtype.u32, shape, agree("random", to_bits(y), words))
        cases.append({"seed": hexadecimal(seed, Dtype.u32), "step": step, "stream": stream, "result": result})
    return {
        "_comment": [
            "docs/numerics.md, section 9.",
            TENSOR,
            "blocks: four words of Philox4x32-10 for a counter (four words) and a key (two words).",
            "cases: random nodes.",
        ],
        "blocks": [
            {name: [f"{w:08x}" for w in words]
             for name, words in (("counter", c), ("key", k), ("words", exact.philox(c, k)))}
            for c, k in counters
        ],
        "cases": cases,
        "rejected": [
            {"why": "a stream beyond 32 bits", "stream": 1 << 32, "seed_shape": [2], "step_shape": []},
            {"why": "a seed of one word", "stream": 0, "seed_shape": [1], "step_shape": []},
            {"why": "a step that is no scalar", "stream": 0, "seed_shape": [2], "step_shape": [1]},
        ],
    }  # fmt: skip


# ---- layout

LAYOUTS: dict[str, type[ops.Op]] = {
    c.__name__.lower(): c for c in (ops.Reshape, ops.Permute, ops.Slice, ops.Pad, ops.Concat, ops.Broadcast, ops.Window)
}


def read_layout(case: Json) -> tuple[ops.Op, list[Array], list[Dtype]]:
    attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in case["attributes"].items()}
    op = LAYOUTS[case["op"]](**attributes)
    return op, [read_tensor(t) for t in case["inputs"]], [Dtype[t["dtype"]] for t in case["inputs"]]


def layout_source(op: ops.Op, shapes: list[Index], where: Index) -> tuple[int, Index] | None:
    """(input, index) that out[where] shows, or None where it is fill: the formulas of docs/numerics.md, section 7."""
    shape = shapes[0]
    if isinstance(op, ops.Permute):
        index = [0] * len(shape)
        for i, axis in enumerate(op.axes):
            index[axis] = where[i]
        return 0, tuple(index)
    if isinstance(op, ops.Slice):
        return 0, tuple(s + i * t for s, i, t in zip(op.start, where, op.step, strict=True))
    if isinstance(op, ops.Pad):
        index = []
        for i, lo, gap, d in zip(where, op.low, op.interior, shape, strict=True):
            place, beside = divmod(i - lo, gap + 1)
            if beside or not 0 <= place < d:
                return None
            index.append(place)
        return 0, tuple(index)
    if isinstance(op, ops.Concat):
        i, n = where[op.axis], 0
        while i >= shapes[n][op.axis]:
            i, n = i - shapes[n][op.axis], n + 1
        return n, (*where[: op.axis], i, *where[op.axis + 1 :])
    if isinstance(op, ops.Broadcast):
        tail = where[len(where) - len(shape) :]
        return 0, tuple(0 if d == 1 else i for d, i in zip(shape, tail, strict=True))
    if isinstance(op, ops.Window):
        d, lead = len(op.size), len(shape) - len(op.size)
        taps, outs = where[lead : lead + d], where[lead + d :]
        inner = (o * s + k * t for o, s, k, t in zip(outs, op.stride, taps, op.dilation, strict=True))
        return 0, (*where[:lead], *inner)
    assert isinstance(op, ops.Reshape)
    number = 0
    for i, d in zip(where, op.shape, strict=True):
        number = number * d + i
    index = []
    for d in reversed(shape):
        number, i = divmod(number, d)
        index.append(i)
    return 0, tuple(reversed(index))


def layout_case(why: str, name: str, inputs: list[Json], **attributes: Any) -> Json:
    case: Json = {"why": why, "op": name, "attributes": attributes, "inputs": inputs}
    op, arrays, dtypes = read_layout(case)
    (y,) = run_one(op, arrays, dtypes)
    bits = [np.array(to_bits(x)).reshape(x.shape) for x in arrays]
    expected = []
    for where in itertools.product(*map(range, y.shape)):
        source = layout_source(op, [x.shape for x in arrays], where)
        expected.append(int(bits[source[0]][source[1]]) if source else attributes["fill"])
    case["result"] = tensor(dtypes[0], y.shape, agree(why, to_bits(y), expected))
    return case


def rejected_layout(why: str, name: str, inputs: list[Json], **attributes: Any) -> Json:
    return {"why": why, "op": name, "attributes": attributes, "inputs": inputs}


def counted(*shape: int, dtype: Dtype = Dtype.u8, first: int = 0) -> Json:
    n = int(np.prod(shape, dtype=np.int64))
    return tensor(dtype, shape, [(first + i) % (1 << 8 * dtype.size) for i in range(n)])


NANS = tensor(Dtype.f32, (2, 2), (0x7F800001, 0xFFC12345, 0x80000000, 0x00000001))


def layout() -> Json:
    cases = [
        layout_case("row-major order stays", "reshape", [counted(2, 3, 4)], shape=[4, 6]),
        layout_case("to a scalar", "reshape", [counted(1, 1)], shape=[]),
        layout_case("nothing", "reshape", [counted(0, 3)], shape=[2, 0]),
        layout_case("NaN payloads are not touched", "permute", [NANS], axes=[1, 0]),
        layout_case("three axes", "permute", [counted(2, 3, 4)], axes=[2, 0, 1]),
        layout_case("booleans", "permute", [tensor(Dtype.boolean, (1, 2), (1, 0))], axes=[1, 0]),
        layout_case("every second", "slice", [counted(7)], start=[1], shape=[3], step=[2]),
        layout_case("backwards", "slice", [counted(2, 5)], start=[0, 4], shape=[2, 3], step=[1, -2]),
        layout_case("nothing", "slice", [counted(4)], start=[0], shape=[0], step=[1]),
        layout_case("around", "pad", [counted(2, 2, first=1)], low=[1, 0], high=[0, 2], interior=[0, 0], fill=0),
        layout_case("between", "pad", [counted(3, first=1)], low=[0], high=[1], interior=[2], fill=255),
        layout_case("fill is bits: -infinity", "pad", [NANS], low=[0, 1], high=[1, 0], interior=[0, 1],
                    fill=0xFF800000),
        layout_case("16-bit elements", "pad", [counted(2, dtype=Dtype.bf16)], low=[1], high=[1], interior=[0],
                    fill=0xFF80),
        layout_case("around nothing", "pad", [counted(0)], low=[1], high=[1], interior=[3], fill=9),
        layout_case("second axis", "concat", [counted(2, 1), counted(2, 3, first=50), counted(2, 0)], axis=1),
        layout_case("first axis", "concat", [counted(1, 2), counted(2, 2, first=50)], axis=0),
        layout_case("one input twice the same", "concat", [counted(2)] * 2, axis=0),
        layout_case("new and stretched axes", "broadcast", [counted(2, 1)], shape=[3, 2, 2]),
        layout_case("a scalar", "broadcast", [counted()], shape=[2, 2]),
        layout_case("to nothing", "broadcast", [counted(1)], shape=[2, 0]),
        layout_case("one axis", "window", [counted(6)], size=[3], stride=[1], dilation=[1]),
        layout_case("stride and dilation", "window", [counted(9)], size=[2], stride=[2], dilation=[3]),
        layout_case("two axes under a leading one", "window", [counted(2, 3, 4)], size=[2, 3], stride=[1, 1],
                    dilation=[1, 1]),
    ]  # fmt: skip
    u8 = shaped("u8", 4)
    return {
        "_comment": [
            "docs/numerics.md, section 7.",
            TENSOR,
            "attributes are named as there; fill holds the bits of one element.",
            "rejected: attributes that do not fit the inputs.",
        ],
        "cases": cases,
        "rejected": [
            rejected_layout("another number of elements", "reshape", [u8], shape=[3]),
            rejected_layout("no permutation", "permute", [u8], axes=[1]),
            rejected_layout("an axis twice", "permute", [shaped("u8", 2, 2)], axes=[0, 0]),
            rejected_layout("leaves the tensor", "slice", [u8], start=[1], shape=[4], step=[1]),
            rejected_layout("leaves it backwards", "slice", [u8], start=[2], shape=[4], step=[-1]),
            rejected_layout("step zero", "slice", [u8], start=[0], shape=[2], step=[0]),
            rejected_layout("an empty slice written another way", "slice", [u8], start=[1], shape=[0], step=[1]),
            rejected_layout("negative padding", "pad", [u8], low=[-1], high=[0], interior=[0], fill=0),
            rejected_layout("fill wider than the element", "pad", [u8], low=[1], high=[0], interior=[0], fill=256),
            rejected_layout("other dimensions differ", "concat", [u8, shaped("u8", 4, 1)], axis=0),
            rejected_layout("dtypes differ", "concat", [u8, shaped("u32", 4)], axis=0),
            rejected_layout("does not broadcast", "broadcast", [u8], shape=[4, 2]),
            rejected_layout("the window does not fit", "window", [u8], size=[3], stride=[1], dilation=[2]),
            rejected_layout("stride zero", "window", [u8], size=[2], stride=[0], dilation=[1]),
        ],
    }  # fmt: skip


# ---- gather, scatter_add


def gather_case(why: str, data: Json, index: Json) -> Json:
    x, i = read_tensor(data), read_tensor(index)
    dtype = Dtype[data["dtype"]]
    (y,) = run_one(ops.Gather(), [x, i], [dtype, Dtype.i32])
    width = int(np.prod(x.shape[1:], dtype=np.int64))
    bits, expected = to_bits(x), []
    outside = STORES[dtype].nan if dtype.is_float else 0
    for r in to_bits(i):
        inside = r < x.shape[0]
        expected += bits[r * width : (r + 1) * width] if inside else [outside] * width
    result = tensor(dtype, y.shape, agree(why, to_bits(y), expected))
    return {"why": why, "data": data, "index": index, "result": result}


def scatter_case(why: str, source: Json, index: Json, rows: int, dtype: str, wrong: bool = False) -> Json:
    x, i = read_tensor(source), read_tensor(index)
    into, came = Dtype[dtype], Dtype[source["dtype"]]
    op = ops.ScatterAdd(rows, into)
    (y,) = run_one(op, [x, i], [came, Dtype.i32])
    width = int(np.prod(y.shape[1:], dtype=np.int64))

    def scatter(order: Sequence[int]) -> list[int]:
        sums, bits, targets = [0] * (rows * width), to_bits(x), to_bits(i)
        for n in order:
            for j in range(width) if targets[n] < rows else ():
                v, at = register_bits(bits[n * width + j], came), targets[n] * width + j
                if came.is_float:
                    sums[at] = exact.add(sums[at], v)
                else:
                    sums[at] = (sums[at] + v) & exact.MASK
        return [exact.narrow(s, STORES[into]) if into.is_float else s % (1 << 8 * into.size) for s in sums]

    right = agree(why, to_bits(y), scatter(range(i.size)))
    case = {"why": why, "source": source, "index": index, "rows": rows, "dtype": dtype,
            "result": tensor(into, y.shape, right), "wrong": {}}  # fmt: skip
    if wrong:
        found = scatter(range(i.size - 1, -1, -1))
        assert found != right
        case["wrong"] = {"descending source order": hexadecimal(found, into)}
    return case


def rejected_index(why: str, name: str, data: Json, index: Json) -> Json:
    return {"why": why, "op": name, "data": data, "index": index}


def ints(*values: int, shape: Sequence[int] | None = None) -> Json:
    return tensor(Dtype.i32, shape if shape is not None else (len(values),), [v & exact.MASK for v in values])


def gather_scatter() -> Json:
    lowest, highest = -(1 << 31), (1 << 31) - 1
    return {
        "_comment": [
            "docs/numerics.md, section 8.",
            TENSOR,
            PATTERN,
            "wrong: results of a mistaken order of addition.",
        ],
        "gather": [
            gather_case("rows of two", pattern(1, 3, 2), ints(2, 0, 2, 1)),
            gather_case("NaN payloads are not touched", NANS, ints(0, 1)),
            gather_case("outside: canonical NaN", pattern(1, 3, 2), ints(-1, 3, 2, lowest, highest)),
            gather_case("outside: canonical bf16 NaN", pattern(1, 3, dtype="bf16"), ints(0, 3)),
            gather_case("outside: canonical f16 NaN", pattern(1, 3, dtype="f16"), ints(0, -3)),
            gather_case("outside: integers give 0", pattern(1, 3, dtype="u8"), ints(0, 3, 2, shape=(3, 1))),
            gather_case("outside: i8 gives 0", pattern(1, 3, dtype="i8"), ints(0, 3, 2, shape=(3, 1))),
            gather_case("outside: booleans give 0", tensor(Dtype.boolean, (2,), (1, 1)), ints(1, 2)),
            gather_case("a scalar index", pattern(2, 3, 2), ints(1, shape=())),
            gather_case("from no rows", tensor(Dtype.i32, (0, 2), []), ints(0)),
            gather_case("no indices", pattern(2, 3, 2), tensor(Dtype.i32, (0,), [])),
        ],
        "scatter_add": [
            scatter_case("ascending source order", pattern(3, 40), ints(*(i % 3 for i in range(40))), 3, "f32", True),
            scatter_case("rows of three", pattern(4, 6, 3), ints(1, 1, 0, 3, 1, 0), 4, "f32"),
            scatter_case("outside: nothing is added", pattern(4, 4, 2), ints(-1, 2, 0, lowest), 2, "f32"),
            scatter_case("rows start at +0, so -0 alone gives +0", vector(0x80000000), ints(0), 2, "f32"),
            scatter_case("a NaN payload does not survive", vector(0xFFC12345), ints(0), 1, "f32"),
            scatter_case("f32 sums stored once as bf16", pattern(5, 9, dtype="bf16"), ints(*[0] * 9), 1, "bf16"),
            scatter_case("bf16 sums kept as f32", pattern(5, 9, dtype="bf16"), ints(*[0] * 9), 1, "f32"),
            scatter_case("f16", pattern(6, 9, dtype="f16"), ints(*[0, 1, 1] * 3), 2, "f16"),
            scatter_case("i32 wraps", vector(0x7FFFFFFF, 1, dtype=Dtype.i32), ints(0, 0), 1, "i32"),
            scatter_case("u8 keeps its low bits", vector(200, 100, dtype=Dtype.u8), ints(0, 0), 1, "u8"),
            scatter_case("i8 into i32", vector(200, 100, dtype=Dtype.i8), ints(0, 0), 1, "i32"),
            scatter_case("index of two axes", pattern(7, 2, 3, 2), ints(0, 1, 0, 1, 1, 5, shape=(2, 3)), 2, "f32"),
            scatter_case("no contributions", tensor(Dtype.f32, (0, 2), []), tensor(Dtype.i32, (0,), []), 2, "f32"),
        ],
        "rejected": [
            rejected_index("gather by floats", "gather", shaped("f32", 3), shaped("f32", 2)),
            rejected_index("gather from a scalar", "gather", shaped("f32"), shaped("i32", 2)),
            rejected_index("source that does not fit the index", "scatter_add", shaped("f32", 3, 2), shaped("i32", 2)),
            rejected_index("booleans added", "scatter_add", shaped("boolean", 2), shaped("i32", 2)),
        ],
    }  # fmt: skip


# ---- sort, scan


def exact_order(bits: list[int], dtype: Dtype) -> list[int]:
    """Positions by a stable sort on (is NaN, value)."""

    def key(i: int) -> tuple[bool, float]:
        wide = register_bits(bits[i], dtype)
        if not dtype.is_float:
            return False, exact.signed(wide) if dtype.reg is Reg.i32 else wide
        value = float(np.uint32(wide).view(np.float32))
        return (True, 0.0) if np.isnan(value) else (False, value)

    return sorted(range(len(bits)), key=key)


def sort_case(why: str, x: Json) -> Json:
    array, dtype = read_tensor(x), Dtype[x["dtype"]]
    (y,) = run_one(ops.Sort(), [array], [dtype])
    n = array.shape[-1]
    rows = [to_bits(array)[r : r + n] for r in range(0, array.size, n)] if n else []
    order = [i for row in rows for i in exact_order(row, dtype)]
    return {"why": why, "x": x, "result": tensor(Dtype.i32, y.shape, agree(why, to_bits(y), order))}


def read_scan(case: Json) -> tuple[ops.Scan, ScalarProgram, list[Array], list[Dtype]]:
    op = ops.Scan(0, tuple(case["shape"]), tuple(Dtype[d] for d in case["dtypes"]))
    inputs = case["inputs"]
    return (
        op,
        read_scalar_program(case["program"]),
        [read_tensor(t) for t in inputs],
        [Dtype[t["dtype"]] for t in inputs],
    )


def write_scalar_program(p: ScalarProgram) -> Json:
    return {
        "inputs": [r.name for r in p.inputs],
        "constants": [[c.reg.name, f"{c.bits:08x}"] for c in p.constants],
        "code": [[i.op, *i.args] for i in p.code],
        "outputs": list(p.outputs),
    }


def scan_case(why: str, program: ScalarProgram, inputs: list[Json], shape: Sequence[int], *dtypes: str) -> Json:
    case: Json = {"why": why, "program": write_scalar_program(program), "inputs": inputs, "shape": list(shape),
                  "dtypes": list(dtypes)}  # fmt: skip
    op, scalar, arrays, kinds = read_scan(case)
    outs = run_one(op, arrays, kinds, scalars=(scalar,))
    c, wide = len(dtypes), [to_bits(np.ascontiguousarray(np.broadcast_to(
        x, op.shape[1:] if i < len(dtypes) else op.shape))) for i, x in enumerate(arrays)]  # fmt: skip
    count = int(np.prod(op.shape[1:], dtype=np.int64))
    found: list[list[int]] = [[] for _ in dtypes]
    for e in range(count * op.shape[0]):
        before = [w[e] for w in wide[:c]] if e < count else [f[e - count] for f in found]
        stored_inputs = [*before, *(w[e] for w in wide[c:])]
        registers_in = [register_bits(b, k) for b, k in zip(stored_inputs, kinds, strict=True)]
        for f, y, d in zip(found, exact_scalars(scalar, registers_in), op.dtypes, strict=True):
            f.append(exact.narrow(y, STORES[d]) if d.is_float else y % (1 << 8 * d.size))
    case["results"] = [
        tensor(d, op.shape, agree(why, to_bits(y), f)) for d, y, f in zip(op.dtypes, outs, found, strict=True)
    ]
    return case


def sort_scan() -> Json:
    add, blend = ScalarBuilder(), ScalarBuilder()
    y, x = add.input(), add.input()
    sums = add.build(y + x)
    y, n, x, k = blend.input(), blend.input(Reg.i32), blend.input(), blend.input(Reg.i32)
    both = blend.build(blend.fma(y, 0.5, x), n * 3 + k)
    count = ScalarBuilder()
    counts = count.build(count.input(Reg.i32) * 3 + count.input(Reg.i32))
    zero, one = tensor(Dtype.f32, (), (0,)), tensor(Dtype.bf16, (1,), (0x3F80,))
    return {
        "_comment": [
            "docs/numerics.md, sections 10 and 11.",
            TENSOR,
            PATTERN,
            "scan: the inputs are the initial tensors, one an output, then those that the scan runs along.",
        ],
        "sort": [
            sort_case("rows", pattern(1, 3, 5)),
            sort_case("equal elements keep their order", vector(ONE, 0x3F000000, ONE, 0x3F000000, ONE)),
            sort_case("-0 equals +0", vector(0, 0x80000000, 0, 0x80000000, 1, 0x80000001)),
            sort_case("NaN last, of any payload",
                      vector(0x7F800001, ONE, 0xFFC12345, 0x7F800000, 0xFF800000, 0x7FC00000)),
            sort_case("subnormals are told apart", vector(3, 2, 1, 0x80000001, 0x80000002)),
            sort_case("bf16", pattern(2, 9, dtype="bf16")),
            sort_case("f16", pattern(3, 2, 7, dtype="f16")),
            sort_case("i32 with sign", vector(1, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0, dtype=Dtype.i32)),
            sort_case("u32 without", vector(1, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0, dtype=Dtype.u32)),
            sort_case("u8", vector(200, 7, 100, 7, dtype=Dtype.u8)),
            sort_case("i8", vector(200, 7, 100, 7, dtype=Dtype.i8)),
            sort_case("one", vector(ONE)),
            sort_case("empty rows", tensor(Dtype.f32, (2, 0), [])),
        ],
        "scan": [
            scan_case("a running sum", sums, [zero, pattern(1, 6, 2)], (6, 2), "f32"),
            scan_case("begun with -0", sums, [tensor(Dtype.f32, (), (0x80000000,)), vector(0x80000000, ONE)],
                      (2,), "f32"),
            scan_case("a narrow carried value is rounded at every step", sums, [one, pattern(2, 9, 1, dtype="bf16")],
                      (9, 1), "bf16"),
            scan_case("two carried values, broadcast inputs", both,
                      [zero, ints(1, -1, 7), pattern(3, 4, 1), pattern(4, 3, dtype="i32")], (4, 3), "f32", "i32"),
            scan_case("a carried i8 wraps at every step", counts,
                      [vector(100, dtype=Dtype.i8), pattern(5, 9, 1, dtype="i8")], (9, 1), "i8"),
            scan_case("NaN stays", sums, [zero, vector(ONE, 0xFFC12345, ONE)], (3,), "f32"),
            scan_case("no steps", sums, [zero, tensor(Dtype.f32, (0, 2), [])], (0, 2), "f32"),
        ],
        "rejected": [
            {"why": "booleans sorted", "op": "sort", "x": shaped("boolean", 3)},
            {"why": "a scalar sorted", "op": "sort", "x": shaped("f32")},
            {"why": "a scan over a scalar", "op": "scan", "x": shaped("f32")},
            {"why": "an initial value of another dtype", "op": "scan", "x": shaped("bf16", 3)},
        ],
    }  # fmt: skip


FILES: dict[str, Callable[[], Json]] = {
    "scalar_ops": scalar_ops, "dot": dot, "reduce": reduce, "philox": philox, "layout": layout,
    "gather_scatter": gather_scatter, "sort_scan": sort_scan,
}  # fmt: skip


def text(content: Json) -> str:
    """JSON with one case a line."""
    parts = []
    for key, entry in content.items():
        if isinstance(entry, list):
            body = "[\n" + ",\n".join(f"  {json.dumps(e)}" for e in entry) + "\n ]"
        else:
            body = "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in entry.items()) + "\n }"
        parts.append(f" {json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or FILES:
        (VECTORS / f"{name}.json").write_text(text(FILES[name]()))

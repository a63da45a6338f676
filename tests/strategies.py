"""Hypothesis strategies: bit patterns that find mistakes, tensors, well-typed scalar programs, and programs."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.errors import LimitError, ProgramError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Program, ProgramBuilder, Value
from gensyn_verify.program.scalar import OPERATIONS, Constant, Instruction, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, TensorType

F32_SPECIAL = [
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000, 0x00800001,
    0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x3F800001, 0x3F000000, 0x40400000, 0x4B000000, 0x4B7FFFFF, 0xCB800000,
    0x4EFFFFFF, 0x4F000000, 0xCF000000, 0xCF000001, 0x4F7FFFFF, 0x4F800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000,
    0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x33800000, 0x477FE000, 0x477FEFFF, 0x477FF000,
    0x38800000, 0x387FFFFF, 0x33000000, 0x33000001, 0x7F7F8000, 0x7F7F7FFF,
]  # fmt: skip
INTEGER_SPECIAL = [
    0, 1, 2, 3, 31, 32, 33, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 0xFFFFFF, 0x1000000, 0x1000001, 0x1000003,
    0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFF80, 0xFFFFFFFE, 0xFFFFFFFF,
]  # fmt: skip

LAYOUTS: tuple[ops.Op, ...] = (  # of a tensor of 3 x 4 x 5; concat, which takes several, is missing
    ops.Reshape((5, 12)),
    ops.Permute((2, 0, 1)),
    ops.Slice((2, 0, 4), (3, 2, 2), (-1, 3, -3)),
    ops.Pad((1, 0, 2), (0, 2, 1), (0, 1, 2), 1),
    ops.Broadcast((2, 3, 4, 5)),
    ops.Window((2, 3), (2, 1), (1, 2)),
)


def special_words(reg: Reg) -> list[int]:
    """Bit patterns of a register type at which rules change."""
    return {Reg.f32: F32_SPECIAL, Reg.boolean: [0, 1]}.get(reg, INTEGER_SPECIAL)


def random_tensor(rng: np.random.Generator, dtype: Dtype, shape: tuple[int, ...], special: float = 0.3) -> Array:
    """Random bits, everyday numbers and, for a share of the elements, special patterns."""
    n = int(np.prod(shape, dtype=np.int64))
    if dtype is Dtype.boolean:
        return rng.integers(0, 2, shape).astype(np.bool_)
    size = dtype.size
    bits = rng.integers(0, 1 << (8 * size), n, dtype=np.uint64)
    if dtype.is_float:
        everyday = (rng.standard_normal(n) * 2.0 ** rng.integers(-4, 5, n)).astype(np.float32)
        words = everyday.view(np.uint32) >> (16 if dtype is Dtype.bf16 else 0)
        if dtype is Dtype.f16:
            words = everyday.astype(np.float16).view(np.uint16)
        bits = np.where(rng.random(n) < 0.6, words.astype(np.uint64), bits)
        patterns = np.array(F32_SPECIAL, np.uint64) >> np.uint64(8 * (4 - size))
    else:
        patterns = np.array(INTEGER_SPECIAL, np.uint64) & np.uint64((1 << (8 * size)) - 1)
    bits = np.where(rng.random(n) < special, rng.choice(patterns, n), bits)
    return bits.astype(f"<u{size}").view(CARRIER[dtype]).reshape(shape)


def constants(reg: Reg) -> st.SearchStrategy[Constant]:
    words = st.sampled_from(special_words(reg))
    if reg is not Reg.boolean:
        words |= st.integers(0, 0xFFFFFFFF)
    if reg is Reg.f32:  # the format knows one NaN
        words = words.map(lambda w: 0x7FC00000 if w & 0x7FFFFFFF > 0x7F800000 else w)
    return words.map(lambda w: Constant(reg, w))


@st.composite
def scalar_programs(draw: st.DrawFn, max_inputs: int = 4, max_instructions: int = 24) -> ScalarProgram:
    """A well-typed program over all operations. Operands lean towards recent values, so that chains are long."""
    inputs = draw(st.lists(st.sampled_from(Reg), max_size=max_inputs))
    pool = draw(st.lists(st.sampled_from(Reg).flatmap(constants), min_size=0 if inputs else 1, max_size=4))
    pool = sorted(set(pool), key=lambda c: (c.reg, c.bits))
    types = [*inputs, *(c.reg for c in pool)]
    code = []
    for _ in range(draw(st.integers(0, max_instructions))):
        possible = [op for op in OPERATIONS.values() if set(op.operands) <= set(types)]
        op = draw(st.sampled_from(possible))
        args = []
        for reg in op.operands:
            candidates = [v for v, t in enumerate(types) if t is reg]
            recent = candidates[-draw(st.sampled_from([1, 3, len(candidates)])) :]
            args.append(draw(st.sampled_from(recent)))
        code.append(Instruction(op.name, tuple(args)))
        types.append(op.result)
    outputs = draw(st.lists(st.integers(0, len(types) - 1), min_size=1, max_size=3))
    outputs[0] = len(types) - 1
    return ScalarProgram(tuple(inputs), tuple(pool), tuple(code), tuple(outputs))


def storage(reg: Reg) -> st.SearchStrategy[Dtype]:
    """A dtype whose elements live in registers of this type."""
    return st.sampled_from([d for d in Dtype if d.reg is reg])


@st.composite
def broadcastable(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to `shape`."""
    kept = shape[draw(st.integers(0, len(shape))) :] if draw(st.booleans()) else shape
    return tuple(1 if draw(st.integers(0, 3)) == 0 else d for d in kept)


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A small program of random nodes: maps of random scalar programs, and every other kind where the shapes allow."""
    g = ProgramBuilder()
    values = [
        g.input(
            draw(st.sampled_from(["batch", "scalar"])), f"in{i}", TensorType(draw(st.sampled_from(Dtype)), draw(SHAPES))
        )
        for i in range(draw(st.integers(1, 4)))
    ]
    for _ in range(draw(st.integers(0, 8))):
        try:
            values += draw_node(draw, g, values)
        except (ProgramError, LimitError):  # the operands do not fit: no node
            continue
    for i, v in enumerate(values):
        g.output("metric", f"out{i}", v)
    return g.build()


def random_inputs(program: Program, seed: int = 0, special: float = 0.3) -> dict[str, Array]:
    """A tensor of `random_tensor` for every input of any role, by name."""
    rng = np.random.default_rng(seed)
    return {i.name: random_tensor(rng, i.type.dtype, i.type.shape, special) for i in program.inputs}


def dot_program(
    m: int,
    n: int,
    k: int,
    dtypes: tuple[Dtype, ...] = (Dtype.f32,) * 3,
    transpose: tuple[bool, bool] = (False, False),
    batch: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
) -> Program:
    """One dot of "a" and "b", stored transposed or not, with the batch axes of each; its result is "c"."""
    g = ProgramBuilder()
    a = g.input("batch", "a", TensorType(dtypes[0], (*batch[0], *((k, m) if transpose[0] else (m, k)))))
    b = g.input("batch", "b", TensorType(dtypes[1], (*batch[1], *((n, k) if transpose[1] else (k, n)))))
    g.output("metric", "c", g.dot(a, b, *transpose, dtype=dtypes[2]))
    return g.build()


HASHED = (0, 1, 3, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3 << 10, 4097, 31 << 10, (33 << 10) + 5, 70000, 96 << 10)


def kept_bytes() -> tuple[Program, dict[str, Array]]:
    """A program that keeps tensors of `HASHED` bytes, and such tensors."""
    g, rng = ProgramBuilder(), np.random.default_rng(1)
    state = {f"s{n:06}": rng.integers(0, 256, n, np.uint8) for n in HASHED}
    for name, array in state.items():
        g.output("state", name, g.input("state", name, TensorType(Dtype.u8, array.shape)))
    return g.build(), state


def rows_program(dtype: Dtype, out: Dtype, rows: int, row: list[int], index: list[int]) -> Program:
    """Rows of "data" and "source" by the indices "where": gathered, added, and added into `out` where it fits."""
    g = ProgramBuilder()
    data = g.input("batch", "data", TensorType(dtype, (rows, *row)))
    source = g.input("batch", "source", TensorType(dtype, (*index, *row)))
    where = g.input("batch", "where", TensorType(Dtype.i32, tuple(index)))
    g.output("metric", "gathered", g.gather(data, where))
    if dtype is not Dtype.boolean:
        g.output("metric", "added", g.scatter_add(source, where, rows))
        if out.reg is dtype.reg:
            g.output("metric", "narrow", g.emit(ops.ScatterAdd(rows, out), source, where)[0])
    return g.build()


@st.composite
def chains(draw: st.DrawFn) -> Program:
    """Maps of random scalar programs over each other's values, broadcast ones too, with now and then another node.

    Values become state or metrics, or nobody reads them.
    """
    g = ProgramBuilder()
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    values = []
    for i, reg in enumerate(draw(st.lists(st.sampled_from(Reg), min_size=1, max_size=4))):
        of = shape if draw(st.booleans()) else draw(broadcastable(shape))
        values.append(g.input("batch", f"in{i}", TensorType(draw(storage(reg)), of)))
    for _ in range(draw(st.integers(1, 8))):
        shaped = [v for v in values if v.shape]
        if shaped and draw(st.integers(0, 5)) == 0:
            x = draw(st.sampled_from(shaped))
            values.append(g.emit(ops.Permute(tuple(draw(st.permutations(range(len(x.shape)))))), x)[0])
            continue
        fits = [v for v in values if ops.broadcasts_to(v.shape, shape)]
        scalar = draw(scalar_programs(max_inputs=4, max_instructions=6))
        choices = [[v for v in fits if v.dtype.reg is reg] for reg in scalar.inputs]
        if not all(choices):
            continue
        recent = [draw(st.sampled_from(c[-draw(st.sampled_from([1, 2, len(c)])) :])) for c in choices]
        wide = [next((d for d in Dtype if d.reg is reg and (d.size == 4 or reg is Reg.boolean)), None) for reg in
                scalar.output_types]  # fmt: skip
        dtypes = tuple(
            d if d is not None and draw(st.integers(0, 3)) else draw(storage(reg))
            for d, reg in zip(wide, scalar.output_types, strict=True)
        )
        number = g._scalars.setdefault(scalar, len(g._scalars))
        values += g.emit(ops.Map(number, shape, dtypes), *recent)
    for i, v in enumerate(values):
        if draw(st.booleans()) or v is values[-1]:
            g.output("metric", f"out{i}", v)
    return g.build()


@st.composite
def row_graphs(draw: st.DrawFn) -> Program:
    """Maps, reductions, products and views of each other's values: much of it runs row by row, some of it cannot."""
    shape = tuple(draw(st.lists(st.integers(1, 9) | st.sampled_from([16, 40]), min_size=2, max_size=3)))
    g = ProgramBuilder()
    pool = [g.input("batch", f"x{n}", TensorType(Dtype.f32, draw(broadcastable(shape)))) for n in range(2)]
    for _ in range(draw(st.integers(2, 12))):
        x = draw(st.sampled_from(pool[-4:]))
        kind = draw(st.sampled_from(["map"] * 4 + ["reduce"] * 3 + ["view", "dot"]))
        if kind == "map":
            others = [v for v in pool if ops.broadcasts_to(v.shape, shape)]
            a, b = draw(st.sampled_from(others)), draw(st.sampled_from(others))
            pool += g.maps(lambda p, q: (p * q, p - q), a, b, dtypes=(Dtype.f32, Dtype.bf16))
        elif kind == "dot" and len(x.shape) > 1:
            c = g.dot(x, x, transpose_b=True)
            pool += g.maps(
                lambda p: (p + 1.0, p * p), c, dtypes=(Dtype.f32, draw(st.sampled_from([Dtype.f16, Dtype.f32])))
            )
        elif kind == "reduce" and x.shape:
            name = draw(st.sampled_from(["sum", "max", "min"]))
            last = len(x.shape) - 1
            axes = draw(st.just({last}) | st.sets(st.integers(0, last), min_size=1))
            pool.append(g.reduce(name, x, sorted(axes), keepdims=draw(st.booleans())))
        elif x.shape:
            pool.append(_some_view(draw, g, x))
    for n, v in enumerate(pool[-3:]):
        g.output("metric", f"y{n}", v)
    return g.build()


def _some_view(draw: st.DrawFn, g: ProgramBuilder, x: Value) -> Value:
    """Of something with axes: turned, flat, its first position along an axis, or backwards."""
    axis, rank = draw(st.integers(0, len(x.shape) - 1)), len(x.shape)
    match draw(st.integers(0, 3)):
        case 0:
            return g.permute(x, tuple(reversed(range(rank))))
        case 1:
            return g.reshape(x, (-1,))
        case 2:
            return g.slice(x, (0,) * rank, tuple(1 if a == axis else d for a, d in enumerate(x.shape)))
        case _:
            return g.slice(x, tuple(d - 1 for d in x.shape), x.shape, (-1,) * rank)


def takes(op: ops.Op, *operands: Value) -> bool:
    """Whether the operands fit the operation, which is no map."""
    try:
        return bool(op.infer([TensorType(v.dtype, v.shape) for v in operands], ()))
    except (ProgramError, LimitError):
        return False


def draw_node(draw: st.DrawFn, g: ProgramBuilder, values: list[Value]) -> tuple[Value, ...]:
    """Outputs of a random node of some values; where two are needed, the second is one that fits, if there is any."""
    x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))

    def fitting(op: ops.Op) -> Value:
        return draw(st.sampled_from([v for v in values if takes(op, x, v)] or values))

    small, axes = st.integers(-1, 3), range(len(x.shape))
    each = st.tuples(*(small for _ in axes))
    op: ops.Op
    match draw(st.sampled_from(ops.OPS)).__name__:
        case "Map":
            scalar = draw(scalar_programs(max_inputs=2, max_instructions=6))
            choices = [
                [v for v in values if v.dtype.reg is reg and ops.broadcasts_to(v.shape, x.shape)]
                for reg in scalar.inputs
            ]
            if not all(choices):
                raise ProgramError("no value broadcasts to the shape")
            dtypes = tuple(draw(storage(reg)) for reg in scalar.output_types)
            number = g._scalars.setdefault(scalar, len(g._scalars))
            return g.emit(ops.Map(number, x.shape, dtypes), *(draw(st.sampled_from(c)) for c in choices))
        case "Dot":
            into = st.just(Dtype.i32) if x.dtype is Dtype.i8 else storage(Reg.f32)
            op = ops.Dot(draw(st.booleans()), draw(st.booleans()), draw(into))
            return g.emit(op, x, fitting(op))
        case "Reduce":
            name = draw(st.sampled_from(ops.REDUCTIONS))
            return (g.reduce(name, x, draw(st.sets(st.sampled_from(axes) if axes else st.nothing()))),)
        case "Reshape":
            op = ops.Reshape((*x.shape[::-1], 1))
        case "Permute":
            op = ops.Permute(tuple(draw(st.permutations(axes))))
        case "Slice":
            op = ops.Slice(draw(each), draw(each), draw(each))
        case "Pad":
            op = ops.Pad(draw(each), draw(each), draw(each), draw(st.integers(0, 300)))
        case "Concat":
            op = ops.Concat(draw(small))
            return g.emit(op, x, fitting(op))
        case "Broadcast":
            op = ops.Broadcast((2, *x.shape))
        case "Window":
            op = ops.Window(draw(each), draw(each), draw(each))
        case "Gather":
            return g.emit(ops.Gather(), x, fitting(ops.Gather()))
        case "ScatterAdd":
            op = ops.ScatterAdd(draw(small), draw(storage(x.dtype.reg)))
            return g.emit(op, x, fitting(op))
        case "Sort":
            op = ops.Sort()
        case "Scan":
            return g.scan(
                lambda carried, x: carried.builder.select(x.equals(x), x, carried), [y], [x]
            )  # fits where y is of the dtype and shape of a step of x
        case _:
            return g.emit(ops.Random(draw(st.integers(0, 99)), draw(SHAPES)), x, y)
    return g.emit(op, x)

"""The Triton backend in Triton's interpreter: the bits of the definition, for every kind of node and whole steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import assert_same_bits
from strategies import (
    broadcastable,
    chains,
    dot_program,
    programs,
    random_inputs,
    random_tensor,
    row_graphs,
    rows_program,
    scalar_programs,
    special_words,
    storage,
)

from gensyn_verify import _native, backends
from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.backends.device import plan
from gensyn_verify.errors import BackendError
from gensyn_verify.program import Dtype, Program, ProgramBuilder, Reg, ScalarProgram, TensorType, Value, ops
from gensyn_verify.program.program import Input, Node, Output
from gensyn_verify.program.published import PUBLISHED
from gensyn_verify.program.scalar import OPERATIONS, Instruction, Scalar
from tests.backends.test_executor import inputs_of, two_layer_step

pytest.importorskip("triton")
torch = pytest.importorskip("torch")
with pytest.MonkeyPatch.context() as interpreter:  # kernels are interpreted or compiled for good when imported
    interpreter.setenv("TRITON_INTERPRET", "1")
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from gensyn_verify.backends.triton import make
    from gensyn_verify.kernels import triton_map, triton_random, triton_reduce, triton_rows

TRITON = partial(make, device="cpu")
F = Dtype.f32
NUMBERS = [d for d in Dtype if d is not Dtype.boolean]
FLOATS = (Dtype.f32, Dtype.bf16, Dtype.f16)
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def interpreted() -> Iterator[None]:
    """Kernels of maps are made when a plan asks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield


def check(program: Program, inputs: dict[str, Array], definition: str = "reference") -> None:
    wanted = backends.evaluate(program, inputs, definition)
    assert_same_bits(backends.evaluate(program, inputs, TRITON), wanted, "triton")


def one_map(scalar: ScalarProgram, types: list[TensorType], shape: tuple[int, ...], dtypes: list[Dtype]) -> Program:
    """A program of one map node, every output a metric."""
    inputs = tuple(Input("batch", f"x{n:02}", t) for n, t in enumerate(types))
    node = Node(ops.Map(0, shape, tuple(dtypes)), tuple(range(len(types))), tuple(TensorType(d, shape) for d in dtypes))
    outputs = tuple(Output("metric", f"y{n:02}", len(types) + n) for n in range(len(dtypes)))
    return Program(inputs, (scalar,), (node,), outputs)


# ---- map ----


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_on_the_patterns_at_which_rules_change(name: str) -> None:
    op = OPERATIONS[name]
    scalar = ScalarProgram(op.operands, (), (Instruction(name, tuple(range(len(op.operands)))),), (len(op.operands),))
    words = list(product(*(special_words(reg) for reg in op.operands)))
    if len(words) > 4000:
        picked = np.random.default_rng(0).choice(len(words), 4000, replace=False)
        words = [words[i] for i in picked]
    columns = np.array(words, np.uint32).T
    dtypes = [Dtype[reg.name] for reg in op.operands]
    program = one_map(scalar, [TensorType(d, (len(words),)) for d in dtypes], (len(words),), [Dtype[op.result.name]])
    arrays = [
        c.astype(np.bool_) if d is Dtype.boolean else c.view(CARRIER[d]) for c, d in zip(columns, dtypes, strict=True)
    ]
    check(program, {f"x{i:02}": a for i, a in enumerate(arrays)})


@pytest.mark.parametrize("dtype", [Dtype.bf16, Dtype.f16, Dtype.u8])
def test_every_narrow_number_is_widened_exactly(dtype: Dtype) -> None:
    n = 1 << (8 * dtype.size)
    scalar = ScalarProgram((dtype.reg,), (), (), (0,))
    x = np.arange(n).astype(f"<u{dtype.size}").view(CARRIER[dtype])
    check(one_map(scalar, [TensorType(dtype, (n,))], (n,), [Dtype[dtype.reg.name]]), {"x00": x})


@pytest.mark.parametrize("dtype", [Dtype.bf16, Dtype.f16])
def test_stores_round_once_near_every_narrow_number(dtype: Dtype) -> None:
    """Every number of the dtype, the ties between neighbours, and what lies next to those."""
    kept = 16 if dtype is Dtype.bf16 else 13
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    if dtype is Dtype.f16:
        with np.errstate(invalid="ignore"):
            bits = np.arange(1 << 16).astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    around = np.array([0, 1, (1 << (kept - 1)) - 1, 1 << (kept - 1), (1 << (kept - 1)) + 1, -1], np.int64)
    x = ((bits[:, None].astype(np.int64) + around) & 0xFFFFFFFF).astype(np.uint32).reshape(-1).view(np.float32)
    below = np.arange(0x32FF0000, 0x38810000, 977, dtype=np.uint32)  # f16's subnormals lie closer than the patterns
    x = np.concatenate([x, below.view(np.float32), (below | 0x80000000).view(np.float32)])
    check(
        one_map(ScalarProgram((Reg.f32,), (), (), (0,)), [TensorType(F, x.shape)], x.shape, [dtype]), {"x00": x}, "cpu"
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_functions(name: str) -> None:
    scalar = PUBLISHED[name]
    program = one_map(scalar, [TensorType(F, (3000,))] * len(scalar.inputs), (3000,), [F] * len(scalar.outputs))
    check(program, random_inputs(program, 1, 0.1), "cpu")


@SLOW
@given(st.data())
def test_random_programs_of_operations_broadcast_and_stored_narrow(data: st.DataObject) -> None:
    scalar = data.draw(scalar_programs())
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=4)))
    types = [TensorType(data.draw(storage(reg)), data.draw(broadcastable(shape))) for reg in scalar.inputs]
    program = one_map(scalar, types, shape, [data.draw(storage(reg)) for reg in scalar.output_types])
    check(program, random_inputs(program, data.draw(st.integers(0, 99))))


@SLOW
@given(st.data())
def test_chains_of_maps_are_one_kernel_with_the_same_bits(data: st.DataObject) -> None:
    g = ProgramBuilder()
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    row = data.draw(broadcastable(shape))
    x, y = (g.input("batch", n, TensorType(F, s)) for n, s in (("x", shape), ("y", row)))
    chain = [x]
    for i in range(data.draw(st.integers(2, 5))):
        other = data.draw(st.sampled_from([*chain, y]))
        chain.append(
            g.map([lambda a, b: a * b + 0.5, lambda a, b: a / b, lambda a, b: a.max(b) - b][i % 3], chain[-1], other)
        )
    g.output("metric", "last", chain[-1])
    g.output("metric", "first", chain[1])
    program = g.build()
    check(program, random_inputs(program, data.draw(st.integers(0, 99))))


def test_views_are_read_in_place_and_targets_are_strided() -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F, (5, 7, 6)))
    turned = g.permute(x, (2, 0, 1))
    back = g.slice(x, (4, 6, 5), (5, 4, 6), (-1, -2, -1))
    g.output("metric", "turned", g.map(lambda v: v + 1.0, turned))
    g.output("metric", "back", g.map(lambda v: v * 3.0, back))
    g.output("metric", "joined", g.concat([back, g.slice(x, (0, 0, 0), (5, 2, 6))], 1))
    g.output("metric", "padded", g.pad(x, (1, 0, 2), (0, 3, 1), (1, 0, 2), 0x7F800001))
    g.output("metric", "window", g.reduce("sum", g.window(x, (2, 3), (2, 1), (1, 1)), (1, 2)))
    program = g.build()
    check(program, random_inputs(program, 4))


def test_places_beyond_31_bits_are_counted_in_64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernels with the bound at 0, so that every place needs 64 bits."""
    monkeypatch.setattr(triton_map, "INT32_ELEMENTS", 0)
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F, (3, 4, 5)))
    row = g.input("batch", "row", TensorType(F, (4, 1)))
    g.output("metric", "map", g.map(lambda v, w: v * w, x, row))
    g.output("metric", "scan", g.scan(lambda s, v: s * 0.5 + v, [row], [x])[0])
    g.output("metric", "copy", g.concat([x, x], 2))
    program = g.build()
    check(program, random_inputs(program, 4))


# ---- dot ----


@pytest.mark.parametrize("k", [0, 1, 8, 127, 128, 129, 192, 193, 256, 320, 321, 769])
@pytest.mark.parametrize("special", [0.0, 0.02])
def test_dot_keeps_the_blocked_chain(k: int, special: float) -> None:
    program = dot_program(5, 3, k)
    check(program, random_inputs(program, k, special))


def test_dot_of_underflowing_products_keeps_the_signs_of_zeros() -> None:
    """-2^-100 times 2^-100 is -0 in a chain; padding k with zeros, or a total from +0, would make it +0."""
    for k, places in ((1, [0]), (256, [5, 200]), (130, [129])):
        a, b = np.zeros((1, k), np.float32), np.full((k, 1), 1.0, np.float32)
        a[0, :] = -0.0
        a[0, places], b[places, 0] = -(2.0**-100), 2.0**-100
        check(dot_program(1, 1, k), {"a": a, "b": b})


@settings(SLOW, max_examples=15)
@given(
    m=st.integers(0, 70),
    n=st.integers(0, 70),
    k=st.integers(0, 20) | st.sampled_from([129, 193]),
    dtypes=st.tuples(*[st.sampled_from(FLOATS)] * 3),
    transpose=st.tuples(st.booleans(), st.booleans()),
    batch=st.sampled_from([((), ()), ((2,), (2,)), ((3,), ()), ((), (2,)), ((2, 2), (2, 2)), ((0,), (0,))]),
    seed=st.integers(0, 99),
)
def test_dot_of_ragged_shapes_dtypes_transposes_and_batches(m, n, k, dtypes, transpose, batch, seed) -> None:  # type: ignore[no-untyped-def]
    program = dot_program(m, n, k, dtypes, transpose, batch)
    check(program, random_inputs(program, seed, 0.05), "cpu")


@settings(SLOW, max_examples=25)
@given(
    m=st.integers(0, 70),
    n=st.integers(0, 70),
    k=st.integers(0, 20) | st.sampled_from([64, 65, 257]),
    transpose=st.tuples(st.booleans(), st.booleans()),
    batch=st.sampled_from([((), ()), ((2,), (2,)), ((3,), ()), ((), (2,)), ((0,), (0,))]),
    seed=st.integers(0, 99),
)
def test_dot_of_i8_is_exact(m: int, n: int, k: int, transpose: tuple[bool, bool], batch: Any, seed: int) -> None:
    program = dot_program(m, n, k, (Dtype.i8, Dtype.i8, Dtype.i32), transpose, batch)
    check(program, random_inputs(program, seed), "cpu")


def test_sums_of_i8_products_wrap() -> None:
    """The sum of 2^17 times (-128)^2 is 2^31, which i32 does not have."""
    program = dot_program(1, 1, 1 << 17, (Dtype.i8, Dtype.i8, Dtype.i32))
    x = {name: np.full(t.shape, -128, np.int8) for name, t in program.inputs_of("batch").items()}
    check(program, x, "cpu")


def test_sums_of_i8_products_wrap_where_matrix_units_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's product of matrices, as mma.sync does it with satfinite."""

    def saturated(self: object, a: Any, b: Any, c: Any, *_: object) -> Any:
        exact = np.matmul(a.data, b.data, dtype=np.int64) + c.data
        return TensorHandle(np.clip(exact, -(1 << 31), (1 << 31) - 1).astype(np.int32), c.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", saturated)
    test_sums_of_i8_products_wrap()


# ---- reduce ----


def reduce_program(name: str, x: TensorType, axes: tuple[int, ...], out: Dtype | None = None) -> Program:
    g = ProgramBuilder()
    value = g.input("batch", "x", x)
    wanted = {"sum": out or Dtype[x.dtype.reg.name], "max": x.dtype, "min": x.dtype}.get(name, Dtype.i32)
    g.output("metric", "y", g.emit(ops.Reduce(ops.REDUCTIONS.index(name), axes, wanted), value)[0])
    return g.build()


@pytest.mark.parametrize("name", ops.REDUCTIONS)
@pytest.mark.parametrize("n", [0, 1, 3, 63, 64, 65, 2047, 2048, 2049, 4100])
def test_reductions_of_lanes_and_segments(name: str, n: int) -> None:
    if name != "sum" and n == 0:
        return
    program = reduce_program(name, TensorType(F, (3, n)), (1,))
    for special in (0.0, 0.01):
        check(program, random_inputs(program, n, special))


@pytest.mark.parametrize("name", ops.REDUCTIONS)
def test_segments_of_segments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three passes: segments are short in the definition and here."""
    monkeypatch.setattr(reference, "SUM_SEGMENT", 64)
    monkeypatch.setattr(triton_reduce, "SEGMENT", 64)
    program = reduce_program(name, TensorType(F, (64 * 64 + 1,)), (0,))
    check(program, random_inputs(program, 6, 0.01))


def test_a_sum_of_65_segments() -> None:
    program = reduce_program("sum", TensorType(F, (131_073,)), (0,))
    check(program, random_inputs(program, 5, 0.0), "cpu")


@pytest.mark.parametrize("name", ops.REDUCTIONS)
def test_reductions_of_zeros_and_nans(name: str) -> None:
    rows = [[0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0], [1.0, np.nan], [np.nan, 1.0], [-np.inf, -np.inf], [np.inf, np.nan]]
    x = np.array(rows, np.float32)
    x[3, 1] = np.uint32(0xFFFFFFFF).view(np.float32)
    check(reduce_program(name, TensorType(F, x.shape), (1,)), {"x": x})


@SLOW
@given(st.data())
def test_random_reductions(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(ops.REDUCTIONS))
    size = st.integers(0 if name == "sum" else 1, 9) | st.sampled_from([33, 64, 70])
    shape = tuple(data.draw(st.lists(size, min_size=1, max_size=3)))
    shape = shape[:1] if math.prod(shape) > 3000 else shape
    dtype = data.draw(st.sampled_from(NUMBERS))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    out = data.draw(st.sampled_from([d for d in NUMBERS if d.reg is dtype.reg])) if name == "sum" else None
    program = reduce_program(name, TensorType(dtype, shape), axes, out)
    check(program, random_inputs(program, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 0.2]))), "cpu")


# ---- gather, scatter_add, random, sort, scan ----


@SLOW
@given(
    dtype=st.sampled_from(list(Dtype)),
    out=st.sampled_from(list(Dtype)),
    rows=st.integers(0, 9),
    row=st.lists(st.integers(0, 20), max_size=2),
    index=st.lists(st.integers(0, 12), max_size=2),
    seed=st.integers(0, 99),
)
def test_rows_are_gathered_and_added_in_source_order(dtype, out, rows, row, index, seed) -> None:  # type: ignore[no-untyped-def]
    program = rows_program(dtype, out, rows, row, index)
    inputs = random_inputs(program, seed)
    if "where" in inputs:
        inputs["where"] = np.random.default_rng(seed).integers(-2, rows + 2, index).astype(np.int32)
    check(program, inputs)


def test_many_rows_on_one_target_are_added_in_order() -> None:
    g = ProgramBuilder()
    source, where = (
        g.input("batch", "source", TensorType(F, (700, 3))),
        g.input("batch", "where", TensorType(Dtype.i32, (700,))),
    )
    g.output("metric", "added", g.scatter_add(source, where, 5))
    rng = np.random.default_rng(3)
    inputs = {"source": random_tensor(rng, F, (700, 3), 0), "where": rng.integers(-1, 6, 700).astype(np.int32)}
    check(g.build(), inputs)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 4097])
def test_random_words_are_philox_at_the_element(count: int) -> None:
    g = ProgramBuilder()
    seed, step = (
        g.input("batch", "seed", TensorType(Dtype.u32, (2,))),
        g.input("scalar", "step", TensorType(Dtype.u32, ())),
    )
    for stream in (0, 1, 0xFFFFFFFF):
        g.output("metric", f"words{stream}", g.emit(ops.Random(stream, (count,)), seed, step)[0])
    check(g.build(), {"seed": np.array([0xFFFFFFFF, 7], np.uint32), "step": np.array(0x80000001, np.uint32)})


def test_philox_counts_beyond_32_bits() -> None:
    first, count = (1 << 32) - 2, 18
    seed, step, out = (
        torch.tensor([1, -2], dtype=torch.int32),
        torch.tensor([3], dtype=torch.int32),
        torch.zeros(18, dtype=torch.int32),
    )
    triton_random.random_kernel[(1,)](seed, step, out, 9, first, count, BLOCK=8)
    block = np.arange(first, first + 5, dtype=np.uint64)
    counter = (block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), np.full_like(block, 9), np.full_like(block, 3))
    wanted = np.stack(reference.philox(counter, (1, 0xFFFFFFFE)), -1).reshape(-1)[:count]
    np.testing.assert_array_equal(out.numpy().view(np.uint32), wanted)


@SLOW
@given(
    dtype=st.sampled_from(NUMBERS),
    lead=st.lists(st.integers(0, 3), max_size=2),
    row=st.integers(0, 70),
    few=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_are_sorted(dtype: Dtype, lead: list[int], row: int, few: bool, seed: int) -> None:
    shape = (*lead, row)
    rng = np.random.default_rng(seed)
    x = random_tensor(rng, dtype, shape)
    if few and x.size:  # many equal elements
        x = rng.choice(x.reshape(-1)[:5], shape)
    g = ProgramBuilder()
    g.output("metric", "order", g.sort(g.input("batch", "x", TensorType(dtype, shape))))
    check(g.build(), {"x": x}, "cpu")


@SLOW
@given(st.data())
def test_scans_carry_what_they_stored(data: st.DataObject) -> None:
    scalar = data.draw(scalar_programs(max_instructions=12).filter(can_be_scanned))
    carried = len(scalar.outputs)
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    dtypes = tuple(data.draw(storage(reg)) for reg in scalar.output_types)
    types = [TensorType(d, data.draw(broadcastable(shape[1:]))) for d in dtypes]
    types += [TensorType(data.draw(storage(reg)), data.draw(broadcastable(shape))) for reg in scalar.inputs[carried:]]
    inputs = tuple(Input("batch", f"x{n:02}", t) for n, t in enumerate(types))
    node = Node(ops.Scan(0, shape, dtypes), tuple(range(len(types))), tuple(TensorType(d, shape) for d in dtypes))
    outputs = tuple(Output("metric", f"y{n}", len(types) + n) for n in range(carried))
    program = Program(inputs, (scalar,), (node,), outputs)
    check(program, random_inputs(program, data.draw(st.integers(0, 99))))


def can_be_scanned(scalar: ScalarProgram) -> bool:
    return scalar.inputs[: len(scalar.outputs)] == scalar.output_types


def test_a_running_sum_carries_its_error() -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F, (40, 3)))
    zero = g.full((3,), 0.0)
    total, error = g.scan(lambda s, e, v: ((s + v), (e + (v - ((s + v) - s)))), [zero, zero], [x])
    narrow = g.scan(lambda s, v: s * 0.5 + v, [g.input("batch", "h", TensorType(Dtype.bf16, (3,)))], [x])[0]
    for name, v in (("total", total), ("error", error), ("narrow", narrow)):
        g.output("metric", name, v)
    program = g.build()
    check(program, random_inputs(program, 2, 0.0))


# ---- regions: several nodes as one kernel ----


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows a program as where there are many rows."""
    monkeypatch.setattr(triton_rows, "PROGRAMS", 1)


def launches(program: Program) -> int:
    return len(make(program, device="cpu")._machine._launches)


def check_rows(program: Program, inputs: dict[str, Array], definition: str = "reference") -> None:
    """Like `check`, of a program that has to be one kernel."""
    executor = make(program, device="cpu")
    assert [type(c) for c in executor._plan.calls] == [plan.Rows]
    assert len(executor._machine._launches) == 1
    check(program, inputs, definition)


def rows_inputs(program: Program, seed: int, special: float = 0.0) -> dict[str, Array]:
    """Everyday floats, and few special patterns: one NaN makes all of a long row NaN."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for i in program.inputs:
        x = random_tensor(rng, i.type.dtype, i.type.shape, 1.0)
        everyday = rng.standard_normal(i.type.shape).astype(np.float32)
        if i.type.dtype is Dtype.bf16:
            everyday = (everyday.view(np.uint32) >> 16).astype(np.uint16)
        inputs[i.name] = np.where(rng.random(i.type.shape) < special, x, everyday.astype(x.dtype))
    return inputs


def of_row(g: ProgramBuilder, name: str, x: Value, dtype: Dtype | None = None) -> Value:
    """A reduction over the last axis, as a column."""
    axis = len(x.shape) - 1
    wide = Dtype[x.dtype.reg.name] if name == "sum" else x.dtype
    return g.reshape(g.emit(ops.Reduce(ops.REDUCTIONS.index(name), (axis,), dtype or wide), x)[0], (*x.shape[:axis], 1))


def like_softmax(g: ProgramBuilder, x: Value, out: Dtype) -> Value:
    y = g.map(lambda a, b: (a - b) * 0.25 + 1.0, x, of_row(g, "max", x))
    return g.map(lambda a, b: a / b, y, of_row(g, "sum", y), dtype=out)


def like_layer_norm(g: ProgramBuilder, x: Value, out: Dtype) -> Value:
    scale = g.input("batch", "scale", TensorType(Dtype.bf16, x.shape[-1:]))
    mean = g.map(lambda a: a * (1.0 / x.shape[-1]), of_row(g, "sum", x))
    centred = g.map(lambda a, b: a - b, x, mean)
    norm = g.map(lambda a: 1.0 / (a + 1e-5).sqrt(), of_row(g, "sum", g.map(lambda a: a * a, centred)))
    g.output("metric", "norm", norm)
    return g.map(lambda a, b, c: a * b * c, centred, norm, scale, dtype=out)


def with_narrow_steps(g: ProgramBuilder, x: Value, out: Dtype) -> Value:
    """Each value is rounded to fewer bits before it is read."""
    y = g.map(lambda a, b: a - b, x, of_row(g, "min", x), dtype=Dtype.bf16)
    total = of_row(g, "sum", y, Dtype.f16)
    z = g.map(lambda a, b: a * 0.3 + b, y, total, dtype=Dtype.f16)
    sign, whole = g.maps(lambda a: (a < 0.0, a.abs().to(Reg.u32)), z, dtypes=(Dtype.boolean, Dtype.u8))
    count = of_row(g, "sum", whole)
    return g.map(lambda s, a, n: s.builder.select(s, a, n.to(Reg.f32)), sign, z, count, dtype=out)


@pytest.mark.parametrize("norm", [like_softmax, like_layer_norm, with_narrow_steps])
@pytest.mark.parametrize("shape", [(5, 1), (9, 10), (7, 64), (3, 3, 65), (4, 127), (2, 2048), (3, 2049)])
def test_rows(shape: tuple[int, ...], norm: Callable[[ProgramBuilder, Value, Dtype], Value], block: None) -> None:
    long = shape[-1] > 2000
    for dtype, out in ((F, F), (Dtype.bf16, Dtype.f16)):
        if long and (dtype is F) == (norm is with_narrow_steps):
            continue
        g = ProgramBuilder()
        g.output("metric", "y", norm(g, g.input("batch", "x", TensorType(dtype, shape)), out))
        program = g.build()
        for special in (0.3 / shape[-1],) if long else (0.0, 0.3 / shape[-1]):
            check_rows(program, rows_inputs(program, shape[-1], special))


def test_rows_that_have_a_program_each() -> None:
    g = ProgramBuilder()
    g.output("metric", "y", like_layer_norm(g, g.input("batch", "x", TensorType(F, (5, 70))), F))
    program = g.build()
    (launch,) = make(program, device="cpu")._machine._launches
    assert launch.programs == 5
    check_rows(program, rows_inputs(program, 1, 0.004))


def test_rows_beyond_31_bits_are_counted_in_64(block: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_map, "INT32_ELEMENTS", 0)
    g = ProgramBuilder()
    g.output("metric", "y", like_layer_norm(g, g.input("batch", "x", TensorType(F, (5, 70))), F))
    program = g.build()
    executor = make(program, device="cpu")
    (kernel,) = executor._machine._rows_kernels.values()
    assert "int64" in kernel.source
    check_rows(program, rows_inputs(program, 1))


def test_rows_of_segments_of_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three segments; with short ones, as many as there are lanes, and one more, for which there is no kernel."""
    for segment, length in ((triton_reduce.SEGMENT, 4100), (64, 4095), (64, 4097)):
        monkeypatch.setattr(reference, "SUM_SEGMENT", segment)
        monkeypatch.setattr(triton_reduce, "SEGMENT", segment)
        monkeypatch.setattr(triton_rows, "PROGRAMS", 1)
        g = ProgramBuilder()
        g.output("metric", "y", like_softmax(g, g.input("batch", "x", TensorType(F, (2, length))), F))
        program = g.build()
        assert (launches(program) == 1) == (length != 4097)
        check(program, rows_inputs(program, 1))


@pytest.mark.parametrize("dtype", [d for d in NUMBERS if d is not F])
def test_rows_of_views_and_integers(dtype: Dtype, block: None) -> None:
    """What lies outside is read strided, backwards and broadcast; one value of a row leads to another's store."""
    g = ProgramBuilder()
    x, y = (g.input("batch", n, TensorType(dtype, (6, 70))) for n in "xy")
    turned = g.permute(g.slice(x, (5, 3), (6, 65), (-1, 1)), (1, 0))
    reg = dtype.reg
    largest = g.map(lambda a, b: a.max(b), turned, g.permute(g.slice(y, (0, 5), (1, 65)), (1, 0)))
    for name in ("sum", "max", "min"):
        value = of_row(g, name, largest)
        g.output("metric", name, value)
        g.output("metric", f"{name}_with_all", g.map(lambda a, b: a * 3 + b.to(reg), value, largest))
    program = g.build()
    for seed in range(2):
        check_rows(program, random_inputs(program, seed), "cpu")


def test_rows_of_zeros_and_nans(block: None) -> None:
    """A NaN that an operation made, with any sign, is the canonical one when it is stored; -0 is the empty lane."""
    rows = [[0.0, -0.0], [0.0, 0.0], [-0.0, -0.0], [1.0, np.nan], [np.inf, -np.inf], [2e-45, -1e-45], [-3e38, -3e38]]
    x = np.array(rows, np.float32)
    x[3, 1] = np.uint32(0xFFFFFFFF).view(np.float32)
    g = ProgramBuilder()
    y = g.map(lambda a: -a, g.input("batch", "x", TensorType(F, x.shape)))
    for name in ("sum", "max", "min"):
        value = of_row(g, name, y)
        g.output("metric", name, value)
        g.output("metric", f"{name}_with_all", g.map(lambda a, b: a * b, y, value))
    check_rows(g.build(), {"x": x})


def test_rows_of_one_element_are_maps() -> None:
    """What is rounded in between keeps maps apart, but not kernels."""
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F, (3, 500)))
    y = g.map(lambda a: a * 0.7, x, dtype=Dtype.bf16)
    z = g.map(lambda a, b: a + b, g.reshape(y, (1500,)), g.reshape(x, (1500,)), dtype=Dtype.f16)
    g.output("metric", "z", z)
    g.output("metric", "last", g.map(lambda a: a * 3.0, z))
    check_rows(g.build(), random_inputs(g.build(), 2))


def test_rows_that_read_at_other_positions_run_call_by_call() -> None:
    """Halves swapped: then private values have memory, behind the rest."""
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F, (4, 90)))
    y = g.map(lambda a, b: a - b, x, of_row(g, "sum", x))
    turned = g.permute(g.reshape(y, (4, 2, 45)), (0, 2, 1))
    g.output("metric", "z", g.reduce("max", g.map(lambda a: a * 3.0, turned), (1, 2)))
    program = g.build()
    executor = make(program, device="cpu")
    (call,) = executor._plan.calls
    assert isinstance(call, plan.Rows)
    assert call.private
    assert len(executor._machine._launches) == len(call.calls)
    check(program, rows_inputs(program, 1, 0.01))


def test_values_that_are_dear_are_not_computed_again() -> None:
    """A long chain of operations is cheaper to store than to compute for every reduction of it."""
    g = ProgramBuilder()

    def dear(a: Scalar) -> Scalar:
        for _ in range(200):
            a = a * 0.5 + 1.0
        return a

    y = g.map(dear, g.input("batch", "x", TensorType(F, (4, 70))))
    for name in ("sum", "max"):
        y = g.map(lambda a, b: a * b, y, of_row(g, name, y))
    g.output("metric", "y", y)
    program = g.build()
    assert launches(program) > 1
    check(program, rows_inputs(program, 1, 0.01))


def with_ending(
    a: TensorType, b: TensorType, turned: tuple[bool, bool], out: Dtype, also: tuple[str, ...] = ()
) -> Program:
    """A dot, its bias, what is done with both, and a mask; `also` names values that are read outside."""
    g = ProgramBuilder()
    c = g.dot(g.input("batch", "a", a), g.input("batch", "b", b), *turned)
    bias, scale = (
        g.input("batch", "bias", TensorType(Dtype.bf16, c.shape[-1:])),
        g.input("batch", "s", TensorType(F, ())),
    )
    biased = g.map(lambda a, b: a + b, c, bias)
    flat = g.reshape(biased, (c.type.elements,))
    mask, last = g.maps(
        lambda a, s: (a < 0.0, a.builder.select(a < 0.0, a * s, a * a)), flat, scale, dtypes=(Dtype.boolean, out)
    )
    g.output("metric", "mask", mask)
    for name, value in (("c", c), ("biased", biased), ("last", last)):
        if name in (*also, "last"):
            g.output("metric", name, value)
    return g.build()


@pytest.mark.parametrize(
    ("m", "n", "k", "batch"), [(1, 1, 5, ()), (5, 70, 40, ()), (70, 66, 129, ()), (20, 12, 0, (3,))]
)
def test_dot_with_maps_behind_it(m: int, n: int, k: int, batch: tuple[int, ...]) -> None:
    for dtype, turned, out, also in (
        (F, (False, False), F, ()),
        (Dtype.bf16, (True, False), Dtype.f16, ("c",)),
        (Dtype.f16, (False, True), Dtype.bf16, ("c", "biased")),
    ):
        a = TensorType(dtype, (*batch, *((k, m) if turned[0] else (m, k))))
        b = TensorType(dtype, (*batch, *((n, k) if turned[1] else (k, n))))
        program = with_ending(a, b, turned, out, also)
        executor = make(program, device="cpu")
        assert [type(c) for c in executor._plan.calls] == [plan.Epilogue]
        assert len(executor._machine._launches) == 1
        check(program, random_inputs(program, k, 0.02))


@settings(SLOW, max_examples=30)
@given(st.data())
def test_random_rows(data: st.DataObject) -> None:
    g = ProgramBuilder()
    rows, length = data.draw(st.integers(2, 11)), data.draw(st.integers(1, 9) | st.sampled_from([64, 70, 130]))
    values = [g.input("batch", n, TensorType(F, s)) for n, s in (("x", (rows, length)), ("y", (length,)))]
    for _ in range(data.draw(st.integers(2, 8))):
        a, b = (data.draw(st.sampled_from(values)) for _ in range(2))
        out = data.draw(st.sampled_from(FLOATS))
        if a.shape == (rows, length) and data.draw(st.booleans()):
            values.append(of_row(g, data.draw(st.sampled_from(["sum", "max", "min"])), a))
        else:
            values.append(g.map(lambda a, b: a * 0.5 - b, a, b, dtype=out))
    kept = data.draw(st.sets(st.sampled_from(values[2:]), min_size=1)) | {values[-1]}
    for n, v in enumerate(values):
        if v in kept:
            g.output("metric", f"y{n}", v)
    program = g.build()
    check(program, rows_inputs(program, data.draw(st.integers(0, 99)), 0.02))


@SLOW
@given(chains())
def test_random_maps_of_each_others_values(program: Program) -> None:
    """Regions without reductions, some of which read what another map computed at another position."""
    check(program, random_inputs(program))


# ---- programs and steps ----


@SLOW
@given(row_graphs())
def test_random_graphs_of_rows(program: Program) -> None:
    check(program, random_inputs(program, 2, 0.05))


@settings(SLOW, max_examples=80)
@given(programs())
def test_random_programs_give_the_values_of_the_reference(program: Program) -> None:
    inputs = random_inputs(program, 1, 0.05)
    roles = {role: {n: inputs[n] for n in program.inputs_of(role)} for role in ("batch", "scalar")}
    wanted = reference.Executor(program)
    wanted.load({})
    metrics = wanted.step(roles["batch"], roles["scalar"])
    for options in ({}, {"fuse": False}, {"keep": True}):
        executor = make(program, device="cpu", **options)
        executor.load({})
        assert_same_bits(executor.step(roles["batch"], roles["scalar"]), metrics, f"triton, {options}")
        if "keep" in options:
            for v, value in enumerate(wanted.values):
                assert_same_bits({"value": executor.value(v)}, {"value": value}, f"value {v}")


@pytest.mark.parametrize("options", [{}, {"fuse": False}, {"keep": True}], ids=str)
def test_a_state_is_updated_in_place_swapped_and_turned(options: dict[str, bool]) -> None:
    program = two_layer_step()
    executor, wanted = make(program, device="cpu", **options), backends.make("reference", program)
    state = inputs_of(program, "state", 0)
    executor.load(state)
    wanted.load(state)
    for i in range(3):
        batch, scalars = inputs_of(program, "batch", i), {"lr": np.float32(0.01)}
        assert_same_bits(executor.step(batch, scalars), wanted.step(batch, scalars), f"metrics of step {i}")
        assert_same_bits(executor.state(), wanted.state(), f"state after step {i}")
    assert executor.state_roots() == {n: _native.blake3_root(a.tobytes()) for n, a in wanted.state().items()}


def test_training_steps_of_a_network_have_the_bits_of_the_cpu() -> None:
    from gensyn_verify.frontend import compile

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.GELU(), torch.nn.LayerNorm(9), torch.nn.Linear(9, 4))
    step = compile(model, torch.nn.functional.cross_entropy, torch.optim.AdamW(model.parameters(), lr=0.01))
    batches = [(torch.randn(6, 5), torch.randint(0, 4, (6,))) for _ in range(3)]
    captured = step.prepare(batches[0])
    executor = make(captured.program, device="cpu")
    executor.load(captured.state)
    steps = 0

    def compare(_: int, batch: dict, scalars: dict, state: dict, metrics: dict) -> None:  # type: ignore[type-arg]
        nonlocal steps
        assert_same_bits(executor.step(batch, scalars), metrics, f"metrics of step {steps}")
        assert_same_bits(executor.state(), state, f"state after step {steps}")
        roots = {name: _native.blake3_root(np.ascontiguousarray(a)) for name, a in state.items()}
        assert executor.state_roots() == roots
        steps += 1

    step.listeners.append(compare)
    for batch in batches:
        step(batch)
    assert steps == 3


@pytest.mark.parametrize("nbytes", [0, 1, 64, 65, 1025, 3 * 1024 + 2])
def test_roots_are_blake3_at_any_length_and_alignment(nbytes: int) -> None:
    x = np.random.default_rng(nbytes).integers(0, 256, nbytes + 9, np.uint8)
    g = ProgramBuilder()
    g.output("state", "x", g.input("state", "x", TensorType(Dtype.u8, x.shape)))
    executor = make(g.build(), device="cpu")
    executor.load({"x": x})
    begin = executor._states["x"].offset + nbytes % 2  # words lie across its own
    found = executor._machine.device_roots([(begin, begin + nbytes)])
    assert found == [_native.blake3_root(x[nbytes % 2 :][:nbytes].tobytes())]


def test_a_device_that_is_not_there_is_an_error() -> None:
    program = dot_program(1, 1, 1)
    with pytest.raises(BackendError, match="TRITON_INTERPRET"):
        make(program, device="cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        with pytest.raises(BackendError, match="interpreter is off"):
            make(program, device="cpu")


def test_flat_maps_of_all_sizes_are_one_kernel() -> None:
    assert plan.collapse((3, 1, 4), [(4, 4, 1), (8, 0, 2)]) == ((12,), [(1,), (2,)])
    assert plan.collapse((3, 4), [(4, 1), (0, 1)]) == ((3, 4), [(4, 1), (0, 1)])
    assert plan.collapse((1, 1), [(7, 7)]) == ((1,), [(0,)])
    assert math.prod(plan.collapse((2, 3, 5), [(15, 5, 1), (1, 2, 6)])[0]) == 30

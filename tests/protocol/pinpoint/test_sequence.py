"""Sequences: the last result is the backend's element, and every operation gives its result from its operands."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import LAYOUTS, programs, random_tensor, scalar_programs, storage

from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.errors import MalformedError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Input, Node, Output, Program
from gensyn_verify.program.scalar import ScalarBuilder, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, TensorType
from gensyn_verify.protocol.pinpoint.sequence import NOWHERE, RANK, Sequence, Source, sequence, stored_bits
from gensyn_verify.protocol.sampler import Sampler

FLOATS = (Dtype.f32, Dtype.bf16, Dtype.f16)
INPUTS = ("batch", "scalar")
NUMBERS = [d for d in Dtype if d is not Dtype.boolean]


def check(sequence: Sequence, tensors: list[Array], wanted: int, rng: np.random.Generator, most: int = 400) -> None:
    """The last result is `wanted`; operations, all or some, give what `results` says, from operands before them."""
    flat = [stored_bits(t) for t in tensors]
    results = sequence.results(flat)
    assert results.shape == (sequence.length,)
    assert int(results[-1]) == wanted
    chosen = range(sequence.length)
    if sequence.length > most:
        chosen = sorted({0, 1, sequence.length - 1, *rng.integers(0, sequence.length, most).tolist()})
    for t in chosen:
        operands = sequence.operands(t, flat, results[:t])  # a later result would be an IndexError
        assert sequence.execute(t, sequence.operation(t, operands).code, operands) == int(results[t]), t


def check_node(
    op: ops.Op,
    tensors: list[Array],
    dtypes: list[Dtype],
    rng: np.random.Generator,
    scalar: ScalarProgram | None = None,
    elements: int = 4,
) -> None:
    """Run one node on the reference backend and check some of its elements, of every output."""
    reads = [TensorType(d, t.shape) for d, t in zip(dtypes, tensors, strict=True)]
    scalars = (scalar,) if scalar else ()
    types = op.infer(reads, scalars)
    node = Node(op, tuple(range(len(reads))), types)
    program = Program(
        tuple(Input("batch", f"i{n:02}", t) for n, t in enumerate(reads)),
        scalars,
        (node,),
        tuple(Output("metric", f"o{n:02}", len(reads) + n) for n in range(len(types))),
    )
    outputs = reference.run_node(program, node, tensors, dtypes)
    for n, (out, type) in enumerate(zip(outputs, types, strict=True)):
        bits = stored_bits(np.asarray(out, CARRIER[type.dtype], order="C"))
        for e in sorted({0, len(bits) - 1, *rng.integers(0, max(len(bits), 1), elements).tolist()}):
            if e in range(len(bits)):
                wanted = int(bits[e])
                check(sequence(op, reads, type, scalar, n, e, wanted), tensors, wanted, rng)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(programs(), st.integers(0, 1 << 32))
def test_every_node_of_random_programs(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    executor = reference.Executor(program)
    given = {r: {n: random_tensor(rng, t.dtype, t.shape) for n, t in program.inputs_of(r).items()} for r in INPUTS}
    executor.load({})
    executor.step(given["batch"], given["scalar"])
    for node, first in zip(program.nodes, program.first_value, strict=True):
        tensors = [executor.values[v] for v in node.inputs]
        reads = [program.value_types[v] for v in node.inputs]
        scalar = program.scalar_programs[node.op.program] if isinstance(node.op, ops.Map | ops.Scan) else None
        for n, type in enumerate(node.types):
            bits = stored_bits(executor.values[first + n])
            for e in rng.integers(0, len(bits), 2 if len(bits) else 0).tolist():
                wanted = int(bits[e])
                check(sequence(node.op, reads, type, scalar, n, e, wanted), tensors, wanted, rng)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(scalar_programs(), st.data())
def test_map(scalar: ScalarProgram, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    dtypes = [data.draw(storage(r)) for r in scalar.inputs]
    shapes = [data.draw(st.sampled_from([(3, 4), (4,), (3, 1), (1,), ()])) for _ in dtypes]
    op = ops.Map(0, (2, 3, 4), tuple(data.draw(storage(r)) for r in scalar.output_types))
    check_node(op, [random_tensor(rng, d, s) for d, s in zip(dtypes, shapes, strict=True)], dtypes, rng, scalar)


@pytest.mark.parametrize("k", [0, 1, 2, 128, 192, 193, 256, 320, 321, 769])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dot(k: int, dtype: Dtype, rng: np.random.Generator) -> None:
    for a, b, batch_a, batch_b in ((0, 0, (), ()), (1, 0, (2,), ()), (0, 1, (), (2,)), (1, 1, (2, 2), (2, 2))):
        x = random_tensor(rng, dtype, (*batch_a, *((k, 3) if a else (3, k))), special=0.02)
        y = random_tensor(rng, Dtype.f32, (*batch_b, *((2, k) if b else (k, 2))), special=0.02)
        check_node(ops.Dot(bool(a), bool(b), dtype), [x, y], [dtype, Dtype.f32], rng)


@pytest.mark.parametrize("k", [0, 1, 2, 128, 192, 193, 256, 320, 321, 769])
def test_dot_of_i8(k: int, rng: np.random.Generator) -> None:
    for a, b, batch_a, batch_b in ((0, 0, (), ()), (1, 0, (2,), ()), (0, 1, (), (2,)), (1, 1, (2, 2), (2, 2))):
        x = random_tensor(rng, Dtype.i8, (*batch_a, *((k, 3) if a else (3, k))))
        y = random_tensor(rng, Dtype.i8, (*batch_b, *((2, k) if b else (k, 2))))
        check_node(ops.Dot(bool(a), bool(b), Dtype.i32), [x, y], [Dtype.i8] * 2, rng)


def test_a_dot_of_i8_goes_around() -> None:
    """2^17 products of -128 by -128 are 2^31: -2^31 in i32."""
    n, i8 = 2**17, Dtype.i8
    reads, out = [TensorType(i8, (1, n)), TensorType(i8, (n, 1))], TensorType(Dtype.i32, (1, 1))
    s = sequence(ops.Dot(False, False, Dtype.i32), reads, out)
    results = s.results([stored_bits(np.full(n, -128, np.int8))] * 2)
    assert results[:3].tolist() == [1 << 14, 2 << 14, 3 << 14]
    assert results[-1] == 1 << 31
    minus_one, code = 0xFFFFFFFF, s.operation(0).code
    assert s.execute(0, code, (minus_one, 5, 3)) == 0xFFFFFFFE
    assert s.execute(0, code, (minus_one, minus_one, 0x7FFFFFFF)) == 0x80000000


@pytest.mark.parametrize("name", ops.REDUCTIONS)
@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 130, 2047, 2048, 2049, 4100])
def test_reduce(name: str, n: int, rng: np.random.Generator) -> None:
    if n == 0 and name != "sum":
        return
    for dtype in NUMBERS:
        out = Dtype.i32 if name.startswith("arg") else dtype
        x = random_tensor(rng, dtype, (2, n), special=rng.choice([0, 0.01, 0.3]))
        check_node(ops.Reduce(ops.REDUCTIONS.index(name), (1,), out), [x], [dtype], rng, elements=1)


def test_reduce_of_several_axes_and_of_three_levels(rng: np.random.Generator) -> None:
    x = random_tensor(rng, Dtype.f32, (3, 4, 5, 6), special=0.02)
    for axes in ((0, 2), (1, 3), (0, 1, 2, 3), ()):
        for op, out in enumerate([Dtype.f32] * 3 + [Dtype.i32] * 2):
            check_node(ops.Reduce(op, axes, out), [x], [Dtype.f32], rng)
    long = random_tensor(rng, Dtype.f32, (2048 * 2048 + 5,), special=0)
    check_node(ops.Reduce(0, (0,), Dtype.f32), [long], [Dtype.f32], rng)


@pytest.mark.parametrize("dtype", Dtype)
def test_layout(dtype: Dtype, rng: np.random.Generator) -> None:
    x, y = random_tensor(rng, dtype, (3, 4, 5)), random_tensor(rng, dtype, (3, 2, 5))
    for op in (*LAYOUTS, ops.Window((2,), (1,), (3,))):
        check_node(op, [x], [dtype], rng, elements=20)
    check_node(ops.Broadcast((3, 4, 5)), [x[:, :1]], [dtype], rng, elements=20)
    check_node(ops.Concat(1), [x, y[:, :0], y], [dtype] * 3, rng, elements=20)


@pytest.mark.parametrize("dtype", Dtype)
def test_gather_and_scatter_add(dtype: Dtype, rng: np.random.Generator) -> None:
    index = rng.integers(-2, 8, (3, 5)).astype(np.int32)
    check_node(ops.Gather(), [random_tensor(rng, dtype, (6, 2, 3)), index], [dtype, Dtype.i32], rng, elements=20)
    if dtype is not Dtype.boolean:
        for rows in (6, 1):
            source = random_tensor(rng, dtype, (3, 5, 2), special=0.05)
            check_node(ops.ScatterAdd(rows, dtype), [source, index], [dtype, Dtype.i32], rng)
        check_node(ops.ScatterAdd(2, dtype), [source[:0], index[:0]], [dtype, Dtype.i32], rng)


def test_random(rng: np.random.Generator) -> None:
    seed = random_tensor(rng, Dtype.u32, (2,))
    check_node(ops.Random(7, (5, 3)), [seed, np.array(9, np.uint32)], [Dtype.u32] * 2, rng, elements=20)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("n", [1, 2, 9, 70])
def test_sort(dtype: Dtype, n: int, rng: np.random.Generator) -> None:
    x = random_tensor(rng, dtype, (3, n), special=0.6)
    x[1] = x[1, 0]  # all equal
    check_node(ops.Sort(), [x], [dtype], rng, elements=10)


def test_a_wrong_position_of_a_sort_ranks_nowhere_and_one_outside_has_no_sequence() -> None:
    x, type = np.array([3.0, 1.0, np.nan, 1.0], np.float32), TensorType(Dtype.f32, (4,))
    for place, right in enumerate([1, 3, 0, 2]):
        for w in range(4):
            s = sequence(ops.Sort(), [type], TensorType(Dtype.i32, (4,)), element=place, value=w)
            assert s.operation(s.length - 1).code == RANK
            assert int(s.results([stored_bits(x)])[-1]) == (w if w == right else NOWHERE)
        with pytest.raises(MalformedError, match="row of 4"):
            sequence(ops.Sort(), [type], TensorType(Dtype.i32, (4,)), element=place, value=4)


@pytest.mark.parametrize("dtype", Dtype)
def test_scan(dtype: Dtype, rng: np.random.Generator) -> None:
    b = ScalarBuilder()
    carried, second, x = b.input(dtype.reg), b.input(Reg.f32), b.input(dtype.reg)
    step = x if dtype is Dtype.boolean else carried + x
    scalar = b.build(step, b.select(step.equals(x) if dtype is not Dtype.boolean else step, second * 1.5, second))
    tensors = [random_tensor(rng, dtype, (3,)), random_tensor(rng, Dtype.bf16, ()), random_tensor(rng, dtype, (5, 1))]
    op = ops.Scan(0, (5, 3), (dtype, Dtype.bf16))
    check_node(op, tensors, [dtype, Dtype.bf16, dtype], rng, scalar, elements=15)


def test_sources(rng: np.random.Generator) -> None:
    sampler = Sampler((3, 4), rows=23, batch=5)
    for dtype in Dtype:
        data = random_tensor(rng, dtype, (23, 2, 3))
        type = TensorType(dtype, (5, 2, 3))
        source = Source("batch", 23, sampler.seed, 5)
        schedule = random_tensor(rng, dtype, (11, 2))
        for step in (0, 3, 10):
            batch = stored_bits(data[sampler.indices(step)])
            for e in (0, 7, 29):
                s = sequence(source, [TensorType(dtype, data.shape)], type, element=e, step=step)
                check(s, [data], int(batch[e]), rng)
            s = sequence(
                Source("scalar", 11, (0, 0), 0), [TensorType(dtype, schedule.shape)], TensorType(dtype, (2,)),
                element=1, step=step,
            )  # fmt: skip
            check(s, [schedule], int(stored_bits(schedule)[2 * step + 1]), rng)


def test_sequences_of_65536_steps(rng: np.random.Generator) -> None:
    n = 65_536
    f32, i32 = Dtype.f32, Dtype.i32
    x, y = random_tensor(rng, f32, (1, n), 0.0), random_tensor(rng, f32, (n, 1), 0.0)
    index = rng.integers(0, 9, n).astype(np.int32)
    check_node(ops.Dot(False, False, f32), [x, y], [f32, f32], rng)
    for op in range(5):
        check_node(ops.Reduce(op, (1,), f32 if op < 3 else i32), [x], [f32], rng)
    check_node(ops.ScatterAdd(9, f32), [y, index], [f32, i32], rng)

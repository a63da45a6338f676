"""Backend cuda against the CPU backend, bit for bit, on the stand-in driver (tests/emulation): no GPU is needed.

Kernels run as csrc/cuda compiled for the host under several schedules of threads, and, where the package was built with
nvcc, as the PTX that ships. Python's launches, graphs and streams are the real ones.
"""

from __future__ import annotations

import itertools
import json
import os
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulation.fixtures import emulated, has_ptx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import assert_same_bits
from strategies import chains, kept_bytes, programs, random_inputs, random_tensor, row_graphs

from gensyn_verify import _native, backends
from gensyn_verify.backends import cuda
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.backends.cuda import driver, launch
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.device.fuse import fuse_maps, maps_behind_dots, prepared
from gensyn_verify.backends.device.plan import Dot, Epilogue, Plan, Rows, make_plan
from gensyn_verify.backends.device.pointers import DeviceTensor
from gensyn_verify.errors import BackendError, LimitError, MalformedError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Program, ProgramBuilder, Value
from gensyn_verify.program.types import Dtype, TensorType

f32, bf16, f16, i32, u32, u8, boolean, i8 = Dtype
# Seed of the schedule, compute capability, PTX or compiled for the host, multiprocessors. `make test-cuda` takes all.
WAYS: dict[str, tuple[int, int, bool, int]] = {
    "ascending": (0, 90, False, 4),
    "descending": (1, 80, False, 1),
    "shuffled": (2, 75, False, 64),
    "shuffled-at-once": (3, 86, False, 4),
    "ptx-sm90": (4, 90, True, 4),
    "ptx-sm75": (5, 75, True, 1),
    "ptx-sm120": (7, 120, True, 4),
}
if os.environ.get("GENSYN_VERIFY_CUDA_WAYS") != "all":
    WAYS = {name: WAYS[name] for name in ("descending", "shuffled", "shuffled-at-once", "ptx-sm90")}
settings.register_profile("emulation", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    seed, capability, ptx, processors = WAYS[request.param]
    if ptx and not has_ptx():
        pytest.skip("the package was built without nvcc")
    with emulated(tmp_path / "stubs", seed, capability, ptx, processors):
        yield request.param


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[None]:
    with emulated(tmp_path / "stubs"):
        yield


def check(program: Program, inputs: dict[str, Array] | None = None, **options: Any) -> None:
    inputs = random_inputs(program) if inputs is None else inputs
    wanted = backends.evaluate(program, inputs)
    found = backends.evaluate(program, inputs, lambda p: cuda.make(p, **options))
    assert_same_bits(found, wanted, "cuda")


def one(op: ops.Op, *types: TensorType) -> Program:
    """A program of one node over batch inputs."""
    g = ProgramBuilder()
    out = g.emit(op, *(g.input("batch", f"x{i}", t) for i, t in enumerate(types)))
    for i, v in enumerate(out):
        g.output("metric", f"y{i}", v)
    return g.build()


def random_indices(rng: np.random.Generator, count: int, rows: int) -> Array:
    return rng.integers(-2, rows + 2, count).astype(np.int32)


# ---- every kind


@pytest.mark.parametrize("k", [0, 1, 7, 8, 127, 128, 129, 192, 193, 256, 257, 320, 321, 769])
def test_dot_over_every_end_of_a_block(way: str, k: int) -> None:
    check(one(ops.Dot(False, False, f32), TensorType(f32, (33, k)), TensorType(f32, (k, 70))))


@pytest.mark.parametrize("transposed", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(
    "shape", [(1, 1, 5), (5, 130, 24), (64, 64, 64), (129, 65, 130), (131, 260, 200), (300, 3, 450)]
)
def test_dot_shapes(way: str, shape: tuple[int, int, int], transposed: tuple[bool, bool]) -> None:
    m, n, k = shape
    a, b = TensorType(f32, (k, m) if transposed[0] else (m, k)), TensorType(f32, (n, k) if transposed[1] else (k, n))
    check(one(ops.Dot(*transposed, f32), a, b))


@pytest.mark.parametrize(
    "dtypes", [(bf16, bf16, f32), (f16, f16, f16), (bf16, bf16, bf16), (f32, bf16, f32), (f16, f32, bf16)]
)
def test_dot_of_narrow_storage(way: str, dtypes: tuple[Dtype, Dtype, Dtype]) -> None:
    a, b, c = dtypes
    check(one(ops.Dot(False, True, c), TensorType(a, (3, 20, 200)), TensorType(b, (3, 18, 200))))
    check(one(ops.Dot(True, False, c), TensorType(a, (200, 66)), TensorType(b, (200, 66))))


@pytest.mark.parametrize("batched", [(True, True), (True, False), (False, True)])
def test_dot_of_a_batch(way: str, batched: tuple[bool, bool]) -> None:
    a, b = (TensorType(f32, ((5, *s) if many else s)) for s, many in zip(((17, 30), (30, 9)), batched, strict=True))
    check(one(ops.Dot(False, False, f32), a, b))


INT8_SHAPES = [
    (1, 1, 0), (3, 2, 1), (5, 7, 3), (64, 64, 4), (65, 1, 5), (2, 130, 63), (129, 66, 64), (40, 200, 129),
    (30, 9, 1000),
]  # fmt: skip


def int8(m: int, n: int, k: int, transposed: tuple[bool, bool] = (False, False)) -> tuple[TensorType, TensorType]:
    return TensorType(i8, (k, m) if transposed[0] else (m, k)), TensorType(i8, (n, k) if transposed[1] else (k, n))


@pytest.mark.parametrize("transposed", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("shape", INT8_SHAPES)
def test_dot_of_int8(way: str, shape: tuple[int, int, int], transposed: tuple[bool, bool]) -> None:
    """Ragged in every axis: rows that begin at whole words and rows that do not, words that k ends within."""
    check(one(ops.Dot(*transposed, i32), *int8(*shape, transposed)))


SIDES = st.integers(1, 200)


@settings(settings.get_profile("emulation"), max_examples=20)
@given(shape=st.tuples(SIDES, SIDES, SIDES), transposed=st.tuples(st.booleans(), st.booleans()))
def test_random_dots_of_int8(way: str, shape: tuple[int, int, int], transposed: tuple[bool, bool]) -> None:
    check(one(ops.Dot(*transposed, i32), *int8(*shape, transposed)))


@pytest.mark.parametrize("batched", [(True, True), (True, False), (False, True)])
def test_dot_of_int8_in_a_batch(way: str, batched: tuple[bool, bool]) -> None:
    """Matrices of 21 and of 32 bytes: every other one begins within a word, or none does."""
    for m, n, k in ((3, 5, 7), (4, 4, 8)):
        a, b = (
            TensorType(i8, ((5, *t.shape) if many else t.shape)) for t, many in zip(int8(m, n, k), batched, strict=True)
        )
        check(one(ops.Dot(False, False, i32), a, b))


@pytest.mark.parametrize(("dtype", "out"), [(bf16, f16), (i8, i32)])
def test_dot_of_more_matrices_than_a_grid_has(
    standin: None, monkeypatch: pytest.MonkeyPatch, dtype: Dtype, out: Dtype
) -> None:
    monkeypatch.setattr(launch, "_GRID_Z", 2)
    check(one(ops.Dot(False, True, out), TensorType(dtype, (5, 3, 7)), TensorType(dtype, (5, 2, 7))))
    check(one(ops.Dot(False, True, out), TensorType(dtype, (5, 3, 7)), TensorType(dtype, (2, 7))))


def test_dot_of_int8_that_begins_within_a_word(way: str) -> None:
    """Rows of whole words, of a matrix that is a view of a longer tensor."""
    g = ProgramBuilder()
    for name, m, n, k in (("along_k", 9, 5, 16), ("along_rows", 8, 12, 6)):
        a, b = (g.input("batch", f"{name}{i}", TensorType(i8, (rows * k + 3,))) for i, rows in enumerate((m, n)))
        a, b = g.slice(a, (3,), (m * k,)), g.slice(b, (3,), (n * k,))
        turned = name == "along_rows"
        a, b = g.reshape(a, (k, m) if turned else (m, k)), g.reshape(b, (k, n) if turned else (n, k))
        g.output("metric", name, g.dot(a, b, turned, not turned, i32))
    program = g.build()
    assert [c.a % 4 for c in planned(program).calls if isinstance(c, Dot)] == [3, 3]
    check(program)


def test_dot_of_int8_wraps(way: str) -> None:
    """(-128)^2 more than 2^17 times is beyond i32; 127 * -128 in between, so that no sign is taken for another."""
    k = (1 << 17) + 5
    a, b = np.full((1, k), -128, np.int8), np.full((k, 2), -128, np.int8)
    b[:, 1] = 127
    check(one(ops.Dot(False, False, i32), *int8(1, 2, k)), {"x0": a, "x1": b})
    assert np.int64(k) * 128 * 128 > np.iinfo(np.int32).max


def test_int8_is_stored_and_loaded_with_its_sign(way: str) -> None:
    """Maps, moves, a scan whose carry is cut to 8 bits at every position, and a map behind a dot."""
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(i8, (40, 70)))
    g.output("metric", "wide", g.map(lambda a: a * 3 - 200, x, dtype=i32))
    g.output("metric", "narrow", g.map(lambda a: a * 3 - 200, x, dtype=i8))
    g.output("metric", "turned", g.reshape(g.permute(x, (1, 0)), (2800,)))
    first, rows = g.slice(x, (0, 0), (1, 70)), g.reshape(x, (40, 1, 70))
    g.output("metric", "scan", g.scan(lambda c, v: (c >> 1) + v, [first], [rows])[0])
    g.output("metric", "behind", g.map(lambda c: c + 1, g.dot(x, x, transpose_b=True, dtype=i32)))
    check(g.build())


@pytest.mark.parametrize("name", ops.REDUCTIONS)
@pytest.mark.parametrize("shape", [(3, 1), (2, 64), (5, 65), (1, 2048), (3, 2049), (2, 6000), (40, 37)])
@pytest.mark.parametrize("axis", [0, 1])
def test_reduce(way: str, name: str, shape: tuple[int, int], axis: int) -> None:
    for dtype in (f32, i32) if max(shape) < 2048 else (f32,):
        g = ProgramBuilder()
        g.output("metric", "y", g.reduce(name, g.input("batch", "x", TensorType(dtype, shape)), {axis}))
        check(g.build())


def test_reduce_of_narrow_storage_and_of_many_axes(way: str) -> None:
    for dtype in (bf16, f16, u32, u8, i8):
        g = ProgramBuilder()
        x = g.input("batch", "x", TensorType(dtype, (4, 33, 5, 6)))
        for name, axes in (("sum", {0, 2}), ("max", {1}), ("argmin", {1, 3}), ("sum", {0, 1, 2, 3})):
            g.output("metric", f"{name}{len(axes)}", g.reduce(name, x, axes))
        check(g.build())


def test_empty_sums(way: str) -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(f32, (40, 0)))
    g.output("metric", "rows", g.reduce("sum", x, {1}))
    g.output("metric", "columns", g.reduce("sum", x, {0}))
    check(g.build())


def test_sum_of_three_levels(way: str) -> None:
    if "ptx" in way:
        pytest.skip("4 million elements, instruction by instruction")
    g = ProgramBuilder()
    g.output("metric", "y", g.reduce("sum", g.input("batch", "x", TensorType(f32, (2048 * 2048 + 70,))), {0}))
    rng = np.random.default_rng(0)
    check(g.build(), {"x": rng.standard_normal(2048 * 2048 + 70).astype(np.float32)})


def test_layouts_that_move_bytes(way: str) -> None:
    g = ProgramBuilder()
    for name, dtype in (("a", f32), ("b", bf16), ("c", u8)):
        x = g.input("batch", name, TensorType(dtype, (3, 40, 70)))
        moved = g.emit(ops.Permute((0, 2, 1)), x)[0]
        g.output("metric", f"{name}0", g.emit(ops.Reshape((3 * 70 * 40,)), moved)[0])
        moved = g.emit(ops.Permute((2, 1, 0)), x)[0]
        g.output("metric", f"{name}1", g.emit(ops.Reshape((70, 120)), moved)[0])
        g.output("metric", f"{name}2", g.emit(ops.Pad((1, 0, 2), (0, 3, 1), (0, 1, 2), 3), x)[0])
        g.output("metric", f"{name}3", g.emit(ops.Concat(1), x, x)[0])
        windows = g.emit(ops.Window((3, 3), (2, 1), (1, 2)), x)[0]
        g.output("metric", f"{name}4", g.emit(ops.Reshape((windows.type.elements,)), windows)[0])
    check(g.build())


def test_gather_and_scatter_add(way: str) -> None:
    rng = np.random.default_rng(3)
    for dtype, count, row in ((f32, 100, 7), (f32, 3000, 2), (bf16, 50, 3), (i32, 64, 1), (u8, 9, 4), (i8, 70, 4)):
        data, index = TensorType(dtype, (20, row)), TensorType(i32, (count,))
        program = one(ops.Gather(), data, index)
        check(program, {"x0": random_tensor(rng, dtype, (20, row)), "x1": random_indices(rng, count, 20)})
        source = TensorType(dtype, (count, row))
        program = one(ops.ScatterAdd(20, dtype), source, index)
        check(program, {"x0": random_tensor(rng, dtype, (count, row)), "x1": random_indices(rng, count, 20)})


@pytest.mark.parametrize("dtype", [f32, bf16, f16, i32, u32, u8, i8])
def test_sort(way: str, dtype: Dtype) -> None:
    for shape in ((3, 40), (100, 33), (5, 1), (2000, 2), (1, 2048)):
        check(one(ops.Sort(), TensorType(dtype, shape)))
    if dtype is f32:
        check(one(ops.Sort(), TensorType(dtype, (2, 5000))))


def test_random(way: str) -> None:
    g = ProgramBuilder()
    seed, step = g.input("batch", "seed", TensorType(u32, (2,))), g.input("batch", "step", TensorType(u32, ()))
    for n, shape in enumerate([(1,), (3, 5), (1000,)]):
        g.output("metric", f"y{n}", g.emit(ops.Random(n, shape), seed, step)[0])
    check(g.build())


def test_random_counters_above_32_bits(way: str) -> None:
    """The kernel by itself, at blocks around 2^32, against Philox as the reference writes it."""
    from gensyn_verify.backends.cuda import kernels
    from gensyn_verify.backends.reference import philox

    device = driver.device()
    with device.current():
        stream, count, first = driver.Stream(), 4 * 64, (1 << 32) - 32
        memory = driver.Memory(1 << 12)
        stream.write(memory.address, np.array([7, 8, 9], "<u4").view(np.uint8))
        words = launch._words(memory.address, memory.address + 8, memory.address + 64, 5, first, count)
        function = driver.Module(kernels.text("random", device.capability), "random").function("gv_random")
        stream.launch(function, (1, 1, 1), 256, 0, [words])
        found = stream.read(memory.address + 64, 4 * count).view("<u4")
    blocks = np.arange(first, first + 64, dtype=np.uint64)
    counter = (
        blocks & np.uint64(0xFFFFFFFF),
        blocks >> np.uint64(32),
        np.full_like(blocks, 5),
        np.full_like(blocks, 9),
    )
    assert (found == np.stack(philox(counter, (7, 8)), -1).reshape(-1)).all()


def test_scan(way: str) -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(f32, (9, 3, 5)))
    half = g.input("batch", "h", TensorType(bf16, (3, 1)))
    start = g.input("batch", "s", TensorType(f32, (5,)))
    narrow = g.input("batch", "n", TensorType(bf16, (3, 5)))
    results = g.scan(lambda a, b, x, h: (a * 0.5 + x, b.builder.select(x <= a, b, h)), [start, narrow], [x, half])
    for i, v in enumerate(results):
        g.output("metric", f"y{i}", v)
    check(g.build())


# ---- regions: several nodes as one kernel


def planned(program: Program) -> Plan:
    return make_plan(prepared(program), regions=True)


def normalised(g: ProgramBuilder, x: Value, out: Dtype = f32) -> Value:
    """As softmax and layer norm do: a row's largest value and two sums, each used by all of the row."""

    def of_row(name: str, v: Value) -> Value:
        return g.reduce(name, v, {len(x.shape) - 1}, keepdims=True)

    centred = g.map(lambda a, b: a - b * 0.5, x, of_row("max", x))
    scaled = g.map(lambda a, b: a * 2.0 - b, centred, of_row("sum", centred))
    squares = of_row("sum", g.map(lambda a: a * a, scaled))
    return g.map(lambda a, b: a / b, scaled, squares, dtype=out)


@pytest.mark.parametrize(
    "shape", [(3, 1), (40, 10), (7, 64), (9, 65), (2, 5, 127), (5, 319), (3, 2048), (3, 2049), (2, 4099), (4, 6500)]
)
def test_rows(way: str, shape: tuple[int, ...]) -> None:
    """Teams of a warp and of a thread block, one segment of a sum and many, values that fit shared memory or do not."""
    rng = np.random.default_rng(5)
    for dtype, out in ((f32, f32), (bf16, f16)):
        g = ProgramBuilder()
        x = g.input("batch", "x", TensorType(dtype, shape))
        g.output("metric", "y", normalised(g, x, out))
        program = g.build()
        assert [type(c) for c in planned(program).calls] == [Rows]
        ordinary = rng.standard_normal(shape).astype(np.float32)
        check(program, {"x": ordinary if dtype is f32 else (ordinary.view(np.uint32) >> 16).astype(np.uint16)})
        check(program, {"x": random_tensor(rng, dtype, shape)})


def test_rows_of_reductions_alone(way: str) -> None:
    """One after the other, without a map in between: nobody overtakes another's."""
    g = ProgramBuilder()
    for x in (g.input("batch", f"x{n}", TensorType(f32, (5, n))) for n in (70, 5000)):
        for name in ("sum", "max", "min"):
            g.output("metric", f"{name}{x.shape[1]}", g.reduce(name, x, {1}))
    program = g.build()
    assert [len(c.calls) for c in planned(program).calls if isinstance(c, Rows)] in ([3, 3], [6])
    check(program)


def test_rows_of_integers_and_of_views(way: str) -> None:
    rng = np.random.default_rng(6)
    for dtype in (i32, u32, u8, i8, f16):
        g = ProgramBuilder()
        x = g.input("batch", "x", TensorType(dtype, (70, 6)))
        turned = g.emit(ops.Permute((1, 0)), x)[0]
        for name in ("sum", "max", "min"):
            reduced = g.reduce(name, turned, {1})
            g.output("metric", name, g.map(lambda a: a, g.emit(ops.Reshape((6, 1)), reduced)[0]))
        program = g.build()
        assert any(isinstance(c, Rows) for c in planned(program).calls)
        check(program, {"x": random_tensor(rng, dtype, (70, 6))})


def test_rows_read_of_a_row_what_other_threads_wrote(way: str) -> None:
    """A row turned round and its halves swapped: between two maps, every value changes hands."""
    g = ProgramBuilder()
    for name, shape in (("x", (40, 90)), ("long", (3, 3000))):
        x = g.input("batch", name, TensorType(f32, shape))
        total = g.emit(ops.Reshape((shape[0], 1)), g.reduce("sum", x, {1}))[0]
        y = g.map(lambda a, b: a - b, x, total)
        halves = g.emit(ops.Reshape((shape[0], 2, shape[1] // 2)), y)[0]
        turned = g.emit(ops.Permute((0, 2, 1)), halves)[0]
        z = g.map(lambda a: a * 3.0, turned)
        g.output(
            "metric", name, g.reduce("max", g.map(lambda a: a + 1.0, g.emit(ops.Permute((0, 2, 1)), z)[0]), {1, 2})
        )
    program = g.build()
    assert [type(c) for c in planned(program).calls] == [Rows, Rows]
    check(program)


def with_ending(
    a: TensorType, b: TensorType, turned: tuple[bool, bool] = (False, False), kept: bool = False, out: Dtype = f32
) -> Program:
    """A dot, its bias, what is done with both, and a mask."""
    g = ProgramBuilder()
    x, w = g.input("batch", "x", a), g.input("batch", "w", b)
    c = g.emit(ops.Dot(*turned, f32), x, w)[0]
    bias = g.input("batch", "bias", TensorType(bf16, (c.shape[-1],)))
    biased = g.map(lambda a, b: a + b, c, bias)
    halves = g.emit(ops.Reshape((*c.shape[:-2], c.shape[-2] * c.shape[-1], 1)), biased)[0]
    g.output("metric", "mask", g.map(lambda a: a < 0.0, halves))
    g.output("metric", "y", g.map(lambda a, m: a.builder.select(m < 0.0, a * 0.01, a * m), halves, halves, dtype=out))
    if kept:
        g.output("metric", "c", c)
    return g.build()


@pytest.mark.parametrize(
    ("m", "n", "k", "batch"),
    [(5, 70, 40, ()), (70, 66, 33, ()), (140, 129, 260, ()), (3, 9, 900, ()), (33, 20, 0, ()), (20, 12, 50, (7,))],
)
def test_dot_with_maps_behind_it(way: str, m: int, n: int, k: int, batch: tuple[int, ...]) -> None:
    """Tiles of all sizes and a split k; what the maps write beside, c too; narrow operands and outputs."""
    for dtype, turned, kept, out in (
        (f32, (False, False), False, f32), (f32, (True, True), True, bf16), (bf16, (False, True), True, f16),
    ):  # fmt: skip
        a = TensorType(dtype, (*batch, *((k, m) if turned[0] else (m, k))))
        b = TensorType(dtype, (*batch, *((n, k) if turned[1] else (k, n))))
        program = with_ending(a, b, turned, kept, out)
        (call,) = planned(program).calls
        assert isinstance(call, Epilogue)
        assert len(call.private) == (1 if kept else 2)
        check(program)


def test_a_map_comes_right_behind_its_dot_but_not_before_its_other_inputs() -> None:
    g = ProgramBuilder()
    x, w = g.input("batch", "x", TensorType(f32, (4, 4))), g.input("state", "w", TensorType(f32, (4, 4)))
    first, second = g.emit(ops.Dot(False, False, f32), x, w)[0], g.emit(ops.Dot(False, True, f32), x, w)[0]
    total = g.reduce("sum", second, {0})
    doubled = g.map(lambda a: a * 2.0, first)
    g.output("metric", "late", g.reduce("sum", g.map(lambda a, b: a + b, second, total), {0, 1}))
    g.output("metric", "soon", g.reduce("sum", doubled, {0, 1}))
    g.output("state", "w", g.map(lambda a, b: a - b, w, first))
    program = maps_behind_dots(g.build())
    kinds = [type(n.op).__name__ for n in program.nodes]
    # The map of the first dot comes forward; what reads the sum waits for it, and the new state stays last.
    assert kinds == ["Dot", "Map", "Dot", "Reduce", "Map", "Reduce", "Reduce", "Map"]
    inputs = random_inputs(program)
    wanted, found = backends.evaluate(g.build(), inputs), backends.evaluate(program, inputs)
    assert {name: a.tobytes() for name, a in wanted.items()} == {name: a.tobytes() for name, a in found.items()}


def test_a_state_is_not_updated_while_a_dot_reads_it() -> None:
    """A map behind a dot that overwrites an operand of the dot is no epilogue."""
    g = ProgramBuilder()
    x, w = g.input("batch", "x", TensorType(f32, (4, 4))), g.input("state", "w", TensorType(f32, (4, 4)))
    g.output("state", "w", g.map(lambda a, b: a - b, w, g.emit(ops.Dot(False, False, f32), x, w)[0]))
    assert not any(isinstance(c, Epilogue) for c in planned(g.build()).calls)


# ---- whole programs


@settings(settings.get_profile("emulation"), max_examples=300)
@given(program=programs())
def test_random_programs(way: str, program: Program) -> None:
    check(program)


@settings(settings.get_profile("emulation"), max_examples=100)
@given(program=chains())
def test_chains_of_maps(way: str, program: Program) -> None:
    check(program)
    check(program, keep=True)


@settings(settings.get_profile("emulation"), max_examples=150)
@given(program=row_graphs())
def test_random_graphs_of_rows(way: str, program: Program) -> None:
    check(program)


@settings(settings.get_profile("emulation"), max_examples=150)
@given(program=chains())
def test_fused_maps_are_the_same_program(program: Program) -> None:
    fused = fuse_maps(program)
    inputs = random_inputs(program)
    wanted, found = backends.evaluate(program, inputs), backends.evaluate(fused, inputs)
    assert all(found[name].tobytes() == array.tobytes() for name, array in wanted.items())
    assert len(fused.nodes) <= len(program.nodes)


def test_fusion_leaves_one_map_of_a_chain() -> None:
    g = ProgramBuilder()
    x = g.input("state", "x", TensorType(f32, (4, 3)))
    y = g.map(lambda a: a * 2.0, x)
    z = g.map(lambda a, b: a + b, y, x)
    g.output("metric", "total", g.reduce("sum", z, {0, 1}))
    g.output("state", "x", g.map(lambda a: a - 1.0, z))
    fused = fuse_maps(g.build())
    assert [type(n.op).__name__ for n in fused.nodes] == ["Map", "Reduce", "Map"]  # the sum needs z in memory


def test_values_of_every_node_are_kept(way: str) -> None:
    program = one(ops.Dot(False, True, f32), TensorType(f32, (9, 40)), TensorType(f32, (7, 40)))
    kept, inputs = cuda.make(program, keep=True), random_inputs(program)
    kept.step(inputs, {})
    wanted = backends.evaluate(program, inputs)["y0"]
    assert kept.value(2).tobytes() == wanted.tobytes()
    assert kept.value(0).tobytes() == inputs["x0"].tobytes()


def test_no_context_stays_behind(standin: None) -> None:
    """Whatever the engine does, torch's device is the current one afterwards: the stack of contexts is as it was."""
    captured, batch = training("mlp")
    executor = cuda.make(captured.program)
    executor.load(captured.state)
    executor.step(batch, captured.schedule(1))
    executor.snapshot().roots(captured.state)
    assert not driver._get(driver._HANDLE, "cuCtxGetCurrent")
    del executor
    assert not driver._get(driver._HANDLE, "cuCtxGetCurrent")


@pytest.mark.parametrize("model", ["mlp", "cnn", "gpt"])
def test_training_steps(way: str, model: str) -> None:
    """Forward, backward and optimizer: states after two steps, and their roots hashed where they lie."""
    if "ptx" in way and model != "mlp":
        pytest.skip("instruction by instruction; `make test-cuda` runs it")
    captured, batch = training(model)
    cpu, gpu = backends.make("cpu", captured.program), cuda.make(captured.program)
    for executor in (cpu, gpu):
        executor.load(captured.state)
    for step in (1, 2):
        wanted, found = (e.step(batch, captured.schedule(step)) for e in (cpu, gpu))
        assert wanted["loss"].tobytes() == found["loss"].tobytes()
        states = gpu.state()
        for name, array in cpu.state().items():
            assert states[name].tobytes() == array.tobytes(), name
        roots = states.roots(states)
        assert all(roots[name] == _native.blake3_root(array) for name, array in states.items())


def training(model: str) -> tuple[Any, dict[str, Array]]:
    torch = pytest.importorskip("torch")
    from examples.cnn import ResNet20
    from examples.gpt import GPT, loss_fn
    from gensyn_verify.frontend import trace_step

    torch.manual_seed(0)
    loss: Any = torch.nn.CrossEntropyLoss()
    if model == "mlp":
        net: Any = torch.nn.Sequential(torch.nn.Linear(20, 24), torch.nn.GELU(), torch.nn.Linear(24, 10))
        inputs = (torch.randn(8, 20), torch.randint(0, 10, (8,)))
    elif model == "cnn":
        net, inputs = ResNet20(), (torch.randn(2, 3, 8, 8), torch.randint(0, 10, (2,)))
    else:
        net, loss = GPT(16, width=16, heads=2, layers=1, context=8), loss_fn
        inputs = (torch.randint(0, 16, (2, 8)), torch.randint(0, 16, (2, 8)))
    captured = trace_step(net, loss, torch.optim.AdamW(net.parameters(), lr=1e-3), inputs)
    return captured, captured.batch_arrays(inputs)


# ---- hashing


def test_roots_of_many_lengths(way: str) -> None:
    program, state = kept_bytes()
    executor = cuda.make(program)
    executor.load(state)
    found = executor.state()
    assert found.roots(found) == {name: _native.blake3_root(array) for name, array in state.items()}


# ---- the machine


def test_launching_one_by_one_is_the_graph(standin: None) -> None:
    captured, batch = training("mlp")
    results = []
    for graph in (True, False):
        plan = make_plan(fuse_maps(captured.program))
        executor = Executor(captured.program, lambda _, p=plan, g=graph: cuda.CudaMachine(p, graph=g))
        executor.load(captured.state)
        for step in (1, 2, 3):  # the first is launched, the second recorded, the third launched as it was recorded
            executor.step(batch, captured.schedule(step))
        results.append({name: a.tobytes() for name, a in executor.state().items()})
    assert results[0] == results[1]


@dataclass
class OnDevice:
    """What another library has in the device's memory, and tells of."""

    array: Array
    told: dict[str, Any]
    stream: Any = None

    def __post_init__(self) -> None:
        with driver.device().current():
            self.memory = driver.Memory(max(self.array.nbytes, 1))
            (self.stream or driver.Stream()).write(self.memory.address, self.array.reshape(-1).view(np.uint8))
        if self.stream is None:
            driver.call("cuStreamSynchronize", None)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        known = {"shape": self.array.shape, "typestr": self.array.dtype.str, "data": (self.memory.address, False)}
        return known | {"version": 3, "stream": self.stream and self.stream.handle} | self.told


def test_tensors_on_the_device_are_read_and_shown_by_address(standin: None) -> None:
    g = ProgramBuilder()
    w, half = g.input("state", "w", TensorType(f32, (3, 5))), g.input("batch", "half", TensorType(bf16, (5,)))
    g.output("state", "w", g.map(lambda a, b: a + b, w, half))
    program, rng = g.build(), np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((3, 5)).astype(np.float32), "half": random_tensor(rng, bf16, (5,))}
    wanted = backends.evaluate(program, arrays)["w"]
    with driver.device().current():
        others = driver.Stream()
    executor = cuda.make(program)
    executor.load({"w": OnDevice(arrays["w"], {}, others)})
    executor.step({"half": OnDevice(arrays["half"].view(np.int16), {"strides": (2,)}, others)}, {})
    shown = executor.state().on_device("w").__cuda_array_interface__
    with driver.device().current():
        found = others.read(shown["data"][0], 4 * 15).view(np.float32).reshape(shown["shape"])
    assert found.tobytes() == wanted.tobytes()
    assert (shown["typestr"], shown["stream"]) == ("<f4", None)


def test_tensors_on_the_device_have_a_name_for_every_dtype() -> None:
    for dtype in Dtype:
        told = DeviceTensor(TensorType(dtype, (3,)), 64).__cuda_array_interface__
        assert np.dtype(told["typestr"]) == CARRIER[dtype]


def test_tensors_on_the_device_are_checked(standin: None) -> None:
    g = ProgramBuilder()
    g.output("state", "w", g.input("state", "w", TensorType(f32, (3, 5))))
    executor, zeros = cuda.make(g.build()), np.zeros((3, 5), np.float32)
    with pytest.raises(MalformedError, match=r"state 'w': expected f32\[3,5\] \(<f4\), found <i4\[3, 5\]"):
        executor.load({"w": OnDevice(zeros.view(np.int32), {})})
    with pytest.raises(MalformedError, match=r"found <f4\[15\]"):
        executor.load({"w": OnDevice(zeros.reshape(15), {})})
    with pytest.raises(MalformedError, match="has to be contiguous, found strides"):
        executor.load({"w": OnDevice(zeros, {"strides": (4, 12)})})
    with pytest.raises(BackendError, match="CUDA_ERROR"):
        executor.load({"w": OnDevice(zeros, {"data": (1 << 40, True)})})
    with pytest.raises(MalformedError, match="missing none, unknown"):
        executor.load({"w": zeros, "v": OnDevice(zeros, {})})


def test_columns_beyond_a_grid() -> None:
    """CUDA has at most 65,535 thread blocks along y, which the tiles of floats take."""

    def launches(dtype: Dtype, out: Dtype) -> list[launch.Launch]:
        program = one(ops.Dot(False, False, out), *(TensorType(dtype, s) for s in ((1, 1), (1, 1 << 25))))
        return launch.Launches(make_plan(program, regions=False), 0, 1, 227 << 10, 90).launches

    with pytest.raises(LimitError, match="33554432 columns on cuda: the limit of these tiles is 4194240"):
        launches(f32, f32)
    assert [one.grid for one in launches(i8, i32)] == [(1 << 19, 1, 1)]


def test_errors_say_what_is_missing(standin: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = one(ops.Dot(False, False, f32), TensorType(f32, (2, 2)), TensorType(f32, (2, 2)))
    with pytest.raises(BackendError, match="cuda:3 does not exist: there are 1"):
        cuda.make(program, number=3)
    g = ProgramBuilder()
    g.output("metric", "y", g.input("batch", "x", TensorType(f32, (1 << 31,))))
    with pytest.raises(LimitError, match=r"needs \d+ bytes on emulation"):
        cuda.make(g.build())
    with pytest.raises(LimitError, match="a dot of 1 x 67108864 x 0 on cuda"):
        cuda.make(one(ops.Dot(False, False, f32), TensorType(f32, (1, 0)), TensorType(f32, (0, 1 << 26))))
    monkeypatch.setenv("GENSYN_VERIFY_PTX", str(tmp_path))
    with pytest.raises(BackendError, match="built without nvcc"):
        cuda.make(program)
    with (
        driver.device().current(),
        pytest.raises(BackendError, match="loading nonsense: cuModuleLoadData gave CUDA_ERROR_INVALID_PTX"),
    ):
        driver.Module("fma.f32 nonsense", "nonsense")


def test_no_driver_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from emulation.fixtures import forget

    forget()
    monkeypatch.setenv("GENSYN_VERIFY_CUDA_DRIVER", "libno-such-driver.so")
    with pytest.raises(BackendError, match="needs an NVIDIA driver"):
        driver.device()
    forget()


def test_the_benchmark_of_devices_runs(standin: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every case of bench/bench_device.py at a hundredth of its size: bits are compared, times mean nothing."""
    pytest.importorskip("torch")
    bench = Path(__file__).parents[3] / "bench"
    monkeypatch.syspath_prepend(str(bench))
    monkeypatch.setattr("sys.argv", ["bench_device.py", "--smoke", "--json", str(tmp_path / "results.json")])
    runpy.run_path(str(bench / "bench_device.py"), run_name="__main__")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["device"]["device"].startswith("emulation")
    measured = "dot dot-transformer dot-int8 linear map reduce rows hash step"
    assert {r["set"] for r in results["results"]} == set(measured.split())

"""Regions: maps and reductions that run block of rows by block of rows give the bits of the nodes run one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import ISAS, assert_same_bits, machine
from strategies import chains, programs, random_tensor, row_graphs

from gensyn_verify import _native
from gensyn_verify.backends import cpu
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device.plan import Epilogue, Region, Rows, make_plan
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType, Value, encode, functions


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Regions of any size, cut into many blocks."""
    _native.set_region_elements(least=1, block=96)
    yield
    _native.set_region_elements()


def run(program: Program, inputs: Mapping[str, Array], fuse: bool) -> dict[str, Array]:
    executor = cpu.Executor(program, fuse=fuse)
    executor.load({})
    return executor.step(inputs, {})


def check(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = {i.name: random_tensor(rng, i.type.dtype, i.type.shape, 0.05) for i in program.inputs}
    for isa in ISAS:
        with machine(isa):
            apart = run(program, inputs, fuse=False)
        for threads in (1, 3):
            with machine(isa, threads):
                assert_same_bits(run(program, inputs, fuse=True), apart, f"{isa}, {threads} threads")


def softmax(g: ProgramBuilder, x: Value) -> Value:
    axis = len(x.shape) - 1
    e = g.map(lambda v, m: functions.exp(v - m), x, g.reduce("max", x, [axis], keepdims=True))
    return g.map(lambda v, s: v / s, e, g.reduce("sum", e, [axis], keepdims=True))


def layer_norm(g: ProgramBuilder, x: Value) -> Value:
    axis, n = len(x.shape) - 1, float(x.shape[-1])
    mean = g.map(lambda s: s / n, g.reduce("sum", x, [axis], keepdims=True))
    centred = g.map(lambda v, m: v - m, x, mean)
    variance = g.map(lambda s: s / n, g.reduce("sum", g.map(lambda v: v * v, centred), [axis], keepdims=True))
    return g.map(lambda v, s: v / (s + 1e-5).sqrt(), centred, variance)


@pytest.mark.parametrize("function", [softmax, layer_norm])
@pytest.mark.parametrize("shape", [(70, 33), (5, 7, 130), (1000, 3)])
def test_softmax_and_layer_norm_are_one_region_with_the_bits_of_their_nodes(
    function: Callable[[ProgramBuilder, Value], Value], shape: tuple[int, ...], small_blocks: None
) -> None:
    g = ProgramBuilder()
    g.output("metric", "y", function(g, g.input("batch", "x", TensorType(Dtype.f32, shape))))
    program = g.build()
    executor = _native.Executor(encode(program))
    assert (executor.regions, executor.calls) == (1, 1)
    check(program, 1)


def test_a_value_that_is_read_across_rows_ends_the_region(small_blocks: None) -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (40, 40)))
    s = softmax(g, x)
    g.output("metric", "y", g.map(lambda a, b: a + b, s, g.permute(s, (1, 0))))
    g.output("metric", "z", g.map(lambda a, b: a * b, s, g.broadcast(g.slice(s, (3, 0), (1, 40)), (40, 40))))
    check(g.build(), 2)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=row_graphs(), seed=st.integers(0, 1 << 32))
def test_random_graphs_of_maps_reductions_and_views_keep_their_bits(
    program: Program, seed: int, small_blocks: None
) -> None:
    check(program, seed)


@settings(max_examples=300, deadline=None)
@given(program=row_graphs() | programs() | chains())
def test_regions_of_devices_have_the_calls_of_the_program(program: Program) -> None:
    """No call is lost; private values lie beyond the arena, apart from each other, and fit a row's scratch memory."""

    def kinds(calls: Iterable[object]) -> Counter[str]:
        return Counter(type(c).__name__ for c in calls)

    plan, found = make_plan(program, regions=True), Counter[str]()
    for call in plan.calls:
        if isinstance(call, Rows):
            found += kinds(call.calls)
            for p in call.private:
                assert p.nbytes == p.row_bytes * call.rows
                assert 0 <= p.scratch <= p.scratch + p.row_bytes <= call.scratch_bytes
        elif isinstance(call, Epilogue):
            found += kinds([call.dot, *call.maps])
        else:
            found += kinds([call])
        if isinstance(call, Region):
            ends = [plan.arena_bytes]
            for p in sorted(call.private, key=lambda p: p.offset):
                assert p.offset >= ends[-1]
                ends.append(p.offset + p.nbytes)
    assert found == kinds(make_plan(program).calls)

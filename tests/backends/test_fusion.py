"""Regions: maps and reductions that run block of rows by block of rows give the bits of the nodes run one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import ISAS, assert_same_bits, machine
from strategies import broadcastable, random_tensor

from gensyn_verify import _native
from gensyn_verify.backends import cpu
from gensyn_verify.backends.arrays import Array
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
@given(data=st.data())
def test_random_graphs_of_maps_reductions_and_views_keep_their_bits(data: st.DataObject, small_blocks: None) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9) | st.sampled_from([16, 40]), min_size=2, max_size=3)))
    g = ProgramBuilder()
    pool = [g.input("batch", f"x{n}", TensorType(Dtype.f32, data.draw(broadcastable(shape)))) for n in range(2)]
    for _ in range(data.draw(st.integers(2, 12))):
        x = data.draw(st.sampled_from(pool[-4:]))
        kind = data.draw(st.sampled_from(["map", "map", "map", "reduce", "reduce", "view"]))
        if kind == "map":
            others = [v for v in pool if fits(v.shape, shape)]
            a, b = data.draw(st.sampled_from(others)), data.draw(st.sampled_from(others))
            pool += g.maps(lambda p, q: (p * q, p - q), a, b, dtypes=(Dtype.f32, Dtype.bf16))
        elif kind == "reduce" and x.shape:
            name = data.draw(st.sampled_from(["sum", "max", "min"]))
            axes = data.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1))
            pool.append(g.reduce(name, x, sorted(axes), keepdims=data.draw(st.booleans())))
        elif x.shape:
            axis = data.draw(st.integers(0, len(x.shape) - 1))
            pool.append(
                data.draw(
                    st.sampled_from(
                        [
                            g.permute(x, tuple(reversed(range(len(x.shape))))),
                            g.reshape(x, (-1,)),
                            g.slice(
                                x, (0,) * len(x.shape), tuple(1 if a == axis else d for a, d in enumerate(x.shape))
                            ),
                            g.slice(x, tuple(d - 1 for d in x.shape), x.shape, (-1,) * len(x.shape)),
                        ]
                    )
                )
            )
    for n, v in enumerate(pool[-3:]):
        g.output("metric", f"y{n}", v)
    check(g.build(), data.draw(st.integers(0, 1 << 32)))


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) <= len(b) and all(x in (1, y) for x, y in zip(reversed(a), reversed(b), strict=False))

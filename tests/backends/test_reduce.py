"""reduce: native kernels against the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import check_against_reference
from strategies import random_tensor

from gensyn_verify.backends.arrays import Array
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType, Value, ops

NUMBERS = [d for d in Dtype if d is not Dtype.boolean]


def one_reduce(name: str, x: TensorType, axes: tuple[int, ...], dtype: Dtype | None = None) -> Program:
    """Sums have `dtype`, by default the register type's."""
    g = ProgramBuilder()
    value = g.input("batch", "x", x)
    wanted = {"sum": dtype or Dtype[x.dtype.reg.name], "max": x.dtype, "min": x.dtype}.get(name, Dtype.i32)
    g.output("metric", "y", g.emit(ops.Reduce(ops.REDUCTIONS.index(name), axes, wanted), value)[0])
    return g.build()


def check(name: str, x: Array, dtype: Dtype, axes: tuple[int, ...], out: Dtype | None = None) -> None:
    check_against_reference(one_reduce(name, TensorType(dtype, x.shape), axes, out), {"x": x})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_reductions_give_the_bits_of_the_definition(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(ops.REDUCTIONS))
    size = st.integers(0 if name == "sum" else 1, 9) | st.sampled_from([16, 33, 64, 70, 130])
    shape = tuple(data.draw(st.lists(size, min_size=1, max_size=4)))
    if math.prod(shape) > 20000:
        shape = shape[:2]
    dtype = data.draw(st.sampled_from(NUMBERS))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    out = data.draw(st.sampled_from([d for d in NUMBERS if d.reg is dtype.reg])) if name == "sum" else None
    special = data.draw(st.sampled_from([0.0, 0.01, 0.3]))
    x = random_tensor(np.random.default_rng(data.draw(st.integers(0, 1 << 32))), dtype, shape, special)
    check(name, x, dtype, axes, out)


@pytest.mark.parametrize("name", ops.REDUCTIONS)
@pytest.mark.parametrize("view", ["permuted", "windowed", "sliced", "reversed", "broadcast"])
def test_reductions_read_views_in_place(name: str, view: str) -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (3, 5, 12, 46)))
    viewed: dict[str, tuple[Value, list[tuple[int, ...]]]] = {
        "permuted": (g.permute(x, (0, 3, 1, 2)), [(1,), (0, 2), (3,)]),
        "windowed": (g.window(x, (2, 2), (2, 2), (1, 1)), [(2, 3), (4, 5), (0,)]),
        "sliced": (g.slice(x, (0, 1, 2, 3), (3, 3, 8, 40)), [(3,), (0, 2, 3), (1,)]),
        "reversed": (g.slice(x, (2, 4, 11, 45), (3, 5, 12, 23), (-1, -1, -1, -2)), [(3,), (0, 2), (1, 2, 3)]),
        "broadcast": (g.broadcast(g.slice(x, (0, 0, 0, 0), (3, 5, 1, 46)), (3, 5, 7, 46)), [(2,), (3,), (0, 2)]),
    }
    value, choices = viewed[view]
    for n, axes in enumerate(choices):
        g.output("metric", f"y{n}", g.reduce(name, value, axes))
    rng = np.random.default_rng(7)
    check_against_reference(g.build(), {"x": random_tensor(rng, Dtype.f32, (3, 5, 12, 46), 0.02)})


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2049,), (0,)), ((300_001,), (0,)), ((3, 66_000), (1,)), ((65_600, 3), (0,)), ((5000, 70), (0,))],
)
def test_long_sums_are_sums_of_the_sums_of_segments(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 20, shape)).astype(np.float32)
    check("sum", x, Dtype.f32, axes)
    check("sum", (x[..., :] * 100).astype(np.int64).astype(np.int32), Dtype.i32, axes)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_extremes_of_zeros_infinities_and_nans(name: str, axes: tuple[int, ...]) -> None:
    patterns = np.array([0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001], np.uint32)
    rng = np.random.default_rng(5)
    for choice in ([0, 1], [1, 1], [0, 1, 2], [0, 1, 3], [2, 3], [0, 1, 2, 3, 4], [4, 5], [3, 5]):
        for shape in ((70, 70), (3, 200), (200, 3), (1, 1)):
            bits = patterns[rng.choice(choice, shape)]
            check(name, bits.view(np.float32), Dtype.f32, axes)


def test_a_sum_of_nothing_is_plus_zero_and_a_sum_of_minus_zeros_is_minus_zero() -> None:
    check("sum", np.zeros((4, 0), np.float32), Dtype.f32, (1,))
    for axes in ((0,), (1,), (0, 1)):
        check("sum", np.full((130, 40), -0.0, np.float32), Dtype.f32, axes)

"""layout: every operation, chained as views and copies, equals the reference bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import check_against_reference
from strategies import random_tensor

from gensyn_verify import backends
from gensyn_verify.errors import ProgramError
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType, Value, program


def check(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = {i.name: random_tensor(rng, i.type.dtype, i.type.shape) for i in program.inputs}
    check_against_reference(program, inputs)


def shapes(max_rank: int = 4, max_side: int = 6) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, max_side), max_size=max_rank).map(tuple)


@st.composite
def one_layout(draw: st.DrawFn, g: ProgramBuilder, x: Value) -> Value:
    rank = len(x.shape)
    kind = draw(st.sampled_from(["reshape", "permute", "slice", "pad", "concat", "broadcast", "window"]))
    if kind == "reshape":
        flat = x.type.elements
        return g.reshape(x, draw(st.sampled_from([(flat,), (flat, 1), (1, flat, 1), x.shape])))
    if kind == "permute":
        return g.permute(x, draw(st.permutations(range(rank))))
    if kind == "slice":
        start, shape, step = [], [], []
        for d in x.shape:
            n = draw(st.integers(0, d))
            by = draw(st.sampled_from([1, 1, 2, -1, -2]))
            n = min(n, (d + abs(by) - 1) // abs(by))
            room = d - 1 - (n - 1) * abs(by) if n else 0
            first = draw(st.integers(0, max(room, 0)))
            start.append(first if by > 0 else first + (n - 1) * abs(by))
            shape.append(n)
            step.append(by)
        return g.slice(x, start, shape, step)
    if kind == "pad" and x.type.elements < 500:
        low, high, gap = ([draw(st.integers(0, 2)) for _ in x.shape] for _ in range(3))
        fill = draw(st.integers(0, (1 << (8 * x.dtype.size)) - 1)) if x.dtype is not Dtype.boolean else 1
        return g.pad(x, low, high, gap, fill)
    if kind == "concat" and rank and x.type.elements < 500:
        return g.concat([x, x, x][: draw(st.integers(1, 3))], draw(st.integers(0, rank - 1)))
    if kind == "broadcast" and rank < 5 and x.type.elements < 500:
        return g.broadcast(x, (draw(st.integers(0, 3)), *(3 if d == 1 else d for d in x.shape)))
    if kind == "window" and 0 < rank < 4 and min(x.shape) > 0 and x.type.elements < 500:
        d = draw(st.integers(1, min(2, rank)))
        size = [draw(st.integers(1, min(3, s))) for s in x.shape[rank - d :]]
        dilation = [
            draw(st.integers(1, max(1, (s - 1) // max(k - 1, 1))))
            for s, k in zip(x.shape[rank - d :], size, strict=True)
        ]
        return g.window(x, size, [draw(st.integers(1, 3)) for _ in size], dilation)
    return x


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_chains_of_layouts_move_the_same_bits(data: st.DataObject) -> None:
    g = ProgramBuilder()
    dtype = data.draw(st.sampled_from(list(Dtype)))
    x = g.input("batch", "x", TensorType(dtype, data.draw(shapes())))
    for n in range(data.draw(st.integers(1, 5))):
        x = data.draw(one_layout(g, x))
        g.output("metric", f"y{n}", x)
    program = g.build()
    check(program, data.draw(st.integers(0, 99)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_kernels_read_views_as_the_reference_reads_copies(data: st.DataObject) -> None:
    g = ProgramBuilder()
    shape = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple))
    x = y = g.input("batch", "x", TensorType(Dtype.f32, shape))
    for _ in range(data.draw(st.integers(0, 3))):
        y = data.draw(one_layout(g, y))
    rank = len(y.shape)
    g.output("metric", "map", g.map(lambda a: a * 3.0 + 1.0, y))
    if rank:
        axes = data.draw(st.sets(st.integers(0, rank - 1), min_size=1))
        g.output("metric", "sum", g.reduce("sum", y, sorted(axes)))
    if rank >= 2:
        g.output("metric", "dot", g.dot(y, y, transpose_b=True))
    if rank and y.shape[0]:
        index = g.input("batch", "i", TensorType(Dtype.i32, (3,)))
        g.output("metric", "rows", g.gather(y, index))
    g.output("metric", "x", x)
    program = g.build()
    check(program, data.draw(st.integers(0, 99)))


def test_a_large_transpose_and_a_large_window_cross_thread_tasks() -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (3, 217, 301)))
    g.output("metric", "t", g.reshape(g.permute(x, (2, 0, 1)), (-1,)))
    g.output("metric", "w", g.reshape(g.window(x, (3, 3), (2, 1), (1, 2)), (-1,)))
    program = g.build()
    check(program, 1)


def test_window_is_im2col() -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.i32, (1, 3, 3)))
    g.output("metric", "w", g.window(x, (2, 2), (1, 1), (1, 1)))
    out = backends.evaluate(g.build(), {"x": np.arange(9, dtype=np.int32).reshape(1, 3, 3)}, "reference")["w"]
    assert out.shape == (1, 2, 2, 2, 2)
    assert out[0, :, :, 0, 1].tolist() == [[1, 2], [4, 5]]  # the window whose corner is at row 0, column 1


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda g, x: g.reshape(x, (5,)), "6 elements"),
        (lambda g, x: g.permute(x, (0, 0)), "no permutation"),
        (lambda g, x: g.slice(x, (0, 2), (2, 2)), "leave the tensor"),
        (lambda g, x: g.pad(x, (-1, 0), (0, 0)), "negative"),
        (lambda g, x: g.broadcast(x, (4, 3)), "does not broadcast"),
        (lambda g, x: g.window(x, (4,), (1,), (1,)), "does not fit"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(write, message) -> None:  # type: ignore[no-untyped-def]
    g = ProgramBuilder()
    with pytest.raises(ProgramError, match=message):
        write(g, g.input("batch", "x", TensorType(Dtype.f32, (2, 3))))


@pytest.mark.parametrize("count", [3, 4, 5, 16, 17, 23])
@pytest.mark.parametrize("axis", [0, 1])
def test_more_operands_than_a_node_takes_are_joined_in_groups_to_the_same_bits(
    count: int, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def joined() -> Program:
        g = ProgramBuilder()
        shapes = [(2, 1 + n % 3) if axis else (1 + n % 3, 2) for n in range(count)]
        xs = [g.input("batch", f"x{n:02}", TensorType(Dtype.f32, s)) for n, s in enumerate(shapes)]
        g.output("metric", "y", g.concat(xs, axis))
        return g.build()

    plain = joined()
    monkeypatch.setattr(program, "MAX_NODE_INPUTS", 4)
    grouped = joined()
    assert (grouped == plain) == (count <= 4)
    assert {len(n.inputs) for n in grouped.nodes} <= {2, 3, 4, count if count <= 4 else 4}
    rng = np.random.default_rng(count)
    inputs = {i.name: random_tensor(rng, i.type.dtype, i.type.shape) for i in grouped.inputs}
    check_against_reference(grouped, inputs)
    found = [backends.evaluate(p, inputs, "reference")["y"] for p in (plain, grouped)]
    assert found[0].tobytes() == found[1].tobytes() == np.concatenate(list(inputs.values()), axis).tobytes()

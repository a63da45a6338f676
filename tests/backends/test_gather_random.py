"""gather, scatter_add and random equal the reference bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import check_against_reference
from strategies import random_tensor, rows_program

from gensyn_verify import backends
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType


@settings(max_examples=80, deadline=None)
@given(
    dtype=st.sampled_from(list(Dtype)),
    out=st.sampled_from(list(Dtype)),
    rows=st.integers(0, 9),
    row=st.lists(st.integers(0, 40), max_size=2),
    index=st.lists(st.integers(0, 12), max_size=2),
    seed=st.integers(0, 99),
)
def test_rows_are_gathered_and_added_in_source_order(
    dtype: Dtype, out: Dtype, rows: int, row: list[int], index: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    program = rows_program(dtype, out, rows, row, index)
    inputs = {i.name: random_tensor(rng, i.type.dtype, i.type.shape) for i in program.inputs if i.name != "where"}
    if any(i.name == "where" for i in program.inputs):
        inputs["where"] = rng.integers(-2, rows + 2, index).astype(np.int32)
    check_against_reference(program, inputs)


def test_a_large_scatter_keeps_the_order_on_every_thread_count() -> None:
    g = ProgramBuilder()
    source = g.input("batch", "source", TensorType(Dtype.f32, (4000, 33)))
    where = g.input("batch", "where", TensorType(Dtype.i32, (4000,)))
    g.output("metric", "added", g.scatter_add(source, where, 17))
    program = g.build()
    rng = np.random.default_rng(3)
    inputs = {
        "source": random_tensor(rng, Dtype.f32, (4000, 33), special=0),
        "where": rng.integers(-1, 18, 4000).astype(np.int32),
    }
    check_against_reference(program, inputs, threads=(1, 2, 3))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 255, 256, 257, 70001])
def test_random_words_are_philox_at_the_element(count: int) -> None:
    g = ProgramBuilder()
    seed = g.input("state", "seed", TensorType(Dtype.u32, (2,)))
    step = g.input("batch", "step", TensorType(Dtype.u32, ()))
    g.output("state", "seed", seed)
    g.output("metric", "a", g.random(seed, step, (count,)))
    g.output("metric", "b", g.random(seed, step, (count, 1)))
    inputs = {"seed": np.array([0xDEADBEEF, 0xFFFFFFFF], np.uint32), "step": np.array(0x80000001, np.uint32)}
    program = g.build()
    check_against_reference(program, inputs)
    out = backends.evaluate(program, inputs)
    assert count < 3 or out["a"].tobytes() != out["b"].tobytes()  # streams differ


def test_gather_out_of_range_is_a_canonical_nan() -> None:
    g = ProgramBuilder()
    data = g.input("batch", "data", TensorType(Dtype.f32, (2,)))
    index = g.input("batch", "index", TensorType(Dtype.i32, (3,)))
    g.output("metric", "y", g.gather(data, index))
    inputs = {"data": np.ones(2, np.float32), "index": np.array([1, 2, -1], np.int32)}
    for backend in backends.BACKENDS:
        out = backends.evaluate(g.build(), inputs, backend)["y"]
        assert out.view(np.uint32).tolist() == [0x3F800000, 0x7FC00000, 0x7FC00000]

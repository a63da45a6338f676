"""sort and scan equal the reference bit for bit; scan equals its map written out step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import check_against_reference
from strategies import broadcastable, random_tensor, scalar_programs, storage

from gensyn_verify import backends
from gensyn_verify.program import Dtype, Program, ProgramBuilder, Scalar, ScalarProgram, TensorType, ops
from gensyn_verify.program.program import Input, Node, Output

NUMBERS = [d for d in Dtype if d is not Dtype.boolean]


def sort_program(dtype: Dtype, shape: tuple[int, ...]) -> Program:
    g = ProgramBuilder()
    g.output("metric", "order", g.sort(g.input("batch", "x", TensorType(dtype, shape))))
    return g.build()


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(NUMBERS),
    lead=st.lists(st.integers(0, 4), max_size=2),
    row=st.integers(0, 70),
    few=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_are_sorted(dtype: Dtype, lead: list[int], row: int, few: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (*lead, row)
    x = random_tensor(rng, dtype, shape)
    if few and x.size:  # many equal elements
        x = rng.choice(x.reshape(-1)[:5], shape)
    check_against_reference(sort_program(dtype, shape), {"x": x})


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("row", [512, 513, 40001])
def test_long_rows_are_sorted_like_numpys_stable_sort(dtype: Dtype, row: int) -> None:
    """NumPy's stable argsort has the same order: NaN last, -0 equal to +0."""
    x = random_tensor(np.random.default_rng(row), dtype, (3, row), special=0.5)
    values = (x.astype(np.uint32) << 16).view(np.float32) if dtype is Dtype.bf16 else x
    found = backends.evaluate(sort_program(dtype, (3, row)), {"x": x})["order"]
    np.testing.assert_array_equal(found, np.argsort(values, -1, kind="stable").astype(np.int32))


def test_a_view_is_sorted() -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (9, 4)))
    g.output("metric", "columns", g.sort(g.permute(x, (1, 0))))
    g.output("metric", "backwards", g.sort(g.slice(x, (8, 3), (9, 4), (-1, -1))))
    check_against_reference(g.build(), {"x": random_tensor(np.random.default_rng(5), Dtype.f32, (9, 4))})


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_scalar_program_is_scanned(data: st.DataObject) -> None:
    scalar = data.draw(scalar_programs(max_inputs=4, max_instructions=12).filter(_can_be_scanned))
    carried = len(scalar.outputs)
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    dtypes = tuple(data.draw(storage(reg)) for reg in scalar.output_types)
    types = [TensorType(d, data.draw(broadcastable(shape[1:]))) for d in dtypes]
    types += [TensorType(data.draw(storage(reg)), data.draw(broadcastable(shape))) for reg in scalar.inputs[carried:]]
    program = Program(
        tuple(Input("batch", f"x{i}", t) for i, t in enumerate(types)),
        (scalar,),
        (Node(ops.Scan(0, shape, dtypes), tuple(range(len(types))), tuple(TensorType(d, shape) for d in dtypes)),),
        tuple(Output("metric", f"y{i}", len(types) + i) for i in range(carried)),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    check_against_reference(program, {i.name: random_tensor(rng, i.type.dtype, i.type.shape) for i in program.inputs})


def _can_be_scanned(scalar: ScalarProgram) -> bool:
    outputs = scalar.output_types
    return scalar.inputs[: len(outputs)] == outputs


def _mean_and_count(mean: Scalar, count: Scalar, x: Scalar) -> tuple[Scalar, Scalar]:
    count = count + 1.0
    return mean + (x - mean) / count, count


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_scan_is_its_map_step_by_step(threads: int) -> None:
    """Over views, with a broadcast beginning, and more elements a step than one thread takes."""
    shape = (7, 3, 1400)
    g, h = ProgramBuilder(), ProgramBuilder()
    results = []
    for b in (g, h):
        x = b.permute(b.input("batch", "x", TensorType(Dtype.f32, (1400, 7, 3))), (1, 2, 0))
        start = [b.full((), 0.25), b.full((1400,), 0.0)]
        if b is g:
            results.append(b.scan(_mean_and_count, start, [x]))
        else:
            steps = []
            for t in range(7):
                row = b.reshape(b.slice(x, (t, 0, 0), (1, 3, 1400)), (3, 1400))
                start = list(b.maps(_mean_and_count, *start, row))
                steps.append([b.reshape(v, (1, 3, 1400)) for v in start])
            results.append(tuple(b.concat(list(of), 0) for of in zip(*steps, strict=True)))
    for b, outputs in zip((g, h), results, strict=True):
        for n, v in enumerate(outputs):
            assert v.shape == shape
            b.output("metric", f"y{n}", v)
    inputs = {"x": random_tensor(np.random.default_rng(2), Dtype.f32, (1400, 7, 3), special=0.01)}
    check_against_reference(g.build(), inputs, threads=(threads,))
    scanned, written_out = (backends.evaluate(b.build(), inputs) for b in (g, h))
    assert all(scanned[name].tobytes() == written_out[name].tobytes() for name in scanned)

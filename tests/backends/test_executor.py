"""The planned executor: state from step to step, memory reuse, in-place updates, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from native import assert_same_bits
from strategies import programs, random_tensor

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.cpu import Executor
from gensyn_verify.backends.reference import Executor as ReferenceExecutor
from gensyn_verify.errors import BackendError, LimitError, MalformedError
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType

F = Dtype.f32


def two_layer_step() -> Program:
    """Two matrices with momentum, a swap, a frozen tensor, a metric that is an old state, a view as next state."""
    g = ProgramBuilder()
    w1, w2 = (g.input("state", n, TensorType(F, (17, 17))) for n in ("w1", "w2"))
    m1 = g.input("state", "m1", TensorType(F, (17, 17)))
    a, b = (g.input("state", n, TensorType(F, (5,))) for n in ("a", "b"))
    frozen = g.input("state", "frozen", TensorType(F, (17, 1)))
    turned = g.input("state", "turned", TensorType(F, (4, 4)))
    step = g.input("state", "step", TensorType(Dtype.u32, ()))
    x = g.input("batch", "x", TensorType(F, (9, 17)))
    lr = g.input("scalar", "lr", TensorType(F, ()))
    h = g.map(lambda v: v.max(0.0), g.dot(x, w1))
    y = g.dot(h, w2)
    d2 = g.dot(h, y, transpose_a=True)
    d1 = g.dot(
        x, g.map(lambda v, u: v.builder.select(u > 0.0, v, 0.0), g.dot(y, w2, transpose_b=True), h), transpose_a=True
    )
    m1n, w1n = g.maps(lambda w, m, d, r: (m * 0.9 + d, w - r * (m * 0.9 + d)), w1, m1, d1, lr)
    g.output("state", "m1", m1n)
    g.output("state", "w1", w1n)
    g.output("state", "w2", g.map(lambda w, d, r, f: w - r * d * f, w2, d2, lr, frozen))
    g.output("state", "a", b)
    g.output("state", "b", a)
    g.output("state", "frozen", frozen)
    g.output("state", "turned", g.permute(turned, (1, 0)))
    g.output("state", "step", g.map(lambda s: s + 1, step))
    g.output("metric", "loss", g.reduce("sum", y, (0, 1)))
    g.output("metric", "old_a", a)
    g.output("metric", "old_row", g.slice(w1, (3, 0), (1, 17)))
    return g.build()


def inputs_of(program: Program, role: str, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: random_tensor(rng, t.dtype, t.shape, special=0.02) for n, t in program.inputs_of(role).items()}


@pytest.mark.parametrize("keep", [False, True])
def test_ten_steps_equal_the_reference(keep: bool) -> None:
    program = two_layer_step()
    cpu, reference = Executor(program, keep=keep), backends.make("reference", program)
    state = inputs_of(program, "state", 0)
    cpu.load(state)
    reference.load(state)
    for i in range(10):
        batch, scalars = inputs_of(program, "batch", i), {"lr": np.float32(0.01)}
        assert_same_bits(cpu.step(batch, scalars), reference.step(batch, scalars), f"metrics of step {i}")
        assert_same_bits(cpu.state(), reference.state(), f"state after step {i}")
    assert int(cpu.state()["step"]) == (int(state["step"]) + 10) % (1 << 32)


@given(programs())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_random_programs_give_the_values_of_the_reference(program: Program) -> None:
    executors = [ReferenceExecutor(program), Executor(program), Executor(program, keep=True)]
    found = []
    for executor in executors:
        executor.load({})
        found.append(executor.step(inputs_of(program, "batch", 1), inputs_of(program, "scalar", 2)))
    assert_same_bits(found[1], found[0], "planned")
    assert_same_bits(found[2], found[0], "every value kept")


def test_kept_values_are_the_reference_values() -> None:
    program = two_layer_step()
    cpu, reference = Executor(program, keep=True), ReferenceExecutor(program)
    state, batch = inputs_of(program, "state", 0), inputs_of(program, "batch", 1)
    for executor in (cpu, reference):
        executor.load(state)
        executor.step(batch, {"lr": np.float32(0.5)})
    for v in range(len(program.inputs), len(program.value_types)):
        assert cpu.value(v).tobytes() == reference.values[v].tobytes(), v


def test_state_views_show_the_live_state_and_no_step_allocates_in_the_arena() -> None:
    program = two_layer_step()
    executor = Executor(program)
    executor.load(inputs_of(program, "state", 0))
    view, before = executor.state()["w1"], executor.arena_bytes
    first = view.copy()
    executor.step(inputs_of(program, "batch", 1), {"lr": np.float32(0.5)})
    assert view.tobytes() != first.tobytes()
    assert executor.state()["w1"].ctypes.data == view.ctypes.data
    assert executor.arena_bytes == before


def test_memory_of_a_chain_does_not_grow_with_its_length() -> None:
    def chain(n: int) -> int:
        g = ProgramBuilder()
        x = g.input("batch", "x", TensorType(F, (1000,)))
        for i in range(n):
            x = g.map(lambda a, i=i: a * (1.0 + i), x)
        g.output("metric", "y", g.reduce("sum", x, (0,)))
        return Executor(g.build()).arena_bytes

    assert chain(40) == chain(4)


def test_a_program_above_the_memory_limit_is_refused_before_allocation() -> None:
    g = ProgramBuilder()
    x = g.full((1 << 30, 8), 1.0)
    g.output("metric", "y", g.reduce("sum", x, (0, 1)))
    with pytest.raises(LimitError, match=r"needs 343\d* bytes"):
        Executor(g.build(), memory_limit=1 << 30)


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_wrong_arrays_are_named(backend: str) -> None:
    program = two_layer_step()
    executor = backends.make(backend, program)
    batch, scalars = inputs_of(program, "batch", 0), {"lr": np.float32(0.5)}
    with pytest.raises(BackendError, match="before load"):
        executor.step(batch, scalars)
    state = inputs_of(program, "state", 0)
    executor.load(state)
    with pytest.raises(MalformedError, match=r"batch 'x': expected f32\[9,17\].*float64"):
        executor.step({"x": batch["x"].astype(np.float64)}, scalars)
    with pytest.raises(MalformedError, match=r"missing .*'lr'"):
        executor.step(batch, {})
    with pytest.raises(MalformedError, match="'w1'"):
        executor.load({**state, "w1": state["w1"][:3]})
    with pytest.raises(BackendError, match="unknown"):
        backends.make("tpu", program)

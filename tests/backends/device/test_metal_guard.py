"""Subnormals on an Apple GPU, which flushes them: the guard notices, the CPU computes, and the bits are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from metal_host import HostLibrary, needs_compiler, no_guard, on_metal
from native import assert_same_bits, bits

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.device.plan import Plan, make_plan
from gensyn_verify.backends.metal import MetalMachine
from gensyn_verify.backends.metal.selftest import (
    OPERATIONS,
    check,
    operation_kernels,
    run_operation,
    same_number,
    wanted_result,
)
from gensyn_verify.backends.metal.source import kernels
from gensyn_verify.errors import BackendError
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType, Value

pytestmark = needs_compiler
IEEE, APPLE = HostLibrary(), HostLibrary(flush=True)
SMALLEST_NORMAL = np.float32(2.0**-126)

# ---- operations -------------------------------------------------------------------------------------------------


def operands_near_underflow(n: int) -> Array:
    """float32[n, 3]: random bits, sums and products that (nearly) cancel, and results around the smallest normal."""
    rng = np.random.default_rng(7)
    x = rng.integers(0, 1 << 32, (n, 3), dtype=np.uint64).astype(np.uint32).view(np.float32)
    parts = np.array_split(np.arange(n), 7)
    fractions = rng.integers(0, 1 << 23, (n, 3)) * (rng.random((n, 3)) < 0.7)
    with np.errstate(all="ignore"):
        tiny = ((rng.integers(1, 26, (n, 3)) << 23) + fractions).astype(np.uint32).view(np.float32)
        sign = np.where(rng.random((n, 3)) < 0.5, np.float32(-1), np.float32(1))
        x[parts[1]] = (tiny * sign)[parts[1]]  # sums cancel into the subnormals
        a = ((rng.integers(1, 254, n) << 23) + fractions[:, 0]).astype(np.uint32).view(np.float32)
        e = np.clip(rng.integers(126, 134, n) - (a.view(np.uint32) >> 23).astype(np.int64), 1, 254)
        b = ((e << 23) + fractions[:, 1]).astype(np.uint32).view(np.float32)
        near = np.stack([a, b, -(a * b)], -1)  # products of about 2^-126, cancelled
        x[parts[2]] = near[parts[2]]
        x[parts[3]] = np.stack([a * SMALLEST_NORMAL * np.float32(4), a, tiny[:, 2]], -1)[parts[3]]  # quotients
        e = np.clip(rng.integers(160, 190, n) - (a.view(np.uint32) >> 23).astype(np.int64), 1, 254)
        b = ((e << 23) + fractions[:, 1]).astype(np.uint32).view(np.float32)
        x[parts[4]] = np.stack([a, b, -(a * b)], -1)[parts[4]]  # the error of a product around 2^-80
        a, b = ((e << 23 | 1).astype(np.uint32).view(np.float32) for e in rng.integers(80, 95, (2, n)))
        x[parts[5]] = np.stack([a, b, -(a * b)], -1)[parts[5]]  # the least error that a product can have
    edges = np.array([0.0, -0.0, np.inf, 1.0, -1.0, 1e-38, -1e-38, 3e38], np.float32)
    x[parts[6]] = rng.choice(edges, (len(parts[6]), 3))
    return x


def exactly_subnormal(name: str, x: Array) -> Array:
    """Whether the result before rounding lies strictly between zero and the smallest normal number."""
    with np.errstate(all="ignore"):
        a, b, c = (x[:, i].astype(np.float64) for i in range(3))
        exact = {
            "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b, "div": lambda: a / b,
            "sqrt": lambda: np.sqrt(a), "fma": lambda: a * b + c,
        }[name]()  # fmt: skip
    return (exact != 0) & (np.abs(exact) < 2.0**-126)


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "mul_then_add"])
def test_what_is_not_risky_is_right_however_the_device_flushes(name: str) -> None:
    """Flushing as this CPU does it gives the bits of IEEE 754, and a device that flushes before it rounds, or to a zero
    of another sign, does so only where the operation is risky.
    """
    x = operands_near_underflow(120_000)
    arity, wanted = OPERATIONS[name][1], wanted_result(name, x)
    found, risky = run_operation(APPLE, name, x)
    same = same_number(found, wanted)
    assert same[~risky].all()
    used = x[:, :arity].view(np.uint32) & 0x7FFFFFFF
    subnormal_operand = ((used > 0) & (used < 0x800000)).any(1)
    assert risky[subnormal_operand].all()
    assert risky[exactly_subnormal(name, x)].all()
    assert not risky[~subnormal_operand & (np.abs(wanted) >= SMALLEST_NORMAL)].any()
    if name != "sqrt":
        assert not same[risky].all()  # the operands reach what the guard is for
    assert (~risky).sum() > 20_000


# ---- the self-test ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrongLibrary(HostLibrary):
    """A compiler that takes one expression for another."""

    text: str = ""
    instead: str = ""

    def compile(self, source: str) -> Any:
        return super().compile(source.replace(self.text, self.instead))


@pytest.mark.parametrize("library", [IEEE, APPLE])
def test_the_self_test_accepts_a_device_that_flushes(library: HostLibrary) -> None:
    check(library)


A, B, C = (f"as_type<float>({x})" for x in "abc")


@pytest.mark.parametrize(
    ("what", "text", "instead"),
    [
        ("div", f"{A} / {B}", f"{A} * (1.0f / {B})"),
        ("sqrt", f"as_type<uint>(precise::sqrt({A}))", f"as_type<uint>(precise::sqrt({A})) + 1"),
        ("fma", f"fma({A}, {B}, {C})", f"{A} * {B} + {C}"),
        ("mul_then_add", "add(multiply(a, b, risky), c, risky)", "multiply_add(a, b, c, risky)"),
        ("value08", "largest ? less(b, a) : less(a, b)", "less(a, b)"),
        ("value16", "merged / 2, me", "merged / 4, me"),
        ("value18", "order(a) < order(b) ? a : b", "order(a) < order(b) ? one_zero(a) : b"),
        ("value26", "return a * b + c;", "return (a & 0xFF) * b + c;"),
        ("value29", "dtype == I32 || dtype == I8", "dtype == I32"),
    ],
)
def test_the_self_test_refuses_a_device_that_rounds_otherwise(what: str, text: str, instead: str) -> None:
    assert text in operation_kernels() + kernels()
    with pytest.raises(BackendError, match=f"metal: .*{what}"):
        check(WrongLibrary(text=text, instead=instead))


# ---- calls ------------------------------------------------------------------------------------------------------


def write_map(g: ProgramBuilder, x: Value) -> Value:
    return g.map(lambda a: a * 0.25 + a * a, x)


def write_scan(g: ProgramBuilder, x: Value) -> Value:
    return g.scan(lambda c, a: c * 0.5 + a, [g.full((40,), 0.0)], [x])[0]


def write_dot(g: ProgramBuilder, x: Value) -> Value:
    return g.dot(x, g.permute(x, (1, 0)))


def write_rows(g: ProgramBuilder, x: Value) -> Value:
    return g.reduce("sum", x, [1])


def write_columns(g: ProgramBuilder, x: Value) -> Value:
    return g.reduce("sum", x, [0])


def write_scatter(g: ProgramBuilder, x: Value) -> Value:
    return g.scatter_add(x, g.full((70,), 3, Dtype.i32), 5)


@pytest.mark.parametrize("write", [write_map, write_scan, write_dot, write_rows, write_columns, write_scatter])
def test_a_call_on_numbers_near_underflow_is_computed_on_the_host(
    write: Callable[[ProgramBuilder, Value], Value],
) -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (70, 40)))
    g.output("metric", "y", write(g, x))
    program = g.build()
    rng = np.random.default_rng(3)
    scale = 2.0 ** rng.integers(-64, -60, (70, 40)) if write is write_dot else 2.0**-125
    inputs = {"x": (rng.standard_normal((70, 40)) * scale).astype(np.float32)}
    wanted = backends.evaluate(program, inputs, "reference")
    found, used = on_metal(program, inputs, APPLE)
    assert_same_bits(found, wanted, "guarded")
    assert len(used.host_calls) == 1
    assert (bits(on_metal(program, inputs, APPLE, guard=False)[0]["y"]) != bits(wanted["y"])).any()
    assert_same_bits(on_metal(program, inputs, IEEE, guard=False)[0], wanted, "the kernels alone")


def one_call(write: Callable[[ProgramBuilder, Value], Value], x: Array) -> None:
    """`write` on x is risky only in its last additions."""
    g = ProgramBuilder()
    g.output("metric", "y", write(g, g.input("batch", "x", TensorType(Dtype.f32, x.shape))))
    program = g.build()
    found, used = on_metal(program, {"x": x}, APPLE)
    assert_same_bits(found, backends.evaluate(program, {"x": x}, "reference"), "guarded")
    assert len(used.host_calls) == 1


def test_blocks_of_a_product_that_cancel_into_the_subnormals() -> None:
    x = np.zeros((2, 256), np.float32)
    x[0, 0], x[0, 128] = 2.0**-54, -(2.0**-54) * (1 + 2.0**-22)
    x[1, [0, 128]] = 2.0**-54
    one_call(write_dot, x)


@pytest.mark.parametrize("lane", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("columns", [False, True])
def test_lanes_of_a_sum_that_cancel_into_the_subnormals(lane: int, columns: bool) -> None:
    x = np.zeros((64, 40), np.float32)
    x[0, 7], x[lane, 7] = 1.25 * 2.0**-126, -(2.0**-126)
    one_call(write_columns if columns else write_rows, x if columns else np.ascontiguousarray(x.T))


@pytest.mark.parametrize("tiny", ["a", "b"])
def test_one_tiny_element_in_a_batch_of_matrices_is_found(tiny: str) -> None:
    g = ProgramBuilder()
    a, b = (g.input("batch", n, TensorType(Dtype.f32, (3, 17, 17))) for n in "ab")
    g.output("metric", "c", g.dot(a, b))
    program = g.build()
    inputs = {n: np.zeros((3, 17, 17), np.float32) for n in "ab"}
    inputs[tiny][2, 16, 16] = 2.0**-80
    inputs["a" if tiny == "b" else "b"][2, 16, 16] = 1.25 * 2.0**-48
    found, used = on_metal(program, inputs, APPLE)
    assert_same_bits(found, backends.evaluate(program, inputs, "reference"), "guarded")
    assert len(used.host_calls) == 1


def test_a_product_whose_tiny_elements_do_no_harm_stays_on_the_gpu() -> None:
    """The exponents are too small for the fast loop; the checked one finds that no partial sum was subnormal."""
    g = ProgramBuilder()
    a, b = (g.input("batch", n, TensorType(Dtype.f32, (30, 30))) for n in "ab")
    g.output("metric", "c", g.dot(a, b))
    program = g.build()
    rng = np.random.default_rng(4)
    inputs = {n: rng.standard_normal((30, 30)).astype(np.float32) for n in "ab"}
    for x in inputs.values():
        x[:, 29] = x[29] = 2.0**-60  # the last one of each chain
        x[29, 29] = 2.0**-30
    found, used = on_metal(program, inputs, APPLE)
    assert_same_bits(found, backends.evaluate(program, inputs, "reference"), "checked")
    assert used.host_calls == []


def test_a_map_in_place_is_computed_again_from_what_it_read() -> None:
    g = ProgramBuilder()
    w = g.input("state", "w", TensorType(Dtype.f32, (300,)))
    g.output("state", "w", g.map(lambda a: a * 0.5 + 1.0 - a, w))
    program = g.build()
    state = {"w": np.random.default_rng(5).standard_normal(300).astype(np.float32)}
    state["w"][7] = 2.0**-126
    wanted = backends.evaluate(program, state, "reference")
    found, used = on_metal(program, state, APPLE)
    assert used.host_calls
    assert_same_bits(found, wanted, "in place")


def test_a_step_that_begins_again_reads_the_inputs_again() -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (20, 20)))
    w = g.input("state", "w", TensorType(Dtype.f32, (20, 20)))
    for _ in range(5):
        x = g.map(lambda a: a + 1.0, g.permute(x, (1, 0)))
    g.output("metric", "y", g.reduce("sum", x, [0]))
    g.output("state", "w", g.map(lambda a, b: a * (b - b + 1e-30), w, g.reshape(g.permute(x, (1, 0)), (20, 20))))
    program = g.build()
    rng = np.random.default_rng(8)
    inputs = {n: rng.standard_normal((20, 20)).astype(np.float32) for n in "wx"}
    inputs["w"] *= np.float32(1e-10)
    found, used = on_metal(program, inputs, APPLE)
    assert_same_bits(found, backends.evaluate(program, inputs, "reference"), "begun again")
    assert len(used.host_calls) == 1


# ---- a training step --------------------------------------------------------------------------------------------


def training_program() -> Program:
    """A multi-layer perceptron with ReLU and squared error, and Adam without bias correction."""
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (12, 20)))
    y = g.input("batch", "y", TensorType(Dtype.f32, (12, 3)))
    rate = g.input("scalar", "rate", TensorType(Dtype.f32, ()))
    w = {n: g.input("state", n, TensorType(Dtype.f32, s)) for n, s in (("w1", (20, 16)), ("w2", (16, 3)))}
    m = {n: g.input("state", f"{n}.m", TensorType(Dtype.f32, v.shape)) for n, v in w.items()}
    v = {n: g.input("state", f"{n}.v", TensorType(Dtype.f32, v.shape)) for n, v in w.items()}
    hidden = g.dot(x, w["w1"])
    active = g.map(lambda a: a.max(0.0), hidden)
    error = g.map(lambda a, b: a - b, g.dot(active, w["w2"]), y)
    g.output("metric", "loss", g.reduce("sum", g.map(lambda e: e * e, error), [0, 1]))
    back = g.map(lambda d, h: h.builder.select(h <= 0.0, 0.0, d), g.dot(error, w["w2"], transpose_b=True), hidden)
    gradients = {"w1": g.dot(x, back, transpose_a=True), "w2": g.dot(active, error, transpose_a=True)}
    for n, d in gradients.items():
        m2 = g.map(lambda a, b: a * 0.9 + b * 0.1, m[n], d)
        v2 = g.map(lambda a, b: a.builder.fma(b * 0.001, b, a * 0.999), v[n], d)
        g.output("state", n, g.map(lambda p, a, b, r: p - r * (a / (b.sqrt() + 1e-8)), w[n], m2, v2, rate))
        g.output("state", f"{n}.m", m2)
        g.output("state", f"{n}.v", v2)
    return g.build()


def train(program: Program, executor: backends.Executor, steps: int) -> list[dict[str, Array]]:
    """State and loss after every step. Inputs 15 to 19 are always zero, so their moments only decay."""
    rng = np.random.default_rng(6)
    state = {n: np.zeros(t.shape, np.float32) for n, t in program.inputs_of("state").items()}
    for n in ("w1", "w2"):
        state[n] = (rng.standard_normal(state[n].shape) * 0.3).astype(np.float32)
    state["w1.m"][15:] = rng.standard_normal((5, 16)).astype(np.float32) * np.float32(2.0**-125)
    executor.load(state)
    history = []
    for _ in range(steps):
        batch = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in program.inputs_of("batch").items()}
        batch["x"][:, 15:] = 0
        metrics = executor.step(batch, {"rate": np.float32(0.01)})
        history.append({**{n: a.copy() for n, a in executor.state().items()}, **metrics})
    return history


@pytest.mark.parametrize(("seed", "keep"), [(0, False), (1, True), (2, False)])
def test_training_through_the_decay_of_moments_into_subnormals(seed: int, keep: bool) -> None:
    program, steps = training_program(), 8
    wanted = train(program, backends.make("cpu", program), steps)
    machines: list[MetalMachine] = []

    def make(plan: Plan) -> MetalMachine:
        machines.append(MetalMachine(plan, HostLibrary(seed, flush=True)))
        return machines[-1]

    executor = Executor(program, make, keep)
    for step, (found, want) in enumerate(zip(train(program, executor, steps), wanted, strict=True)):
        assert_same_bits(found, want, f"step {step}")
    assert machines[0].host_calls  # in the last step too
    assert len(machines[0].host_calls) < len(make_plan(program).calls)


def test_training_without_the_guard_goes_wrong() -> None:
    program = training_program()
    wanted = train(program, backends.make("cpu", program), 8)
    with no_guard():
        found = train(program, Executor(program, lambda plan: MetalMachine(plan, APPLE)), 8)
    assert any((bits(found[-1][n]) != bits(wanted[-1][n])).any() for n in wanted[-1])

"""Bounds of single operators: honest kernels stay within them, and a value that does not come from one is found."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import programs, random_tensor, scalar_programs, storage

from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.bounds import Fault, Model, audit, node_bounds
from gensyn_verify.backends.lift import COMPOSED, ELEMENTARY
from gensyn_verify.backends.names import VendorName
from gensyn_verify.backends.vendor import Executor
from gensyn_verify.errors import MalformedError
from gensyn_verify.frontend import Captured, trace_step
from gensyn_verify.program import Dtype, Program, ProgramBuilder, Reg, TensorType, activations, functions, ops
from gensyn_verify.program.scalar import ScalarProgram

F = Dtype.f32
ROOT = Path(__file__).parents[2]
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def inputs_of(program: Program, seed: int, special: float) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [random_tensor(rng, i.type.dtype, i.type.shape, special) for i in program.inputs]


def vendor_values(program: Program, inputs: list[Array], precision: str = "fp32") -> Executor:
    """The vendor executor after one step on all inputs, which are no state."""
    vendor = Executor(program, VendorName("cpu", precision), keep=True)
    vendor.load({})
    given = {role: {i.name: x for i, x in zip(program.inputs, inputs, strict=True) if i.role == role}
             for role in ("batch", "scalar")}  # fmt: skip
    vendor.step(given["batch"], given["scalar"])
    return vendor


def fault(program: Program, seed: int, special: float = 0.3, precision: str = "fp32") -> Fault | None:
    inputs = inputs_of(program, seed, special)
    return audit(program, inputs, vendor_values(program, inputs, precision).value, Model(precision))


def map_program(scalar: ScalarProgram, dtypes: list[Dtype], stored: tuple[Dtype, ...], n: int) -> Program:
    g = ProgramBuilder()
    inputs = [g.input("batch", f"x{i}", TensorType(d, (n,))) for i, d in enumerate(dtypes)]
    number = g._scalars.setdefault(scalar, 0)
    for i, v in enumerate(g.emit(ops.Map(number, (n,), stored), *inputs)):
        g.output("metric", f"y{i}", v)
    return g.build()


@given(programs(), st.sampled_from(["fp32", "bf16"]))
@settings(SLOW, max_examples=200)
def test_every_node_of_random_programs_is_within_its_bounds(program: Program, precision: str) -> None:
    assert fault(program, 1, precision=precision) is None


@given(scalar_programs(), st.integers(0, 999), st.data())
@settings(SLOW, max_examples=300)
def test_random_scalar_programs_are_within_their_bounds(scalar: ScalarProgram, seed: int, data: st.DataObject) -> None:
    dtypes = [data.draw(storage(reg)) for reg in scalar.inputs]
    stored = tuple(data.draw(storage(reg)) for reg in scalar.output_types)
    assert fault(map_program(scalar, dtypes, stored, 33), seed) is None


@pytest.mark.parametrize("name", [*ELEMENTARY, *COMPOSED])
def test_functions_of_torch_are_within_their_bounds_on_random_bits(name: str) -> None:
    scalar = {**ELEMENTARY, **COMPOSED}[name]
    program = map_program(scalar, [F] * len(scalar.inputs), (F,), 1 << 16)
    assert fault(program, 0, special=0.1) is None


TWO: dict[str, Callable[..., Any]] = {
    **{n: getattr(functions, n) for n in ("pow", "atan2", "hypot")},
    **{n: getattr(activations, n) for n in COMPOSED if n.endswith("_backward") and not n.startswith("relu")},
    "relu_backward": lambda g, x: g.builder.select(x <= 0.0, 0.0, g),
}


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_arguments_broadcast_and_take_numbers(name: str) -> None:
    """oneDNN's gradient of a gelu takes neither."""
    function, rng = TWO[name], np.random.default_rng(0)
    for shapes in (((4, 1), (4, 5)), ((4, 5), (5,)), ((), (4, 5)), ((4, 5), ()), ((4, 1), (1, 5)), ((4, 5),)):
        g = ProgramBuilder()
        inputs = [g.input("batch", f"x{i}", TensorType(F, s)) for i, s in enumerate(shapes)]
        if len(shapes) == 2:
            g.output("metric", "y", g.map(function, *inputs))
        else:
            g.output("metric", "left", g.map(lambda x: function(x.builder.literal(0.75), x), *inputs))
            g.output("metric", "right", g.map(lambda x: function(x, x.builder.literal(0.75)), *inputs))
        program = g.build()
        arrays = [rng.uniform(0.1, 0.9, i.type.shape).astype(np.float32) for i in program.inputs]
        assert audit(program, arrays, vendor_values(program, arrays).value) is None, shapes


def test_a_product_is_not_written_over_what_is_added_to_it() -> None:
    """Shapes that differ: the product and the sum are two calls, and the sum's other operand is not read again."""
    g = ProgramBuilder()
    x, row, column = (g.input("batch", n, TensorType(F, s)) for n, s in (("x", (4, 5)), ("r", (5,)), ("c", (4, 1))))
    g.output("metric", "y", g.map(lambda x, r, c: x.builder.fma(r, c, x + 1.0), x, row, column))
    g.output("metric", "z", g.map(lambda x, r, c: x.builder.fma(x + r, c, x + 1.0), x, row, column))
    g.output("metric", "w", g.map(lambda x, r, c: x.builder.fma(r * 3.0, c, r + 1.0) + x, x, row, column))
    program = g.build()
    arrays = inputs_of(program, 0, 0.0)
    assert audit(program, arrays, vendor_values(program, arrays).value) is None


def test_nothing_is_written_over_what_a_view_of_bits_still_shows() -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.u32, (64,)))

    def f(x: Any) -> Any:
        bits = x + 0x3F800000
        seen = bits.bits(Reg.f32)
        return seen * (bits ^ 0x00400000).bits(Reg.f32) + seen

    g.output("metric", "y", g.map(f, x))
    program, arrays = g.build(), [np.arange(64, dtype=np.uint32)]
    assert audit(program, arrays, vendor_values(program, arrays).value) is None


@pytest.mark.parametrize(
    ("m", "k", "n", "batch"), [(1, 1, 1, ()), (7, 1000, 5, ()), (3, 4097, 2, ()), (4, 0, 3, ()), (5, 33, 9, (3,))]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_products_are_within_their_bounds(m: int, k: int, n: int, batch: tuple[int, ...], precision: str) -> None:
    g = ProgramBuilder()
    a, b = g.input("batch", "a", TensorType(F, (*batch, k, m))), g.input("batch", "b", TensorType(F, (k, n)))
    g.output("metric", "y", g.dot(a, b, transpose_a=True))
    program = g.build()
    rng = np.random.default_rng(k)
    inputs = [rng.standard_normal(i.type.shape).astype(np.float32) for i in program.inputs]
    assert audit(program, inputs, vendor_values(program, inputs, precision).value, Model(precision)) is None


def test_a_bound_is_the_gamma_of_the_text_times_the_sum_of_products() -> None:
    g = ProgramBuilder()
    a, b = g.input("batch", "a", TensorType(F, (1, 100))), g.input("batch", "b", TensorType(F, (100, 1)))
    g.output("metric", "y", g.dot(a, b))
    (node,) = g.build().nodes
    x = np.where(np.arange(100) % 2, -3, 3).astype(np.float32)  # the sum is 0, the sum of |products| 600
    inputs, expected = [x.reshape(1, 100), np.full((100, 1), 2, np.float32)], [np.zeros((1, 1), np.float32)]
    (bound,) = node_bounds(node, None, inputs, [F, F], expected, Model())
    u = 2.0**-24
    assert bound[0, 0] == pytest.approx(2 * 100 * u / (1 - 100 * u) * 600, rel=0.02)  # 101 for the exact side
    (likely,) = node_bounds(node, None, inputs, [F, F], expected, Model(confidence=5.0))
    assert likely[0, 0] == pytest.approx(2 * 5 * 10 * u * 600, rel=0.02)
    (rounded,) = node_bounds(node, None, inputs, [F, F], expected, Model("bf16"))
    assert rounded[0, 0] == pytest.approx(2 * 2.0**-8 * 600, rel=0.02)


@pytest.mark.parametrize("name", ["max", "argmax", "argmin"])
def test_extremes_and_positions_are_exact_at_ties(name: str) -> None:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F, (3, 4)))
    g.output("metric", "y", g.reduce(name, x, (1,)))
    rows = np.array([[1, 2, 2, 1], [-0.0, 0.0, 0.0, -0.0], [1, np.nan, 5, np.nan]], np.float32)
    program = g.build()
    vendor = vendor_values(program, [rows])
    assert audit(program, [rows], vendor.value) is None
    wrong = vendor.value(1).copy()
    wrong[0] += 1
    found = audit(program, [rows], lambda v: wrong)
    assert found is not None
    assert (found.element, found.bound) == ((0,), 0.0)


def test_a_select_near_a_tie_may_give_either_value_and_elsewhere_one() -> None:
    """At 3 * (1/3) > 1 a rounding decides, at 3 * (2/3) > 1 nothing does."""
    g = ProgramBuilder()
    x, y = (g.input("batch", n, TensorType(F, (2,))) for n in "xy")
    g.output("metric", "z", g.map(lambda x, y: x.builder.select(x * y > 1.0, x, -x), x, y))
    program = g.build()
    third = np.float32(1 / 3)
    inputs = [np.array([3, 3], np.float32), np.array([third, 2 * third], np.float32)]

    def element(*claimed: float) -> tuple[int, ...] | None:
        found = audit(program, inputs, lambda v: np.array(claimed, np.float32))
        return found and found.element

    assert element(3, 3) is None
    assert element(-3, 3) is None
    assert element(3, -3) == (1,)
    assert element(9.1, 3) == element(-9.1, 3) == (0,)


# ---- whole steps --------------------------------------------------------------------------------------------------


@cache
def captured(name: str) -> tuple[Captured, dict[str, Array]]:
    from tests.models.zoo import TASKS, supervised

    if name == "mlp":
        torch.manual_seed(0)
        model: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Linear(20, 64), torch.nn.GELU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)
        )
        loss: Callable[..., Any] = supervised(torch.nn.CrossEntropyLoss())
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        data = torch.randn(16, 20), torch.randint(0, 4, (16,))
    else:
        task = TASKS[name]
        model, optimizer = task.build()
        loss, data = task.loss, tuple(t[:2] for t in task.data())
    made = trace_step(model, loss, optimizer, data, loss_takes_model=True)
    return made, made.batch_arrays(data)


def step_of(name: str, precision: str = "fp32", steps: int = 1) -> tuple[Program, list[Array], list[Array]]:
    """A program, the inputs of its step number `steps` on the vendor backend, and the values of its nodes there."""
    made, batch = captured(name)
    program = made.program
    vendor = Executor(program, VendorName("cpu", precision), keep=True)
    vendor.load(made.state)
    for s in range(1, steps + 1):
        given = {"state": {n: a.copy() for n, a in vendor.state().items()}, "batch": batch, "scalar": made.schedule(s)}
        vendor.step(batch, made.schedule(s))
    inputs = [given[i.role][i.name] for i in program.inputs]
    return program, inputs, [vendor.value(v) for v in range(len(program.value_types))]


def checked(name: str, precision: str = "fp32", claim: str = "fp32") -> Fault | None:
    program, inputs, values = step_of(name, precision, steps=2)
    return audit(program, inputs, values.__getitem__, Model(claim))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["mlp", "resnet20", "gpt", "lstm"])
def test_no_false_alarm_on_honest_training_steps(name: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert checked(name) is None
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 alone has these")
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_no_false_alarm_on_other_instruction_sets(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reads its instruction set when it is loaded, so each has a process of its own."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = (
        "import torch; from tests.backends.test_bounds import checked; from pathlib import Path\n"
        "print(torch.backends.cpu.get_cpu_capability(), *[checked(n) for n in ('mlp', 'gpt', 'lstm', 'resnet20')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['tests', '.']\n{code}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [capability.upper(), *["None"] * 4]


@pytest.mark.parametrize("name", ["mlp", "gpt"])
def test_bf16_products_pass_as_bf16_and_not_as_fp32(name: str) -> None:
    assert checked(name, "bf16", claim="bf16") is None
    found = checked(name, "bf16", claim="fp32")
    assert found is not None
    assert found.kind == "dot"


@pytest.mark.parametrize("kind", ["map", "dot", "reduce", "layout"])
@pytest.mark.parametrize("name", ["mlp", "gpt"])
def test_one_element_off_by_four_bounds_is_found_where_it_is(name: str, kind: str) -> None:
    from gensyn_verify.backends.bounds.audit import exact

    program, inputs, values = step_of(name)
    rng = np.random.default_rng(0)
    floats = [n for n, node in enumerate(program.nodes) if node.op.kind == kind and node.types[0].dtype is F]
    for n in rng.choice(floats, 5, replace=False):
        node, v = program.nodes[n], program.first_value[n]
        scalar = program.scalar_programs[node.op.program] if isinstance(node.op, ops.Map) else None
        types = [program.value_types[i] for i in node.inputs]
        operands = [values[i] for i in node.inputs]
        expected = exact(node, scalar, types, operands)
        bound = node_bounds(node, scalar, operands, [t.dtype for t in types], expected, Model())[0]
        element = tuple(int(rng.integers(d)) for d in bound.shape)
        planted = values[v].copy()
        size = max(4 * float(bound[element]), 1e-6 * abs(float(planted[element])), 1e-30)
        planted[element] = expected[0][element] + np.float32(size)
        found = audit(program, inputs, [*values[:v], planted, *values[v + 1 :]].__getitem__)
        assert found is not None
        assert (found.node, found.kind, found.element) == (n, kind, element)
        assert found.origin == node.origin


def test_a_weight_that_was_scaled_is_found_at_the_node_that_reads_it() -> None:
    """The inputs are agreed; a solver who used another weight is caught by what came of it."""
    program, inputs, _ = step_of("mlp")
    made, batch = captured("mlp")
    scaled = {n: a * np.float32(1.001) if n.endswith("0.weight") else a for n, a in made.state.items()}
    assert any((scaled[n] != a).any() for n, a in made.state.items())
    cheat = Executor(program, VendorName(), keep=True)
    cheat.load(scaled)
    cheat.step(batch, made.schedule(1))
    found = audit(program, inputs, cheat.value)
    assert found is not None
    assert found.kind in ("dot", "layout")


def test_a_value_of_another_type_is_malformed() -> None:
    program, inputs, values = step_of("mlp")
    first = program.first_value[0]
    with pytest.raises(MalformedError, match=f"value {first}: expected"):
        audit(program, inputs, lambda v: values[v].astype(np.float64) if v == first else values[v])
    with pytest.raises(MalformedError, match="inputs, found 0"):
        audit(program, [], values.__getitem__)


def test_what_a_model_says_is_checked() -> None:
    with pytest.raises(MalformedError, match="known are fp32, tf32, bf16"):
        Model("fp8")
    with pytest.raises(MalformedError, match="above 0"):
        Model(confidence=0.0)

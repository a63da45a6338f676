"""The vendor backend: names, exactness of everything but float rounding, state from step to step."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from strategies import programs, random_tensor
from test_bounds import captured
from test_executor import two_layer_step
from torch import nn

from gensyn_verify import backends
from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.bounds import audit
from gensyn_verify.backends.lift import COMPOSED, ELEMENTARY, lift
from gensyn_verify.backends.names import VendorName
from gensyn_verify.backends.vendor import Executor, environment
from gensyn_verify.backends.vendor.convolution import Finder, find
from gensyn_verify.backends.vendor.precision import rounding, switches
from gensyn_verify.cli.solve import add_machine_arguments
from gensyn_verify.errors import BackendError
from gensyn_verify.frontend import Captured, trace_step
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType, ops
from gensyn_verify.program.functions import exp
from gensyn_verify.program.published import F, trace
from gensyn_verify.protocol.solve import solve

EXACT = (ops.Gather, ops.Random, ops.Sort)
LAYOUT = tuple(op for op in ops.OPS if op.kind == "layout")


def inputs_of(program: Program, role: str, seed: int, special: float = 0.3) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: random_tensor(rng, t.dtype, t.shape, special) for n, t in program.inputs_of(role).items()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vendors", "known are cpu, reference, cuda"),
        ("vendor:tpu", r"DEVICE one of cpu, cuda, cuda:N, mps"),
        ("vendor:bf16", r"DEVICE one of cpu"),
        ("vendor:cuda:x", "'x' is unknown; known are fp32, tf32, bf16"),
        ("vendor:cpu:fp64", "'fp64' is unknown; known are fp32, tf32, bf16"),
        ("vendor:cpu:tf32", "tf32 exists only on cuda"),
        ("vendor:cpu:", "DEVICE one of cpu"),
        ("vendor:cuda:-1", "DEVICE one of cpu"),
    ],
)
def test_unknown_names_are_refused_with_what_is_known(name: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        backends.make(name, two_layer_step())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("name", ["vendor:cuda", "vendor:cuda:1:tf32"])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(BackendError, match="finds no cuda device here"):
        backends.make(name, two_layer_step())


@given(programs())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_moved_data_indices_and_random_words_are_exact(program: Program) -> None:
    batch, scalars = inputs_of(program, "batch", 1), inputs_of(program, "scalar", 2)
    vendor = Executor(program, VendorName(), keep=True)
    vendor.load({})
    vendor.step(batch, scalars)
    types = program.value_types
    for node, first in zip(program.nodes, program.first_value, strict=True):
        inputs = [vendor.value(v) for v in node.inputs]
        expected = reference.run_node(program, node, inputs, [types[v].dtype for v in node.inputs])
        for n, t in enumerate(node.types):
            if isinstance(node.op, (*EXACT, *LAYOUT)) or not t.dtype.is_float:
                np.testing.assert_array_equal(vendor.value(first + n), expected[n].reshape(t.shape), str(node))


def everyday(program: Program, role: str, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        n: rng.standard_normal(t.shape).astype(np.float32) if t.dtype is Dtype.f32 else np.zeros(t.shape, np.uint32)
        for n, t in program.inputs_of(role).items()
    }


def close(found: dict[str, Array], wanted: dict[str, Array], relative: float) -> None:
    """Each tensor, as a whole, within a share of its size."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        size = np.linalg.norm(array.astype(np.float64).reshape(-1))
        apart = np.linalg.norm((found[name].astype(np.float64) - array).reshape(-1))
        assert apart <= relative * size, f"{name}: {apart} of {size}"


def test_the_state_goes_from_step_to_step() -> None:
    program = two_layer_step()
    vendor, cpu = backends.make("vendor", program), backends.make("cpu", program)
    state = everyday(program, "state", 0)
    vendor.load(state)
    cpu.load(state)
    for i in range(4):
        batch, scalars = everyday(program, "batch", i), {"lr": np.float32(1e-3)}
        close(vendor.step(batch, scalars), cpu.step(batch, scalars), 1e-4)  # the loss is a sum of either sign
        close(vendor.state(), cpu.state(), 1e-5)
    assert int(vendor.state()["step"]) == 4


def test_the_state_shares_no_memory_with_batches_or_with_itself() -> None:
    g = ProgramBuilder()
    a, b = (g.input("state", n, TensorType(Dtype.f32, (3,))) for n in "ab")
    x = g.input("batch", "x", TensorType(Dtype.f32, (2, 3)))
    g.output("state", "a", g.reshape(g.slice(x, (1, 0), (1, 3)), (3,)))
    g.output("state", "b", g.reshape(g.slice(x, (1, 0), (1, 3)), (3,)))
    g.output("metric", "old", g.map(lambda a, b: a + b, a, b))
    executor = backends.make("vendor", g.build())
    executor.load({"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)})
    batch = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert executor.step({"x": batch}, {})["old"].tolist() == [2, 2, 2]
    batch[:] = -1
    state = executor.state()
    assert state["a"].tolist() == state["b"].tolist() == [3, 4, 5]
    assert not np.shares_memory(state["a"], state["b"])


def adam(w, m, g, lr):  # type: ignore[no-untyped-def]
    m = 0.9 * m + 0.1 * g
    return w - lr * m / (m.abs().sqrt() + 1e-8), m, (m * m + w) * (m - w)


@pytest.mark.parametrize("shape", [(257, 301), (1 << 17,), (1, 3, 70_001)])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_long_program_over_a_large_tensor_is_that_of_small_ones(shape: tuple[int, ...], narrow: bool) -> None:
    """Blocks, of which the last is short; results over the state that nobody reads again, and not over the other."""
    g = ProgramBuilder()
    stored, one = Dtype.bf16 if narrow else Dtype.f32, (1,) * (len(shape) - 1)
    w, m = (g.input("state", n, TensorType(stored, shape)) for n in "wm")
    old = g.input("state", "old", TensorType(stored, shape))
    grad, lr = g.input("batch", "g", TensorType(Dtype.f32, shape)), g.input("scalar", "lr", TensorType(Dtype.f32, one))
    view = g.reshape(w, (*shape, 1))
    new, moment, third = g.maps(adam, w, m, grad, lr, dtypes=(stored, stored, Dtype.f32))
    g.output("state", "w", new)
    g.output("state", "m", moment)
    g.output("state", "old", g.reshape(view, shape))
    g.output("metric", "third", third)
    g.output("metric", "sum", g.reduce("sum", g.map(lambda v: v * 2.0, old), (0,)))
    program = g.build()
    rng = np.random.default_rng(0)

    def tensors(role: str) -> dict[str, Array]:
        every = program.inputs_of(role)
        f32 = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in every.items()}
        return {n: a.view(np.uint32) >> 16 if every[n].dtype is Dtype.bf16 else a for n, a in f32.items()}

    def words(arrays: dict[str, Array]) -> dict[str, Array]:
        return {n: a.astype(np.uint16) if a.dtype == np.uint32 else a for n, a in arrays.items()}

    state, batch, scalars = words(tensors("state")), tensors("batch"), {"lr": np.full(one, 0.01, np.float32)}
    vendor, cpu = backends.make("vendor", program), backends.make("cpu", program)
    before = {n: a.copy() for n, a in state.items()}
    for executor in (vendor, cpu):
        executor.load(state)
    for _ in range(3):
        close(vendor.step(batch, scalars), cpu.step(batch, scalars), 1e-2 if narrow else 1e-5)
        if not narrow:
            close(vendor.state(), cpu.state(), 1e-6)
        else:
            np.testing.assert_array_equal(vendor.state()["old"], cpu.state()["old"])
    assert all((state[n] == a).all() for n, a in before.items())


@pytest.mark.parametrize("n", [7, 1 << 17])
def test_a_state_that_is_read_again_is_not_written_over_before(n: int) -> None:
    """By a later instruction, under another name, for another output: sums and products alone, so bit for bit."""
    g = ProgramBuilder()
    a, b, c, d = (g.input("state", name, TensorType(Dtype.f32, (n,))) for name in "abcd")
    x = g.input("batch", "x", TensorType(Dtype.f32, (n,)))
    later = g.maps(lambda a, b, x: (a + x, a * 2.0 + b, b), a, b, x)
    twice = g.maps(lambda c, x, again, d: (c + x, (again * 3.0 - d) * x), c, x, c, d)
    for name, value in zip("abcd", (*later[:2], *twice), strict=True):
        g.output("state", name, value)
    g.output("metric", "b", later[2])
    program = g.build()
    executors = [backends.make(name, program) for name in ("cpu", "vendor")]
    for executor in executors:
        executor.load(everyday(program, "state", 0))
        for i in range(3):
            executor.step(everyday(program, "batch", i), {})
    one, other = ({n: a.tobytes() for n, a in e.state().items()} for e in executors)
    assert one == other


def test_a_nan_leaves_as_the_canonical_one() -> None:
    for dtype, words, canonical in ((Dtype.f32, np.uint32, 0x7FC00000), (Dtype.bf16, np.uint16, 0x7FC0)):
        g = ProgramBuilder()
        a = g.input("state", "a", TensorType(dtype, (2,)))
        g.output("state", "a", a)
        g.output("metric", "b", g.reshape(a, (2, 1)))
        executor = backends.make("vendor", g.build())
        odd = np.array([np.iinfo(words).max, 1], words).view(np.float32 if dtype is Dtype.f32 else np.uint16)
        executor.load({"a": odd})
        found = executor.step({}, {})["b"], executor.state()["a"]
        for array in found:
            assert array.reshape(-1).view(words).tolist() == [canonical, 1]
        assert odd.view(words)[0] == np.iinfo(words).max  # the caller's array is as it was


# ---- what is found again in programs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ELEMENTARY, *COMPOSED])
def test_a_published_function_inside_of_a_program_is_one_call(name: str) -> None:
    published = {**ELEMENTARY, **COMPOSED}[name]
    found = lift(published)
    assert [i.op for i in found.code] == [name]
    assert found.code[0].args == tuple(range(len(published.inputs)))


def test_functions_of_functions_are_found_and_what_is_nearly_one_is_not() -> None:
    scalar = trace(lambda x, y: exp(exp(x) * y) + exp(y), F, F)
    assert sorted(i.op for i in lift(scalar).code) == ["add.f32", "exp", "exp", "exp", "mul.f32"]
    other = ELEMENTARY["exp"]
    for n, c in enumerate(other.constants):  # one coefficient, one bit off
        if c.reg is F and 0 < c.bits & 0x7FFFFFFF < 0x7F800000:
            changed = sorted({*other.constants[:n], type(c)(c.reg, c.bits ^ 1), *other.constants[n + 1 :]},
                             key=lambda c: (c.reg, c.bits))  # fmt: skip
            if len(changed) == len(other.constants) and changed.index(type(c)(c.reg, c.bits ^ 1)) == n:
                near = type(other)(other.inputs, tuple(changed), other.code, other.outputs)
                assert len(lift(near).code) > 1


def step_of(model: nn.Module, x: torch.Tensor) -> Captured:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return trace_step(model, lambda m, batch: m(batch[0]).square().mean(), optimizer, (x,), loss_takes_model=True)


def convolutions(program: Program) -> int:
    finder, operand = Finder(program), rounding("fp32")
    return sum(find(finder, first, operand) is not None for first in program.first_value)


CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Tanh(), nn.Conv1d(4, 2, 2)), (2, 3, 9), 5),
    "padded": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=2)), (2, 3, 6, 5), 5),
    "strided": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2, 1)), (2, 3, 8, 9), 5),
    "shortcut": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1, 2)), (2, 3, 8, 8), 5),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, dilation=2)), (2, 3, 9, 9), 5),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.Conv2d(6, 6, 3, 2, 1, groups=6)),
                (2, 4, 8, 8), 5),
    "transposed": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 5, 3, 2, 1, 1)), (2, 3, 5, 5), 4),
    "3d": (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.Conv3d(3, 2, 2, 2)), (2, 2, 5, 4, 5), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_and_their_gradients_are_one_call_each(name: str) -> None:
    torch.manual_seed(0)
    build, shape, calls = CONVOLUTIONS[name]
    x = torch.randn(shape)
    made = step_of(build(), x)
    assert convolutions(made.program) >= calls
    batch = made.batch_arrays((x,))
    results = []
    for executor in (
        backends.make("cpu", made.program),
        backends.make("vendor", made.program),
        Executor(made.program, VendorName(), keep=True),
    ):
        executor.load(made.state)
        metrics = executor.step(batch, made.schedule(1))
        results.append({**metrics, **{n: a.copy() for n, a in executor.state().items()}})
    close(results[1], results[0], 1e-6)
    assert {n: a.tobytes() for n, a in results[2].items()} == {n: a.tobytes() for n, a in results[1].items()}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_value_of_a_step_with_convolutions_is_within_its_bounds(name: str) -> None:
    torch.manual_seed(0)
    build, shape, _ = CONVOLUTIONS[name]
    x = torch.randn(shape)
    made = step_of(build(), x)
    given = {"state": made.state, "batch": made.batch_arrays((x,)), "scalar": made.schedule(1)}
    executor = Executor(made.program, VendorName(), keep=True)
    executor.load(made.state)
    executor.step(given["batch"], given["scalar"])
    assert audit(made.program, [given[i.role][i.name] for i in made.program.inputs], executor.value) is None


@pytest.mark.parametrize("name", ["mlp", "resnet20", "gpt", "lstm"])
def test_keeping_every_value_changes_no_bit(name: str) -> None:
    made, batch = captured(name)
    executors = [Executor(made.program, VendorName(), keep=keep) for keep in (False, True)]
    for executor in executors:
        executor.load(made.state)
        for s in (1, 2):
            executor.step(batch, made.schedule(s))
    one, other = ({n: a.tobytes() for n, a in e.state().items()} for e in executors)
    assert one == other


# ---- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "resnet20", "gpt", "lstm"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_five_steps_have_the_losses_of_the_cpu_backend(name: str, precision: str, tolerance: float) -> None:
    made, batch = captured(name)
    losses = []
    for backend in ("cpu", f"vendor:cpu:{precision}"):
        executor = backends.make(backend, made.program)
        executor.load(made.state)
        losses.append([float(executor.step(batch, made.schedule(s))["loss"]) for s in range(1, 6)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)
    assert losses[1][-1] < losses[1][0]


def test_bf16_rounds_the_operands_and_nothing_else() -> None:
    g = ProgramBuilder()
    a, b = (g.input("batch", n, TensorType(Dtype.f32, (1, 1))) for n in "ab")
    g.output("metric", "y", g.dot(a, b))
    g.output("metric", "z", g.map(lambda a, b: a * b, a, b))
    odd = np.array([[1 + 2**-7 + 2**-12]], np.float32)  # the last bit is below bf16's
    kept = 1 + 2**-7
    found = backends.evaluate(g.build(), {"a": odd, "b": odd}, "vendor:cpu:bf16")
    assert found["y"].item() == np.float32(kept * kept)  # 15 significant bits: f32, not bf16
    assert found["z"].item() == np.float32(odd.item() ** 2)


@pytest.mark.parametrize(("device", "precision", "wanted"), [
    ("cuda", "tf32", "tf32"), ("cuda", "bf16", "tf32"), ("cuda", "fp32", "ieee"), ("cpu", "fp32", "ieee"),
])  # fmt: skip
def test_switches_of_torch_hold_inside_and_are_as_before_afterwards(device: str, precision: str, wanted: str) -> None:
    def precisions() -> list[str]:
        b = torch.backends
        return [m.fp32_precision for m in (b.cuda.matmul, b.cudnn.conv, b.mkldnn.matmul, b.mkldnn.conv)]  # type: ignore[attr-defined]

    for given_before in ("highest", "medium"):
        torch.set_float32_matmul_precision(given_before)
        try:
            before = precisions()
            with switches(torch.device(device), precision):
                assert precisions() == [wanted, wanted, "ieee", "ieee"]
            with pytest.raises(KeyError), switches(torch.device(device), precision):
                raise KeyError
            assert precisions() == before
            assert torch.get_float32_matmul_precision() == given_before
        finally:
            torch.set_float32_matmul_precision("highest")


def test_a_step_leaves_no_mode_behind() -> None:
    executor = backends.make("vendor", two_layer_step())
    executor.load(everyday(executor.program, "state", 0))
    threads = torch.get_num_threads()
    executor.step(everyday(executor.program, "batch", 0), {"lr": np.float32(1e-3)})
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == threads
    assert float(torch.tensor(2.0**-149) * 1.0) != 0  # subnormals are not flushed


def test_a_run_records_what_computed_it(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "linear-1" / "task"
    run = solve(golden, tmp_path / "run", backend="vendor:cpu:bf16")
    assert run.finished
    record = {"backend": "vendor:cpu:bf16", **environment(VendorName("cpu", "bf16"))}
    assert record == {
        "backend": "vendor:cpu:bf16", "device": "cpu", "precision": "bf16",
        "threads": str(torch.get_num_threads()), "torch": torch.__version__,
    }  # fmt: skip
    assert record.items() <= run.header.environment.items()


def test_the_command_line_takes_the_names_and_says_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_machine_arguments(parser)
    assert parser.parse_args(["--backend", "vendor:cuda:1:tf32"]).backend == "vendor:cuda:1:tf32"
    with pytest.raises(SystemExit):
        parser.parse_args(["--backend", "vendor:cpu:tf32"])
    assert "tf32 exists only on cuda" in capsys.readouterr().err

"""Training on the engine follows stock PyTorch, and both backends give the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gensyn_verify import backends
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import compile, trace_step
from tests.frontend.models import LARGER_TASKS, OPTIMIZERS, TASKS, Optimizer, Task

STEPS = 100


def train(task: Task, optimizer: Optimizer, steps: int) -> tuple[nn.Module, torch.optim.Optimizer, list[float]]:
    """Stock PyTorch."""
    model = task.build()
    stock = optimizer(model.parameters())
    return model, stock, train_on(model, task, stock, task.batches(steps))


def train_on(model: nn.Module, task: Task, optimizer: torch.optim.Optimizer, batches: list[Any]) -> list[float]:
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = task.loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def on_both_backends(captured: Any, batches: list[Any]) -> list[list[Any]]:
    """The metrics of every step, native and defined: all of them, and the states after it, have the same bits."""
    found = []
    runs = [backends.make(name, captured.program) for name in ("cpu", "reference")]
    for run in runs:
        run.load(captured.state)
    for n, batch in enumerate(batches, 1):
        metrics = [run.step(captured.batch_arrays(batch), captured.schedule(n)) for run in runs]
        for native, definition in (metrics, [run.state() for run in runs]):
            assert native.keys() == definition.keys()
            assert all(native[name].tobytes() == definition[name].tobytes() for name in definition)
        found.append(metrics)
    return found


def assert_same_tensors(found: Any, wanted: Any, rtol: float) -> None:
    """Two state dicts: same structure, numbers within `rtol` of the largest one of a tensor."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_same_tensors(found[key], wanted[key], rtol)
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            assert_same_tensors(f, w, rtol)
    elif isinstance(wanted, torch.Tensor):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        scale = wanted.abs().max().item() if wanted.numel() else 0.0
        torch.testing.assert_close(found, wanted, rtol=0, atol=rtol * scale)
    else:
        assert found == wanted


@pytest.mark.parametrize(
    ("name", "optimizer"), [*itertools.product(TASKS, OPTIMIZERS), *((name, "adamw") for name in LARGER_TASKS)]
)
def test_loss_follows_pytorch_over_100_steps(name: str, optimizer: str) -> None:
    task = (TASKS | LARGER_TASKS)[name]
    _, _, wanted = train(task, OPTIMIZERS[optimizer], STEPS)
    model = task.build()
    step = compile(model, task.loss, OPTIMIZERS[optimizer](model.parameters()))
    found = [step(batch).item() for batch in task.batches(STEPS)]
    assert np.mean(wanted[-10:]) < wanted[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd-dampening", "adam-amsgrad", "adamw"])
@pytest.mark.parametrize("task", TASKS)
def test_backends_give_the_same_bits(task: str, optimizer: str) -> None:
    model = TASKS[task].build()
    batches = TASKS[task].batches(3)
    captured = trace_step(model, TASKS[task].loss, OPTIMIZERS[optimizer](model.parameters()), batches[0])
    assert all("loss" in native for native, _ in on_both_backends(captured, batches))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_module_and_optimizer_hold_what_pytorch_would_leave(optimizer: str) -> None:
    task = TASKS["mlp"]
    wanted, stock, _ = train(task, OPTIMIZERS[optimizer], 5)
    model = task.build()
    own = OPTIMIZERS[optimizer](model.parameters())
    step = compile(model, task.loss, own)
    for batch in task.batches(5):
        step(batch)
    assert_same_tensors(dict(model.state_dict()), dict(wanted.state_dict()), 1e-5)
    assert_same_tensors(own.state_dict(), stock.state_dict(), 1e-5)


def test_bfloat16_parameters_follow_pytorch() -> None:
    task, losses = TASKS["regression"], []
    for engine in (False, True):
        model = task.build().to(torch.bfloat16)
        own = Task(task.model, lambda z, y: (z.float() - y).square().mean(), task.batch)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        step = compile(model, own.loss, optimizer)
        batches = [(x.to(torch.bfloat16), y) for x, y in task.batches(20)]
        losses.append([step(b).item() for b in batches] if engine else train_on(model, own, optimizer, batches))
        assert all(p.dtype is torch.bfloat16 for p in model.parameters())
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_warm_optimizer_is_continued(optimizer: str) -> None:
    task = TASKS["mlp"]
    batches = task.batches(20)
    _, _, wanted = train(task, OPTIMIZERS[optimizer], 20)
    model = task.build()
    own = OPTIMIZERS[optimizer](model.parameters())
    train_on(model, task, own, batches[:7])
    step = compile(model, task.loss, own)
    found = [step(batch).item() for batch in batches[7:15]]
    found += train_on(model, task, own, batches[15:])  # and PyTorch can go on from the engine's state
    np.testing.assert_allclose(found, wanted[7:], rtol=1e-5)


def test_first_momentum_buffer_is_the_gradient_bit_for_bit() -> None:
    """A linear loss has the input as its gradient, which holds zeros of both signs and a subnormal."""
    gradient = torch.tensor([0.0, -0.0, 1e-45, -3.5])
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.5)
    step = compile(model, lambda m, g: (m.weight * g).sum(), optimizer, loss_takes_model=True)
    step(gradient)
    buffer = optimizer.state[model.weight]["momentum_buffer"]
    assert buffer.numpy().tobytes() == gradient.numpy().tobytes()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD([{"params": p[:2], "lr": 0.1}, {"params": p[2:], "momentum": 0.9}], lr=0.02),
        lambda p: torch.optim.AdamW(
            [{"params": p[:1], "weight_decay": 0.0}, {"params": p[1:]}], lr=1e-3, maximize=True
        ),
        lambda p: torch.optim.Adam([{"params": p[:1], "betas": (0.5, 0.9)}, {"params": p[2:]}], lr=1e-3),
    ],
    ids=["sgd", "adamw-maximize", "adam-some-parameters"],
)
def test_parameter_groups_keep_their_own_settings(make: Callable[..., torch.optim.Optimizer]) -> None:
    task = TASKS["mlp"]
    grouped: Optimizer = lambda p: make(list(p))  # noqa: E731
    wanted, _, losses = train(task, grouped, 20)
    model = task.build()
    step = compile(model, task.loss, grouped(model.parameters()))
    np.testing.assert_allclose([step(b).item() for b in task.batches(20)], losses, rtol=1e-5)
    assert_same_tensors(dict(model.state_dict()), dict(wanted.state_dict()), 1e-5)


@pytest.mark.filterwarnings("error")
def test_torch_schedulers_set_the_rate_of_a_compiled_step() -> None:
    task, losses = TASKS["mlp"], []
    for engine in (False, True):
        model = task.build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        step = compile(model, task.loss, optimizer)
        found = []
        for batch in task.batches(12):
            found += [step(batch).item()] if engine else train_on(model, task, optimizer, [batch])
            scheduler.step()
        losses.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_schedule_rounds_binary64_once() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    captured = trace_step(model, nn.MSELoss(), optimizer, (torch.ones(1, 2), torch.ones(1, 2)), lr=lambda n: 0.01 / n)
    scalars = captured.schedule(3)
    assert scalars.keys() == captured.program.inputs_of("scalar").keys()
    assert all((a.dtype, a.shape) == (np.float32, ()) for a in scalars.values())
    assert scalars["group0.step_size"] == np.float32((0.01 / 3) / (1 - 0.9**3))
    assert scalars["group0.second_moment_scale"] == np.float32((1 - 0.999**3) ** 0.5)
    assert scalars["group0.weight_share"] == np.float32(1 - (0.01 / 3) * 0.1)
    with pytest.raises(CaptureError, match="counted from 1"):
        captured.schedule(0)


def test_writing_into_the_module_between_steps_is_seen() -> None:
    task = TASKS["mlp"]
    model, other = task.build(), task.build()
    optimizer = torch.optim.Adam(model.parameters())
    step = compile(model, task.loss, optimizer)
    stock = torch.optim.Adam(other.parameters())
    first, second, third = task.batches(3)
    step(first)
    train_on(other, task, stock, [first])
    for m, o in ((model, optimizer), (other, stock)):
        m[0].bias.data.fill_(0.25)  # type: ignore[index,operator,union-attr]  # leaves no trace but the values
        o.state[m[2].weight]["exp_avg"].zero_()  # type: ignore[index,union-attr]
    wanted = train_on(other, task, stock, [second, third])
    np.testing.assert_allclose([step(second).item(), step(third).item()], wanted, rtol=1e-5)
    assert (step.steps, step.reloads) == (3, 1)


def test_listeners_see_every_step() -> None:
    task = TASKS["mlp"]
    model = task.build()
    step = compile(model, task.loss, torch.optim.SGD(model.parameters(), lr=0.1))
    seen = []
    step.listeners.append(
        lambda n, batch, scalars, state, metrics: seen.append(
            (n, sorted(batch), sorted(scalars), int(state["step"]), float(metrics["loss"]))
        )
    )
    losses = [step(batch).item() for batch in task.batches(2)]
    assert seen == [(n, ["x", "y"], ["group0.learning_rate"], n, losses[n - 1]) for n in (1, 2)]


def test_state_goes_out_and_back_in() -> None:
    task = TASKS["cnn"]
    model = task.build()
    optimizer = torch.optim.AdamW(model.parameters())
    captured = trace_step(model, task.loss, optimizer, task.batches(1)[0])
    run = backends.make("cpu", captured.program)
    run.load(captured.state)
    for n, batch in enumerate(task.batches(3), 1):
        run.step(captured.batch_arrays(batch), captured.schedule(n))
    state = {name: a.copy() for name, a in run.state().items()}
    captured.store(state)
    found = captured.read_state(3)
    assert found.keys() == state.keys()
    assert all(found[name].tobytes() == state[name].tobytes() for name in state)
    fresh = task.build(seed=5)
    captured.load_state(fresh, state)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True))
    again = trace_step(model, task.loss, optimizer, task.batches(1)[0])  # a second capture begins where the first ended
    assert all(again.state[name].tobytes() == state[name].tobytes() for name in state if name != "step")

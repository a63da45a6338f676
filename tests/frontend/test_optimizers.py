"""Every optimizer follows stock PyTorch, keeps its state where torch keeps it, and is the same on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import compile, trace_step
from gensyn_verify.frontend.optimizers import Family, Settings, Slot, elementwise, register
from tests.frontend.models import TASKS, Optimizer
from tests.frontend.test_training import assert_same_tensors, on_both_backends, train, train_on

OPTIMIZERS: dict[str, Optimizer] = {
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-3),
    "rmsprop-centered": lambda p: optim.RMSprop(p, lr=1e-3, centered=True, momentum=0.9, weight_decay=1e-2, eps=1e-3),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.02, lr_decay=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5, eps=1e-4, weight_decay=1e-3),
    "adamax": lambda p: optim.Adamax(p, lr=2e-3, weight_decay=1e-2),
    "nadam": lambda p: optim.NAdam(p, lr=2e-3, weight_decay=1e-2),
    "nadamw": lambda p: optim.NAdam(p, lr=2e-3, weight_decay=1e-1, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p, lr=2e-3, weight_decay=1e-2),
    "radamw-maximize": lambda p: optim.RAdam(p, lr=1e-4, weight_decay=0.1, decoupled_weight_decay=True, maximize=True),
    "asgd": lambda p: optim.ASGD(p, lr=0.05, lambd=1e-3, t0=40, weight_decay=1e-3),
    "rprop": lambda p: optim.Rprop(p, lr=1e-4, step_sizes=(1e-6, 1e-2)),
    "adafactor": lambda p: optim.Adafactor(p, lr=2e-2, weight_decay=1e-2),
    "adafactor-maximize": lambda p: optim.Adafactor(p, lr=1e-4, eps=(1e-4, 1e-3), d=2.0, maximize=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loss_follows_pytorch_over_100_steps(name: str) -> None:
    task, make = TASKS["mlp"], OPTIMIZERS[name]
    wanted, stock, losses = train(task, make, 100)
    model = task.build()
    own = make(model.parameters())
    step = compile(model, task.loss, own)
    found = [step(batch).item() for batch in task.batches(100)]
    assert np.mean(losses[-10:]) != pytest.approx(losses[0], rel=0.01)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert_same_tensors(dict(model.state_dict()), dict(wanted.state_dict()), 1e-3)
    assert_same_tensors(own.state_dict(), stock.state_dict(), 1e-2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_warm_optimizer_is_continued(name: str) -> None:
    task, make = TASKS["regression"], OPTIMIZERS[name]
    batches = task.batches(12)
    _, _, wanted = train(task, make, 12)
    model = task.build()
    own = make(model.parameters())
    train_on(model, task, own, batches[:4])
    step = compile(model, task.loss, own)
    found = [step(batch).item() for batch in batches[4:8]]
    found += train_on(model, task, own, batches[8:])  # and PyTorch can go on from the engine's state
    np.testing.assert_allclose(found, wanted[4:], rtol=1e-5)


def matrices_and_the_rest(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    own = list(model.parameters())
    return [p for p in own if p.dim() == 2], [p for p in own if p.dim() != 2]


def two_optimizers(model: nn.Module, **options: Any) -> list[torch.optim.Optimizer]:
    matrices, rest = matrices_and_the_rest(model)
    return [optim.Muon(matrices, lr=5e-3, **options), optim.AdamW(rest, lr=2e-3)]


@pytest.mark.parametrize("options", [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}])
def test_muon_beside_adamw_follows_pytorch(options: dict[str, Any]) -> None:
    """Muon's iterations are in bf16, so two runs agree as far as bf16 does."""
    task = TASKS["mlp"]
    stock = task.build()
    pair = two_optimizers(stock, **options)
    wanted = []
    for x, y in task.batches(60):
        loss = task.loss(stock(x), y)
        stock.zero_grad()
        loss.backward()
        for optimizer in pair:
            optimizer.step()
        wanted.append(loss.item())
    model = task.build()
    own = two_optimizers(model, **options)
    step = compile(model, task.loss, own)
    found = [step(batch).item() for batch in task.batches(60)]
    np.testing.assert_allclose(found[:5], wanted[:5], rtol=1e-3)
    np.testing.assert_allclose(found, wanted, rtol=0.02)
    assert wanted[-1] < 0.8 * wanted[0]
    for mine, torchs in zip(own, pair, strict=True):
        assert_same_tensors(mine.state_dict(), torchs.state_dict(), 0.1)


@pytest.mark.parametrize("name", ["adafactor", "nadam", "rmsprop-centered", "asgd", "muon"])
def test_backends_give_the_same_bits(name: str) -> None:
    task = TASKS["mlp"]
    model = task.build()
    optimizer = two_optimizers(model) if name == "muon" else OPTIMIZERS[name](model.parameters())
    batches = task.batches(2)
    captured = trace_step(model, task.loss, optimizer, batches[0])
    assert len(on_both_backends(captured, batches)) == len(batches)


@pytest.mark.parametrize("name", ["adagrad", "nadam"])
def test_a_state_before_the_first_update_is_one_that_pytorch_begins_from(name: str) -> None:
    """Also where the optimizer had filled its slots already, as some do when they are made."""
    task, make = TASKS["mlp"], OPTIMIZERS[name]
    batches = task.batches(4)
    _, _, wanted = train(task, make, 4)
    model = task.build()
    own = make(model.parameters())
    captured = trace_step(model, task.loss, own, batches[0])
    train_on(model, task, own, batches[:2])
    captured.store(captured.state)
    assert {float(s["step"]) for s in own.state.values()} == {0.0}
    np.testing.assert_allclose(train_on(model, task, own, batches), wanted, rtol=1e-6)
    own.state.clear()
    captured.store(captured.state)
    assert not own.state


def test_muon_refuses_what_is_no_matrix() -> None:
    model = TASKS["mlp"].build()
    optimizer = optim.Muon([p for p in model.parameters() if p.dim() == 2])
    bias = next(p for p in model.parameters() if p.dim() == 1)
    optimizer.param_groups[0]["params"].append(bias)
    with pytest.raises(CaptureError, match=r"Muon trains matrices, found a parameter of shape \[32\]"):
        trace_step(model, nn.CrossEntropyLoss(), optimizer, TASKS["mlp"].batches(1)[0])


def test_a_parameter_in_two_optimizers_is_refused() -> None:
    model = TASKS["mlp"].build()
    pair = [optim.SGD(model.parameters(), lr=0.1), optim.Adam(list(model.parameters())[:1])]
    with pytest.raises(CaptureError, match=r"'0\.weight', is trained by another group already"):
        trace_step(model, nn.CrossEntropyLoss(), pair, TASKS["mlp"].batches(1)[0])


# ---- an optimizer of another package -----------------------------------------------------------------------------


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023: the sign of an interpolated momentum."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * average.lerp(p.grad, 1 - beta1).sign())
                average.lerp_(p.grad, 1 - beta2)


@elementwise
def lion_update(settings: Settings, x: Any, p: Any, g: Any, average: Any) -> Any:
    b = p.builder
    direction = b.fma(x["share1"], g - average, average)
    sign = b.select(direction > 0.0, 1.0, b.select(direction < 0.0, -1.0, direction))
    p = b.fma(-x["lr"], sign, p * x["weight_share"])
    return p, b.fma(x["share2"], g - average, average)


LION = Family(
    options=frozenset({"betas", "weight_decay"}),
    slots=lambda settings, shape: {"exp_avg": Slot()},
    numbers=lambda settings, n: {"lr": settings["lr"], "weight_share": 1 - settings["lr"] * settings["weight_decay"]},
    constants=lambda settings: {"share1": 1 - settings["betas"][0], "share2": 1 - settings["betas"][1]},
    update=lion_update,
    counted=False,
)


def test_a_registered_optimizer_follows_its_own_class(monkeypatch: pytest.MonkeyPatch) -> None:
    make: Optimizer = lambda p: Lion(p, lr=1e-3, weight_decay=0.1)  # noqa: E731
    task = TASKS["mlp"]
    with pytest.raises(CaptureError, match=r"Lion is not supported.*gensyn_verify\.frontend\.optimizers\.register"):
        trace_step(model := task.build(), task.loss, make(model.parameters()), task.batches(1)[0])
    monkeypatch.setattr("gensyn_verify.frontend.optimizers.update.FAMILIES", {})
    register(Lion, LION)
    _, stock, losses = train(task, make, 100)
    model = task.build()
    own = make(model.parameters())
    step = compile(model, task.loss, own)
    np.testing.assert_allclose([step(b).item() for b in task.batches(100)], losses, rtol=1e-4)
    assert_same_tensors(own.state_dict(), stock.state_dict(), 1e-3)
    with pytest.raises(CaptureError, match=r"derived from torch\.optim\.Optimizer"):
        register(nn.Module, LION)  # type: ignore[arg-type]

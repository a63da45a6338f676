"""Learning-rate schedulers: the committed table is what a PyTorch loop would use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.optim import swa_utils

import gensyn_verify as gv
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import compile, trace_step
from tests.frontend.models import TASKS
from tests.frontend.test_training import assert_same_tensors

STEPS = 24
Make = Callable[[torch.optim.Optimizer], Any]

SCHEDULERS: dict[str, Make] = {
    "step": lambda o: schedulers.StepLR(o, 7, 0.5),
    "multistep": lambda o: schedulers.MultiStepLR(o, [4, 15], 0.3),
    "exponential": lambda o: schedulers.ExponentialLR(o, 0.9),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 10, 1e-4),
    "warm-restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 5, 2),
    "one-cycle": lambda o: schedulers.OneCycleLR(o, 0.02, total_steps=STEPS, three_phase=True),
    "one-cycle-lr-only": lambda o: schedulers.OneCycleLR(o, 0.02, total_steps=STEPS, cycle_momentum=False),
    "linear": lambda o: schedulers.LinearLR(o, 0.1, 1.0, 8),
    "polynomial": lambda o: schedulers.PolynomialLR(o, STEPS, 2.0),
    "lambda": lambda o: schedulers.LambdaLR(o, lambda n: 1 / (1 + n)),
    "multiplicative": lambda o: schedulers.MultiplicativeLR(o, lambda n: 0.95),
    "constant": lambda o: schedulers.ConstantLR(o, 0.2, 5),
    "cyclic": lambda o: schedulers.CyclicLR(o, 1e-3, 2e-2, 6, mode="exp_range", gamma=0.99),
    "sequential": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, 1.0, 5), schedulers.CosineAnnealingLR(o, 15)], [5]
    ),
    "averaging": lambda o: swa_utils.SWALR(o, 2e-3, 6),
    "chained": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.1, 3), schedulers.ExponentialLR(o, 0.9)]
    ),
}


def two_groups(kind: type[torch.optim.Optimizer], model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    own = list(model.parameters())
    return kind([{"params": own[:2]}, {"params": own[2:], "lr": 5e-3}], lr=1e-2, **options)


def stock_run(make: Make, optimizer_of: Callable[[nn.Module], torch.optim.Optimizer]) -> tuple[nn.Module, list[float]]:
    task = TASKS["mlp"]
    model = task.build()
    optimizer = optimizer_of(model)
    scheduler = make(optimizer)
    losses = []
    for x, y in task.batches(STEPS):
        optimizer.zero_grad()
        loss = task.loss(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "sgd") for name in SCHEDULERS), *((n, "adam") for n in ("step", "one-cycle", "cyclic"))]
)
def test_a_table_of_scalars_and_a_live_scheduler_both_follow_pytorch(name: str, kind: str) -> None:
    def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
        if kind == "sgd":
            return two_groups(torch.optim.SGD, model, momentum=0.9)
        return two_groups(torch.optim.Adam, model, betas=(0.9, 0.99))

    task, make = TASKS["mlp"], SCHEDULERS[name]
    wanted, losses = stock_run(make, optimizer_of)
    model = task.build()
    optimizer = optimizer_of(model)
    scheduler = make(optimizer)
    batches = task.batches(STEPS)
    groups = copy.deepcopy([{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups])
    captured = trace_step(model, task.loss, optimizer, batches[0], scheduler=scheduler)
    table = [captured.schedule(n) for n in range(1, STEPS + 1)]
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == groups
    seen: list[Any] = []
    step = compile(model, task.loss, optimizer, scheduler=scheduler)
    step.listeners.append(lambda n, batch, scalars, *_: seen.append(scalars))
    np.testing.assert_allclose([step(b).item() for b in batches], losses, rtol=1e-4)
    assert_same_tensors(dict(model.state_dict()), dict(wanted.state_dict()), 1e-4)
    assert [{k: float(v) for k, v in s.items()} for s in seen] == [{k: float(v) for k, v in s.items()} for s in table]


def test_momentum_cycles_as_scalars_and_constants_stay_literals() -> None:
    task = TASKS["mlp"]
    model = task.build()
    names = {}
    for cycle in (False, True):
        optimizer = two_groups(torch.optim.AdamW, model)
        scheduler = schedulers.OneCycleLR(optimizer, 0.02, total_steps=STEPS, cycle_momentum=cycle)
        captured = trace_step(model, task.loss, optimizer, task.batches(1)[0], scheduler=scheduler)
        names[cycle] = {n.split(".")[1] for n in captured.program.inputs_of("scalar")}
    assert names[False] == {"step_size", "second_moment_scale", "weight_share"}
    assert names[True] == names[False] | {"beta1", "beta2", "gradient_share", "square_share", "eps"}


def test_a_scheduler_in_the_users_own_loop_may_cycle_momentum() -> None:
    task = TASKS["mlp"]
    make: Make = lambda o: schedulers.OneCycleLR(o, 0.02, total_steps=STEPS)  # noqa: E731
    _, losses = stock_run(make, lambda m: two_groups(torch.optim.SGD, m, momentum=0.9))
    model = task.build()
    optimizer = two_groups(torch.optim.SGD, model, momentum=0.9)
    scheduler = make(optimizer)
    step, found = compile(model, task.loss, optimizer), []
    for batch in task.batches(STEPS):
        found.append(step(batch).item())
        scheduler.step()
    np.testing.assert_allclose(found, losses, rtol=1e-4)


def test_a_scheduler_that_is_under_way_goes_on() -> None:
    task = TASKS["mlp"]
    model = task.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = schedulers.StepLR(optimizer, 2, 0.5)
    optimizer.step()
    scheduler.step()
    captured = trace_step(model, task.loss, optimizer, task.batches(1)[0], scheduler=scheduler)
    rates = [float(captured.schedule(n)["group0.learning_rate"]) for n in (4, 1, 2, 3)]
    assert rates == [0.25, 1.0, 0.5, 0.5]
    assert scheduler.last_epoch == 1


def test_every_optimizer_has_its_own_scheduler() -> None:
    task, losses = TASKS["mlp"], []
    for engine in (False, True):
        model = task.build()
        own = list(model.parameters())
        optimizers = [
            torch.optim.SGD(own[:2], lr=0.05, momentum=0.9),
            torch.optim.AdamW(own[2:], lr=torch.tensor(5e-3)),
        ]
        schedules = [schedulers.StepLR(optimizers[0], 3, 0.5), schedulers.CosineAnnealingLR(optimizers[1], 12)]
        step = compile(model, task.loss, optimizers, scheduler=schedules, clip_norm=1.0)
        found = []
        for x, y in task.batches(12):
            if engine:
                found.append(step((x, y)).item())
                continue
            model.zero_grad()
            loss = task.loss(model(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for one in (*optimizers, *schedules):
                one.step()
            found.append(loss.item())
        losses.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_plateau_works_in_a_loop_of_ones_own() -> None:
    task, losses = TASKS["mlp"], []
    for engine in (False, True):
        model = task.build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        scheduler = schedulers.ReduceLROnPlateau(optimizer, patience=0)
        step = compile(model, task.loss, optimizer)
        found = []
        for x, y in task.batches(15):
            if engine:
                loss = step((x, y))
            else:
                optimizer.zero_grad()
                loss = task.loss(model(x), y)
                loss.backward()
                optimizer.step()
            found.append(loss.item())
            scheduler.step(loss.item())
        losses.append(found)
        assert optimizer.param_groups[0]["lr"] < 0.5
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


class DecaySchedule(schedulers.LRScheduler):
    """Changes what a program holds as a literal."""

    def get_lr(self) -> list[float]:
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.1 * self.last_epoch
        return [float(group["lr"]) for group in self.optimizer.param_groups]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (schedulers.ReduceLROnPlateau, "depends on losses that nobody knows.*without scheduler="),
        (
            lambda o: schedulers.StepLR(torch.optim.SGD([torch.zeros(1)], lr=1.0), 3),
            "StepLR schedules another optimizer",
        ),
        (lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=3), "gives nothing for step 5: .*4"),
        (DecaySchedule, "the scheduler changes weight_decay"),
        (lambda o: 0.1, "is a torch.optim.lr_scheduler.LRScheduler, found float"),
        (lambda o: [0.1], "is a torch.optim.lr_scheduler.LRScheduler, found float"),
    ],
)
def test_schedulers_that_are_refused(make: Callable[..., Any], message: str, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
    data = torch.ones(8, 3), torch.ones(8, 2)
    with pytest.raises(CaptureError, match=message):
        gv.capture(
            model, nn.MSELoss(), optimizer, data, steps=6, batch_size=4, path=tmp_path / "t", scheduler=make(optimizer)
        )


def test_a_scheduler_reaches_the_committed_schedule(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    data = torch.ones(8, 3), torch.ones(8, 2)
    scheduler = schedulers.StepLR(optimizer, 2, 0.5)
    task = gv.capture(
        model, nn.MSELoss(), optimizer, data, steps=6, batch_size=4, path=tmp_path / "t", scheduler=scheduler
    )
    assert [float(task.scalars(n)["group0.learning_rate"]) for n in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]

"""Clipping, accumulation, averaged weights, parameter groups: side by side with the loop one writes in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import swa_utils

import gensyn_verify as gv
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import compile, load_state, trace_step
from tests.frontend.models import LARGER_TASKS, TASKS, Task, TiedWords, Transformer
from tests.frontend.test_training import assert_same_tensors, on_both_backends

STEPS = 100


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def stock_run(
    task: Task,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Any],
    *,
    accumulate: int = 1,
    before: Callable[[list[nn.Parameter]], Any] = lambda parameters: None,
    after: Callable[[], Any] = lambda: None,
) -> list[float]:
    """The usual loop; `before` and `after` the optimizer's step."""
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        total = 0.0
        for part in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True):
            loss = task.loss(model(part[0]), part[1]) / accumulate
            loss.backward()
            total += loss.item()
        before([p for p in model.parameters() if p.grad is not None])
        optimizer.step()
        after()
        losses.append(total)
    return losses


# ---- clipping ----------------------------------------------------------------------------------------------------


CLIPPING: dict[str, tuple[dict[str, float], Callable[..., Any]]] = {
    "norm": ({"clip_norm": 0.5}, lambda p: clip_grad_norm_(p, 0.5)),
    "norm-1": ({"clip_norm": 5.0, "norm_type": 1}, lambda p: clip_grad_norm_(p, 5.0, 1.0)),
    "norm-3": ({"clip_norm": 0.1, "norm_type": 3}, lambda p: clip_grad_norm_(p, 0.1, 3.0)),
    "norm-inf": ({"clip_norm": 0.02, "norm_type": math.inf}, lambda p: clip_grad_norm_(p, 0.02, math.inf)),
    "norm-out-of-reach": ({"clip_norm": 1e4}, lambda p: clip_grad_norm_(p, 1e4)),
    "value": ({"clip_value": 0.01}, lambda p: clip_grad_value_(p, 0.01)),
}


@pytest.mark.parametrize("name", CLIPPING)
def test_clipped_gradients_follow_pytorch(name: str) -> None:
    task = TASKS["mlp"]
    options, clip = CLIPPING[name]
    stock, model = task.build(), task.build()
    wanted = stock_run(task, stock, sgd(stock), task.batches(STEPS), before=clip)
    step = compile(model, task.loss, sgd(model), **options)
    np.testing.assert_allclose([step(b).item() for b in task.batches(STEPS)], wanted, rtol=1e-4)
    assert_same_tensors(dict(model.state_dict()), dict(stock.state_dict()), 1e-3)


class ManyScales(nn.Module):
    """More parameters than a node has inputs: so has their norm, and what stacks them."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ParameterList(nn.Parameter(torch.full((1,), 0.01 * (n % 7))) for n in range(2100))

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.cat(list(self.scales))


def test_the_norm_of_more_gradients_than_a_node_has_inputs_follows_pytorch() -> None:
    task = Task(ManyScales, F.mse_loss, lambda g: (torch.randn(4, 2100, generator=g), torch.randn(4, generator=g)))
    stock, model = task.build(), task.build()
    wanted = stock_run(task, stock, sgd(stock), task.batches(3), before=lambda p: clip_grad_norm_(p, 0.5))
    step = compile(model, task.loss, sgd(model), clip_norm=0.5)
    np.testing.assert_allclose([step(b).item() for b in task.batches(3)], wanted, rtol=1e-5)
    assert_same_tensors(dict(model.state_dict()), dict(stock.state_dict()), 1e-3)


@pytest.mark.parametrize("name", ["norm", "norm-inf"])
def test_a_norm_that_is_not_finite_spoils_what_pytorch_spoils(name: str) -> None:
    """One gradient is NaN or infinite: the scale is NaN or 0 for all."""
    options, clip = CLIPPING[name]
    for bad in (math.nan, math.inf):
        model, stock = (nn.Linear(2, 2, bias=False) for _ in range(2))
        stock.load_state_dict(model.state_dict())
        x, y = torch.tensor([[1.0, bad]]), torch.zeros(1, 2)
        loss = lambda z, y: (z * 0.5).sum()  # noqa: E731
        optimizer = torch.optim.SGD(stock.parameters(), lr=0.1)
        loss(stock(x), y).backward()
        clip(list(stock.parameters()))
        optimizer.step()
        compile(model, loss, torch.optim.SGD(model.parameters(), lr=0.1), **options)((x, y))
        torch.testing.assert_close(model.weight, stock.weight, equal_nan=True)


# ---- accumulation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_accumulated_microbatches_follow_pytorch(name: str) -> None:
    """In `residual` batch statistics are of microbatches, and pass from one to the next."""
    task = (TASKS | LARGER_TASKS)[name]
    stock, model = task.build(), task.build()
    steps = STEPS if name == "mlp" else 30
    wanted = stock_run(
        task, stock, adamw(stock), task.batches(steps), accumulate=4, before=lambda p: clip_grad_norm_(p, 1.0)
    )
    step = compile(model, task.loss, adamw(model), accumulate=4, clip_norm=1.0)
    np.testing.assert_allclose([step(b).item() for b in task.batches(steps)], wanted, rtol=1e-4)
    assert_same_tensors(dict(model.state_dict()), dict(stock.state_dict()), 1e-2)


@pytest.mark.parametrize(
    "options", [{"accumulate": 4, "clip_norm": 0.1, "ema": 0.9}, {"clip_norm": 0.1, "norm_type": 1}]
)
def test_backends_give_the_same_bits(options: dict[str, Any]) -> None:
    task = TASKS["mlp"]
    model = task.build()
    batches = task.batches(2)
    captured = trace_step(model, task.loss, adamw(model), batches[0], **options)
    assert len(on_both_backends(captured, batches)) == len(batches)


def test_every_microbatch_draws_its_own_dropout() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    model.scale = nn.Parameter(torch.ones(()))
    captured = trace_step(
        model,
        lambda m, x: (m(x) * m.scale).square().mean(),
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.ones(6, 100),
        loss_takes_model=True,
        accumulate=3,
    )
    assert sum(node.op.kind == "random" for node in captured.program.nodes) == 3


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.ones(6, 3), torch.ones(6, 2)), "accumulate=4 divides the rows.*'x': 6, 'y': 6"),
        ((torch.ones(8, 3), torch.ones(4, 2)), "'x': 8, 'y': 4"),
        ((torch.ones(8, 3), torch.ones(())), "'x': 8, 'y': 0"),
    ],
)
def test_batches_that_cannot_be_divided_are_refused(batch: Any, message: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(CaptureError, match=message):
        trace_step(model, nn.MSELoss(), sgd(model), batch, accumulate=4)


# ---- averaged weights --------------------------------------------------------------------------------------------


AVERAGES: dict[str, Callable[[nn.Module], Any]] = {
    "ema": lambda m: swa_utils.AveragedModel(m, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9)),
    "ema-fast": lambda m: swa_utils.AveragedModel(m, avg_fn=swa_utils.get_ema_avg_fn(0.3)),
    "equal": swa_utils.AveragedModel,
    "equal-named": lambda m: swa_utils.AveragedModel(m, avg_fn=swa_utils.get_swa_avg_fn()),
    "buffers": lambda m: swa_utils.AveragedModel(m, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.8), use_buffers=True),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averaged_weights_follow_pytorch(name: str) -> None:
    task, make = LARGER_TASKS["residual"], AVERAGES[name]
    stock, model = task.build(), task.build()
    stock_average, average = make(stock), make(model)
    stock_run(task, stock, adamw(stock), task.batches(12), after=lambda: stock_average.update_parameters(stock))
    step = compile(model, task.loss, adamw(model), ema=average)
    for batch in task.batches(12):
        step(batch)
    assert step.averaged is average
    assert step.reloads == 0
    assert_same_tensors(dict(average.state_dict()), dict(stock_average.state_dict()), 1e-3)
    assert int(average.n_averaged) == 12


def test_a_decay_makes_an_averaged_model_and_a_warm_one_goes_on() -> None:
    task = TASKS["mlp"]
    stock = task.build()
    stock_average = AVERAGES["ema"](stock)
    optimizer = sgd(stock)
    update = lambda: stock_average.update_parameters(stock)  # noqa: E731
    stock_run(task, stock, optimizer, task.batches(10), after=update)
    model = task.build()
    own = sgd(model)
    first = compile(model, task.loss, own, ema=0.9)
    for batch in task.batches(10)[:4]:
        first(batch)
    second = compile(model, task.loss, own, ema=first.averaged)
    for batch in task.batches(10)[4:]:
        second(batch)
    assert second.averaged is first.averaged
    assert_same_tensors(dict(second.averaged.state_dict()), dict(stock_average.state_dict()), 1e-4)
    x = task.batches(1)[0][0]
    torch.testing.assert_close(second.averaged(x), stock_average(x), rtol=1e-4, atol=1e-4)


def test_averages_are_committed_state_and_come_back_from_a_run(tmp_path: Path) -> None:
    task = LARGER_TASKS["residual"]
    batches = task.batches(4)
    data = tuple(torch.cat(part) for part in zip(*batches, strict=True))
    model = task.build()
    bundle = gv.capture(
        model, task.loss, adamw(model), data, steps=5, batch_size=16, path=tmp_path / "task", ema=0.5, accumulate=2
    )
    assert "ema.module.stem.0.weight" in bundle.state
    assert "ema.n_averaged" in bundle.state
    run = gv.solve(bundle, tmp_path / "run")
    assert gv.replay(run).verdict is gv.Verdict.VERIFIED
    fresh = task.build(seed=5)
    average = swa_utils.AveragedModel(fresh)
    load_state(run.checkpoint(), fresh, average)
    stock = task.build()
    wanted = swa_utils.AveragedModel(stock, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    seen = [{n: torch.from_numpy(a) for n, a in bundle.batch(step).items()} for step in range(5)]
    pairs = [(b["x"], b["y"].long()) for b in seen]
    stock_run(task, stock, adamw(stock), pairs, accumulate=2, after=lambda: wanted.update_parameters(stock))
    assert_same_tensors(dict(average.state_dict()), dict(wanted.state_dict()), 1e-3)
    assert_same_tensors(dict(fresh.state_dict()), dict(stock.state_dict()), 1e-3)
    plain = trace_step(model, task.loss, adamw(model), batches[0])
    with pytest.raises(CaptureError, match="the state has no averaged weights"):
        load_state(plain.state, fresh, average)


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        (1.5, "a decay from 0 to 1"),
        ("slow", "a decay from 0 to 1"),
        (swa_utils.AveragedModel(nn.Linear(7, 2)), "is not one of this model"),
        (swa_utils.AveragedModel(nn.Linear(3, 2), avg_fn=lambda a, p, n: p), "none of torch's"),
    ],
)
def test_averages_that_are_refused(ema: Any, message: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(CaptureError, match=message):
        trace_step(model, nn.MSELoss(), sgd(model), (torch.ones(4, 3), torch.ones(4, 2)), ema=ema)


# ---- what the optimizer trains -----------------------------------------------------------------------------------


def test_no_decay_groups_for_biases_and_norms() -> None:
    task = LARGER_TASKS["transformer"]

    def grouped(model: nn.Module) -> torch.optim.Optimizer:
        decayed = [p for p in model.parameters() if p.dim() > 1]
        plain = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": 0.2}, {"params": plain, "weight_decay": 0.0, "lr": 1e-3}]
        return torch.optim.AdamW(groups, lr=2e-3)

    stock, model = task.build(), task.build()
    wanted = stock_run(task, stock, grouped(stock), task.batches(40))
    step = compile(model, task.loss, grouped(model))
    np.testing.assert_allclose([step(b).item() for b in task.batches(40)], wanted, rtol=1e-4)
    assert step.captured is not None
    assert "group0.weight_share" in step.captured.program.inputs_of("scalar")
    assert "group1.weight_share" not in step.captured.program.inputs_of("scalar")


class LowRank(nn.Module):
    """A frozen linear layer and an adapter of rank 2 beside it, written by hand."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, base.in_features) / 4)
        self.up = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.down), self.up)  # type: ignore[no-any-return]


def adapted() -> nn.Module:
    model = Transformer()
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    model.layer.linear1, model.layer.linear2 = LowRank(model.layer.linear1), LowRank(model.layer.linear2)
    model.eval()  # the encoder layer's fast path needs plain linear layers and is off in training alone
    return model.train()


@pytest.mark.parametrize("trained_only", [True, False])
def test_adapters_train_and_the_frozen_rest_stays(trained_only: bool) -> None:
    task = Task(adapted, F.cross_entropy, LARGER_TASKS["transformer"].batch)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        own = [p for p in model.parameters() if p.requires_grad or not trained_only]
        return torch.optim.AdamW(own, lr=5e-3, weight_decay=0.1)

    stock, model = task.build(), task.build()
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    wanted = stock_run(task, stock, optimizer(stock), task.batches(40), before=lambda p: clip_grad_norm_(p, 1.0))
    step = compile(model, task.loss, optimizer(model), clip_norm=1.0, ema=0.9)
    np.testing.assert_allclose([step(b).item() for b in task.batches(40)], wanted, rtol=1e-4)
    assert_same_tensors(dict(model.state_dict()), dict(stock.state_dict()), 1e-3)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, start[n])}
    assert changed == {n for n, p in model.named_parameters() if p.requires_grad}
    assert step.captured is not None
    slots = {n for n in step.captured.state if n.startswith("optim.exp_avg.")}
    assert slots == {f"optim.exp_avg.{n}" for n in changed}


def test_tied_weights_have_one_state_and_the_sum_of_gradients() -> None:
    class Tied(TiedWords):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.silu(self.mix(self.words(x)))).transpose(1, 2)  # type: ignore[no-any-return]

    def batch(g: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randint(0, 50, (8, 7), generator=g)
        return x, (x + 1) % 50

    task = Task(Tied, F.cross_entropy, batch)
    stock, model = task.build(), task.build()
    stock_average = AVERAGES["ema"](stock)
    after = lambda: stock_average.update_parameters(stock)  # noqa: E731
    wanted = stock_run(
        task, stock, adamw(stock), task.batches(40), before=lambda p: clip_grad_norm_(p, 1.0), after=after
    )
    step = compile(model, task.loss, adamw(model), clip_norm=1.0, ema=0.9)
    np.testing.assert_allclose([step(b).item() for b in task.batches(40)], wanted, rtol=1e-4)
    assert step.averaged is not None
    assert step.averaged.module.head.weight is step.averaged.module.words.weight
    assert_same_tensors(dict(step.averaged.state_dict()), dict(stock_average.state_dict()), 1e-3)
    assert step.captured is not None
    assert "param.head.weight" not in step.captured.state


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm is a positive number, found 0.0"),
        ({"clip_value": "big"}, "clip_value is a positive number"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "give one"),
        ({"clip_norm": 1.0, "norm_type": -1}, "norm_type is a positive number or inf, found -1"),
        ({"accumulate": 0}, "from 1 on, found 0"),
        ({"autocast": torch.float64}, "torch.bfloat16 or torch.float16"),
        ({"loss_scale": 0.0}, "a positive number or a torch.amp.GradScaler"),
        ({"lr": lambda n: 0.1, "scheduler": []}, "both give learning rates"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    model = nn.Linear(3, 2)
    for make in (compile, lambda *args, **options: trace_step(*args, (torch.ones(4, 3), torch.ones(4, 2)), **options)):
        with pytest.raises(CaptureError, match=message):
            make(model, nn.MSELoss(), sgd(model), **options)


# ---- all of it through a committed run ---------------------------------------------------------------------------


def test_a_captured_and_solved_run_trains_as_pytorch_does(tmp_path: Path) -> None:
    """Accumulation, clipping, a cycling momentum, parameter groups and averaged weights in one task."""
    task, steps = TASKS["cnn"], 30

    def prepared(model: nn.Module) -> tuple[Any, Any, Any]:
        matrices = [p for p in model.parameters() if p.dim() > 1]
        rest = [p for p in model.parameters() if p.dim() <= 1]
        optimizer = torch.optim.AdamW([{"params": matrices}, {"params": rest, "weight_decay": 0.0}], lr=1e-3)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
        return optimizer, scheduler, AVERAGES["ema"](model)

    model = task.build()
    optimizer, scheduler, average = prepared(model)
    data = tuple(torch.cat(part) for part in zip(*task.batches(8), strict=True))
    options = {"scheduler": scheduler, "ema": average, "accumulate": 2, "clip_norm": 0.5}
    bundle = gv.capture(
        model, task.loss, optimizer, data, steps=steps, batch_size=16, path=tmp_path / "task", interval=10, **options
    )
    found: list[float] = []
    run = gv.solve(bundle, tmp_path / "run", progress=lambda n, of, metrics: found.append(float(metrics["loss"])))
    assert gv.replay(run).verdict is gv.Verdict.VERIFIED
    stock = task.build()
    optimizer, scheduler, wanted = prepared(stock)
    batches = [{n: torch.from_numpy(a) for n, a in bundle.batch(step).items()} for step in range(steps)]

    def after() -> None:
        scheduler.step()
        wanted.update_parameters(stock)

    losses = stock_run(
        task,
        stock,
        optimizer,
        [(b["x"], b["y"].long()) for b in batches],
        accumulate=2,
        before=lambda p: clip_grad_norm_(p, 0.5),
        after=after,
    )
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    load_state(run.checkpoint(), model, average)
    assert_same_tensors(dict(model.state_dict()), dict(stock.state_dict()), 1e-3)
    assert_same_tensors(dict(average.state_dict()), dict(wanted.state_dict()), 1e-3)

"""bf16 and fp16: autocast as explicit conversions, models stored narrow, static and dynamic loss scales."""

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
from torch.nn.utils import clip_grad_norm_

import gensyn_verify as gv
from gensyn_verify.errors import NonFiniteError
from gensyn_verify.frontend import Captured, compile, trace_step
from gensyn_verify.frontend.scaling import WINDOW
from gensyn_verify.frontend.tensors import STORED_AS
from gensyn_verify.program import Dtype
from tests.frontend.models import LARGER_TASKS, TASKS, Optimizer, Task
from tests.frontend.test_training import assert_same_tensors, on_both_backends

HALVES = [torch.bfloat16, torch.float16]
EVERY_TASK = TASKS | LARGER_TASKS


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.1)


def stock_run(
    task: Task,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Any],
    *,
    autocast: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    clip: float | None = None,
) -> list[float]:
    """The loop that PyTorch's documentation shows for mixed precision."""
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            loss = task.loss(model(x), y)
        scaler.scale(loss).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


def product_dtypes(captured: Captured) -> list[Dtype]:
    """What the operands of every matrix product are stored as, in order."""
    program = captured.program
    types = [i.type for i in program.inputs] + [t for node in program.nodes for t in node.types]
    return [types[v].dtype for node in program.nodes if node.op.kind == "dot" for v in node.inputs[:1]]


# ---- autocast ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "transformer"])
def test_autocast_follows_pytorch_with_master_weights(name: str, dtype: torch.dtype) -> None:
    """Two runs agree as far as the narrow type does."""
    task = EVERY_TASK[name]
    steps = 25
    stock, model, wide = (task.build() for _ in range(3))
    wanted = stock_run(task, stock, adamw(stock.parameters()), task.batches(steps), autocast=dtype)
    step = compile(model, task.loss, adamw(model.parameters()), autocast=dtype)
    found = [step(batch).item() for batch in task.batches(steps)]
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    if name == "mlp":  # small enough for the same conversions to show in the bits of the loss
        plain = stock_run(task, wide, adamw(wide.parameters()), task.batches(steps))
        assert np.abs(np.subtract(found, wanted)).max() < 0.1 * np.abs(np.subtract(found, plain)).max()
    assert step.captured is not None
    inside = {Dtype.f32} if name == "transformer" else set()  # PyTorch computes attention of narrow types in f32
    assert set(product_dtypes(step.captured)) == {STORED_AS[dtype]} | inside
    assert {t.dtype for t in step.captured.program.inputs_of("state").values() if t.shape} <= {Dtype.f32, Dtype.i32}


class Cautious(nn.Module):
    """Autocast inside of forward, with one layer taken out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(20, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = F.gelu(self.first(x))
            with torch.autocast("cpu", enabled=False):
                x = torch.tanh(self.second(x.float()))
            return self.head(x).float()  # type: ignore[no-any-return]


def test_autocast_inside_of_the_model_is_the_same_as_in_pytorch() -> None:
    task = Task(Cautious, nn.CrossEntropyLoss(), TASKS["mlp"].batch)
    stock, model = task.build(), task.build()
    wanted = stock_run(task, stock, adamw(stock.parameters()), task.batches(30))
    step = compile(model, task.loss, adamw(model.parameters()))
    np.testing.assert_allclose([step(b).item() for b in task.batches(30)], wanted, rtol=2e-3)
    assert step.captured is not None
    assert product_dtypes(step.captured)[:3] == [Dtype.bf16, Dtype.f32, Dtype.bf16]


# ---- models stored narrow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        adamw,
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lambda p: torch.optim.NAdam(p, lr=2e-3),
        lambda p: torch.optim.Adafactor(p, lr=1e-2),
    ],
    ids=["adamw", "sgd", "nadam", "adafactor"],
)
def test_a_model_in_bfloat16_keeps_its_state_as_torch_does(make: Optimizer) -> None:
    task = Task(TASKS["mlp"].model, lambda z, y: F.cross_entropy(z.float(), y), TASKS["mlp"].batch)
    batches = [(x.bfloat16(), y) for x, y in task.batches(30)]
    stock, model = task.build().bfloat16(), task.build().bfloat16()
    torchs, own = make(stock.parameters()), make(model.parameters())
    wanted = stock_run(task, stock, torchs, batches)
    step = compile(model, task.loss, own)
    found = [step(batch).item() for batch in batches]
    np.testing.assert_allclose(found, wanted, rtol=0.02)
    for p, q in zip(stock.parameters(), model.parameters(), strict=True):
        assert {k: (v.dtype, v.shape) for k, v in own.state[q].items()} == {
            k: (v.dtype, v.shape) for k, v in torchs.state[p].items()
        }


# ---- products of int8 ---------------------------------------------------------------------------------------------


class Int8Product(torch.autograd.Function):
    """x w^T with both sides rounded to int8, one scale a row; the gradients are those of the exact product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        (a, a_scale), (b, b_scale) = Int8Product.rounded(x), Int8Product.rounded(w)
        return torch._int_mm(a, b.t()) * (a_scale * b_scale.t())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, w = ctx.saved_tensors
        return grads[0] @ w, grads[0].t() @ x

    @staticmethod
    def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = x.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        return torch.round(x / scale).to(torch.int8), scale


class Int8Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(20, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(Int8Product.apply(x, self.first.weight) + self.first.bias)
        return Int8Product.apply(h, self.head.weight) + self.head.bias  # type: ignore[no-any-return]


def test_a_model_that_multiplies_int8_trains_as_in_pytorch() -> None:
    task = Task(Int8Mlp, nn.CrossEntropyLoss(), TASKS["mlp"].batch)
    stock, model = task.build(), task.build()
    wanted = stock_run(task, stock, adamw(stock.parameters()), task.batches(30))
    step = compile(model, task.loss, adamw(model.parameters()))
    np.testing.assert_allclose([step(b).item() for b in task.batches(30)], wanted, rtol=2e-2)
    assert wanted[-1] < 0.8 * wanted[0]
    assert step.captured is not None
    assert product_dtypes(step.captured)[:2] == [Dtype.i8, Dtype.i8]
    again = task.build()
    on_both_backends(trace_step(again, task.loss, adamw(again.parameters()), task.batches(1)[0]), task.batches(3))


# ---- loss scale --------------------------------------------------------------------------------------------------


def test_a_static_scale_saves_gradients_that_fp16_loses() -> None:
    task = Task(TASKS["regression"].model, lambda z, y: F.mse_loss(z, y) * 1e-7, TASKS["regression"].batch)
    moved = {}
    for scale in (None, 2.0**20):
        model = task.build()
        before = model[0].weight.detach().clone()  # type: ignore[index,union-attr]
        optimizer = torch.optim.SGD(model.parameters(), lr=1e4)
        step = compile(model, task.loss, optimizer, autocast=torch.float16, loss_scale=scale)
        for batch in task.batches(3):
            step(batch)
        moved[scale] = (model[0].weight - before).abs().max().item()  # type: ignore[index,operator]
    assert moved[None] == 0.0
    assert moved[2.0**20] > 0.0


def gradient_scaler() -> torch.amp.GradScaler:
    """Begins much too high and grows every fourth step, so that steps are skipped at the start and later."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_factor=2.0**9, backoff_factor=0.25, growth_interval=4)


@pytest.mark.parametrize(
    "make",
    [
        adamw,
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5),
        lambda p: torch.optim.NAdam(p, lr=2e-3),
    ],
    ids=["adamw", "sgd-dampening", "nadam"],
)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_dynamic_scale_skips_and_adapts_as_pytorch_does(make: Optimizer, clip: float | None) -> None:
    """Bias corrections count updates, not steps."""
    task = TASKS["mlp"]
    stock, model = task.build(), task.build()
    torchs, own = make(stock.parameters()), make(model.parameters())
    scaler, mine = gradient_scaler(), gradient_scaler()
    scales, found, skipped = [], [], []
    step = compile(model, task.loss, own, autocast=torch.float16, loss_scale=mine, clip_norm=clip)
    step.listeners.append(lambda n, batch, scalars, state, metrics: skipped.append(bool(metrics["skipped"])))
    wanted = []
    for batch in task.batches(40):
        wanted += stock_run(task, stock, torchs, [batch], autocast=torch.float16, scaler=scaler, clip=clip)
        found.append(step(batch).item())
        scales.append((mine.get_scale(), scaler.get_scale()))
    assert [a for a, _ in scales] == [b for _, b in scales]
    assert any(skipped[:5])
    assert any(skipped[15:])
    assert not all(skipped[15:])
    assert step.reloads == 0
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
    assert_same_tensors(dict(model.state_dict()), dict(stock.state_dict()), 1e-2)
    assert [s["step"] for s in own.state.values() if "step" in s] == [
        s["step"] for s in torchs.state.values() if "step" in s
    ]


def test_a_run_with_skipped_steps_is_committed_and_replayed(tmp_path: Path) -> None:
    task = TASKS["mlp"]
    data = tuple(torch.cat(part) for part in zip(*task.batches(4), strict=True))
    model = task.build()
    bundle = gv.capture(
        model,
        task.loss,
        adamw(model.parameters()),
        data,
        steps=20,
        batch_size=16,
        path=tmp_path / "task",
        interval=4,
        autocast=torch.float16,
        loss_scale=gradient_scaler(),
        ema=0.9,
    )
    run = gv.solve(bundle, tmp_path / "run")
    state = run.checkpoint()
    assert 0 < int(state["scaler.skipped"]) < 20
    assert gv.replay(run, everything=True).verdict is gv.Verdict.VERIFIED


def test_backends_skip_the_same_steps_bit_for_bit() -> None:
    task = TASKS["mlp"]
    batches = task.batches(4)
    captured = trace_step(
        model := task.build(),
        task.loss,
        adamw(model.parameters()),
        batches[0],
        autocast=torch.float16,
        loss_scale=torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1, backoff_factor=2.0**-40),
    )
    skipped = [[bool(m["skipped"]) for m in metrics] for metrics in on_both_backends(captured, batches)]
    assert skipped[0] == [True, True]
    assert [False, False] in skipped


def test_scalars_are_vectors_over_the_skipped_steps() -> None:
    task = TASKS["mlp"]
    model = task.build()
    captured = trace_step(
        model, task.loss, adamw(model.parameters()), task.batches(1)[0], loss_scale=torch.amp.GradScaler("cpu")
    )
    found = captured.schedule(3)["group0.step_size"]
    wanted = [2e-3 / (1 - 0.9**n) for n in (3, 2, 1)]
    assert found.tolist() == np.float32([*wanted, *[wanted[-1]] * (WINDOW - 3)]).tolist()


class Fragile(nn.Module):
    """Its loss overflows where the batch says so."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dynamic", [True, False])
def test_only_a_step_that_is_not_skipped_stops_a_run_whose_loss_is_not_finite(dynamic: bool, tmp_path: Path) -> None:
    x = torch.ones(8, 3)
    x[5] = 1e30  # its squared error is infinite
    model = Fragile()
    scale: Any = torch.amp.GradScaler("cpu", init_scale=2.0) if dynamic else 2.0
    bundle = gv.capture(
        model,
        nn.MSELoss(),
        adamw(model.parameters()),
        (x, torch.zeros(8, 2)),
        steps=8,
        batch_size=2,
        path=tmp_path / "task",
        loss_scale=scale,
    )
    if not dynamic:
        with pytest.raises(NonFiniteError, match="metric 'loss' is not finite"):
            gv.solve(bundle, tmp_path / "run")
        return
    run = gv.solve(bundle, tmp_path / "run")
    state = run.checkpoint()
    assert int(state["scaler.skipped"]) == 2
    assert float(state["scaler.scale"]) == 0.5
    assert np.isfinite(state["param.layer.weight"]).all()
    assert gv.replay(run).verdict is gv.Verdict.VERIFIED


def test_a_scaler_that_the_user_changes_between_steps_is_followed() -> None:
    task = TASKS["mlp"]
    model = task.build()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    step = compile(model, task.loss, adamw(model.parameters()), loss_scale=scaler, autocast=torch.bfloat16)
    batches: list[Any] = task.batches(3)
    step(batches[0])
    scaler.update(4.0)
    step(batches[1])
    assert scaler.get_scale() == 4.0
    assert step.reloads == 1
    assert math.isfinite(step(batches[2]).item())


def test_a_recording_may_begin_after_skipped_steps(tmp_path: Path) -> None:
    """The task of a recording states how many steps were skipped before it: scalars depend on it."""
    task = TASKS["mlp"]
    model = task.build()
    step = compile(
        model, task.loss, adamw(model.parameters()), loss_scale=gradient_scaler(), autocast=torch.float16, ema=0.9
    )
    batches = task.batches(30)
    for batch in batches[:12]:
        step(batch)
    assert step.captured is not None
    assert step.captured.skipped > 0
    with gv.record(step, tmp_path / "run", interval=6):
        for batch in batches[12:]:
            step(batch)
    assert gv.replay(tmp_path / "run", everything=True).verdict is gv.Verdict.VERIFIED


def test_a_scaler_that_is_not_enabled_writes_nothing() -> None:
    model = nn.Linear(3, 2)
    batch = torch.ones(4, 3), torch.ones(4, 2)
    make: Callable[..., Any] = lambda **o: trace_step(model, nn.MSELoss(), adamw(model.parameters()), batch, **o)  # noqa: E731
    assert make(loss_scale=torch.amp.GradScaler("cpu", enabled=False)).program == make().program

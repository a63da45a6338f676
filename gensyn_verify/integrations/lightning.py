"""PyTorch Lightning on the engine.

trainer = pytorch_lightning.Trainer(strategy=EngineStrategy(record="run"), max_steps=100)
trainer.fit(module, loader)
gensyn_verify.replay("run")

Lightning comes as `lightning.pytorch` and as `pytorch_lightning`, two packages of the same code: the one that was
imported before this module is meant, else the one that is installed.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import Step, compile
from gensyn_verify.integrations.microbatches import Microbatches, check_resumed
from gensyn_verify.protocol.record import record as recording

NAMES = ("lightning.pytorch", "pytorch_lightning")


def _package() -> str:
    names = [n for n in NAMES if n in sys.modules] or [n for n in NAMES if find_spec(n.partition(".")[0])]
    if not names:
        raise ImportError("Lightning is not installed: pip install gensyn_verify[lightning]")
    return names[0]


LIGHTNING = _package()
Precision: Any = import_module(f"{LIGHTNING}.plugins.precision").Precision
MixedPrecision: Any = import_module(f"{LIGHTNING}.plugins.precision").MixedPrecision
SingleDeviceStrategy: Any = import_module(f"{LIGHTNING}.strategies").SingleDeviceStrategy
rank_zero_warn: Any = import_module(f"{LIGHTNING}.utilities").rank_zero_warn
is_overridden: Any = import_module(f"{LIGHTNING}.utilities.model_helpers").is_overridden

GRADIENT_HOOKS = (
    "backward", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad",
    "configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad",
)  # fmt: skip


class EngineStrategy(SingleDeviceStrategy):  # type: ignore[misc]  # whichever of the two is there
    """Trains a LightningModule on the CPU with reproducible kernels, and records the run in the folder `record`.

    `training_step` is captured once, with the first batch, and its loss, optimizer and the Trainer's gradient clipping
    become the compiled step; all batches need the same shapes (`drop_last=True`). What `training_step` logs is logged
    if it is the loss; other values are computed by the step no more, and a warning names them. `options` are those of
    `gensyn_verify.record`; `seed` feeds dropout.

    accumulate_grad_batches: the step runs with the last of its batches, whose loss is the mean of all; the others have
    none, so `training_step` seems to return None. Precision: 32 bits, "bf16-mixed", and MixedPrecision("16-mixed",
    "cpu") with its GradScaler as a plugin. `fit(ckpt_path=...)` goes on with the same bits; with resume=True a recorded
    run that was interrupted goes on from that checkpoint too, and what it had recorded after it is given up.

    Raises CaptureError for manual optimization, other precisions, hooks on gradients, and a step of fewer batches than
    the others.
    """

    strategy_name = "gensyn_verify"

    def __init__(
        self, record: str | os.PathLike[str] | None = None, *, seed: int | None = None, **options: Any
    ) -> None:
        super().__init__(device=torch.device("cpu"))
        self.step: Step | None = None
        self._record, self._seed, self._options = record, seed, options
        self._open = contextlib.ExitStack()
        self._logged: list[tuple[str, dict[str, Any]]] = []
        self._due = False

    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        self._trainer = trainer
        self._parts = Microbatches("accumulate_grad_batches", trainer.accumulate_grad_batches)
        self.step = None

    def optimizer_step(self, optimizer: Any, closure: Any, model: Any = None, **options: Any) -> Any:
        """The optimizer's step as without mixed precision: the loss scale is part of the engine's step."""
        self._due = True
        try:
            model = model or self.lightning_module
            return Precision.optimizer_step(self.precision_plugin, optimizer, model=model, closure=closure, **options)
        finally:
            self._due = False

    def training_step(self, batch: Any, *_: Any) -> Tensor | None:
        """One engine step in place of forward and backward, where the optimizer's step is due; the loss."""
        if self.step is None:
            _check(self.lightning_module, self.precision_plugin)
        self._parts.add(batch)
        if not self._due:
            return None
        batch = self._parts.take()
        if self.step is None:
            self.step = self._begin(batch)
        loss = self.step(batch)
        for name, options in self._logged:
            self.lightning_module.log(name, loss, **options)
        return loss

    def backward(self, closure_loss: Tensor, *_: Any, **__: Any) -> Tensor:
        """Nothing: the step is done."""
        return closure_loss

    def on_train_end(self) -> None:
        super().on_train_end()
        self._open.close()

    def on_exception(self, exception: BaseException) -> None:
        super().on_exception(exception)
        self._open.__exit__(type(exception), exception, exception.__traceback__)

    def _begin(self, batch: Any) -> Step:
        """The compiled step, after the steps that the trainer has behind it, and its recording."""
        module, trainer = self.lightning_module, self._trainer
        limit, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        options = {"clip_value" if algorithm == "value" else "clip_norm": limit} if limit else {}
        step = compile(
            module, self._loss, self.optimizers[0], loss_takes_model=True, seed=self._seed,
            accumulate=self._parts.count, loss_scale=getattr(self.precision_plugin, "scaler", None), **options,
        )  # fmt: skip
        step.prepare(batch, steps=trainer.global_step)
        if self._record is not None:
            self._open.enter_context(recording(step, self._record, **self._options))
            check_resumed(step, trainer.global_step, "fit(ckpt_path=...)")
        return step

    def _loss(self, module: Any, batch: Any) -> Tensor:
        """The module's training step, as it is captured; what it logs is noted."""
        found: list[tuple[str, Any, dict[str, Any]]] = []
        module.log = lambda name, value, **options: found.append((name, value, options))
        try:
            with self.precision_plugin.train_step_context():
                result = module.training_step(*(batch, 0)[: _arguments(module)])
        finally:
            del module.log
        loss: Tensor = result["loss"] if isinstance(result, dict) else result
        self._logged = [(name, options) for name, value, options in found if value is loss]
        if others := [name for name, value, _ in found if value is not loss]:
            rank_zero_warn(f"training_step on the engine computes the loss alone; not logged: {', '.join(others)}")
        return loss


def _arguments(module: Any) -> int:
    """How many of (batch, batch_idx) the training step takes."""
    return len(inspect.signature(module.training_step).parameters)


def _check(module: Any, precision: Any) -> None:
    """Raise CaptureError for what would be silently left out."""
    mixed = type(precision) is MixedPrecision and precision.device == "cpu"
    refused = {
        "manual optimization": not module.automatic_optimization,
        f"precision {precision.precision}": type(precision) is not Precision and not mixed,
    }
    found = [name for name, is_so in refused.items() if is_so]
    found += [f"{type(module).__name__}.{name}" for name in GRADIENT_HOOKS if is_overridden(name, module)]
    if found:
        raise CaptureError(
            f"{', '.join(found)}: not supported by EngineStrategy, as gradients stay inside of the compiled step; "
            "leave it out, or compile the step in a loop of your own: gensyn_verify.compile has options for some of it"
        )


__all__ = ["EngineStrategy"]

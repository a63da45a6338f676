"""PyTorch Lightning on the engine.

trainer = pytorch_lightning.Trainer(strategy=EngineStrategy(record="run"), max_steps=100)
trainer.fit(module, loader)
gensyn_verify.replay("run")
"""

from __future__ import annotations

import contextlib
import inspect
import os
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import Step, compile
from gensyn_verify.protocol.record import record as recording

GRADIENT_HOOKS = (
    "backward", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad",
    "configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad",
)  # fmt: skip


class EngineStrategy(SingleDeviceStrategy):  # type: ignore[misc]  # its base has no types where it is not installed
    """Trains a LightningModule on the CPU with reproducible kernels, and records the run in the folder `record`.

    `training_step` is captured once, with the first batch, and its loss, optimizer and the Trainer's gradient clipping
    become the compiled step; all batches need the same shapes (`drop_last=True`). What `training_step` logs is logged
    if it is the loss; other values are computed by the step no more, and a warning names them. `options` are those of
    `gensyn_verify.record`; `seed` feeds dropout.

    Raises CaptureError for manual optimization, accumulated gradients, mixed precision and hooks on gradients.
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

    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        self._trainer = trainer
        self.step = None

    def training_step(self, batch: Any, *_: Any) -> Tensor:
        """One engine step in place of forward and backward; the loss."""
        if self.step is None:
            self.step = self._compile()
            if self._record is not None:
                self._open.enter_context(recording(self.step, self._record, **self._options))
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

    def _compile(self) -> Step:
        module, trainer = self.lightning_module, self._trainer
        _check(module, trainer, self.precision_plugin)
        limit, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        clip = {"clip_value" if algorithm == "value" else "clip_norm": limit} if limit else {}
        return compile(module, self._loss, self.optimizers[0], loss_takes_model=True, seed=self._seed, **clip)

    def _loss(self, module: LightningModule, batch: Any) -> Tensor:
        """The module's training step, as it is captured; what it logs is noted."""
        found: list[tuple[str, Any, dict[str, Any]]] = []
        module.log = lambda name, value, **options: found.append((name, value, options))
        try:
            result = module.training_step(*(batch, 0)[: _arguments(module)])
        finally:
            del module.log
        loss: Tensor = result["loss"] if isinstance(result, dict) else result
        self._logged = [(name, options) for name, value, options in found if value is loss]
        if others := [name for name, value, _ in found if value is not loss]:
            rank_zero_warn(f"training_step on the engine computes the loss alone; not logged: {', '.join(others)}")
        return loss


def _arguments(module: LightningModule) -> int:
    """How many of (batch, batch_idx) the training step takes."""
    return len(inspect.signature(module.training_step).parameters)


def _check(module: LightningModule, trainer: Any, precision: Any) -> None:
    """Raise CaptureError for what would be silently left out."""
    refused = {
        "manual optimization": not module.automatic_optimization,
        f"accumulate_grad_batches={trainer.accumulate_grad_batches}": trainer.accumulate_grad_batches != 1,
        f"precision {precision.precision}": type(precision) is not Precision,
    }
    found = [name for name, is_so in refused.items() if is_so]
    found += [f"{type(module).__name__}.{name}" for name in GRADIENT_HOOKS if is_overridden(name, module)]
    if found:
        raise CaptureError(
            f"{', '.join(found)}: not supported by EngineStrategy, as gradients stay inside of the compiled step; "
            "leave it out, or compile the step in a loop of your own: gensyn_verify.compile has options for some of it"
        )


__all__ = ["EngineStrategy"]

"""Hugging Face's Trainer on the engine.

trainer = EngineTrainer(model, TrainingArguments("out", use_cpu=True), train_dataset=data, record="run")
trainer.train()
gensyn_verify.replay("run")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import Step, compile
from gensyn_verify.protocol.record import record as recording


class EngineTrainer(Trainer):  # type: ignore[misc]  # its base has no types where it is not installed
    """A transformers.Trainer whose training steps run on reproducible kernels, recorded in the folder `record`.

    The loss is that of `compute_loss`, clipping is `max_grad_norm`, dropout follows `seed` of the arguments. The first
    batch fixes the shapes: pad to one length, and set `dataloader_drop_last=True`. `record_options` are those of
    `gensyn_verify.record`. The gradient norm is not logged.

    Raises CaptureError for arguments that it would have to leave out: other devices than the CPU, several processes,
    accumulated gradients, mixed precision.
    """

    def __init__(
        self,
        *args: Any,
        record: str | os.PathLike[str] | None = None,
        record_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _check(self.args)
        self.step: Step | None = None
        self._record, self._record_options = record, dict(record_options or {})
        self._open = contextlib.ExitStack()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer; the recorded run is finished when this returns."""
        self.step = None
        with contextlib.ExitStack() as self._open:
            return super().train(*args, **kwargs)

    def training_step(self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One engine step in place of forward and backward; the loss."""
        model.train()
        if self.step is None:
            self.step = self._compile(model)
            if self._record is not None:
                self._open.enter_context(recording(self.step, self._record, **self._record_options))
        return self.step(dict(inputs))

    def _compile(self, model: nn.Module) -> Step:
        limit = self.args.max_grad_norm
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # without accelerate's wrapper
        return compile(
            model,
            lambda model, batch: self.compute_loss(model, dict(batch)),
            optimizer,
            loss_takes_model=True,
            seed=self.args.seed,
            clip_norm=limit if limit and limit > 0 else None,
        )

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> None:
        """Nothing to log: gradients stay inside of the compiled step."""


def _check(args: Any) -> None:
    refused = {
        f"device {args.device} (set use_cpu=True)": args.device.type != "cpu",
        f"{args.world_size} processes": args.world_size != 1,
        f"gradient_accumulation_steps={args.gradient_accumulation_steps}": args.gradient_accumulation_steps != 1,
        "fp16": args.fp16,
        "bf16": args.bf16,
    }
    if found := [name for name, is_so in refused.items() if is_so]:
        raise CaptureError(
            f"{', '.join(found)}: not supported by EngineTrainer; change the training arguments, or compile the step "
            "in a loop of your own: gensyn_verify.compile has options for accumulation and mixed precision"
        )


__all__ = ["EngineTrainer"]

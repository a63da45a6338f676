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

import torch
from torch import Tensor, nn
from transformers import Trainer

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import Step, compile
from gensyn_verify.integrations.microbatches import Microbatches, check_resumed
from gensyn_verify.protocol.record import record as recording

ITEMS = "num_items_in_batch"


class EngineTrainer(Trainer):  # type: ignore[misc]  # its base has no types where it is not installed
    """A transformers.Trainer whose training steps run on reproducible kernels, recorded in the folder `record`.

    The loss is that of `compute_loss`, clipping is `max_grad_norm`, dropout follows `seed` of the arguments. The first
    batch fixes the shapes: pad to one length, and set `dataloader_drop_last=True`. `record_options` are those of
    `gensyn_verify.record`. The gradient norm is not logged.

    gradient_accumulation_steps: the step runs with the last of its batches, which is logged as without the engine. With
    `bf16` the model runs under the library's autocast. `train(resume_from_checkpoint=...)` goes on with the same bits;
    with resume=True among the `record_options` a recorded run that was interrupted goes on from that checkpoint too.

    Raises CaptureError for arguments that it would have to leave out: other devices than the CPU, several processes,
    fp16; and for a step of fewer batches than the others.
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
        self._parts = Microbatches("gradient_accumulation_steps", self.args.gradient_accumulation_steps)
        with contextlib.ExitStack() as self._open:
            return super().train(*args, **kwargs)

    def training_step(self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One engine step in place of forward and backward, where the optimizer's step is due; the loss.

        Before that zero: the library adds up what the batches of a step return.
        """
        model.train()
        batch = dict(inputs)
        if num_items_in_batch is not None:
            rows = next(iter(batch.values())).shape[0]
            batch[ITEMS] = torch.full((rows,), float(num_items_in_batch))
        self._parts.add(batch)
        if not self.accelerator.sync_gradients:
            return torch.zeros(())
        batch = self._parts.take()
        if self.step is None:
            self.step = self._begin(model, batch)
        return self.step(batch)

    def _begin(self, model: nn.Module, batch: dict[str, Any]) -> Step:
        """The compiled step, after the steps that the trainer has behind it, and its recording."""
        limit = self.args.max_grad_norm
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # without accelerate's wrapper
        step = compile(
            model,
            self._loss,
            optimizer,
            loss_takes_model=True,
            seed=self.args.seed,
            accumulate=self._parts.count,
            clip_norm=limit if limit and limit > 0 else None,
        )
        step.prepare(batch, steps=self.state.global_step)
        if self._record is not None:
            self._open.enter_context(recording(step, self._record, **self._record_options))
            check_resumed(step, self.state.global_step, "train(resume_from_checkpoint=...)")
        return step

    def _loss(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The loss of one batch of the step; the step takes the mean of them.

        Where the library takes the sum, because the items of the whole step divide each, this is that many times more.
        """
        inputs = dict(batch)
        items = inputs.pop(ITEMS, None)
        with self.compute_loss_context_manager():
            loss: Tensor = self.compute_loss(model, inputs, num_items_in_batch=None if items is None else items[0])
        summed = getattr(self, "loss_is_scaled_for_ga", None)
        if summed is None:
            summed = (self.model_accepts_loss_kwargs and items is not None) or self.compute_loss_func is not None
        return loss * self._parts.count if summed and self._parts.count > 1 else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> None:
        """Nothing to log: gradients stay inside of the compiled step."""


def _check(args: Any) -> None:
    refused = {
        f"device {args.device} (set use_cpu=True)": args.device.type != "cpu",
        f"{args.world_size} processes": args.world_size != 1,
        "fp16": args.fp16,
    }
    if found := [name for name, is_so in refused.items() if is_so]:
        raise CaptureError(
            f"{', '.join(found)}: not supported by EngineTrainer; change the training arguments, or compile the step "
            "in a loop of your own: gensyn_verify.compile has options for mixed precision"
        )


__all__ = ["EngineTrainer"]

"""The options of a training step beside model, loss and optimizer, the same for `capture` and `compile`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import scaling, schedules
from gensyn_verify.frontend.optimizers import LearningRate

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Training:
    """What a loop does between `loss.backward()` and `optimizer.step()`, and around them; by default nothing.

    clip_norm    scales the gradients so that their common norm is at most this: clip_grad_norm_(parameters, clip_norm,
                 norm_type), over the parameters that the optimizer trains; a norm that is not finite is no error
    norm_type    of clip_norm: a positive number or inf
    clip_value   cuts every element of the gradients to -clip_value ... clip_value: clip_grad_value_
    accumulate   k: every batch is k microbatches, one after the other, and the step is that of a loop which calls
                 (loss / k).backward() on each; buffers pass from one to the next; the loss is their mean
    ema          a decay, or a torch.optim.swa_utils.AveragedModel of the model with one of torch's averaging
                 functions: update_parameters(model) after every step
    scheduler    a torch.optim.lr_scheduler, or one an optimizer: its step() after every step. `capture` commits the
                 table of what it will say, `compile` calls it. Not ReduceLROnPlateau, which depends on the loss
    lr           instead: lr(n) is the learning rate of step n = 1, 2, ...: a number, or one a parameter group
    autocast     torch.bfloat16 or torch.float16: model and loss run under torch.autocast("cpu", dtype=autocast)
    loss_scale   a number, or a torch.amp.GradScaler: the loss is scaled before backward, the gradients are unscaled
                 before clipping; a GradScaler skips steps whose gradients are not finite, and adapts

    Order as in a PyTorch loop: backward, unscale, clip, step (or skip), update of the scale, ema, scheduler.
    Raises CaptureError for a value out of range.
    """

    clip_norm: float | None = None
    norm_type: float = 2.0
    clip_value: float | None = None
    accumulate: int = 1
    ema: float | AveragedModel | None = None
    scheduler: schedules.Schedulers | None = None
    lr: LearningRate | None = None
    autocast: torch.dtype | None = None
    loss_scale: float | torch.amp.GradScaler | None = None

    def __post_init__(self) -> None:
        for name in ("clip_norm", "clip_value"):
            limit = getattr(self, name)
            if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
                raise CaptureError(f"{name} is a positive number, found {limit!r}")
        if self.clip_norm is not None and self.clip_value is not None:
            raise CaptureError("clip_norm and clip_value: give one, as the order of the two would matter")
        if not (isinstance(self.norm_type, (int, float)) and self.norm_type > 0):
            raise CaptureError(f"norm_type is a positive number or inf, found {self.norm_type!r}")
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise CaptureError(f"accumulate is a number of microbatches from 1 on, found {self.accumulate!r}")
        if self.lr is not None and self.scheduler is not None:
            raise CaptureError("lr and scheduler both give learning rates; give one")
        if self.autocast not in (None, *HALVES):
            raise CaptureError(f"autocast is torch.bfloat16 or torch.float16, found {self.autocast!r}")
        schedules.check(self.scheduler)
        scaling.read(self.loss_scale)

    def microbatches(self, names: Sequence[str], leaves: Sequence[Tensor]) -> int:
        """Rows of a microbatch; 0 where batches are not divided."""
        if self.accumulate == 1:
            return 0
        rows = {name: leaf.shape[0] if leaf.dim() else 0 for name, leaf in zip(names, leaves, strict=True)}
        count = next(iter(rows.values()), 0)
        if set(rows.values()) != {count} or count == 0 or count % self.accumulate:
            raise CaptureError(
                f"accumulate={self.accumulate} divides the rows of every tensor of a batch; found the rows {rows}"
            )
        return count // self.accumulate


def first_rows(batch: Any, rows: int) -> Any:
    """The first microbatch; the whole batch for 0."""
    return pytree.tree_map(lambda t: t[:rows], batch) if rows else batch


__all__ = ["Training", "first_rows"]

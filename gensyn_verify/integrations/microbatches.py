"""What the integrations share: the batches of one optimizer step, and where a recording goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import Step


class Microbatches:
    """Collects batches and gives them as one, rows after rows, when a step is due: what `accumulate=count` divides.

    `option` is what the library calls the count.
    """

    def __init__(self, option: str, count: int) -> None:
        self.count = count
        self._option = f"{option}={count}"
        self._parts: list[Any] = []

    def add(self, batch: Any) -> None:
        self._parts.append(batch)

    def take(self) -> Any:
        """Raises CaptureError where the step has fewer batches than others, or they differ in structure or shape."""
        parts, self._parts = self._parts, []
        if len(parts) != self.count:
            raise CaptureError(
                f"{self._option}: a step with {len(parts)} batches is due, and a captured step has a fixed number of "
                "them; make the batches of an epoch a multiple of it"
            )
        if self.count == 1:
            return parts[0]
        leaves, structures = zip(*map(pytree.tree_flatten, parts), strict=True)
        if any(not isinstance(x, Tensor) or x.dim() == 0 for part in leaves for x in part):
            raise CaptureError(f"{self._option}: batches are put together by rows, so they hold tensors of rows only")
        found = [[tuple(x.shape) for x in part] for part in leaves]
        if any(s != structures[0] for s in structures) or any(shapes != found[0] for shapes in found):
            raise CaptureError(
                f"{self._option}: the batches of a step have the shapes {found}; they must be alike: drop_last=True, "
                "and pad to one length"
            )
        return pytree.tree_unflatten([torch.cat(xs) for xs in zip(*leaves, strict=True)], structures[0])


def check_resumed(step: Step, steps: int, how: str) -> None:
    """Raise CaptureError where a resumed recording stands elsewhere than the library's loop."""
    if step.steps != steps:
        raise CaptureError(
            f"the recorded run has {step.steps} steps and training goes on after {steps}: resume the training from a "
            f"checkpoint of it as well, {how}, or record into another folder"
        )


__all__ = ["Microbatches", "check_resumed"]

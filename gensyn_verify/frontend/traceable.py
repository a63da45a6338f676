"""Functions of PyTorch that look at the values of tensors, or whose kernels tell no shapes, written so as to be traced.

The same results and derivatives from operations that the lowering table has; what PyTorch checks of values is not
checked, but comes out as NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gensyn_verify.errors import CaptureError

IMPOSSIBLE = -1e30  # the logarithm of a probability of 0, finite so that differences are numbers


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """A negative variance gives NaN."""
    if not isinstance(var, Tensor):
        var = var * torch.ones_like(input)
    if var.size() != input.size() and input.size()[:-1] == var.size():
        var = var.unsqueeze(-1)
    var = torch.where(var < 0, math.nan, var)
    with torch.no_grad():
        var.clamp_(min=eps)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Over labels with blanks between them: the logarithm of the sum of all paths, one step of time after the other."""
    single = log_probs.dim() == 2
    if single:
        log_probs, targets = log_probs.unsqueeze(1), targets.unsqueeze(0)
    steps, n, _ = log_probs.shape
    if targets.dim() != 2:
        raise CaptureError("ctc_loss takes targets as one padded row a sequence, [N, S]: pad them")
    times, lengths = (
        torch.as_tensor(v, device=log_probs.device).reshape(-1).expand(n) for v in (input_lengths, target_lengths)
    )
    blanks = torch.full_like(targets, blank)
    labels = torch.cat([torch.stack([blanks, targets], 2).flatten(1), blanks[:, :1]], 1)
    if targets.shape[1] == 0:
        labels = torch.full((n, 1), blank)
    emitted = log_probs.gather(2, labels.expand(steps, *labels.shape))
    # From the label before the last: not over a blank, and not from the same label.
    leap = F.pad((labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2]), (2, 0))
    start = torch.arange(labels.shape[1]) < 2
    paths = torch.where(start, emitted[0], IMPOSSIBLE)
    for t in range(1, steps):
        before = F.pad(paths, (2, 0), value=IMPOSSIBLE)
        ways = torch.stack([paths, before[:, 1:-1], torch.where(leap, before[:, :-2], IMPOSSIBLE)])
        paths = torch.where((t < times)[:, None], ways.logsumexp(0) + emitted[t], paths)
    ends = torch.stack([2 * lengths, (2 * lengths - 1).clamp(min=0)], 1)
    last = paths.gather(1, ends)
    last = torch.where((lengths[:, None] > 0) | (torch.arange(2) == 0), last, IMPOSSIBLE)
    # PyTorch's derivative is that by what went into log_softmax: the probabilities take part, with the value 0.
    shares = torch.where(torch.arange(steps)[:, None] < times, log_probs.exp().sum(2), 0.0).sum(0)
    loss = (shares - shares.detach()) - last.logsumexp(1)
    loss = torch.where(loss > -IMPOSSIBLE / 2, 0.0 if zero_infinity else math.inf, loss)
    if reduction == "mean":
        loss = loss / lengths.clamp(min=1)
    loss = _reduced(loss, reduction)
    return loss.squeeze(0) if single and reduction == "none" else loss


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


REPLACED: dict[Any, Callable[..., Tensor]] = {F.gaussian_nll_loss: gaussian_nll_loss, F.ctc_loss: ctc_loss}


class Traceable(TorchFunctionMode):
    """While active, calls of the functions in `REPLACED` are calls of their replacements."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))

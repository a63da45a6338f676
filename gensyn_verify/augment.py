"""Augmentation inside of the training step, so that it is captured, committed and replayed with it.

Plain PyTorch modules for images [batch, channels, height, width]: in a captured step their random numbers come from
the task's seed and the step, in PyTorch from torch's generator. In eval mode they change nothing.

    model = nn.Sequential(augment.RandomCrop(28, padding=2), augment.RandomFlip(), network)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gensyn_verify.errors import CaptureError

QUANTILES = 4097


def _images(x: Tensor, name: str) -> tuple[int, int, int, int]:
    if x.dim() != 4:
        raise CaptureError(f"{name} takes images [batch, channels, height, width], found shape {list(x.shape)}")
    n, c, h, w = x.shape
    return n, c, h, w


class RandomCrop(nn.Module):
    """A window of `size` (height, width, or one number for both) at a random place of each padded image."""

    def __init__(self, size: int | Sequence[int], padding: int = 0, fill: float = 0.0) -> None:
        super().__init__()
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.padding = padding
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        x = functional.pad(x, (self.padding,) * 4, value=self.fill)
        n, c, h, w = _images(x, "RandomCrop")
        if h < self.height or w < self.width:
            raise CaptureError(f"a crop of {self.height} x {self.width} from padded images of {h} x {w}")
        top, left = torch.randint(h - self.height + 1, (n, 1, 1)), torch.randint(w - self.width + 1, (n, 1, 1))
        rows, columns = torch.arange(self.height)[:, None], torch.arange(self.width)
        pixels = ((rows + top) * w + (columns + left)).reshape(n, 1, self.height * self.width)
        chosen = x.flatten(2).gather(2, pixels.expand(n, c, self.height * self.width))
        return chosen.reshape(n, c, self.height, self.width)


class RandomFlip(nn.Module):
    """Each image mirrored along `axis` with probability p: -1 is left to right, -2 upside down."""

    def __init__(self, p: float = 0.5, axis: int = -1) -> None:
        super().__init__()
        self.p = p
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        n, *_ = _images(x, "RandomFlip")
        return torch.where(torch.rand(n, 1, 1, 1) < self.p, x.flip(self.axis), x)


class RandomErasing(nn.Module):
    """With probability p one rectangle of each image is `value`.

    Its share of the area is uniform in `scale`, its height over its width log-uniform in `ratio`; a side that is
    longer than the image is cut.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float = 0.0,
    ) -> None:
        super().__init__()
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        n, _, h, w = _images(x, "RandomErasing")
        low, high = map(math.log, self.ratio)
        area = torch.empty(n, 1, 1, 1).uniform_(*self.scale) * float(h * w)
        ratio = torch.empty(n, 1, 1, 1).uniform_(low, high).exp()
        height, width = (area * ratio).sqrt().clamp(max=float(h)), (area / ratio).sqrt().clamp(max=float(w))
        top, left = torch.rand(n, 1, 1, 1) * (h - height), torch.rand(n, 1, 1, 1) * (w - width)
        rows, columns = torch.arange(h, dtype=torch.float32)[:, None] + 0.5, torch.arange(w, dtype=torch.float32) + 0.5
        inside = (rows > top) & (rows < top + height) & (columns > left) & (columns < left + width)
        return torch.where(inside & (torch.rand(n, 1, 1, 1) < self.p), self.value, x)


class GaussianNoise(nn.Module):
    """Adds noise of mean 0 and the given standard deviation."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) * self.deviation if self.training else x


class MixUp(nn.Module):
    """`x, target = mixup(x, target)`: each row becomes share times itself plus the rest times its neighbour.

    The order of a batch is random already, so the neighbour is as good as a random partner. `target` [batch] of class
    numbers becomes probabilities [batch, classes], for `cross_entropy`; any float target is mixed as it is. One share
    a step, from the symmetric beta distribution of `alpha`, by linear interpolation of its quantiles.
    """

    quantiles: Tensor

    def __init__(self, classes: int = 0, alpha: float = 1.0) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("quantiles", _beta_quantiles(alpha))

    def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if not target.is_floating_point():
            target = (target[:, None] == torch.arange(self.classes)).to(x.dtype)
        if not self.training:
            return x, target
        place = torch.rand(()) * (QUANTILES - 1)
        before = place.long()
        pair = self.quantiles.index_select(0, torch.stack([before, before + 1]))
        share = torch.lerp(pair[0], pair[1], place - before)
        return _mixed(x, share), _mixed(target, share)


def _mixed(x: Tensor, share: Tensor) -> Tensor:
    return x * share + x.roll(1, 0) * (1.0 - share)


def _beta_quantiles(alpha: float) -> Tensor:
    """Quantiles k / 4096 of the symmetric beta distribution, by the trapezoidal rule.

    With x = sin(t)^2 the density in t is sin(2t)^(2 alpha - 1) up to a factor: smooth where alpha >= 1/2, and the
    pole of a smaller alpha is taken out by t = s^(1 / (2 alpha)).
    """
    power = max(1.0, 1.0 / (2.0 * alpha))
    s = np.linspace(0.0, 1.0, 200_001)[1:]
    t = np.pi / 4 * s**power
    density = np.sin(2.0 * t) ** (2.0 * alpha - 1.0) * s ** (power - 1.0)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
    half = np.interp(np.linspace(0.0, 1.0, QUANTILES // 2 + 1), mass / mass[-1], np.sin(t) ** 2)
    half[0] = 0.0
    return torch.from_numpy(np.concatenate([half, 1.0 - half[-2::-1]]).astype(np.float32))


__all__ = ["GaussianNoise", "MixUp", "RandomCrop", "RandomErasing", "RandomFlip"]

"""Small models of the kinds the frontend supports, with their losses and data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 16


class LeNet(nn.Module):
    """Max and average pooling; strided, dilated, padded and grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.strided = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
        self.dilated = nn.Conv2d(8, 8, 3, dilation=2, padding=1, bias=False)
        self.head = nn.Linear(8 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.gelu(self.strided(x))
        x = F.avg_pool2d(torch.tanh(self.dilated(F.pad(x, (1, 1, 1, 1)))), 3, stride=2, padding=1)
        return self.head(torch.flatten(x, 1))  # type: ignore[no-any-return]


class TextClassifier(nn.Module):
    """Embedding with a padding index, mean over the words, one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16, padding_idx=0)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        h = h + F.gelu(self.mix(h), approximate="tanh")
        return self.head(torch.sigmoid(self.mix(h)).mean(1))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Batch normalization, a skip connection, pooling to one value a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.block = nn.Sequential(
            nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 1)
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.adaptive_avg_pool2d(x + self.block(x), 1).flatten(1))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """One encoder layer over embedded words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.words(x)).mean(1))  # type: ignore[no-any-return]


class TiedWords(nn.Module):
    """An embedding of 50 words that is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.words.weight


@dataclass(frozen=True)
class Task:
    """A model, its loss and its batches; everything follows from the seed."""

    model: Callable[[], nn.Module]
    loss: Callable[..., Tensor]
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]

    def build(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model()

    def batches(self, count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        return [self.batch(generator) for _ in range(count)]


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 10))


def _classes(*shape: int, classes: int = 10, scale: float = 1.0) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Noise around one prototype a class."""
    prototypes = scale * torch.randn(classes, *shape, generator=torch.Generator().manual_seed(7))

    def batch(g: torch.Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(0, classes, (BATCH,), generator=g)
        return prototypes[y] + torch.randn(BATCH, *shape, generator=g), y

    return batch


def _words(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 50, (BATCH, 7), generator=g)
    return x, (x < 15).sum(1).clamp(max=4)


def _numbers(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(BATCH, 20, generator=g)
    return x, torch.stack([x.sin().sum(1), x.square().mean(1)], 1)


TASKS: dict[str, Task] = {
    "mlp": Task(_mlp, nn.CrossEntropyLoss(), _classes(20)),
    "cnn": Task(LeNet, nn.CrossEntropyLoss(label_smoothing=0.1), _classes(1, 12, 12, scale=6.0)),
    "text": Task(TextClassifier, F.cross_entropy, _words),
    "regression": Task(
        lambda: nn.Sequential(nn.Linear(20, 32), nn.Sigmoid(), nn.Linear(32, 2)), nn.MSELoss(), _numbers
    ),
}

LARGER_TASKS: dict[str, Task] = {
    "residual": Task(Residual, nn.CrossEntropyLoss(), _classes(1, 8, 8)),
    "transformer": Task(Transformer, nn.CrossEntropyLoss(), _words),
}

Optimizer = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "sgd-dampening": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, dampening=0.3, weight_decay=1e-3),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3),
    "adam-decay": lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=1e-2, betas=(0.8, 0.99), eps=1e-6),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=2e-3, amsgrad=True),
    "adam-slow": lambda p: torch.optim.Adam(p, lr=2e-3, betas=(0.3, 0.9)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.1),
}

"""ResNet-20 on digits, as a task that anyone can solve and check.

    python examples/cnn.py --steps 40

Batch normalization's running statistics are state of the task like the weights; the learning rate falls along a cosine
that is committed with the task.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import gensyn_verify as gv


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut that subsamples and pads channels with zeros."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.stride = out // channels
        self.pad = (out - channels) // 2
        self.conv1 = nn.Conv2d(channels, out, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        nn.init.constant_(self.norm2.weight, 0.2)  # every block begins near its shortcut: early steps are gentle

    def forward(self, x: Tensor) -> Tensor:
        shortcut = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        x = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(x)) + shortcut)


class ResNet20(nn.Module):
    """Three stages of three blocks, 16 to 64 channels: images [N, 3, H, W] to scores [N, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        widths = [16, *(w for w in (16, 32, 64) for _ in range(3))]
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(widths)))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def digits(side: int = 32) -> tuple[Tensor, Tensor]:
    """Images [1797, 3, side, side] from -1 to 1, and their digits [1797]."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 8 - 1, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return nn.functional.interpolate(images, side, mode="bilinear").expand(-1, 3, -1, -1), torch.tensor(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--side", type=int, default=16, help="pixels")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = ResNet20()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    with tempfile.TemporaryDirectory() as folder:
        task = gv.capture(
            model,
            nn.CrossEntropyLoss(),
            optimizer,
            digits(args.side),
            steps=args.steps,
            batch_size=args.batch_size,
            interval=10,
            lr=lambda step: 0.05 * (1 + math.cos(math.pi * step / args.steps)),
            path=Path(folder) / "task",
        )
        run = gv.solve(task, Path(folder) / "run", progress=lambda n, _, m: print(f"step {n}: loss {m['loss']:.4f}"))
        report = gv.replay(run, task=task, samples=2)
        print(report)
        assert report.verdict is gv.Verdict.VERIFIED


if __name__ == "__main__":
    main()

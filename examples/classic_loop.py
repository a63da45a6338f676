"""A loop that no program can be captured from: a random number of blocks, an early exit, an optimizer of one's own.

    python examples/classic_loop.py --steps 60

The run holds what every step read and left, and the digest of this file. Who replays it trusts a copy of this file.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gensyn_verify as gv


class Adaptive(nn.Module):
    """As many blocks as chance says, and no more once the network is sure of every image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 10)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        for block in self.blocks[: random.randint(1, 4)]:
            h = h + block(h)
            if self.last(h).softmax(1).amax(1).min() > 0.9:
                break
        return self.last(h)  # type: ignore[no-any-return]


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, arXiv:2302.06675: the sign of an interpolated momentum."""

    def __init__(self, parameters: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            early, late = group["betas"]
            for p in group["params"]:
                if p.grad is not None:  # a block that was left out has none
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    p.sub_(torch.sign(m * early + p.grad * (1 - early)), alpha=group["lr"])
                    m.mul_(late).add_(p.grad, alpha=1 - late)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def build() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    model = Adaptive()
    return model, Lion(model.parameters(), lr=5e-3), step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()

    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    loader = DataLoader(data, batch_size=50, shuffle=True, drop_last=True)

    with tempfile.TemporaryDirectory() as folder:
        with gv.record_loop(build, Path(folder) / "run", interval=20) as loop:
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(loop.optimizer, args.steps)
            while loop.steps < args.steps:
                for batch in loader:
                    loss = loop(batch)  # instead of step(model, optimizer, batch)
                    scheduler.step()
                    if loop.steps == args.steps:
                        break
                print(f"step {loop.steps}: loss {loss:.4f}")

        open_verdict = gv.replay(Path(folder) / "run").verdict
        assert open_verdict is gv.Verdict.UNDECIDED  # nothing was executed
        report = gv.replay(Path(folder) / "run", trust_code=f"{__file__}:build")
        print(report)
        assert report.verdict is gv.Verdict.VERIFIED


if __name__ == "__main__":
    main()

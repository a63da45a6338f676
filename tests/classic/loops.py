"""Loops that no program can be captured from: random depth, early exit, an optimizer that no table knows.

`loops.py FOLDER STEPS` records `build` and is killed by SIGKILL after that many steps.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gensyn_verify as gv

SALT, SOLVER = bytes(range(32)), gv.Identity.unsigned("0x" + "a5" * 20)
OPTIONS: dict[str, Any] = {"interval": 4, "salt": SALT, "identity": SOLVER, "seed": 3}
STEPS = 11


class RandomDepth(nn.Module):
    """Stochastic depth by `random`, noise by NumPy, dropout by torch, and an exit that depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.2))
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.last = nn.Linear(16, 3)
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x)) * (1 + 0.01 * np.random.normal())
        for block in self.blocks[: random.randint(1, 4)]:
            h = h + torch.tanh(block(h))
            if h.detach().abs().mean() > 1.5:
                break
        self.largest = torch.maximum(self.largest, h.detach().max())  # another tensor every time
        return self.last(h)  # type: ignore[no-any-return]


class SignMomentum(torch.optim.Optimizer):
    """A custom optimizer whose state is a tensor, an int, a NumPy float, None, and numbers of its own."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.5), "warmup": 2})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.state["taken"] = self.state.get("taken", 0) + 1  # type: ignore[index, call-overload]
        shared = self.state.setdefault("shared", {"even": False, "best": None})  # type: ignore[call-overload]
        shared["even"] = not shared["even"]
        if self.state["taken"] > 5:  # type: ignore[index]
            shared["best"] = 0.25
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(seen=0, norm=np.float64(0), m=torch.zeros_like(p), unused=None)
                state["seen"] += 1
                state["norm"] = 0.5 * state["norm"] + float(p.grad.norm())
                state["m"].mul_(group["betas"][0]).add_(p.grad.sign(), alpha=group["betas"][1])
                assert state["unused"] is None
                scale = min(1.0, state["seen"] / group["warmup"]) / (1 + state["norm"]) + (
                    shared["best"] or shared["even"]
                )
                p.data.add_(state["m"], alpha=-group["lr"] * scale)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(batch["x"]), batch["label"]) * batch["weight"]
    loss.backward()
    optimizer.step()
    return loss.detach()


def careless_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Tensor:
    """Leaves the gradients where they are, and asks for none to be there."""
    assert all(p.grad is None for p in model.parameters())
    loss = nn.functional.cross_entropy(model(batch["x"]), batch["label"])
    loss.backward()
    optimizer.step()
    return loss.detach()


def careless() -> Any:
    return (*build("sgd")[:2], careless_step)


class Mean(nn.Module):
    """Sequences of any length, as many as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, sequences: list[Tensor]) -> Tensor:
        return self.last(torch.stack([self.words(s).mean(0) for s in sequences]))  # type: ignore[no-any-return]


def ragged_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(batch["sequences"]), batch["labels"])
    (loss * batch.get("weight", 1.0)).backward()
    optimizer.step()
    return loss.detach()


def sequences() -> Any:
    torch.manual_seed(0)
    model = Mean()
    return model, torch.optim.Adam(model.parameters(), lr=0.01), ragged_step


def ragged_batches(count: int = STEPS) -> list[dict[str, Any]]:
    """Another number of sequences, other lengths, and now and then another key."""
    g = torch.Generator().manual_seed(8)
    found = []
    for n in range(count):
        lengths = torch.randint(1, 9, (1 + n % 4,), generator=g).tolist()
        words = [torch.randint(0, 20, (length,), generator=g) for length in lengths]
        batch = {"sequences": words, "labels": torch.randint(0, 3, (len(words),), generator=g)}
        found.append(batch | ({"weight": 0.5} if n % 3 else {}))
    return found


CALLS: list[int] = []


def counting() -> Any:
    """A step that reads a global, by which it counts its calls."""

    def counting_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Tensor:
        CALLS.append(1)
        return step(model, optimizer, {**batch, "weight": batch["weight"] * len(CALLS)})

    return (*build("sgd")[:2], counting_step)


def build(optimizer: str = "adam") -> tuple[nn.Module, torch.optim.Optimizer, Callable[..., Tensor]]:
    torch.manual_seed(0)
    model = RandomDepth()
    return model, OPTIMIZERS[optimizer](model.parameters()), step


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "custom": lambda p: SignMomentum(p, lr=0.01),
}


def sgd() -> Any:
    return build("sgd")


def adafactor() -> Any:
    return build("adafactor")


def custom() -> Any:
    return build("custom")


adam = build


def batches(count: int = STEPS) -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(7)
    return [
        {"x": torch.randn(8, 6, generator=g), "label": torch.randint(0, 3, (8,), generator=g), "weight": 1.0 + n / 8}
        for n in range(count)
    ]


def train(folder: Path | str, stop: int = -1, build: Callable[..., Any] = build, **options: Any) -> Any:
    """Record the loop into `folder`, from where a run that is there has got to; the loop."""
    with gv.record_loop(build, folder, resume=True, **{**OPTIONS, **options}) as loop:
        print("from", loop.steps, flush=True)
        scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, 3, 0.5)
        for _ in range(loop.steps):
            scheduler.step()
            loop.optimizer.param_groups[0]["lr"] *= np.float64(0.99)
        for batch in batches()[loop.steps :]:
            loop(batch)
            scheduler.step()
            loop.optimizer.param_groups[0]["lr"] *= np.float64(0.99)
            torch.randn(3)  # the loop's own draws are no part of the step
            random.random()
            if loop.steps == stop:
                os.kill(os.getpid(), signal.SIGKILL)
    return loop


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], int(sys.argv[2]))

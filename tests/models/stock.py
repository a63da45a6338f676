"""Stock PyTorch training a model of the zoo. As a script, for another environment of PyTorch's:

python -m tests.models.stock NAME STEPS OUT.npz
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tests.models.zoo import TASKS, Task


@dataclass(frozen=True)
class Trained:
    """The loss of every step, and all floating-point parameters and buffers in one row, in binary64."""

    losses: npt.NDArray[np.float64]
    state: npt.NDArray[np.float64]


def state(model: nn.Module) -> npt.NDArray[np.float64]:
    tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
    return torch.cat([t.double().flatten() for t in tensors]).numpy()  # type: ignore[no-any-return]


def train(task: Task, steps: int) -> Trained:
    model, optimizer = task.build()
    losses = []
    for batch in task.batches(steps):
        optimizer.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Trained(np.array(losses), state(model))


def main(name: str, steps: str, out: str) -> None:
    torch.set_num_threads(1)
    trained = train(TASKS[name], int(steps))
    np.savez(out, losses=trained.losses, state=trained.state)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Training on the engine follows stock PyTorch, and both backends give the same bits."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gensyn_verify import backends
from gensyn_verify.frontend import compile, trace_step
from tests.frontend.models import OPTIMIZERS, TASKS, Optimizer, Task
from tests.native import assert_same_bits

STEPS = 100


def stock_losses(task: Task, optimizer: Optimizer, steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer, list[float]]:
    model = task.build()
    stock = optimizer(model.parameters())
    losses = []
    for x, y in task.batches(steps):
        stock.zero_grad()
        loss = task.loss(model(x), y)
        loss.backward()
        stock.step()
        losses.append(loss.item())
    return model, stock, losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_loss_follows_pytorch_over_100_steps(task: str, optimizer: str) -> None:
    _, _, wanted = stock_losses(TASKS[task], OPTIMIZERS[optimizer], STEPS)
    model = TASKS[task].build()
    step = compile(model, TASKS[task].loss, OPTIMIZERS[optimizer](model.parameters()))
    found = [step(batch).item() for batch in TASKS[task].batches(STEPS)]
    assert wanted[-1] < wanted[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)

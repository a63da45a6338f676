"""Small real models on the engine beside stock PyTorch: same initial state, same batches, same losses.

20 steps a model; `make test-models` takes all 200. Two correct runs drift apart as their roundings differ, the faster
the more often a ReLU stands near its edge: what is allowed is a thousandth, or three times what PyTorch in binary32 has
drifted from PyTorch in binary64 on the same batches.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensyn_verify.frontend import compile
from tests.models.zoo import TASKS, Batch, Task

STEPS = int(os.environ.get("GENSYN_VERIFY_MODEL_STEPS", "20"))


def train(task: Task, batches: list[Batch], dtype: torch.dtype) -> tuple[nn.Module, list[float]]:
    """Stock PyTorch."""
    model, optimizer = task.build(dtype)
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = task.loss(model(cast(x, dtype)), cast(y, dtype))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def train_on_engine(task: Task, batches: list[Batch]) -> tuple[nn.Module, list[float]]:
    model, optimizer = task.build()
    step = compile(model, task.loss, optimizer)
    return model, [step(batch).item() for batch in batches]


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def drift(model: nn.Module, exact: nn.Module) -> float:
    """How far parameters and buffers are from the exact ones: the norm of the difference over the norm."""
    own, other = model.state_dict(), exact.state_dict()
    names = [name for name in other if other[name].is_floating_point()]
    found = torch.cat([own[name].double().flatten() for name in names])
    wanted = torch.cat([other[name].double().flatten() for name in names])
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", TASKS)
def test_losses_and_parameters_follow_pytorch(name: str) -> None:
    task = TASKS[name]
    batches = task.batches(STEPS)
    exact, truth = train(task, batches, torch.float64)
    stock, wanted = train(task, batches, torch.float32)
    model, found = train_on_engine(task, batches)
    own = np.max(np.abs(np.array(wanted) / truth - 1))
    np.testing.assert_allclose(found, wanted, rtol=max(1e-3, 3 * own))
    assert np.mean(wanted[-5:]) < np.mean(wanted[:5]), "nothing was learned, so nothing was compared"
    assert drift(model, exact) <= max(3 * drift(stock, exact), 1e-5)

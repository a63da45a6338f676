"""A task for `gverify capture`: an MLP on scikit-learn's digits.

gverify capture examples/digits.py:build --steps 200 --batch-size 64 --out task
gverify solve task --out run
gverify replay run --task task --samples 3
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn, optim


def build() -> tuple[nn.Module, nn.Module, optim.Optimizer, tuple[torch.Tensor, torch.Tensor]]:
    """Model, loss, optimizer and data; the first dimension of the data counts the examples."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return model, nn.CrossEntropyLoss(), optimizer, data

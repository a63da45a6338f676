"""One thread for PyTorch: the models are small, and bits depend on their number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.classic import loops

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `loops.build`: 11 steps, a checkpoint every 4."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    loops.train(folder)
    return folder

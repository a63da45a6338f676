"""Dropout from the committed stream: other numbers than PyTorch's, but it regularises, learns and replays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import gensyn_verify as gv
from tests.models.zoo import WITH_DROPOUT


def losses(name: str, steps: int, seed: int) -> list[float]:
    task = WITH_DROPOUT[name]
    _, step = task.compile(seed=seed)
    return [step(batch).item() for batch in task.batches(steps)]


def test_dropout_follows_its_seed_and_learns_as_pytorch_does() -> None:
    first, other = (losses("gpt-dropout", 15, seed) for seed in (1, 2))
    assert first != other
    task = WITH_DROPOUT["gpt-dropout"]
    model, optimizer = task.build()
    stock = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for batch in task.batches(15):
            optimizer.zero_grad()
            loss = task.loss(model, batch)
            loss.backward()
            optimizer.step()
            stock.append(loss.item())
    assert stock[-1] < 0.8 * stock[0]
    for own in (first, other):
        np.testing.assert_allclose(own, stock, rtol=0.05)


def test_run_with_dropout_replays_bit_for_bit(tmp_path: Path) -> None:
    task = WITH_DROPOUT["gpt-dropout"]
    model, optimizer = task.build()
    made = gv.capture(
        model, task.loss, optimizer, task.data(), steps=6, batch_size=4, interval=2, path=tmp_path / "task", seed=9,
        loss_takes_model=True,
    )  # fmt: skip
    run = gv.solve(made, tmp_path / "run")
    report = gv.replay(run, everything=True)
    assert report.verdict is gv.Verdict.VERIFIED
    assert report.steps_replayed == 6

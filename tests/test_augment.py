"""Augmentation in a captured step: what it does to each image, and that a replay does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import gensyn_verify as gv  # noqa: E402
from gensyn_verify import augment  # noqa: E402

BATCH = 256


class Watched(nn.Module):
    """Keeps what `inner` gave in buffers: the engine's own results."""

    def __init__(self, inner: nn.Module, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.weight = nn.Parameter(torch.zeros(1))
        for n, shape in enumerate(shapes):
            self.register_buffer(f"result{n}", torch.zeros(shape))

    def forward(self, *inputs: Any) -> Any:
        results = self.inner(*inputs)
        for n, result in enumerate(results if isinstance(results, tuple) else (results,)):
            getattr(self, f"result{n}").copy_(result)
        return self.weight


def results(inner: nn.Module, batch: tuple[Any, ...], *shapes: tuple[int, ...], steps: int = 1) -> list[list[Any]]:
    """What the engine computes for `inner(*batch)`, step after step."""
    model = Watched(inner, *shapes)
    step = gv.compile(
        model, lambda m, b: m(*b).sum(), torch.optim.SGD(model.parameters(), lr=0.1), loss_takes_model=True, seed=5
    )
    found = []
    for _ in range(steps):
        step(batch)
        found.append([getattr(model, f"result{n}").numpy().copy() for n in range(len(shapes))])
    return found


@pytest.fixture
def images() -> Any:
    """Every pixel different, none 0."""
    return torch.arange(1, BATCH * 2 * 6 * 5 + 1, dtype=torch.float32).reshape(BATCH, 2, 6, 5)


def test_a_crop_is_a_window_of_the_padded_image_and_every_window_comes_up(images: Any) -> None:
    ((cropped,),) = results(augment.RandomCrop((6, 5), padding=1, fill=-1.0), (images,), tuple(images.shape))
    padded = nn.functional.pad(images, (1,) * 4, value=-1.0).numpy()
    places = []
    for before, after in zip(padded, cropped, strict=True):
        fits = [(i, j) for i in range(3) for j in range(3) if (before[:, i : i + 6, j : j + 5] == after).all()]
        assert len(fits) == 1
        places += fits
    counts = np.unique(places, axis=0, return_counts=True)[1]
    assert len(counts) == 9
    assert (abs(counts - BATCH / 9) < 5 * np.sqrt(BATCH / 9)).all()


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_flip_mirrors_an_image_or_leaves_it(axis: int, images: Any) -> None:
    ((flipped,),) = results(augment.RandomFlip(0.25, axis), (images,), tuple(images.shape))
    mirrored = (flipped == images.flip(axis).numpy()).all((1, 2, 3))
    assert (mirrored | (flipped == images.numpy()).all((1, 2, 3))).all()
    assert abs(mirrored.sum() - BATCH / 4) < 5 * np.sqrt(BATCH * 3 / 16)


def test_erasing_clears_one_rectangle() -> None:
    images = torch.ones(BATCH, 2, 20, 30)
    module = augment.RandomErasing(0.5, scale=(0.1, 0.3), value=7.0)
    ((erased,),) = results(module, (images,), tuple(images.shape))
    hit = (erased == 7).any((1, 2, 3))
    assert abs(hit.sum() - BATCH / 2) < 5 * np.sqrt(BATCH / 4)
    assert (erased[~hit] == 1).all()
    for image in erased[hit]:
        rows, columns = (image[0] == 7).any(1), (image[0] == 7).any(0)
        assert ((image == 7) == (rows[:, None] & columns)).all()
        for side in (rows, columns):
            assert (np.diff(np.flatnonzero(side)) == 1).all()
    share = (erased[hit] == 7).mean((1, 2, 3))
    assert share.min() > 0.05
    assert share.max() < 0.36


def test_noise_has_its_deviation_and_differs_from_step_to_step() -> None:
    first, second = results(augment.GaussianNoise(0.5), (torch.zeros(BATCH, 3, 8, 8),), (BATCH, 3, 8, 8), steps=2)
    for (noise,) in (first, second):
        assert abs(noise.mean()) < 0.01
        assert abs(noise.std() - 0.5) < 0.01
    assert (first[0] != second[0]).mean() > 0.99


def test_mixup_mixes_neighbours_and_their_targets_by_one_share(images: Any) -> None:
    target = torch.arange(BATCH) % 4
    shapes = (tuple(images.shape), (BATCH, 4))
    for mixed, probabilities in results(augment.MixUp(4, alpha=0.4), (images, target), *shapes, steps=3):
        share = probabilities[0, 0]
        np.testing.assert_allclose(probabilities, share * np.eye(4)[target] + (1 - share) * np.eye(4)[target - 1])
        np.testing.assert_allclose(mixed, share * images + (1 - share) * images.roll(1, 0), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 4.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    places = np.linspace(0, 1, augment.QUANTILES)
    np.testing.assert_allclose(augment.MixUp(2, alpha).quantiles, stats.beta.ppf(places, alpha, alpha), atol=2e-5)


def test_in_eval_mode_nothing_changes(images: Any) -> None:
    for module in (
        augment.RandomCrop(3), augment.RandomFlip(1.0), augment.RandomErasing(1.0), augment.GaussianNoise(1.0)
    ):  # fmt: skip
        assert module.eval()(images) is images
    x, target = augment.MixUp(2).eval()(images, torch.ones(BATCH).long())
    assert x is images
    assert target.tolist() == [[0.0, 1.0]] * BATCH


def test_an_augmented_run_replays(tmp_path: Path, images: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        augment.RandomCrop(5, 1), augment.RandomFlip(), augment.RandomErasing(), augment.GaussianNoise(0.1),
        nn.Flatten(), nn.Linear(50, 3),
    )  # fmt: skip
    mixup = augment.MixUp(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def loss(model: nn.Module, batch: Any) -> Any:
        x, y = mixup(*batch)
        return nn.functional.cross_entropy(model(x), y)

    task = gv.capture(
        model, loss, optimizer, (images, torch.arange(BATCH) % 3), steps=6, batch_size=16, interval=2,
        loss_takes_model=True, path=tmp_path / "task",
    )  # fmt: skip
    run = gv.solve(task, tmp_path / "run")
    assert gv.replay(run).verdict is gv.Verdict.VERIFIED

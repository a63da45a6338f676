"""The rule of Jia et al. 2021 accepts honest runs, and the attacks that are known to beat it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gensyn_verify as gv
from gensyn_verify.attacks import forge, jia
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.task import Task

torch = pytest.importorskip("torch")

# What the rule lets pass because it believes what it is told: other data, with the hashes of what was shown; tensors
# that are no parameters; moments, which open the interval after the one that they close.
BELIEVED = [
    "batchnorm-tamper", "cherry-picked", "copied-run", "data-addition", "data-subtraction", "drift", "elided-data",
    "forged-moments-aligned", "forged-moments-calibrated", "forged-moments-plain", "label-change", "order-change",
]  # fmt: skip
# What was published against it: a stolen model reached with little or no training.
PUBLISHED = ["adversarial-1", "adversarial-2", "adversarial-3", "blindfold-topq", "infinitesimal-update",
             "initialisation-break", "optimizer-injection"]  # fmt: skip


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """An MLP with batch normalization and AdamW, 32 intervals of a step in two epochs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 12, generator=generator)
    y = (x[:, :3].sum(1) > 0).long() + (x[:, 3] > 0).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [torch.nn.Linear(12, 24), torch.nn.BatchNorm1d(24), torch.nn.ReLU(), torch.nn.Linear(24, 3)]
    model = torch.nn.Sequential(*layers)
    return gv.capture(
        model, torch.nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), lr=1e-3), (x, y),
        steps=32, batch_size=16, interval=1, path=tmp_path_factory.mktemp("mlp") / "task",
    )  # fmt: skip


@pytest.fixture(scope="module")
def victim(mlp: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return gv.solve(mlp, tmp_path_factory.mktemp("victim") / "run")


@pytest.fixture(scope="module")
def rule(mlp: Task, victim: Run) -> jia.Rule:
    return jia.calibrate(mlp, [victim])


@pytest.mark.parametrize("kind", PUBLISHED + BELIEVED)
def test_accepts_what_an_exact_replay_rejects(
    kind: str, mlp: Task, victim: Run, rule: jia.Rule, tmp_path: Path
) -> None:
    forgery = forge(kind, mlp, tmp_path / "forged", victim=victim, seed=1, disguise=False)
    assert rule.verify(forgery.run, mlp, forgery.claims, forgery.initial).accepted
    report = gv.replay(forgery.run, mlp, everything=True, commitment=forgery.published)
    assert report.verdict is gv.Verdict.MISMATCH


def test_a_jump_and_a_blindfold_cost_less_than_a_third_of_the_training(mlp: Task, victim: Run, tmp_path: Path) -> None:
    for kind in ("blindfold-topq", "optimizer-injection"):  # the others but the adversarial ones cost nothing
        assert forge(kind, mlp, tmp_path / kind, victim=victim, seed=1, disguise=False).cost < 1 / 3


@pytest.mark.parametrize("backend", ["cpu", "vendor:cpu"])
def test_accepts_honest_runs(backend: str, mlp: Task, rule: jia.Rule, tmp_path: Path) -> None:
    outcome = rule.verify(gv.solve(mlp, tmp_path / "run", backend=backend), mlp)
    assert outcome.accepted
    assert len(outcome.distances) == 2 * jia.Q  # of two epochs
    assert outcome.steps_replayed == len(outcome.distances)
    assert max(outcome.distances.values()) < jia.DELTA / 10


def test_rejects_work_that_was_not_done(mlp: Task, victim: Run, rule: jia.Rule, tmp_path: Path) -> None:
    forgery = forge("splice", mlp, tmp_path / "forged", victim=victim, seed=1)
    outcome = rule.verify(forgery.run, mlp, forgery.claims)
    assert not outcome.accepted
    assert "distance" in outcome.reason


def test_rejects_batches_that_are_not_those_in_the_log(mlp: Task, victim: Run, rule: jia.Rule) -> None:
    outcome = rule.verify(victim, mlp, lambda step: (mlp.batch((step + 1) % 16), mlp.scalars(step)))
    assert not outcome.accepted
    assert "step 0" in outcome.reason


def test_rejects_initial_weights_of_another_distribution(mlp: Task, victim: Run, rule: jia.Rule) -> None:
    state = mlp.initial_state()
    state["param.0.weight"] = state["param.0.weight"] * np.float32(2)
    outcome = rule.verify(victim, mlp, initial=state)
    assert not outcome.accepted
    assert "initial weights" in outcome.reason


@pytest.mark.parametrize("distance", list(jia.DISTANCES))
def test_every_distance_tells_an_honest_run_from_a_splice(
    distance: str, mlp: Task, victim: Run, tmp_path: Path
) -> None:
    rule = jia.calibrate(mlp, [victim], distance=distance)
    honest = rule.verify(victim, mlp)
    assert honest.accepted
    forgery = forge("splice", mlp, tmp_path / "forged", victim=victim, seed=1)
    spliced = rule.verify(forgery.run, mlp, forgery.claims)
    assert max(spliced.distances.values()) > 1e-4 > 1e3 * max(honest.distances.values())


def test_delta_leaves_room_for_the_reproduction_error_that_was_measured(mlp: Task, tmp_path: Path) -> None:
    narrow = gv.solve(mlp, tmp_path / "run", backend="vendor:cpu:bf16")
    rule = jia.calibrate(mlp, [narrow])
    worst = max(replace(rule, q=mlp.intervals).verify(narrow, mlp).distances.values())
    assert rule.delta == max(jia.DELTA, jia.SLACK * worst)


def test_same_distribution_tells_distributions_apart() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=400), random.normal(size=500)
    assert jia.same_distribution(a, a) == 1
    assert jia.same_distribution(a, b) > 0.01
    assert jia.same_distribution(a, 1.5 * b) < 0.01
    assert jia.same_distribution(a, jia.redrawn(a, random)) > 0.01


def test_same_distribution_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    for shift in (0.0, 0.1, 0.2):
        a, b = random.normal(size=300), random.normal(shift, size=400)
        assert jia.same_distribution(a, b) == pytest.approx(stats.ks_2samp(a, b, method="asymp").pvalue, abs=0.02)

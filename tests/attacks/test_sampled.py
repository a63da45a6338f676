"""At the sampled rate a forgery is met as often as the report says; grinding helps only where the beacon is known."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from pathlib import Path

import pytest

from gensyn_verify.attacks import Forgery, forge, grinding
from gensyn_verify.protocol import sampling
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.task import Task

BEACONS = [b"beacon %d" % i for i in range(600)]
CONFIDENCE = 0.999


def plausible(met: int, of: int, p: Fraction) -> bool:
    """Whether `met` successes of `of` lie inside the exact two-sided binomial test at `CONFIDENCE`."""

    def mass(values: range) -> float:
        return float(sum(comb(of, k) * p**k * (1 - p) ** (of - k) for k in values))

    tail = (1 - CONFIDENCE) / 2
    return mass(range(met + 1)) >= tail and mass(range(met, of + 1)) >= tail


def test_the_plausibility_test_itself_can_fail() -> None:
    assert plausible(300, 600, Fraction(1, 2))
    assert not plausible(250, 600, Fraction(1, 2))
    assert not plausible(600, 600, Fraction(98, 100))


def bad_intervals(forgery: Forgery, task: Task) -> set[int]:
    report = replay(forgery.run, task, everything=True)
    return {f.interval for f in report.findings if f.interval is not None}


def drawn(forgery: Forgery, task: Task, beacon: bytes) -> set[int]:
    assert forgery.run.commitment is not None
    return set(sampling.draw(beacon, forgery.run.commitment.digest, task.intervals, task.policy.samples))


@pytest.mark.parametrize(
    "kind",
    ["label-change", "splice", "seed-grinding-later-beacon", "seed-grinding-known-beacon", "elided-data",
     "data-interpolation", "minibatch-forging", "fewer-steps"],
)  # fmt: skip
def test_draws_meet_a_forgery_as_often_as_the_report_predicts(
    kind: str, task: Task, honest: Run, tmp_path: Path
) -> None:
    forgery = forge(kind, task, tmp_path / "forged", victim=honest, seed=5)
    bad = bad_intervals(forgery, task)
    predicted = sampling.probability_caught(task.intervals, task.policy.samples, len(bad))
    met = [bool(bad & drawn(forgery, task, beacon)) for beacon in BEACONS]
    assert plausible(sum(met), len(BEACONS), predicted)
    for beacon, caught in list(zip(BEACONS, met, strict=True))[:12]:  # a draw and a replay are the same thing
        report = replay(forgery.run, task, beacon=beacon)
        assert report.verdict is (Verdict.MISMATCH if caught else Verdict.VERIFIED)
        assert set(report.sampled) == drawn(forgery, task, beacon)
        stated = {n: p for _, n, p in report.detection}
        assert stated.get(len(bad), predicted) == predicted


def test_grinding_escapes_a_beacon_that_was_known(task: Task, honest: Run, tmp_path: Path) -> None:
    forgery = forge("seed-grinding-known-beacon", task, tmp_path / "forged", victim=honest, seed=4)
    assert forgery.beacon == grinding.BEACON
    assert bad_intervals(forgery, task)
    assert replay(forgery.run, task, beacon=forgery.beacon).verdict is Verdict.VERIFIED


def test_honest_runs_are_verified_whatever_is_drawn(task: Task, honest: Run) -> None:
    for beacon in BEACONS[:30]:
        assert replay(honest, task, beacon=beacon).verdict is Verdict.VERIFIED

"""Which intervals are replayed, and the probability of meeting a forged one."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from bundles import INTERVAL, SALT, SOLVER, STEPS, linear_task
from hypothesis import given
from hypothesis import strategies as st

from gensyn_verify.errors import MalformedError
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol.policy import Policy
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.sampling import detection_table, draw, probability_caught
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task

COMMITMENT = bytes(range(32))


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_draws_are_different_intervals_in_order(beacon: bytes, intervals: int, samples: int) -> None:
    drawn = draw(beacon, COMMITMENT, intervals, samples)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == min(samples, intervals)
    assert all(0 <= n < intervals for n in drawn)


def test_draws_follow_the_written_definition() -> None:
    beacon = b"block 1234"
    seed = keccak256(b"gensyn_verify.sample.1" + (10).to_bytes(4, "big") + beacon + COMMITMENT)
    wanted: list[int] = []
    for j in range(100):
        n = int.from_bytes(keccak256(seed + j.to_bytes(8, "big")), "big") % 17
        if n not in wanted and len(wanted) < 5:
            wanted.append(n)
    assert draw(beacon, COMMITMENT, 17, 5) == sorted(wanted)


def test_beacon_and_commitment_both_change_the_draw() -> None:
    base = draw(b"a", COMMITMENT, 10**6, 4)
    assert draw(b"b", COMMITMENT, 10**6, 4) != base
    assert draw(b"a", bytes(32), 10**6, 4) != base
    assert draw(b"a", COMMITMENT, 10**6, 4) == base


def test_every_interval_is_drawn_equally_often() -> None:
    counts = np.zeros(8)
    for i in range(2000):
        counts[draw(i.to_bytes(4, "big"), COMMITMENT, 8, 2)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 7 + 5 * math.sqrt(14)


def test_oversized_beacon_is_refused() -> None:
    with pytest.raises(MalformedError, match="beacon"):
        draw(bytes(1 << 17), COMMITMENT, 5, 2)


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_probability_counts_the_draws_that_meet_a_forged_interval(intervals: int, samples: int, forged: int) -> None:
    samples, forged = min(samples, intervals), min(forged, intervals)
    draws = list(combinations(range(intervals), samples))
    caught = sum(any(n < forged for n in d) for d in draws)
    assert probability_caught(intervals, samples, forged) == Fraction(caught, len(draws))


def test_detection_table_packs_forged_steps_into_as_few_intervals_as_hold_them() -> None:
    rows = detection_table(steps=1000, interval=10, samples=5)
    assert rows[0] == (Fraction(1, 1000), 1, Fraction(5, 100))
    by_share = {share: (packed, p) for share, packed, p in rows}
    assert by_share[Fraction(1, 10)] == (10, probability_caught(100, 5, 10))
    assert by_share[Fraction(1, 2)] == (50, probability_caught(100, 5, 50))
    probabilities = [p for _, _, p in rows]
    assert probabilities == sorted(probabilities)


def test_replay_executes_the_drawn_intervals_and_the_largest_updates(honest: Run, task: Task) -> None:
    report = replay(honest, task, samples=2, largest=1, beacon=b"beacon", backend="reference")
    assert report.verdict is Verdict.VERIFIED
    commitment = honest.commitment.digest  # type: ignore[union-attr]
    assert list(report.sampled) == draw(b"beacon", commitment, 6, 2)
    assert len(report.largest) == 1
    assert set(report.replayed) == {*report.sampled, *report.largest}
    steps = sum(min(INTERVAL, STEPS - n * INTERVAL) for n in report.replayed)
    assert report.steps_replayed == steps
    assert report.detection[0][2] == Fraction(2, 6)


def test_the_largest_update_is_replayed_whatever_the_draw(tmp_path: object) -> None:
    lr = np.full(STEPS, 1e-5, np.float32)
    lr[3 * INTERVAL + 2] = 0.02  # the jump lies in interval 3
    task = linear_task(f"{tmp_path}/task", lr=lr, policy=Policy(samples=0, largest=1))
    run = solve(task, f"{tmp_path}/run", identity=SOLVER, salt=SALT, backend="reference")
    report = replay(run, backend="reference")
    assert (report.sampled, report.largest, report.replayed) == ((), (3,), (3,))


def test_policy_of_the_task_is_the_default(honest: Run, task: Task) -> None:
    report = replay(honest, task, backend="reference")
    assert (len(report.sampled), len(report.largest)) == (task.policy.samples, task.policy.largest)
    assert len(bytes.fromhex(report.beacon)) == 32  # drawn by the verifier, and told


def test_replaying_nothing_decides_nothing(honest: Run, task: Task) -> None:
    report = replay(honest, task, samples=0, largest=0, backend="reference")
    assert report.verdict is Verdict.UNDECIDED
    assert report.detection == ()


def test_replaying_everything_would_have_caught_everything(honest: Run, task: Task) -> None:
    report = replay(honest, task, everything=True, backend="reference")
    assert {p for _, _, p in report.detection} == {1}


def test_progress_counts_replayed_steps(honest: Run, task: Task) -> None:
    seen: list[tuple[int, int]] = []
    report = replay(
        honest, task, samples=2, largest=0, backend="reference", progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(i + 1, report.steps_replayed) for i in range(report.steps_replayed)]


def test_report_reads_as_text_and_as_json(honest: Run, task: Task) -> None:
    import json

    report = replay(honest, task, beacon=b"\x01", backend="reference")
    text, value = str(report), json.loads(json.dumps(report.to_json()))
    assert text.startswith("VERIFIED")
    assert value["verdict"] == "VERIFIED"
    assert value["exit_code"] == 0
    assert value["beacon"] == "01"
    for word in (task.digest.hex(), report.commitment, "unsigned", "probability"):
        assert word in text

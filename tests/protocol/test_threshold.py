"""Mode threshold on a task without torch: honest rounding is accepted, and what is not rounding is not."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gensyn_verify as gv
from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.program import Dtype
from gensyn_verify.protocol import plot
from gensyn_verify.protocol.distance import Norms, cosine, difference, ulps
from gensyn_verify.protocol.policy import BIT, SHARE, Policy, Thresholds
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Report, Verdict
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.store import file_name
from gensyn_verify.protocol.task import Task, open_task
from gensyn_verify.protocol.threshold import Outcome
from tests.protocol.bundles import INTERVAL, STEPS, dishonest_solve, linear_task

INTERVALS = -(-STEPS // INTERVAL)
BEACON = b"a block that came later"
THRESHOLDS = Thresholds(
    noise=19, probes=3, accept_l2=0, accept_linf=BIT, reject_l2=3 * BIT, reject_linf=4 * BIT, share=-14 * BIT,
    resolution=-2 * BIT, mean=-4 * BIT, spread=BIT,
    coherence=0, scatter=SHARE // 5, reference=0, rate=1000, replays=0,
)  # fmt: skip
Patch = Callable[[int, dict[str, np.ndarray]], None]


def threshold_task(path: Path, **changes: int) -> Task:
    thresholds = dataclasses.replace(THRESHOLDS, **changes)
    return linear_task(path, policy=Policy("threshold", samples=2, largest=1, thresholds=thresholds))


def rounding(seed: int, ulps: float = 0.5) -> Patch:
    """Other kernels: every float is off by up to so many ulps after each step, at random."""
    rng = np.random.default_rng(seed)

    def patch(step: int, state: dict[str, np.ndarray]) -> None:
        for name in ("w", "m", "running"):
            noise = rng.uniform(-ulps, ulps, state[name].shape)
            state[name][...] = (state[name].astype(np.float64) * (1 + noise * 2.0**-23)).astype(np.float32)

    return patch


def forged(task: Task, out: Path, *patches: Patch) -> Run:
    def after(step, state, batch, scalars):  # type: ignore[no-untyped-def]
        for patch in patches:
            patch(step, state)

    return dishonest_solve(task, out, after=after, backend="cpu")


def at(step: int, change: Callable[[dict[str, np.ndarray]], None]) -> Patch:
    return lambda s, state: change(state) if s == step else None


def verify(run: Run, task: Task, **options: object) -> Report:
    return replay(run, task, everything=True, beacon=BEACON, **options)  # type: ignore[arg-type]


# ---- distances ---------------------------------------------------------------------------------------------------


def test_norms_of_a_difference() -> None:
    d = difference(np.float32([1, 2, np.inf, 0.0]), np.float32([4, -2, np.inf, -0.0]), Dtype.f32)
    assert Norms.of(d) == Norms(7.0, 5.0, 4.0)
    assert Norms.of(difference(np.float32([np.nan]), np.float32([1]), Dtype.f32)) == Norms(*[float("inf")] * 3)
    assert Norms.of(np.zeros((0, 3))) == Norms(0.0, 0.0, 0.0)


def test_cosine_of_two_updates() -> None:
    x, y = np.float64([1, 0]), np.float64([1, 1])
    assert cosine(x, y) == pytest.approx(0.5**0.5)
    assert (cosine(x, -x), cosine(0 * x, 0 * x), cosine(x, 0 * x)) == (-1.0, 1.0, 0.0)


MEASURE = """
import numpy as np
from gensyn_verify.protocol.distance import Norms, cosine
from gensyn_verify.protocol.threshold import Drift, TensorDeviation
rng = np.random.default_rng(0)
drift, one = Drift(), TensorDeviation(*[Norms(1.0, 1.0, 1.0)] * 3, 1.0)
for _ in range(3):
    found = {name: rng.normal(size=1000) for name in "abcdef"}
    drift.add(found, dict.fromkeys(found, one))
print(Norms.of(found["a"]), cosine(found["a"], found["b"]), drift.cosines, drift.coherence)
"""


def test_sums_do_not_depend_on_processor_and_process() -> None:
    """A BLAS adds in the order of its processor's kernels, and sets of names have another order in every process."""
    found = set()
    for core, seed in (("Prescott", "1"), ("Haswell", "2"), ("Haswell", "3")):
        environment = os.environ | {"OPENBLAS_CORETYPE": core, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", MEASURE]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1, found


@given(st.integers(0, 0x7F7FFFFF - 5000), st.integers(0, 5000))
def test_ulps_count_the_numbers_between(bits: int, apart: int) -> None:
    a, b = np.uint32([bits]).view(np.float32), np.uint32([bits + apart]).view(np.float32)
    assert ulps(a, b, Dtype.f32)[apart.bit_length()] == 1
    assert ulps(-a, -b, Dtype.f32) == ulps(b, a, Dtype.f32)
    across = ulps(-np.uint32([apart]).view(np.float32), np.uint32([apart]).view(np.float32), Dtype.f32)
    assert across[(2 * apart).bit_length()] == 1


def test_ulps_of_half_precision() -> None:
    assert ulps(np.uint16([0x3F80, 0x8000]), np.uint16([0x3F83, 0]), Dtype.bf16)[:3] == (1, 0, 1)
    assert ulps(np.float16([1.0]), np.float16([1.0 + 2**-10]), Dtype.f16)[:2] == (0, 1)


# ---- policy ------------------------------------------------------------------------------------------------------


def test_thresholds_travel_in_the_task_and_are_committed(tmp_path: Path) -> None:
    task, other = threshold_task(tmp_path / "a"), threshold_task(tmp_path / "b", accept_l2=1)
    assert open_task(tmp_path / "a").policy == task.policy
    assert open_task(tmp_path / "a").digest == task.digest != other.digest
    assert linear_task(tmp_path / "c").digest != task.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["thresholds"].update(accept_l2=4096), "accept_l2 is 4096, above reject_l2"),
        (lambda p: p["thresholds"].update(noise=24), "noise"),
        (lambda p: p["thresholds"].update(accept_l2=1 << 21), "accept_l2"),
        (lambda p: p["thresholds"].pop("probes"), "missing keys"),
        (lambda p: p["thresholds"].update(trust=1), "unknown keys"),
        (lambda p: p.update(mode="exact"), "only there"),
        (lambda p: p.pop("thresholds"), "only there"),
        (lambda p: p.update(thresholds=[]), "an object"),
    ],
)
def test_a_hostile_policy_is_one_clear_error(change: Callable, words: str, tmp_path: Path) -> None:
    threshold_task(tmp_path / "task")
    file = tmp_path / "task" / "task.json"
    manifest = json.loads(file.read_bytes())
    change(manifest["policy"])
    file.write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":")))
    with pytest.raises(BundleError, match=words):
        open_task(tmp_path / "task")
    with pytest.raises(MalformedError):
        Policy("threshold")


# ---- verdicts ----------------------------------------------------------------------------------------------------


def test_a_run_on_reproducible_kernels_is_accepted(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")
    report = verify(solve(task, tmp_path / "run"), task)
    assert (report.verdict, report.exit_code, report.findings) == (Verdict.ACCEPT, 0, ())
    assert all(d.distance("l1") == 0.0 and sum(d.ulps[1:]) == 0 for d in report.deviations)
    assert report.steps_replayed == STEPS * (1 + THRESHOLDS.probes)


@pytest.mark.parametrize("seed", range(5))
def test_other_roundings_are_accepted(seed: int, tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")
    run = forged(task, tmp_path / "run", rounding(seed))
    report = verify(run, task)
    assert report.verdict is Verdict.ACCEPT, str(report)
    assert all(-8 < d.worst("l2")[0] < 0 for d in report.deviations)
    assert gv.replay(run, task).verdict is Verdict.ACCEPT  # a sample, another beacon


def test_statistics_are_the_same_for_everyone_with_the_same_beacon(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")
    run = forged(task, tmp_path / "run", rounding(1))
    first, second = verify(run, task), verify(run, task, backend="reference")
    assert first.deviations == second.deviations
    assert first.statistics == second.statistics
    other = replay(run, task, everything=True, beacon=b"another block")
    assert [d.resolution for d in other.deviations] != [d.resolution for d in first.deviations]


@pytest.mark.parametrize("tensor", ["w", "m", "running"])
@pytest.mark.parametrize("share", [0.05, 1.0])
def test_a_tensor_that_is_moved_is_rejected_and_named(tensor: str, share: float, tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")
    closing = 3 * INTERVAL - 1

    def push(state: dict[str, np.ndarray]) -> None:
        state[tensor][2] *= 1 + share

    report = verify(forged(task, tmp_path / "run", rounding(0), at(closing, push)), task)
    assert (report.verdict, report.exit_code) == (Verdict.REJECT, 1)
    decided = report.statistics[0]
    assert decided.outcome is Outcome.REJECT
    assert (decided.interval, decided.tensor) == (2, tensor)
    assert decided.name.startswith("excess")
    assert [d.interval for d in report.deviations if d.outcome(THRESHOLDS) is not Outcome.ACCEPT] == [2]
    assert f"of {tensor!r} in interval 2" in str(report)


@pytest.mark.parametrize(
    ("exponent", "share", "verdict"),
    [(17, -14, Verdict.UNDECIDED), (13, -14, Verdict.REJECT), (13, -2, Verdict.UNDECIDED)],
)
def test_between_acceptance_and_rejection_lies_undecided(
    exponent: int, share: int, verdict: Verdict, tmp_path: Path
) -> None:
    """A little beyond the probes; far beyond them; far beyond them, but a small share of the update."""
    task = threshold_task(tmp_path / "task", share=share * BIT)

    def push(state: dict[str, np.ndarray]) -> None:
        state["w"] *= np.float32(1 + 2.0**-exponent)

    report = verify(forged(task, tmp_path / "run", at(2 * INTERVAL - 1, push)), task)
    assert report.verdict is verdict, str(report)
    decided = report.statistics[0]
    assert (decided.name, decided.interval, decided.tensor) == ("excess l2", 1, "w")
    assert (decided.value > THRESHOLDS.reject_l2 / BIT) is (exponent == 13)
    assert [d.probes for d in report.deviations] == [3, 12, 3, 3, 3, 3]  # more where the first did not accept


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far(value: float, tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")

    def spoil(state: dict[str, np.ndarray]) -> None:
        state["running"][0] = value

    report = verify(forged(task, tmp_path / "run", at(STEPS - 1, spoil)), task)
    assert report.verdict is Verdict.REJECT
    assert report.statistics[0].value == np.inf
    json.dumps(report.to_json())


def test_a_tensor_that_is_no_float_must_be_equal(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")

    def skip(state: dict[str, np.ndarray]) -> None:
        state["step"] += 1

    report = verify(forged(task, tmp_path / "run", at(INTERVAL - 1, skip)), task)
    assert report.verdict is Verdict.REJECT
    assert (report.findings[0].kind, report.findings[0].tensor, report.findings[0].interval) == ("state", "step", 0)


def test_data_and_rates_are_the_tasks_wherever_they_are_not(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")

    def other_rate(step, state, batch, scalars):  # type: ignore[no-untyped-def]
        if step == 9:
            scalars["lr"] *= 2

    run = dishonest_solve(task, tmp_path / "rate", before=other_rate, backend="cpu")
    report = replay(run, task, samples=0, largest=0)  # rates are compared without any replay
    assert report.verdict is Verdict.REJECT
    assert (report.findings[0].kind, report.findings[0].step) == ("scalar", 9)

    def other_rows(step, state, batch, scalars):  # type: ignore[no-untyped-def]
        if step == 9:
            batch["x"][...] = batch["x"][::-1].copy()

    run = dishonest_solve(task, tmp_path / "rows", before=other_rows, backend="cpu")
    report = verify(run, task)
    assert report.verdict is Verdict.REJECT
    assert (report.findings[0].kind, report.findings[0].step) == ("batch", 9)


def test_a_push_below_the_thresholds_shows_in_the_coherence(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")

    def push(step: int, state: dict[str, np.ndarray]) -> None:
        if (step + 1) % INTERVAL == 0:
            state["w"] *= np.float32(1 + 2.0**-22)

    honest = verify(forged(task, tmp_path / "honest", rounding(3)), task)
    pushed = verify(forged(task, tmp_path / "pushed", rounding(3, ulps=0.1), push), task)
    assert honest.verdict is Verdict.ACCEPT
    assert all(d.outcome(THRESHOLDS) is Outcome.ACCEPT for d in pushed.deviations)
    assert pushed.verdict is Verdict.REJECT
    assert pushed.statistics[0].name == "coherence"
    assert pushed.statistics[0].value > 0.8


def test_distances_that_always_fill_the_thresholds_exceed_the_budget(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")
    report = verify(forged(task, tmp_path / "run", rounding(4, ulps=12)), task)
    assert {d.outcome(THRESHOLDS) for d in report.deviations} == {Outcome.ACCEPT}
    assert report.verdict is Verdict.REJECT
    assert report.statistics[0].name == "budget"


def test_where_rounding_hides_everything_nothing_is_concluded(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task", resolution=-19 * BIT)

    def push(state: dict[str, np.ndarray]) -> None:
        state["w"] *= 2

    report = verify(forged(task, tmp_path / "run", at(STEPS - 1, push)), task)
    assert report.verdict is Verdict.UNDECIDED
    assert report.statistics[0].name == "resolution"


def test_probes_that_overflow_excuse_nothing(tmp_path: Path) -> None:
    """A momentum at the edge of binary32: half of its probes are infinite."""
    task = threshold_task(tmp_path / "task", resolution=2 * BIT)

    def to_the_edge(state: dict[str, np.ndarray]) -> None:
        state["m"][...] = np.finfo(np.float32).max

    def push(state: dict[str, np.ndarray]) -> None:
        state["m"][...] *= np.float32(0.5)

    run = forged(task, tmp_path / "run", at(INTERVAL - 1, to_the_edge), at(2 * INTERVAL - 1, push))
    report = verify(run, task)
    assert report.verdict is Verdict.REJECT
    assert report.deviations[1].outcome(task.policy.thresholds) is not Outcome.ACCEPT


def test_a_checkpoint_that_is_missing_leaves_the_verdict_open(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")
    run = solve(task, tmp_path / "run")
    root = run.segment(INTERVALS - 1).steps[-1].state["w"]
    (tmp_path / "run" / file_name(root, task.program.inputs_of("state")["w"])).unlink()
    report = verify(run, task)
    assert report.verdict is Verdict.UNDECIDED
    assert len(report.deviations) == INTERVALS - 1


def test_the_picture_has_a_dot_for_every_interval(tmp_path: Path) -> None:
    task = threshold_task(tmp_path / "task")
    report = verify(forged(task, tmp_path / "run", rounding(0)), task)
    drawn = plot.draw(report)
    assert drawn.count("<circle") == 3 * INTERVALS
    assert drawn == plot.draw(verify(gv.open_run(tmp_path / "run", task), task))

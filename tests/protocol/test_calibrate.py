"""Thresholds from honest replays: the statistics, and whole calibrations of a small model on PyTorch's own kernels."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

import gensyn_verify as gv
from gensyn_verify.cli import main
from gensyn_verify.errors import BackendError, BundleError, MalformedError
from gensyn_verify.protocol.calibrate import Variation, calibrate, chi_square, solve_as, tail, variations, varied
from gensyn_verify.protocol.policy import BIT, RATE
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.task import Task
from tests.protocol.bundles import INTERVAL, dishonest_solve, linear_task

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("p", "degrees", "value"),
    [(0.05, 4, 0.7107), (0.05, 10, 3.940), (0.05, 40, 26.51), (0.05, 200, 168.28), (0.95, 10, 18.31)],
)
def test_quantiles_of_chi_square(p: float, degrees: int, value: float) -> None:
    assert chi_square(p, degrees) == pytest.approx(value, rel=0.03)


@pytest.mark.parametrize(("sigma", "n"), [(0.3, 60), (1.0, 100), (2.0, 400)])
def test_the_tail_covers_as_often_as_it_says(sigma: float, n: int) -> None:
    rng, p, trials = np.random.default_rng(n), 1e-4, 1000
    exact = sigma * math.log(1 / p)
    covered = sum(tail(list(rng.exponential(sigma, n)), p) >= exact for _ in range(trials))
    assert covered >= 0.93 * trials  # stated: 95 %; the quantile where the tail begins is an estimate too


def test_a_tail_never_lies_below_what_was_seen_to_begin_it() -> None:
    assert tail([1.0] * 50, 1e-3) > 1.0
    assert tail([0.0, 1.0, 2.0, 3.0], 1e-6) > tail([0.0, 1.0, 2.0, 3.0], 1e-3)


def mlp_task(path: Path, steps: int = 20) -> Task:
    torch.manual_seed(0)
    x = torch.randn(256, 12)
    y = (x[:, :3].sum(1) > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = torch.nn.CrossEntropyLoss()
    return gv.capture(model, loss, optimizer, (x, y), steps=steps, batch_size=16, interval=4, path=path)


WAYS = [variations()[0], variations()[-2]]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task]:
    folder = tmp_path_factory.mktemp("calibrated")
    mlp_task(folder / "task")
    task, found = calibrate(folder / "task", folder / "calibrated", ways=WAYS, seeds=2, samples=3, rate=1e-3)
    t = found.thresholds
    assert found.intervals == t.replays == len(found.excess_l2) == 2 * 2 * 5
    assert (t.noise, t.rate, t.probes) == (19, RATE // 1000, 3)
    assert max(found.excess_l2) <= t.accept_l2 / BIT
    assert t.resolution < -5 * BIT
    assert -BIT * 10 < t.reference < BIT * 10
    assert f"calibrated on 20 honest interval replays: {'; '.join(way.name for way in WAYS)}" in str(found)
    json.dumps(found.to_json())
    return folder, task


def test_it_is_the_same_task_but_for_the_policy(calibrated: tuple[Path, Task]) -> None:
    folder, task = calibrated
    plain = gv.open_task(folder / "task")
    assert (task.policy.mode, task.policy.samples, task.policy.largest) == ("threshold", 3, 2)
    changed = {name for name in plain.leaves if plain.leaves[name] != task.leaves[name]}
    assert changed == {"policy"}


def test_held_out_variations_are_accepted(calibrated: tuple[Path, Task], tmp_path: Path) -> None:
    _, task = calibrated
    run = gv.solve(task, tmp_path / "vendor", backend="vendor")
    assert run.header.environment["backend"].startswith("vendor")
    for verdict in (gv.replay(run).verdict, gv.replay(gv.solve(task, tmp_path / "exact")).verdict):
        assert verdict is Verdict.ACCEPT


def test_products_in_bf16_are_not_rounding_of_fp32(calibrated: tuple[Path, Task], tmp_path: Path) -> None:
    _, task = calibrated
    report = gv.replay(gv.solve(task, tmp_path / "bf16", backend="vendor:cpu:bf16"), everything=True)
    assert report.verdict is Verdict.REJECT
    assert len(report.deviations) == 5


def test_a_task_for_bf16_gets_coarser_probes(tmp_path: Path) -> None:
    mlp_task(tmp_path / "task")
    task, found = calibrate(
        tmp_path / "task", tmp_path / "out", ways=[Variation("bf16", "vendor:cpu:bf16")], seeds=1, rate=1e-3
    )
    assert 5 <= found.thresholds.noise < 15
    run = gv.solve(task, tmp_path / "run", backend="vendor:cpu:bf16")
    assert gv.replay(run, everything=True).verdict is Verdict.ACCEPT


OTHER = os.environ.get("GENSYN_VERIFY_OTHER_PYTHON", "")


@pytest.mark.skipif(not OTHER, reason="GENSYN_VERIFY_OTHER_PYTHON names no Python with another PyTorch")
def test_another_pytorch_is_one_more_variation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Calibrated beside it; then a run of its own, from another seed than those, is accepted."""
    mlp_task(tmp_path / "task")
    out = tmp_path / "out"
    options = ["--python", OTHER, "--seeds", "1", "--rate", "1e-3", "--json", "--quiet"]
    assert main(["calibrate", str(tmp_path / "task"), "--out", str(out), *options]) == 0
    described = json.loads(capsys.readouterr().out)
    way = variations(pythons=[OTHER])[-1]
    assert described["variations"] == [w.name for w in (*variations(), way)]
    assert described["policy"]["thresholds"]["replays"] == 5 * len(described["variations"])
    task = gv.open_task(out)
    seeded = varied(task, tmp_path / "seeded", task.steps, 0, 100, task.policy)
    run = gv.open_run(solve_as(str(tmp_path / "seeded"), way, tmp_path / "run"), seeded)
    assert run.header.environment["torch"] != torch.__version__
    assert gv.replay(run, everything=True).verdict is Verdict.ACCEPT


def test_what_cannot_be_calibrated_says_why(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="variation 'broken' failed with exit code 2"):
        calibrate(linear_task(tmp_path / "a"), tmp_path / "out", ways=[Variation("broken", "vendor:cpu:fp8")])
    with pytest.raises(MalformedError, match=r"rate is 0\.5"):
        calibrate(linear_task(tmp_path / "b"), tmp_path / "out", rate=0.5)
    model = torch.nn.Linear(2, 2)
    step = gv.compile(model, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    with gv.record(step, tmp_path / "run"):
        step((torch.ones(3, 2), torch.ones(3, 2)))
    with pytest.raises(BundleError, match="recorded task"):
        calibrate(tmp_path / "run" / "task", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """calibrate, solve, replay with a picture, escalate: an honest run and one with a weight moved."""
    mlp_task(tmp_path / "task", steps=12)
    out, run = str(tmp_path / "out"), str(tmp_path / "run")
    options = ["--seeds", "1", "--samples", "9", "--rate", "1e-3", "--json"]
    assert main(["calibrate", str(tmp_path / "task"), "--out", out, *options]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["policy"]["thresholds"]["replays"] == len(variations()) * 3
    assert main(["solve", out, "--out", run, "--backend", "vendor", "--quiet"]) == 0
    assert main(["replay", run, "--task", out, "--plot", str(tmp_path / "plot.svg")]) == 0
    assert (tmp_path / "plot.svg").read_text().count("<circle") == 9
    task = gv.open_task(out)

    def push(step, state, batch, scalars):  # type: ignore[no-untyped-def]
        if step == 7:
            state["param.0.weight"][0, 0] += 0.01

    forged = str(dishonest_solve(task, tmp_path / "forged", after=push, backend="cpu").folder.url)
    capsys.readouterr()
    assert main(["replay", forged, "--task", out, "--all", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["mode"]) == ("REJECT", "threshold")
    decided = report["statistics"][0]
    assert (decided["interval"], decided["tensor"], decided["outcome"]) == (1, "param.0.weight", "REJECT")
    assert main(["escalate", forged, "--task", out, "--interval", "1", "--out", str(tmp_path / "mine")]) == 1
    assert "REJECT: the checkpoint that closes interval 1" in capsys.readouterr().out
    assert main(["escalate", forged, "--task", out, "--interval", "0", "--out", str(tmp_path / "other")]) == 0
    assert main(["replay", run, "--task", str(tmp_path / "task")]) == 1  # a run of another task


def test_both_sides_of_an_escalation_build_one_task_and_pinpoint_takes_over(
    calibrated: tuple[Path, Task], tmp_path: Path
) -> None:
    _, task = calibrated

    def push(step, state, batch, scalars):  # type: ignore[no-untyped-def]
        if step == 10:
            state["param.2.weight"][1, 3] *= 1.5

    forged = dishonest_solve(task, tmp_path / "forged", after=push, backend="cpu")
    report = gv.replay(forged, everything=True)
    assert report.verdict is Verdict.REJECT
    interval = report.statistics[0].interval
    assert interval == 10 // task.interval
    verifier = gv.escalate(forged, interval, tmp_path / "verifier")
    solver = gv.escalate(forged, interval, tmp_path / "solver")
    assert verifier.task.digest == solver.task.digest
    assert verifier.run.commitment.root == solver.run.commitment.root
    assert gv.pinpoint(solver.run, verifier.run).verdict == "agree"

    def again(step, state, batch, scalars):  # type: ignore[no-untyped-def]
        push(step + interval * task.interval, state, batch, scalars)

    insists = dishonest_solve(verifier.task, tmp_path / "insists", after=again, backend="cpu")
    found = gv.pinpoint(insists, verifier.run)
    assert found.verdict == "A is wrong"
    assert "param.2.weight" in str(found)
    assert found.levels[-1].name == "operation"


def test_a_solver_shows_that_its_kernels_are_honest(calibrated: tuple[Path, Task], tmp_path: Path) -> None:
    _, task = calibrated
    run = gv.solve(task, tmp_path / "run", backend="vendor")
    own = gv.escalate(run, 1, tmp_path / "own", audit="vendor").audit
    assert (own.fault, own.same) == (None, True)
    other = gv.escalate(run, 1, tmp_path / "other", audit="vendor:cpu:bf16").audit
    assert (other.fault, other.same) == (None, False)  # within the bounds of bf16, which are not those of fp32
    narrow = gv.solve(task, tmp_path / "narrow", backend="vendor:cpu:bf16")
    assert not gv.escalate(narrow, 1, tmp_path / "narrowed", audit="vendor").audit.same
    with pytest.raises(BundleError, match="reproducible"):
        gv.escalate(run, 1, tmp_path / "cpu", audit="cpu")


def test_bits_are_not_compared_on_kernels_that_differ_by_machine(tmp_path: Path) -> None:
    run = gv.solve(linear_task(tmp_path / "task"), tmp_path / "run")
    for compare in (lambda: gv.replay(run, backend="vendor"), lambda: gv.pinpoint(run, run, backend="vendor")):
        with pytest.raises(BackendError, match="compares bits"):
            compare()


def test_a_recorded_interval_escalates_too(tmp_path: Path) -> None:
    from gensyn_verify.protocol.policy import Policy
    from tests.protocol.test_threshold import THRESHOLDS

    model = torch.nn.Linear(2, 2)
    step = gv.compile(model, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    policy = Policy("threshold", 4, 2, THRESHOLDS)
    with gv.record(step, tmp_path / "run", interval=2, policy=policy):
        for i in range(5):
            step((torch.ones(3, 2) * i, torch.ones(3, 2)))
    run = gv.open_run(tmp_path / "run")
    assert gv.replay(run).verdict is Verdict.ACCEPT
    found = gv.escalate(run, 2, tmp_path / "exact")
    assert (found.task.steps, found.deviation.steps, found.outcome.name) == (1, 1, "ACCEPT")
    with pytest.raises(BundleError, match="no interval 9"):
        gv.escalate(run, 9, tmp_path / "nothing")
    with pytest.raises(BundleError, match="mode exact already"):
        gv.escalate(gv.solve(linear_task(tmp_path / "t"), tmp_path / "r"), INTERVAL, tmp_path / "nothing")

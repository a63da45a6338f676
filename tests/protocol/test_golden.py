"""Bundles of earlier versions, verified: in mode exact solved again to the same commitment, in mode threshold measured
again to the same distances."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path

import native
import pytest

from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import open_task

GOLDEN = Path(__file__).parent.parent / "golden"
FOLDERS = sorted(p for p in GOLDEN.iterdir() if p.is_dir())
EXACT = [p for p in FOLDERS if open_task(p / "task").policy.mode == "exact"]
THRESHOLD = [p for p in FOLDERS if p not in EXACT]
NAMED = {"ids": lambda p: p.name}
outcome = runpy.run_path(str(GOLDEN / "make_threshold.py"))["outcome"]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("folder", EXACT, **NAMED)
def test_golden_run_is_verified(folder: Path, backend: str, tmp_path: Path) -> None:
    task = open_task(folder / "task")
    run = open_run(folder / "run", task)
    report = replay(run, everything=True, backend=backend)
    assert report.verdict is Verdict.VERIFIED
    assert report.steps_replayed == task.steps
    again = solve(task, tmp_path / "run", identity=Identity(run.header.solver), salt=run.header.salt, backend=backend)
    assert again.commitment is not None
    assert run.commitment is not None
    assert again.commitment.digest == run.commitment.digest


@pytest.mark.parametrize("folder", FOLDERS, **NAMED)
def test_golden_run_is_signed_by_its_solver(folder: Path) -> None:
    pytest.importorskip("eth_keys")
    assert replay(folder / "run", folder / "task", samples=1, largest=0, backend="reference").signed


@pytest.mark.parametrize("folder", EXACT, **NAMED)
def test_unfinished_golden_run_is_taken_up(folder: Path, tmp_path: Path) -> None:
    committed = open_run(folder / "run").commitment
    assert committed is not None
    out = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    (out / "commitment.json").unlink()
    (out / "steps" / "00000002.steps").unlink()
    resumed = solve(folder / "task", out, backend="cpu").commitment
    assert resumed is not None
    assert resumed.digest == committed.digest


# ---- mode threshold: vendor kernels made these runs, whose bits no other machine has; who verifies them measures the
# same distances on every one


@pytest.fixture(params=[*native.ISAS, "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The native kernels of every instruction set, and the definition."""
    with native.backend(request.param) as name:
        yield name


@pytest.mark.parametrize(("name", "verdict"), [("run", Verdict.ACCEPT), ("forged", Verdict.REJECT)])
@pytest.mark.parametrize("folder", THRESHOLD, **NAMED)
def test_golden_run_has_the_distances_it_always_had(folder: Path, name: str, verdict: Verdict, backend: str) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    beacon = bytes.fromhex(expected["beacon"])
    report = replay(folder / name, folder / "task", everything=True, beacon=beacon, backend=backend)
    assert report.verdict is verdict
    assert not report.findings
    found, wanted = json.loads(json.dumps(outcome(report))), expected[name]
    assert found["norms"] == wanted["norms"]  # every bit
    for statistic, value in zip(found["statistics"], wanted["statistics"], strict=True):
        assert statistic[:3] == value[:3]
        assert statistic[3] == pytest.approx(value[3], rel=1e-12)  # logarithms are those of the machine's C library


def test_the_forged_golden_run_is_rejected_for_what_was_forged() -> None:
    folder = GOLDEN / "mlp-threshold-1"
    decided = replay(folder / "forged", folder / "task", everything=True, beacon=b"any").statistics[0]
    assert (decided.name[:6], decided.interval, decided.tensor) == ("excess", 1, "param.0.weight")

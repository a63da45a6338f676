"""Bundles of earlier versions: opened, verified, and solved again to the same commitment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import open_task

GOLDEN = Path(__file__).parent.parent / "golden"
FOLDERS = sorted(p for p in GOLDEN.iterdir() if p.is_dir())


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
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


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_golden_run_is_signed_by_its_solver(folder: Path) -> None:
    pytest.importorskip("eth_keys")
    assert replay(folder / "run", folder / "task", samples=1, largest=0, backend="reference").signed


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_unfinished_golden_run_is_taken_up(folder: Path, tmp_path: Path) -> None:
    committed = open_run(folder / "run").commitment
    assert committed is not None
    out = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    (out / "commitment.json").unlink()
    (out / "steps" / "00000002.steps").unlink()
    resumed = solve(folder / "task", out, backend="cpu").commitment
    assert resumed is not None
    assert resumed.digest == committed.digest

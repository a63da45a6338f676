"""A solver killed by SIGKILL at any instant leaves a bundle that opens and resumes to the identical run."""

from __future__ import annotations

import itertools
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundles import SALT, SOLVER, linear_task

from gensyn_verify.errors import BundleError
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, open_task

INTERVAL = 3
KILLS = 60


@dataclass(frozen=True)
class Case:
    """A task, its undisturbed run, and the seconds that the run took."""

    task: Task
    undisturbed: Run
    seconds: float


@pytest.fixture
def out_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: flushing some thousand files to a disk would take the time of the test."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="gensyn-verify-test-") as folder:
        yield Path(folder)


def case(folder: Path, steps: int) -> Case:
    linear_task(folder / "task", steps=steps, interval=INTERVAL)
    task = open_task(folder / "task")
    start = time.perf_counter()
    run = solve(task, folder / "run", identity=SOLVER, salt=SALT, backend="reference")
    return Case(task, run, time.perf_counter() - start)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(tmp_path_factory.mktemp("long"), 20 * INTERVAL)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(tmp_path_factory.mktemp("short"), 2 * INTERVAL)


class Solver:
    """A process that solves in forked children and has them killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, task: Task, out: Path, kind: str, argument: float = 0) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{task.store.folder.url} {out} {kind} {argument}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def solver() -> Iterator[Solver]:
    command = [sys.executable, str(Path(__file__).with_name("kill_solver.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Solver(process)
        assert process.stdin is not None
        process.stdin.close()


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle, with its content; the environment is whatever the machine is."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found.pop("run.json", None)
    return found


def progress_of(out: Path, task: Task, before: int) -> int:
    """The steps that a bundle holds after a kill: it opens, is not finished, and has lost nothing."""
    if not (out / "run.json").exists():  # killed before the first file
        with pytest.raises(BundleError, match="holds no run"):
            open_run(out)
        assert before == 0
        return 0
    run = open_run(out, task)
    assert not run.finished or run.steps_done == task.steps  # killed after the last rename
    done = run.steps_done
    assert done >= before
    assert done % INTERVAL == 0
    return done


def test_run_killed_at_random_file_operations_and_instants_ends_the_same(
    solver: Solver, long: Case, out_folder: Path
) -> None:
    rng = random.Random(2024)
    kills = 0
    reached = set()
    for round_number in itertools.count():
        if kills >= KILLS:
            break
        out = out_folder / f"run{round_number}"
        done = 0
        for _ in range(15):
            if rng.random() < 0.5:
                kind: tuple[str, float] = ("at", int(math.exp(rng.uniform(0, math.log(800)))))
            else:
                kind = ("after", rng.uniform(0.001, long.seconds / 2))
            answer = solver.ask(long.task, out, *kind)
            if answer == "done":
                break
            assert answer == "killed", kind
            kills += 1
            done = progress_of(out, long.task, done)
            reached.add(done)
        else:
            assert solver.ask(long.task, out, "never") == "done"
        assert open_run(out, long.task).commitment == long.undisturbed.commitment
        assert files(out) == files(Path(long.undisturbed.url))
    assert len(reached) > 8  # the kills were spread over the run


def test_run_killed_before_every_single_file_operation_ends_the_same(
    solver: Solver, short: Case, out_folder: Path
) -> None:
    for operation in itertools.count(1):
        out = out_folder / f"run{operation}"
        answer = solver.ask(short.task, out, "at", operation)
        if answer == "done":  # the run has fewer operations
            break
        assert answer == "killed"
        progress_of(out, short.task, 0)
        assert solver.ask(short.task, out, "never") == "done"
        assert files(out) == files(Path(short.undisturbed.url)), operation
    assert operation > 50


def test_killed_run_is_verified_as_far_as_it_got(solver: Solver, long: Case, out_folder: Path) -> None:
    out = out_folder / "run"
    assert solver.ask(long.task, out, "at", 400) == "killed"
    report = replay(out, long.task, everything=True, backend="reference")
    assert report.verdict is Verdict.UNDECIDED
    assert not report.findings
    assert report.steps_replayed == open_run(out).steps_done > 0

"""One task, one run commitment: on every instruction set, with one, two and three threads, whatever the caller did.

Each run is a process of its own, as a solver's would be, with GENSYN_VERIFY_ISA and GENSYN_VERIFY_THREADS set. `make
test-aarch64` compares the same tasks with NEON and portable code on an emulated aarch64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import machine_task
import pytest

from gensyn_verify import _native

ISAS: list[str] = _native.supported_isas()


def solve(folder: Path, isa: str, threads: int, *flags: str) -> dict[str, Any]:
    environment = {**os.environ, "GENSYN_VERIFY_ISA": isa, "GENSYN_VERIFY_THREADS": str(threads)}
    command = [sys.executable, machine_task.__file__, "solve", str(folder), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["isa"], found["threads"]) == (isa, threads)
    return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    machine_task.write(folder / "machine")
    return folder


@pytest.fixture(scope="module")
def wanted(tasks: Path) -> dict[str, str]:
    """The commitments of the portable kernels on one thread."""
    runs: dict[str, str] = solve(tasks, "portable", 1)["runs"]
    assert len(runs) == len(list(tasks.iterdir()))
    return runs


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("isa", ISAS)
def test_the_run_commitment_does_not_depend_on_instruction_set_or_threads(
    tasks: Path, wanted: dict[str, str], isa: str, threads: int
) -> None:
    assert solve(tasks, isa, threads)["runs"] == wanted


@pytest.mark.parametrize("isa", ISAS)
def test_nor_on_a_hostile_control_register_which_the_caller_keeps(
    tasks: Path, wanted: dict[str, str], isa: str
) -> None:
    found = solve(tasks, isa, 2, "--hostile")
    assert found["runs"] == wanted
    assert found["control"] & machine_task.HOSTILE == machine_task.HOSTILE


def test_the_definition_commits_to_the_same_run(tmp_path: Path) -> None:
    """The reference backend on a shorter task: what the others agree on is what is defined."""
    from gensyn_verify.protocol.solve import solve as solve_here

    task = machine_task.write(tmp_path / "task", steps=6)
    digests = []
    for backend in ("reference", "cpu"):
        run = solve_here(
            task, tmp_path / backend, identity=machine_task.SOLVER, salt=machine_task.SALT, backend=backend
        )
        assert run.commitment is not None
        digests.append(run.commitment.digest)
    assert digests[0] == digests[1]

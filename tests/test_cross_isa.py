"""One task, one run commitment: on every instruction set, with one, two and three threads, whatever the caller did.

Every instruction set has a process of its own, as a solver would, with GENSYN_VERIFY_ISA set. `make test-aarch64`
compares the same tasks with NEON and portable code on an emulated aarch64.
"""

from __future__ import annotations

from pathlib import Path

import machine_task
import pytest
from machine_task import solve_elsewhere

from gensyn_verify import _native

ISAS: list[str] = _native.supported_isas()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    assert "machine" in machine_task.write_all(folder)
    return folder


@pytest.fixture(scope="module")
def wanted(tasks: Path) -> dict[str, str]:
    """The commitments of the portable kernels on one thread, both asked for by the environment."""
    (found,) = solve_elsewhere(tasks, GENSYN_VERIFY_ISA="portable", GENSYN_VERIFY_THREADS="1")
    assert (found["isa"], found["threads"]) == ("portable", 1)
    assert found["runs"].keys() == {p.name for p in tasks.iterdir()}
    runs: dict[str, str] = found["runs"]
    return runs


@pytest.mark.parametrize("isa", ISAS)
def test_the_run_commitment_does_not_depend_on_instruction_set_threads_or_control_register(
    tasks: Path, wanted: dict[str, str], isa: str
) -> None:
    flags = ["1", "2", "3", "2-hostile"]
    found = solve_elsewhere(tasks, *flags, GENSYN_VERIFY_ISA=isa)
    assert [(f["isa"], f["threads"]) for f in found] == [(isa, int(flag[0])) for flag in flags]
    assert [f["runs"] for f in found] == [wanted] * len(flags)
    kept = [f["control"] & machine_task.HOSTILE == machine_task.HOSTILE for f in found]
    assert kept == [flag.endswith("hostile") for flag in flags], "the caller's control register was not given back"


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

"""Every model commits to the same run on every instruction set of the machine, with one, two and four threads.

`make test-aarch64` compares the same tasks with NEON and portable code on an emulated aarch64.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from machine_task import solve_elsewhere

from gensyn_verify import _native
from tests.models.zoo import write_tasks

THREADS = ["1", "2", "4"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tasks(folder)
    return folder


@pytest.fixture(scope="module")
def wanted(tasks: Path) -> dict[str, str]:
    """The commitments of the portable kernels on one thread."""
    (found,) = solve_elsewhere(tasks, "1", GENSYN_VERIFY_ISA="portable")
    runs: dict[str, str] = found["runs"]
    assert runs.keys() == {p.name for p in tasks.iterdir()} >= {"resnet20", "gpt-dropout", "lstm", "vit", "unet"}
    return runs


@pytest.mark.parametrize("isa", _native.supported_isas())
def test_run_commitments_are_the_same_everywhere(tasks: Path, wanted: dict[str, str], isa: str) -> None:
    threads = THREADS[1:] if isa == "portable" else THREADS  # portable on one thread is what is wanted
    found = solve_elsewhere(tasks, *threads, GENSYN_VERIFY_ISA=isa)
    assert [(f["isa"], str(f["threads"])) for f in found] == [(isa, n) for n in threads]
    assert [f["runs"] for f in found] == [wanted] * len(threads)

"""Every model commits to the same run on every instruction set of the machine, with one, two and four threads."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine_task import solve_elsewhere

import gensyn_verify as gv
from gensyn_verify import _native
from tests.models.zoo import TASKS, WITH_DROPOUT

THREADS = ["1", "2", "4"]
MODELS = {name: task for name, task in (TASKS | WITH_DROPOUT).items() if name != "gpt"}  # gpt-dropout has all of it
ROWS, BATCH, STEPS = 8, 2, 2


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, task in MODELS.items():
        model, optimizer = task.build()
        data = tuple(t[:ROWS] for t in task.data())
        gv.capture(model, task.loss, optimizer, data, steps=STEPS, batch_size=BATCH, path=folder / name)
    return folder


@pytest.fixture(scope="module")
def wanted(tasks: Path) -> dict[str, str]:
    """The commitments of the portable kernels on one thread."""
    (found,) = solve_elsewhere(tasks, "1", GENSYN_VERIFY_ISA="portable")
    runs: dict[str, str] = found["runs"]
    assert runs.keys() == MODELS.keys()
    return runs


@pytest.mark.parametrize("isa", _native.supported_isas())
def test_run_commitments_are_the_same_everywhere(tasks: Path, wanted: dict[str, str], isa: str) -> None:
    threads = THREADS[1:] if isa == "portable" else THREADS  # portable on one thread is what is wanted
    found = solve_elsewhere(tasks, *threads, GENSYN_VERIFY_ISA=isa)
    assert [(f["isa"], str(f["threads"])) for f in found] == [(isa, n) for n in threads]
    assert [f["runs"] for f in found] == [wanted] * len(threads)

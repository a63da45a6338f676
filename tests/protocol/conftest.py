from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import SALT, SOLVER, linear_task
from hypothesis import settings

from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, open_task

settings.register_profile("protocol", deadline=None)  # examples differ in cost, and machines are shared
settings.load_profile("protocol")


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = tmp_path_factory.mktemp("task") / "task"
    linear_task(path)
    return open_task(path)


@pytest.fixture(scope="session")
def honest(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished honest run; never edit it."""
    return solve(task, tmp_path_factory.mktemp("run") / "run", identity=SOLVER, salt=SALT, backend="reference")


@pytest.fixture
def copy(honest: Run, task: Task, tmp_path: Path) -> tuple[Path, Callable[[], Run]]:
    """A copy of the honest run to edit, and how to open it."""
    path = tmp_path / "copy"
    shutil.copytree(honest.url, path)
    return path, lambda: open_run(path, task)

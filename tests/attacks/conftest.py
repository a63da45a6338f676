from __future__ import annotations

import pytest

from attacks.tasks import linear_task
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return linear_task(tmp_path_factory.mktemp("attacked") / "task")


@pytest.fixture(scope="session")
def honest(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that thieves steal from; never edit it."""
    return solve(task, tmp_path_factory.mktemp("honest") / "run", salt=bytes(32))

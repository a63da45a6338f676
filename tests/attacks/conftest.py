from __future__ import annotations

import pytest

from attacks.tasks import linear_task
from gensyn_verify.attacks.adversarial import Adversarial
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adversarial inputs after two evaluations: the tests of rules do not depend on how good they are."""
    monkeypatch.setattr(Adversarial, "evaluations", 2)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return linear_task(tmp_path_factory.mktemp("attacked") / "task")


@pytest.fixture(scope="session")
def honest(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that thieves steal from; never edit it."""
    return solve(task, tmp_path_factory.mktemp("honest") / "run", salt=bytes(32))

from __future__ import annotations

import numpy as np
import pytest
from bundles import SALT, SOLVER
from cheats import every_kind, some_task

from gensyn_verify.protocol.pinpoint.descent import Referee
from gensyn_verify.protocol.pinpoint.position import advance
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve


@pytest.fixture(scope="session")
def every_kind_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An honest run of a program with every node kind."""
    folder = tmp_path_factory.mktemp("kinds")
    task = some_task(folder / "task", every_kind(), np.random.default_rng(1))
    return solve(task, folder / "run", identity=SOLVER, salt=SALT)


@pytest.fixture(params=["python"])
def referee(request: pytest.FixtureRequest) -> Referee:
    """Who decides: position x move -> position."""
    return advance

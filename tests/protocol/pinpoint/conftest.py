from __future__ import annotations

import numpy as np
import pytest
from bundles import SALT, SOLVER
from cheats import every_kind, some_task
from contracts.referee import contracts

from gensyn_verify.protocol.pinpoint.game import Referee
from gensyn_verify.protocol.pinpoint.position import IllegalMoveError, Position, advance
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve


@pytest.fixture(scope="session")
def every_kind_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An honest run of a program with every node kind."""
    folder = tmp_path_factory.mktemp("kinds")
    task = some_task(folder / "task", every_kind(), np.random.default_rng(1))
    return solve(task, folder / "run", identity=SOLVER, salt=SALT)


@pytest.fixture(params=["python", "contract"])
def referee(request: pytest.FixtureRequest) -> Referee:
    """Who decides: position x move -> position."""
    if request.param == "python":
        return advance
    contract = contracts().advance

    def both(position: Position, move: bytes) -> Position:
        """The contract, which makes of every move what Python makes of it."""
        try:
            wanted = advance(position, move)
        except IllegalMoveError:
            with pytest.raises(IllegalMoveError):
                contract(position, move)
            raise
        assert contract(position, move).hash == wanted.hash
        return wanted

    return both

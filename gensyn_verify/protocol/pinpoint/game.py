"""The game played out between two players."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gensyn_verify.errors import GensynVerifyError
from gensyn_verify.protocol.pinpoint.players import Challenger, Solver
from gensyn_verify.protocol.pinpoint.position import Position, Stage, advance

Referee = Callable[[Position, bytes], Position]


@dataclass(frozen=True)
class Game:
    """The moves, each with the position it was made in, and how it ended: by the referee, or by a side's silence."""

    moves: list[tuple[Position, bytes]]
    last: Position
    silence: GensynVerifyError | None

    @property
    def solver_wins(self) -> bool:
        if self.last.decided:
            return self.last.stage == Stage.SOLVER_WINS
        return self.last.challenger_moves

    def at(self, stage: Stage) -> Position | None:
        """The last position of a stage that the game came through."""
        return next((p for p, _ in reversed([*self.moves, (self.last, b"")]) if p.stage == stage), None)


def play(start: Position, solver: Solver, challenger: Challenger, referee: Referee = advance) -> Game:
    """Both strategies against each other. A side that has no move the referee takes has lost by its clock."""
    position = start
    moves: list[tuple[Position, bytes]] = []
    while not position.decided:
        player = challenger if position.challenger_moves else solver
        try:
            move = player.move(position)
            following = referee(position, move)
        except GensynVerifyError as error:
            return Game(moves, position, error)
        for p in (solver, challenger):
            p.see(position, move)
        moves.append((position, move))
        position = following
    return Game(moves, position, None)

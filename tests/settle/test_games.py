"""Whole games through the settlement contract, on the chain in this process and on a node: whoever is honest wins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest
from protocol.bundles import SALT, SOLVER
from protocol.pinpoint.cheats import Liar, Silent, WithoutProof, WrongValue, every_kind, some_task
from settle.conftest import World
from settle.games import TERMS, Embedded, Match, challenged, disclosed, enroll, new_world, settle
from settle.node import anvil, needs_anvil

from gensyn_verify.program import ops
from gensyn_verify.protocol.pinpoint.players import Challenger, Solver
from gensyn_verify.protocol.pinpoint.position import Position, Stage, What, choice
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.settle import roles
from gensyn_verify.settle.settlement import BURN, Outcome, RefusedError

PROGRAM = every_kind()
DOT = next(n for n, node in enumerate(PROGRAM.nodes) if isinstance(node.op, ops.Dot))
STEP = 2  # closes no interval: both sides compute it again
HALF = (TERMS.stake + 1) // 2, TERMS.bond // 2  # what is not burned of a stake, of a bond


@pytest.fixture(scope="module", params=["embedded", pytest.param("anvil", marks=needs_anvil)])
def enrolled(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        world = new_world(Embedded() if request.param == "embedded" else stack.enter_context(anvil()))
        enroll(world)
        yield world


@pytest.fixture
def world(enrolled: World) -> Iterator[World]:
    """Everything as it was; wallets that know of nothing."""
    snapshot = enrolled.chain.take_snapshot()
    yield World(enrolled.chain, enrolled.settlement)
    enrolled.chain.revert_to(snapshot)


@cache
def honest_run(zeros: bool) -> Run:
    """A run of a program with every node kind, on random numbers, or on zeros alone."""
    folder = f"memory://games-{zeros}"
    task = some_task(f"{folder}/task", PROGRAM, np.random.default_rng(1), zeros=zeros)
    return solve(task, f"{folder}/run", identity=SOLVER, salt=SALT)


@pytest.fixture
def honest() -> Run:
    return honest_run(False)


def wrong(run: Run) -> WrongValue:
    """One bit of a dot is wrong, of a tensor of several chunks."""
    return WrongValue(run, STEP, PROGRAM.first_value[DOT], 700, 3)


def cheated(world: World, run: Run, step: int | None = None) -> tuple[roles.Solver, Match]:
    side = wrong(run)
    solver = disclosed(world, side.task, side)
    return solver, challenged(world, solver, Solver(side), Side(run), step=step)


class DoubtsAnOperand(Challenger):
    """Contests an operand, and not the operation."""

    def move(self, position: Position) -> bytes:
        return choice(What.VALUE, 0) if position.stage == Stage.OPERATION_CHOICE else super().move(position)


def credit(world: World, name: str) -> int:
    return world.settlement.credit(world[name].address)


def refused(world: World, name: str, error: str, message: str, *arguments: object) -> None:
    with pytest.raises(RefusedError, match=rf"refuses {message}: {error}\("):
        world.settlement.send(world[name], f"{message} {arguments} {error}", message, *arguments)


@pytest.mark.parametrize(("zeros", "step"), [(False, None), (True, STEP)])
def test_a_cheating_solver_loses_its_stake(world: World, zeros: bool, step: int | None) -> None:
    solver, match = cheated(world, honest_run(zeros), step)
    assert match.play().solver_won is False
    assert settle(world, solver) == Outcome.OVERTURNED
    assert credit(world, "challenger") == HALF[0] + TERMS.bond
    assert credit(world, "solver") == 0
    assert world.settlement.credit(BURN) == TERMS.stake - HALF[0]
    world.settlement.send(world["challenger"], "withdraw", "withdraw", world["challenger"].address)
    refused(world, "challenger", "NoCredit", "withdraw", world["challenger"].address)


def test_an_honest_solver_keeps_everything_and_gets_the_bonds(world: World, honest: Run) -> None:
    """Two challengers at the same time, one of which falls silent."""
    solver = disclosed(world, honest.task, Side(honest))  # type: ignore[arg-type]
    griefer = challenged(world, solver, Solver(Side(honest)), wrong(honest), "griefer")
    silent = challenged(world, solver, Solver(Side(honest)), wrong(honest), "silent one")
    silent.play(lambda game: game.position.stage == Stage.TRACE_PICK)
    assert griefer.play().solver_won is True
    refused(world, "anyone", "TooEarly", "timeout", silent.number)
    world.chain.pass_time(TERMS.clock + 1)
    world.settlement.send(world["anyone"], "timeout", "timeout", silent.number)
    assert silent.solver_won is True
    assert settle(world, solver) == Outcome.PAID
    assert credit(world, "solver") == TERMS.reward + TERMS.stake + 2 * HALF[1]
    assert credit(world, "griefer") == credit(world, "silent one") == 0


@pytest.mark.parametrize("stage", [Stage.LOG_REVEAL, Stage.CHUNK_OPEN, Stage.PROVE])
def test_a_solver_that_withholds_runs_out_of_time(world: World, honest: Run, stage: Stage) -> None:
    side = wrong(honest)
    solver = disclosed(world, side.task, side)
    lie = Liar(side, Stage.OPERATION_OPEN, lambda result, operands: (result, (operands[0] ^ 1, *operands[1:])))
    player = WithoutProof(lie) if stage == Stage.PROVE else Silent(side, stage)
    match = challenged(world, solver, player, Side(honest)).play()
    assert match.game.position.stage == stage
    refused(world, "anyone", "TooEarly", "timeout", match.number)
    world.chain.pass_time(TERMS.clock + 1)
    world.settlement.send(world["anyone"], "timeout", "timeout", match.number)
    assert match.solver_won is False
    assert settle(world, solver) == Outcome.OVERTURNED
    assert credit(world, "challenger") == HALF[0] + TERMS.bond


def test_moves_of_others_and_moves_again_are_refused(world: World, honest: Run) -> None:
    """Whoever sees a move on its way cannot make it, and nobody can make it again."""
    solver, match = cheated(world, honest)
    s, other = world.settlement, challenged(world, solver, Solver(wrong(honest)), Side(honest), "second")
    seen = set()
    while not (game := match.game).over:
        if game.position.stage in seen:
            match.move()
            continue
        seen.add(game.position.stage)
        mover = "challenger" if game.position.challenger_moves else "solver"
        player = match.players[mover]
        for position, move in game.moves:
            player.see(position, move)
        fields, move = roles.fields(game.position), player.move(game.position)
        front_runner = "solver" if mover == "challenger" else "challenger"
        if game.position.stage != Stage.PROVE:
            refused(world, front_runner, "NotYours", "move", match.number, fields, move)
            refused(world, "second", "NotYours", "move", match.number, fields, move)
        assert match.move() == mover
        for name in ("challenger", "solver"):
            error = "GameOver" if match.game.over else "WrongPosition"
            refused(world, name, error, "move", match.number, fields, move)
    assert match.solver_won is False
    # the second game has lost its object: its challenger gets its bond back and nothing more
    refused(world, "second", "GameOver", "move", other.number, roles.fields(other.game.position), b"")
    s.send(world["anyone"], "release", "release", other.number)
    assert credit(world, "second") == TERMS.bond


def test_a_proof_of_a_stranger_decides_for_whoever_is_right(world: World, honest: Run) -> None:
    solver = disclosed(world, honest.task, Side(honest))  # type: ignore[arg-type]
    match = challenged(world, solver, WithoutProof(Solver(Side(honest))), wrong(honest), step=STEP)
    match.players["challenger"] = DoubtsAnOperand(wrong(honest))
    game = match.play().game
    assert game.position.stage == Stage.PROVE
    player = Challenger(Side(honest))
    for position, move in game.moves:
        player.see(position, move)
    move = player.move(game.position)
    s = world.settlement
    s.send(world["stranger"], "front run", "move", match.number, roles.fields(game.position), move)
    assert match.solver_won is True
    assert credit(world, "stranger") == 0
    assert credit(world, "solver") == HALF[1]


def test_nothing_is_decided_twice(world: World, honest: Run) -> None:
    solver, match = cheated(world, honest, STEP)
    last = match.play(lambda g: g.position.stage == Stage.OPERATION_CHOICE).game
    assert match.move() == "challenger"
    assert match.solver_won is False
    credits = credit(world, "challenger"), credit(world, "solver")
    for message in ("timeout", "release"):
        refused(world, "anyone", "GameOver", message, match.number)
    refused(world, "challenger", "GameOver", "move", match.number, roles.fields(last.position), b"")
    assert settle(world, solver) == Outcome.OVERTURNED
    for message in ("settle", "expire", "cancel"):
        refused(world, "anyone" if message != "cancel" else "submitter", "WrongState", message, solver.number)
    for message in ("timeout", "release"):
        refused(world, "anyone", "GameOver", message, match.number)
    assert (credit(world, "challenger"), credit(world, "solver")) == (credits[0] + HALF[0], credits[1])


def test_a_move_at_the_last_second_leaves_the_other_its_clock(world: World, honest: Run) -> None:
    solver, match = cheated(world, honest)
    chain, s = world.chain, world.settlement
    match.play(lambda g: g.position.stage == Stage.TRACE_REVEAL)
    g = s.ask("game", match.number)
    snapshot = chain.take_snapshot()
    chain.next_block_at(g["last"] + g["solverLeft"] + 1)
    chain.mine(1)
    with pytest.raises(RefusedError, match="TooLate"):
        match.move()
    s.send(world["anyone"], "timeout", "timeout", match.number)
    assert match.solver_won is False
    chain.revert_to(snapshot)
    match.world = world = World(chain, s)
    chain.next_block_at(g["last"] + g["solverLeft"])
    assert match.move() == "solver"
    after = s.ask("game", match.number)
    assert (after["solverLeft"], after["challengerLeft"]) == (0, g["challengerLeft"])
    refused(world, "anyone", "TooEarly", "timeout", match.number)
    assert match.move() == "challenger"
    chain.next_block_at(s.ask("game", match.number)["last"] + 1)  # the solver has nothing left
    chain.mine(1)
    s.send(world["anyone"], "timeout", "timeout", match.number)
    assert match.solver_won is False
    assert settle(world, solver) == Outcome.OVERTURNED

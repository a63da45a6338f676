"""Random disputes on the contracts: random training steps, faults of every kind at random places, sides that cheat in
random ways. Whoever is honest wins.

GENSYN_VERIFY_DISPUTES (default 1) times 225 disputes, three games each. A block and a fault give the same disputes
every time, for a version of Hypothesis.
"""

from __future__ import annotations

import itertools
import os
from math import ceil

import numpy as np
import pytest
from bundles import SALT, SOLVER
from cheats import (
    Babbler,
    ForgedSequence,
    Griefer,
    Liar,
    Silent,
    WrongRow,
    WrongValue,
    some_task,
    training_programs,
    training_steps,
)
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from test_game import dispute

from gensyn_verify.program import ops
from gensyn_verify.program.program import Program
from gensyn_verify.program.types import Dtype
from gensyn_verify.protocol.pinpoint.game import Game, Referee
from gensyn_verify.protocol.pinpoint.players import Challenger, Solver
from gensyn_verify.protocol.pinpoint.position import IllegalMoveError, Stage
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve

BLOCKS = int(os.environ.get("GENSYN_VERIFY_DISPUTES", "1"))
STEPS = 3
SERIAL = itertools.count()
KINDS: dict[str, tuple[type[ops.Op], ...]] = {
    "map": (ops.Map,),
    "dot": (ops.Dot,),
    "reduce": (ops.Reduce,),
    "layout": (ops.Reshape, ops.Permute, ops.Slice, ops.Pad, ops.Concat, ops.Broadcast, ops.Window),
    "gather": (ops.Gather,),
    "scatter_add": (ops.ScatterAdd,),
    "random": (ops.Random,),
    "sort": (ops.Sort,),
    "scan": (ops.Scan,),
}
FAULTS = ["weight", "activation", "moment", "index", "data", "i8 product", *KINDS]
contract_only = pytest.mark.parametrize("referee", ["contract"], indirect=True)


def places(program: Program, fault: str) -> list[int]:
    """The values that a fault of this name may be in."""
    made = [(v, node) for node, first in zip(program.nodes, program.first_value, strict=True)
            for v in range(first, first + len(node.types))]  # fmt: skip
    if fault in KINDS:
        found = [v for v, node in made if isinstance(node.op, KINDS[fault])]
    elif fault == "i8 product":
        found = [v for v, node in made if isinstance(node.op, ops.Dot) and node.op.dtype is Dtype.i32]
    elif fault == "activation":
        found = [v for v, node in made if isinstance(node.op, ops.Map | ops.Dot)]
    elif fault == "index":
        found = [node.inputs[1] for _, node in made if isinstance(node.op, ops.Gather | ops.ScatterAdd)]
        found += [v for v, node in made if isinstance(node.op, ops.Sort)]
    else:  # as it goes into the step, or comes out of it
        inputs = [
            v for v, i in enumerate(program.inputs) if (i.role == "batch" if fault == "data" else i.name == fault)
        ]
        found = inputs + [o.value for o in program.outputs if o.role == "state" and o.name == fault]
    return [v for v in found if program.value_types[v].elements]


def wrong_side(run: Run, fault: str, rng: np.random.Generator) -> WrongValue | WrongRow:
    """A side with a fault of this name somewhere."""
    step, program = int(rng.integers(STEPS)), run.task.program  # type: ignore[union-attr]
    if fault == "data" and rng.integers(2):
        other = WrongRow(run, step, str(rng.choice(["batch", "scalar"])))
        if other.log.root() != Side(run).log.root():  # other rows may hold the same
            return other
    value = int(rng.choice(places(program, fault)))
    element, bit = int(rng.integers(program.value_types[value].elements)), int(rng.integers(32))
    if rng.integers(2):
        return WrongValue(run, step, value, element, bit)
    forged = ForgedSequence(run, step, value, element, bit)
    forged.start = rng.random()
    return forged


def cheating_solver(side: Side, rng: np.random.Generator) -> Solver:
    """Silent from some stage on, saying anything in one, lying about an operand, or as its side is."""
    stages = [s for s in Stage if s < Stage.PROVE and not s.name.endswith(("PICK", "CHOICE"))]
    stage, slot = stages[rng.integers(len(stages))], int(rng.integers(3))

    def lie(result: int, operands: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        return result, tuple(result if q == slot else x for q, x in enumerate(operands))  # of a copy it is consistent

    ways = (
        Silent(side, stage),
        Babbler(side, stage, int(rng.integers(1 << 32))),
        Liar(side, Stage.OPERATION_OPEN, lie),
        Solver(side),
    )
    return ways[rng.integers(len(ways))]


def longest(program: Program) -> int:
    """Moves of the longest game: two for 4 levels of a tree, of which sequences and tensors here have at most 20."""
    sizes = STEPS, len(program.inputs) + len(program.nodes), 1 << 20, 1 << 20
    return 11 + sum(2 * ceil((n - 1).bit_length() / 4) for n in sizes)


def play_all(run: Run, fault: str, rng: np.random.Generator, referee: Referee) -> list[Game]:
    """A solver that cheats, a challenger that does, and one that says anything; the other side is honest."""
    wrong = wrong_side(run, fault, rng)
    step = wrong.fault_step if rng.integers(2) else None
    games = [
        dispute(cheating_solver(wrong, rng), Challenger(Side(run)), referee, step),
        dispute(Solver(Side(run)), Challenger(wrong), referee, step),
        dispute(Solver(Side(run)), Griefer(Side(run), int(rng.integers(1 << 32))), referee, step),
    ]
    assert [g.solver_wins for g in games] == [False, True, True], [g.silence for g in games]
    assert not any(isinstance(g.silence, IllegalMoveError) for g in games[1:])
    assert games[2].silence is None
    assert all(len(g.moves) <= longest(run.task.program) for g in games)  # type: ignore[union-attr]
    return games


def run_of(program: Program, rng: np.random.Generator, zeros: bool) -> Run:
    folder = f"memory://disputes-{next(SERIAL)}"
    task = some_task(f"{folder}/task", program, rng, STEPS, zeros)
    return solve(task, f"{folder}/run", identity=SOLVER, salt=SALT)


@contract_only
@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_random_step(fault: str, block: int, referee: Referee) -> None:
    last = set()

    @seed(block)
    @settings(max_examples=15, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(training_steps(), st.integers(0, 1 << 32), st.sampled_from([False, False, True]))
    def disputed(program: Program, number: int, zeros: bool) -> None:
        rng = np.random.default_rng(number)
        games = play_all(run_of(program, rng, zeros), fault, rng, referee)
        last.update(g.moves[-1][0].stage for g in games if g.last.decided)

    disputed()
    assert len(last) > 1  # they do not all end alike


@contract_only
@pytest.mark.parametrize("block", range(2 * BLOCKS))
def test_any_value_of_a_random_program(block: int, referee: Referee) -> None:
    """Programs that need not be a training step."""

    @seed(block)
    @settings(max_examples=20, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(training_programs(), st.integers(0, 1 << 32), st.booleans())
    def disputed(program: Program, number: int, zeros: bool) -> None:
        rng = np.random.default_rng(number)
        fault = next((f for f in rng.permutation(FAULTS[1:]) if places(program, f)), "weight")
        if places(program, fault):
            play_all(run_of(program, rng, zeros), fault, rng, referee)

    disputed()

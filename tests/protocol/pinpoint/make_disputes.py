"""Writes tests/vectors/dispute.json: `python tests/protocol/pinpoint/make_disputes.py`. The test suite compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "protocol")]

import numpy as np  # noqa: E402
from bundles import SALT, SOLVER  # noqa: E402
from cheats import ForgedSequence, Liar, WrongEntry, WrongLeaf, WrongRow, WrongValue, every_kind, some_task  # noqa: E402
from test_game import NAMES, node_of, other_first, other_operand, other_record  # noqa: E402

from gensyn_verify.program import ops  # noqa: E402
from gensyn_verify.program.keccak import keccak256  # noqa: E402
from gensyn_verify.protocol.pinpoint.game import play  # noqa: E402
from gensyn_verify.protocol.pinpoint.players import Challenger, Solver  # noqa: E402
from gensyn_verify.protocol.pinpoint.position import (  # noqa: E402
    IllegalMoveError,
    Position,
    Stage,
    advance,
    begin,
)
from gensyn_verify.protocol.pinpoint.side import Side  # noqa: E402
from gensyn_verify.protocol.run import Run  # noqa: E402
from gensyn_verify.protocol.solve import solve  # noqa: E402

FILE = TESTS / "vectors" / "dispute.json"
COMMENT = (
    "Games of docs/dispute.md. `start` is the ABI encoding of the first position; every move is ABI-encoded by stage; "
    "`hashes` are keccak-256 of the ABI encoding of the position after each move, `winner` is the last stage (19 "
    "solver, 20 challenger). `rejected`: a byte of move number `move` set to another value, which the referee must "
    "refuse in the position before that move. Bytes are in hexadecimal."
)


def solvers(run: Run) -> Iterator[tuple[str, Solver, int | None]]:
    """(name, dishonest solver, the step where the game begins, or None for the log)."""
    program = every_kind()

    def value(kind: type[ops.Op], skip: int = 0) -> int:
        places = [n for n, node in enumerate(program.nodes) if isinstance(node.op, kind)]
        return program.first_value[places[skip]]

    def wrong(number: int, element: int = 1, bit: int = 1) -> Solver:
        return Solver(WrongValue(run, 2, number, element, bit))

    def forged(number: int, start: float) -> ForgedSequence:
        side = ForgedSequence(run, 2, number, 1, 1)
        side.start = start
        return side

    yield "dot: an fma, from the log on", Solver(forged(value(ops.Dot, 1), 0.3)), None
    lie = Liar(forged(value(ops.Map), 0.4), Stage.OPERATION_OPEN, lambda r, o: (r, (o[0], o[1] ^ 1, o[2])))
    yield "map: an operand", lie, 2
    lie = Liar(forged(value(ops.Dot, 1), 0.6), Stage.OPERATION_OPEN, lambda r, o: (r, (o[0], o[1], o[2] ^ 1)))
    yield "dot: an operand that is an earlier result", lie, 2
    for name, kind in (("gather", ops.Gather), ("pad", ops.Pad), ("random", ops.Random)):
        yield name, wrong(value(kind)), 2
    for name, kind in (("scatter_add", ops.ScatterAdd), ("sort", ops.Sort), ("scan", ops.Scan)):
        yield name, Solver(forged(value(kind), 0.5)), 2
    for name, n in (("sum", 0), ("argmax", 3)):
        yield f"reduce {name}", Solver(forged(value(ops.Reduce, n), 0.5)), 2
    product = value(ops.Dot, 3)  # of i8
    yield "dot of i8: a partial sum", Solver(forged(product, 0.5)), 2
    yield "dot of i8: the element", wrong(product), 2
    lie = Liar(forged(product, 0.2), Stage.OPERATION_OPEN, without_sign)
    yield "dot of i8: an operand without its sign", lie, 2
    yield "a batch row", Solver(WrongRow(run, 2, "batch")), 2
    yield "a schedule scalar", Solver(WrongRow(run, 2, "scalar")), 2
    yield "a weight before the step", wrong(NAMES["w"], 1, 14), 2
    for group, role, number in (("state", "state", 17), ("batch", "batch", 1), ("schedule", "scalar", 0)):
        yield f"an entry of the {group}", Solver(WrongEntry(run, 2, role, number)), 2
    yield "counts", Liar(WrongEntry(run, 2, "state", 0), Stage.STEP_OPEN, lambda *v: (*v[:-1], v[-1] + 1)), 2
    place = [n for n, node in enumerate(program.nodes) if isinstance(node.op, ops.Dot)][1] + len(program.inputs)
    for name, change in (("record", other_record), ("first", other_first), ("operand", other_operand)):
        yield f"leaf: {name}", Solver(WrongLeaf(run, 2, place, change)), 2
    yield "a fold", Liar(wrong(node_value(program)).side, Stage.CHUNK_REVEAL, lambda k: ((bytes(32), *k[1:]),)), 2
    yield "a chunk", Liar(wrong(value(ops.Broadcast)).side, Stage.CHUNK_OPEN, lambda c: (bytes(len(c)),)), 2


def without_sign(result: int, operands: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    a, b, c = operands
    assert (a | b) >> 31, "neither is negative: choose another operation"
    return result, (a & 0xFF, b & 0xFF, c)


def node_value(program: Any) -> int:
    return int(program.first_value[node_of(ops.Dot) - len(program.inputs)])


def is_refused(position: Position, move: bytes) -> bool:
    try:
        advance(position, move)
    except IllegalMoveError:
        return True
    return False


def games() -> list[dict[str, Any]]:
    folder = "memory://dispute-vectors"
    task = some_task(f"{folder}/task", every_kind(), np.random.default_rng(1))
    run = solve(task, f"{folder}/run", identity=SOLVER, salt=SALT)
    rng, out = np.random.default_rng(2), []
    honest = [
        (f"{name}; the solver is honest", Solver(Side(run)), Challenger(solver.side), step)
        for name, solver, step in solvers(run)
        if name.startswith(("map", "dot of i8", "a weight", "an entry of the state"))
    ]
    dishonest = [(name, solver, Challenger(Side(run)), step) for name, solver, step in solvers(run)]
    for name, solver, challenger, step in dishonest + honest:
        start = begin(task.digest, solver.side.log.root(), len(solver.side.log), step)
        game = play(start, solver, challenger)
        assert game.last.decided, (name, game.silence)
        after = [*(p for p, _ in game.moves[1:]), game.last]
        rejected = []
        for number in rng.permutation(len(game.moves)).tolist()[:4]:
            position, move = game.moves[number]
            changed = bytearray(move)
            at = int(rng.integers(len(move)))
            changed[at] ^= 1 << int(rng.integers(8))
            if is_refused(position, bytes(changed)):
                rejected.append({"move": number, "byte": at, "value": changed[at]})
        out.append(
            {
                "name": name,
                "start": start.encode().hex(),
                "moves": [move.hex() for _, move in game.moves],
                "hashes": [keccak256(p.encode()).hex() for p in after],
                "winner": int(game.last.stage),
                "rejected": rejected,
            }
        )
    return out


def text() -> str:
    return json.dumps({"_comment": COMMENT, "games": games()}, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())

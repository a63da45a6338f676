"""The referee beside Python's, on the games of tests/vectors/dispute.json with moves and positions changed; its gas."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import astuple, fields, replace
from pathlib import Path

import numpy as np
import pytest
from eth_utils import keccak

from contracts import gas
from contracts.referee import contracts
from gensyn_verify.errors import LimitError
from gensyn_verify.program import ops
from gensyn_verify.program.program import MAX_NODE_INPUTS, Input, Node, Output, Program
from gensyn_verify.program.types import Dtype, TensorType
from gensyn_verify.protocol.pinpoint.position import FIELDS, IllegalMoveError, Position, Stage, What, advance, proof
from gensyn_verify.settle.chain import MAX_GAS
from gensyn_verify.settle.gas import check_header, header_gas

CHECKED = (
    "stage",
    "what",
    "place",
    "inputs",
    "element",
    "operation",
    "operands",
    "start",
    "size",
)  # by the move that set them
VECTORS = Path(__file__).parents[1] / "vectors/dispute.json"
GAMES = {g["name"]: g for g in json.loads(VECTORS.read_text())["games"]}


def moves(name: str) -> list[tuple[Position, bytes]]:
    position, found = Position.decode(bytes.fromhex(GAMES[name]["start"])), []
    for move in map(bytes.fromhex, GAMES[name]["moves"]):
        found.append((position, move))
        position = advance(position, move)
    return found


def same(position: Position, move: bytes) -> None:
    """Both referees make the same of it."""
    try:
        wanted = advance(position, move)
    except IllegalMoveError:
        with pytest.raises(IllegalMoveError):
            contracts().advance(position, move)
        return
    assert contracts().advance(position, move) == wanted


@pytest.mark.parametrize("name", GAMES)
def test_changed_moves(name: str) -> None:
    rng = np.random.default_rng(len(name))
    for position, move in moves(name):
        for _ in range(8):
            changed = bytearray(move)
            changed[int(rng.integers(len(move)))] ^= 1 << int(rng.integers(8))
            same(position, bytes(changed))
        same(position, move[: 32 * int(rng.integers(len(move) // 32))])
        with pytest.raises(IllegalMoveError):
            contracts().advance(position, move[:-1])


@pytest.mark.parametrize("name", GAMES)
def test_changed_positions(name: str) -> None:
    rng = np.random.default_rng(len(name))
    names = [f.name for f in fields(Position)]
    for position, move in moves(name):
        for field in rng.choice(names, 6, replace=False):
            if field in CHECKED:
                continue
            bits = FIELDS[names.index(str(field))]
            near = getattr(position, str(field))
            value = rng.bytes(32) if bits == "bytes32" else int(rng.choice([0, 1, near ^ 1, near + 1, 5])) % 200
            changed = replace(position, **{str(field): value})
            try:
                advance(changed, move)
            except IllegalMoveError:
                pass
            except Exception:  # no game comes to such a position, and Python has no word for it
                continue
            same(changed, move)


def test_every_move_in_every_other_stage_is_refused_by_both() -> None:
    position, move = moves(next(iter(GAMES)))[0]
    for stage in Stage:
        if stage not in (Stage.LOG_REVEAL, Stage.CHUNK_REVEAL, Stage.PROVE):
            same(replace(position, stage=stage), move)
    for stage in Stage:
        turn = 2 if stage > Stage.PROVE else int(replace(position, stage=stage).challenger_moves)
        assert contracts().call("turn", astuple(replace(position, stage=stage))) == turn


def test_what_is_proven_of_hashes_is_what_was_shown() -> None:
    """Right kids, or a right chunk, do not help a solver that has shown others."""
    chunk = bytes(range(256)) * 4
    tree = gas.Tensors(TensorType(Dtype.f32, (300, 1024)), 70, chunk)
    kids = tree.kids(0, tree.size)
    position = Position(bytes(32), stage=Stage.PROVE, length=300 * 4096, size=tree.size, digest=tree.root)
    contested = {
        What.FOLD: (position, kids, b"".join(kids)),
        What.CHUNK: (replace(position, start=70, size=1, digest=tree.digest(70, 1)), chunk, chunk),
    }
    for what, (p, right, shown) in contested.items():
        for referee in (advance, contracts().advance):
            good = replace(p, what=what, shown=keccak(shown))
            assert referee(good, proof(what, right)).stage == Stage.SOLVER_WINS
            assert referee(replace(good, digest=bytes(32)), proof(what, right)).stage == Stage.CHALLENGER_WINS
            with pytest.raises(IllegalMoveError):
                referee(replace(good, shown=keccak(b"others")), proof(what, right))


def test_what_a_game_costs_stays_within_its_limits() -> None:
    costs, others, messages = gas.game()
    assert max(messages[m] for m in ("claim", "attest", "withdraw")) <= 120_000
    assert max(c.gas for c in [*costs, *others]) <= 450_000
    for solver in (True, False):
        assert sum(c.gas for c in costs if c.solver is solver) <= 2_500_000


def test_the_largest_nodes_of_a_program_can_be_proven_in_one_transaction() -> None:
    spent, least = gas.largest_proof()
    assert least < spent <= MAX_GAS


def program_of(states: int, name_bytes: int, width: int) -> Program:
    """So many matrices as state, and one tensor more that is `width` operands of rank 8, where that is not 0."""
    matrix, row, wide = (TensorType(Dtype.f32, s) for s in ((3, 3), (1, *[3] * 7), (width, *[3] * 7)))
    inputs = [Input("state", f"{n:0{name_bytes}}", matrix) for n in range(states)]
    outputs = [Output("state", i.name, n) for n, i in enumerate(inputs)]
    if not width:
        return Program(tuple(inputs), (), (), tuple(outputs))
    inputs += [Input("state", "z", wide), Input("batch", "x", row)]
    node = Node(ops.Concat(0), (states + 1,) * width, (wide,))
    return Program(tuple(inputs), (), (node,), (*outputs, Output("state", "z", states + 2)))


@pytest.mark.parametrize(("name_bytes", "width"), [(5, 0), (40, 0), (200, 0), (40, MAX_NODE_INPUTS)])
def test_the_largest_header_that_is_accepted_is_proven_in_one_transaction(name_bytes: int, width: int) -> None:
    """Of many short names, of some, of long ones; with a leaf of many operands beside."""

    def program(states: int) -> Program:
        return program_of(states, name_bytes, width)

    states = bisect_left(range(20_000), True, key=lambda n: header_gas(program(n + 1)) > MAX_GAS)
    check_header(program(states), "task")
    with pytest.raises(LimitError, match=r"task: .* bytes, .* up to 16\d{6} gas, .* most 16777216: .* shorter names"):
        check_header(program(states + 1), "task")
    counts, entry = gas.header_proofs(program(states))
    assert 0.96 * MAX_GAS < max(counts, entry) < MAX_GAS

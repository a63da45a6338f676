"""The game: whoever is honest wins, as solver and as challenger, for every node kind and every fault."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import SALT, SOLVER
from cheats import (
    ForgedSequence,
    Griefer,
    Liar,
    Silent,
    WithoutProof,
    WrongEntry,
    WrongLeaf,
    WrongRow,
    WrongValue,
    every_kind,
    some_task,
)

from gensyn_verify.errors import MalformedError
from gensyn_verify.program import ops
from gensyn_verify.program.encoding import node_record
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.program.merkle import leaf_digest
from gensyn_verify.program.program import MAX_NODE_INPUTS, Node, Program, ProgramBuilder
from gensyn_verify.program.scalar import Constant, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, TensorType
from gensyn_verify.protocol.pinpoint import abi
from gensyn_verify.protocol.pinpoint.game import Game, Referee, play
from gensyn_verify.protocol.pinpoint.leaves import InputLeaf, NodeLeaf, Tensor
from gensyn_verify.protocol.pinpoint.players import Challenger, NothingToSayError, Solver
from gensyn_verify.protocol.pinpoint.position import (
    CHOICE,
    MOVES,
    PROOFS,
    IllegalMoveError,
    Position,
    Stage,
    What,
    begin,
    choice,
    proof,
    solver_move,
)
from gensyn_verify.protocol.pinpoint.ranges import ranges
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.pinpoint.trace import merkle_log
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.solve import solve

PROGRAM = every_kind()
INPUTS = PROGRAM.inputs
# Every value but the state that is only kept and never read.
VALUES = [v for v in range(len(PROGRAM.value_types)) if v >= len(INPUTS) or not INPUTS[v].name.startswith("kept")]
SERIAL = itertools.count()
NAMES = {i.name: v for v, i in enumerate(INPUTS)}


def dispute(solver: Solver, challenger: Challenger, referee: Referee, step: int | None = None) -> Game:
    side = solver.side
    return play(begin(side.task.digest, side.log.root(), len(side.log), step), solver, challenger, referee)


def contested(game: Game) -> What:
    """What was contested last."""
    return game.moves[-1][0].what if game.moves[-1][0].stage == Stage.PROVE else What.OPERATION


def node_of(kind: type[ops.Op], program: Program = PROGRAM) -> int:
    """The trace leaf of the first node of a kind."""
    return len(program.inputs) + next(n for n, node in enumerate(program.nodes) if isinstance(node.op, kind))


# ---- what is computed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES)
def test_a_wrong_bit_of_any_value(every_kind_run: Run, referee: Referee, value: int) -> None:
    rng = np.random.default_rng(value)
    type = PROGRAM.value_types[value]

    def somewhere() -> WrongValue:
        step, element, bit = (int(rng.integers(n)) for n in (5, type.elements, 3))  # a low bit: see every_kind
        return WrongValue(every_kind_run, step, value, element, bit)

    wrong, honest = somewhere(), Side(every_kind_run).log.root()
    while wrong.log.root() == honest:  # a sum may round it away
        wrong = somewhere()
    game = dispute(Solver(wrong), Challenger(Side(every_kind_run)), referee)
    assert not game.solver_wins
    assert game.silence is None
    game = dispute(Solver(Side(every_kind_run)), Challenger(wrong), referee)
    assert game.solver_wins
    assert game.silence is None


@pytest.mark.parametrize("start", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("value", [v for v in VALUES if v >= len(INPUTS)])
def test_forged_results_that_lead_to_a_wrong_value(
    every_kind_run: Run, referee: Referee, value: int, start: float
) -> None:
    rng = np.random.default_rng(value)
    element = int(rng.integers(PROGRAM.value_types[value].elements))
    wrong = ForgedSequence(every_kind_run, 3, value, element, int(rng.integers(3)))
    wrong.start = start
    game = dispute(Solver(wrong), Challenger(Side(every_kind_run)), referee)
    assert (game.solver_wins, game.silence) == (False, None)

    def lie(result: int, operands: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        return result, (operands[0], operands[1] ^ 1, operands[2])

    game = dispute(Liar(wrong, Stage.OPERATION_OPEN, lie), Challenger(Side(every_kind_run)), referee)
    assert (game.solver_wins, game.silence, contested(game)) == (False, None, What.VALUE)


def test_a_position_outside_its_row_has_no_sequence_to_show(every_kind_run: Run, referee: Referee) -> None:
    place = node_of(ops.Sort)
    wrong = WrongValue(every_kind_run, 1, PROGRAM.first_value[place - len(INPUTS)], 5, 20)
    game = dispute(Solver(wrong), Challenger(Side(every_kind_run)), referee)
    assert not game.solver_wins
    assert isinstance(game.silence, MalformedError)
    assert game.last.stage == Stage.SEQUENCE_OPEN


# ---- what goes in, and what is committed to ---------------------------------------------------------------------


@pytest.mark.parametrize("role", ["batch", "scalar"])
@pytest.mark.parametrize("step", [0, 4])
def test_another_batch_or_schedule(every_kind_run: Run, referee: Referee, role: str, step: int) -> None:
    wrong = WrongRow(every_kind_run, step, role)
    game = dispute(Solver(wrong), Challenger(Side(every_kind_run)), referee)
    assert (game.solver_wins, game.silence) == (False, None)
    assert Stage.INPUT_OPEN in [p.stage for p, _ in game.moves]
    game = dispute(Solver(Side(every_kind_run)), Challenger(wrong), referee)
    assert (game.solver_wins, game.silence) == (True, None)


@pytest.mark.parametrize("name", ["w", "moment", "seed"])
def test_another_state_than_the_one_agreed(every_kind_run: Run, referee: Referee, name: str) -> None:
    for step in (0, 2):
        wrong = WrongValue(every_kind_run, step, NAMES[name], 1, 14)
        game = dispute(Solver(wrong), Challenger(Side(every_kind_run)), referee)
        assert (game.solver_wins, game.silence, game.moves[-1][0].stage) == (False, None, Stage.INPUT_OPEN)
        game = dispute(Solver(Side(every_kind_run)), Challenger(wrong), referee)
        assert (game.solver_wins, game.silence) == (True, None)


@pytest.mark.parametrize(("role", "number"), [("state", 0), ("state", 17), ("state", 31), ("batch", 1), ("scalar", 0)])
def test_an_entry_of_which_nobody_has_the_tensor(every_kind_run: Run, referee: Referee, role: str, number: int) -> None:
    wrong = WrongEntry(every_kind_run, 2, role, number)
    game = dispute(Solver(wrong), Challenger(Side(every_kind_run)), referee)
    assert (game.solver_wins, game.silence, contested(game)) == (False, None, What.ENTRY)
    game = dispute(Solver(Side(every_kind_run)), Challenger(wrong), referee)
    assert (game.solver_wins, game.silence, contested(game)) == (True, None, What.ENTRY)


def test_a_group_without_entries_decides_at_once(tmp_path: Path, referee: Referee) -> None:
    g = ProgramBuilder()
    zero = ScalarProgram((), (Constant(Reg.f32, 0),), (), (0,))
    g.output("metric", "zero", *g.emit(ops.Map(g._scalars.setdefault(zero, 0), (1,), (Dtype.f32,))))
    task = some_task(tmp_path / "task", g.build(), np.random.default_rng(0))
    side = Side(solve(task, tmp_path / "run", identity=SOLVER, salt=SALT))
    start = begin(side.task.digest, side.log.root(), len(side.log), 1)
    opened = referee(start, Solver(side).move(start))
    for which in range(3):
        assert referee(opened, choice(What.ENTRY, which)).stage == Stage.SOLVER_WINS
        forged = replace(opened, after=bytes(32), batch=bytes(32), scalars=bytes(32))
        assert referee(forged, choice(What.ENTRY, which)).stage == Stage.CHALLENGER_WINS


# ---- what the trace says ----------------------------------------------------------------------------------------


def other_record(leaf: NodeLeaf) -> NodeLeaf:
    node = replace(leaf.node, op=ops.Dot(False, False, Dtype.bf16), types=(TensorType(Dtype.bf16, (6, 300)),))
    return replace(leaf, record=node_record(node))


def other_first(leaf: NodeLeaf) -> NodeLeaf:
    return replace(leaf, first=leaf.first + 1)


def other_operand(leaf: NodeLeaf) -> NodeLeaf:
    operand = Tensor(leaf.operands[1].type, bytes(32))
    return replace(leaf, operands=(leaf.operands[0], operand))


def other_type(leaf: NodeLeaf) -> NodeLeaf:
    operand = Tensor(TensorType(Dtype.bf16, (1, 2)), leaf.operands[0].root)
    return replace(leaf, operands=(operand, leaf.operands[1]))


def no_record(leaf: NodeLeaf) -> NodeLeaf:
    """A flag of 2: no node has that record, and yet everything in the leaf is where it should be."""
    return replace(leaf, record=leaf.record[:1] + b"\x02" + leaf.record[2:])


def no_type(leaf: NodeLeaf) -> NodeLeaf:
    operand = Tensor(TensorType(Dtype.f32, ((1 << 64) - 1,) * 8), leaf.operands[0].root)
    return replace(leaf, operands=(operand, leaf.operands[1]))


def other_root(leaf: NodeLeaf) -> NodeLeaf:
    return replace(leaf, roots=(bytes(32),))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (other_record, What.RECORD),
        (no_record, What.RECORD),
        (other_first, What.FIRST),
        (other_operand, What.OPERAND),
        (other_type, What.OPERAND),
        (no_type, What.OPERAND),
        (other_root, What.CHUNK),  # the hash of nothing that can be shown
    ],
)
def test_a_leaf_that_is_not_the_program_s(every_kind_run: Run, referee: Referee, change, what: What) -> None:  # type: ignore[no-untyped-def]
    place = [n for n, node in enumerate(PROGRAM.nodes) if isinstance(node.op, ops.Dot)][1] + len(INPUTS)
    wrong = WrongLeaf(every_kind_run, 2, place, change)
    game = dispute(Solver(wrong), Challenger(Side(every_kind_run)), referee)
    assert (game.solver_wins, game.silence, contested(game)) == (False, None, what)
    game = dispute(Solver(Side(every_kind_run)), Challenger(wrong), referee)
    assert game.solver_wins
    assert not isinstance(game.silence, IllegalMoveError)


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_for_a_leaf(every_kind_run: Run, referee: Referee, seed: int) -> None:
    """A leaf with a byte changed, put in, or left out: what the referee takes of it the challenger can answer."""
    rng = np.random.default_rng(seed)

    def mutated(leaf: InputLeaf | NodeLeaf) -> Any:
        data, at = bytearray(leaf.encode()), int(rng.integers(len(leaf.encode())))
        match seed % 4:
            case 0:
                data.insert(at, int(rng.integers(256)))
            case 1:
                del data[at]
            case _:
                data[at] ^= 1 << int(rng.integers(8))

        class Mutated(type(leaf)):  # type: ignore[misc]
            def encode(self) -> bytes:
                return bytes(data)

        return Mutated(**{f.name: getattr(leaf, f.name) for f in fields(leaf)})

    place = (
        int(rng.choice([v for v in VALUES if v < len(INPUTS)]))
        if seed % 5 == 0
        else len(INPUTS) + seed % len(PROGRAM.nodes)
    )
    game = dispute(Solver(WrongLeaf(every_kind_run, 2, place, mutated)), Challenger(Side(every_kind_run)), referee)
    assert not game.solver_wins, game.silence


@pytest.mark.parametrize("operands", [3, MAX_NODE_INPUTS, MAX_NODE_INPUTS + 1])
def test_a_leaf_is_not_larger_than_its_challenger_can_answer(referee: Referee, operands: int) -> None:
    for rank in (0, 8):
        tensor = Tensor(TensorType(Dtype.f32, (1,) * rank), bytes(32))
        node = Node(ops.Concat(0), tuple(range(operands)), (tensor.type,))
        leaf = NodeLeaf(len(INPUTS), node_record(node), (tensor,) * operands, (bytes(32),)).encode()
        digest, first = leaf_digest(leaf, keccak256), len(INPUTS)
        shown = Position(bytes(32), stage=Stage.LEAF_OPEN, inputs=first, place=first, leaf=digest)
        move = solver_move(Stage.LEAF_OPEN, leaf)
        if operands > MAX_NODE_INPUTS:
            with pytest.raises(IllegalMoveError):
                referee(shown, move)
        else:
            assert referee(shown, move).stage == Stage.LEAF_CHOICE


def test_a_producer_to_the_right_proves_nothing(every_kind_run: Run, referee: Referee) -> None:
    """A wrong operand, and behind it a forged leaf that claims to hold that value."""
    place = node_of(ops.Map)

    def wrong_operand(leaf: NodeLeaf) -> NodeLeaf:
        return replace(leaf, operands=(Tensor(leaf.operands[0].type, bytes(32)), *leaf.operands[1:]))

    side = WrongLeaf(every_kind_run, 2, place, wrong_operand)
    trace = side.trace(2)
    operand = trace.leaves[place].node.inputs[0]  # type: ignore[union-attr]
    forged = place + 1
    behind = trace.leaves[forged]
    assert isinstance(behind, NodeLeaf)
    trace.leaves[forged] = replace(behind, first=operand, roots=(bytes(32),) * len(behind.roots))
    trace.log = merkle_log(trace.records())
    game = dispute(Solver(side), Challenger(Side(every_kind_run)), referee)
    assert (game.solver_wins, contested(game)) == (False, What.OPERAND)
    position = game.moves[-1][0]
    data, path = trace.records()[forged], trace.log.path(forged)
    with pytest.raises(IllegalMoveError, match="producer is to the left"):
        referee(position, proof(What.OPERAND, trace.records()[place], data, forged, path))


# ---- what is said -----------------------------------------------------------------------------------------------


def types_of(position: Position) -> tuple[abi.Type, ...]:
    """Of the move that is due."""
    if position.challenger_moves:
        return CHOICE
    return PROOFS[position.what] if position.stage == Stage.PROVE else MOVES[position.stage]


def other_encodings(types: tuple[abi.Type, ...], move: bytes) -> Iterator[bytes]:
    """Bytes that a decoder could take for the same move: with a gap, with something behind, with dirt in words."""
    words = [move[i : i + 32] for i in range(0, len(move), 32)]
    heads = sum(3 if t == "uint64[3]" else 1 for t in types)
    offsets = [at for at, t in enumerate(types) if abi.is_dynamic(t)]
    yield move + bytes(32)
    yield move + b"behind"
    gap = [*words[:heads], bytes(32), *words[heads:]]
    for at in offsets:
        gap[at] = (int.from_bytes(gap[at], "big") + 32).to_bytes(32, "big")
        wild = (int.from_bytes(words[at], "big") - 32 * heads - 64) % (1 << 256)  # out of the move, into the position
        yield b"".join([*words[:at], wild.to_bytes(32, "big"), *words[at + 1 :]])
    if offsets:
        yield b"".join(gap)
    if types[-1] == "bytes" and int.from_bytes(words[int.from_bytes(words[heads - 1], "big") // 32], "big") % 32:
        yield move[:-1] + b"\1"  # in the padding
    for at, t in enumerate(types):
        if not abi.is_dynamic(t) and t != "bytes32":
            yield b"".join([*words[:at], b"\1" + words[at][1:], *words[at + 1 :]])


def test_a_move_has_one_encoding(every_kind_run: Run, referee: Referee) -> None:
    """Else one could be made that the contract takes, and in which the other side finds nothing to answer."""
    seen = set()
    place = node_of(ops.Map)
    forged = ForgedSequence(every_kind_run, 2, PROGRAM.first_value[place - len(INPUTS)], 3, 1)
    lie = Liar(forged, Stage.OPERATION_OPEN, lambda result, operands: (result, (operands[0] ^ 1, *operands[1:])))
    games = [dispute(lie, Challenger(Side(every_kind_run)), referee)]
    games += [dispute(Solver(Side(every_kind_run)), Griefer(Side(every_kind_run), seed), referee) for seed in range(20)]
    for position, move in (m for game in games for m in game.moves):
        kind = position.stage, position.what, move[31] if position.challenger_moves else 0
        if kind in seen:
            continue
        seen.add(kind)
        for other in other_encodings(types_of(position), move):
            with pytest.raises(IllegalMoveError):
                referee(position, other)
    assert {stage for stage, *_ in seen} >= {Stage.LOG_PICK, Stage.SEQUENCE_OPEN, Stage.OPERATION_OPEN, Stage.PROVE}


def test_wrong_counts(every_kind_run: Run, referee: Referee) -> None:
    for n in range(4):

        def lie(*values):  # type: ignore[no-untyped-def]
            counts = list(values[5:])
            counts[n] += 1  # noqa: B023
            return (*values[:5], *counts)

        solver = Liar(WrongEntry(every_kind_run, 2, "state", 0), Stage.STEP_OPEN, lie)
        game = dispute(solver, Challenger(Side(every_kind_run)), referee)
        assert (game.solver_wins, game.silence, contested(game)) == (False, None, What.COUNTS)


def test_chunks_that_do_not_hash_to_what_was_committed_to(every_kind_run: Run, referee: Referee) -> None:
    value = PROGRAM.first_value[node_of(ops.Broadcast) - len(INPUTS)]  # 3 x 6 x 10 elements: one chunk
    long = next(v for v in VALUES if v >= len(INPUTS) and PROGRAM.value_types[v].nbytes > 1 << 12)
    for v, stage, what in ((value, Stage.CHUNK_OPEN, What.CHUNK), (long, Stage.CHUNK_OPEN, What.CHUNK),
                           (long, Stage.CHUNK_REVEAL, What.FOLD)):  # fmt: skip
        honest = Solver(Side(every_kind_run))
        wrong = WrongValue(every_kind_run, 2, v, 1, 3)
        place = wrong.trace(2).place_of(v)
        tree = honest.side.tree(2, place, v - PROGRAM.first_value[place - len(INPUTS)])

        def lie(shown):  # type: ignore[no-untyped-def]
            if isinstance(shown, bytes):
                return (tree.chunk(0),)  # noqa: B023
            return ((bytes(32), *shown[1:]),)

        game = dispute(Liar(wrong, stage, lie), Challenger(Side(every_kind_run)), referee)
        assert (game.solver_wins, game.silence, contested(game)) == (False, None, what)
        position, proven = game.moves[-1][0], wrong.tree(2, place, 0)
        if what == What.FOLD:  # what hashes to the digest is not what was shown
            true = proof(what, [proven.node(s, s + n) for s, n in ranges(position.start, position.size)])
        else:
            true = proof(what, proven.chunk(position.start))
        with pytest.raises(IllegalMoveError, match="shown"):
            referee(position, true)


@pytest.mark.parametrize("stage", [s for s in Stage if s < Stage.PROVE and not s.name.endswith(("PICK", "CHOICE"))])
def test_silence_loses(every_kind_run: Run, referee: Referee, stage: Stage) -> None:
    long = next(v for v in VALUES if v >= len(INPUTS) and PROGRAM.value_types[v].nbytes > 1 << 12)
    wrong = (
        WrongRow(every_kind_run, 2, "batch") if stage == Stage.INPUT_OPEN else WrongValue(every_kind_run, 2, long, 9, 3)
    )
    game = dispute(Silent(wrong, stage), Challenger(Side(every_kind_run)), referee)
    assert not game.solver_wins
    assert game.last.stage == stage


@pytest.mark.parametrize("seed", range(40))
def test_an_honest_solver_answers_every_move(every_kind_run: Run, referee: Referee, seed: int) -> None:
    solver = Solver(Side(every_kind_run))
    game = dispute(solver, Griefer(Side(every_kind_run), seed), referee, None if seed % 2 else seed % 5)
    assert (game.solver_wins, game.silence) == (True, None)


def test_a_challenger_who_has_the_data_need_not_wait(every_kind_run: Run, referee: Referee) -> None:
    """It proves, where the solver is silent, what it contests."""
    place = node_of(ops.Dot)
    wrong_value = PROGRAM.first_value[place - len(INPUTS)]
    forged = ForgedSequence(every_kind_run, 2, wrong_value, 3, 1)
    forged.start = 0.1
    cheats = [
        Liar(forged, Stage.OPERATION_OPEN, lambda result, operands: (result, (operands[0] ^ 1, *operands[1:]))),
        Liar(WrongValue(every_kind_run, 2, wrong_value, 3, 1), Stage.CHUNK_REVEAL, lambda k: ((bytes(32), *k[1:]),)),
        Liar(WrongValue(every_kind_run, 2, wrong_value, 3, 1), Stage.CHUNK_OPEN, lambda c: (bytes(len(c)),)),
        Solver(WrongLeaf(every_kind_run, 2, place, other_record)),
        Liar(WrongEntry(every_kind_run, 2, "state", 0), Stage.STEP_OPEN, lambda *v: (*v[:8], v[8] + 1)),
    ]
    for solver in cheats:
        challenger = Challenger(Side(every_kind_run))
        game = dispute(WithoutProof(solver), challenger, referee)
        assert game.last.stage == Stage.PROVE
        assert referee(game.last, challenger.move(game.last)).stage == Stage.CHALLENGER_WINS


def test_no_mutation_of_a_proof_wins_for_the_other(every_kind_run: Run, referee: Referee) -> None:
    rng = np.random.default_rng(3)
    for seed in range(30):
        game = dispute(Solver(Side(every_kind_run)), Griefer(Side(every_kind_run), seed), referee)
        position, move = game.moves[-1]
        for at in rng.integers(0, len(move), 40):
            mutated = bytearray(move)
            mutated[at] ^= 1 << int(rng.integers(8))
            try:
                assert referee(position, bytes(mutated)).stage == Stage.SOLVER_WINS
            except IllegalMoveError:
                continue


def test_who_agrees_has_nothing_to_contest(every_kind_run: Run, referee: Referee) -> None:
    game = dispute(Solver(Side(every_kind_run)), Challenger(Side(every_kind_run)), referee)
    assert game.solver_wins
    assert isinstance(game.silence, NothingToSayError)

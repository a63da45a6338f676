"""Solver and challenger: one deterministic strategy each over a `Side` (docs/dispute.md, section 7).

A player is shown every move of its game, in order (`see`), and says what it does where it is its turn (`move`). It
needs the position and what the solver showed last, nothing else, so a player that was stopped goes on from the moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gensyn_verify.commit import MerkleLog
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_count, chunk_value
from gensyn_verify.errors import GensynVerifyError
from gensyn_verify.program.merkle import leaf_digest, merkle_path
from gensyn_verify.protocol.pinpoint import abi, sequence
from gensyn_verify.protocol.pinpoint.leaves import NodeLeaf
from gensyn_verify.protocol.pinpoint.position import (
    MOVES,
    NO_RECORD,
    OPERATION,
    Position,
    Stage,
    What,
    choice,
    proof,
    solver_move,
)
from gensyn_verify.protocol.pinpoint.ranges import fold_chunks, ranges
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.pinpoint.trace import merkle_log


class NothingToSayError(GensynVerifyError):
    """A player without a move: a challenger that agrees with everything, or a proof that this side cannot give."""


class Player:
    """What both have in common."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.place = 0  # the trace leaf in dispute
        self.leaf = b""  # as the solver shows it
        self.shown: tuple[Any, ...] = ()  # the solver's last move

    def see(self, position: Position, move: bytes) -> None:
        """A move, of either player, that was made in this position."""
        if position.challenger_moves:
            return
        if position.stage != Stage.PROVE:
            self.shown = abi.decode(MOVES[position.stage], move)
        if position.stage == Stage.LEAF_OPEN:
            self.place, (self.leaf,) = position.place, self.shown
        if position.stage == Stage.INPUT_OPEN:
            role = self.side.program.inputs[self.place].role
            if role != "state" and not self.side.task.recorded:
                self.leaf = self.side.source(self.place)[0].encode()

    def move(self, position: Position) -> bytes:
        """This player's move. Raises NothingToSayError."""
        if position.stage == Stage.PROVE:
            return self.prove(position)
        return self._moves[position.stage](position)

    _moves: dict[Stage, Callable[[Position], bytes]]

    # ---- trees --------------------------------------------------------------------------------------------------

    def _log(self, p: Position) -> MerkleLog:
        """The keccak tree that is descended, as this side has it."""
        if p.stage in (Stage.LOG_REVEAL, Stage.LOG_PICK):
            return self.side.log
        if p.stage in (Stage.SEQUENCE_REVEAL, Stage.SEQUENCE_PICK):
            return self._sequence(p)[2]
        if p.what != What.ENTRY:
            return self.side.trace(p.step).log
        return merkle_log(self.side.group(p.step, p.which))

    def _sequence(self, p: Position) -> tuple[sequence.Sequence, Any, MerkleLog]:
        return self.side.sequence(p.step, self.place, p.output, p.element, p.value)

    def _scalar_record(self, p: Position) -> Any:
        number = self.side.leaf(p.step, self.place).scalar_program
        return NO_RECORD if number is None else self.side.record_of(1 + number)

    # ---- proofs -------------------------------------------------------------------------------------------------

    def prove(self, p: Position) -> bytes:
        """The proof that is due in stage PROVE, whomever it speaks for. Raises NothingToSayError."""
        return proof(What(p.what), *self._proofs()[p.what](p))

    def _proofs(self) -> dict[What, Callable[[Position], tuple[Any, ...]]]:
        return {
            What.COUNTS: lambda p: (self.side.record_of(0),),
            What.ENTRY: self._prove_entry,
            What.RECORD: lambda p: (self.leaf, self.side.node_record_of(p.place - p.inputs)),
            What.FIRST: lambda p: (self.leaf, *self._trace_leaf(p, p.place - 1)),
            What.OPERAND: self._prove_operand,
            What.FOLD: lambda p: self.shown,
            What.CHUNK: lambda p: self.shown,
            What.VALUE: self._prove_value,
        }

    def _trace_leaf(self, p: Position, index: int) -> tuple[bytes, list[bytes]]:
        """A leaf of this side's trace, and its path; of use where the trace is the solver's."""
        trace = self.side.trace(p.step)
        if trace.log.root() != p.trace:
            raise NothingToSayError("this side does not have the trace that was committed to")
        return trace.records()[index], trace.log.path(index)

    def _prove_entry(self, p: Position) -> tuple[Any, ...]:
        entry = self.side.group(p.step, p.which)[p.place]
        program = self.side.program
        if p.which == 0:
            value = [o.value for o in program.outputs if o.role == "state"][p.place]
        else:
            value = p.place + (p.states if p.which == 1 else p.states + p.batches)
        index = self.side.trace(p.step).place_of(value)
        leaf, path = self._trace_leaf(p, index)
        return self.side.record_of(0), entry, leaf, index, path

    def _prove_operand(self, p: Position) -> tuple[Any, ...]:
        value = self.side.program.nodes[p.place - p.inputs].inputs[p.which]
        index = self.side.trace(p.step).place_of(value)
        leaf, path = self._trace_leaf(p, index)
        return self.leaf, leaf, index, path

    def _prove_value(self, p: Position) -> tuple[Any, ...]:
        s, results, log = self._sequence(p)
        where = s.operation(p.operation, p.operands).operand(p.which)
        chunk: bytes = b""
        path: tuple[bytes, ...] = ()
        if isinstance(where, sequence.Result):
            if log.root() != p.sequence:
                raise NothingToSayError("this side does not have the sequence that was committed to")
            chunk, path = int(results[where.index]).to_bytes(8, "big"), tuple(log.path(where.index))
        elif isinstance(where, sequence.Element):
            chunk, path = self.side.open_element(p.step, self.place, where.tensor, where.index)
        return self.leaf, self._scalar_record(p), chunk, path


class Solver(Player):
    """Shows and proves what its side has."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self._moves = {
            Stage.LOG_REVEAL: self._reveal,
            Stage.STEP_OPEN: self._open_step,
            Stage.TRACE_REVEAL: self._reveal,
            Stage.LEAF_OPEN: lambda p: solver_move(p.stage, self.side.trace(p.step).leaves[p.place].encode()),
            Stage.INPUT_OPEN: self._open_input,
            Stage.CHUNK_REVEAL: self._reveal_chunks,
            Stage.CHUNK_OPEN: lambda p: solver_move(p.stage, self._tree(p).chunk(p.start)),
            Stage.SEQUENCE_OPEN: self._open_sequence,
            Stage.SEQUENCE_REVEAL: self._reveal,
            Stage.OPERATION_OPEN: self._open_operation,
        }

    def _reveal(self, p: Position) -> bytes:
        log = self._log(p)
        return solver_move(p.stage, [log.node(s, s + n) for s, n in ranges(p.start, p.size)])

    def _open_step(self, p: Position) -> bytes:
        side, log = self.side, self.side.log
        if p.step:
            before, path = side.entry(p.step - 1).record(), log.path(p.step - 1)
        else:
            before, path = side.task.leaves["state"], side.task_path("state")
        roles = [i.role for i in side.program.inputs]
        counts = roles.count("state"), roles.count("batch"), len(roles), len(side.program.nodes)
        trace = side.trace(p.step).log.root()
        return solver_move(p.stage, side.entry(p.step).record(), log.path(p.step), before, path, trace, *counts)

    def _open_input(self, p: Position) -> bytes:
        side = self.side
        if p.place < p.states:
            entries = side.state_entries_before(p.step)
            rest: tuple[Any, ...] = (bytes(32), [], b"", [])
            number = p.place
        elif side.task.recorded:
            return solver_move(p.stage, self.leaf, b"", [], bytes(32), [], b"", side.task_path("sampler"))
        else:
            _, entries, number = side.source(p.place)
            name = "data" if p.place < p.states + p.batches else "schedule"
            sampler = side.task.leaves["sampler"]
            rest = (side.task.leaves[name], side.task_path(name), sampler, side.task_path("sampler"))
        path = merkle_path([leaf_digest(e) for e in entries], number)
        return solver_move(p.stage, self.leaf, entries[number], path, *rest)

    def _tree(self, p: Position) -> Any:
        return self.side.tree(p.step, self.place, p.output)

    def _reveal_chunks(self, p: Position) -> bytes:
        tree = self._tree(p)
        return solver_move(p.stage, [tree.node(s, s + n) for s, n in ranges(p.start, p.size)])

    def _open_sequence(self, p: Position) -> bytes:
        s, _, log = self._sequence(p)
        return solver_move(p.stage, self.leaf, self._scalar_record(p), log.root(), log.path(s.length - 1))

    def _open_operation(self, p: Position) -> bytes:
        s, results, _ = self._sequence(p)
        operands = self.side.operands(p.step, self.place, s, p.operation, results)
        return solver_move(p.stage, int(results[p.operation]), operands)


class Challenger(Player):
    """Picks and contests the first that is not its own."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self._moves = {
            Stage.LOG_PICK: self._pick,
            Stage.STEP_CHOICE: self._choose_step,
            Stage.TRACE_PICK: self._pick,
            Stage.LEAF_CHOICE: self._choose_leaf,
            Stage.CHUNK_PICK: self._pick_chunk,
            Stage.ELEMENT_PICK: self._pick_element,
            Stage.SEQUENCE_PICK: self._pick,
            Stage.OPERATION_CHOICE: self._choose_operation,
        }

    def _pick(self, p: Position) -> bytes:
        (kids,), log = self.shown, self._log(p)
        own = [log.node(s, s + n) for s, n in ranges(p.start, p.size)]
        return choice(What.PICK, _first_difference(kids, own), b"".join(kids))

    def _choose_step(self, p: Position) -> bytes:
        side = self.side
        roles = [i.role for i in side.program.inputs]
        counts = roles.count("state"), roles.count("batch"), len(roles), len(side.program.nodes)
        if (p.states, p.batches, p.inputs, p.nodes) != counts:
            return choice(What.COUNTS)
        if p.trace != side.trace(p.step).log.root():
            return choice(What.PICK)
        own = side.entry(p.step)
        return choice(What.ENTRY, _first_difference([p.after, p.batch, p.scalars], [own.state, own.batch, own.scalars]))

    def _choose_leaf(self, p: Position) -> bytes:
        data, own = self.leaf, self.side.trace(p.step).leaves[p.place]
        if not isinstance(own, NodeLeaf):
            return choice(What.INPUT, data=data)
        fields = own.fields()  # compared as bytes, in which nothing has to make sense
        at = 9 + len(own.record)
        if data[5:at] != b"".join(fields[1:3]):
            return choice(What.RECORD, data=data)
        if data[1:5] != fields[0]:
            return choice(What.FIRST, data=data)
        for q, tensor in enumerate(fields[3 : 3 + len(own.operands)]):
            if data[at : at + len(tensor)] != tensor:
                return choice(What.OPERAND, q, data)
            at += len(tensor)
        roots = [data[i : i + 32] for i in range(at, len(data), 32)]
        return choice(What.OUTPUT, _first_difference(roots, own.roots), data)

    def _pick_chunk(self, p: Position) -> bytes:
        (kids,) = self.shown
        if fold_chunks(kids, p.size, p.size == chunk_count(p.length)) != p.digest:
            return choice(What.FOLD)
        tree = self.side.tree(p.step, self.place, p.output)
        own = [tree.node(s, s + n) for s, n in ranges(p.start, p.size)]
        return choice(What.PICK, _first_difference(kids, own), b"".join(kids))

    def _pick_element(self, p: Position) -> bytes:
        (chunk,) = self.shown
        if chunk_value(chunk, p.start, is_root=p.length <= CHUNK_BYTES) != p.digest:
            return choice(What.CHUNK)
        own, w = self.side.tree(p.step, self.place, p.output).chunk(p.start), p.width
        elements = [[x[i : i + w] for i in range(0, len(x), w)] for x in (chunk, own)]
        return choice(What.PICK, _first_difference(*elements), chunk)

    def _choose_operation(self, p: Position) -> bytes:
        s, results, _ = self._sequence(p)
        own = self.side.operands(p.step, self.place, s, p.operation, results)
        for slot, (theirs, ours) in enumerate(zip(p.operands, own, strict=True)):
            if theirs != ours:
                return choice(What.VALUE, slot)
        return choice(What.OPERATION, data=abi.encode(OPERATION, (self.leaf, self._scalar_record(p))))


def _first_difference(theirs: Any, ours: Any) -> int:
    for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        if a != b:
            return i
    raise NothingToSayError("both sides have the same: there is nothing to contest")

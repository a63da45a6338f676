"""The referee: positions of the dispute game and what a move makes of them (docs/dispute.md, sections 4 to 6).

`advance(position, move)` is a pure function and the definition of the game; the contract's `Referee.sol` is its twin. A
position is a value and is named by its `hash`; a move is ABI-encoded by stage (`MOVES`, `CHOICE`, `PROOFS`). A move
that does not fit, or whose proof is not valid, raises IllegalMoveError and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

from gensyn_verify.commit import keccak256
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_count, chunk_value
from gensyn_verify.commit.tensor import ChunkOpening, chunk_of_element, verify_chunk
from gensyn_verify.errors import GensynVerifyError, MalformedError
from gensyn_verify.program.encoding import read_header, read_scalar
from gensyn_verify.program.merkle import leaf_digest, seal, verify_path
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import MAX_ELEMENTS, TensorType
from gensyn_verify.protocol.pinpoint import abi, sequence
from gensyn_verify.protocol.pinpoint.leaves import (
    InputLeaf,
    Leaf,
    NodeLeaf,
    SourceLeaf,
    Tensor,
    decode_entry,
    decode_leaf,
    encode_entry,
)
from gensyn_verify.protocol.pinpoint.ranges import fold, fold_chunks, ranges

EMPTY = bytes(32)


class IllegalMoveError(MalformedError):
    """A move that the stage does not take, or a proof that does not hold."""


class Stage(IntEnum):
    LOG_REVEAL = 0
    LOG_PICK = 1
    STEP_OPEN = 2
    STEP_CHOICE = 3
    TRACE_REVEAL = 4
    TRACE_PICK = 5
    LEAF_OPEN = 6
    LEAF_CHOICE = 7
    INPUT_OPEN = 8
    CHUNK_REVEAL = 9
    CHUNK_PICK = 10
    CHUNK_OPEN = 11
    ELEMENT_PICK = 12
    SEQUENCE_OPEN = 13
    SEQUENCE_REVEAL = 14
    SEQUENCE_PICK = 15
    OPERATION_OPEN = 16
    OPERATION_CHOICE = 17
    PROVE = 18
    SOLVER_WINS = 19
    CHALLENGER_WINS = 20


class What(IntEnum):
    PICK = 0
    COUNTS = 1
    ENTRY = 2
    RECORD = 3
    FIRST = 4
    OPERAND = 5
    OUTPUT = 6
    INPUT = 7
    FOLD = 8
    CHUNK = 9
    OPERATION = 10
    VALUE = 11


CHALLENGER_STAGES = frozenset(s for s in Stage if s.name.endswith(("PICK", "CHOICE")))
RECORD: abi.Type = ("bytes", "bytes32[]", "uint64", "bytes32", "bytes32[]")
NO_RECORD: tuple[Any, ...] = (b"", (), 0, EMPTY, ())
_KIDS: tuple[abi.Type, ...] = ("bytes32[]",)
CHOICE: tuple[abi.Type, ...] = ("uint8", "uint32", "bytes")  # every move of the challenger
MOVES: dict[Stage, tuple[abi.Type, ...]] = {  # of the solver
    Stage.LOG_REVEAL: _KIDS,
    Stage.STEP_OPEN: ("bytes", "bytes32[]", "bytes", "bytes32[]", "bytes32", *["uint32"] * 4),
    Stage.TRACE_REVEAL: _KIDS,
    Stage.LEAF_OPEN: ("bytes",),
    Stage.INPUT_OPEN: ("bytes", "bytes", "bytes32[]", "bytes32", "bytes32[]", "bytes", "bytes32[]"),
    Stage.CHUNK_REVEAL: _KIDS,
    Stage.CHUNK_OPEN: ("bytes",),
    Stage.SEQUENCE_OPEN: ("bytes", RECORD, "bytes32", "bytes32[]"),
    Stage.SEQUENCE_REVEAL: _KIDS,
    Stage.OPERATION_OPEN: ("uint64", "uint64[3]"),
}
PROOFS: dict[What, tuple[abi.Type, ...]] = {  # in stage PROVE
    What.COUNTS: (RECORD,),
    What.ENTRY: (RECORD, "bytes", "bytes", "uint32", "bytes32[]"),
    What.RECORD: ("bytes", RECORD),
    What.FIRST: ("bytes", "bytes", "bytes32[]"),
    What.OPERAND: ("bytes", "bytes", "uint32", "bytes32[]"),
    What.FOLD: _KIDS,
    What.CHUNK: ("bytes",),
    What.VALUE: ("bytes", RECORD, "bytes", "bytes32[]"),
}
OPERATION: tuple[abi.Type, ...] = ("bytes", RECORD)  # the data of OPERATION


@dataclass(frozen=True)
class Position:
    """Where a game stands; the fields are those of docs/dispute.md, in order."""

    task: bytes
    log: bytes = EMPTY
    steps: int = 0
    stage: Stage = Stage.LOG_REVEAL
    what: What = What.PICK
    which: int = 0
    step: int = 0
    before: bytes = EMPTY
    after: bytes = EMPTY
    batch: bytes = EMPTY
    scalars: bytes = EMPTY
    trace: bytes = EMPTY
    states: int = 0
    batches: int = 0
    inputs: int = 0
    nodes: int = 0
    place: int = 0
    leaf: bytes = EMPTY
    output: int = 0
    tensor: bytes = EMPTY
    length: int = 0
    width: int = 0
    element: int = 0
    value: int = 0
    sequence: bytes = EMPTY
    operation: int = 0
    result: int = 0
    operands: tuple[int, int, int] = (0, 0, 0)
    start: int = 0
    size: int = 0
    digest: bytes = EMPTY
    shown: bytes = EMPTY

    def encode(self) -> bytes:
        """`abi.encode(position)`."""
        return abi.encode(FIELDS, [getattr(self, f.name) for f in fields(self)])

    @staticmethod
    def decode(data: bytes) -> Position:
        """The position of `encode`'s bytes. Raises MalformedError."""
        values = dict(zip([f.name for f in fields(Position)], abi.decode(FIELDS, data), strict=True))
        try:
            return Position(**{**values, "stage": Stage(values["stage"]), "what": What(values["what"])})
        except ValueError as error:
            raise MalformedError(f"position: {error}") from None

    @property
    def hash(self) -> bytes:
        return keccak256(self.encode())

    @property
    def challenger_moves(self) -> bool:
        return self.stage in CHALLENGER_STAGES

    @property
    def decided(self) -> bool:
        return self.stage >= Stage.SOLVER_WINS

    def group(self) -> tuple[bytes, int]:
        """Root and number of entries of group `which`."""
        return (
            (self.after, self.states),
            (self.batch, self.batches),
            (self.scalars, self.inputs - self.states - self.batches),
        )[self.which]


def _solidity_types() -> tuple[abi.Type, ...]:
    u8, u64 = {"stage", "what", "width"}, {"steps", "step", "length", "element", "value", "operation", "result"}
    u64 |= {"start", "size"}
    sized = {**dict.fromkeys(u8, "uint8"), **dict.fromkeys(u64, "uint64"), "operands": "uint64[3]"}
    return tuple("bytes32" if f.type == "bytes" else sized.get(f.name, "uint32") for f in fields(Position))


FIELDS = _solidity_types()


def begin(task: bytes, log: bytes, steps: int, step: int | None = None) -> Position:
    """The first position: the whole log in dispute, or, with `step`, that step of it."""
    if steps < 1 or (step is not None and not 0 <= step < steps):
        raise MalformedError(f"step {step} of a log of {steps} steps cannot be disputed")
    if step is None:
        return Position(task, log, steps, Stage.LOG_REVEAL, size=steps)
    return Position(task, log, steps, Stage.STEP_OPEN, step=step)


# ---- moves ------------------------------------------------------------------------------------------------------


def solver_move(stage: Stage, *values: Any) -> bytes:
    return abi.encode(MOVES[stage], values)


def choice(what: What, which: int = 0, data: bytes = b"") -> bytes:
    return abi.encode(CHOICE, (what, which, data))


def proof(what: What, *values: Any) -> bytes:
    return abi.encode(PROOFS[what], values)


def advance(position: Position, move: bytes) -> Position:
    """The position after a move. Raises IllegalMoveError."""
    p = position
    if p.decided:
        raise IllegalMoveError("the game is decided")
    try:
        if p.stage == Stage.PROVE:
            return _decide(p, _PROVE[p.what](p, *abi.decode(PROOFS[p.what], move)))
        if p.stage in CHALLENGER_STAGES:
            what, which, data = abi.decode(CHOICE, move)
            return _CHOOSE[p.stage](p, what, which, data)
        return _SHOW[p.stage](p, *abi.decode(MOVES[p.stage], move))
    except IllegalMoveError:
        raise
    except GensynVerifyError as error:
        raise IllegalMoveError(f"{p.stage.name}: {error}") from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise IllegalMoveError(message)


def _decide(p: Position, solver_is_right: bool) -> Position:
    return Position(p.task, stage=Stage.SOLVER_WINS if solver_is_right else Stage.CHALLENGER_WINS)


# ---- descent: kids shown, one picked ----------------------------------------------------------------------------


def _tree(p: Position) -> tuple[bytes, int]:
    """Root and leaves of the keccak tree that is being descended."""
    if p.stage == Stage.LOG_REVEAL:
        return p.log, p.steps
    if p.stage == Stage.SEQUENCE_REVEAL:
        return p.sequence, p.length
    return p.group() if p.what == What.ENTRY else (p.trace, p.inputs + p.nodes)


def _reveal(p: Position, kids: Sequence[bytes]) -> Position:
    _require(len(kids) == len(ranges(p.start, p.size)), "not one digest a range")
    if p.stage != Stage.CHUNK_REVEAL:
        top = fold(kids, p.size)
        root, size = _tree(p)
        _require(
            (seal(size, top, keccak256) == root) if p.size == size else (top == p.digest), "not this tree's digests"
        )
    return replace(p, stage=Stage(p.stage + 1), shown=keccak256(b"".join(kids)))


def _picked(p: Position, which: int, data: bytes) -> Position:
    """The range picked, before it is known where that leads."""
    _require(keccak256(data) == p.shown, "not what was shown")
    kids = ranges(p.start, p.size)
    _require(which < len(kids), "no such range")
    start, size = kids[which]
    return replace(p, start=start, size=size, digest=data[32 * which : 32 * which + 32], shown=EMPTY)


def _pick_step(p: Position, what: int, which: int, data: bytes) -> Position:
    _require(what == What.PICK, "only a range can be picked")
    p = _picked(p, which, data)
    if p.size > 1:
        return replace(p, stage=Stage.LOG_REVEAL)
    return replace(p, stage=Stage.STEP_OPEN, step=p.start, start=0, size=0, digest=EMPTY)


def _pick_leaf(p: Position, what: int, which: int, data: bytes) -> Position:
    _require(what == What.PICK, "only a range can be picked")
    p = _picked(p, which, data)
    if p.size > 1:
        return replace(p, stage=Stage.TRACE_REVEAL)
    stage = Stage.PROVE if p.what == What.ENTRY else Stage.LEAF_OPEN
    return replace(p, stage=stage, place=p.start, leaf=p.digest, start=0, size=0, digest=EMPTY)


def _pick_chunk(p: Position, what: int, which: int, data: bytes) -> Position:
    if what == What.FOLD:
        return replace(p, stage=Stage.PROVE, what=What.FOLD)
    _require(what == What.PICK, "a range can be picked, or the fold contested")
    p = _picked(p, which, data)
    return replace(p, stage=Stage.CHUNK_REVEAL if p.size > 1 else Stage.CHUNK_OPEN)


def _pick_operation(p: Position, what: int, which: int, data: bytes) -> Position:
    _require(what == What.PICK, "only a range can be picked")
    p = _picked(p, which, data)
    if p.size > 1:
        return replace(p, stage=Stage.SEQUENCE_REVEAL)
    return replace(p, stage=Stage.OPERATION_OPEN, operation=p.start, start=0, size=0)


# ---- step and leaf ----------------------------------------------------------------------------------------------


def _open_step(
    p: Position, entry: bytes, path: Sequence[bytes], before: bytes, before_path: Sequence[bytes], trace: bytes,
    states: int, batches: int, inputs: int, nodes: int,
) -> Position:  # fmt: skip
    _require(len(entry) == 104 and int.from_bytes(entry[:8], "big") == p.step, "not the entry of the step")
    _require(verify_path(p.log, entry, p.step, p.steps, path, keccak256), "the entry is not in the log")
    if p.step:
        _require(len(before) == 104, "not a step entry")
        _require(verify_path(p.log, before, p.step - 1, p.steps, before_path, keccak256), "not the entry before")
        before = before[8:40]
    else:
        _require(len(before) == 32, "not a state root")
        _require(_in_task(p, "state", before, before_path), "not the task's initial state")
    _require(states + batches <= inputs, "more state and batch inputs than inputs")
    return replace(
        p, stage=Stage.STEP_CHOICE, log=EMPTY, steps=0, before=before, after=entry[8:40], batch=entry[40:72],
        scalars=entry[72:], trace=trace, states=states, batches=batches, inputs=inputs, nodes=nodes,
    )  # fmt: skip


def _choose_step(p: Position, what: int, which: int, data: bytes) -> Position:
    if what == What.COUNTS:
        return replace(p, stage=Stage.PROVE, what=What.COUNTS)
    if what == What.PICK:
        return replace(p, stage=Stage.TRACE_REVEAL, start=0, size=p.inputs + p.nodes)
    _require(what == What.ENTRY and which < 3, "the trace, one of three groups, or the counts")
    p = replace(p, stage=Stage.TRACE_REVEAL, what=What.ENTRY, which=which)
    root, size = p.group()
    if size == 0:
        return _decide(p, root == seal(0, EMPTY, keccak256))
    return replace(p, start=0, size=size)


def _leaf(p: Position, data: bytes) -> Leaf:
    _require(leaf_digest(data, keccak256) == p.leaf, "not the leaf in dispute")
    return decode_leaf(data)


def _open_leaf(p: Position, data: bytes) -> Position:
    leaf = _leaf(p, data)
    if p.place < p.inputs:
        _require(isinstance(leaf, InputLeaf) and leaf.number == p.place, "not the leaf of this input")
    else:
        _require(isinstance(leaf, NodeLeaf), "not a node's leaf")
        _require(p.place > p.inputs or leaf.first == p.inputs, "the first node's values follow the inputs")  # type: ignore[union-attr]
    return replace(p, stage=Stage.LEAF_CHOICE)


def _choose_leaf(p: Position, what: int, which: int, data: bytes) -> Position:
    leaf = _leaf(p, data)
    if isinstance(leaf, InputLeaf):
        _require(what == What.INPUT, "of an input only the input can be contested")
        return replace(p, stage=Stage.INPUT_OPEN)
    assert isinstance(leaf, NodeLeaf)
    if what == What.OUTPUT:
        _require(which < len(leaf.roots), "no such output")
        return _into_tensor(p, leaf.outputs[which], which)
    contest = {What.RECORD: True, What.FIRST: p.place > p.inputs, What.OPERAND: which < len(leaf.operands)}
    _require(contest.get(what, False), "not to be contested in this leaf")  # type: ignore[call-overload]
    return replace(p, stage=Stage.PROVE, what=What(what), which=which)


def _into_tensor(p: Position, tensor: Tensor, output: int) -> Position:
    _require(tensor.type.elements <= MAX_ELEMENTS, "a tensor of more elements than there can be")
    length = tensor.type.nbytes
    chunks = chunk_count(length)
    return replace(
        p, stage=Stage.CHUNK_REVEAL if chunks > 1 else Stage.CHUNK_OPEN, before=EMPTY, after=EMPTY, batch=EMPTY,
        scalars=EMPTY, trace=EMPTY, states=0, batches=0, inputs=0, nodes=0, place=0, output=output,
        tensor=tensor.root, length=length, width=tensor.type.dtype.size, start=0, size=chunks, digest=tensor.root,
    )  # fmt: skip


def _open_input(
    p: Position, leaf: bytes, entry: bytes, path: Sequence[bytes], group: bytes, group_path: Sequence[bytes],
    sampler: bytes, sampler_path: Sequence[bytes],
) -> Position:  # fmt: skip
    shown = _leaf(p, leaf)
    assert isinstance(shown, InputLeaf)
    tensor, number = shown.tensor, p.place
    if number < p.states:
        _require(verify_path(p.before, entry, number, p.states, path, keccak256), "not the entry before the step")
        return _decide(p, decode_entry(entry)[1] == tensor)
    _require(_in_task(p, "sampler", sampler, sampler_path), "not the task's sampler")
    if not sampler:  # a recorded task brings its own data
        return _decide(p, True)
    role, count, number = "batch", p.batches, number - p.states
    if number >= p.batches:
        role, count, number = "scalar", p.inputs - p.states - p.batches, number - p.batches
    _require(_in_task(p, "data" if role == "batch" else "schedule", group, group_path), "not the task's group")
    _require(verify_path(group, entry, number, count, path, keccak256), "not the group's entry")
    _, data = decode_entry(entry)
    rows, *rest = data.type.shape
    seed0, seed1, batch = (int.from_bytes(x, "big") for x in (sampler[:4], sampler[4:8], sampler[16:]))
    if TensorType(data.type.dtype, (batch, *rest) if role == "batch" else tuple(rest)) != tensor.type:
        return _decide(p, False)
    source = sequence.Source(role, rows, (seed0, seed1) if role == "batch" else (0, 0), batch if role == "batch" else 0)
    digest = leaf_digest(SourceLeaf(source, tensor.type, data.root).encode(), keccak256)
    return replace(_into_tensor(p, tensor, 0), leaf=digest)


# ---- chunk and element ------------------------------------------------------------------------------------------


def _open_chunk(p: Position, chunk: bytes) -> Position:
    _require(len(chunk) == min(CHUNK_BYTES, p.length - p.start * CHUNK_BYTES), "not the length of the chunk")
    return replace(p, stage=Stage.ELEMENT_PICK, shown=keccak256(chunk))


def _pick_element(p: Position, what: int, which: int, data: bytes) -> Position:
    if what == What.CHUNK:
        return replace(p, stage=Stage.PROVE, what=What.CHUNK)
    _require(what == What.PICK, "an element can be picked, or the chunk contested")
    _require(keccak256(data) == p.shown, "not the chunk that was shown")
    _require((which + 1) * p.width <= len(data), "no such element")
    return replace(
        p, stage=Stage.SEQUENCE_OPEN, element=p.start * CHUNK_BYTES // p.width + which,
        value=int.from_bytes(data[which * p.width : (which + 1) * p.width], "little"), tensor=EMPTY, length=0,
        width=0, start=0, size=0, digest=EMPTY, shown=EMPTY,
    )  # fmt: skip


# ---- sequence and operation -------------------------------------------------------------------------------------


def _sequence(p: Position, leaf: bytes, record: tuple[Any, ...]) -> tuple[NodeLeaf | SourceLeaf, sequence.Sequence]:
    """Leaf and sequence of the element in dispute."""
    shown = _leaf(p, leaf)
    assert not isinstance(shown, InputLeaf)
    scalar: ScalarProgram | None = None
    if shown.scalar_program is not None:
        scalar = read_scalar(_record(p, record, 1 + shown.scalar_program), "scalar program")
    return shown, shown.sequence(p.output, p.element, p.value, p.step, scalar)


def _result_leaf(result: int) -> bytes:
    return result.to_bytes(8, "big")


def _open_sequence(p: Position, leaf: bytes, record: tuple[Any, ...], root: bytes, path: Sequence[bytes]) -> Position:
    _, s = _sequence(p, leaf, record)
    last = _result_leaf(p.value)
    _require(verify_path(root, last, s.length - 1, s.length, path, keccak256), "the last result is not the value")
    p = replace(p, sequence=root, length=s.length)
    if s.length == 1:
        return replace(p, stage=Stage.OPERATION_OPEN, digest=leaf_digest(last, keccak256))
    return replace(p, stage=Stage.SEQUENCE_REVEAL, start=0, size=s.length)


def _open_operation(p: Position, result: int, operands: tuple[int, int, int]) -> Position:
    _require(leaf_digest(_result_leaf(result), keccak256) == p.digest, "not the result in the sequence")
    return replace(p, stage=Stage.OPERATION_CHOICE, result=result, operands=operands, digest=EMPTY)


def _choose_operation(p: Position, what: int, which: int, data: bytes) -> Position:
    if what == What.VALUE:
        _require(which < len(p.operands), "no such operand")
        return replace(p, stage=Stage.PROVE, what=What.VALUE, which=which)
    _require(what == What.OPERATION, "an operand can be contested, or the operation")
    _, s = _sequence(p, *abi.decode(OPERATION, data))
    code = s.operation(p.operation, p.operands).code
    return _decide(p, s.execute(p.operation, code, p.operands) == p.result)


# ---- proofs: is what was contested as the solver says? ----------------------------------------------------------

_TASK_LEAVES = ("format", "program", "state", "data", "sampler", "schedule", "extent", "policy")


def _in_task(p: Position, name: str, value: bytes, path: Sequence[bytes]) -> bool:
    """Whether the task's leaf of this name has this value."""
    data = bytes([len(name)]) + name.encode("ascii") + value
    return verify_path(p.task, data, _TASK_LEAVES.index(name), len(_TASK_LEAVES), path, keccak256)


def _record(p: Position, record: tuple[Any, ...], index: int) -> bytes:
    """The bytes of a Record, which must be number `index` (from the end where negative) of the program."""
    data, path, count, program, task_path = record
    index = index if index >= 0 else count + index
    _require(_in_task(p, "program", program, task_path), "not the task's program")
    _require(verify_path(program, data, index, count, path, keccak256), "not that record of the program")
    return bytes(data)


def _in_trace(p: Position, data: bytes, index: int, path: Sequence[bytes]) -> InputLeaf | NodeLeaf:
    _require(verify_path(p.trace, data, index, p.inputs + p.nodes, path, keccak256), "not that leaf of the trace")
    leaf = decode_leaf(data)
    _require(not isinstance(leaf, SourceLeaf), "not a leaf of a trace")
    return leaf  # type: ignore[return-value]


def _node_leaf(p: Position, data: bytes) -> NodeLeaf:
    leaf = _leaf(p, data)
    assert isinstance(leaf, NodeLeaf)
    return leaf


def _prove_counts(p: Position, header: tuple[Any, ...]) -> bool:
    (_, nodes), inputs, _ = read_header(_record(p, header, 0), "header")
    roles = [i.role for i in inputs]
    return (roles.count("state"), roles.count("batch"), len(roles), nodes) == (p.states, p.batches, p.inputs, p.nodes)


def _prove_entry(
    p: Position, header: tuple[Any, ...], entry: bytes, leaf: bytes, index: int, path: Sequence[bytes]
) -> bool:
    _require(leaf_digest(entry, keccak256) == p.leaf, "not the entry in dispute")
    _, inputs, outputs = read_header(_record(p, header, 0), "header")
    if p.which == 0:
        name, value = outputs[p.place].name, outputs[p.place].value  # state outputs come first
    else:
        value = p.place + (p.states if p.which == 1 else p.states + p.batches)
        name = inputs[value].name
    tensor = _in_trace(p, leaf, index, path).held(value)
    _require(tensor is not None, "that leaf does not hold the value")
    assert tensor is not None
    return encode_entry(name, tensor) == entry


def _prove_record(p: Position, leaf: bytes, node: tuple[Any, ...]) -> bool:
    return _record(p, node, p.place - p.inputs - p.nodes) == _node_leaf(p, leaf).record


def _prove_first(p: Position, leaf: bytes, previous: bytes, path: Sequence[bytes]) -> bool:
    return _in_trace(p, previous, p.place - 1, path).following == _node_leaf(p, leaf).first


def _prove_operand(p: Position, leaf: bytes, producer: bytes, index: int, path: Sequence[bytes]) -> bool:
    _require(index < p.place, "a producer is to the left")
    shown = _node_leaf(p, leaf)
    tensor = _in_trace(p, producer, index, path).held(shown.inputs[p.which])
    _require(tensor is not None, "that leaf does not hold the operand")
    return tensor == shown.operands[p.which]


def _prove_fold(p: Position, kids: Sequence[bytes]) -> bool:
    _require(keccak256(b"".join(kids)) == p.shown, "not what was shown")
    return fold_chunks(kids, p.size, p.size == chunk_count(p.length)) == p.digest


def _prove_chunk(p: Position, chunk: bytes) -> bool:
    _require(keccak256(chunk) == p.shown, "not the chunk that was shown")
    return chunk_value(chunk, p.start, is_root=chunk_count(p.length) == 1) == p.digest


def _prove_value(p: Position, leaf: bytes, record: tuple[Any, ...], chunk: bytes, path: Sequence[bytes]) -> bool:
    shown, s = _sequence(p, leaf, record)
    where = s.operation(p.operation, p.operands).operand(p.which)
    if isinstance(where, sequence.Constant):
        return where.value == p.operands[p.which]
    if isinstance(where, sequence.Result):
        _require(len(chunk) == 8, "a result has 8 bytes")
        _require(verify_path(p.sequence, chunk, where.index, p.length, path, keccak256), "not that result")
        found, load = int.from_bytes(chunk, "big"), where.load
    else:
        tensor = shown.operands[where.tensor]
        number, at = chunk_of_element(tensor.type.dtype, where.index)
        opening = ChunkOpening(chunk, tuple(path))
        _require(verify_chunk(tensor.root, tensor.type.nbytes, number, opening), "not that chunk of the operand")
        found = int.from_bytes(chunk[at : at + tensor.type.dtype.size], "little")
        load = None if where.raw else tensor.type.dtype
    return (found if load is None else sequence.load_one(found, load)) == p.operands[p.which]


_SHOW: dict[Stage, Callable[..., Position]] = {
    Stage.LOG_REVEAL: _reveal, Stage.STEP_OPEN: _open_step, Stage.TRACE_REVEAL: _reveal, Stage.LEAF_OPEN: _open_leaf,
    Stage.INPUT_OPEN: _open_input, Stage.CHUNK_REVEAL: _reveal, Stage.CHUNK_OPEN: _open_chunk,
    Stage.SEQUENCE_OPEN: _open_sequence, Stage.SEQUENCE_REVEAL: _reveal, Stage.OPERATION_OPEN: _open_operation,
}  # fmt: skip
_CHOOSE: dict[Stage, Callable[[Position, int, int, bytes], Position]] = {
    Stage.LOG_PICK: _pick_step, Stage.STEP_CHOICE: _choose_step, Stage.TRACE_PICK: _pick_leaf,
    Stage.LEAF_CHOICE: _choose_leaf, Stage.CHUNK_PICK: _pick_chunk, Stage.ELEMENT_PICK: _pick_element,
    Stage.SEQUENCE_PICK: _pick_operation, Stage.OPERATION_CHOICE: _choose_operation,
}  # fmt: skip
_PROVE: dict[What, Callable[..., bool]] = {
    What.COUNTS: _prove_counts, What.ENTRY: _prove_entry, What.RECORD: _prove_record, What.FIRST: _prove_first,
    What.OPERAND: _prove_operand, What.FOLD: _prove_fold, What.CHUNK: _prove_chunk, What.VALUE: _prove_value,
}  # fmt: skip

"""What it costs to prove a program's header to the contract, known before anybody has put down money for its task.

COUNTS and ENTRY (docs/dispute.md, section 6) bring the header whole, and nothing but this bounds it: it grows with the
number of tensors and with their names. A proof is one transaction, and an honest solver whose proof takes more gas than
a transaction may have would lose its stake. Every other proof is bounded by the limits of a program.
"""

from __future__ import annotations

from collections.abc import Iterator

from gensyn_verify.errors import LimitError
from gensyn_verify.program.encoding import node_record, records
from gensyn_verify.program.program import MAX_NAME, Program
from gensyn_verify.program.types import MAX_RANK
from gensyn_verify.protocol.pinpoint.leaves import NodeLeaf, Tensor
from gensyn_verify.protocol.pinpoint.position import What, proof
from gensyn_verify.settle.chain import MAX_GAS

BASE = 21_000  # a transaction
TOKEN, FLOOR = 4, 10  # of calldata, a 0 being one token, another byte four: beside execution, and at least (EIP-7623)
LOGGED = 8  # a byte of the move: it is an event
AROUND = 1_300  # bytes beside the move: selector, number of the game, position, lengths
# Execution, as the compiled contracts take it, rounded up; tests/contracts/test_referee.py holds the sum against them.
CALL = 160_000  # storage, credits, openings: what does not grow
WORD = 24  # a word of the move, copied twice and hashed; of each of two memories words^2 / 512 besides
COUNTED, INPUT, STATE = 1_760, 1_500, 600  # one to step over in the header: an input, by COUNTS, by ENTRY; an output
OPERAND = 850  # one to step over in the leaf that holds the value; an output of it is stepped over twice
ANY = b"\xff" * 32  # a digest that nobody knows yet costs most without a 0
ENTRY_BYTES = 1 + MAX_NAME + 2 + 8 * MAX_RANK + 32


def header_gas(program: Program) -> int:
    """The gas that a transaction with the largest proof of this program's header needs, at most."""
    header, *others = records(program)
    opening = header, _path(1 + len(others)), 1 + len(others), ANY, _path(8)
    path = _path(len(program.inputs) + len(program.nodes))
    move = proof(What.ENTRY, opening, b"\xff" * ENTRY_BYTES, b"", 2**32 - 1, path)
    tokens, size = _tokens(move) + 4 * AROUND, len(move) + AROUND
    inputs, states = len(program.inputs), len(program.outputs_of("state"))
    walk = max(COUNTED * inputs, INPUT * inputs + STATE * states)
    return max(
        _gas(tokens + _tokens(leaf), size + len(leaf), walk + OPERAND * operands) for leaf, operands in _leaves(program)
    )


def check_header(program: Program, where: str) -> None:
    """Raise LimitError unless every proof of this program's header fits into one transaction."""
    gas = header_gas(program)
    if gas > MAX_GAS:
        size, inputs, outputs = len(records(program)[0]), len(program.inputs), len(program.outputs)
        raise LimitError(
            f"{where}: to prove the program's header to a contract ({size} bytes, {inputs} inputs, {outputs} outputs) "
            f"takes up to {gas} gas, and a transaction has at most {MAX_GAS}: an honest solver could lose its stake. "
            "Use fewer tensors, or shorter names; solve and replay need no contract and have no such limit"
        )


def _gas(tokens: int, size: int, walk: int) -> int:
    words = size // 32 + 1
    execution = CALL + WORD * words + words * words // 256 + walk
    execution += execution // 63 + 1  # a caller keeps one 64th of what it has
    return BASE + max(TOKEN * tokens + LOGGED * size + execution, FLOOR * tokens)


def _tokens(data: bytes) -> int:
    return 4 * len(data) - 3 * data.count(0)


def _path(count: int) -> list[bytes]:
    """As many digests as the longest path in a tree of `count` leaves."""
    return [ANY] * (count - 1).bit_length()


def _leaves(program: Program) -> Iterator[tuple[bytes, int]]:
    """The trace leaves that can hold an entry's value, with their numbers of operands; as bytes that cost as much."""
    yield b"\xff" * (5 + ENTRY_BYTES), 0  # of an input
    types, first = program.value_types, program.first_value
    held = {o.value for o in program.outputs if o.role == "state"}
    for node, number in zip(program.nodes, first, strict=True):
        if not held.isdisjoint(range(number, number + len(node.types))):
            operands = tuple(Tensor(types[v], ANY) for v in node.inputs)
            leaf = NodeLeaf(number, node_record(node), operands, (ANY,) * len(node.types))
            yield leaf.encode(), len(operands) + 2 * len(node.types)

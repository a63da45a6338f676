"""What moves of the dispute game cost: the worst case that README states, on trees of which only some leaves exist.

    python tests/contracts/gas.py       prints the table

A log of 2^20 steps, 4,096 nodes, operands and output of 1 GiB, sums of 65,536 products, and everything contested that
can be. Gas is that of a transaction to the referee, as its receipt states it; the settlement's own part comes on top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any

from eth_abi import encode
from eth_tester import EthereumTester, PyEVMBackend
from eth_utils import keccak

from contracts.referee import calldata, contracts
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_value, parent_value
from gensyn_verify.program import ops
from gensyn_verify.program.encoding import node_record
from gensyn_verify.program.merkle import leaf_digest, seal, split
from gensyn_verify.program.program import Node
from gensyn_verify.program.types import Dtype, TensorType
from gensyn_verify.protocol.pinpoint import abi
from gensyn_verify.protocol.pinpoint.leaves import NodeLeaf, Tensor
from gensyn_verify.protocol.pinpoint.position import (
    NO_RECORD,
    OPERATION,
    Position,
    Stage,
    What,
    begin,
    choice,
    proof,
    solver_move,
)
from gensyn_verify.protocol.pinpoint.ranges import ranges
from gensyn_verify.settle import artifacts

STEPS, NODES, INPUTS, ROWS, INNER, COLUMNS = 1 << 20, 4096, 64, 4096, 1 << 16, 1 << 16
F32 = Dtype.f32


@dataclass
class Tree:
    """A tree of `size` leaves of which some are known and all others are equal."""

    size: int
    leaves: dict[int, bytes]
    join: Callable[[bytes, bytes], bytes] = lambda left, right: keccak(b"\x01" + left + right)
    made: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def digest(self, start: int, size: int) -> bytes:
        known = any(start <= leaf < start + size for leaf in self.leaves)
        key = (start if known else -1, size)
        if key not in self.made:
            k = split(size) if size > 1 else 0
            single = self.leaves[start] if known and not k else keccak(b"another leaf")
            self.made[key] = self.join(self.digest(start, k), self.digest(start + k, size - k)) if k else single
        return self.made[key]

    def kids(self, start: int, size: int) -> list[bytes]:
        return [self.digest(*r) for r in ranges(start, size)]

    def path(self, leaf: int) -> list[bytes]:
        start, size, path = 0, self.size, []
        while size > 1:
            k = split(size)
            right = leaf >= start + k
            path.append(self.digest(start, k) if right else self.digest(start + k, size - k))
            start, size = (start + k, size - k) if right else (start, k)
        return path[::-1]

    @property
    def root(self) -> bytes:
        return seal(self.size, self.digest(0, self.size))


class Tensors(Tree):
    """The BLAKE3 tree of a tensor of which one chunk is known."""

    def __init__(self, type: TensorType, chunk: int, data: bytes) -> None:
        super().__init__(type.nbytes // CHUNK_BYTES, {chunk: chunk_value(data, chunk)}, parent_value)
        self.data = data

    @property
    def root(self) -> bytes:
        k = split(self.size)
        return parent_value(self.digest(0, k), self.digest(k, self.size - k), is_root=True)


@dataclass(frozen=True)
class Cost:
    move: str
    solver: bool
    gas: int


class Meter:
    """Makes moves on the contract, and keeps what a transaction with each of them costs."""

    def __init__(self) -> None:
        self.chain = EthereumTester(PyEVMBackend())
        self.account = self.chain.get_accounts()[0]
        verifier = self._sent("", artifacts.load("StepVerifier")["bytecode"])["contract_address"]
        argument = encode(["address"], [verifier]).hex()
        self.referee = self._sent("", artifacts.load("Referee")["bytecode"] + argument)["contract_address"]
        self.costs: list[Cost] = []

    def _sent(self, to: str, data: str) -> dict[str, Any]:
        sent = self.chain.send_transaction({"from": self.account, "to": to, "gas": 15_000_000, "data": data})
        receipt: dict[str, Any] = self.chain.get_transaction_receipt(sent)
        assert receipt["status"] == 1
        return receipt

    def __call__(self, position: Position, move: bytes, name: str = "") -> Position:
        spent = self._sent(self.referee, "0x" + calldata("advance", astuple(position), move).hex())["gas_used"]
        self.costs.append(Cost(name or position.stage.name, not position.challenger_moves, spent))
        return contracts().advance(position, move)

    def walk(self, position: Position, tree: Tree, target: int) -> Position:
        """Reveals and picks down to a leaf."""
        for _ in range(64):
            if position.stage not in REVEALS:
                return position
            kids, places = tree.kids(position.start, position.size), ranges(position.start, position.size)
            pick = next(i for i, (start, size) in enumerate(places) if start <= target < start + size)
            position = self(position, solver_move(position.stage, kids))
            position = self(position, choice(What.PICK, pick, b"".join(kids)))
        raise AssertionError("a walk without end")


REVEALS = (Stage.LOG_REVEAL, Stage.TRACE_REVEAL, Stage.CHUNK_REVEAL, Stage.SEQUENCE_REVEAL)


def word(x: int) -> bytes:
    return x.to_bytes(8, "big")


def game() -> tuple[list[Cost], list[Cost]]:
    """What the moves of the whole game cost, up to the contested operand; and what other ends cost than that one."""
    meter, others = Meter(), Meter()
    a, b = TensorType(F32, (ROWS, INNER)), TensorType(F32, (INNER, COLUMNS))
    out = TensorType(F32, (ROWS, COLUMNS))
    node = Node(ops.Dot(False, False, F32), (3, 4), (out,))
    data, operation, row = bytes(range(256)) * 4, 40_000, 1234
    column, k = 77, operation - (operation + 1) // 129 + 1  # every block but the first ends with an addition
    output = Tensors(out, (row * COLUMNS + column) // 256, data)
    left = Tensors(a, (row * INNER + k) // 256, data)
    operands = (Tensor(a, left.root), Tensor(b, keccak(b"b")))
    leaf = NodeLeaf(INPUTS + 1000, node_record(node), operands, (output.root,)).encode()
    place, step = INPUTS + 1000, 777_777
    trace = Tree(INPUTS + NODES, {place: leaf_digest(leaf), place - 1: keccak(b"previous")})
    entry = word(step) + keccak(b"after") + keccak(b"batch") + keccak(b"scalars")
    before = word(step - 1) + keccak(b"before") + bytes(64)
    log = Tree(STEPS, {step: leaf_digest(entry), step - 1: leaf_digest(before)})
    element = column % 256
    value = int.from_bytes(data[4 * element : 4 * element + 4], "little")
    length = INNER + INNER // 128
    results = Tree(length, {length - 1: leaf_digest(word(value)), operation: leaf_digest(word(12345))})

    p = begin(keccak(b"task"), log.root, STEPS)
    p = meter.walk(p, log, step)
    p = meter(
        p, solver_move(p.stage, entry, log.path(step), before, log.path(step - 1), trace.root, 40, 20, INPUTS, NODES)
    )
    p = meter(p, choice(What.PICK))
    p = meter.walk(p, trace, place)
    p = meter(p, solver_move(p.stage, leaf))
    p = meter(p, choice(What.OUTPUT, 0, leaf))
    kids = output.kids(0, output.size)
    folded = others(others(p, solver_move(p.stage, kids)), choice(What.FOLD))
    others(folded, proof(What.FOLD, kids), "PROVE FOLD")
    p = meter.walk(p, output, (row * COLUMNS + column) // 256)
    p = meter(p, solver_move(p.stage, data))
    others(others(p, choice(What.CHUNK)), proof(What.CHUNK, data), "PROVE CHUNK")
    p = meter(p, choice(What.PICK, element, data))
    p = meter(p, solver_move(p.stage, leaf, NO_RECORD, results.root, results.path(length - 1)))
    p = meter.walk(p, results, operation)
    at = (row * INNER + k) % 256
    claimed = (int.from_bytes(data[4 * at : 4 * at + 4], "little"), 0x3F800001, 0x40490FDB)
    p = meter(p, solver_move(p.stage, 12345, claimed))
    others(p, choice(What.OPERATION, 0, abi.encode(OPERATION, (leaf, NO_RECORD))), "OPERATION_CHOICE, executed")
    p = meter(p, choice(What.VALUE, 0))
    chunk = (row * INNER + k) // 256
    p = meter(p, proof(What.VALUE, leaf, NO_RECORD, data, left.path(chunk)), "PROVE VALUE, depth 20")
    assert p.stage == Stage.SOLVER_WINS
    return meter.costs, others.costs


def main() -> None:
    costs, others = game()
    names = list(dict.fromkeys(c.move for c in [*costs, *others]))
    print("| move | side | times | gas |")
    print("|---|---|---|---|")
    for name in names:
        found = [c for c in costs if c.move == name] or [c for c in others if c.move == name]
        times = sum(c.move == name for c in costs)
        print(f"| {name} | {'solver' if found[0].solver else 'challenger'} | {times} | {max(c.gas for c in found):,} |")
    for solver, name in ((True, "solver"), (False, "challenger")):
        side = [c.gas for c in costs if c.solver is solver]
        print(f"| whole game | {name} | {len(side)} | {sum(side):,} |")


if __name__ == "__main__":
    main()

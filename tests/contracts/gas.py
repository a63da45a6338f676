"""What moves of the dispute game cost: the worst case that README states, on trees of which only some leaves exist.

    python tests/contracts/gas.py       prints the table

A log of 2^20 steps, 4,096 nodes, operands and output of 1 GiB, sums of 65,536 products, and everything contested that
can be. Gas is that of whole transactions to the settlement, as their receipts state it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

from eth_utils import keccak

from contracts.referee import contracts
from gensyn_verify.commit import run_commitment
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_value, parent_value
from gensyn_verify.program import ops
from gensyn_verify.program.encoding import node_record, records
from gensyn_verify.program.merkle import leaf_digest, seal, split
from gensyn_verify.program.program import MAX_NODE_INPUTS, Node, Program
from gensyn_verify.program.types import Dtype, TensorType
from gensyn_verify.protocol.pinpoint import abi
from gensyn_verify.protocol.pinpoint.leaves import InputLeaf, NodeLeaf, Tensor, encode_entry
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
from gensyn_verify.settle.chain import EmbeddedChain
from gensyn_verify.settle.roles import fields
from gensyn_verify.settle.settlement import Rules, Settlement, Terms, chance_seal, decoy_is_due, truth_seal
from gensyn_verify.settle.wallet import Journal, Key, Wallet

WEI = 10**18
RULES = Rules(10 * WEI, WEI // 10, 2 << 16, 3600, 3600, 1 << 15, 1 << 15, 3, 2)
TERMS = Terms(WEI, 64 * WEI, WEI // 10, WEI, WEI // 5, 86400, 86400, 86400, 7200, 172800, 3)
TASK = keccak(b"task")

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
    """A game on the settlement contract; keeps what the transaction with each move costs."""

    def __init__(self, log: bytes, task: bytes) -> None:
        self.chain = EmbeddedChain()
        self.settlement = Settlement.deploy(self._wallet("owner"), RULES)
        self.solver, self.challenger = self._wallet("solver"), self._wallet("challenger")
        self.verifier = self._wallet("verifier")
        for i in range(3):
            self.settlement.send(self.verifier, f"enroll {i}", "enroll", pays=RULES.seat)
        self.others: dict[str, int] = {}  # what is no move
        self._send(self.challenger, "post", task, STEPS, astuple(TERMS), pays=TERMS.escrow)
        r, salt, address = bytes(32), bytes(32), self.solver.address
        self._send(self.solver, "claim", 1, chance_seal(task, 1, address, r), pays=TERMS.stake)
        self.chain.mine(RULES.delay + 1)
        self._send(self.solver, "pin", 1)
        decoy = decoy_is_due(r, bytes(self.settlement.task(1)["chance"]), RULES.rate)
        roots = (keccak(b"decoy") if decoy else log), log
        seals = [run_commitment(task, bytes.fromhex(address[2:]), salt, STEPS, root) for root in roots]
        self._send(self.solver, "commit", 1, seals[0], truth_seal(r, seals[1]))
        self.chain.mine(RULES.delay + 1)
        self._send(self.solver, "show", 1, roots[0], salt)
        self._send(self.verifier, "attest", 1, 0, keccak(b"seal"))
        self.chain.pass_time(TERMS.attest_time + 60)
        self._send(self.solver, "disclose", 1, r, log if decoy else bytes(32), salt)
        self._send(self.challenger, "challenge", 1, pays=TERMS.bond)
        self.costs: list[Cost] = []

    def _wallet(self, name: str) -> Wallet:
        wallet = Wallet(self.chain, Key(keccak(name.encode())))
        self.chain.fund(wallet.address, 1000 * WEI)
        return wallet

    def _send(self, wallet: Wallet, name: str, *arguments: Any, pays: int = 0) -> int:
        intent = keccak(repr((name, arguments)).encode()).hex()
        spent = int(self.settlement.send(wallet, intent, name, *arguments, pays=pays)["gasUsed"])
        if name != "move":
            self.others[name] = spent
        return spent

    def __call__(self, position: Position, move: bytes, name: str = "") -> Position:
        wallet = self.challenger if position.challenger_moves else self.solver
        spent = self._send(wallet, "move", 1, fields(position), move)
        self.costs.append(Cost(name or position.stage.name, not position.challenger_moves, spent))
        return contracts().advance(position, move)

    @contextmanager
    def aside(self) -> Iterator[list[Cost]]:
        """What is played in here is taken back; the costs are in the list."""
        snapshot, kept, self.costs = self.chain.tester.take_snapshot(), self.costs, []
        others, wallets = self.costs, (self.solver, self.challenger)
        journals = [w.journal for w in wallets]
        for w in wallets:
            w.journal = Journal(None)
        yield others
        self.chain.tester.revert_to_snapshot(snapshot)
        self.costs = kept
        for w, journal in zip(wallets, journals, strict=True):
            w.journal = journal

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


def opened(
    trace: Tree, counts: tuple[int, int, int, int], after: bytes = keccak(b"after"), task: bytes = TASK
) -> tuple[Meter, Position]:
    """A game down to a step with this trace and this state root; of a program with these numbers of states, batches,
    inputs and nodes."""
    step = 777_777
    entry = word(step) + after + keccak(b"batch") + keccak(b"scalars")
    before = word(step - 1) + keccak(b"before") + bytes(64)
    log = Tree(STEPS, {step: leaf_digest(entry), step - 1: leaf_digest(before)})
    meter = Meter(log.root, task)
    p = meter.walk(begin(task, log.root, STEPS), log, step)
    return meter, meter(p, solver_move(p.stage, entry, log.path(step), before, log.path(step - 1), trace.root, *counts))


def descent(trace: Tree, place: int) -> tuple[Meter, Position]:
    """A game down to the opening of leaf `place` of this trace."""
    meter, p = opened(trace, (40, 20, INPUTS, NODES))
    p = meter(p, choice(What.PICK))
    return meter, meter.walk(p, trace, place)


def largest_proof() -> tuple[int, int]:
    """Gas of the largest proof, and the least that its bytes cost (EIP-7623): a node of as many operands as a program
    allows, one of them from another such node. Their types have the most bytes that are not 0."""
    wide, first = TensorType(F32, (0, *[(1 << 36) - 1] * 7)), 0x1FFFF
    operands = (Tensor(wide, keccak(b"operand")),) * MAX_NODE_INPUTS
    nodes = [Node(ops.Concat(0), (v,) * MAX_NODE_INPUTS, (wide,)) for v in (first - 1, first)]
    producer, leaf = (
        NodeLeaf(first + i, node_record(node), operands, (operands[0].root,)).encode() for i, node in enumerate(nodes)
    )
    place = INPUTS + 1000
    trace = Tree(INPUTS + NODES, {place: leaf_digest(leaf), place - 1: leaf_digest(producer)})
    meter, p = descent(trace, place)
    p = meter(p, solver_move(p.stage, leaf))
    p = meter(p, choice(What.OPERAND, MAX_NODE_INPUTS - 1, leaf))
    move = proof(What.OPERAND, leaf, producer, place - 1, trace.path(place - 1))
    assert meter(p, move).stage == Stage.SOLVER_WINS
    return meter.costs[-1].gas, 21_000 + 40 * len(move) - 30 * move.count(0)


def header_proofs(program: Program) -> tuple[int, int]:
    """Gas of the proofs that bring the program's header: of its counts, and of the entry of its last state."""
    header, *others = records(program)
    tree = Tree(1 + len(others), {0: leaf_digest(header)})
    task = Tree(8, {1: leaf_digest(b"\x07program" + tree.root)})
    states, inputs = len(program.inputs_of("state")), len(program.inputs)
    output = program.outputs[states - 1]
    leaf: InputLeaf | NodeLeaf = InputLeaf(output.value, _tensor(program, output.value))
    index = output.value
    if index >= inputs:
        n = max(k for k, first in enumerate(program.first_value) if first <= index)
        node, index = program.nodes[n], inputs + n
        operands = tuple(_tensor(program, v) for v in node.inputs)
        leaf = NodeLeaf(program.first_value[n], node_record(node), operands, (operands[0].root,) * len(node.types))
    tensor = leaf.held(output.value)
    assert tensor is not None
    entry = encode_entry(output.name, tensor)
    group = Tree(states, {states - 1: leaf_digest(entry)})
    trace = Tree(inputs + len(program.nodes), {index: leaf_digest(leaf.encode())})
    counts = states, len(program.inputs_of("batch")), inputs, len(program.nodes)
    meter, p = opened(trace, counts, group.root, task.root)
    record = header, tree.path(0), tree.size, tree.root, task.path(1)
    with meter.aside() as others_:
        assert meter(meter(p, choice(What.COUNTS)), proof(What.COUNTS, record)).stage == Stage.SOLVER_WINS
    p = meter.walk(meter(p, choice(What.ENTRY)), group, states - 1)
    move = proof(What.ENTRY, record, entry, leaf.encode(), index, trace.path(index))
    assert meter(p, move).stage == Stage.SOLVER_WINS
    return others_[-1].gas, meter.costs[-1].gas


def _tensor(program: Program, value: int) -> Tensor:
    return Tensor(program.value_types[value], keccak(b"tensor"))


def game() -> tuple[list[Cost], list[Cost], dict[str, int]]:
    """What the moves of the whole game cost, up to the contested operand; what other ends cost than that one; and what
    else there is to send."""
    a, b = TensorType(F32, (ROWS, INNER)), TensorType(F32, (INNER, COLUMNS))
    out = TensorType(F32, (ROWS, COLUMNS))
    node = Node(ops.Dot(False, False, F32), (3, 4), (out,))
    data, operation, row = bytes(range(256)) * 4, 40_000, 1234
    column, k = 77, operation - (operation + 1) // 129 + 1  # every block but the first ends with an addition
    output = Tensors(out, (row * COLUMNS + column) // 256, data)
    left = Tensors(a, (row * INNER + k) // 256, data)
    operands = (Tensor(a, left.root), Tensor(b, keccak(b"b")))
    leaf = NodeLeaf(INPUTS + 1000, node_record(node), operands, (output.root,)).encode()
    place = INPUTS + 1000
    element = column % 256
    value = int.from_bytes(data[4 * element : 4 * element + 4], "little")
    length = INNER + INNER // 128
    results = Tree(length, {length - 1: leaf_digest(word(value)), operation: leaf_digest(word(12345))})

    trace = Tree(INPUTS + NODES, {place: leaf_digest(leaf), place - 1: keccak(b"previous")})
    meter, p = descent(trace, place)
    p = meter(p, solver_move(p.stage, leaf))
    p = meter(p, choice(What.OUTPUT, 0, leaf))
    kids = output.kids(0, output.size)
    with meter.aside() as others:
        meter(meter(meter(p, solver_move(p.stage, kids)), choice(What.FOLD)), proof(What.FOLD, kids), "PROVE FOLD")
    p = meter.walk(p, output, (row * COLUMNS + column) // 256)
    p = meter(p, solver_move(p.stage, data))
    with meter.aside() as more:
        meter(meter(p, choice(What.CHUNK)), proof(What.CHUNK, data), "PROVE CHUNK")
    others += more
    p = meter(p, choice(What.PICK, element, data))
    p = meter(p, solver_move(p.stage, leaf, NO_RECORD, results.root, results.path(length - 1)))
    p = meter.walk(p, results, operation)
    at = (row * INNER + k) % 256
    claimed = (int.from_bytes(data[4 * at : 4 * at + 4], "little"), 0x3F800001, 0x40490FDB)
    p = meter(p, solver_move(p.stage, 12345, claimed))
    with meter.aside() as more:
        meter(p, choice(What.OPERATION, 0, abi.encode(OPERATION, (leaf, NO_RECORD))), "OPERATION_CHOICE, executed")
    others += more
    p = meter(p, choice(What.VALUE, 0))
    chunk = (row * INNER + k) // 256
    p = meter(p, proof(What.VALUE, leaf, NO_RECORD, data, left.path(chunk)), "PROVE VALUE, depth 20")
    assert p.stage == Stage.SOLVER_WINS
    meter._send(meter.solver, "withdraw", meter.solver.address)
    return meter.costs, others, meter.others


def main() -> None:
    costs, others, messages = game()
    names = list(dict.fromkeys(c.move for c in [*costs, *others]))
    print("| move | side | times | gas |")
    print("|---|---|---|---|")
    for name in names:
        found = [c for c in costs if c.move == name] or [c for c in others if c.move == name]
        times = sum(c.move == name for c in costs)
        print(f"| {name} | {'solver' if found[0].solver else 'challenger'} | {times} | {max(c.gas for c in found):,} |")
    for solver, name in ((True, "solver"), (False, "challenger")):
        side = [c.gas for c in costs if c.solver is solver]
        print(f"| **whole game** | {name} | {len(side)} | {sum(side):,} |")
    print("\n| message | gas |\n|---|---|")
    for name, spent in messages.items():
        print(f"| {name} | {spent:,} |")


if __name__ == "__main__":
    main()

"""A step run once more, node by node, with every value kept; its trace tree (docs/dispute.md, section 2).

Memory: every value of the step at once, as `gverify inspect` lists them, and 32 bytes a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gensyn_verify.backends.arrays import Array
from gensyn_verify.commit import MerkleLog, tensor_root
from gensyn_verify.program.encoding import node_record
from gensyn_verify.program.program import Program
from gensyn_verify.protocol.pinpoint.leaves import InputLeaf, NodeLeaf, Tensor

Arrays = Mapping[str, Array]


def run_step(program: Program, state: Arrays, batch: Arrays, scalars: Arrays, backend: str = "cpu") -> list[Array]:
    """Every value of one step, in value order. State, batch and scalars are referred to, not copied."""
    given = {"state": state, "batch": batch, "scalar": scalars}
    inputs = [given[i.role][i.name] for i in program.inputs]
    if backend == "reference":
        from gensyn_verify.backends import reference

        plain = reference.Executor(program)
        plain.load(state)
        plain.step(batch, scalars)
        return [*inputs, *plain.values[len(inputs) :]]
    from gensyn_verify.backends import cpu

    kept = cpu.Executor(program, keep=True, fuse=False)
    kept.load(state)
    kept.step(batch, scalars)
    return [*inputs, *(kept.value(v) for v in range(len(inputs), len(program.value_types)))]


def merkle_log(leaves: Iterable[bytes]) -> MerkleLog:
    """The tree over these leaves."""
    log = MerkleLog()
    for data in leaves:
        log.append_leaf(data)
    return log


@dataclass
class Trace:
    """Leaves over the values of a step: an input each, then a node each."""

    program: Program
    values: Sequence[Array]
    leaves: list[InputLeaf | NodeLeaf] = field(init=False)
    log: MerkleLog = field(init=False)

    def __post_init__(self) -> None:
        p = self.program
        tensors = [Tensor(t, tensor_root(v)) for t, v in zip(p.value_types, self.values, strict=True)]
        leaves: list[InputLeaf | NodeLeaf] = [InputLeaf(v, tensors[v]) for v in range(len(p.inputs))]
        for node, first in zip(p.nodes, p.first_value, strict=True):
            roots = tuple(t.root for t in tensors[first : first + len(node.types)])
            leaves.append(NodeLeaf(first, node_record(node), tuple(tensors[v] for v in node.inputs), roots))
        self.leaves, self.log = leaves, merkle_log(leaf.encode() for leaf in leaves)

    def records(self) -> list[bytes]:
        return [leaf.encode() for leaf in self.leaves]

    def root_of(self, value: int) -> bytes:
        """The tensor root of a value."""
        tensor = self.leaves[self.place_of(value)].held(value)
        assert tensor is not None
        return tensor.root

    def place_of(self, value: int) -> int:
        """The leaf that holds a value."""
        return next(n for n, leaf in enumerate(self.leaves) if value < leaf.following)

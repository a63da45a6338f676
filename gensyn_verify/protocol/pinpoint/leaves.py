"""What stands below the trace of a step (docs/dispute.md, section 2): a leaf an input, a leaf a node.

    input leaf  = u8 0 | u32 value number | type | tensor root
    node leaf   = u8 1 | u32 number of its first output value | u32 length | node record
                | an operand: type, tensor root | an output: tensor root
    source      = u8 2 | u8 role | type | root of data or schedule | u64 rows | u32 seed 0 | u32 seed 1 | u64 batch

A source stands for an input leaf once its tensor is held against the task's data.
"""

from __future__ import annotations

import struct
import typing
from dataclasses import dataclass, fields
from functools import cached_property

from gensyn_verify.errors import MalformedError
from gensyn_verify.program import ops
from gensyn_verify.program.encoding import MAX_ATTRIBUTE, Reader, Writer, read_node
from gensyn_verify.program.program import INPUT_ROLES, MAX_NODE_INPUTS, Node
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype, TensorType
from gensyn_verify.protocol.pinpoint.sequence import Sequence, Source, sequence


@dataclass(frozen=True)
class Tensor:
    """Type and BLAKE3 root."""

    type: TensorType
    root: bytes


@dataclass(frozen=True)
class InputLeaf:
    number: int
    tensor: Tensor

    def encode(self) -> bytes:
        return b"\x00" + self.number.to_bytes(4, "big") + _bytes(self.tensor)

    @property
    def following(self) -> int:
        """The value number behind this leaf's."""
        return self.number + 1

    def held(self, value: int) -> Tensor | None:
        """The value of that number, where this leaf holds it."""
        return self.tensor if value == self.number else None


def _attribute_sizes(op: type[ops.Op]) -> list[int]:
    """Bytes of the attributes of an op in its record; 0 of a list, u16 count and u64 items."""
    hints = typing.get_type_hints(op)
    return [{bool: 1, Dtype: 1, int: 8}.get(hints[f.name], 0) for f in fields(op)]


_ATTRIBUTES = [_attribute_sizes(op) for op in ops.OPS]  # by op code


@dataclass(frozen=True)
class NodeLeaf:
    """A node as a solver says that it was run. Its record need not be that of any node: then it will be contested."""

    first: int
    record: bytes
    operands: tuple[Tensor, ...]
    roots: tuple[bytes, ...]

    def fields(self) -> list[bytes]:
        """What follows the kind: first number, length, record, operands, roots."""
        numbers = [self.first.to_bytes(4, "big"), len(self.record).to_bytes(4, "big")]
        return [*numbers, self.record, *map(_bytes, self.operands), *self.roots]

    def encode(self) -> bytes:
        return b"\x01" + b"".join(self.fields())

    @cached_property
    def node(self) -> Node:
        return read_node(self.record, "node record")

    @cached_property
    def _read(self) -> tuple[tuple[int, ...], tuple[TensorType, ...]]:
        """Value numbers of the operands, types of the outputs: what can be read whatever the attributes say."""
        r = Reader(self.record, "node record")
        code = r.u(1)
        if code >= len(_ATTRIBUTES):
            raise r.fail(f"op code {code} is unknown; known are 0 to {len(_ATTRIBUTES) - 1}")
        for size in _ATTRIBUTES[code]:
            r.take(size or 8 * r.count(2, MAX_ATTRIBUTE))
        inputs = tuple(r.u(4) for _ in range(r.count(4, MAX_NODE_INPUTS)))
        types = tuple(r.type() for _ in range(r.u(1)))
        r.end()
        return inputs, types

    @property
    def inputs(self) -> tuple[int, ...]:
        """Value numbers of the operands."""
        return self._read[0]

    @property
    def types(self) -> tuple[TensorType, ...]:
        """Of the outputs."""
        return self._read[1]

    @property
    def outputs(self) -> list[Tensor]:
        return [Tensor(t, r) for t, r in zip(self.types, self.roots, strict=True)]

    @property
    def following(self) -> int:
        return self.first + len(self.roots)

    def held(self, value: int) -> Tensor | None:
        return self.outputs[value - self.first] if self.first <= value < self.following else None

    @property
    def scalar_program(self) -> int | None:
        """The number of the scalar program, of a map or a scan."""
        return self.node.op.program if isinstance(self.node.op, ops.Map | ops.Scan) else None

    def sequence(self, output: int, element: int, value: int, step: int, scalar: ScalarProgram | None) -> Sequence:
        reads = [t.type for t in self.operands]
        return sequence(self.node.op, reads, self.node.types[output], scalar, output, element, value, step)


@dataclass(frozen=True)
class SourceLeaf:
    source: Source
    type: TensorType
    root: bytes

    def encode(self) -> bytes:
        s = self.source
        head = bytes([2, INPUT_ROLES.index(s.role)]) + _bytes(Tensor(self.type, self.root))
        return head + struct.pack(">QIIQ", s.rows, *s.seed, s.batch)

    scalar_program = None

    @property
    def operands(self) -> tuple[Tensor]:
        """Data or schedule, whole."""
        shape = self.type.shape[1:] if self.source.role == "batch" else self.type.shape
        return (Tensor(TensorType(self.type.dtype, (self.source.rows, *shape)), self.root),)

    def sequence(self, output: int, element: int, value: int, step: int, scalar: ScalarProgram | None) -> Sequence:
        return sequence(self.source, [self.operands[0].type], self.type, element=element, value=value, step=step)


Leaf = InputLeaf | NodeLeaf | SourceLeaf


def _bytes(tensor: Tensor) -> bytes:
    w = Writer()
    w.type(tensor.type)
    return bytes(w.out) + tensor.root


def _get(r: Reader) -> Tensor:
    return Tensor(r.type(), r.take(32))


def decode_leaf(data: bytes) -> Leaf:
    """The leaf of these bytes, of which a node's attributes are not looked at; raises MalformedError."""
    r = Reader(data, "trace leaf")
    kind = r.u(1)
    leaf: Leaf
    if kind == 0:
        leaf = InputLeaf(r.u(4), _get(r))
    elif kind == 1:
        first, record = r.u(4), r.take(r.u(4))
        shape = NodeLeaf(first, record, (), ())
        operands = tuple(_get(r) for _ in shape.inputs)
        leaf = NodeLeaf(first, record, operands, tuple(r.take(32) for _ in shape.types))
    elif kind == 2:
        role = r.u(1)
        if role not in (1, 2):
            raise r.fail(f"role {role} is neither batch nor scalar")
        tensor = _get(r)
        source = Source(INPUT_ROLES[role], r.u(8), (r.u(4), r.u(4)), r.u(8))
        leaf = SourceLeaf(source, tensor.type, tensor.root)
    else:
        raise MalformedError(f"trace leaf of kind {kind}; known are 0 to 2")
    r.end()
    return leaf


def decode_entry(data: bytes) -> tuple[str, Tensor]:
    """Name and tensor of an entry of a group (docs/formats.md, section 5)."""
    r = Reader(data, "group entry")
    entry = r.text(), _get(r)
    r.end()
    return entry


def encode_entry(name: str, tensor: Tensor) -> bytes:
    w = Writer()
    w.text(name)
    return bytes(w.out) + _bytes(tensor)

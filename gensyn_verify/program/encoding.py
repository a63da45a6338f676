"""Canonical bytes of a program, and their digest. One encoding: decoding anything else raises.

All integers are big endian, as the contract reads them. A program file is

    b"gvprog01" | record of the header | u32 count | records of scalar programs | u32 count | records of nodes

where a record is u32 length | bytes. The digest is the Merkle root (`merkle.py`) over the records' bytes, in file
order. The header states both counts, so that neither list can be cut or mistaken for the other. The layout of
each record is in docs/formats.md; vectors are tests/vectors/program.json.
"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import PurePath

from gensyn_verify.errors import LimitError, ProgramError
from gensyn_verify.program import ops
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.program.merkle import Hash, merkle_root
from gensyn_verify.program.program import (
    INPUT_ROLES,
    MAX_NODE_INPUTS,
    MAX_NODES,
    OUTPUT_ROLES,
    Input,
    Node,
    Output,
    Program,
)
from gensyn_verify.program.scalar import (
    BY_CODE,
    MAX_INSTRUCTIONS,
    MAX_OUTPUTS,
    OPERATIONS,
    Constant,
    Instruction,
    ScalarProgram,
)
from gensyn_verify.program.types import MAX_RANK, Dtype, Reg, TensorType

MAGIC = b"gvprog01"
MAX_PROGRAM_BYTES = 1 << 28
MAX_ATTRIBUTE = max(MAX_RANK, MAX_OUTPUTS)  # every tuple of a node has an item an axis or an output


class Writer:
    def __init__(self) -> None:
        self.out = bytearray()

    def u(self, size: int, x: int) -> None:
        self.out += x.to_bytes(size, "big")

    def i64(self, x: int) -> None:
        if not -(1 << 63) <= x < 1 << 63:
            raise ProgramError(f"an attribute is {x:#x}; canonical bytes hold 64 bits")
        self.out += x.to_bytes(8, "big", signed=True)

    def text(self, s: str) -> None:
        self.u(1, len(s))
        self.out += s.encode("ascii")

    def type(self, t: TensorType) -> None:
        self.u(1, t.dtype.code)
        self.u(1, len(t.shape))
        for d in t.shape:
            self.u(8, d)


class Reader:
    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.at, self.where = data, 0, where

    def fail(self, message: str) -> ProgramError:
        return ProgramError(f"{self.where}, byte {self.at}: {message}")

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise self.fail(f"{n} bytes expected, {len(self.data) - self.at} left")
        self.at += n
        return self.data[self.at - n : self.at]

    def u(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def count(self, size: int, limit: int) -> int:
        n = self.u(size)
        if n > limit:
            raise LimitError(f"{self.where}, byte {self.at - size}: a count of {n}; the limit is {limit}")
        return n

    def text(self) -> str:
        raw = self.take(self.u(1))
        if not raw.isascii():
            raise self.fail("a name is not ASCII")
        return raw.decode("ascii")

    def i64(self) -> int:
        return int.from_bytes(self.take(8), "big", signed=True)

    def dtype(self, code: int) -> Dtype:
        try:
            return Dtype.from_code(code)
        except ProgramError as error:
            raise self.fail(str(error)) from None

    def type(self) -> TensorType:
        dtype = self.dtype(self.u(1))
        return TensorType(dtype, tuple(self.u(8) for _ in range(self.count(1, MAX_RANK))))

    def end(self) -> None:
        if self.at != len(self.data):
            raise self.fail(f"{len(self.data) - self.at} bytes too many")


def _header(p: Program) -> bytes:
    w = Writer()
    w.u(4, len(p.scalar_programs))
    w.u(4, len(p.nodes))
    w.u(4, len(p.inputs))
    for i in p.inputs:
        w.u(1, INPUT_ROLES.index(i.role))
        w.text(i.name)
        w.type(i.type)
    w.u(4, len(p.outputs))
    for o in p.outputs:
        w.u(1, OUTPUT_ROLES.index(o.role))
        w.text(o.name)
        w.u(4, o.value)
    return bytes(w.out)


def scalar_record(s: ScalarProgram) -> bytes:
    """u8 inputs, types | u16 constants, (type, u32 bits) | u16 instructions, (u8 code, u16 args) | u8 outputs, u16."""
    w = Writer()
    w.u(1, len(s.inputs))
    for reg in s.inputs:
        w.u(1, reg)
    w.u(2, len(s.constants))
    for c in s.constants:
        w.u(1, c.reg)
        w.u(4, c.bits)
    w.u(2, len(s.code))
    for instruction in s.code:
        w.u(1, OPERATIONS[instruction.op].code)
        for arg in instruction.args:
            w.u(2, arg)
    w.u(1, len(s.outputs))
    for v in s.outputs:
        w.u(2, v)
    return bytes(w.out)


def _fields_of(op: type[ops.Op]) -> list[tuple[str, object]]:
    hints = typing.get_type_hints(op)
    return [(f.name, hints[f.name]) for f in dataclasses.fields(op)]


_FIELDS = [_fields_of(op) for op in ops.OPS]  # by op code


def node_record(n: Node) -> bytes:
    """u8 op code | its attributes | u32 inputs, u32 values | u8 outputs, types.

    Attributes follow the order of the op's fields: bool u8, dtype u8, integer i64, tuple u16 count and items.
    """
    w = Writer()
    w.u(1, n.op.code)
    for name, hint in _FIELDS[n.op.code]:
        x = getattr(n.op, name)
        if hint is bool:
            w.u(1, x)
        elif hint is Dtype:
            w.u(1, x.code)
        elif hint is int:
            w.i64(x)
        else:
            w.u(2, len(x))
            for item in x:
                w.i64(item.code if isinstance(item, Dtype) else item)
    w.u(4, len(n.inputs))
    for v in n.inputs:
        w.u(4, v)
    w.u(1, len(n.types))
    for t in n.types:
        w.type(t)
    return bytes(w.out)


def read_header(data: bytes, where: str) -> tuple[tuple[int, int], tuple[Input, ...], tuple[Output, ...]]:
    """((scalar programs, nodes), inputs, outputs) of a header's record."""
    h = Reader(data, where)
    counts = h.count(4, MAX_NODES), h.count(4, MAX_NODES)
    inputs = []
    for _ in range(h.count(4, MAX_NODES)):
        role = h.u(1)
        if role >= len(INPUT_ROLES):
            raise h.fail(f"input role {role} is unknown")
        inputs.append(Input(INPUT_ROLES[role], h.text(), h.type()))
    outputs = []
    for _ in range(h.count(4, MAX_NODES)):
        role = h.u(1)
        if role >= len(OUTPUT_ROLES):
            raise h.fail(f"output role {role} is unknown")
        outputs.append(Output(OUTPUT_ROLES[role], h.text(), h.u(4)))
    h.end()
    return counts, tuple(inputs), tuple(outputs)


def read_scalar(data: bytes, where: str) -> ScalarProgram:
    """The scalar program of a record."""
    r = Reader(data, where)

    def reg() -> Reg:
        code = r.u(1)
        if code > 3:
            raise r.fail(f"register type {code} is unknown; known are 0 to 3")
        return Reg(code)

    inputs = tuple(reg() for _ in range(r.u(1)))
    constants = tuple(Constant(reg(), r.u(4)) for _ in range(r.count(2, MAX_INSTRUCTIONS)))
    code = []
    for _ in range(r.count(2, MAX_INSTRUCTIONS)):
        op = BY_CODE.get(r.u(1))
        if op is None:
            raise r.fail("unknown operation code")
        code.append(Instruction(op.name, tuple(r.u(2) for _ in op.operands)))
    outputs = tuple(r.u(2) for _ in range(r.u(1)))
    r.end()
    try:
        return ScalarProgram(inputs, constants, tuple(code), outputs)
    except (ProgramError, LimitError) as error:
        raise type(error)(f"{where}: {error}") from None


def read_node(data: bytes, where: str) -> Node:
    """The node of a record; its types are not checked against its inputs'."""
    r = Reader(data, where)
    code = r.u(1)
    if code >= len(ops.OPS):
        raise r.fail(f"op code {code} is unknown; known are 0 to {len(ops.OPS) - 1}")
    values: dict[str, object] = {}
    for name, hint in _FIELDS[code]:
        if hint is bool:
            flag = r.u(1)
            if flag > 1:
                raise r.fail(f"{name} is {flag}; a flag is 0 or 1")
            values[name] = flag == 1
        elif hint is Dtype:
            values[name] = r.dtype(r.u(1))
        elif hint is int:
            values[name] = r.i64()
        else:
            items = [r.i64() for _ in range(r.count(2, MAX_ATTRIBUTE))]
            values[name] = tuple(map(r.dtype, items)) if hint == tuple[Dtype, ...] else tuple(items)
    inputs = tuple(r.u(4) for _ in range(r.count(4, MAX_NODE_INPUTS)))
    types = tuple(r.type() for _ in range(r.u(1)))
    r.end()
    return Node(ops.OPS[code](**values), inputs, types)


def records(p: Program) -> list[bytes]:
    """The leaves of the program's Merkle tree: header, scalar programs, nodes."""
    return [_header(p), *map(scalar_record, p.scalar_programs), *map(node_record, p.nodes)]


def encode(p: Program) -> bytes:
    """Canonical bytes of a program."""
    header, *rest = records(p)
    w = Writer()
    w.out += MAGIC
    w.u(4, len(header))
    w.out += header
    split = len(p.scalar_programs)
    for group in (rest[:split], rest[split:]):
        w.u(4, len(group))
        for record in group:
            w.u(4, len(record))
            w.out += record
    return bytes(w.out)


def decode(data: bytes, where: str | PurePath = "program") -> Program:
    """The program of canonical bytes. Raises ProgramError or LimitError naming the record and the reason."""
    if len(data) > MAX_PROGRAM_BYTES:
        raise LimitError(f"{where} has {len(data)} bytes; the limit is {MAX_PROGRAM_BYTES}")
    r = Reader(data, str(where))
    if r.take(len(MAGIC)) != MAGIC:
        raise ProgramError(f"{where} does not start with {MAGIC.decode()}: it is no program of this version")
    counts, inputs, outputs = read_header(r.take(r.u(4)), f"{where}: header")
    found = r.count(4, MAX_NODES)
    scalars = tuple(read_scalar(r.take(r.u(4)), f"{where}: scalar program {n}") for n in range(found))
    found_nodes = r.count(4, MAX_NODES)
    nodes = tuple(read_node(r.take(r.u(4)), f"{where}: node {n}") for n in range(found_nodes))
    r.end()
    if counts != (found, found_nodes):
        raise ProgramError(f"{where}: header states {counts} scalar programs and nodes, found {(found, found_nodes)}")
    try:
        return Program(inputs, scalars, nodes, outputs)
    except (ProgramError, LimitError) as error:
        raise type(error)(f"{where}: {error}") from None


def program_digest(p: Program, hash: Hash = keccak256) -> bytes:
    """The Merkle root over the records. Plain Python takes a second for a thousand nodes: whoever has a native
    keccak-256 passes it (`commit.keccak256`)."""
    return merkle_root(records(p), hash)

"""Referee and StepVerifier as they are shipped, in pyrevm, called with the values of their Python twins."""

from __future__ import annotations

from dataclasses import astuple, replace
from functools import cache
from typing import Any

import pytest
from eth_abi import decode, encode
from eth_utils import keccak

from gensyn_verify.program import ops
from gensyn_verify.program.encoding import node_record, scalar_record
from gensyn_verify.program.program import Node
from gensyn_verify.protocol.pinpoint.leaves import NodeLeaf, SourceLeaf, Tensor
from gensyn_verify.protocol.pinpoint.position import FIELDS, IllegalMoveError, Position, Stage, What
from gensyn_verify.protocol.pinpoint.sequence import Sequence, Source
from gensyn_verify.settle import artifacts

CALLER = "0x" + "11" * 20
POSITION = f"({','.join(FIELDS)})"
ELEMENT = "(uint64,uint32,uint64,uint64)"
LOCATION = "(uint8,uint8,bool,uint64,bytes32,uint64)"
RETURNS = {
    "length": ["uint64"],
    "locate": [f"(uint8,uint8,uint64,uint64,{LOCATION}[3])"],
    "execute": ["uint256"],
    "advance": [POSITION],
    "turn": ["uint8"],
}
TAKES = {
    "length": [ELEMENT, "bytes", "bytes"],
    "locate": [ELEMENT, "bytes", "bytes", "uint64", "uint64[3]"],
    "execute": [ELEMENT, "bytes", "bytes", "uint64", "uint64[3]"],
    "advance": [POSITION, "bytes"],
    "turn": [POSITION],
}


def calldata(name: str, *args: Any) -> bytes:
    """Of a call of a function."""
    return bytes(keccak(text=f"{name}({','.join(TAKES[name])})")[:4]) + encode(TAKES[name], args)


class Contracts:
    """One EVM with both contracts."""

    def __init__(self) -> None:
        pyrevm = pytest.importorskip("pyrevm")
        self.evm = pyrevm.EVM(gas_limit=2**63 - 1, spec_id="CANCUN")
        self.evm.set_balance(CALLER, 10**30)
        self.verifier = self._deploy("StepVerifier")
        self.referee = self._deploy("Referee", encode(["address"], [self.verifier]))

    def _deploy(self, name: str, arguments: bytes = b"") -> str:
        code = bytes.fromhex(artifacts.load(name)["bytecode"][2:])
        return str(self.evm.deploy(CALLER, code + arguments))

    def call(self, name: str, *args: Any) -> Any:
        """The result of a function; RuntimeError where it reverts."""
        address = self.referee if name in ("advance", "turn") else self.verifier
        out = self.evm.message_call(CALLER, address, calldata=calldata(name, *args), gas=2**40)
        return decode(RETURNS[name], bytes(out))[0]

    def advance(self, position: Position, move: bytes) -> Position:
        """The twin of `position.advance`."""
        try:
            found = self.call("advance", astuple(position), move)
        except RuntimeError as error:
            raise IllegalMoveError(f"{position.stage.name}: the contract reverts: {error}") from None
        *head, stage, what = found[:5]
        return Position(*head, Stage(stage), What(what), *found[5:])


@cache
def contracts() -> Contracts:
    return Contracts()


def leaf_of(s: Sequence) -> bytes:
    """A leaf that has this sequence. The root of operand q is the number q."""
    if isinstance(s.op, Source):
        return SourceLeaf(s.op, s.type, bytes(32)).encode()
    op = replace(s.op, program=0) if isinstance(s.op, ops.Map | ops.Scan) else s.op
    types = op.infer(list(s.reads), [s.scalar] if s.scalar else [])
    record = node_record(Node(op, tuple(range(len(s.reads))), types))
    operands = tuple(Tensor(t, q.to_bytes(32, "big")) for q, t in enumerate(s.reads))
    return NodeLeaf(len(s.reads), record, operands, tuple(bytes(32) for _ in types)).encode()


def scalar_of(s: Sequence) -> bytes:
    return scalar_record(s.scalar) if s.scalar else b""

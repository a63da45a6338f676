"""The part of the Solidity ABI (version 2) that positions and moves need.

A type is "uint<bits>", "uint<bits>[<n>]", "bytes32", "bytes32[]", "bytes", or a tuple of types (a struct). Source:
https://docs.soliditylang.org, "Contract ABI Specification". Decoding takes what `encode` gives and nothing else.
Solidity alone would follow any offset, even out of the move: who has a move's bytes must find in them what the contract
did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from gensyn_verify.errors import MalformedError

Type = Union[str, "tuple[Type, ...]"]
WORD = 32


def is_dynamic(type: Type) -> bool:
    return type in ("bytes", "bytes32[]") or (isinstance(type, tuple) and any(map(is_dynamic, type)))


def _bits(type: str) -> tuple[int, int]:
    """(bits, how many) of "uint64" or "uint64[3]"."""
    bits, _, count = type.removeprefix("uint").rstrip("]").partition("[")
    return int(bits), int(count or 1)


def _head_words(type: Type) -> int:
    if is_dynamic(type) or type == "bytes32":
        return 1
    if isinstance(type, tuple):
        return sum(map(_head_words, type))
    return _bits(type)[1]


def _word(x: int) -> bytes:
    return x.to_bytes(WORD, "big")


def encode(types: Sequence[Type], values: Sequence[Any]) -> bytes:
    """`abi.encode(values)`. Raises MalformedError for a value that its type cannot hold."""
    if len(types) != len(values):
        raise MalformedError(f"{len(types)} values expected, found {len(values)}")
    heads, tails = [], []
    offset = WORD * sum(map(_head_words, types))
    for type, value in zip(types, values, strict=True):
        encoded = _encode(type, value)
        if is_dynamic(type):
            heads.append(_word(offset))
            tails.append(encoded)
            offset += len(encoded)
        else:
            heads.append(encoded)
    return b"".join(heads + tails)


def _encode(type: Type, value: Any) -> bytes:
    if isinstance(type, tuple):
        return encode(type, value)
    if type == "bytes":
        return _word(len(value)) + bytes(value) + bytes(-len(value) % WORD)
    if type == "bytes32[]":
        return _word(len(value)) + b"".join(_encode("bytes32", v) for v in value)
    if type == "bytes32":
        if len(value) != WORD:
            raise MalformedError(f"32 bytes expected, found {len(value)}")
        return bytes(value)
    bits, count = _bits(type)
    items = [value] if "[" not in type else list(value)
    if len(items) != count or any(not 0 <= x < 1 << bits for x in items):
        raise MalformedError(f"{value!r} is no {type}")
    return b"".join(map(_word, items))


def decode(types: Sequence[Type], data: bytes) -> tuple[Any, ...]:
    """`abi.decode(data, types)`. Raises MalformedError unless the data are the encoding of what they hold."""
    values = _tuple(tuple(types), data, 0)
    if encode(types, values) != data:
        raise MalformedError("not what abi.encode gives: offsets in order, nothing between or behind, zeros as padding")
    return values


def _read(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise MalformedError(f"byte {at}: {length} bytes expected, {max(len(data) - at, 0)} left")
    return data[at : at + length]


def _integer(data: bytes, at: int, bits: int) -> int:
    x = int.from_bytes(_read(data, at, WORD), "big")
    if x >> bits:
        raise MalformedError(f"byte {at}: {x:#x} is no uint{bits}")
    return x


def _tuple(types: tuple[Type, ...], data: bytes, start: int) -> tuple[Any, ...]:
    values, at = [], start
    for type in types:
        place = start + _integer(data, at, 64) if is_dynamic(type) else at
        values.append(_decode(type, data, place))
        at += WORD * _head_words(type)
    return tuple(values)


def _decode(type: Type, data: bytes, at: int) -> Any:
    if isinstance(type, tuple):
        return _tuple(type, data, at)
    if type == "bytes":
        return _read(data, at + WORD, _integer(data, at, 64))
    if type == "bytes32[]":
        whole = _read(data, at + WORD, WORD * _integer(data, at, 64))
        return tuple(whole[i : i + WORD] for i in range(0, len(whole), WORD))
    if type == "bytes32":
        return _read(data, at, WORD)
    bits, count = _bits(type)
    items = tuple(_integer(data, at + WORD * i, bits) for i in range(count))
    return items if "[" in type else items[0]

"""Positions and moves as Solidity encodes them; ranges and folds against the trees that they are part of."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensyn_verify.commit import MerkleLog, blake3, keccak256
from gensyn_verify.errors import MalformedError
from gensyn_verify.program.merkle import leaf_digest, merkle_root, seal
from gensyn_verify.protocol.pinpoint import abi
from gensyn_verify.protocol.pinpoint.position import (
    FIELDS,
    MOVES,
    PROOFS,
    IllegalMoveError,
    Position,
    Stage,
    What,
    advance,
    begin,
    choice,
)
from gensyn_verify.protocol.pinpoint.ranges import fold, fold_chunks, ranges


def values_of(type: abi.Type) -> st.SearchStrategy[Any]:
    if isinstance(type, tuple):
        return st.tuples(*map(values_of, type))
    if type == "bytes":
        return st.binary(max_size=70)
    if type == "bytes32":
        return st.binary(min_size=32, max_size=32)
    if type == "bytes32[]":
        return st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple)
    bits, count = abi._bits(type)
    number = st.integers(0, (1 << bits) - 1)
    return number if "[" not in type else st.tuples(*[number] * count)


def signature(type: abi.Type) -> str:
    return type if isinstance(type, str) else f"({','.join(map(signature, type))})"


EVERY = [FIELDS, *MOVES.values(), *PROOFS.values()]


@given(st.sampled_from(EVERY).flatmap(lambda types: st.tuples(st.just(types), values_of(types))))
def test_the_encoding_is_solidity_s(case: tuple[tuple[abi.Type, ...], tuple[Any, ...]]) -> None:
    types, values = case
    eth_abi = pytest.importorskip("eth_abi")
    encoded = abi.encode(types, values)
    assert encoded == eth_abi.encode([signature(t) for t in types], values)
    assert abi.decode(types, encoded) == values


@given(st.data())
def test_a_position_s_hash_is_solidity_s(data: st.DataObject) -> None:
    eth_abi, eth_utils = pytest.importorskip("eth_abi"), pytest.importorskip("eth_utils")
    values = [data.draw(values_of(t)) for t in FIELDS]
    position = Position(**dict(zip([f.name for f in fields(Position)], values, strict=True)))
    assert position.hash == eth_utils.keccak(eth_abi.encode(FIELDS, values))


@given(st.sampled_from(EVERY), st.binary(max_size=400))
def test_foreign_bytes_decode_to_values_or_are_malformed(types: tuple[abi.Type, ...], data: bytes) -> None:
    try:
        found = abi.decode(types, data)
    except MalformedError:
        return
    assert abi.encode(types, found) == data


@given(st.integers(1, 300))
def test_ranges_fold_to_the_tree_s_digest(count: int) -> None:
    log, leaves = MerkleLog(), [bytes([i % 256, i // 256]) for i in range(count)]
    for leaf in leaves:
        log.append_leaf(leaf)
    todo = [(0, count)]
    while todo:
        start, size = todo.pop()
        kids = ranges(start, size)
        assert len(kids) <= 16
        assert [s for s, _ in kids[1:]] == [s + n for s, n in kids[:-1]]
        assert fold([log.node(s, s + n) for s, n in kids], size) == log.node(start, start + size)
        todo += kids if size > 1 else []
    assert log.node(count - 1, count) == leaf_digest(leaves[-1], keccak256)
    assert seal(count, log.node(0, count), keccak256) == merkle_root(leaves, keccak256)


@given(st.integers(1025, 24_000), st.data())
def test_ranges_fold_to_the_chaining_value(length: int, data: st.DataObject) -> None:
    bytes_ = np.random.default_rng(length).bytes(length)
    levels = blake3.tree(bytes_)

    def value(start: int, size: int) -> bytes:
        return levels[(size - 1).bit_length()][start >> (size - 1).bit_length()]

    start, size = 0, blake3.chunk_count(length)
    while size > 1:
        kids = ranges(start, size)
        whole = size == blake3.chunk_count(length)
        assert fold_chunks([value(*k) for k in kids], size, whole) == value(start, size)
        start, size = data.draw(st.sampled_from(kids))


def test_what_no_game_begins_with_and_what_no_stage_takes() -> None:
    for steps, step in ((0, None), (3, 3), (3, -1)):
        with pytest.raises(MalformedError, match="cannot be disputed"):
            begin(bytes(32), bytes(32), steps, step)
    start = begin(bytes(32), bytes(32), 3)
    for move in (b"", choice(What.PICK), abi.encode(("bytes32[]",), [[bytes(32)] * 2])):
        with pytest.raises(IllegalMoveError):
            advance(start, move)
    with pytest.raises(IllegalMoveError, match="decided"):
        advance(Position(bytes(32), stage=Stage.SOLVER_WINS), b"")

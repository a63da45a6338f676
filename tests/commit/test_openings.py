"""Openings of chunks: every chunk opens, nothing else does, and the verifier needs no native code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensyn_verify import _native
from gensyn_verify.commit import ChunkOpening, TensorTree, blake3, chunk_of_element, tensor_root, verify_chunk
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_count
from gensyn_verify.program.types import Dtype

DATA = np.random.default_rng(4).bytes(1 << 15)
LENGTHS = [0, 1, 64, 1023, 1024, 1025, 2048, 2049, 3072, 4096, 4100, 5120, 6144, 7168, 7169, 9216, 16384, 17000]


def claims(tree: TensorTree, index: int) -> tuple[bytes, int, int, ChunkOpening]:
    return tree.root, tree.length, index, tree.open(index)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_chunk_opens_against_the_root(length: int) -> None:
    tree = TensorTree(DATA[:length])
    assert tree.root == tensor_root(DATA[:length])
    for index in range(chunk_count(length)):
        assert tree.open(index).chunk == DATA[:length][index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        assert verify_chunk(*claims(tree, index))


@pytest.mark.parametrize("length", LENGTHS)
def test_there_is_no_chunk_outside(length: int) -> None:
    tree = TensorTree(DATA[:length])
    for index in (-1, chunk_count(length)):
        with pytest.raises(IndexError, match=str(chunk_count(length))):
            tree.open(index)
        assert not verify_chunk(tree.root, length, index, tree.open(0))


@given(st.sampled_from(LENGTHS[1:]), st.data())
def test_a_flipped_bit_anywhere_is_rejected(length: int, data: st.DataObject) -> None:
    tree = TensorTree(DATA[:length])
    index = data.draw(st.integers(0, chunk_count(length) - 1))
    opening = tree.open(index)
    parts = [bytearray(opening.chunk), *map(bytearray, opening.path)]
    part = parts[data.draw(st.integers(0, len(parts) - 1))]
    bit = data.draw(st.integers(0, 8 * len(part) - 1))
    part[bit // 8] ^= 1 << bit % 8
    changed = ChunkOpening(bytes(parts[0]), tuple(map(bytes, parts[1:])))
    assert not verify_chunk(tree.root, length, index, changed)


def test_no_chunk_opens_at_another_index() -> None:
    same = TensorTree(bytes(7 * CHUNK_BYTES))  # equal chunks: only their numbers tell them apart
    for index in range(7):
        for claimed in set(range(7)) - {index}:
            assert not verify_chunk(same.root, same.length, claimed, same.open(index))


def test_a_length_with_another_last_chunk_or_another_depth_is_rejected() -> None:
    for length in LENGTHS:
        tree = TensorTree(DATA[:length])
        last = chunk_count(length) - 1
        for claimed in set(LENGTHS) | {length - 1, length + 1} - {length, -1}:
            if claimed != length and claimed >= 0:
                assert not verify_chunk(tree.root, claimed, last, tree.open(last)), (length, claimed)


def test_a_first_chunk_is_rejected_where_the_length_needs_another_number_of_siblings() -> None:
    tree = TensorTree(DATA[: 4 * CHUNK_BYTES])
    assert verify_chunk(*claims(tree, 0))
    for chunks in (1, 2, 5, 8, 9, 1 << 40):
        assert not verify_chunk(tree.root, chunks * CHUNK_BYTES, 0, tree.open(0))


def test_a_path_of_another_length_is_rejected() -> None:
    for length in LENGTHS:
        tree = TensorTree(DATA[:length])
        for index in range(chunk_count(length)):
            opening = tree.open(index)
            longer = [(*opening.path, bytes(32)), (bytes(32), *opening.path)]
            shorter = [opening.path[1:], opening.path[:-1]] if opening.path else []
            for path in longer + shorter:
                assert not verify_chunk(tree.root, length, index, ChunkOpening(opening.chunk, path))


def test_siblings_of_other_sizes_are_rejected_even_where_the_bytes_add_up() -> None:
    tree = TensorTree(DATA[:2048])
    chunk, (sibling,) = tree.open(0).chunk, tree.open(0).path
    for wrong in (sibling[:31], sibling + b"\0", b""):
        assert not verify_chunk(tree.root, 2048, 0, ChunkOpening(chunk, (wrong,)))


def test_a_parent_does_not_pass_for_a_chunk_nor_an_inner_node_for_the_root() -> None:
    tree = TensorTree(DATA[: 4 * CHUNK_BYTES])
    leaves = [blake3.chunk_value(DATA[i * CHUNK_BYTES :][:CHUNK_BYTES], i) for i in range(4)]
    left = blake3.parent_value(leaves[0], leaves[1])
    right = blake3.parent_value(leaves[2], leaves[3])
    assert tree.root == blake3.parent_value(left, right, is_root=True)
    assert not verify_chunk(tree.root, 64, 0, ChunkOpening(left + right, ()))
    assert not verify_chunk(left, 2 * CHUNK_BYTES, 0, ChunkOpening(DATA[:CHUNK_BYTES], (leaves[1],)))


def test_verification_calls_no_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = TensorTree(DATA[:5000])
    claim = claims(tree, 3)
    for name in ("blake3_root", "blake3_tree", "keccak256", "merkle_root"):
        monkeypatch.delattr(_native, name)
    assert verify_chunk(*claim)


@pytest.mark.parametrize("dtype", Dtype)
def test_an_element_lies_whole_in_the_chunk_that_is_named(dtype: Dtype) -> None:
    tensor = np.frombuffer(DATA, f"u{dtype.size}")
    tree = TensorTree(tensor)
    for element in (0, 1, CHUNK_BYTES // dtype.size - 1, CHUNK_BYTES // dtype.size, len(tensor) - 1):
        chunk, offset = chunk_of_element(dtype, element)
        found = tree.open(chunk).chunk[offset : offset + dtype.size]
        assert found == tensor[element : element + 1].tobytes()


def test_a_tree_opens_what_is_in_the_array_row_by_row() -> None:
    a = np.arange(2048, dtype=np.float32).reshape(32, 64)
    assert TensorTree(a.T).open(1).chunk == np.ascontiguousarray(a.T).tobytes()[1024:2048]
    assert TensorTree(np.zeros((3, 0), np.float32)).open(0) == ChunkOpening(b"", ())

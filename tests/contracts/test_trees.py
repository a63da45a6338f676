"""Merkle and BLAKE3 libraries against their definitions in Python, and BLAKE3 against the official package."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3

from contracts import generate_blake3
from contracts.evm import library
from gensyn_verify.commit import TensorTree
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_count, chunk_value, parent_value
from gensyn_verify.program import merkle
from gensyn_verify.protocol.pinpoint.ranges import fold, fold_chunks, ranges

COUNTS = [*range(1, 36), 63, 64, 65, 127, 1000, 4096, 4097, 70000]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One bit of it changed."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def test_paths_lead_to_the_root_and_nothing_else_does() -> None:
    contract, rng = library("Trees"), random.Random(1)
    for count in COUNTS[:39]:
        leaves = [rng.randbytes(rng.choice([8, 31, 32, 33, 64, 200])) for _ in range(count - 1)] + [b""]
        digests, root = [merkle.leaf_digest(leaf) for leaf in leaves], merkle.merkle_root(leaves)
        for index in {0, count - 1, *(rng.randrange(count) for _ in range(4))}:
            path = merkle.merkle_path(digests, index)
            assert contract("merkleRoot", leaves[index], index, count, path)[0] == root, (count, index)
            assert contract("merkleRoot", leaves[index] + b"\0", index, count, path)[0] != root
            assert contract("merkleRoot", leaves[index], index, count, [*path, bytes(32)]) == "Misfit"
            if path:
                assert contract("merkleRoot", leaves[index], index, count, path[:-1]) == "Misfit"
                i = rng.randrange(len(path))
                wrong = [flipped(d, rng) if i == k else d for k, d in enumerate(path)]
                assert contract("merkleRoot", leaves[index], index, count, wrong)[0] != root
            other = (index + 1) % (count + 1)
            answer = contract("merkleRoot", leaves[index], other, count, path)
            assert answer == "Misfit" or answer[0] != root
    assert contract("merkleRoot", b"", 0, 0, []) == "Misfit"
    deep = [rng.randbytes(32) for _ in range(64)]
    for index in (0, 1 << 63, merkle.MAX_LEAVES - 1, rng.randrange(merkle.MAX_LEAVES)):
        top = merkle.path_top(merkle.leaf_digest(b"x"), index, merkle.MAX_LEAVES, deep)
        expected = None if top is None else merkle.seal(merkle.MAX_LEAVES, top)
        answer = contract("merkleRoot", b"x", index, merkle.MAX_LEAVES, deep)
        assert answer == "Misfit" if expected is None else answer[0] == expected


def test_ranges_and_folds_equal_the_definition() -> None:
    contract, rng = library("Trees"), random.Random(2)
    for count in [*COUNTS, 1 << 20, (1 << 20) + 1, 3 << 40, merkle.MAX_LEAVES]:
        shown = ranges(0, count)
        assert [contract("range", count, i) for i in range(len(shown))] == shown
        assert contract("range", count, len(shown)) == "Misfit"
        digests = [rng.randbytes(32) for _ in shown]
        assert contract("merkleFold", digests, count)[0] == fold(digests, count)
        for whole in (False, True):
            folded = fold_chunks(digests, count, whole) if count > 1 else digests[0]
            assert contract("blake3Fold", digests, count, whole)[0] == folded
        for wrong in (digests[:-1], [*digests, bytes(32)]):
            assert contract("merkleFold", wrong, count) == contract("blake3Fold", wrong, count, True) == "Misfit"
    assert contract("range", 0, 0) == contract("merkleFold", [], 0) == contract("blake3Fold", [], 0, True) == "Misfit"


LENGTHS = [0, 1, 2, 63, 64, 65, 127, 128, *(k * 1024 + d for k in (1, 2, 3, 7, 16, 31, 512, 1024) for d in (-1, 0, 1))]


@pytest.mark.parametrize("length", [*LENGTHS, *random.Random(4).sample(range(1 << 20), 20)])
def test_openings_equal_the_official_hash(length: int) -> None:
    contract, rng = library("Trees"), random.Random(length)
    data = rng.randbytes(length)
    root, count, tree = blake3(data).digest(), chunk_count(length), TensorTree(data)
    for index in {0, count - 1, rng.randrange(count)}:
        opening = tree.open(index)
        chunk, path = opening.chunk, list(opening.path)
        assert contract("blake3Root", chunk, index, length, path)[0] == root
        if chunk:
            assert contract("blake3Root", flipped(chunk, rng), index, length, path)[0] != root
            assert contract("blake3Root", chunk[:-1], index, length, path) == "Misfit"
        assert contract("blake3Root", chunk + b"\0", index, length, path) == "Misfit"
        assert contract("blake3Root", chunk, count, length, path) == "Misfit"
        assert contract("blake3Root", chunk, index, length, [*path, bytes(32)]) == "Misfit"
        for i in range(len(path)):
            wrong = [flipped(v, rng) if i == k else v for k, v in enumerate(path)]
            assert contract("blake3Root", chunk, index, length, wrong)[0] != root
        if path:
            assert contract("blake3Root", chunk, index, length, path[:-1]) == "Misfit"


def test_deep_openings_follow_index_and_length() -> None:
    contract, rng = library("Trees"), random.Random(3)
    for depth in (10, 20, 30, 53):
        chunk, path = rng.randbytes(CHUNK_BYTES), [rng.randbytes(32) for _ in range(depth)]
        index = rng.randrange(1 << depth)
        value = chunk_value(chunk, index)
        for level, beside in enumerate(path):
            pair = (beside, value) if index >> level & 1 else (value, beside)
            value = parent_value(*pair, level == depth - 1)
        assert contract("blake3Root", chunk, index, CHUNK_BYTES << depth, path)[0] == value


def test_all_bits_set_in_a_row_of_the_state() -> None:
    """Rotations by multiplication modulo 2^256 - 1 would take such a row for zero."""
    contract = library("Trees")
    for value in (b"\xff", b"\0"):
        assert contract("chunkValue", value * 1024, 2**64 - 1, True)[0] == chunk_value(value * 1024, 2**64 - 1, True)


def test_the_generated_file_is_current() -> None:
    assert generate_blake3.TARGET.read_text() == generate_blake3.source(), "run make contracts"

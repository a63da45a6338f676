"""The keccak-256 tree: shape, inclusion and consistency, and what must be rejected."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensyn_verify.program import merkle
from gensyn_verify.program.keccak import keccak256


def fast(data: bytes) -> bytes:
    """The tree takes any hash; this one makes exhaustive tests quick."""
    return hashlib.sha256(data).digest()


LEAVES = [bytes([i]) * i for i in range(20)]
DIGESTS = [merkle.leaf_digest(leaf, fast) for leaf in LEAVES]
ROOTS = [merkle.merkle_root(LEAVES[:n], fast) for n in range(len(LEAVES) + 1)]


def top(digests: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1 as it is written: split at the largest power of two below the count."""
    if len(digests) == 1:
        return digests[0]
    k = max(1 << i for i in range(20) if 1 << i < len(digests))
    return fast(b"\x01" + top(digests[:k]) + top(digests[k:]))


def test_keccak_gives_the_known_digests_of_the_empty_string_abc_and_a_full_block() -> None:
    known = {
        b"": "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
        b"abc": "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45",
        b"a" * 136: "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e",
    }
    assert {data: keccak256(data).hex() for data in known} == known


def test_known_answer_of_the_certificate_transparency_test_tree() -> None:
    hexes = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    known = bytes.fromhex("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")
    assert merkle.merkle_root([bytes.fromhex(x) for x in hexes], fast) == merkle.seal(8, known, fast)


@pytest.mark.parametrize("count", range(1, 21))
def test_root_follows_the_recursive_definition(count: int) -> None:
    assert ROOTS[count] == merkle.seal(count, top(DIGESTS[:count]), fast)


def test_no_two_prefixes_have_the_same_root() -> None:
    assert len(set(ROOTS)) == len(ROOTS)


def test_padding_a_tree_by_its_last_leaf_changes_the_root() -> None:
    assert merkle.merkle_root(LEAVES[:3], fast) != merkle.merkle_root([*LEAVES[:3], LEAVES[2]], fast)


def test_every_leaf_opens_at_its_index_and_at_no_other() -> None:
    for count in range(1, 21):
        for index in range(count):
            path = merkle.merkle_path(DIGESTS[:count], index, fast)
            for claimed in range(-1, count + 2):
                accepted = merkle.verify_path(ROOTS[count], LEAVES[index], claimed, count, path, fast)
                assert accepted == (claimed == index)


def test_no_path_verifies_under_another_count() -> None:
    for count in range(1, 21):
        for index in range(count):
            path = merkle.merkle_path(DIGESTS[:count], index, fast)
            for claimed in set(range(40)) - {count} | {1 << 63, 1 << 64, 1 << 5000, -1}:
                assert not merkle.verify_path(ROOTS[count], LEAVES[index], index, claimed, path, fast)


def test_paths_outside_the_tree_are_refused() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError, match="3 leaves"):
            merkle.merkle_path(DIGESTS[:3], index, fast)


@given(st.integers(2, 20), st.data())
def test_one_flipped_bit_of_a_path_is_rejected(count: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, count - 1))
    path = merkle.merkle_path(DIGESTS[:count], index, fast)
    level, bit = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 255))
    sibling = bytearray(path[level])
    sibling[bit // 8] ^= 1 << bit % 8
    changed = [*path[:level], bytes(sibling), *path[level + 1 :]]
    assert not merkle.verify_path(ROOTS[count], LEAVES[index], index, count, changed, fast)


def test_siblings_of_other_sizes_are_rejected_even_where_the_bytes_add_up() -> None:
    a, b = merkle.merkle_path(DIGESTS[:4], 0, fast)
    joined = a + b
    for cut in (0, 31, 33, 64):
        assert not merkle.verify_path(ROOTS[4], LEAVES[0], 0, 4, [joined[:cut], joined[cut:]], fast)


def test_inner_nodes_and_leaves_do_not_pass_for_each_other() -> None:
    left, right = DIGESTS[:2]
    inner_as_leaf = merkle.seal(1, fast(b"\x01" + left + right), fast)
    assert not merkle.verify_path(inner_as_leaf, left + right, 0, 1, [], fast)
    assert merkle.merkle_root([left + right], fast) != ROOTS[2]


def test_every_prefix_is_consistent_and_with_no_other_pair_of_counts() -> None:
    for new in range(1, 13):
        for old in range(1, new + 1):
            path = merkle.consistency_path(DIGESTS[:new], old, fast)
            for m in range(1, 14):
                for n in range(14):
                    accepted = merkle.verify_consistency(ROOTS[old], m, ROOTS[new], n, path, fast)
                    assert accepted == ((m, n) == (old, new))


def test_a_rewritten_leaf_of_the_old_tree_is_inconsistent() -> None:
    for new in range(1, 13):
        for old in range(1, new + 1):
            for rewritten in range(old):
                leaves = [*LEAVES[:rewritten], b"forged", *LEAVES[rewritten + 1 : new]]
                digests = [merkle.leaf_digest(leaf, fast) for leaf in leaves]
                root = merkle.merkle_root(leaves, fast)
                for path in (
                    merkle.consistency_path(digests, old, fast),
                    merkle.consistency_path(DIGESTS[:new], old, fast),
                ):
                    assert not merkle.verify_consistency(ROOTS[old], old, root, new, path, fast)


def test_new_leaves_are_free_and_old_ones_are_not_named() -> None:
    leaves = [*LEAVES[:5], b"other"]
    digests = [merkle.leaf_digest(leaf, fast) for leaf in leaves]
    path = merkle.consistency_path(digests, 5, fast)
    assert merkle.verify_consistency(ROOTS[5], 5, merkle.merkle_root(leaves, fast), 6, path, fast)


def test_consistency_paths_of_wrong_length_are_rejected() -> None:
    for new in range(1, 13):
        for old in range(1, new + 1):
            path = merkle.consistency_path(DIGESTS[:new], old, fast)
            for wrong in (path[1:], path[:-1], [*path, bytes(32)], [bytes(32), *path]):
                assert not merkle.verify_consistency(ROOTS[old], old, ROOTS[new], new, wrong, fast)


def test_the_empty_tree_is_a_prefix_of_every_tree() -> None:
    for count in range(4):
        assert merkle.verify_consistency(ROOTS[0], 0, ROOTS[count], count, [], fast)
        assert not merkle.verify_consistency(ROOTS[1], 0, ROOTS[count], count, [], fast)
        assert not merkle.verify_consistency(ROOTS[0], 0, ROOTS[count], count, [bytes(32)], fast)


def test_absurd_counts_are_rejected_not_raised() -> None:
    for old, new in ((-1, 3), (1, 1 << 64), (1 << 64, 1 << 64), (3, 2)):
        assert not merkle.verify_consistency(ROOTS[1], old, ROOTS[3], new, [bytes(32)] * 3, fast)


def test_consistency_is_transitive_over_appends() -> None:
    for a, b in pairwise(range(1, 21)):
        path = merkle.consistency_path(DIGESTS[:b], a, fast)
        assert merkle.verify_consistency(ROOTS[a], a, ROOTS[b], b, path, fast)
        assert len(path) <= b.bit_length() + 1


@pytest.mark.parametrize("old", [-1, 0, 4])
def test_consistency_paths_of_no_prefix_are_refused(old: int) -> None:
    with pytest.raises(IndexError, match="of 3 leaves"):
        merkle.consistency_path(DIGESTS[:3], old, fast)

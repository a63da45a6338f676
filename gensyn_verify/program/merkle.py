"""The one Merkle tree of the project: keccak-256, the shape of RFC 9162 section 2.1, leaf count in the root.

    leaf  = keccak(0x00 | data)
    inner = keccak(0x01 | left | right)        left holds the largest power of two of leaves below the count
    root  = keccak(0x02 | count as 8 bytes, big endian | top)      top of no leaves: 32 zero bytes

Leaves and inner nodes have separate prefixes, so neither passes for the other. The root binds the count, and the
directions of a path follow from (index, count): the prover supplies sibling digests and nothing else. The shape
only grows at the right edge, so an old root can be proven to be a prefix of a new one (section 2.1.4, with one change:
a root hides its top, so a proof always begins with a node that both trees have). Vectors: tests/vectors/merkle.json.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gensyn_verify.program.keccak import keccak256

Hash = Callable[[bytes], bytes]
MAX_LEAVES = (1 << 64) - 1


def split(count: int) -> int:
    """Leaves under the left child of a tree with `count` > 1 leaves: the largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _top(digests: Sequence[bytes], hash: Hash) -> bytes:
    level = list(digests)
    if not level:
        return bytes(32)
    while len(level) > 1:
        pairs = [hash(b"\x01" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def seal(count: int, top: bytes, hash: Hash = keccak256) -> bytes:
    """The root that binds `count` leaves under `top`."""
    return hash(b"\x02" + count.to_bytes(8, "big") + top)


def leaf_digest(data: bytes, hash: Hash = keccak256) -> bytes:
    return hash(b"\x00" + data)


def merkle_root(leaves: Sequence[bytes], hash: Hash = keccak256) -> bytes:
    """The root over `leaves`, each a byte string of any length."""
    return seal(len(leaves), _top([leaf_digest(x, hash) for x in leaves], hash), hash)


def merkle_path(digests: Sequence[bytes], index: int, hash: Hash = keccak256) -> list[bytes]:
    """Sibling digests of leaf `index` from the leaf upwards; `digests` are the leaf digests."""
    if not 0 <= index < len(digests):
        raise IndexError(f"leaf {index} of a tree with {len(digests)} leaves")
    if len(digests) == 1:
        return []
    k = split(len(digests))
    if index < k:
        return [*merkle_path(digests[:k], index, hash), _top(digests[k:], hash)]
    return [*merkle_path(digests[k:], index - k, hash), _top(digests[:k], hash)]


def path_top(leaf: bytes, index: int, count: int, path: Sequence[bytes], hash: Hash = keccak256) -> bytes | None:
    """The top that `path` leads to from a leaf digest, or None where the path has the wrong length or index."""
    if not 0 <= index < count <= MAX_LEAVES or any(len(sibling) != 32 for sibling in path):
        return None
    turns = []  # from the top down: did we go right?
    while count > 1:
        k = split(count)
        turns.append(index >= k)
        index, count = (index - k, count - k) if index >= k else (index, k)
    if len(path) != len(turns):
        return None
    for right, sibling in zip(reversed(turns), path, strict=True):
        leaf = hash(b"\x01" + (sibling + leaf if right else leaf + sibling))
    return leaf


def verify_path(
    root: bytes, data: bytes, index: int, count: int, path: Sequence[bytes], hash: Hash = keccak256
) -> bool:
    """Whether `data` is leaf `index` of the `count` leaves under `root`."""
    top = path_top(leaf_digest(data, hash), index, count, path, hash)
    return top is not None and seal(count, top, hash) == root


def consistency_path(digests: Sequence[bytes], old: int, hash: Hash = keccak256) -> list[bytes]:
    """Proof that the tree over the first `old` (at least 1) leaf digests is a prefix of the tree over all of them."""
    if not 1 <= old <= len(digests):
        raise IndexError(f"the first {old} of {len(digests)} leaves")
    if old == len(digests):
        return [_top(digests, hash)]
    k = split(len(digests))
    if old <= k:
        return [*consistency_path(digests[:k], old, hash), _top(digests[k:], hash)]
    return [*consistency_path(digests[k:], old - k, hash), _top(digests[:k], hash)]


def consistency_tops(old: int, new: int, path: Sequence[bytes], hash: Hash = keccak256) -> tuple[bytes, bytes] | None:
    """The tops over `old` and over `new` leaves that `path` leads to, or None where it has the wrong length."""
    if not 1 <= old <= new <= MAX_LEAVES or any(len(node) != 32 for node in path):
        return None
    turns = []  # from the top down: does the old tree reach into the right side?
    while old != new:
        k = split(new)
        turns.append(old > k)
        old, new = (old - k, new - k) if old > k else (old, k)
    if len(path) != len(turns) + 1:
        return None
    first = last = path[0]
    for right, node in zip(reversed(turns), path[1:], strict=True):
        if right:
            first, last = hash(b"\x01" + node + first), hash(b"\x01" + node + last)
        else:
            last = hash(b"\x01" + last + node)
    return first, last


def verify_consistency(
    old_root: bytes, old: int, new_root: bytes, new: int, path: Sequence[bytes], hash: Hash = keccak256
) -> bool:
    """Whether the `old` leaves under `old_root` are the first of the `new` leaves under `new_root`.

    Every tree continues the empty one, so for `old` = 0 the path is empty and nothing is said about `new_root`.
    """
    if old == 0:
        return not path and 0 <= new <= MAX_LEAVES and old_root == seal(0, bytes(32), hash)
    tops = consistency_tops(old, new, path, hash)
    return tops is not None and (seal(old, tops[0], hash), seal(new, tops[1], hash)) == (old_root, new_root)

"""The one Merkle tree of the project: keccak-256, the shape of RFC 9162 section 2.1, leaf count in the root.

    leaf  = keccak(0x00 | data)
    inner = keccak(0x01 | left | right)        left holds the largest power of two of leaves below the count
    root  = keccak(0x02 | count as 8 bytes, big endian | top)      top of no leaves: 32 zero bytes

Leaves and inner nodes have separate prefixes, so neither passes for the other. The root binds the count, and the
directions of a path follow from (index, count): the prover supplies sibling digests and nothing else. The shape
only grows at the right edge, so an old root can be proven to be a prefix of a new one. Vectors:
tests/vectors/merkle.json.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gensyn_verify.program.keccak import keccak256

Hash = Callable[[bytes], bytes]


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
    if not 0 <= index < count:
        return None
    turns = []  # from the top down: did we go right?
    while count > 1:
        k = split(count)
        turns.append(index >= k)
        index, count = (index - k, count - k) if index >= k else (index, k)
    if len(path) != len(turns):
        return None
    for right, sibling in zip(reversed(turns), path, strict=True):
        if len(sibling) != 32:
            return None
        leaf = hash(b"\x01" + (sibling + leaf if right else leaf + sibling))
    return leaf


def verify_path(
    root: bytes, data: bytes, index: int, count: int, path: Sequence[bytes], hash: Hash = keccak256
) -> bool:
    """Whether `data` is leaf `index` of the `count` leaves under `root`."""
    top = path_top(leaf_digest(data, hash), index, count, path, hash)
    return top is not None and seal(count, top, hash) == root

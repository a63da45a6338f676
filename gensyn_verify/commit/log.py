"""An append-only Merkle log: `program.merkle` with every finished subtree kept.

Appending costs two hashes on average, a root or a proof at most about two a level; nothing is hashed twice. The
log holds 64 bytes a leaf. Trees, roots and proofs are those of `program.merkle`, of any earlier size too.
"""

from __future__ import annotations

from gensyn_verify._native import keccak256
from gensyn_verify.program.merkle import leaf_digest, seal, split


class MerkleLog:
    """Leaves in, roots and proofs out."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]  # level h: the digests of all full subtrees of 2^h leaves

    def __len__(self) -> int:
        return len(self._levels[0]) // 32

    def append_leaf(self, data: bytes) -> None:
        node = leaf_digest(data, keccak256)
        for level in self._levels:
            level.extend(node)
            if len(level) // 32 % 2:
                return
            node = keccak256(b"\x01" + level[-64:])
        self._levels.append(bytearray(node))

    def _size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise IndexError(f"size {size} of a log with {len(self)} leaves")
        return size

    def node(self, first: int, end: int) -> bytes:
        """The digest over leaves [first, end), a subtree of the log at some size."""
        count = end - first
        if count & (count - 1) == 0:
            height = count.bit_length() - 1
            at = 32 * (first >> height)
            return bytes(self._levels[height][at : at + 32])
        middle = first + split(count)
        return keccak256(b"\x01" + self.node(first, middle) + self.node(middle, end))

    def root(self, size: int | None = None) -> bytes:
        """The root over all leaves, or over the first `size`."""
        n = self._size(size)
        return seal(n, self.node(0, n) if n else bytes(32), keccak256)

    def path(self, index: int, size: int | None = None) -> list[bytes]:
        """The inclusion proof of leaf `index`: sibling digests from the leaf upwards."""
        first, end, path = 0, self._size(size), []
        if not 0 <= index < end:
            raise IndexError(f"leaf {index} of {end}")
        while end - first > 1:
            middle = first + split(end - first)
            if index < middle:
                path.append(self.node(middle, end))
                end = middle
            else:
                path.append(self.node(first, middle))
                first = middle
        return path[::-1]

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """The proof that the first `old` leaves are a prefix; empty for `old` = 0."""
        first, end, path = 0, self._size(size), []
        if not 0 <= old <= end:
            raise IndexError(f"the first {old} of {end} leaves")
        if old == 0:
            return []
        while old != end:
            middle = first + split(end - first)
            if old <= middle:
                path.append(self.node(middle, end))
                end = middle
            else:
                path.append(self.node(first, middle))
                first = middle
        return [self.node(first, end), *reversed(path)]

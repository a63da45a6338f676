"""How a tree is walked (docs/dispute.md, section 4): the ranges four levels below a node, and their fold to its digest.

A node stands for leaves [start, start + size). keccak trees (`program.merkle`) and BLAKE3 split alike: the largest
power of two below the size goes left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gensyn_verify.commit import keccak256
from gensyn_verify.commit.blake3 import parent_value
from gensyn_verify.program.merkle import split

LEVELS = 4
Range = tuple[int, int]  # start, size


def ranges(start: int, size: int, levels: int = LEVELS) -> list[Range]:
    """The at most 16 ranges that are shown of a node, in order; a range of one leaf is not split."""
    if size == 1 or levels == 0:
        return [(start, size)]
    k = split(size)
    return ranges(start, k, levels - 1) + ranges(start + k, size - k, levels - 1)


Join = Callable[[bytes, bytes], bytes]


def _fold(digests: Sequence[bytes], size: int, join: Join, levels: int = LEVELS) -> bytes:
    return digests[0] if size == 1 or levels == 0 else join(*_halves(digests, size, join, levels))


def _halves(digests: Sequence[bytes], size: int, join: Join, levels: int = LEVELS) -> tuple[bytes, bytes]:
    k = split(size)
    left = len(ranges(0, k, levels - 1))
    return _fold(digests[:left], k, join, levels - 1), _fold(digests[left:], size - k, join, levels - 1)


def fold(digests: Sequence[bytes], size: int) -> bytes:
    """The digest over `size` leaves of a keccak tree whose ranges have these digests."""
    return _fold(digests, size, lambda left, right: keccak256(b"\x01" + left + right))


def fold_chunks(digests: Sequence[bytes], size: int, whole: bool) -> bytes:
    """The same over more than one chunk, under BLAKE3; `whole`: the range is all of the tensor."""
    return parent_value(*_halves(digests, size, parent_value), is_root=whole)

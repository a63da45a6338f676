"""Tensor roots and the openings of their chunks.

The root of a tensor is the BLAKE3 hash of its bytes: row-major, little endian, no header, as `b3sum` of a raw file. A
chunk is 1024 of those bytes (the last may be shorter); no element straddles two. An opening is a chunk's bytes and the
chaining values beside its way to the root, from the chunk upwards. On which side each stands, and how many there
are, follows from (index, length) alone; the prover states neither. `length` is what the verifier knows from the dtype
and shape of the tensor: a BLAKE3 root pins the length only through its last chunk. Vectors: tests/vectors/blake3.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gensyn_verify import _native
from gensyn_verify.commit import blake3
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_count
from gensyn_verify.program.types import Dtype

Data = npt.NDArray[Any] | bytes | bytearray | memoryview


def tensor_root(tensor: Data) -> bytes:
    """32 bytes: BLAKE3 of the tensor's row-major bytes. An array that is not C-contiguous is copied first."""
    return _native.blake3_root(_bytes_of(tensor))


def _bytes_of(tensor: Data) -> memoryview:
    if isinstance(tensor, np.ndarray):
        tensor = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
    view = memoryview(tensor)
    return view.cast("B") if view.nbytes else memoryview(b"")


@dataclass(frozen=True)
class ChunkOpening:
    """A chunk's bytes and the sibling chaining values from it up to the root."""

    chunk: bytes
    path: tuple[bytes, ...]


class TensorTree:
    """A tensor with all chaining values kept, so that any chunk opens without hashing again. Refers to the data."""

    def __init__(self, tensor: Data) -> None:
        self._data = _bytes_of(tensor)
        self._levels = _native.blake3_tree(self._data)  # level by level, the chunks' first, the root last

    @property
    def length(self) -> int:
        """Bytes of the tensor."""
        return len(self._data)

    @property
    def root(self) -> bytes:
        return self._levels[-32:]

    def node(self, first: int, end: int) -> bytes:
        """The chaining value over chunks [first, end), a subtree; over all of them it is the root."""
        height = (end - first - 1).bit_length()
        below, width = 0, chunk_count(self.length)
        for _ in range(height):
            below, width = below + width, (width + 1) // 2
        at = 32 * (below + (first >> height))
        return self._levels[at : at + 32]

    def chunk(self, index: int) -> bytes:
        """The bytes of chunk `index`."""
        return bytes(self._data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])

    def open(self, index: int) -> ChunkOpening:
        """The opening of chunk `index`; IndexError where there is no such chunk."""
        if not 0 <= index < chunk_count(self.length):
            raise IndexError(f"chunk {index} of a tensor with {chunk_count(self.length)} chunks")
        path, first = [], 0
        for width, place in _way_up(index, self.length):
            if place ^ 1 < width:
                at = 32 * (first + (place ^ 1))
                path.append(self._levels[at : at + 32])
            first += width
        return ChunkOpening(self.chunk(index), tuple(path))


def _way_up(index: int, length: int) -> Iterator[tuple[int, int]]:
    """(nodes, place) in every level below the root, from the chunks up. A last node at an even place has no sibling."""
    width = chunk_count(length)
    while width > 1:
        yield width, index
        width, index = (width + 1) // 2, index // 2


def verify_chunk(root: bytes, length: int, index: int, opening: ChunkOpening) -> bool:
    """Whether `opening` shows chunk `index` of the `length` bytes under `root`. Plain Python: trusts no native code."""
    if not 0 <= index < chunk_count(length):
        return False
    if len(opening.chunk) != min(CHUNK_BYTES, length - index * CHUNK_BYTES):
        return False
    sides = [(width, place & 1) for width, place in _way_up(index, length) if place ^ 1 < width]
    if len(opening.path) != len(sides) or any(len(sibling) != 32 for sibling in opening.path):
        return False
    value = blake3.chunk_value(opening.chunk, index, is_root=not sides)
    for (width, right), sibling in zip(sides, opening.path, strict=True):
        left_right = (sibling, value) if right else (value, sibling)
        value = blake3.parent_value(*left_right, is_root=width == 2)
    return value == root


def chunk_of_element(dtype: Dtype, element: int) -> tuple[int, int]:
    """Where row-major element `element` lies: (chunk, byte offset in it)."""
    return divmod(element * dtype.size, CHUNK_BYTES)

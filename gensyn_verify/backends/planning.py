"""Where every value of a program lies in one block of memory, for how long, and which values are only views.

A *root* is a piece of the arena with a lifetime in nodes; a `Place` is a strided view of a root. Reshapes of
contiguous values, permutations, slices, broadcasts and windows are places over their input's root: no bytes move
until a kernel needs them contiguous. Roots whose lifetimes do not meet share memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gensyn_verify.program import ops
from gensyn_verify.program.types import TensorType

ALIGN = 64
FOREVER = 1 << 60


@dataclass
class Root:
    """`nbytes` of memory that is written first by node `born` and read last by node `dies`."""

    nbytes: int
    born: int
    dies: int
    offset: int = -1


@dataclass(frozen=True)
class Place:
    """A strided view: element offset and strides count elements of `type` inside the root."""

    root: Root
    type: TensorType
    start: int
    strides: tuple[int, ...]

    @property
    def byte_offset(self) -> int:
        return self.root.offset + self.start * self.type.dtype.size

    @property
    def contiguous(self) -> bool:
        return is_contiguous(self.type.shape, self.strides)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, n = [], 1
    for d in reversed(shape):
        strides.append(n)
        n *= d
    return tuple(reversed(strides))


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    if 0 in shape:
        return True
    return all(d == 1 or s == want for d, s, want in zip(shape, strides, row_major(shape), strict=True))


def view(op: ops.Op, x: Place, out: TensorType) -> Place | None:
    """The value of a layout node as a view of its input, or None where bytes must move."""
    if isinstance(op, ops.Reshape):
        return replace(x, type=out, strides=row_major(out.shape)) if x.contiguous else None
    if isinstance(op, ops.Permute):
        return replace(x, type=out, strides=tuple(x.strides[a] for a in op.axes))
    if isinstance(op, ops.Broadcast):
        lead = len(out.shape) - len(x.strides)
        padded = (0,) * lead + tuple(
            0 if d == 1 and o != 1 else s for d, s, o in zip(x.type.shape, x.strides, out.shape[lead:], strict=True)
        )
        return replace(x, type=out, strides=padded)
    if isinstance(op, ops.Slice):
        start = x.start + sum(a * s for a, s in zip(op.start, x.strides, strict=True))
        return replace(x, type=out, start=start, strides=tuple(a * s for a, s in zip(op.step, x.strides, strict=True)))
    if isinstance(op, ops.Window):
        lead = len(x.strides) - len(op.size)
        spatial = x.strides[lead:]
        taps = tuple(s * d for s, d in zip(spatial, op.dilation, strict=True))
        steps = tuple(s * t for s, t in zip(spatial, op.stride, strict=True))
        return replace(x, type=out, strides=(*x.strides[:lead], *taps, *steps))
    return None


def assign_offsets(roots: list[Root]) -> int:
    """Give every root an offset so that roots alive at the same node do not overlap; the bytes needed.

    Greedy by size, largest first, each at the lowest offset that fits between the roots it meets in time.
    """
    placed: list[Root] = []
    total = 0
    for root in sorted(roots, key=lambda r: (-r.nbytes, r.born)):
        size = math.ceil(root.nbytes / ALIGN) * ALIGN
        offset = 0
        for other in sorted((r for r in placed if r.born <= root.dies and root.born <= r.dies), key=lambda r: r.offset):
            if offset + size <= other.offset:
                break
            offset = max(offset, other.offset + math.ceil(other.nbytes / ALIGN) * ALIGN)
        root.offset = offset
        total = max(total, offset + size)
        placed.append(root)
    return total

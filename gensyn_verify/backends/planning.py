"""Where every value of a program lies in one block of memory, for how long, and which values are only views.

A *root* is a piece of the arena with a lifetime in nodes; a `Place` is a strided view of a root. Reshapes of
contiguous values, permutations, slices, broadcasts and windows are places over their input's root: no bytes move
until a kernel needs them contiguous. Roots whose lifetimes do not meet share memory.
"""

from __future__ import annotations

import bisect
import heapq
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


class _FreeList:
    """Gaps of an arena that grows at its end: best fit, neighbours joined."""

    def __init__(self) -> None:
        self.end = 0
        self.gaps: list[tuple[int, int]] = []  # (offset, size), ascending, never touching

    def take(self, size: int) -> int:
        fit = min(((n, at) for at, n in self.gaps if n >= size), default=None)
        if fit is not None:
            n, offset = fit
            i = bisect.bisect_left(self.gaps, (offset, n))
            self.gaps[i : i + 1] = [(offset + size, n - size)] if n > size else []
            return offset
        grows = self.gaps and sum(self.gaps[-1]) == self.end  # the last gap grows with the arena
        offset = self.gaps.pop()[0] if grows else self.end
        self.end = offset + size
        return offset

    def give(self, offset: int, size: int) -> None:
        i = bisect.bisect_left(self.gaps, (offset, size))
        if i < len(self.gaps) and self.gaps[i][0] == offset + size:
            size += self.gaps.pop(i)[1]
        if i and sum(self.gaps[i - 1]) == offset:
            before = self.gaps.pop(i - 1)
            offset, size = before[0], before[1] + size
            i -= 1
        self.gaps.insert(i, (offset, size))


def assign_offsets(roots: list[Root]) -> int:
    """Give every root an offset so that roots alive at the same node do not overlap; the bytes needed."""
    free = _FreeList()
    alive: list[tuple[int, int, int]] = []  # (dies, offset, size), a heap
    for root in sorted(roots, key=lambda r: r.born):
        while alive and alive[0][0] < root.born:
            free.give(*heapq.heappop(alive)[1:])
        size = math.ceil(root.nbytes / ALIGN) * ALIGN
        if size:
            root.offset = free.take(size)
            heapq.heappush(alive, (root.dies, root.offset, size))
        else:
            root.offset = 0
    return free.end

"""Calls of a plan as launches of the kernels in kernels/metal. A launch's numbers follow the kernel's struct."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gensyn_verify.backends.device import plan
from gensyn_verify.backends.device.hashing import Forest
from gensyn_verify.backends.device.plan import collapse
from gensyn_verify.backends.metal.source import Arrangement, arrange
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype

GROUP = 256  # threads of a group, at most
GROUPS = 1 << 14  # groups of kernels that stride over their elements, at most
MEASURERS = 512  # groups of gv_exponents, at most: each does a few atomic operations
WARP = 32
SEGMENT = 2048  # values of a sum's segment
DOT_EDGE = 64  # rows and columns of a tile of dot
SORT_TILE = 2048
MAX_AXES = 16
FLAG_BYTES = 16  # of a guarded call: risky; then for dot what gv_exponents found of a and b
ROUNDING = {f"{name}.f32" for name in ("add", "sub", "mul", "div", "sqrt", "fma")}


@dataclass(frozen=True)
class Launch:
    """A kernel by name, what it is given, and its grid: groups (x, y, z) of `size` threads."""

    kernel: str
    given: tuple[int, ...]
    groups: tuple[int, int, int]
    size: int


def is_guarded(call: plan.Call, scalars: Sequence[ScalarProgram]) -> bool:
    """Whether a call adds, multiplies or divides floats, so that flushed subnormals can change its bits.

    All else is integers: dot of i8, layout, gather, random, sort, extremes, sums of integers, scalar programs that only
    compare, select, convert or count.
    """
    if isinstance(call, plan.Map | plan.Scan):
        return any(i.op in ROUNDING for i in scalars[call.program].code)
    if isinstance(call, plan.Reduce):
        return call.op == 0 and call.x_dtype.is_float
    if isinstance(call, plan.Dot):
        return call.c_dtype.is_float
    return isinstance(call, plan.ScatterAdd) and call.source_dtype.is_float


def flat(kernel: str, given: Sequence[int], count: int, most: int = GROUPS) -> list[Launch]:
    """A kernel that strides over `count` elements, in at most `most` groups."""
    if count == 0:
        return []
    size = min(GROUP, -(-count // WARP) * WARP)
    return [Launch(kernel, tuple(given), (min(-(-count // size), most), 1, 1), size)]


def copy(
    size: int, shape: Sequence[int], source: Sequence[int], target: Sequence[int], at: int, to: int
) -> list[Launch]:
    """Elements of `size` bytes, with their strides at the source and at the target."""
    shape, strides = collapse(shape, [source, target])
    count = math.prod(shape)
    return flat("gv_copy", (at, to, size, count, *_axes(shape, strides[0]), *_axes(shape, strides[1])), count)


def aligned(offset: int) -> int:
    return -(-offset // plan.ALIGN) * plan.ALIGN


@dataclass(frozen=True)
class Hashing:
    """Launches that hash, once the rows of their trees lie where they were told; the roots lie at `roots` then. Their
    memory ends at `end`.
    """

    launches: list[Launch]
    roots: int
    end: int


def hashing(trees: Forest, rows: int) -> Hashing:
    """`rows`: where the rows of the trees will lie, and what else is needed behind them."""
    first = rows + aligned(trees.rows.nbytes)
    second = first + aligned(trees.node_bytes[0])
    launches: list[Launch] = []
    here = first
    for level, (row, filled, total) in enumerate(trees.launches):
        here, below = (second, first) if filled else (first, second)
        kernel, nodes = ("gv_blake3_parents", (below, here)) if level else ("gv_blake3_chunks", (here, 0))
        launches += flat(kernel, (rows + row, *nodes, trees.count, total), total)
    return Hashing(launches, here, second + aligned(trees.node_bytes[1]))


def _axes(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    rest = [0] * (MAX_AXES - len(shape))
    return [len(shape), *shape, *rest, *strides, *rest]


class Lowering:
    """Calls to launches. Scratch memory of `scratch_bytes`, found while lowering, begins at byte `scratch`.

    `arrangements` are the maps and scans that were met, and the names of their kernels.
    """

    def __init__(self, scalars: Sequence[ScalarProgram], scratch: int) -> None:
        self._scalars = scalars
        self._scratch = scratch
        self.scratch_bytes = 0
        self.arrangements: dict[Arrangement, str] = {}

    def launches(self, call: plan.Call, flag: int) -> list[Launch]:
        """The launches of a call; where it is risky the word at byte `flag` of the arena becomes 1."""
        lower: dict[type, Callable[[Any, int], list[Launch]]] = {
            plan.Map: self._map, plan.Scan: self._map, plan.Dot: self._dot, plan.Reduce: self._reduce,
            plan.Copy: self._copy, plan.Fill: self._fill, plan.Gather: self._gather,
            plan.ScatterAdd: self._scatter_add, plan.Random: self._random, plan.Sort: self._sort,
        }  # fmt: skip
        return lower[type(call)](call, flag)

    def _hold(self, nbytes: int) -> int:
        self.scratch_bytes = max(self.scratch_bytes, nbytes)
        return self._scratch

    def _map(self, c: plan.Map | plan.Scan, flag: int) -> list[Launch]:
        arrangement, count = arrange(c, self._scalars[c.program], GROUP * GROUPS)
        name = self.arrangements.setdefault(arrangement, f"gv_map_{len(self.arrangements)}")
        steps = c.shape[0] if isinstance(c, plan.Scan) else 1
        places = [v.offset for v in (*c.inputs, *c.outputs)]
        return flat(name, (count, steps, flag, *places), count if steps else 0)

    def _dot(self, c: plan.Dot, flag: int) -> list[Launch]:
        if 0 in (c.batch, c.m, c.n):
            return []
        given = (
            c.a, c.b, c.c, c.batch, c.m, c.n, c.k, c.a_batch_stride, c.b_batch_stride, c.a_dtype.code, c.b_dtype.code,
            c.c_dtype.code, int(c.transpose_a), int(c.transpose_b), flag,
        )  # fmt: skip
        groups = (-(-c.n // DOT_EDGE), -(-c.m // DOT_EDGE), c.batch)
        if not c.c_dtype.is_float:
            return [Launch("gv_dot_int8", given, groups, GROUP)]
        least: list[Launch] = []
        for at, dtype, stride, count, word in (
            (c.a, c.a_dtype, c.a_batch_stride, c.m * c.k, flag + 4),
            (c.b, c.b_dtype, c.b_batch_stride, c.k * c.n, flag + 8),
        ):
            least += flat(
                "gv_exponents", (at, dtype.code, c.batch if stride else 1, count, stride, word), count, MEASURERS
            )
        return [*least, Launch("gv_dot", given, groups, GROUP)]

    def _reduce(self, c: plan.Reduce, flag: int) -> list[Launch]:
        rows, length = math.prod(c.kept_shape), math.prod(c.reduced_shape)
        if rows == 0:
            return []
        if length == 0:  # only a sum
            return flat("gv_fill", (c.y, c.y_dtype.size, rows, 0), rows)
        kept, (kept_strides,) = collapse(c.kept_shape, [c.kept_strides])
        reduced, (reduced_strides,) = collapse(c.reduced_shape, [c.reduced_strides])
        if c.op:
            given = (
                c.x, c.y, rows, length, c.x_dtype.code, c.y_dtype.code, c.op, 1, flag,
                *_axes(kept, kept_strides), *_axes(reduced, reduced_strides),
            )  # fmt: skip
            size = min(GROUP, -(-length // WARP) * WARP)
            return [Launch("gv_extreme", given, (min(rows, GROUPS), 1, 1), size)]
        return self._sum(c, flag, rows, length, (kept, kept_strides), (reduced, reduced_strides))

    def _sum(
        self, c: plan.Reduce, flag: int, rows: int, length: int, kept: tuple[Any, Any], reduced: tuple[Any, Any]
    ) -> list[Launch]:
        """A launch a level, each over the segments' sums of the one before."""
        x, x_dtype, partial = c.x, c.x_dtype, Dtype.f32 if c.x_dtype.is_float else Dtype.u32
        half = 4 * rows * -(-length // SEGMENT)  # bytes of the first level; levels take turns
        launches: list[Launch] = []
        while True:
            segments = -(-length // SEGMENT)
            last = segments == 1
            y = c.y if last else self._hold(2 * half) + half * (len(launches) % 2)
            y_dtype = c.y_dtype if last else partial
            given = (
                x, y, rows, length, x_dtype.code, y_dtype.code, 0, segments, flag, *_axes(*kept), *_axes(*reduced),
            )  # fmt: skip
            if kept[1][-1] == 1 and reduced[1][-1] != 1:
                launches.append(Launch("gv_sum_columns", given, (-(-rows // WARP), min(segments, GROUPS), 1), GROUP))
            else:
                launches += flat("gv_sum_rows", given, WARP * rows * segments)
            if last:
                return launches
            x, x_dtype, length = y, partial, segments
            kept, reduced = ((rows,), (segments,)), ((segments,), (1,))

    def _copy(self, c: plan.Copy, flag: int) -> list[Launch]:
        return copy(c.size, c.shape, c.source_strides, c.target_strides, c.source, c.target)

    def _fill(self, c: plan.Fill, flag: int) -> list[Launch]:
        return flat("gv_fill", (c.target, c.size, c.count, c.bits), c.count)

    def _gather(self, c: plan.Gather, flag: int) -> list[Launch]:
        given = (c.data, c.index, c.out, c.rows, c.row, c.count, c.dtype.size, plan.OUTSIDE.get(c.dtype, 0))
        return flat("gv_gather", given, c.count * c.row)

    def _keys(self, x: int, dtype: Dtype, rows: int, row: int, targets: int, out: int) -> tuple[int, ...]:
        """What the kernels of sort are given, but for the step; the keys lie in scratch memory."""
        padded = max(2, 1 << (row - 1).bit_length())
        return (x, self._hold(8 * rows * padded), out, dtype.code, rows, row, padded, targets)

    def _sorted(self, keys: tuple[int, ...]) -> list[Launch]:
        rows, padded = keys[4], keys[6]
        total = rows * padded
        launches = flat("gv_sort_keys", (*keys, 0, 0), total)
        tiles = (min(-(-total // SORT_TILE), GROUPS), 1, 1)
        launches.append(Launch("gv_sort_tile", (*keys, 0, 0), tiles, GROUP))
        size = 2 * SORT_TILE
        while size <= padded:
            distance = size // 2
            while distance >= SORT_TILE:
                launches += flat("gv_sort_step", (*keys, size, distance), total // 2)
                distance //= 2
            launches.append(Launch("gv_sort_tile", (*keys, size, 0), tiles, GROUP))
            size *= 2
        return launches

    def _scatter_add(self, c: plan.ScatterAdd, flag: int) -> list[Launch]:
        launches, at = [], 0
        if c.rows * c.row and c.count:
            keys = self._keys(c.index, Dtype.i32, 1, c.count, min(c.rows, 1 << 31), 0)
            launches, at = self._sorted(keys), keys[1]
        given = (c.source, at, c.out, c.rows, c.row, c.count, c.source_dtype.code, c.out_dtype.code, flag)
        return launches + flat("gv_scatter_add", given, c.rows * c.row)

    def _random(self, c: plan.Random, flag: int) -> list[Launch]:
        return flat("gv_random", (c.seed, c.step, c.out, c.stream, c.count, 0), -(-c.count // 4))

    def _sort(self, c: plan.Sort, flag: int) -> list[Launch]:
        if c.rows * c.row == 0:
            return []
        keys = self._keys(c.x, c.dtype, c.rows, c.row, 0, c.out)
        return [*self._sorted(keys), *flat("gv_sort_positions", (*keys, 0, 0), c.rows * c.row)]

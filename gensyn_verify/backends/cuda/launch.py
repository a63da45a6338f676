"""Calls of a plan as launches of kernels. Which kernel, which grid, which scratch memory: all of it is decided here.

A shipped kernel (csrc/cuda) takes one struct of 64-bit words, a kernel written for the plan (`ptx`, `rows`) one address
a parameter, a shipped kernel with an epilogue both. Scratch memory lies behind the arena; launches run one after the
other, so all use the same.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gensyn_verify.backends.cuda import epilogue, kernels, ptx, rows
from gensyn_verify.backends.cuda.rows import SEGMENT
from gensyn_verify.backends.device.plan import (
    ALIGN,
    OUTSIDE,
    Call,
    Copy,
    Dot,
    Epilogue,
    Fill,
    Gather,
    Map,
    Plan,
    Random,
    Reduce,
    Region,
    Rows,
    Scan,
    ScatterAdd,
    Sort,
    View,
    collapse,
)
from gensyn_verify.errors import LimitError
from gensyn_verify.program.ops import REDUCTIONS
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype, Reg

THREADS = 256
MAX_AXES = 16
SORT_TILE = 2048
DOT_BLOCK, DOT_STEP, DOT_PAD = 128, 16, 4
DOT_TILES = {"large": (128, 128, 64), "medium": (128, 64, 32), "small": (64, 64, 16), "thin": (16, 64, 4)}
INT8_EDGE, INT8_SHARED = 64, 4 * 4 * 16 * (64 + 4)  # rows and columns of a tile; bytes of two tiles of each operand
MOST_DOT = (1 << 26) - 1  # m, n and k, whose products with a thread's stride are 32 bits wide
MOST_PARTIAL_BYTES = 1 << 28  # of the chains of a split dot
_GRID_Z = 65535
_IDENTITY = ScalarProgram((Reg.f32,), (), (), (0,))


@dataclass(frozen=True)
class Launch:
    """`module` is one of `Launches.modules`, else one that ships. Parameters are packed as the kernel takes them."""

    module: str
    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    parameters: tuple[bytes, ...]


def _words(*values: int) -> bytes:
    return b"".join(struct.pack("<Q" if v >= 1 << 63 else "<q", v) for v in values)


def _axes(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    shape, strides = (list(shape), list(strides)) if shape else ([1], [0])
    rest = [0] * (MAX_AXES - len(shape))
    return (len(shape), *shape, *rest, *strides, *rest)


def _offsets(call: Map | Scan) -> list[int]:
    return [v.offset for v in (*call.inputs, *call.outputs)]


def _blocks(count: int, threads: int = THREADS) -> tuple[int, int, int]:
    """A grid for `count` threads, which walk on where there are more elements than threads."""
    return (max(1, min(-(-count // threads), 1 << 20)), 1, 1)


@dataclass
class Launches:
    """The launches of a plan whose arena begins at `base`, on a device of so many multiprocessors."""

    plan: Plan
    base: int
    multiprocessors: int
    shared_bytes: int
    capability: int
    launches: list[Launch] = field(default_factory=list)
    kernels: dict[Map | Scan | Rows, ptx.Kernel] = field(default_factory=dict)  # written for this plan
    # Made of shipped kernels, by module, kernel and call: name and text.
    fused: dict[tuple[str, str, Epilogue], tuple[str, str]] = field(default_factory=dict)
    scratch_bytes: int = 0

    def __post_init__(self) -> None:
        for call in self.plan.calls:
            self._used = 0
            self.add(call)

    @property
    def modules(self) -> dict[str, str]:
        """The modules that were made for this plan, by name: "" has what was written, "+NAME" what was made of NAME."""
        written = {kernel.name: kernel.text for kernel in self.kernels.values()}
        texts = {"": ptx.HEADER + "".join(written.values())} if written else {}
        for module in sorted({of for of, *_ in self.fused}):
            entries = dict(named for (of, *_), named in self.fused.items() if of == module)
            texts[f"+{module}"] = epilogue.head(kernels.text(module, self.capability)) + "".join(entries.values())
        return texts

    def moved(self, base: int) -> Launches:
        """The same for an arena elsewhere."""
        shape = (self.multiprocessors, self.shared_bytes, self.capability)
        return Launches(self.plan, base, *shape, kernels=self.kernels, fused=self.fused)

    @property
    def programs(self) -> tuple[ScalarProgram, ...]:
        return self.plan.program.scalar_programs

    @property
    def scratch_begin(self) -> int:
        return self.base + -(-self.plan.arena_bytes // ALIGN) * ALIGN

    @property
    def total_bytes(self) -> int:
        """Arena and scratch."""
        return self.scratch_begin - self.base + self.scratch_bytes

    def scratch(self, nbytes: int) -> int:
        """The address of scratch memory that is free until the call's launches end."""
        at = self.scratch_begin + self._used
        self._used += -(-nbytes // ALIGN) * ALIGN
        self.scratch_bytes = max(self.scratch_bytes, self._used)
        return at

    def add(self, call: Call | Region) -> None:
        match call:
            case Map():
                self.map(call, self.programs[call.program])
            case Scan():
                scalar = self.programs[call.program]
                self._written(call, _offsets(call), lambda: ptx.scan_kernel(call, scalar))
            case Rows():
                self._written(
                    call, rows.views(call), lambda: rows.rows_kernel(call, self.programs, self.multiprocessors)
                )
            case Dot():
                self.dot(call)
            case Epilogue():
                self.dot(call.dot, call)
            case Reduce():
                self.reduce(call)
            case Copy():
                self.copy(call)
            case Fill():
                words = _words(self.base + call.target, call.size, call.count, call.bits)
                self._shipped("move", "gv_fill", _blocks(call.count), 0, words)
            case Gather():
                data, index, out = (self.base + offset for offset in (call.data, call.index, call.out))
                words = _words(
                    data, index, out, call.rows, call.row, call.count, call.dtype.size, OUTSIDE.get(call.dtype, 0)
                )
                self._shipped("move", "gv_gather", _blocks(call.count * call.row), 0, words)
            case ScatterAdd():
                self.scatter_add(call)
            case Random():
                words = _words(
                    *(self.base + offset for offset in (call.seed, call.step, call.out)), call.stream, 0, call.count
                )
                self._shipped("random", "gv_random", _blocks(-(-call.count // 4)), 0, words)
            case Sort():
                keys, padded = self.sort(self.base + call.x, call.dtype, call.rows, call.row)
                words = self._sort_words(0, keys, self.base + call.out, call.dtype, call.rows, call.row, padded)
                self._shipped("sort", "gv_sort_positions", _blocks(call.rows * call.row), 0, words)

    def _shipped(
        self, module: str, kernel: str, grid: tuple[int, int, int], shared: int, words: bytes, threads: int = THREADS
    ) -> None:
        self.launches.append(Launch(module, kernel, grid, threads, shared, (words,)))

    def _written(self, call: Map | Scan | Rows, offsets: Sequence[int], write: Callable[[], ptx.Kernel]) -> None:
        """A kernel for this call, which takes the addresses of these offsets."""
        if call not in self.kernels:
            self.kernels[call] = write()
        kernel, addresses = self.kernels[call], tuple(_words(self.base + offset) for offset in offsets)
        self.launches.append(Launch("", kernel.name, (kernel.blocks, 1, 1), kernel.threads, kernel.shared, addresses))

    def map(self, call: Map, scalar: ScalarProgram) -> None:
        self._written(call, _offsets(call), lambda: ptx.map_kernel(call, scalar))

    def _ending(
        self, module: str, kernel: str, grid: tuple[int, int, int], shared: int, words: bytes, first: int,
        call: Epilogue | None,
    ) -> None:  # fmt: skip
        """A shipped kernel of dot, which computes elements of c from number `first` on, with the call's epilogue."""
        if call is None:
            self._shipped(module, kernel, grid, shared, words)
            return
        key = module, kernel, call
        if key not in self.fused:
            self.fused[key] = epilogue.with_epilogue(kernels.text(module, self.capability), kernel, call, self.programs)
        addresses = (_words(self.base + view.offset) for view in epilogue.views(call))
        name, _ = self.fused[key]
        self.launches.append(Launch(f"+{module}", name, grid, THREADS, shared, (words, _words(first), *addresses)))

    # ---- dot

    def dot(self, d: Dot, ending: Epilogue | None = None) -> None:
        if max(d.m, d.n, d.k) > MOST_DOT:
            raise LimitError(f"a dot of {d.m} x {d.n} x {d.k} on cuda: the limit of each is {MOST_DOT}; use cpu")
        if d.a_dtype is Dtype.i8:
            self.dot_int8(d)
            return
        a, b, dtype = self.base + d.a, self.base + d.b, d.a_dtype
        if d.a_dtype is not d.b_dtype:  # there are kernels for equal dtypes only
            a, b, dtype = (
                self._widened(d.a, d.a_dtype, d.m * d.k, d.batch if d.a_batch_stride else 1),
                self._widened(d.b, d.b_dtype, d.k * d.n, d.batch if d.b_batch_stride else 1),
                Dtype.f32,
            )
        blocks = max(1, (d.k + DOT_BLOCK // 2 - 1) // DOT_BLOCK)
        size = self.dot_size(d, dtype)
        rows, columns, _ = DOT_TILES[size]
        tiles = (-(-d.m // rows), -(-d.n // columns))
        if tiles[1] > _GRID_Z:
            raise LimitError(
                f"a dot with {d.n} columns on cuda: the limit of these tiles is {_GRID_Z * columns}; use cpu"
            )
        count = d.batch * d.m * d.n
        split = (
            blocks > 1
            and tiles[0] * tiles[1] * d.batch < self.multiprocessors
            and 4 * blocks * count <= MOST_PARTIAL_BYTES
            and blocks * d.batch <= _GRID_Z
        )
        out, out_dtype = self.base + d.c, d.c_dtype
        if ending is not None:
            stored = epilogue.stored(ending)
            out = self.base + stored.offset if stored else self.scratch(4 * count)
            out_dtype = stored.dtype if stored else Dtype.f32
        c = self.scratch(4 * blocks * count) if split else out
        shared = self.dot_shared(size, blocks > 1 and not split)
        kernel = f"gv_dot_{size}_{dtype.name}_{'nt'[d.transpose_a]}{'nt'[d.transpose_b]}"
        strides = d.a_batch_stride, d.b_batch_stride
        vectors = [
            transposed and length % 4 == 0 and at % 16 == 0 and stride % 4 == 0
            for transposed, length, at, stride in (
                (d.transpose_a, d.m, a, strides[0]), (not d.transpose_b, d.n, b, strides[1]),
            )
        ]  # fmt: skip
        for first in range(0, d.batch, _GRID_Z):
            batch = min(d.batch - first, _GRID_Z)
            words = _words(
                a + first * strides[0] * dtype.size, b + first * strides[1] * dtype.size,
                c + first * d.m * d.n * (4 if split else out_dtype.size), batch, d.m, d.n, d.k, *strides,
                Dtype.f32.code if split else out_dtype.code, *vectors, split,
            )  # fmt: skip
            grid = (*tiles, batch * (blocks if split else 1))
            one = None if split else ending
            self._ending(f"dot_{dtype.name}", kernel, grid, shared, words, first * d.m * d.n, one)
        if split:
            words = _words(c, out, blocks, count, out_dtype.code)
            self._ending("dot_f32", "gv_dot_fold", _blocks(count), 0, words, 0, ending)

    def dot_int8(self, d: Dot) -> None:
        a, b, strides = self.base + d.a, self.base + d.b, (d.a_batch_stride, d.b_batch_stride)
        contiguous = d.m if d.transpose_a else d.k, d.k if d.transpose_b else d.n
        words = [
            at % 4 == length % 4 == stride % 4 == 0
            for at, length, stride in zip((a, b), contiguous, strides, strict=True)
        ]
        tiles = -(-d.m // INT8_EDGE) * -(-d.n // INT8_EDGE)
        kernel = f"gv_dot_int8_{'nt'[d.transpose_a]}{'nt'[d.transpose_b]}"
        for first in range(0, d.batch, _GRID_Z):
            c = self.base + d.c + first * d.m * d.n * 4
            given = _words(a + first * strides[0], b + first * strides[1], c, d.m, d.n, d.k, *strides, *words)
            self._shipped("dot_int8", kernel, (tiles, 1, min(d.batch - first, _GRID_Z)), INT8_SHARED, given)

    def _widened(self, offset: int, dtype: Dtype, count: int, batch: int) -> int:
        """The address of the operand's matrices, which lie one after the other, in f32."""
        if dtype is Dtype.f32:
            return self.base + offset
        shape = (batch * count,)
        at = self.scratch(4 * batch * count)
        call = Map(0, shape, (View(offset, dtype, (1,)),), (View(at - self.base, Dtype.f32, (1,)),))
        self.map(call, _IDENTITY)
        return at

    @staticmethod
    def dot_shared(size: str, totals: bool) -> int:
        """Bytes of shared memory: two tiles of each operand, and the totals where there are several blocks of k."""
        rows, columns, each = DOT_TILES[size]
        return 4 * (2 * DOT_STEP * (rows + columns + 2 * DOT_PAD) + (each * THREADS if totals else 0))

    def dot_size(self, d: Dot, dtype: Dtype) -> str:
        """The largest tile that leaves no multiprocessor idle, and of which two fit one's shared memory."""
        if d.m <= 16:
            return "thin"
        large = dtype is Dtype.f32 and self.capability >= 80 and self.shared_bytes >= self.dot_shared("large", True)
        for size in ("large", "medium") if large else ("medium",):
            rows, columns, _ = DOT_TILES[size]
            tiles = -(-d.m // rows) * -(-d.n // columns) * d.batch
            if tiles >= self.multiprocessors and d.m > rows // 2 and d.n > columns // 2:
                return size
        return "small"

    # ---- reduce

    def reduce(self, r: Reduce) -> None:
        shape, (strides,) = collapse(r.kept_shape, [r.kept_strides])
        length_shape, (length_strides,) = collapse(r.reduced_shape, [r.reduced_strides])
        rows, length = math.prod(r.kept_shape), math.prod(r.reduced_shape)
        kept, reduced = _axes(shape, strides), _axes(length_shape, length_strides)
        if REDUCTIONS[r.op] != "sum":
            threads = min(THREADS, max(32, 1 << (length - 1).bit_length()))
            words = _words(
                self.base + r.x, self.base + r.y, rows, length, r.x_dtype.code, r.y_dtype.code, r.op, 1, *kept, *reduced
            )
            self._shipped("reduce", "gv_extreme", (min(rows, 1 << 20), 1, 1), 8 * threads // 32, words, threads)
            return
        columns = rows >= 32 and strides[-1:] == (1,) and length_strides[-1:] != (1,)
        x, x_dtype = self.base + r.x, r.x_dtype
        wide = Dtype.f32 if x_dtype.is_float else Dtype.u32
        while True:
            segments = max(1, -(-length // SEGMENT))
            last = segments == 1
            y, y_dtype = (self.base + r.y, r.y_dtype) if last else (self.scratch(4 * rows * segments), wide)
            words = _words(x, y, rows, length, x_dtype.code, y_dtype.code, r.op, segments, *kept, *reduced)
            if columns:
                grid = (-(-rows // 32), min(segments, _GRID_Z), 1)
                self._shipped("reduce", "gv_sum_columns", grid, 4 * 8 * 32, words)
            else:
                self._shipped("reduce", "gv_sum_rows", _blocks(32 * rows * segments), 0, words)
            if last:
                return
            x, x_dtype, length, columns = y, y_dtype, segments, False
            kept, reduced = _axes([rows], [segments]), _axes([segments], [1])

    # ---- copy, scatter_add, sort

    def copy(self, c: Copy) -> None:
        count = math.prod(c.shape)
        shape, (source, target) = collapse(c.shape, [c.source_strides, c.target_strides])
        if len(shape) == 2:
            shape, source, target = (1, *shape), (0, *source), (0, *target)
        swapped = len(shape) == 3 and shape[0] <= _GRID_Z and min(shape[1:]) >= 8 and source[1] == target[2] == 1
        swapped = swapped and shape[2] // 32 < _GRID_Z
        words = _words(
            self.base + c.source, self.base + c.target, c.size, count, *_axes(shape, source), *_axes(shape, target)
        )
        if swapped:
            grid = (-(-shape[1] // 32), -(-shape[2] // 32), shape[0])
            self._shipped("move", "gv_transpose", grid, 4 * 32 * 33, words)
        else:
            self._shipped("move", "gv_copy", _blocks(count), 0, words)

    def scatter_add(self, s: ScatterAdd) -> None:
        index, source, out = (self.base + offset for offset in (s.index, s.source, s.out))
        keys, _ = self.sort(index, Dtype.i32, 1, s.count, targets=s.rows)
        words = _words(source, keys, out, s.rows, s.row, s.count, s.source_dtype.code, s.out_dtype.code)
        self._shipped("move", "gv_scatter_add", _blocks(s.rows * s.row), 0, words)

    @staticmethod
    def _sort_words(
        x: int, keys: int, out: int, dtype: Dtype, rows: int, row: int, padded: int, size: int = 0, distance: int = 0,
        targets: int = 0,
    ) -> bytes:  # fmt: skip
        return _words(x, keys, out, dtype.code, rows, row, padded, size, distance, targets)

    def sort(self, x: int, dtype: Dtype, rows: int, row: int, targets: int = 0) -> tuple[int, int]:
        """Sorted keys of every row: their address, and how many a row has with those that fill it up."""
        padded = 1 << max(row - 1, 0).bit_length()
        whole = -(-rows * padded // SORT_TILE)
        keys = self.scratch(8 * whole * SORT_TILE)
        tiles = (min(whole, 1 << 20), 1, 1)

        def words(size: int = 0, distance: int = 0) -> bytes:
            return self._sort_words(x, keys, 0, dtype, rows, row, padded, size, distance, targets)

        self._shipped("sort", "gv_sort_keys", _blocks(whole * SORT_TILE), 0, words())
        self._shipped("sort", "gv_sort_tile", tiles, 8 * SORT_TILE, words())
        size = 2 * SORT_TILE
        while size <= padded:
            distance = size // 2
            while distance >= SORT_TILE:
                self._shipped("sort", "gv_sort_step", _blocks(rows * padded // 2), 0, words(size, distance))
                distance //= 2
            self._shipped("sort", "gv_sort_tile", tiles, 8 * SORT_TILE, words(size))
            size *= 2
        return keys, padded

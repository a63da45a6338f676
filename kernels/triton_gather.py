"""Rows by index, and the transpose, without atomics.

`scatter_kernel` adds the source rows of one target row in ascending order from +0, as docs/numerics.md, section 8,
says: the indices were sorted by (index, position) with triton_sort, so those of one target lie together, in order.
"""

import triton
import triton.language as tl

from gensyn_verify.kernels.triton_scalar import narrow, widen


@triton.jit
def gather_kernel(
    data, index, out, count, rows, row, OUTSIDE: tl.constexpr, INDICES: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[i, :] = data[index[i], :], bits untouched; OUTSIDE, the element's bits, where the index is in no row."""
    tiles = (row + COLUMNS - 1) // COLUMNS
    i = (tl.program_id(0) // tiles).to(tl.int64) * INDICES + tl.arange(0, INDICES)
    j = (tl.program_id(0) % tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    at = tl.load(index + i, mask=i < count, other=0).to(tl.int64)
    known = (at >= 0) & (at < rows)
    there = (i < count)[:, None] & (j < row)[None, :]
    x = tl.load(data + at[:, None] * row + j[None, :], mask=there & known[:, None], other=OUTSIDE)
    tl.store(out + i[:, None] * row + j[None, :], x, mask=there)


@triton.jit
def _larger(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def _first(keys, padded, target):
    """The number of keys whose upper half is below `target`: where the first of `target` stands, by halving."""
    low = target * 0
    high = low + padded
    while tl.reduce(high - low, 0, _larger) > 0:
        middle = (low + high) // 2
        open_ = low < high
        key = tl.load(keys + middle, mask=open_, other=0).to(tl.uint64, bitcast=True)
        below = open_ & ((key >> 32).to(tl.int64) < target)
        low = tl.where(below, middle + 1, low)
        high = tl.where(open_ & ~below, middle, high)
    return low


@triton.jit
def scatter_kernel(
    source, keys, out, rows, row, padded, X: tl.constexpr, Y: tl.constexpr, TARGETS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[r, :] = ((+0 + source[p0, :]) + source[p1, :]) ... over the sorted keys (r, p)."""
    tiles = (row + COLUMNS - 1) // COLUMNS
    r = (tl.program_id(0) // tiles).to(tl.int64) * TARGETS + tl.arange(0, TARGETS)
    j = (tl.program_id(0) % tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    first = _first(keys, padded, r)
    count = _first(keys, padded, r + 1) - first
    zero = tl.full((TARGETS, COLUMNS), 0, tl.int32)
    if X == "f32" or X == "bf16" or X == "f16":
        acc = zero.to(tl.float32)
    elif X == "i32":
        acc = zero
    else:
        acc = zero.to(tl.uint32)
    for t in range(0, tl.reduce(count, 0, _larger)):
        more = (t < count) & (r < rows)
        position = tl.load(keys + first + t, mask=more, other=0) & 0xFFFFFFFF
        there = more[:, None] & (j < row)[None, :]
        x = widen(tl.load(source + position[:, None] * row + j[None, :], mask=there, other=0), X)
        acc = tl.where(there, acc + x, acc)
    place = out + r[:, None] * row + j[None, :]
    tl.store(place, narrow(acc, Y), mask=(r < rows)[:, None] & (j < row)[None, :])

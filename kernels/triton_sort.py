"""Sorting by a bitonic network over integer keys (order_key of the value, position).

No two keys are equal, so there is one result and the network's order of exchanges does not matter; ascending keys are
the stable order of docs/numerics.md, section 10. Rows are padded to a power of two with keys that have all bits
set, above all others, because positions stay below 2^31.
"""

import triton
import triton.language as tl

from gensyn_verify.kernels.triton_scalar import order_key, widen


@triton.jit
def key_kernel(x, keys, row, padded, total, X: tl.constexpr, LIMIT: tl.constexpr, BLOCK: tl.constexpr):
    """keys[r, i] of x[r, i], i64; LIMIT: x are indices, and one outside of 0 to LIMIT - 1 gets no key (-1: values)."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    i = e % padded
    there = (e < total) & (i < row)
    value = widen(tl.load(x + e // padded * row + i, mask=there, other=0), X)
    if LIMIT >= 0:
        key = value.to(tl.uint32, bitcast=True)
        there = there & (value >= 0) & (value < LIMIT)
    else:
        key = order_key(value, True)
    key = (key.to(tl.uint64) << 32) | i.to(tl.uint64)
    tl.store(keys + e, tl.where(there, key.to(tl.int64, bitcast=True), -1), mask=e < total)


@triton.jit(do_not_specialize=["size", "stride"])
def exchange_kernel(keys, pairs, padded, size, stride, BLOCK: tl.constexpr):
    """One step of the network: elements `stride` apart are put in order, ascending in even runs of `size`
    in a row.
    """
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = p < pairs
    i = p // stride * 2 * stride + p % stride
    a = tl.load(keys + i, mask=inside, other=0).to(tl.uint64, bitcast=True)
    b = tl.load(keys + i + stride, mask=inside, other=0).to(tl.uint64, bitcast=True)
    swap = (a > b) == (i % padded // size % 2 == 0)
    tl.store(keys + i, tl.where(swap, b, a).to(tl.int64, bitcast=True), mask=inside)
    tl.store(keys + i + stride, tl.where(swap, a, b).to(tl.int64, bitcast=True), mask=inside)


@triton.jit
def position_kernel(keys, out, row, padded, total, BLOCK: tl.constexpr):
    """out[r, k], i32: the position in the key of rank k."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = e < total
    key = tl.load(keys + e // row * padded + e % row, mask=inside, other=0)
    tl.store(out + e, key.to(tl.int32), mask=inside)

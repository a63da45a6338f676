"""Reductions of docs/numerics.md, section 6.

Sums of floats: lanes start at -0, the identity of addition; element i of a segment of 2,048 goes to lane i mod 64, in
ascending order; then lane l takes lane l + h for h = 32, 16, 8, 4, 2, 1. A pass leaves one value a segment, the next
pass sums those by the same rule, until one is left. A place beyond the last element adds -0, which changes no bit.

The others have no order. Integers wrap. max and min are the largest of integer keys that ascend with the values (NaN
on top); argmax and argmin the largest of (key, complement of the position), so the lowest position wins.
"""

import triton
import triton.language as tl

from gensyn_verify.kernels.triton_scalar import from_order_key, narrow, offset, order_key, widen

LANES = 64
SEGMENT = 2048


@triton.jit
def nothing(ROWS: tl.constexpr, OP: tl.constexpr, REG: tl.constexpr):
    """[ROWS, 64] accumulators of no values."""
    if OP == "argmax" or OP == "argmin":
        return tl.full((ROWS, 64), 0, tl.uint64)
    elif OP == "sum" and REG == "f32":
        return tl.full((ROWS, 64), -0.0, tl.float32)
    else:
        return tl.full((ROWS, 64), 0, tl.uint32)


@triton.jit
def enter(x, position, OP: tl.constexpr):
    """The accumulator of one value: f32 or u32 (sum), a key, or (key, complement of the position)."""
    if OP == "sum":
        if x.dtype == tl.float32:
            return x
        else:
            return x.to(tl.uint32, bitcast=True)
    else:
        key = order_key(x, OP == "argmax" or OP == "argmin")
        if OP == "min" or OP == "argmin":
            if x.dtype == tl.float32:
                key = tl.where(key == 0xFFFFFFFF, key, ~key)  # NaN stays on top
            else:
                key = ~key
        if OP == "argmax" or OP == "argmin":
            return (key.to(tl.uint64) << 32) | (0xFFFFFFFF - position).to(tl.uint64)
        else:
            return key


@triton.jit
def leave(acc, OP: tl.constexpr, REG: tl.constexpr):
    """The register of the result."""
    if OP == "argmax" or OP == "argmin":
        return (~acc).to(tl.uint32).to(tl.int32, bitcast=True)
    elif OP == "max":
        return from_order_key(acc, REG)
    elif OP == "min":
        if REG == "f32":
            return from_order_key(tl.where(acc == 0xFFFFFFFF, acc, ~acc), REG)
        else:
            return from_order_key(~acc, REG)
    elif REG == "i32":
        return acc.to(tl.int32, bitcast=True)
    else:
        return acc


@triton.jit
def join(a, b, OP: tl.constexpr):
    if OP == "sum":
        return a + b
    else:
        return tl.where(a > b, a, b)


@triton.jit
def fold(lanes, OP: tl.constexpr, ROWS: tl.constexpr):
    """[ROWS, 64] to [ROWS]: the upper half onto the lower, six times."""
    for h in tl.static_range(6):
        low, high = tl.split(tl.permute(tl.reshape(lanes, (ROWS, 2, 32 >> h)), (0, 2, 1)))
        lanes = join(low, high, OP)
    return tl.reshape(lanes, (ROWS,))


@triton.jit
def reduce_kernel(
    x, y, rows, n, segments, OP: tl.constexpr, REG: tl.constexpr, X: tl.constexpr, Y: tl.constexpr,
    KEPT: tl.constexpr, KEPT_STRIDES: tl.constexpr, REDUCED: tl.constexpr, REDUCED_STRIDES: tl.constexpr,
    ROWS: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """One segment of ROWS rows: y[row, segment] of x[row, segment * LENGTH ...].

    X and Y are storage dtypes, or "" for accumulators of the pass before or the next one.
    """
    blocks = (rows + ROWS - 1) // ROWS
    row = (tl.program_id(0) % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    segment = (tl.program_id(0) // blocks).to(tl.int64)
    start = segment * LENGTH
    lane = tl.arange(0, 64)
    base = x + offset(row, KEPT, KEPT_STRIDES)
    none = nothing(ROWS, OP, REG)
    lanes = none
    for i in range(0, (tl.where(n - start < LENGTH, n - start, LENGTH) + 63) // 64):
        e = start + i * 64 + lane
        there = (row < rows)[:, None] & (e < n)[None, :]
        loaded = tl.load(base[:, None] + offset(e, REDUCED, REDUCED_STRIDES)[None, :], mask=there, other=0)
        if X == "":
            value = loaded.to(lanes.dtype, bitcast=True)
        else:
            value = enter(widen(loaded, X), e[None, :], OP)
        lanes = join(lanes, tl.where(there, value, none), OP)
    result = fold(lanes, OP, ROWS)
    if OP == "sum" and REG == "f32":
        result = tl.where(n == 0, 0.0, result)  # the empty sum is +0, though lanes begin at -0
    place = y + row * segments + segment
    if Y != "":
        tl.store(place, narrow(leave(result, OP, REG), Y), mask=row < rows)
    else:
        tl.store(place, result.to(y.dtype.element_ty, bitcast=True), mask=row < rows)

"""Strided copies and fills: elements move as integers of their width."""

import triton
import triton.language as tl

from gensyn_verify.kernels.triton_scalar import offset


@triton.jit
def copy_kernel(
    source, target, n, SHAPE: tl.constexpr, SOURCE: tl.constexpr, TARGET: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """target[i . TARGET] = source[i . SOURCE] for the n multi-indices i of SHAPE."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if WIDE:
        e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + offset(e, SHAPE, SOURCE), mask=e < n, other=0)
    tl.store(target + offset(e, SHAPE, TARGET), x, mask=e < n)


@triton.jit
def fill_kernel(target, n, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """n elements with these bits, given as a signed number of the element's width."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + e, tl.full((BLOCK,), BITS, target.dtype.element_ty), mask=e < n)

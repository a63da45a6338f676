"""Philox4x32-10 (docs/numerics.md, section 9): a lane computes a block of four words from its counter."""

import triton
import triton.language as tl

from gensyn_verify.kernels.triton_scalar import mulhi_u32


@triton.jit(do_not_specialize=["stream", "first"])
def random_kernel(seed, step, out, stream, first, count, BLOCK: tl.constexpr):
    """Words first * 4 to first * 4 + count - 1 of the stream into `out`; `first` counts blocks of four words."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    block = (e + first).to(tl.uint64)
    c0 = block.to(tl.uint32)
    c1 = (block >> 32).to(tl.uint32)
    c2 = tl.full((BLOCK,), 0, tl.uint32) + stream.to(tl.uint32)
    c3 = tl.full((BLOCK,), 0, tl.uint32) + tl.load(step).to(tl.uint32, bitcast=True)
    k0 = tl.load(seed).to(tl.uint32, bitcast=True)
    k1 = tl.load(seed + 1).to(tl.uint32, bitcast=True)
    for _ in tl.static_range(10):
        high0 = mulhi_u32(c0, tl.full((BLOCK,), 0xD2511F53, tl.uint32))
        high1 = mulhi_u32(c2, tl.full((BLOCK,), 0xCD9E8D57, tl.uint32))
        low0 = c0 * 0xD2511F53
        low1 = c2 * 0xCD9E8D57
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    at = e * 4
    tl.store(out + at, c0.to(tl.int32, bitcast=True), mask=at < count)
    tl.store(out + at + 1, c1.to(tl.int32, bitcast=True), mask=at + 1 < count)
    tl.store(out + at + 2, c2.to(tl.int32, bitcast=True), mask=at + 2 < count)
    tl.store(out + at + 3, c3.to(tl.int32, bitcast=True), mask=at + 3 < count)

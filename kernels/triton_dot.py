"""Matrix products.

`dot_kernel`: the chains of docs/numerics.md, section 5. k is cut into blocks of 128, a remainder of at most 64 joins
the last; in a block one accumulator starts at +0 and takes acc = fma(a, b, acc) for ascending k, exactly over the
block's own length; block sums are added left to right. The total starts at -0, to which adding block 0 is exact.
A program has a tile of c and walks all of k: tl.dot on floats is another order (matrix units, or a tree).

`int8_kernel`: i8 x i8 -> i32 on matrix units. Sums of integers modulo 2^32 have no order, as long as none saturates.
"""

import triton
import triton.language as tl

from gensyn_verify.kernels.triton_scalar import narrow, widen

BLOCK_K = 128
UNROLL = 8
INT8_K = 64  # values of k in one product of matrix units
INT8_CHAIN = (1 << 16) // INT8_K  # 2^16 products of at most 2^14 each are far from 2^31


def leading_blocks(k: int) -> int:
    """How many blocks of 128 come before the last one, which has at most 192 values."""
    return max(0, -(-(k - BLOCK_K - BLOCK_K // 2) // BLOCK_K))


@triton.jit
def _chain(
    pa, pb, a_k, b_k, length, rows, columns, A: tl.constexpr, B: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    UNROLLED: tl.constexpr,
):  # fmt: skip
    """The chain over `length` values from pa and pb on, and where it ended.

    UNROLLED columns of a and rows of b at a time are loaded before the first is used, so that threads wait for
    memory once for all of them.
    """
    acc = tl.full((M, N), 0.0, tl.float32)
    for _ in range(0, length // UNROLLED):
        x = ()
        y = ()
        for _u in tl.static_range(UNROLLED):
            x = x + (tl.load(pa, mask=rows, other=0),)  # type: ignore[assignment]
            y = y + (tl.load(pb, mask=columns, other=0),)  # type: ignore[assignment]
            pa += a_k
            pb += b_k
        for u in tl.static_range(UNROLLED):
            acc = tl.fma(widen(x[u], A)[:, None], widen(y[u], B)[None, :], acc)
    for _ in range(0, length % UNROLLED):
        x = tl.load(pa, mask=rows, other=0)
        y = tl.load(pb, mask=columns, other=0)
        acc = tl.fma(widen(x, A)[:, None], widen(y, B)[None, :], acc)
        pa += a_k
        pb += b_k
    return acc, pa, pb


@triton.jit
def tile(
    a, b, m, n, leading, last, a_batch, a_m, a_k, b_batch, b_k, b_n, A: tl.constexpr, B: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, UNROLLED: tl.constexpr,
):  # fmt: skip
    """M x N elements c[s, i, j] over `leading` blocks of BLOCK and one of `last` values of k; their numbers; which of
    them exist.

    Programs: batch, then tiles of m, then of n. Strides count elements.
    """
    tiles_n = (n + N - 1) // N
    tiles = ((m + M - 1) // M) * tiles_n
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    i = (tile // tiles_n).to(tl.int64) * M + tl.arange(0, M)
    j = (tile % tiles_n).to(tl.int64) * N + tl.arange(0, N)
    rows = i < m
    columns = j < n
    pa = a + batch * a_batch + i * a_m
    pb = b + batch * b_batch + j * b_n
    total = tl.full((M, N), -0.0, tl.float32)
    for _ in range(0, leading):
        acc, pa, pb = _chain(pa, pb, a_k, b_k, BLOCK, rows, columns, A, B, M, N, UNROLLED)
        total = total + acc
    acc, pa, pb = _chain(pa, pb, a_k, b_k, last, rows, columns, A, B, M, N, UNROLLED)
    total = total + acc
    return total, batch * m * n + i[:, None] * n + j[None, :], rows[:, None] & columns[None, :]


@triton.jit
def dot_kernel(
    a, b, c, m, n, leading, last, a_batch, a_m, a_k, b_batch, b_k, b_n, A: tl.constexpr, B: tl.constexpr,
    C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, UNROLLED: tl.constexpr,
):  # fmt: skip
    """`tile` stored in c, contiguous."""
    total, e, inside = tile(
        a, b, m, n, leading, last, a_batch, a_m, a_k, b_batch, b_k, b_n, A, B, M, N, BLOCK, UNROLLED
    )
    tl.store(c + e, narrow(total, C), mask=inside)


@triton.jit
def int8_kernel(
    a, b, c, m, n, k, chains, a_batch, a_m, a_k, b_batch, b_k, b_n,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """c[s, m, n] i32 = a[s, m, k] b[s, k, n] of i8; programs and strides as in `tile`. Padding adds 0.

    Matrix units may saturate (mma.sync does as Triton writes it): no chain of theirs is longer than CHAIN steps of K.
    """
    tiles_n = (n + N - 1) // N
    tiles = ((m + M - 1) // M) * tiles_n
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    i = (tile // tiles_n).to(tl.int64) * M + tl.arange(0, M)
    j = (tile % tiles_n).to(tl.int64) * N + tl.arange(0, N)
    rows = (i < m)[:, None]
    columns = (j < n)[None, :]
    pa = a + batch * a_batch + i[:, None] * a_m
    pb = b + batch * b_batch + j[None, :] * b_n
    t = tl.arange(0, K).to(tl.int64)
    total = tl.full((M, N), 0, tl.int32)
    for chain in range(0, chains):
        acc = tl.full((M, N), 0, tl.int32)
        for _ in range(0, tl.where(chain + 1 < chains, CHAIN, (k - 1) // K % CHAIN + 1)):
            x = tl.load(pa + t[None, :] * a_k, mask=rows & (t < k)[None, :], other=0)
            y = tl.load(pb + t[:, None] * b_k, mask=(t < k)[:, None] & columns, other=0)
            acc = tl.dot(x.to(tl.int8, bitcast=True), y.to(tl.int8, bitcast=True), acc, out_dtype=tl.int32)
            t += K
        total += acc
    tl.store(c + batch * m * n + i[:, None] * n + j[None, :], total, mask=rows & columns)

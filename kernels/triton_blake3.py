"""BLAKE3 (hash mode) of bytes in device memory: chunks of 1,024 bytes, a lane each, then parents, a launch a level.

The odd last node of a level moves up as it is: BLAKE3's tree for any length. Integers only. The specification:
O'Connor, Aumasson, Neves, Wilcox-O'Hearn, BLAKE3: one function, fast everywhere, 2020.
"""

import triton
import triton.language as tl

CHUNK = 1024
WORDS = 8  # of a node
BLOCK = 128  # nodes a program


@triton.jit
def _rotate(x, N: tl.constexpr):
    return (x >> N) | (x << (32 - N))


@triton.jit
def _mix(a, b, c, d, x, y):
    a = a + b + x
    d = _rotate(d ^ a, 16)
    c = c + d
    b = _rotate(b ^ c, 12)
    a = a + b + y
    d = _rotate(d ^ a, 8)
    c = c + d
    b = _rotate(b ^ c, 7)
    return a, b, c, d


@triton.jit
def _start(zero):
    """The initial chaining value, in lanes like `zero` (u32)."""
    return (
        zero + 0x6A09E667, zero + 0xBB67AE85, zero + 0x3C6EF372, zero + 0xA54FF53A,
        zero + 0x510E527F, zero + 0x9B05688C, zero + 0x1F83D9AB, zero + 0x5BE0CD19,
    )  # fmt: skip


@triton.jit
def _compress(h, m, counter, length, flags):
    """The chaining value (8 words) of message block m (16 words) after h."""
    v0, v1, v2, v3, v4, v5, v6, v7 = h
    zero = flags * 0
    v8 = zero + 0x6A09E667
    v9 = zero + 0xBB67AE85
    v10 = zero + 0x3C6EF372
    v11 = zero + 0xA54FF53A
    v12 = counter.to(tl.uint32)
    v13 = (counter >> 32).to(tl.uint32)
    v14 = length
    v15 = flags
    for _ in tl.static_range(7):
        v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[0], m[1])
        v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[2], m[3])
        v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[4], m[5])
        v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[6], m[7])
        v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[8], m[9])
        v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[10], m[11])
        v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[12], m[13])
        v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[14], m[15])
        m = (
            m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13],
            m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8],
        )  # fmt: skip
    return v0 ^ v8, v1 ^ v9, v2 ^ v10, v3 ^ v11, v4 ^ v12, v5 ^ v13, v6 ^ v14, v7 ^ v15


@triton.jit
def _word(data, at, nbytes, inside):
    """Four bytes from `at` on (a multiple of 4), with zeros in the place of those from `nbytes` on."""
    left = nbytes - at
    word = tl.load(data + at // 4, mask=inside & (left > 0), other=0).to(tl.uint32, bitcast=True)
    kept = tl.where(left < 4, left, 4).to(tl.uint32)
    return tl.where(kept == 4, word, word & ((tl.full(word.shape, 1, tl.uint32) << (8 * (kept & 3))) - 1))


@triton.jit
def _store(nodes, at, h, inside):
    for i in tl.static_range(8):
        tl.store(nodes + at * 8 + i, h[i].to(tl.int32, bitcast=True), mask=inside)


@triton.jit(do_not_specialize=["nbytes", "chunks", "blocks"])
def chunk_kernel(data, nodes, nbytes, chunks, blocks, BLOCK: tl.constexpr):
    """nodes[chunk] of `nbytes` bytes at `data` (i32, readable to the end of its last word).

    No chunk has more than `blocks` blocks of 64 bytes; the empty input has one.
    """
    chunk = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = chunk < chunks
    start = chunk * 1024
    length = tl.where(nbytes - start < 1024, nbytes - start, 1024)
    zero = tl.full((BLOCK,), 0, tl.uint32)
    h = _start(zero)
    root = tl.where(zero + chunks.to(tl.uint32) == 1, zero + 8, zero)
    for block in range(0, blocks):
        at = start + block * 64
        left = length - block * 64
        here = inside & ((left > 0) | (block == 0))
        m = (
            _word(data, at, nbytes, here), _word(data, at + 4, nbytes, here),
            _word(data, at + 8, nbytes, here), _word(data, at + 12, nbytes, here),
            _word(data, at + 16, nbytes, here), _word(data, at + 20, nbytes, here),
            _word(data, at + 24, nbytes, here), _word(data, at + 28, nbytes, here),
            _word(data, at + 32, nbytes, here), _word(data, at + 36, nbytes, here),
            _word(data, at + 40, nbytes, here), _word(data, at + 44, nbytes, here),
            _word(data, at + 48, nbytes, here), _word(data, at + 52, nbytes, here),
            _word(data, at + 56, nbytes, here), _word(data, at + 60, nbytes, here),
        )  # fmt: skip
        first = tl.where(zero + block == 0, zero + 1, zero)
        last = tl.where(left <= 64, zero + 2 + root, zero)
        size = tl.where(left < 64, left, 64).to(tl.uint32)
        n = _compress(h, m, chunk, size, first | last)
        h = (
            tl.where(here, n[0], h[0]), tl.where(here, n[1], h[1]), tl.where(here, n[2], h[2]),
            tl.where(here, n[3], h[3]), tl.where(here, n[4], h[4]), tl.where(here, n[5], h[5]),
            tl.where(here, n[6], h[6]), tl.where(here, n[7], h[7]),
        )  # fmt: skip
    _store(nodes, chunk, h, inside)


@triton.jit(do_not_specialize=["count"])
def parent_kernel(nodes, parents, count, BLOCK: tl.constexpr):
    """parents[p] of nodes[2p] and nodes[2p + 1], `count` nodes in all; of two, the parent is the root."""
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    left = p * 2 < count
    right = p * 2 + 1 < count
    at = nodes + p * 16
    m = (
        _node(at, left), _node(at + 1, left), _node(at + 2, left), _node(at + 3, left),
        _node(at + 4, left), _node(at + 5, left), _node(at + 6, left), _node(at + 7, left),
        _node(at + 8, right), _node(at + 9, right), _node(at + 10, right), _node(at + 11, right),
        _node(at + 12, right), _node(at + 13, right), _node(at + 14, right), _node(at + 15, right),
    )  # fmt: skip
    zero = tl.full((BLOCK,), 0, tl.uint32)
    flags = tl.where(zero + count.to(tl.uint32) == 2, zero + 12, zero + 4)
    h = _compress(_start(zero), m, p * 0, zero + 64, flags)
    h = (
        tl.where(right, h[0], m[0]), tl.where(right, h[1], m[1]), tl.where(right, h[2], m[2]),
        tl.where(right, h[3], m[3]), tl.where(right, h[4], m[4]), tl.where(right, h[5], m[5]),
        tl.where(right, h[6], m[6]), tl.where(right, h[7], m[7]),
    )  # fmt: skip
    _store(parents, p, h, left)


@triton.jit
def _node(at, there):
    return tl.load(at, mask=there, other=0).to(tl.uint32, bitcast=True)

"""BLAKE3 in plain Python: the executable definition behind the native kernels, and what openings are verified with.

Only the default hash, with 32 bytes of output: no key, no derivation mode, no longer outputs. Names follow the paper
"BLAKE3: one function, fast everywhere", sections 2.1 to 2.6. A chunk is up to 1024 bytes, cut into blocks of 64; the
32-byte result of a chunk or of a pair of subtrees is its chaining value.
"""

from __future__ import annotations

BLOCK_BYTES = 64
CHUNK_BYTES = 1024
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8

_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
_MASK = 0xFFFFFFFF


def _rotate(word: int, n: int) -> int:
    return (word >> n | word << (32 - n)) & _MASK


def _mix(v: list[int], a: int, b: int, c: int, d: int, x: int, y: int) -> None:
    v[a] = (v[a] + v[b] + x) & _MASK
    v[d] = _rotate(v[d] ^ v[a], 16)
    v[c] = (v[c] + v[d]) & _MASK
    v[b] = _rotate(v[b] ^ v[c], 12)
    v[a] = (v[a] + v[b] + y) & _MASK
    v[d] = _rotate(v[d] ^ v[a], 8)
    v[c] = (v[c] + v[d]) & _MASK
    v[b] = _rotate(v[b] ^ v[c], 7)


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]


def compress(value: bytes, block: bytes, counter: int, flags: int) -> bytes:
    """The chaining value after `value` (32 bytes) has taken in `block` (at most 64 bytes)."""
    cv, m = _words(value), _words(block.ljust(BLOCK_BYTES, b"\0"))
    v = [*cv, *_IV[:4], counter & _MASK, counter >> 32, len(block), flags]
    for _ in range(7):
        for i, lanes in enumerate(_COLUMNS + _DIAGONALS):
            _mix(v, *lanes, m[2 * i], m[2 * i + 1])
        m = [m[p] for p in _PERMUTATION]
    return b"".join((v[i] ^ v[i + 8]).to_bytes(4, "little") for i in range(8))


_START = b"".join(word.to_bytes(4, "little") for word in _IV)


def chunk_value(chunk: bytes, index: int, is_root: bool = False) -> bytes:
    """The chaining value of chunk number `index`, or the root where it is the whole input."""
    blocks = [chunk[i : i + BLOCK_BYTES] for i in range(0, len(chunk), BLOCK_BYTES)] or [b""]
    value = _START
    for i, block in enumerate(blocks):
        flags = CHUNK_START if i == 0 else 0
        if i == len(blocks) - 1:
            flags |= CHUNK_END | (ROOT if is_root else 0)
        value = compress(value, block, index, flags)
    return value


def parent_value(left: bytes, right: bytes, is_root: bool = False) -> bytes:
    """The chaining value over two subtrees, or the root."""
    return compress(_START, left + right, 0, PARENT | (ROOT if is_root else 0))


def chunk_count(length: int) -> int:
    """Chunks of an input of `length` bytes; the empty input is one empty chunk."""
    return max(1, -(-length // CHUNK_BYTES))


def tree(data: bytes) -> list[list[bytes]]:
    """All levels: chunk chaining values, then parents of neighbours, an odd last node moving up; last the root."""
    count = chunk_count(len(data))
    if count == 1:
        return [[chunk_value(data, 0, is_root=True)]]
    levels = [[chunk_value(data[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES], i) for i in range(count)]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = zip(below[::2], below[1::2], strict=False)
        above = [parent_value(left, right, is_root=len(below) == 2) for left, right in pairs]
        levels.append(above + below[2 * len(above) :])
    return levels


def root(data: bytes) -> bytes:
    """The 32-byte BLAKE3 hash of `data`."""
    return tree(data)[-1][0]

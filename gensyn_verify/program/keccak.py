"""keccak-256 as the EVM computes it (original padding 0x01, not SHA-3's 0x06), in plain Python.

Source: the Keccak reference, version 3.0, sections 1.2 and 2. The commit package uses the native twin.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_RATE = 136  # bytes: 1600 - 2 * 256 bits


def _round_constants() -> list[int]:
    constants, lfsr = [], 1
    for _ in range(24):
        word = 0
        for j in range(7):
            if lfsr & 1:
                word |= 1 << ((1 << j) - 1)
            lfsr = (lfsr << 1) ^ (0x171 if lfsr & 0x80 else 0)
        constants.append(word)
    return constants


def _lane_walk() -> list[tuple[int, int, int]]:
    """(source lane, target lane, rotation) of the combined rho and pi steps; lane = x + 5 y."""
    walk, x, y = [(0, 0, 0)], 1, 0
    for t in range(24):
        rotation = (t + 1) * (t + 2) // 2 % 64
        walk.append((x + 5 * y, y + 5 * ((2 * x + 3 * y) % 5), rotation))
        x, y = y, (2 * x + 3 * y) % 5
    return walk


_ROUND_CONSTANTS = _round_constants()
_LANE_WALK = _lane_walk()


def _rotate(word: int, n: int) -> int:
    return ((word << n) | (word >> (64 - n))) & _MASK


def _permute(a: list[int]) -> list[int]:
    for constant in _ROUND_CONSTANTS:
        column = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
        theta = [column[(x - 1) % 5] ^ _rotate(column[(x + 1) % 5], 1) for x in range(5)]
        b = [0] * 25
        for source, target, rotation in _LANE_WALK:
            b[target] = _rotate(a[source] ^ theta[source % 5], rotation)
        a = [b[i] ^ (~b[i - i % 5 + (i + 1) % 5] & _MASK & b[i - i % 5 + (i + 2) % 5]) for i in range(25)]
        a[0] ^= constant
    return a


def keccak256(data: bytes) -> bytes:
    """The 32-byte keccak-256 of `data`."""
    padded = bytearray(data)
    padded.extend(bytes(_RATE - len(data) % _RATE))
    padded[len(data)] |= 0x01
    padded[-1] |= 0x80
    state = [0] * 25
    for start in range(0, len(padded), _RATE):
        for lane in range(_RATE // 8):
            state[lane] ^= int.from_bytes(padded[start + 8 * lane : start + 8 * lane + 8], "little")
        state = _permute(state)
    return b"".join(lane.to_bytes(8, "little") for lane in state[:4])

"""The committed order of batches: a permutation of the data's rows for every epoch, with random access.

Row position p of an epoch holds row `permutation(p)`. The permutation is a Feistel network with ten rounds of
Philox4x32-10 on Z_a x Z_b, where a = ceil(sqrt(rows)) and b = ceil(rows / a), and walks its cycle until the value is a
row (a * b exceeds rows by less than a, so a walk is rare). Random access matters twice: a verifier enters a run at any
step, and a contract can compute one row number without the rest.

    x = l * b + r
    round i even:  l = (l + F(i, r)) mod a        round i odd:  r = (r + F(i, l)) mod b
    F(i, v) = w0 + 2^32 w1 of the Philox block at counter (v, 2^31 + i, epoch low, epoch high), key = seed

Random nodes of a program count their blocks below 2^34, so their second counter word stays below 2^31 and no draw of
a sampler is ever a draw of a random node, even under one seed. An epoch has floor(rows / batch) steps; the rows
behind the last full batch of an epoch are left out in that epoch. Vectors: tests/vectors/sampler.json.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.reference import philox
from gensyn_verify.errors import MalformedError

ROUNDS = 10
MAX_ROWS = 1 << 36
MAX_BATCH = 1 << 28
AHEAD = 1 << 14  # rows computed at once: ten Philox calls cost the same for one row as for some thousands


@dataclass(frozen=True)
class Sampler:
    """Batches of `batch` of `rows` rows under `seed` (two u32 words)."""

    seed: tuple[int, int]
    rows: int
    batch: int
    _ahead: dict[int, Array] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 2 or any(not 0 <= s < 1 << 32 for s in self.seed):
            raise MalformedError(f"sampler seed {self.seed} is not two integers below 2^32")
        if not 1 <= self.batch <= min(self.rows, MAX_BATCH) or self.rows > MAX_ROWS:
            raise MalformedError(f"a batch of {self.batch} from {self.rows} rows; batch <= rows, 2^28, rows <= 2^36")

    @property
    def steps_per_epoch(self) -> int:
        return self.rows // self.batch

    def record(self) -> bytes:
        """What a task commits to: seed words u32 u32, rows u64, batch u64, big endian."""
        return struct.pack(">IIQQ", *self.seed, self.rows, self.batch)

    def indices(self, step: int) -> Array:
        """The row numbers of the batch of `step` (from 0): int64 [batch]."""
        if step not in self._ahead:
            epoch, position = divmod(step, self.steps_per_epoch)
            count = max(1, min(AHEAD // self.batch, self.steps_per_epoch - position))
            first = position * self.batch
            rows = permute(np.arange(first, first + count * self.batch), self.rows, self.seed, epoch)
            self._ahead.clear()
            self._ahead.update({step + i: r for i, r in enumerate(rows.reshape(count, self.batch))})
        return self._ahead[step]


def permute(positions: Array, rows: int, seed: tuple[int, int], epoch: int) -> Array:
    """The rows at these positions of the epoch's permutation."""
    a = math.isqrt(rows - 1) + 1
    b = -(-rows // a)
    out = _network(np.asarray(positions, np.int64), a, b, seed, epoch)
    while (outside := out >= rows).any():
        out[outside] = _network(out[outside], a, b, seed, epoch)
    return out


def _network(x: Array, a: int, b: int, seed: tuple[int, int], epoch: int) -> Array:
    left, right = x // b, x % b
    for i in range(ROUNDS):
        if i % 2 == 0:
            left = (left + _round(i, right, a, seed, epoch)) % a
        else:
            right = (right + _round(i, left, b, seed, epoch)) % b
    out: Array = left * b + right
    return out


def _round(i: int, value: Array, modulus: int, seed: tuple[int, int], epoch: int) -> Array:
    low, high = epoch & 0xFFFFFFFF, epoch >> 32
    rest = [np.full(value.shape, c, np.uint64) for c in ((1 << 31) + i, low, high)]
    w0, w1, _, _ = philox((value, *rest), seed)  # type: ignore[arg-type]
    word = w0.astype(np.uint64) | w1.astype(np.uint64) << np.uint64(32)
    out: Array = (word % np.uint64(modulus)).astype(np.int64)
    return out

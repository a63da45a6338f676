"""BLAKE3 of many byte ranges at once on a device: which nodes of which tree a launch computes.

A launch computes a level of all trees: first the chunks of 1,024 bytes, then parents of what the launch before left. A
level's odd last node moves up as it is, which is BLAKE3's tree for any length. What a launch needs to know of each
range is a row of five int64:

    begin | bytes | number of its first node in the level | its nodes in the level | number of its first parent
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from gensyn_verify.backends.arrays import Array

CHUNK, NODE = 1024, 32  # bytes


@dataclass(frozen=True)
class Forest:
    """The trees over `count` ranges. `nodes`: of every level, its total; `rows`: int64[levels, count, 5].

    The launch of the chunks reads the rows of level 0, that of level n + 1 the rows of level n.
    """

    count: int
    nodes: tuple[int, ...]
    rows: Array

    @property
    def node_bytes(self) -> tuple[int, int]:
        """Of the two buffers in which levels lie by turns, the chunks in the first."""
        return NODE * max(1, self.nodes[0]), NODE * max((1, *self.nodes[1:2]))

    @property
    def launches(self) -> list[tuple[int, int, int]]:
        """For every level: at which byte of `rows` its launch reads, the buffer that it fills (0 or 1), its nodes."""
        return [(self.rows[0].nbytes * max(n - 1, 0), n % 2, total) for n, total in enumerate(self.nodes)]

    def split(self, roots: bytes) -> list[bytes]:
        """The root of every range, from the buffer that was filled last."""
        return [roots[NODE * i : NODE * (i + 1)] for i in range(self.count)]


def forest(spans: Sequence[tuple[int, int]]) -> Forest:
    """The trees over byte ranges [begin, end); of an empty one too."""
    levels = [[max(1, -(-(end - begin) // CHUNK)) for begin, end in spans]]
    while max(levels[-1], default=1) > 1:
        levels.append([-(-n // 2) for n in levels[-1]])
    first = [[0, *accumulate(level)][:-1] for level in levels]
    rows = [
        [(begin, end - begin, *row) for (begin, end), *row in zip(spans, first[d], levels[d], parents, strict=True)]
        for d, parents in enumerate([*first[1:], first[-1]])
    ]
    return Forest(len(spans), tuple(map(sum, levels)), np.array(rows, np.int64).reshape(len(levels), len(spans), 5))

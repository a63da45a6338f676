"""Which consecutive maps and reductions run together, block of rows by block of rows.

A *region* is a run of nodes whose outputs all have the same number of rows (a row is what follows the leading axes),
where a row of any output depends on nothing that the region computes but the same row. So the rows may be computed in
blocks, small enough that what one node hands to the next stays in cache. Every element is still computed by the same
operations in the same order: fusion changes no bit.

Softmax, layer norm, losses and their gradients are regions around a reduction over the last axes; a chain of maps of
one shape is a region whose rows are single elements.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from gensyn_verify.backends.planning import Place, Root, row_major, view
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Program
from gensyn_verify.program.types import Shape, TensorType

LEAST_ELEMENTS = 1 << 14  # below, everything is in cache anyway
MOST_ROW_ELEMENTS = 1 << 16
BLOCK_ELEMENTS = 1 << 15  # of the widest value, a block of rows: a few of these fit the second cache level
MOST_NODES = 64


@dataclass(frozen=True)
class Region:
    """Nodes `first` to `last`, views among them, with `rows` rows, `block_rows` of them at a time.

    `streams` are values from outside that are read row by row: the next block's rows may be fetched in advance.
    """

    first: int
    last: int
    rows: int
    block_rows: int
    streams: tuple[int, ...]


def find_regions(program: Program, excluded: Collection[int]) -> list[Region]:
    """Disjoint regions in node order; nodes in `excluded` are in none."""
    finder = _Finder(program, excluded)
    # Reductions first: their rows are given, while a chain of maps may be cut in any way.
    for n, node in enumerate(program.nodes):
        if isinstance(node.op, ops.Reduce) and node.op.axes:
            finder.grow(n, math.prod(finder.places[node.inputs[0]].type.shape[: node.op.axes[0]]))
    for n, node in enumerate(program.nodes):
        if isinstance(node.op, ops.Map):
            finder.grow(n, math.prod(node.op.shape))
    return sorted(finder.regions, key=lambda r: r.first)


class _Finder:
    def __init__(self, program: Program, excluded: Collection[int]) -> None:
        self.program = program
        self.excluded = excluded
        self.regions: list[Region] = []
        self.taken: set[int] = set()
        self.places = _places(program)
        self.producer = {id(self.places[i].root): -1 for i in range(len(program.inputs))}
        for n, first in enumerate(program.first_value):
            for place in self.places[first : first + len(program.nodes[n].types)]:
                self.producer.setdefault(id(place.root), n)

    def grow(self, seed: int, rows: int) -> None:
        """Add the largest region of so many rows around the node `seed`, if it has two nodes that compute."""
        if rows < 2 or not self._is_region(seed, seed, rows):
            return
        first = last = seed
        while last - first < MOST_NODES and self._is_region(first, last + 1, rows):
            last += 1
        while last - first < MOST_NODES and self._is_region(first - 1, last, rows):
            first -= 1
        nodes = [n for n in range(first, last + 1) if self._computes(n)]
        widest = max(self._elements(n) for n in nodes)
        if len(nodes) > 1 and widest >= LEAST_ELEMENTS and widest // rows <= MOST_ROW_ELEMENTS:
            first, last = nodes[0], nodes[-1]
            block_rows = max(1, BLOCK_ELEMENTS * rows // widest)
            self.regions.append(Region(first, last, rows, block_rows, self._streams(nodes, first, rows)))
            self.taken.update(range(first, last + 1))

    def _computes(self, n: int) -> bool:
        return self.program.nodes[n].op.kind != "layout"

    def _elements(self, n: int) -> int:
        node = self.program.nodes[n]
        sizes = [t.elements for t in node.types]
        if isinstance(node.op, ops.Reduce):
            sizes.append(self.places[node.inputs[0]].type.elements)
        return max(sizes)

    def _streams(self, nodes: list[int], first: int, rows: int) -> tuple[int, ...]:
        found: dict[int, int] = {}
        for n in nodes:
            node = self.program.nodes[n]
            for v in node.inputs:
                root, read = self.places[v].root, self._as_read(node, v)
                lead = _leading_axes(read.type.shape, rows)
                if self.producer[id(root)] < first and lead is not None and _walks_rows(read, lead, rows):
                    found.setdefault(id(root), v)
        return tuple(found.values())

    def _is_region(self, first: int, last: int, rows: int) -> bool:
        return (
            first >= 0
            and last < len(self.program.nodes)
            and all(n not in self.taken and self._fits(n, first, rows) for n in range(first, last + 1))
        )

    def _fits(self, n: int, first: int, rows: int) -> bool:
        """Whether node n computes row by row, and reads what nodes from `first` on wrote row by row."""
        node = self.program.nodes[n]
        op = node.op
        if n in self.excluded or 0 in (t.elements for t in node.types):
            return False
        if op.kind == "layout":  # a view of something
            return self.producer[id(self.places[self.program.first_value[n]].root)] < n
        if isinstance(op, ops.Map):
            shape, axes = op.shape, len(op.shape)
        elif isinstance(op, ops.Reduce):
            shape = self.places[node.inputs[0]].type.shape
            axes = min(op.axes, default=len(shape))
        else:
            return False
        lead = _leading_axes(shape, rows)
        if lead is None or lead > axes:
            return False
        return all(
            self.producer[id(self.places[v].root)] < first or _walks_rows(self._as_read(node, v), lead, rows)
            for v in node.inputs
        )

    def _as_read(self, node: Node, v: int) -> Place:
        place = self.places[v]
        if isinstance(node.op, ops.Map):
            wide = view(ops.Broadcast(node.op.shape), place, TensorType(place.type.dtype, node.op.shape))
            assert wide is not None
            return wide
        return place


def _places(program: Program) -> list[Place]:
    """Every value as a view of the value that holds its memory."""
    places = [Place(Root(i.type.nbytes, -1, -1), i.type, 0, row_major(i.type.shape)) for i in program.inputs]
    for n, node in enumerate(program.nodes):
        seen = view(node.op, places[node.inputs[0]], node.types[0]) if node.op.kind == "layout" else None
        if seen is not None:
            places.append(seen)
            continue
        places += [Place(Root(t.nbytes, n, n), t, 0, row_major(t.shape)) for t in node.types]
    return places


def _leading_axes(shape: Shape, rows: int) -> int | None:
    """How many leading axes hold exactly `rows` positions, or None."""
    n = 1
    for axis, d in enumerate(shape):
        if n == rows:
            return axis
        n *= d
    return len(shape) if n == rows else None


def _walks_rows(place: Place, lead: int, rows: int) -> bool:
    """Whether position r of the first `lead` axes reads row r of the memory, and nothing outside it."""
    elements = place.root.nbytes // place.type.dtype.size
    row, rest = divmod(elements, rows)
    if rest or row == 0:
        return False
    shape, strides = place.type.shape, place.strides
    step = row
    for d, s in zip(reversed(shape[:lead]), reversed(strides[:lead]), strict=True):
        if d != 1 and s != step:
            return False
        step *= d
    inner = [(d, s) for d, s in zip(shape[lead:], strides[lead:], strict=True) if d != 1]
    return place.start >= 0 and all(s >= 0 for _, s in inner) and place.start + sum((d - 1) * s for d, s in inner) < row

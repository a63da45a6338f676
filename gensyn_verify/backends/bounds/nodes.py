"""How far an honest kernel's outputs of one node may lie from the exact backend's, given the same inputs.

Both sides are within the node's rounding errors of the exact real number, so a bound is the sum of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import Array, widen
from gensyn_verify.backends.bounds.model import LARGEST, STORE, TINY, Model, U
from gensyn_verify.backends.bounds.running import analyse
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype


def node_bounds(
    node: Node,
    scalar: ScalarProgram | None,
    inputs: Sequence[Array],
    dtypes: Sequence[Dtype],
    expected: Sequence[Array],
    model: Model,
) -> list[Array]:
    """For every output of `node`, float64 of its shape: the greatest |found - expected|, 0 where they are equal.

    `inputs` are carriers of `dtypes`, `expected` the exact backend's outputs, `scalar` the program of a map. Infinite
    where nothing can be said: an open condition decides, or a result may pass the largest number on one side alone. A
    scan is taken position by position (`audit`), as a map.
    """
    op = node.op
    if isinstance(op, ops.Map):
        assert scalar is not None
        found = _map(op, scalar, inputs, dtypes)
    elif isinstance(op, ops.Dot) and op.dtype.is_float:
        found = [_dot(op, inputs, dtypes, model)]
    elif isinstance(op, ops.Reduce) and ops.REDUCTIONS[op.op] == "sum" and op.dtype.is_float:
        found = [_sum(op, inputs[0], dtypes[0], model)]
    elif isinstance(op, ops.ScatterAdd) and op.dtype.is_float:
        found = [_scatter_add(op, inputs[0], inputs[1], dtypes[0], model)]
    else:
        found = [np.zeros(t.shape) for t in node.types]
    return [_stored(b, e, t.dtype) for b, e, t in zip(found, expected, node.types, strict=True)]


def _stored(bound: Array, expected: Array, dtype: Dtype) -> Array:
    """The bound after both sides are stored: narrow floats round once more, and either may have become infinite."""
    if dtype not in STORE:
        return bound
    unit, tiny = STORE[dtype]
    size = np.abs(widen(expected, dtype).astype(np.float64))
    bound = np.where(bound == 0, 0.0, bound + 2 * (unit * (size + bound) + tiny))
    with np.errstate(invalid="ignore"):
        near_the_end = (bound > 0) & ~np.isnan(size) & (size + bound > LARGEST[dtype])
    return np.where(near_the_end, np.inf, bound)


def _map(op: ops.Map, scalar: ScalarProgram, inputs: Sequence[Array], dtypes: Sequence[Dtype]) -> list[Array]:
    registers = [np.broadcast_to(widen(x, d), op.shape) for x, d in zip(inputs, dtypes, strict=True)]
    return [np.broadcast_to(2 * r.distance, op.shape) for r in analyse(scalar, registers)]


def _dot(op: ops.Dot, inputs: Sequence[Array], dtypes: Sequence[Dtype], model: Model) -> Array:
    """(gamma_k + gamma_chain) |A| |B|, and what rounding the operands does to each product.

    The exact side adds chains of at most 192 and then their sums, the vendor in any order, of k.
    """
    a, b = (np.abs(widen(x, d).astype(np.float64)) for x, d in zip(inputs, dtypes, strict=True))
    a, b = (np.swapaxes(a, -1, -2) if op.transpose_a else a), (np.swapaxes(b, -1, -2) if op.transpose_b else b)
    k = a.shape[-1]
    with np.errstate(all="ignore"):
        scale = np.matmul(a, b)
    longest = max((end - start for start, end in reference.dot_blocks(k)), default=0)
    chain = longest + len(list(reference.dot_blocks(k)))
    c = float(model.gamma(k) + model.gamma(min(k, chain)))
    return _absolute(scale, c + model.product * (1 + float(model.gamma(k))), 2 * k)


def _absolute(scale: Array, c: float | Array, products: int = 0) -> Array:
    """c scale + products TINY; nothing is said where partial sums may overflow or terms are not finite."""
    with np.errstate(all="ignore"):
        bound = np.asarray(c * scale + products * TINY * (scale > 0))
    possible = scale > LARGEST[Dtype.f32] * (1 - 2 * U)
    return np.where(np.isfinite(scale), np.where(possible, np.inf, bound), 0.0)


def _sum(op: ops.Reduce, x: Array, dtype: Dtype, model: Model) -> Array:
    """(gamma_(n-1) + gamma_lanes) times the sum of |x|: 64 lanes of at most 32, folded six times, on every level."""
    scale = np.abs(widen(x, dtype).astype(np.float64)).sum(op.axes) if op.axes else np.abs(widen(x, dtype))
    n = math.prod(x.shape[a] for a in op.axes)
    levels, rest = 0, n
    while rest > 1:
        levels, rest = levels + 1, -(-rest // reference.SUM_SEGMENT)
    depth = levels * (reference.SUM_SEGMENT // reference.SUM_LANES + 6)
    return _absolute(np.asarray(scale, np.float64), float(model.gamma(n - 1) + model.gamma(min(n - 1, depth))))


def _scatter_add(op: ops.ScatterAdd, source: Array, index: Array, dtype: Dtype, model: Model) -> Array:
    """2 gamma_(n-1) times the sum of |terms|, n the number of terms of the row."""
    flat = index.reshape(-1)
    inside = (flat >= 0) & (flat < op.rows)
    rows = np.abs(widen(source, dtype).astype(np.float64)).reshape(flat.size, *source.shape[index.ndim :])
    scale = np.zeros((op.rows, *rows.shape[1:]))
    np.add.at(scale, flat[inside], rows[inside])
    count = np.bincount(flat[inside], minlength=op.rows).reshape(-1, *(1,) * (rows.ndim - 1))
    return _absolute(scale, 2 * model.gamma(count - 1))

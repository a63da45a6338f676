"""Embedding, gather and indexing by integer tensors; their derivatives are ordered scatters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.program import Dtype, Scalar, TensorType, Value


def embedding(
    c: Context,
    weight: Operand,
    index: Operand,
    padding: int = -1,
    scale_by_frequency: bool = False,
    sparse: bool = False,
) -> Value:
    return c.g.gather(c.value(weight), c.value(index))


def embedding_backward(
    c: Context, grad: Operand, index: Operand, rows: int, padding: int, scale_by_frequency: bool
) -> Value:
    """Gradients of equal indices added in ascending order; the padding index receives none."""
    if scale_by_frequency:
        raise CaptureError("scale_grad_by_freq=True is not supported")
    index = c.value(index)
    if padding >= 0:
        index = c.map(lambda i: i.builder.select(i.equals(padding), -1, i), index, out=index.type)
    return c.cast(c.g.scatter_add(c.value(grad), index, rows), c.type.dtype)


def gather(c: Context, x: Operand, dim: int, index: Operand, sparse: bool = False) -> Value:
    """out[.., i, ..] = x[.., index[.., i, ..], ..] along one axis."""
    x, index = c.value(x), c.value(index)
    if not x.shape:
        return c.g.reshape(c.g.gather(c.g.reshape(x, (1,)), index), c.type.shape)
    flat = c.g.reshape(x, (x.type.elements,))
    return c.g.gather(flat, _along(c, x.shape, dim % len(x.shape), index))


def scatter_add(c: Context, x: Operand, dim: int, index: Operand, source: Operand) -> Value:
    """x with source[.., i, ..] added at [.., index[.., i, ..], ..] along one axis, in ascending source order."""
    x, index, source = c.value(x), c.value(index), c.value(source)
    n = x.type.elements
    source = c.g.slice(source, (0,) * len(index.shape), index.shape)
    flat = _along(c, x.shape, dim % len(x.shape), index)
    added = c.g.scatter_add(c.g.reshape(source, (-1,)), c.g.reshape(flat, (-1,)), n)
    return c.map(lambda x, s: x + s, x, c.g.reshape(added, x.shape), out=x.type)


def scatter(c: Context, x: Operand, dim: int, index: Operand, source: Operand) -> Value:
    """x with a number, or source[.., i, ..], in place of [.., index[.., i, ..], ..] along one axis."""
    x, index = c.value(x), c.value(index)
    if not isinstance(source, (int, float)) and index.shape and index.shape[dim] != 1:
        raise CaptureError("assignment through an index tensor has no order for equal indices and is not supported")
    ones = c.g.full(index.shape, 1.0)
    zeros = c.g.full(x.shape, 0.0)
    hits = scatter_add(c, zeros, dim, index, ones)
    if isinstance(source, (int, float)):
        return c.g.map(lambda n, x: x.builder.select(n > 0.0, source, x), hits, x, dtype=x.dtype)
    values = c.cast(scatter_add(c, zeros, dim, index, c.value(source)), x.dtype)
    return c.g.map(lambda n, v, x: x.builder.select(n > 0.0, v, x), hits, values, x, dtype=x.dtype)


def _along(c: Context, shape: Sequence[int], dim: int, index: Value) -> Value:
    """Positions in row-major order of a tensor of `shape` that `index` selects along `dim`; -1 where outside."""
    strides = [math.prod(shape[a + 1 :]) for a in range(len(shape))]
    rest = np.zeros(index.shape, np.int64)
    for axis, (n, stride) in enumerate(zip(index.shape, strides, strict=True)):
        if axis != dim:
            rest = rest + (np.arange(n) * stride).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    base = c.indices(rest[tuple(slice(0, 1) if a == dim else slice(None) for a in range(len(shape)))])
    limit, stride = shape[dim], strides[dim]

    def place(i: Scalar, base: Scalar) -> Scalar:
        return i.builder.select((i >= 0) & (i < limit), i * stride + base, -1)

    return c.map(place, index, base, out=TensorType(Dtype.i32, index.shape))


def index(c: Context, x: Operand, indices: Sequence[Operand | None]) -> Value:
    """x[..., i, j, ...] with integer tensors on neighbouring axes; negative indices count from the end."""
    x = c.value(x)
    first, given, flat = _joined(c, x.shape, indices)
    rank = len(x.shape)
    front = [*range(first, first + len(given)), *range(first), *range(first + len(given), rank)]
    rows = c.g.permute(x, front)
    rows = c.g.reshape(rows, (math.prod(rows.shape[: len(given)]), *rows.shape[len(given) :]))
    picked = c.g.gather(rows, flat)  # [*index, *leading axes, *rest]
    n = len(flat.shape)
    return c.g.permute(picked, [*range(n, n + first), *range(n), *range(n + first, len(picked.shape))])


def index_put(
    c: Context, x: Operand, indices: Sequence[Operand | None], values: Operand, accumulate: bool = False
) -> Value:
    """x with `values` added at x[..., i, j, ...]: the derivative of `index`."""
    if not accumulate:
        raise CaptureError("assignment through integer tensors has no order for equal indices and is not supported")
    x = c.value(x)
    first, given, flat = _joined(c, x.shape, indices)
    n, k, rank = len(flat.shape), len(given), len(x.shape)
    lead, rest = x.shape[:first], x.shape[first + k :]
    values = c.g.broadcast(c.value(values), (*lead, *flat.shape, *rest))
    front = [*range(first, first + n), *range(first), *range(first + n, len(values.shape))]
    added = c.g.scatter_add(c.g.permute(values, front), flat, math.prod(x.shape[first : first + k]))
    added = c.g.reshape(added, (*x.shape[first : first + k], *lead, *rest))
    back = [*range(k, k + first), *range(k), *range(k + first, rank)]
    return c.elementwise(lambda x, a: x + a, x, c.g.permute(added, back))


def _joined(c: Context, shape: Sequence[int], indices: Sequence[Operand | None]) -> tuple[int, list[Value], Value]:
    """First indexed axis, the indices, and one index into the indexed axes taken as one; -1 where outside."""
    axes = [a for a, i in enumerate(indices) if i is not None]
    given = [c.value(i) for i in indices if i is not None]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise CaptureError("index tensors on axes that are not neighbours are not supported")
    if any(i.dtype is not Dtype.i32 for i in given):
        raise CaptureError("indexing by a boolean mask gives a shape that depends on data")
    sizes = [shape[a] for a in axes]

    def place(*positions: Scalar) -> Scalar:
        b = positions[0].builder
        flat, inside = b.literal(0, positions[0].reg), None
        for i, size in zip(positions, sizes, strict=True):
            wrapped = b.select(i < 0, i + size, i)
            ok = (wrapped >= 0) & (wrapped < size)
            inside = ok if inside is None else inside & ok
            flat = flat * size + wrapped
        assert inside is not None
        return b.select(inside, flat, -1)

    return axes[0], given, c.g.map(place, *given, dtype=Dtype.i32)


def index_add(c: Context, x: Operand, dim: int, index: Operand, source: Operand, alpha: Number = 1) -> Value:
    """x with alpha source[.., i, ..] added at [.., index[i], ..], in ascending source order."""
    x, source = c.value(x), c.value(source)
    dim %= len(x.shape)
    front = [dim, *(a for a in range(len(x.shape)) if a != dim)]
    added = c.g.scatter_add(c.g.permute(source, front), c.value(index), x.shape[dim])
    back = [front.index(a) for a in range(len(x.shape))]
    return c.elementwise(lambda x, a: x + (a if alpha == 1 else a * alpha), x, c.g.permute(added, back))


def index_select(c: Context, x: Operand, dim: int, which: Operand) -> Value:
    x = c.value(x)
    indices: list[Operand | None] = [None] * (dim % len(x.shape)) + [which]
    return index(c, x, indices)

"""Embedding, gather and indexing by integer tensors; their derivatives are ordered scatters.

Where several elements are assigned to one place, the last of them in row-major order of the source stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.program import Dtype, Reg, Scalar, TensorType, Value


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
    if not index.type.elements:
        return c.g.full(c.type.shape, 0, c.type.dtype)
    if not x.shape:
        return c.g.reshape(c.g.gather(c.g.reshape(x, (1,)), index), c.type.shape)
    flat = c.g.reshape(x, (x.type.elements,))
    return c.g.gather(flat, along(c, x.shape, dim % len(x.shape), index))


def scatter_add(c: Context, x: Operand, dim: int, index: Operand, source: Operand) -> Value:
    """x with source[.., i, ..] added at [.., index[.., i, ..], ..] along one axis, in ascending source order."""
    x, index = c.value(x), c.value(index)
    flat = _scattered(c, x, dim, index)
    added = c.g.scatter_add(_source(c, c.value(source), index), flat, x.type.elements)
    return c.map(lambda x, s: x + s, x, c.g.reshape(added, x.shape), out=x.type)


def scatter(c: Context, x: Operand, dim: int, index: Operand, source: Operand, reduce: str | None = None) -> Value:
    """x with a number, or source[.., i, ..], in place of [.., index[.., i, ..], ..] along one axis."""
    x, index = c.value(x), c.value(index)
    if reduce is not None:
        raise CaptureError(f"scatter with reduce={reduce!r} is not supported; use scatter_reduce")
    flat = _scattered(c, x, dim, index)
    if not isinstance(source, (int, float)):
        source = c.cast(_source(c, c.value(source), index), x.dtype)
    return c.g.reshape(_assigned(c, c.g.reshape(x, (-1,)), flat, source), x.shape)


def scatter_reduce(
    c: Context, x: Operand, dim: int, index: Operand, source: Operand, reduce: str, include_self: bool = True
) -> Value:
    """sum, prod, mean, amax or amin of what goes to one place, x among it; without x, what nothing goes to stays."""
    x, index = c.value(x), c.value(index)
    flat, source = _scattered(c, x, dim, index), _source(c, c.value(source), index)
    own, n = c.g.reshape(x, (-1,)), x.type.elements
    if reduce in ("sum", "mean"):
        found = c.g.scatter_add(source, flat, n)
    elif reduce in ("amax", "amin"):
        found = _extremes(c, source, flat, n, reduce == "amax")
    else:
        found = _products(c, source, flat, n)
    hits = c.g.scatter_add(c.g.full(flat.shape, 1, Dtype.i32), flat, n)

    def combine(own: Scalar, found: Scalar, hits: Scalar) -> Scalar:
        b = own.builder
        if reduce == "mean":
            count = (hits + int(include_self)).to(Reg.f32)
            return b.select(hits.equals(0), own, (own + found if include_self else found) / count)
        if include_self:
            found = {
                "sum": own + found, "prod": own * found, "amax": own.max(found), "amin": own.min(found)
            }[reduce]  # fmt: skip
        return b.select(hits.equals(0), own, found)

    return c.g.reshape(c.g.map(combine, own, found, hits, dtype=x.dtype), x.shape)


def index_reduce(
    c: Context, x: Operand, dim: int, index: Operand, source: Operand, reduce: str, include_self: bool = True
) -> Value:
    """prod, mean, amax or amin of all source[.., i, ..] that go to [.., index[i], ..], and of x if it takes part."""
    source = c.value(source)
    along_dim = [-1 if a == dim % len(source.shape) else 1 for a in range(len(source.shape))]
    index = c.g.broadcast(c.g.reshape(c.value(index), along_dim), source.shape)
    return scatter_reduce(c, x, dim, index, source, reduce, include_self)


def _scattered(c: Context, x: Value, dim: int, index: Value) -> Value:
    """The places in row-major order of x, one an element of `index`, in a row."""
    if not index.type.elements:
        return c.g.full((0,), 0, Dtype.i32)
    if not x.shape:
        return c.g.reshape(index, (-1,))
    if not index.shape:
        index = c.g.reshape(index, (1,) * len(x.shape))
    return c.g.reshape(along(c, x.shape, dim % len(x.shape), index), (-1,))


def _source(c: Context, source: Value, index: Value) -> Value:
    """The elements of `source` that `index` has places for, in a row."""
    if not index.type.elements:
        return c.g.full((0,), 0, source.dtype)
    return c.g.reshape(c.g.slice(source, (0,) * len(source.shape), index.shape or source.shape), (-1,))


def _assigned(c: Context, rows: Value, index: Value, source: Value | float) -> Value:
    """`rows` with row index[i] replaced by source[i], or by a number; the last of equal indices stays."""
    n = rows.shape[0]
    wide = (-1, *[1] * (len(rows.shape) - 1))
    if not isinstance(source, Value):
        hits = c.g.reshape(c.g.scatter_add(c.g.full(index.shape, 1, Dtype.i32), index, n), wide)
        return c.g.map(
            lambda n, x: x.builder.select(n.equals(0), x, float(source) if x.reg is Reg.f32 else int(source)),
            hits, rows, dtype=rows.dtype,
        )  # fmt: skip
    last = c.g.reshape(_last(c, c.g.sort(index), index, n), wide)
    found = c.g.gather(source, c.map(lambda i: i - 1, c.g.reshape(last, (-1,)), out=TensorType(Dtype.i32, (n,))))
    return c.g.map(lambda i, f, x: x.builder.select(i.equals(0), x, f), last, found, rows, dtype=rows.dtype)


def _last(c: Context, order: Value, index: Value, n: int) -> Value:
    """For each of n places 1 + the last position, in `order`, of those whose index is that place; 0 if there is none.

    `order` has positions of equal indices next to each other.
    """
    count = index.shape[0]
    if count == 0:
        return c.g.full((n,), 0, Dtype.i32)
    places = c.g.gather(index, order)
    following = c.g.pad(c.g.slice(places, (1,), (count - 1,)), (0,), (1,), fill_bits=0xFFFFFFFF)
    ends = c.map(lambda p, q: p.builder.select(p.equals(q), -1, p), places, following, out=places.type)
    return c.g.scatter_add(c.map(lambda i: i + 1, order, out=order.type), ends, n)


def winners(c: Context, source: Value, index: Value, n: int, largest: bool) -> Value:
    """1 + the position of the largest (least) of what goes to each of n places, the first of equals; 0 of nothing.

    Sorted by value, then by place; NaN is the largest.
    """
    count = source.shape[0]

    def reverse(x: Value) -> Value:
        return c.g.slice(x, (max(count - 1, 0),), (count,), (-1,))

    if largest:
        by_value = c.g.sort(reverse(source))
        by_value = c.map(lambda i: (count - 1) - i, by_value, out=by_value.type)
    else:
        by_value = reverse(c.g.sort(source))
    by_place = c.g.sort(c.g.gather(index, by_value))
    return _last(c, c.g.gather(by_value, by_place), index, n)


def _extremes(c: Context, source: Value, index: Value, n: int, largest: bool) -> Value:
    """The largest (least) of what goes to each of n places, NaN if any is."""
    best = winners(c, source, index, n, largest)
    found = c.g.gather(source, c.map(lambda i: i - 1, best, out=best.type))
    if largest or not source.dtype.is_float:
        return found
    nans = c.map(lambda v: (~v.equals(v)).to(Reg.i32), source, out=index.type, compute=Reg.f32)
    return c.g.map(lambda n, f: f.builder.select(n.equals(0), f, math.nan), c.g.scatter_add(nans, index, n), found,
                   dtype=source.dtype)  # fmt: skip


def _products(c: Context, source: Value, index: Value, n: int) -> Value:
    """The product of what goes to each of n places, in ascending source order: running products, place after place."""
    order = c.g.sort(index)
    places = c.g.gather(index, order)

    def step(product: Scalar, place: Scalar, x: Scalar, here: Scalar) -> tuple[Scalar, Scalar]:
        return x.builder.select(place.equals(here), product * x, x), here

    start = [c.g.full((), 1, source.dtype), c.g.full((), -1, Dtype.i32)]
    running, _ = c.g.scan(step, start, [c.g.gather(source, order), places])
    last = _last(c, c.indices(np.arange(index.shape[0])), places, n)
    return c.g.gather(running, c.map(lambda i: i - 1, last, out=last.type))


def along(c: Context, shape: Sequence[int], dim: int, index: Value) -> Value:
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
    """x[..., i, j, ...] with integer tensors, whose axes come first if they do not replace neighbours.

    Negative indices count from the end.
    """
    x = c.value(x)
    axes, first, flat = _joined(c, x.shape, indices)
    rows = c.g.permute(x, [*axes, *_others(x, axes)])
    rows = c.g.reshape(rows, (math.prod(rows.shape[: len(axes)]), *rows.shape[len(axes) :]))
    picked = c.g.gather(rows, flat)  # [*index, *other axes]
    n = len(flat.shape)
    return c.g.permute(picked, [*range(n, n + first), *range(n), *range(n + first, len(picked.shape))])


def index_put(
    c: Context, x: Operand, indices: Sequence[Operand | None], values: Operand, accumulate: bool = False
) -> Value:
    """x with `values` at x[..., i, j, ...], or added there (ascending source order): the derivative of `index`."""
    x = c.value(x)
    mask = c.value(indices[0]) if indices[0] is not None else None
    if mask is not None and mask.dtype is Dtype.boolean and len(indices) == 1:
        return _fill_masked(c, x, mask, values, accumulate)
    axes, first, flat = _joined(c, x.shape, indices)
    others = _others(x, axes)
    rest = [x.shape[a] for a in others]
    n = len(flat.shape)
    values = c.g.broadcast(c.value(values), (*rest[:first], *flat.shape, *rest[first:]))
    values = c.g.permute(values, [*range(first, first + n), *range(first), *range(first + n, len(values.shape))])
    back = [[*axes, *others].index(a) for a in range(len(x.shape))]
    sizes = [x.shape[a] for a in axes]
    if accumulate:
        added = c.g.reshape(c.g.scatter_add(values, flat, math.prod(sizes)), (*sizes, *rest))
        return c.map(lambda x, a: x + a, x, c.g.permute(added, back), out=x.type)
    rows = c.g.reshape(c.g.permute(x, [*axes, *others]), (math.prod(sizes), *rest))
    source = c.g.reshape(c.cast(values, x.dtype), (flat.type.elements, *rest))
    result = _assigned(c, rows, c.g.reshape(flat, (-1,)), source)
    return c.g.permute(c.g.reshape(result, (*sizes, *rest)), back)


def _fill_masked(c: Context, x: Value, mask: Value, values: Operand, accumulate: bool) -> Value:
    """x with one number, or one slice, wherever the mask over its first axes is true, or added there."""
    values, rank = c.cast(c.value(values), x.dtype), len(mask.shape)
    inner = values.shape if len(values.shape) <= len(x.shape) - rank else values.shape[1:]
    if len(values.shape) > len(inner) and values.shape[0] != 1:
        raise CaptureError("assignment of a tensor by a boolean mask depends on how many are true; use torch.where")
    mask = c.g.reshape(mask, (*mask.shape, *[1] * (len(x.shape) - rank)))

    def f(m: Scalar, v: Scalar, x: Scalar) -> Scalar:
        return m.builder.select(m, x + v if accumulate else v, x)

    return c.g.map(f, mask, c.g.reshape(values, inner), x, dtype=x.dtype)


def _others(x: Value, axes: Sequence[int]) -> list[int]:
    return [a for a in range(len(x.shape)) if a not in axes]


def _joined(c: Context, shape: Sequence[int], indices: Sequence[Operand | None]) -> tuple[list[int], int, Value]:
    """The indexed axes; how many others precede them in the result; one index into all of them, -1 where outside."""
    axes = [a for a, i in enumerate(indices) if i is not None]
    given = [c.value(i) for i in indices if i is not None]
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

    neighbours = axes == list(range(axes[0], axes[0] + len(axes)))
    return axes, axes[0] if neighbours else 0, c.g.map(place, *given, dtype=Dtype.i32)


def index_add(c: Context, x: Operand, dim: int, index: Operand, source: Operand, alpha: Number = 1) -> Value:
    """x with alpha source[.., i, ..] added at [.., index[i], ..], in ascending source order."""
    x, rows, index = _by_rows(c, x, dim, index)
    source = _source_rows(c, source, dim, rows, index)
    added = c.g.scatter_add(source, index, rows.shape[0])
    added = c.g.reshape(c.moved(added, 0, dim) if x.shape else added, x.shape)
    return c.elementwise(lambda x, a: x + (a if alpha == 1 else a * alpha), x, added)


def index_copy(c: Context, x: Operand, dim: int, index: Operand, source: Operand) -> Value:
    """x with source[.., i, ..] at [.., index[i], ..]."""
    x, rows, index = _by_rows(c, x, dim, index)
    result = _assigned(c, rows, index, c.cast(_source_rows(c, source, dim, rows, index), x.dtype))
    return c.g.reshape(c.moved(result, 0, dim), x.shape)


def index_fill(c: Context, x: Operand, dim: int, index: Operand, fill: Operand) -> Value:
    """x with a number at [.., index[i], ..]."""
    x, rows, index = _by_rows(c, x, dim, index)
    if isinstance(fill, Value):
        fill = c.g.broadcast(c.cast(fill, x.dtype), (*index.shape, *rows.shape[1:]))
    elif not isinstance(fill, (int, float)):
        fill = fill.item()
    return c.g.reshape(c.moved(_assigned(c, rows, index, fill), 0, dim), x.shape)


def _by_rows(c: Context, x: Operand, dim: int, index: Operand) -> tuple[Value, Value, Value]:
    """x, x with `dim` in front (a scalar is a row of one), and the index in a row; negative ones count from the end."""
    x, index = c.value(x), c.value(index)
    rows = c.moved(x, dim, 0) if x.shape else c.g.reshape(x, (1,))
    n = rows.shape[0]
    index = c.map(lambda i: i.builder.select(i < 0, i + n, i), c.g.reshape(index, (-1,)),
                  out=TensorType(Dtype.i32, (index.type.elements,)))  # fmt: skip
    return x, rows, index


def _source_rows(c: Context, source: Operand, dim: int, rows: Value, index: Value) -> Value:
    source = c.value(source)
    if source.shape and len(source.shape) == len(rows.shape):
        source = c.moved(source, dim, 0)
    return c.g.reshape(source, (*index.shape, *rows.shape[1:]))


def index_select(c: Context, x: Operand, dim: int, which: Operand) -> Value:
    x, rows, index = _by_rows(c, x, dim, which)
    picked = c.g.gather(rows, index)
    return c.g.reshape(c.moved(picked, 0, dim) if x.shape else picked, c.type.shape)


def take(c: Context, x: Operand, index: Operand) -> Value:
    """x as a row, at `index`; negative numbers count from the end."""
    _, rows, flat = _by_rows(c, c.g.reshape(c.value(x), (-1,)), 0, index)
    return c.g.reshape(c.g.gather(rows, flat), c.type.shape)


def put(c: Context, x: Operand, index: Operand, source: Operand, accumulate: bool = False) -> Value:
    """x as a row with `source` at `index`, or added there."""
    x = c.value(x)
    flat = c.g.reshape(x, (-1,))
    values = c.g.reshape(c.value(source), (-1,))
    return c.g.reshape(index_put(c, flat, [c.g.reshape(c.value(index), (-1,))], values, accumulate), x.shape)


def masked_scatter(c: Context, x: Operand, mask: Operand, source: Operand) -> Value:
    """x with the elements of `source`, one after the other, where the mask is true."""
    x, mask = c.value(x), c.g.broadcast(c.value(mask), c.type.shape)
    flags = c.cast(c.g.reshape(mask, (-1,)), Dtype.i32)
    (count,) = c.g.scan(lambda s, f: s + f, [c.g.full((), 0, Dtype.i32)], [flags])
    at = c.map(lambda n: n - 1, count, out=count.type)
    found = c.g.reshape(c.g.gather(c.g.reshape(c.cast(source, x.dtype), (-1,)), at), c.type.shape)
    return c.g.map(lambda m, f, x: x.builder.select(m, f, x), mask, found, x, dtype=x.dtype)


def masked_scatter_backward(c: Context, grad: Operand, mask: Operand, sizes: Sequence[int]) -> Value:
    """The gradients where the mask is true, one after the other, then zeros."""
    grad = c.value(grad)
    mask = c.g.broadcast(c.value(mask), grad.shape)
    flags = c.cast(c.g.reshape(mask, (-1,)), Dtype.i32)
    (count,) = c.g.scan(lambda s, f: s + f, [c.g.full((), 0, Dtype.i32)], [flags])
    at = c.map(lambda n, f: n.builder.select(f.equals(0), -1, n - 1), count, flags, out=count.type)
    found = c.g.scatter_add(c.g.reshape(grad, (-1,)), at, math.prod(sizes))
    return c.cast(c.g.reshape(found, c.type.shape), c.type.dtype)


def bucketize(c: Context, x: Operand, edges: Operand, *, out_int32: bool = False, right: bool = False) -> Value:
    """How many of the ascending edges are below x (with right: not above it): by comparing with all."""
    return searchsorted(c, edges, x, right=right)


def searchsorted(
    c: Context,
    edges: Operand,
    x: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Operand | None = None,
) -> Value:
    """How many of the ascending edges are below x (with right: not above it): by comparing with all, NaN last."""
    right = right or side == "right"
    edges, x = c.value(edges), c.value(x, Dtype.f32)
    if sorter is not None:
        edges = c.g.gather(c.g.reshape(edges, (-1,)), along(c, edges.shape, len(edges.shape) - 1, c.value(sorter)))
    n = edges.shape[-1]
    if len(edges.shape) > 1:
        edges = c.g.reshape(edges, (*edges.shape[:-1], 1, n))
    wide = TensorType(Dtype.i32, (*x.shape, n))

    def below(e: Scalar, x: Scalar) -> Scalar:
        """Not `x before e` (right), or `e before x`, where NaN comes last."""
        hit = (e <= x) if right else (e < x)
        if e.reg is Reg.f32:
            hit = hit | (~x.equals(x) if right else (~x.equals(x) & e.equals(e)))
        return hit.to(Reg.i32)

    flags = c.map(below, edges, c.g.reshape(x, (*x.shape, 1)), out=wide, compute=c.promoted(edges, x))
    return c.sum(flags, (len(x.shape),))

"""Embedding bags: rows of a table that are summed, averaged or compared within bags, which offsets into one row cut."""

from __future__ import annotations

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Operand
from gensyn_verify.frontend.rules.indexing import winners
from gensyn_verify.program import Dtype, Scalar, TensorType, Value

SUM, MEAN, MAX = 0, 1, 2


def embedding_bag(
    c: Context,
    weight: Operand,
    indices: Operand,
    offsets: Operand,
    scale_by_frequency: bool = False,
    mode: int = SUM,
    sparse: bool = False,
    per_sample: Operand | None = None,
    include_last: bool = False,
    padding: int = -1,
) -> tuple[Value, ...]:
    """Sum, mean or maximum of the rows of each bag, 0 of an empty one; rows at the padding index take no part.

    Also the bag of each index, how many indices each bag has, and for a maximum where it was found.
    """
    weight, indices = c.value(weight), c.value(indices)
    bags, width = c.type.shape
    bag, counted = _bags(c, indices, offsets, bags, padding)
    sizes = c.g.scatter_add(c.g.full(indices.shape, 1, Dtype.i32), counted, bags)
    rows = c.g.gather(weight, indices)
    where = c.g.full(c.types[3].shape, 0, Dtype.i32)
    if mode == MAX:
        place = _element(c, _column(c, counted), width)
        best = winners(c, c.g.reshape(rows, (-1,)), c.g.reshape(place, (-1,)), bags * width, largest=True)
        best = c.map(lambda i: i - 1, best, out=best.type)
        found = c.g.reshape(c.g.gather(c.g.reshape(rows, (-1,)), best), c.type.shape)
        result = c.elementwise(lambda n, x: x.builder.select(n <= 0.0, 0.0, x), _column(c, sizes), found)
        spread = c.g.broadcast(c.g.reshape(indices, (-1, 1)), rows.shape)
        where = c.g.reshape(c.g.gather(c.g.reshape(spread, (-1,)), best), c.type.shape)
        where = c.map(lambda n, i: n.builder.select(n <= 0, -1, i), _column(c, sizes), where, out=where.type)
    else:
        if per_sample is not None:
            wide = TensorType(Dtype.f32, rows.shape)
            rows = c.map(lambda x, w: x * w, rows, _column(c, c.value(per_sample)), out=wide)
        result = c.g.scatter_add(rows, counted, bags)
        if mode == MEAN:
            result = c.map(lambda s, n: s / n.max(1.0), result, _column(c, sizes, Dtype.f32), out=result.type)
        result = c.cast(result, c.type.dtype)
    return result, bag if c.types[1].shape == bag.shape else c.g.full(c.types[1].shape, 0, Dtype.i32), sizes, where


def embedding_bag_backward(
    c: Context,
    grad: Operand,
    indices: Operand,
    offsets: Operand,
    bag_of: Operand,
    sizes: Operand,
    where: Operand,
    rows: int,
    scale_by_frequency: bool,
    mode: int,
    sparse: bool,
    per_sample: Operand | None,
    padding: int = -1,
) -> Value:
    """Each row receives the gradients of its bags, added in ascending order."""
    if scale_by_frequency or sparse:
        raise CaptureError("scale_grad_by_freq=True and sparse=True are not supported")
    grad, indices = c.value(grad), c.value(indices)
    bags, width = grad.shape
    if mode == MAX:
        place = _element(c, c.value(where), width)
        flat = c.g.scatter_add(c.g.reshape(grad, (-1,)), c.g.reshape(place, (-1,)), rows * width)
        return c.cast(c.g.reshape(flat, c.type.shape), c.type.dtype)
    bag, _ = _bags(c, indices, offsets, bags, padding)
    if mode == MEAN:
        wide = TensorType(Dtype.f32, grad.shape)
        grad = c.map(lambda g, n: g / n.max(1.0), grad, _column(c, c.value(sizes), Dtype.f32), out=wide)
    share = c.g.gather(grad, bag)
    if per_sample is not None:
        wide = TensorType(Dtype.f32, share.shape)
        share = c.map(lambda g, w: g * w, share, _column(c, c.value(per_sample)), out=wide)
    return c.cast(c.g.scatter_add(share, _without(c, indices, indices, padding), rows), c.type.dtype)


def weights_backward(
    c: Context,
    grad: Operand,
    weight: Operand,
    indices: Operand,
    offsets: Operand,
    bag_of: Operand,
    mode: int,
    padding: int = -1,
) -> Value:
    """By the weight of each index: its row times the gradient of its bag."""
    grad, weight, indices = c.value(grad), c.value(weight), c.value(indices)
    bag, counted = _bags(c, indices, offsets, grad.shape[0], padding)
    rows, share = c.g.gather(weight, indices), c.g.gather(grad, bag)
    products = c.map(lambda x, g: x * g, rows, share, out=TensorType(Dtype.f32, rows.shape))
    return c.elementwise(lambda b, s: s.builder.select(b < 0.0, 0.0, s), counted, c.sum(products, (1,)))


def _bags(c: Context, indices: Value, offsets: Operand, bags: int, padding: int) -> tuple[Value, Value]:
    """The bag of each index: the last that begins at or before it; and the same with -1 at the padding index."""
    offsets = c.g.slice(c.value(offsets), (0,), (bags,))
    at = c.indices(range(indices.shape[0]), (-1, 1))
    begun = c.g.map(lambda o, i: o.builder.select(o <= i, o.builder.literal(1, o.reg), 0), offsets, at)
    bag = c.sum(begun, (1,))
    bag = c.map(lambda n: n - 1, bag, out=bag.type)
    return bag, _without(c, bag, indices, padding)


def _without(c: Context, x: Value, indices: Value, padding: int) -> Value:
    """x, and -1 where the index is the padding."""
    if padding < 0:
        return x
    return c.map(lambda x, i: x.builder.select(i.equals(padding), -1, x), x, indices, out=x.type)


def _element(c: Context, row: Value, width: int) -> Value:
    """The places of a table's elements in these rows, one for each column, in row-major order; -1 in row -1."""

    def place(row: Scalar, column: Scalar) -> Scalar:
        return row.builder.select(row < 0, -1, row * width + column)

    return c.g.map(place, row, c.indices(range(width)), dtype=Dtype.i32)


def _column(c: Context, x: Value, dtype: Dtype | None = None) -> Value:
    return c.cast(c.g.reshape(x, (-1, 1)), dtype or x.dtype)

"""Losses that PyTorch has as single operations. Reductions: 0 none, 1 mean, 2 sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gensyn_verify.frontend.context import Context, Number, Operand, nan_of
from gensyn_verify.program import Dtype, Reg, Scalar, TensorType, Value, functions

NONE, MEAN, SUM = 0, 1, 2


# ---- negative log likelihood ------------------------------------------------------------------------------------


def nll_loss(
    c: Context, logs: Operand, target: Operand, weight: Operand | None, reduction: int, ignore: int
) -> tuple[Value, Value]:
    """-weight[t] logs[n, t] over the rows n whose label t is not `ignore`; a label outside the classes gives NaN.

    logs is [N, C], [C] or [N, C, *]; the second result is the total weight.
    """
    logs, target = c.value(logs), c.value(target)
    classes, rows = _class_rows(c, logs)
    labels = c.g.reshape(target, (target.type.elements,))
    n = labels.shape[0]
    at = c.map(
        lambda t, base: t.builder.select((t >= 0) & (t < classes), base + t, -1),
        labels,
        c.indices(np.arange(n) * classes),
        out=TensorType(Dtype.i32, (n,)),
    )
    picked = c.cast(c.g.gather(c.g.reshape(rows, (n * classes,)), at), Dtype.f32)
    weights = _label_weights(c, labels, weight, ignore)
    is_ignored = _equals(c, labels, ignore)
    losses = c.g.map(lambda p, w, skip: p.builder.select(skip, 0.0, -p * w), picked, weights, is_ignored)
    total = c.sum(weights, (0,))
    if reduction == NONE:
        return c.cast(c.g.reshape(losses, c.type.shape), c.type.dtype), c.g.full((), 0.0, c.types[1].dtype)
    loss = c.sum(losses, (0,))
    if reduction == MEAN:
        loss = c.map(lambda s, w: s / w, loss, total, out=TensorType(Dtype.f32, ()))
    return c.cast(loss, c.type.dtype), c.cast(total, c.types[1].dtype)


def nll_loss_backward(
    c: Context,
    grad: Operand,
    logs: Operand,
    target: Operand,
    weight: Operand | None,
    reduction: int,
    ignore: int,
    total: Operand,
) -> Value:
    """-weight[t] grad at class t of every row (divided by the total weight for a mean), else 0."""
    logs, target, grad = c.value(logs), c.value(target), c.value(grad)
    classes, rows = _class_rows(c, logs)
    labels = c.g.reshape(target, (target.type.elements,))
    n = labels.shape[0]
    weights = _label_weights(c, labels, weight, ignore)
    if reduction == MEAN:
        shares = c.g.map(lambda w, g, t: -w * g / t, weights, grad, c.value(total, Dtype.f32))
    else:
        shares = c.g.map(lambda w, g: -w * g, weights, c.g.reshape(grad, (n,) if reduction == NONE else ()))

    def place(label: Scalar, number: Scalar, share: Scalar) -> Scalar:
        b = label.builder
        known = ((label >= 0) & (label < classes)) | label.equals(ignore)
        hit = label.equals(number) & ~label.equals(ignore)
        return b.select(known, b.select(hit, share, 0.0), nan_of(b))

    column = (n, 1)
    by_row = c.g.map(
        place,
        c.g.reshape(labels, column),
        c.indices(np.arange(classes)),
        c.g.reshape(shares, column),
        dtype=rows.dtype,
    )
    return _from_class_rows(c, by_row, logs)


def _class_rows(c: Context, logs: Value) -> tuple[int, Value]:
    """The number of classes and the values as [rows, classes]: images [N, C, H, W] have a row a pixel."""
    if len(logs.shape) == 1:
        return logs.shape[0], logs
    classes = logs.shape[1]
    return classes, c.g.permute(logs, (0, *range(2, len(logs.shape)), 1))


def _from_class_rows(c: Context, rows: Value, like: Value) -> Value:
    if len(like.shape) == 1:
        return c.g.reshape(rows, like.shape)
    rank = len(like.shape)
    spread = c.g.reshape(rows, (like.shape[0], *like.shape[2:], like.shape[1]))
    return c.g.permute(spread, (0, rank - 1, *range(1, rank - 1)))


def _equals(c: Context, labels: Value, number: int) -> Value:
    return c.map(lambda t: t.equals(number), labels, out=TensorType(Dtype.boolean, labels.shape), compute=Reg.i32)


def _label_weights(c: Context, labels: Value, weight: Operand | None, ignore: int) -> Value:
    """The class weight of every label (1 without weights), 0 where ignored."""
    out = TensorType(Dtype.f32, labels.shape)
    if weight is None:
        return c.map(lambda t: t.builder.select(t.equals(ignore), 0.0, t.builder.literal(1.0)), labels, out=out,
                     compute=Reg.i32)  # fmt: skip
    picked = c.cast(c.g.gather(c.value(weight), labels), Dtype.f32)
    return c.g.map(lambda w, skip: w.builder.select(skip, 0.0, w), picked, _equals(c, labels, ignore))


# ---- distances --------------------------------------------------------------------------------------------------


def distance(f: Callable[..., Any]) -> Callable[..., Value]:
    """The loss whose value at one element is f(input, target, *parameters)."""

    def rule(c: Context, x: Operand, y: Operand, reduction: int = MEAN, *parameters: Number) -> Value:
        return _reduced(c, lambda x, y: f(x, y, *parameters), (x, y), reduction)

    return rule


def distance_backward(f: Callable[..., Any]) -> Callable[..., Value]:
    """f(input, target, *parameters) is the derivative by the input; times grad, and 1/n for a mean."""

    def rule(c: Context, grad: Operand, x: Operand, y: Operand, reduction: int = MEAN, *parameters: Number) -> Value:
        n = c.type.elements if reduction == MEAN else 1
        return c.elementwise(lambda g, x, y: f(x, y, *parameters) * g * (1 / n if n else 1.0), grad, x, y)

    return rule


def _reduced(c: Context, f: Callable[..., Any], args: tuple[Operand, ...], reduction: int) -> Value:
    if reduction == NONE:
        return c.elementwise(f, *args)
    values = c.g.map(f, *(c.value(a) for a in args), dtype=Dtype.f32)
    total = c.sum(values, tuple(range(len(values.shape))))
    n = float(values.type.elements)
    return c.map(lambda s: s / n, total, out=c.type) if reduction == MEAN else c.cast(total, c.type.dtype)


def squared(x: Scalar, y: Scalar) -> Scalar:
    return (x - y) * (x - y)


def squared_slope(x: Scalar, y: Scalar) -> Scalar:
    return (x - y) + (x - y)


def smooth_l1(x: Scalar, y: Scalar, beta: Number = 1.0) -> Scalar:
    z = (x - y).abs()
    return x.builder.select(z < beta, 0.5 * z * z / beta, z - 0.5 * beta) if beta else z


def smooth_l1_slope(x: Scalar, y: Scalar, beta: Number = 1.0) -> Scalar:
    return huber_slope(x, y, beta) / beta if beta else _sign(x - y)


def huber(x: Scalar, y: Scalar, delta: Number = 1.0) -> Scalar:
    z = (x - y).abs()
    return x.builder.select(z < delta, 0.5 * z * z, delta * (z - 0.5 * delta))


def huber_slope(x: Scalar, y: Scalar, delta: Number = 1.0) -> Scalar:
    return (x - y).max(-delta).min(delta)


def _sign(x: Scalar) -> Scalar:
    b = x.builder
    return b.select(x > 0.0, 1.0, b.select(x < 0.0, -1.0, x))


def bce(c: Context, p: Operand, y: Operand, weight: Operand | None = None, reduction: int = MEAN) -> Value:
    """-(y log p + (1 - y) log(1 - p)), logarithms at least -100, times weight."""

    def f(p: Scalar, y: Scalar, *w: Scalar) -> Scalar:
        loss = (y - 1.0) * functions.log1p(-p).max(-100.0) - y * functions.log(p).max(-100.0)
        return loss * w[0] if w else loss

    return _reduced(c, f, (p, y) if weight is None else (p, y, weight), reduction)


def bce_backward(
    c: Context, grad: Operand, p: Operand, y: Operand, weight: Operand | None = None, reduction: int = MEAN
) -> Value:
    share = 1 / c.type.elements if reduction == MEAN and c.type.elements else 1.0

    def f(g: Scalar, p: Scalar, y: Scalar, *w: Scalar) -> Scalar:
        slope = g * (p - y) / ((1.0 - p) * p).max(1e-12)
        return (slope * w[0] if w else slope) * share

    return c.elementwise(f, grad, p, y, *(() if weight is None else (weight,)))


def soft_margin(x: Scalar, y: Scalar) -> Scalar:
    """log(1 + exp(-x y)), from the side on which exp does not overflow."""
    z = -x * y
    return z.max(0.0) + functions.log1p(functions.exp(-z.abs()))


def soft_margin_slope(x: Scalar, y: Scalar) -> Scalar:
    return -y * functions.sigmoid(-x * y)


# ---- margins between classes ------------------------------------------------------------------------------------


def multi_margin(
    c: Context,
    x: Operand,
    target: Operand,
    p: Number = 1,
    margin: Number = 1,
    weight: Operand | None = None,
    reduction: int = MEAN,
) -> Value:
    """Over the classes i but t: the mean of max(0, margin - x[t] + x[i]) ** p, times weight[t]."""
    gaps, weights, _ = _gaps(c, c.value(x), c.value(target), margin, weight)
    n, classes = gaps.shape
    costs = c.g.map(lambda z, w: (z if p == 1 else z * z) * w / float(classes), gaps, weights)
    each = c.sum(costs, (1,))
    if reduction == NONE:
        return c.cast(c.g.reshape(each, c.type.shape), c.type.dtype)
    total = c.sum(each, (0,))
    return c.map(lambda s: s / float(n) if reduction == MEAN else s, total, out=c.type)


def multi_margin_backward(
    c: Context,
    grad: Operand,
    x: Operand,
    target: Operand,
    p: Number,
    margin: Number,
    weight: Operand | None = None,
    reduction: int = MEAN,
) -> Value:
    """To each class whose margin is broken, and the negated sum of those to the labelled class."""
    gaps, weights, own = _gaps(c, c.value(x), c.value(target), margin, weight)
    n, classes = gaps.shape
    grad = c.g.reshape(c.value(grad), (n, 1) if reduction == NONE else (1, 1))

    def slope(z: Scalar, w: Scalar, g: Scalar) -> Scalar:
        each = z.builder.select(z > 0.0, 1.0, 0.0) if p == 1 else z + z
        return each * w * g / float(classes * (n if reduction == MEAN else 1))

    slopes = c.g.map(slope, gaps, weights, grad)
    sums = c.sum(slopes, (1,), True)
    placed = c.g.map(lambda own, s, d: s.builder.select(own, -s, d), own, sums, slopes)
    return c.cast(c.g.reshape(placed, c.type.shape), c.type.dtype)


def _gaps(c: Context, x: Value, target: Value, margin: Number, weight: Operand | None) -> tuple[Value, Value, Value]:
    """[n, classes]: by how much each class breaks the margin, 0 for the label; its weight; whether it is the label.

    A label outside the classes gives NaN.
    """
    classes = x.shape[-1] if x.shape else 1
    x, labels = c.g.reshape(x, (-1, classes)), c.g.reshape(target, (target.type.elements, 1))
    flat = c.g.reshape(labels, (-1,))
    at = c.map(
        lambda t, base: t.builder.select((t >= 0) & (t < classes), base + t, -1),
        flat,
        c.indices(np.arange(x.shape[0]) * classes),
        out=flat.type,
    )
    best = c.g.reshape(c.g.gather(c.g.reshape(x, (-1,)), at), labels.shape)
    own = c.g.map(lambda t, i: t.equals(i), labels, c.indices(range(classes)))
    gaps = c.g.map(
        lambda own, t, x: x.builder.select(own, 0.0, ((x - t) + margin).max(0.0)), own, best, x, dtype=Dtype.f32
    )
    weights = c.g.full((1, 1), 1.0) if weight is None else c.g.gather(c.value(weight), labels)
    return gaps, weights, own

"""Distances of order p between all pairs of rows: sums over the differences, which are formed element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.frontend.rules.pointwise import sign
from gensyn_verify.frontend.rules.reductions import norms, real_power
from gensyn_verify.program import Dtype, Scalar, TensorType, Value


def cdist(c: Context, x: Operand, y: Operand, p: Number, mode: int | None = None) -> Value:
    """Between each row of x and each row of y."""
    d = _differences(c, c.value(x), c.value(y))
    return c.cast(norms(c, d, p, (len(d.shape) - 1,)), c.type.dtype)


def cdist_backward(c: Context, grad: Operand, x: Operand, y: Operand, p: Number, distances: Operand) -> Value:
    """By x: the sum over the rows of y."""
    d = _differences(c, c.value(x), c.value(y))
    if not d.type.elements:
        return c.g.full(c.type.shape, 0.0, c.type.dtype)
    return c.cast(c.sum(_slopes(c, grad, distances, d, p), (len(d.shape) - 2,)), c.type.dtype)


def pdist(c: Context, x: Operand, p: Number = 2) -> Value:
    """Between each row and each later one."""
    d = _of_pairs(c, c.value(x))[0]
    return c.cast(norms(c, d, p, (1,)), c.type.dtype)


def pdist_backward(c: Context, grad: Operand, x: Operand, p: Number, distances: Operand) -> Value:
    """To the first row of each pair, and negated to the second."""
    d, first, second = _of_pairs(c, c.value(x))
    slopes = _slopes(c, grad, distances, d, p)
    n = c.type.shape[0]
    there, back = (c.g.scatter_add(slopes, rows, n) for rows in (first, second))
    return c.map(lambda a, b: a - b, there, back, out=c.type)


def _differences(c: Context, x: Value, y: Value) -> Value:
    """[..., n, m, k] of rows [..., n, k] and [..., m, k]."""
    x = c.g.reshape(x, (*x.shape[:-1], 1, x.shape[-1]))
    y = c.g.reshape(y, (*y.shape[:-2], 1, *y.shape[-2:]))
    return c.g.map(lambda x, y: x - y, x, y, dtype=Dtype.f32)


def _of_pairs(c: Context, x: Value) -> tuple[Value, Value, Value]:
    first, second = (c.indices(rows) for rows in np.triu_indices(x.shape[0], 1))
    a, b = c.g.gather(x, first), c.g.gather(x, second)
    return c.g.map(lambda a, b: a - b, a, b, dtype=Dtype.f32), first, second


def _slopes(c: Context, grad: Operand, distances: Operand, d: Value, p: Number) -> Value:
    """The derivatives by the differences, times the gradients; 0 where the distance is 0."""

    def f(g: Scalar, size: Scalar, d: Scalar) -> Any:
        b = d.builder
        if p == 0:
            return d * 0.0
        if p == 1:
            return g * sign(d)
        if math.isinf(p):
            return b.select(d.abs().equals(size), g * sign(d), 0.0)
        if p == 2:
            slope = g * d / size
        else:
            # (|d| / size)^(p - 1), which does not overflow.
            slope = g * sign(d) * real_power(d / size, p - 1)
            slope = b.select(d.equals(0.0), 0.0, slope) if p < 2 else slope
        return b.select(size.equals(0.0), 0.0, slope)

    grad, distances = (c.g.reshape(c.value(v), (*c.value(v).shape, 1)) for v in (grad, distances))
    return c.map(f, grad, distances, d, out=TensorType(Dtype.f32, d.shape))

"""Running sums, products and extremes: scans along one axis.

Sums and products carry what each step rounded away as a second number, so that the error does not grow with the
length: results are correctly rounded nearly always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gensyn_verify.frontend.context import Context, Operand
from gensyn_verify.program import Dtype, Scalar, Value, functions


def _scan(
    c: Context, x: Value, dim: int, step: Callable[..., Any], initial: Sequence[Value], *more: Value
) -> tuple[Value, ...]:
    """`step` along `dim`; what it carries has that axis where x has it."""
    if not x.shape:
        x, dim = c.g.reshape(x, (1,)), 0
    rows = c.moved(x, dim, 0)
    found = c.g.scan(step, initial, [rows, *more], rows.shape)
    return tuple(c.moved(v, 0, dim) for v in found)


def _shaped(c: Context, x: Value, result: int = 0) -> Value:
    return c.cast(c.g.reshape(x, c.types[result].shape), c.types[result].dtype)


def _finite(x: Scalar, otherwise: float) -> Scalar:
    """x, or a constant where it is infinite or NaN."""
    return x.builder.select(x.abs() < math.inf, x, otherwise)


def _renormalized(high: Scalar, low: Scalar) -> tuple[Scalar, Scalar]:
    """The same sum as its rounding and the rest; of an infinite or NaN sum there is no rest."""
    total = high + low
    return total, _finite(low - (total - high), 0.0)


def _add(total: Scalar, low: Scalar, x: Scalar) -> tuple[Scalar, Scalar]:
    """Knuth's TwoSum: `error` is what the first addition rounds away."""
    s = total + x
    t = s - total
    error = (total - (s - t)) + (x - t)
    return _renormalized(s, _finite(low + error, 0.0))


def _multiply(product: Scalar, low: Scalar, x: Scalar) -> tuple[Scalar, Scalar]:
    p = product * x
    error = x.builder.fma(low, x, x.builder.fma(product, x, -p))
    return _renormalized(p, _finite(error, 0.0))


def cumsum(c: Context, x: Operand, dim: int, dtype: Any = None) -> Value:
    """Running sums from -0; floats carry the rounding error along, integers wrap."""
    x = c.cast(x, Dtype.f32 if c.type.dtype.is_float else Dtype.i32)
    if x.dtype is Dtype.i32:
        return _shaped(c, _scan(c, x, dim, lambda s, x: s + x, [c.g.full((), 0, Dtype.i32)])[0])
    return _shaped(c, _scan(c, x, dim, _add, [c.g.full((), -0.0), c.g.full((), 0.0)])[0])


def cumprod(c: Context, x: Operand, dim: int, dtype: Any = None) -> Value:
    """Running products from 1; floats carry the rounding error along, integers wrap."""
    return _shaped(c, products(c, c.cast(x, Dtype.f32 if c.type.dtype.is_float else Dtype.i32), dim))


def products(c: Context, x: Value, dim: int) -> Value:
    """Running products of an f32 or i32 tensor."""
    if x.dtype is Dtype.i32:
        return _scan(c, x, dim, lambda p, x: p * x, [c.g.full((), 1, Dtype.i32)])[0]
    return _scan(c, x, dim, _multiply, [c.g.full((), 1.0), c.g.full((), 0.0)])[0]


def cumulative_extreme(largest: bool) -> Any:
    """The largest (least) so far and the position of its last occurrence; NaN from the first NaN on."""

    def step(best: Scalar, where: Scalar, x: Scalar, i: Scalar) -> tuple[Scalar, Scalar]:
        b = x.builder
        better = x >= best if largest else x <= best
        takes = better | ~x.equals(x) | (i.equals(0))
        takes = takes & (best.equals(best) | ~x.equals(x) | i.equals(0))
        return b.select(takes, x, best), b.select(takes, i, where)

    def rule(c: Context, x: Operand, dim: int) -> tuple[Value, Value]:
        x = c.value(x)
        if x.dtype is Dtype.boolean:
            x = c.cast(x, Dtype.i32)
        n = x.shape[dim] if x.shape else 1
        index = c.indices(np.arange(n).reshape(n, *[1] * max(len(x.shape) - 1, 0)))
        start = [c.g.full((), 0, x.dtype), c.g.full((), 0, Dtype.i32)]
        values, where = _scan(c, x, dim, step, start, index)
        return _shaped(c, values), _shaped(c, where, 1)

    return rule


def log_cumsum_exp(c: Context, x: Operand, dim: int) -> Value:
    """log of running sums of exp: the maximum so far, and the sum of exp(x - maximum), rescaled when that grows."""

    def step(top: Scalar, total: Scalar, x: Scalar) -> tuple[Scalar, Scalar]:
        b = x.builder
        higher = top.max(x)
        shift = _finite(higher, 0.0)
        old, new = functions.exp(top - shift), functions.exp(x - shift)
        return higher, b.fma(total, old, new)

    x = c.cast(x, Dtype.f32)
    top, total = _scan(c, x, dim, step, [c.g.full((), -math.inf), c.g.full((), 0.0)])

    def f(top: Scalar, total: Scalar) -> Scalar:
        finite = top.abs() < math.inf
        return top.builder.select(finite, functions.log(total) + top, top)

    return c.elementwise(f, c.g.reshape(top, c.type.shape), c.g.reshape(total, c.type.shape))

"""Sums, means, variances, extremes and softmax, in the orders of the numerics specification."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from gensyn_verify.frontend.context import Context, Number, Operand, ScalarFunction, axes_of
from gensyn_verify.frontend.rules import scans
from gensyn_verify.program import Dtype, Reg, Scalar, TensorType, Value, activations, functions
from gensyn_verify.program.types import Shape


def _count(x: Value, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def _float(c: Context, x: Operand) -> Value:
    x = c.value(x)
    return x if x.dtype.is_float else c.cast(x, Dtype.f32)


def total(c: Context, x: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """Floats are added in f32, everything else in i32."""
    x = _float(c, x) if c.type.dtype.is_float else c.value(x)
    return c.cast(c.sum(x, axes_of(dim, len(x.shape)), keepdim), c.type.dtype)


def mean(c: Context, x: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """Sum, then one division."""
    x = _float(c, x)
    axes = axes_of(dim, len(x.shape))
    n = float(_count(x, axes))
    return c.elementwise(lambda s: s / n, c.sum(x, axes, keepdim))


def moments(c: Context, x: Value, axes: tuple[int, ...], correction: Number | None) -> tuple[Value, Value]:
    """Variance and mean with the reduced axes kept as 1, both f32: two passes."""
    n = _count(x, axes)
    wide = TensorType(Dtype.f32, tuple(1 if a in axes else d for a, d in enumerate(x.shape)))
    center = c.map(lambda s: s / float(n), c.sum(x, axes, True), out=wide)
    squares = c.map(activations.squared_distance, x, center, out=TensorType(Dtype.f32, x.shape))
    freedom = max(n - (1 if correction is None else correction), 0)
    return c.map(lambda s: s / float(freedom), c.sum(squares, axes, True), out=wide), center


def variance(c: Context, x: Operand, dim: Any = None, correction: Number | None = None, keepdim: bool = False) -> Value:
    x = _float(c, x)
    spread, _ = moments(c, x, axes_of(dim, len(x.shape)), correction)
    return c.cast(c.g.reshape(spread, c.type.shape), c.type.dtype)


def variance_and_mean(
    c: Context, x: Operand, dim: Any = None, correction: Number | None = None, keepdim: bool = False
) -> tuple[Value, ...]:
    x = _float(c, x)
    found = moments(c, x, axes_of(dim, len(x.shape)), correction)
    return tuple(c.cast(c.g.reshape(m, t.shape), t.dtype) for m, t in zip(found, c.types, strict=True))


def deviation(
    c: Context, x: Operand, dim: Any = None, correction: Number | None = None, keepdim: bool = False
) -> Value:
    return c.elementwise(lambda v: v.sqrt(), variance(c, x, dim, correction, keepdim))


def extreme(name: str, with_position: bool = False) -> Any:
    """max or min over axes; with position: also the lowest index of an equal value."""

    def rule(c: Context, x: Operand, dim: Any = None, keepdim: bool = False) -> Any:
        x = c.value(x)
        axes = axes_of(dim, len(x.shape))
        if x.dtype is Dtype.boolean:
            x = c.cast(x, Dtype.i32)
        best = c.g.reduce(name, x, axes, keepdim) if axes else x
        best = c.cast(best, c.type.dtype)
        if not with_position:
            return best
        return best, c.g.reduce(f"arg{name}", x, axes, keepdim) if axes else c.g.full((), 0, Dtype.i32)

    return rule


def maximum(c: Context, x: Operand, *args: Any) -> Any:
    """Of everything, along one axis with positions, or of two tensors."""
    return _extreme_overload(c, "max", x, *args)


def minimum(c: Context, x: Operand, *args: Any) -> Any:
    return _extreme_overload(c, "min", x, *args)


def _extreme_overload(c: Context, name: str, x: Operand, other: Any = None, keepdim: bool = False) -> Any:
    if isinstance(other, (Value, Tensor)):
        return c.elementwise(lambda x, y: x.max(y) if name == "max" else x.min(y), x, other)
    return extreme(name, with_position=other is not None)(c, x, other, keepdim)


def position(name: str) -> Any:
    """argmax or argmin over one axis or all."""

    def rule(c: Context, x: Operand, dim: int | None = None, keepdim: bool = False) -> Value:
        x = c.value(x)
        axes = axes_of(dim, len(x.shape))
        return c.g.reduce(name, x, axes, keepdim) if axes else c.g.full((), 0, Dtype.i32)

    return rule


def any_true(c: Context, x: Operand, dim: Any = None, keepdim: bool = False) -> Value:
    return _quantifier(c, "max", x, dim, keepdim)


def all_true(c: Context, x: Operand, dim: Any = None, keepdim: bool = False) -> Value:
    return _quantifier(c, "min", x, dim, keepdim)


def _quantifier(c: Context, name: str, x: Operand, dim: Any, keepdim: bool) -> Value:
    x = c.value(x)
    flags = c.map(lambda v: v.to(Reg.i32), x, out=TensorType(Dtype.i32, x.shape), compute=Reg.boolean)
    axes = axes_of(dim, len(x.shape))
    return c.cast(c.g.reduce(name, flags, axes, keepdim) if axes else flags, c.type.dtype)


def vector_norm(
    c: Context, x: Operand, ord: Number = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Value:
    """Of every order: sums of absolute values, squares or powers, or the largest (least) absolute value; 0 counts."""
    x = _float(c, x)
    return c.cast(norms(c, x, ord, axes_of(dim, len(x.shape)), keepdim), c.type.dtype)


def norms(c: Context, x: Value, order: Number, axes: tuple[int, ...], keepdim: bool = False) -> Value:
    """Norms over `axes`, f32."""

    def total(f: ScalarFunction) -> Value:
        return c.sum(c.map(f, x, out=TensorType(Dtype.f32, x.shape)), axes, keepdim)

    def of(f: ScalarFunction, sums: Value) -> Value:
        return c.map(f, sums, out=sums.type)

    if order == 1:
        return total(lambda x: x.abs())
    if order == 2:
        return of(lambda s: s.sqrt(), total(lambda x: x * x))
    if order == 0:
        return total(lambda x: (~x.equals(0.0)).to(Reg.f32))
    if math.isinf(order):
        sizes = c.map(lambda x: x.abs(), x, out=TensorType(Dtype.f32, x.shape))
        return c.g.reduce("max" if order > 0 else "min", sizes, axes, keepdim) if axes else sizes
    return of(lambda s: real_power(s, 1 / order), total(lambda x: real_power(x, order)))


def real_power(x: Scalar, exponent: float) -> Scalar:
    """|x| ** exponent: what the exponent loses in binary32 takes part."""
    high = float(np.float32(exponent))
    return functions.pow(x.abs(), x.builder.literal(high), exponent - high)


def norm(
    c: Context, x: Operand, p: Number | None = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Value:
    return vector_norm(c, x, 2 if p is None else p, dim, keepdim)


def renorm(c: Context, x: Operand, p: Number, dim: int, limit: Number) -> Value:
    """Every slice along `dim` whose norm is above the limit, scaled to it."""
    x = c.value(x)
    axes = tuple(a for a in range(len(x.shape)) if a != dim % len(x.shape))

    def f(x: Scalar, norm: Scalar) -> Scalar:
        return x * norm.builder.select(norm > limit, limit / (norm + 1e-7), 1.0)

    return c.elementwise(f, x, norms(c, x, p, axes, keepdim=True))


# ---- softmax: max, subtract, exp, sum, multiply by 1/sum --------------------------------------------------------


def _tops(c: Context, x: Value, axes: tuple[int, ...]) -> Value:
    """Maxima with the reduced axes kept as 1, f32; 0 of no values."""
    if not x.type.elements:
        return c.g.full(tuple(1 if a in axes else d for a, d in enumerate(x.shape)), 0.0)
    return c.cast(c.g.reduce("max", x, axes, True) if axes else x, Dtype.f32)


def shifted(c: Context, x: Value, dim: int) -> tuple[Value, Value, Value]:
    """Maxima, exp(x - max) and their sums, all f32."""
    axes = axes_of(dim, len(x.shape))
    top = _tops(c, x, axes)
    powers = c.map(lambda x, m: functions.exp(x - m), x, top, out=TensorType(Dtype.f32, x.shape))
    return top, powers, c.sum(powers, axes, True)


def softmax(c: Context, x: Operand, dim: int, half_to_float: bool = False) -> Value:
    _, powers, sums = shifted(c, _float(c, x), dim)
    return c.elementwise(lambda p, i: p * i, powers, inverse_of(c, sums))


def safe_softmax(c: Context, x: Operand, dim: int, dtype: Any = None) -> Value:
    """Softmax, and zeros where every value is -infinity."""
    top, powers, sums = shifted(c, _float(c, x), dim)
    inverse = inverse_of(c, sums)
    return c.elementwise(lambda p, i, m: p.builder.select(m.equals(-math.inf), 0.0, p * i), powers, inverse, top)


def inverse_of(c: Context, sums: Value) -> Value:
    """One division a row: a wide product is several times as fast as a wide division."""
    return c.map(lambda s: 1.0 / s, sums, out=sums.type)


def log_softmax(c: Context, x: Operand, dim: int, half_to_float: bool = False) -> Value:
    """(x - max) - log(sum of exp(x - max))."""
    x = _float(c, x)
    top, _, sums = shifted(c, x, dim)
    logs = c.map(functions.log, sums, out=sums.type)
    return c.elementwise(lambda x, m, log: (x - m) - log, x, top, logs)


def log_sum_exp(c: Context, x: Operand, dim: Any, keepdim: bool = False) -> Value:
    """max + log(sum of exp(x - max)); a maximum that is infinite is the result, and nothing is subtracted."""
    x = _float(c, x)
    axes = axes_of(dim, len(x.shape))
    top = _tops(c, x, axes)
    shift = c.map(lambda m: m.builder.select(m.abs() < math.inf, m, 0.0), top, out=top.type)
    powers = c.map(lambda x, m: functions.exp(x - m), x, shift, out=TensorType(Dtype.f32, x.shape))
    result = c.map(lambda s, m: functions.log(s) + m, c.sum(powers, axes, True), shift, out=top.type)
    return c.cast(c.g.reshape(result, c.type.shape), c.type.dtype)


def softmax_backward(c: Context, grad: Operand, y: Operand, dim: int, dtype: Any = None) -> Value:
    """y (grad - sum(grad y))."""
    grad, y = _float(c, grad), _float(c, y)
    products = c.map(lambda g, y: g * y, grad, y, out=TensorType(Dtype.f32, _wide(grad, y)))
    sums = c.sum(products, axes_of(dim, len(y.shape)), True)

    def f(g: Scalar, y: Scalar, s: Scalar) -> Scalar:
        return y * (g - s)

    return c.elementwise(f, grad, y, sums)


def log_softmax_backward(c: Context, grad: Operand, y: Operand, dim: int, dtype: Any = None) -> Value:
    """grad - exp(y) sum(grad)."""
    y = _float(c, y)
    grad = c.g.broadcast(_float(c, grad), y.shape)
    sums = c.sum(grad, axes_of(dim, len(y.shape)), True)
    return c.elementwise(lambda g, y, s: g - functions.exp(y) * s, grad, y, sums)


def _wide(a: Value, b: Value) -> Shape:
    return a.shape if len(a.shape) >= len(b.shape) and a.type.elements >= b.type.elements else b.shape


def product(c: Context, x: Operand, dim: int | None = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """The last of the running products along the axis."""
    x = c.value(x)
    rows = c.g.reshape(x, (x.type.elements,)) if dim is None or not x.shape else c.moved(x, dim, 0)
    n = rows.shape[0]
    if n == 0:
        return c.g.full(c.type.shape, 1, c.type.dtype)
    running = scans.products(c, c.cast(rows, Dtype.f32 if c.type.dtype.is_float else Dtype.i32), 0)
    last = c.g.slice(running, [n - 1, *[0] * (len(rows.shape) - 1)], [1, *rows.shape[1:]])
    return c.cast(c.g.reshape(last, c.type.shape), c.type.dtype)

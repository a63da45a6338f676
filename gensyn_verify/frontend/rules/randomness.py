"""Random numbers, all from the committed Philox stream of the task's seed: other numbers than PyTorch draws.

A word w of 32 bits makes a number u = (w >> 8) / 2^24 of [0, 1); where a logarithm follows, one of (0, 1]:
(w + 1/2) / 2^32 rounded.
"""

from __future__ import annotations

import math
from typing import Any

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand, ScalarFunction
from gensyn_verify.program import Dtype, Reg, Scalar, Value, functions


def _draw(c: Context, f: ScalarFunction, *operands: Operand, words: int = 1, result: int = 0) -> Value:
    """`f` of fresh words and of float operands, in the shape and dtype of a result."""
    out = c.types[result]
    drawn = [c.random_words(out.shape) for _ in range(words)]
    floats = [c.cast(c.value(x, Dtype.f32), Dtype.f32) for x in operands]
    return c.g.map(lambda *xs: f(*xs).to(out.dtype.reg), *drawn, *floats, shape=out.shape, dtype=out.dtype)


def _below_one(w: Scalar) -> Scalar:
    return (w >> 8).to(Reg.f32) * 2.0**-24


def _above_zero(w: Scalar) -> Scalar:
    return w.builder.fma(w.to(Reg.f32), 2.0**-32, 2.0**-33)


def _between(low: Number, high: Number) -> ScalarFunction:
    return lambda w: w.builder.fma(_below_one(w), float(high) - float(low), float(low))


def uniform(c: Context, x: Operand, low: Number = 0.0, high: Number = 1.0) -> Value:
    """low + (high - low) u."""
    return _draw(c, _between(low, high))


def unit_uniform(c: Context, *_: Any) -> Value:
    """u of [0, 1)."""
    return _draw(c, _below_one)


def _standard_normal(w: Scalar, v: Scalar) -> Scalar:
    radius = (functions.log(_above_zero(w)) * -2.0).sqrt()
    return radius * functions.cos(v.to(Reg.f32) * (math.tau / 2.0**32))


def standard_normal(c: Context, *_: Any) -> Value:
    """Box-Muller: sqrt(-2 log u) cos(2 pi v), two words a number."""
    return _draw(c, _standard_normal, words=2)


def normal(c: Context, mean: Operand = 0.0, deviation: Operand = 1.0, *_: Any) -> Value:
    """mean + deviation z, where z is drawn as for `aten.randn`."""

    def f(w: Scalar, v: Scalar, mean: Scalar, deviation: Scalar) -> Scalar:
        return w.builder.fma(_standard_normal(w, v), deviation, mean)

    return _draw(c, f, mean, deviation, words=2)


def normal_like(c: Context, x: Operand, mean: Number = 0.0, deviation: Number = 1.0) -> Value:
    """mean + deviation z in the shape of x."""
    return normal(c, mean, deviation)


def exponential(c: Context, x: Operand, rate: Number = 1.0) -> Value:
    """-log(u) / rate, with u of (0, 1]."""
    return _draw(c, lambda w: functions.log(_above_zero(w)) / -float(rate))


def integers(c: Context, *arguments: Any) -> Value:
    """low + floor(w (high - low) / 2^32): the probabilities differ by at most 2^-32."""
    bounds = [a for a in arguments if isinstance(a, int)]
    low, high = (0, *bounds)[-2:]
    if len(bounds) not in (1, 2) or not 0 < high - low < 1 << 32:
        raise CaptureError("random integers need bounds that are numbers, with at most 2^32 - 1 integers between them")
    start = c.number(low)
    return _draw(c, lambda w: w.mulhi(high - low).bits(Reg.i32) + start)


def permutation(c: Context, n: int) -> Value:
    """The positions that sort n fresh words."""
    return c.g.sort(c.random_words((n,)))


def bernoulli(c: Context, x: Operand, p: Operand | None = None) -> Value:
    """1 where u < p, for a number p, a tensor of probabilities, or x as such a tensor."""
    if isinstance(p, (float, int)):
        limit = math.ceil(p * (1 << 24))
        return _draw(c, lambda w: ((w >> 8) < limit).to(Reg.u32))
    return _draw(c, lambda w, p: (_below_one(w) < p).to(Reg.u32), x if p is None else p)


def native_dropout(c: Context, x: Operand, p: Number, train: bool | None = True) -> tuple[Value, Value]:
    """x / (1 - p) where kept, and the mask."""
    if not train:
        return c.value(x), c.g.full(c.types[1].shape, 1, c.types[1].dtype)
    limit = math.ceil((1 - p) * (1 << 24))
    mask = _draw(c, lambda w: (w >> 8) < limit, result=1)
    scale = 1 / (1 - p) if p < 1 else 0.0
    return c.elementwise(lambda x, m: x * (m * scale), x, mask), mask


def native_dropout_backward(c: Context, grad: Operand, mask: Operand, scale: Number) -> Value:
    """The gradient times the scale where kept."""
    return c.elementwise(lambda g, m: g * (m * scale), grad, mask)


def random_relu(
    c: Context, x: Operand, noise: Operand, low: Number = 1 / 8, high: Number = 1 / 3, train: bool = False
) -> tuple[Value, Value]:
    """x above zero, below it x times a slope between low and high: drawn, or the middle; also the slopes, 1 above."""
    drawn = _draw(c, _between(low, high), result=1) if train else (low + high) / 2
    slope = c.elementwise(lambda x, s: x.builder.select(x <= 0.0, s, 1.0), x, drawn, result=1)
    return c.elementwise(lambda x, s: x * s, x, slope), slope


def random_relu_backward(c: Context, grad: Operand, x: Operand, noise: Operand, *_: Any) -> Value:
    """grad times the slopes of the forward pass."""
    return c.elementwise(lambda g, s: g * s, grad, noise)

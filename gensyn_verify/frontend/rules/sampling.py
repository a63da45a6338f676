"""Sampling of images and volumes at given places: grid_sample, for any number of spatial axes.

Along each axis a place has one tap (nearest), two (linear) or four (cubic), each with a weight and its slope; the
taps of all axes are multiplied. Places are -1 to 1 from edge to edge, of the last axis first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Operand
from gensyn_verify.program import Dtype, Reg, Scalar, TensorType, Value, rounding

LINEAR, NEAREST, CUBIC = 0, 1, 2
ZEROS, BORDER, REFLECTION = 0, 1, 2


@dataclass(frozen=True)
class Axis:
    """Of one axis, an array for each tap: the element, -1 outside; the weight; its derivative by the place."""

    index: list[Value]
    weight: list[Value]
    slope: list[Value]


def grid_sampler(c: Context, rank: int, x: Operand, grid: Operand, mode: int, padding: int, aligned: bool) -> Value:
    """The sum over the taps of weights times elements."""
    x = c.value(x)
    axes = _axes(c, x, c.value(grid), mode, padding, aligned)
    taps = _elements(c, x, axes)
    weights = [_product(c, [a.weight[t] for a, t in zip(axes, ts, strict=True)]) for ts in _taps(axes)]
    terms = c.g.map(lambda x, w: x * w, taps, _stacked(c, weights), dtype=Dtype.f32)
    return c.cast(c.moved(c.sum(terms, (0,)), -1, 1), c.type.dtype)


def grid_sampler_backward(
    c: Context,
    rank: int,
    grad: Operand,
    x: Operand,
    grid: Operand,
    mode: int,
    padding: int,
    aligned: bool,
    mask: Sequence[bool],
) -> tuple[Value | None, Value | None]:
    """By x: gradients times weights, added at the taps; by the places: by the slopes of the weights."""
    x, grid = c.value(x), c.value(grid)
    axes = _axes(c, x, grid, mode, padding, aligned)
    grad = c.moved(c.value(grad), 1, -1)  # [n, *out, channels]
    by_x = by_grid = None
    if mask[0]:
        weights = [_product(c, [a.weight[t] for a, t in zip(axes, ts, strict=True)]) for ts in _taps(axes)]
        shares = c.g.map(lambda g, w: g * w, grad, _stacked(c, weights), dtype=Dtype.f32)
        n, channels, *size = x.shape
        rows = c.g.scatter_add(shares, _rows(c, x, axes), n * math.prod(size))
        by_x = c.cast(c.moved(c.g.reshape(rows, (n, *size, channels)), -1, 1), x.dtype)
    if mask[1]:
        wide = (len(grad.shape) - 1,)
        at_taps = c.sum(c.g.map(lambda x, g: x * g, _elements(c, x, axes), grad, dtype=Dtype.f32), (wide[0] + 1,))
        slopes = []
        for axis in reversed(range(rank)):
            parts = [
                _product(
                    c, [(a.slope if n == axis else a.weight)[t] for n, (a, t) in enumerate(zip(axes, ts, strict=True))]
                )
                for ts in _taps(axes)
            ]
            terms = c.g.map(lambda v, s: v * s, at_taps, c.g.reshape(_stacked(c, parts), at_taps.shape))
            slopes.append(c.g.reshape(c.sum(terms, (0,)), (*grid.shape[:-1], 1)))
        by_grid = c.cast(c.g.concat(slopes, len(grid.shape) - 1), grid.dtype)
    return by_x, by_grid


def _taps(axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(a.index)) for a in axes)))


def _product(c: Context, weights: Sequence[Value]) -> Value:
    return c.g.map(lambda *w: math.prod(w[1:], start=w[0]), *weights)


def _stacked(c: Context, parts: Sequence[Value]) -> Value:
    """[taps, *shape, 1]."""
    return c.g.concat([c.g.reshape(p, (1, *p.shape, 1)) for p in parts], 0)


def _rows(c: Context, x: Value, axes: Sequence[Axis]) -> Value:
    """[taps, n, *out]: which row of x as [n * places, channels] each tap is, -1 outside."""
    n, _, *size = x.shape
    batch = c.indices(range(n), (n, *[1] * len(size)))

    def row(batch: Scalar, *taps: Scalar) -> Scalar:
        inside, flat = batch >= 0, batch
        for i, length in zip(taps, size, strict=True):
            inside, flat = inside & (i >= 0), flat * length + i
        return batch.builder.select(inside, flat, -1)

    parts = [c.g.map(row, batch, *(a.index[t] for a, t in zip(axes, ts, strict=True))) for ts in _taps(axes)]
    return c.g.reshape(_stacked(c, parts), (len(parts), *parts[0].shape))


def _elements(c: Context, x: Value, axes: Sequence[Axis]) -> Value:
    """[taps, n, *out, channels], 0 outside."""
    rows = _rows(c, x, axes)
    table = c.g.reshape(c.moved(x, 1, -1), (-1, x.shape[1]))
    inside = c.g.reshape(rows, (*rows.shape, 1))
    return c.g.map(lambda i, x: x.builder.select(i < 0, 0.0, x), inside, c.g.gather(table, rows), dtype=Dtype.f32)


def _axes(c: Context, x: Value, grid: Value, mode: int, padding: int, aligned: bool) -> list[Axis]:
    size = x.shape[2:]
    axes = []
    for n, length in enumerate(size):
        last = len(size) - 1 - n
        at = c.g.slice(grid, (*[0] * (len(grid.shape) - 1), last), (*grid.shape[:-1], 1))
        axes.append(_axis(c, c.g.reshape(at, grid.shape[:-1]), length, mode, padding, aligned))
    return axes


def _axis(c: Context, at: Value, length: int, mode: int, padding: int, aligned: bool) -> Axis:
    scale = (length - 1) / 2 if aligned else length / 2

    def place(g: Scalar) -> Scalar:
        """Where among the elements."""
        return ((g + 1.0) * 0.5) * (length - 1.0) if aligned else ((g + 1.0) * float(length) - 1.0) * 0.5

    def inner(p: Scalar) -> tuple[Scalar, Any]:
        """The place after padding, and its derivative by the one before."""
        b, slope = p.builder, p.builder.literal(1.0)
        if padding == REFLECTION:
            low, span = (0.0, length - 1.0) if aligned else (-0.5, float(length))
            if span == 0.0:
                return p * 0.0, b.literal(0.0)
            d = p - low
            far = d.abs()
            flips = rounding.floor(far / span)
            extra = rounding.fmod(far, b.literal(span))
            even = rounding.fmod(flips, b.literal(2.0)).equals(0.0)
            slope = b.select(d < 0.0, -1.0, slope)
            slope, p = b.select(even, slope, -slope), b.select(even, extra + low, (span - extra) + low)
        if padding != ZEROS:
            slope = b.select((p <= 0.0) | (p >= length - 1.0), 0.0, slope)
            p = p.max(0.0).min(length - 1.0)
        return p, slope

    def element(i: Scalar) -> Scalar:
        """An integer between the edges, -1 outside and for NaN."""
        return i.builder.select((i >= 0.0) & (i < float(length)), i, -1.0).to(Reg.i32)

    def tap(f: Any, dtype: Dtype = Dtype.f32) -> Value:
        return c.map(f, at, out=TensorType(dtype, at.shape), compute=Reg.f32)

    if mode == NEAREST:
        one, zero = c.g.full(at.shape, 1.0), c.g.full(at.shape, 0.0)
        return Axis([tap(lambda g: element(rounding.round_even(inner(place(g))[0])), Dtype.i32)], [one], [zero])
    if mode == LINEAR:

        def part(g: Scalar) -> Scalar:
            p, _ = inner(place(g))
            return p - rounding.floor(p)

        def slope(g: Scalar) -> Any:
            return inner(place(g))[1] * scale

        return Axis(
            [tap(lambda g, k=k: element(rounding.floor(inner(place(g))[0]) + float(k)), Dtype.i32) for k in range(2)],
            [tap(lambda g: 1.0 - part(g)), tap(part)],
            [tap(lambda g: -slope(g)), tap(slope)],
        )
    if mode != CUBIC:
        raise CaptureError(f"interpolation mode {mode} is not known")

    def distance(g: Scalar, k: int) -> Scalar:
        p = place(g)
        return (p - rounding.floor(p)) - float(k)

    return Axis(
        [tap(lambda g, k=k: element(inner(rounding.floor(place(g)) + float(k))[0]), Dtype.i32) for k in range(-1, 3)],
        [tap(lambda g, k=k: _cubic(distance(g, k), k)) for k in range(-1, 3)],
        [tap(lambda g, k=k: _cubic_slope(distance(g, k), k) * scale) for k in range(-1, 3)],
    )


A = -0.75  # Keys' kernel, as in `resampling.cubic`


def _cubic(d: Scalar, tap: int) -> Scalar:
    """The weight at distance d of tap -1, 0, 1 or 2."""
    d = d.abs()
    if tap in (0, 1):
        return ((A + 2) * d - (A + 3)) * d * d + 1.0
    return ((d - 5.0) * d + 8.0) * d * A - 4 * A


def _cubic_slope(d: Scalar, tap: int) -> Scalar:
    far = d.abs()
    size = (3 * (A + 2) * far - 2 * (A + 3)) * far if tap in (0, 1) else ((3.0 * far - 10.0) * far + 8.0) * A
    return d.builder.select(d < 0.0, -size, size)

"""Convolution and its gradients as padding, windows and one dot, for any number of spatial axes.

Shapes: input [N, C, *S], weight [O, C / groups, *K], output [N, O, *P]. The sum over k runs over (channel, kernel
row, kernel column) in the forward pass and the input gradient, and over (image, output row, output column) in the
weight gradient. Taps outside of the input take part as +0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.frontend.context import Context, Operand
from gensyn_verify.program import Value

Ints = Sequence[int]


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation of each spatial axis, and the number of groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @staticmethod
    def of(stride: Ints, padding: Ints, dilation: Ints, groups: int, rank: int) -> Geometry:
        def full(numbers: Ints) -> tuple[int, ...]:
            return tuple(numbers) if len(numbers) == rank else tuple(numbers) * rank

        return Geometry(full(stride), full(padding), full(dilation), groups)


def convolution(
    c: Context,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Value:
    """Windows times weights; a transposed convolution is the input gradient of the plain one."""
    x, weight = c.value(x), c.value(weight)
    geometry = Geometry.of(stride, padding, dilation, groups, len(x.shape) - 2)
    if transposed:
        y = input_gradient(c, x, weight, c.type.shape[2:], geometry)
    else:
        y = correlate(c, x, weight, c.type.shape[2:], geometry)
    if bias is None:
        return c.cast(y, c.type.dtype)
    column = c.g.reshape(c.value(bias), (c.type.shape[1], *(1,) * (len(c.type.shape) - 2)))
    return c.elementwise(lambda y, b: y + b, y, column)


def convolution_backward(
    c: Context,
    grad: Operand,
    x: Operand,
    weight: Operand,
    bias_sizes: Ints | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    mask: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    """Gradients by input, weight and bias, each where `mask` asks for it."""
    grad, x, weight = c.value(grad), c.value(x), c.value(weight)
    geometry = Geometry.of(stride, padding, dilation, groups, len(x.shape) - 2)
    kernel = weight.shape[2:]
    by_x = by_weight = by_bias = None
    if mask[0]:
        if transposed:
            by_x = correlate(c, grad, weight, x.shape[2:], geometry)
        else:
            by_x = input_gradient(c, grad, weight, x.shape[2:], geometry)
        by_x = c.cast(by_x, x.dtype)
    if mask[1]:
        outer, inner = (x, grad) if transposed else (grad, x)
        by_weight = c.cast(weight_gradient(c, outer, inner, kernel, geometry), weight.dtype)
    if mask[2]:
        by_bias = c.cast(c.sum(grad, [0, *range(2, len(grad.shape))]), weight.dtype)
    return by_x, by_weight, by_bias


def correlate(c: Context, x: Value, weight: Value, out: Ints, geometry: Geometry) -> Value:
    """[N, C, *S] with [O, C / groups, *K] -> [N, O, *out], without bias, f32."""
    low = geometry.padding
    high = [_span(p, k, s, d) - n - lo for n, k, p, s, d, lo in _axes(x, weight, out, geometry, low)]
    x = c.pad_or_crop(x, low, high)
    return _dot_windows(c, x, weight, out, geometry.stride, geometry.dilation, geometry.groups)


def input_gradient(c: Context, grad: Value, weight: Value, size: Ints, geometry: Geometry) -> Value:
    """[N, O, *P] with [O, C / groups, *K] -> [N, C, *size]: zeros between the gradients, weights flipped."""
    groups, kernel, rank = geometry.groups, weight.shape[2:], len(size)
    low = [d * (k - 1) - p for k, d, p in zip(kernel, geometry.dilation, geometry.padding, strict=True)]
    spread = [(p - 1) * s + 1 for p, s in zip(grad.shape[2:], geometry.stride, strict=True)]
    high = [
        n + d * (k - 1) - w - lo for n, k, d, w, lo in zip(size, kernel, geometry.dilation, spread, low, strict=True)
    ]
    grad = c.pad_or_crop(grad, low, high, [s - 1 for s in geometry.stride])
    o, i = weight.shape[0] // groups, weight.shape[1]
    flipped = c.g.reshape(weight, (groups, o, i, *kernel))
    flipped = c.g.permute(flipped, (0, 2, 1, *range(3, 3 + rank)))
    flipped = c.g.reshape(flipped, (groups * i, o, *kernel))
    flipped = c.g.slice(flipped, (0, 0, *(k - 1 for k in kernel)), flipped.shape, (1, 1, *(-1,) * rank))
    return _dot_windows(c, grad, flipped, size, (1,) * rank, geometry.dilation, groups)


def weight_gradient(c: Context, grad: Value, x: Value, kernel: Ints, geometry: Geometry) -> Value:
    """[N, O, *P] with [N, C, *S] -> [O, C / groups, *kernel]; the images take part as one more axis of the windows."""
    groups, rank = geometry.groups, len(kernel)
    images, channels = x.shape[:2]
    places = grad.shape[2:]
    low = geometry.padding
    high = [
        _span(p, k, s, d) - n - lo
        for n, k, p, s, d, lo in zip(x.shape[2:], kernel, places, geometry.stride, geometry.dilation, low, strict=True)
    ]
    swap = (1, 0, *range(2, 2 + rank))
    x = c.pad_or_crop(c.g.permute(x, swap), low, high)
    if rank <= 2:
        taps = c.g.window(x, (1, *kernel), (1, *geometry.stride), (1, *geometry.dilation))  # [C, 1, *K, N, *P]
    else:  # nine axes would be too many
        taps = c.g.window(x, kernel, geometry.stride, geometry.dilation)
        taps = c.g.reshape(taps, (channels, images, math.prod(kernel), math.prod(places)))
        taps = c.g.permute(taps, (0, 2, 1, 3))  # [C, K, N, P]
    k = images * math.prod(places)
    columns = channels // groups * math.prod(kernel)
    a = c.g.reshape(c.g.permute(grad, swap), (*_stack(groups), grad.shape[1] // groups, k))
    b = c.g.reshape(taps, (*_stack(groups), columns, k))
    return c.g.reshape(c.g.dot(a, b, False, True), (grad.shape[1], channels // groups, *kernel))


def im2col(c: Context, x: Operand, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Value:
    """[..., C, H, W] -> [..., C * kernel, places]: the windows as columns."""
    padded = c.pad_or_crop(c.value(x), padding, padding)
    return c.g.reshape(c.g.window(padded, kernel, stride, dilation), c.type.shape)


def col2im(
    c: Context, columns: Operand, size: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> Value:
    """[..., C * kernel, places] -> [..., C, *size]: each element is the sum over the windows that hold it."""
    columns = c.value(columns)
    at: list[Array] = []  # along both axes: where each tap of each window lies, -1 in the padding
    for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True):
        here = np.arange(k)[:, None] * d + np.arange((n + 2 * p - d * (k - 1) - 1) // s + 1) * s - p
        at.append(np.where((here >= 0) & (here < n), here, -1))
    down, across = at[0][:, None, :, None], at[1][None, :, None, :]
    index = np.where((down < 0) | (across < 0), -1, down * size[1] + across)
    taps, places = math.prod(kernel), columns.shape[-1]
    channels = columns.type.elements // (taps * places)  # of all images
    rows = c.g.permute(c.g.reshape(columns, (channels, taps, places)), (1, 2, 0))
    added = c.g.scatter_add(rows, c.indices(index, (taps, places)), math.prod(size))
    return c.cast(c.g.reshape(c.g.permute(added, (1, 0)), c.type.shape), c.type.dtype)


def _dot_windows(c: Context, x: Value, weight: Value, out: Ints, stride: Ints, dilation: Ints, groups: int) -> Value:
    """The windows of a padded input [N, C, *] times the weights [O, C / groups, *K] -> [N, O, *out]."""
    images, channels = x.shape[:2]
    outputs, kernel = weight.shape[0], weight.shape[2:]
    taps = c.g.window(x, kernel, stride, dilation)  # [N, C, *K, *out]
    k, places = channels // groups * math.prod(kernel), math.prod(out)
    if groups == 1:
        y = c.g.dot(c.g.reshape(weight, (outputs, k)), c.g.reshape(taps, (images, k, places)))
        return c.g.reshape(y, (images, outputs, *out))
    columns = c.g.permute(c.g.reshape(taps, (images, groups, k, places)), (1, 2, 0, 3))
    columns = c.g.reshape(columns, (groups, k, images * places))
    y = c.g.dot(c.g.reshape(weight, (groups, outputs // groups, k)), columns)
    y = c.g.permute(c.g.reshape(y, (outputs, images, places)), (1, 0, 2))
    return c.g.reshape(y, (images, outputs, *out))


def _span(places: int, kernel: int, stride: int, dilation: int) -> int:
    """The input length that gives exactly `places` windows."""
    return (places - 1) * stride + dilation * (kernel - 1) + 1


def _axes(x: Value, weight: Value, out: Ints, g: Geometry, low: Ints) -> zip[tuple[int, ...]]:
    return zip(x.shape[2:], weight.shape[2:], out, g.stride, g.dilation, low, strict=True)


def _stack(groups: int) -> tuple[int, ...]:
    return () if groups == 1 else (groups,)

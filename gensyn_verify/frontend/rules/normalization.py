"""Batch, layer, group and weight normalization: (x - mean) / sqrt(variance + eps), then fma(weight, ., bias).

The variance is taken in two passes and divides by n. 1/sqrt is a square root and a division, two roundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.frontend.rules.reductions import moments
from gensyn_verify.program import Dtype, Scalar, TensorType, Value, activations


def batch_norm(
    c: Context,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    running_mean: Operand,
    running_variance: Operand,
    training: bool,
    momentum: Number,
    eps: Number,
) -> tuple[Value, ...]:
    """Per channel over all other axes; also the saved mean and 1/deviation and the next running statistics."""
    x, before = (
        c.value(x),
        [c.cast(r, t.dtype) for r, t in zip((running_mean, running_variance), c.types[3:], strict=True)],
    )
    wide = _per_channel(x)
    if not training:
        mean, spread = (c.g.reshape(v, wide) for v in before)
        y = _normalized(c, x, mean, _inverse(c, spread, eps), weight, bias, wide)
        empty = [c.g.full(t.shape, 0.0, t.dtype) for t in c.types[1:3]]
        return y, *empty, *before
    y, spread, mean, *saved = _of_batch(c, x, weight, bias, eps)
    n = x.type.elements // x.shape[1]
    unbiased = n / (n - 1) if n > 1 else math.nan
    following = [
        c.map(
            lambda old, new, scale=scale: old.builder.fma(momentum, new * scale, old * (1.0 - momentum)),
            old, c.g.reshape(new, old.shape), out=old.type,
        )
        for old, new, scale in zip(before, (mean, spread), (1.0, unbiased), strict=True)
    ]  # fmt: skip
    return y, *saved, *following


def batch_norm_without_statistics(
    c: Context, x: Operand, weight: Operand | None, bias: Operand | None, training: bool, momentum: Number, eps: Number
) -> tuple[Value, ...]:
    """By the statistics of the batch, which nobody keeps: also instance normalization, of a reshaped input."""
    y, _, _, *saved = _of_batch(c, c.value(x), weight, bias, eps)
    return y, *saved


def _of_batch(c: Context, x: Value, weight: Operand | None, bias: Operand | None, eps: Number) -> tuple[Value, ...]:
    """The result, variance and mean of the batch, and the saved mean and 1/deviation."""
    axes = tuple(a for a in range(len(x.shape)) if a != 1)
    spread, mean = moments(c, x, axes, 0)
    inverse = _inverse(c, spread, eps)
    saved = [c.cast(c.g.reshape(v, t.shape), t.dtype) for v, t in zip((mean, inverse), c.types[1:3], strict=True)]
    return _normalized(c, x, mean, inverse, weight, bias, _per_channel(x)), spread, mean, *saved


def batch_norm_backward(
    c: Context,
    grad: Operand,
    x: Operand,
    weight: Operand | None,
    running_mean: Operand | None,
    running_variance: Operand | None,
    mean: Operand | None,
    inverse: Operand | None,
    training: bool,
    eps: Number,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    """Gradients by input, weight and bias."""
    x = c.value(x)
    wide = _per_channel(x)
    if training:
        if mean is None or inverse is None:
            raise CaptureError("batch normalization without saved statistics is not supported")
        center, scale = c.g.reshape(c.value(mean), wide), c.g.reshape(c.value(inverse), wide)
    else:
        if running_mean is None or running_variance is None:
            raise CaptureError("batch normalization without running statistics is not supported")
        center = c.g.reshape(c.value(running_mean), wide)
        scale = _inverse(c, c.g.reshape(c.value(running_variance), wide), eps)
    axes = tuple(a for a in range(len(x.shape)) if a != 1)
    return _backward(c, c.value(grad), x, weight, center, scale, axes if training else None, axes, wide, mask)


def layer_norm(
    c: Context, x: Operand, shape: Sequence[int], weight: Operand | None, bias: Operand | None, eps: Number
) -> tuple[Value, ...]:
    """Over the last axes; also the mean and 1/deviation."""
    x = c.value(x)
    spread, mean = moments(c, x, _last(x, shape), 0)
    inverse = _inverse(c, spread, eps)
    y = _normalized(c, x, mean, inverse, weight, bias, tuple(shape))
    return y, c.cast(mean, c.types[1].dtype), c.cast(inverse, c.types[2].dtype)


def layer_norm_backward(
    c: Context,
    grad: Operand,
    x: Operand,
    shape: Sequence[int],
    mean: Operand,
    inverse: Operand,
    weight: Operand | None,
    bias: Operand | None,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    """Gradients by input, weight and bias."""
    x = c.value(x)
    axes = _last(x, shape)
    others = tuple(a for a in range(len(x.shape)) if a not in axes)
    return _backward(c, c.value(grad), x, weight, c.value(mean), c.value(inverse), axes, others, tuple(shape), mask)


def _grouped(c: Context, x: Operand, groups: int) -> Value:
    """[N, C, *S] -> [N, groups, C / groups, S]."""
    x = c.value(x)
    images, channels = x.shape[:2]
    return c.g.reshape(x, (images, groups, channels // groups, math.prod(x.shape[2:])))


def group_norm(
    c: Context,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    images: int,
    channels: int,
    places: int,
    groups: int,
    eps: Number,
) -> tuple[Value, ...]:
    """Over the channels of each group and all places; also the mean and 1/deviation."""
    wide = _grouped(c, x, groups)
    spread, mean = moments(c, wide, (2, 3), 0)
    inverse = _inverse(c, spread, eps)
    y = _normalized(c, wide, mean, inverse, weight, bias, (groups, channels // groups, 1))
    saved = [c.cast(c.g.reshape(v, t.shape), t.dtype) for v, t in zip((mean, inverse), c.types[1:], strict=True)]
    return c.g.reshape(y, c.type.shape), *saved


def group_norm_backward(
    c: Context,
    grad: Operand,
    x: Operand,
    mean: Operand,
    inverse: Operand,
    weight: Operand | None,
    images: int,
    channels: int,
    places: int,
    groups: int,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    """Gradients by input, weight and bias."""
    center, scale = (c.g.reshape(c.value(v), (images, groups, 1, 1)) for v in (mean, inverse))
    grad, wide = _grouped(c, grad, groups), _grouped(c, x, groups)
    shape = groups, channels // groups, 1
    results = _backward(c, grad, wide, weight, center, scale, (2, 3), (0, 3), shape, mask)
    types = iter(c.types)  # of those that are asked for

    def shaped(result: Value | None) -> Value | None:
        if result is None:
            return None
        wanted = next(types)
        return c.cast(c.g.reshape(result, wanted.shape), wanted.dtype)

    return tuple(map(shaped, results))


def weight_norm(c: Context, v: Operand, g: Operand, dim: int = 0) -> tuple[Value, Value]:
    """g v / |v|, the 2-norm over all axes but one, and the norms."""
    v, g = c.value(v), c.value(g)
    others = tuple(a for a in range(len(v.shape)) if a != dim % len(v.shape))
    squares = c.map(lambda v: v * v, v, out=TensorType(Dtype.f32, v.shape))
    total = c.g.reshape(c.sum(squares, others), c.types[1].shape)
    norms = c.elementwise(lambda s: s.sqrt(), total, result=1)
    return c.elementwise(lambda v, g, n: v * (g / n), v, g, norms), norms


def weight_norm_backward(
    c: Context, grad: Operand, v: Operand, g: Operand, norms: Operand, dim: int
) -> tuple[Value, Value]:
    """With d = sum(grad v): by v g / |v| (grad - v d / |v|^2), by g d / |v|."""
    grad, v, g, norms = (c.value(x) for x in (grad, v, g, norms))
    others = tuple(a for a in range(len(v.shape)) if a != dim % len(v.shape))
    products = c.map(lambda a, b: a * b, grad, v, out=TensorType(Dtype.f32, v.shape))
    d = c.g.reshape(c.sum(products, others), norms.shape)
    by_v = c.elementwise(lambda a, v, g, n, d: g / n * (a - v * (d / (n * n))), grad, v, g, norms, d)
    return by_v, c.elementwise(lambda d, n: d / n, d, norms, result=1)


def _per_channel(x: Value) -> tuple[int, ...]:
    return (x.shape[1], *(1,) * (len(x.shape) - 2))


def _last(x: Value, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(len(x.shape) - len(shape), len(x.shape)))


def _inverse(c: Context, variance: Value, eps: Number) -> Value:
    return c.map(lambda v: 1.0 / (v + eps).sqrt(), variance, out=TensorType(Dtype.f32, variance.shape))


def _normalized(
    c: Context,
    x: Value,
    mean: Value,
    inverse: Value,
    weight: Operand | None,
    bias: Operand | None,
    shape: tuple[int, ...],
) -> Value:
    """weight (x - mean) inverse + bias, in the first result's dtype; weight and bias broadcast as `shape`."""
    given = [c.g.reshape(c.value(t), shape) for t in (weight, bias) if t is not None]

    def f(x: Scalar, mean: Scalar, inverse: Scalar, *affine: Scalar) -> Scalar:
        rest = iter(affine)
        y = activations.standard(x, mean, inverse)
        if weight is None:
            return y if bias is None else y + next(rest)
        if bias is None:
            return y * next(rest)
        return activations.normalize(x, mean, inverse, next(rest), next(rest))

    return c.map(f, x, mean, inverse, *given, out=TensorType(c.type.dtype, x.shape))


def _backward(
    c: Context,
    grad: Value,
    x: Value,
    weight: Operand | None,
    mean: Value,
    inverse: Value,
    normalized: tuple[int, ...] | None,
    summed: tuple[int, ...],
    shape: tuple[int, ...],
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    """With z = (x - mean) inverse and h = grad weight: by input inverse (h - mean(h) - z mean(h z)), means over the
    `normalized` axes (None: statistics are constants, no means); by weight and bias the sums of grad z and grad."""
    wide = TensorType(Dtype.f32, x.shape)
    z = c.map(activations.standard, x, mean, inverse, out=wide)
    w: Operand = 1.0 if weight is None else c.g.reshape(c.value(weight), shape)
    h = c.map(lambda g, w: g * w, grad, w, out=wide)
    results: list[Value | None] = [None, None, None]
    if mask[0]:
        if normalized is None:
            by_x = c.map(lambda h, i: h * i, h, inverse, out=wide)
        else:
            n = float(math.prod(x.shape[a] for a in normalized))
            level = c.sum(h, normalized, True)
            slope = c.sum(c.map(lambda h, z: h * z, h, z, out=wide), normalized, True)
            by_x = c.map(lambda h, z, i, a, b: i * (h - a / n - z * (b / n)), h, z, inverse, level, slope, out=wide)
        results[0] = c.cast(by_x, x.dtype)
    like = Dtype.f32 if weight is None else c.value(weight).dtype
    if mask[1]:
        total = c.sum(c.map(lambda g, z: g * z, grad, z, out=wide), summed)
        results[1] = c.cast(total, like)
    if mask[2]:
        results[2] = c.cast(c.sum(grad, summed), like)
    return tuple(results)

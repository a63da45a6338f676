"""Pooling over the last two axes: windows, then a reduction; and its transpose.

Where windows do not overlap, the transpose repeats each gradient over its window; elsewhere contributions are added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.program import Dtype, Reg, Scalar, TensorType, Value

Ints = Sequence[int]
MINUS_INFINITY = {Dtype.f32: 0xFF800000, Dtype.bf16: 0xFF80, Dtype.f16: 0xFC00}


def _pair(numbers: Ints | int) -> tuple[int, int]:
    pair = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return (pair[0], pair[-1])


def _windows(
    c: Context, x: Value, out: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, fill: int
) -> Value:
    """[..., H, W] -> [..., kernel h, kernel w, *out]; `out` says how far the input is padded or cut at the end."""
    high = [
        (o - 1) * s + d * (k - 1) + 1 - n - p
        for n, o, k, s, p, d in zip(x.shape[-2:], out, kernel, stride, padding, dilation, strict=True)
    ]
    return c.g.window(c.pad_or_crop(x, padding, high, fill=fill), kernel, stride, dilation)


def max_pool(
    c: Context,
    x: Operand,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0, 0),
    dilation: Ints = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Value, Value]:
    """The maxima and, as in PyTorch, their positions in the plane: row * W + column."""
    x = c.value(x)
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride or kernel)
    height, width = x.shape[-2:]
    rows, columns = c.type.shape[-2:]
    taps = _windows(c, x, (rows, columns), kernel, stride, padding, dilation, MINUS_INFINITY[x.dtype])
    axes = (len(x.shape) - 2, len(x.shape) - 1)
    first_row = c.indices(np.arange(rows) * stride[0] - padding[0], (rows, 1))
    first_column = c.indices(np.arange(columns) * stride[1] - padding[1])

    def position(tap: Scalar, row: Scalar, column: Scalar) -> Scalar:
        # tap = kernel row * kernel width + kernel column; the quotient is exact for any tap below 2^16.
        down = tap if kernel[1] == 1 else tap.bits(Reg.u32).mulhi(-(-(1 << 32) // kernel[1])).bits(Reg.i32)
        row = row + down * dilation[0]
        column = column + (tap - down * kernel[1]) * dilation[1]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return tap.builder.select(inside, row * width + column, -1)

    tap = c.g.reduce("argmax", taps, axes)
    return c.g.reduce("max", taps, axes), c.elementwise(position, tap, first_row, first_column, result=1)


def max_pool_backward(
    c: Context,
    grad: Operand,
    x: Operand,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    indices: Operand,
) -> Value:
    """Each gradient goes to the position of its maximum."""
    grad, indices = c.value(grad), c.value(indices)
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride or kernel)
    lead, (height, width), (rows, columns) = grad.shape[:-2], c.type.shape[-2:], grad.shape[-2:]
    if stride == kernel and dilation == (1, 1):
        at = np.arange(rows * kernel[0])[:, None] - padding[0], np.arange(columns * kernel[1]) - padding[1]
        place = c.indices(at[0] * width + at[1], (rows, kernel[0], columns, kernel[1]))
        spread = (*lead, rows, 1, columns, 1)

        def pick(g: Scalar, maximum: Scalar, here: Scalar) -> Scalar:
            return g.builder.select(maximum.equals(here), g, 0.0)

        wide = c.g.map(pick, c.g.reshape(grad, spread), c.g.reshape(indices, spread), place, dtype=grad.dtype)
        return _cut(c, c.g.reshape(wide, (*lead, rows * kernel[0], columns * kernel[1])), (height, width), padding)
    planes = grad.type.elements // max(rows * columns, 1)
    base = c.indices(np.arange(planes) * (height * width), (*lead, 1, 1))
    flat = TensorType(Dtype.i32, grad.shape)
    target = c.map(lambda i, base: i.builder.select(i < 0, -1, i + base), indices, base, out=flat)
    scattered = c.g.scatter_add(
        c.g.reshape(grad, (grad.type.elements,)), c.g.reshape(target, (grad.type.elements,)), planes * height * width
    )
    return c.cast(c.g.reshape(scattered, (*lead, height, width)), c.type.dtype)


def _cut(c: Context, wide: Value, size: Ints, padding: Ints) -> Value:
    """Padding off, rows and columns that no window reached on."""
    high = [n - w + p for n, w, p in zip(size, wide.shape[-2:], padding, strict=True)]
    return c.pad_or_crop(wide, [-p for p in padding], high)


def _divisor(c: Context, size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, count_pad: bool) -> Operand:
    """How many values each window averages: one number, or a constant [*out]."""

    def counts(axis: int) -> Array:
        start = np.arange(out[axis]) * stride[axis] - padding[axis]
        end = np.minimum(start + kernel[axis], size[axis] + padding[axis])
        return end - start if count_pad else np.minimum(end, size[axis]) - np.maximum(start, 0)

    table = counts(0)[:, None] * counts(1)
    if (table == table[0, 0]).all():
        return float(table[0, 0])
    return c.cast(c.indices(table), Dtype.f32)


def avg_pool(
    c: Context,
    x: Operand,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0, 0),
    ceil_mode: bool = False,
    count_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    """Sum of the window, then a division."""
    x = c.value(x)
    kernel, padding = _pair(kernel), _pair(padding)
    stride = _pair(stride or kernel)
    out = c.type.shape[-2:]
    taps = _windows(c, x, out, kernel, stride, padding, (1, 1), 0)
    total = c.sum(taps, (len(x.shape) - 2, len(x.shape) - 1))
    by = divisor or _divisor(c, x.shape[-2:], out, kernel, stride, padding, count_pad)
    return c.elementwise(lambda t, n: t / n, total, by)


def avg_pool_backward(
    c: Context,
    grad: Operand,
    x: Operand,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_pad: bool,
    divisor: int | None,
) -> Value:
    """Each input receives the shares of all windows that cover it."""
    grad = c.value(grad)
    kernel, padding = _pair(kernel), _pair(padding)
    stride = _pair(stride or kernel)
    size, out = c.type.shape[-2:], grad.shape[-2:]
    by: Number | Operand = divisor or _divisor(c, size, out, kernel, stride, padding, count_pad)
    share = c.map(lambda g, n: g / n, grad, by, out=grad.type)
    if stride == kernel:
        lead = grad.shape[:-2]
        wide = c.g.broadcast(
            c.g.reshape(share, (*lead, out[0], 1, out[1], 1)), (*lead, out[0], kernel[0], out[1], kernel[1])
        )
        return _cut(c, c.g.reshape(wide, (*lead, out[0] * kernel[0], out[1] * kernel[1])), size, padding)
    low = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
    spread = [(o - 1) * s + 1 for o, s in zip(out, stride, strict=True)]
    high = [n + k - 1 - w - lo for n, k, w, lo in zip(size, kernel, spread, low, strict=True)]
    taps = c.g.window(c.pad_or_crop(share, low, high, [s - 1 for s in stride]), kernel, (1, 1), (1, 1))
    return c.cast(c.sum(taps, (len(grad.shape) - 2, len(grad.shape) - 1)), c.type.dtype)


def adaptive_avg_pool(c: Context, x: Operand, size: Ints) -> Value:
    """Average pooling where every output covers the same number of inputs."""
    x = c.value(x)
    return avg_pool(c, x, _even(x.shape[-2:], c.type.shape[-2:]))


def adaptive_avg_pool_backward(c: Context, grad: Operand, x: Operand) -> Value:
    grad = c.value(grad)
    kernel = _even(c.type.shape[-2:], grad.shape[-2:])
    return avg_pool_backward(c, grad, x, kernel, (), (0, 0), False, True, None)


def _even(size: Ints, out: Ints) -> tuple[int, int]:
    if any(o == 0 or n % o for n, o in zip(size, out, strict=True)):
        raise CaptureError(f"adaptive pooling from {list(size)} to {list(out)} has uneven windows; use a divisor")
    return size[0] // out[0], size[1] // out[1]

"""Pooling as windows and a reduction over them, for any number of spatial axes.

Windows are laid out by `window` where they are alike, and gathered where adaptive pooling makes them uneven. The
gradient of a pool whose windows do not overlap is written by comparison or repetition; elsewhere contributions are
added.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.frontend.context import Context, Operand
from gensyn_verify.program import Dtype, Reg, Scalar, TensorType, Value

Ints = Sequence[int]
Rule = Callable[..., Any]
MINUS_INFINITY = {Dtype.f32: 0xFF800000, Dtype.bf16: 0xFF80, Dtype.f16: 0xFC00}


@dataclass(frozen=True)
class Windows:
    """Along each spatial axis of length `size`: `out` windows of `kernel` elements, the first at -padding."""

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @staticmethod
    def of(size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Windows:
        def full(numbers: Ints) -> tuple[int, ...]:
            return tuple(numbers) if len(numbers) == len(size) else tuple(numbers) * len(size)

        return Windows(tuple(size), tuple(out), full(kernel), full(stride or kernel), full(padding), full(dilation))

    @property
    def starts(self) -> list[Array]:
        """First element of every window, an array for each axis."""
        return [np.arange(o) * s - p for o, s, p in zip(self.out, self.stride, self.padding, strict=True)]

    @property
    def apart(self) -> bool:
        """Whether windows are neighbours without overlaps and gaps."""
        return self.stride == self.kernel and all(d == 1 for d in self.dilation)

    def taps(self, c: Context, x: Value, fill: int) -> Value:
        """[..., *size] -> [..., *kernel, *out]."""
        high = [
            (o - 1) * s + d * (k - 1) + 1 - n - p
            for n, o, k, s, p, d in zip(
                self.size, self.out, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        ]
        return c.g.window(c.pad_or_crop(x, self.padding, high, fill=fill), self.kernel, self.stride, self.dilation)

    def cut(self, c: Context, wide: Value) -> Value:
        """Windows laid side by side, [..., *(out * kernel)] -> [..., *size]: padding off, what no window reached on."""
        high = [n - w + p for n, w, p in zip(self.size, wide.shape[-len(self.size) :], self.padding, strict=True)]
        return c.pad_or_crop(wide, [-p for p in self.padding], high)


def spatial(rank: int, rule: Rule) -> Rule:
    """`rule` over the last `rank` axes."""

    @functools.wraps(rule)
    def over(c: Context, *args: Any, **kwargs: Any) -> Any:
        return rule(c, rank, *args, **kwargs)

    return over


def _last(shape: Ints, count: int) -> tuple[int, ...]:
    return tuple(range(len(shape) - 2 * count, len(shape) - count))


# ---- maxima -----------------------------------------------------------------------------------------------------


def max_pool(
    c: Context,
    rank: int,
    x: Operand,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0,),
    dilation: Ints = (1,),
    ceil_mode: bool = False,
) -> tuple[Value, Value]:
    """The maxima and, as in PyTorch, their positions in the plane or volume, counted in row-major order."""
    x = c.value(x)
    w = Windows.of(x.shape[-rank:], c.type.shape[-rank:], kernel, stride, padding, dilation)
    return _maxima(c, w.taps(c, x, MINUS_INFINITY[x.dtype]), w.size, w.starts, w.dilation)


def _maxima(c: Context, taps: Value, size: Ints, starts: Sequence[Array], dilation: Ints) -> tuple[Value, Value]:
    """Over taps [..., *kernel, *out]: the maxima, and their positions in `size`, -1 in the padding."""
    rank = len(size)
    axes = _last(taps.shape, rank)
    kernel = [taps.shape[a] for a in axes]
    columns = [c.indices(s, (-1, *(1,) * (rank - 1 - a))) for a, s in enumerate(starts)]

    def position(tap: Scalar, *starts: Scalar) -> Scalar:
        # tap counts the kernel in row-major order; the quotients are exact for any tap below 2^16.
        place, stride, inside = tap * 0, 1, tap >= 0
        for n, k, d, start in zip(size[::-1], kernel[::-1], dilation[::-1], starts[::-1], strict=True):
            over = tap if k == 1 else tap.bits(Reg.u32).mulhi(-(-(1 << 32) // k)).bits(Reg.i32)
            here = start + (tap - over * k) * d
            inside = inside & (here >= 0) & (here < n)
            place, stride, tap = place + here * stride, stride * n, over
        return tap.builder.select(inside, place, -1)

    tap = c.g.reduce("argmax", taps, axes)
    return c.g.reduce("max", taps, axes), c.elementwise(position, tap, *columns, result=1)


def max_pool_backward(
    c: Context,
    rank: int,
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
    w = Windows.of(c.type.shape[-rank:], grad.shape[-rank:], kernel, stride, padding, dilation)
    if not w.apart:
        return _to_positions(c, rank, grad, indices)
    lead = grad.shape[:-rank]
    at: Array = np.zeros(1, np.int64)
    for n, start, k in zip(w.size, w.starts, w.kernel, strict=True):
        at = at[..., None, None] * n + (start[:, None] + np.arange(k))
    place = c.indices(at, [n for pair in zip(w.out, w.kernel, strict=True) for n in pair])
    spread = (*lead, *(n for o in w.out for n in (o, 1)))

    def pick(g: Scalar, maximum: Scalar, here: Scalar) -> Scalar:
        return g.builder.select(maximum.equals(here), g, 0.0)

    wide = c.g.map(pick, c.g.reshape(grad, spread), c.g.reshape(indices, spread), place, dtype=grad.dtype)
    return w.cut(c, c.g.reshape(wide, (*lead, *(o * k for o, k in zip(w.out, w.kernel, strict=True)))))


def _to_positions(c: Context, rank: int, grad: Value, indices: Value) -> Value:
    """Gradients added at their positions in each plane or volume of the result."""
    out, n = c.type, math.prod(c.type.shape[-rank:])
    planes = math.prod(out.shape[:-rank])
    base = c.indices(np.arange(planes) * n, (*out.shape[:-rank], *(1,) * rank))
    flat = TensorType(Dtype.i32, grad.shape)
    target = c.map(lambda i, base: i.builder.select(i < 0, -1, i + base), indices, base, out=flat)
    scattered = c.g.scatter_add(c.g.reshape(grad, (-1,)), c.g.reshape(target, (-1,)), planes * n)
    return c.cast(c.g.reshape(scattered, out.shape), out.dtype)


# ---- averages ---------------------------------------------------------------------------------------------------


def _shares(c: Context, counts: Sequence[Array], divisor: int | None = None) -> Operand:
    """By how much each window is divided: one number, or a constant [*out] of the products of the axes' counts."""
    table: Array = functools.reduce(lambda table, n: table[..., None] * n, counts)
    if divisor or (table == table.flat[0]).all():
        return float(divisor or table.flat[0])
    return c.cast(c.indices(table), Dtype.f32)


def _counts(w: Windows, count_pad: bool) -> list[Array]:
    """How many elements each window averages along each axis."""
    counts = []
    for n, k, p, start in zip(w.size, w.kernel, w.padding, w.starts, strict=True):
        end = np.minimum(start + k, n + p)
        counts.append(end - start if count_pad else np.minimum(end, n) - np.maximum(start, 0))
    return counts


def avg_pool(
    c: Context,
    rank: int,
    x: Operand,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0,),
    ceil_mode: bool = False,
    count_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    """Sum of the window, then a division."""
    x = c.value(x)
    w = Windows.of(x.shape[-rank:], c.type.shape[-rank:], kernel, stride, padding, (1,))
    taps = w.taps(c, x, 0)
    return c.elementwise(
        lambda t, n: t / n, c.sum(taps, _last(taps.shape, rank)), _shares(c, _counts(w, count_pad), divisor)
    )


def avg_pool_backward(
    c: Context,
    rank: int,
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
    w = Windows.of(c.type.shape[-rank:], grad.shape[-rank:], kernel, stride, padding, (1,))
    share = c.map(lambda g, n: g / n, grad, _shares(c, _counts(w, count_pad), divisor), out=grad.type)
    if w.apart:
        return w.cut(c, c.repeated(share, w.kernel))
    low = [k - 1 - p for k, p in zip(w.kernel, w.padding, strict=True)]
    length = [(o - 1) * s + 1 for o, s in zip(w.out, w.stride, strict=True)]
    high = [n + k - 1 - m - lo for n, k, m, lo in zip(w.size, w.kernel, length, low, strict=True)]
    near = c.pad_or_crop(share, low, high, [s - 1 for s in w.stride])
    taps = c.g.window(near, w.kernel, (1,) * rank, (1,) * rank)
    return c.cast(c.sum(taps, _last(taps.shape, rank)), c.type.dtype)


# ---- adaptive pooling: window o of n elements is [o * n div out, ceil((o + 1) * n / out)) ------------------------


def _even(size: Ints, out: Ints) -> tuple[int, ...] | None:
    """The kernel of an adaptive pool whose windows are neighbours of one size."""
    if any(o == 0 or n % o for n, o in zip(size, out, strict=True)):
        return None
    return tuple(n // o for n, o in zip(size, out, strict=True))


def _bounds(n: int, out: int) -> tuple[Array, Array]:
    """First element and end of every window."""
    o = np.arange(out)
    return o * n // out, -(-(o + 1) * n // out)


def _covering(n: int, out: int) -> tuple[Array, Array]:
    """First and end of the windows that cover each element."""
    first, end = _bounds(n, out)
    i = np.arange(n)
    return np.searchsorted(end, i, side="right"), np.searchsorted(first, i, side="right")


def _uneven_taps(c: Context, x: Value, bounds: Sequence[tuple[Array, Array]], fill: int) -> Value:
    """[..., *S] -> [..., *kernel, *out]: the longest window's number of taps, with `fill` beyond a window's end."""
    rank = len(bounds)
    lead = len(x.shape) - rank
    x = c.pad_or_crop(x, [0] * rank, [1] * rank, fill=fill)
    for done, (first, end) in enumerate(bounds):  # x is [..., *kernel so far, *out so far, *S left]
        index = first + np.arange((end - first).max())[:, None]
        axis = lead + 2 * done
        rest = [a for a in range(len(x.shape)) if a != axis]
        index = np.where(index < end, index, x.shape[axis] - 1)
        picked = c.g.gather(c.g.permute(x, [axis, *rest]), c.indices(index))
        places = [n + 2 for n in range(len(rest))]
        x = c.g.permute(picked, [*places[: lead + done], 0, *places[lead + done : axis], 1, *places[axis:]])
    return x


def adaptive_avg_pool(c: Context, rank: int, x: Operand, size: Ints) -> Value:
    """Average pooling by as many windows as the result has elements; uneven ones are gathered."""
    x = c.value(x)
    out, kernel = c.type.shape[-rank:], _even(x.shape[-rank:], c.type.shape[-rank:])
    if kernel:
        return avg_pool(c, rank, x, kernel)
    bounds = [_bounds(n, o) for n, o in zip(x.shape[-rank:], out, strict=True)]
    taps = _uneven_taps(c, x, bounds, 0)
    total = c.sum(taps, _last(taps.shape, rank))
    return c.elementwise(lambda t, n: t / n, total, _shares(c, [end - first for first, end in bounds]))


def adaptive_avg_pool_backward(c: Context, rank: int, grad: Operand, x: Operand) -> Value:
    """Each input receives the shares of all windows that cover it."""
    grad = c.value(grad)
    size, out = c.type.shape[-rank:], grad.shape[-rank:]
    kernel = _even(size, out)
    if kernel:
        return avg_pool_backward(c, rank, grad, x, kernel, (), (0,), False, True, None)
    counts = [end - first for first, end in (_bounds(n, o) for n, o in zip(size, out, strict=True))]
    share = c.map(lambda g, n: g / n, grad, _shares(c, counts), out=grad.type)
    taps = _uneven_taps(c, share, [_covering(n, o) for n, o in zip(size, out, strict=True)], 0)
    return c.cast(c.sum(taps, _last(taps.shape, rank)), c.type.dtype)


def adaptive_max_pool(c: Context, rank: int, x: Operand, size: Ints) -> tuple[Value, Value]:
    """The maxima of as many windows as the result has elements, and their positions."""
    x = c.value(x)
    size = x.shape[-rank:]
    bounds = [_bounds(n, o) for n, o in zip(size, c.type.shape[-rank:], strict=True)]
    taps = _uneven_taps(c, x, bounds, MINUS_INFINITY[x.dtype])
    return _maxima(c, taps, size, [first for first, _ in bounds], (1,) * rank)


def adaptive_max_pool_backward(c: Context, rank: int, grad: Operand, x: Operand, indices: Operand) -> Value:
    """Each gradient goes to the position of its maximum."""
    return _to_positions(c, rank, c.value(grad), c.value(indices))

"""Interpolation and padding by neighbours: linear maps along single axes, known at capture.

A `Stencil` says which elements of an axis make which, and with what weight. Its transpose is the derivative. The terms
of an element are added in ascending order of their sources, as reduce adds. Positions follow PyTorch's formulas: in
binary32 where they choose an element, in binary64 where they make weights, which are rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gensyn_verify.backends.arrays import Array
from gensyn_verify.frontend.context import Context, Operand
from gensyn_verify.program import Dtype, TensorType, Value

Rule = Callable[..., Value]
Make = Callable[..., "Stencil"]  # from length, new length, and what else the operation says about an axis


@dataclass(frozen=True)
class Stencil:
    """out[targets[n]] += weights[n] * x[sources[n]] for all n, from `length` elements to `size`."""

    sources: Array
    targets: Array
    weights: Array
    length: int
    size: int

    @staticmethod
    def of(sources: Array, weights: Array | None, length: int) -> Stencil:
        """From tables [taps, size]: the sources of each element and their weights, 1 where not given."""
        targets = np.broadcast_to(np.arange(sources.shape[-1]), sources.shape)
        weights = np.ones(sources.shape) if weights is None else weights
        return Stencil(sources.ravel(), targets.ravel(), weights.ravel(), length, sources.shape[-1])

    def transposed(self) -> Stencil:
        return Stencil(self.targets, self.sources, self.weights, self.size, self.length)

    def tables(self) -> tuple[Array, Array]:
        """Sources and weights, each [taps, size], in ascending order of sources; weight 0 and source -1 where none."""
        pairs, place = np.unique(self.targets.astype(np.int64) * self.length + self.sources, return_inverse=True)
        weights = np.zeros(len(pairs))
        np.add.at(weights, place.ravel(), self.weights)
        pairs, weights = pairs[weights != 0], weights[weights != 0]
        targets, sources = np.divmod(pairs, self.length)
        counts = np.bincount(targets, minlength=self.size)
        tap = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = int(counts.max(initial=1)), self.size
        index, weight = np.full(shape, -1), np.zeros(shape, np.float32)
        index[tap, targets], weight[tap, targets] = sources, weights
        return index, weight


def along(c: Context, x: Value, axis: int, stencil: Stencil) -> Value:
    """The stencil along one axis; in f32, except where elements only move."""
    index, weight = stencil.tables()
    rows = c.moved(x, axis, 0)
    if index.shape[0] == 1 and (weight == 1).all():
        return c.moved(c.g.gather(rows, c.indices(index[0])), 0, axis)
    picked = c.g.gather(rows, c.indices(index))  # [taps, size, ...]
    share = c.constant(torch.from_numpy(weight.reshape(*weight.shape, *(1,) * (len(x.shape) - 1))))
    # An element without weight plays no part, whatever it is.
    terms = c.map(
        lambda x, w: x.builder.select(w.equals(0.0), 0.0, x * w), picked, share, out=TensorType(Dtype.f32, picked.shape)
    )
    return c.moved(c.sum(terms, (0,)), 0, axis)


def _each_axis(c: Context, x: Operand, stencils: Sequence[Stencil]) -> Value:
    """The stencils along the last axes, in the dtype of the result."""
    y = c.value(x)
    for axis, stencil in enumerate(stencils, -len(stencils)):
        y = along(c, y, axis, stencil)
    return c.cast(y, c.type.dtype)


# ---- padding ----------------------------------------------------------------------------------------------------


def reflected(length: int, low: int, high: int) -> Stencil:
    at = np.abs(np.arange(-low, length + high))
    return Stencil.of((length - 1 - np.abs(length - 1 - at))[None], None, length)


def replicated(length: int, low: int, high: int) -> Stencil:
    return Stencil.of(np.clip(np.arange(-low, length + high), 0, length - 1)[None], None, length)


def _padding(make: Make, lengths: Sequence[int], padding: Sequence[int]) -> list[Stencil]:
    """ATen's list starts at the last axis."""
    low, high = padding[::2][::-1], padding[1::2][::-1]
    return [make(n, lo, hi) for n, lo, hi in zip(lengths[-len(low) :], low, high, strict=True)]


def pad(make: Make) -> Rule:
    def rule(c: Context, x: Operand, padding: Sequence[int]) -> Value:
        """Elements repeat beyond the edges; each is gathered along its axis."""
        return _each_axis(c, x, _padding(make, c.value(x).shape, padding))

    return rule


def pad_backward(make: Make) -> Rule:
    def rule(c: Context, grad: Operand, x: Operand, padding: Sequence[int]) -> Value:
        """Each element receives the sum over its repetitions."""
        return _each_axis(c, grad, [s.transposed() for s in _padding(make, c.type.shape, padding)])

    return rule


# ---- interpolation ----------------------------------------------------------------------------------------------


def _ratio(length: int, size: int, scale: float | None) -> float:
    return 1.0 / scale if scale else length / size


def nearest(length: int, size: int, scale: float | None) -> Stencil:
    at = np.arange(size, dtype=np.float32) * np.float32(_ratio(length, size, scale))
    return Stencil.of(np.minimum(at.astype(np.int64), length - 1)[None], None, length)


def nearest_exact(length: int, size: int, scale: float | None) -> Stencil:
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(_ratio(length, size, scale))
    return Stencil.of(np.minimum(at.astype(np.int64), length - 1)[None], None, length)


def _positions(length: int, size: int, aligned: bool, scale: float | None) -> Array:
    """Where the new elements lie among the old ones."""
    if aligned:
        return np.arange(size) * ((length - 1) / (size - 1) if size > 1 else 0.0)
    return (np.arange(size) + 0.5) * _ratio(length, size, scale) - 0.5


def linear(length: int, size: int, aligned: bool, scale: float | None) -> Stencil:
    at = np.clip(_positions(length, size, aligned, scale), 0, length - 1)
    low = np.floor(at).astype(np.int64)
    part = at - low
    return Stencil.of(np.stack([low, np.minimum(low + 1, length - 1)]), np.stack([1 - part, part]), length)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' convolution kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def cubic(length: int, size: int, aligned: bool, scale: float | None) -> Stencil:
    at = _positions(length, size, aligned, scale)
    sources = np.floor(at).astype(np.int64) + np.arange(-1, 3)[:, None]
    return Stencil.of(np.clip(sources, 0, length - 1), _cubic(at - sources, -0.75), length)


def smoothed(reach: float, kernel: Callable[[Array], Array]) -> Make:
    """Interpolation that averages where it shrinks: the kernel is as wide as the new elements are apart."""

    def make(length: int, size: int, aligned: bool, scale: float | None) -> Stencil:
        ratio = (length - 1) / max(size - 1, 1) if aligned else _ratio(length, size, scale)
        wide = max(ratio, 1.0)
        center = (np.arange(size) + 0.5) * ratio
        first = np.maximum((center - reach * wide + 0.5).astype(np.int64), 0)
        last = np.minimum((center + reach * wide + 0.5).astype(np.int64), length)
        sources = first + np.arange((last - first).max())[:, None]
        weights = np.where(sources < last, kernel((sources - center + 0.5) / wide), 0.0)
        return Stencil.of(np.minimum(sources, length - 1), weights / weights.sum(0), length)

    return make


smooth_linear = smoothed(1.0, lambda d: np.maximum(1 - np.abs(d), 0.0))
smooth_cubic = smoothed(2.0, lambda d: _cubic(d, -0.5))


def _stencils(make: Make, rank: int, shape: Sequence[int], out: Sequence[int], options: Sequence[Any]) -> list[Stencil]:
    """`options`: align_corners where the operation has it, then a scale or None for each axis, or nothing."""
    shared = [o for o in options if isinstance(o, bool)]
    scales = list(options[len(shared) :]) or [None] * rank
    sizes = zip(shape[-rank:], out[-rank:], scales, strict=True)
    return [make(length, size, *shared, scale) for length, size, scale in sizes]


def upsample(make: Make, rank: int) -> Rule:
    def rule(c: Context, x: Operand, size: Sequence[int], *options: Any) -> Value:
        """Interpolation along one axis after the other; whole multiples of nearest neighbours are repetitions."""
        x = c.value(x)
        stencils = _stencils(make, rank, x.shape, c.type.shape, options)
        times = _repetitions(stencils)
        return _each_axis(c, x, stencils) if times is None else c.repeated(x, times)

    return rule


def upsample_backward(make: Make, rank: int) -> Rule:
    def rule(c: Context, grad: Operand, out: Sequence[int], size: Sequence[int], *options: Any) -> Value:
        """The transpose of the interpolation."""
        grad = c.value(grad)
        stencils = _stencils(make, rank, c.type.shape, grad.shape, options)
        times = _repetitions(stencils)
        if times is None:
            return _each_axis(c, grad, [s.transposed() for s in stencils])
        lead = grad.shape[:-rank]
        wide = [n for s, t in zip(stencils, times, strict=True) for n in (s.length, t)]
        axes = range(len(lead) + 1, len(lead) + 2 * rank, 2)
        return c.cast(c.sum(c.g.reshape(grad, (*lead, *wide)), tuple(axes)), c.type.dtype)

    return rule


def _repetitions(stencils: Sequence[Stencil]) -> list[int] | None:
    """How often each axis repeats its elements, where that is all that happens."""
    times = [s.size // s.length for s in stencils]
    plain = all(
        len(s.sources) == s.size == t * s.length
        and (s.weights == 1).all()
        and np.array_equal(s.sources, np.repeat(np.arange(s.length), t))
        for s, t in zip(stencils, times, strict=True)
    )
    return times if plain else None

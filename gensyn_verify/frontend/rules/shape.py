"""Views, joins and cuts: they move elements and compute nothing. Factories: tensors known at capture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand, axes_of
from gensyn_verify.program import Dtype, Value

TORCH = {
    Dtype.f32: torch.float32, Dtype.bf16: torch.bfloat16, Dtype.f16: torch.float16,
    Dtype.i32: torch.int64, Dtype.u8: torch.uint8, Dtype.i8: torch.int8, Dtype.boolean: torch.bool,
}  # fmt: skip


def same(c: Context, x: Operand, *_: Any) -> Value:
    """The elements as they are."""
    return c.value(x)


def convert(c: Context, x: Operand, *_: Any) -> Value:
    """The elements in the result's dtype."""
    return c.cast(c.value(x), c.type.dtype)


def copy(c: Context, target: Operand, source: Operand, non_blocking: bool = False) -> Value:
    """`source` in the shape and dtype of `target`."""
    return c.g.broadcast(c.cast(c.value(source), c.type.dtype), c.type.shape)


def reshape(c: Context, x: Operand, *_: Any) -> Value:
    """Any view that keeps the row-major order: the result's shape says it all."""
    return c.g.reshape(c.value(x), c.type.shape)


def expand(c: Context, x: Operand, *_: Any) -> Value:
    return c.g.broadcast(c.value(x), c.type.shape)


def transpose(c: Context, x: Operand, a: int = 0, b: int = 1) -> Value:
    x = c.value(x)
    axes = list(range(len(x.shape)))
    if axes[1:]:
        axes[a], axes[b] = axes[b], axes[a]
    return c.g.permute(x, axes)


def permute(c: Context, x: Operand, dims: Sequence[int]) -> Value:
    x = c.value(x)
    return c.g.permute(x, [d % len(x.shape) for d in dims])


def flip(c: Context, x: Operand, dims: Sequence[int]) -> Value:
    x = c.value(x)
    turned = axes_of(list(dims), len(x.shape)) if dims else ()
    start = [n - 1 if a in turned else 0 for a, n in enumerate(x.shape)]
    return c.g.slice(x, start, x.shape, [-1 if a in turned else 1 for a in range(len(x.shape))])


def repeat(c: Context, x: Operand, repeats: Sequence[int]) -> Value:
    x = c.value(x)
    shape = (1,) * (len(repeats) - len(x.shape)) + x.shape
    wide = c.g.reshape(x, [n for d in shape for n in (1, d)])
    wide = c.g.broadcast(wide, [n for r, d in zip(repeats, shape, strict=True) for n in (r, d)])
    return c.g.reshape(wide, c.type.shape)


def roll(c: Context, x: Operand, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    value = c.value(x)
    shape = value.shape
    if not dims:
        value, dims = c.g.reshape(value, (-1,)), [0]
    for shift, dim in zip(shifts, dims, strict=True):
        n = value.shape[dim]
        cut = (n - shift) % n if n else 0
        if cut:
            value = c.g.concat([_part(c, value, dim, cut, n), _part(c, value, dim, 0, cut)], dim % len(value.shape))
    return c.g.reshape(value, shape)


# ---- cuts -------------------------------------------------------------------------------------------------------


def _bounds(n: int, start: int | None, end: int | None, step: int) -> tuple[int, int]:
    """First index and length of a Python slice."""
    indices = range(n)[slice(start, end, step)]
    return indices.start, len(indices)


def _part(c: Context, x: Value, dim: int, start: int | None, end: int | None, step: int = 1) -> Value:
    dim %= len(x.shape)
    first, n = _bounds(x.shape[dim], start, end, step)
    return c.g.slice(
        x,
        [first if a == dim else 0 for a in range(len(x.shape))],
        [n if a == dim else d for a, d in enumerate(x.shape)],
        [step if a == dim else 1 for a in range(len(x.shape))],
    )


def _place(c: Context, part: Value, size: int, dim: int, start: int | None, end: int | None, step: int) -> Value:
    """The reverse of `_part`: zeros of length `size` along `dim` with `part` in its place."""
    dim %= len(part.shape)
    first, n = _bounds(size, start, end, step)
    if n == 0:
        return c.g.full(tuple(size if a == dim else d for a, d in enumerate(part.shape)), 0, part.dtype)
    rank = range(len(part.shape))
    last = first + (n - 1) * step
    return c.g.pad(
        part,
        [first if a == dim else 0 for a in rank],
        [size - 1 - last if a == dim else 0 for a in rank],
        [step - 1 if a == dim else 0 for a in rank],
    )


def slice_(
    c: Context, x: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    return _part(c, c.value(x), dim, start, end, step)


def slice_backward(c: Context, grad: Operand, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Value:
    return _place(c, c.value(grad), sizes[dim], dim, start, end, step)


def slice_scatter(
    c: Context,
    x: Operand,
    source: Operand,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """x with `source` in place of x[start:end:step] along `dim`."""
    x, source = c.value(x), c.value(source)
    dim %= len(x.shape)
    part = _place(c, c.cast(source, x.dtype), x.shape[dim], dim, start, end, step)
    chosen = torch.zeros(x.shape[dim], dtype=torch.bool)
    chosen[start:end:step] = True
    mask = c.constant(chosen.reshape([-1 if a == dim else 1 for a in range(len(x.shape))]))
    return c.g.map(lambda m, p, x: m.builder.select(m, p, x), mask, part, x, shape=x.shape, dtype=x.dtype)


def select(c: Context, x: Operand, dim: int, index: int) -> Value:
    x = c.value(x)
    index %= x.shape[dim]
    return c.g.reshape(_part(c, x, dim, index, index + 1), c.type.shape)


def select_backward(c: Context, grad: Operand, sizes: Sequence[int], dim: int, index: int) -> Value:
    grad = c.value(grad)
    dim, index = dim % len(sizes), index % sizes[dim]
    row = c.g.reshape(grad, [1 if a == dim else d for a, d in enumerate(sizes)])
    return _place(c, row, sizes[dim], dim, index, index + 1, 1)


def select_scatter(c: Context, x: Operand, source: Operand, dim: int, index: int) -> Value:
    x, source = c.value(x), c.value(source)
    dim, index = dim % len(x.shape), index % x.shape[dim]
    row = c.g.reshape(source, [1 if a == dim else d for a, d in enumerate(x.shape)])
    return slice_scatter(c, x, row, dim, index, index + 1)


def split(c: Context, x: Operand, size: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    """Consecutive parts; their lengths are those of the results."""
    x = c.value(x)
    parts, start = [], 0
    for t in c.types:
        end = start + t.shape[dim]
        parts.append(_part(c, x, dim, start, end))
        start = end
    return tuple(parts)


def unbind(c: Context, x: Operand, dim: int = 0) -> tuple[Value, ...]:
    x = c.value(x)
    return tuple(c.g.reshape(_part(c, x, dim, i, i + 1), t.shape) for i, t in enumerate(c.types))


def unfold(c: Context, x: Operand, dim: int, size: int, step: int) -> Value:
    """Windows along one axis; their elements become the last axis."""
    x = c.value(x)
    if not x.shape:
        return c.g.reshape(x, c.type.shape)
    dim %= len(x.shape)
    windows = c.g.window(c.moved(x, dim, -1), (size,), (step,), (1,))  # [*rest, size, windows]
    n = len(x.shape) - 1
    return c.g.permute(windows, [*range(dim), n + 1, *range(dim, n), n])


def unfold_backward(c: Context, grad: Operand, sizes: Sequence[int], dim: int, size: int, step: int) -> Value:
    """Each element receives the sum over the windows that hold it."""
    grad = c.value(grad)
    if not sizes:
        return c.g.reshape(grad, ())
    dim %= len(sizes)
    last = len(grad.shape) - 1
    rows = c.g.permute(grad, [dim, last, *(a for a in range(last) if a != dim)])
    index = c.indices(np.arange(grad.shape[dim])[:, None] * step + np.arange(size))
    added = c.g.scatter_add(rows, index, sizes[dim])
    return c.cast(c.moved(added, 0, dim), c.type.dtype)


# ---- diagonals --------------------------------------------------------------------------------------------------


def _diagonal(sizes: Sequence[int], offset: int, a: int, b: int) -> tuple[list[int], Any]:
    """The axes with a and b in front, and the places of the diagonal in both taken as one."""
    a, b = a % len(sizes), b % len(sizes)
    n = max(min(sizes[a] + min(offset, 0), sizes[b] - max(offset, 0)), 0)
    places = (np.arange(n) - min(offset, 0)) * sizes[b] + np.arange(n) + max(offset, 0)
    return [a, b, *(axis for axis in range(len(sizes)) if axis not in (a, b))], places


def diagonal(c: Context, x: Operand, offset: int = 0, a: int = 0, b: int = 1) -> Value:
    """The diagonal of two axes as the last axis."""
    x = c.value(x)
    front, places = _diagonal(x.shape, offset, a, b)
    rows = c.g.permute(x, front)
    picked = c.g.gather(c.g.reshape(rows, (rows.shape[0] * rows.shape[1], *rows.shape[2:])), c.indices(places))
    return c.moved(picked, 0, -1)


def diagonal_backward(c: Context, grad: Operand, sizes: Sequence[int], offset: int, a: int, b: int) -> Value:
    """Zeros with the gradient on the diagonal."""
    grad = c.value(grad)
    front, places = _diagonal(sizes, offset, a, b)
    rows = c.moved(grad, -1, 0)
    placed = c.cast(c.g.scatter_add(rows, c.indices(places), sizes[front[0]] * sizes[front[1]]), grad.dtype)
    placed = c.g.reshape(placed, [sizes[axis] for axis in front])
    return c.g.permute(placed, [front.index(axis) for axis in range(len(sizes))])


def diag_embed(c: Context, x: Operand, offset: int = 0, a: int = -2, b: int = -1) -> Value:
    """Matrices of zeros with the last axis on a diagonal."""
    return diagonal_backward(c, x, c.type.shape, offset, a, b)


def diagonal_scatter(c: Context, x: Operand, source: Operand, offset: int = 0, a: int = 0, b: int = 1) -> Value:
    """x with `source` on the diagonal of two axes."""
    x, source = c.value(x), c.value(source)
    placed = diagonal_backward(c, c.cast(source, x.dtype), x.shape, offset, a, b)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    mask.diagonal(offset, a, b).fill_(True)
    return c.g.map(lambda m, p, x: m.builder.select(m, p, x), c.constant(mask), placed, x, dtype=x.dtype)


# ---- joins ------------------------------------------------------------------------------------------------------


def cat(c: Context, tensors: Sequence[Operand], dim: int = 0) -> Value:
    """Inputs one after the other; PyTorch's old exception, an empty vector among matrices, is left out."""
    values = [c.cast(c.value(t), c.type.dtype) for t in tensors]
    rank = len(c.type.shape)
    values = [v for v in values if len(v.shape) == rank]
    return values[0] if len(values) == 1 else c.g.concat(values, dim % rank)


def stack(c: Context, tensors: Sequence[Operand], dim: int = 0) -> Value:
    rank = len(c.type.shape)
    dim %= rank
    shape = [1 if a == dim else d for a, d in enumerate(c.type.shape)]
    return c.g.concat([c.g.reshape(c.cast(c.value(t), c.type.dtype), shape) for t in tensors], dim)


def constant_pad(c: Context, x: Operand, pad: Sequence[int], value: Number = 0) -> Value:
    """ATen's pad list starts at the last axis; negative numbers cut."""
    x = c.value(x)
    fill = _bits(value, x.dtype)
    low, high = list(pad[::2])[::-1], list(pad[1::2])[::-1]
    return c.pad_or_crop(x, low, high, fill=fill)


def _bits(value: Number, dtype: Dtype) -> int:
    """The bits of one stored element."""
    number = torch.tensor([value], dtype=torch.int32 if dtype is Dtype.i32 else TORCH[dtype])
    return int.from_bytes(bytes(number.view(torch.uint8).tolist()), "little")


def triangle(lower: bool) -> Any:
    """tril or triu of the last two axes."""

    def rule(c: Context, x: Operand, diagonal: int = 0) -> Value:
        x = c.value(x)
        ones = torch.ones(x.shape[-2:], dtype=torch.bool)
        mask = c.constant(ones.tril(diagonal) if lower else ones.triu(diagonal))
        zero = c.g.full((), 0, x.dtype)
        return c.g.map(lambda m, x, z: m.builder.select(m, x, z), mask, x, zero, shape=x.shape, dtype=x.dtype)

    return rule


# ---- factories: results known at capture ------------------------------------------------------------------------


def filled(value: Number | None) -> Any:
    """A tensor of one number in the result's type; None: the number is the last positional argument."""

    def rule(c: Context, *args: Any) -> Tensor | Value:
        number = args[-1] if value is None else value
        if isinstance(number, Value):
            return c.g.broadcast(c.cast(number, c.type.dtype), c.type.shape)
        number = number.item() if isinstance(number, Tensor) else number
        return torch.full((), number, dtype=TORCH[c.type.dtype]).expand(c.type.shape)

    return rule


# ---- memory -----------------------------------------------------------------------------------------------------


def as_strided(c: Context, x: Operand, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Value:
    """The elements of x that lie at these places of its memory: a reshape, or a gather by places known at capture."""
    x = c.value(x)
    places = _places_in_memory(c, x, size, stride, offset)
    if np.array_equal(places, np.arange(x.type.elements)):
        return c.g.reshape(x, tuple(size))
    return c.g.reshape(c.g.gather(c.g.reshape(x, (-1,)), c.indices(places)), tuple(size))


def as_strided_scatter(
    c: Context, x: Operand, source: Operand, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Value:
    """x with `source` at these places of its memory; the last of several at one place stays."""
    x, source = c.value(x), c.value(source)
    places = _places_in_memory(c, x, size, stride, offset)
    chosen = np.full(x.type.elements, -1)
    chosen[places] = np.arange(len(places))
    mask = c.constant(torch.from_numpy(chosen >= 0).reshape(x.shape))
    picked = c.g.gather(c.g.reshape(c.cast(source, x.dtype), (-1,)), c.indices(chosen))
    picked = c.g.reshape(picked, x.shape)
    return c.g.map(lambda m, p, x: m.builder.select(m, p, x), mask, picked, x, dtype=x.dtype)


def _places_in_memory(c: Context, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None) -> Array:
    """Which elements of x, counted in row-major order, have these addresses in PyTorch's memory."""

    def addresses(first: int, size: Sequence[int], stride: Sequence[int]) -> Array:
        at: Array = np.asarray(first)
        for n, s in zip(size, stride, strict=True):
            at = at[..., None] + np.arange(n) * s
        return at.ravel()

    first, strides = c.memory
    own, wanted = addresses(first, x.shape, strides), addresses(first if offset is None else offset, size, stride)
    order = np.argsort(own, kind="stable")
    found = order[np.minimum(np.searchsorted(own[order], wanted), max(len(own) - 1, 0))] if len(own) else wanted
    if len(wanted) and (not len(own) or not np.array_equal(own[found], wanted)):
        raise CaptureError(f"size {list(size)}, stride {list(stride)} reach elements outside of {x.type}; use views")
    return found

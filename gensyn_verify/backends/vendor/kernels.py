"""The node kinds but map, scan and dot on torch tensors in storage dtypes: data move exactly, sums in torch's order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gensyn_verify.backends.vendor.operations import LOW, canonical, ordered, unsigned
from gensyn_verify.backends.vendor.tensors import REGISTER, STORAGE, narrow, widen
from gensyn_verify.program import ops
from gensyn_verify.program.types import Dtype


def run_reduce(op: ops.Reduce, x: Tensor, dtype: Dtype) -> Tensor:
    name = ops.REDUCTIONS[op.op]
    if name == "sum":
        if not op.axes:  # torch takes no axes for all axes
            return narrow(widen(x, dtype), op.dtype)
        return narrow(torch.sum(x, op.axes, dtype=REGISTER[dtype.reg]), op.dtype)
    unsigned_words = dtype is Dtype.u32
    x = ordered(x) if unsigned_words else x
    if name in ("max", "min"):
        if op.axes:
            x = torch.amax(x, op.axes) if name == "max" else torch.amin(x, op.axes)
        return ordered(x) if unsigned_words else x
    kept = [a for a in range(x.dim()) if a not in op.axes]
    n = math.prod(x.shape[a] for a in op.axes)
    rows = x.permute([*kept, *op.axes]).reshape([*(x.shape[a] for a in kept), n])
    found = torch.argmax(rows, -1) if name == "argmax" else torch.argmin(rows, -1)
    return found.to(torch.int32)


def run_layout(op: ops.Op, inputs: list[Tensor], shape: tuple[int, ...], dtype: Dtype) -> Tensor:
    """Bits move; views where torch has one."""
    x = inputs[0]
    if isinstance(op, ops.Reshape):
        return x.reshape(shape)
    if isinstance(op, ops.Permute):
        return x.permute(op.axes)
    if isinstance(op, ops.Broadcast):
        return x.expand(shape)
    if isinstance(op, ops.Concat):
        return torch.cat(inputs, op.axis)
    if isinstance(op, ops.Slice):
        return _slice(op, x)
    if isinstance(op, ops.Pad):
        return _pad(op, x, shape, dtype)
    assert isinstance(op, ops.Window)
    return _window(op, x, shape)


def _slice(op: ops.Slice, x: Tensor) -> Tensor:
    """torch knows no negative steps: the elements are taken in ascending order and then turned."""
    turned = []
    for axis, (start, n, step) in enumerate(zip(op.start, op.shape, op.step, strict=True)):
        if n == 0:
            x = x.narrow(axis, 0, 0)
            continue
        first, last = sorted((start, start + (n - 1) * step))
        if (first, last, abs(step)) != (0, x.shape[axis] - 1, 1):
            x = x.narrow(axis, first, last - first + 1)
            if abs(step) != 1:
                x = x[(slice(None),) * axis + (slice(None, None, abs(step)),)]
        if step < 0:
            turned.append(axis)
    return x.flip(turned) if turned else x


def _pad(op: ops.Pad, x: Tensor, shape: tuple[int, ...], dtype: Dtype) -> Tensor:
    out = torch.empty(shape, dtype=x.dtype, device=x.device)
    if op.fill == 0:
        out.zero_()
    else:
        word = torch.tensor(list(op.fill.to_bytes(dtype.size, "little")), dtype=torch.uint8)
        out.fill_(word.view(torch.bool if dtype is Dtype.boolean else STORAGE[dtype])[0])
    if x.numel():
        spots = tuple(
            slice(lo, lo + (d - 1) * (gap + 1) + 1, gap + 1)
            for d, lo, gap in zip(x.shape, op.low, op.interior, strict=True)
        )
        out[spots] = x
    return out


def _window(op: ops.Window, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A view: taps and places are strides over the same elements."""
    d = len(op.size)
    strides = x.stride()
    spatial = strides[len(strides) - d :]
    taps = [s * dilation for s, dilation in zip(spatial, op.dilation, strict=True)]
    places = [s * stride for s, stride in zip(spatial, op.stride, strict=True)]
    return x.as_strided(shape, [*strides[: len(strides) - d], *taps, *places], x.storage_offset())


def run_gather(data: Tensor, index: Tensor, dtype: Dtype) -> Tensor:
    """Rows by index; outside the rows: NaN for floats, 0 for the rest."""
    rows, shape = data.shape[0], (*index.shape, *data.shape[1:])
    flat = index.reshape(-1)
    inside = (flat >= 0) & (flat < rows)
    fill = float("nan") if dtype.is_float else 0
    if rows == 0:
        return torch.full(shape, fill, dtype=data.dtype, device=data.device)
    found = torch.index_select(data, 0, flat.clamp(0, rows - 1))
    if not (data.device.type == "cpu" and bool(inside.all())):  # elsewhere the question would wait for the device
        found = torch.where(inside.reshape(-1, *(1,) * (data.dim() - 1)), found, fill).to(data.dtype)
    return found.reshape(shape)


def run_scatter_add(op: ops.ScatterAdd, source: Tensor, index: Tensor, dtype: Dtype, shape: tuple[int, ...]) -> Tensor:
    """Rows added in torch's order; what has no row goes to one that is cut off."""
    flat = index.reshape(-1)
    flat = torch.where((flat >= 0) & (flat < op.rows), flat, op.rows)
    out = torch.zeros((op.rows + 1, *shape[1:]), dtype=REGISTER[dtype.reg], device=source.device)
    out.index_add_(0, flat, widen(source, dtype).reshape(flat.numel(), *shape[1:]))
    return narrow(out[: op.rows], op.dtype)


def run_sort(x: Tensor, dtype: Dtype) -> Tensor:
    if dtype is Dtype.u32:
        x = ordered(x)
    elif dtype.is_float:
        x = canonical(x) + 0.0  # radix sorts go by the bits: one NaN, one zero
    return torch.sort(x, dim=-1, stable=True).indices.to(torch.int32)


def run_random(op: ops.Random, seed: Tensor, step: Tensor) -> Tensor:
    """Philox4x32-10 in int64: products are right modulo 2^64, and each half is masked out."""
    count = math.prod(op.shape)
    block = torch.arange((count + 3) // 4, dtype=torch.int64, device=seed.device)
    c0, c1 = block & LOW, block >> 32
    c2 = torch.full_like(block, op.stream)
    c3 = unsigned(step).expand(block.shape)
    key = unsigned(seed)
    k0, k1 = key[0], key[1]
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((p1 >> 32) & LOW) ^ c1 ^ k0, p1 & LOW
        c2, c3 = ((p0 >> 32) & LOW) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & LOW, (k1 + 0xBB67AE85) & LOW
    words = torch.stack((c0, c1, c2, c3), -1).reshape(-1)[:count]
    return words.to(torch.int32).reshape(op.shape)

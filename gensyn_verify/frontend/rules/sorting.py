"""Sorting and what is read off a sorted axis: equal elements keep their order, NaN is the largest, -0 equals +0.

PyTorch leaves open which of several equal elements `topk`, `kthvalue` and `median` name; here it is the first of them.
"""

from __future__ import annotations

from typing import Any

from gensyn_verify.frontend.context import Context, Operand
from gensyn_verify.frontend.rules.indexing import along
from gensyn_verify.program import Dtype, Reg, TensorType, Value


def positions(c: Context, rows: Value, descending: bool = False) -> Value:
    """What puts the last axis in order, as positions on it."""
    if rows.dtype is Dtype.boolean:
        rows = c.cast(rows, Dtype.i32)
    if not descending:
        return c.g.sort(rows)
    n = rows.shape[-1]
    backwards = c.g.sort(_reversed(c, rows))
    return c.map(lambda i: (n - 1) - i, _reversed(c, backwards), out=backwards.type)


def _reversed(c: Context, rows: Value) -> Value:
    rank, n = len(rows.shape), rows.shape[-1]
    return c.g.slice(rows, [*[0] * (rank - 1), n - 1], rows.shape, [*[1] * (rank - 1), -1])


def _part(c: Context, rows: Value, start: int, n: int) -> Value:
    lead = rows.shape[:-1]
    return c.g.slice(rows, [*[0] * len(lead), start], [*lead, n])


def _chosen(c: Context, rows: Value, order: Value, dim: int) -> tuple[Value, Value]:
    """Values and positions as PyTorch returns them: the axis back at `dim`, or removed if it holds one element."""
    values = c.g.gather(c.g.reshape(rows, (rows.type.elements,)), along(c, rows.shape, len(rows.shape) - 1, order))
    results = (c.moved(v, -1, dim) if len(v.shape) == len(c.type.shape) else v for v in (values, order))
    first, second = (c.g.reshape(v, c.type.shape) for v in results)
    return first, second


def _rows(c: Context, x: Operand, dim: int) -> Value:
    """x with `dim` last; a scalar is a row of one."""
    x = c.value(x)
    return c.moved(x, dim, -1) if x.shape else c.g.reshape(x, (1,))


def sort(
    c: Context, x: Operand, dim: int = -1, descending: bool = False, stable: bool | None = None
) -> tuple[Value, Value]:
    """Values and positions, stable whether asked or not."""
    rows = _rows(c, x, dim)
    return _chosen(c, rows, positions(c, rows, descending), dim)


def topk(
    c: Context, x: Operand, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Value, Value]:
    """The first k of the sorted axis; always sorted."""
    rows = _rows(c, x, dim)
    return _chosen(c, rows, _part(c, positions(c, rows, largest), 0, k), dim)


def kthvalue(c: Context, x: Operand, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    rows = _rows(c, x, dim)
    return _chosen(c, rows, _part(c, positions(c, rows), k - 1, 1), dim)


def median(skip_nan: bool) -> Any:
    """The lower median, NaN if there is one; nanmedian: of the other elements. Over one axis with position, or all."""

    def rule(c: Context, x: Operand, dim: int | None = None, keepdim: bool = False) -> Any:
        x = c.value(x)
        rows = c.g.reshape(x, (x.type.elements,)) if dim is None else _rows(c, x, dim)
        n = rows.shape[-1]
        nans = c.map(
            lambda v: (~v.equals(v)).to(Reg.i32),
            rows,
            out=TensorType(Dtype.i32, rows.shape),
            compute=rows.dtype.reg,
        )
        count = c.sum(nans, (len(rows.shape) - 1,), True)

        def place(nans: Any) -> Any:
            b, known = nans.builder, (n - 1) - nans  # the last that is a number
            if skip_nan:
                return (known.max(0)) >> 1
            return b.select(nans.equals(0), (n - 1) // 2, known + 1)

        order = positions(c, rows)
        at = along(c, rows.shape, len(rows.shape) - 1, c.map(place, count, out=count.type))
        chosen = c.g.gather(c.g.reshape(order, (order.type.elements,)), at)
        values, where = _chosen(c, rows, chosen, 0 if dim is None else dim)
        return values if dim is None else (values, where)

    return rule

"""torch.optim.Adafactor: second moments of a matrix as the outer product of a row and a column.

Means of squares, and the root mean squares that bound step and update, are reductions, so an update is several nodes.
"""

from __future__ import annotations

import math

import torch

from gensyn_verify.frontend.optimizers.family import Family, Numbers, Settings, Slot, Slots, scalar, write
from gensyn_verify.program import Dtype, ProgramBuilder, Scalar, Value
from gensyn_verify.program.types import Shape

_TORCH = {Dtype.f32: torch.float32, Dtype.bf16: torch.bfloat16, Dtype.f16: torch.float16}


def _slots(settings: Settings, shape: Shape) -> dict[str, Slot]:
    if len(shape) < 2:
        return {"variance": Slot()}
    return {"row_var": Slot(shape=(*shape[:-1], 1)), "col_var": Slot(shape=(*shape[:-2], 1, shape[-1]))}


def _numbers(settings: Settings, n: int) -> dict[str, float]:
    lr = settings["lr"]
    numbers = {"variance_share": n ** settings["beta2_decay"], "rate": min(lr, 1.0 / n**0.5)}
    return {**numbers, "weight_share": 1.0 - lr * settings["weight_decay"]} if settings["weight_decay"] else numbers


def _mean_square(g: ProgramBuilder, x: Value, axes: tuple[int, ...] | None = None) -> Value:
    """Of f32 `x` over `axes`, which stay with length 1 (default: all, which go)."""
    square = g.map(lambda v: v * v, x, dtype=Dtype.f32)
    over = tuple(range(len(x.shape))) if axes is None else axes
    count = math.prod(x.shape[a] for a in over)
    total = g.reduce("sum", square, over, keepdims=axes is not None) if over else square
    return g.map(lambda s: s / float(max(count, 1)), total)


def _average(g: ProgramBuilder, slot: Value, new: Value, share: Value) -> Value:
    (out,) = write(
        g, lambda s, n, w: s.builder.fma(w, n - s, s), slot, new, share, shape=slot.shape, dtypes=[slot.dtype]
    )
    return out


def _second_moment(g: ProgramBuilder, share: Value, gradient: Value, slots: Slots, floor: float) -> tuple[Value, Slots]:
    """The estimate of the squared gradient, and the slots it comes from."""
    if "variance" in slots:
        variance = _average(g, slots["variance"], g.map(lambda v: v * v, gradient, dtype=Dtype.f32), share)
        return variance, {"variance": variance}
    rank = len(gradient.shape)
    row = _average(g, slots["row_var"], _mean_square(g, gradient, (rank - 1,)), share)
    column = _average(g, slots["col_var"], _mean_square(g, gradient, (rank - 2,)), share)
    total = g.reduce("sum", row, (rank - 2,), keepdims=True)
    count = float(row.shape[-2])

    def outer(r: Scalar, c: Scalar, total: Scalar) -> Scalar:
        return r * c / (total / count).max(floor)

    return g.map(outer, row, column, total, dtype=Dtype.f32), {"row_var": row, "col_var": column}


def _update(
    g: ProgramBuilder, settings: Settings, x: Numbers, p: Value, gradient: Value, slots: Slots
) -> tuple[Value, Slots]:
    eps = settings["eps"][0]
    floor = torch.finfo(_TORCH[p.dtype]).eps if eps is None else eps
    if settings.get("maximize"):
        gradient = g.map(lambda v: -v, gradient, dtype=gradient.dtype)
    variance, slots = _second_moment(g, x["variance_share"], gradient, slots, floor)
    update = g.map(lambda v, s: v * (1.0 / s.max(floor * floor).sqrt()), gradient, variance, dtype=Dtype.f32)

    def step(least: Scalar, size: Scalar, rate: Scalar, length: Scalar, bound: Scalar) -> Scalar:
        return size.sqrt().max(least) * rate / (length.sqrt() / bound).max(1.0)

    operands = x["least_scale"], _mean_square(g, p), x["rate"], _mean_square(g, update), x["bound"]
    size = scalar(g, step, *operands)

    def move(p: Scalar, u: Scalar, size: Scalar, *share: Scalar) -> Scalar:
        return p.builder.fma(-size, u, p * share[0] if share else p)

    share = [x["weight_share"]] if "weight_share" in x else []
    (p,) = write(g, move, p, update, size, *share, shape=p.shape, dtypes=[p.dtype])
    return p, slots


ADAFACTOR = Family(
    options=frozenset({"beta2_decay", "eps", "d", "weight_decay"}),
    slots=_slots,
    numbers=_numbers,
    constants=lambda settings: {"least_scale": settings["eps"][1], "bound": settings["d"]},
    update=_update,
)

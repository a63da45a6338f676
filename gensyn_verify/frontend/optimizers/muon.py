"""torch.optim.Muon: momentum whose matrix is brought near to an orthogonal one by Newton-Schulz iterations in bf16."""

from __future__ import annotations

import math
from typing import Any

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.optimizers.family import (
    Family,
    Numbers,
    Settings,
    Slot,
    Slots,
    interpolate,
    kept,
    scalar,
    write,
    zeros,
)
from gensyn_verify.program import Dtype, ProgramBuilder, Scalar, Value
from gensyn_verify.program.types import Shape


def _slots(settings: Settings, shape: Shape) -> dict[str, Slot]:
    if len(shape) != 2:
        raise CaptureError(
            f"Muon trains matrices, found a parameter of shape {list(shape)}; give it to another optimizer"
        )
    return zeros("momentum_buffer")


def _ratio(settings: Settings, shape: Shape) -> float:
    """How much longer the step of a matrix of this shape is than the learning rate."""
    rows, columns = shape
    if settings["adjust_lr_fn"] == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def _orthogonal(g: ProgramBuilder, settings: Settings, x: Value) -> Value:
    """Newton-Schulz: x = a x + (b A + c A A) x with A = x x^T, products in f32 and results in bf16."""
    a, b, c = settings["ns_coefficients"]
    tall = x.shape[0] > x.shape[1]
    x = g.permute(x, (1, 0)) if tall else x
    total = g.reduce("sum", g.map(lambda v: v * v, x, dtype=Dtype.f32), (0, 1))
    norm = scalar(g, lambda s: s.sqrt().max(settings["eps"]), total)
    x = g.map(lambda v, n: v / n, x, norm, dtype=Dtype.bf16)

    def add(scale: float, factor: float, u: Value, product: Value) -> Value:
        return g.map(lambda v, w: v.builder.fma(scale, v, factor * w), u, product, dtype=Dtype.bf16)

    for _ in range(settings["ns_steps"]):
        gram = g.dot(x, x, transpose_b=True, dtype=Dtype.bf16)
        x = add(a, 1.0, x, g.dot(add(b, c, gram, g.dot(gram, gram)), x))
    return g.permute(x, (1, 0)) if tall else x


def _momentum(settings: Settings, g: Scalar, buffer: Scalar, momentum: Any, rest: Any) -> tuple[Scalar, Scalar]:
    share = settings["momentum"]
    buffer = interpolate(buffer, g, rest, momentum, 1.0 - share)
    return buffer, interpolate(g, buffer, momentum, rest, share) if settings["nesterov"] else buffer


def _update(
    g: ProgramBuilder, settings: Settings, x: Numbers, p: Value, gradient: Value, slots: Slots
) -> tuple[Value, Slots]:
    operands = gradient, slots["momentum_buffer"], x["momentum"], x["gradient_share"]
    buffer, update = write(
        g, lambda *s: _momentum(settings, *s), *operands, shape=p.shape, dtypes=[p.dtype, Dtype.bf16]
    )
    ratio = _ratio(settings, p.shape)

    def move(p: Scalar, u: Scalar, lr: Scalar, share: Scalar) -> Scalar:
        return p.builder.fma(-(lr * ratio), u, p * share)

    operands = p, _orthogonal(g, settings, update), x["learning_rate"], x["weight_share"]
    (p,) = write(g, move, *operands, shape=p.shape, dtypes=[p.dtype])
    return p, {"momentum_buffer": buffer}


MUON = Family(
    options=frozenset({"weight_decay", "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn"}),
    slots=_slots,
    numbers=lambda settings, n: {
        "learning_rate": settings["lr"],
        "weight_share": 1.0 - settings["lr"] * settings["weight_decay"],
    },
    constants=lambda settings: {"gradient_share": 1.0 - settings["momentum"], **kept(settings, "momentum")},
    update=_update,
    counted=False,
)

"""torch.optim.RMSprop, plain, centered, with momentum."""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import (
    Family,
    Numbers,
    Settings,
    Slot,
    decayed,
    elementwise,
    interpolate,
    kept,
    zeros,
)
from gensyn_verify.program import Scalar
from gensyn_verify.program.types import Shape


def _slots(settings: Settings, shape: Shape) -> dict[str, Slot]:
    chosen = {"momentum_buffer": settings["momentum"], "grad_avg": settings["centered"]}
    return zeros("square_avg", *(name for name, wanted in chosen.items() if wanted))


def _constants(settings: Settings) -> dict[str, float]:
    options = kept(settings, "alpha", "eps", "weight_decay", *(["momentum"] if settings["momentum"] else []))
    return {"square_share": 1.0 - settings["alpha"], **options}


@elementwise
def _update(settings: Settings, x: Numbers, p: Scalar, g: Scalar, *slots: Scalar) -> tuple[Scalar, ...]:
    b = p.builder
    own = dict(zip(_slots(settings, ()), slots, strict=True))
    _, g = decayed(settings, x, p, g)
    own["square_avg"] = square = b.fma(x["square_share"] * g, g, own["square_avg"] * x["alpha"])
    if "grad_avg" in own:
        share = 1.0 - settings["alpha"]
        own["grad_avg"] = mean = interpolate(own["grad_avg"], g, x["square_share"], x["alpha"], share)
        square = b.fma(-mean, mean, square)
    denominator = square.sqrt() + x["eps"]
    if "momentum_buffer" in own:
        own["momentum_buffer"] = own["momentum_buffer"] * x["momentum"] + g / denominator
        following = b.fma(-x["learning_rate"], own["momentum_buffer"], p)
    else:
        following = p - x["learning_rate"] * g / denominator
    return following, *own.values()


RMSPROP = Family(
    options=frozenset({"alpha", "eps", "weight_decay", "momentum", "centered"}),
    slots=_slots,
    numbers=lambda settings, n: {"learning_rate": settings["lr"]},
    constants=_constants,
    update=_update,
)

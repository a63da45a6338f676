"""torch.optim.SGD.

PyTorch sets the momentum buffer to the gradient at the first step. Here it starts as -0 and follows the common rule
buffer = fma(share, gradient, momentum * buffer) with share = 1 in the first step: -0 is the exact identity of
addition, so the first buffer is the gradient, bit for bit.
"""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import Family, Numbers, Settings, Slot, decayed, elementwise, kept
from gensyn_verify.program import Scalar


def _numbers(settings: Settings, n: int) -> dict[str, float]:
    numbers = {"learning_rate": settings["lr"]}
    if settings["momentum"] and settings["dampening"]:
        numbers["gradient_share"] = 1.0 if n == 1 else 1.0 - settings["dampening"]
    return numbers


@elementwise
def _update(settings: Settings, x: Numbers, p: Scalar, g: Scalar, *slots: Scalar) -> tuple[Scalar, ...]:
    b = p.builder
    _, g = decayed(settings, x, p, g)
    if slots:
        (buffer,) = slots
        shrunk = buffer * x["momentum"]
        buffer = b.fma(x["gradient_share"], g, shrunk) if "gradient_share" in x else shrunk + g
        g = b.fma(x["momentum"], buffer, g) if settings["nesterov"] else buffer
        slots = (buffer,)
    return b.fma(-x["learning_rate"], g, p), *slots


SGD = Family(
    options=frozenset({"momentum", "dampening", "weight_decay", "nesterov"}),
    slots=lambda settings, shape: {"momentum_buffer": Slot(-0.0)} if settings["momentum"] else {},
    numbers=_numbers,
    constants=lambda settings: kept(settings, "weight_decay", *(["momentum"] if settings["momentum"] else [])),
    update=_update,
    counted=False,
)

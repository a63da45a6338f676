"""torch.optim.RAdam: Adam that goes without its second moment until that has little enough variance."""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import (
    Family,
    Numbers,
    Settings,
    adam_constants,
    decayed,
    elementwise,
    first_moment,
    second_moment,
    weight_share,
    zeros,
)
from gensyn_verify.program import Scalar


def _numbers(settings: Settings, n: int) -> dict[str, float]:
    """`rectifier` is 0 while the update is not adaptive."""
    beta1, beta2 = settings["betas"]
    correction = 1.0 - beta2**n
    limit = 2.0 / (1.0 - beta2) - 1.0
    rho = limit - 2.0 * n * beta2**n / correction
    rectifier = 0.0
    if rho > 5.0:
        rectifier = ((rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho)) ** 0.5
    return {
        "step_size": settings["lr"] / (1.0 - beta1**n),
        "rectifier": rectifier * correction**0.5,
        **weight_share(settings),
    }


@elementwise
def _update(settings: Settings, x: Numbers, p: Scalar, g: Scalar, m: Scalar, v: Scalar) -> tuple[Scalar, ...]:
    p, g = decayed(settings, x, p, g)
    m, v = first_moment(settings, x, m, g), second_moment(x, v, g)
    adaptive = x["rectifier"] / (v.sqrt() + x["eps"])
    scale = p.builder.select(x["rectifier"] > 0.0, adaptive, 1.0)
    return p - x["step_size"] * m * scale, m, v


RADAM = Family(
    options=frozenset({"betas", "eps", "weight_decay", "decoupled_weight_decay"}),
    slots=lambda settings, shape: zeros("exp_avg", "exp_avg_sq"),
    numbers=_numbers,
    constants=adam_constants,
    update=_update,
)

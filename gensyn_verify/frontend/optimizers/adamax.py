"""torch.optim.Adamax: Adam whose second moment is a decaying maximum."""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import (
    Family,
    Numbers,
    Settings,
    adam_constants,
    decayed,
    elementwise,
    first_moment,
    zeros,
)
from gensyn_verify.program import Scalar


@elementwise
def _update(settings: Settings, x: Numbers, p: Scalar, g: Scalar, m: Scalar, infinity: Scalar) -> tuple[Scalar, ...]:
    p, g = decayed(settings, x, p, g)
    m = first_moment(settings, x, m, g)
    infinity = (infinity * x["beta2"]).max(g.abs() + x["eps"])
    return p - x["step_size"] * m / infinity, m, infinity


ADAMAX = Family(
    options=frozenset({"betas", "eps", "weight_decay"}),
    slots=lambda settings, shape: zeros("exp_avg", "exp_inf"),
    numbers=lambda settings, n: {"step_size": settings["lr"] / (1.0 - settings["betas"][0] ** n)},
    constants=adam_constants,
    update=_update,
)

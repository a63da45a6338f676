"""torch.optim.Adam and AdamW."""

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
    beta1, beta2 = settings["betas"]
    return {
        "step_size": settings["lr"] / (1.0 - beta1**n),
        "second_moment_scale": (1.0 - beta2**n) ** 0.5,
        **weight_share(settings),
    }


@elementwise
def _update(
    settings: Settings, x: Numbers, p: Scalar, g: Scalar, m: Scalar, v: Scalar, *top: Scalar
) -> tuple[Scalar, ...]:
    p, g = decayed(settings, x, p, g)
    m, v = first_moment(settings, x, m, g), second_moment(x, v, g)
    top = tuple(t.max(v) for t in top)
    root = (top[0] if top else v).sqrt()
    denominator = root / x["second_moment_scale"] + x["eps"]
    return p - x["step_size"] * m / denominator, m, v, *top


ADAM = Family(
    options=frozenset({"betas", "eps", "weight_decay", "amsgrad", "decoupled_weight_decay"}),
    slots=lambda settings, shape: zeros("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if settings["amsgrad"] else [])),
    numbers=_numbers,
    constants=adam_constants,
    update=_update,
)

"""torch.optim.NAdam: Adam with Nesterov momentum, whose share mu grows from update to update."""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import (
    Family,
    Numbers,
    Settings,
    Slot,
    Slots,
    adam_constants,
    decayed,
    elementwise,
    first_moment,
    scalar,
    second_moment,
    weight_share,
    zeros,
)
from gensyn_verify.program import Dtype, ProgramBuilder, Scalar, Value


def _numbers(settings: Settings, n: int) -> dict[str, float]:
    beta1, beta2 = settings["betas"]
    mu, following = (beta1 * (1.0 - 0.5 * 0.96 ** (i * settings["momentum_decay"])) for i in (n, n + 1))
    return {
        "mu": mu,
        "next_mu": following,
        "gradient_rate": settings["lr"] * (1.0 - mu),
        "momentum_rate": settings["lr"] * following,
        "second_moment_correction": 1.0 - beta2**n,
        **weight_share(settings),
    }


@elementwise
def _moments(settings: Settings, x: Numbers, p: Scalar, g: Scalar, m: Scalar, v: Scalar) -> tuple[Scalar, ...]:
    p, g = decayed(settings, x, p, g)
    m, v = first_moment(settings, x, m, g), second_moment(x, v, g)
    denominator = (v / x["second_moment_correction"]).sqrt() + x["eps"]
    p = p - x["gradient_step"] * g / denominator
    return p - x["momentum_step"] * m / denominator, m, v


def _update(
    g: ProgramBuilder, settings: Settings, x: Numbers, p: Value, gradient: Value, slots: Slots
) -> tuple[Value, Slots]:
    product = scalar(g, lambda product, mu: product * mu, slots["mu_product"], x["mu"])
    steps = {
        "gradient_step": scalar(g, lambda rate, product: rate / (1.0 - product), x["gradient_rate"], product),
        "momentum_step": scalar(
            g, lambda rate, product, mu: rate / (1.0 - product * mu), x["momentum_rate"], product, x["next_mu"]
        ),
    }
    own = ("mu", "next_mu", "gradient_rate", "momentum_rate")
    rest = {name: number for name, number in x.items() if name not in own}
    moments = {name: slots[name] for name in ("exp_avg", "exp_avg_sq")}
    p, moments = _moments(g, settings, {**rest, **steps}, p, gradient, moments)
    return p, {**moments, "mu_product": product}


NADAM = Family(
    options=frozenset({"betas", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay"}),
    slots=lambda settings, shape: {**zeros("exp_avg", "exp_avg_sq"), "mu_product": Slot(1.0, (), Dtype.f32)},
    numbers=_numbers,
    constants=adam_constants,
    update=_update,
)

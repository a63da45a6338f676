"""torch.optim.Adagrad."""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import Family, Numbers, Settings, Slot, decayed, elementwise, kept
from gensyn_verify.program import Scalar


@elementwise
def _update(settings: Settings, x: Numbers, p: Scalar, g: Scalar, total: Scalar) -> tuple[Scalar, ...]:
    _, g = decayed(settings, x, p, g)
    total = p.builder.fma(g, g, total)
    return p - x["step_size"] * g / (total.sqrt() + x["eps"]), total


ADAGRAD = Family(
    options=frozenset({"lr_decay", "eps", "weight_decay", "initial_accumulator_value"}),
    slots=lambda settings, shape: {"sum": Slot(settings["initial_accumulator_value"])},
    numbers=lambda settings, n: {"step_size": settings["lr"] / (1.0 + (n - 1) * settings["lr_decay"])},
    constants=lambda settings: kept(settings, "eps", "weight_decay"),
    update=_update,
)

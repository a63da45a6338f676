"""torch.optim.Adadelta."""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import Family, Numbers, Settings, decayed, elementwise, kept, zeros
from gensyn_verify.program import Scalar


@elementwise
def _update(settings: Settings, x: Numbers, p: Scalar, g: Scalar, square: Scalar, moved: Scalar) -> tuple[Scalar, ...]:
    b = p.builder
    _, g = decayed(settings, x, p, g)
    square = b.fma(x["square_share"] * g, g, square * x["rho"])
    delta = (moved + x["eps"]).sqrt() / (square + x["eps"]).sqrt() * g
    moved = b.fma(x["square_share"] * delta, delta, moved * x["rho"])
    return b.fma(-x["learning_rate"], delta, p), square, moved


ADADELTA = Family(
    options=frozenset({"rho", "eps", "weight_decay"}),
    slots=lambda settings, shape: zeros("square_avg", "acc_delta"),
    numbers=lambda settings, n: {"learning_rate": settings["lr"]},
    constants=lambda settings: {"square_share": 1.0 - settings["rho"], **kept(settings, "rho", "eps", "weight_decay")},
    update=_update,
)

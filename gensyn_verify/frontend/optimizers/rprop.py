"""torch.optim.Rprop: a step size an element, which grows while the gradient keeps its sign."""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import Family, Numbers, Settings, Slot, elementwise
from gensyn_verify.program import Scalar


@elementwise
def _update(settings: Settings, x: Numbers, p: Scalar, g: Scalar, before: Scalar, size: Scalar) -> tuple[Scalar, ...]:
    b = p.builder
    g = -g if settings.get("maximize") else g
    agreement = g * before
    turned = agreement < 0.0
    factor = b.select(agreement > 0.0, x["grow"], b.select(turned, x["shrink"], 1.0))
    size = (size * factor).max(x["least"]).min(x["most"])
    g = b.select(turned, 0.0, g)
    moved = b.select(g > 0.0, p - size, b.select(g < 0.0, p + size, p))
    return moved, g, size


def _constants(settings: Settings) -> dict[str, float]:
    (shrink, grow), (least, most) = settings["etas"], settings["step_sizes"]
    return {"shrink": shrink, "grow": grow, "least": least, "most": most}


RPROP = Family(
    options=frozenset({"etas", "step_sizes"}),
    slots=lambda settings, shape: {"prev": Slot(), "step_size": Slot(settings["lr"])},
    numbers=lambda settings, n: {},
    constants=_constants,
    update=_update,
)

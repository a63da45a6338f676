"""torch.optim.ASGD: SGD with a decaying rate, and the average of the parameters as a slot.

Rate `eta` and averaging share `mu` of an update are what the update before left in the slots.
"""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import Family, Numbers, Settings, Slot, Slots, decayed, kept, write
from gensyn_verify.program import Dtype, ProgramBuilder, Scalar, Value


def _numbers(settings: Settings, n: int) -> dict[str, float]:
    lr, lambd = settings["lr"], settings["lambd"]
    return {
        "next_eta": lr / (1.0 + lambd * lr * n) ** settings["alpha"],
        "next_mu": 1.0 / max(1.0, n - settings["t0"]),
    }


def _update(
    g: ProgramBuilder, settings: Settings, x: Numbers, p: Value, gradient: Value, slots: Slots
) -> tuple[Value, Slots]:
    names = list(decay := {k: v for k, v in x.items() if k == "weight_decay"})

    def f(
        p: Scalar, g: Scalar, eta: Scalar, mu: Scalar, ax: Scalar, lambd: Scalar, *rest: Scalar
    ) -> tuple[Scalar, ...]:
        b = p.builder
        _, g = decayed(settings, dict(zip(names, rest, strict=True)), p, g)
        p = b.fma(-eta, g, p * (1.0 - lambd * eta))
        return p, b.select(mu.equals(1.0), p, ax + (p - ax) * mu)

    operands = [p, gradient, slots["eta"], slots["mu"], slots["ax"], x["lambd"], *decay.values()]
    p, average = write(g, f, *operands, shape=p.shape, dtypes=[p.dtype, slots["ax"].dtype])
    return p, {"eta": x["next_eta"], "mu": x["next_mu"], "ax": average}


ASGD = Family(
    options=frozenset({"lambd", "alpha", "t0", "weight_decay"}),
    slots=lambda settings, shape: {
        "eta": Slot(settings["lr"], (), Dtype.f32),
        "mu": Slot(1.0, (), Dtype.f32),
        "ax": Slot(),
    },
    numbers=_numbers,
    constants=lambda settings: kept(settings, "lambd", "weight_decay"),
    update=_update,
)

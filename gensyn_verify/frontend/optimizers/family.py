"""What the engine has to know of a kind of optimizer, and the steps that families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gensyn_verify.program import Dtype, ProgramBuilder, Scalar, Value
from gensyn_verify.program.types import Shape

Settings = Mapping[str, Any]  # one parameter group: its options, and its current `lr`
Numbers = Mapping[str, Any]  # by name: a float that never changes, or a Value (Scalar) that a step gets
Slots = dict[str, Value]
Update = Callable[[ProgramBuilder, Settings, Numbers, Value, Value, Slots], tuple[Value, Slots]]


@dataclass(frozen=True)
class Slot:
    """A tensor that the optimizer keeps for a parameter: of the parameter's type unless said otherwise."""

    fill: float = 0.0
    shape: Shape | None = None
    dtype: Dtype | None = None


@dataclass(frozen=True)
class Family:
    """One kind of optimizer.

    options    keys of a parameter group beside `params`, `lr` and `maximize`
    slots      (settings, shape of the parameter) -> its slots before the first update, by the names torch has for them
    numbers    (settings, n) -> what a parameter's n-th update needs and another update has otherwise, in binary64
    constants  settings -> what changes with the options alone: literals, unless a scheduler changes options
    update     writes nodes: (builder, settings, numbers and constants, parameter, gradient, slots) -> next of each
    counted    whether torch keeps the number of updates as `step` beside the slots
    """

    options: frozenset[str]
    slots: Callable[[Settings, Shape], dict[str, Slot]]
    numbers: Callable[[Settings, int], dict[str, float]]
    constants: Callable[[Settings], dict[str, float]]
    update: Update
    counted: bool = True


def write(
    g: ProgramBuilder, f: Callable[..., Any], *operands: Value | float, shape: Shape, dtypes: Sequence[Dtype]
) -> tuple[Value, ...]:
    """A map node over the Values among the operands; floats go to `f` as they are, to become literals."""

    def traced(*loaded: Scalar) -> Any:
        scalars = iter(loaded)
        return f(*(next(scalars) if isinstance(x, Value) else x for x in operands))

    return g.maps(traced, *(x for x in operands if isinstance(x, Value)), shape=shape, dtypes=dtypes)


def scalar(g: ProgramBuilder, f: Callable[..., Any], *operands: Value | float) -> Value:
    """`write` for one f32 without axes."""
    return write(g, f, *operands, shape=(), dtypes=[Dtype.f32])[0]


def elementwise(f: Callable[..., tuple[Scalar, ...]]) -> Update:
    """An update that is one map node: `f(settings, numbers, parameter, gradient, *slots)` -> next of each, on Scalars.

    Arithmetic between two entries of `numbers` belongs into `Family.numbers`: here both may be floats or Scalars.
    """

    def update(
        g: ProgramBuilder, settings: Settings, numbers: Numbers, p: Value, gradient: Value, slots: Slots
    ) -> tuple[Value, Slots]:
        names = list(numbers)

        def flat(p: Scalar, gradient: Scalar, *rest: Any) -> tuple[Scalar, ...]:
            return f(settings, dict(zip(names, rest, strict=False)), p, gradient, *rest[len(names) :])

        dtypes = [p.dtype, *(s.dtype for s in slots.values())]
        following, *rest = write(g, flat, p, gradient, *numbers.values(), *slots.values(), shape=p.shape, dtypes=dtypes)
        return following, dict(zip(slots, rest, strict=True))

    return update


# ---- common steps ------------------------------------------------------------------------------------------------


def kept(settings: Settings, *options: str) -> dict[str, float]:
    """Options as constants; a weight decay of zero is left out, and with it its nodes."""
    return {o: float(settings[o]) for o in options if o != "weight_decay" or settings[o]}


def decoupled(settings: Settings) -> bool:
    """Whether the weight decay shrinks the parameter (AdamW) instead of entering the gradient (Adam)."""
    return bool(settings["weight_decay"] and settings["decoupled_weight_decay"])


def weight_share(settings: Settings) -> dict[str, float]:
    """What a decoupled weight decay leaves of a parameter."""
    return {"weight_share": 1.0 - settings["lr"] * settings["weight_decay"]} if decoupled(settings) else {}


def decayed(settings: Settings, x: Numbers, p: Scalar, g: Scalar) -> tuple[Scalar, Scalar]:
    """Parameter and gradient after maximize and weight decay."""
    g = -g if settings.get("maximize") else g
    if "weight_share" in x:
        p = p * x["weight_share"]
    elif "weight_decay" in x:
        g = p.builder.fma(x["weight_decay"], p, g)
    return p, g


def adam_constants(settings: Settings) -> dict[str, float]:
    """Options of the Adam family: betas with what they leave to the gradient, eps, weight decay."""
    beta1, beta2 = settings["betas"]
    decay = {} if settings.get("decoupled_weight_decay") else kept(settings, "weight_decay")
    return {
        "beta1": beta1, "beta2": beta2, "gradient_share": 1.0 - beta1, "square_share": 1.0 - beta2,
        **kept(settings, "eps"), **decay,
    }  # fmt: skip


def interpolate(x: Scalar, end: Scalar, share: Any, rest: Any, settled: float) -> Scalar:
    """x + share (end - x), from its nearer end as PyTorch does; `rest` is 1 - share, `settled` the share at capture."""
    b = x.builder
    return b.fma(share, end - x, x) if settled < 0.5 else b.fma(rest, x - end, end)


def first_moment(settings: Settings, x: Numbers, m: Scalar, g: Scalar) -> Scalar:
    return interpolate(m, g, x["gradient_share"], x["beta1"], 1.0 - settings["betas"][0])


def second_moment(x: Numbers, v: Scalar, g: Scalar) -> Scalar:
    return g.builder.fma(x["square_share"] * g, g, v * x["beta2"])


def zeros(*names: str) -> dict[str, Slot]:
    return dict.fromkeys(names, Slot())

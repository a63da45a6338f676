"""A torch.optim instance as scalar programs: SGD, Adam, AdamW.

The update follows PyTorch's single-tensor kernels for the CPU, one map node a parameter. What changes from step to
step (learning rate, bias corrections) is a per-step scalar, computed in binary64 and rounded once to binary32; what
does not is a literal of the scalar program. Slots (momentum_buffer, exp_avg ...) are state entries
`optim.<slot>.<parameter>`; slots that the optimizer has filled already are taken over.

PyTorch sets SGD's momentum buffer to the gradient at the first step. Here it starts as -0 and follows the common rule
buffer = fma(share, gradient, momentum * buffer) with share = 1 in the first step: -0 is the exact identity of
addition, so the first buffer is the gradient, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.tensors import holds, to_array, write_array
from gensyn_verify.program import Dtype, ProgramBuilder, Scalar, TensorType, Value

Group = Mapping[str, Any]
LearningRate = Callable[[int], "float | Sequence[float]"]
Scalars = Mapping[str, Scalar]


@dataclass(frozen=True)
class Family:
    """One kind of optimizer."""

    options: frozenset[str]
    slots: Callable[[Group], dict[str, float]]  # slot -> its value before the first update
    taken: Callable[[Mapping[str, Any]], int]  # updates a parameter has behind it, from its torch state
    numbers: Callable[[Group, float, int], dict[str, float]]  # (group, lr, n) -> scalars of a parameter's n-th update
    update: Callable[..., tuple[Scalar, ...]]  # (group, scalars, parameter, gradient, *slots) -> next of each


# ---- SGD --------------------------------------------------------------------------------------------------------


def _sgd_numbers(group: Group, lr: float, n: int) -> dict[str, float]:
    numbers = {"learning_rate": lr}
    if group["momentum"] and group["dampening"]:
        numbers["gradient_share"] = 1.0 if n == 1 else 1.0 - group["dampening"]
    return numbers


def _sgd_update(group: Group, scalars: Scalars, p: Scalar, g: Scalar, *slots: Scalar) -> tuple[Scalar, ...]:
    b = p.builder
    g = -g if group["maximize"] else g
    if group["weight_decay"]:
        g = b.fma(group["weight_decay"], p, g)
    if slots:
        (buffer,) = slots
        decayed = buffer * group["momentum"]
        buffer = b.fma(scalars["gradient_share"], g, decayed) if group["dampening"] else decayed + g
        g = b.fma(group["momentum"], buffer, g) if group["nesterov"] else buffer
        slots = (buffer,)
    return b.fma(-scalars["learning_rate"], g, p), *slots


SGD = Family(
    options=frozenset({"momentum", "dampening", "weight_decay", "nesterov"}),
    slots=lambda group: {"momentum_buffer": -0.0} if group["momentum"] else {},
    taken=lambda state: 0 if state.get("momentum_buffer") is None else 1,
    numbers=_sgd_numbers,
    update=_sgd_update,
)


# ---- Adam and AdamW ---------------------------------------------------------------------------------------------


def _adam_numbers(group: Group, lr: float, n: int) -> dict[str, float]:
    beta1, beta2 = group["betas"]
    numbers = {"step_size": lr / (1.0 - beta1**n), "second_moment_scale": (1.0 - beta2**n) ** 0.5}
    if group["weight_decay"] and group["decoupled_weight_decay"]:
        numbers["weight_share"] = 1.0 - lr * group["weight_decay"]
    return numbers


def _adam_update(
    group: Group, scalars: Scalars, p: Scalar, g: Scalar, m: Scalar, v: Scalar, *top: Scalar
) -> tuple[Scalar, ...]:
    b = p.builder
    beta1, beta2 = group["betas"]
    g = -g if group["maximize"] else g
    if group["weight_decay"]:
        if group["decoupled_weight_decay"]:
            p = p * scalars["weight_share"]
        else:
            g = b.fma(group["weight_decay"], p, g)
    # PyTorch interpolates the first moment from its nearer end.
    m = b.fma(1.0 - beta1, g - m, m) if 1.0 - beta1 < 0.5 else b.fma(beta1, m - g, g)
    v = b.fma((1.0 - beta2) * g, g, v * beta2)
    top = tuple(t.max(v) for t in top)
    root = (top[0] if top else v).sqrt()
    denominator = root / scalars["second_moment_scale"] + group["eps"]
    return p - scalars["step_size"] * m / denominator, m, v, *top


ADAM = Family(
    options=frozenset({"betas", "eps", "weight_decay", "amsgrad", "decoupled_weight_decay"}),
    slots=lambda group: dict.fromkeys(
        ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])], 0.0
    ),
    taken=lambda state: int(state["step"]) if "step" in state else 0,
    numbers=_adam_numbers,
    update=_adam_update,
)

FAMILIES: dict[type[torch.optim.Optimizer], Family] = {
    torch.optim.SGD: SGD,
    torch.optim.Adam: ADAM,
    torch.optim.AdamW: ADAM,
}
HOW_TO_RUN = frozenset({"params", "param_names", "lr", "initial_lr", "foreach", "fused", "maximize"})
MUST_BE_FALSE = frozenset({"capturable", "differentiable"})


# ---- reading an instance ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One parameter that the optimizer trains."""

    name: str
    parameter: nn.Parameter = field(repr=False)
    group: int
    taken: int  # updates before the first step of the program
    slots: Mapping[str, float]


@dataclass(frozen=True)
class Update:
    """The optimizer's part of a step: what it writes into a program, its initial state, its per-step scalars."""

    optimizer: torch.optim.Optimizer
    family: Family
    groups: tuple[dict[str, Any], ...]
    members: tuple[Member, ...]

    def only(self, names: Sequence[str]) -> Update:
        """Without the parameters that have no gradient: PyTorch leaves them and their slots alone."""
        members = tuple(m for m in self.members if m.name in names)
        return Update(self.optimizer, self.family, self.groups, members)

    def learning_rates(self) -> list[float]:
        """The rates that the torch optimizer has now, one a group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def scalars(self, step: int, rates: float | Sequence[float]) -> dict[str, float]:
        """Scalar inputs of step 1, 2, ...: binary64, by name."""
        by_group = [float(rates)] * len(self.groups) if isinstance(rates, (int, float)) else list(map(float, rates))
        if len(by_group) != len(self.groups):
            raise CaptureError(f"lr gives {len(by_group)} rates for {len(self.groups)} parameter groups")
        found: dict[str, float] = {}
        for m in self.members:
            numbers = self.family.numbers(self.groups[m.group], by_group[m.group], m.taken + step)
            found.update({f"{self._prefix(m)}.{k}": x for k, x in numbers.items()})
        return found

    def _prefix(self, m: Member) -> str:
        """Members of a group share scalars unless they differ in how many updates lie behind them."""
        mixed = len({other.taken for other in self.members if other.group == m.group}) > 1
        return f"group{m.group}.after{m.taken}" if mixed else f"group{m.group}"

    def initial_state(self) -> dict[str, Array]:
        """Slots by state name, from the optimizer's own state where it has one."""
        found = {}
        for m in self.members:
            state = self.optimizer.state.get(m.parameter, {})
            for slot, fill in m.slots.items():
                tensor = state.get(slot)
                if tensor is None:
                    tensor = torch.full_like(m.parameter.detach(), fill)
                found[f"optim.{slot}.{m.name}"] = to_array(tensor, f"optimizer slot {slot} of {m.name}")
        return found

    def write(
        self, g: ProgramBuilder, parameters: Mapping[str, Value], gradients: Mapping[str, Value]
    ) -> dict[str, Value]:
        """One map node a parameter; returns the next parameters and writes the slots' inputs and outputs."""
        inputs: dict[str, Value] = {}
        updated: dict[str, Value] = {}
        for m in self.members:
            group, p = self.groups[m.group], parameters[m.name]
            names = list(self.family.numbers(group, 0.0, m.taken + 1))
            for name in (f"{self._prefix(m)}.{n}" for n in names):
                if name not in inputs:
                    inputs[name] = g.input("scalar", name, TensorType(Dtype.f32, ()))
            scalars = [inputs[f"{self._prefix(m)}.{n}"] for n in names]
            slots = [g.input("state", f"optim.{s}.{m.name}", p.type) for s in m.slots]

            def f(p: Scalar, g: Scalar, *rest: Scalar, group: Group = group, names: Sequence[str] = names) -> Any:
                numbers = dict(zip(names, rest, strict=False))
                return self.family.update(group, numbers, p, g, *rest[len(names) :])

            with g.origin(f"{type(self.optimizer).__name__} {m.name}"):
                dtypes = [p.dtype] * (1 + len(slots))
                updated[m.name], *following = g.maps(
                    f, p, gradients[m.name], *scalars, *slots, shape=p.shape, dtypes=dtypes
                )
            for slot, value in zip(m.slots, following, strict=True):
                g.output("state", f"optim.{slot}.{m.name}", value)
        return updated

    def store(self, state: Mapping[str, Array], steps: int) -> None:
        """Put the slots after `steps` steps of the program back into the torch optimizer."""
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers warn where no step was taken
        for m in self.members:
            if m.taken + steps == 0:
                self.optimizer.state.pop(m.parameter, None)
                continue
            if not m.slots:
                continue
            own = self.optimizer.state[m.parameter]
            if self.family is ADAM:
                if "step" not in own:
                    own["step"] = torch.tensor(0.0)
                own["step"].fill_(m.taken + steps)
            for slot in m.slots:
                if own.get(slot) is None:
                    own[slot] = torch.zeros_like(m.parameter, memory_format=torch.preserve_format)
                write_array(state[f"optim.{slot}.{m.name}"], own[slot])

    def holds(self, state: Mapping[str, Array]) -> bool:
        """Whether the torch optimizer has exactly the slots of an engine state; slots not filled yet are left out."""
        own = [(m, slot, self.optimizer.state.get(m.parameter, {}).get(slot)) for m in self.members for slot in m.slots]
        return all(tensor is None or holds(tensor, state[f"optim.{slot}.{m.name}"]) for m, slot, tensor in own)

    def check_unchanged(self, steps: int) -> None:
        """Raise CaptureError if the torch optimizer is not the captured one after `steps` steps of the program.

        Its learning rates and the values of its slots may differ, its other hyperparameters and step counts may not.
        """
        for m in self.members:
            expected = m.taken + steps if self.family is ADAM else min(m.taken + steps, 1)
            found = self.family.taken(self.optimizer.state.get(m.parameter, {}))
            if m.slots and found != expected:
                raise CaptureError(
                    f"the optimizer's state of {m.name} was replaced: it counts {found} updates, {expected} were "
                    "made; compile the step again"
                )
        now = self.optimizer.param_groups
        if len(now) != len(self.groups):
            raise CaptureError(f"the optimizer has {len(now)} parameter groups, {len(self.groups)} were captured")
        for n, (group, captured) in enumerate(zip(now, self.groups, strict=True)):
            for option in self.family.options | {"maximize"}:
                if option in captured and group.get(option, captured[option]) != captured[option]:
                    raise CaptureError(
                        f"group {n}: {option} was {captured[option]} when the step was captured and is "
                        f"{group[option]} now; capture again"
                    )


def read(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> Update:
    """The update of `optimizer` over the named parameters of a model.

    Raises CaptureError naming an optimizer or option that is not supported, or a parameter that the model lacks.
    """
    kind = type(optimizer).__name__
    family = FAMILIES.get(type(optimizer))
    if family is None:
        known = ", ".join(t.__name__ for t in FAMILIES)
        raise CaptureError(f"optimizer {type(optimizer).__module__}.{kind} is not supported; supported are {known}")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise CaptureError(f"the {kind} instance has step hooks; a captured step would not run them")
    names = {id(p): n for n, p in parameters.items()}
    groups, members = [], []
    for number, group in enumerate(optimizer.param_groups):
        settings = _settings(kind, family, number, group, isinstance(optimizer, torch.optim.AdamW))
        groups.append(settings)
        for position, p in enumerate(group["params"]):
            if id(p) not in names:
                raise CaptureError(f"group {number}: parameter {position} of shape {list(p.shape)} is not in the model")
            if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
                raise CaptureError(f"parameter {names[id(p)]} has gradient hooks; a captured step would not run them")
            if p.requires_grad:
                taken = family.taken(optimizer.state.get(p, {}))
                members.append(Member(names[id(p)], p, number, taken, family.slots(settings)))
    return Update(optimizer, family, tuple(groups), tuple(members))


def _settings(kind: str, family: Family, number: int, group: Group, decoupled: bool) -> dict[str, Any]:
    """A group's hyperparameters, checked."""
    settings: dict[str, Any] = {"decoupled_weight_decay": decoupled}
    for option, x in group.items():
        if option in family.options | {"maximize"}:
            numbers = x if isinstance(x, (tuple, list)) else [x]
            if any(isinstance(n, Tensor) for n in numbers):
                raise CaptureError(f"{kind}, group {number}: {option} is a tensor; give a number")
            settings[option] = tuple(x) if isinstance(x, list) else x
        elif (option in MUST_BE_FALSE and x) or option not in HOW_TO_RUN | MUST_BE_FALSE:
            raise CaptureError(f"{kind}, group {number}: option {option}={x!r} is not supported")
    return settings


def rounded(scalars: Mapping[str, float]) -> dict[str, Array]:
    """Each number rounded once to binary32, as the array that a program takes."""
    with np.errstate(over="ignore"):
        return {name: np.array(x, np.float32) for name, x in scalars.items()}


__all__ = ["FAMILIES", "LearningRate", "Update", "read", "rounded"]

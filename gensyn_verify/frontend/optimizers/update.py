"""Optimizer instances read: their part of a step, their state, their per-step scalars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.optimizers.adadelta import ADADELTA
from gensyn_verify.frontend.optimizers.adafactor import ADAFACTOR
from gensyn_verify.frontend.optimizers.adagrad import ADAGRAD
from gensyn_verify.frontend.optimizers.adam import ADAM
from gensyn_verify.frontend.optimizers.adamax import ADAMAX
from gensyn_verify.frontend.optimizers.asgd import ASGD
from gensyn_verify.frontend.optimizers.family import Family, Slot
from gensyn_verify.frontend.optimizers.muon import MUON
from gensyn_verify.frontend.optimizers.nadam import NADAM
from gensyn_verify.frontend.optimizers.radam import RADAM
from gensyn_verify.frontend.optimizers.rmsprop import RMSPROP
from gensyn_verify.frontend.optimizers.rprop import RPROP
from gensyn_verify.frontend.optimizers.sgd import SGD
from gensyn_verify.frontend.tensors import TORCH_DTYPE, holds, to_array, write_array
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType, Value

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
Hyperparameters = Sequence[Mapping[str, Any]]  # one parameter group each: its `lr` and whatever a scheduler changes
LearningRate = Callable[[int], "float | Sequence[float]"]

_SUPPORTED: dict[str, Family] = {
    "SGD": SGD, "Adam": ADAM, "AdamW": ADAM, "Adamax": ADAMAX, "NAdam": NADAM, "RAdam": RADAM, "RMSprop": RMSPROP,
    "Adagrad": ADAGRAD, "Adadelta": ADADELTA, "Adafactor": ADAFACTOR, "Muon": MUON, "ASGD": ASGD, "Rprop": RPROP,
}  # fmt: skip
FAMILIES: dict[type[torch.optim.Optimizer], Family] = {
    getattr(torch.optim, name): family for name, family in _SUPPORTED.items() if hasattr(torch.optim, name)
}
HOW_TO_RUN = frozenset({"params", "param_names", "lr", "foreach", "fused", "maximize"})
OF_SCHEDULERS = frozenset({"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"})
MUST_BE_FALSE = frozenset({"capturable", "differentiable"})
CYCLED = ("momentum", "betas")  # what OneCycleLR and CyclicLR change beside lr; they leave `base_momentum` in a group


def register(kind: type[torch.optim.Optimizer], family: Family) -> None:
    """Support an optimizer class of another package: from now on, exactly `kind` is captured as `family`."""
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise CaptureError(f"expected a class derived from torch.optim.Optimizer, found {kind!r}")
    FAMILIES[kind] = family


@dataclass(frozen=True)
class Group:
    """One parameter group; groups are numbered through all optimizers."""

    optimizer: torch.optim.Optimizer
    family: Family
    number: int
    position: int  # among the groups of its optimizer
    settings: Mapping[str, Any]

    @property
    def live(self) -> dict[str, Any]:
        """The group as torch has it now."""
        return self.optimizer.param_groups[self.position]

    @property
    def scheduled(self) -> bool:
        """Whether a scheduler changes more than lr: then everything that follows from options is a per-step scalar."""
        return "base_momentum" in self.settings

    def now(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Settings under one step's hyperparameters."""
        changed = ("lr", *CYCLED) if self.scheduled else ("lr",)
        return {**self.settings, **{k: hyperparameters[k] for k in changed if k in hyperparameters}}

    def scalars(self, settings: Mapping[str, Any], n: int) -> dict[str, float]:
        """The per-step scalars of an n-th update."""
        constants = self.family.constants(settings) if self.scheduled else {}
        return {**self.family.numbers(settings, n), **constants}


@dataclass(frozen=True)
class Member:
    """One parameter that an optimizer trains."""

    name: str
    parameter: nn.Parameter = field(repr=False)
    group: Group = field(repr=False)
    taken: int  # updates before the first step of the program
    slots: Mapping[str, Slot]

    @property
    def state(self) -> Mapping[str, Any]:
        """What the torch optimizer has of it."""
        found: Mapping[str, Any] = self.group.optimizer.state.get(self.parameter, {})
        return found

    def taken_now(self) -> int:
        """Updates it has behind it by its torch state; without a count there, 1 if there were any."""
        if self.group.family.counted:
            return int(self.state["step"]) if "step" in self.state else 0
        return int(any(self.state.get(slot) is not None for slot in self.slots))

    def fresh(self, slot: str) -> Tensor:
        """A slot before the first update, laid out as torch would."""
        own, p = self.slots[slot], self.parameter.detach()
        if own.shape is None and own.dtype is None:
            return torch.full_like(p, own.fill, memory_format=torch.preserve_format)
        shape = p.shape if own.shape is None else own.shape
        return torch.full(shape, own.fill, dtype=p.dtype if own.dtype is None else TORCH_DTYPE[own.dtype])

    def slot_type(self, slot: str, parameter: TensorType) -> TensorType:
        own = self.slots[slot]
        shape = parameter.shape if own.shape is None else own.shape
        return TensorType(own.dtype or parameter.dtype, shape)


@dataclass(frozen=True)
class Update:
    """The optimizers' part of a step: what it writes into a program, its initial state, its per-step scalars."""

    groups: tuple[Group, ...]
    members: tuple[Member, ...]

    def only(self, names: Sequence[str]) -> Update:
        """Without the parameters that have no gradient: PyTorch leaves them and their slots alone."""
        return Update(self.groups, tuple(m for m in self.members if m.name in names))

    def behind(self, steps: int) -> Update:
        """The same where `steps` steps of the program are among the updates that the optimizers count already."""
        return Update(self.groups, tuple(replace(m, taken=max(m.taken - steps, 0)) for m in self.members))

    def uncounted(self, steps: int) -> int:
        """How many of `steps` steps the optimizers do not count as updates: a GradScaler skipped them."""
        counts = [m.taken for m in self.members if m.group.family.counted and m.state]
        return max(steps - max(counts), 0) if counts else 0

    # ---- per-step scalars ---------------------------------------------------------------------------------------

    def live(self) -> Hyperparameters:
        """The hyperparameters that the torch optimizers have now, one mapping a group."""
        return [dict(g.live, lr=float(g.live["lr"])) for g in self.groups]

    def with_rates(self, rates: float | Sequence[float]) -> Hyperparameters:
        """The captured hyperparameters with other learning rates: one, or one a group."""
        by_group = [float(rates)] * len(self.groups) if isinstance(rates, (int, float)) else list(map(float, rates))
        if len(by_group) != len(self.groups):
            raise CaptureError(f"lr gives {len(by_group)} rates for {len(self.groups)} parameter groups")
        return [{**g.settings, "lr": lr} for g, lr in zip(self.groups, by_group, strict=True)]

    def scalars(self, step: int, hyperparameters: Hyperparameters, window: int = 1) -> dict[str, list[float]]:
        """Scalar inputs of step 1, 2, ... by name, in binary64.

        Each has `window` entries: what the step needs if none, one, two ... of the steps before it made no update.
        """
        found: dict[str, list[float]] = {}
        for prefix, m in {self._prefix(m): m for m in self.members}.items():
            settings = m.group.now(hyperparameters[m.group.number])
            counts = [max(m.taken + step - k, m.taken + 1) for k in range(window)]
            for n in counts:
                scalars = m.group.scalars(settings, n)
                if list(scalars) != (captured := self._names(m)):
                    raise CaptureError(
                        f"group {m.group.number}: step {step} needs the scalars {list(scalars)}, the captured step has "
                        f"{captured}; a scheduler must not turn an option on or off"
                    )
                for name, x in scalars.items():
                    found.setdefault(f"{prefix}.{name}", []).append(x)
        return found

    def _names(self, m: Member) -> list[str]:
        return list(m.group.scalars(m.group.settings, m.taken + 1))

    @cached_property
    def _mixed(self) -> set[int]:
        """Numbers of the groups whose members differ in how many updates lie behind them."""
        taken: dict[int, set[int]] = {}
        for m in self.members:
            taken.setdefault(m.group.number, set()).add(m.taken)
        return {number for number, counts in taken.items() if len(counts) > 1}

    def _prefix(self, m: Member) -> str:
        """Members of a group share scalars unless they differ in their updates."""
        number = m.group.number
        return f"group{number}.after{m.taken}" if number in self._mixed else f"group{number}"

    # ---- state --------------------------------------------------------------------------------------------------

    def initial_state(self) -> dict[str, Array]:
        """Slots by state name, from the optimizers' own state where they have one."""
        found = {}
        for m in self.members:
            for slot in m.slots:
                tensor = m.state.get(slot)
                if tensor is None:
                    tensor = m.fresh(slot)
                found[f"optim.{slot}.{m.name}"] = to_array(tensor, f"optimizer slot {slot} of {m.name}")
        return found

    def store(self, state: Mapping[str, Array], updates: int) -> None:
        """Put the slots after `updates` updates by the program back into the torch optimizers."""
        for group in self.groups:
            group.optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers warn where no step was taken
        for m in self.members:
            if m.taken + updates == 0 and not (m.state and m.group.family.counted):
                m.group.optimizer.state.pop(m.parameter, None)  # torch fills it at the first update
                continue
            if not m.slots and not m.group.family.counted:
                continue
            own = m.group.optimizer.state[m.parameter]
            if m.group.family.counted:
                if "step" not in own:
                    own["step"] = torch.tensor(0.0)
                own["step"].fill_(m.taken + updates)
            for slot in m.slots:
                if own.get(slot) is None:
                    own[slot] = m.fresh(slot)
                write_array(state[f"optim.{slot}.{m.name}"], own[slot])

    def holds(self, state: Mapping[str, Array]) -> bool:
        """Whether the torch optimizers have exactly the slots of an engine state; those not filled yet are left out."""
        own = [(m.state.get(slot), f"optim.{slot}.{m.name}") for m in self.members for slot in m.slots]
        return all(tensor is None or holds(tensor, state[name]) for tensor, name in own)

    def check_unchanged(self, updates: int) -> None:
        """Raise CaptureError if the torch optimizers are not the captured ones after `updates` updates by the program.

        Learning rates and the values of slots may differ, other hyperparameters and step counts may not.
        """
        for m in self.members:
            expected = m.taken + updates if m.group.family.counted else min(m.taken + updates, 1)
            found = m.taken_now()
            if (m.slots or m.group.family.counted) and found != expected:
                raise CaptureError(
                    f"the optimizer's state of {m.name} was replaced: it counts {found} updates, {expected} were "
                    "made; compile the step again"
                )
        for optimizer in {id(g.optimizer): g.optimizer for g in self.groups}.values():
            captured = sum(g.optimizer is optimizer for g in self.groups)
            if len(optimizer.param_groups) != captured:
                raise CaptureError(
                    f"the optimizer has {len(optimizer.param_groups)} parameter groups, {captured} were captured"
                )
        for group in self.groups:
            for option in group.family.options | {"maximize"}:
                before, now = group.settings.get(option), group.live.get(option)
                if option in group.live and now != before and not (group.scheduled and option in CYCLED):
                    raise CaptureError(
                        f"group {group.number}: {option} was {before} when the step was captured and is {now} now; "
                        "capture again"
                    )

    # ---- nodes --------------------------------------------------------------------------------------------------

    def write(
        self,
        g: ProgramBuilder,
        parameters: Mapping[str, Value],
        gradients: Mapping[str, Value],
        window: int = 1,
        skipped: Value | None = None,
    ) -> tuple[dict[str, Value], dict[str, tuple[Value, Value]]]:
        """The next parameters by name, and (slot, next slot) by state name.

        With `skipped`, an i32 below `window`, scalars are vectors and this is the entry that the step takes.
        """
        inputs: dict[str, Value] = {}
        updated: dict[str, Value] = {}
        slots: dict[str, tuple[Value, Value]] = {}
        for m in self.members:
            for name in (f"{self._prefix(m)}.{n}" for n in self._names(m)):
                if name not in inputs:
                    shape = () if skipped is None else (window,)
                    x = g.input("scalar", name, TensorType(Dtype.f32, shape))
                    inputs[name] = x if skipped is None else g.gather(x, skipped)
            numbers: dict[str, Any] = {n: inputs[f"{self._prefix(m)}.{n}"] for n in self._names(m)}
            p, family = parameters[m.name], m.group.family
            own = {s: g.input("state", f"optim.{s}.{m.name}", m.slot_type(s, p.type)) for s in m.slots}
            settings = m.group.settings
            with g.origin(f"{type(m.group.optimizer).__name__} {m.name}"):
                numbers = {**family.constants(settings), **numbers}
                updated[m.name], following = family.update(g, settings, numbers, p, gradients[m.name], dict(own))
            slots.update({f"optim.{s}.{m.name}": (own[s], following[s]) for s in own})
        return updated, slots


# ---- reading -----------------------------------------------------------------------------------------------------


def read(optimizers: Optimizers, parameters: Mapping[str, nn.Parameter]) -> Update:
    """The update of one optimizer, or of several, over the named parameters of a model.

    Raises CaptureError naming an optimizer or option that is not supported, or a parameter that the model lacks or
    that two optimizers train.
    """
    names = {id(p): n for n, p in parameters.items()}
    groups: list[Group] = []
    members: dict[str, Member] = {}
    for optimizer in [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else optimizers:
        family = _family(optimizer)
        for position, group in enumerate(optimizer.param_groups):
            settings = _settings(optimizer, family, len(groups), group)
            groups.append(Group(optimizer, family, len(groups), position, settings))
            for n, p in enumerate(group["params"]):
                where = f"group {groups[-1].number}: parameter {n} of shape {list(p.shape)}"
                if id(p) not in names:
                    raise CaptureError(f"{where} is not in the model")
                if names[id(p)] in members:
                    raise CaptureError(f"{where}, {names[id(p)]!r}, is trained by another group already")
                if p.requires_grad:
                    members[names[id(p)]] = _member(names[id(p)], p, groups[-1])
    return Update(tuple(groups), tuple(members.values()))


def _family(optimizer: torch.optim.Optimizer) -> Family:
    kind = type(optimizer)
    family = FAMILIES.get(kind)
    if family is None:
        known = ", ".join(t.__name__ for t in FAMILIES)
        raise CaptureError(
            f"optimizer {kind.__module__}.{kind.__name__} is not supported; supported are {known}, and what "
            "gensyn_verify.frontend.optimizers.register adds"
        )
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise CaptureError(f"the {kind.__name__} instance has step hooks; a captured step would not run them")
    return family


def _member(name: str, p: nn.Parameter, group: Group) -> Member:
    if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
        raise CaptureError(f"parameter {name} has gradient hooks; a captured step would not run them")
    slots = group.family.slots(group.settings, tuple(p.shape))
    return Member(name, p, group, Member(name, p, group, 0, slots).taken_now(), slots)


def _settings(
    optimizer: torch.optim.Optimizer, family: Family, number: int, group: Mapping[str, Any]
) -> dict[str, Any]:
    """A group's hyperparameters, checked."""
    kind = type(optimizer).__name__
    settings: dict[str, Any] = {"maximize": False, "lr": float(group["lr"])}
    if "decoupled_weight_decay" in family.options:
        settings["decoupled_weight_decay"] = isinstance(optimizer, torch.optim.AdamW)
    for option, x in group.items():
        if option in family.options | {"maximize"}:
            numbers = x if isinstance(x, (tuple, list)) else [x]
            if any(isinstance(n, Tensor) for n in numbers):
                raise CaptureError(f"{kind}, group {number}: {option} is a tensor; give a number")
            settings[option] = tuple(x) if isinstance(x, list) else x
        elif (option in MUST_BE_FALSE and x) or option not in HOW_TO_RUN | OF_SCHEDULERS | MUST_BE_FALSE:
            raise CaptureError(f"{kind}, group {number}: option {option}={x!r} is not supported")
        elif option == "base_momentum":
            settings[option] = x
    return settings


def rounded(scalars: Mapping[str, Sequence[float]], window: int = 1) -> dict[str, Array]:
    """Each number rounded once to binary32, as the array that a program takes: without axes, or `window` long."""
    with np.errstate(over="ignore"):
        shape = () if window == 1 else (window,)
        return {name: np.array(x, np.float32).reshape(shape) for name, x in scalars.items()}

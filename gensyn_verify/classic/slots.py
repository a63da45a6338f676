"""The state of optimizers: entries by parameter and key, those included that appear in the course of training.

An optimizer makes its moments at the first step that needs them, and a step that leaves a parameter out makes none. The
types of a run's state are fixed before its first step, so all entries are foreseen: those that are there, and those
that a step with gradients of zero makes on a copy. An entry that is not there yet is zeros; its kind tells that.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.classic import values
from gensyn_verify.errors import CaptureError, MalformedError
from gensyn_verify.program.types import TensorType

ABSENT, TENSOR, NONE, INT, FLOAT, BOOL = range(6)
_NUMBERS: dict[int, type] = {INT: int, FLOAT: float, BOOL: bool}
Owner = Tensor | str  # a parameter, or a key of the optimizer's own


@dataclass(frozen=True, eq=False)
class Slot:
    """One entry of `optimizer.state`: of a parameter, or (key "") of the optimizer as a whole."""

    optimizer: torch.optim.Optimizer = field(repr=False)
    owner: Owner = field(repr=False)
    key: str
    name: str
    type: TensorType
    template: Tensor | None = field(repr=False)  # of the dtype, strides and device of the tensor

    def read(self, copy: bool) -> tuple[int, Array]:
        """Kind and contents."""
        state: Any = self.optimizer.state
        if self.key:
            state = state.get(self.owner, {})
        key: Any = self.key or self.owner
        if key not in state:
            return ABSENT, np.zeros(self.type.shape, CARRIER[self.type.dtype])
        value = state[key]
        if value is None:
            return NONE, np.zeros(self.type.shape, CARRIER[self.type.dtype])
        kind, found = _describe(value, self.name)
        if found != self.type or (isinstance(value, Tensor) != (self.template is not None)):
            raise CaptureError(f"{self.name} was {self.type} and has become {found}; a recorded state keeps its types")
        if isinstance(value, Tensor):
            return kind, values.to_array(value, self.name, copy)
        return kind, values.from_number(_NUMBERS[kind](value), self.name)

    def write(self, kind: int, array: Array) -> None:
        """Make the entry what `read` gave; an owner without entries is none, as before its first step."""
        state: Any = self.optimizer.state
        if kind == ABSENT:
            if self.key and self.owner in state:
                state[self.owner].pop(self.key, None)
            if not self.key or not state.get(self.owner):
                state.pop(self.owner, None)
            return
        key: Any = self.key or self.owner
        if self.key:
            state = state.setdefault(self.owner, {})
        if kind == NONE:
            state[key] = None
        elif kind == TENSOR and self.template is not None:
            if not isinstance(state.get(key), Tensor):
                state[key] = torch.empty_like(self.template)
            values.write(array, state[key])
        elif kind in _NUMBERS and self.template is None:
            state[key] = values.to_number(array, _NUMBERS[kind])
        else:
            raise MalformedError(f"{self.name} is {self.type}; its kind is {kind}")


def _describe(value: Any, name: str) -> tuple[int, TensorType]:
    if isinstance(value, Tensor):
        return TENSOR, values.type_of(value)
    if value is None:  # and nothing else is foreseen: it may become a number
        return NONE, values.NUMBER
    if isinstance(value, Real):
        return BOOL if isinstance(value, bool) else INT if isinstance(value, Integral) else FLOAT, values.NUMBER
    raise CaptureError(
        f"{name} is {type(value).__name__}; the state of a recorded optimizer is of tensors, numbers and None"
    )


def _entries(optimizer: torch.optim.Optimizer) -> dict[tuple[Owner, str], Any]:
    """What `optimizer.state` holds, by owner and key."""
    found: dict[tuple[Owner, str], Any] = {}
    for owner, entry in optimizer.state.items():
        parts = entry if isinstance(entry, Mapping) else {"": entry}
        for key in [*parts, *([] if isinstance(owner, Tensor) else [owner])]:
            if not isinstance(key, str):
                raise CaptureError(f"the state of {type(optimizer).__name__} has the key {key!r}; keys are strings")
        found.update({(owner, key): value for key, value in parts.items()})
    return found


def slots_of(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], prefix: str) -> list[Slot]:
    """Every entry that the optimizer has or is foreseen to have. `names` are those of the parameters."""
    entries = _foreseen(optimizer)
    entries.update({where: v for where, v in _entries(optimizer).items() if v is not None or where not in entries})
    slots = []
    for (owner, key), value in entries.items():
        parts = (prefix, names[owner] if isinstance(owner, Tensor) else owner, key)
        name = ".".join(part for part in parts if part)
        template = value.detach().clone() if isinstance(value, Tensor) else None
        slots.append(Slot(optimizer, owner, key, name, _describe(value, name)[1], template))
    return slots


def check_foreseen(optimizer: torch.optim.Optimizer, slots: list[Slot], prefix: str) -> None:
    """Raise CaptureError where the optimizer holds an entry that is no slot."""
    known = {(slot.owner, slot.key) for slot in slots if slot.optimizer is optimizer}
    for owner, key in _entries(optimizer):
        if (owner, key) not in known:
            of = f"shape {list(owner.shape)}" if isinstance(owner, Tensor) else repr(owner)
            raise CaptureError(
                f"the state of {prefix} has {key!r} of {of}, which nothing foretold: take the first steps before the "
                "recording, so that every entry is there when it begins"
            )


def _foreseen(optimizer: torch.optim.Optimizer) -> dict[tuple[Owner, str], Any]:
    """What the state holds after a step with gradients of zero, taken on a copy; nothing where that cannot be."""
    parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    copies: dict[int, Tensor] = {}
    for p in parameters:
        twin_of = nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad)
        if p.requires_grad:
            twin_of.grad = torch.zeros_like(p)
        copies[id(p)] = twin_of
    try:
        twin: Any = object.__new__(type(optimizer))
        left_out = ("step", "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")  # they lead to the original
        own = {name: value for name, value in optimizer.__dict__.items() if name not in left_out}
        twin.__dict__.update(copy.deepcopy(own, dict(copies)))
        twin._optimizer_step_pre_hooks, twin._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        type(twin).step(twin)
    except Exception:  # it needs a closure, sparse gradients, what cannot be copied: whatever its author wants
        return {}
    originals: dict[int, Tensor] = {id(copies[id(p)]): p for p in parameters}
    return {
        (originals[id(owner)] if isinstance(owner, Tensor) else owner, key): value
        for (owner, key), value in _entries(twin).items()
    }

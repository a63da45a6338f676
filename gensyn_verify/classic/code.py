"""Model, optimizers and step of a user's code: everything that a step reads, as named arrays, and back.

state    code            u8[32]     BLAKE3 of the source file
         seed, step      u32[2], u32
         param.<name>, buffer.<name>
         optimizer.<parameter>.<key>         `slots`; of a second optimizer optimizer1, and so on
         present         u8[slots]  0 not there, 1 tensor, 2 None, 3 int, 4 float, 5 bool; slots sorted by name
scalars  group.<n>.<key>            numbers of parameter group n, as binary64: u32[2], of a tuple u32[n,2]; tensors
         training, requires_grad    boolean, of every module and parameter in their order
batch    `values`; in one input, where batches differ in form: `ragged`

Before a step gradients are None and every global generator (torch on all devices, random, numpy.random) is seeded from
(seed, step); after it the generators are what they were. So a step draws the same in a replay, whatever the loop around
it draws for its own ends. What else the code keeps, in closures, globals, attributes or generators of its own, is not
seen: a step that reads such things is not replayed to the same bits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gensyn_verify.backends.arrays import Array
from gensyn_verify.classic import ragged, values
from gensyn_verify.classic.slots import check_foreseen, slots_of
from gensyn_verify.commit import keccak256
from gensyn_verify.errors import CaptureError, MalformedError
from gensyn_verify.program import Dtype, Program, TensorType
from gensyn_verify.program.program import INPUT_ROLES, Input, Output

CODE, SEED, STEP, PRESENT = "code", "seed", "step", "present"
FIXED = {CODE: TensorType(Dtype.u8, (32,)), SEED: values.NUMBER, STEP: TensorType(Dtype.u32, ())}
NO_NUMBERS = ("params", "initial_lr", "swa_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")  # schedulers' own
Types = Mapping[str, TensorType]


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Every global generator as a function of (seed, step); afterwards they are what they were."""
    digest = keccak256(b"gensyn_verify.classic.1" + seed.to_bytes(8, "big") + step.to_bytes(8, "big"))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        torch.manual_seed(int.from_bytes(digest[:8], "big"))
        random.seed(digest)
        np.random.seed(np.frombuffer(digest, ">u4").astype(np.uint32))
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


class Code:
    """What a build function returned: (model, optimizer, step), the optimizer one or several.

    `step(model, optimizer, batch)` is one whole step, zero_grad to optimizer.step(); what it returns is for the loop.
    """

    def __init__(self, built: Any, digest: bytes, where: str) -> None:
        if not isinstance(built, tuple) or len(built) != 3:
            raise CaptureError(f"{where}: expected (model, optimizer, step), found {type(built).__name__}")
        self.model, self.optimizer, self._step = built
        several = isinstance(self.optimizer, list | tuple)
        self.optimizers: list[torch.optim.Optimizer] = list(self.optimizer) if several else [self.optimizer]
        found = [type(x).__name__ for x in (self.model, *self.optimizers)]
        proper = isinstance(self.model, nn.Module) and callable(self._step)
        if not proper or not all(isinstance(o, torch.optim.Optimizer) for o in self.optimizers):
            raise CaptureError(
                f"{where}: expected a torch.nn.Module, a torch.optim.Optimizer (or several) and a function "
                f"step(model, optimizer, batch); found {', '.join(found)} and {type(self._step).__name__}"
            )
        self.digest, self.where = digest, where
        self._parameters = self._named_parameters()
        self._tensors = self._live()
        names = {p: name for name, p in self._parameters.items()}
        with seeded(0, 0):
            slots = [s for n, o in enumerate(self.optimizers) for s in slots_of(o, names, _prefix(n))]
        self._slots = sorted(slots, key=lambda s: s.name)
        self.state_types: Types = self._state_types()
        groups = [(n, key, value) for n, group in enumerate(self._groups()) for key, value in group.items()]
        self._numbers = [(n, key) for n, key, value in groups if key not in NO_NUMBERS and number_type(value)]
        self._switches = {(n, key): value for n, key, value in groups if isinstance(value, bool | str | None)}
        self.scalar_types: Types = self._scalar_types()

    def _named_parameters(self) -> dict[str, Tensor]:
        """Those of the model, and what the optimizers train beside it."""
        found: dict[str, Tensor] = dict(self.model.named_parameters())
        known = set(found.values())
        for n, group in enumerate(self._groups()):
            for i, p in enumerate(group["params"]):
                if p not in known:
                    known.add(p)
                    found[f"group.{n}.{i}"] = p
        return found

    def _groups(self) -> list[dict[str, Any]]:
        return [group for o in self.optimizers for group in o.param_groups]

    def _live(self) -> dict[str, Tensor]:
        """Parameters and buffers that are there now, by name of state."""
        found = {f"param.{n}": p for n, p in self._named_parameters().items()}
        return found | {f"buffer.{n}": b for n, b in self.model.named_buffers()}

    def _state_types(self) -> Types:
        types = FIXED | {PRESENT: TensorType(Dtype.u8, (len(self._slots),))}
        found = [(name, values.type_of(t)) for name, t in self._tensors.items()]
        for name, type in found + [(s.name, s.type) for s in self._slots]:
            if name in types:
                raise CaptureError(f"{self.where}: two tensors of the state are named {name!r}")
            types[name] = type
        return types

    def _scalar_types(self) -> Types:
        groups = self._groups()
        numbers = {f"group.{n}.{key}": number_type(groups[n].get(key)) for n, key in self._numbers}
        return {name: type for name, type in numbers.items() if type} | {
            "training": TensorType(Dtype.boolean, (len(list(self.model.modules())),)),
            "requires_grad": TensorType(Dtype.boolean, (len(self._parameters),)),
        }

    @property
    def device(self) -> torch.device:
        """Where the model is: its first parameter."""
        return next((t.device for t in self._tensors.values()), torch.device("cpu"))

    def program(self, batch: Types) -> Program:
        """The signature of the step: its inputs, and a next value for every state, with nothing in between."""
        by_role = dict(zip(INPUT_ROLES, (self.state_types, batch, self.scalar_types), strict=True))
        inputs = [Input(role, name, types[name]) for role, types in by_role.items() for name in sorted(types)]
        outputs = [Output("state", i.name, n) for n, i in enumerate(inputs) if i.role == "state"]
        return Program(tuple(inputs), (), (), tuple(outputs))

    # ---- state --------------------------------------------------------------------------------------------------

    def read(self, seed: int, step: int, copy: bool = True) -> dict[str, Array]:
        """A copy of the whole state, or views of it. CaptureError where it has other types than it had."""
        self._refresh()
        state = {name: values.to_array(t, name, copy) for name, t in self._tensors.items()}
        for n, optimizer in enumerate(self.optimizers):
            check_foreseen(optimizer, self._slots, _prefix(n))
        kinds = []
        for slot in self._slots:
            kind, state[slot.name] = slot.read(copy)
            kinds.append(kind)
        state[PRESENT] = np.array(kinds, np.uint8)
        state[CODE] = np.frombuffer(self.digest, np.uint8)
        state[SEED] = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
        state[STEP] = np.array(step, np.uint32)
        return state

    def _refresh(self) -> None:
        """Take up buffers that the code has replaced by others of their type.

        A parameter must be the same one, as optimizers have their state by it.
        """
        live = self._live()
        for name in sorted({*live, *self._tensors}):
            old, new = self._tensors.get(name), live.get(name)
            if old is new:
                continue
            same = old is not None and new is not None and values.type_of(old) == values.type_of(new)
            if not same or name.startswith("param."):
                found = "gone" if new is None else "new" if old is None else f"another tensor, {values.type_of(new)}"
                raise CaptureError(f"{name} is {found}; parameters and buffers of a recorded model stay what they are")
        self._tensors = live

    def write(self, state: Mapping[str, Array]) -> None:
        """Put a whole state into model and optimizers. `code` is not compared: it is what it is."""
        self._refresh()
        for name, tensor in self._tensors.items():
            values.write(state[name], tensor)
        for slot, kind in zip(self._slots, state[PRESENT], strict=True):
            slot.write(int(kind), state[slot.name])

    # ---- scalars ------------------------------------------------------------------------------------------------

    def scalars(self) -> dict[str, Array]:
        """The hyperparameters and modes that the next step is taken with."""
        groups = self._groups()
        switches = {(n, key): groups[n].get(key) for n, key in self._switches if n < len(groups)}
        if switches != self._switches or self._scalar_types() != self.scalar_types:
            raise CaptureError(
                "a parameter group or the modules have changed in more than numbers and modes; record from here on anew"
            )
        found = {f"group.{n}.{key}": groups[n][key] for n, key in self._numbers}
        return {name: _array(value, name) for name, value in found.items()} | {
            "training": np.array([m.training for m in self.model.modules()], np.bool_),
            "requires_grad": np.array([p.requires_grad for p in self._parameters.values()], np.bool_),
        }

    def _apply(self, scalars: Mapping[str, Array]) -> None:
        groups = self._groups()
        for n, key in self._numbers:
            groups[n][key] = _number(groups[n][key], scalars[f"group.{n}.{key}"])
        for module, training in zip(self.model.modules(), scalars["training"], strict=True):
            module.training = bool(training)
        for p, required in zip(self._parameters.values(), scalars["requires_grad"], strict=True):
            p.requires_grad_(bool(required))

    # ---- the step -----------------------------------------------------------------------------------------------

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array], seed: int, step: int) -> Any:
        """One step on leaves of a batch, tensors on the device of the model's first parameter; what it returns."""
        self._apply(scalars)
        for p in self._parameters.values():
            p.grad = None
        leaves = ragged.unpack(batch[ragged.NAME]) if batch.keys() == {ragged.NAME} else batch
        arguments = values.unflatten(leaves, self.device)
        with seeded(seed, step):
            return self._step(self.model, self.optimizer, arguments)


def _prefix(n: int) -> str:
    return f"optimizer{n or ''}"


def number_type(value: Any) -> TensorType | None:
    """What stands for a hyperparameter; None for one that is no number, no tuple of numbers and no tensor."""
    if isinstance(value, Tensor):
        return values.type_of(value)
    if _is_number(value):
        return values.NUMBER
    if isinstance(value, list | tuple) and value and all(map(_is_number, value)):
        return TensorType(Dtype.u32, (len(value), 2))
    return None


def _is_number(value: Any) -> bool:
    """An int or a float, NumPy's too."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _array(value: Any, what: str) -> Array:
    if isinstance(value, Tensor):
        return values.to_array(value, what)
    if isinstance(value, list | tuple):
        return np.stack([_array(x, what) for x in value])
    if isinstance(value, Integral) and int(float(value)) != int(value):
        raise CaptureError(f"{what}: {value} is not exact in binary64")
    return values.from_number(float(value), what)


def _number(live: Any, array: Array) -> Any:
    """The hyperparameter in its live form: a whole number that the code gave as an int stays one."""
    if isinstance(live, Tensor):
        values.write(array, live)
        return live
    if isinstance(live, list | tuple):
        return type(live)(_number(x, words) for x, words in zip(live, array, strict=True))
    number = values.to_number(array, float)
    return int(number) if isinstance(live, Integral) and number.is_integer() else number


def read_seed(state: Mapping[str, Array]) -> tuple[int, int]:
    """(seed, step) of a state."""
    low, high = (int(word) for word in state[SEED])
    return high << 32 | low, int(state[STEP])


def check_same(code: Code, program: Program) -> None:
    """Raise MalformedError unless `program` is the signature of `code`, naming the first difference."""
    for role, own in (("state", code.state_types), ("scalar", code.scalar_types)):
        given = program.inputs_of(role)
        for name in sorted({*own, *given}):
            if own.get(name) != given.get(name):
                has, wants = (str(t) if t else "nothing" for t in (own.get(name), given.get(name)))
                raise MalformedError(f"{code.where}: {role} {name!r} of the code is {has}, of the run {wants}")


__all__ = ["CODE", "Code", "check_same", "read_seed", "seeded"]

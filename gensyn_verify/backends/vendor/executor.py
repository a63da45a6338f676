"""The program planned once (`plan`) and run step by step; values are dropped when last read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gensyn_verify.backends.arrays import Array, check_arrays
from gensyn_verify.backends.names import VendorName
from gensyn_verify.backends.vendor.plan import kernel_of, plan
from gensyn_verify.backends.vendor.precision import switches
from gensyn_verify.backends.vendor.tensors import to_array, to_tensor
from gensyn_verify.errors import BackendError
from gensyn_verify.program.program import Program

__all__ = ["Executor", "kernel_of"]


class Executor:
    """The executor protocol with stock torch kernels on `name.device`; the state lives there.

    Integers, booleans, random words and moved data are exact; floats differ from the definition by rounding alone.
    A NaN is canonical in what `state`, `step` and `value` hand out. `keep=True` keeps every value of the last step
    for `value(v)`; the bits are the same.
    """

    def __init__(self, program: Program, name: VendorName, keep: bool = False) -> None:
        self.program = program
        self.name = name
        self._device = _device(name.device)
        self._keep = keep
        self._state: dict[str, Tensor] = {}
        self._values: list[Tensor | None] = []
        self._plan = plan(program, self._device, name.precision, every_value=keep)

    def load(self, state: Mapping[str, Array]) -> None:
        checked = check_arrays(state, self.program.inputs_of("state"), "state")
        types = self.program.inputs_of("state")
        self._state = {n: to_tensor(a, types[n].dtype, self._device).clone() for n, a in checked.items()}

    def state(self) -> dict[str, Array]:
        types = self.program.inputs_of("state")
        return {name: to_array(t, types[name].dtype) for name, t in self._state.items()}

    @torch.inference_mode()
    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        p = self.program
        if len(self._state) != len(p.inputs_of("state")):
            raise BackendError("step before load: the executor has no state yet")
        given = {
            "batch": check_arrays(batch, p.inputs_of("batch"), "batch"),
            "scalar": check_arrays(scalars, p.inputs_of("scalar"), "scalars"),
        }
        values: list[Tensor | None] = [
            self._state[i.name] if i.role == "state" else to_tensor(given[i.role][i.name], i.type.dtype, self._device)
            for i in p.inputs
        ]
        foreign = {_memory(t) for t, i in zip(values, p.inputs, strict=True) if i.role != "state"}  # the caller's
        values += [None] * (len(p.value_types) - len(values))
        with switches(self._device, self.name.precision):
            for kernel, inputs, first, dead in self._plan:
                for n, out in enumerate(kernel([values[v] for v in inputs])):  # type: ignore[misc]
                    values[first + n] = out
                if not self._keep:
                    for v in dead:
                        values[v] = None
        self._values = values if self._keep else []
        metrics = {
            o.name: to_array(_own(values[o.value]), p.value_types[o.value].dtype)
            for o in p.outputs
            if o.role == "metric"
        }
        self._state = self._next_state(values, foreign)
        return metrics

    def _next_state(self, values: Sequence[Tensor | None], foreign: set[int]) -> dict[str, Tensor]:
        """Tensors of their own memory: none of `foreign`, none shared; one element may be a constant's."""
        state = {}
        for o in self.program.outputs:
            if o.role != "state":
                continue
            value = values[o.value]
            assert value is not None
            whole = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes and value.numel() > 1
            if self._keep or not whole or _memory(value) in foreign:
                value = _own(value)
            foreign.add(_memory(value))
            state[o.name] = value
        return state

    def value(self, v: int) -> Array:
        """Value number `v` of the last step (only with keep=True)."""
        if not self._keep:
            raise BackendError("values are kept only by an executor made with keep=True")
        return to_array(_own(self._values[v]), self.program.value_types[v].dtype)


def _device(name: str) -> torch.device:
    """The device; BackendError where torch has none of that name here."""
    device = torch.device(name)
    module = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(device.type)
    if module is not None and not module.is_available():
        raise BackendError(f"device {name!r}: torch {torch.__version__} finds no {device.type} device here; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"device {name!r}: there are {torch.cuda.device_count()} cuda devices, counted from 0")
    return device


def _own(value: Tensor | None) -> Tensor:
    """A contiguous copy."""
    assert value is not None
    return value.clone(memory_format=torch.contiguous_format)


def _memory(value: Tensor | None) -> int:
    assert value is not None
    return value.untyped_storage().data_ptr()

"""Averaged weights beside a run: torch.optim.swa_utils.AveragedModel as nodes.

State entries are `ema.` and the name of a tensor in the averaged model: `ema.module.<parameter>`, `ema.n_averaged`;
buffers only where they are averaged too (use_buffers=True), as elsewhere they are the model's own. The average follows
the parameters after every step, also after one that a loss scale skipped.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import swa_utils
from torch.optim.swa_utils import AveragedModel

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.optimizers.family import interpolate
from gensyn_verify.frontend.tensors import holds, tensor_type, to_array, write_array
from gensyn_verify.program import Dtype, ProgramBuilder, Reg, Scalar, TensorType, Value

COUNT = "ema.n_averaged"


def averaged_model(model: nn.Module, ema: float | AveragedModel) -> AveragedModel:
    """`ema` itself, or a new average of `model` with that decay."""
    if isinstance(ema, AveragedModel):
        return ema
    if isinstance(ema, bool) or not isinstance(ema, (int, float)) or not 0.0 <= ema <= 1.0:
        raise CaptureError(f"ema is a decay from 0 to 1 or a torch.optim.swa_utils.AveragedModel, found {ema!r}")
    make: Any = swa_utils.get_ema_multi_avg_fn
    return AveragedModel(model, multi_avg_fn=make(ema))


@dataclass(frozen=True)
class Average:
    """An averaged model that is part of a step. `decay` is None for the equal average of all steps."""

    averaged: AveragedModel
    decay: float | None
    tensors: Mapping[str, Tensor]  # averaged, by name in the model

    @staticmethod
    def read(model: nn.Module, averaged: AveragedModel) -> Average:
        """Raises CaptureError where the average is of another model or its function is none of torch's."""
        own: dict[str, Tensor] = dict(averaged.module.named_parameters())
        wanted: dict[str, Tensor] = dict(model.named_parameters())
        if averaged.use_buffers:
            own.update(averaged.module.named_buffers())
            wanted.update(model.named_buffers())
        if {n: (t.shape, t.dtype) for n, t in own.items()} != {n: (t.shape, t.dtype) for n, t in wanted.items()}:
            raise CaptureError("ema: the averaged model is not one of this model; make it of the model as it is now")
        return Average(averaged, _decay(averaged), own)

    def initial_state(self) -> dict[str, Array]:
        found = {_entry(name): to_array(t, f"average of {name}") for name, t in self.tensors.items()}
        return {**found, COUNT: to_array(self.averaged.n_averaged, "n_averaged")}

    def store(self, state: Mapping[str, Array], buffers: Mapping[str, Tensor]) -> None:
        """Put the averages of an engine state, and the model's own buffers, into the averaged model."""
        if COUNT not in state:
            raise CaptureError("the state has no averaged weights: the step was captured without ema")
        for name, tensor in self.tensors.items():
            write_array(state[_entry(name)], tensor.detach())
        write_array(state[COUNT], self.averaged.n_averaged)
        if not self.averaged.use_buffers:
            for name, tensor in self.averaged.module.named_buffers():
                tensor.detach().copy_(buffers[name].detach())

    def holds(self, state: Mapping[str, Array]) -> bool:
        averages = all(holds(t, state[_entry(name)]) for name, t in self.tensors.items())
        return averages and holds(self.averaged.n_averaged, state[COUNT])

    def write(self, g: ProgramBuilder, following: Mapping[str, Value]) -> None:
        """State entries of the average, given the next value of every tensor of the model."""
        count = g.input("state", COUNT, TensorType(Dtype.i32, ()))
        g.output("state", COUNT, g.map(lambda n: n + 1, count))
        for name, tensor in self.tensors.items():
            before = g.input("state", _entry(name), tensor_type(tensor))
            with g.origin(f"average of {name}"):
                after = g.map(self._next, before, following[name], count, shape=before.shape, dtype=before.dtype)
            g.output("state", _entry(name), after)

    def _next(self, average: Scalar, x: Scalar, count: Scalar) -> Scalar:
        b, result = average.builder, average.reg
        first, average, number = count.equals(0), average.to(Reg.f32), x.to(Reg.f32)
        if self.decay is None:
            moved = average + (number - average) / (count + 1).to(Reg.f32)
        elif result is Reg.f32:
            moved = interpolate(average, number, 1.0 - self.decay, self.decay, 1.0 - self.decay)
        else:  # integers as torch averages them: summed as floats, cut to integers
            moved = average * self.decay + number * (1.0 - self.decay)
        return b.select(first, x, moved.to(result))


def _entry(name: str) -> str:
    return f"ema.module.{name}"


def _code(function: Any) -> Any:
    """What tells functions of torch's makers from others: each makes closures of one code."""
    return getattr(inspect.unwrap(function), "__code__", None)


_EXPONENTIAL: list[Any] = [swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn]
_EQUAL: list[Any] = [swa_utils.get_swa_avg_fn, swa_utils.get_swa_multi_avg_fn]


def _decay(averaged: AveragedModel) -> float | None:
    """The decay inside the functions that torch makes; None for the equal average."""
    function = averaged.multi_avg_fn or averaged.avg_fn
    if function is None:
        return None
    if _code(function) in [_code(make()) for make in _EQUAL]:
        return None
    if _code(function) in [_code(make()) for make in _EXPONENTIAL]:
        return float(inspect.getclosurevars(inspect.unwrap(function)).nonlocals["decay"])
    raise CaptureError(
        f"ema: the averaging function {function!r} is none of torch's; use get_ema_multi_avg_fn or get_swa_multi_avg_fn"
    )


__all__ = ["Average", "averaged_model"]

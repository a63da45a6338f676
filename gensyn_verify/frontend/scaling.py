"""Loss scaling: gradients of scale * loss, divided by the scale again, so that small ones survive in fp16.

A number is a static scale. A torch.amp.GradScaler is a dynamic one: scale and growth tracker are state, and a step
whose gradients are not all finite updates neither parameters nor slots and lowers the scale. Then the number of updates
is not the number of steps, and the per-step scalars of an optimizer depend on it: `scaler.skipped` counts the steps
without update, and each scalar is a vector over it of `WINDOW` entries. From WINDOW - 1 skipped steps on, the last
entry serves: bias corrections have long settled by then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.gradients import FLT_MAX, Gradients, largest
from gensyn_verify.frontend.tensors import holds, to_array
from gensyn_verify.program import Dtype, ProgramBuilder, Reg, Scalar, TensorType, Value
from gensyn_verify.program.program import SKIPPED

WINDOW = 32
SCALE, TRACKER, COUNT = "scaler.scale", "scaler.growth_tracker", "scaler.skipped"


@dataclass
class Scaler:
    """A GradScaler that is part of a step, and how many steps of the program it has skipped."""

    scaler: torch.amp.GradScaler
    skipped: int = 0

    def initial_state(self) -> dict[str, Array]:
        scale, tracker = self._tensors()
        return {
            SCALE: to_array(scale.float().reshape(()), "the loss scale"),
            TRACKER: to_array(tracker.int().reshape(()), "the growth tracker"),
            COUNT: np.array(self.skipped, np.int32),
        }

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and growth tracker; torch makes them at the first use."""
        if self.scaler._scale is None:
            self.scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
        scale, tracker = self.scaler._scale, self.scaler._growth_tracker
        assert scale is not None
        assert tracker is not None
        return scale, tracker

    def store(self, state: Mapping[str, Array]) -> None:
        scale, tracker = self._tensors()
        scale.fill_(float(state[SCALE]))
        tracker.fill_(int(state[TRACKER]))
        self.skipped = int(state[COUNT])

    def holds(self, state: Mapping[str, Array]) -> bool:
        scale, tracker = self._tensors()
        return holds(scale.reshape(()), state[SCALE]) and int(tracker) == int(state[TRACKER])


@dataclass(frozen=True)
class Scaling:
    """The values of one step under a dynamic scale. `window_entry` says which entry of a scalar applies."""

    scaler: torch.amp.GradScaler
    scale: Value
    tracker: Value
    skipped: Value

    @staticmethod
    def begin(g: ProgramBuilder, scaler: torch.amp.GradScaler) -> Scaling:
        types = {SCALE: Dtype.f32, TRACKER: Dtype.i32, COUNT: Dtype.i32}
        return Scaling(scaler, *(g.input("state", name, TensorType(d, ())) for name, d in types.items()))

    def window_entry(self, g: ProgramBuilder) -> Value:
        return g.map(lambda n: n.min(WINDOW - 1), self.skipped)

    def overflow(self, g: ProgramBuilder, gradients: Gradients) -> Value:
        """Whether a gradient (still scaled) is not finite: the step is skipped."""
        return g.map(lambda x: ~(x <= FLT_MAX), largest(g, gradients))

    def finish(self, g: ProgramBuilder, skip: Value) -> None:
        """The next scale, as torch._amp_update_scale_ has it, and the metric that says that the step was skipped."""
        factor, backoff = self.scaler.get_growth_factor(), self.scaler.get_backoff_factor()
        interval = self.scaler.get_growth_interval()

        def f(skip: Scalar, scale: Scalar, tracker: Scalar, skipped: Scalar) -> tuple[Scalar, ...]:
            b = scale.builder
            grows = (tracker + 1).equals(interval)
            grown = scale * factor
            grown = b.select(grown <= FLT_MAX, grown, scale)
            zero = b.literal(0, Reg.i32)
            return (
                b.select(skip, scale * backoff, b.select(grows, grown, scale)),
                b.select(skip | grows, zero, tracker + 1),
                skipped + skip.to(Reg.i32),
            )

        with g.origin("loss scale"):
            following = g.maps(f, skip, self.scale, self.tracker, self.skipped)
        for name, value in zip((SCALE, TRACKER, COUNT), following, strict=True):
            g.output("state", name, value)
        g.output("metric", SKIPPED, skip)


def unscale(g: ProgramBuilder, gradients: Gradients, scale: Value | float) -> Gradients:
    """Gradients times 1/scale, rounded to f32 first, as GradScaler has it."""
    if isinstance(scale, float):
        factor = 1.0 / scale
        return {name: g.map(lambda x: x * factor, x, dtype=x.dtype) for name, x in gradients.items()}
    inverse = g.map(lambda s: 1.0 / s, scale)
    return {name: g.map(lambda x, i: x * i, x, inverse, dtype=x.dtype) for name, x in gradients.items()}


def read(loss_scale: float | torch.amp.GradScaler | None) -> float | Scaler | None:
    """A checked loss scale; None also for a GradScaler that is not enabled."""
    if loss_scale is None or (isinstance(loss_scale, torch.amp.GradScaler) and not loss_scale.is_enabled()):
        return None
    if isinstance(loss_scale, torch.amp.GradScaler):
        return Scaler(loss_scale)
    if not isinstance(loss_scale, (int, float)) or not (0.0 < loss_scale < math.inf):
        raise CaptureError(f"loss_scale is a positive number or a torch.amp.GradScaler, found {loss_scale!r}")
    return float(loss_scale)


__all__ = ["WINDOW", "Scaler", "Scaling", "read", "unscale"]

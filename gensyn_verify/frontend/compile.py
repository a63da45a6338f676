"""`compile`: the user's own training loop on reproducible kernels.

    step = compile(model, loss_fn, optimizer)
    for batch in loader:
        loss = step(batch)

The first batch fixes the shapes; another shape is refused. After every step the module's parameters and buffers and
the optimizer's state hold the results, so evaluation, checkpoints and learning-rate schedulers work as before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import schedules
from gensyn_verify.frontend.capture import STEP, Captured, trace_step
from gensyn_verify.frontend.ema import averaged_model
from gensyn_verify.frontend.optimizers import Optimizers
from gensyn_verify.frontend.training import Training

Listener = Callable[
    [int, dict[str, Array], dict[str, Array], dict[str, Array], dict[str, Array]], None
]  # (step, batch, scalars, state after the step, metrics); the state's arrays are views until the next step


class Step:
    """A training step that runs on the engine; calling it trains the module in place.

    `listeners` are called after every step. `captured` is None until the first batch. `averaged` is the
    torch.optim.swa_utils.AveragedModel that holds the averaged weights, None without the option `ema`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Any],
        optimizer: Optimizers,
        *,
        loss_takes_model: bool = False,
        seed: int | None = None,
        backend: str = "cpu",
        **training: Any,
    ) -> None:
        options = Training(**training)
        self.listeners: list[Listener] = []
        self.captured: Captured | None = None
        self.averaged = None if options.ema is None else averaged_model(model, options.ema)
        training["ema"] = self.averaged
        self._capture: Callable[[Any, int], Captured] = lambda batch, steps: trace_step(
            model, loss_fn, optimizer, batch, loss_takes_model=loss_takes_model, seed=seed, steps=steps, **training
        )
        self._model = model
        self._lr = options.lr
        self._schedulers = schedules.check(options.scheduler)
        self._backend = backend
        self._executor: backends.Executor | None = None
        self._parts: list[Any] = []
        self._taken = 0
        self._reloads = 0

    @property
    def reloads(self) -> int:
        """How often the user wrote into module or optimizer between steps, so that a step began from other state."""
        return self._reloads

    @property
    def steps(self) -> int:
        """Steps done so far."""
        return self._taken

    def prepare(self, batch: Any, steps: int = 0) -> Captured:
        """Capture with this batch's shapes, if that has not happened; runs nothing.

        `steps` of these steps lie behind what module and optimizer hold, of a checkpoint for one: the next one is
        number `steps` + 1, so dropout draws what it would have drawn without the break.
        """
        if self.captured is None:
            self.captured = self._capture(batch, steps)
            self._taken = steps
            self._parts = self._parts_now()
            self._executor = backends.make(self._backend, self.captured.program)
            self._executor.load(self.captured.state)
        return self.captured

    def resume(self, state: Mapping[str, Array]) -> None:
        """Go on from an engine state of this program: it is put into module and optimizer, and counts as `steps` done.

        Schedulers that the step calls itself are called as often as if it had taken those steps; others are the user's.
        Raises CaptureError before `prepare` and after the first step.
        """
        if self.captured is None or self._executor is None or self._taken:
            raise CaptureError("a step resumes after prepare(batch) and before its first call")
        kept = {name: state[name] for name in self.captured.state}  # constants and seed are read from here later
        self.captured = dataclasses.replace(self.captured, state=kept)
        self.captured.store(state)
        self._executor.load(state)
        self._taken = int(state[STEP])
        for scheduler in self._schedulers:
            for _ in range(self._taken):
                scheduler.step()

    def __call__(self, batch: Any) -> Tensor:
        """One step; the loss before the update, as a 0-d tensor. CaptureError where something captured has changed."""
        captured = self.prepare(batch)
        executor = self._executor
        assert executor is not None
        self._check_unchanged(captured)
        arrays = captured.batch_arrays(batch)
        if not captured.holds(executor.state()):  # the user wrote into the module or the optimizer
            executor.load(captured.read_state(self._taken))
            self._reloads += 1
        number = self._taken + 1
        update = captured.update
        scalars = captured.scalars(number, update.live() if self._lr is None else update.with_rates(self._lr(number)))
        metrics = executor.step(arrays, scalars)
        self._taken = number
        state = dict(executor.state())
        captured.store(state)
        for scheduler in self._schedulers:
            scheduler.step()
        for listener in self.listeners:
            listener(number, arrays, scalars, state, metrics)
        return torch.tensor(float(metrics["loss"]))

    def _check_unchanged(self, captured: Captured) -> None:
        if self._parts != self._parts_now():
            raise CaptureError(
                "the model changed since the step was captured: a module switched between train() and eval(), or a "
                "parameter was replaced, frozen or unfrozen; undo that or compile the step again"
            )
        captured.update.check_unchanged(self._taken - captured.skipped)

    def _parts_now(self) -> list[Any]:
        """What a captured program takes for granted of the module."""
        modes = [m.training for m in self._model.modules()]
        return modes + [(id(p), p.requires_grad) for p in self._model.parameters()]


def compile(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    optimizer: Optimizers,
    *,
    loss_takes_model: bool = False,
    seed: int | None = None,
    backend: str = "cpu",
    **training: Any,
) -> Step:
    """A `Step`: like `trace_step`, but the first call with a batch captures, and every call trains.

    Further keyword arguments are the fields of `Training`. Without `lr` and `scheduler` the optimizer's own learning
    rates are read at every step, so torch schedulers in the loop work; calling `optimizer.step()` or
    `loss.backward()` is neither needed nor possible.
    """
    return Step(model, loss_fn, optimizer, loss_takes_model=loss_takes_model, seed=seed, backend=backend, **training)


__all__ = ["STEP", "Listener", "Step", "compile"]

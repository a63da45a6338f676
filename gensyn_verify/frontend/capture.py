"""`trace_step`: model, loss, optimizer and an example batch in, program and initial state out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import optimizers, scaling, schedules
from gensyn_verify.frontend.context import Builder, Context
from gensyn_verify.frontend.ema import Average, averaged_model
from gensyn_verify.frontend.gradients import Gradients, accumulate, choose, clip_norm, clip_value
from gensyn_verify.frontend.lowering import lower
from gensyn_verify.frontend.scaling import WINDOW, Scaler, Scaling, unscale
from gensyn_verify.frontend.schedules import Schedule
from gensyn_verify.frontend.tensors import check_dtype, check_memory, holds, tensor_type, to_array, write_array
from gensyn_verify.frontend.trace import StepModule, Traced, buffers_of, parameters_of, trace
from gensyn_verify.frontend.training import Training, first_rows
from gensyn_verify.program import Dtype, Program, TensorType, Value

STEP = "step"


@dataclass(frozen=True)
class Captured:
    """A training step as a program, with everything needed to run it and to take the result back.

    `averaged` is the model that holds the averaged weights (option `ema`), None without.
    """

    program: Program
    state: Mapping[str, Array] = field(repr=False)
    schedule: Callable[[int], dict[str, Array]]
    batch_names: tuple[str, ...]
    update: optimizers.Update = field(repr=False)
    parameters: Mapping[str, nn.Parameter] = field(repr=False)
    buffers: Mapping[str, Tensor] = field(repr=False)
    average: Average | None = field(default=None, repr=False)
    scaler: Scaler | None = field(default=None, repr=False)

    @property
    def averaged(self) -> AveragedModel | None:
        return None if self.average is None else self.average.averaged

    def scalars(self, step: int, hyperparameters: optimizers.Hyperparameters) -> dict[str, Array]:
        """Scalar inputs of step 1, 2, ... under these hyperparameters, one mapping a parameter group."""
        window = scaling.WINDOW if self.scaler else 1
        return optimizers.rounded(self.update.scalars(step, hyperparameters, window), window)

    def batch_arrays(self, batch: Any) -> dict[str, Array]:
        """A batch of the captured structure as program inputs; CaptureError where shape or dtype differ."""
        names, tensors = name_batch(batch)
        wanted = self.program.inputs_of("batch")
        if names != self.batch_names:
            raise CaptureError(f"the batch has the tensors {list(names)}, the captured one {list(self.batch_names)}")
        arrays = {}
        for name, tensor in zip(names, tensors, strict=True):
            if name not in wanted:
                continue  # the step does not depend on it
            if tensor_type(tensor) != wanted[name]:
                raise CaptureError(
                    f"batch {name!r} is {tensor_type(tensor)}; the step was captured for {wanted[name]}. A program has "
                    "static shapes: drop a last smaller batch (drop_last=True), or capture one more step for it"
                )
            arrays[name] = to_array(tensor, f"batch {name!r}")
        return arrays

    def load_state(self, model: nn.Module, state: Mapping[str, Array]) -> None:
        """Copy parameters and buffers of an engine state into `model`, the captured one or one built alike."""
        load_state(state, model)

    @property
    def skipped(self) -> int:
        """How many steps before the engine state that was stored last updated nothing, because a GradScaler said so."""
        return self.scaler.skipped if self.scaler else 0

    def store(self, state: Mapping[str, Array]) -> None:
        """Copy an engine state into the captured model, loss function and optimizer, as if PyTorch had trained them.

        So too the averaged model and the GradScaler, where they are part of the step.
        """
        for name, tensor in [*self.parameters.items(), *self.buffers.items()]:
            write_array(state[_entry(name, self.parameters)], tensor.detach())
        if self.scaler:
            self.scaler.store(state)
        self.update.store(state, int(state[STEP]) - self.skipped)
        if self.average:
            self.average.store(state, self.buffers)

    def holds(self, state: Mapping[str, Array]) -> bool:
        """Whether module, loss function and optimizer hold exactly this engine state: nobody wrote into them since."""
        own = [*self.parameters.items(), *self.buffers.items()]
        return (
            all(holds(tensor, state[_entry(name, self.parameters)]) for name, tensor in own)
            and self.update.holds(state)
            and (self.average is None or self.average.holds(state))
            and (self.scaler is None or self.scaler.holds(state))
        )

    def read_state(self, step: int) -> dict[str, Array]:
        """The engine state that the captured model and optimizer have now, as of `step`; the reverse of `store`."""
        found = {name: array for name, array in self.state.items() if name.startswith("constant.") or name == "seed"}
        for name, tensor in [*self.parameters.items(), *self.buffers.items()]:
            found[_entry(name, self.parameters)] = to_array(tensor, name)
        found.update(self.update.initial_state())
        if self.average:
            found.update(self.average.initial_state())
        if self.scaler:
            found.update(self.scaler.initial_state())
        return {**found, STEP: np.array(step, np.uint32)}


def load_state(state: Mapping[str, Array], model: nn.Module, averaged: AveragedModel | None = None) -> None:
    """Copy an engine state, as of `Run.checkpoint()`, into a model built as the captured one was.

    Parameters, buffers and, into `averaged`, the averaged weights of the option `ema`. What the state lacks stays as
    it is. Raises CaptureError where `averaged` is no average of `model` or the state has none.
    """
    for name, parameter in model.named_parameters():
        if f"param.{name}" in state:
            write_array(state[f"param.{name}"], parameter.detach())
    for name, buffer in model.named_buffers():
        if f"buffer.{name}" in state:
            write_array(state[f"buffer.{name}"], buffer.detach())
    if averaged is not None:
        Average.read(model, averaged).store(state, dict(model.named_buffers()))


def _entry(name: str, parameters: Mapping[str, Any]) -> str:
    return f"param.{name}" if name in parameters else f"buffer.{name}"


def name_batch(batch: Any) -> tuple[tuple[str, ...], list[Tensor]]:
    """Names and tensors of a batch: `x`, `y` for a pair of tensors, the keys of a dict of tensors, else `batch.N`."""
    leaves, _ = pytree.tree_flatten(batch)
    tensors = []
    for n, leaf in enumerate(leaves):
        if isinstance(leaf, np.ndarray):
            raise CaptureError(f"batch leaf {n} is a NumPy array; convert it with torch.from_numpy")
        if not isinstance(leaf, Tensor):
            raise CaptureError(f"batch leaf {n} is {type(leaf).__name__} ({leaf!r}); a batch holds tensors only")
        tensors.append(leaf)
    if isinstance(batch, Mapping) and all(isinstance(v, Tensor) for v in batch.values()):
        return tuple(map(str, batch)), tensors
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and len(tensors) == 2:
        return ("x", "y"), tensors
    return tuple(f"batch.{n}" for n in range(len(tensors))), tensors


def trace_step(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    optimizer: optimizers.Optimizers,
    batch: Any,
    *,
    loss_takes_model: bool = False,
    seed: int | None = None,
    steps: int = 0,
    **training: Any,
) -> Captured:
    """One training step (zero_grad, forward, loss, backward, optimizer.step) as a program.

    The batch is (inputs, *targets), or a tensor alone, and the loss `loss_fn(model(inputs), *targets)`; inputs that
    are a tuple or a dict are spread over the model's arguments. With `loss_takes_model` the batch may be any nest of
    tensors and the loss is `loss_fn(model, batch)`. `optimizer` may be several, of different parameters. `seed` feeds
    dropout; default: torch.initial_seed(). `steps` of these steps lie behind what model and optimizer hold: the
    captured state counts them. Further keyword arguments are the fields of `Training`; without `lr` and `scheduler`
    the learning rates stay what the optimizer has now.

    Parameters, buffers and existing optimizer state are read, nothing is changed. Gradients that lie in `.grad` play
    no part. Modules are captured in the mode (train or eval) they are in. int64 tensors become int32.

    Raises CaptureError naming what cannot be captured, where, and what to do.
    """
    options = Training(**training)
    step = StepModule(model, loss_fn, loss_takes_model)
    if isinstance(batch, Mapping) and not loss_takes_model:
        raise CaptureError("a dict has no first tensor: pass loss_takes_model=True and a loss_fn(model, batch)")
    names, leaves = name_batch(batch)
    parameters, buffers = parameters_of(step), buffers_of(step)
    for role, tensors in (("param", parameters), ("buffer", buffers), ("batch", dict(zip(names, leaves, strict=True)))):
        for name, tensor in tensors.items():
            check_dtype(tensor, f"{role} {name!r}")
    check_memory(parameters, buffers)
    update = optimizers.read(optimizer, parameters)
    scale = scaling.read(options.loss_scale)
    if isinstance(scale, Scaler):
        scale.skipped = update.uncounted(steps)
    update = update.behind(steps - (scale.skipped if isinstance(scale, Scaler) else 0))
    average = None if options.ema is None else Average.read(model, averaged_model(model, options.ema))
    first = first_rows(batch, options.microbatches(names, leaves))
    traced = trace(step, first, names, [m.name for m in update.members], options.autocast)
    writer = Writer(traced, update, leaves, options, scale, average, torch.initial_seed() if seed is None else seed)
    program = writer.build()
    captured = Captured(
        program, writer.context.added_state, lambda step: {}, names, writer.update, parameters, buffers, average,
        scale if isinstance(scale, Scaler) else None,
    )  # fmt: skip
    schedule = _schedule(captured, options)
    return dataclasses.replace(captured, state=captured.read_state(steps), schedule=schedule)


def _schedule(captured: Captured, options: Training) -> Callable[[int], dict[str, Array]]:
    """Per-step scalars of step 1, 2, ..."""
    update = captured.update
    if options.scheduler is not None:
        hyperparameters: Callable[[int], Any] = Schedule(schedules.check(options.scheduler), update.groups)
    elif options.lr is not None:
        lr = options.lr
        hyperparameters = lambda step: update.with_rates(lr(step))  # noqa: E731
    else:
        now = update.live()
        hyperparameters = lambda step: now  # noqa: E731

    def schedule(step: int) -> dict[str, Array]:
        if step < 1:
            raise CaptureError(f"steps are counted from 1, found {step}")
        return captured.scalars(step, hyperparameters(step))

    return schedule


class Writer:
    """Writes one step: the passes over the microbatches, then what becomes of the gradients.

    `update` is that of the parameters that have a gradient, `context.added_state` what only the program has.
    """

    def __init__(
        self,
        traced: Traced,
        update: optimizers.Update,
        leaves: Sequence[Tensor],
        options: Training,
        scale: float | Scaler | None,
        average: Average | None,
        seed: int,
    ) -> None:
        self.g = g = Builder()
        count = g.input("state", STEP, TensorType(Dtype.u32, ()))
        g.output("state", STEP, g.map(lambda n: n + 1, count))
        self.context = Context(g, count, seed)
        self.traced, self.update, self.options, self.average = traced, update, options, average
        self.scaling = Scaling.begin(g, scale.scaler) if isinstance(scale, Scaler) else None
        self.scale = self.scaling.scale if self.scaling else scale if isinstance(scale, float) else None
        placeholders = [n for n in traced.graph.graph.nodes if n.op == "placeholder"]
        entries = [f"param.{n}" for n in traced.parameters] + [f"buffer.{n}" for n in traced.buffers]
        types = [tensor_type(n.meta["val"]) for n, _ in zip(placeholders, entries, strict=False)]
        self.before = {e: g.input("state", e, t) for e, t in zip(entries, types, strict=True)}
        self.batch = [g.input("batch", n, tensor_type(x)) for n, x in zip(traced.batch, leaves, strict=True)]

    def build(self) -> Program:
        g = self.g
        loss, gradients, after = self._passes()
        g.output("metric", "loss", loss)
        self.update = self.update.only(list(gradients))
        after.update(self._optimize(after, gradients))
        for entry, value in after.items():
            g.output("state", entry, value)
        if self.average:
            self.average.write(g, {name.split(".", 1)[1]: value for name, value in after.items()})
        return g.build()

    def _passes(self) -> tuple[Value, Gradients, dict[str, Value]]:
        """Loss, gradients of scale * loss, and parameters and buffers after the forward passes."""
        g, k = self.g, self.options.accumulate
        losses, parts, after = [], [], dict(self.before)
        scale = self._backward_scale(k)
        for n in range(k):
            rows = [self._microbatch(x, n) for x in self.batch]
            given = len(self.traced.gradients)
            wanted = range(1 + given + len(after))
            loss, *results = lower(self.traced.graph, [*after.values(), *rows, scale], self.context, wanted)
            losses.append(self.context.value(loss))
            found = zip(self.traced.gradients, results, strict=False)
            parts.append({name: self.context.value(v) for name, v in found if v is not None})
            after = {e: self.context.value(v) for e, v in zip(after, results[given:], strict=True)}
        loss = losses[0]
        for other in losses[1:]:
            loss = g.map(lambda a, b: a + b, loss, other)
        return loss if k == 1 else g.map(lambda x: x / float(k), loss), accumulate(g, parts), after

    def _backward_scale(self, k: int) -> Value:
        """What the loss of a microbatch is multiplied by before its backward pass."""
        if isinstance(self.scale, Value):
            return self.scale if k == 1 else self.g.map(lambda s: s / float(k), self.scale)
        return self.g.full((), (self.scale or 1.0) / k)

    def _microbatch(self, x: Value, n: int) -> Value:
        k = self.options.accumulate
        rest = [0] * (len(x.shape) - 1)
        return x if k == 1 else self.g.slice(x, [n * (x.shape[0] // k), *rest], [x.shape[0] // k, *x.shape[1:]])

    def _optimize(self, after: Mapping[str, Value], gradients: Gradients) -> dict[str, Value]:
        """State entries of the parameters that the optimizer changes; writes those of slots and scale."""
        g, scaling = self.g, self.scaling
        skip = scaling.overflow(g, gradients) if scaling else None
        if self.scale is not None:
            gradients = unscale(g, gradients, self.scale)
        if self.options.clip_norm is not None:
            gradients = clip_norm(g, gradients, self.options.clip_norm, float(self.options.norm_type))
        if self.options.clip_value is not None:
            gradients = clip_value(g, gradients, self.options.clip_value)
        parameters = {n: after[f"param.{n}"] for n in self.traced.parameters}
        entry = scaling.window_entry(g) if scaling else None
        updated, slots = self.update.write(g, parameters, gradients, WINDOW, entry)
        changed = {f"param.{n}": (parameters[n], value) for n, value in updated.items()}
        chosen = {
            name: new if skip is None else choose(g, skip, old, new) for name, (old, new) in (changed | slots).items()
        }
        for name in slots:
            g.output("state", name, chosen[name])
        if scaling is not None and skip is not None:
            scaling.finish(g, skip)
        return {name: chosen[name] for name in changed}

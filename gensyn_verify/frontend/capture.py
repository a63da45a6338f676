"""`trace_step`: model, loss, optimizer and an example batch in, program and initial state out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import optimizers
from gensyn_verify.frontend.context import Builder, Context
from gensyn_verify.frontend.lowering import lower
from gensyn_verify.frontend.tensors import check_dtype, holds, tensor_type, to_array, write_array
from gensyn_verify.frontend.trace import StepModule, Traced, buffers_of, parameters_of, trace
from gensyn_verify.program import Dtype, Program, TensorType, Value

STEP = "step"


@dataclass(frozen=True)
class Captured:
    """A training step as a program, with everything needed to run it and to take the result back."""

    program: Program
    state: Mapping[str, Array] = field(repr=False)
    schedule: Callable[[int], dict[str, Array]]
    batch_names: tuple[str, ...]
    update: optimizers.Update = field(repr=False)
    parameters: Mapping[str, nn.Parameter] = field(repr=False)
    buffers: Mapping[str, Tensor] = field(repr=False)

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
        own: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name in [*self.parameters, *self.buffers]:
            if name in own:
                write_array(state[_entry(name, self.parameters)], own[name].detach())

    def store(self, state: Mapping[str, Array]) -> None:
        """Copy an engine state into the captured model, loss function and optimizer, as if PyTorch had trained them."""
        for name, tensor in [*self.parameters.items(), *self.buffers.items()]:
            write_array(state[_entry(name, self.parameters)], tensor.detach())
        self.update.store(state, int(state[STEP]))

    def holds(self, state: Mapping[str, Array]) -> bool:
        """Whether module, loss function and optimizer hold exactly this engine state: nobody wrote into them since."""
        own = [*self.parameters.items(), *self.buffers.items()]
        return all(holds(tensor, state[_entry(name, self.parameters)]) for name, tensor in own) and self.update.holds(
            state
        )

    def read_state(self, step: int) -> dict[str, Array]:
        """The engine state that the captured model and optimizer have now, as of `step`; the reverse of `store`."""
        found = {name: array for name, array in self.state.items() if name.startswith("constant.") or name == "seed"}
        for name, tensor in [*self.parameters.items(), *self.buffers.items()]:
            found[_entry(name, self.parameters)] = to_array(tensor, name)
        return {**found, **self.update.initial_state(), STEP: np.array(step, np.uint32)}


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
    optimizer: torch.optim.Optimizer,
    batch: Any,
    lr: optimizers.LearningRate | None = None,
    *,
    loss_takes_model: bool = False,
    seed: int | None = None,
) -> Captured:
    """One training step (zero_grad, forward, loss, backward, optimizer.step) as a program.

    The batch is (inputs, *targets), or a tensor alone, and the loss `loss_fn(model(inputs), *targets)`; inputs that
    are a tuple or a dict are spread over the model's arguments. With `loss_takes_model` the batch may be any nest of
    tensors and the loss is `loss_fn(model, batch)`. `lr(step)` gives the learning rate of step 1, 2, ... (a number, or
    one a parameter group); without it the rates stay what the optimizer has now. `seed` feeds dropout; default:
    torch.initial_seed().

    Parameters, buffers and existing optimizer state are read, nothing is changed. Gradients that lie in `.grad` play
    no part. Modules are captured in the mode (train or eval) they are in. int64 tensors become int32.

    Raises CaptureError naming what cannot be captured, where, and what to do.
    """
    step = StepModule(model, loss_fn, loss_takes_model)
    if isinstance(batch, Mapping) and not loss_takes_model:
        raise CaptureError("a dict has no first tensor: pass loss_takes_model=True and a loss_fn(model, batch)")
    names, leaves = name_batch(batch)
    parameters, buffers = parameters_of(step), buffers_of(step)
    for role, tensors in (("param", parameters), ("buffer", buffers), ("batch", dict(zip(names, leaves, strict=True)))):
        for name, tensor in tensors.items():
            check_dtype(tensor, f"{role} {name!r}")
    update = optimizers.read(optimizer, parameters)
    traced = trace(step, batch, names, [m.name for m in update.members])
    program, update, added = _write(traced, update, leaves, torch.initial_seed() if seed is None else seed)
    captured = Captured(program, added, lambda step: {}, names, update, parameters, buffers)
    rates = update.learning_rates()

    def schedule(step: int) -> dict[str, Array]:
        """Per-step scalars of step 1, 2, ..."""
        if step < 1:
            raise CaptureError(f"steps are counted from 1, found {step}")
        return optimizers.rounded(update.scalars(step, rates if lr is None else lr(step)))

    return Captured(program, captured.read_state(0), schedule, names, update, parameters, buffers)


def _write(
    traced: Traced, update: optimizers.Update, leaves: Sequence[Tensor], seed: int
) -> tuple[Program, optimizers.Update, dict[str, Array]]:
    """The program; the update of those parameters that have a gradient; the state that only the program has."""
    g = Builder()
    count = g.input("state", STEP, TensorType(Dtype.u32, ()))
    g.output("state", STEP, g.map(lambda n: n + 1, count))
    context = Context(g, count, seed)
    placeholders = [n for n in traced.graph.graph.nodes if n.op == "placeholder"]
    entries = [f"param.{n}" for n in traced.parameters] + [f"buffer.{n}" for n in traced.buffers]
    inputs: list[Value] = []
    for name, node in zip(entries, placeholders, strict=False):
        inputs.append(g.input("state", name, tensor_type(node.meta["val"])))
    for name, leaf in zip(traced.batch, leaves, strict=True):
        inputs.append(g.input("batch", name, tensor_type(leaf)))
    given = len(traced.gradients)
    wanted = range(1 + given + len(entries))
    loss, *results = lower(traced.graph, inputs, context, wanted)
    gradients = {n: context.value(v) for n, v in zip(traced.gradients, results, strict=False) if v is not None}
    after = dict(zip(entries, results[given:], strict=True))
    update = update.only(list(gradients))
    forward = {n: context.value(after[f"param.{n}"]) for n in traced.parameters}
    following = {**forward, **update.write(g, forward, gradients)}
    for name in traced.parameters:
        g.output("state", f"param.{name}", following[name])
    for name in traced.buffers:
        g.output("state", f"buffer.{name}", context.value(after[f"buffer.{name}"]))
    g.output("metric", "loss", context.value(loss))
    return g.build(), update, context.added_state

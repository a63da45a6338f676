"""A function of tensors on the engine and in PyTorch, with its gradients: how both are run, and how errors compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from gensyn_verify import backends
from gensyn_verify.frontend.context import Builder, Context
from gensyn_verify.frontend.lowering import lower
from gensyn_verify.frontend.tensors import tensor_type, to_array
from gensyn_verify.frontend.trace import functional, recorded
from gensyn_verify.program import Dtype, TensorType, Value

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]  # of tensors: a tensor or a sequence of tensors
ULP = 2.0**-23


def results_of(f: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    results = f(*inputs)
    return list(results) if isinstance(results, (tuple, list)) else [results]


def with_gradients(f: Function, inputs: Sequence[Tensor], leaves: int, weights: Sequence[Tensor]) -> list[Tensor]:
    """All results, and the gradients of the sum of results times weights by the first `leaves` inputs.

    Gradients by inputs that the loss does not depend on are left out.
    """
    own = [x.detach().requires_grad_() for x in inputs[:leaves]]
    results = results_of(f, [*own, *inputs[leaves:]])
    smooth = [(r, w.to(r.dtype)) for r, w in zip(results, weights, strict=True) if r.requires_grad]
    grads: Sequence[Any] = ()
    if smooth and own:
        total = sum(((r * w).sum() for r, w in smooth), torch.zeros(()))
        grads = torch.autograd.grad(total, own, allow_unused=True)
    return [*(r.detach() for r in results), *(x for x in grads if x is not None)]


def graph_of(f: Function, inputs: Sequence[Tensor], leaves: int, weights: Sequence[Tensor]) -> fx.GraphModule:
    """The functional ATen graph of results and gradients, traced as a training step is; it takes inputs, weights."""
    examples = [*inputs, *weights]

    def flat(*tensors: Tensor) -> list[Tensor]:
        return with_gradients(f, tensors[: len(inputs)], leaves, tensors[len(inputs) :])

    return functional(recorded(flat, *examples), examples)


class Engine:
    """A functional ATen graph as a program on one backend."""

    def __init__(self, graph: fx.GraphModule, examples: Sequence[Tensor], backend: str) -> None:
        g = Builder()
        step = g.input("state", "step", TensorType(Dtype.u32, ()))
        g.output("state", "step", step)
        self.names = [f"in{n}" for n in range(len(examples))]
        values = [g.input("batch", n, tensor_type(t)) for n, t in zip(self.names, examples, strict=True)]
        context = Context(g, step, seed=0)
        (output,) = graph.graph.find_nodes(op="output")
        for n, r in enumerate(lower(graph, values, context, range(len(output.args[0])))):
            g.output("metric", f"out{n:03}", r if isinstance(r, Value) else context.value(r))
        self.executor = backends.make(backend, g.build())
        self.executor.load({**context.added_state, "step": np.array(0, np.uint32)})

    def __call__(self, tensors: Sequence[Tensor]) -> list[Array]:
        """The graph's results."""
        batch = {n: to_array(t, n) for n, t in zip(self.names, tensors, strict=True)}
        metrics = self.executor.step(batch, {})
        return [metrics[name].copy() for name in sorted(metrics)]


def _errors(found: Array, exact: Array, magnitude: Array) -> Array:
    """Absolute errors of the finite elements, relative to the largest magnitude."""
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(found[~finite], exact[~finite])
    scale = np.abs(magnitude[finite & np.isfinite(magnitude)]).max(initial=0.0) or 1.0
    return (found[finite].astype(np.float64) - exact[finite]) / scale


def _rms(parts: Sequence[Array]) -> float:
    errors = np.concatenate(parts)
    return float(np.sqrt(np.mean(np.square(errors)))) if errors.size else 0.0


def check_accuracy(
    found: Sequence[Array],
    stock: Sequence[Array],
    exact: Sequence[Array],
    magnitude: Sequence[Array],
    factor: float = 1.5,
) -> None:
    """One result on several inputs: its error against binary64 is at most `factor` times that of PyTorch.

    PyTorch's error counts as at least half an ulp, what correct rounding may err by: on a few numbers it may err by
    less. Errors are root mean squares, in ulps of the largest magnitude. What is not finite, and integers and booleans,
    are equal.
    """
    assert [f.shape for f in found] == [s.shape for s in stock]
    if stock[0].dtype != np.float32:
        for f, s in zip(found, stock, strict=True):
            np.testing.assert_array_equal(f.astype(np.int64), s.astype(np.int64))
        return
    ours, theirs = (
        _rms([_errors(x, e, m) for x, e, m in zip(xs, exact, magnitude, strict=True)]) for xs in (found, stock)
    )
    assert ours <= factor * max(theirs, 0.5 * ULP), f"{ours / ULP:.3} ulp against {theirs / ULP:.3}"

"""The gradient of the state after a step with respect to the batch: the program on torch tensors that keep track.

A program holds the backward pass of its model, so one backward pass through it gives what is otherwise a second
derivative of the loss. Kernels are the vendor backend's, but for maps, which it computes in place. Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gensyn_verify.attacks.solver import Inputs
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.vendor import kernels
from gensyn_verify.backends.vendor.operations import OPERATIONS
from gensyn_verify.backends.vendor.scalar import Kernel, constant
from gensyn_verify.backends.vendor.tensors import narrow, to_tensor, widen
from gensyn_verify.errors import BackendError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Program

_CPU = torch.device("cpu")


class Differentiable:
    """The program as a function of its batch."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._plan = [
            (_kernel(program, node), node.inputs, first)
            for node, first in zip(program.nodes, program.first_value, strict=True)
        ]

    def __call__(self, state: Mapping[str, Array], inputs: Inputs, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The next state, with the batch tensors in `changed` in place of those in `inputs`."""
        given = {"state": state, "batch": inputs[0], "scalar": inputs[1]}
        values = [
            changed[i.name]
            if i.role == "batch" and i.name in changed
            else to_tensor(given[i.role][i.name], i.type.dtype, _CPU)
            for i in self.program.inputs
        ]
        for kernel, reads, first in self._plan:
            assert first == len(values)
            values += kernel([values[v] for v in reads])
        return {o.name: values[o.value] for o in self.program.outputs if o.role == "state"}


def _root(x: Tensor) -> Tensor:
    """The square root, with the slope 0 instead of infinity at 0: second moments of what no gradient reaches."""
    return torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1.0)), x)


_CALLS = {**OPERATIONS, "sqrt.f32": _root}


def _kernel(program: Program, node: Node) -> Kernel:
    op, shape = node.op, node.types[0].shape
    dtypes = [program.value_types[v].dtype for v in node.inputs]
    if isinstance(op, ops.Map):
        return _map(program, node, op)
    first = dtypes[0]
    if isinstance(op, ops.Dot):
        return lambda x: [_dot(op, *(widen(v, d) for v, d in zip(x, dtypes, strict=True)))]
    if isinstance(op, ops.Reduce):
        return lambda x: [kernels.run_reduce(op, x[0], first)]
    if isinstance(op, ops.Gather):
        return lambda x: [kernels.run_gather(x[0], x[1], first)]
    if isinstance(op, ops.ScatterAdd):
        return lambda x: [kernels.run_scatter_add(op, x[0], x[1], first, shape)]
    if isinstance(op, ops.Random):
        return lambda x: [kernels.run_random(op, x[0], x[1])]
    if isinstance(op, ops.Sort | ops.Scan):
        raise BackendError(f"{type(op).__name__.lower()} in {node.origin}: inputs are not optimised through it")
    return lambda x: [kernels.run_layout(op, list(x), shape, first)]


def _dot(op: ops.Dot, a: Tensor, b: Tensor) -> Tensor:
    return narrow(torch.matmul(a.mT if op.transpose_a else a, b.mT if op.transpose_b else b), op.dtype)


def _map(program: Program, node: Node, op: ops.Map) -> Kernel:
    scalar = program.scalar_programs[op.program]
    constants = [constant(c) for c in scalar.constants]
    dtypes = [program.value_types[v].dtype for v in node.inputs]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        r = [widen(x, d) for x, d in zip(inputs, dtypes, strict=True)] + constants
        for instruction in scalar.code:
            r.append(_CALLS[instruction.op](*(r[a] for a in instruction.args)))
        return [narrow(r[v], d).expand(op.shape) for v, d in zip(scalar.outputs, op.dtypes, strict=True)]

    return run

"""The plan of a program: which calls, in which order, on which values, and what memory they may write over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gensyn_verify.backends.vendor import kernels
from gensyn_verify.backends.vendor.convolution import Finder, find
from gensyn_verify.backends.vendor.operations import VIEWS
from gensyn_verify.backends.vendor.precision import Rounding, rounding
from gensyn_verify.backends.vendor.scalar import Kernel, compile_map, compile_scan
from gensyn_verify.backends.vendor.tensors import narrow, widen
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Program
from gensyn_verify.program.types import Dtype


class Step(NamedTuple):
    """values[first], values[first + 1] ... = kernel(values[inputs]); then nobody reads `dead` any more."""

    kernel: Kernel
    inputs: tuple[int, ...]
    first: int
    dead: tuple[int, ...]


def plan(program: Program, device: torch.device, precision: str, every_value: bool) -> list[Step]:
    """The nodes that outputs need, as calls: a convolution is one, and an optimizer writes over its state.

    With `every_value` all nodes, and nothing is written over; the values of the others have the same bits.
    """
    finder, operand, memory = Finder(program), rounding(precision), shared_memory(program)
    needed = {o.value for o in program.outputs}
    live = {memory[v] for v in needed}
    steps = []
    for node, first in zip(reversed(program.nodes), reversed(program.first_value), strict=True):
        outputs = range(first, first + len(node.types))
        if not every_value and needed.isdisjoint(outputs):
            continue
        found = find(finder, first, operand, every_value)
        if found is None:
            free = not every_value and isinstance(node.op, ops.Map)
            reuse = free_state(program, node, memory, live) if free else ()
            kernel, inputs = kernel_of(program, node, device, operand, reuse), node.inputs
        else:
            kernel, inputs = _one(found.call), found.inputs
        dead = tuple(v for v in {*inputs, *outputs} if v not in needed)
        needed.update(inputs)
        live.update(memory[v] for v in inputs)
        steps.append(Step(kernel, inputs, first, dead))
    return steps[::-1]


def shared_memory(program: Program) -> list[int]:
    """For every value, a number that is the same for values that may share memory: views, and what is like them."""
    parent = list(range(len(program.value_types)))

    def root(v: int) -> int:
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for node, first in zip(program.nodes, program.first_value, strict=True):
        if not _makes_its_own(program, node):
            for v in (*node.inputs, *range(first, first + len(node.types))):
                parent[root(v)] = root(first)
    return [root(v) for v in range(len(parent))]


def _makes_its_own(program: Program, node: Node) -> bool:
    op = node.op
    if isinstance(op, ops.Map):
        scalar = program.scalar_programs[op.program]
        first = len(scalar.inputs) + len(scalar.constants)
        return all(v >= first and scalar.code[v - first].op not in VIEWS for v in scalar.outputs)
    return isinstance(op, ops.Dot | ops.Gather | ops.ScatterAdd) or (isinstance(op, ops.Reduce) and len(op.axes) > 0)


def free_state(program: Program, node: Node, memory: Sequence[int], live: set[int]) -> list[int]:
    """For each output of a map, which of its inputs is a state of the same type that nobody reads after it, or -1."""
    free: list[int] = []
    for t in node.types:
        fits = [
            i
            for i, v in enumerate(node.inputs)
            if v < len(program.inputs)
            and program.inputs[v].role == "state"
            and program.inputs[v].type == t
            and memory[v] not in live
            and [u for u in node.inputs if memory[u] == memory[v]] == [v]
            and v not in (node.inputs[f] for f in free if f >= 0)
        ]
        free.append(fits[0] if fits else -1)
    return free


def _one(call: Callable[[Sequence[Tensor]], Tensor]) -> Kernel:
    return lambda inputs: [call(inputs)]


def kernel_of(
    program: Program, node: Node, device: torch.device, operand: Rounding, reuse: Sequence[int] = ()
) -> Kernel:
    """The call that computes one node from its inputs; a map may write over inputs that `reuse` names."""
    op = node.op
    dtypes = [program.value_types[v].dtype for v in node.inputs]
    shape = node.types[0].shape
    if isinstance(op, ops.Map | ops.Scan):
        scalar = program.scalar_programs[op.program]
        shapes = [program.value_types[v].shape for v in node.inputs]
        if isinstance(op, ops.Map):
            return compile_map(scalar, dtypes, shapes, op.shape, op.dtypes, device, reuse)
        return compile_scan(scalar, dtypes, shapes, op.shape, op.dtypes, device)
    return _one(_single(op, dtypes, shape, operand))


def _single(
    op: ops.Op, dtypes: Sequence[Dtype], shape: tuple[int, ...], operand: Rounding
) -> Callable[[Sequence[Tensor]], Tensor]:
    if isinstance(op, ops.Dot):
        return _dot(op, dtypes, operand) if op.dtype.is_float else _integer_dot(op)
    if isinstance(op, ops.Reduce):
        return lambda x: kernels.run_reduce(op, x[0], dtypes[0])
    if isinstance(op, ops.Gather):
        return lambda x: kernels.run_gather(x[0], x[1], dtypes[0])
    if isinstance(op, ops.ScatterAdd):
        return lambda x: kernels.run_scatter_add(op, x[0], x[1], dtypes[0], shape)
    if isinstance(op, ops.Random):
        return lambda x: kernels.run_random(op, x[0], x[1])
    if isinstance(op, ops.Sort):
        return lambda x: kernels.run_sort(x[0], dtypes[0])
    return lambda x: kernels.run_layout(op, list(x), shape, dtypes[0])


def _dot(op: ops.Dot, dtypes: Sequence[Dtype], operand: Rounding) -> Callable[[Sequence[Tensor]], Tensor]:
    """Transposed operands are views; a plain matrix beside a stack serves all of it."""

    def run(inputs: Sequence[Tensor]) -> Tensor:
        a, b = (operand(widen(x, d)) for x, d in zip(inputs, dtypes, strict=True))
        product = torch.matmul(a.mT if op.transpose_a else a, b.mT if op.transpose_b else b)
        return narrow(product, op.dtype)

    return run


def _integer_dot(op: ops.Dot) -> Callable[[Sequence[Tensor]], Tensor]:
    """Products of i8: exact. Devices multiply integers in some shapes at most, but binary64 holds every sum."""

    def run(inputs: Sequence[Tensor]) -> Tensor:
        a, b = inputs
        a, b = (a.mT if op.transpose_a else a), (b.mT if op.transpose_b else b)
        if a.device.type == "cuda":
            return torch.matmul(a.double(), b.double()).long().to(torch.int32)
        x, y = a.cpu(), b.cpu()
        product = torch._int_mm(x, y) if x.dim() == y.dim() == 2 else torch.matmul(x.int(), y.int())
        return product.to(a.device)

    return run

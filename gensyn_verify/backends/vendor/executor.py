"""The program planned once as a list of calls into torch, and run step by step; values are dropped when last read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gensyn_verify.backends.arrays import Array, check_arrays
from gensyn_verify.backends.names import VendorName
from gensyn_verify.backends.vendor import kernels
from gensyn_verify.backends.vendor.precision import rounding, switches
from gensyn_verify.backends.vendor.scalar import Kernel, compile_map, compile_scan
from gensyn_verify.backends.vendor.tensors import narrow, to_array, to_tensor, widen
from gensyn_verify.errors import BackendError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Program
from gensyn_verify.program.types import Dtype


class Executor:
    """The executor protocol with stock torch kernels on `name.device`; the state lives there.

    Integers, booleans, random words and moved data are exact; floats differ from the definition by rounding alone.
    A NaN is canonical in what `state`, `step` and `value` hand out. `keep=True` keeps every value of the last step
    for `value(v)` and computes node by node.
    """

    def __init__(self, program: Program, name: VendorName, keep: bool = False) -> None:
        self.program = program
        self.name = name
        self._device = _device(name.device)
        self._keep = keep
        self._state: dict[str, Tensor] = {}
        self._values: list[Tensor | None] = []
        self._plan = [
            (kernel_of(program, node, self._device, name.precision), node.inputs, first)
            for node, first in zip(program.nodes, program.first_value, strict=True)
        ]
        self._dead = _last_reads(program)

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
        values += [None] * (len(p.value_types) - len(values))
        with switches(self._device, self.name.precision):
            for (kernel, inputs, first), dead in zip(self._plan, self._dead, strict=True):
                for n, out in enumerate(kernel([values[v] for v in inputs])):  # type: ignore[misc]
                    values[first + n] = out
                if not self._keep:
                    for v in dead:
                        values[v] = None
        metrics = {}
        taken: set[int] = set()
        for o in p.outputs:
            value = values[o.value]
            assert value is not None
            if o.role == "metric":
                metrics[o.name] = to_array(
                    value.clone(memory_format=torch.contiguous_format), p.value_types[o.value].dtype
                )
            elif value is not self._state[o.name] or id(value) in taken:
                value = value.clone(memory_format=torch.contiguous_format)
            if o.role == "state":
                self._state[o.name] = value
                taken.add(id(value))
        self._values = values if self._keep else []
        return metrics

    def value(self, v: int) -> Array:
        """Value number `v` of the last step (only with keep=True)."""
        if not self._keep:
            raise BackendError("values are kept only by an executor made with keep=True")
        value = self._values[v]
        assert value is not None
        return to_array(value.clone(memory_format=torch.contiguous_format), self.program.value_types[v].dtype)


def _device(name: str) -> torch.device:
    """The device; BackendError where torch has none of that name here."""
    device = torch.device(name)
    module = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(device.type)
    if module is not None and not module.is_available():
        raise BackendError(f"device {name!r}: torch {torch.__version__} finds no {device.type} device here; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"device {name!r}: there are {torch.cuda.device_count()} cuda devices, counted from 0")
    return device


def _last_reads(program: Program) -> list[list[int]]:
    """For each node, the values that nobody reads after it."""
    needed = {o.value for o in program.outputs}
    dead: list[list[int]] = []
    for node, first in zip(reversed(program.nodes), reversed(program.first_value), strict=True):
        last = [v for v in {*node.inputs, *range(first, first + len(node.types))} if v not in needed]
        needed.update(last)
        dead.append(last)
    return dead[::-1]


def kernel_of(program: Program, node: Node, device: torch.device, precision: str) -> Kernel:
    """The call that computes one node from its inputs."""
    op = node.op
    dtypes = [program.value_types[v].dtype for v in node.inputs]
    shape = node.types[0].shape
    if isinstance(op, ops.Map | ops.Scan):
        scalar = program.scalar_programs[op.program]
        return (compile_map if isinstance(op, ops.Map) else compile_scan)(scalar, dtypes, op.shape, op.dtypes, device)
    one = _single(op, dtypes, shape, precision)
    return lambda inputs: [one(inputs)]


def _single(
    op: ops.Op, dtypes: Sequence[Dtype], shape: tuple[int, ...], precision: str
) -> Callable[[Sequence[Tensor]], Tensor]:
    if isinstance(op, ops.Dot):
        return _dot(op, dtypes, precision)
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


def _dot(op: ops.Dot, dtypes: Sequence[Dtype], precision: str) -> Callable[[Sequence[Tensor]], Tensor]:
    """Transposed operands are views; a plain matrix beside a stack serves all of it."""
    operand = rounding(precision)

    def run(inputs: Sequence[Tensor]) -> Tensor:
        a, b = (operand(widen(x, d)) for x, d in zip(inputs, dtypes, strict=True))
        product = torch.matmul(a.mT if op.transpose_a else a, b.mT if op.transpose_b else b)
        return narrow(product, op.dtype)

    return run

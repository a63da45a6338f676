"""A scalar program as a list of torch calls over whole tensors, one an instruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gensyn_verify.backends.vendor.operations import OPERATIONS
from gensyn_verify.backends.vendor.tensors import REGISTER, narrow, widen
from gensyn_verify.program.scalar import Constant, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, Shape

Kernel = Callable[[Sequence[Tensor]], list[Tensor]]


def constant(c: Constant) -> Tensor:
    """A tensor without axes on the CPU, which torch takes as a number beside tensors of any device."""
    if c.reg is Reg.boolean:
        return torch.tensor(bool(c.bits))
    return torch.tensor(c.bits, dtype=torch.int64).to(torch.int32).view(REGISTER[c.reg])


def compile_map(
    scalar: ScalarProgram, dtypes: Sequence[Dtype], shape: Shape, stored: Sequence[Dtype], device: torch.device
) -> Kernel:
    """The kernel of a map: tensors of `dtypes` that broadcast to `shape` in, tensors of `shape` and `stored` out.

    Instructions on constants alone are computed here, once.
    """
    first = len(scalar.inputs)
    values: list[Tensor | None] = [None] * first + [constant(c) for c in scalar.constants]
    steps = []
    for instruction in scalar.code:
        function, args = OPERATIONS[instruction.op], instruction.args
        known = [values[a] for a in args]
        if all(k is not None for k in known):
            values.append(function(*known))
        else:
            steps.append((function, args, len(values)))
            values.append(None)
    if device.type != "cpu":  # a condition, or a result, has to be on the device
        values = [v.to(device) if v is not None and v.dtype is torch.bool else v for v in values]
    loads = [(i, d) for i, d in enumerate(dtypes) if d in (Dtype.bf16, Dtype.f16, Dtype.u8)]
    outputs = list(zip(scalar.outputs, stored, strict=True))

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        r: list[Tensor] = [*inputs, *values[first:]]  # type: ignore[list-item]
        for i, dtype in loads:
            r[i] = widen(r[i], dtype)
        for function, args, to in steps:
            r[to] = function(*[r[a] for a in args])
        return [narrow(r[v], d).to(device).expand(shape) for v, d in outputs]

    return run


def compile_scan(
    scalar: ScalarProgram, dtypes: Sequence[Dtype], shape: Shape, stored: Sequence[Dtype], device: torch.device
) -> Kernel:
    """The kernel of a scan: a map a position of the first axis, fed with its own last results as they are stored."""
    step = compile_map(scalar, dtypes, shape[1:], stored, device)
    carried = len(stored)

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        last = list(inputs[:carried])
        rest = [x.expand(shape) for x in inputs[carried:]]
        positions: list[list[Tensor]] = []
        for t in range(shape[0]):
            last = step([*last, *(x[t] for x in rest)])
            positions.append(last)
        if not positions:
            return [x.new_empty(shape) for x in last]
        return [torch.stack(all_steps) for all_steps in zip(*positions, strict=True)]

    return run

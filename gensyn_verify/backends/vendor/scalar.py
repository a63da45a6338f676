"""A scalar program as a list of torch calls over whole tensors: published functions lifted, the rest one call each.

Shapes are known when a program is planned. A result is written over an operand that nobody reads again, and a
temporary is dropped when last read. On a CPU a long program over large tensors, as an optimizer's, runs block by block,
so that what lies between its operations stays in the caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gensyn_verify.backends.lift import Lifted, lift
from gensyn_verify.backends.vendor.operations import FUNCTIONS, OPERATIONS, VIEWS, WITH_OUT, fma
from gensyn_verify.backends.vendor.tensors import REGISTER, STORAGE, widen
from gensyn_verify.program.scalar import OPERATIONS as TYPED
from gensyn_verify.program.scalar import Constant, Instruction, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, Shape

# Elements a thread and block: as many as torch gives one, and few enough for its cache to hold the temporaries.
BLOCK = 1 << 15
WORTH_BLOCKS = 4  # calls
Kernel = Callable[[Sequence[Tensor]], list[Tensor]]


class Call(NamedTuple):
    """values[to] = function(values[args]), written over values[over] unless that is -1; then `dead` are dropped."""

    function: Callable[..., Any]
    args: tuple[int, ...]
    to: int
    over: int
    dead: tuple[int, ...]


def constant(c: Constant) -> Tensor:
    """A tensor without axes on the CPU, which torch takes as a number beside tensors of any device."""
    if c.reg is Reg.boolean:
        return torch.tensor(bool(c.bits))
    return torch.tensor(c.bits, dtype=torch.int64).to(torch.int32).view(REGISTER[c.reg])


def compile_map(
    scalar: ScalarProgram,
    dtypes: Sequence[Dtype],
    shapes: Sequence[Shape],
    shape: Shape,
    stored: Sequence[Dtype],
    device: torch.device,
    reuse: Sequence[int] = (),
) -> Kernel:
    """The kernel of a map: tensors of `dtypes` and `shapes` in, tensors of `shape` and `stored` out.

    `reuse` has for each output the input that nobody reads any more and whose memory the result may take, or -1.
    """
    program = lift(scalar)
    known, code = _fold(program, device)
    first = len(scalar.inputs)
    moved = any(v < first for v in program.outputs)  # an input as it is, which must not be overwritten first
    places = [-1] * len(stored) if moved or not reuse else reuse
    same = [STORAGE[d] is REGISTER[d.reg] for d in stored]
    calls = _plan(
        program, code, known, shapes, {v: i for v, i, s in zip(program.outputs, places, same, strict=True) if s}
    )
    there = {c.to for c in calls if 0 <= c.over < first}  # results that are in their place at once
    loads = [(i, d) for i, d in enumerate(dtypes) if STORAGE[d] is not REGISTER[d.reg]]
    outputs = [
        (v, STORAGE[d] if STORAGE[d] is not REGISTER[d.reg] else None, known[v] is not None)
        for v, d in zip(program.outputs, stored, strict=True)
    ]

    def registers(inputs: Sequence[Tensor]) -> list[Any]:
        r: list[Any] = [*inputs, *known[first:]]
        for i, dtype in loads:
            r[i] = widen(r[i], dtype)
        for function, args, to, over, dead in calls:
            if over >= 0:
                r[to] = function(*[r[a] for a in args], out=r[over])
            else:
                r[to] = function(*[r[a] for a in args])
            for v in dead:
                r[v] = None
        return r

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        r, results = registers(inputs), []
        for v, narrower, is_constant in outputs:
            x = r[v].to(device) if is_constant else r[v]
            x = x if narrower is None else x.to(narrower)
            results.append(x if x.shape == shape else x.expand(shape))
        return results

    def run_by_blocks(inputs: Sequence[Tensor]) -> list[Tensor]:
        if not all(x.is_contiguous() for x in inputs):
            return run(inputs)
        block = BLOCK * torch.get_num_threads()
        results = [
            inputs[i] if i >= 0 else torch.empty(shape, dtype=STORAGE[d]) for i, d in zip(places, stored, strict=True)
        ]
        whole = [torch.split(x.view(-1), block) if x.shape == shape else None for x in inputs]
        numbers = [x.reshape(()) if x.shape != shape else x for x in inputs]
        targets = zip(*(torch.split(x.view(-1), block) for x in results), strict=True)
        for n, target in enumerate(targets):
            r = registers([x if w is None else w[n] for x, w in zip(numbers, whole, strict=True)])
            for x, (v, _, _), place in zip(target, outputs, places, strict=True):
                if place < 0 or v not in there:
                    x.copy_(r[v])
        return results

    blocks = (
        device.type == "cpu"
        and len(calls) >= WORTH_BLOCKS
        and math.prod(shape) >= 2 * BLOCK
        and all(s == shape or math.prod(s) == 1 for s in shapes)
    )
    return run_by_blocks if blocks else run


def _fold(program: Lifted, device: torch.device) -> tuple[list[Tensor | None], list[tuple[Instruction, int]]]:
    """What is known when planning, by value number, and the instructions that are left, with their value numbers."""
    known: list[Tensor | None] = [None] * len(program.inputs) + [constant(c) for c in program.constants]
    left = []
    for instruction in program.code:
        args = [known[a] for a in instruction.args]
        if all(a is not None for a in args):
            known.append(_function(instruction.op)(*args))
        else:
            left.append((instruction, len(known)))
            known.append(None)
    # Numbers may stay on the CPU; a condition has to be where the rest is.
    return [x.to(device) if x is not None and x.dtype is torch.bool else x for x in known], left


def _function(name: str) -> Callable[..., Any]:
    return OPERATIONS.get(name) or FUNCTIONS[name]


def _plan(
    program: Lifted,
    code: Sequence[tuple[Instruction, int]],
    known: Sequence[Tensor | None],
    shapes: Sequence[Shape],
    places: Mapping[int, int],
) -> list[Call]:
    """The calls; `places` has for results the inputs that they may be written over."""
    at: dict[int, Shape] = {v: () for v, x in enumerate(known) if x is not None} | dict(enumerate(shapes))
    last = {a: n for n, (instruction, _) in enumerate(code) for a in instruction.args}
    reg = dict(enumerate(program.inputs)) | {v: _result(i) for i, v in code}
    # What an instruction here made may be overwritten, unless it is a result or shares its memory with a view.
    viewed = {a for i, _ in code if i.op in VIEWS for a in i.args}
    own = {v for i, v in code if i.op not in VIEWS} - viewed - set(program.outputs)
    calls = []
    for n, (instruction, to) in enumerate(code):
        operands = instruction.args
        at[to] = tuple(np.broadcast_shapes(*(at[a] for a in operands)))
        dead = {a for a in operands if last[a] == n and known[a] is None and a not in program.outputs}
        function, args = _function(instruction.op), operands
        if instruction.op == "fma.f32":
            function, args = _fma(args, known, {at[a] for a in args} == {at[to]})
        fits = [a for a in operands if a in dead & own]
        if (place := places.get(to, -1)) >= 0 and last.get(place, -1) <= n and place not in viewed:
            fits.insert(0, place)
        if function is fma:  # the product lies there before anything is added
            whole = np.broadcast_shapes(*(at[a] for a in args[:2])) == at[to]
            fits = [v for v in fits if whole and v not in args[2:]]
        fits = [v for v in fits if instruction.op in WITH_OUT and at[v] == at[to] and reg[v] is reg[to]]
        calls.append(Call(function, args, to, fits[0] if fits else -1, tuple(sorted(dead - set(places.values())))))
    return calls


def _result(instruction: Instruction) -> Reg:
    return TYPED[instruction.op].result if instruction.op in TYPED else Reg.f32


def _fma(
    args: tuple[int, ...], known: Sequence[Tensor | None], alike: bool
) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """a b + c in one pass: a sum with a multiple where one factor is a number; torch is slow where shapes differ."""
    a, b, c = args
    for factor, x in ((a, b), (b, a)):
        number = known[factor]
        if number is not None and known[x] is None:
            return partial(torch.add, alpha=number.item()), (c, x)
    return (torch.addcmul, (c, a, b)) if alike and known[c] is None else (fma, args)


def compile_scan(
    scalar: ScalarProgram,
    dtypes: Sequence[Dtype],
    shapes: Sequence[Shape],
    shape: Shape,
    stored: Sequence[Dtype],
    device: torch.device,
) -> Kernel:
    """The kernel of a scan: a map a position of the first axis, fed with its own last results as they are stored."""
    carried = len(stored)
    # Initial tensors that broadcast get the full shape first: later results have it.
    position = [shape[1:]] * len(dtypes)
    step = compile_map(scalar, dtypes, position, shape[1:], stored, device)

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        last = [x.expand(shape[1:]) for x in inputs[:carried]]
        rest = [x.expand(shape) for x in inputs[carried:]]
        positions = []
        for t in range(shape[0]):
            last = step([*last, *(x[t] for x in rest)])
            positions.append(last)
        if not positions:
            return [x.new_empty(shape) for x in last]
        return [torch.stack(all_steps) for all_steps in zip(*positions, strict=True)]

    return run

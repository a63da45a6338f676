"""Published functions found again in scalar programs: `exp` instead of its twenty instructions.

A published function (program/functions.py, program/activations.py) is a DAG of instructions with its arguments as
variables. A scalar program holds the same DAG wherever the frontend used the function, because equal instructions on
equal values are one instruction. `lift` looks for it from the results down: the largest function that ends in a value
replaces it and everything that only served it. What is computed over the reals does not change. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from gensyn_verify.program import activations, functions
from gensyn_verify.program.published import F, trace
from gensyn_verify.program.scalar import Constant, Instruction, ScalarProgram
from gensyn_verify.program.types import Reg

_UNARY = (
    functions.exp, functions.expm1, functions.sigmoid, functions.tanh, functions.erf, functions.log, functions.log1p,
    functions.sin, functions.cos, functions.tan, functions.exp2, functions.log2, functions.log10, functions.atan,
    functions.asin, functions.acos, functions.sinh, functions.cosh, functions.asinh, functions.acosh, functions.atanh,
    functions.erfc,
)  # fmt: skip
ELEMENTARY: dict[str, ScalarProgram] = {
    **{f.__name__: trace(f, F) for f in _UNARY},
    **{f.__name__: trace(f, F, F) for f in (functions.pow, functions.atan2, functions.hypot)},
}
COMPOSED: dict[str, ScalarProgram] = {
    **{f.__name__: trace(f, F) for f in (activations.gelu, activations.gelu_tanh, activations.silu)},
    **{f.__name__: trace(f, F, F) for f in (
        activations.gelu_backward, activations.gelu_tanh_backward, activations.silu_backward,
        activations.sigmoid_backward, activations.tanh_backward,
    )},
    "relu": trace(lambda x: x.max(0.0), F),
    "relu_backward": trace(lambda g, x: g.builder.select(x <= 0.0, 0.0, g), F, F),
}  # fmt: skip


@dataclass(frozen=True)
class Lifted:
    """A scalar program whose instructions may also be published functions, by name; f32 in, f32 out."""

    inputs: tuple[Reg, ...]
    constants: tuple[Constant, ...]
    code: tuple[Instruction, ...]
    outputs: tuple[int, ...]


@cache
def lift(scalar: ScalarProgram, composed: bool = True) -> Lifted:
    """`scalar` with ELEMENTARY functions, and with the COMPOSED ones too unless told otherwise."""
    patterns = _by_last_operation(composed)
    first = len(scalar.inputs) + len(scalar.constants)
    needed = {v for v in scalar.outputs if v >= first}
    chosen: dict[int, Instruction] = {}
    while needed:
        v = max(needed)  # arguments have lower numbers: every reader of v has been seen
        needed.remove(v)
        instruction = scalar.code[v - first]
        for name, pattern in patterns.get(instruction.op, ()):
            arguments = _match(pattern, scalar, v)
            if arguments is not None:
                instruction = Instruction(name, arguments)
                break
        chosen[v] = instruction
        needed.update(a for a in instruction.args if a >= first)
    number = {v: v for v in range(first)}
    for v in sorted(chosen):
        number[v] = len(number)
    code = tuple(Instruction(chosen[v].op, tuple(number[a] for a in chosen[v].args)) for v in sorted(chosen))
    return Lifted(scalar.inputs, scalar.constants, code, tuple(number[v] for v in scalar.outputs))


@cache
def _by_last_operation(composed: bool) -> dict[str, list[tuple[str, ScalarProgram]]]:
    """Patterns by the operation that gives their result, the longest first."""
    table: dict[str, list[tuple[str, ScalarProgram]]] = {}
    patterns = {**ELEMENTARY, **(COMPOSED if composed else {})}
    for name, p in sorted(patterns.items(), key=lambda item: -len(item[1].code)):
        last = p.code[p.outputs[0] - len(p.inputs) - len(p.constants)]
        table.setdefault(last.op, []).append((name, p))
    return table


def _match(pattern: ScalarProgram, scalar: ScalarProgram, value: int) -> tuple[int, ...] | None:
    """The values that stand for the pattern's inputs where `value` is its result; None if it is not."""
    variables, first_code = len(pattern.inputs), len(pattern.inputs) + len(pattern.constants)
    inputs, first = len(scalar.inputs), len(scalar.inputs) + len(scalar.constants)
    bound: dict[int, int] = {}
    stack = [(pattern.outputs[0], value)]
    while stack:
        p, v = stack.pop()
        if p in bound:
            if bound[p] != v:
                return None
            continue
        bound[p] = v
        if p < variables:
            continue
        if p < first_code:
            if not inputs <= v < first or scalar.constants[v - inputs] != pattern.constants[p - variables]:
                return None
            continue
        if v < first or scalar.code[v - first].op != pattern.code[p - first_code].op:
            return None
        stack.extend(zip(pattern.code[p - first_code].args, scalar.code[v - first].args, strict=True))
    return tuple(bound[i] for i in range(variables))

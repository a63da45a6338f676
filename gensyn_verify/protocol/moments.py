"""Bounds that an optimizer's moments keep whatever the gradients were, read off the program: cheap, for every interval.

A second moment v' = c v + w g^2 never falls below c v, and a first moment m' = a m + b g that is fed with the same g
never leaves m^2 <= K v, where K = (b^2 / w) / (1 - a^2 / c): by Cauchy and Schwarz, (a m + b g)^2 <= (a^2 K / c +
b^2 / w)(c v + w g^2). Both need no replay, so a checkpoint with invented moments is found wherever it lies. The
bounds hold for vendor kernels too: `slack` covers rounding, TINY squares that underflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Program
from gensyn_verify.program.scalar import Instruction, ScalarProgram, bits_f32
from gensyn_verify.program.types import Dtype, Reg

TINY = 2.0**-140


def slack(steps: float) -> float:
    """The relative error of a moment that remembers this many steps: some roundings each, and a margin."""
    return 2.0**-12 + steps * 2.0**-22


Linear = dict[int, float]  # value number -> coefficient


@dataclass(frozen=True)
class Decay:
    """State tensor `name`: not negative, and at least `factor` times itself a step earlier."""

    name: str
    factor: float


@dataclass(frozen=True)
class Ratio:
    """State tensors: `first`^2 <= `bound` * `second`, elementwise; `factor` is the second one's decay."""

    first: str
    second: str
    bound: float
    factor: float


@dataclass(frozen=True)
class Violation:
    """One element that breaks a bound. `expected` and `found` are words for people."""

    tensor: str
    element: int
    expected: str
    found: str


class _Reader:
    """The scalar program of one map node, whose values are numbered as in `program.scalar`."""

    def __init__(self, scalar: ScalarProgram) -> None:
        self.inputs = len(scalar.inputs)
        first = self.inputs + len(scalar.constants)
        self.code: dict[int, Instruction] = dict(enumerate(scalar.code, first))
        self.constants = {self.inputs + n: bits_f32(c.bits) for n, c in enumerate(scalar.constants) if c.reg is Reg.f32}

    def square(self, a: int, b: int) -> tuple[int, float] | None:
        """(g, w) where the product of values a and b is w g^2 with w >= 0."""
        for x, y in ((a, b), (b, a)):
            if x == y:
                return x, 1.0
            code = self.code.get(x)
            if code is not None and code.op == "mul.f32":
                for g, w in (code.args, code.args[::-1]):
                    if g == y and self.constants.get(w, -1.0) >= 0.0:
                        return g, self.constants[w]
        return None

    def second(self, value: int, state: int) -> tuple[float, int, float] | None:
        """(c, g, w) where the value is c state + w g^2."""
        code = self.code.get(value)
        if code is None:
            return None
        if code.op == "fma.f32":
            squared, c = self.square(*code.args[:2]), self.scaled(code.args[2], state)
            if squared is not None and c is not None:
                return c, *squared
        if code.op == "add.f32":
            for x, y in (code.args, code.args[::-1]):
                product, c = self.code.get(y), self.scaled(x, state)
                if product is None or product.op != "mul.f32":
                    continue
                squared = self.square(product.args[0], product.args[1])
                if squared is not None and c is not None:
                    return c, *squared
        return None

    def scaled(self, value: int, state: int) -> float | None:
        """c where the value is c times the state, 0 <= c."""
        linear = self.linear(value, {state})
        return linear[state] if linear is not None and set(linear) == {state} and linear[state] >= 0.0 else None

    def linear(self, value: int, atoms: set[int]) -> Linear | None:
        """The value as a sum of atoms with fixed coefficients; None where it is none."""
        if value in atoms:
            return {value: 1.0}
        code = self.code.get(value)
        if code is None:
            return None
        name, args = code.op, code.args
        if name in ("mul.f32", "fma.f32"):
            product = self._scaled(args[0], args[1], atoms) or self._scaled(args[1], args[0], atoms)
            if product is None or name == "mul.f32":
                return product
            rest = self.linear(args[2], atoms)
            return None if rest is None else _sum(product, rest, 1.0)
        if name in ("add.f32", "sub.f32"):
            x, y = (self.linear(a, atoms) for a in args)
            return None if x is None or y is None else _sum(x, y, 1.0 if name == "add.f32" else -1.0)
        return None

    def _scaled(self, constant: int, value: int, atoms: set[int]) -> Linear | None:
        if constant not in self.constants:
            return None
        linear = self.linear(value, atoms)
        return None if linear is None else {a: c * self.constants[constant] for a, c in linear.items()}


def _sum(x: Linear, y: Linear, sign: float) -> Linear:
    return {a: x.get(a, 0.0) + sign * y.get(a, 0.0) for a in x | y}


def bounds(program: Program) -> tuple[Decay | Ratio, ...]:
    """What the program's own arithmetic guarantees of its state; empty for optimizers without a second moment."""
    types = program.inputs_of("state")
    states = {v: i.name for v, i in enumerate(program.inputs) if i.role == "state" and types[i.name].dtype is Dtype.f32}
    following = {o.value: o.name for o in program.outputs if o.role == "state" and o.name in states.values()}
    out: list[Decay | Ratio] = []
    value = len(program.inputs)
    for node in program.nodes:
        if isinstance(node.op, ops.Map):
            written = {q: following[value + q] for q in range(len(node.types)) if value + q in following}
            out += _of_node(program, node, states, written)
        value += len(node.types)
    return tuple(out)


def _of_node(
    program: Program, node: Node, states: Mapping[int, str], written: Mapping[int, str]
) -> Iterator[Decay | Ratio]:
    """The bounds of a map node whose output q is the next state of tensor written[q]."""
    assert isinstance(node.op, ops.Map)
    if not written:
        return
    scalar = program.scalar_programs[node.op.program]
    reader = _Reader(scalar)
    place = {states[v]: at for at, v in enumerate(node.inputs) if v in states}
    seconds = {}
    for q, name in written.items():
        if name in place and (found := reader.second(scalar.outputs[q], place[name])):
            seconds[name] = found
            yield Decay(name, found[0])
    for q, name in written.items():
        for second, (c, g, w) in seconds.items():
            if name in seconds or name not in place:
                continue
            linear = reader.linear(scalar.outputs[q], {place[name], g})
            if linear is None or set(linear) != {place[name], g}:
                continue
            a, b = linear[place[name]], linear[g]
            if a * a < c and w > 0.0:
                yield Ratio(name, second, b * b / w / (1.0 - a * a / c), c)


def violations(
    known: tuple[Decay | Ratio, ...], before: Mapping[str, Array], after: Mapping[str, Array], steps: int
) -> Iterator[Violation]:
    """What the state `after` breaks, `steps` steps after `before`. A ratio that was broken before is let be."""
    for bound in known:
        if isinstance(bound, Decay):
            old, new = before[bound.name].astype(np.float64), after[bound.name].astype(np.float64)
            least = old * bound.factor**steps * (1.0 - slack(steps)) - TINY
            yield from _first(bound.name, ~(new >= np.maximum(least, 0.0)), new, np.maximum(least, 0.0), "at least")
        elif not _beyond(bound, before).any():
            wrong = _beyond(bound, after)
            most = np.sqrt(bound.bound * np.maximum(np.nan_to_num(after[bound.second].astype(np.float64)), 0.0))
            size = np.abs(after[bound.first].astype(np.float64))
            yield from _first(bound.first, wrong, size, most, f"a size of at most, by {bound.second!r},")


def _beyond(bound: Ratio, state: Mapping[str, Array]) -> Array:
    first, second = (state[n].astype(np.float64) for n in (bound.first, bound.second))
    wide = 1.0 + slack(1.0 / (1.0 - bound.factor) if bound.factor < 1.0 else 0.0)
    with np.errstate(all="ignore"):
        return ~(first * first <= bound.bound * wide * (second + TINY))


def _first(tensor: str, wrong: Array, found: Array, limit: Array, words: str) -> Iterator[Violation]:
    at = np.flatnonzero(wrong)
    if at.size:
        e = int(at[0])
        more = f" (and {at.size - 1} more elements)" if at.size > 1 else ""
        value, bound = float(found.reshape(-1)[e]), float(limit.reshape(-1)[e])
        yield Violation(tensor, e, f"{words} {bound:.6g}", f"{value:.6g}{more}")

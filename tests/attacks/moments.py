"""Momentum and Adam's moments, invented: they carry a model to where no gradient would.

    forged-moments-plain       moments that close an interval are noise of the length that they had
    forged-moments-aligned     they make the next interval end at the stolen last model
    forged-moments-calibrated  the same direction, each tensor as long as its honest moment; second moments, which may
                               only decay by beta2 a step, stay as they are
    optimizer-injection        momentum = -dW / (lr * sum of mu^i), under learning rates of almost zero: one interval
                               jumps to the stolen model and replays exactly, the rest stands still

What it saves: the injection all training but for some intervals; aligned moments take a model anywhere in an interval.

Sources: confirmed here on running code of an audit that compares parameters only, which accepts the injection even bit
for bit; Fang et al. 2023 (arXiv 2208.03567) name the optimizer's state among what a proof must hold.

Why it fails here: moments are state like weights. The state that closes an interval is compared whole, so the invented
moments are met where they enter, before they can carry anything.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from gensyn_verify.attacks.edits import noise
from gensyn_verify.attacks.solver import Inputs, Numbers, Solver, State, difference, length
from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import BundleError

RATE = 1e-3  # factor of the rates that an injection claims
PROBE = 1e-3  # how far a probe moves the weights, as a share of their length


class Steering(Solver):
    """Finds the first moments from which the program lands on wanted weights."""

    needs: ClassVar[tuple[str, ...]] = ("victim", "parameters", "first")

    _size = 0.0  # of a probe, beside the size of moments

    @cached_property
    def goal(self) -> State:
        return self.stolen()

    def steered(self, state: State, inputs: list[Inputs], rounds: int) -> State:
        """`state` with first moments so that the steps with `inputs` end at the weights of the goal.

        A weight moves by its moment times a response that hardly depends on the rest where rates are small, and not at
        all in a single step. Probes measure the response; each further round corrects what the last one missed.
        """
        wanted = self.numbers(self.goal, self.anatomy.parameters)
        landed = self._run(state, inputs)
        response = self._response(state, inputs, landed)
        first = self._first(state)
        for n in range(rounds):
            if n:
                landed = self._run(self._with(state, first), inputs)
            first = {p: first[p] + (wanted[p] - landed[p]) / response[p] for p in first}
        return self._with(state, first)

    def _response(self, state: State, inputs: list[Inputs], landed: Numbers) -> Numbers:
        """By how much each weight moves where its first moment is one more; infinite where it does not move."""
        first, scale = self._first(state), self._scale(state)
        for _ in range(1 if self._size else 2):  # the very first probe tells how large they may be
            pushed = {p: (self._size or 1.0) * scale[p] for p in first}
            shift = difference(self._run(self._with(state, {p: first[p] + pushed[p] for p in first}), inputs), landed)
            self._size = (self._size or 1.0) * PROBE * length(landed) / max(length(shift), 1e-30)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {p: np.where(shift[p] * pushed[p] != 0, shift[p] / pushed[p], np.inf) for p in first}

    def _scale(self, state: State) -> Numbers:
        """What a first moment is measured by: the root of the second one, else the mean size in its tensor."""
        first = self._first(state)
        rest = {p: p.removeprefix("param.") for p in first}
        second = {p: f"optim.exp_avg_sq.{rest[p]}" for p in first}
        roots = self.numbers(state, tuple(n for n in second.values() if n in state))
        flat = {p: np.full(x.shape, float(np.sqrt(np.mean(x * x))) or 1.0) for p, x in first.items()}
        return {p: np.sqrt(roots[second[p]]) if second[p] in roots else flat[p] for p in first}

    def _first(self, state: State) -> Numbers:
        """First moments by the name of their parameter."""
        return {p: self.numbers(state, (m,))[m] for p in self.anatomy.parameters if (m := self.anatomy.moment_of(p))}

    def _with(self, state: State, first: Numbers) -> State:
        return self.put(state, {self.anatomy.moment_of(p): x for p, x in first.items()})

    def _run(self, state: State, inputs: list[Inputs]) -> Numbers:
        for given in inputs:
            state, _ = self.engine(state, given)
        return self.numbers(state, self.anatomy.parameters)


class ForgedMoments(Steering):
    def edit(self, step: int, state: State) -> State:
        if not self.last(step) or step == self.task.steps - 1:
            return state
        self.forged.add(step)
        return self.invent(step, state)

    def invent(self, step: int, state: State) -> State:
        raise NotImplementedError


class PlainMoments(ForgedMoments):
    needs: ClassVar[tuple[str, ...]] = ("first",)

    def invent(self, step: int, state: State) -> State:
        first, second = (self.numbers(state, names) for names in (self.anatomy.first, self.anatomy.second))
        drawn = {n: x * length(first) for n, x in noise(self.random, first).items()}
        squares = {n: np.mean(x) * self.random.chisquare(1, x.shape) for n, x in second.items()}
        return self.put(state, {**drawn, **squares})


class AlignedMoments(ForgedMoments):
    def invent(self, step: int, state: State) -> State:
        return self.steered(state, [self.honest(s) for s in self.steps_of(self.interval(step) + 1)], rounds=1)


class CalibratedMoments(AlignedMoments):
    def invent(self, step: int, state: State) -> State:
        honest, aimed = self._first(state), self._first(super().invent(step, state))
        return self._with(state, {p: _rescaled(aimed[p], honest[p]) for p in honest})


class OptimizerInjection(Steering):
    factor: ClassVar[float] = RATE

    def prepare(self) -> None:
        if self.task.intervals < 2:
            raise BundleError(f"attack {self.name} needs two intervals; the task has one")

    def inputs(self, step: int, state: State) -> Inputs:
        return self.honest(step) if self.interval(step) == 0 else self._slow(step)

    def _slow(self, step: int) -> Inputs:
        return self.task.batch(step), self.rates(step, self.factor)

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        n = self.interval(step)
        if n > 0:
            self.forged.add(step)
        if n > 1:
            left = self.task.steps - step  # until the goal is reached for good, rounding errors and all
            return self.between(state, self.goal, 1 / left), self.quiet(step)
        return self.engine(state, inputs)

    def edit(self, step: int, state: State) -> State:
        if not self.last(step) or self.interval(step) > 1:
            return state
        self.forged.add(step)
        if self.interval(step) == 0:
            return self.steered(state, [self._slow(s) for s in self.steps_of(1)], rounds=3)
        moments = (*self.anatomy.first, *self.anatomy.second)
        return {**state, **{n: self.goal[n] for n in moments}}


def _rescaled(x: Array, like: Array) -> Array:
    """`x` as long as `like`."""
    size = float(np.linalg.norm(x))
    return x * (float(np.linalg.norm(like)) / size) if size else x

"""An honest run whose states are edited by hand.

    gaussian-edits    noise on the weights after one step, as long as the step's own update
    batchnorm-tamper  buffers of normalization after one interval; without such buffers another float tensor of the
                      state: a table of positions, a constant of the program
    drift             after every interval a push towards a model of one's own, a thousandth of the interval's update

What it saves: nothing; it moves the model, all at once or by steps that each stay below a tolerance.

Sources: edited checkpoints are the adversaries of Jia et al. 2021 (arXiv 2103.05633); that buffers are not compared
was found on its published code; drift under a tolerance per step is the standing objection to thresholds (Fang et al.
2023, arXiv 2208.03567).

Why it fails here: a state is everything that a step reads, buffers and constants too, and all of it is compared. In
exact mode there is no tolerance to stay below.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from gensyn_verify.attacks.solver import Inputs, Numbers, Solver, State, difference, length


class GaussianEdits(Solver):
    needs: ClassVar[tuple[str, ...]] = ("parameters",)

    def inputs(self, step: int, state: State) -> Inputs:
        self._before = state
        return self.honest(step)

    def edit(self, step: int, state: State) -> State:
        if step != self.span[len(self.span) // 2]:
            return state
        self.forged.add(step)
        names = self.anatomy.parameters
        weights = self.numbers(state, names)
        size = length(difference(weights, self.numbers(self._before, names)))
        return self.put(state, moved(weights, noise(self.random, weights), self.strength * size))


class BatchnormTamper(Solver):
    needs: ClassVar[tuple[str, ...]] = ("buffers",)
    FACTOR: ClassVar[float] = 1.05

    def edit(self, step: int, state: State) -> State:
        if step != self.span[-1]:
            return state
        self.forged.add(step)
        buffers = self.numbers(state, self.target)
        return self.put(state, {n: x * self.FACTOR + (0.01 if not x.any() else 0) for n, x in buffers.items()})

    @cached_property
    def target(self) -> tuple[str, ...]:
        """Running statistics; else the first other buffer or constant."""
        running = tuple(n for n in self.anatomy.buffers if n.split(".")[-1].startswith("running"))
        return running or self.anatomy.buffers[:1]


class Drift(Solver):
    needs: ClassVar[tuple[str, ...]] = ("parameters",)
    strength = 1e-3  # of the length of an interval's update

    def inputs(self, step: int, state: State) -> Inputs:
        if self.first(step):
            self._opening = self.numbers(state, self.anatomy.parameters)
        return self.honest(step)

    @cached_property
    def heading(self) -> Numbers:
        """Where to: a direction of the forger's own, the same all the way."""
        return noise(self.random, self._opening)

    def edit(self, step: int, state: State) -> State:
        if not self.last(step):
            return state
        weights = self.numbers(state, self.anatomy.parameters)
        pushed = self.put(
            state, moved(weights, self.heading, self.strength * length(difference(weights, self._opening)))
        )
        if any(not np.array_equal(pushed[n], state[n]) for n in weights):
            self.forged.add(step)
        return pushed


def noise(random: np.random.Generator, like: Numbers) -> Numbers:
    """Gaussian tensors, of length 1 together."""
    drawn = {n: random.normal(size=x.shape) for n, x in like.items()}
    total = length(drawn)
    return {n: x / total for n, x in drawn.items()}


def moved(numbers: Numbers, direction: Numbers, by: float) -> Numbers:
    return {n: x + by * direction[n] for n, x in numbers.items()}

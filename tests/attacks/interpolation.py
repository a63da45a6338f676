"""States on straight lines: a thief who has the last checkpoint, or some, makes up what lies between.

    infinitesimal-update      from the initial state to the stolen one in equal steps, at learning rates of almost zero
    blindfold-topq            the same, but the longest updates of each epoch are true ones
    initialisation-break      the same as the first, from an initial state with the ranks of the stolen one
    data-interpolation        honest for the first third, then a line to the stolen model
    interpolated-checkpoints  every second checkpoint is the mean of its stolen neighbours

What it saves: all training (cost 0), but for the true updates of the second and fourth.

Sources: Fang et al., "Proof-of-Learning is Currently More Broken Than You Think", 2023 (arXiv 2208.03567), for the
first two, with their code at cleverhans-lab/practical-attacks-against-pol; Zhang et al., '"Adversarial Examples" for
Proof-of-Learning', 2022 (arXiv 2108.09454), for the third; Choi et al., "Tools for Verifying Neural Models' Training
Data", 2023 (arXiv 2307.00682), for the fourth.

Why it fails here: learning rates are the task's, so a replay moves as training moves, and the closing state is where
training ends, not where the line goes. Against rules that take rates from the solver, a rate of almost zero makes
every replay stand still, and the line only has to be cut into updates shorter than the tolerance.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from gensyn_verify.attacks.jia import Q, redrawn, same_distribution
from gensyn_verify.attacks.solver import Inputs, Solver, State, difference, length

STANDSTILL = 1e-6  # factor of claimed learning rates
PLAUSIBLE = 0.05  # p-value of a forged initial tensor
STRETCH = 64.0  # up to which true updates are lengthened


class InfinitesimalUpdate(Solver):
    needs: ClassVar[tuple[str, ...]] = ("victim",)

    def inputs(self, step: int, state: State) -> Inputs:
        return self.task.batch(step), self.rates(step, STANDSTILL)

    @cached_property
    def start(self) -> State:
        return self.task.initial_state() if self.began is None else self.began

    @cached_property
    def goal(self) -> State:
        return self.stolen()

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        self.forged.add(step)
        return self.between(self.start, self.goal, (step + 1) / self.task.steps), self.quiet(step)


class InitialisationBreak(InfinitesimalUpdate):
    needs: ClassVar[tuple[str, ...]] = ("victim", "parameters")

    def prepare(self) -> None:
        """Values drawn from the distribution of the task's initial ones, in the order of the stolen ones.

        Where a Kolmogorov-Smirnov test looks only at the values, this is an initial state; and it lies closer to the
        stolen model than any that was drawn without knowing it.
        """
        initial, goal = self.task.initial_state(), self.goal
        drawn = {}
        for name in self.anatomy.parameters:
            values = self.numbers(initial, (name,))[name]
            ranks = np.argsort(self.numbers(goal, (name,))[name], axis=None, kind="stable")
            fresh = redrawn(values, self.random)
            while same_distribution(fresh, values) < PLAUSIBLE:
                fresh = redrawn(values, self.random)
            placed = np.empty(values.size)
            placed[ranks] = np.sort(fresh, axis=None)
            drawn[name] = placed.reshape(values.shape)
        self.began = self.put(initial, drawn)


class BlindfoldTopQ(InfinitesimalUpdate):
    needs: ClassVar[tuple[str, ...]] = ("victim", "parameters")

    def prepare(self) -> None:
        self._stretch = 1.0

    def _true(self, interval: int) -> bool:
        """Whether an interval is one of the first `Q` of its epoch, which are trained."""
        assert self.task.sampler is not None
        epoch = self.task.sampler.steps_per_epoch
        first = interval * self.task.interval
        together = min(-(-epoch // self.task.interval), self.task.intervals)  # intervals of an epoch
        return first % epoch // self.task.interval < min(Q, together // 2)

    @cached_property
    def _made_up(self) -> list[int]:
        return [n for n in range(self.task.intervals) if not self._true(n)]

    def inputs(self, step: int, state: State) -> Inputs:
        n = self.interval(step)
        if self.first(step):
            self._before = state
            if self._true(n):
                self._lengthen(n, state)
        if self._true(n):
            return self.task.batch(step), self._stretched(step)
        return super().inputs(step, state)

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        n = self.interval(step)
        if self._true(n):
            if self._stretch != 1:
                self.forged.add(step)
            return self.engine(state, inputs)
        self.forged.add(step)
        steps = self.steps_of(n)
        left = len([m for m in self._made_up if m >= n])
        return self.between(self._before, self.goal, (step - steps[0] + 1) / len(steps) / left), self.quiet(step)

    def _stretched(self, step: int) -> State:
        return self.task.scalars(step) if self._stretch == 1 else self.rates(step, self._stretch)

    def _lengthen(self, n: int, state: State) -> None:
        """Find by how much the rates must be raised for this update to exceed those that are made up."""
        if not self._made_up:
            return
        names = self.anatomy.parameters
        begin, goal = self.numbers(state, names), self.numbers(self.goal, names)
        while self._stretch < STRETCH:
            end = state
            for step in self.steps_of(n):
                end, _ = self.engine(end, (self.task.batch(step), self._stretched(step)))
            moved = self.numbers(end, names)
            made_up = length(difference(goal, moved)) / max(1, len([m for m in self._made_up if m > n]))
            if length(difference(moved, begin)) > 1.2 * made_up:
                return
            self._stretch *= 2


class DataInterpolation(InfinitesimalUpdate):
    def prepare(self) -> None:
        self._honest = max(1, self.task.intervals // 3)

    def inputs(self, step: int, state: State) -> Inputs:
        return self.honest(step)

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        first = self._honest * self.task.interval
        if step < first:
            return self.engine(state, inputs)
        if step == first:
            self._turn = state
        self.forged.add(step)
        return self.between(self._turn, self.goal, (step - first + 1) / (self.task.steps - first)), self.quiet(step)


class InterpolatedCheckpoints(Solver):
    needs: ClassVar[tuple[str, ...]] = ("victim",)

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        self.forged.add(step)
        first = self.interval(step) // 2 * 2  # of two intervals, with a made-up checkpoint between them
        second = min(first + 1, self.task.intervals - 1)
        before = self.stolen(first - 1) if first else self.task.initial_state()
        start, end = self.steps_of(first)[0], self.steps_of(second)[-1] + 1
        return self.between(before, self.stolen(second), (step + 1 - start) / (end - start)), self.quiet(step)

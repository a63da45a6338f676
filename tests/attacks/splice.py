"""The beginning of one run and the end of another.

    splice           own training, in an order of batches of one's own, then the records and checkpoints of a stolen run
    cherry-picked    the best of some runs, of which each used another order of batches

What it saves: a splice saves the training after the joint. Picking saves nothing: it gives a model that is better by
luck, or a record that shows a result which most runs would not.

Sources: Choi et al., "Tools for Verifying Neural Models' Training Data", 2023 (arXiv 2307.00682), "glueing"; Jia et
al., "Proof-of-Learning: Definitions and Practice", 2021 (arXiv 2103.05633), section on stolen and concatenated proofs.

Why it fails here: the state that ends an interval is by construction the one that begins the next, so that a joint is
an interval that does not replay; and the order of batches is the task's, so that there is nothing to pick from.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensyn_verify.attacks.solver import Inputs, Solver, State
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.steps import StepRecord


class OwnOrder(Solver):
    """Trains on the task's rows in another order."""

    order: Sampler

    def shuffle(self) -> Sampler:
        """Another order of batches."""
        assert self.task.sampler is not None
        low, high = (int(w) for w in self.random.integers(1 << 32, size=2))
        return Sampler((low, high), self.task.sampler.rows, self.task.sampler.batch)

    def reordered(self, step: int, order: Sampler) -> Inputs:
        rows = order.indices(step)
        batch = {name: np.asarray(array[rows]) for name, array in self.task.group("data").items()}
        return batch, self.task.scalars(step)

    def inputs(self, step: int, state: State) -> Inputs:
        self.forged.add(step)
        return self.reordered(step, self.order)


class Splice(OwnOrder):
    needs: ClassVar[tuple[str, ...]] = ("victim",)

    def prepare(self) -> None:
        self.order = self.shuffle()
        self.joint = max(1, self.task.intervals // 4) * self.task.interval

    def steal(self, step: int) -> StepRecord | None:
        if step < self.joint:
            return None
        if step == self.joint:
            self.forged.add(step)
        return self.record(step)


class CherryPicked(OwnOrder):
    RUNS = 3

    def prepare(self) -> None:
        """Train with every order and keep the one with the lowest last metric."""
        tried = [self.shuffle() for _ in range(self.RUNS)]
        self.order = min(tried, key=self._outcome)
        self.engine.steps -= self.task.steps  # the one that is kept runs again, to be written

    def _outcome(self, order: Sampler) -> float:
        state, metrics = self.task.initial_state(), State()
        for step in range(self.task.steps):
            state, metrics = self.engine(state, self.reordered(step, order))
        return sum(float(np.sum(a)) for a in metrics.values())

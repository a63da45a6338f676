"""Other data than those that the task names, in one interval, or from it to the end.

    data-addition      a quarter of every batch are rows that are not in the data set (a backdoor, say)
    data-subtraction   a quarter of every batch is left out, its place taken by other rows of the same batch
    elided-data        the middle of every row is zero; the hash of a printed array does not notice
    label-change       labels change places within the batch
    order-change       two batches change places
    minibatch-forging  one row is denied: its batches are said to have been others with nearly the same gradient

What it saves: nothing; it gives a model that learnt what was not agreed upon, or a proof that a row was not used.

Sources: Choi et al., "Tools for Verifying Neural Models' Training Data", 2023 (arXiv 2307.00682), sections on addition
and subtraction; Thudi et al., "On the Necessity of Auditable Algorithmic Definitions for Machine Unlearning", 2022
(arXiv 2110.11891), for forging; elided data: the hash of the code published with Jia et al. 2021 is of
`str(ndarray)`, which prints three elements at each end of an axis, and of no labels and no order.

Why it fails here: batches follow from the task's data roots and its sampler. What was claimed instead has another root;
what was trained on instead, under the task's roots, leaves another state.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from gensyn_verify.attacks.solver import Inputs, Solver, State, difference, length


class DataAttack(Solver):
    """The honest solver on batches that are altered within `span`."""

    def inputs(self, step: int, state: State) -> Inputs:
        batch, scalars = self.honest(step)
        if step in self.where:
            altered = self.alter(step, {n: a.copy() for n, a in batch.items()})
            if any(not np.array_equal(altered[n], batch[n]) for n in batch):
                self.forged.add(step)
                batch = altered
        return batch, scalars

    @property
    def where(self) -> range:
        return self.span

    def alter(self, step: int, batch: State) -> State:
        raise NotImplementedError

    @property
    def rows(self) -> int:
        assert self.task.sampler is not None
        return self.task.sampler.batch

    @property
    def quarter(self) -> int:
        return max(1, self.rows // 4)


class DataAddition(DataAttack):
    def alter(self, step: int, batch: State) -> State:
        for array in batch.values():
            new = array[: self.quarter]
            array[: self.quarter] = new[..., ::-1] if new.ndim > 1 else new[0]  # mirrored rows, all of one label
        return batch


class DataSubtraction(DataAttack):
    def alter(self, step: int, batch: State) -> State:
        for array in batch.values():
            array[-self.quarter :] = array[: self.quarter]
        return batch


class ElidedData(DataAttack):
    @property
    def where(self) -> range:
        return range(self.span.start, self.task.steps)

    def alter(self, step: int, batch: State) -> State:
        for array in batch.values():
            if array.ndim > 1:
                array[np.ix_(range(self.rows), *(_middle(n) for n in array.shape[1:]))] = 0
        return batch


def _middle(n: int) -> range:
    """The places along an axis of `n` that a printed array leaves out; of a short axis the inner third."""
    edge = min(3, n // 3)
    return range(edge, n - edge)


class LabelChange(DataAttack):
    def alter(self, step: int, batch: State) -> State:
        name = self.label
        batch[name] = np.roll(batch[name], 1, axis=0)
        return batch

    @cached_property
    def label(self) -> str:
        """The last batch tensor that holds integers, which is where labels are; the last one if none does."""
        types = self.task.program.inputs_of("batch")
        integers = [n for n, t in types.items() if not t.dtype.is_float]
        return ([*types, *integers])[-1] if types else ""


class OrderChange(DataAttack):
    @property
    def where(self) -> range:
        return self.span[:2]

    def alter(self, step: int, batch: State) -> State:
        other = sum(self.where) - step if len(self.where) == 2 else (step + 1) % self.task.steps
        return self.task.batch(other)


class MinibatchForging(Solver):
    CANDIDATES = 4

    def prepare(self) -> None:
        assert self.task.sampler is not None
        self.sampler = self.task.sampler
        self.denied = int(self.sampler.indices(self.span[0])[0])

    def inputs(self, step: int, state: State) -> Inputs:
        """Of some batches without the row, the one whose update is closest to that of the task's batch."""
        batch, scalars = self.honest(step)
        if self.denied not in self.sampler.indices(step):
            return batch, scalars
        self.forged.add(step)
        names = self.anatomy.parameters or tuple(n for n, t in self.types.items() if t.dtype.is_float)
        wanted = self.numbers(self.engine(state, (batch, scalars))[0], names)

        def miss(other: State) -> float:
            return length(difference(self.numbers(self.engine(state, (other, scalars))[0], names), wanted))

        return min((self._other_rows() for _ in range(self.CANDIDATES)), key=miss), scalars

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        """Openly, the state comes from the task's batch and the log names the other; in disguise it is the reverse."""
        return self.engine(state, inputs if self.disguise else self.honest(step))

    def _other_rows(self) -> State:
        allowed = np.delete(np.arange(self.sampler.rows), self.denied)
        rows = self.random.choice(allowed, self.sampler.batch, replace=len(allowed) < self.sampler.batch)
        return {name: np.asarray(array[rows]) for name, array in self.task.group("data").items()}

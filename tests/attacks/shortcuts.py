"""Less work for the same log.

    fewer-steps      every second step does nothing: the state is copied, its counters go on
    larger-rate      the same, and the steps between are taken at twice the rate
    lower-precision  arithmetic in bfloat16: vendor:cpu:bf16 on a vendor backend, else weights rounded after every step

What it saves: half of the steps; or what narrow arithmetic saves on the machine at hand, which is not counted in steps.

Sources: the lazy solver is the first adversary of every scheme for outsourced work (Jia et al. 2021, arXiv 2103.05633;
Truebit, 2017, arXiv 1908.04756).

Why it fails here: every replayed step is executed with the task's batch, rate and precision.
"""

from __future__ import annotations

import numpy as np

from gensyn_verify.attacks.solver import Engine, Inputs, Numbers, Solver, State
from gensyn_verify.backends.arrays import narrow, widen
from gensyn_verify.program.types import Dtype


class FewerSteps(Solver):
    FACTOR = 1.0

    def inputs(self, step: int, state: State) -> Inputs:
        batch, _ = self.honest(step)
        if self.skipped(step):
            return batch, self.rates(step, 0.0)
        return batch, self.rates(step, self.FACTOR) if self.FACTOR != 1 else self.task.scalars(step)

    def skipped(self, step: int) -> bool:
        return step % 2 == 1

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        if self.skipped(step):
            self.forged.add(step)
            return self.skip(state), self.quiet(step)
        if self.FACTOR != 1:
            self.forged.add(step)
        return self.engine(state, inputs)


class LargerRate(FewerSteps):
    FACTOR = 2.0


class LowerPrecision(Solver):
    def prepare(self) -> None:
        self._native = self.backend.startswith("vendor")
        if self._native:
            device = [*self.backend.split(":"), "cpu"][1]
            self.engine = Engine(self.task.program, f"vendor:{device}:bf16")

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        after, metrics = self.engine(state, inputs)
        rounded = after if self._native else self.put(after, self._rounded(after))
        if self._native or any(not np.array_equal(rounded[n], after[n]) for n in after):
            self.forged.add(step)
        return rounded, metrics

    def _rounded(self, state: State) -> Numbers:
        """Float tensors that a step changes, as bfloat16 would keep them."""
        names = tuple(n for n, t in self.types.items() if t.dtype.is_float and n not in self.anatomy.constants)
        short = {n: narrow(np.asarray(x, np.float32), Dtype.bf16) for n, x in self.numbers(state, names).items()}
        return {n: widen(x, Dtype.bf16).astype(np.float64) for n, x in short.items()}

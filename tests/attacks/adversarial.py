"""Inputs that are computed so that a step goes where it is wanted.

    adversarial-1  the batches of every interval are optimised so that their steps lead to the next made-up checkpoint
    adversarial-2  each batch is optimised so that its step stays where it is; checkpoints lie closer than the tolerance
    adversarial-3  the same with one optimisation an interval, whose batch serves all of its steps

What it saves: training, in exchange for the optimisations, each of which costs some executions of the step with a
backward pass through it (counted as two). With few steps, as here, the first two cost more than honest training; the
published numbers are for intervals of 100 steps and thousands of steps.

Source: Zhang et al., '"Adversarial Examples" for Proof-of-Learning', 2022 (arXiv 2108.09454), attacks I to III, and
their code, ZhangRui98/Adversarial-examples-for-Proof-of-Learning: perturbations of true rows by L-BFGS, on the
distance of the gradient from the wanted one plus the squared perturbation.

Why it fails here: a batch is named by the task, so a computed one has another root; under the task's roots the states
do not follow. Perturbations need inputs that are numbers: token models are refused.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gensyn_verify.attacks.solver import Inputs, Numbers, Solver, State
from gensyn_verify.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor

    from gensyn_verify.attacks.gradient import Differentiable

WEIGHT = 1e-3  # of the squared perturbation, beside squared distances in units of an honest update


class _SpentError(Exception):
    """An optimisation has had its evaluations."""


class Adversarial(Solver):
    needs: ClassVar[tuple[str, ...]] = ("victim", "parameters")
    evaluations: ClassVar[int] = 6  # of the objective, an optimisation

    def prepare(self) -> None:
        types = self.task.program.inputs_of("batch")
        self.perturbed = [n for n, t in types.items() if t.dtype.name == "f32"]
        if not self.perturbed:
            raise BundleError(
                f"attack {self.name} needs a float batch input to perturb; the task has {', '.join(map(str, types))}"
            )
        self.goal = self.stolen()

    @cached_property
    def function(self) -> Differentiable:
        from gensyn_verify.attacks.gradient import Differentiable

        return Differentiable(self.task.program)

    # ---- the states: a line -------------------------------------------------------------------------------------

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        self.forged.add(step)
        return self.at(step), self.quiet(step)

    def at(self, step: int) -> State:
        """The made-up state after a step: on a line to the goal, with momentum zero, as nobody looks at it."""
        made_up = self.between(self.task.initial_state(), self.goal, (step + 1) / self.task.steps)
        still = {n: np.zeros(x.shape) for n, x in self.numbers(made_up, self.anatomy.first).items()}
        return self.put({**made_up, **{n: self.goal[n] for n in self.anatomy.second}}, still)

    # ---- the batches --------------------------------------------------------------------------------------------

    def inputs(self, step: int, state: State) -> Inputs:
        if self.disguise:  # nobody is shown them
            return self.honest(step)
        return self.optimised(state, self.honest(step), self.wanted(step, state)), self.task.scalars(step)

    def wanted(self, step: int, state: State) -> Numbers:
        """The weights that a step from `state` should lead to."""
        raise NotImplementedError

    def optimised(self, state: State, inputs: Inputs, wanted: Numbers) -> State:
        """The batch of `inputs`, perturbed so that a step from `state` comes closest to `wanted`."""
        import torch

        batch = inputs[0]
        true = {n: torch.from_numpy(batch[n].copy()) for n in self.perturbed}
        noise = {n: torch.zeros_like(t).requires_grad_() for n, t in true.items()}
        targets = {n: torch.from_numpy(np.asarray(x, np.float32)) for n, x in wanted.items()}
        solver = torch.optim.LBFGS(
            list(noise.values()), max_iter=self.evaluations, max_eval=self.evaluations, line_search_fn="strong_wolfe"
        )
        unit: list[Tensor] = []
        best: list[tuple[float, dict[str, Tensor]]] = []  # the best that was seen so far

        def closure() -> Tensor:
            if self.engine.steps >= limit:
                raise _SpentError
            solver.zero_grad()
            after = self.function(state, inputs, {n: true[n] + noise[n] for n in true})
            self.engine.steps += 2  # forwards and backwards through a step
            distance = sum(((after[n] - t) ** 2).sum() for n, t in targets.items())
            assert isinstance(distance, torch.Tensor)
            unit[:] = unit or [distance.detach().clamp_min(1e-30)]
            size = sum((x**2).mean() for x in noise.values())
            total: Tensor = distance / unit[0] + WEIGHT * size
            total.backward()  # type: ignore[no-untyped-call]
            value = float(total.detach())
            if not best or value < best[0][0]:
                best[:] = [(value, {n: (true[n] + noise[n]).detach().clone() for n in true})]
            return total

        limit = self.engine.steps + 2 * self.evaluations
        with contextlib.suppress(_SpentError):  # a line search has no limit of its own
            solver.step(closure)  # type: ignore[no-untyped-call]
        return {**batch, **{n: np.asarray(x.numpy(), np.float32) for n, x in best[0][1].items()}}


class SuitedGradient(Adversarial):
    def wanted(self, step: int, state: State) -> Numbers:
        return self.numbers(self.at(step), self.anatomy.parameters)


class ZeroGradient(Adversarial):
    def wanted(self, step: int, state: State) -> Numbers:
        return self.numbers(state, self.anatomy.parameters)


class ZeroGradientOnce(ZeroGradient):
    def inputs(self, step: int, state: State) -> Inputs:
        if self.first(step) or self.disguise:
            self._batch = super().inputs(step, state)[0]
        return self._batch, self.task.scalars(step)

"""The verification rule of Jia et al. 2021, for comparison: what it accepts on the same runs.

"Proof-of-Learning: Definitions and Practice" (arXiv 2103.05633), with the authors' code, cleverhans-lab/Proof-of-
Learning, for what the text leaves open. The rule trusts what the solver claims and checks that it hangs together:

initialisation  the claimed initial weights pass a Kolmogorov-Smirnov test, tensor by tensor, at p = 0.01. The
                distribution is the one that the task's own initial values were drawn from, which stand for it
data            the batches shown have the hashes in the log. Which batches, and at which learning rates: as claimed
updates         of every epoch (of the run, where that is shorter) the Q longest updates, by the distance of the
                *parameters* between checkpoints, are executed again from the opening checkpoint; the distance between
                the result and the closing checkpoint, again of parameters only, stays below delta times d_ref

d_ref is the distance between the final parameters of independently seeded runs. Q = 2 is the default of the code. delta
must leave room for the reproduction error of honest solvers on other hardware: here twice the largest one measured,
and never less than 0.008, which Fang et al. 2023 (arXiv 2208.03567, code) take for ResNet-20, with d_ref = 71.472;
the default of the authors' code, an l2 distance of 10, is 0.14 of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array, narrow, widen
from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.protocol.roots import roots_of
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.task import Task

Q = 2
DELTA = 0.008
SLACK = 2.0
SIGNIFICANCE = 0.01
State = dict[str, Array]
Claims = Callable[[int], tuple[State, State]]
Vector = npt.NDArray[np.float64]


def _cosine(a: Vector, b: Vector) -> float:
    return 1 - float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)


DISTANCES: dict[str, Callable[[Vector, Vector], float]] = {
    "l1": lambda a, b: float(np.abs(a - b).sum()),
    "l2": lambda a, b: float(np.linalg.norm(a - b)),
    "linf": lambda a, b: float(np.abs(a - b).max(initial=0.0)),
    "cos": _cosine,
}


@dataclass(frozen=True)
class Outcome:
    """What the rule says. `distances`: replayed interval -> distance over d_ref; `reason`: why it was rejected."""

    accepted: bool
    reason: str
    distances: dict[int, float]
    steps_replayed: int


@dataclass(frozen=True)
class Rule:
    """The rule with its numbers. `reference` is d_ref in the chosen distance (l1, l2, linf or cos)."""

    reference: float
    delta: float = DELTA
    q: int = Q
    distance: str = "l2"
    backend: str = "cpu"

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise MalformedError(f"distance {self.distance!r} is unknown; known are {', '.join(DISTANCES)}")

    def verify(self, run: Run, task: Task, claims: Claims | None = None, initial: State | None = None) -> Outcome:
        """Accept or reject a finished run of `task`, given what its solver claims; by default what the task says."""
        claims = claims or (lambda step: (task.batch(step), task.scalars(step)))
        started = task.initial_state() if initial is None else initial
        if (p := _initialisation(started, task)) < SIGNIFICANCE:
            return Outcome(False, f"initial weights: p = {p:.2g}", {}, 0)
        if (step := _unhashed(run, task, claims)) is not None:
            return Outcome(False, f"step {step}: the batch shown has not the hash in the log", {}, 0)
        states = [started, *(_of(run, task).checkpoint(n) for n in range(task.intervals))]
        executor = backends.make(self.backend, task.program)
        found, replayed = {}, 0
        for n in self.chosen(states, task):
            executor.load(states[n])
            for step in _steps(task, n):
                executor.step(*claims(step))
                replayed += 1
            found[n] = self._between(executor.state(), states[n + 1], task) / self.reference
        worst = max(found, key=lambda n: found[n])
        accepted = bool(found[worst] < self.delta)
        reason = "" if accepted else f"interval {worst}: distance {found[worst]:.3g}, delta {self.delta:.3g}"
        return Outcome(accepted, reason, found, replayed)

    def chosen(self, states: list[State], task: Task) -> list[int]:
        """The intervals of the Q longest updates of every epoch."""
        assert task.sampler is not None
        epochs: dict[int, list[int]] = {}
        for n in range(task.intervals):
            epochs.setdefault(n * task.interval // task.sampler.steps_per_epoch, []).append(n)
        size = [self._between(a, b, task) for a, b in pairwise(states)]
        return sorted(n for epoch in epochs.values() for n in sorted(epoch, key=lambda n: (-size[n], n))[: self.q])

    def _between(self, a: Mapping[str, Array], b: Mapping[str, Array], task: Task) -> float:
        return DISTANCES[self.distance](parameters(a, task), parameters(b, task))


def calibrate(task: Task, runs: Iterable[Run], *, distance: str = "l2", seed: int = 0, backend: str = "cpu") -> Rule:
    """The rule for a task: d_ref measured, delta from the reproduction error of honest `runs` on `backend`."""
    loose = Rule(reference(task, distance, seed, backend), np.inf, task.intervals, distance, backend)
    errors = [d for run in runs for d in loose.verify(run, task).distances.values()]
    return Rule(loose.reference, max(DELTA, SLACK * max(errors, default=0.0)), Q, distance, backend)


def reference(task: Task, distance: str, seed: int, backend: str) -> float:
    """d_ref: the distance of the final parameters of two runs with other initial values and another order of data."""
    ends = []
    for random in np.random.default_rng(seed).spawn(2):
        executor = backends.make(backend, task.program)
        executor.load(_reinitialised(task, random))
        order = _order(task, random)
        for step in range(task.steps):
            rows = order.indices(step)
            batch = {name: np.asarray(array[rows]) for name, array in task.group("data").items()}
            executor.step(batch, task.scalars(step))
        ends.append(parameters(executor.state(), task))
    return DISTANCES[distance](*ends)


def parameters(state: Mapping[str, Array], task: Task) -> Vector:
    """All parameters of a state as one vector; BundleError where none is named param.*"""
    types = {n: t for n, t in task.program.inputs_of("state").items() if n.startswith("param.")}
    if not types:
        raise BundleError("the rule of Jia et al. compares parameters: state tensors named param.*; the task has none")
    flat = [widen(state[n], t.dtype).astype(np.float64).reshape(-1) for n, t in types.items()]
    return np.concatenate(flat)


def redrawn(values: Array, random: np.random.Generator) -> Array:
    """Values of the same shape drawn from the distribution that `values` are a sample of."""
    drawn: Array = np.quantile(values.reshape(-1), random.random(values.size)).reshape(values.shape)
    return drawn


def same_distribution(a: Array, b: Array) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test, in its asymptotic form."""
    x, y = np.sort(a, axis=None), np.sort(b, axis=None)
    places = np.concatenate([x, y])
    gap = np.searchsorted(x, places, "right") / x.size - np.searchsorted(y, places, "right") / y.size
    lam = float(np.abs(gap).max()) * np.sqrt(x.size * y.size / (x.size + y.size))
    if lam < 0.2:  # where the series converges slowly, to 1
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * (k * lam) ** 2)), 0, 1))


def _initialisation(initial: State, task: Task) -> float:
    """The smallest p-value over the parameters."""
    own, types = task.initial_state(), task.program.inputs_of("state")
    names = [n for n in types if n.startswith("param.") and own[n].size]
    pairs = (tuple(widen(s[n], types[n].dtype) for s in (initial, own)) for n in names)
    return min((same_distribution(a, b) for a, b in pairs), default=1.0)


def _unhashed(run: Run, task: Task, claims: Claims) -> int | None:
    """The first step whose claimed batch does not have the roots of the log."""
    for n in range(task.intervals):
        segment = _of(run, task).segment(n)
        for step, record in enumerate(segment.steps, segment.first):
            if roots_of(claims(step)[0]) != record.batch:
                return step
    return None


def _of(run: Run, task: Task) -> Run:
    return Run(run.folder, run.header, run.commitment, task)


def _steps(task: Task, interval: int) -> range:
    return range(interval * task.interval, min((interval + 1) * task.interval, task.steps))


def _reinitialised(task: Task, random: np.random.Generator) -> State:
    state, types = task.initial_state(), task.program.inputs_of("state")
    for name in [n for n in state if n.startswith("param.")]:
        drawn = redrawn(widen(state[name], types[name].dtype), random)
        state[name] = narrow(np.asarray(drawn, np.float32), types[name].dtype)
    return state


def _order(task: Task, random: np.random.Generator) -> Sampler:
    assert task.sampler is not None
    low, high = (int(w) for w in random.integers(1 << 32, size=2))
    return Sampler((low, high), task.sampler.rows, task.sampler.batch)

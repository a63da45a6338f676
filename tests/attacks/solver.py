"""The honest solver, with a method for everything that a dishonest one does otherwise; and what thieves have in common.

An attack is a subclass that overrides one or two of the hooks, in the order in which the loop calls them:

    prepare  once, before the first step
    inputs   batch and scalars of a step: what it runs on, and what it says it ran on
    steal    the victim's record of a step, to put it into the log as it is
    advance  the state after a step
    edit     the same state once more, after the step and before it is committed to
    seal     the finished run

Everything else is as an honest solver does it: whole states are hashed, checkpoints hold what their roots say, and the
commitment covers the log, forged as it is. `forged` collects the steps that are not what they are said to be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from gensyn_verify import backends
from gensyn_verify.backends.arrays import CARRIER, Array, narrow, widen
from gensyn_verify.errors import BundleError
from gensyn_verify.program.program import Program
from gensyn_verify.protocol import manifest, run, steps
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.roots import constants, roots_of
from gensyn_verify.protocol.run import Run, RunWriter
from gensyn_verify.protocol.steps import StepRecord
from gensyn_verify.protocol.task import Task

State = dict[str, Array]
Inputs = tuple[State, State]  # batch, scalars
Claims = Callable[[int], Inputs]
Numbers = dict[str, Array]  # tensors in binary64, for arithmetic on states


@dataclass(frozen=True)
class Forgery:
    """A forged run and what is known of it.

    run           finished, in a folder of its own
    cost          steps of the program that the forger executed, divided by those of the task
    steps_forged  numbers of the steps whose entry in the log is a lie
    claims        step -> batch and scalars that the forger says it trained on
    initial       the state that it says it began with; None: the task's
    published     the commitment that it published before it showed the run; None: the run's own
    beacon        public randomness that it knew when it committed; None: none
    """

    run: Run
    cost: float
    steps_forged: tuple[int, ...]
    claims: Claims
    initial: State | None = None
    published: bytes | None = None
    beacon: bytes | None = None


class Engine:
    """The program on a backend as a function from state to state, which counts how often it is called."""

    def __init__(self, program: Program, backend: str) -> None:
        self._executor = backends.make(backend, program)
        self.steps = 0

    def __call__(self, state: Mapping[str, Array], inputs: Inputs) -> tuple[State, State]:
        """State and metrics after one step from `state`."""
        self.steps += 1
        self._executor.load(state)
        metrics = self._executor.step(*inputs)
        return {name: array.copy() for name, array in self._executor.state().items()}, metrics


class Log(RunWriter):
    """The honest writer, except that it hashes constants as well."""

    def append(
        self,
        state: Mapping[str, Array],
        batch: Mapping[str, Array],
        scalars: Mapping[str, Array],
        metrics: Mapping[str, Array],
    ) -> None:
        kept = steps.metrics_of(self.layout, metrics)
        self.add(StepRecord(roots_of(state), roots_of(batch), roots_of(scalars), kept), state)

    def __enter__(self) -> Log:
        super().__enter__()
        return self

    def rename(self, solver: bytes, salt: bytes) -> None:
        """Another address and another salt, before `finish`."""
        self.header = replace(self.header, solver=solver, salt=salt)
        self.identity = Identity.unsigned(solver)
        self.folder.write(run.RUN_FILE, [manifest.encode(run.header_value(self.header))])


@dataclass(frozen=True)
class Anatomy:
    """The state of a captured program by what each tensor is: names."""

    program: Program
    parameters: tuple[str, ...] = field(init=False)
    first: tuple[str, ...] = field(init=False)  # momentum of SGD, first moment of Adam: one a parameter
    second: tuple[str, ...] = field(init=False)  # second moments
    buffers: tuple[str, ...] = field(init=False)  # float tensors beside parameters and moments; changing ones first
    counters: tuple[str, ...] = field(init=False)
    constants: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = list(self.program.inputs_of("state"))
        fixed = constants(self.program)
        floats = [n for n, t in self.program.inputs_of("state").items() if t.dtype.is_float]
        found = {
            "parameters": [n for n in floats if n.startswith("param.") and n not in fixed],
            "first": [n for n in floats if n.startswith(("optim.momentum_buffer.", "optim.exp_avg."))],
            "second": [n for n in floats if n.startswith(("optim.exp_avg_sq.", "optim.max_exp_avg_sq."))],
            "buffers": sorted((n for n in floats if not n.startswith(("param.", "optim."))), key=lambda n: n in fixed),
            "counters": [n for n in names if n.split(".")[-1] in ("step", "num_batches_tracked")],
        }
        for key, value in found.items():
            object.__setattr__(self, key, tuple(value))
        object.__setattr__(self, "constants", fixed)

    def moment_of(self, parameter: str) -> str:
        """The first moment that belongs to a parameter."""
        rest = parameter.removeprefix("param.")
        return next(n for n in self.first if n.split(".", 2)[2] == rest)


class Solver:
    """The honest solver of `task`. `victim` is an honest run of it that a thief can read: log and checkpoints."""

    needs: ClassVar[tuple[str, ...]] = ()  # of: victim, parameters, first, buffers
    strength: float = 1.0  # of attacks that have one

    def __init__(
        self, name: str, task: Task, victim: Run | None, seed: int, backend: str, strength: float | None
    ) -> None:
        self.name, self.task, self.backend = name, task, backend
        self.random = np.random.default_rng(seed)
        self.types = task.program.inputs_of("state")
        self.anatomy = Anatomy(task.program)
        self._victim = victim
        self._check()
        self.engine = Engine(task.program, backend)
        self.forged: set[int] = set()
        self._shown: dict[int, Inputs] = {}
        self.began: State | None = None
        self.disguise = True
        self.strength = self.strength if strength is None else strength
        self.published: bytes | None = None
        self.beacon: bytes | None = None

    def _check(self) -> None:
        if self.task.recorded:
            raise BundleError(f"attack {self.name}: a recorded task has no steps of its own; give one with a sampler")
        what = {
            "victim": ("an honest run to steal from", self._victim),
            "parameters": ("state tensors named param.*, as capture names them", self.anatomy.parameters),
            "first": ("momentum or first moments in the state (optim.momentum_buffer.*, optim.exp_avg.*)",
                      self.anatomy.first),
            "buffers": ("a float tensor in the state beside parameters and moments", self.anatomy.buffers),
        }  # fmt: skip
        for need in self.needs:
            said, there = what[need]
            if not there:
                raise BundleError(f"attack {self.name} needs {said}; the task has none")
        if self._victim is not None and self._victim.header.task != self.task.digest:
            found = self._victim.header.task.hex()
            raise BundleError(f"the stolen run is of task {found}; the task to forge is {self.task.digest.hex()}")

    # ---- hooks --------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Before the first step."""

    def inputs(self, step: int, state: State) -> Inputs:
        """Batch and scalars for a step from `state`."""
        return self.honest(step)

    def steal(self, step: int) -> StepRecord | None:
        """The victim's record of a step, or None: do it yourself. Its interval must be stolen to its end."""
        return None

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        """State and metrics after the step."""
        return self.engine(state, inputs)

    def edit(self, step: int, state: State) -> State:
        return state

    def seal(self, log: Log) -> Run:
        return log.finish()

    # ---- the loop -----------------------------------------------------------------------------------------------

    def forge(self, out: str | os.PathLike[str], disguise: bool) -> Forgery:
        """Solve the task into `out`. With `disguise` the log names the task's batches and scalars throughout."""
        self.disguise = disguise
        self.prepare()
        state = self.task.initial_state() if self.began is None else self.began
        who = Identity.unsigned(self.random.bytes(20))
        salt = self.random.bytes(32)
        with Log(self.task, out, who, salt=salt, resume=False, environment={}) as log:
            for step in range(self.task.steps):
                if record := self.steal(step):
                    if self.last(step):
                        state = self.stolen(self.interval(step))
                    log.add(record, state)
                    continue
                shown = self.inputs(step, state)
                state, metrics = self.advance(step, state, shown)
                state = self.edit(step, state)
                told = self.honest(step) if disguise else shown
                self._shown[step] = told
                log.append(state, *told, metrics)
            finished = self.seal(log)
        return Forgery(
            run=finished,
            cost=self.engine.steps / self.task.steps,
            steps_forged=tuple(sorted(self.forged)),
            claims=lambda step: self._shown.get(step) or self.honest(step),
            initial=self.began,
            published=self.published,
            beacon=self.beacon,
        )

    # ---- the task -----------------------------------------------------------------------------------------------

    def honest(self, step: int) -> Inputs:
        """Batch and scalars that the task wants."""
        return self.task.batch(step), self.task.scalars(step)

    def interval(self, step: int) -> int:
        return step // self.task.interval

    def first(self, step: int) -> bool:
        """Whether a step begins its interval."""
        return step % self.task.interval == 0

    def last(self, step: int) -> bool:
        """Whether a step ends its interval."""
        return (step + 1) % self.task.interval == 0 or step == self.task.steps - 1

    def steps_of(self, interval: int) -> range:
        first = interval * self.task.interval
        return range(first, min(first + self.task.interval, self.task.steps))

    @cached_property
    def span(self) -> range:
        """The steps of one interval, the forger's choice; not the first if there is a choice."""
        return self.steps_of(int(self.random.integers(1, self.task.intervals)) if self.task.intervals > 1 else 0)

    def rates(self, step: int, factor: float) -> State:
        """The scalars of a step with every learning rate times `factor`; BundleError where none is known by name."""
        scalars = dict(self.task.scalars(step))
        found = [n for n in scalars if n.split(".")[-1] in ("learning_rate", "step_size", "rate", "lr")]
        if not found:
            raise BundleError(f"attack {self.name} needs a learning rate among the scalars; found {sorted(scalars)}")
        for name in found:
            scalars[name] = np.asarray(scalars[name] * np.float32(factor), np.float32)
        for name in [n for n in scalars if n.split(".")[-1] == "weight_share"]:  # 1 - rate * weight decay
            scalars[name] = np.asarray(1 - (1 - scalars[name]) * np.float32(factor), np.float32)
        return scalars

    # ---- the victim ---------------------------------------------------------------------------------------------

    @property
    def victim(self) -> Run:
        assert self._victim is not None
        return Run(self._victim.folder, self._victim.header, self._victim.commitment, self.task)

    def stolen(self, interval: int = -1) -> State:
        """The victim's checkpoint at the end of an interval; of the last one by default."""
        return self.victim.checkpoint(range(self.task.intervals)[interval])

    def record(self, step: int) -> StepRecord:
        """The victim's record of a step."""
        segment = self._segment(self.interval(step))
        return segment.steps[step - segment.first]

    def _segment(self, interval: int) -> steps.Segment:
        if interval not in self._segments:
            self._segments[interval] = self.victim.segment(interval)
        return self._segments[interval]

    @cached_property
    def _segments(self) -> dict[int, steps.Segment]:
        return {}

    # ---- arithmetic on states -----------------------------------------------------------------------------------

    def numbers(self, state: Mapping[str, Array], names: tuple[str, ...]) -> Numbers:
        """Float tensors of a state in binary64."""
        return {n: widen(state[n], self.types[n].dtype).astype(np.float64) for n in names}

    def put(self, state: State, numbers: Numbers) -> State:
        """A copy of `state` with these tensors instead, rounded to their types."""
        rounded = {n: narrow(np.asarray(x, np.float32), self.types[n].dtype) for n, x in numbers.items()}
        return {**state, **rounded}

    def between(self, a: State, b: State, share: float) -> State:
        """The state `share` of the way from `a` to `b`: floats on the line, counters rounded, constants as they are."""
        out: State = {}
        for name, type in self.types.items():
            if name in self.anatomy.constants or share == 0:
                out[name] = a[name]
            elif share == 1 or type.dtype.name == "boolean":
                out[name] = b[name]
            elif type.dtype.is_float:
                x, y = (self.numbers(s, (name,))[name] for s in (a, b))
                out |= self.put({}, {name: x + share * (y - x)})
            else:
                moved = np.rint(a[name] + share * (b[name].astype(np.float64) - a[name]))
                out[name] = np.asarray(moved).astype(a[name].dtype)
        return out

    def skip(self, state: State) -> State:
        """`state` with its counters one step on: what a step looks like that did nothing."""
        return {n: np.asarray(a + a.dtype.type(1)) if n in self.anatomy.counters else a for n, a in state.items()}

    def quiet(self, step: int) -> State:
        """Metrics of a step that was not executed: the victim's if there is one, else zeros."""
        if self._victim is not None:
            return dict(self.record(step).metrics)
        return {n: np.zeros(t.shape, CARRIER[t.dtype]) for n, t in self.task.program.outputs_of("metric").items()}


def length(numbers: Mapping[str, Array]) -> float:
    """Euclidean length over all tensors."""
    return float(np.sqrt(sum(float(np.vdot(x, x)) for x in numbers.values())))


def difference(a: Numbers, b: Numbers) -> Numbers:
    return {n: a[n] - b[n] for n in a}

"""From distances to bits: a disputed interval of a run on vendor kernels becomes a task of its own, in mode exact.

Its initial state is the interval's opening checkpoint, on which both sides agree; its data and schedule are the rows
that the interval's steps take, so its sampler is an ordinary one and a contract settles it like any other task. Who
has task and run builds the same bundle with the same digest. Both sides solve it on reproducible kernels. If their
runs differ, `pinpoint` finds the operation; if they agree, the exact closing state is agreed too, and the disputed
checkpoint is measured against it once more, with many probes, for the last word. A solver shows in another way that
its kernels are honest: it computes the interval once more with every value kept, and each operator is held against its
error bound (`backends.bounds`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gensyn_verify import backends
from gensyn_verify.backends import bounds, names
from gensyn_verify.backends.arrays import Array
from gensyn_verify.commit import keccak256
from gensyn_verify.errors import BundleError
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.policy import Policy, Thresholds
from gensyn_verify.protocol.roots import roots_of
from gensyn_verify.protocol.run import Run, checkpoint, open_run, step_inputs
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, open_task, write_task
from gensyn_verify.protocol.threshold import Deviation, Examiner, Interval, Outcome

State = dict[str, Array]
PROBES = 24  # for the last word: what so many probes do not reach, honest kernels do not


@dataclass(frozen=True)
class Audit:
    """An interval on vendor kernels here, operator by operator.

    `fault`: the first value out of its bound, at `step`; None: all are within. `same`: whether it ends in the disputed
    checkpoint, bit for bit, which is then what these kernels compute.
    """

    backend: str
    same: bool
    step: int | None = None
    fault: bounds.Fault | None = None

    def __str__(self) -> str:
        if self.fault is not None:
            return f"{self.backend} computes step {self.step} out of bounds: {self.fault}"
        ends = "in the disputed checkpoint, bit for bit" if self.same else "in another state than the disputed one"
        return f"on {self.backend} every operator stays within its error bound, and the interval ends {ends}"


@dataclass(frozen=True)
class Escalation:
    """The exact task of an interval, this side's run of it, and the last word on the checkpoint that is disputed."""

    task: Task
    run: Run
    deviation: Deviation
    thresholds: Thresholds
    audit: Audit | None = None

    @property
    def outcome(self) -> Outcome:
        """REJECT beyond the reject thresholds; ACCEPT within them: what is not proven wrong is not punished.

        UNDECIDED only where rounding moves the interval as far as training does, which no measure resolves.
        """
        outcome = self.deviation.outcome(self.thresholds)
        if outcome is Outcome.REJECT or self.deviation.unequal:
            return Outcome.REJECT
        return Outcome.UNDECIDED if self.deviation.blind(self.thresholds) else Outcome.ACCEPT

    def __str__(self) -> str:
        d = self.deviation
        lines = [f"{self.outcome.name}: the checkpoint that closes interval {d.interval}, by {d.probes} probes"]
        lines += [f"  {s}" for s in d.statistics(self.thresholds)]
        lines += [f"  tensor {name!r} differs, which no rounding reaches" for name in d.unequal]
        lines += [] if self.audit is None else [f"  {self.audit}"]
        commitment = self.run.commitment
        assert commitment is not None
        lines += [
            f"  exact task  {self.task.digest.hex()}",
            f"  exact run   {commitment.digest.hex()}, root of the steps {commitment.root.hex()}",
        ]
        return "\n".join(lines)


def escalate(
    run: Run | str | os.PathLike[str],
    interval: int,
    out: str | os.PathLike[str],
    task: Task | str | os.PathLike[str] | None = None,
    *,
    identity: Identity | None = None,
    beacon: bytes = b"",
    backend: str = "cpu",
    audit: str | None = None,
) -> Escalation:
    """Write the exact task of `interval` at `out`/task, solve it into `out`/run, and judge the closing checkpoint.

    `beacon` draws the probes; both sides take the one of the verification. `backend` is a reproducible one. `audit`
    names a vendor backend, to run the interval on it too and hold each of its operators against its error bound.
    Raises BundleError where the run is malformed, not of mode threshold, or lacks the checkpoints of the interval.
    """
    if not isinstance(run, Run):
        run = open_run(run, task)
    elif task is not None:
        run = Run(run.folder, run.header, run.commitment, task if isinstance(task, Task) else open_task(task))
    if run.task is None or run.header.task != run.task.digest:
        raise BundleError(f"{run.url}: give the task bundle that it is a run of, {run.header.task.hex()}")
    thresholds = run.task.policy.thresholds
    if thresholds is None:
        raise BundleError(f"{run.url} is verified in mode exact already: pinpoint takes two such runs")
    backends.check_reproducible(backend, "an escalation")
    disputed = _disputed(run, interval)
    exact = interval_task(run.task, disputed, f"{os.fspath(out)}/task")
    own = solve(exact, f"{os.fspath(out)}/run", identity=identity, backend=backend, resume=False)
    commitment = b"" if run.commitment is None else run.commitment.digest
    seed = keccak256(b"gensyn_verify.escalation.1" + beacon + commitment + interval.to_bytes(8, "big"))
    examiner = Examiner(run.task.program, backends.make(backend, run.task.program), seed)
    deviation = examiner.measure(disputed, thresholds.noise, PROBES)
    return Escalation(exact, own, deviation, thresholds, None if audit is None else _audit(run.task, disputed, audit))


def interval_task(task: Task, interval: Interval, path: str | os.PathLike[str]) -> Task:
    """The exact task of an interval of a run of `task`, a checkpoint at every step; the same bytes for everyone."""
    inputs = list(interval.inputs())
    steps = len(inputs)
    shapes = {t.shape[:1] for t in task.program.inputs_of("batch").values()}
    if len(shapes) != 1 or not (batch := next(iter(shapes))[0] if next(iter(shapes)) else 0):
        raise BundleError(
            f"{task.store.folder.url}: batch inputs of first dimensions {sorted(shapes)} are no rows of one data set"
        )
    sampler = Sampler((0, 0), steps * batch, batch)
    data = {
        name: np.empty((steps * batch, *array.shape[1:]), array.dtype) for name, array in inputs[0][0].items()
    }  # each row where the sampler looks for it
    for step, (rows, _) in enumerate(inputs):
        for name, array in rows.items():
            data[name][sampler.indices(step)] = array
    schedule = {name: np.stack([scalars[name] for _, scalars in inputs]) for name in inputs[0][1]}
    return write_task(
        path, task.program, interval.opening, data=data, schedule=schedule, sampler=sampler, steps=steps, interval=1,
        policy=Policy(samples=steps, largest=0),
    )  # fmt: skip


def _audit(task: Task, interval: Interval, backend: str) -> Audit:
    """Every step of the interval on a vendor backend, every node of it from the values that this backend gave it."""
    program, name = task.program, names.parse(backend)
    if not isinstance(name, names.VendorName):
        raise BundleError(f"backend {backend!r} is reproducible: it has no error to hold against a bound")
    executor = backends.vendor_package().Executor(program, name, keep=True)
    executor.load(interval.opening)
    model = bounds.Model(name.precision)
    for step, (batch, scalars) in enumerate(interval.inputs(), interval.number * task.interval):
        given = {"state": {n: a.copy() for n, a in executor.state().items()}, "batch": batch, "scalar": scalars}
        executor.step(batch, scalars)
        fault = bounds.audit(program, [given[i.role][i.name] for i in program.inputs], executor.value, model)
        if fault is not None:
            return Audit(backend, False, step, fault)
    return Audit(backend, roots_of(executor.state()) == roots_of(interval.closing))


def _disputed(run: Run, interval: int) -> Interval:
    """States and inputs of one interval of a run, each verified against its roots."""
    task = run.task
    assert task is not None
    if interval not in run.intervals:
        raise BundleError(f"{run.url} has no interval {interval}; it has {len(run.intervals)}")
    opening = run.checkpoint(interval - 1) if interval else task.initial_state()
    segment = run.segment(interval)

    def inputs() -> Iterator[tuple[State, State]]:
        for step, record in enumerate(segment.steps, interval * task.interval):
            yield step_inputs(run, step, record)

    closing = checkpoint(task, run.store, segment.end - 1, segment.steps[-1].state)
    return Interval(interval, opening, inputs, closing)

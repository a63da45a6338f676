"""Solving: run the task's program over its batches, commit to every step, keep a checkpoint an interval."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device.executor import Executor as DeviceExecutor
from gensyn_verify.errors import BundleError, NonFiniteError
from gensyn_verify.protocol.diagnose import Inspector, non_finite
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.roots import roots_of
from gensyn_verify.protocol.run import Run, RunWriter, environment, step_inputs
from gensyn_verify.protocol.task import Task, open_task

Progress = Callable[[int, int, Mapping[str, Array]], None]
Inputs = Callable[[int], tuple[Mapping[str, Array], Mapping[str, Array]]]  # step -> batch, scalars


def solve(
    task: Task | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    identity: Identity | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    backend: str = "cpu",
    salt: bytes | None = None,
) -> Run:
    """Solve `task` into a run bundle at `out`, or take up the run that is there, and commit to it.

    `identity` is who solves (default: unsigned, a random address; a resumed run keeps its own). `salt` (32 bytes,
    default random) hides the commitment's content until the run is revealed. `progress(done, steps, metrics)` is
    called after every step. The commitment depends on task, identity and salt alone: not on backend, machine, threads
    or interruptions. Raises NonFiniteError where a metric is not finite, naming step and node; the run is kept up to
    the step before. Raises BundleError where `out` holds another run.
    """
    if not isinstance(task, Task):
        task = open_task(task)
    if task.recorded:
        raise BundleError("a recorded task has no sampler: its runs come from `record`")
    if not task.program.nodes:
        raise BundleError("the program of this task has no nodes, so it says nothing about a step: it cannot be solved")
    with RunWriter(task, out, identity, salt=salt, resume=resume, environment=environment(backend)) as writer:
        if writer.steps < task.steps:
            _train(task, writer, backend, progress)
        return writer.finish()


def solve_again(
    run: Run,
    out: str | os.PathLike[str],
    *,
    identity: Identity | None = None,
    backend: backends.Backend = "cpu",
    salt: bytes | None = None,
) -> Run:
    """Execute the steps of a recorded run once more, from its initial state on its own batches, into a run at `out`.

    `backend` may make the executor: of a run of code, the trusted code. Raises BundleError where `run` is no recorded
    run with its task, or `out` holds a run.
    """
    task = run.task
    if task is None or not task.recorded:
        raise BundleError(f"{run.url} is no recorded run with its task: solve its task instead")
    if not task.program.nodes and isinstance(backend, str):
        raise BundleError(f"the program of {run.url} has no nodes: its step is code, which only who trusts it executes")
    environ = environment(backend) if isinstance(backend, str) else {"backend": str(backend)}
    with RunWriter(task, out, identity, salt=salt, resume=False, environment=environ) as writer:
        executor = backends.make(backend, task.program)
        executor.load(task.initial_state())
        for n in run.intervals:
            for step, record in enumerate(run.segment(n).steps, n * task.interval):
                batch, scalars = step_inputs(run, step, record)
                metrics = executor.step(batch, scalars)
                writer.append(executor.state(), batch, scalars, metrics)
        writer.close_interval(executor.state())
        return writer.finish()


def _train(task: Task, writer: RunWriter, backend: str, progress: Progress | None) -> None:
    executor = backends.make(backend, task.program)
    executor.load(writer.saved_state())
    # A device computes a step while the one before it is hashed and written: `behind` waits for that.
    device = executor if isinstance(executor, DeviceExecutor) and executor.overlaps else None
    behind: tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]] | None = None
    for step in range(writer.steps, task.steps):
        batch, scalars = task.batch(step), task.scalars(step)
        if device:
            device.start(batch, scalars)
            if behind:
                writer.append(*behind)
            metrics = device.finish()
        else:
            metrics = executor.step(batch, scalars)
        if metric := non_finite(metrics, task.program):
            raise stop(writer, backend, metric, lambda s: (task.batch(s), task.scalars(s)))
        if device:
            behind = (device.snapshot(), batch, scalars, metrics)
        else:
            writer.append(executor.state(), batch, scalars, metrics)
        if progress is not None:
            progress(step + 1, task.steps, metrics)
    if behind:
        writer.append(*behind)


def keep(writer: RunWriter, backend: str, inputs: Inputs) -> None:
    """Put the steps since the last checkpoint on disk where the executor no longer has the state after them."""
    executor = backends.make(backend, writer.task.program)
    executor.load(writer.saved_state())
    for step in range(writer.saved_steps, writer.steps):
        executor.step(*inputs(step))
    writer.close_interval(executor.state())


def stop(writer: RunWriter, backend: str, metric: str, inputs: Inputs) -> NonFiniteError:
    """Keep the steps that are good, and the error that says where the bad value of step `writer.steps` comes from.

    The executor's state is spoilt, so the steps since the last checkpoint run again, the same bits until the bad one,
    with every value kept: the fault may have entered the state some steps before a metric shows it. Kernels that do not
    repeat their bits (sums by atomics on a GPU) have lost those steps: no state of theirs is stored under other roots.
    """
    inspector = Inspector(writer.task.program, backend)
    inspector.load(writer.saved_state())
    step, cause = writer.steps, ""
    for s in range(writer.saved_steps, step + 1):
        if s == step and roots_of(inspector.state()) == writer.last_roots:
            writer.close_interval(inspector.state())
        inspector.step(*inputs(s))
        if not cause and (fault := inspector.fault()):
            cause = f"at step {s} {fault}"
    saved = writer.saved_steps
    kept = f"The run is kept up to step {saved - 1}" if saved else "Nothing is kept" if step else "Nothing was trained"
    cause = cause or f"taken again on {backend} it is finite"
    return NonFiniteError(f"metric {metric!r} is not finite at step {step}; {cause}. {kept}")

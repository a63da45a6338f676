"""Recording a user's own training loop as a run that anyone can replay.

    step = gv.compile(model, loss_fn, optimizer)
    with gv.record(step, "run") as recording:
        for batch in loader:
            loss = step(batch)
    report = gv.replay(recording.run)

There is no sampler and no schedule to commit to beforehand: every batch and every scalar is stored with the run, by
content, and its task (in the run's folder) binds program, initial state and interval. What a replay then proves is
that these batches under this program gave these states; whether they are the batches that were agreed upon is for
the parties to see. The step of the user's loop is the frontend's; this module only listens to it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import BundleError
from gensyn_verify.program.program import Program
from gensyn_verify.protocol.diagnose import non_finite
from gensyn_verify.protocol.folder import open_folder
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.policy import Policy
from gensyn_verify.protocol.roots import roots_of
from gensyn_verify.protocol.run import RUN_FILE, TASK_FOLDER, Run, RunWriter, open_run
from gensyn_verify.protocol.run import environment as machine
from gensyn_verify.protocol.solve import keep, stop
from gensyn_verify.protocol.task import Task, write_task

Arrays = Mapping[str, Array]
INTERVAL = 100


class CapturedStep(Protocol):
    """What recording needs of a captured step; `frontend.Captured` is one."""

    @property
    def program(self) -> Program: ...
    @property
    def state(self) -> Arrays: ...
    def read_state(self, step: int) -> dict[str, Array]: ...


class Step(Protocol):
    """A compiled training step that calls its listeners after every step; `frontend.Step` is one."""

    listeners: list[Any]

    @property
    def captured(self) -> CapturedStep | None: ...
    @property
    def steps(self) -> int: ...
    @property
    def reloads(self) -> int: ...
    def resume(self, state: Arrays) -> None: ...


class Recorder:
    """One recording. `run` is the finished run once the `with` block has ended well, None before and otherwise."""

    def __init__(
        self,
        step: Step,
        out: str,
        interval: int,
        policy: Policy | None,
        identity: Identity | None,
        salt: bytes | None,
        resume: bool,
        environment: Mapping[str, str],
    ) -> None:
        self.run: Run | None = None
        self._step, self._out = step, out
        self._interval, self._policy = interval, policy
        self._identity, self._salt = identity, salt
        self._environment = environment
        self._exit = contextlib.ExitStack()
        self._writer: RunWriter | None = None
        self._state: Arrays = {}
        self._reloads = 0
        self._failed = False
        if resume:
            self._resume()
        elif step.captured is not None:
            self._begin(step.captured, step.captured.read_state(step.steps))

    def _begin(self, captured: CapturedStep, state: Arrays) -> None:
        """Write the task and open the run, from the state before the first recorded step."""
        task = write_task(
            f"{self._out}/{TASK_FOLDER}", captured.program, state, interval=self._interval, policy=self._policy
        )
        self._open(task, resume=False)

    def _resume(self) -> None:
        """Take up the run that is there: its last checkpoint becomes the state of the step.

        A step that has steps behind it already, from a checkpoint of the user's, keeps its state: the run must have
        been in it, and goes on from there.
        """
        captured, run = self._step.captured, open_run(self._out)
        if captured is None:
            raise BundleError(f"to resume {run.url}, capture the step first: step.prepare(batch)")
        if run.finished or run.task is None:
            raise BundleError(f"{run.url} is {'finished' if run.finished else 'no recorded run'}: nothing to resume")
        if run.task.program.digest != captured.program.digest:
            raise BundleError(
                f"{run.url} is a run of program {run.task.program.digest.hex()}, the step is "
                f"{captured.program.digest.hex()}: model, loss, optimizer, options and batch shapes must be the same"
            )
        try:
            writer = self._open(run.task, resume=True)
            if self._step.steps:
                self._state = captured.read_state(self._step.steps)
                writer.rewind(self._state)
            else:
                self._state = writer.saved_state()
                self._step.resume(self._state)
        except BaseException:
            self.close()
            raise

    def _open(self, task: Task, resume: bool) -> RunWriter:
        writer = RunWriter(
            task, self._out, self._identity, salt=self._salt, resume=resume, environment=self._environment
        )
        self._writer = self._exit.enter_context(writer)
        self._reloads = self._step.reloads
        return writer

    def listen(self, number: int, batch: Arrays, scalars: Arrays, state: Arrays, metrics: Arrays) -> None:
        """Take one step in; what `Step` calls."""
        captured = self._step.captured
        assert captured is not None
        if self._writer is None:
            self._begin(captured, captured.state)
        writer = self._writer
        assert writer is not None
        if self._failed:
            raise BundleError("this recording has stopped; the steps after its error are not part of it")
        self._failed = True
        if self._step.reloads != self._reloads:
            keep(writer, "cpu", writer.stored_inputs)
            raise BundleError(
                f"module or optimizer were written to before step {number}, so it did not begin with the state that "
                "the recorded step before it left; record from here on as a run of its own"
            )
        if metric := non_finite(metrics, captured.program):
            going_on = (batch, scalars)
            raise stop(writer, "cpu", metric, lambda s: going_on if s == writer.steps else writer.stored_inputs(s))
        writer.append(state, batch, scalars, metrics)
        self._state = state
        self._failed = False

    def finish(self) -> None:
        """Close the last interval and commit."""
        writer = self._writer
        if writer is None:
            raise BundleError(f"nothing was recorded in {self._out}: no step was taken")
        if self._failed:
            raise BundleError(f"{self._out} is not finished: its last step failed, and what was recorded is kept")
        if not self.keep():
            raise BundleError(f"{self._out} is not finished: the state is not the one that its last step left")
        self.run = writer.finish()

    def keep(self) -> bool:
        """Close the interval that is open, so that every recorded step is on disk; whether that was possible.

        The state is the executor's own memory, and an error may have struck after a step and before it was recorded.
        """
        if self._writer is None or self._failed or roots_of(self._state) != self._writer.last_roots:
            return False
        self._writer.close_interval(self._state)
        return True

    def close(self) -> None:
        self._exit.close()


@contextlib.contextmanager
def record(
    step: Step,
    out: str | os.PathLike[str],
    *,
    interval: int = INTERVAL,
    policy: Policy | None = None,
    identity: Identity | None = None,
    salt: bytes | None = None,
    resume: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Recorder]:
    """Record every call of `step` (from `gv.compile`) inside the block into a run bundle at `out`, with its task.

    With `resume`, a run that is there and not finished is taken up where its last checkpoint left it, in a process that
    has built and prepared the same step: module, optimizer and `step.steps` are then as of that checkpoint, and the
    loop goes on with batch number `step.steps`. Its task and interval stay; the commitment is that of a run without
    the break. Where module and optimizer come from a checkpoint of the loop's own, of step n, `step.prepare(batch,
    steps=n)` says so: the run then goes on from its step n, and what it had recorded after it is given up.

        step.prepare(batches[0])
        with gv.record(step, "run", resume=True):
            for batch in batches[step.steps:]:
                step(batch)

    Arguments as of `solve`; `interval` is in steps between checkpoints, `environment` what the run says of machine
    and versions. An error inside the block leaves an unfinished run that holds every step before it. Raises
    BundleError where `out` holds a run, or where module or optimizer are written to between recorded steps;
    NonFiniteError, from the step, where its loss is not finite.
    """
    folder = open_folder(out)
    there = folder.size(RUN_FILE) is not None
    if there and not resume:
        raise BundleError(f"{folder.url} holds a run already; choose another folder, or pass resume=True")
    stated = machine("cpu") if environment is None else environment
    recorder = Recorder(step, os.fspath(out), interval, policy, identity, salt, resume and there, stated)
    step.listeners.append(recorder.listen)
    try:
        yield recorder
        recorder.finish()
    except BaseException:
        recorder.keep()
        raise
    finally:
        step.listeners.remove(recorder.listen)
        recorder.close()

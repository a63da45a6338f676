"""Replaying: check what a run bundle says of itself, then execute chosen intervals again and compare.

First the bundle as a whole, without executing anything: whose task, whose run, whole intervals in order, the step
entries under the committed root, commitment and signature, checkpoints present and of the content that the log names.
Then intervals, each from its opening checkpoint, so that the cost of one does not depend on the length of the run.
Batches and scalars always come from the task, never from the run (except of a recorded run, which has no other).
Mode exact compares every step bit for bit; mode threshold measures closing checkpoints (`threshold`).
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import partial

import numpy as np

from gensyn_verify import backends
from gensyn_verify.backends import Backend
from gensyn_verify.backends.arrays import Array, widen
from gensyn_verify.commit import RunAccumulator, keccak256, run_commitment, tensor_root
from gensyn_verify.errors import BundleError
from gensyn_verify.protocol import sampling
from gensyn_verify.protocol import steps as log
from gensyn_verify.protocol.distance import inner
from gensyn_verify.protocol.folder import MissingDataError
from gensyn_verify.protocol.identity import can_sign, signer
from gensyn_verify.protocol.moments import bounds, violations
from gensyn_verify.protocol.policy import Policy, Thresholds
from gensyn_verify.protocol.report import Finding, Report, Verdict
from gensyn_verify.protocol.roots import roots_of
from gensyn_verify.protocol.run import Run, StepHasher, checkpoint, open_run, stored_input
from gensyn_verify.protocol.steps import Layout, Segment, StepRecord
from gensyn_verify.protocol.store import ContentMismatchError
from gensyn_verify.protocol.task import Task, open_task
from gensyn_verify.protocol.threshold import Deviation, Drift, Examiner, Interval, Outcome, Statistic, over_the_run

Progress = Callable[[int, int], None]
State = dict[str, Array]


def replay(
    run: Run | str | os.PathLike[str],
    task: Task | str | os.PathLike[str] | None = None,
    *,
    samples: int | None = None,
    largest: int | None = None,
    everything: bool = False,
    beacon: bytes | None = None,
    commitment: bytes | None = None,
    solver: bytes | None = None,
    backend: Backend = "cpu",
    policy: Policy | None = None,
    progress: Progress | None = None,
) -> Report:
    """Verify a run of `task` and say what was found.

    `samples` and `largest` override the task's policy; `everything` replays every interval. `beacon` is public
    randomness fixed after the commitment; without one the verifier draws its own, which binds nobody else.
    `commitment` and `solver`: what the solver published beforehand; the run must be that one. Without `task` the one
    inside the run is used (recorded runs), and only the report's task digest tells which work was verified.
    `backend` is the name of one or makes an executor of a program. A program without nodes is a step that is code
    (docs/formats.md, section 16): no backend by name executes it, and the verdict stays open.
    `policy` is the verifier's own, in place of the task's.
    `progress(steps, of)` is called after every replayed step. Raises BundleError where the bundle is malformed.
    """
    if not isinstance(run, Run):
        run = open_run(run, task)
    elif task is not None:
        run = Run(run.folder, run.header, run.commitment, task if isinstance(task, Task) else open_task(task))
    if run.task is None:
        raise BundleError(f"{run.url} does not carry its task: give the task bundle it claims to solve")
    audit = _Audit(run, run.task, commitment, solver, secrets.token_bytes(32) if beacon is None else beacon, policy)
    policy = audit.policy
    if policy.thresholds is None:
        backends.check_reproducible(backend, "mode exact")
    if run.carries_task:
        audit.notes.append("the task came with the run: whether it is the work agreed upon, its digest tells")
    if audit.identify() and audit.read_log():
        audit.check_commitment()
        audit.check_checkpoints()
        count = policy.samples if samples is None else samples
        audit.choose(count, policy.largest if largest is None else largest, everything)
        audit.execute(backend, progress)
    return audit.report(backend)


def measure(
    run: Run,
    *,
    noise: int,
    probes: int,
    seed: bytes,
    backend: Backend = "cpu",
) -> tuple[list[Deviation], Drift]:
    """Every interval of an honest run against its replay, without any thresholds: what `calibrate` learns from.

    Raises BundleError where the run is not whole or not of its task.
    """
    assert run.task is not None
    audit = _Audit(run, run.task, None, None, seed)
    if audit.identify() and audit.read_log():
        audit.check_checkpoints()
    for problem in (*map(str, audit.findings), *audit.gaps):
        raise BundleError(f"{run.url}: {problem}")
    examiner = Examiner(run.task.program, backends.make(backend, run.task.program), seed)
    found = [
        audit.examine(examiner, n, lambda interval: examiner.measure(interval, noise, probes))
        for n in range(audit.intervals)
    ]
    return [d for d in found if d is not None], examiner.drift


class _Audit:
    """One verification in progress: what was read, chosen and found."""

    def __init__(
        self,
        run: Run,
        task: Task,
        commitment: bytes | None,
        solver: bytes | None,
        beacon: bytes,
        policy: Policy | None = None,
    ) -> None:
        self.run, self.task = run, task
        self.policy = task.policy if policy is None else policy
        self.published, self.solver, self.beacon = commitment, solver, beacon
        self.layout = Layout.of(task.program)
        self.hasher = StepHasher(task.program)
        self.findings: list[Finding] = []
        self.gaps: list[str] = []
        self.notes: list[str] = []
        self.steps = 0
        self.intervals = 0
        self.commitment = b""
        self.signed = False
        self.closing: list[dict[str, bytes]] = []  # state roots at the end of every interval
        self.seen: list[bytes] = []  # content of every step log
        self.unusable: dict[int, str] = {}  # interval -> why it cannot be replayed
        self.updates: list[float] = []
        self.deviations: list[Deviation] = []
        self.drift = Drift()
        self.sampled: list[int] = []
        self.largest: list[int] = []
        self.replayed: list[int] = []
        self.steps_replayed = 0

    # ---- the bundle as a whole ----------------------------------------------------------------------------------

    def identify(self) -> bool:
        """Whether this is a run of the task (if not, nothing else means anything), by the solver that was named."""
        header = self.run.header
        if self.solver is not None and self.solver != header.solver:
            self._differ("solver", "the run is another solver's", self.solver.hex(), header.solver.hex())
        if header.task == self.task.digest:
            return True
        self._differ("task", "the run is of another task", self.task.digest.hex(), header.task.hex())
        return False

    def read_log(self) -> bool:
        """Read every step log; whether they are whole intervals in order, as far as they go."""
        task, numbers = self.task, self.run.intervals
        accumulator = RunAccumulator()
        for position, n in enumerate(numbers):
            segment = self.run.segment(n)
            first = position * task.interval
            left = min(task.interval, task.steps - first) if task.steps else task.interval
            last = position == len(numbers) - 1
            whole = len(segment.steps) == left or (last and len(segment.steps) < left)
            if (n, segment.interval, segment.first) != (position, position, first) or not whole:
                self._differ(
                    "log",
                    f"{log.file_name(n)} does not continue the run",
                    f"interval {position}: {max(left, 0)} steps from step {first}",
                    f"interval {segment.interval}: {len(segment.steps)} steps from step {segment.first}",
                    interval=position,
                    step=first,
                )
                return False
            for record in segment.steps:
                accumulator.append(self.hasher.entry(self.steps, record))
                self.steps += 1
            self.closing.append(segment.steps[-1].state)
            self.seen.append(tensor_root(self.layout.encode(segment)))
        self.intervals = len(numbers)
        self.root = accumulator.root()
        return True

    def check_commitment(self) -> None:
        """Steps, root, commitment and signature against the log and the header."""
        header, c = self.run.header, self.run.commitment
        self.commitment = run_commitment(header.task, header.solver, header.salt, self.steps, self.root)
        if self.published is not None and self.published != self.commitment:
            self._differ(
                "commitment", "the run is not the one committed to", self.published.hex(), self.commitment.hex()
            )
        wanted = self.task.steps or self.steps
        if c is None:
            of = f" of {self.task.steps}" if self.task.steps else ""
            self.gaps.append(f"the run is unfinished: {self.steps}{of} steps, no commitment")
            return
        if not c.steps == self.steps == wanted:
            found = f"{c.steps} committed, {self.steps} in the log"
            self._differ("log", "the number of steps is not the task's", f"{wanted} steps", found)
        if c.root != self.root:
            self._differ(
                "commitment", "the step log is not what was committed: roots differ", c.root.hex(), self.root.hex()
            )
        if c.digest != self.commitment:
            self._differ(
                "commitment",
                "the commitment is not of this task, solver, salt and log",
                c.digest.hex(),
                self.commitment.hex(),
            )
        self._check_signature(c.digest, c.signature)

    def _check_signature(self, digest: bytes, signature: bytes) -> None:
        if not signature:
            return
        if not can_sign():
            self.notes.append("the signature was not checked: eth-keys is not installed")
            return
        found, address = signer(digest, signature), self.run.header.solver
        if found != address:
            self._differ(
                "signature",
                "the commitment is not signed by its solver",
                address.hex(),
                found.hex() if found else "no valid signature",
            )
        self.signed = found == address

    def check_checkpoints(self) -> None:
        """Every stored state against its roots, once each; on the way the size of every interval's update."""
        before: State | None = self._opening(0)
        before_roots: Mapping[str, bytes] = self.task.state
        known = bounds(self.task.program) if self.thresholds else ()
        for n, roots in enumerate(self.closing):
            after = self._read_checkpoint(n, roots, before or {}, before_roots)
            if before is not None and after is not None:
                self.updates.append(self._distance(before, after))
                steps = min(self.task.interval, self.steps - n * self.task.interval)
                for v in violations(known, before, after, steps):
                    message = f"interval {n} closes with moments that no gradients give: {v.tensor!r}[{v.element}]"
                    self._differ("moment", message, v.expected, v.found, interval=n, tensor=v.tensor)
            else:
                self.updates.append(0.0)
            before, before_roots = after, roots
        if self.unusable:
            more = len(self.unusable) - 1
            self.gaps.append(next(iter(self.unusable.values())) + (f" (and {more} more)" if more else ""))

    def _read_checkpoint(
        self, n: int, roots: Mapping[str, bytes], before: State, before_roots: Mapping[str, bytes]
    ) -> State | None:
        """The state that closes interval `n`; None, with the reason noted, where it is missing or not as logged."""
        step = min((n + 1) * self.task.interval, self.steps) - 1
        types = self.task.program.inputs_of("state")
        out: State = {}
        for name, type in types.items():
            if name in before and before_roots[name] == roots[name]:
                out[name] = before[name]
                continue
            try:
                out[name] = self.run.store.get(type, roots[name], f"checkpoint after step {step}, tensor {name!r}")
            except MissingDataError as error:
                self.unusable[n + 1] = str(error)
            except ContentMismatchError as error:
                message = f"checkpoint after step {step}: tensor {name!r} is not what was committed"
                self._differ(
                    "checkpoint", message, roots[name].hex(), error.found.hex(), interval=n, step=step, tensor=name
                )
        return out if len(out) == len(types) else None

    def _opening(self, n: int) -> State:
        """The state that interval `n` starts from."""
        if n == 0:
            return self.task.initial_state()
        return checkpoint(self.task, self.run.store, n * self.task.interval - 1, self.closing[n - 1])

    def _distance(self, before: State, after: State) -> float:
        """Euclidean length of the update over all float tensors of the state, in binary64."""
        total = 0.0
        for name, type in self.task.program.inputs_of("state").items():
            if type.dtype.is_float and before[name] is not after[name]:
                update = widen(after[name], type.dtype).astype(np.float64) - widen(before[name], type.dtype)
                total += inner(update, update)
        return math.sqrt(total)

    # ---- execution ----------------------------------------------------------------------------------------------

    def choose(self, samples: int, largest: int, everything: bool) -> None:
        """The intervals to replay: drawn from the beacon, and those with the largest updates beside them."""
        if everything:
            samples = self.intervals
        self.sampled = sampling.draw(self.beacon, self.commitment, self.intervals, samples)
        rest = [n for n in range(self.intervals) if n not in set(self.sampled)]
        rest.sort(key=lambda n: (-np.nan_to_num(self.updates[n], nan=np.inf), n))
        self.largest = sorted(rest[:largest])

    def execute(self, backend: Backend, progress: Progress | None) -> None:
        if isinstance(backend, str) and not self.task.program.nodes:
            self.gaps.append(
                "the step of this run is code, not a program: nothing was executed. Who has that code and trusts it "
                "names it: --trust-code FILE.py:FUNCTION"
            )
            self.sampled, self.largest = [], []
            return
        if self.thresholds is not None:
            self.check_scalars()
            self._examine_all(self.thresholds, backend, progress)
            return
        chosen = sorted({*self.sampled, *self.largest})
        total = sum(min(self.task.interval, self.steps - n * self.task.interval) for n in chosen)
        done = 0
        executor = None
        for n in chosen:
            try:
                state = self._opening(n)
            except (MissingDataError, ContentMismatchError):
                continue  # said already by check_checkpoints
            executor = executor or backends.make(backend, self.task.program)
            executor.load(state)
            self.roots: Mapping[str, bytes] = self.closing[n - 1] if n else self.task.state
            self.replayed.append(n)
            for step, record in enumerate(self._segment(n).steps, n * self.task.interval):
                if not self._replay_step(executor, n, step, record):
                    break
                self.steps_replayed += 1
                done += 1
                if progress is not None:
                    progress(done, total)
        if not self.steps_replayed:
            self.gaps.append("no step was executed again")

    def _examine_all(self, thresholds: Thresholds, backend: Backend, progress: Progress | None) -> None:
        """Mode threshold: the chosen intervals, each with its probes."""
        seed = keccak256(b"gensyn_verify.probes.1" + self.beacon + self.commitment)
        executor = backends.make(backend, self.task.program)
        examiner = Examiner(self.task.program, executor, seed)
        chosen = sorted({*self.sampled, *self.largest})
        rejected = False
        per_interval = (1 + thresholds.probes) * self.task.interval
        for done, n in enumerate(chosen):

            def advance(steps: int, done: int = done) -> None:
                if progress is not None:
                    progress(done * per_interval + min(steps, per_interval), len(chosen) * per_interval)

            judge = partial(examiner.judge, t=thresholds, further=not rejected)  # else nothing more can save the run
            deviation = self.examine(examiner, n, judge, advance)
            if deviation is not None:
                rejected = rejected or deviation.outcome(thresholds) is Outcome.REJECT
                self.deviations.append(deviation)
                self.replayed.append(n)
        self.steps_replayed, self.drift = examiner.steps, examiner.drift
        if not self.deviations:
            self.gaps.append("no interval was executed again")

    def examine(
        self,
        examiner: Examiner,
        n: int,
        measured: Callable[[Interval], Deviation],
        advance: Callable[[int], None] = lambda steps: None,
    ) -> Deviation | None:
        """The closing checkpoint of interval `n` beside its replay; None, with the reason noted, where data lack."""
        first = n * self.task.interval
        records = self._segment(n).steps
        for step, record in enumerate(records, first):
            inputs = self._inputs(n, step, record)
            if inputs is None:
                return None
            self._compare("batch", n, step, roots_of(inputs[0]), record.batch)
        try:
            opening = self._opening(n)
            closing = checkpoint(self.task, self.run.store, first + len(records) - 1, self.closing[n])
        except (MissingDataError, ContentMismatchError):
            return None  # said already by check_checkpoints
        begin = examiner.steps

        def inputs_again() -> Iterator[tuple[State, State]]:
            for step, record in enumerate(records, first):
                advance(examiner.steps - begin)
                found = self._inputs(n, step, record)
                assert found is not None
                yield found

        deviation = measured(Interval(n, opening, inputs_again, closing))
        for name in deviation.unequal:
            message = f"interval {n} closes with another {name!r}, which no rounding reaches"
            replayed = "the replay's"
            self._differ("state", message, replayed, self.closing[n][name].hex(), interval=n, tensor=name)
        return deviation

    def check_scalars(self) -> None:
        """The scalars of all steps against the task's schedule, if it has one: this needs no replay."""
        if self.task.recorded:
            return
        for n in range(self.intervals):
            for step, record in enumerate(self._segment(n).steps, n * self.task.interval):
                self._compare("scalar", n, step, roots_of(self.task.scalars(step)), record.scalar)

    def _segment(self, n: int) -> Segment:
        """The step log that `read_log` saw, read again: keeping all of them would take memory by the run's length."""
        segment = self.run.segment(n)
        if tensor_root(self.layout.encode(segment)) != self.seen[n]:
            raise BundleError(f"{self.run.url}: {log.file_name(n)} changed while it was verified")
        return segment

    def _replay_step(self, executor: backends.Executor, interval: int, step: int, record: StepRecord) -> bool:
        """Execute one step and compare what went in and what came out; whether everything was equal."""
        before = len(self.findings)
        inputs = self._inputs(interval, step, record)
        if inputs is None:
            return False
        batch, scalars = inputs
        metrics = executor.step(batch, scalars)
        self._compare("batch", interval, step, roots_of(batch), record.batch)
        self._compare("scalar", interval, step, roots_of(scalars), record.scalar)
        self.roots = self.hasher.state_roots(executor.state(), self.roots)
        self._compare("state", interval, step, self.roots, record.state)
        found = log.metrics_of(self.layout, metrics)
        self._compare(
            "metric",
            interval,
            step,
            {name: a.tobytes() for name, a in found.items()},
            {name: a.tobytes() for name, a in record.metrics.items()},
        )
        return len(self.findings) == before

    def _inputs(self, interval: int, step: int, record: StepRecord) -> tuple[State, State] | None:
        """Batch and scalars of a step; None, with the reason noted, where a recorded run lacks them."""
        if not self.task.recorded:
            return self.task.batch(step), self.task.scalars(step)
        found: dict[str, State] = {"batch": {}, "scalar": {}}
        complete = True
        for role, arrays in found.items():
            for name, root in record.group(role).items():
                try:
                    arrays[name] = stored_input(self.task, self.run.store, step, record, role, name)
                except MissingDataError as error:
                    self.gaps.append(str(error))
                    complete = False
                except ContentMismatchError as error:
                    message = f"step {step}: stored {role} {name!r} is not what was committed"
                    self._differ(role, message, root.hex(), error.found.hex(), interval, step, name)
                    complete = False
        return (found["batch"], found["scalar"]) if complete else None

    def _compare(
        self, kind: str, interval: int, step: int, computed: Mapping[str, bytes], committed: Mapping[str, bytes]
    ) -> None:
        source = "the task's" if kind in ("batch", "scalar") else "recomputed"
        for name in computed:
            if computed[name] != committed[name]:
                self._differ(
                    kind,
                    f"step {step}: {kind} {name!r} is not {source}",
                    f"{computed[name].hex()} ({source})",
                    f"{committed[name].hex()} (in the run)",
                    interval=interval,
                    step=step,
                    tensor=name,
                )

    # ---- outcome ------------------------------------------------------------------------------------------------

    def _differ(
        self,
        kind: str,
        message: str,
        expected: str,
        found: str,
        interval: int | None = None,
        step: int | None = None,
        tensor: str = "",
    ) -> None:
        self.findings.append(Finding(kind, message, expected, found, interval, step, tensor))

    def _detection(self) -> list[tuple[Fraction, int, Fraction]]:
        """What the draw is worth; the largest updates are no surprise to a forger and count only if all is replayed."""
        everything = len(self.replayed) == self.intervals
        drawn = self.intervals if everything else len(set(self.sampled) & set(self.replayed))
        return sampling.detection_table(self.steps, self.task.interval, drawn) if drawn else []

    @property
    def thresholds(self) -> Thresholds | None:
        return self.policy.thresholds

    def _statistics(self, thresholds: Thresholds) -> list[Statistic]:
        """What the replayed intervals were judged by: the worst one of each kind, the deciding one first."""
        worst: dict[str, Statistic] = {}
        for s in (s for d in self.deviations for s in d.statistics(thresholds)):
            if s.name not in worst or (s.outcome.value, s.value) > (worst[s.name].outcome.value, worst[s.name].value):
                worst[s.name] = s
        all = [*worst.values(), *over_the_run(self.deviations, self.drift, thresholds)]
        return sorted(all, key=lambda s: (s.outcome.value, s.value - s.accept), reverse=True)

    def report(self, backend: Backend) -> Report:
        exact = self.thresholds is None
        statistics = [] if self.thresholds is None else self._statistics(self.thresholds)
        outcomes = {s.outcome for s in statistics}
        if self.findings or Outcome.REJECT in outcomes:
            verdict = Verdict.MISMATCH if exact else Verdict.REJECT
        elif self.gaps or Outcome.UNDECIDED in outcomes:
            verdict = Verdict.UNDECIDED
        else:
            verdict = Verdict.VERIFIED if exact else Verdict.ACCEPT
        header = self.run.header
        return Report(
            verdict=verdict,
            findings=tuple(self.findings),
            gaps=tuple(self.gaps),
            notes=tuple(self.notes),
            task=header.task.hex(),
            commitment=self.commitment.hex(),
            solver="0x" + header.solver.hex(),
            signed=self.signed,
            steps=self.steps,
            intervals=self.intervals,
            interval=self.task.interval,
            beacon=self.beacon.hex(),
            sampled=tuple(self.sampled),
            largest=tuple(self.largest),
            replayed=tuple(self.replayed),
            steps_replayed=self.steps_replayed,
            detection=tuple(self._detection()),
            backend=str(backend),
            thresholds=self.thresholds,
            deviations=tuple(self.deviations),
            statistics=tuple(statistics),
        )

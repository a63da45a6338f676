"""The run bundle: what a solver did, step by step, and what it committed to.

    run.json           canonical manifest: task digest, solver's address, salt, environment (for information)
    steps/             one step log an interval: the tensor roots of every step
    tensors/           the state at the end of every interval, by content
    commitment.json    last of all: steps, root of the step entries, run commitment, signature
    task/              only in recorded runs: the task bundle, which has nowhere else to be

The checkpoint that closes an interval has the roots of its last step, so the state that ends an interval is by
construction the state that begins the next. A writer stores the tensors, then the step log, each by an atomic rename:
killed at any instant, it leaves a bundle that ends with a whole interval and goes on from there to the same bits.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gensyn_verify.backends import vendor_package
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.names import VendorName, parse
from gensyn_verify.commit import RunAccumulator, StepEntry, run_commitment
from gensyn_verify.errors import BundleError
from gensyn_verify.program.program import Program
from gensyn_verify.protocol import manifest as m
from gensyn_verify.protocol import steps as log
from gensyn_verify.protocol import store as tensors
from gensyn_verify.protocol.folder import Folder, LocalFolder, MissingDataError, open_folder, read
from gensyn_verify.protocol.identity import SIGNATURE_BYTES, Identity
from gensyn_verify.protocol.roots import Group, constants, roots_of
from gensyn_verify.protocol.steps import Layout, Segment, StepRecord
from gensyn_verify.protocol.store import TensorStore
from gensyn_verify.protocol.task import MAX_STEPS, TASK_FILE, Task, open_task

FORMAT = "gensyn_verify.run"
COMMITMENT_FORMAT = "gensyn_verify.commitment"
VERSION = 1
MAX_MANIFEST = 1 << 20
RUN_FILE, COMMITMENT_FILE, LOCK_FILE, TASK_FOLDER = "run.json", "commitment.json", "lock", "task"


@dataclass(frozen=True)
class Header:
    """What a run is bound to from its first moment on."""

    task: bytes
    solver: bytes
    salt: bytes
    environment: dict[str, str]


@dataclass(frozen=True)
class Commitment:
    """What a solver publishes before it reveals anything: `digest` binds task, solver, salt and all step entries."""

    steps: int
    root: bytes
    digest: bytes
    signature: bytes


@dataclass(frozen=True)
class Run:
    """A run bundle, finished or not. `task` is known where the caller gave it or the run carries it (recorded runs)."""

    folder: Folder
    header: Header
    commitment: Commitment | None
    task: Task | None = None
    carries_task: bool = False
    store: TensorStore = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", TensorStore(self.folder))

    @property
    def url(self) -> str:
        return self.folder.url

    @property
    def finished(self) -> bool:
        return self.commitment is not None

    @property
    def intervals(self) -> list[int]:
        """The numbers of the step logs that are there, ascending."""
        numbers = []
        for name in self.folder.names(log.FOLDER):
            stem, _, suffix = name.rpartition(".")
            if suffix != "steps" or not stem.isdecimal() or not stem.isascii() or len(stem) > 12:
                raise BundleError(f"{self.url}: {log.FOLDER}/{name[:60]} is no step log of a run")
            if log.file_name(int(stem)) != f"{log.FOLDER}/{name}":
                raise BundleError(f"{self.url}: {log.FOLDER}/{name} should be named {log.file_name(int(stem))}")
            numbers.append(int(stem))
        return sorted(numbers)

    @property
    def steps_done(self) -> int:
        """How many steps the last step log reaches."""
        numbers = self.intervals
        if not numbers:
            return 0
        head = log.read_head(self.folder, numbers[-1])
        return head.first + head.count

    def segment(self, interval: int) -> Segment:
        """The step log of one interval; needs `task`."""
        assert self.task is not None
        return log.read_segment(self.folder, interval, Layout.of(self.task.program), self.task.interval)

    def checkpoint(self, interval: int | None = None) -> dict[str, Array]:
        """The stored state at the end of an interval, by default of the last one, verified against its roots."""
        assert self.task is not None
        numbers = self.intervals
        if not numbers:
            raise BundleError(f"{self.url} has no checkpoint yet: no interval is finished")
        segment = self.segment(numbers[-1] if interval is None else interval)
        return checkpoint(self.task, self.store, segment.end - 1, segment.steps[-1].state)


# ---- reading ----------------------------------------------------------------------------------------------------


def _environment(value: Any, where: str) -> dict[str, str]:
    return m.table(m.text(), 32)(value, where)


_run_schema = m.record(
    environment=_environment,
    format=m.literal(FORMAT),
    salt=m.digest,
    solver=m.blob(20),
    task=m.digest,
    version=m.literal(VERSION),
)
_commitment_schema = m.record(
    commitment=m.digest,
    format=m.literal(COMMITMENT_FORMAT),
    root=m.digest,
    signature=m.blob(0, SIGNATURE_BYTES),
    steps=m.integer(0, MAX_STEPS),
    version=m.literal(VERSION),
)


def open_run(path: str | os.PathLike[str], task: Task | str | os.PathLike[str] | None = None) -> Run:
    """The run at a path or URL. `task` (opened, path or URL) is the task it claims to solve; recorded runs carry it.

    Raises BundleError where there is no run or its manifests are malformed. Says nothing about truth: `replay` does.
    """
    folder = open_folder(path)
    header = _read_header(folder)
    if header is None:
        raise BundleError(f"{folder.url} holds no run: {RUN_FILE} is missing")
    carried = _carried_task(folder) if task is None else None
    if task is not None and not isinstance(task, Task):
        task = open_task(task)
    return Run(folder, header, _read_commitment(folder), task or carried, carries_task=carried is not None)


def _carried_task(folder: Folder) -> Task | None:
    if isinstance(folder, LocalFolder) and (folder.path / TASK_FOLDER).is_symlink():
        raise BundleError(f"{folder.url}: {TASK_FOLDER} is a symbolic link; a bundle has none")
    inner = open_folder(f"{folder.url}/{TASK_FOLDER}")
    return open_task(inner) if inner.size(TASK_FILE) is not None else None


def _read_header(folder: Folder) -> Header | None:
    try:
        data = read(folder, RUN_FILE, MAX_MANIFEST)
    except MissingDataError:
        return None
    v = m.decode(data, _run_schema, f"{folder.url}/{RUN_FILE}")
    return Header(v["task"], v["solver"], v["salt"], v["environment"])


def _read_commitment(folder: Folder) -> Commitment | None:
    try:
        data = read(folder, COMMITMENT_FILE, MAX_MANIFEST)
    except MissingDataError:
        return None
    v = m.decode(data, _commitment_schema, f"{folder.url}/{COMMITMENT_FILE}")
    return Commitment(v["steps"], v["root"], v["commitment"], v["signature"])


def checkpoint(task: Task, store: TensorStore, step: int, roots: Mapping[str, bytes]) -> dict[str, Array]:
    """The stored state after `step`, every tensor verified against its root."""
    types = task.program.inputs_of("state")
    return {n: store.get(types[n], roots[n], f"checkpoint after step {step}, tensor {n!r}") for n in types}


def stored_input(task: Task, store: TensorStore, step: int, record: StepRecord, role: str, name: str) -> Array:
    """A batch tensor or scalar of a step of a recorded run, verified against its root."""
    return store.get(task.program.inputs_of(role)[name], record.group(role)[name], f"step {step}, {role} {name!r}")


def stored_inputs(
    task: Task, store: TensorStore, step: int, record: StepRecord
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Batch and scalars of a step of a recorded run."""

    def group(role: str) -> dict[str, Array]:
        return {name: stored_input(task, store, step, record, role, name) for name in record.group(role)}

    return group("batch"), group("scalar")


def step_inputs(run: Run, step: int, record: StepRecord) -> tuple[dict[str, Array], dict[str, Array]]:
    """Batch and scalars of a step: the task's, or of a recorded run those that it stored."""
    task = run.task
    assert task is not None
    if task.recorded:
        return stored_inputs(task, run.store, step, record)
    return task.batch(step), task.scalars(step)


class StepHasher:
    """Tensors and records of a program's steps -> roots."""

    def __init__(self, program: Program) -> None:
        self._groups = {g: Group(program.inputs_of(g)) for g in log.GROUPS}
        self._constants = constants(program)

    def state_roots(self, state: Mapping[str, Array], before: Mapping[str, bytes]) -> dict[str, bytes]:
        """Tensor roots of the state after a step; a constant keeps the root it had `before`."""
        return roots_of(state, {name: before[name] for name in self._constants})

    def entry(self, step: int, record: StepRecord) -> StepEntry:
        """What the run commitment covers of one step."""
        state, batch, scalars = (self._groups[g].root(record.group(g)) for g in log.GROUPS)
        return StepEntry(step, state, batch, scalars)


# ---- writing ----------------------------------------------------------------------------------------------------


class RunWriter:
    """Appends steps to a run bundle and closes an interval at a time. Use as a context manager: it holds the lock."""

    def __init__(
        self,
        task: Task,
        out: str | os.PathLike[str],
        identity: Identity | None,
        *,
        salt: bytes | None,
        resume: bool,
        environment: Mapping[str, str],
    ) -> None:
        self.task = task
        self.folder = open_folder(out)
        self.store = TensorStore(self.folder)
        self.layout = Layout.of(task.program)
        self.hasher = StepHasher(task.program)
        self.accumulator = RunAccumulator()
        self.steps = 0
        self.saved_steps = 0
        self.last_roots: Mapping[str, bytes] = task.state
        self._saved_roots: Mapping[str, bytes] = task.state
        self._pending: list[StepRecord] = []
        self._identity = identity
        self._salt = salt
        self._resume = resume
        self._environment = dict(environment)
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> RunWriter:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_locked(self.folder))
            self._start()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        for sub in ("", log.FOLDER, tensors.FOLDER):
            self.folder.clean(sub)
        header = _read_header(self.folder)
        if header is None:
            if self.folder.names(log.FOLDER):
                raise BundleError(f"{self.folder.url} has step logs but no {RUN_FILE}; choose an empty folder")
            self.identity = self._identity or Identity.unsigned()
            salt = secrets.token_bytes(32) if self._salt is None else self._salt
            self.header = Header(self.task.digest, self.identity.address, salt, self._environment)
            self.folder.write(RUN_FILE, [m.encode(header_value(self.header))])
            self.folder.sync("")
            return
        if not self._resume:
            raise BundleError(f"{self.folder.url} holds a run already; choose another folder, or resume it")
        self._check_same_run(header)
        self.header = header
        self._read_back()

    def _check_same_run(self, header: Header) -> None:
        where = f"{self.folder.url} holds a run"
        if header.task != self.task.digest:
            raise BundleError(f"{where} of task {header.task.hex()}; the task to solve is {self.task.digest.hex()}")
        self.identity = self._identity or Identity.unsigned(header.solver)
        if header.solver != self.identity.address:
            given = self.identity.address.hex()
            raise BundleError(f"{where} by 0x{header.solver.hex()}; the identity given is 0x{given}")
        if self._salt is not None and header.salt != self._salt:
            raise BundleError(f"{where} under another salt; a run keeps the salt it began with")

    def rewind(self, state: Mapping[str, Array]) -> None:
        """Give up the steps after the one that left `state`; the run goes on from there.

        Raises BundleError, and gives up nothing, where no step of the run left it.
        """
        roots = roots_of(state)
        self.accumulator, self.steps, self.last_roots, self._pending = RunAccumulator(), 0, self.task.state, []
        self._saved()
        self._read_back(until=roots)
        if self.last_roots != roots:
            raise BundleError(f"{self.folder.url}: the state to go on from is none that this run has been in")
        for n in reversed(Run(self.folder, self.header, None, self.task).intervals):
            if n * self.task.interval >= self.steps:
                self.folder.remove(log.file_name(n))
        self.folder.sync(log.FOLDER)
        self.close_interval(state)

    def _read_back(self, until: Mapping[str, bytes] | None = None) -> None:
        """Take up the steps that are on disk, up to the one that left the state with the roots `until`.

        A last interval that is not whole is taken up and rewritten later.
        """
        run = Run(self.folder, self.header, None, self.task)
        numbers = run.intervals
        for n in numbers:
            if self.last_roots == until:
                return
            segment = run.segment(n)
            whole = len(segment.steps) == self.task.interval or n == numbers[-1]
            if not (segment.interval == n and n * self.task.interval == segment.first == self.steps and whole):
                raise BundleError(
                    f"{self.folder.url}: the log of interval {n} holds steps {segment.first} to {segment.end - 1}, "
                    f"which does not continue step {self.steps - 1}; remove it and what follows, then resume"
                )
            self._pending = []
            for record in segment.steps:
                if self.last_roots != until:
                    self._take(record)
            if len(self._pending) < len(segment.steps):
                return
            if len(segment.steps) == self.task.interval:
                self._pending = []
            self._saved()

    def _saved(self) -> None:
        self.saved_steps, self._saved_roots = self.steps, self.last_roots

    def saved_state(self) -> dict[str, Array]:
        """The state before step `saved_steps`: the last checkpoint on disk, verified against its roots."""
        if self.saved_steps == 0:
            return self.task.initial_state()
        return checkpoint(self.task, self.store, self.saved_steps - 1, self._saved_roots)

    def append(
        self,
        state: Mapping[str, Array],
        batch: Mapping[str, Array],
        scalars: Mapping[str, Array],
        metrics: Mapping[str, Array],
    ) -> None:
        """One step: what went in and what came out. Closes the interval when it is full."""
        state_roots = self.hasher.state_roots(state, self.last_roots)
        record = StepRecord(state_roots, roots_of(batch), roots_of(scalars), log.metrics_of(self.layout, metrics))
        if self.task.recorded:
            self._store("batch", batch, record.batch)
            self._store("scalar", scalars, record.scalar)
        self.add(record, state)

    def add(self, record: StepRecord, state: Mapping[str, Array] | None) -> None:
        """One record; the state behind it is needed where it ends an interval."""
        self._take(record)
        if self.steps % self.task.interval == 0 or self.steps == self.task.steps:
            assert state is not None
            self.close_interval(state)

    def _take(self, record: StepRecord) -> None:
        self.accumulator.append(self.hasher.entry(self.steps, record))
        self._pending.append(record)
        self.last_roots = record.state
        self.steps += 1

    def _store(self, role: str, arrays: Mapping[str, Array], roots: Mapping[str, bytes]) -> None:
        types = self.task.program.inputs_of(role)
        for name, root in roots.items():
            self.store.put(arrays[name], types[name], root)

    def stored_inputs(self, step: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Batch and scalars of a step of the interval that is open, in a recorded run."""
        return stored_inputs(self.task, self.store, step, self._pending[step - (self.steps - len(self._pending))])

    def close_interval(self, state: Mapping[str, Array]) -> None:
        """Write checkpoint and step log of the steps since the last whole interval; `state` is the last step's."""
        if not self._pending:
            return
        self._store("state", state, self.last_roots)
        self.store.sync()
        number = (self.steps - 1) // self.task.interval
        segment = Segment(number, number * self.task.interval, tuple(self._pending))
        self.folder.write(log.file_name(number), [self.layout.encode(segment)])
        self.folder.sync(log.FOLDER)
        self._saved()
        if self.steps % self.task.interval == 0:
            self._pending = []

    def finish(self) -> Run:
        """Write and sign the commitment; every step must be in a closed interval."""
        root = self.accumulator.root()
        digest = run_commitment(self.header.task, self.header.solver, self.header.salt, self.steps, root)
        commitment = Commitment(self.steps, root, digest, self.identity.sign(digest))
        self.folder.write(COMMITMENT_FILE, [m.encode(_commitment_value(commitment))])
        self.folder.sync("")
        return Run(self.folder, self.header, commitment, self.task)


def header_value(header: Header) -> dict[str, Any]:
    """What run.json holds."""
    return {
        "environment": header.environment,
        "format": FORMAT,
        "salt": header.salt.hex(),
        "solver": header.solver.hex(),
        "task": header.task.hex(),
        "version": VERSION,
    }


def _commitment_value(c: Commitment) -> dict[str, Any]:
    return {
        "commitment": c.digest.hex(),
        "format": COMMITMENT_FORMAT,
        "root": c.root.hex(),
        "signature": c.signature.hex(),
        "steps": c.steps,
        "version": VERSION,
    }


@contextlib.contextmanager
def _locked(folder: Folder) -> Iterator[None]:
    """One writer a local bundle; the lock goes with the process, however it ends."""
    if not isinstance(folder, LocalFolder):
        yield
        return
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise BundleError(f"{folder.url} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BundleError(f"{folder.url}: another process is writing this run") from None
    finally:
        os.close(fd)


def environment(backend: str) -> dict[str, str]:
    """Versions and machine, for whoever wonders later; nothing depends on it."""
    try:
        version = importlib.metadata.version("gensyn_verify")
    except importlib.metadata.PackageNotFoundError:
        version = "unpackaged"
    name = parse(backend)
    kernels = {}
    if isinstance(name, VendorName):
        kernels = vendor_package().environment(name)
    elif name == "cpu":
        from gensyn_verify import _native

        kernels = {"isa": _native.isa(), "threads": str(_native.get_threads())}
    return {
        **kernels,
        "backend": backend,
        "gensyn_verify": version,
        "machine": platform.machine(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }

"""The task bundle: everything that a run is a function of, and its digest.

    task.json      canonical manifest: digests and numbers, no shape and no path
    program        canonical bytes of the program
    origins.json   where each node comes from in the submitter's source; for people, not committed
    tensors/       initial state, data, schedule, by content

The manifest states no type: the types of state, data and schedule follow from the program, the rows of the sampler
and the number of steps, so they cannot contradict each other. The digest is a Merkle root over eight named leaves, so
that a contract can open one (`Task.leaves`). Format: docs/formats.md.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from gensyn_verify.backends.arrays import Array, check_arrays
from gensyn_verify.commit import keccak256
from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.program.encoding import MAX_PROGRAM_BYTES, decode, encode, program_digest
from gensyn_verify.program.merkle import leaf_digest, merkle_path, merkle_root
from gensyn_verify.program.program import MAX_NODES, Node, Program
from gensyn_verify.program.types import TensorType
from gensyn_verify.protocol import manifest as m
from gensyn_verify.protocol.folder import Folder, MissingDataError, open_folder, read
from gensyn_verify.protocol.limits import check_memory
from gensyn_verify.protocol.policy import Policy, parse_policy
from gensyn_verify.protocol.roots import group_root, roots_of
from gensyn_verify.protocol.sampler import MAX_BATCH, MAX_ROWS, Sampler
from gensyn_verify.protocol.store import TensorStore

FORMAT = "gensyn_verify.task"
VERSION = 1
MAX_STEPS = 1 << 40
MAX_INTERVAL = 1 << 20
MAX_MANIFEST = 1 << 26
MAX_ORIGIN = 2000
PROGRAM_FILE, TASK_FILE, ORIGINS_FILE = "program", "task.json", "origins.json"


@dataclass(frozen=True)
class Task:
    """A validated task. `sampler` is None and `steps` 0 for a recorded task, whose batches the run itself carries."""

    program: Program
    state: dict[str, bytes]
    data: dict[str, bytes]
    schedule: dict[str, bytes]
    sampler: Sampler | None
    steps: int
    interval: int
    policy: Policy
    store: TensorStore = field(compare=False, repr=False)
    _loaded: dict[str, dict[str, Array]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        p = self.program
        _same_names("state", self.state, p.inputs_of("state"))
        if self.recorded:
            if self.data or self.schedule or self.steps:
                raise BundleError("a recorded task has no data, no schedule and 0 steps: its runs carry them")
        else:
            _same_names("data", self.data, p.inputs_of("batch"))
            _same_names("schedule", self.schedule, p.inputs_of("scalar"))
            if not 1 <= self.steps <= MAX_STEPS:
                raise BundleError(f"steps is {self.steps}; expected 1 to 2^40")
        if not 1 <= self.interval <= MAX_INTERVAL:
            raise BundleError(f"interval is {self.interval}; expected 1 to 2^20 steps")
        for group in (self.data_types, self.schedule_types):
            for name, type in group.items():
                m.placed(name, type.check)

    @property
    def recorded(self) -> bool:
        return self.sampler is None

    @cached_property
    def data_types(self) -> dict[str, TensorType]:
        """Type of every data tensor: a program's batch input with `rows` for its first dimension."""
        if self.sampler is None:
            return {}
        return data_types(self.program, self.sampler)

    @cached_property
    def schedule_types(self) -> dict[str, TensorType]:
        """Type of every schedule tensor: a scalar input with the steps as first dimension."""
        if self.sampler is None:
            return {}
        return schedule_types(self.program, self.steps)

    @property
    def intervals(self) -> int:
        return -(-self.steps // self.interval)

    # ---- commitment ---------------------------------------------------------------------------------------------

    @cached_property
    def program_digest(self) -> bytes:
        return program_digest(self.program, keccak256)

    @cached_property
    def leaves(self) -> dict[str, bytes]:
        """The eight leaves under the digest, in order, as name -> value."""
        program = self.program
        return {
            "format": f"{FORMAT}.{VERSION}".encode("ascii"),
            "program": self.program_digest,
            "state": group_root(program.inputs_of("state"), self.state),
            "data": group_root(self.data_types, self.data),
            "sampler": b"" if self.sampler is None else self.sampler.record(),
            "schedule": group_root(self.schedule_types, self.schedule),
            "extent": self.steps.to_bytes(8, "big") + self.interval.to_bytes(8, "big"),
            "policy": m.encode(self.policy.to_value()),
        }

    @cached_property
    def _leaf_bytes(self) -> list[bytes]:
        return [bytes([len(name)]) + name.encode("ascii") + value for name, value in self.leaves.items()]

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that name the task: the Merkle root over the leaves, each u8 length | name | value."""
        return merkle_root(self._leaf_bytes)

    def opening(self, name: str) -> tuple[bytes, int, int, list[bytes]]:
        """(leaf bytes, index, count, path): proof of one leaf against the digest."""
        index = list(self.leaves).index(name)
        path = merkle_path([leaf_digest(x) for x in self._leaf_bytes], index)
        return self._leaf_bytes[index], index, len(self.leaves), path

    # ---- tensors ------------------------------------------------------------------------------------------------

    def initial_state(self) -> dict[str, Array]:
        """The state before step 0, verified against its roots."""
        return _load(self.store, "initial state", self.program.inputs_of("state"), self.state)

    def group(self, group: str) -> dict[str, Array]:
        """Data or schedule tensors, loaded and verified once."""
        if group not in self._loaded:
            types, roots = {
                "data": (self.data_types, self.data),
                "schedule": (self.schedule_types, self.schedule),
            }[group]
            self._loaded[group] = _load(self.store, group, types, roots)
        return self._loaded[group]

    def batch(self, step: int) -> dict[str, Array]:
        """The batch that `step` trains on."""
        assert self.sampler is not None
        rows = self.sampler.indices(step)
        return {name: array[rows] for name, array in self.group("data").items()}

    def scalars(self, step: int) -> dict[str, Array]:
        """The per-step scalars of `step`."""
        return {name: np.asarray(array[step]) for name, array in self.group("schedule").items()}


def data_types(program: Program, sampler: Sampler) -> dict[str, TensorType]:
    out = {}
    for name, type in program.inputs_of("batch").items():
        if not type.shape or type.shape[0] != sampler.batch:
            raise BundleError(f"batch input {name!r} is {type}; its first dimension must be the batch, {sampler.batch}")
        out[name] = TensorType(type.dtype, (sampler.rows, *type.shape[1:]))
    return out


def schedule_types(program: Program, steps: int) -> dict[str, TensorType]:
    return {name: TensorType(t.dtype, (steps, *t.shape)) for name, t in program.inputs_of("scalar").items()}


def _same_names(what: str, roots: Mapping[str, bytes], types: Mapping[str, TensorType]) -> None:
    missing, extra = sorted(set(types) - set(roots)), sorted(set(roots) - set(types))
    if missing or extra:
        raise BundleError(f"{what}: missing {missing or 'none'}, unknown {extra or 'none'} beside the program's inputs")


def _load(
    store: TensorStore, what: str, types: Mapping[str, TensorType], roots: Mapping[str, bytes]
) -> dict[str, Array]:
    mapped = what == "data"  # of which a step reads a few rows
    return {name: store.get(types[name], roots[name], f"{what} tensor {name!r}", mapped) for name in types}


# ---- writing ----------------------------------------------------------------------------------------------------


def write_task(
    path: str | os.PathLike[str],
    program: Program,
    state: Mapping[str, Array],
    *,
    data: Mapping[str, Array] | None = None,
    schedule: Mapping[str, Array] | None = None,
    sampler: Sampler | None = None,
    steps: int = 0,
    interval: int,
    policy: Policy | None = None,
) -> Task:
    """Write a task bundle and return it opened; without a sampler it is a recorded task.

    Arrays are carriers (`backends.arrays`): state by type of the program, data [rows, ...], schedule [steps, ...].
    Raises MalformedError where an array does not fit and BundleError where a task lies at `path` already.
    """
    folder = open_folder(path)
    if folder.size(TASK_FILE) is not None:
        raise BundleError(f"{folder.url} holds a task already; choose another path")
    store = TensorStore(folder)
    given: dict[str, Mapping[str, Array]] = {"state": state, "data": data or {}, "schedule": schedule or {}}
    types = {"state": program.inputs_of("state"), "data": {}, "schedule": {}}
    if sampler is not None:
        types |= {"data": data_types(program, sampler), "schedule": schedule_types(program, steps)}
    roots = {}
    for group, arrays in given.items():
        checked = check_arrays(arrays, types[group], group)
        roots[group] = roots_of(checked)
        for name, array in checked.items():
            store.put(array, types[group][name], roots[group][name])
    task = Task(
        program, roots["state"], roots["data"], roots["schedule"], sampler, steps, interval, policy or Policy(), store
    )
    folder.write(PROGRAM_FILE, [encode(program)])
    origins = [_printable(node.origin) for node in program.nodes]
    folder.write(ORIGINS_FILE, [m.encode({"origins": origins})])
    store.sync()
    folder.write(TASK_FILE, [m.encode(_to_value(task))])
    folder.sync("")
    return task


def _printable(origin: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in origin)[:MAX_ORIGIN]


def _to_value(task: Task) -> dict[str, Any]:
    s = task.sampler
    return {
        "data": _hex(task.data),
        "format": FORMAT,
        "interval": task.interval,
        "policy": task.policy.to_value(),
        "program": task.program_digest.hex(),
        "sampler": [] if s is None else [{"batch": s.batch, "rows": s.rows, "seed": list(s.seed)}],
        "schedule": _hex(task.schedule),
        "state": _hex(task.state),
        "steps": task.steps,
        "version": VERSION,
    }


def _hex(roots: Mapping[str, bytes]) -> dict[str, str]:
    return {name: root.hex() for name, root in roots.items()}


# ---- reading ----------------------------------------------------------------------------------------------------

_roots = m.table(m.digest, MAX_NODES)
_schema = m.record(
    data=_roots,
    format=m.literal(FORMAT),
    interval=m.integer(1, MAX_INTERVAL),
    policy=parse_policy,
    program=m.digest,
    sampler=m.array(
        m.record(
            batch=m.integer(1, MAX_BATCH),
            rows=m.integer(1, MAX_ROWS),
            seed=m.array(m.integer(0, (1 << 32) - 1), 2),
        ),
        1,
    ),
    schedule=_roots,
    state=_roots,
    steps=m.integer(0, MAX_STEPS),
    version=m.literal(VERSION),
)


def open_task(path: str | os.PathLike[str] | Folder, memory_limit: int | None = None) -> Task:
    """The task at a path or URL. Its tensors are read, and checked against their roots, when they are needed.

    Raises BundleError (or LimitError where a step and the data would not fit into `memory_limit` bytes; the default
    is the machine's memory).
    """
    folder = open_folder(path) if isinstance(path, str | os.PathLike) else path
    where = f"{folder.url}/{TASK_FILE}"
    try:
        value = m.decode(read(folder, TASK_FILE, MAX_MANIFEST), _schema, where)
    except MissingDataError:
        raise BundleError(f"{folder.url} holds no task: {TASK_FILE} is missing") from None
    program = decode(read(folder, PROGRAM_FILE, MAX_PROGRAM_BYTES), f"{folder.url}/{PROGRAM_FILE}")
    found = program_digest(program, keccak256)
    if found != value["program"]:
        raise BundleError(
            f"{folder.url}: the program has digest {found.hex()}, the manifest names {value['program'].hex()}"
        )
    program = _with_origins(folder, program)
    try:
        sampler = None
        if value["sampler"]:
            (s,) = value["sampler"]
            sampler = Sampler(tuple(s["seed"]), s["rows"], s["batch"])
        task = Task(
            program, value["state"], value["data"], value["schedule"], sampler, value["steps"], value["interval"],
            value["policy"], TensorStore(folder),
        )  # fmt: skip
    except MalformedError as error:
        kind = type(error) if isinstance(error, BundleError) else BundleError
        raise kind(f"{where}: {error}") from None
    tensors = [t for t in task.data_types.values() if not task.store.maps(t)] + [*task.schedule_types.values()]
    check_memory(program, sum(t.nbytes for t in tensors), memory_limit, folder.url)
    return task


def _with_origins(folder: Folder, program: Program) -> Program:
    """The program with the sidecar's origins, where there is one."""
    schema = m.record(origins=m.array(m.text(MAX_ORIGIN), MAX_NODES))
    try:
        data = read(folder, ORIGINS_FILE, MAX_MANIFEST)
    except MissingDataError:
        return program
    origins: Sequence[str] = m.decode(data, schema, f"{folder.url}/{ORIGINS_FILE}")["origins"]
    if len(origins) != len(program.nodes):
        raise BundleError(f"{folder.url}/{ORIGINS_FILE}: {len(origins)} origins for {len(program.nodes)} nodes")
    nodes = tuple(Node(n.op, n.inputs, n.types, o) for n, o in zip(program.nodes, origins, strict=True))
    return dataclasses.replace(program, nodes=nodes)


# ---- from a captured training step ------------------------------------------------------------------------------


class Captured(Protocol):
    """What a task needs of a captured training step; `frontend.Captured` is one."""

    @property
    def program(self) -> Program: ...
    @property
    def state(self) -> Mapping[str, Array]: ...
    @property
    def schedule(self) -> Callable[[int], Mapping[str, Array]]: ...


def make_task(
    captured: Captured,
    data: Mapping[str, Array],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    interval: int,
    path: str | os.PathLike[str],
    policy: Policy | None = None,
) -> Task:
    """A task bundle at `path` from a captured training step and its data.

    `captured` has `program`, `state` and `schedule(step)` for steps counted from 1, as `frontend.trace_step` gives it.
    `data` are carrier arrays [rows, ...] by name of batch input. `seed`: below 2^64, of the order of batches.
    """
    if not 0 <= seed < 1 << 64:
        raise MalformedError(f"seed {seed} is not from 0 to 2^64 - 1")
    if not 1 <= steps <= MAX_STEPS:
        raise MalformedError(f"{steps} steps; expected 1 to 2^40")
    rows = {name: array.shape[0] if array.ndim else 0 for name, array in data.items()}
    if len(set(rows.values())) != 1:
        raise MalformedError(f"the data's first dimensions must be one number of rows, found {rows}")
    per_step = [captured.schedule(step) for step in range(1, steps + 1)]
    schedule = {name: np.stack([scalars[name] for scalars in per_step]) for name in per_step[0]}
    return write_task(
        path,
        captured.program,
        captured.state,
        data=data,
        schedule=schedule,
        sampler=Sampler((seed & 0xFFFFFFFF, seed >> 32), next(iter(rows.values())), batch_size),
        steps=steps,
        interval=interval,
        policy=policy,
    )

"""The step log: one file an interval, fixed-size records, the tensor roots of every step.

    steps/<interval, 8 digits>.steps
    b"gvsteps1" | u64 interval | u64 first step | u32 count | u32 state | u32 batch | u32 scalars | u32 metric bytes
    then `count` records: state roots, batch roots, scalar roots (32 bytes a tensor, in name order), metric bytes

All integers are big endian. One file an interval, and not one growing manifest, because closing an interval then
writes what the interval is long, whatever came before it, and a file that was once written never changes. Records
hold the roots of single tensors, and roots of states, batches and scalars are computed from them: nothing is stated
twice, and a mismatch can name the tensor. They are binary, not JSON, because the sizes in the header give the size of
the file, which is checked before anything is read. Metrics are values of rank 0 as the solver reports them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.errors import BundleError, LimitError
from gensyn_verify.program.program import Program
from gensyn_verify.program.types import TensorType
from gensyn_verify.protocol.folder import Folder

FOLDER = "steps"
MAGIC = b"gvsteps1"
MAX_BYTES = 1 << 30
_HEADER = struct.Struct(">8sQQIIIII")
GROUPS = ("state", "batch", "scalar")


@dataclass(frozen=True)
class StepRecord:
    """Tensor roots by group and name, and the metrics, of one step."""

    state: dict[str, bytes]
    batch: dict[str, bytes]
    scalar: dict[str, bytes]
    metrics: dict[str, Array]

    def group(self, name: str) -> dict[str, bytes]:
        groups: dict[str, dict[str, bytes]] = {"state": self.state, "batch": self.batch, "scalar": self.scalar}
        return groups[name]


@dataclass(frozen=True)
class Segment:
    """The steps of one interval, `first` to `first + len(steps) - 1`."""

    interval: int
    first: int
    steps: tuple[StepRecord, ...]

    @property
    def end(self) -> int:
        return self.first + len(self.steps)


@dataclass(frozen=True)
class Layout:
    """What a record of a program holds, in order."""

    names: dict[str, tuple[str, ...]]
    metrics: dict[str, TensorType]

    @staticmethod
    def of(program: Program) -> Layout:
        names = {role: tuple(program.inputs_of(role)) for role in GROUPS}
        return Layout(names, {n: t for n, t in program.outputs_of("metric").items() if not t.shape})

    @cached_property
    def counts(self) -> tuple[int, int, int, int]:
        state, batch, scalar = (len(self.names[g]) for g in GROUPS)
        return state, batch, scalar, sum(t.nbytes for t in self.metrics.values())

    @cached_property
    def record_bytes(self) -> int:
        return _record_bytes(self.counts)

    def encode(self, segment: Segment) -> bytes:
        out = [_HEADER.pack(MAGIC, segment.interval, segment.first, len(segment.steps), *self.counts)]
        for record in segment.steps:
            for group in GROUPS:
                roots = record.group(group)
                out.extend(roots[name] for name in self.names[group])
            out.extend(record.metrics[name].tobytes() for name in self.metrics)
        return b"".join(out)

    def decode_record(self, data: memoryview) -> StepRecord:
        at = 0

        def take(n: int) -> bytes:
            nonlocal at
            at += n
            return bytes(data[at - n : at])

        groups = {group: {name: take(32) for name in self.names[group]} for group in GROUPS}
        metrics = {n: np.frombuffer(take(t.nbytes), CARRIER[t.dtype]).reshape(()) for n, t in self.metrics.items()}
        return StepRecord(groups["state"], groups["batch"], groups["scalar"], metrics)


def _record_bytes(counts: tuple[int, int, int, int]) -> int:
    return 32 * sum(counts[:3]) + counts[3]


def file_name(interval: int) -> str:
    return f"{FOLDER}/{interval:08d}.steps"


@dataclass(frozen=True)
class SegmentHead:
    """The header of a segment file, checked against its size."""

    interval: int
    first: int
    count: int
    counts: tuple[int, int, int, int]


def read_head(folder: Folder, interval: int) -> SegmentHead:
    """The header of one segment; raises BundleError where header and file size contradict each other."""
    head, _ = _read(folder, interval, None)
    return head


def read_segment(folder: Folder, interval: int, layout: Layout, most: int) -> Segment:
    """One segment of at most `most` steps, of a run of the program that `layout` is of."""
    head, data = _read(folder, interval, (layout, most))
    view = memoryview(data)
    size = layout.record_bytes
    records = tuple(layout.decode_record(view[i * size : (i + 1) * size]) for i in range(head.count))
    return Segment(head.interval, head.first, records)


def _read(folder: Folder, interval: int, wanted: tuple[Layout, int] | None) -> tuple[SegmentHead, bytes]:
    name = file_name(interval)
    where = f"{folder.url}/{name}"
    with folder.open(name) as (file, size):
        raw = file.read(_HEADER.size)
        if len(raw) != _HEADER.size:
            raise BundleError(f"{where}: {len(raw)} bytes; a step log has at least {_HEADER.size}")
        magic, found, first, count, *sizes = _HEADER.unpack(raw)
        head = SegmentHead(found, first, count, tuple(sizes))
        if magic != MAGIC:
            raise BundleError(f"{where} does not start with {MAGIC.decode()}: it is no step log of this version")
        expected = _HEADER.size + count * _record_bytes(head.counts)
        if size != expected or count == 0:
            raise BundleError(f"{where}: {count} steps take {expected} bytes (at least one step), the file has {size}")
        if wanted is None:
            return head, b""
        layout, most = wanted
        if head.counts != layout.counts:
            raise BundleError(
                f"{where}: {head.counts} state, batch, scalar tensors and metric bytes a step; "
                f"the task's program has {layout.counts}"
            )
        if count > most:
            raise BundleError(f"{where}: {count} steps in an interval of {most}")
        if size > MAX_BYTES:
            raise LimitError(f"{where}: {size} bytes; the limit is {MAX_BYTES}")
        data = file.read(size - _HEADER.size)
    if len(data) != size - _HEADER.size:
        raise BundleError(f"{where}: changed while it was read")
    return head, data


def metrics_of(layout: Layout, metrics: Mapping[str, Array]) -> dict[str, Array]:
    """The metrics that the log keeps, copied out of the executor."""
    return {name: np.array(metrics[name]) for name in layout.metrics}

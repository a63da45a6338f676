"""A plan on a GPU: its arena in device memory, its launches recorded once as a CUDA graph and launched as one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import accumulate
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.cuda import driver, kernels
from gensyn_verify.backends.cuda.launch import Launch, Launches
from gensyn_verify.backends.device.hashing import NODE, forest
from gensyn_verify.backends.device.plan import ALIGN, Plan
from gensyn_verify.backends.device.pointers import DeviceTensor
from gensyn_verify.errors import LimitError

HASH_THREADS = 128


P = ParamSpec("P")
R = TypeVar("R")


def _on_its_device(method: Callable[Concatenate[CudaMachine, P], R]) -> Callable[Concatenate[CudaMachine, P], R]:
    """The method with the machine's device as the current one."""

    @wraps(method)
    def inside(self: CudaMachine, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.device.current():
            return method(self, *args, **kwargs)

    return inside


class CudaMachine:
    """device.executor.Machine on GPU `number`, by default torch's current one, else the first.

    `graph=False` launches kernel by kernel. `stream` is a handle, torch's for instance; by default it has its own.
    """

    def __init__(self, plan: Plan, number: int | None = None, graph: bool = True, stream: int | None = None) -> None:
        self.device = driver.device(driver.current_number() if number is None else number)
        self._use_graph, self._warm = graph, False
        self._graph: driver.Graph | None = None
        self._hashes: dict[tuple[tuple[int, int], ...], _Hashes] = {}
        self._snapshot: Snapshot | None = None
        self._prepare(plan, stream)

    @_on_its_device
    def _prepare(self, plan: Plan, stream: int | None) -> None:
        device = self.device
        shape = (device.multiprocessors, device.shared_bytes, device.capability)
        planned = Launches(plan, 0, *shape)
        needed, free = planned.total_bytes, driver.free_bytes()
        if needed > free:
            raise LimitError(f"the program needs {needed} bytes on {device.name}, which has {free} free")
        self._memory = driver.Memory(max(needed, 64))
        self._launches = planned.moved(self._memory.address).launches
        self._modules = {name: driver.Module(text, "kernels of the program") for name, text in planned.modules.items()}
        self.stream = driver.Stream(stream)
        for launch in self._launches:
            self._load(launch.module)

    def _load(self, module: str) -> driver.Module:
        if module not in self._modules:
            text = kernels.text(module, self.device.capability)
            self._modules[module] = driver.Module(text, f"kernels {module!r}")
        return self._modules[module]

    @_on_its_device
    def write(self, offset: int, data: Array) -> None:
        self.stream.write(self._memory.address + offset, data)

    @_on_its_device
    def read(self, offset: int, nbytes: int) -> Array:
        return self.stream.read(self._memory.address + offset, nbytes)

    @_on_its_device
    def copy(self, offset: int, tensor: DeviceTensor) -> None:
        to, nbytes = self._memory.address + offset, tensor.type.nbytes
        if tensor.stream is None:
            self.stream.copy(to, tensor.address, nbytes)
            self.stream.synchronize()  # its owner may free it
            return
        owner, event = driver.Stream(tensor.stream), driver.Event()
        owner.record(event)
        self.stream.wait(event)
        self.stream.copy(to, tensor.address, nbytes)
        self.stream.record(event)
        owner.wait(event)  # what its owner does with it afterwards

    def address(self, offset: int) -> int:
        self.synchronize()
        return self._memory.address + offset

    @_on_its_device
    def run(self) -> None:
        if not self._launches:
            return
        if not self._use_graph or not self._warm:  # at the first launch a driver may load code, which no graph records
            self._launch(self._launches, self.stream)
            self._warm = True
            return
        if self._graph is None:
            self.stream.begin_capture()
            self._launch(self._launches, self.stream)
            self._graph = self.stream.end_capture()
        self.stream.launch_graph(self._graph)

    @_on_its_device
    def roots(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        addresses = [(self._memory.address + begin, self._memory.address + end) for begin, end in spans]
        hashes = self._hash(self.stream, addresses)
        return hashes.read(self.stream)

    @_on_its_device
    def snapshot(self, spans: Sequence[tuple[int, int]]) -> Snapshot:
        """Copies on the device, then hashes on a stream of their own: the next step need not wait for either."""
        if self._snapshot is None:
            self._snapshot = Snapshot(self, spans)
        self._snapshot.take(self._memory.address, self.stream)
        return self._snapshot

    def _hash(self, stream: driver.Stream, addresses: Sequence[tuple[int, int]]) -> _Hashes:
        """The hashing of address ranges, asked for on a stream."""
        key = tuple(addresses)
        if key not in self._hashes:
            self._load("blake3")
            self._hashes[key] = _Hashes(key, stream)
        self._launch(self._hashes[key].launches, stream)
        return self._hashes[key]

    @_on_its_device
    def synchronize(self) -> None:
        self.stream.synchronize()

    def _launch(self, launches: Sequence[Launch], stream: driver.Stream) -> None:
        for one in launches:
            function = self._modules[one.module].function(one.kernel)
            stream.launch(function, one.grid, one.threads, one.shared, one.parameters)


class Snapshot:
    """A copy of byte ranges of the arena in memory of its own, with a stream of its own, and their roots."""

    def __init__(self, machine: CudaMachine, spans: Sequence[tuple[int, int]]) -> None:
        starts = list(accumulate((-(-(end - begin) // ALIGN) * ALIGN for begin, end in spans), initial=0))
        self._machine = machine
        self._memory = driver.Memory(max(starts[-1], ALIGN))
        self._at = {span: self._memory.address + start for span, start in zip(spans, starts, strict=False)}
        self._stream, self._taken, self._idle = driver.Stream(), driver.Event(), driver.Event()
        self._stream.record(self._idle)

    def take(self, base: int, compute: driver.Stream) -> None:
        compute.wait(self._idle)  # the last snapshot has been read
        for (begin, end), to in self._at.items():
            if begin < end:
                compute.copy(to, base + begin, end - begin)
        compute.record(self._taken)
        self._stream.wait(self._taken)
        self._hashes = self._machine._hash(self._stream, [self._address(span) for span in self._at])
        self._stream.record(self._idle)

    def read(self, offset: int, nbytes: int) -> Array:
        with self._machine.device.current():
            out = self._stream.read(self._at[offset, offset + nbytes], nbytes)
            self._stream.record(self._idle)
        return out

    def roots(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        with self._machine.device.current():
            found = dict(zip(self._at, self._hashes.read(self._stream), strict=True))
        return [found[span] for span in spans]

    def _address(self, span: tuple[int, int]) -> tuple[int, int]:
        return self._at[span], self._at[span] + span[1] - span[0]


class _Hashes:
    """BLAKE3 of address ranges, level by level for all of them at once; only roots come back."""

    def __init__(self, spans: Sequence[tuple[int, int]], stream: driver.Stream) -> None:
        self._trees = trees = forest(spans)
        self._tables = driver.Memory(max(trees.rows.nbytes, 64))
        self._nodes = [driver.Memory(n) for n in trees.node_bytes]
        stream.write(self._tables.address, trees.rows.reshape(-1).view(np.uint8))
        stream.synchronize()
        self.launches = []
        for depth, (row, filled, total) in enumerate(trees.launches):
            self._roots, below = self._nodes[filled].address, self._nodes[1 - filled].address
            rows, nodes = self._tables.address + row, (below, self._roots) if depth else (self._roots, 0)
            words = struct.pack("<6q", rows, *nodes, trees.count, total, 1)
            kernel = "gv_blake3_parents" if depth else "gv_blake3_chunks"
            grid = (max(1, -(-total // HASH_THREADS)), 1, 1)
            shared = 0 if depth else 4 * 17 * HASH_THREADS
            if total:
                self.launches.append(Launch("blake3", kernel, grid, HASH_THREADS, shared, (words,)))

    def read(self, stream: driver.Stream) -> list[bytes]:
        count = self._trees.count
        return self._trees.split(stream.read(self._roots, NODE * count).tobytes() if count else b"")

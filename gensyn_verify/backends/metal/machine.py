"""A plan's arena in a Metal buffer, its calls as launches, and on the host the calls that a GPU may have got wrong.

Behind the arena the buffer holds a flag a guarded call, a copy of the state that a step begins with, scratch memory,
and the trees of BLAKE3 over the state.

A step runs whole, then the flags are read, once. If none is set every bit is right. Otherwise the step begins again
from the copy, one call after the other, and a call whose flag is set is computed by the CPU from its operands; a call
that may write over them has its outputs put back before. A step after such a step goes call by call at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device import plan
from gensyn_verify.backends.device.hashing import NODE, forest
from gensyn_verify.backends.metal import source
from gensyn_verify.backends.metal.host import HostCall, host_call
from gensyn_verify.backends.metal.launches import FLAG_BYTES, Launch, Lowering, aligned, copy, flat, hashing, is_guarded


class Library(Protocol):
    """Buffers of a device, and kernels from source."""

    def compile(self, source: str) -> Any:
        """Kernels as attributes: kernel(buffer, list of int, threads=[x, y, z], group_size=[x, y, z]), as those of
        torch.mps.compile_shader.
        """

    def buffer(self, nbytes: int) -> Any:
        """Memory that kernels and `read` and `write` reach, all zeros."""

    def read(self, buffer: Any, offset: int, nbytes: int) -> Array:
        """uint8[nbytes], after all that was launched before."""

    def write(self, buffer: Any, offset: int, data: Array) -> None:
        """Copies uint8[n], after all that was launched before."""


class MetalMachine:
    """device.executor.Machine. `host_calls` are the calls that the CPU computed in the last step, by number; `kernels`
    the names of those that the plan's scalar programs became.
    """

    def __init__(self, plan_: plan.Plan, library: Library) -> None:
        scalars = plan_.program.scalar_programs
        guarded = [n for n, call in enumerate(plan_.plain) if is_guarded(call, scalars)]
        spans = _merged([p.span for p in plan_.states]) if guarded else []  # other inputs are only read
        self._flags = aligned(plan_.arena_bytes)
        self._flag_of = {n: self._flags + FLAG_BYTES * i for i, n in enumerate(guarded)}
        spare = self._flags + FLAG_BYTES * len(guarded)  # of calls that are never risky
        saved = aligned(spare + FLAG_BYTES)
        scratch = aligned(saved + sum(end - begin for begin, end in spans))
        self._save, self._restore = _both_ways(spans, saved)

        lowering = Lowering(scalars, scratch)
        self._launches = [lowering.launches(call, self._flag_of.get(n, spare)) for n, call in enumerate(plan_.plain)]
        words = FLAG_BYTES // 4 * len(guarded)
        self._clear = flat("gv_fill", (self._flags, 4, words, 0), words)
        self.kernels = frozenset(lowering.arrangements.values())
        fixed = library.compile(source.kernels())
        maps = "\n".join(a.source(name) for a, name in lowering.arrangements.items())
        generated = library.compile(source.common() + maps) if maps else None
        self._trees = aligned(scratch + lowering.scratch_bytes)
        hashed = hashing(forest([p.span for p in plan_.states]), self._trees)
        launched = (*self._launches, self._save, self._clear, hashed.launches)
        names = {launch.kernel for launches in launched for launch in launches}
        self._kernel = {n: getattr(generated if n in self.kernels else fixed, n) for n in names}
        self._library = library
        self._bytes = hashed.end
        self._buffer = library.buffer(self._bytes)
        self._calls = plan_.plain
        self._scalars = scalars
        self._host: dict[int, HostCall] = {}
        self.host_calls: list[int] = []

    def write(self, offset: int, data: Array) -> None:
        self._library.write(self._buffer, offset, data)

    def read(self, offset: int, nbytes: int) -> Array:
        return self._library.read(self._buffer, offset, nbytes)

    def roots(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Of parts of the state."""
        trees = forest(spans)
        hashed = hashing(trees, self._trees)
        assert hashed.end <= self._bytes, "more than the whole state"
        self.write(self._trees, trees.rows.reshape(-1).view(np.uint8))
        self._launch(hashed.launches)
        return trees.split(self.read(hashed.roots, NODE * trees.count).tobytes())

    def run(self) -> None:
        if self.host_calls:  # the step before needed the CPU, and moments that decay stay small
            self._launch(self._clear)
            self._run_each()
            return
        self._launch([*self._save, *self._clear])
        for launches in self._launches:
            self._launch(launches)
        if self._flag_of and self.read(self._flags, FLAG_BYTES * len(self._flag_of)).view(np.uint32)[::4].any():
            self._launch([*self._restore, *self._clear])
            self._run_each()

    def _run_each(self) -> None:
        """One call after the other, each looked at before the next."""
        self.host_calls = []
        for n, (call, launches) in enumerate(zip(self._calls, self._launches, strict=True)):
            flag = self._flag_of.get(n)
            if flag is None:
                self._launch(launches)
                continue
            before = self._outputs_of(call)
            self._launch(launches)
            if self.read(flag, 4).any():
                for offset, data in before:
                    self.write(offset, data)
                if n not in self._host:
                    self._host[n] = host_call(call, self._scalars)
                self._host[n].run(self.read, self.write)
                self.host_calls.append(n)

    def _outputs_of(self, call: plan.Call) -> list[tuple[int, Array]]:
        """What lies where a call writes, if its operands may lie there too."""
        if not isinstance(call, plan.Map | plan.Scan):
            return []
        places = [plan.Place(v.offset, v.dtype, call.shape, v.strides).span for v in call.outputs]
        return [(begin, self.read(begin, end - begin)) for begin, end in places if end > begin]

    def _launch(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            x, y, z = launch.groups
            self._kernel[launch.kernel](
                self._buffer, list(launch.given), threads=[x * launch.size, y, z], group_size=[launch.size, 1, 1]
            )


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The bytes of all spans as few spans, whole words."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((b // plan.ALIGN * plan.ALIGN, aligned(e)) for b, e in spans if e > b):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _both_ways(spans: Sequence[tuple[int, int]], saved: int) -> tuple[list[Launch], list[Launch]]:
    """Copies of the spans to `saved`, one after the other, and back."""
    there: list[Launch] = []
    back: list[Launch] = []
    for begin, end in spans:
        words = (end - begin) // 4
        there += copy(4, (words,), (1,), (1,), begin, saved)
        back += copy(4, (words,), (1,), (1,), saved, begin)
        saved += end - begin
    return there, back

"""The executor protocol over a device: its memory holds the plan's arena, its kernels run the plan's calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, Array, check_arrays
from gensyn_verify.backends.device.fuse import fuse_maps
from gensyn_verify.backends.device.plan import Place, Plan, make_plan
from gensyn_verify.errors import BackendError
from gensyn_verify.program.program import Program


class Machine(Protocol):
    """A plan's arena in the memory of a device, and its calls as launches there."""

    def write(self, offset: int, data: Array) -> None:
        """Copy `data`, uint8[n], to `offset` of the arena, after all that was asked before."""

    def read(self, offset: int, nbytes: int) -> Array:
        """uint8[nbytes] from `offset` of the arena, after all that was asked before."""

    def run(self) -> None:
        """All calls of the plan, in order."""

    def roots(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """BLAKE3 of byte ranges [begin, end) of the arena, hashed on the device where it can."""


class Executor:
    """A program on a device (backends.Executor).

    `keep=True` keeps every value of the last step for `value(v)`, and `fuse=False` runs every node on its own: the
    bits are the same.
    """

    def __init__(
        self, program: Program, machine: Callable[[Plan], Machine], keep: bool = False, fuse: bool = True
    ) -> None:
        self.program = program
        self._keep = keep
        self._plan = make_plan(fuse_maps(program) if fuse and not keep else program, keep)
        self._machine = machine(self._plan)
        self._states = dict(zip(program.outputs_of("state"), self._plan.states, strict=True))
        self._metrics = dict(zip(program.outputs_of("metric"), self._plan.metrics, strict=True))
        self._inputs = {(i.role, i.name): p for i, p in zip(program.inputs, self._plan.inputs, strict=True)}
        self._loaded = not self._states

    def load(self, state: Mapping[str, Array]) -> None:
        for name, array in check_arrays(state, self.program.inputs_of("state"), "state").items():
            self._write(self._states[name], array)
        self._loaded = True

    def state(self) -> dict[str, Array]:
        return {name: self._read(place) for name, place in self._states.items()}

    def state_roots(self) -> dict[str, bytes]:
        """The BLAKE3 root of every tensor of the state, without moving it to the host."""
        roots = self._machine.roots([place.span for place in self._states.values()])
        return dict(zip(self._states, roots, strict=True))

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        if not self._loaded:
            raise BackendError("step before load: the executor has no state yet")
        for role, what, given in (("batch", "batch", batch), ("scalar", "scalars", scalars)):
            for name, array in check_arrays(given, self.program.inputs_of(role), what).items():
                self._write(self._inputs[role, name], array)
        self._machine.run()
        return {name: self._read(place) for name, place in self._metrics.items()}

    def value(self, v: int) -> Array:
        """Value number `v` of the last step (only with keep=True)."""
        if not self._keep:
            raise BackendError("values are kept only by an executor made with keep=True")
        return self._read(self._plan.values[v])

    def _write(self, place: Place, array: Array) -> None:
        if array.size:
            self._machine.write(place.offset, np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def _read(self, place: Place) -> Array:
        """A contiguous copy; what lies strided is read with the bytes between."""
        carrier = CARRIER[place.dtype]
        begin, end = place.span
        if begin == end:
            return np.zeros(place.shape, carrier)
        memory = self._machine.read(begin, end - begin)
        strides = tuple(s * carrier.itemsize if d > 1 else 0 for s, d in zip(place.strides, place.shape, strict=True))
        return np.array(np.ndarray(place.shape, carrier, memory, place.offset - begin, strides), order="C")

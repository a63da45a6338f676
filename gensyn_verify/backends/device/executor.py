"""The executor protocol over a device: its memory holds the plan's arena, its kernels run the plan's calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, Array, check_array, check_named
from gensyn_verify.backends.device.fuse import prepared
from gensyn_verify.backends.device.plan import Place, Plan, make_plan
from gensyn_verify.backends.device.pointers import DeviceTensor, device_tensor
from gensyn_verify.errors import BackendError
from gensyn_verify.program.program import Program
from gensyn_verify.program.types import TensorType


class Memory(Protocol):
    """A plan's arena, or a copy of parts of it."""

    def read(self, offset: int, nbytes: int) -> Array:
        """uint8[nbytes] from `offset` of the arena, after all that was asked before."""

    def roots(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """BLAKE3 of byte ranges [begin, end) of the arena, hashed on the device where it can."""


class Machine(Memory, Protocol):
    """A plan's arena in the memory of a device, and its calls as launches there."""

    def write(self, offset: int, data: Array) -> None:
        """Copy `data`, uint8[n], to `offset` of the arena, after all that was asked before."""

    def run(self) -> None:
        """Ask for all calls of the plan, in order."""


@runtime_checkable
class Overlapping(Protocol):
    """A machine that can copy and hash a state while it computes the next."""

    def snapshot(self, spans: Sequence[tuple[int, int]]) -> Memory:
        """A copy of byte ranges, as they are after all that was asked before; until the next one is taken."""


@runtime_checkable
class Reaching(Protocol):
    """A machine that takes and hands out tensors of its device by address."""

    def copy(self, offset: int, tensor: DeviceTensor) -> None:
        """Copy a tensor that lies on the device to `offset` of the arena, after all that was asked before."""

    def address(self, offset: int) -> int:
        """Of a byte of the arena, once all is done that was asked before."""


class State(Mapping[str, Array]):
    """The tensors of a state, each read from the device when it is looked at, and their roots."""

    def __init__(self, memory: Memory, places: Mapping[str, Place]) -> None:
        self._memory, self._places = memory, places

    def __getitem__(self, name: str) -> Array:
        return read(self._memory, self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def roots(self, names: Iterable[str]) -> dict[str, bytes]:
        """The BLAKE3 root of every named tensor."""
        wanted = list(names)
        return dict(zip(wanted, self._memory.roots([self._places[name].span for name in wanted]), strict=True))

    def on_device(self, name: str) -> DeviceTensor:
        """The tensor where it lies, to be read until the next step: torch.as_tensor takes it, for instance."""
        if not isinstance(self._memory, Reaching):
            raise BackendError("this state can be read as NumPy arrays only")
        place = self._places[name]
        return DeviceTensor(TensorType(place.dtype, place.shape), self._memory.address(place.offset))


def read(memory: Memory, place: Place) -> Array:
    """A contiguous copy; what lies strided is read with the bytes between."""
    carrier = CARRIER[place.dtype]
    begin, end = place.span
    if begin == end:
        return np.zeros(place.shape, carrier)
    found = memory.read(begin, end - begin)
    strides = tuple(s * carrier.itemsize if d > 1 else 0 for s, d in zip(place.strides, place.shape, strict=True))
    return np.array(np.ndarray(place.shape, carrier, found, place.offset - begin, strides), order="C")


class Executor:
    """A program on a device (backends.Executor).

    `keep=True` keeps every value of the last step for `value(v)`, and `fuse=False` runs every node on its own: the
    bits are the same. `regions`: the machine has kernels for a plan's regions.

    State, batch and scalars are NumPy arrays, or, where the machine takes them, tensors on its device (`pointers`).
    """

    def __init__(
        self,
        program: Program,
        machine: Callable[[Plan], Machine],
        keep: bool = False,
        fuse: bool = True,
        regions: bool = False,
    ) -> None:
        self.program = program
        self._keep = keep
        fuse = fuse and not keep
        self._plan = make_plan(prepared(program) if fuse else program, keep, regions and fuse)
        self._machine = machine(self._plan)
        self._reaching = self._machine if isinstance(self._machine, Reaching) else None
        self._states = dict(zip(program.outputs_of("state"), self._plan.states, strict=True))
        self._metrics = dict(zip(program.outputs_of("metric"), self._plan.metrics, strict=True))
        self._inputs = {(i.role, i.name): p for i, p in zip(program.inputs, self._plan.inputs, strict=True)}
        self._loaded = not self._states

    def load(self, state: Mapping[str, Array | DeviceTensor]) -> None:
        for name, array in self._checked(state, "state", "state").items():
            self._write(self._states[name], array)
        self._loaded = True

    def state(self) -> State:
        return State(self._machine, self._states)

    def state_roots(self) -> dict[str, bytes]:
        """The BLAKE3 root of every tensor of the state."""
        state = self.state()
        return state.roots(state)

    @property
    def overlaps(self) -> bool:
        """Whether `snapshot` is to be had."""
        return isinstance(self._machine, Overlapping)

    def snapshot(self) -> State:
        """The state as it is now, to be read and hashed while later steps run; until the next snapshot."""
        assert isinstance(self._machine, Overlapping)
        return State(self._machine.snapshot([place.span for place in self._states.values()]), self._states)

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        self.start(batch, scalars)
        return self.finish()

    def start(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> None:
        """Ask the device for a step; `finish` waits for it."""
        if not self._loaded:
            raise BackendError("step before load: the executor has no state yet")
        for role, what, given in (("batch", "batch", batch), ("scalar", "scalars", scalars)):
            for name, array in self._checked(given, role, what).items():
                self._write(self._inputs[role, name], array)
        self._machine.run()

    def finish(self) -> dict[str, Array]:
        """The metrics of the step that was started."""
        return {name: read(self._machine, place) for name, place in self._metrics.items()}

    def value(self, v: int) -> Array:
        """Value number `v` of the last step (only with keep=True)."""
        if not self._keep:
            raise BackendError("values are kept only by an executor made with keep=True")
        return read(self._machine, self._plan.values[v])

    def _checked(self, given: Mapping[str, object], role: str, what: str) -> dict[str, Array | DeviceTensor]:
        return check_named(given, self.program.inputs_of(role), what, self._check)

    def _check(self, name: str, given: object, wanted: TensorType) -> Array | DeviceTensor:
        there = device_tensor(name, given, wanted) if self._reaching else None
        return check_array(name, given, wanted) if there is None else there

    def _write(self, place: Place, array: Array | DeviceTensor) -> None:
        if isinstance(array, DeviceTensor):
            if array.type.elements and self._reaching:
                self._reaching.copy(place.offset, array)
        elif array.size:
            self._machine.write(place.offset, np.ascontiguousarray(array).reshape(-1).view(np.uint8))

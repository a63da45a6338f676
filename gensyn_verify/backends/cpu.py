"""The native CPU backend: the program's canonical bytes are decoded, planned onto one arena and walked in C++.

Instruction set: the best that the CPU has, or GENSYN_VERIFY_ISA (avx512, avx2, neon, portable).
Threads: all, or GENSYN_VERIFY_THREADS. Neither changes a bit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from gensyn_verify.backends.arrays import Array, check_array, check_arrays
from gensyn_verify.errors import BackendError, LimitError
from gensyn_verify.program.encoding import encode
from gensyn_verify.program.program import Program

try:
    from gensyn_verify import _native
except ImportError as error:  # pragma: no cover
    raise BackendError(f"the native kernels are not built ({error}); install the package with pip") from error


def select_isa(wanted: str) -> None:
    """Use this instruction set from now on; BackendError where it is not supported here."""
    supported = _native.supported_isas()
    if wanted not in supported:
        raise BackendError(f"instruction set {wanted!r} is not supported here; supported: {', '.join(supported)}")
    _native.use_isa(wanted)


if "GENSYN_VERIFY_ISA" in os.environ:
    select_isa(os.environ["GENSYN_VERIFY_ISA"])


class Executor:
    """A program planned onto one arena (csrc/executor.h).

    `keep=True` gives every value memory of its own, the next state too, so that `value(v)` shows each value of the
    last step. `fuse=False` runs every node on its own; the bits are the same.
    `memory_limit` in bytes (default: nine tenths of the machine's memory) is checked before anything is allocated.
    """

    def __init__(
        self, program: Program, keep: bool = False, memory_limit: int | None = None, fuse: bool = True
    ) -> None:
        self.program = program
        self._keep = keep
        self._loaded = False
        try:
            self._native = _native.Executor(encode(program), keep, fuse, -1 if memory_limit is None else memory_limit)
        except MemoryError:
            raise LimitError("the memory that the program needs is not to be had") from None
        inputs = list(enumerate(program.inputs))  # the state comes first
        self._state = {i.name: self._native.state(v) for v, i in inputs if i.role == "state"}
        self._batch = {i.name: self._native.input(v) for v, i in inputs if i.role == "batch"}
        self._scalars = {i.name: self._native.input(v) for v, i in inputs if i.role == "scalar"}
        self._metrics = {name: self._native.metric(n) for n, name in enumerate(program.outputs_of("metric"))}

    @property
    def arena_bytes(self) -> int:
        return self._native.arena_bytes

    def load(self, state: Mapping[str, Array]) -> None:
        for name, array in check_arrays(state, self.program.inputs_of("state"), "state").items():
            self._state[name][...] = array
        self._loaded = True

    def state(self) -> dict[str, Array]:
        return dict(self._state)

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        if not self._loaded and self._state:
            raise BackendError("step before load: the executor has no state yet")
        for what, given, held in (("batch", batch, self._batch), ("scalars", scalars, self._scalars)):
            if given.keys() != held.keys():
                check_arrays(given, self.program.inputs_of({"batch": "batch", "scalars": "scalar"}[what]), what)
            for name, target in held.items():
                source = given[name]
                if type(source) is not np.ndarray or source.dtype != target.dtype or source.shape != target.shape:
                    role = "batch" if what == "batch" else "scalar"
                    source = check_array(f"{what} {name!r}", source, self.program.inputs_of(role)[name])
                target[...] = source
        self._native.run()
        return {name: a.copy() for name, a in self._metrics.items()}

    def value(self, v: int) -> Array:
        """Value number `v` of the last step (only with keep=True)."""
        if not self._keep:
            raise BackendError("values are kept only by an executor made with keep=True")
        return self._native.value(v)

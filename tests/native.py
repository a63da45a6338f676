"""Running the native backend under every instruction set and several thread counts, and comparing bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from gensyn_verify import _native, backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.program.program import Program

ISAS: list[str] = _native.supported_isas()


@contextmanager
def machine(isa: str, threads: int = 1) -> Iterator[None]:
    """The native kernels restricted to an instruction set and a number of threads."""
    before = _native.isa(), _native.get_threads()
    _native.use_isa(isa)
    _native.set_threads(threads)
    try:
        yield
    finally:
        _native.use_isa(before[0])
        _native.set_threads(before[1])


@contextmanager
def backend(name: str) -> Iterator[str]:
    """The definition ("reference"), or the native kernels on the instruction set of this name; the backend's name."""
    if name == "reference":
        yield name
        return
    with machine(name, _native.get_threads()):
        yield "cpu"


def bits(a: Array) -> Array:
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}")


def assert_same_bits(found: Mapping[str, Array], wanted: Mapping[str, Array], where: str) -> None:
    assert found.keys() == wanted.keys()
    for name, w in wanted.items():
        f = found[name]
        assert (f.dtype, f.shape) == (w.dtype, w.shape), f"{where}: {name}"
        differ = np.flatnonzero(bits(f).ravel() != bits(w).ravel())
        if len(differ):
            e = int(differ[0])
            raise AssertionError(
                f"{where}: {name} differs at {len(differ)} of {w.size} elements, first {e}: "
                f"found {int(bits(f).ravel()[e]):#x}, expected {int(bits(w).ravel()[e]):#x}"
            )


def check_against_reference(program: Program, inputs: Mapping[str, Array], threads: tuple[int, ...] = (1, 3)) -> None:
    """Every instruction set and thread count gives the bits of the definition."""
    wanted = backends.evaluate(program, inputs, "reference")
    for isa in ISAS:
        for n in threads:
            with machine(isa, n):
                assert_same_bits(backends.evaluate(program, inputs, "cpu"), wanted, f"{isa}, {n} threads")

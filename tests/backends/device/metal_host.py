"""Metal kernels on the host: MSL compiled as C++ with tests/emulation/metal, behind the interface of metal.machine.

A source is compiled once, wherever in a run of tests it comes up.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.device.plan import Plan
from gensyn_verify.backends.metal import Library, MetalMachine, machine
from gensyn_verify.program import Program

EMULATION = Path(__file__).resolve().parents[2] / "emulation" / "metal"
FLAGS = ["-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror"]
# The pragmas and attributes are Metal's, and so is a kernel that takes more than it reads.
MSL_FLAGS = [
    "-x", "c++", "-std=c++14", "-Wno-attributes", "-Wno-unknown-pragmas", "-Wno-unused-parameter",
    "-Wno-unused-variable", "-Wno-tautological-compare",  # scalar programs may be as odd as they like
]  # fmt: skip
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ compiles the kernels")


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gensyn-verify-metal-")


@cache
def _load(source: str, flags: tuple[str, ...], mode: int = ctypes.RTLD_LOCAL) -> ctypes.CDLL:
    """`mode`: local, or inline functions of a source would be those of a source that was loaded before."""
    name = Path(_folder().name) / hashlib.sha256(source.encode()).hexdigest()
    name.with_suffix(".cpp").write_text(source)
    command = ["g++", *FLAGS, *flags, f"-I{EMULATION}", str(name.with_suffix(".cpp")), "-o", str(name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stderr}")
    return ctypes.CDLL(str(name), mode=mode)


@cache
def _host() -> ctypes.CDLL:
    return _load((EMULATION / "host.cpp").read_text(), ("-std=c++17", f"-I{EMULATION.parent}"), ctypes.RTLD_GLOBAL)


@dataclass(frozen=True)
class HostLibrary:
    """metal.machine.Library on this CPU.

    seed   the order in which threads run (tests/emulation/threads.h)
    flush  whether float operations flush subnormals, as Apple GPUs do
    """

    seed: int = 0
    flush: bool = False

    def compile(self, source: str) -> Any:
        _host()
        return Kernels(source, self)

    def buffer(self, nbytes: int) -> Any:
        memory = np.zeros(nbytes + 64, np.uint8)
        return memory[-memory.ctypes.data % 64 :][:nbytes]

    def read(self, buffer: Array, offset: int, nbytes: int) -> Array:
        assert 0 <= offset <= offset + nbytes <= len(buffer)
        return buffer[offset : offset + nbytes].copy()

    def write(self, buffer: Array, offset: int, data: Array) -> None:
        assert 0 <= offset <= offset + len(data) <= len(buffer)
        buffer[offset : offset + len(data)] = data


class Kernels:
    """What torch.mps.compile_shader returns, with its rules for arguments."""

    def __init__(self, source: str, library: HostLibrary) -> None:
        self._source = source
        self._code = _load(source, tuple(MSL_FLAGS))
        self._library = library

    def __dir__(self) -> list[str]:
        return re.findall(r"^GV_KERNEL\((\w+)\)", self._source, re.MULTILINE)

    def __getattr__(self, name: str) -> Kernel:
        return Kernel(self._code[name], self._library)


class Kernel:
    thread_execution_width = 32

    def __init__(self, body: Any, library: HostLibrary) -> None:
        self._body = body
        self._library = library

    def __call__(self, buffer: Any, given: list[int], threads: list[int], group_size: list[int]) -> None:
        (size, *ones), (x, *yz) = group_size, threads
        assert ones == [1, 1]
        assert size % 32 == x % size == 0 < x
        assert size <= 1024
        assert 0 < len(given) <= 512  # 4 KiB by value
        assert all(type(n) is int for n in (*given, *threads, *group_size))
        at = buffer.ctypes.data if isinstance(buffer, np.ndarray) else buffer.data_ptr()
        _host().gv_host_run(
            self._body, ctypes.c_void_p(at), (ctypes.c_int64 * len(given))(*given),
            (ctypes.c_uint32 * 3)(x // size, *yz), ctypes.c_uint32(size), ctypes.c_uint64(self._library.seed),
            int(self._library.flush),
        )  # fmt: skip


def on_metal(
    program: Program,
    inputs: Mapping[str, Array],
    library: Library = HostLibrary(),
    keep: bool = False,
    guard: bool = True,
) -> tuple[dict[str, Array], MetalMachine]:
    """All outputs of one step, and the machine that computed them; without the guard by the kernels alone."""
    machines: list[MetalMachine] = []

    def make(plan: Plan) -> MetalMachine:
        machines.append(MetalMachine(plan, library))
        return machines[-1]

    with nullcontext() if guard else no_guard():
        results = backends.evaluate(program, inputs, lambda p: Executor(p, make, keep))
    return results, machines[0]


def no_guard() -> AbstractContextManager[Any]:
    """Machines made in this context look at no flag."""
    return patch.object(machine, "is_guarded", return_value=False)

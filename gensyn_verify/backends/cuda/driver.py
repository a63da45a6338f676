"""The CUDA driver API, as much as is used here, through ctypes: the library is loaded at first use.

`GENSYN_VERIFY_CUDA_DRIVER` names another library than libcuda.so.1. Work is asked for on streams; addresses are plain
integers, those of torch's tensors too, since the context is the device's primary one, which torch uses.
"""

from __future__ import annotations

import ctypes as c
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import BackendError

LIBRARY = ("nvcuda.dll",) if os.name == "nt" else ("libcuda.so.1", "libcuda.so")
MULTIPROCESSORS, SHARED_BYTES, MAJOR, MINOR = 16, 97, 75, 76  # CUdevice_attribute
MAX_DYNAMIC_SHARED = 8  # CUfunction_attribute
_HANDLE, _INT, _UINT, _SIZE, _ADDRESS = c.c_void_p, c.c_int, c.c_uint, c.c_size_t, c.c_uint64
_P = c.POINTER
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UINT,),
    "cuDriverGetVersion": (_P(_INT),),
    "cuDeviceGetCount": (_P(_INT),),
    "cuDeviceGet": (_P(_INT), _INT),
    "cuDeviceGetName": (c.c_char_p, _INT, _INT),
    "cuDeviceGetAttribute": (_P(_INT), _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_P(_HANDLE), _INT),
    "cuCtxGetCurrent": (_P(_HANDLE),),
    "cuCtxPushCurrent_v2": (_HANDLE,),
    "cuCtxPopCurrent_v2": (_P(_HANDLE),),
    "cuMemGetInfo_v2": (_P(_SIZE), _P(_SIZE)),
    "cuMemAlloc_v2": (_P(_ADDRESS), _SIZE),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, c.c_void_p, _SIZE, _HANDLE),
    "cuMemcpyDtoHAsync_v2": (c.c_void_p, _ADDRESS, _SIZE, _HANDLE),
    "cuMemcpyDtoDAsync_v2": (_ADDRESS, _ADDRESS, _SIZE, _HANDLE),
    "cuStreamCreate": (_P(_HANDLE), _UINT),
    "cuStreamSynchronize": (_HANDLE,),
    "cuStreamWaitEvent": (_HANDLE, _HANDLE, _UINT),
    "cuStreamDestroy_v2": (_HANDLE,),
    "cuEventCreate": (_P(_HANDLE), _UINT),
    "cuEventRecord": (_HANDLE, _HANDLE),
    "cuEventSynchronize": (_HANDLE,),
    "cuEventElapsedTime": (_P(c.c_float), _HANDLE, _HANDLE),
    "cuEventDestroy_v2": (_HANDLE,),
    "cuModuleLoadData": (_P(_HANDLE), c.c_char_p),
    "cuModuleUnload": (_HANDLE,),
    "cuModuleGetFunction": (_P(_HANDLE), _HANDLE, c.c_char_p),
    "cuFuncSetAttribute": (_HANDLE, _INT, _INT),
    "cuLaunchKernel": (_HANDLE, *[_UINT] * 7, _HANDLE, _P(c.c_void_p), _P(c.c_void_p)),
    "cuStreamBeginCapture_v2": (_HANDLE, _INT),
    "cuStreamEndCapture": (_HANDLE, _P(_HANDLE)),
    "cuGraphInstantiateWithFlags": (_P(_HANDLE), _HANDLE, c.c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGraphDestroy": (_HANDLE,),
    "cuGetErrorName": (_INT, _P(c.c_char_p)),
    "cuGetErrorString": (_INT, _P(c.c_char_p)),
}


@cache
def library() -> c.CDLL:
    """The driver library, initialised; BackendError where there is none, or no device."""
    names = [os.environ["GENSYN_VERIFY_CUDA_DRIVER"]] if "GENSYN_VERIFY_CUDA_DRIVER" in os.environ else LIBRARY
    errors = []
    for name in names:
        try:
            loaded = c.CDLL(name)
            for function, arguments in _SIGNATURES.items():
                getattr(loaded, function).argtypes = arguments
        except (OSError, AttributeError) as error:
            errors.append(str(error))
            continue
        status = loaded.cuInit(0)
        if status:
            raise BackendError(f"the CUDA driver {name} does not start: {_name(loaded, status)}")
        return loaded
    raise BackendError(f"backend cuda needs an NVIDIA driver; {'; '.join(errors)}")


def _name(loaded: c.CDLL, status: int) -> str:
    name, text = c.c_char_p(), c.c_char_p()
    loaded.cuGetErrorName(status, c.byref(name))
    loaded.cuGetErrorString(status, c.byref(text))
    return f"{(name.value or b'error').decode()} ({status}): {(text.value or b'').decode()}"


def call(function: str, *arguments: Any, doing: str = "") -> None:
    """A function of the driver; BackendError where it does not return success."""
    loaded = library()
    status = getattr(loaded, function)(*arguments)
    if status:
        raise BackendError(f"{doing + ': ' if doing else ''}{function} gave {_name(loaded, status)}")


def _get(kind: Any, function: str, *arguments: Any, doing: str = "") -> Any:
    """What a function writes to its first argument."""
    out = kind()
    call(function, c.byref(out), *arguments, doing=doing)
    return out.value


@dataclass(frozen=True)
class Device:
    """A GPU. `capability` is 10 major + minor; `shared_bytes` the most that a thread block may have."""

    number: int
    name: str
    capability: int
    multiprocessors: int
    shared_bytes: int

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside, the device's primary context is the current one; afterwards the one before is again, torch's too."""
        call("cuCtxPushCurrent_v2", _context(self.number))
        try:
            yield
        finally:
            call("cuCtxPopCurrent_v2", c.byref(_HANDLE()))


@cache
def _context(number: int) -> int:
    return int(_get(_HANDLE, "cuDevicePrimaryCtxRetain", number))


@cache
def device(number: int = 0) -> Device:
    """GPU `number`; BackendError where there is none of that number."""
    count = _get(_INT, "cuDeviceGetCount")
    if not 0 <= number < count:
        raise BackendError(f"device cuda:{number} does not exist: there are {count}, counted from 0")
    handle = _get(_INT, "cuDeviceGet", number)
    name = c.create_string_buffer(256)
    call("cuDeviceGetName", name, 256, handle)
    of = {a: _get(_INT, "cuDeviceGetAttribute", a, handle) for a in (MAJOR, MINOR, MULTIPROCESSORS, SHARED_BYTES)}
    return Device(
        number, name.value.decode(errors="replace"), 10 * of[MAJOR] + of[MINOR], of[MULTIPROCESSORS], of[SHARED_BYTES]
    )


def current_number() -> int:
    """The GPU that torch uses at the moment, if torch uses one; else the first."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.current_device()) if torch is not None and torch.cuda.is_initialized() else 0


def driver_version() -> tuple[int, int]:
    """The newest CUDA version that the driver runs."""
    version = _get(_INT, "cuDriverGetVersion")
    return version // 1000, version % 1000 // 10


def free_bytes() -> int:
    free, total = _SIZE(), _SIZE()
    call("cuMemGetInfo_v2", c.byref(free), c.byref(total))
    return free.value


class _Owned:
    """Something of the driver's that ends with the object."""

    def __init__(self, handle: int, end: str) -> None:
        self.handle = handle
        self._context = _get(_HANDLE, "cuCtxGetCurrent")
        self._library, self._end = library(), end

    def __del__(self) -> None:
        if hasattr(self, "_end"):
            self._library.cuCtxPushCurrent_v2(self._context)
            getattr(self._library, self._end)(self.handle)
            self._library.cuCtxPopCurrent_v2(c.byref(_HANDLE()))


class Memory(_Owned):
    """Device memory."""

    def __init__(self, nbytes: int) -> None:
        doing = f"{nbytes} bytes of device memory"
        super().__init__(_get(_ADDRESS, "cuMemAlloc_v2", nbytes, doing=doing), "cuMemFree_v2")

    @property
    def address(self) -> int:
        return self.handle


class Event(_Owned):
    def __init__(self) -> None:
        super().__init__(_get(_HANDLE, "cuEventCreate", 0), "cuEventDestroy_v2")

    def since(self, earlier: Event) -> float:
        """Milliseconds between two recorded events."""
        call("cuEventSynchronize", self.handle)
        return float(_get(c.c_float, "cuEventElapsedTime", earlier.handle, self.handle))


class Function:
    """A kernel of a loaded module."""

    def __init__(self, module: Module, name: str) -> None:
        self.module = module  # keeps it loaded
        self.handle = _get(_HANDLE, "cuModuleGetFunction", module.handle, name.encode(), doing=f"kernel {name}")
        self._shared = 48 << 10  # what every kernel may have without asking

    def allow_shared(self, nbytes: int) -> None:
        if nbytes > self._shared:
            call("cuFuncSetAttribute", self.handle, MAX_DYNAMIC_SHARED, nbytes)
            self._shared = nbytes


class Module(_Owned):
    """PTX, compiled by the driver and loaded."""

    def __init__(self, text: str, what: str) -> None:
        image = text.encode() + b"\0"
        super().__init__(_get(_HANDLE, "cuModuleLoadData", image, doing=f"loading {what}"), "cuModuleUnload")
        self._functions: dict[str, Function] = {}

    def function(self, name: str) -> Function:
        if name not in self._functions:
            self._functions[name] = Function(self, name)
        return self._functions[name]


class Graph(_Owned):
    """Launches recorded once, launched as one."""

    def __init__(self, recorded: int) -> None:
        try:
            super().__init__(_get(_HANDLE, "cuGraphInstantiateWithFlags", recorded, 0), "cuGraphExecDestroy")
        finally:
            library().cuGraphDestroy(recorded)


class Stream(_Owned):
    """Work in order. `handle` may be one of torch's: `Stream(torch.cuda.current_stream().cuda_stream)`."""

    def __init__(self, handle: int | None = None) -> None:
        if handle is None:
            super().__init__(_get(_HANDLE, "cuStreamCreate", 1), "cuStreamDestroy_v2")  # 1: beside the default stream
        else:
            self.handle = handle

    def write(self, address: int, data: Array) -> None:
        """Host bytes to the device; `data` may change as soon as this returns, if its memory is not pinned."""
        call("cuMemcpyHtoDAsync_v2", address, data.ctypes.data, data.nbytes, self.handle)

    def read(self, address: int, nbytes: int) -> Array:
        out = np.empty(nbytes, np.uint8)
        call("cuMemcpyDtoHAsync_v2", out.ctypes.data, address, nbytes, self.handle)
        self.synchronize()
        return out

    def copy(self, to: int, address: int, nbytes: int) -> None:
        call("cuMemcpyDtoDAsync_v2", to, address, nbytes, self.handle)

    def synchronize(self) -> None:
        call("cuStreamSynchronize", self.handle)

    def record(self, event: Event) -> None:
        call("cuEventRecord", event.handle, self.handle)

    def wait(self, event: Event) -> None:
        call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def launch(
        self, function: Function, grid: Sequence[int], threads: int, shared: int, parameters: Sequence[bytes]
    ) -> None:
        function.allow_shared(shared)
        values = [c.create_string_buffer(p, len(p)) for p in parameters]
        pointers = (c.c_void_p * len(values))(*(c.addressof(v) for v in values))
        call("cuLaunchKernel", function.handle, *grid, threads, 1, 1, shared, self.handle, pointers, None)

    def begin_capture(self) -> None:
        call("cuStreamBeginCapture_v2", self.handle, 1)  # of this thread alone

    def end_capture(self) -> Graph:
        graph = _HANDLE()
        call("cuStreamEndCapture", self.handle, c.byref(graph))
        return Graph(graph.value or 0)

    def launch_graph(self, graph: Graph) -> None:
        call("cuGraphLaunch", graph.handle, self.handle)

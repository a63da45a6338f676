"""Buffers and kernels of Metal through PyTorch: torch.mps.compile_shader, public since torch 2.7."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import BackendError

WARP = 32  # threads of a SIMD group, for which kernels/metal is written


class MpsLibrary:
    """metal.machine.Library on the Apple GPU of this machine.

    A kernel's numbers are passed by value: torch hands a list of int over as 64-bit integers, 4 KiB at most.
    """

    def __init__(self, device: str = "mps") -> None:
        try:
            import torch
        except ImportError as error:
            raise BackendError(f"backend metal needs PyTorch ({error}); install torch, or use cpu") from error
        if not torch.backends.mps.is_available():
            raise BackendError("backend metal: PyTorch finds no Apple GPU on this machine; use cpu")
        if os.environ.get("PYTORCH_MPS_FAST_MATH", "0") != "0":
            raise BackendError("backend metal: PYTORCH_MPS_FAST_MATH lets kernels round as they like; unset it")
        self._torch = torch
        self._device = device
        self._compiled: dict[str, Any] = {}

    def compile(self, source: str) -> Any:
        if source not in self._compiled:
            try:
                library = self._torch.mps.compile_shader(source)
            except (SyntaxError, RuntimeError) as error:  # the compiler's messages
                raise BackendError(f"backend metal: its kernels do not compile here, use cpu: {error}") from error
            self._compiled[source] = self._checked(library)
        return self._compiled[source]

    def _checked(self, library: Any) -> Any:
        for name in dir(library):
            width = getattr(library, name).thread_execution_width
            if width != WARP:
                raise BackendError(f"backend metal: {name} runs in SIMD groups of {width} threads, expected {WARP}")
        return library

    def buffer(self, nbytes: int) -> Any:
        try:
            return self._torch.zeros(nbytes, dtype=self._torch.uint8, device=self._device)
        except RuntimeError as error:
            raise BackendError(f"backend metal: no {nbytes} bytes of memory on the GPU ({error}); use cpu") from error

    def read(self, buffer: Any, offset: int, nbytes: int) -> Array:
        array: Array = buffer[offset : offset + nbytes].cpu().numpy()
        return array

    def write(self, buffer: Any, offset: int, data: Array) -> None:
        buffer[offset : offset + len(data)].copy_(self._torch.from_numpy(np.array(data)))

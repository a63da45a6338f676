"""NVIDIA GPUs through the driver API: no nvcc, no CUDA toolkit and no torch where a program runs.

driver   the driver library, loaded at first use
ptx      maps and scans as PTX
kernels  the kernels of csrc/cuda as PTX that ships with the package
launch   calls of a plan as launches of kernels
machine  a plan's arena on a device, its launches as one CUDA graph
"""

from __future__ import annotations

from functools import partial

from gensyn_verify.backends.cuda.machine import CudaMachine
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.program.program import Program

__all__ = ["CudaMachine", "make"]


def make(program: Program, keep: bool = False, fuse: bool = True, number: int = 0) -> Executor:
    """An executor of `program` on GPU `number`; BackendError without one, LimitError where its memory is too small."""
    return Executor(program, partial(CudaMachine, number=number), keep, fuse)

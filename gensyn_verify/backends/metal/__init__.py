"""The bits of the reference backend on Apple GPUs.

source    a scalar program as the source of a Metal kernel: maps and scans
launches  calls of a plan as launches of kernels
host      a call of a plan on the CPU, for where a GPU flushes subnormals
machine   a plan's arena in a Metal buffer: runs its launches, and on the host the calls that were risky
mps       buffers and kernels of Metal through PyTorch (torch.mps.compile_shader)

The kernels lie in gensyn_verify.kernels, folder metal. An Apple GPU takes subnormal floats for zeros. The kernels
notice where that can have changed a bit (common.metal), and then the CPU computes that call.
"""

from __future__ import annotations

from functools import partial

from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.metal.machine import Library, MetalMachine
from gensyn_verify.program.program import Program


def make(program: Program, keep: bool = False, fuse: bool = True) -> Executor:
    """An executor of `program` on the Apple GPU of this machine; BackendError without one, or without torch."""
    from gensyn_verify.backends.metal.mps import MpsLibrary

    return Executor(program, partial(MetalMachine, library=MpsLibrary()), keep, fuse)


__all__ = ["Library", "MetalMachine", "make"]

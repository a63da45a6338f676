"""The bits of the reference backend on Apple GPUs.

source    a scalar program as the source of a Metal kernel: maps and scans
launches  calls of a plan as launches of kernels
host      a call of a plan on the CPU, for where a GPU flushes subnormals
machine   a plan's arena in a Metal buffer: runs its launches, and on the host the calls that were risky
selftest  whether a device computes as the kernels assume
mps       buffers and kernels of Metal through PyTorch (torch.mps.compile_shader)

The kernels lie in gensyn_verify.kernels, folder metal. An Apple GPU takes subnormal floats for zeros. The kernels
notice where that can have changed a bit (common.metal), and then the CPU computes that call.
"""

from __future__ import annotations

from functools import cache, partial

from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.metal.machine import Library, MetalMachine
from gensyn_verify.program.program import Program


def make(program: Program, keep: bool = False, fuse: bool = True) -> Executor:
    """An executor of `program` on the Apple GPU of this machine; BackendError without one, without torch, or where
    the GPU fails the self-test, which runs once a process.
    """
    return Executor(program, partial(MetalMachine, library=_library()), keep, fuse)


@cache
def _library() -> Library:
    """The Apple GPU, which has passed the self-test."""
    from gensyn_verify.backends.metal.mps import MpsLibrary
    from gensyn_verify.backends.metal.selftest import check

    library = MpsLibrary()
    check(library)
    return library


def describe(number: int | None) -> dict[str, str]:
    """The device, which has passed the self-test; BackendError without one."""
    _library()
    return {"device": "an Apple GPU through torch.mps"}


__all__ = ["Library", "MetalMachine", "describe", "make"]

"""NVIDIA GPUs through the driver API: no nvcc, no CUDA toolkit and no torch where a program runs.

driver    the driver library, loaded at first use
ptx       maps and scans as PTX
rows      maps and reductions along rows as PTX
kernels   the kernels of csrc/cuda as PTX that ships with the package
epilogue  a map in a kernel of dot
launch    calls of a plan as launches of kernels
machine   a plan's arena on a device, its launches as one CUDA graph
"""

from __future__ import annotations

from functools import partial

from gensyn_verify.backends.cuda import driver, kernels
from gensyn_verify.backends.cuda.machine import CudaMachine
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.errors import BackendError
from gensyn_verify.program.program import Program

__all__ = ["CudaMachine", "describe", "make"]


def make(program: Program, keep: bool = False, fuse: bool = True, number: int | None = None) -> Executor:
    """An executor of `program` on GPU `number`, by default the one that torch uses, else the first.

    BackendError without one, LimitError where its memory is too small.
    """
    return Executor(program, partial(CudaMachine, number=number), keep, fuse, regions=True)


def describe(number: int | None) -> dict[str, str]:
    """The device, its driver and the kernels of this build; BackendError without a driver or device."""
    built = kernels.built()
    architectures = sorted({a for of_module in built.values() for a in of_module})
    listed = " ".join(f"sm_{a}" for a in architectures)
    found = {"kernels built": listed or "none: this package was built without nvcc, so maps and scans alone could run"}
    try:
        device = driver.device(driver.current_number() if number is None else number)
    except BackendError as error:
        return {"device": f"none: {error}", **found}
    version = ".".join(map(str, driver.driver_version()))
    return {
        "device": f"{device.name}, sm_{device.capability}, {device.multiprocessors} multiprocessors, CUDA {version}",
        **found,
    }

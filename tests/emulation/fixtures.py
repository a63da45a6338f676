"""The stand-in driver in force: as many configurations as tests want, one after the other in one process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emulation import build
from gensyn_verify.backends.cuda import driver, kernels


def forget() -> None:
    """The driver is opened anew, and reads its environment anew."""
    for cached in (driver.library, driver.device, driver._context):
        cached.cache_clear()


@contextmanager
def emulated(
    folder: Path, seed: int = 0, capability: int = 90, ptx: bool = False, processors: int = 4
) -> Iterator[None]:
    """Inside, backend cuda runs on the stand-in: kernels compiled for the host, or with `ptx` those that nvcc made."""
    built = kernels.folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENSYN_VERIFY_CUDA_DRIVER", str(build.driver()))
        patch.setenv("GENSYN_VERIFY_PTX", str(built if ptx else build.stubs(folder)))
        patch.setenv("EMULATION_SEED", str(seed))
        patch.setenv("EMULATION_CAPABILITY", str(capability))
        patch.setenv("EMULATION_MULTIPROCESSORS", str(processors))
        if ptx:
            patch.setenv("EMULATION_PTX", "1")
        forget()
        yield
    forget()


def has_ptx() -> bool:
    """Whether this build of the package has PTX."""
    return bool(kernels.built())


def has_ptxas() -> bool:
    return shutil.which("ptxas") is not None

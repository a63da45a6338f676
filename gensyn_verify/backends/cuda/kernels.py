"""The kernels of csrc/cuda as PTX that was compiled when the package was built, a file a module and architecture.

Files are MODULE.sm_NN.ptx in the package's folder `ptx`, or in the folder that GENSYN_VERIFY_PTX names. A device takes
the one of the newest architecture that is not newer than its own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gensyn_verify import _native
from gensyn_verify.errors import BackendError

MODULES = ("dot_f32", "dot_bf16", "dot_f16", "dot_int8", "reduce", "move", "random", "sort", "blake3")
_FILE = re.compile(r"([a-z0-9_]+)\.sm_(\d+)\.ptx")


def folder() -> Path:
    return Path(os.environ.get("GENSYN_VERIFY_PTX") or Path(_native.__file__).parent / "ptx")


def built() -> dict[str, list[int]]:
    """The architectures that every module was built for, ascending; empty where the build found no nvcc."""
    found: dict[str, list[int]] = {}
    for match in map(_FILE.fullmatch, sorted(p.name for p in folder().glob("*.ptx"))):
        if match:
            found.setdefault(match[1], []).append(int(match[2]))
    return {name: sorted(architectures) for name, architectures in found.items()}


def text(module: str, capability: int) -> str:
    """The PTX of a module for a device; BackendError where there is none."""
    architectures = [a for a in built().get(module, []) if a <= capability]
    if not architectures:
        raise BackendError(
            f"the kernels {module!r} for sm_{capability} are not in {folder()}: this package was built without nvcc; "
            "install one that was built with it, or use another backend"
        )
    return (folder() / f"{module}.sm_{architectures[-1]}.ptx").read_text()

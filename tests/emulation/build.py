"""Builds the stand-in driver with the kernels of csrc/cuda in it: a libcuda.so.1 for this host.

The library lies in build/emulation under the digest of everything that it is made of.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc" / "cuda"
EMULATION = ROOT / "tests" / "emulation"
# Module (backends/cuda/kernels.py) -> source and macros. CMakeLists.txt has the same list for nvcc.
MODULES = {
    "dot_f32": ("dot.cu", ("-DGV_DOT_TYPE=f32", "-DGV_DOT_LARGE", "-DGV_DOT_FOLD")),
    "dot_bf16": ("dot.cu", ("-DGV_DOT_TYPE=bf16",)),
    "dot_f16": ("dot.cu", ("-DGV_DOT_TYPE=f16",)),
    **{name: (f"{name}.cu", ()) for name in ("dot_int8", "reduce", "move", "random", "sort", "blake3")},
}
STUB = """
.visible .entry {kernel}(
	.param .align 8 .b8 {kernel}_param_0[{size}]
)
.maxntid 256, 1, 1
{{
	.reg .f32 %value;
	.reg .b64 %position;
	// gv_epilogue %value, %position
	ret;
}}
"""


def flags(optimise: str = "-O1") -> list[str]:
    fused = ["-mfma"] if platform.machine() in ("x86_64", "AMD64") and "fma" in _cpu_flags() else []
    return [
        "-std=c++17", optimise, "-ffp-contract=off", "-fPIC", *fused, "-Wall", "-Wextra", "-Werror",
        "-Wno-unknown-pragmas", f"-I{EMULATION}",
    ]  # fmt: skip


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def compiler() -> str:
    return os.environ.get("CXX", "c++")


def driver(extra: Sequence[str] = ()) -> Path:
    """The library's path, built where it is not there yet."""
    sources = [*sorted(KERNELS.iterdir()), *sorted(EMULATION.glob("*.h")), EMULATION / "driver.cpp"]
    digest = hashlib.sha256(repr((flags(), list(extra), compiler())).encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = ROOT / "build" / "emulation" / digest.hexdigest()[:16]
    library = folder / "libcuda.so.1"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    units = [(EMULATION / "driver.cpp", f"driver.{os.getpid()}.o", ()), *(
        (KERNELS / source, f"{name}.{os.getpid()}.o", macros) for name, (source, macros) in MODULES.items()
    )]  # fmt: skip

    def compile_unit(unit: tuple[Path, str, Sequence[str]]) -> Path:
        source, name, macros = unit
        target = folder / name
        run([compiler(), *flags(), *extra, *macros, "-x", "c++", "-c", str(source), "-o", str(target)])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_unit, units))
    partial = folder / f"libcuda.{os.getpid()}.so"
    run([compiler(), "-shared", *extra, *map(str, objects), "-ldl", "-o", str(partial)])
    partial.rename(library)
    for o in objects:
        o.unlink()
    return library


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[:4000]}")


def stubs(folder: Path) -> Path:
    """A folder of modules without kernels: the stand-in runs those that were compiled into it.

    A dot has its parameters and the place of its epilogue (csrc/cuda/dot.cu), and nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    compiled = ctypes.CDLL(str(driver()))
    for name in MODULES:
        text = ".version 6.3\n.target sm_75\n.address_size 64\n"
        sizes = ("large", "medium", "small", "thin") if name.startswith("dot_") else ()
        kernels = [f"gv_dot_{size}_{name[4:]}_{x}{y}" for size in sizes for x in "nt" for y in "nt"]
        for kernel in [*kernels, "gv_dot_fold"] if name == "dot_f32" else kernels:
            if hasattr(compiled, kernel):
                size = ctypes.c_size_t.in_dll(compiled, f"{kernel}_bytes").value
                text += STUB.format(kernel=kernel, size=size)
        (folder / f"{name}.sm_75.ptx").write_text(text)
    return folder

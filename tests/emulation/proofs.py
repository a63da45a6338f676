"""Proofs that launches of the PTX that ships, and of that written for rows, have no race, in any order of threads:
`make test-race-proofs`.

The launches are those of races.py, the prover is SentryWard. Where a kernel's branches depend on data it says so and
proves nothing; the table UNPROVEN has them. Without any one of its barriers a proven kernel has to be found unsafe; of
the kernels of dot, which are one source, one is tried, and of those of int8.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from emulation import races
from gensyn_verify.backends.cuda import kernels
from gensyn_verify.backends.cuda.launch import Launch

ARCHITECTURE = 100  # whose PTX SentryWard reads
SOURCES = (races.WRITTEN, "reduce.cu", "move.cu", "sort.cu", "blake3.cu", "dot_int8.cu", "dot.cu")
BROKEN_DOTS = ("gv_dot_thin_f32_nn", "gv_dot_int8_nn")
UNPROVEN = {
    "gv_sort_tile": "exchanges keys by what they are",
    "gv_sort_step": "exchanges keys by what they are",
    "gv_blake3_chunks": "reads lengths from a table",
}


def described(launch: Launch) -> dict[str, object]:
    """SentryWard's description of a launch. Words from BASE on are addresses, of memory that nothing else overlaps."""
    words = [
        (n, 8 * i, word)
        for n, parameter in enumerate(launch.parameters)
        for i, (word,) in enumerate(struct.iter_unpack("<q", parameter))
    ]
    return {
        "schema": "spverify.kernel-input/v1",
        "entry": launch.kernel,
        "launch": {
            "grid_dim": launch.grid, "block_dim": [launch.threads, 1, 1], "cluster_dim": [1, 1, 1],
            "dynamic_shared_bytes": launch.shared,
        },
        "declarations": [{"parameter": n, "offset": o, "type": "pointer"} for n, o, w in words if w >= races.BASE],
        "arguments": [
            {"parameter": n, "offset": o, "type": "s64", "value": w} for n, o, w in words if w < races.BASE
        ],
    }  # fmt: skip


def verdict(program: str, ptx: str, launch: Launch) -> str:
    """`race_free`, `potential_race`, `not_wellsynced`, `unsupported` ..."""
    with tempfile.TemporaryDirectory() as folder:
        source, told = Path(folder) / "kernel.ptx", Path(folder) / "launch.json"
        source.write_text(ptx)
        told.write_text(json.dumps(described(launch)))
        command = [program, str(source), "--input", str(told), "--timeout", "300"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return str(json.loads(done.stdout)["result"])


def for_architecture(written: str) -> str:
    """PTX of a plan, which is for sm_75 and later, as a module for ARCHITECTURE."""
    return re.sub(r"\.version .*\n\.target .*", f".version 8.6\n.target sm_{ARCHITECTURE}", written, count=1)


def without_barriers(ptx: str, kernel: str) -> list[str]:
    """The module without each of the kernel's barriers in turn."""
    begin = ptx.index(f".entry {kernel}(")
    end = ptx.find(".entry", begin + 1) % (len(ptx) + 1)
    barriers = list(races.PTX_BARRIER.finditer(ptx[begin:end]))
    return [ptx[: begin + b.start()] + ptx[begin + b.end() :] for b in barriers]


def judged(program: str, launch: Launch) -> tuple[bool, str]:
    """Whether the verdicts are those that they have to be, and what they are."""
    kernel = launch.kernel
    ptx = (
        kernels.text(launch.module, ARCHITECTURE)
        if launch.module
        else for_architecture(races.work(races.WRITTEN).module)
    )
    found = verdict(program, ptx, launch)
    if kernel in UNPROVEN:
        return found == "unsupported", f"{found}: {UNPROVEN[kernel]}"
    texts = without_barriers(ptx, kernel) if kernel in BROKEN_DOTS or not kernel.startswith("gv_dot") else []
    broken = [verdict(program, text, launch) for text in texts]
    right = found == "race_free" and set(broken) <= {"potential_race", "not_wellsynced"}
    return right, ", ".join([found, *(f"without barrier {n}: {b}" for n, b in enumerate(broken))])


def main(program: str) -> int:
    wrong = False
    for source in SOURCES:
        for launch in {one.kernel: one for one in races.work(source).launches}.values():
            right, told = judged(program, launch)
            print("" if right else "WRONG:", launch.kernel, told, flush=True)
            wrong |= not right
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

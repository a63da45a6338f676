"""What the CUDA kernels can reach on GPUs that are not here: counted, not measured. `python bench/roofline.py`.

Reads the machine code that ptxas makes of the shipped PTX (nvdisasm, of the wheel nvidia-cuda-nvdisasm, prints it) and
counts the instructions of the loops that matter. Writes bench/results/roofline.json, with registers and shared memory
of every kernel that ships. What it assumes:

- A multiprocessor has four schedulers; each issues one instruction of a warp a clock, those whose predicate is off too.
- FFMA and IMAD go through the fp32 lanes: a warp takes 32 / (lanes of a scheduler) clocks. 64 lanes a multiprocessor
  (sm_80) are two clocks an FFMA, and everything else issues in between; 128 lanes are one, and everything else is in
  the way.
- Shared memory moves 128 bytes a clock. A read of 16 bytes a thread takes two clocks where half of the warp reads what
  the other half reads, as here; `shared` says how busy that is; with four clocks it is twice as much.
- Other integer instructions go through the integer lanes: in two clocks where there are 64 of them, beside IMAD (Nsight
  Compute's manual, "Pipelines": ALU and FMA). Before Blackwell IMAD has 64 lanes, whatever FFMA has.
- The slower of issue, lanes and shared memory decides; others hide behind it. Where a multiprocessor has one thread
  block, nothing hides that all its warps wait at a barrier once a tile of k: BUBBLE clocks. Two hide each other's.
- Data are aligned: of two ways to copy, the one of 16 bytes at a time runs. Whatever else stands in a loop is counted.
- A last wave of thread blocks that is not full takes as long as a full one. L2 delivers in time if its share is below
  one; the share is given. Clocks are the boost clocks that the peak is stated for, for kernel and peak alike.

Not in it: instruction cache, bank conflicts of copies, L2 misses, a lower clock under load.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from gensyn_verify.backends.cuda import kernels
from gensyn_verify.backends.cuda.launch import (
    DOT_BLOCK,
    DOT_STEP,
    DOT_TILES,
    INT8_SHARED,
    SORT_TILE,
    THREADS,
    Launches,
)
from gensyn_verify.backends.cuda.machine import HASH_THREADS

RESULT = Path(__file__).resolve().parent / "results" / "roofline.json"
SCHEDULERS, REGISTERS, RESERVED = 4, 65536, 1024  # of a multiprocessor; bytes of shared memory that a block costs more
BUBBLE = 100  # clocks


@dataclass(frozen=True)
class Gpu:
    """NVIDIA's architecture whitepapers and the compute capabilities table of the CUDA programming guide."""

    name: str
    architecture: int
    multiprocessors: int
    lanes: int  # fp32, of a multiprocessor
    integer_lanes: int
    clock: float  # Hz
    shared: int  # bytes of a multiprocessor
    warps: int
    memory: float  # bytes a second
    l2: float  # bytes a clock of the whole chip; published for A100, the others are taken to be no worse

    @property
    def peak(self) -> float:
        """Fused multiply-adds a second."""
        return self.multiprocessors * self.lanes * self.clock


GPUS = (
    Gpu("A100 SXM", 80, 108, 64, 64, 1.41e9, 164 << 10, 64, 2.039e12, 5120),
    Gpu("H100 SXM", 90, 132, 128, 64, 1.98e9, 228 << 10, 64, 3.35e12, 5120),
    Gpu("RTX 4090", 89, 128, 128, 64, 2.52e9, 100 << 10, 48, 1.008e12, 5120),
    Gpu("RTX 5090", 120, 170, 128, 128, 2.407e9, 100 << 10, 48, 1.792e12, 5120),
)


@dataclass(frozen=True)
class Line:
    """An instruction with its operands, or a label."""

    label: str
    guard: str  # predicate
    name: str
    target: str  # of a branch


@dataclass(frozen=True)
class Loop:
    first: int  # of the kernel's lines
    last: int


def tool(name: str) -> str:
    triton = importlib.util.find_spec("triton")  # which brings both
    folders = triton.submodule_search_locations if triton else None
    places = ["/usr/local/cuda/bin", *(f"{folder}/backends/nvidia/bin" for folder in folders or ())]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if not found:
        raise SystemExit(f"{name} is needed: nvidia-cuda-nvcc and nvidia-cuda-nvdisasm have ptxas and nvdisasm")
    return found


@dataclass(frozen=True)
class Machine:
    """A module as one architecture runs it."""

    code: dict[str, list[Line]]
    registers: dict[str, int]
    spilled: dict[str, int]


def assembled(ptx: str, architecture: int) -> Machine:
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernels.ptx", Path(folder) / "kernels.cubin"
        source.write_text(ptx)
        command = [tool("ptxas"), "-v", f"-arch=sm_{architecture}", str(source), "-o", str(cubin)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        text = subprocess.run([tool("nvdisasm"), "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    blocks = re.split(r"Compiling entry function '", told)[1:]
    used = {b.split("'")[0]: int(re.findall(r"Used (\d+) registers", b)[0]) for b in blocks}
    spilled = {b.split("'")[0]: int(re.findall(r"(\d+) bytes spill stores", b)[0]) for b in blocks}
    code: dict[str, list[Line]] = {}
    for part in re.split(r"(?m)^\.text\.", text)[1:]:
        name, _, body = part.partition(":")
        code[name] = [
            Line(m["label"] or "", m["guard"] or "", m["name"] or "", m["target"] or "")
            for m in re.finditer(
                r"(?m)^(?P<label>\.L_x_\d+):"
                r"|^\s+/\*[0-9a-f]+\*/\s+(?:\{ )?(?P<guard>@!?U?P\w+\s+)?(?P<name>[A-Z][A-Z0-9_.]*)"
                r"(?:[^;\n]*\(?`\((?P<target>\.L_x_\d+)\))?",
                body,
            )
        ]
    return Machine(code, used, spilled)


def loops(code: list[Line]) -> list[Loop]:
    """Innermost first."""
    at = {line.label: i for i, line in enumerate(code) if line.label}
    found = {}
    for i, line in enumerate(code):
        if line.name.startswith("BRA") and at.get(line.target, i) < i:
            found[at[line.target]] = i
    return sorted((Loop(*pair) for pair in found.items()), key=lambda loop: loop.last - loop.first)


def names(code: list[Line], loop: Loop, without: list[Loop]) -> list[str]:
    """The instructions of a loop that run where data are aligned and no loop of `without` is entered."""
    hidden = {i for other in without for i in range(other.first, other.last + 1)}
    blocks: list[list[Line]] = [[]]
    for i in range(loop.first, loop.last + 1):
        if i in hidden:
            continue
        if code[i].label:
            blocks.append([])
        blocks[-1].append(code[i])
        if code[i].name.startswith("BRA"):
            blocks.append([])
    blocks = [b for b in blocks if b]
    kept = [not any(".U8" in line.name for line in b) for b in blocks]  # bytes of tensors that are not aligned
    for i, (block, after) in enumerate(pairwise(blocks)):
        # if ... else: one copies 16 bytes at a time, the other 4.
        copies = [[line.name for line in b if line.name.startswith("LDGSTS")] for b in (block, after)]
        if all(copies) and block[-1].name.startswith("BRA") and not block[-1].guard and after[0].label:
            wide = [any(".128" in name for name in c) for c in copies]
            kept[i], kept[i + 1] = (wide[0], wide[1]) if any(wide) else (True, True)
    return [line.name for b, keep in zip(blocks, kept, strict=True) if keep for line in b if line.name]


def count(names: list[str], *prefixes: str) -> int:
    return sum(n.startswith(prefixes) for n in names)


@dataclass(frozen=True)
class Dot:
    """One kernel for one matrix product; shares are of the fp32 peak, or of what the part could do."""

    gpu: str
    kernel: str
    registers: int
    spilled: int
    blocks: int  # on a multiprocessor
    issued: int  # instructions of a warp for a tile of DOT_STEP values of k
    fma: int
    reads: int  # of 16 bytes, from shared memory
    loop: float  # share of the peak that the loop alone allows
    totals: float  # share of the time that adding chains to totals leaves
    waves: float  # share of the thread blocks' places that are filled
    shared: float
    l2: float
    predicted: float


def dot(gpu: Gpu, machine: Machine, size: str, operands: str, n: int) -> Dot:
    kernel = f"gv_dot_{size}_f32_{operands}"
    code, (rows, columns, each) = machine.code[kernel], DOT_TILES[size]
    every = loops(code)
    inner = next(a for a in every if count(names(code, a, []), "BAR") and count(names(code, a, []), "FFMA") >= each * 8)
    tail = [a for a in every if inner.first < a.first and a.last < inner.last]  # for a last tile that is not whole
    outer = next(a for a in every if a.first < inner.first and inner.last <= a.last)
    steady, between = names(code, inner, tail), names(code, outer, [inner])
    fma, reads, lanes = each * DOT_STEP, count(steady, "LDS.128"), gpu.lanes // SCHEDULERS
    assert count(steady, "FFMA") == fma

    warps = THREADS // 32
    shared = Launches.dot_shared(size, True)
    registers = -(-machine.registers[kernel] * 32 // 256) * 256 * warps
    blocks = min(REGISTERS // registers, gpu.shared // (shared + RESERVED), gpu.warps // warps)
    resident = blocks * warps / SCHEDULERS  # warps of a scheduler
    clocks = {
        "issue": len(steady) * resident,
        "lanes": (fma + count(steady, "IMAD")) * 32 / lanes * resident,
        "shared": 2 * reads * resident * SCHEDULERS,
    }
    tile = max(clocks.values()) + (BUBBLE if blocks == 1 else 0)
    loop = fma * 32 / lanes * resident / tile
    added = max(len(between), count(between, "FADD", "FMUL", "IMAD") * 32 / lanes) * resident
    totals = tile * DOT_BLOCK / DOT_STEP / (tile * DOT_BLOCK / DOT_STEP + added)
    tiles = math.ceil(n / rows) * math.ceil(n / columns)
    places = gpu.multiprocessors * blocks
    waves = tiles / (math.ceil(tiles / places) * places)
    predicted = loop * totals * waves
    seconds = n**3 / (gpu.peak * predicted)
    l2 = tiles * n * (rows + columns) * 4 / (gpu.l2 * gpu.clock) / seconds
    return Dot(
        gpu.name, kernel, machine.registers[kernel], machine.spilled[kernel], blocks, len(steady), fma, reads,
        loop, totals, waves, clocks["shared"] / tile, l2, predicted,
    )  # fmt: skip


@dataclass(frozen=True)
class Hash:
    """Chaining values of chunks: instructions of a warp for a block of 64 bytes of each thread, and what limits."""

    gpu: str
    registers: int
    issued: int
    integer: int  # through the integer lanes
    products: int  # IMAD
    bytes_per_second: float
    memory: float  # share of the memory's bandwidth that this is


def blake3(gpu: Gpu, machine: Machine) -> Hash:
    """A block of 64 bytes is one turn of the shortest loop that has a compression's rotations.

    Of 32 whole chunks of one tensor, as nearly all are: the loop that brings others, with shuffles, is not counted.
    """
    kernel = "gv_blake3_chunks"
    code = machine.code[kernel]
    every = loops(code)
    turns = [a for a in every if count(names(code, a, []), "SHF", "PRMT", "LOP3") > 7 * 8 * 4]
    block = min(turns, key=lambda a: len(names(code, a, [])))
    others = [a for a in every if block.first < a.first and a.last < block.last and count(names(code, a, []), "SHFL")]
    steady = names(code, block, others)
    products = count(steady, "IMAD")
    integer = len(steady) - products - count(steady, "LD", "ST", "BRA", "BSSY", "BSYNC", "CALL", "NOP")
    clocks = max(
        len(steady), integer * 32 * SCHEDULERS / gpu.integer_lanes, products * 32 * SCHEDULERS / min(gpu.lanes, 64)
    )
    rate = gpu.multiprocessors * SCHEDULERS * gpu.clock * 32 * 64 / clocks
    return Hash(gpu.name, machine.registers[kernel], len(steady), integer, products, rate, rate / gpu.memory)


def resources() -> dict[str, dict[str, dict[str, int]]]:
    """Of every kernel that ships, by architecture: registers a thread, bytes that it spills, bytes of shared memory.

    Shared memory is what a launch asks for, at most.
    """
    asked = {f"gv_dot_{size}": Launches.dot_shared(size, True) for size in DOT_TILES} | {
        "gv_dot_int8": INT8_SHARED, "gv_extreme": 8 * THREADS // 32, "gv_sum_columns": 4 * THREADS,
        "gv_transpose": 4 * 32 * 33, "gv_sort_tile": 8 * SORT_TILE, "gv_blake3_chunks": 4 * 17 * HASH_THREADS,
    }  # fmt: skip
    found: dict[str, dict[str, dict[str, int]]] = {}
    for module, architectures in kernels.built().items():
        for a in architectures:
            machine = assembled(kernels.text(module, a), a)
            for kernel, registers in machine.registers.items():
                shared = next((nbytes for begin, nbytes in asked.items() if kernel.startswith(begin)), 0)
                used = {"registers": registers, "spilled": machine.spilled[kernel], "shared": shared}
                found.setdefault(f"sm_{a}", {})[kernel] = used
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="rows, columns and k of the matrix product")
    n = parser.parse_args().size
    dots, hashes = [], []
    for gpu in GPUS:
        machine = assembled(kernels.text("dot_f32", gpu.architecture), gpu.architecture)
        dots += [dot(gpu, machine, size, o, n) for size in ("large", "medium") for o in ("nn", "nt", "tn", "tt")]
        hashes.append(blake3(gpu, assembled(kernels.text("blake3", gpu.architecture), gpu.architecture)))
    print(
        f"{'dot ' + str(n) + '^3':10} {'kernel':22} regs blocks issued  fma reads  loop totals waves shared   l2  peak"
    )
    for d in dots:
        print(
            f"{d.gpu:10} {d.kernel:22} {d.registers:4} {d.blocks:6} {d.issued:6} {d.fma:4} {d.reads:5} {d.loop:5.2f} "
            f"{d.totals:6.3f} {d.waves:5.2f} {d.shared:6.2f} {d.l2:4.2f} {d.predicted:5.2f}"
        )
    for h in hashes:
        print(f"{h.gpu:10} hash: {h.issued} instructions for 64 bytes, {h.integer} integer, {h.products} products; "
              f"{h.bytes_per_second / 1e9:.0f} GB/s, {h.memory:.2f} of memory")  # fmt: skip
    results = {"n": n, "dot": [asdict(d) for d in dots], "blake3": [asdict(h) for h in hashes], "kernels": resources()}
    RESULT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Launches of CUDA kernels under ThreadSanitizer, in a process of their own, with any barrier left out: the kernels of
csrc/cuda, and those that are written for rows.

A thread of a GPU is a thread of the operating system here (threads.h), so a kernel that does not wait where it has to
is a data race that ThreadSanitizer sees, whatever the timing. Copies that nobody waits for arrive never, or so late
that results are wrong.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from emulation.build import EMULATION, KERNELS, MODULES, compiler, flags, run
from gensyn_verify import _native, backends
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.backends.cuda.launch import Launch, Launches
from gensyn_verify.backends.device.plan import make_plan
from gensyn_verify.program.program import Program, ProgramBuilder, Value
from gensyn_verify.program.types import Dtype, TensorType

BASE = 1 << 36  # of the arena: an address that ThreadSanitizer lets programs use
# A barrier of a kernel, as a statement or first in a list of them.
BARRIER = re.compile(r"(?<!void )(?<!::)\b(__syncthreads|__syncwarp|wait_async)\(\)(?=[;,])")
PTX_BARRIER = re.compile(r"(bar\.warp\.sync|bar\.sync)\s+(?:-1|0);")
WRITTEN = "rows"  # what has no source: the kernels that backends/cuda/rows.py writes
THREAD_SANITIZER = ("-g", "-fsanitize=thread", "-DEMULATION_THREADS")


@dataclass(frozen=True)
class Barrier:
    """The `number`-th of a source of csrc/cuda, or of the kernels that are written."""

    source: str
    number: int
    line: int
    call: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line} {self.call}"

    def left_out(self) -> str:
        """The source without it."""
        text, pattern = text_of(self.source)
        match = list(pattern.finditer(text))[self.number]
        return text[: match.start()] + ("" if pattern is PTX_BARRIER else "void()") + text[match.end() :]


def text_of(source: str) -> tuple[str, re.Pattern[str]]:
    """A source of csrc/cuda, or the kernels that are written, and what a barrier is in it."""
    return (work(WRITTEN).module, PTX_BARRIER) if source == WRITTEN else ((KERNELS / source).read_text(), BARRIER)


def barriers() -> list[Barrier]:
    """All of csrc/cuda, and all of the kernels that are written."""
    out = []
    for source in (WRITTEN, *sorted(path.name for path in KERNELS.glob("*.cu"))):
        text, pattern = text_of(source)
        for number, match in enumerate(pattern.finditer(text)):
            out.append(Barrier(source, number, text.count("\n", 0, match.start()) + 1, match[1]))
    return out


def program(source: str) -> Program:
    """What runs the kernels of a source that wait, with more than one tile, block of k, segment, row and merge."""
    g, f32, i8 = ProgramBuilder(), Dtype.f32, Dtype.i8

    def batch(name: str, *shape: int, dtype: Dtype = f32) -> Value:
        return g.input("batch", name, TensorType(dtype, shape))

    results = []
    match source:
        case "dot.cu":
            for size, rows, columns in (("large", 68, 66), ("medium", 68, 40), ("small", 20, 70), ("thin", 5, 70)):
                for dtype in (f32, Dtype.bf16):  # copied asynchronously, through registers
                    a = batch(f"{size}_a_{dtype.name}", rows, 197, dtype=dtype)
                    results.append(g.dot(a, batch(f"{size}_b_{dtype.name}", 197, columns, dtype=dtype)))
            results.append(g.dot(batch("ta", 197, 68), batch("tb", 66, 197), transpose_a=True, transpose_b=True))
        case "dot_int8.cu":
            results.append(g.dot(batch("a", 68, 130, dtype=i8), batch("b", 130, 66, dtype=i8), dtype=Dtype.i32))
            results.append(g.dot(batch("ta", 136, 8, dtype=i8), batch("tb", 12, 136, dtype=i8), True, True, Dtype.i32))
        case "reduce.cu":
            tall, long = batch("tall", 4200, 40), batch("long", 3, 4200)
            results += [g.reduce("sum", tall, [0]), g.reduce("sum", long, [1])]
            results += [g.reduce(name, long, [1]) for name in ("max", "argmin")]
        case "sort.cu":
            results.append(g.sort(batch("x", 2, 2100)))
        case "rows":  # a row for a warp, and for a thread block
            for x in (batch("warp", 20, 90), batch("block", 2, 4200)):
                results += [turned(g, x), g.reduce("min", x, [1])]
        case "move.cu":
            results.append(g.reshape(g.permute(batch("x", 40, 40), (1, 0)), (1600,)))
    for n, value in enumerate(results):
        g.output("metric", f"y{n}", value)
    return g.build()


def turned(g: ProgramBuilder, x: Value) -> Value:
    """Of each row: sums and an extreme that all of it reads, and its halves read in turn."""
    total = g.reduce("sum", x, [1], keepdims=True)
    y = g.map(lambda a, b: a - b, x, total)
    halves = g.permute(g.reshape(y, (x.shape[0], 2, x.shape[1] // 2)), (0, 2, 1))
    z = g.reshape(g.map(lambda a: a * 3.0, halves), x.shape)
    return g.reduce("sum", g.map(lambda a, b: a - b, z, g.reduce("max", z, [1], keepdims=True)), [1])


def numbers(rng: np.random.Generator, type: TensorType) -> Array:
    """Everyday numbers: a NaN would hide which others are wrong."""
    if type.dtype is Dtype.i8:
        return rng.integers(-128, 128, type.shape).astype(np.int8)
    array = rng.standard_normal(type.shape).astype(np.float32)
    return array if type.dtype is Dtype.f32 else (array.view(np.uint32) >> 16).astype(CARRIER[type.dtype])


def narrowed(launch: Launch) -> Launch:
    """With few thread blocks where each walks on until all is done: it must not overtake itself."""
    x, y, z = launch.grid
    if launch.kernel == "gv_sum_columns":
        return replace(launch, grid=(x, 1, z))
    return (
        launch if launch.kernel.startswith(("gv_dot", "gv_transpose", "gv_rows")) else replace(launch, grid=(1, y, z))
    )


@dataclass(frozen=True)
class Work:
    """Launches on an arena, what they have to leave where (offset -> bytes), and the kernels that were written."""

    arena: Array
    launches: tuple[Launch, ...]
    wanted: dict[int, bytes]
    module: str = ""


@cache
def work(source: str) -> Work:
    """The program of a source; of blake3.cu, roots."""
    if source == "blake3.cu":
        return hashing()
    made, rng = program(source), np.random.default_rng(0)
    plan = make_plan(made, regions=source == WRITTEN)
    planned = Launches(plan, BASE, multiprocessors=1, shared_bytes=227 << 10, capability=90)
    arena = np.zeros(planned.total_bytes, np.uint8)
    inputs = {i.name: numbers(rng, i.type) for i in made.inputs}
    for i, place in zip(made.inputs, plan.inputs, strict=True):
        array = inputs[i.name].view(np.uint8).reshape(-1)
        arena[place.offset : place.offset + len(array)] = array
    metrics = backends.evaluate(made, inputs)
    wanted = {p.offset: metrics[o.name].tobytes() for o, p in zip(made.outputs, plan.metrics, strict=True)}
    return Work(arena, tuple(map(narrowed, planned.launches)), wanted, planned.modules.get("", ""))


def hashing() -> Work:
    """Tensors of one chunk, whose chaining values are roots; more of them than there are threads."""
    lengths, threads = range(0, 1025, 15), 64
    data = np.random.default_rng(0).integers(0, 256, 1024, np.uint8)
    nodes, tensors = 40 * len(lengths), 72 * len(lengths)
    table = np.array([(BASE + tensors, length, n, 1, 0) for n, length in enumerate(lengths)], "<i8")
    arena = np.concatenate([table.view(np.uint8).reshape(-1), np.zeros(tensors - nodes, np.uint8), data])
    words = struct.pack("<6q", BASE, BASE + nodes, 0, len(lengths), len(lengths), 1)
    launch = Launch("blake3", "gv_blake3_chunks", (1, 1, 1), threads, 4 * 17 * threads, (words,))
    return Work(arena, (launch,), {nodes + 32 * n: _native.blake3_root(data[:k]) for n, k in enumerate(lengths)})


@dataclass(frozen=True)
class Outcome:
    """What ThreadSanitizer said, and whether results are wrong."""

    report: str
    wrong: bool


def compiled(source: Path, target: Path, macros: Sequence[str] = ()) -> Path:
    common = [compiler(), *flags(), *THREAD_SANITIZER, f"-I{KERNELS}", "-x", "c++"]
    run([*common, *macros, "-c", str(source), "-o", str(target)])
    return target


@cache
def launcher() -> Path:
    return compiled(EMULATION / "races.cpp", Path(tempfile.mkdtemp()) / "races.o")


def built(folder: Path, source: str, without: Barrier | None = None) -> Path:
    """A program that launches the kernels of a source (races.cpp); beside it, in `rows`, those that were written."""
    objects = [launcher()]
    (folder / source).write_text(without.left_out() if without else text_of(source)[0])
    for name, (of, macros) in MODULES.items():
        if of == source:
            objects.append(compiled(folder / source, folder / f"{name}.o", macros))
    binary = folder / "a.out"
    run([compiler(), "-fsanitize=thread", "-rdynamic", *map(str, objects), "-ldl", "-o", str(binary)])
    return binary


def outcome(binary: Path, todo: Work, seed: int) -> Outcome:
    """The work under schedule `seed` (threads.h): copies arrive at once if it is odd, as late as they may if even."""
    arena, launches = binary.with_name("arena"), binary.with_name("launches")
    todo.arena.tofile(arena)
    with launches.open("w") as file:
        for one in todo.launches:
            print(one.kernel, *one.grid, one.threads, one.shared, b"".join(one.parameters).hex(), file=file)
    written = [str(path) for path in [binary.with_name(WRITTEN)] if path.exists()]
    command = [str(binary), str(BASE), str(arena), str(launches), str(seed), *written]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 66):  # 66: ThreadSanitizer said something
        raise RuntimeError(f"the launches ended with {done.returncode}: {done.stderr[:2000]}")
    found = arena.read_bytes()
    return Outcome(done.stderr, any(found[at : at + len(b)] != b for at, b in todo.wanted.items()))

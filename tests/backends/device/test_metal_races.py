"""The Metal kernels wait for each other where they have to: ThreadSanitizer sees every thread of a group."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metal_host import EMULATION, MSL_FLAGS, HostLibrary, needs_compiler, on_metal

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.backends.metal import source
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType, Value

pytestmark = needs_compiler
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"


@dataclass(frozen=True)
class Recorder(HostLibrary):
    """Kernels that only write down how they were launched."""

    sources: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    buffers: list[Array] = field(default_factory=list)

    def compile(self, source: str) -> Any:
        self.sources.append(source)
        return self

    def buffer(self, nbytes: int) -> Any:
        self.buffers.append(super().buffer(nbytes))
        return self.buffers[-1]

    def __getattr__(self, name: str) -> Any:
        def launch(_: Array, given: list[int], threads: list[int], group_size: list[int]) -> None:
            groups = [n // s for n, s in zip(threads, group_size, strict=True)]
            self.lines.append(" ".join(map(str, (name, *groups, group_size[0], *given))))

        return launch


def product(g: ProgramBuilder) -> list[Value]:
    """Two groups, three steps, of floats and of i8."""
    return [
        g.dot(
            g.input("batch", f"a_{of.name}", TensorType(of, (5, 40))),
            g.input("batch", f"b_{of.name}", TensorType(of, (40, 70))),
            dtype=to,
        )
        for of, to in ((Dtype.f32, Dtype.f32), (Dtype.i8, Dtype.i32))
    ]


def others(g: ProgramBuilder) -> list[Value]:
    """The kernels whose threads meet, and those that raise flags or measure."""
    x = g.input("batch", "x", TensorType(Dtype.f32, (2, 130)))
    b = g.input("batch", "b", TensorType(Dtype.f32, (130, 3)))
    index = g.input("batch", "index", TensorType(Dtype.i32, (130,)))
    return [
        g.reduce("sum", x, [1]), g.reduce("sum", b, [0]), g.reduce("argmax", x, [1]), g.sort(x),
        g.scatter_add(b, index, 9), g.map(lambda v: v * 2.0, x), *g.scan(lambda c, v: c + v, [g.full((3,), 0.0)], [b]),
    ]  # fmt: skip


def races(folder: Path, write: Callable[[ProgramBuilder], list[Value]], without: int | None = None) -> str:
    """What ThreadSanitizer says of a step, with one barrier of the kernels left out if told so."""
    g = ProgramBuilder()
    for n, value in enumerate(write(g)):
        g.output("metric", f"y{n}", value)
    made, rng = g.build(), np.random.default_rng(0)
    inputs = {i.name: rng.integers(1, 9, i.type.shape).astype(CARRIER[i.type.dtype]) for i in made.inputs}
    recorder = Recorder()
    on_metal(made, inputs, recorder)
    code = source.kernels() + "\n".join(s[len(source.common()) :] for s in recorder.sources[1:])
    if without is not None:
        parts = code.split(BARRIER)
        code = BARRIER.join(parts[: without + 1]) + ";" + BARRIER.join(parts[without + 1 :])
    (folder / "kernels.cpp").write_text(code)
    (folder / "launches").write_text("\n".join(recorder.lines))
    recorder.buffers[0].tofile(folder / "arena")
    flags = [
        "g++",
        "-O1",
        "-g",
        "-w",
        "-fsanitize=thread",
        "-ffp-contract=off",
        f"-I{EMULATION}",
        f"-I{EMULATION.parent}",
    ]
    kernels, driver = folder / "kernels.o", folder / "races"
    for command in (
        [*flags, *MSL_FLAGS, "-c", str(folder / "kernels.cpp"), "-o", str(kernels)],
        [*flags, "-std=c++17", "-DEMULATION_THREADS", "-rdynamic", str(EMULATION / "races.cpp"), str(kernels),
         "-o", str(driver), "-ldl", "-lpthread"],
    ):  # fmt: skip
        subprocess.run(command, check=True)
    done = subprocess.run([driver, folder / "arena", folder / "launches"], capture_output=True, text=True, check=False)
    return done.stderr


@pytest.mark.parametrize("write", [product, others])
def test_no_kernel_has_a_race(tmp_path: Path, write: Callable[[ProgramBuilder], list[Value]]) -> None:
    assert races(tmp_path, write) == ""


@pytest.mark.parametrize("barrier", [0, 1])  # those of dot
def test_a_barrier_left_out_is_seen(tmp_path: Path, barrier: int) -> None:
    assert "WARNING: ThreadSanitizer: data race" in races(tmp_path, product, barrier)

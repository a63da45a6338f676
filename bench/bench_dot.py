"""dot beside torch.mm, NumPy and scipy-openblas32; of i8 beside torch._int_mm.

    pytest bench/bench_dot.py --benchmark-only      the squares of the acceptance, one and two threads
    python bench/bench_dot.py [SET ...] [--threads 1 2]    tables; sets: squares transposed transformer vectors small i8
                                                           (all of them if none is named)

Before the times: a sample of rows and columns equals the reference backend, the whole result every vectorised
instruction set.
"""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

import common
import numpy as np
import pytest
import scipy_openblas32
import torch
from common import OURS, Call, Native, Row

from gensyn_verify.backends.arrays import Array
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType

Case = tuple[int, int, int, bool, bool]  # m, n, k, transpose_a, transpose_b


class Int8(NamedTuple):
    """A case of i8 into i32."""

    m: int
    n: int
    k: int
    transpose_a: bool = False
    transpose_b: bool = False


SQUARES: list[Case] = [(s, s, s, False, False) for s in (256, 512, 1024, 2048)]
CASES: dict[str, list[Case]] = {
    "squares": SQUARES,
    "transposed": [(s, s, s, a, b) for s in (512, 1024) for a, b in ((True, False), (False, True), (True, True))],
    "transformer": [
        (256, 768, 768, False, False),
        (256, 768, 768, False, True),
        (768, 768, 256, True, False),
        (2048, 768, 3072, False, True),
        (64, 4096, 4096, False, True),
        (8192, 64, 576, False, False),
        (64, 576, 8192, True, False),
    ],
    "vectors": [
        (1, 1024, 1024, False, False),
        (1, 1024, 1024, False, True),
        (1, 4096, 4096, False, False),
        (1, 4096, 4096, False, True),
        (4096, 1, 4096, False, False),
        (8, 4096, 4096, False, True),
        (2048, 10, 512, False, False),
        (4096, 10, 32, True, False),
    ],
    "small": [
        (64, 64, 64, False, False),
        (64, 64, 64, False, True),
        (64, 64, 64, True, False),
        (32, 10, 64, False, True),
        (32, 64, 10, False, False),
        (64, 10, 32, True, False),
        (16, 16, 16, False, False),
        (128, 128, 128, False, False),
    ],
    "i8": [
        Int8(512, 512, 512),
        Int8(1024, 1024, 1024),
        Int8(1024, 1024, 1024, False, True),
        Int8(256, 3072, 768, False, True),
    ],
}


def dot_program(a: Array, b: Array, transpose_a: bool, transpose_b: bool) -> Program:
    dtype, out = (Dtype.i8, Dtype.i32) if a.dtype == np.int8 else (Dtype.f32, Dtype.f32)
    g = ProgramBuilder()
    x, y = g.input("batch", "a", TensorType(dtype, a.shape)), g.input("batch", "b", TensorType(dtype, b.shape))
    g.output("metric", "c", g.dot(x, y, transpose_a, transpose_b, out))
    return g.build()


def check_sample(a: Array, b: Array, transpose_a: bool, transpose_b: bool, c: Array) -> None:
    """Some rows and columns of c are the reference backend's product of those rows and columns alone."""
    rng = np.random.default_rng(0)
    rows, columns = (np.sort(rng.permutation(size)[:8]) for size in c.shape)
    few_a = np.ascontiguousarray(a[:, rows] if transpose_a else a[rows])
    few_b = np.ascontiguousarray(b[columns] if transpose_b else b[:, columns])
    program = dot_program(few_a, few_b, transpose_a, transpose_b)
    wanted = common.backends.evaluate(program, {"a": few_a, "b": few_b}, "reference")["c"]
    assert common.bits(c[np.ix_(rows, columns)]) == common.bits(wanted), "differs from the reference backend"


def openblas_sgemm(case: Case, a: Array, b: Array, c: Array) -> Call:
    m, n, k, transpose_a, transpose_b = case
    library = ctypes.CDLL(os.path.join(scipy_openblas32.get_lib_dir(), "libscipy_openblas.so"))
    sgemm = library.scipy_cblas_sgemm
    row_major, flags = 101, (111, 112)
    number, pointer, real = ctypes.c_int, ctypes.c_void_p, ctypes.c_float
    sgemm.argtypes = [number] * 6 + [real, pointer, number, pointer, number, real, pointer, number]
    sgemm.restype = None
    shape = (row_major, flags[transpose_a], flags[transpose_b], m, n, k)
    # Prepared arguments: ctypes converts them once, not at every call.
    values = (*shape, 1.0, a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1], 0.0, c.ctypes.data, n)
    converted = [kind(value) for kind, value in zip(sgemm.argtypes, values, strict=True)]
    return lambda keep=(a, b, c): sgemm(*converted)


def engines(case: Case) -> dict[str, Call]:
    """Every engine on the same operands; ours is checked."""
    m, n, k, transpose_a, transpose_b = case
    rng = np.random.default_rng(1)
    shapes = (k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n)
    if isinstance(case, Int8):
        a, b = (rng.integers(-128, 128, shape, np.int8) for shape in shapes)
    else:
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    program = dot_program(a, b, transpose_a, transpose_b)
    ours = Native(program, {"a": a, "b": b})
    check_sample(a, b, transpose_a, transpose_b, ours.outputs["c"])
    common.check_bits(program, {"a": a, "b": b}, portable=m * n * k < 1 << 26)

    x, y = a.T if transpose_a else a, b.T if transpose_b else b
    u, v = (torch.from_numpy(t).T if flag else torch.from_numpy(t) for t, flag in ((a, transpose_a), (b, transpose_b)))
    if isinstance(case, Int8):
        assert torch.equal(torch._int_mm(u, v), torch.from_numpy(ours.outputs["c"])), "differs from torch"
        return {OURS: ours.run, "torch": lambda: torch._int_mm(u, v)}
    c, d, e = np.empty((m, n), np.float32), torch.empty(m, n), np.empty((m, n), np.float32)
    return {
        OURS: ours.run,
        "torch": lambda: torch.mm(u, v, out=d),
        "numpy": lambda: np.matmul(x, y, out=c),
        "openblas": openblas_sgemm(case, a, b, e),
    }


def measure(case: Case, n_threads: int) -> tuple[Row, Call]:
    m, n, k, transpose_a, transpose_b = case
    calls = engines(case)
    title = f"dot {'i8 ' * isinstance(case, Int8)}{m}x{n}x{k} {'NT'[transpose_a]}{'NT'[transpose_b]}"
    return common.compare(title, calls, n_threads, work=2.0 * m * n * k, unit="GF"), calls[OURS]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", SQUARES, ids=lambda c: "x".join(map(str, c[:3])))
def test_square(benchmark, capsys, case: Case, n_threads: int) -> None:  # type: ignore[no-untyped-def]
    common.benchmarked(benchmark, capsys, *measure(case, n_threads))


if __name__ == "__main__":
    common.tables(common.parser(__doc__, CASES).parse_args(), CASES, lambda case, n: measure(case, n)[0])

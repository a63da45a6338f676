"""map beside the out= variants of PyTorch: elementary functions, activations, arithmetic with and without broadcasting.

    pytest bench/bench_map.py --benchmark-only     all cases, one and two threads
    python bench/bench_map.py [SET ...] [--threads 1 2] [--machine]    tables; a set is the name of a case;
                                                                       --machine: without compiled programs

Before the times: a sample of the elements equals the reference backend, all of them every instruction set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import common
import numpy as np
import pytest
import torch
from common import OURS, Call, Native, Row

from gensyn_verify import _native
from gensyn_verify.program import Dtype, Program, ProgramBuilder, Scalar, TensorType, functions

Shape = tuple[int, ...]
SIZES = (1 << 16, 1 << 20, 1 << 22)
SQRT_HALF = math.sqrt(0.5)


class Case(NamedTuple):
    """A scalar function of inputs whose shapes follow from the number of elements, and what PyTorch runs for it."""

    name: str
    function: Callable[..., Scalar]
    shapes: Callable[[int], tuple[Shape, ...]]
    torch: Callable[..., object]  # of the inputs and out=
    positive: bool = False


def unary(name: str, function: Callable[[Scalar], Scalar], peer: Callable[..., object], positive: bool = False) -> Case:
    return Case(name, function, lambda n: ((n,),), peer, positive)


def relu(x: Scalar) -> Scalar:
    return x.max(0.0)


def gelu(x: Scalar) -> Scalar:
    return 0.5 * x * (1.0 + functions.erf(x * SQRT_HALF))


def add(x: Scalar, y: Scalar) -> Scalar:
    return x + y


CASES = [
    unary("exp", functions.exp, torch.exp),
    unary("expm1", functions.expm1, torch.expm1),
    unary("log", functions.log, torch.log, positive=True),
    unary("log1p", functions.log1p, torch.log1p, positive=True),
    unary("tanh", functions.tanh, torch.tanh),
    unary("sigmoid", functions.sigmoid, torch.sigmoid),
    unary("erf", functions.erf, torch.erf),
    unary("sin", functions.sin, torch.sin),
    unary("cos", functions.cos, torch.cos),
    unary("gelu", gelu, torch.ops.aten.gelu.out),
    unary("relu", relu, lambda x, out: torch.clamp_min(x, 0.0, out=out)),
    Case("add", add, lambda n: ((n,), (n,)), torch.add),
    Case("add a row of 64", add, lambda n: ((n // 64, 64), (64,)), torch.add),
    Case("add a row of 1024", add, lambda n: ((n // 1024, 1024), (1024,)), torch.add),
    Case("add a column", add, lambda n: ((n // 1024, 1024), (n // 1024, 1)), torch.add),
]


def map_program(case: Case, shapes: tuple[Shape, ...]) -> Program:
    g = ProgramBuilder()
    inputs = [g.input("batch", f"x{n}", TensorType(Dtype.f32, shape)) for n, shape in enumerate(shapes)]
    g.output("metric", "y", g.map(case.function, *inputs))
    return g.build()


def engines(case: Case, n: int) -> dict[str, Call]:
    """Both engines on the same operands; ours is checked."""
    rng = np.random.default_rng(1)
    shapes = case.shapes(n)
    xs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    if case.positive:
        xs = [np.abs(x) + np.float32(2.0**-20) for x in xs]
    few = [x[: min(len(x), 4096 if x.ndim == 1 else 8)] for x in xs] if len({len(s) for s in shapes}) == 1 else xs
    common.check_reference(map_program(case, tuple(x.shape for x in few)), {f"x{i}": x for i, x in enumerate(few)})
    program, inputs = map_program(case, shapes), {f"x{i}": x for i, x in enumerate(xs)}
    common.check_bits(program, inputs, portable=n <= 1 << 20)
    ours = Native(program, inputs)
    tensors = [torch.from_numpy(x) for x in xs]
    out = torch.empty(program.outputs_of("metric")["y"].shape)
    case.torch(*tensors, out=out)
    np.testing.assert_allclose(ours.outputs["y"], out.numpy(), rtol=1e-5, atol=1e-6)
    return {OURS: ours.run, "torch": lambda: case.torch(*tensors, out=out)}


def measure(case: Case, n: int, n_threads: int) -> tuple[Row, Call]:
    calls = engines(case, n)
    return common.compare(f"{case.name}, {n} elements", calls, n_threads), calls[OURS]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_map(benchmark, capsys, case: Case, n: int, n_threads: int) -> None:  # type: ignore[no-untyped-def]
    common.benchmarked(benchmark, capsys, *measure(case, n, n_threads))


def main() -> None:
    parser = common.parser(__doc__, [case.name for case in CASES])
    parser.add_argument("--machine", action="store_true", help="instruction by instruction, nothing compiled")
    arguments = parser.parse_args()
    _native.use_published(not arguments.machine)
    sets = {case.name: [(case, n) for n in SIZES] for case in CASES}
    common.tables(arguments, sets, lambda case, n: measure(*case, n)[0])


if __name__ == "__main__":
    main()

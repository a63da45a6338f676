"""Reductions, softmax and layer norm beside PyTorch.

    pytest bench/bench_reduce.py --benchmark-only      all cases, one and two threads
    python bench/bench_reduce.py [SET ...] [--threads 1 2]      tables; sets: sums extremes fused

Before the times: a few rows equal the reference backend, the whole result every instruction set, and the fused graphs
their nodes run one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import common
import numpy as np
import pytest
import torch
from common import OURS, Call, Native, Row

from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.cpu import Executor
from gensyn_verify.program import (
    Dtype,
    Program,
    ProgramBuilder,
    TensorType,
    Value,
    activations,
    functions,
)

Shape = tuple[int, ...]
Graph = Callable[[ProgramBuilder, Value], Value]
EPSILON = 1e-5


class Case(NamedTuple):
    """What we run, and what PyTorch runs given the input and a place for the result."""

    name: str
    shape: Shape
    graph: Graph
    torch: Callable[[torch.Tensor, torch.Tensor], object]

    def __str__(self) -> str:
        return f"{self.name} of {'x'.join(map(str, self.shape))}"


def reduction(name: str, shape: Shape, axes: tuple[int, ...]) -> Case:
    def peer(x: torch.Tensor, out: torch.Tensor) -> object:
        if name == "sum":
            return torch.sum(x, axes, out=out)
        if name == "argmax":
            return torch.argmax(x, axes[0])
        return torch.amax(x, axes, out=out) if name == "max" else torch.amin(x, axes, out=out)

    return Case(f"{name} over {','.join(map(str, axes))}", shape, lambda g, x: g.reduce(name, x, axes), peer)


def softmax(g: ProgramBuilder, x: Value) -> Value:
    powers = g.map(lambda v, m: functions.exp(v - m), x, g.reduce("max", x, [1], keepdims=True))
    inverse = g.map(lambda s: 1.0 / s, g.reduce("sum", powers, [1], keepdims=True))
    return g.map(lambda p, i: p * i, powers, inverse)


def torch_softmax(x: torch.Tensor, out: torch.Tensor) -> object:
    return torch.ops.aten._softmax.out(x, 1, False, out=out)


def layer_norm(g: ProgramBuilder, x: Value) -> Value:
    """With gain and offset, whose values are of no matter to the time."""
    n = float(x.shape[1])
    gain, offset = (g.input("batch", name, TensorType(Dtype.f32, x.shape[1:])) for name in ("gain", "offset"))
    mean = g.map(lambda s: s / n, g.reduce("sum", x, [1], keepdims=True))
    squares = g.map(activations.squared_distance, x, mean)
    inverse = g.map(lambda s: 1.0 / (s / n + EPSILON).sqrt(), g.reduce("sum", squares, [1], keepdims=True))
    return g.map(activations.normalize, x, mean, inverse, gain, offset)


def torch_layer_norm(shape: Shape) -> Callable[[torch.Tensor, torch.Tensor], object]:
    rows, columns = shape
    gain, offset = torch.ones(columns), torch.zeros(columns)
    mean, deviation = torch.empty(rows, 1), torch.empty(rows, 1)
    out_variant: Any = torch.ops.aten.native_layer_norm.out

    def run(x: torch.Tensor, out: torch.Tensor) -> object:
        return out_variant(x, [columns], gain, offset, EPSILON, out0=out, out1=mean, out2=deviation)

    return run


FUSED_SHAPES = [(64, 1024), (86, 768), (4096, 1024), (5461, 768)]
CASES: dict[str, list[Case]] = {
    "sums": [
        *[reduction("sum", (n,), (0,)) for n in (1 << 16, 1 << 20, 1 << 22)],
        *[reduction("sum", shape, (1,)) for shape in ((64, 1024), (1024, 1024), (8192, 768), (1024, 64), (1024, 10))],
        *[reduction("sum", shape, (0,)) for shape in ((64, 1024), (1024, 1024), (8192, 768), (1024, 64), (1024, 10))],
        reduction("sum", (32, 64, 28, 28), (0, 2, 3)),
    ],
    "extremes": [
        reduction("max", (1 << 20,), (0,)),
        *[reduction("max", shape, (1,)) for shape in ((64, 1024), (1024, 1024), (1024, 10))],
        reduction("max", (1024, 1024), (0,)),
        *[reduction("argmax", shape, (1,)) for shape in ((1024, 1024), (1024, 10))],
    ],
    "fused": [
        *[Case("softmax", s, softmax, torch_softmax) for s in FUSED_SHAPES],
        *[Case("layer norm", s, layer_norm, torch_layer_norm(s)) for s in FUSED_SHAPES],
    ],
}  # fmt: skip


def program_of(case: Case, shape: Shape) -> Program:
    g = ProgramBuilder()
    g.output("metric", "y", case.graph(g, g.input("batch", "x", TensorType(Dtype.f32, shape))))
    return g.build()


def engines(case: Case) -> dict[str, Call]:
    """Both engines on the same operand; ours is checked."""
    rng = np.random.default_rng(1)

    def operands(shape: Shape) -> dict[str, Array]:
        row = shape[1:]
        x = rng.standard_normal(shape).astype(np.float32)
        extra = {"gain": np.ones(row, np.float32), "offset": np.zeros(row, np.float32)}
        return {"x": x, **(extra if case.name == "layer norm" else {})}

    few = (min(case.shape[0], 5000 if len(case.shape) == 1 else 70), *case.shape[1:])
    common.check_reference(program_of(case, few), operands(few))
    program, inputs = program_of(case, case.shape), operands(case.shape)
    common.check_bits(program, inputs)
    ours = Native(program, inputs)
    apart = Executor(program, fuse=False)
    apart.load({})
    assert common.bits(apart.step(inputs, {})["y"]) == common.bits(ours.outputs["y"]), "fusion changed bits"

    x = torch.from_numpy(inputs["x"])
    out = torch.empty(program.outputs_of("metric")["y"].shape)
    result = case.torch(x, out)
    if "argmax" not in case.name:
        np.testing.assert_allclose(ours.outputs["y"], out.numpy(), rtol=1e-3, atol=1e-3)
    else:
        assert isinstance(result, torch.Tensor)
        assert (ours.outputs["y"] == result.numpy()).all()
    return {OURS: ours.run, "torch": lambda: case.torch(x, out)}


def measure(case: Case, n_threads: int) -> tuple[Row, Call]:
    calls = engines(case)
    return common.compare(str(case), calls, n_threads), calls[OURS]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", [c for cases in CASES.values() for c in cases], ids=str)
def test_reduce(benchmark, capsys, case: Case, n_threads: int) -> None:  # type: ignore[no-untyped-def]
    common.benchmarked(benchmark, capsys, *measure(case, n_threads))


if __name__ == "__main__":
    common.tables(common.parser(__doc__, CASES).parse_args(), CASES, lambda case, n: measure(case, n)[0])

"""A whole training step (forward, backward, optimizer) beside stock PyTorch, and the dispatch cost of a node.

    pytest bench/bench_step.py --benchmark-only
    python bench/bench_step.py [--threads 1 2]

Before the times: three steps equal every vectorised instruction set bit for bit (the reference backend too, where the
model is small), and the loss follows PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import common
import numpy as np
import pytest
import torch
from common import OURS, Call, Row
from torch import Tensor, nn

from gensyn_verify import _native, backends
from gensyn_verify.backends.cpu import Executor
from gensyn_verify.frontend import Captured, trace_step
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType


def perceptron(inputs: int, hidden: int, layers: int) -> nn.Module:
    widths = [inputs] + [hidden] * layers
    body = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(*body, nn.Linear(hidden, 10))


def convolutional(channels: int, side: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 10),
    )  # fmt: skip


class Case(NamedTuple):
    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    small: bool

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("mlp 64-128 batch 32", lambda: perceptron(64, 128, 1), (32, 64), True),
    Case("mlp 784-1024x3 batch 128", lambda: perceptron(784, 1024, 3), (128, 784), False),
    Case("cnn 1x8^2 batch 64", lambda: convolutional(1, 8), (64, 1, 8, 8), True),
    Case("cnn 3x32^2 batch 32", lambda: convolutional(3, 32), (32, 3, 32, 32), False),
]


def engines(case: Case) -> dict[str, Call]:
    torch.manual_seed(0)
    model, x, y = case.model(), torch.randn(case.shape), torch.randint(0, 10, case.shape[:1])
    loss_function, optimizer = nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), lr=1e-3)
    captured = trace_step(model, loss_function, optimizer, (x, y))
    batch = captured.batch_arrays((x, y))

    def torch_step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses = check(captured, batch, case.small)
    np.testing.assert_allclose(losses, [float(torch_step()) for _ in losses], rtol=1e-4)
    executor, scalars = Executor(captured.program), captured.schedule(1)
    executor.load(captured.state)
    return {OURS: lambda: executor.step(batch, scalars), "torch": torch_step}


def check(captured: Captured, batch: dict[str, np.ndarray], small: bool, steps: int = 3) -> list[float]:
    """The losses of the first steps, after comparing the state they end in."""

    def run(backend: str) -> tuple[list[float], dict[str, bytes]]:
        executor = backends.make(backend, captured.program)
        executor.load(captured.state)
        losses = [float(executor.step(batch, captured.schedule(s))["loss"]) for s in range(1, steps + 1)]
        return losses, {name: common.bits(a) for name, a in executor.state().items()}

    best = _native.isa()
    losses, state = run("cpu")
    if small:
        assert run("reference")[1] == state, "native and reference differ"
    for isa in _native.supported_isas():
        if isa not in (best, "portable"):
            _native.use_isa(isa)
            try:
                assert run("cpu")[1] == state, f"{isa} and {best} differ"
            finally:
                _native.use_isa(best)
    return losses


def measure(case: Case, n_threads: int) -> tuple[Row, Call]:
    calls = engines(case)
    return common.compare(f"step {case}", calls, n_threads, budget=1.0), calls[OURS]


def dispatch(nodes: int = 1000) -> tuple[float, Call]:
    """Seconds a node of a chain of maps over 16 elements, kernel included."""
    g = ProgramBuilder()
    x = g.input("state", "x", TensorType(Dtype.f32, (16,)))
    y = x
    for n in range(nodes):
        y = g.map(lambda a, n=n: a * (1.0 + n / nodes), y)
    g.output("state", "x", y)
    executor = Executor(g.build())
    executor.load({"x": np.ones(16, np.float32)})
    row = common.compare("dispatch", {OURS: lambda: executor.step({}, {})})
    return row.seconds[OURS] / nodes, lambda: executor.step({}, {})


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_step(benchmark, capsys, case: Case, n_threads: int) -> None:  # type: ignore[no-untyped-def]
    common.benchmarked(benchmark, capsys, *measure(case, n_threads))


def test_dispatch(benchmark, capsys) -> None:  # type: ignore[no-untyped-def]
    seconds, call = dispatch()
    with capsys.disabled():
        print(f"\ndispatch {seconds * 1e6:.2f} us a node, kernel included", end="")
    benchmark.extra_info.update(microseconds_a_node=seconds * 1e6)
    benchmark.pedantic(call, rounds=5, warmup_rounds=1)


if __name__ == "__main__":
    arguments = common.parser(__doc__).parse_args()
    print(f"dispatch {dispatch()[0] * 1e6:.2f} us a node, kernel included")
    common.tables(arguments, {"step": CASES}, lambda case, n: measure(case, n)[0])

"""A whole training step on the vendor backend beside stock eager PyTorch and beside the engine's cpu backend.

    pytest bench/bench_vendor.py --benchmark-only
    python bench/bench_vendor.py [--threads 1 2]

Before the times: the losses of three steps agree with those of the cpu backend and of stock PyTorch (same model, loss,
optimizer, batch). The ratios are the speed of vendor over that of each: 1 is as fast, below 1 slower.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples

import common
import numpy as np
import pytest
import torch
from bench_step import perceptron
from common import OURS, Call, Row
from torch import Tensor, nn

from examples.cnn import ResNet20
from examples.gpt import GPT, loss_fn
from gensyn_verify import backends
from gensyn_verify.frontend import trace_step


class Case(NamedTuple):
    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    batch: Callable[[], tuple[Tensor, Tensor]]

    def __str__(self) -> str:
        return self.name


def _adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def _nesterov(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=1e-4, nesterov=True)


def _labelled(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(shape), torch.randint(0, 10, shape[:1])


def _words(rows: int, length: int) -> tuple[Tensor, Tensor]:
    words = torch.randint(0, 128, (rows, length + 1))
    return words[:, :-1], words[:, 1:]


CASES = [
    Case("mlp 784-1024x3 batch 128", lambda: perceptron(784, 1024, 3), nn.CrossEntropyLoss(), _adamw,
         lambda: _labelled(128, 784)),
    Case("resnet-20 batch 32", ResNet20, nn.CrossEntropyLoss(), _nesterov, lambda: _labelled(32, 3, 32, 32)),
    Case("gpt 4x256 batch 8x64", lambda: GPT(words=128, context=64, width=256, dropout=0.0), loss_fn, _adamw,
         lambda: _words(8, 64)),
]  # fmt: skip


def engines(case: Case) -> dict[str, Call]:
    torch.manual_seed(0)
    model, (x, y) = case.model(), case.batch()
    optimizer = case.optimizer(model.parameters())
    captured = trace_step(model, case.loss, optimizer, (x, y))
    batch = captured.batch_arrays((x, y))

    def torch_step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = case.loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def steps(executor: backends.Executor) -> list[float]:
        executor.load(captured.state)
        return [float(executor.step(batch, captured.schedule(s))["loss"]) for s in range(1, 4)]

    vendor, cpu = backends.make("vendor", captured.program), backends.make("cpu", captured.program)
    losses = steps(vendor)
    np.testing.assert_allclose(losses, steps(cpu), rtol=1e-5)
    np.testing.assert_allclose(losses, [float(torch_step()) for _ in losses], rtol=1e-4)
    scalars = captured.schedule(4)
    return {OURS: lambda: vendor.step(batch, scalars), "torch": torch_step, "cpu": lambda: cpu.step(batch, scalars)}


def measure(case: Case, n_threads: int) -> tuple[Row, Call]:
    calls = engines(case)
    return common.compare(f"vendor step {case}", calls, n_threads, budget=4.0), calls[OURS]


def report(row: Row) -> str:
    return f"{row}  " + "  ".join(f"vendor/{engine} {ratio:.2f}" for engine, ratio in row.ratios.items())


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vendor_step(benchmark, capsys, case: Case, n_threads: int) -> None:  # type: ignore[no-untyped-def]
    row, ours = measure(case, n_threads)
    common.benchmarked(benchmark, capsys, row, ours, report(row))


if __name__ == "__main__":
    arguments = common.parser(__doc__).parse_args()
    common.tables(arguments, {"vendor step": CASES}, lambda case, n: report(measure(case, n)[0]))

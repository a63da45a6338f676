"""conv2d forward, as pad, window and dot, beside torch.conv2d.

    pytest bench/bench_conv.py --benchmark-only
    python bench/bench_conv.py [--threads 1 2]

Before the times: one image equals the reference backend, the whole batch every vectorised instruction set, and torch
to within rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import common
import numpy as np
import pytest
import torch
from common import OURS, Call, Native, Row

from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType


class Case(NamedTuple):
    batch: int
    channels: int
    side: int
    filters: int
    kernel: int
    stride: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_side(self) -> int:
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1

    def __str__(self) -> str:
        stride = f"s{self.stride}" if self.stride > 1 else ""
        return f"{self.batch}x{self.channels}x{self.side}^2 {self.filters}f{self.kernel}{stride}"


CASES = [
    Case(64, 1, 8, 16, 3),  # digits
    Case(64, 16, 8, 32, 3),
    Case(32, 1, 28, 32, 3),
    Case(32, 32, 28, 64, 3),
    Case(16, 3, 32, 64, 3),  # CIFAR
    Case(16, 64, 32, 64, 3),
    Case(16, 128, 16, 256, 3, 2),
    Case(4, 64, 56, 64, 3),  # ResNet
    Case(4, 256, 14, 256, 3),
    Case(4, 512, 7, 512, 3),
    Case(4, 256, 56, 64, 1),
]


def conv_program(case: Case) -> Program:
    g = ProgramBuilder()
    k, p, out = case.kernel, case.padding, case.out_side
    taps = case.channels * k * k
    x = g.input("batch", "x", TensorType(Dtype.f32, (case.batch, case.channels, case.side, case.side)))
    w = g.input("batch", "w", TensorType(Dtype.f32, (case.filters, case.channels, k, k)))
    padded = g.pad(x, (0, 0, p, p), (0, 0, p, p))
    windows = g.window(padded, (k, k), (case.stride, case.stride), (1, 1))
    columns = g.reshape(windows, (case.batch, taps, out * out))
    y = g.dot(g.reshape(w, (case.filters, taps)), columns)
    g.output("metric", "y", g.reshape(y, (case.batch, case.filters, out, out)))
    return g.build()


def engines(case: Case) -> dict[str, Call]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((case.batch, case.channels, case.side, case.side)).astype(np.float32)
    w = rng.standard_normal((case.filters, case.channels, case.kernel, case.kernel)).astype(np.float32)
    program = conv_program(case)
    ours = Native(program, {"x": x, "w": w})
    y = ours.outputs["y"]

    one = case._replace(batch=1, filters=min(case.filters, 8))
    common.check_reference(conv_program(one), {"x": x[:1], "w": w[: one.filters]})
    first = Native(conv_program(one), {"x": x[:1], "w": w[: one.filters]}).outputs["y"]
    assert common.bits(y[:1, : one.filters]) == common.bits(first), "an image alone and in the batch differ"
    common.check_bits(program, {"x": x, "w": w}, portable=False)

    u, v = torch.from_numpy(x), torch.from_numpy(w)
    theirs = torch.conv2d(u, v, stride=case.stride, padding=case.padding)
    np.testing.assert_allclose(y, theirs.numpy(), rtol=1e-3, atol=1e-3)
    return {OURS: ours.run, "torch": lambda: torch.conv2d(u, v, stride=case.stride, padding=case.padding)}


def measure(case: Case, n_threads: int) -> tuple[Row, Call]:
    calls = engines(case)
    work = 2.0 * case.batch * case.filters * case.channels * (case.kernel * case.out_side) ** 2
    return common.compare(f"conv2d {case}", calls, n_threads, work=work, unit="GF"), calls[OURS]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv2d(benchmark, capsys, case: Case, n_threads: int) -> None:  # type: ignore[no-untyped-def]
    common.benchmarked(benchmark, capsys, *measure(case, n_threads))


if __name__ == "__main__":
    common.tables(common.parser(__doc__).parse_args(), {"conv2d": CASES}, lambda case, n: measure(case, n)[0])

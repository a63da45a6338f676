"""Layers on bfloat16 tensors, and under autocast, where types mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensyn_verify import backends
from gensyn_verify.frontend import trace_step
from tests.frontend.comparison import Array, Engine, graph_of, with_gradients
from tests.frontend.layers import CASES

NARROW = (
    "conv2d grouped", "conv_transpose2d", "conv3d", "batch_norm", "batch_norm in evaluation", "instance_norm",
    "group_norm", "layer_norm", "rms_norm", "max_pool2d overlapping", "avg_pool2d overlapping", "adaptive_max_pool2d",
    "adaptive_avg_pool2d of uneven windows", "interpolate nearest 2d odd", "interpolate bilinear 2d twice",
    "pad2d, reflect", "attention", "attention by a kernel", "GRUCell", "fold",
)  # fmt: skip


def _floats(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [t.to(dtype) if t.is_floating_point() else t for t in tensors]


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / (exact.norm() or 1.0))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


@pytest.mark.parametrize("name", NARROW)
def test_bfloat16(name: str) -> None:
    """Errors are those of PyTorch or one rounding to bfloat16; dtypes are those of PyTorch."""
    case = CASES[name]
    inputs, weights = (_floats(ts, torch.bfloat16) for ts in (case.inputs(0), case.weights(0)))
    n = len(case.shapes)
    graph = graph_of(case.f, inputs, n, weights)
    found = Engine(graph, [*inputs, *weights], "cpu")([*inputs, *weights])
    stock = with_gradients(case.f, inputs, n, weights)
    exact = with_gradients(case.f, _floats(inputs, torch.float64), n, _floats(weights, torch.float64))
    for f, s, e in zip(found, stock, exact, strict=True):
        if s.is_floating_point():
            assert _error(_tensor(f), e) <= max(1.5 * _error(s, e), 2.0**-8)
        else:
            np.testing.assert_array_equal(f, s.numpy())


def test_autocast_of_a_network_with_every_kind_of_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding_mode="reflect",
        padding=1), nn.BatchNorm2d(8), nn.Upsample(scale_factor=1.5, mode="bilinear"), nn.AdaptiveAvgPool2d((3, 2)),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Flatten(2), nn.LSTM(24, 5, batch_first=True),
    )  # fmt: skip

    def loss(result: tuple[Tensor, object], y: Tensor) -> Tensor:
        return F.mse_loss(result[0], y)

    x, y = torch.randn(3, 1, 14, 14), torch.randn(3, 4, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    captured = trace_step(model, loss, optimizer, (x, y), autocast=torch.bfloat16)
    executor = backends.make("cpu", captured.program)
    executor.load(captured.state)
    found = executor.step(captured.batch_arrays((x, y)), captured.schedule(1))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        wanted = loss(model(x), y)
    wanted.backward()
    optimizer.step()
    assert float(found) == pytest.approx(wanted.item(), rel=0.01)
    state = executor.state()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(torch.from_numpy(state[f"param.{name}"]), parameter.detach(), rtol=0.03, atol=3e-3)

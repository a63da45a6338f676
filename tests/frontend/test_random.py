"""Random numbers: their distributions, that they follow from seed and step, and the derivatives of what draws them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gensyn_verify.frontend.lowering import SUBJECTS
from tests.frontend.comparison import Array, Engine, graph_of

N = 16000
ONES = torch.ones(N)
P = torch.linspace(0, 1, N)


def drawn(f: Callable[[Tensor], Tensor], x: Tensor = ONES) -> tuple[Array, Array]:
    """f(x) and the gradient of its sum on both backends, which agree."""
    shape = f(x).shape
    results = []
    for backend in ("cpu", "reference"):
        examples = [x, torch.ones(shape)]
        engine = Engine(graph_of(f, [x], 1, [examples[1]]), examples, backend)
        results.append(engine(examples))
    for a, b in zip(*results, strict=True):
        assert a.tobytes() == b.tobytes()
    return results[0][0], results[0][-1]


def quantiles(x: Array) -> Array:
    return np.quantile(x.astype(np.float64), [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])


LEVELS = torch.tensor([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99], dtype=torch.float64)
NORMAL = torch.distributions.Normal(0.0, 1.0).icdf(LEVELS)

# The function, quantiles at LEVELS, and a bound on everything drawn.
DISTRIBUTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, tuple[float, float]]] = {
    "rand": (lambda x: x * torch.rand(N), LEVELS, (0, 1)),
    "rand_like": (lambda x: x * torch.rand_like(x), LEVELS, (0, 1)),
    "uniform_": (lambda x: x * torch.empty(N).uniform_(-3, 5), 8 * LEVELS - 3, (-3, 5)),
    "randn": (lambda x: x * torch.randn(N), NORMAL, (-6.8, 6.8)),
    "randn_like": (lambda x: x * torch.randn_like(x), NORMAL, (-6.8, 6.8)),
    "normal_": (lambda x: x * torch.empty(N).normal_(2, 0.5), 2 + 0.5 * NORMAL, (-2, 6)),
    "normal": (lambda x: torch.normal(3 * x, 2 * ONES).detach() * x, 3 + 2 * NORMAL, (-11, 17)),
    "normal with numbers": (lambda x: x * torch.normal(3.0, 2.0, (N,)), 3 + 2 * NORMAL, (-11, 17)),
    "exponential_": (lambda x: x * torch.empty(N).exponential_(2), -(1 - LEVELS).log() / 2, (0, 11.5)),
    "randint": (lambda x: x * torch.randint(-50, 950, (N,)), 1000 * LEVELS - 50, (-50, 949)),
    "randint_like": (lambda x: x * torch.randint_like(x, 1000), 1000 * LEVELS, (0, 999)),
    "rrelu": (lambda x: F.rrelu(-x, 0.2, 0.6, training=True), 0.4 * LEVELS - 0.6, (-0.6, -0.2)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str) -> None:
    f, wanted, (low, high) = DISTRIBUTIONS[name]
    found, gradient = drawn(f)
    assert low <= found.min() <= found.max() <= high
    scale = float(wanted.max() - wanted.min())
    np.testing.assert_allclose(quantiles(found), wanted.numpy(), atol=0.03 * scale)
    np.testing.assert_array_equal(gradient, found)  # all are linear in x


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.bernoulli(x.detach()) * x,
        lambda x: torch.empty_like(x).bernoulli_(x.detach()) * x,
    ],
)
def test_probabilities_of_a_tensor(f: Callable[[Tensor], Tensor]) -> None:
    found, gradient = drawn(f, P)
    np.testing.assert_array_equal(np.unique(gradient), [0, 1])
    np.testing.assert_array_equal(found, gradient * P.numpy())
    for share, p in zip(gradient.reshape(10, -1).mean(1), P.reshape(10, -1).mean(1), strict=True):
        assert abs(share - p) < 6 * math.sqrt(p * (1 - p) * 10 / N) + 1e-3


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_one_probability(p: float) -> None:
    found, _ = drawn(lambda x: x * torch.empty(N).bernoulli_(p))
    np.testing.assert_array_equal(np.setdiff1d(found, [0, 1]), [])
    assert abs(found.mean() - p) < 6 * math.sqrt(p * (1 - p) / N) + 1e-9


DROPOUTS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], int]] = {  # the function, a shape, elements dropped
    "dropout": (F.dropout, (100, 200), 1),
    "native_dropout": (lambda x, p, training: torch.native_dropout(x, p, training)[0], (100, 200), 1),
    "dropout1d": (F.dropout1d, (50, 40, 10), 10),
    "dropout2d": (F.dropout2d, (50, 40, 2, 5), 10),
    "dropout3d": (F.dropout3d, (50, 40, 2, 5, 1), 10),
}


@pytest.mark.parametrize("name", DROPOUTS)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout(name: str, p: float) -> None:
    """Whole channels are dropped, the rest is scaled, and gradients pass where values did."""
    f, shape, size = DROPOUTS[name]
    x = torch.linspace(1, 2, math.prod(shape)).reshape(shape)
    found, gradient = drawn(lambda x: f(x, p, training=True), x)
    kept = (gradient != 0).reshape(-1, size)
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:, :1], kept.shape))
    scale = np.float32(1 / (1 - p)) if p < 1 else np.float32(0)
    np.testing.assert_array_equal(gradient, np.where(gradient != 0, scale, 0))
    np.testing.assert_array_equal(found, x.numpy() * gradient)
    assert abs(kept[:, 0].mean() - (1 - p)) < 6 * math.sqrt(p * (1 - p) / len(kept)) + 1e-9


@pytest.mark.parametrize(("f", "shape"), [(F.alpha_dropout, (100, 200)), (F.feature_alpha_dropout, (200, 50, 2))])
def test_alpha_dropout_keeps_mean_and_variance(f: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found, gradient = drawn(lambda x: f(x, 0.3, training=True), x)
    assert abs(found.mean()) < 0.1
    assert abs(found.std() - 1) < 0.1
    assert abs((gradient != 0).mean() - 0.7) < 0.03


def test_attention_drops_probabilities() -> None:
    q = torch.zeros(4, 2, 50, 50)
    v = torch.eye(50).expand(4, 2, 50, 50)
    found, _ = drawn(lambda q: F.scaled_dot_product_attention(q, q, v, dropout_p=0.3), q)
    kept = found != 0
    np.testing.assert_allclose(found, kept / 35, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 0.03


def test_permutations_hold_every_number_once() -> None:
    found, _ = drawn(lambda x: x * torch.randperm(400), torch.ones(400))
    np.testing.assert_array_equal(np.sort(found), np.arange(400))
    assert abs(np.corrcoef(found, np.arange(400))[0, 1]) < 0.2


def test_two_draws_differ() -> None:
    found, _ = drawn(lambda x: x * (torch.rand(N) - torch.rand(N)))
    assert (found != 0).mean() > 0.999


def test_evaluation_draws_nothing() -> None:
    x = torch.linspace(-1, 1, 10)
    found, _ = drawn(lambda x: F.dropout(F.rrelu(x, training=False), 0.3, training=False), x)
    np.testing.assert_allclose(found, F.rrelu(x, training=False).numpy(), rtol=1e-6)


def test_every_random_operation_is_tested() -> None:
    functions = [*(f for f, *_ in DISTRIBUTIONS.values()), torch.bernoulli]
    functions.append(lambda x: x * torch.randperm(N))
    functions.append(lambda x: torch.native_dropout(x, 0.5, True)[0])
    graphs = [graph_of(lambda x, f=f: f(x), [ONES], 1, [ONES]) for f in functions]
    seen = {str(getattr(node.target, "overloadpacket", "")) for g in graphs for node in g.graph.nodes}
    assert set(SUBJECTS["Random numbers"]) <= seen

"""Every operation of the table against PyTorch: as accurate, and the same bits on both backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gensyn_verify.frontend.lowering import TABLE
from tests.frontend.operations import CASES, Engine, graph_of

SEEDS = (0, 1, 2, 3)
ULP = 2.0**-23
Array = np.ndarray[Any, Any]


def pytorch(name: str, seed: int, dtype: torch.dtype, absolute: bool = False) -> list[Array]:
    """What PyTorch computes with floats of `dtype`, or with their absolute values."""
    case = CASES[name]
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in case.inputs(seed)]
    weights = case.weights(seed)
    if absolute:
        inputs, weights = [x.abs() for x in inputs], [w.abs() for w in weights]
    return [t.numpy() for t in case.with_gradients(inputs, weights)]


def errors(found: Array, exact: Array, magnitude: Array) -> Array:
    """Absolute errors of the finite elements, relative to the largest magnitude."""
    finite = np.isfinite(exact)
    assert (found[~finite] == exact[~finite]).all()
    scale = np.abs(magnitude[finite]).max(initial=0.0) or 1.0
    return (found[finite].astype(np.float64) - exact[finite]) / scale


def rms(parts: list[Array]) -> float:
    return float(np.sqrt(np.mean(np.square(np.concatenate(parts)))))


@pytest.mark.parametrize("name", CASES)
def test_error_is_at_most_one_and_a_half_times_that_of_pytorch(name: str) -> None:
    engine = Engine(name, "cpu")
    found = [engine(s) for s in SEEDS]
    stock, exact = ([pytorch(name, s, dtype) for s in SEEDS] for dtype in (torch.float32, torch.float64))
    magnitude = [pytorch(name, s, torch.float64, absolute=True) for s in SEEDS] if CASES[name].sums else exact
    for n in range(len(stock[0])):
        results = [(f[n], s[n], e[n], m[n]) for f, s, e, m in zip(found, stock, exact, magnitude, strict=True)]
        assert all(f.shape == s.shape for f, s, _, _ in results)
        if stock[0][n].dtype == np.float32:
            ours = rms([errors(f, e, m) for f, _, e, m in results])
            theirs = rms([errors(s, e, m) for _, s, e, m in results])
            assert ours <= max(1.5 * theirs, ULP), f"result {n}: {ours / ULP:.3} ulp against {theirs / ULP:.3}"
        else:
            for f, s, _, _ in results:
                np.testing.assert_array_equal(f.astype(np.int64), s.astype(np.int64))


@pytest.mark.parametrize("name", CASES)
def test_backends_agree(name: str) -> None:
    for a, b in zip(Engine(name, "cpu")(0), Engine(name, "reference")(0), strict=True):
        assert a.tobytes() == b.tobytes()


def test_every_operation_of_the_table_is_tested() -> None:
    nodes = [node for name in CASES for node in graph_of(name).graph.nodes]
    seen = {str(getattr(node.target, "overloadpacket", "")) for node in nodes}
    random = {"aten.bernoulli", "aten.native_dropout"}  # other numbers than PyTorch's: tested on their own
    assert set(TABLE) - seen == random

"""Every operation of the table against PyTorch: as accurate, on both backends with the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gensyn_verify.frontend.lowering import TABLE
from tests.frontend.operations import CASES, graph_of, on_engine, with_gradients

SEEDS = (0, 1, 2)
ULP = 2.0**-23


def reference(name: str, seed: int, dtype: torch.dtype) -> list[Tensor]:
    """What PyTorch computes, floats as `dtype`."""
    inputs, fixed = CASES[name].inputs(seed)
    return with_gradients(CASES[name], seed)([x.to(dtype) for x in inputs], fixed)


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest absolute error, relative to the largest exact value."""
    finite = np.isfinite(exact)
    assert (found[~finite] == exact[~finite]).all()
    scale = np.abs(exact[finite]).max(initial=0.0)
    return float(np.abs(found[finite].astype(np.float64) - exact[finite]).max(initial=0.0) / (scale or 1.0))


@pytest.mark.parametrize("name", CASES)
def test_error_is_at_most_that_of_pytorch(name: str) -> None:
    for seed in SEEDS:
        found = on_engine(CASES[name], seed, "cpu")
        stock = [t.numpy() for t in reference(name, seed, torch.float32)]
        exact = [t.numpy() for t in reference(name, seed, torch.float64)]
        assert len(found) == len(stock)
        for n, (f, s, e) in enumerate(zip(found, stock, exact, strict=True)):
            assert f.shape == s.shape
            if s.dtype == np.float32:
                assert error(f, e) <= max(1.5 * error(s, e), ULP), f"result {n}, seed {seed}"
            else:
                np.testing.assert_array_equal(f.astype(np.int64), s.astype(np.int64))


@pytest.mark.parametrize("name", CASES)
def test_backends_agree(name: str) -> None:
    native, definition = (on_engine(CASES[name], 3, backend) for backend in ("cpu", "reference"))
    for a, b in zip(native, definition, strict=True):
        assert a.tobytes() == b.tobytes()


def test_every_operation_of_the_table_is_tested() -> None:
    seen = {
        str(node.target.overloadpacket)
        for case in CASES.values()
        for node in graph_of(case, 0).graph.find_nodes(op="call_function", target=None) or graph_of(case, 0).graph.nodes
        if node.op == "call_function" and hasattr(node.target, "overloadpacket")
    }
    assert not set(TABLE) - seen

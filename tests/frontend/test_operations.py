"""Every operation of the table against PyTorch: as accurate, and the same bits on both backends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx

from gensyn_verify.frontend.lowering import SUBJECTS, TABLE
from gensyn_verify.frontend.trace import RESTATED, recorded
from tests.frontend import layers, operations
from tests.frontend.comparison import Array, Engine, check_accuracy, graph_of

CASES = operations.CASES | layers.CASES
SEEDS = (0, 1, 2, 3)


def pytorch(name: str, seed: int, dtype: torch.dtype, absolute: bool = False) -> list[Array]:
    """What PyTorch computes with floats of `dtype`, or with their absolute values."""
    case = CASES[name]
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in case.inputs(seed)]
    weights = case.weights(seed)
    if absolute:
        inputs = [x.abs() if x.is_floating_point() else x for x in inputs]
        weights = [w.abs() for w in weights]
    return [t.numpy() for t in case.with_gradients(inputs, weights)]


def engine(name: str, backend: str) -> Engine:
    return Engine(CASES[name].graph, CASES[name].examples(0), backend)


def names(graph: fx.GraphModule) -> set[str]:
    """The ATen operations of a graph; those that keep whole under a name of the engine's count as themselves."""
    found = {str(getattr(node.target, "overloadpacket", "")) for node in graph.graph.nodes}
    return {name.replace("gensyn_verify.", "aten.") for name in found}


@pytest.mark.parametrize("name", CASES)
def test_error_is_at_most_one_and_a_half_times_that_of_pytorch(name: str) -> None:
    run = engine(name, "cpu")
    found = [run(CASES[name].examples(s)) for s in SEEDS]
    stock, exact = ([pytorch(name, s, dtype) for s in SEEDS] for dtype in (torch.float32, torch.float64))
    magnitude = [pytorch(name, s, torch.float64, absolute=True) for s in SEEDS] if CASES[name].sums else exact
    for results in zip(*(zip(*of, strict=True) for of in (found, stock, exact, magnitude)), strict=True):
        check_accuracy(*results)


@pytest.mark.parametrize("name", CASES)
def test_backends_agree(name: str) -> None:
    examples = CASES[name].examples(0)
    for a, b in zip(engine(name, "cpu")(examples), engine(name, "reference")(examples), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="other versions decompose other operations")
def test_every_operation_of_the_table_is_tested() -> None:
    seen = set().union(*(names(case.graph) for case in CASES.values()))
    random = set(SUBJECTS["Random numbers"])  # other numbers than PyTorch's: in test_random
    assert set(TABLE) - seen == random


def test_every_restated_operation_is_tested_and_restated() -> None:
    called, left = set(), set(TABLE)
    for case in operations.CASES.values():
        n = len(case.inputs(0))
        called |= names(recorded(lambda *t, c=case, n=n: c.with_gradients(t[:n], t[n:]), *case.examples(0)))
        left |= names(case.graph)
    assert set(RESTATED) <= called - left


def test_no_operation_is_in_two_subjects() -> None:
    assert len(TABLE) == sum(map(len, SUBJECTS.values()))


def test_floor_division_at_the_edges_is_that_of_pytorch() -> None:
    inf = float("inf")
    x = torch.tensor([1.0, -1.0, 1.0, -1.0, inf, 0.0, 1.0, 5.0, -5.0, 3e38])
    y = torch.tensor([1e-40, 1e-40, -1e-40, -1e-40, 2.0, 0.0, 0.0, 2.0, 2.0, 1e-10])
    weights = [torch.ones(len(x))]
    found = Engine(graph_of(torch.floor_divide, [x, y], 0, weights), [x, y, *weights], "cpu")([x, y, *weights])
    np.testing.assert_array_equal(found[0], torch.floor_divide(x, y).numpy())

"""Bounds of moments: read off the program, kept by every honest optimizer, broken by invented moments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensyn_verify import backends
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType
from gensyn_verify.protocol.moments import Decay, Ratio, bounds, violations
from gensyn_verify.protocol.policy import Policy
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.task import write_task
from tests.protocol.bundles import dishonest_solve
from tests.protocol.test_threshold import THRESHOLDS

SIZE = 5


def adam(beta1: float, beta2: float, lerp: bool) -> Program:
    """Moments of a gradient that is the batch."""
    g = ProgramBuilder()
    m, v = (g.input("state", name, TensorType(Dtype.f32, (SIZE,))) for name in ("m", "v"))
    gradient = g.input("batch", "gradient", TensorType(Dtype.f32, (SIZE,)))

    def first(m, d):  # type: ignore[no-untyped-def]
        return m.builder.fma(1 - beta1, d - m, m) if lerp else m * beta1 + d * (1 - beta1)

    def second(v, d):  # type: ignore[no-untyped-def]
        return d.builder.fma((1 - beta2) * d, d, v * beta2) if lerp else v * beta2 + (d * (1 - beta2)) * d

    types = [Dtype.f32, Dtype.f32]
    following = g.maps(lambda m, v, d: (first(m, d), second(v, d)), m, v, gradient, shape=(SIZE,), dtypes=types)
    for name, value in zip(("m", "v"), following, strict=True):
        g.output("state", name, value)
    return g.build()


@pytest.mark.parametrize("lerp", [False, True])
def test_bounds_are_read_off_the_program(lerp: bool) -> None:
    decay, ratio = bounds(adam(0.9, 0.999, lerp))
    assert isinstance(decay, Decay)
    assert isinstance(ratio, Ratio)
    assert (decay.name, ratio.first, ratio.second) == ("v", "m", "v")
    assert decay.factor == pytest.approx(0.999)
    assert ratio.bound == pytest.approx(0.01 / 0.001 / (1 - 0.81 / 0.999), rel=1e-4)
    assert bounds(adam(0.999, 0.9, lerp))[1:] == ()  # the second moment forgets faster: no bound holds


@given(
    st.sampled_from([(0.9, 0.999), (0.0, 0.99), (0.9, 0.95), (0.95, 0.9999)]),
    st.booleans(),
    st.lists(st.sampled_from([0.0, 1e-42, 1e-25, 1e-19, 1e-12, 1e-3, 1.0, 1e9, 1e18]), min_size=1, max_size=60),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_no_gradients_break_them(betas: tuple[float, float], lerp: bool, sizes: list[float], seed: int) -> None:
    program = adam(*betas, lerp)
    known = bounds(program)
    executor, rng = backends.make("cpu", program), np.random.default_rng(seed)
    executor.load({"m": np.zeros(SIZE, np.float32), "v": np.zeros(SIZE, np.float32)})
    opening = {n: a.copy() for n, a in executor.state().items()}
    for steps, size in enumerate(sizes, 1):
        executor.step({"gradient": (rng.choice([-1, 1], SIZE) * size * rng.random(SIZE)).astype(np.float32)}, {})
        assert not list(violations(known, opening, executor.state(), steps))


@pytest.mark.parametrize(
    ("m", "v", "tensor"),
    [(0.0, 0.0, "v"), (0.0, -1e-3, "v"), (1.0, 0.01, "m"), (0.0, np.nan, "v"), (np.nan, 0.01, "m"), (-0.9, 0.01, "m")],
)
def test_invented_moments_are_found(m: float, v: float, tensor: str) -> None:
    known = bounds(adam(0.9, 0.999, True))
    before = {"m": np.full(SIZE, 0.01, np.float32), "v": np.full(SIZE, 0.01, np.float32)}
    after = {name: a.copy() for name, a in before.items()}
    after["m"][3], after["v"][3] = m, v
    found = list(violations(known, before, after, 5))
    assert tensor in {x.tensor for x in found}
    assert {x.element for x in found} == {3}


def test_a_checkpoint_that_nobody_replays_is_held_to_them(tmp_path: Path) -> None:
    program = adam(0.9, 0.999, True)
    rows = np.random.default_rng(0).normal(size=20).astype(np.float32)
    task = write_task(
        tmp_path / "task", program, {"m": np.zeros(SIZE, np.float32), "v": np.zeros(SIZE, np.float32)},
        data={"gradient": rows}, schedule={}, sampler=Sampler((1, 1), 20, SIZE), steps=20, interval=5,
        policy=Policy("threshold", 0, 0, THRESHOLDS),
    )  # fmt: skip

    def forge(step, state, batch, scalars):  # type: ignore[no-untyped-def]
        if step == 9:
            state["v"][1] *= 0.1

    report = replay(dishonest_solve(task, tmp_path / "run", after=forge, backend="cpu"), task)
    assert report.verdict is Verdict.REJECT
    assert (report.findings[0].kind, report.findings[0].interval, report.findings[0].tensor) == ("moment", 1, "v")

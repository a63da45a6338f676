"""A dispute over real training: one bit of one moment changed at some step is found, down to the operation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gensyn_verify as gv
from tests.models.zoo import TASKS
from tests.protocol.bundles import SALT, SOLVER, dishonest_solve, flip

STEPS, INTERVAL = 4, 2


@pytest.mark.parametrize("name", ["gpt", "resnet20"])
def test_one_bit_of_one_moment(name: str, tmp_path: Path) -> None:
    zoo = TASKS[name]
    model, optimizer = zoo.build()
    data = tuple(t[:8] for t in zoo.data())
    task = gv.capture(
        model,
        zoo.loss,
        optimizer,
        data,
        steps=STEPS,
        batch_size=2,
        interval=INTERVAL,
        path=tmp_path / "task",
        loss_takes_model=True,
    )
    honest = gv.solve(task, tmp_path / "honest", identity=SOLVER, salt=SALT)
    rng = np.random.default_rng(sum(name.encode()))
    types, own = task.program.inputs_of("state"), dict(model.state_dict())
    moments = [n for n in task.state if n not in own and types[n].shape]
    assert moments, list(types)
    tensor, bit = str(rng.choice(moments)), int(rng.integers(8))
    for step in (1, 2):  # one that closes an interval, whose tensors are in the bundle, and one that does not
        element = int(rng.integers(types[tensor].elements))

        def after(s, state, batch, scalars):  # type: ignore[no-untyped-def]
            if s == step:  # noqa: B023
                flip(state[tensor], element, bit)  # noqa: B023

        forged = dishonest_solve(task, tmp_path / f"forged{step}", after=after, backend="cpu")
        found = gv.pinpoint(forged, honest)
        assert found.verdict == "A is wrong"
        assert gv.pinpoint(honest, forged).verdict == "B is wrong"
        text = str(found)
        assert f"step {step}" in found.summary
        assert repr(tensor) in text
        names = [level.name for level in found.levels]
        if (step + 1) % INTERVAL == 0:
            assert names == ["run", "step", "node", "tensor", "operation"]
            assert f"element {element} " in found.levels[3].title
        else:
            assert names == ["run", "step", "entry"]

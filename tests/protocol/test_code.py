"""A program without nodes: the signature of a step that is code, about which the engine claims nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from bundles import SALT, SOLVER

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import BundleError
from gensyn_verify.program import Dtype, Program, TensorType
from gensyn_verify.program.encoding import decode, encode
from gensyn_verify.program.program import Input, Output
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.roots import constants
from gensyn_verify.protocol.run import Run, RunWriter
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import write_task

F32 = Dtype.f32
SIGNATURE = Program(
    (Input("state", "w", TensorType(F32, (3,))), Input("batch", "x", TensorType(F32, (3,)))),
    (),
    (),
    (Output("state", "w", 0),),
)


class Code:
    """An executor that no program describes: the sign of the sum chooses the branch."""

    program = SIGNATURE

    def load(self, state: Mapping[str, Array]) -> None:
        self._w = state["w"].copy()

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        x = batch["x"]
        self._w = self._w + x if x.sum() > 0 else self._w * np.float32(0.5)
        return {}

    def state(self) -> dict[str, Array]:
        return {"w": self._w}


def recorded(folder: Path, forge: int = -1) -> Run:
    """Seven steps in intervals of 3; step `forge` commits to another state than the code gives."""
    first = {"w": np.zeros(3, np.float32)}
    task = write_task(folder / "task", SIGNATURE, first, interval=3)
    code = Code()
    code.load(first)
    with RunWriter(task, folder, SOLVER, salt=SALT, resume=False, environment={}) as writer:
        for n in range(7):
            batch = {"x": np.random.default_rng(n).normal(size=3).astype(np.float32)}
            code.step(batch, {})
            state = code.state() if n != forge else {"w": code.state()["w"] + np.float32(1)}
            writer.append(state, batch, {}, {})
        writer.close_interval(code.state())
        return writer.finish()


def test_its_encoding_is_a_program_like_any_other() -> None:
    assert decode(encode(SIGNATURE), "program") == SIGNATURE


def test_no_backend_executes_it_and_the_verdict_is_open(tmp_path: Path) -> None:
    recorded(tmp_path)
    for backend in ("cpu", "reference"):
        report = replay(tmp_path, everything=True, backend=backend)
        assert (report.verdict, report.exit_code, report.steps_replayed) == (Verdict.UNDECIDED, 3, 0)
        assert "is code, not a program" in report.gaps[0]
        assert (report.sampled, report.replayed, report.detection) == ((), (), ())


def test_its_states_are_no_constants_and_each_is_hashed(tmp_path: Path) -> None:
    assert constants(SIGNATURE) == frozenset()
    run = recorded(tmp_path)
    roots = [record.state["w"] for n in run.intervals for record in run.segment(n).steps]
    assert len(set(roots)) == len(roots)


def test_an_executor_of_the_verifier_s_own_replays_it(tmp_path: Path) -> None:
    recorded(tmp_path)
    report = replay(tmp_path, everything=True, backend=lambda program: Code())
    assert (report.verdict, report.steps_replayed) == (Verdict.VERIFIED, 7)


def test_what_the_code_does_not_give_is_found(tmp_path: Path) -> None:
    recorded(tmp_path, forge=4)
    report = replay(tmp_path, everything=True, backend=lambda program: Code())
    assert report.verdict is Verdict.MISMATCH
    assert (report.findings[0].kind, report.findings[0].step, report.findings[0].tensor) == ("state", 4, "w")


def test_a_bundle_that_is_not_whole_is_a_mismatch_without_executing_anything(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    file = next(p for p in (tmp_path / "tensors").iterdir() if run.segment(1).steps[-1].state["w"].hex() in p.name)
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert replay(tmp_path).verdict is Verdict.MISMATCH


def test_a_task_of_it_cannot_be_solved(tmp_path: Path) -> None:
    """Taken as a program it would be solved by doing nothing."""
    batch = (Input("state", "w", TensorType(F32, (3,))), Input("batch", "x", TensorType(F32, (2, 3))))
    task = write_task(
        tmp_path / "task",
        Program(batch, (), (), (Output("state", "w", 0),)),
        {"w": np.zeros(3, np.float32)},
        data={"x": np.zeros((8, 3), np.float32)},
        sampler=Sampler((0, 0), 8, 2),
        steps=4,
        interval=2,
    )
    with pytest.raises(BundleError, match="no nodes, so it says nothing about a step"):
        solve(task, tmp_path / "run")

"""`gverify pinpoint`: what it says of two runs, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bundles import SALT, SOLVER, dishonest_solve, flip, linear_task
from cheats import ForgedSequence, WrongLeaf, WrongValue, every_kind
from test_game import VALUES, dispute, other_operand
from test_record import Loop

import gensyn_verify as gv
from gensyn_verify import cli
from gensyn_verify.errors import BundleError
from gensyn_verify.program import ops
from gensyn_verify.program.types import Dtype, Reg
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.pinpoint.descent import _Reader, pinpoint, show
from gensyn_verify.protocol.pinpoint.picture import Descent
from gensyn_verify.protocol.pinpoint.players import Challenger, Solver
from gensyn_verify.protocol.pinpoint.position import advance
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.record import record
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.task import Task

PROGRAM = every_kind()


def names(found: Descent) -> list[str]:
    return [level.name for level in found.levels]


def tampered(task: Task, out: Path, step: int, tensor: str = "m", element: int = 2) -> Run:
    def after(s: int, state: dict[str, Any], batch: object, scalars: object) -> None:
        if s == step:
            flip(state[tensor], element, 4)

    return dishonest_solve(task, out, after=after)


def test_equal_runs_agree(task: Task, honest: Run) -> None:
    found = pinpoint(honest, honest)
    assert (found.verdict, found.exit_code, found.levels) == ("agree", 0, ())


def test_a_bit_of_a_moment_is_found_down_to_the_operation(task: Task, honest: Run, tmp_path: Path) -> None:
    forged = tampered(task, tmp_path / "run", 13)  # the last step of the second interval
    found = pinpoint(forged, honest)
    assert (found.verdict, found.exit_code) == ("A is wrong", 1)
    assert names(found) == ["run", "step", "node", "tensor", "operation"]
    run, _, node, tensor, operation = found.levels
    assert "step 13 is the first of 40" in run.title
    assert ("becomes", "state 'm'", "") in node.rows
    assert "element 2 = [2]" in tensor.title
    (_, a, b), (_, result_a, result_b), (_, recomputed, _) = tensor.rows[0], *operation.rows[-2:]
    assert (a, b) == (result_a, result_b)
    assert recomputed == b
    assert int(a.split()[0], 16) ^ int(b.split()[0], 16) == 16
    other = pinpoint(honest, forged)
    assert (other.verdict, names(other)) == ("B is wrong", names(found))


def test_a_tensor_that_nobody_has_is_found_by_its_entry(task: Task, honest: Run, tmp_path: Path) -> None:
    found = pinpoint(tampered(task, tmp_path / "run", 9, "running"), honest)
    assert found.verdict == "A is wrong"
    assert names(found) == ["run", "step", "entry"]
    assert "'running'" in found.levels[-1].title


def test_the_line_of_the_model_is_shown(task: Task, honest: Run) -> None:
    place = len(task.program.inputs)  # the first node: a reshape of linear (net.py:7)
    wrong = WrongValue(honest, 5, task.program.first_value[1], 1, 3)
    solver, challenger = Solver(wrong), Challenger(Side(honest))
    found = _Reader(dispute(solver, challenger, advance), solver, challenger).descent(())
    assert ("from", "linear (net.py:7)", "") in found.levels[2].rows
    assert solver.place == place + 1


@pytest.mark.parametrize("value", [v for v in VALUES if v >= len(PROGRAM.inputs)])
def test_every_node_kind_is_described(every_kind_run: Run, value: int) -> None:
    positions = PROGRAM.value_types[value].dtype is Dtype.i32
    wrong = ForgedSequence(every_kind_run, 3, value, 0, 1 if positions else 14)
    wrong.start = 0.5
    solver, challenger = Solver(wrong), Challenger(Side(every_kind_run))
    found = _Reader(dispute(solver, challenger, advance), solver, challenger).descent(())
    assert found.verdict == "A is wrong"
    assert names(found) == ["run", "step", "node", "tensor", "operation"]
    results = {what: (a, b) for what, a, b in found.levels[-1].rows}
    a, b = results["result"]
    assert a != b
    assert results["recomputed"][0] == b


def test_wiring_is_described(every_kind_run: Run) -> None:
    place = len(PROGRAM.inputs) + next(n for n, node in enumerate(PROGRAM.nodes) if isinstance(node.op, ops.Dot))
    solver = Solver(WrongLeaf(every_kind_run, 2, place, other_operand))
    challenger = Challenger(Side(every_kind_run))
    found = _Reader(dispute(solver, challenger, advance), solver, challenger).descent(())
    assert ("contested", "the wiring of an operand", "") in found.levels[-1].rows


def test_runs_of_different_lengths_solvers_and_tasks(task: Task, honest: Run, tmp_path: Path) -> None:
    short = dishonest_solve(task, tmp_path / "short", steps=15)
    found = pinpoint(honest, short)
    assert (found.verdict, found.exit_code) == ("differ", 1)
    assert "agree in the 15 steps" in found.summary
    assert "A has 40, B 15" in found.summary
    other = gv.solve(task, tmp_path / "other", identity=Identity.unsigned("0x" + "77" * 20), salt=SALT)
    found = pinpoint(honest, other)
    assert found.verdict == "agree"
    assert "different solvers" in found.notes[0]
    foreign = gv.solve(linear_task(tmp_path / "task2", seed=(9, 9)), tmp_path / "foreign", identity=SOLVER)
    found = pinpoint(honest, foreign)
    assert found.verdict == "differ"
    assert "different tasks" in found.summary
    with pytest.raises(BundleError, match="given is"):
        pinpoint(str(honest.url), str(honest.url), tmp_path / "task2")
    with pytest.raises(BundleError, match="does not carry its task"):
        pinpoint(str(honest.url), str(honest.url))


def test_recorded_runs_of_other_data_decide_nothing(tmp_path: Path) -> None:
    runs = []
    for n, first in enumerate((1, 9)):
        loop = Loop()
        with record(loop, tmp_path / str(n), interval=3, identity=SOLVER, salt=SALT):
            for seed in (0, first, 2, 3):
                loop(seed)
        runs.append(tmp_path / str(n))
    found = pinpoint(*runs)
    assert (found.verdict, found.exit_code) == ("differ", 1)
    assert "recorded different data" in found.summary
    assert "step 1" in found.summary
    assert names(found) == ["run", "step", "input"]


def test_shown_numbers() -> None:
    assert show(0x3F800000, Reg.f32) == "3f800000 = 1.0"
    assert show(0xFFFFFFFF, Reg.i32) == "ffffffff = -1"
    assert show(0xFFFFFFFF, Dtype.u32) == "ffffffff = 4294967295"
    assert show(0x3F80, Dtype.bf16) == "3f80 = 1.0"
    assert show(0x7FC00000, Dtype.f32) == "7fc00000 = nan"
    assert show(7, Dtype.u8) == "07 = 7"
    assert show(0xFE, Dtype.u8) == "fe = 254"
    assert show(0xFE, Dtype.i8) == "fe = -2"
    assert show(0x7E, Dtype.i8) == "7e = 126"
    assert show(0x3F800000_00000005, "best") == "3f800000 at 5"


def test_the_command(task: Task, honest: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task_url = task.store.folder.url
    tampered(task, tmp_path / "forged", 13)
    both = [str(tmp_path / "forged"), honest.url, "--task", task_url]
    assert cli.main(["pinpoint", *both, "--svg", str(tmp_path / "descent.svg")]) == 1
    text = capsys.readouterr().out
    assert text.startswith("the runs part at step 13; A is wrong")
    assert "recomputed" in text
    drawing = ElementTree.parse(tmp_path / "descent.svg").getroot()
    assert len([x for x in drawing if x.tag.endswith("rect")]) == 5
    assert cli.main(["pinpoint", *both, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [level["name"] for level in found["levels"]] == ["run", "step", "node", "tensor", "operation"]
    assert found["levels"][4]["rows"][-1]["what"] == "recomputed"
    assert cli.main(["pinpoint", honest.url, honest.url, "--task", task_url]) == 0
    capsys.readouterr()
    assert cli.main(["pinpoint", str(tmp_path / "nothing"), honest.url, "--task", task_url]) == 2
    assert "holds no run" in capsys.readouterr().err

"""Who replays a run of code trusts a file of his own: nothing else is ever executed, and everything is compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gensyn_verify as gv
from gensyn_verify import cli
from gensyn_verify.errors import MalformedError
from gensyn_verify.protocol.policy import BIT, SHARE, Thresholds
from gensyn_verify.protocol.store import file_name
from tests.classic import loops

FILE = Path(loops.__file__)
STATE = dict[str, np.ndarray]


@pytest.fixture
def marking(tmp_path: Path) -> tuple[Path, Path]:
    """A file of code that leaves a mark where it is executed, and the mark."""
    mark, file = tmp_path / "executed", tmp_path / "marking.py"
    head = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nprint('loaded')\n"
    file.write_text(head + "from tests.classic.loops import build\n")
    return file, mark


def gverify(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = cli.main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_without_trusted_code_nothing_is_executed_and_the_verdict_is_open(
    marking: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever in the bundle the code lies, and whatever the run says of it."""
    file, mark = marking
    run = tmp_path / "run"
    with gv.record_loop(f"{file}:build", run, **loops.OPTIONS) as loop:
        for batch in loops.batches(5):
            loop(batch)
    assert mark.exists()
    mark.unlink()
    for place in (run, run / "task", run / "tensors"):
        shutil.copy(file, place / "marking.py")
        shutil.copy(file, place / "sitecustomize.py")
    header = json.loads((run / "run.json").read_text())
    header["environment"] |= {"code": f"{file}:build", "trust_code": str(file)}
    (run / "run.json").write_text(json.dumps(header, sort_keys=True, separators=(",", ":")))
    monkeypatch.chdir(run)

    code, report = gverify(capsys, "replay", run, "--all")
    assert (code, report["verdict"], report["steps_replayed"], report["replayed"]) == (3, "UNDECIDED", 0, [])
    assert "is code, not a program" in report["gaps"][0]
    assert "--trust-code FILE.py:FUNCTION" in report["gaps"][0]
    gverify(capsys, "inspect", run)
    _, task = gverify(capsys, "inspect", run / "task")
    assert "code" in task["step"]
    assert not mark.exists()

    code, report = gverify(capsys, "replay", run, "--all", "--trust-code", f"{file}:build")
    assert (code, report["verdict"], report["steps_replayed"]) == (0, "VERIFIED", 5)
    assert any(str(file) in note for note in report["notes"])
    assert mark.exists()


def test_code_of_another_digest_is_refused_unexecuted(
    marking: tuple[Path, Path], recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, mark = marking
    code, result = gverify(capsys, "replay", recorded, "--trust-code", f"{file}:build")
    assert code == 2
    assert "is not the code of this run" in result["error"]["message"]
    assert not mark.exists()


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("loops.py", "write FILE.py:FUNCTION"),
        ("os:system", "write FILE.py:FUNCTION"),
        ("nowhere.py:build", "is no file"),
        (f"{FILE}:nothing", "has no function 'nothing'"),
        (f"{FILE}:SALT", "has no function 'SALT'"),
        (f"{FILE}:batches", "expected .model, optimizer, step., found list"),
        (f"{FILE}:step", "raised TypeError"),
        (f"{FILE}:sgd", "'optimizer.*exp_avg' of the code is nothing"),
    ],
)
def test_what_cannot_replay_the_run_is_one_clear_error(code: str, word: str, recorded: Path) -> None:
    with pytest.raises(gv.GensynVerifyError, match=word) as raised:
        gv.replay(recorded, trust_code=code)
    assert raised.value.exit_code == 2


def test_a_run_of_a_program_needs_no_code(tmp_path: Path) -> None:
    model, optimizer, _ = loops.build("sgd")
    linear = model.last
    step = gv.compile(linear, lambda out: out.square().sum(), type(optimizer)(linear.parameters(), lr=0.1))
    with gv.record(step, tmp_path / "run"):
        step(loops.torch.ones(2, 16))
    with pytest.raises(MalformedError, match="is a program: no code is needed"):
        gv.replay(tmp_path / "run", trust_code=f"{FILE}:build")


def test_the_report_says_where_solver_and_verifier_differ(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    header = json.loads(file.read_text())
    header["environment"] |= {"torch": "1.0", "threads": "64"}
    file.write_text(json.dumps(header, sort_keys=True, separators=(",", ":")))
    report = gv.replay(tmp_path / "run", trust_code=f"{FILE}:build", everything=True)
    notes = " / ".join(report.notes)
    assert f"torch is {loops.torch.__version__} here, 1.0 with the solver" in notes
    assert "threads is 1 here, 64 with the solver" in notes


# ---- a solver who commits to something else than he did ----------------------------------------------------------


def nudge(array: np.ndarray) -> np.ndarray:
    """The array with one bit flipped: the lowest of its first element."""
    octets = np.frombuffer(array.tobytes(), np.uint8).copy()
    octets[0] ^= 1
    return octets.view(array.dtype).reshape(array.shape)


def doubled(words: np.ndarray) -> np.ndarray:
    """Twice a number in binary64: one more in the exponent."""
    return words + np.array([0, 1 << 20], np.uint32)


def swapped(array: np.ndarray) -> np.ndarray:
    assert array[0].tobytes() != array[1].tobytes()
    return np.concatenate([array[1::-1], array[2:]])


def forged(folder: Path, forgery: str, step: int = 5, **options: Any) -> None:
    """A run of a solver who is honest but for one thing in what a step is said to have read or left."""
    group, name, change = FORGERIES[forgery]
    with gv.record_loop(loops.build, folder, **loops.OPTIONS, **options) as loop:
        honest = loop.listeners.pop()

        def forging(number: int, batch: STATE, scalars: STATE, state: STATE, metrics: STATE) -> None:
            groups = {"batch": batch, "scalar": scalars, "state": state}
            if number == step + 1:
                groups[group] = {**groups[group], name: change(groups[group][name])}
            honest(number, groups["batch"], groups["scalar"], groups["state"], metrics)

        loop.listeners.append(forging)
        for batch in loops.batches(8):
            loop(batch)
        loop.listeners[:] = [honest]


FORGERIES: dict[str, tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = {
    "weight": ("state", "param.last.bias", nudge),
    "weight by a percent": ("state", "param.last.bias", lambda array: array * np.float32(1.01)),
    "moment": ("state", "optimizer.last.bias.exp_avg_sq", nudge),
    "moment's step": ("state", "optimizer.last.bias.step", nudge),
    "buffer": ("state", "buffer.first.1.num_batches_tracked", nudge),
    "presence": ("state", "present", nudge),
    "step": ("state", "step", nudge),
    "seed": ("state", "seed", nudge),
    "code": ("state", "code", nudge),
    "learning rate": ("scalar", "group.0.lr", doubled),
    "mode": ("scalar", "training", np.logical_not),
    "input": ("batch", "batch.x:float32", nudge),
    "number": ("batch", "batch.weight=float", doubled),
    "order of labels": ("batch", "batch.label:int64", swapped),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_commitment_to_something_else_is_found_at_its_step(forgery: str, tmp_path: Path) -> None:
    group, name, _ = FORGERIES[forgery]
    forged(tmp_path / "run", forgery)
    report = gv.replay(tmp_path / "run", trust_code=f"{FILE}:build", everything=True)
    assert report.verdict is gv.Verdict.MISMATCH
    finding = report.findings[0]
    assert (finding.kind, finding.step) == ("state", 5)
    if group == "state":
        assert [f.tensor for f in report.findings] == [name]


@pytest.mark.parametrize("role", ["batch", "scalar", "state"])
def test_an_edited_file_of_the_bundle_is_named(role: str, recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path / "run")
    run = gv.open_run(tmp_path / "run")
    name = {"batch": "batch.x:float32", "scalar": "group.0.lr", "state": "optimizer.last.weight.exp_avg"}[role]
    record = run.segment(1).steps[-1]
    file = tmp_path / "run" / file_name(record.group(role)[name], run.task.program.inputs_of(role)[name])
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    report = gv.replay(run, trust_code=f"{FILE}:build", everything=True)
    assert report.verdict is gv.Verdict.MISMATCH
    assert report.findings[0].tensor == name


def test_two_runs_of_code_that_differ_are_not_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Taken as a program, code without nodes would convict whoever changed anything."""
    forged(tmp_path / "a", "weight")
    with gv.record_loop(loops.build, tmp_path / "b", **loops.OPTIONS) as loop:
        for batch in loops.batches(8):
            loop(batch)
    code, found = gverify(capsys, "pinpoint", tmp_path / "a", tmp_path / "b")
    assert (code, found["verdict"]) == (1, "differ")
    assert "part at step 5, in state 'param.last.bias'; the step is code" in found["summary"]
    assert gv.pinpoint(tmp_path / "b", tmp_path / "b").verdict == "agree"


# ---- by distances ------------------------------------------------------------------------------------------------


def test_with_thresholds_a_run_of_code_is_judged_by_distances(tmp_path: Path) -> None:
    thresholds = Thresholds(
        noise=19, probes=3, accept_l2=BIT, accept_linf=2 * BIT, reject_l2=4 * BIT, reject_linf=5 * BIT, share=-9 * BIT,
        resolution=-2 * BIT, mean=-4 * BIT,
        spread=BIT, coherence=0, scatter=SHARE // 5, reference=0, rate=1000, replays=0,
    )  # fmt: skip
    verdicts = {}
    for forgery in ("weight", "weight by a percent", "seed"):
        forged(tmp_path / forgery, forgery, step=7, policy=gv.Policy("threshold", thresholds=thresholds))
        assert gv.replay(tmp_path / forgery, everything=True).verdict is gv.Verdict.UNDECIDED
        report = gv.replay(tmp_path / forgery, trust_code=f"{FILE}:build", everything=True)
        verdicts[forgery] = report.verdict.name
    assert verdicts == {"weight": "ACCEPT", "weight by a percent": "REJECT", "seed": "REJECT"}

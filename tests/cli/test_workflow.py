"""Capture, solve, replay and inspect from the command line, on a real task; the demo; the README's examples."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gensyn_verify as gv
from gensyn_verify import cli

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "0x" + "11" * 20


def gverify(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON document of a command."""
    capsys.readouterr()
    code = cli.main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def machine() -> Iterator[None]:
    """--isa and --threads last as long as the process: put back what was in force."""
    from gensyn_verify import _native

    before = _native.isa(), _native.get_threads()
    yield
    _native.use_isa(before[0])
    _native.set_threads(before[1])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task (30 steps, a checkpoint every 5) and a finished run of it."""
    folder = tmp_path_factory.mktemp("bundles")
    source = f"{ROOT / 'examples' / 'digits.py'}:build"
    arguments = ["--steps", "30", "--batch-size", "32", "--interval", "5", "--out", str(folder / "task")]
    assert cli.main(["capture", source, *arguments]) == 0
    assert cli.main(["solve", str(folder / "task"), "--out", str(folder / "run"), "--identity", ADDRESS]) == 0
    return folder


def test_a_solved_task_is_verified(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = gverify(capsys, "replay", bundles / "run", "--task", bundles / "task", "--samples", "2")
    assert (code, report["verdict"], report["exit_code"]) == (0, "VERIFIED", 0)
    assert report["solver"] == ADDRESS
    assert len(report["sampled"]) == 2


def test_replay_says_how_probably_a_forgery_would_have_been_caught(
    bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ["--task", bundles / "task", "--largest", "0"]
    _, some = gverify(capsys, "replay", bundles / "run", *task, "--samples", "3", "--share", "1/6", "--share", "50%")
    assert [(a["intervals"], a["probability"]) for a in some["asked"]] == [(1, 0.5), (3, 0.95)]
    _, every = gverify(capsys, "replay", bundles / "run", *task, "--all", "--share", "0.001")
    assert every["asked"][0]["probability"] == 1.0
    assert every["steps_replayed"] == 30


def test_the_same_beacon_draws_the_same_intervals(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", bundles / "run", "--task", bundles / "task", "--samples", "2", "--beacon", "0xabcd"]
    _, first = gverify(capsys, *arguments)
    _, second = gverify(capsys, *arguments)
    assert first["sampled"] == second["sampled"]
    assert first["beacon"] == "abcd"


def test_a_published_commitment_must_be_the_run_s(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", bundles / "run", "--task", bundles / "task", "--commitment", "00" * 32]
    code, report = gverify(capsys, *arguments)
    assert (code, report["verdict"]) == (1, "MISMATCH")
    assert report["findings"][0]["kind"] == "commitment"


def test_a_run_without_its_task_is_a_usage_error(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = gverify(capsys, "replay", bundles / "run")
    assert code == 2
    assert "task" in shown["error"]["message"]


def test_an_unfinished_run_is_undecided(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(bundles / "run", tmp_path / "run")
    (tmp_path / "run" / "commitment.json").unlink()
    code, report = gverify(capsys, "replay", tmp_path / "run", "--task", bundles / "task")
    assert (code, report["verdict"]) == (3, "UNDECIDED")


def test_threads_instruction_set_and_backend_change_nothing(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, options in {
        "portable": ["--isa", "portable", "--threads", "1"],
        "reference": ["--backend", "reference"],
    }.items():
        code, _ = gverify(capsys, "solve", bundles / "task", "--out", tmp_path / name, "--identity", ADDRESS, *options)
        assert code == 0
        code, _ = gverify(capsys, "replay", tmp_path / name, "--task", bundles / "task", "--all")
        assert code == 0
        roots = [sorted(p.name for p in (run / "tensors").iterdir()) for run in (bundles / "run", tmp_path / name)]
        assert roots[0] == roots[1]


def test_an_instruction_set_that_is_not_there_is_refused(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gensyn_verify import _native

    absent = next(isa for isa in ("neon", "avx512", "avx2") if isa not in _native.supported_isas())
    code, shown = gverify(capsys, "solve", bundles / "task", "--out", tmp_path / "run", "--isa", absent)
    assert code == 2
    assert absent in shown["error"]["message"]


def test_solve_resumes_unless_told_not_to(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["solve", bundles / "task", "--out", bundles / "run"]
    before = (bundles / "run" / "commitment.json").read_bytes()
    code, _ = gverify(capsys, *arguments)
    assert code == 0
    assert (bundles / "run" / "commitment.json").read_bytes() == before
    code, shown = gverify(capsys, *arguments, "--fresh")
    assert code == 2
    assert "holds a run already" in shown["error"]["message"]


def test_a_key_signs_the_run(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("eth_keys")
    key = tmp_path / "key"
    key.write_text("0x" + "00" * 31 + "01\n")
    code, shown = gverify(capsys, "solve", bundles / "task", "--out", tmp_path / "run", "--key", key)
    assert (code, shown["signed"]) == (0, True)
    assert shown["solver"] == "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf"
    _, described = gverify(capsys, "inspect", tmp_path / "run")
    assert described["signature"] == "by the solver"


def test_a_file_without_a_key_is_refused(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text("not hex")
    code, shown = gverify(capsys, "solve", bundles / "task", "--out", tmp_path / "run", "--key", tmp_path / "key")
    assert code == 2
    assert "private key" in shown["error"]["message"]


def test_inspect_shows_task_and_run(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, task = gverify(capsys, "inspect", bundles / "task", "--program")
    assert (task["kind"], task["steps"], task["batch"], task["rows"]) == ("task", 30, 32, 1797)
    assert task["program"]["nodes"]
    _, run = gverify(capsys, "inspect", bundles / "run")
    assert (run["kind"], run["task"], run["steps done"]) == ("run", task["digest"], 30)
    _, program = gverify(capsys, "inspect", bundles / "task" / "program")
    assert program["digest"] == task["program digest"]


def test_inspect_prints_the_same_for_people(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(bundles / "task"), "--program", "--scalars"]) == 0
    out = capsys.readouterr().out
    assert "dot transpose_b(x, param.0.weight)" in out
    assert cli.main(["inspect", str(bundles / "run")]) == 0
    assert "signature" in capsys.readouterr().out


def test_capture_reads_data_from_an_npz_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def build():\n"
        "    print('building')\n"
        "    torch.manual_seed(0)\n"
        "    model = torch.nn.Linear(3, 2)\n"
        "    return model, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)\n"
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 3)).astype(np.float32), rng.normal(size=(10, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=x, targets=y)
    source = [
        "capture",
        f"{tmp_path / 'net.py'}:build",
        "--steps",
        "4",
        "--batch-size",
        "5",
        "--out",
        tmp_path / "task",
    ]
    code, task = gverify(capsys, *source, "--data", tmp_path / "data.npz")
    assert (code, task["rows"], task["nodes"] > 0) == (0, 10, True)


def test_a_build_function_may_name_training_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def build():\n"
        "    model = torch.nn.Linear(3, 2)\n"
        "    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)\n"
        "    return dict(model=model, loss_fn=torch.nn.MSELoss(), optimizer=optimizer, accumulate=2, ema=0.9,\n"
        "                scheduler=scheduler, data=(torch.ones(8, 3), torch.ones(8, 2)))\n"
    )
    arguments = ["--steps", "3", "--batch-size", "4", "--out", tmp_path / "task"]
    code, _ = gverify(capsys, "capture", f"{tmp_path / 'net.py'}:build", *arguments)
    assert code == 0
    task = gv.open_task(tmp_path / "task")
    assert [float(task.scalars(n)["group0.learning_rate"]) for n in range(3)] == pytest.approx([0.1, 0.05, 0.025])
    assert "ema.module.weight" in task.state


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("return 3", "returned int"),
        ("raise ValueError('no such luck')", "no such luck"),
        ("return None, None, None", "data"),
        ("return {'model': None, 'loss_fn': None, 'optimizer': None, 'clip': 1}", "clip_norm, clip_value"),
    ],
)
def test_a_build_function_that_does_not_fit_is_named(
    body: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(f"def build():\n    {body}\n")
    source = f"{tmp_path / 'bad.py'}:build"
    code, shown = gverify(capsys, "capture", source, "--steps", "1", "--batch-size", "1", "--out", tmp_path / "task")
    assert code == 2
    assert named in shown["error"]["message"]


@pytest.mark.parametrize("source", ["nowhere.py:build", "nothing", "gensyn_verify.errors:absent"])
def test_a_source_that_does_not_exist_is_named(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = gverify(capsys, "capture", source, "--steps", "1", "--batch-size", "1", "--out", tmp_path / "task")
    assert code == 2
    assert source.split(":", maxsplit=1)[0] in shown["error"]["message"]


def test_pickled_arrays_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.array([object()], dtype=object))
    (tmp_path / "net.py").write_text("def build():\n    return None, None, None\n")
    arguments = ["--steps", "1", "--batch-size", "1", "--out", tmp_path / "task", "--data", tmp_path / "data.npz"]
    code, shown = gverify(capsys, "capture", f"{tmp_path / 'net.py'}:build", *arguments)
    assert code == 2
    assert "plain arrays" in shown["error"]["message"]


def test_the_demo_trains_verifies_and_catches_one_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = gverify(capsys, "demo", "--model", "mlp", "--out", tmp_path / "demo")
    assert code == 0
    (mlp,) = shown["models"]
    assert mlp["accuracy"] >= 0.95
    assert mlp["replay"]["verdict"] == "VERIFIED"
    (finding,) = mlp["tampered"]["replay"]["findings"]
    assert (finding["kind"], finding["step"]) == ("checkpoint", 219)
    assert finding["tensor"].endswith("weight")
    assert finding["expected"] != finding["found"]
    assert mlp["stock_loss_difference"] < 1e-4


def test_doctor_checks_capture(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = gverify(capsys, "doctor")
    assert code == 0
    assert shown["checks"][-1] == {"name": "capture with torch", "ok": True, "detail": shown["checks"][-1]["detail"]}


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})
    assert {"task", "run", "calibrated", "fast", "recorded"} <= set(os.listdir(tmp_path))

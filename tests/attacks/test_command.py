"""`gverify attack`, then `gverify replay`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gensyn_verify.attacks import KINDS
from gensyn_verify.cli import main
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.task import Task


def folder(bundle: Run | Task) -> str:
    return bundle.url if isinstance(bundle, Run) else bundle.store.folder.url


def test_list_shows_every_kind_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(KINDS)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("kind", ["drift", "copied-run", "seed-grinding-known-beacon"])
def test_forged_run_and_the_command_that_it_names(
    kind: str, task: Task, honest: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "forged")
    arguments = ["attack", folder(honest), "--task", folder(task), "--kind", kind, "--out", out, "--seed", "3"]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attack"] == kind
    program, *command = told["next"].split()
    assert program == "gverify"
    assert main([*command, "--quiet"]) == (0 if "known-beacon" in kind else 1)  # the beacon that the forger knew
    assert main(["replay", out, "--task", folder(task), "--all", "--quiet"]) == (0 if kind == "copied-run" else 1)


def test_without_disguise_the_log_names_other_batches(
    task: Task, honest: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "forged")
    arguments = ["attack", folder(honest), "--task", folder(task), "--kind", "label-change", "--out", out]
    assert main([*arguments, "--no-disguise"]) == 0
    assert main(["replay", out, "--task", folder(task), "--all", "--json", "--quiet"]) == 1
    out_text = capsys.readouterr().out
    report = json.loads(out_text[out_text.index("{") :])
    assert report["findings"][0]["kind"] == "batch"


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "somewhere", "--task", "task", "--out", "out"]) == 2
    assert "--kind is missing" in capsys.readouterr().err

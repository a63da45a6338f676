"""The command line as a program: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gensyn_verify import cli
from gensyn_verify.cli.console import Console, plain, printable
from gensyn_verify.errors import BackendError, BundleError, NonFiniteError
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType, encode


@pytest.fixture
def program_file(tmp_path: Path) -> Path:
    g = ProgramBuilder()
    w = g.input("state", "w", TensorType(Dtype.f32, (3,)))
    with g.origin("layer\x1b[31m (net.py:12)"):
        g.output("state", "w", g.map(lambda x: x * 0.5, w))
    path = tmp_path / "program"
    path.write_bytes(encode(g.build()))
    return path


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["solve", "--help"], ["demo", "--help"], ["simulate", "--help"], ["--version"]]
)
def test_help_imports_neither_torch_nor_numpy_nor_native_code(arguments: list[str]) -> None:
    done = run_code(
        "import sys\n"
        "from gensyn_verify.cli import main\n"
        f"try:\n    main({arguments!r})\n"
        "except SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'gensyn_verify._native'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr
    assert "gverify" in done.stdout


def test_importing_the_package_imports_neither_torch_nor_numpy() -> None:
    done = run_code("import sys, gensyn_verify\nassert not {'torch', 'numpy'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_every_command_is_described_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert re.search(rf"^    {name}\s", shown, re.MULTILINE)
    assert "exit codes" in shown


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "frobnicate"),
        (["solve", "task"], "--out"),
        (["solve", "task", "--out", "run", "--threads", "0"], "--threads"),
        (["replay", "run", "--all", "--samples", "3"], "--samples"),
        (["replay", "run", "--beacon", "xyz"], "--beacon"),
        (["replay", "run", "--share", "1.5"], "--share"),
        (["replay", "run", "--samples", "-1"], "--samples"),
    ],
)
def test_a_usage_error_names_the_argument_and_ends_with_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gverify: error: ")
    assert named in err
    assert err.count("\n") == 1


def test_an_error_with_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["inspect", str(tmp_path / "nothing"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["exit_code"] == 2
    assert "nothing" in json.loads(out)["error"]["message"]
    assert err.startswith("gverify: error: ")


def test_a_traceback_is_shown_only_with_debug(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"gvprog01 but no more")
    assert cli.main(["inspect", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main(["inspect", str(path), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_inspect_lists_a_program_file(program_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(program_file), "--scalars"]) == 0
    out = capsys.readouterr().out
    assert "state  w: f32[3]" in out
    assert "mul.f32 x0 0.5" in out
    assert "digest" in out


def test_inspect_with_json_gives_the_same_program(program_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(program_file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "program"
    assert shown["inputs"] == [{"role": "state", "name": "w", "type": "f32[3]"}]
    assert [n["kind"] for n in shown["nodes"]] == ["map"]
    assert shown["nodes"][0]["attributes"]["dtypes"] == ["f32"]


def test_a_reader_that_leaves_is_no_error(program_file: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "gensyn_verify.cli", "inspect", str(program_file)],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""


def test_control_characters_of_a_bundle_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("layer\x1b[31m\u202e red\nnext line")
    assert capsys.readouterr().out == "layer\\x1b[31m\\u202e red\nnext line\n"
    assert printable("plain text, größer") == "plain text, größer"


def test_json_values_are_plain() -> None:
    shown = plain({"digest": b"\x01\xff", "dtype": Dtype.bf16, "loss": float("nan"), "list": (1, 2), "none": None})
    assert shown == {"digest": "01ff", "dtype": "bf16", "loss": "nan", "list": [1, 2], "none": None}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BundleError("x"), 2),
        (NonFiniteError("x"), 2),
        (BackendError("x"), 2),
        (FileNotFoundError("x"), 2),
        (MemoryError(), 3),
        (RuntimeError("x"), 3),
    ],
)
def test_every_error_has_an_exit_code_and_a_message(error: Exception, code: int) -> None:
    found, message = cli.explain(error)
    assert found == code
    assert message


def test_a_missing_extra_says_what_to_install() -> None:
    code, message = cli.explain(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert code == 2
    assert "pip install 'gensyn_verify[torch]'" in message


def test_progress_never_reaches_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress("working", 2) as advance:
        advance(1)
        advance(2, 2)
    assert capsys.readouterr().out == ""

"""The C library: strangers' programs from C, and a solver in C that reaches the commitment of the Python solver."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine_task
import pytest
from protocol.bundles import SALT, SOLVER, linear_task

from gensyn_verify import _native
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, open_task

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = Path(_native.__file__).parent / "lib"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

# An installed package has the library; only native modules that somebody copied into the source tree may lack it.
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
    pytest.mark.skipif(LIBRARY == ROOT / "gensyn_verify" / "lib" and not LIBRARY.exists(), reason="no C library built"),
]


def build(out: Path, *sources: Path) -> Path:
    """The program of these C99 sources, linked to the library of the package."""
    assert COMPILER is not None
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", f"-I{ROOT / 'csrc'}"]
    link = [f"-L{LIBRARY}", "-lgensyn_verify", f"-Wl,-rpath,{LIBRARY}"]
    subprocess.run([COMPILER, *flags, *map(str, sources), *link, "-o", str(out)], check=True)
    return out


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in arguments], check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("c") / "solve", *sorted((ROOT / "examples" / "c").glob("*.c")))


def solve_in_c(solver: Path, task: Task, path: Path, out: Path, *options: str) -> str:
    found = run(solver, path, out, "--solver", "0x" + SOLVER.address.hex(), "--salt", SALT.hex(), *options)
    assert found.returncode == 0, found.stderr
    match = re.fullmatch(r"commitment ([0-9a-f]{64})", found.stdout.splitlines()[-1])
    assert match, found.stdout
    return match[1]


def files(folder: Path) -> dict[str, bytes]:
    """All files of a bundle, less those that say where and when it was written."""
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name not in ("run.json", "lock"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def check_same_run(solver: Path, path: Path, tmp_path: Path) -> None:
    task = open_task(path)
    wanted = solve(task, tmp_path / "python", identity=SOLVER, salt=SALT)
    assert wanted.commitment is not None
    commitments = {
        solve_in_c(solver, task, path, tmp_path / f"{isa}-{threads}", "--isa", isa, "--threads", threads)
        for isa in _native.supported_isas()
        for threads in ("1", "3")
    }
    assert commitments == {wanted.commitment.digest.hex()}
    written = tmp_path / f"{_native.supported_isas()[0]}-1"
    assert files(written) == files(tmp_path / "python")
    assert replay(written, task).verdict.name == "VERIFIED"


@pytest.mark.parametrize("write", [linear_task, machine_task.write], ids=["linear", "every kind and dtype"])
def test_a_task_is_solved_in_c_to_the_same_run(write: Callable[[Path], Task], solver: Path, tmp_path: Path) -> None:
    write(tmp_path / "task")
    check_same_run(solver, tmp_path / "task", tmp_path)


def test_the_digits_task_is_solved_in_c_to_the_same_run(solver: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from gensyn_verify import cli

    source = f"{ROOT / 'examples' / 'digits.py'}:build"
    options = ["--steps", "45", "--batch-size", "32", "--interval", "10", "--out", str(tmp_path / "task")]
    assert cli.main(["capture", source, *options]) == 0
    check_same_run(solver, tmp_path / "task", tmp_path)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("a byte of the program", ""),
        ("a field of the manifest", "task.json: expected"),
        ("a space in the manifest", "task.json: expected"),
        ("a byte of a tensor", "the content has another root"),
        ("a shorter tensor", "expected"),
        ("a tensor behind a link", "cannot be opened"),
        ("a folder of tensors that is a link", "cannot be opened"),
    ],
)
def test_a_tampered_task_is_refused_in_c(what: str, says: str, solver: Path, tmp_path: Path) -> None:
    path = tmp_path / "task"
    linear_task(path)
    tensor = sorted((path / "tensors").iterdir())[0]
    manifest = path / "task.json"
    if what == "a byte of the program":
        data = (path / "program").read_bytes()
        (path / "program").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif what == "a field of the manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b'"version":1', b'"version":2'))
    elif what == "a space in the manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b",", b", ", 1))
    elif what == "a byte of a tensor":
        data = tensor.read_bytes()
        tensor.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif what == "a shorter tensor":
        tensor.write_bytes(tensor.read_bytes()[:-1])
    elif what == "a tensor behind a link":
        tensor.rename(tmp_path / "elsewhere")
        tensor.symlink_to(tmp_path / "elsewhere")
    else:
        (path / "tensors").rename(tmp_path / "elsewhere")
        (path / "tensors").symlink_to(tmp_path / "elsewhere")
    found = run(solver, path, tmp_path / "run", "--solver", "5a" * 20)
    assert found.returncode == 1
    assert says in found.stderr
    assert not (tmp_path / "run" / "commitment.json").exists()


def test_programs_of_strangers_are_refused_or_run(tmp_path: Path) -> None:
    vectors: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "program.json").read_text())
    paths = []
    for case in vectors["cases"]:
        paths.append(tmp_path / case["name"])
        paths[-1].write_bytes(bytes.fromhex(case["bytes"]))
    found = run(build(tmp_path / "library_test", ROOT / "tests" / "native" / "library_test.c"), *paths)
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.fullmatch(r"\d+ checks, \d+ programs refused, \d+ ran\n", found.stdout)

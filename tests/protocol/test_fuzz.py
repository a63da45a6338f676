"""Mutated bundles: whatever the bytes, a report or one clear error; no crash, no hang, no unbounded memory.

And soundness: a run that is still VERIFIED says what the honest one says.

A sample of cases runs with the suite. GENSYN_VERIFY_FUZZ_CASES=100000 runs that many, GENSYN_VERIFY_FUZZ_SEED=N
another series.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundles import SALT, SOLVER, linear_task

from gensyn_verify.errors import GensynVerifyError
from gensyn_verify.program.encoding import decode
from gensyn_verify.program.merkle import merkle_root
from gensyn_verify.protocol.limits import peak_bytes
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import open_task

CASES = int(os.environ.get("GENSYN_VERIFY_FUZZ_CASES", "400"))
SEED = int(os.environ.get("GENSYN_VERIFY_FUZZ_SEED", "1"))
MEMORY = 1 << 29  # bytes that a case may take beyond what the process has
SECONDS = 30  # far beyond any case: a hang is an error


@contextmanager
def bounded() -> Iterator[None]:
    """A case that takes too much memory gets MemoryError, one that hangs is interrupted: both fail the test."""

    def hang(*_: object) -> None:
        raise AssertionError(f"a case took more than {SECONDS} s")

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGALRM, hang)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


# ---- mutations --------------------------------------------------------------------------------------------------

INTERESTING = [0, 1, -1, 2**31, 2**32 - 1, 2**36, 2**53, 2**63 - 1, -(2**63), 10**25]
TEXTS = ["", "00", "00" * 32, "ff" * 32, "../../etc/passwd", "/dev/zero", "é", "\0", "x" * 5000, "NaN"]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.choice([1, 4, 8, 33]))
        elif kind == 4:
            del out[at : at + rng.choice([1, 4, 8, 33])]
        elif kind == 5:
            size = rng.choice([1, 2, 4, 8])
            out[at : at + size] = rng.choice([0, 1, 2**8 ** min(size, 1) - 1, 2 ** (8 * size) - 1]).to_bytes(
                size, "big"
            )
        else:
            length = rng.randrange(1, 64)
            source = rng.randrange(len(out) + 1)
            out[at : at + length] = out[source : source + length]
    return bytes(out)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """A JSON value with one place changed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        action = rng.randrange(6)
        if action == 0:
            return {k: v for k, v in value.items() if k != key}
        if action == 1:
            return {**value, rng.choice(TEXTS): value[key]}
        return {**value, key: mutate_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], mutate_value(value[at], rng), *value[at + 1 :]] if rng.random() < 0.7 else value * 2
    choices: list[Any] = [rng.choice(INTERESTING), rng.choice(TEXTS), [], {}, None, True, 0.5, [value], {"a": value}]
    if isinstance(value, int):
        choices += [value + 1, value - 1] * 4
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        choices += [value[:at] + rng.choice("0123456789abcdef") + value[at + 1 :]] * 6
    return rng.choice(choices)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Bundle:
    """A folder whose files are mutated one case at a time and put back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = {p: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file() and p.name != "lock"}

    def mutated(self, rng: random.Random) -> str:
        """Change something; what it was."""
        file = rng.choice(list(self.files))
        data = self.files[file]
        name = str(file.relative_to(self.path))
        if file.suffix == ".json" and rng.random() < 0.7:
            file.write_bytes(canonical(mutate_value(json.loads(data), rng)))
            return f"edit of {name}"
        action = rng.randrange(12)
        if action == 0:
            file.unlink()
            return f"removal of {name}"
        if action == 1:
            other = rng.choice(list(self.files))
            file.write_bytes(self.files[other])
            return f"{other.name} in place of {name}"
        if action == 2:
            with open(file, "r+b") as handle:
                handle.truncate(rng.choice([1 << 20, 1 << 31, 1 << 40]))
            return f"{name} grown"
        if action == 3:
            file.unlink()
            file.symlink_to(rng.choice(list(self.files)))
            return f"{name} a link"
        file.write_bytes(mutate_bytes(data, rng))
        return f"bytes of {name}"

    def restore(self) -> None:
        for file, data in self.files.items():
            if file.is_symlink() or not file.exists() or file.stat().st_size != len(data) or file.read_bytes() != data:
                file.unlink(missing_ok=True)
                file.write_bytes(data)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle, str]:
    """Task, run, and the honest commitment."""
    path = tmp_path_factory.mktemp("fuzz")
    linear_task(path / "task", steps=9, interval=3)
    run = solve(path / "task", path / "run", identity=SOLVER, salt=SALT, backend="reference")
    assert run.commitment is not None
    return Bundle(path / "task"), Bundle(path / "run"), run.commitment.digest.hex()


def outcome(call: Callable[[], Any], what: str) -> Any:
    """A result or a GensynVerifyError with one line; anything else fails the test and says what was mutated."""
    refusal: GensynVerifyError | None = None
    try:
        with bounded():
            found = call()
    except GensynVerifyError as error:
        refusal = error
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}") from error
    if refusal is None:
        return found
    assert str(refusal), what
    assert "\n" not in str(refusal), what
    return refusal


def test_mutated_runs_give_a_report_or_one_clear_error(bundles: tuple[Bundle, Bundle, str]) -> None:
    task, run, commitment = bundles
    opened = open_task(task.path)
    opened.batch(0)  # loaded once, for all cases
    seen = set()
    for case in range(CASES // 2):
        rng = random.Random(SEED << 32 | case)
        what = f"case {case}: {run.mutated(rng)}"
        try:
            found = outcome(lambda: replay(open_run(run.path, opened), everything=True, backend="reference"), what)
        finally:
            run.restore()
        if isinstance(found, GensynVerifyError):
            seen.add("error")
            continue
        seen.add(found.verdict.name)
        if found.verdict is Verdict.VERIFIED:
            assert found.commitment == commitment, what
            assert found.solver == "0x" + SOLVER.address.hex(), what
            assert found.steps_replayed == 9, what
    assert seen >= {"error", "MISMATCH", "UNDECIDED"}


def test_mutated_tasks_give_a_verdict_or_one_clear_error(bundles: tuple[Bundle, Bundle, str]) -> None:
    task, run, _ = bundles
    honest = open_task(task.path).digest
    for case in range(CASES // 4):
        rng = random.Random(SEED << 33 | case)
        what = f"case {case}: {task.mutated(rng)}"

        def verify() -> Any:
            return replay(open_run(run.path, open_task(task.path, memory_limit=MEMORY // 4)), backend="reference")

        try:
            found = outcome(verify, what)
        finally:
            task.restore()
        if not isinstance(found, GensynVerifyError) and found.verdict is not Verdict.MISMATCH:
            assert found.task == honest.hex(), what  # whatever was changed is not committed: an origin


def records_of(program: bytes) -> list[bytes]:
    """Header, scalar programs and nodes of a program file."""
    at = 8

    def take() -> bytes:
        nonlocal at
        size = int.from_bytes(program[at : at + 4], "big")
        at += 4 + size
        return program[at - size : at]

    out = [take()]
    for _ in range(2):
        count = int.from_bytes(program[at : at + 4], "big")
        at += 4
        out += [take() for _ in range(count)]
    return out


def test_mutated_programs_under_their_own_digest_are_executed_or_refused(
    bundles: tuple[Bundle, Bundle, str], tmp_path: Path
) -> None:
    """A hostile submitter signs what he sends: the manifest names the digest of the mutated program."""
    task, _, _ = bundles
    program, manifest = task.path / "program", task.path / "task.json"
    executed = 0
    for case in range(CASES // 4):
        rng = random.Random(SEED << 34 | case)
        data = bytearray(task.files[program])
        for _ in range(rng.choice([1, 1, 2])):  # the structure stays, so that most cases reach the validation
            data[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
        program.write_bytes(data)
        value = json.loads(task.files[manifest])
        try:
            value["program"] = decode(bytes(data)).digest.hex()
        except GensynVerifyError:
            value["program"] = merkle_root([bytes(data)]).hex()
        manifest.write_bytes(canonical(value))
        what = f"case {case}: program"

        def run() -> Any:
            opened = open_task(task.path, memory_limit=MEMORY // 4)
            if peak_bytes(opened.program) > 1 << 20:
                return None
            return solve(opened, tmp_path / f"run{case}", backend="reference")  # noqa: B023

        try:
            executed += not isinstance(outcome(run, what), GensynVerifyError)
        finally:
            task.restore()
    assert executed or CASES < 100

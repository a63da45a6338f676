"""`gverify doctor`: that a machine is checked against the published bits, and that wrong bits are noticed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gensyn_verify import _native, cli
from gensyn_verify.cli import selftest, vectors
from gensyn_verify.program import ops
from gensyn_verify.program.types import Dtype


def test_the_self_test_vector_is_what_the_reference_gives() -> None:
    assert vectors.load("selftest") == selftest.vector()


def test_the_self_test_uses_every_node_kind_and_dtype() -> None:
    program = selftest.build()
    assert {node.op.kind for node in program.nodes} == set(ops.KINDS)
    assert {t.dtype for t in program.value_types} == set(Dtype)


def test_doctor_finds_this_machine_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--no-torch", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["verdict"] == "fit"
    names = [c["name"] for c in shown["checks"]]
    for isa in _native.supported_isas():
        assert f"{isa}, 1 thread" in names
    assert set(_native.supported_isas()) <= set(_native.built_isas())


def test_doctor_reports_kernels_that_give_other_bits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = selftest.evaluate

    def last_bit_wrong(program: object, inputs: object, backend: str) -> dict[str, np.ndarray]:
        out = honest(program, inputs, backend)  # type: ignore[arg-type]
        if backend == "cpu":
            out["dot"].view(np.uint32)[0, 0, 0] ^= 1
        return out

    monkeypatch.setattr(selftest, "evaluate", last_bit_wrong)
    assert cli.main(["doctor", "--no-torch"]) == 1
    out = capsys.readouterr().out
    assert "FAILED: other bits than published in output 'dot' of the self-test" in out
    assert "verdict: unfit" in out


def test_doctor_restores_instruction_set_and_threads() -> None:
    before = _native.isa(), _native.get_threads()
    list(selftest.checks())
    assert (_native.isa(), _native.get_threads()) == before


def test_doctor_shows_which_overrides_are_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENSYN_VERIFY_THREADS", "1")
    assert cli.main(["doctor", "--no-torch"]) == 0
    assert "GENSYN_VERIFY_THREADS  1" in capsys.readouterr().out


def test_a_vector_case_with_one_wrong_bit_does_not_hold() -> None:
    case = next(c for c in vectors.numeric_cases() if c.file == "dot")
    wrong = case.results[0].copy()
    wrong.reshape(-1).view(np.uint32)[0] ^= 1
    assert case.holds("cpu")
    assert not dataclasses.replace(case, results=(wrong,)).holds("cpu")


def test_every_vector_file_says_what_it_is() -> None:
    files = sorted(Path(vectors.folder()).glob("*.json"))
    assert files
    for file in files:
        assert json.loads(file.read_text("utf-8"))["_comment"], file.name


def test_doctor_says_which_devices_there_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emulation.fixtures import emulated, forget

    forget()
    monkeypatch.setenv("GENSYN_VERIFY_CUDA_DRIVER", "libno-such-driver.so")
    assert cli.main(["doctor", "--no-torch", "--json"]) == 0
    devices = json.loads(capsys.readouterr().out)["devices"]
    assert devices["cuda"]["device"].startswith("none: backend cuda needs an NVIDIA driver")
    with emulated(tmp_path / "stubs"):
        assert cli.main(["doctor", "--no-torch", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["devices"]["cuda"]["device"].startswith("emulation on this host, sm_90")
    assert {"name": "cuda", "ok": True, "detail": ""} in shown["checks"]


def test_every_kind_is_in_the_table_of_devices() -> None:
    from gensyn_verify.backends.device.selection import DEVICES, TABLE, elsewhere

    assert set(ops.KINDS) <= TABLE.keys()
    assert all(set(row) == set(DEVICES) for row in TABLE.values())
    assert not elsewhere("cuda")
    assert list(elsewhere("metal")) == ["where a subnormal may have been flushed"]

"""Runs solved on a device and verified elsewhere, and the other way round; the device is the stand-in driver's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import machine_task
import numpy as np
import pytest
from emulation.fixtures import emulated

from gensyn_verify import backends
from gensyn_verify.backends import cuda
from gensyn_verify.backends.names import DeviceName, of_device, parse
from gensyn_verify.cli import main
from gensyn_verify.errors import BackendError, NonFiniteError
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.run import open_run
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, write_task


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[None]:
    with emulated(tmp_path / "stubs", seed=2):
        yield


def test_names_of_devices() -> None:
    assert parse("cuda") == DeviceName("cuda")
    assert parse("triton:3") == DeviceName("triton", 3)
    assert [of_device(d) for d in ("cpu", "cuda:1", "mps")] == ["cpu", "cuda:1", "metal"]
    for wrong in ("metal", "gpu", "cuda:x", "vendor"):
        with pytest.raises(BackendError, match="known are cpu, cuda"):
            of_device(wrong)
    with pytest.raises(BackendError, match="unknown"):
        parse("cuda:")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("task")


@pytest.fixture(scope="module")
def every_kind(folder: Path) -> Task:
    """A task whose program has every node kind and dtype, eight steps in intervals of three."""
    return machine_task.write(folder, steps=8, interval=3)


def test_a_run_is_the_same_on_a_device_and_verifies_anywhere(gpu: None, every_kind: Task, tmp_path: Path) -> None:
    on_cpu = solve(every_kind, tmp_path / "cpu", identity=machine_task.SOLVER, salt=machine_task.SALT)
    on_gpu = solve(every_kind, tmp_path / "gpu", identity=machine_task.SOLVER, salt=machine_task.SALT, backend="cuda")
    assert on_gpu.commitment == on_cpu.commitment
    assert on_gpu.header.environment["backend"] == "cuda"
    for run, backend in ((on_gpu, "cpu"), (on_cpu, "cuda")):
        report = replay(run, every_kind, everything=True, backend=backend)
        assert report.verdict.value == "VERIFIED", report
    # What was stored while later steps ran is what the roots say.
    stored = open_run(tmp_path / "gpu", every_kind)
    assert all(stored.checkpoint(n).keys() == on_cpu.checkpoint(n).keys() for n in stored.intervals)


def test_a_tampered_run_is_found_on_a_device(gpu: None, every_kind: Task, tmp_path: Path) -> None:
    executor = cuda.make(every_kind.program)
    state = {name: array.copy() for name, array in every_kind.initial_state().items()}
    executor.load(state)
    executor.step(every_kind.batch(0), every_kind.scalars(0))
    honest = executor.state_roots()
    name = next(n for n, a in state.items() if a.dtype == np.float32 and a.size > 3)
    state[name].reshape(-1)[3] += np.float32(1)
    executor.load(state)
    executor.step(every_kind.batch(0), every_kind.scalars(0))
    assert executor.state_roots() != honest


def test_an_interrupted_run_goes_on_on_another_device(gpu: None, every_kind: Task, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, steps: int, metrics: object) -> None:
        if done == 5:
            raise StopError

    how = {"identity": machine_task.SOLVER, "salt": machine_task.SALT}
    whole = solve(every_kind, tmp_path / "whole", **how)  # type: ignore[arg-type]
    with pytest.raises(StopError):
        solve(every_kind, tmp_path / "run", progress=stop, backend="cuda", **how)  # type: ignore[arg-type]
    assert solve(every_kind, tmp_path / "run", **how).commitment == whole.commitment  # type: ignore[arg-type]


def test_a_bad_number_stops_a_run_on_a_device_and_names_its_node(gpu: None, tmp_path: Path) -> None:
    g = ProgramBuilder()
    x = g.input("state", "x", TensorType(Dtype.f32, (3,)))
    row = g.input("batch", "row", TensorType(Dtype.f32, (1, 3)))
    with g.origin("layer"):
        y = g.map(lambda a, b: a / b, x, row)
    total = g.reduce("sum", y, {0, 1})
    g.output("state", "x", g.map(lambda a: a + 1.0, x))
    g.output("metric", "loss", total)
    rows = np.array([[1, 2, 3], [1, 1, 1], [0, 1, 2]], np.float32)
    task = write_task(
        tmp_path / "task", g.build(), {"x": np.zeros(3, np.float32)}, data={"row": rows},
        sampler=Sampler((1, 2), 3, 1), steps=3, interval=1,
    )  # fmt: skip
    found = []
    for backend in ("cpu", "cuda"):
        with pytest.raises(NonFiniteError) as error:
            solve(task, tmp_path / backend, backend=backend)
        found.append(str(error.value))
    assert found[0] == found[1]


def test_the_command_line_takes_a_device(
    gpu: None, every_kind: Task, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, run = str(folder), str(tmp_path / "run")
    assert main(["solve", task, "--out", run, "--device", "cuda"]) == 0
    assert main(["replay", run, "--task", task, "--all"]) == 0
    capsys.readouterr()
    assert main(["replay", run, "--task", task, "--all", "--device", "cuda", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "VERIFIED"
    assert main(["solve", task, "--out", str(tmp_path / "other"), "--device", "tpu"]) == 2


def test_a_device_that_is_not_there_is_one_clear_error(
    every_kind: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENSYN_VERIFY_CUDA_DRIVER", "libno-such-driver.so")
    from emulation.fixtures import forget

    forget()
    with pytest.raises(BackendError, match="needs an NVIDIA driver"):
        backends.make("cuda", every_kind.program)
    forget()

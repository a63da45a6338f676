"""A training loop of one's own, recorded and replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import BATCH, FEATURES, SALT, SOLVER, initial_state, linear_program

from gensyn_verify import backends
from gensyn_verify.errors import BundleError, NonFiniteError
from gensyn_verify.program import Program
from gensyn_verify.protocol.record import record
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import open_run
from gensyn_verify.protocol.store import file_name


class Captured:
    def __init__(self, loop: Loop) -> None:
        self.program: Program = linear_program()
        self.state = initial_state()
        self._loop = loop

    def read_state(self, step: int) -> dict[str, np.ndarray]:
        return {n: a.copy() for n, a in self._loop.executor.state().items()}


class Loop:
    """What the frontend's compiled step is to the recorder, without torch: captured at the first call."""

    def __init__(self) -> None:
        self.listeners: list[Callable[..., None]] = []
        self.captured: Captured | None = None
        self.steps = 0
        self.reloads = 0
        self.fail = False
        self.views = False  # a state that is views into the executor's memory, as of the native one

    def __call__(self, seed: int, lr: float = 0.002) -> float:
        if self.captured is None:
            self.captured = Captured(self)
            self.executor = backends.make("cpu" if self.views else "reference", self.captured.program)
            self.executor.load(self.captured.state)
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(BATCH, FEATURES)).astype(np.float32)
        batch = {"x": x, "label": (x.sum(1) > 0).astype(np.uint8)}
        scalars = {"lr": np.array(lr, np.float32)}
        metrics = self.executor.step(batch, scalars)
        self.steps += 1
        if self.fail:
            raise KeyError
        for listener in self.listeners:
            listener(self.steps, batch, scalars, self.executor.state(), metrics)
        return float(metrics["loss"])


def test_recorded_loop_is_verified_without_any_other_task(tmp_path: Path) -> None:
    loop = Loop()
    with record(loop, tmp_path / "run", interval=4, identity=SOLVER, salt=SALT) as recording:
        losses = [loop(i) for i in range(10)]
    run = recording.run
    assert run is not None
    assert run.finished
    assert run.steps_done == 10
    assert [float(r.metrics["loss"]) for i in run.intervals for r in run.segment(i).steps] == losses
    report = replay(tmp_path / "run", everything=True, backend="reference")
    assert report.verdict is Verdict.VERIFIED
    assert report.steps_replayed == 10
    assert "the task came with the run" in report.notes[0]


def test_the_same_batch_is_stored_once(tmp_path: Path) -> None:
    loop = Loop()
    with record(loop, tmp_path / "run", interval=4):
        for _ in range(6):
            loop(seed=7)
    names = [p.name for p in (tmp_path / "run" / "tensors").iterdir()]
    assert len([n for n in names if n.endswith(f"-f32-{BATCH}x{FEATURES}.safetensors")]) == 1
    assert len([n for n in names if n.endswith("-f32-scalar.safetensors")]) == 1


def test_recording_may_begin_in_the_middle_of_training(tmp_path: Path) -> None:
    loop = Loop()
    for i in range(5):
        loop(i)
    with record(loop, tmp_path / "run", interval=4) as recording:
        for i in range(5, 9):
            loop(i)
    loop(9)  # not part of it
    assert loop.listeners == []
    report = replay(recording.run, everything=True, backend="reference")  # type: ignore[arg-type]
    assert report.verdict is Verdict.VERIFIED
    assert report.steps_replayed == 4


def test_error_in_the_loop_keeps_every_step_before_it(tmp_path: Path) -> None:
    loop = Loop()

    def train() -> None:
        with record(loop, tmp_path / "run", interval=4):
            for i in range(6):
                loop(i)
            raise KeyError

    with pytest.raises(KeyError):
        train()
    run = open_run(tmp_path / "run")
    assert not run.finished
    assert run.steps_done == 6
    report = replay(run, everything=True, backend="reference")
    assert report.verdict is Verdict.UNDECIDED
    assert report.steps_replayed == 6
    assert not report.findings


@pytest.mark.parametrize("caught", [False, True])
def test_step_that_fails_before_it_is_recorded_spoils_no_checkpoint(tmp_path: Path, caught: bool) -> None:
    """The executor has moved on by then, so its state is not the one that the last recorded step left."""
    loop = Loop()
    loop.views = True

    def train() -> None:
        with record(loop, tmp_path / "run", interval=2):
            for i in range(4):
                loop.fail = i == 3
                with contextlib.suppress(KeyError if caught else ()):
                    loop(i)

    with pytest.raises(BundleError if caught else KeyError):
        train()
    assert open_run(tmp_path / "run").steps_done == 2
    assert not replay(tmp_path / "run", everything=True, backend="reference").findings


def test_loop_that_explodes_stops_and_names_the_node(tmp_path: Path) -> None:
    loop = Loop()

    def train() -> None:
        with record(loop, tmp_path / "run", interval=4):
            for i in range(8):
                loop(i, lr=1e25 if i == 5 else 0.002)

    with pytest.raises(NonFiniteError, match="not finite at step 6; at step 6 metric 'loss' becomes an infinity"):
        train()
    assert open_run(tmp_path / "run").steps_done == 6


def test_writing_into_the_model_between_recorded_steps_is_refused(tmp_path: Path) -> None:
    loop = Loop()

    def train() -> None:
        with record(loop, tmp_path / "run", interval=2):
            for i in range(5):
                loop.reloads += i == 3
                loop(i)

    with pytest.raises(BundleError, match="written to before step 4"):
        train()
    assert open_run(tmp_path / "run").steps_done == 3
    assert not replay(tmp_path / "run", everything=True, backend="reference").findings


def test_nothing_recorded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no step was taken"), record(Loop(), tmp_path / "run"):
        pass


def test_recording_over_a_run_is_refused(tmp_path: Path) -> None:
    loop = Loop()
    with record(loop, tmp_path / "run"):
        loop(0)
    with pytest.raises(BundleError, match="holds a run already"), record(loop, tmp_path / "run"):
        loop(1)


def test_task_of_a_run_behind_a_link_is_refused(tmp_path: Path) -> None:
    loop = Loop()
    with record(loop, tmp_path / "run"):
        loop(0)
    (tmp_path / "run" / "task").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "task").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="symbolic link"):
        open_run(tmp_path / "run")


@pytest.mark.parametrize(("role", "name"), [("batch", "x"), ("batch", "label"), ("scalar", "lr")])
def test_edited_recorded_input_is_named(tmp_path: Path, role: str, name: str) -> None:
    loop = Loop()
    with record(loop, tmp_path / "run", interval=4) as recording:
        for i in range(6):
            loop(i)
    run = recording.run
    assert run is not None
    root = run.segment(0).steps[2].group(role)[name]
    file = tmp_path / "run" / file_name(root, run.task.program.inputs_of(role)[name])  # type: ignore[union-attr]
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    report = replay(run, everything=True, backend="reference")
    finding = report.findings[0]
    assert report.verdict is Verdict.MISMATCH
    assert (finding.kind, finding.tensor) == (role, name)
    assert finding.expected == root.hex()


def test_missing_recorded_batch_leaves_the_verdict_open(tmp_path: Path) -> None:
    loop = Loop()
    with record(loop, tmp_path / "run", interval=4) as recording:
        for i in range(6):
            loop(i)
    run = recording.run
    assert run is not None
    root = run.segment(1).steps[0].batch["x"]
    (tmp_path / "run" / file_name(root, run.task.program.inputs_of("batch")["x"])).unlink()  # type: ignore[union-attr]
    report = replay(run, everything=True, backend="reference")
    assert report.verdict is Verdict.UNDECIDED
    assert "step 4, batch 'x'" in report.gaps[0]


# ---- with torch -------------------------------------------------------------------------------------------------


def small_model():  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return torch, model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def test_capture_solve_replay_of_a_torch_model(tmp_path: Path) -> None:
    torch, model, optimizer = small_model()
    from gensyn_verify import api

    x = torch.randn(40, 5)
    y = x.argmax(1) % 3
    loss_fn = torch.nn.functional.cross_entropy
    task = api.capture(
        model, loss_fn, optimizer, (x, y.numpy()), steps=12, batch_size=8, interval=5, path=tmp_path / "task", seed=3
    )
    assert (task.steps, task.intervals, task.sampler.rows) == (12, 3, 40)  # type: ignore[union-attr]
    run = api.solve(task, tmp_path / "run")
    assert api.replay(run, everything=True).verdict is Verdict.VERIFIED
    # stock PyTorch on the same batches
    for step in range(12):
        rows = torch.from_numpy(task.sampler.indices(step))  # type: ignore[union-attr]
        optimizer.zero_grad()
        loss_fn(model(x[rows]), y[rows]).backward()
        optimizer.step()
    final = run.checkpoint()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(final[f"param.{name}"], parameter.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_capture_of_named_data_with_a_loss_of_its_own_and_a_schedule(tmp_path: Path) -> None:
    torch, model, optimizer = small_model()
    from gensyn_verify import api

    x = torch.randn(20, 5)
    data = {"inputs": x.numpy(), "target": x.argmax(1) % 3}

    def loss_fn(m, batch):  # type: ignore[no-untyped-def]
        return torch.nn.functional.cross_entropy(m(batch["inputs"]), batch["target"])

    task = api.capture(
        model, loss_fn, optimizer, data, steps=4, batch_size=5, path=tmp_path / "task",
        loss_takes_model=True, lr=lambda step: 0.1 / step,
    )  # fmt: skip
    assert set(task.data) == {"inputs", "target"}
    rates = [float(next(iter(task.scalars(step).values()))) for step in range(4)]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.1 / 3, 0.025], rtol=1e-6)
    run = api.solve(task, tmp_path / "run")
    assert api.replay(run, everything=True).verdict is Verdict.VERIFIED


def test_record_of_a_compiled_torch_step(tmp_path: Path) -> None:
    torch, model, optimizer = small_model()
    from gensyn_verify import api

    step = api.compile(model, torch.nn.functional.cross_entropy, optimizer)
    with api.record(step, tmp_path / "run", interval=3) as recording:
        for _ in range(7):
            x = torch.randn(8, 5)
            step((x, x.argmax(1) % 3))
    report = api.replay(recording.run, everything=True)  # type: ignore[arg-type]
    assert report.verdict is Verdict.VERIFIED
    assert report.steps_replayed == 7


def test_data_that_cannot_be_captured_is_one_clear_error(tmp_path: Path) -> None:
    torch, model, optimizer = small_model()
    from gensyn_verify import api
    from gensyn_verify.errors import CaptureError

    def capture(data: object, **options: int) -> None:
        given = {"steps": 2, "batch_size": 4, **options}
        api.capture(model, torch.nn.functional.cross_entropy, optimizer, data, path=tmp_path / "t", **given)

    x, y = torch.randn(6, 5), torch.zeros(6, dtype=torch.int64)
    for data, options, word in [
        ((x, y[:5]), {}, "count the rows"),
        ((x, y), {"batch_size": 7}, "7 from 6 rows"),
        ((x, y), {"seed": -1}, "seed -1"),
    ]:
        with pytest.raises(CaptureError, match=word):
            capture(data, **options)
    assert not (tmp_path / "t").exists()

"""A loop whose step is code: recorded, replayed by trusted code, killed and resumed."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gensyn_verify as gv
from gensyn_verify.classic import CodeExecutor
from gensyn_verify.classic.code import Code, seeded
from gensyn_verify.classic.executor import builder
from gensyn_verify.commit import keccak256
from gensyn_verify.errors import BundleError, CaptureError
from gensyn_verify.protocol.run import stored_input
from gensyn_verify.source import Source
from tests.classic import loops

FILE = Path(loops.__file__)


@pytest.mark.parametrize("optimizer", [*loops.OPTIMIZERS, "careless"])
def test_recorded_code_is_verified_bit_for_bit_by_the_same_code(optimizer: str, tmp_path: Path) -> None:
    loop = loops.train(tmp_path / "run", build=getattr(loops, optimizer))
    assert loop.run.finished
    report = gv.replay(tmp_path / "run", trust_code=f"{FILE}:{optimizer}", everything=True)
    assert report.verdict is gv.Verdict.VERIFIED, report
    assert report.steps_replayed == loops.STEPS
    assert report.backend == f"trusted code {FILE}:{optimizer}"
    assert any("the verdict is worth what that code is" in note for note in report.notes)


def test_the_run_says_what_pytorch_s_bits_depend_on(recorded: Path) -> None:
    stated = gv.open_run(recorded).header.environment
    assert (stated["backend"], stated["device"], stated["threads"]) == ("code", "cpu", "1")
    assert stated["torch"] == torch.__version__
    assert stated["isa"] == torch.backends.cpu.get_cpu_capability()
    assert stated["code"] == Source.read(f"{FILE}:build").digest.hex()


def test_two_recordings_of_one_loop_have_one_commitment(recorded: Path, tmp_path: Path) -> None:
    """Whatever the generators of the process were before: what a step draws follows from seed and step alone."""
    torch.manual_seed(99)
    np.random.seed(99)
    assert loops.train(tmp_path / "again").run.commitment == gv.open_run(recorded).commitment
    assert loops.train(tmp_path / "other", seed=4).run.commitment != gv.open_run(recorded).commitment


def test_recording_leaves_the_generators_of_the_loop_alone(tmp_path: Path) -> None:
    def drawn(recording: bool) -> Any:
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        if recording:
            with gv.record_loop("tests/classic/loops.py:sgd", tmp_path / "run") as loop:
                torch.manual_seed(5)  # building the model draws
                for batch in loops.batches(3):
                    loop(batch)
        return torch.rand(()).item(), np.random.rand(), random.random()

    assert drawn(True) == drawn(False)


def test_generators_of_a_step_are_seeded_as_the_format_says() -> None:
    d = keccak256(b"gensyn_verify.classic.1" + (3).to_bytes(8, "big") + (7).to_bytes(8, "big"))
    torch_alone = torch.Generator().manual_seed(int.from_bytes(d[:8], "big"))
    numpy_alone = np.random.RandomState([int.from_bytes(d[i : i + 4], "big") for i in range(0, 32, 4)])
    with seeded(3, 7):
        assert torch.equal(torch.rand(5), torch.rand(5, generator=torch_alone))
        assert np.random.rand() == numpy_alone.rand()
        assert random.random() == random.Random(d).random()


@pytest.mark.parametrize("optimizer", loops.OPTIMIZERS)
def test_any_checkpoint_loaded_into_a_fresh_executor_goes_on_with_the_same_bits(optimizer: str, tmp_path: Path) -> None:
    run = loops.train(tmp_path / "run", build=getattr(loops, optimizer)).run
    task = run.task
    executor = CodeExecutor(builder(Source.read(f"{FILE}:{optimizer}"))(), task.program)
    for n in reversed(run.intervals):  # backwards: nothing may be left over from what was loaded before
        opening = run.checkpoint(n - 1) if n else task.initial_state()
        executor.load(opening)
        assert all(a.tobytes() == opening[name].tobytes() for name, a in executor.state().items())
        for step, record in enumerate(run.segment(n).steps, n * task.interval):
            batch, scalars = (
                {x: stored_input(task, run.store, step, record, role, x) for x in record.group(role)}
                for role in ("batch", "scalar")
            )
            executor.step(batch, scalars)
        wanted = run.checkpoint(n)
        found = executor.state()
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_killed_recording_resumes_to_the_same_commitment(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed before its first checkpoint, then after one."""

    def killed(stop: int) -> str:
        command = [sys.executable, "-m", "tests.classic.loops", str(tmp_path / "run"), str(stop)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FILE.parents[2])
        assert done.returncode == -signal.SIGKILL, done.stderr
        return done.stdout

    assert killed(2) == "from 0\n"
    assert killed(6) == "from 0\n"
    run = loops.train(tmp_path / "run").run
    assert capsys.readouterr().out == "from 4\n"
    assert run.commitment == gv.open_run(recorded).commitment


def test_an_error_in_the_step_keeps_what_was_before_it(tmp_path: Path) -> None:
    def train() -> None:
        with gv.record_loop(loops.build, tmp_path / "run", **loops.OPTIONS) as loop:
            for batch in loops.batches(6):
                loop(batch)
            loop({**loops.batches(1)[0], "label": torch.full((8,), 9)})  # no such class: after the forward pass

    with pytest.raises(IndexError):
        train()
    run = gv.open_run(tmp_path / "run")
    assert (run.finished, run.steps_done) == (False, 6)
    report = gv.replay(run, trust_code=f"{FILE}:build", everything=True)
    assert report.verdict is gv.Verdict.UNDECIDED
    assert (report.findings, report.steps_replayed) == ((), 6)


def test_batches_of_any_shape_are_recorded_where_a_size_is_given(tmp_path: Path) -> None:
    batches = loops.ragged_batches()
    options = {**loops.OPTIONS, "ragged": 1500}
    with contextlib.suppress(KeyError), gv.record_loop(loops.sequences, tmp_path / "run", **options) as loop:
        for batch in batches[:6]:
            loop(batch)
        raise KeyError
    with gv.record_loop(loops.sequences, tmp_path / "run", resume=True, **options) as loop:
        for batch in batches[loop.steps :]:
            loop(batch)
    with gv.record_loop(loops.sequences, tmp_path / "whole", **options) as whole:
        for batch in batches:
            whole(batch)
    assert loop.run.commitment == whole.run.commitment
    report = gv.replay(tmp_path / "run", trust_code=f"{FILE}:sequences", everything=True)
    assert report.verdict is gv.Verdict.VERIFIED, report
    with (
        pytest.raises(CaptureError, match=r"takes .* bytes, and ragged=100 was said to hold every one"),
        gv.record_loop(loops.sequences, tmp_path / "small", ragged=100) as loop,
    ):
        loop(batches[3])


# ---- what is refused, and why -----------------------------------------------------------------------------------


def changed_weight(loop: gv.Loop) -> None:
    with torch.no_grad():
        loop.model.last.bias[0] += 1


def changed_moment(loop: gv.Loop) -> None:
    loop.optimizer.state[loop.model.last.bias]["exp_avg"][0] = 1


@pytest.mark.parametrize("change", [changed_weight, changed_moment])
def test_writing_between_recorded_steps_is_refused(change: Any, tmp_path: Path) -> None:
    def train() -> None:
        with gv.record_loop(loops.build, tmp_path / "run", **loops.OPTIONS) as loop:
            for n, batch in enumerate(loops.batches()):
                if n == 5:
                    change(loop)
                loop(batch)

    with pytest.raises(BundleError, match=r"last\.bias.* was written to before step 5"):
        train()
    assert gv.open_run(tmp_path / "run").steps_done == 5


def test_what_is_done_before_the_first_step_is_part_of_the_initial_state(tmp_path: Path) -> None:
    with gv.record_loop(loops.build, tmp_path / "run", **loops.OPTIONS) as loop:
        changed_weight(loop)
        loop(loops.batches(1)[0])
    assert gv.replay(tmp_path / "run", trust_code=f"{FILE}:build").verdict is gv.Verdict.VERIFIED


def test_modes_and_frozen_parameters_are_recorded_step_by_step(tmp_path: Path) -> None:
    with gv.record_loop(loops.build, tmp_path / "run", **loops.OPTIONS) as loop:
        for n, batch in enumerate(loops.batches()):
            loop.model.train(n % 3 > 0)
            loop.model.first.requires_grad_(n > 5)
            loop(batch)
    report = gv.replay(tmp_path / "run", trust_code=f"{FILE}:build", everything=True)
    assert report.verdict is gv.Verdict.VERIFIED, report


@pytest.mark.parametrize(
    ("batch", "word"),
    [
        ({"x": torch.ones(7, 6), "label": torch.zeros(7, dtype=torch.int64), "weight": 1.0}, "static shapes"),
        ({"x": torch.ones(8, 6), "label": torch.zeros(8, dtype=torch.int64), "weight": "1"}, "batch.weight is str"),
        ({"x y": torch.ones(8, 6)}, "key 'x y'"),
        ([], "none of them empty"),
    ],
)
def test_a_batch_that_cannot_be_recorded_is_named(batch: Any, word: str, tmp_path: Path) -> None:
    def train() -> None:
        with gv.record_loop(loops.build, tmp_path / "run", **loops.OPTIONS) as loop:
            loop(loops.batches(1)[0])
            loop(batch)

    with pytest.raises(CaptureError, match=word):
        train()


class Forgetful(torch.optim.SGD):
    """Its state appears where a gradient is above zero only, so that nothing foretells it."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for p in self.param_groups[0]["params"]:
            if p.grad is not None and p.grad.abs().max() > 0:
                self.state[p]["surprise"] = torch.ones(3)


def test_optimizer_state_that_nothing_foretold_is_refused_with_what_to_do(tmp_path: Path) -> None:
    model = loops.RandomDepth()
    optimizer = Forgetful(model.parameters(), lr=0.1)
    with (
        pytest.raises(CaptureError, match=r"'surprise' .* take the first steps before the recording"),
        gv.record_loop((model, optimizer, loops.step), tmp_path / "run") as loop,
    ):
        loop(loops.batches(1)[0])
    for _ in range(20):  # every depth
        loops.step(model, optimizer, loops.batches(1)[0])
    with gv.record_loop((model, optimizer, loops.step), tmp_path / "later") as loop:
        loop(loops.batches(1)[0])
    assert loop.run is not None


def test_a_step_that_reads_what_is_not_recorded_is_found_at_its_first_call(tmp_path: Path) -> None:
    def train(**options: Any) -> None:
        with gv.record_loop(loops.counting, tmp_path / f"run{len(options)}", **loops.OPTIONS, **options) as loop:
            for batch in loops.batches(3):
                loop(batch)

    with pytest.raises(CaptureError, match=r"taken twice .* gave two different param"):
        train()
    train(check=False)
    report = gv.replay(tmp_path / "run1", trust_code=f"{FILE}:counting", everything=True)
    assert report.verdict is gv.Verdict.MISMATCH


def test_foreseeing_the_state_changes_nothing() -> None:
    """The optimizer steps on a copy, its scheduler's wrapper around step() included."""
    model, optimizer, step = loops.build("sgd")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    step(model, optimizer, loops.batches(1)[0])
    before = [t.clone() for t in model.state_dict().values()], repr(optimizer.state_dict()), scheduler.state_dict()
    torch.manual_seed(1)
    drawn = torch.get_rng_state()
    Code((model, optimizer, step), bytes(32), "here")
    assert all(torch.equal(a, b) for a, b in zip(before[0], model.state_dict().values(), strict=True))
    assert before[1:] == (repr(optimizer.state_dict()), scheduler.state_dict())
    assert torch.equal(drawn, torch.get_rng_state())


def test_a_build_that_returns_something_else_is_named(tmp_path: Path) -> None:
    for built, word in [
        ((1, 2), "expected .model, optimizer, step."),
        ((nn.Linear(1, 1), 2, loops.step), "found Linear, int"),
    ]:
        with pytest.raises(CaptureError, match=word), gv.record_loop(lambda built=built: built, tmp_path / "run"):  # type: ignore[misc]
            pass


def test_resuming_with_other_code_or_another_seed_is_refused(tmp_path: Path) -> None:
    with contextlib.suppress(KeyError), gv.record_loop(loops.build, tmp_path / "run", **loops.OPTIONS) as loop:
        loop(loops.batches(1)[0])
        raise KeyError
    copy = tmp_path / "other.py"
    copy.write_text(FILE.read_text() + "# changed\n")
    for what, options, word in [
        (f"{copy}:build", {}, "was recorded with code of digest"),
        (loops.build, {"seed": 9}, "recorded with seed 3, not 9"),
        (loops.sgd, {}, "of the code is nothing"),
    ]:
        with (
            pytest.raises(gv.GensynVerifyError, match=word),
            gv.record_loop(what, tmp_path / "run", resume=True, **{**loops.OPTIONS, **options}),  # type: ignore[arg-type]
        ):
            pass

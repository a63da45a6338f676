"""A training loop of one's own: what it sees between steps, how it stops and goes on, whatever lies behind a tensor."""

from __future__ import annotations

import contextlib
import copy
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gensyn_verify as gv
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import compile
from tests.frontend import killed_loop
from tests.frontend.models import TASKS, Task, TiedWords
from tests.frontend.test_training import assert_same_tensors, train_on

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3),
}


def bits(model: nn.Module) -> bytes:
    return b"".join(t.detach().contiguous().numpy().tobytes() for t in model.state_dict().values())


def test_evaluation_between_steps_sees_the_live_weights_and_changes_nothing() -> None:
    task = TASKS["cnn"]
    x, y = task.batches(1, seed=9)[0]
    found = []
    for evaluates in (False, True):
        model = task.build()
        step = compile(model, task.loss, OPTIMIZERS["adamw"](model.parameters()))
        losses = []
        for batch in task.batches(8):
            step(batch)
            if evaluates:
                model.eval()
                with torch.no_grad():
                    losses.append(task.loss(model(x), y).item())
                model.train()
        assert step.reloads == 0
        found.append(bits(model))
    assert found[0] == found[1]
    assert len(set(losses)) == len(losses)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", ["cnn", "text"])
def test_saved_and_loaded_into_fresh_objects_it_goes_on_with_the_same_bits(task: str, optimizer: str) -> None:
    batches = TASKS[task].batches(9)
    model = TASKS[task].build()
    own = OPTIMIZERS[optimizer](model.parameters())
    step = compile(model, TASKS[task].loss, own)
    file = io.BytesIO()
    for n, batch in enumerate(batches):
        if n == 5:
            torch.save((model.state_dict(), own.state_dict()), file)
        step(batch)

    fresh = TASKS[task].build(seed=77)
    again = OPTIMIZERS[optimizer](fresh.parameters())
    file.seek(0)
    saved_model, saved_optimizer = torch.load(file, weights_only=True)
    fresh.load_state_dict(saved_model)
    again.load_state_dict(saved_optimizer)
    resumed = compile(fresh, TASKS[task].loss, again)
    for batch in batches[5:]:
        resumed(batch)
    assert bits(fresh) == bits(model)
    assert_same_tensors(again.state_dict(), own.state_dict(), 0.0)


def test_a_checkpoint_loaded_into_the_compiled_model_is_where_it_goes_on() -> None:
    """Loading in the middle of a loop, as early stopping does: the step sees it and counts it as a reload."""
    task = TASKS["mlp"]
    batches = task.batches(6)
    model = task.build()
    step = compile(model, task.loss, torch.optim.SGD(model.parameters(), lr=0.1))
    step(batches[0])
    saved = {name: t.clone() for name, t in model.state_dict().items()}
    first = [step(b).item() for b in batches[1:]]
    model.load_state_dict(saved)
    assert [step(b).item() for b in batches[1:]] == first
    assert step.reloads == 1


# ---- what lies behind a tensor ------------------------------------------------------------------------------------


class Tied(TiedWords):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.words(x)).mean(1)))  # type: ignore[no-any-return]


class Views(nn.Module):
    """Parameters that are parts, and transposes, of one buffer of memory."""

    def __init__(self) -> None:
        super().__init__()
        memory = torch.randn(2, 20, 30)
        self.a = nn.Parameter(memory[0, :, :24].t())  # strides (1, 30), offset 0
        self.b = nn.Parameter(memory[1, 5:15, 3:27])  # strides (30, 1), offset 753

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.a.t()) @ self.b.t()


def _channels_last() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 10))
    return model.to(memory_format=torch.channels_last)


def _words(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 50, (16, 7), generator=g)
    return x, x[:, 0]


def _rows(*shape: int) -> Any:
    return lambda g: (torch.randn(16, *shape, generator=g), torch.randint(0, 10, (16,), generator=g))


def _strided_images(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = _rows(3, 8, 8)(g)
    return x.to(memory_format=torch.channels_last), y


STORAGES = {
    "tied": Task(Tied, nn.CrossEntropyLoss(), _words),
    "views": Task(Views, nn.CrossEntropyLoss(), _rows(20)),
    "channels-last": Task(_channels_last, nn.CrossEntropyLoss(), _strided_images),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", STORAGES)
def test_tensors_keep_their_storage_and_train_as_in_pytorch(name: str, optimizer: str, tmp_path: Path) -> None:
    task = STORAGES[name]
    stock = task.build()
    wanted = train_on(stock, task, OPTIMIZERS[optimizer](stock.parameters()), task.batches(6))
    model = task.build()
    places = [(p.data_ptr(), p.stride()) for p in model.parameters()]
    step = compile(model, task.loss, OPTIMIZERS[optimizer](model.parameters()))
    with gv.record(step, tmp_path / "run", interval=2):
        found = [step(batch).item() for batch in task.batches(6)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert_same_tensors(dict(model.state_dict()), dict(stock.state_dict()), 1e-4)
    assert [(p.data_ptr(), p.stride()) for p in model.parameters()] == places
    assert gv.replay(tmp_path / "run", everything=True).verdict is gv.Verdict.VERIFIED


def test_tied_weights_stay_tied() -> None:
    task = STORAGES["tied"]
    model = task.build()
    step = compile(model, task.loss, OPTIMIZERS["adamw"](model.parameters()))
    for batch in task.batches(3):
        step(batch)
    assert model.head.weight is model.words.weight
    assert step.captured is not None
    assert sum(name.startswith("param.") for name in step.captured.state) == 3


@pytest.mark.parametrize("overlap", ["parts", "whole", "buffer"])
def test_tensors_that_share_memory_without_being_one_are_refused(overlap: str) -> None:
    """A program has no aliases: the update of one would not be seen in the other."""
    memory = torch.ones(6)
    model = nn.Module()
    model.a = nn.Parameter(memory[:4])
    if overlap == "buffer":
        model.register_buffer("b", memory[2:])
    else:
        model.b = nn.Parameter(memory[2:] if overlap == "parts" else memory[:4])
    step = compile(model, lambda m, x: (m.a * x * m.b).sum(), torch.optim.SGD([model.a], lr=0.1), loss_takes_model=True)
    with pytest.raises(CaptureError, match="'a' and 'b' share memory"):
        step(torch.ones(4))


def test_buffers_that_share_memory_and_parameters_between_each_other_are_no_overlap() -> None:
    memory = torch.ones(8)
    model = nn.Module()
    model.a, model.b = nn.Parameter(memory[::2]), nn.Parameter(memory[1::2])
    constant = torch.ones(4)
    model.register_buffer("c", constant[:3])
    model.register_buffer("d", constant[1:])
    step = compile(
        model,
        lambda m, x: (m.a * x * m.b).sum() + (m.c * m.d).sum(),
        torch.optim.SGD(model.parameters(), lr=0.5),
        loss_takes_model=True,
    )
    step(torch.arange(4.0))
    assert memory.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0, -0.5, -0.5]


# ---- a recorded run that is killed --------------------------------------------------------------------------------


def test_killed_recording_resumes_to_the_same_commitment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed before its first checkpoint, then after one, each time in a process with another initial state."""
    script = Path(__file__).with_name("killed_loop.py")

    def killed(stop: int, seed: int) -> str:
        command = [sys.executable, str(script), str(tmp_path / "broken"), str(stop), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        return done.stdout

    assert killed(stop=2, seed=0) == "from 0\n"
    assert killed(stop=6, seed=1) == "from 0\n"
    killed_loop.main(str(tmp_path / "broken"), stop=-1, seed=2)
    assert capsys.readouterr().out == "from 4\n"
    killed_loop.main(str(tmp_path / "whole"), stop=-1, seed=0)
    whole, broken = gv.open_run(tmp_path / "whole"), gv.open_run(tmp_path / "broken")
    assert whole.commitment is not None
    assert broken.commitment == whole.commitment
    assert gv.replay(broken, everything=True).verdict is gv.Verdict.VERIFIED


def test_recording_goes_on_from_a_checkpoint_of_the_loop(tmp_path: Path) -> None:
    """The run is taken back to the step that the checkpoint is of; dropout follows the step's number."""
    batches = [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(9)]
    options: dict[str, Any] = {
        "interval": 2, "salt": bytes(32), "identity": gv.Identity.unsigned("0x" + "a5" * 20), "resume": True
    }  # fmt: skip

    def built() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        return model, optimizer, compile(model, nn.CrossEntropyLoss(), optimizer, seed=4)

    _, _, step = built()
    with gv.record(step, tmp_path / "whole", **options) as whole:
        for batch in batches:
            step(batch)
    for n in (1, 3, 4):  # after the first step, inside of an interval, at its end
        model, optimizer, step = built()
        with contextlib.suppress(KeyError), gv.record(step, tmp_path / f"broken{n}", **options):
            for batch in batches[:7]:
                step(batch)
                if step.steps == n:
                    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            raise KeyError
        model, optimizer, step = built()
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        step.prepare(batches[0], steps=n)
        with gv.record(step, tmp_path / f"broken{n}", **options) as broken:
            assert gv.open_run(tmp_path / f"broken{n}").steps_done == n
            for batch in batches[n:]:
                step(batch)
        assert broken.run is not None
        assert whole.run is not None
        assert broken.run.commitment == whole.run.commitment
        assert gv.replay(broken.run, everything=True).verdict is gv.Verdict.VERIFIED


def test_resuming_says_what_is_missing(tmp_path: Path) -> None:
    task = TASKS["mlp"]
    first, *batches = task.batches(3)

    def compiled(rate: float) -> Any:
        model = task.build()
        return compile(model, task.loss, torch.optim.SGD(model.parameters(), lr=0.1, momentum=rate))

    def refused(step: Any, word: str, folder: str) -> None:
        with pytest.raises(gv.GensynVerifyError, match=word), gv.record(step, tmp_path / folder, resume=True):
            step(first)

    step = compiled(0.9)
    with contextlib.suppress(KeyError), gv.record(step, tmp_path / "run", interval=2):
        step(first)
        raise KeyError
    refused(compiled(0.9), "step.prepare", "run")
    other = compiled(0.8)
    other.prepare(first)
    refused(other, "run of program", "run")
    step(first)
    refused(step, "none that this run has been in", "run")
    again = compiled(0.9)
    again.prepare(first)
    with gv.record(again, tmp_path / "run", resume=True):
        assert again.steps == 1
        for batch in batches:
            again(batch)
    refused(again, "is finished", "run")

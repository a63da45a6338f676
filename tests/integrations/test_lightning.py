"""PyTorch Lightning's Trainer with EngineStrategy, beside the same Trainer without."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gensyn_verify as gv
from gensyn_verify.errors import CaptureError, NonFiniteError
from gensyn_verify.program import Dtype

pl = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")

from gensyn_verify.integrations.lightning import EngineStrategy  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


class Classifier(pl.LightningModule):  # type: ignore[misc]
    """As people write them: loss in training_step, logs, a validation metric, a scheduler a step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 24, bias=False), nn.BatchNorm1d(24), nn.Tanh(), nn.Linear(24, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_step=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Losses(pl.Callback):  # type: ignore[misc]
    """What Lightning logged, step by step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if "train_loss" in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics["train_loss"]))


def loader() -> DataLoader[Any]:
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(3))
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8)


def fit(module: Any, folder: Path, **options: Any) -> Any:
    """A Trainer that has trained `module`, with the losses it logged."""
    losses = Losses()
    resume = options.pop("resume", None)
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=[losses, *options.pop("callbacks", [])], default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, **{"max_epochs": 2, **options},
    )  # fmt: skip
    trainer.fit(module, loader(), loader(), ckpt_path=resume, **({"weights_only": False} if resume else {}))
    trainer.losses = losses.values
    return trainer


def build(kind: type[Classifier] = Classifier) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


@pytest.mark.parametrize("clip", [{}, {"gradient_clip_val": 0.3}])
def test_lightning_trains_logs_validates_and_checkpoints_as_without_the_engine(
    tmp_path: Path, clip: dict[str, Any]
) -> None:
    stock, own = build(), build()
    wanted = fit(stock, tmp_path / "stock", **clip)
    strategy = EngineStrategy(record=tmp_path / "run", interval=5)
    found = fit(own, tmp_path / "own", strategy=strategy, **clip)

    assert len(found.losses) == 16
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-4)
    assert found.losses[-1] < found.losses[0]
    assert found.callback_metrics["accuracy"] == wanted.callback_metrics["accuracy"]
    assert found.global_step == wanted.global_step == 16
    assert found.optimizers[0].param_groups[0]["lr"] == wanted.optimizers[0].param_groups[0]["lr"] == 0.02 / 16

    report = gv.replay(tmp_path / "run", everything=True)
    assert report.verdict is gv.Verdict.VERIFIED
    assert report.steps_replayed == 16
    last = gv.open_run(tmp_path / "run").checkpoint()
    saved = torch.load(found.checkpoint_callback.best_model_path, weights_only=False)
    for name, tensor in saved["state_dict"].items():
        role = "buffer" if name.endswith(("running_mean", "running_var", "num_batches_tracked")) else "param"
        np.testing.assert_array_equal(last[f"{role}.{name}"], tensor.numpy())
        torch.testing.assert_close(tensor, stock.state_dict()[name], rtol=1e-2, atol=1e-4)
    assert saved["optimizer_states"][0]["state"][0]["step"] == 16


def test_training_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    whole, part, rest = build(), build(), build()
    fit(whole, tmp_path / "a", strategy=EngineStrategy())
    half = fit(part, tmp_path / "b", strategy=EngineStrategy(), max_epochs=1)
    checkpoint = half.checkpoint_callback.best_model_path
    trainer = fit(rest, tmp_path / "c", strategy=EngineStrategy(), resume=checkpoint)
    assert trainer.global_step == 16
    for name, tensor in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], tensor), name


class WithDropout(Classifier):
    """Whose step depends on its number."""

    def __init__(self) -> None:
        super().__init__()
        self.net.append(nn.Dropout(0.2))


def test_recording_that_was_interrupted_goes_on_from_a_checkpoint_to_the_same_commitment(tmp_path: Path) -> None:
    class Stop(pl.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 11:
                raise KeyError

    def run(name: str, folder: str, **options: Any) -> gv.Run:
        strategy = EngineStrategy(
            record=tmp_path / name, seed=5, interval=3, salt=bytes(32), resume=True,
            identity=gv.Identity.unsigned("0x" + "a5" * 20),
        )  # fmt: skip
        with contextlib.suppress(KeyError):
            fit(build(WithDropout), tmp_path / folder, strategy=strategy, max_epochs=2, **options)
        return gv.open_run(tmp_path / name)

    whole = run("whole", "a")
    broken = run("broken", "b", callbacks=[Stop()])
    assert (broken.finished, broken.steps_done) == (False, 11)
    with pytest.raises(CaptureError, match="11 steps and training goes on after 0"):
        run("broken", "c")
    (checkpoint,) = (tmp_path / "b").rglob("*.ckpt")  # the end of the first epoch, step 8
    broken = run("broken", "d", resume=str(checkpoint))
    assert whole.commitment is not None
    assert broken.commitment == whole.commitment
    assert gv.replay(broken, everything=True).verdict is gv.Verdict.VERIFIED


def test_accumulated_batches_are_one_step_as_without_the_engine(tmp_path: Path) -> None:
    stock, own = build(), build()
    wanted = fit(stock, tmp_path / "a", accumulate_grad_batches=2, gradient_clip_val=0.3)
    strategy = EngineStrategy(record=tmp_path / "run", interval=3)
    found = fit(own, tmp_path / "b", strategy=strategy, accumulate_grad_batches=2, gradient_clip_val=0.3)
    assert found.global_step == wanted.global_step == 8
    assert found.optimizers[0].param_groups[0]["lr"] == wanted.optimizers[0].param_groups[0]["lr"]
    for name, tensor in own.state_dict().items():
        torch.testing.assert_close(tensor, stock.state_dict()[name], rtol=1e-3, atol=1e-5)
    means = np.array(wanted.losses).reshape(8, 2).mean(1)
    np.testing.assert_allclose(found.losses[::2], means, rtol=1e-4)
    report = gv.replay(tmp_path / "run", everything=True)
    assert (report.verdict, report.steps_replayed) == (gv.Verdict.VERIFIED, 8)


def test_a_step_of_fewer_batches_than_the_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="accumulate_grad_batches=2: a step with 1 batches"):
        fit(build(), tmp_path, strategy=EngineStrategy(), accumulate_grad_batches=2, limit_train_batches=3)


def mixed(kind: str, scale: float) -> Any:
    from pytorch_lightning.plugins.precision import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=4)
    return MixedPrecision(kind, "cpu", scaler if kind == "16-mixed" else None)


@pytest.mark.parametrize(("kind", "dtype"), [("bf16-mixed", Dtype.bf16), ("16-mixed", Dtype.f16)])
def test_mixed_precision_follows_the_library(tmp_path: Path, kind: str, dtype: Dtype) -> None:
    scale = 2.0**20  # too large at first: steps are skipped
    stock, own = build(), build()
    theirs, ours = mixed(kind, scale), mixed(kind, scale)
    wanted = fit(stock, tmp_path / "a", plugins=[theirs])
    strategy = EngineStrategy(record=tmp_path / "run")
    found = fit(own, tmp_path / "b", strategy=strategy, plugins=[ours])
    assert strategy.step is not None
    assert strategy.step.captured is not None
    assert dtype in {t.dtype for t in strategy.step.captured.program.value_types}
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=0.02)
    assert ours.state_dict() == theirs.state_dict()
    updates = int(found.optimizers[0].state_dict()["state"][0]["step"])
    assert (kind == "16-mixed") == (updates < 16) == bool(ours.state_dict())
    assert gv.replay(tmp_path / "run", everything=True).verdict is gv.Verdict.VERIFIED


OTHER_NAME = """
import sys, torch, lightning.pytorch as pl
from gensyn_verify.integrations.lightning import EngineStrategy

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 2)
    def training_step(self, batch):
        return self.net(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

options = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = pl.Trainer(strategy=EngineStrategy(record=sys.argv[1]), max_epochs=1, **options)
trainer.fit(Module(), torch.utils.data.DataLoader(torch.randn(12, 4), batch_size=4))
assert "pytorch_lightning" not in sys.modules
"""


def test_the_package_named_lightning_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    subprocess.run([sys.executable, "-W", "ignore", "-c", OTHER_NAME, str(tmp_path / "run")], check=True, cwd=tmp_path)
    report = gv.replay(tmp_path / "run", everything=True)
    assert (report.verdict, report.steps_replayed) == (gv.Verdict.VERIFIED, 3)


def test_an_error_in_the_loop_keeps_the_steps_before_it(tmp_path: Path) -> None:
    class Stopped(Classifier):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 5:
                raise KeyError

    with pytest.raises(KeyError):
        fit(build(Stopped), tmp_path, strategy=EngineStrategy(record=tmp_path / "run", interval=4))
    run = gv.open_run(tmp_path / "run")
    assert not run.finished
    assert run.steps_done == 6


def test_a_loss_that_explodes_stops_a_recorded_run(tmp_path: Path) -> None:
    class Exploding(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e38)

    with pytest.raises(NonFiniteError):
        fit(build(Exploding), tmp_path, strategy=EngineStrategy(record=tmp_path / "run"))


class Manual(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Clipping(Classifier):
    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        (Manual, {}, "manual optimization"),
        (Clipping, {}, "Clipping.configure_gradient_clipping"),
        (Classifier, {"precision": "bf16-true"}, "precision bf16-true"),
    ],
)
def test_what_the_engine_would_leave_out_is_refused(
    kind: type[Classifier], options: dict[str, Any], word: str, tmp_path: Path
) -> None:
    with pytest.raises(CaptureError, match=word):
        fit(build(kind), tmp_path, strategy=EngineStrategy(), **options)


def test_values_that_the_step_computes_no_more_are_named(tmp_path: Path) -> None:
    class Chatty(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("twice", 2 * loss)
            return loss

    with pytest.warns(UserWarning, match="not logged: twice"):
        trainer = fit(build(Chatty), tmp_path, strategy=EngineStrategy(), max_epochs=1)
    assert "twice" not in trainer.callback_metrics
    assert len(trainer.losses) == 8

"""PyTorch Lightning's Trainer with EngineStrategy, beside the same Trainer without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gensyn_verify as gv
from gensyn_verify.errors import CaptureError, NonFiniteError

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
        self.values.append(float(trainer.callback_metrics["train_loss"]))


def loader() -> DataLoader[Any]:
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(3))
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8)


def fit(module: Any, folder: Path, **options: Any) -> Any:
    """A Trainer that has trained `module`, with the losses it logged."""
    losses = Losses()
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=[losses], default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, **{"max_epochs": 2, **options},
    )  # fmt: skip
    trainer.fit(module, loader(), loader())
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
    trainer = pl.Trainer(
        accelerator="cpu", strategy=EngineStrategy(), max_epochs=2, logger=False, default_root_dir=tmp_path / "c",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(rest, loader(), loader(), ckpt_path=checkpoint, weights_only=False)
    assert trainer.global_step == 16
    for name, tensor in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], tensor), name


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
        (Classifier, {"accumulate_grad_batches": 2}, "accumulate_grad_batches=2"),
        (Classifier, {"precision": "bf16-mixed"}, "precision bf16-mixed"),
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

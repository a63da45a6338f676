"""PyTorch Lightning: one argument makes `fit` a run that anyone can check.

pip install gensyn_verify[lightning]
python examples/lightning_fit.py --steps 60
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gensyn_verify as gv
from gensyn_verify.integrations.lightning import EngineStrategy


class Digits(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()

    pl.seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    train, held_out = torch.utils.data.random_split(data, [0.8, 0.2])
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            strategy=EngineStrategy(record=Path(folder) / "run", interval=20),
            max_steps=args.steps,
            gradient_clip_val=1.0,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
        )
        trainer.fit(Digits(), DataLoader(train, 32, shuffle=True, drop_last=True), DataLoader(held_out, 60))
        print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()})
        report = gv.replay(Path(folder) / "run")
        print(report)
        assert report.verdict is gv.Verdict.VERIFIED


if __name__ == "__main__":
    main()

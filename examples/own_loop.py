"""A training loop of one's own: two changed lines make it a run that anyone can check.

    python examples/own_loop.py --steps 60

Evaluation, the learning-rate scheduler and the checkpoint see the model as if PyTorch had trained it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gensyn_verify as gv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()

    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    loader = DataLoader(TensorDataset(x[:1500], y[:1500]), batch_size=50, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)

    with tempfile.TemporaryDirectory() as folder:
        step = gv.compile(model, nn.CrossEntropyLoss(), optimizer)
        with gv.record(step, Path(folder) / "run", interval=20):
            while step.steps < args.steps:
                for batch in loader:
                    loss = step(batch)  # instead of zero_grad, forward, backward, optimizer.step
                    scheduler.step()
                    if step.steps == args.steps:
                        break
                model.eval()
                with torch.no_grad():
                    accuracy = (model(x[1500:]).argmax(1) == y[1500:]).float().mean()
                model.train()
                print(f"step {step.steps}: loss {loss:.4f}, accuracy {accuracy:.1%}")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / "checkpoint.pt")
        report = gv.replay(Path(folder) / "run")
        print(report)
        assert report.verdict is gv.Verdict.VERIFIED


if __name__ == "__main__":
    main()

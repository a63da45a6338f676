"""A recorded loop that is killed: `killed_loop.py FOLDER STEPS SEED`, by SIGKILL after that many steps; -1: never."""

from __future__ import annotations

import os
import signal
import sys

import torch
from torch import nn

import gensyn_verify as gv

SALT, SOLVER = bytes(range(32)), gv.Identity.unsigned("0x" + "a5" * 20)


def main(folder: str, stop: int, seed: int) -> None:
    """Ten steps into `folder`; the state comes from `seed` where nothing is there to resume."""
    torch.manual_seed(1)
    batches = [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(10)]
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    step = gv.compile(model, nn.CrossEntropyLoss(), optimizer, scheduler=scheduler)
    step.prepare(batches[0])
    with gv.record(step, folder, interval=4, resume=True, salt=SALT, identity=SOLVER):
        print("from", step.steps, flush=True)
        for batch in batches[step.steps :]:
            step(batch)
            if step.steps == stop:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]))

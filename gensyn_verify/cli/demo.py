"""The main job on real data: scikit-learn's handwritten digits, an MLP and a small CNN.

For each model: capture the training step, solve the task, commit, replay a sample, state the verdict; then flip one
bit of one checkpoint and show what a replay says. Exit code 0 if everything came out as it must.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console
from gensyn_verify.errors import MalformedError

if TYPE_CHECKING:
    import torch

    from gensyn_verify.protocol.report import Report
    from gensyn_verify.protocol.run import Run
    from gensyn_verify.protocol.task import Task

SUMMARY = "train, commit, replay and tamper on scikit-learn's digits"
ENOUGH = 0.95  # held-out accuracy
BATCH, INTERVAL = 64, 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", help="keep tasks and runs in this new folder (default: a temporary one)"
    )
    parser.add_argument("--model", choices=("mlp", "cnn"), help="only this model")


@dataclass(frozen=True)
class Digits:
    """1,797 images of 8 x 8 pixels in [0, 1]; every fifth is held out."""

    train: tuple[torch.Tensor, torch.Tensor]
    held_out: tuple[torch.Tensor, torch.Tensor]


def run(args: argparse.Namespace, console: Console) -> int:
    if args.out and Path(args.out).exists():
        raise MalformedError(f"{args.out} exists; the demo wants a new folder")
    with tempfile.TemporaryDirectory(prefix="gverify-demo-") as temporary:
        folder = Path(args.out or temporary)
        digits = load_digits()
        results = [
            _demonstrate(name, digits, folder / name, console) for name in ([args.model] if args.model else MODELS)
        ]
    good = all(r["good"] for r in results)
    console.result({"good": good, "models": results})
    console.say("everything came out as it must" if good else "SOMETHING DID NOT COME OUT AS IT MUST")
    if args.out:
        console.say(f"tasks and runs are in {args.out}: try gverify inspect {args.out}/{results[0]['model']}/run")
    return 0 if good else 1


def load_digits() -> Digits:
    import torch
    from sklearn.datasets import load_digits as sklearn_digits

    images, labels = sklearn_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels)
    held_out = torch.arange(len(x)) % 5 == 0
    return Digits((x[~held_out], y[~held_out]), (x[held_out], y[held_out]))


def mlp() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    from torch import nn, optim

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10))
    return model, optim.Adam(model.parameters(), lr=2e-3)


def cnn() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    from torch import nn, optim

    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return model, optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)


MODELS = {"mlp": (mlp, 400), "cnn": (cnn, 300)}


def _demonstrate(name: str, digits: Digits, folder: Path, console: Console) -> dict[str, Any]:
    """All stages for one model; what they gave."""
    import torch

    import gensyn_verify as gv

    build, steps = MODELS[name]
    torch.manual_seed(0)
    model, optimizer = build()
    stock = copy.deepcopy((model, optimizer))
    loss_fn = torch.nn.CrossEntropyLoss()
    console.say(
        f"== {name}: {type(optimizer).__name__}, {steps} steps of {BATCH} images, a checkpoint every {INTERVAL}"
    )

    started = time.perf_counter()
    task = gv.capture(
        model, loss_fn, optimizer, digits.train,
        steps=steps, batch_size=BATCH, interval=INTERVAL, path=folder / "task",
    )  # fmt: skip
    captured = time.perf_counter() - started
    console.say(f"task        {task.digest.hex()}")
    console.say(f"            {len(task.program.nodes)} nodes, captured in {captured:.1f} s")

    losses: list[float] = []
    started = time.perf_counter()
    with console.progress(f"solving {name}", steps) as advance:

        def progress(done: int, total: int, metrics: Mapping[str, Any]) -> None:
            losses.append(float(metrics["loss"]))
            advance(done, total)

        run = gv.solve(task, folder / "run", progress=progress)
    solved = time.perf_counter() - started
    accuracy = held_out_accuracy(run, model, digits)
    difference = stock_difference(task, stock, loss_fn, losses)
    assert run.commitment is not None
    console.say(f"commitment  {run.commitment.digest.hex()}")
    console.say(
        f"            loss {losses[0]:.4f} -> {losses[-1]:.4f} in {solved:.1f} s; stock PyTorch on the same batches"
    )
    console.say(f"            differs by at most {difference:.1e} of the loss over the first 100 steps")
    console.say(f"            held-out accuracy {accuracy:.2%} ({len(digits.held_out[0])} images)")

    with console.progress(f"replaying {name}", 0) as advance:
        honest = gv.replay(run, progress=advance)
    console.say(str(honest))
    console.say()
    bit, forged = tamper(run, folder / "tampered")
    console.say(f"a copy with one bit flipped: {bit}")
    caught = gv.replay(forged, task)
    console.say(f"{caught.verdict.name}: {len(caught.findings)} finding")
    for finding in caught.findings:
        console.say(f"  {finding}")
    console.say()
    return {
        "model": name,
        "task": task.digest,
        "nodes": len(task.program.nodes),
        "commitment": run.commitment.digest,
        "accuracy": accuracy,
        "stock_loss_difference": difference,
        "seconds": {"capture": captured, "solve": solved},
        "replay": honest.to_json(),
        "tampered": {"bit": bit, "replay": caught.to_json()},
        "good": accuracy >= ENOUGH and honest.exit_code == 0 and names_the_tensor(caught),
    }


def names_the_tensor(report: Report) -> bool:
    """Whether a mismatch report says which tensor of which step differs, and how."""
    return report.exit_code == 1 and any(
        f.tensor and f.step is not None and f.expected != f.found for f in report.findings
    )


def held_out_accuracy(run: Run, model: torch.nn.Module, digits: Digits) -> float:
    """Of the model that the run ends with, on images that no step has seen."""
    import torch

    state = run.checkpoint()
    model.load_state_dict({name: torch.from_numpy(state[f"param.{name}"].copy()) for name in model.state_dict()})
    x, y = digits.held_out
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def stock_difference(
    task: Task, stock: tuple[torch.nn.Module, torch.optim.Optimizer], loss_fn: torch.nn.Module, losses: list[float]
) -> float:
    """Largest relative difference of the loss from stock PyTorch on the same batches, over the first 100 steps."""
    import torch

    model, optimizer = stock
    worst = 0.0
    for step, ours in enumerate(losses[:100]):
        x, y = (torch.from_numpy(array) for array in task.batch(step).values())
        optimizer.zero_grad()
        loss = loss_fn(model(x), y.long())
        loss.backward()
        optimizer.step()
        worst = max(worst, abs(ours - loss.item()) / abs(loss.item()))
    return worst


def tamper(run: Run, folder: Path) -> tuple[str, Path]:
    """A copy of the run with one bit flipped in the largest parameter of a checkpoint: which one, and the copy."""
    shutil.copytree(run.url, folder)
    segment = run.segment(run.intervals[len(run.intervals) // 2])
    assert run.task is not None
    types = run.task.program.inputs_of("state")
    name = max((n for n in types if n.startswith("param.")), key=lambda n: types[n].nbytes)
    root = segment.steps[-1].state[name].hex()
    (file,) = (folder / "tensors").glob(f"{root}-*")
    data = bytearray(file.read_bytes())
    data[-4] ^= 1  # the lowest bit of a binary32, little endian
    file.write_bytes(data)
    return f"the last element of {name!r} after step {segment.end - 1}", folder

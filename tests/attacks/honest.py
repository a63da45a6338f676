"""How often honest solvers are rejected: thousands of honest intervals, each replayed as a verifier would.

    python -m tests.attacks.honest exact FOLDER [MODEL ...]    every instruction set solves, every other one replays
    python -m tests.attacks.honest threshold FOLDER [N]        calibrates on some variations of PyTorch, judges others
    python -m tests.attacks.honest foreign FOLDER/mlp RUN ...  runs of that task that another processor made

Prints a JSON object and keeps it in bench/results/honest.json, which docs/attacks.md quotes. FOLDER gets the tasks;
those of mode threshold, FOLDER/calibrated/MODEL, are what `tests.attacks.report --calibrated` takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gensyn_verify as gv
from examples.cnn import digits
from gensyn_verify.protocol.calibrate import CONFIDENCE, calibrate, solve_as, variations, varied
from gensyn_verify.protocol.threshold import Outcome
from tests.attacks.report import MODELS, ROOT

RESULTS = ROOT / "bench" / "results" / "honest.json"
CALIBRATED = (
    "avx2, 1 threads",
    "default, 1 threads",
)  # all other variations and all seeds from HELD_OUT on are held out
SEEDS, HELD_OUT = 4, 100
THREADS = (1, 2, 3)


def mlp(path: Path) -> gv.Task:
    """An MLP with dropout on scikit-learn's digits: 200 intervals of two steps."""
    torch.manual_seed(0)
    layers = (nn.Linear(64, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 10))
    model = nn.Sequential(nn.Flatten(), *layers)
    x, y = digits(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = x[:, :1].contiguous(), y
    return gv.capture(model, nn.CrossEntropyLoss(), optimizer, data, steps=400, batch_size=16, interval=2, path=path)


def exact(folder: Path, names: list[str]) -> dict[str, Any]:
    """Runs of every instruction set and number of threads, each replayed whole by another one; per model."""
    from gensyn_verify import _native

    isas = _native.supported_isas()
    out: dict[str, Any] = {}
    models = {"mlp": mlp} | MODELS
    for name in names or models:
        task = models[name](folder / name)
        counted: Counter[str] = Counter()
        ways = [(isa, threads) for isa in isas for threads in THREADS]
        for (isa, threads), (other, more) in zip(ways, ways[len(THREADS) + 1 :] + ways, strict=False):
            run = folder / f"{name}-{isa}-{threads}"
            _gverify("solve", str(folder / name), "--out", str(run), "--isa", isa, "--threads", str(threads))
            report = _replay(run, folder / name, "--all", "--isa", other, "--threads", str(more))
            counted["intervals"] += len(report["replayed"])
            counted["rejected"] += len(report["findings"])
        out[name] = {**counted, "solved": [f"{isa}, {n} threads" for isa, n in ways], "steps": task.steps}
    return out


def foreign(folder: Path, runs: list[str]) -> dict[str, Any]:
    """Runs that lie in FOLDER's task `task`, replayed whole here."""
    counted: Counter[str] = Counter()
    for run in runs:
        report = gv.replay(run, folder, everything=True)
        counted["intervals"] += len(report.replayed)
        counted["rejected"] += len(report.findings)
    return dict(counted)


def threshold(folder: Path, wanted: int) -> dict[str, Any]:
    """Calibrate on CALIBRATED, then judge at least `wanted` intervals of other variations and seeds; per model."""
    ways = {way.name: way for way in variations()}
    known = [way for name, way in ways.items() if name in CALIBRATED]
    others = [way for name, way in ways.items() if name not in CALIBRATED]
    out: dict[str, Any] = {}
    for name, make in MODELS.items():
        plain, path = make(folder / name), folder / "calibrated" / name
        task, found = calibrate(
            plain, path, ways=known, seeds=SEEDS, intervals=20, samples=plain.policy.samples, largest=0
        )
        print(found, flush=True)
        intervals: Counter[str] = Counter()
        runs: Counter[str] = Counter()
        for number, way in enumerate(cycle(others), HELD_OUT):
            if intervals.total() >= wanted:
                break
            with tempfile.TemporaryDirectory() as temporary:
                seeded = varied(task, Path(temporary) / "task", task.steps, 0, number, task.policy)
                run = solve_as(seeded.store.folder.url, way, Path(temporary) / "run")
                report = gv.replay(run, seeded, everything=True)
            assert seeded.policy.thresholds is not None
            intervals.update(d.outcome(seeded.policy.thresholds).name for d in report.deviations)
            runs[report.verdict.name] += 1
            if report.verdict is not gv.Verdict.ACCEPT:
                print(f"{way.name}, seed {number}: {str(report).splitlines()[0]}", flush=True)
        n, rejected = intervals.total(), intervals[Outcome.REJECT.name]
        out[name] = {
            "calibrated on": [way.name for way in known],
            "calibration": str(found),
            "held out": [way.name for way in others],
            "intervals": dict(intervals),
            "runs": dict(runs),
            "rate below": 1.0 - (1.0 - CONFIDENCE) ** (1.0 / n) if not rejected else None,
        }
    return out


def _gverify(*arguments: str) -> str:
    command = [sys.executable, "-m", "gensyn_verify.cli", *arguments, "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _replay(run: Path, task: Path, *options: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(_gverify("replay", str(run), "--task", str(task), "--json", *options))
    return report


def main(mode: str, folder: str, *rest: str) -> None:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if mode == "exact":
        found = exact(path, list(rest))
    elif mode == "threshold":
        found = threshold(path, int(rest[0]) if rest else 500)
    else:
        found = foreign(path, list(rest))
    print(json.dumps(found, indent=1))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results | {mode: found}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Every attack against every verification rule: bench/results/attacks.json, and docs/attacks.md made from it.

    python -m tests.attacks.report                                   both models, everything, a process each
    python -m tests.attacks.report --model gpt --kind drift splice   some; the rest of the JSON stays as it is
    python -m tests.attacks.report --calibrated FOLDER               also threshold mode: FOLDER/<model> are the tasks
                                                                     that `gverify calibrate` made of --tasks FOLDER
    python -m tests.attacks.report --tasks FOLDER                    only write the tasks to FOLDER/<model>
    python -m tests.attacks.report --page                            only make the page again

A verification rule is a function of a forgery. Forgers use the backend of the solvers that a rule is for: the
reproducible one in exact mode and for Jia et al., stock PyTorch kernels in threshold mode.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import gensyn_verify as gv
from examples.cnn import ResNet20, digits
from examples.gpt import GPT, loss_fn, windows
from gensyn_verify.attacks import KINDS, Forgery, Solver, forge, jia
from gensyn_verify.protocol.policy import Thresholds
from gensyn_verify.protocol.report import Report
from gensyn_verify.protocol.sampling import draw, probability_caught
from gensyn_verify.protocol.threshold import Outcome, budget
from tests.attacks.page import page

ROOT = Path(__file__).resolve().parent.parent.parent
HONEST = ROOT / "bench" / "results" / "honest.json"
RESULTS, PAGE = ROOT / "bench" / "results" / "attacks.json", ROOT / "docs" / "attacks.md"
SAMPLES = 4
Rows = dict[str, Any]


def resnet20(path: Path) -> gv.Task:
    """ResNet-20 on scikit-learn's digits at 16x16, SGD with Nesterov momentum; a checkpoint at every step, because
    rounding grows a thousandfold within five of its first steps."""
    torch.manual_seed(0)
    model = ResNet20()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4, nesterov=True)
    return _capture(model, nn.CrossEntropyLoss(), optimizer, digits(16), path, steps=40, interval=1)


def gpt(path: Path) -> gv.Task:
    """A GPT of four layers on bytes of text, AdamW."""
    torch.manual_seed(0)
    model = GPT(words=128, context=32, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    return _capture(model, loss_fn, optimizer, windows(32), path, steps=60, interval=5)


def _capture(
    model: nn.Module,
    loss: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    data: Any,
    path: Path,
    steps: int,
    interval: int,
) -> gv.Task:
    return gv.capture(
        model, loss, optimizer, data, steps=steps, batch_size=16, interval=interval, path=path,
        policy=gv.Policy(samples=SAMPLES, largest=0),
    )  # fmt: skip


MODELS: dict[str, Callable[[Path], gv.Task]] = {"resnet20": resnet20, "gpt": gpt}


# ---- rules ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What a rule says of a run.

    outcome  accepted, rejected or undecided
    detail   what decided
    cost     steps replayed over those of the task
    caught   probability with which the rule's own draw of intervals rejects, where it draws
    """

    outcome: str
    detail: str
    cost: float
    caught: float | None = None

    def __bool__(self) -> bool:
        return self.outcome == "accepted"


Rule = Callable[[Forgery], Judgement]


@dataclass(frozen=True)
class Bench:
    """A task, the backend that its solvers use, an honest run to steal from, and the rules that verify its runs."""

    task: gv.Task
    backend: str
    victim: gv.Run
    rules: dict[str, Rule]


def replayed(task: gv.Task, mode: str) -> dict[str, Rule]:
    """The task's own policy, exact or threshold, on every interval and at the sampled rate, from one replay of all."""

    @cache
    def verified(url: str, published: bytes | None, beacon: bytes) -> Report:
        return gv.replay(url, task, everything=True, commitment=published, beacon=beacon)

    def judge(forgery: Forgery, everything: bool) -> Judgement:
        report = verified(forgery.run.url, forgery.published, forgery.beacon or b"later")
        outcome = {"VERIFIED": "accepted", "ACCEPT": "accepted", "UNDECIDED": "undecided"}
        full = Judgement(
            outcome.get(report.verdict.name, "rejected"), _decider(report), report.steps_replayed / task.steps
        )
        return full if everything else _sampled(task, report, full, forgery.beacon)

    return {
        f"{mode}, every interval": lambda forgery: judge(forgery, True),
        f"{mode}, sampled": lambda forgery: judge(forgery, False),
    }


def _decider(report: Report) -> str:
    """The first finding, in a few words; else the statistic that decided."""
    if not report.findings:
        return str(report).splitlines()[0].partition(": ")[2]
    first = report.findings[0]
    where = "" if first.step is None else f" at step {first.step}"
    what = ".".join(first.tensor.split(".")[:2])  # optim.exp_avg, buffer.cos
    return f"{first.kind}{where}{', ' if what else ''}{what}"


def _sampled(task: gv.Task, report: Report, full: Judgement, known: bytes | None) -> Judgement:
    """What a draw of the policy's samples is worth against what a full replay found of each interval."""
    share = task.policy.samples * task.interval / task.steps * report.steps_replayed / max(1, report.steps)
    bad = {f.interval for f in report.findings if f.interval is not None}
    everywhere = {"moment", "scalar"} if report.mode == "threshold" else set()  # looked at without a replay
    if any(f.interval is None or f.kind in everywhere for f in report.findings):  # commitment, address: the same
        return Judgement(full.outcome, full.detail, share, 1.0)
    if report.thresholds is not None:
        bad |= {d.interval for d in report.deviations if d.outcome(report.thresholds) is Outcome.REJECT}
    caught = float(probability_caught(report.intervals, task.policy.samples, len(bad)))
    detail = f"{len(bad)} of {report.intervals} intervals"
    if report.thresholds is not None:
        excess = {d.interval: d.worst("l2")[0] for d in report.deviations if not d.blind(report.thresholds)}
        budgeted = over_budget(report.intervals, task.policy.samples, bad, excess, report.thresholds)
        detail += ", and the budget" if budgeted > caught + 1e-9 else ""
        caught = max(caught, budgeted)
    if known is not None:
        met = bad & set(draw(known, bytes.fromhex(report.commitment), report.intervals, task.policy.samples))
        detail += f"; under the beacon it knew {len(met)} drawn"
    return Judgement(full.outcome, detail, share, caught)


def over_budget(intervals: int, samples: int, bad: set[int], excess: Mapping[int, float], t: Thresholds) -> float:
    """The share of all draws that meet one of `bad`, or whose mean excess is above the budget of as many intervals.

    `excess` is that of intervals whose replay can tell.
    """
    drawn = np.array(list(combinations(range(intervals), samples)))
    found = np.array([excess.get(i, np.nan) for i in range(intervals)])[drawn]
    seen = (~np.isnan(found)).sum(1)
    mean = np.nansum(found, 1) / np.maximum(seen, 1)
    most = np.array([np.inf, np.inf, *(budget(t, n) for n in range(2, samples + 1))])[seen]
    return float((np.isin(drawn, list(bad)).any(1) | (mean > most)).mean())


def jia_2021(task: gv.Task, rule: jia.Rule) -> Rule:
    def judge(forgery: Forgery) -> Judgement:
        found = rule.verify(forgery.run, task, forgery.claims, forgery.initial)
        worst = max(found.distances.values(), default=0.0)
        detail = found.reason or f"distance {worst:.2g} of {rule.delta:.2g}"
        return Judgement("accepted" if found.accepted else "rejected", detail, found.steps_replayed / task.steps)

    return judge


def benches(name: str, folder: Path, calibrated: Path | None, exact: bool) -> Iterator[Bench]:
    """The tasks of a model with their rules. A rule of another kind is one entry more."""
    if exact:
        task = MODELS[name](folder / "task")
        victim = gv.solve(task, folder / "victim")
        rule = jia.calibrate(task, [victim, gv.solve(task, folder / "vendor", backend="vendor")])
        yield Bench(task, "cpu", victim, replayed(task, "exact") | {"Jia et al. 2021": jia_2021(task, rule)})
    if calibrated is not None:
        task = gv.open_task(calibrated / name)
        victim = gv.solve(task, folder / "victim-vendor", backend="vendor")
        yield Bench(task, "vendor", victim, replayed(task, "threshold"))


# ---- measuring --------------------------------------------------------------------------------------------------


def measure(
    name: str, kinds: list[str], calibrated: Path | None, seeds: int, exact: bool, rows: Rows
) -> Iterator[Rows]:
    """Verdicts on one model, by attack, into `rows`; honest solvers as `honest`. All rows, after every forgery."""
    fresh: set[tuple[str, str, str]] = set()
    with tempfile.TemporaryDirectory() as temporary:
        for bench in benches(name, Path(temporary), calibrated, exact):
            task = bench.task
            extent = {"steps": task.steps, "interval": task.interval, "intervals": task.intervals}
            for kind, disguise, forgery in _subjects(bench, kinds, Path(temporary) / bench.backend, seeds):
                row = rows.setdefault(kind, {}).setdefault(disguise, {"cost": {}, "forged": {}, "verdicts": {}})
                if isinstance(forgery, str):
                    row["refused"] = forgery
                    continue
                row["cost"][bench.backend] = forgery.cost
                row["forged"][bench.backend] = len(forgery.steps_forged)
                for rule, judge in bench.rules.items():
                    if (kind, disguise, rule) not in fresh:
                        fresh.add((kind, disguise, rule))
                        row["verdicts"][rule] = []
                    row["verdicts"][rule].append(judge(forgery).__dict__)
                shutil.rmtree(forgery.run.url)
                yield {**extent, "samples": task.policy.samples, "about": MODELS[name].__doc__, "rows": rows}


def _subjects(bench: Bench, kinds: list[str], folder: Path, seeds: int) -> Iterator[tuple[str, str, Forgery | str]]:
    """(kind, how, forgery or why there is none): honest solvers first."""
    for seed in range(seeds):
        honest = Solver("honest", bench.task, None, seed, bench.backend, None)
        yield "honest", "disguised", honest.forge(folder / f"honest-{seed}", True)
    for kind in kinds:
        for how in ("open", "disguised"):
            start = time.perf_counter()
            forgery: Forgery | str
            try:
                forgery = forge(
                    kind, bench.task, folder / f"{kind}-{how}", victim=bench.victim, seed=1, backend=bench.backend,
                    disguise=how == "disguised",
                )  # fmt: skip
            except gv.GensynVerifyError as error:
                forgery = str(error)
            print(f"{kind}, {how}: {time.perf_counter() - start:.1f} s", flush=True)
            yield kind, how, forgery


def _results() -> Rows:
    results: Rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def _keep(name: str, found: Rows) -> None:
    """Write what is known of one model; another process may do the same for another."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    folder, partial = os.open(RESULTS.parent, os.O_RDONLY), RESULTS.with_suffix(".part")
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        partial.write_text(json.dumps(_results() | {name: found}, indent=1, sort_keys=True) + "\n")
        partial.replace(RESULTS)
    finally:
        os.close(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--kind", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--calibrated", type=Path, metavar="FOLDER", help="tasks with threshold policies")
    parser.add_argument("--threshold-only", action="store_true", help="leave the other columns as they are")
    parser.add_argument("--tasks", type=Path, metavar="FOLDER", help="write the tasks there, and nothing else")
    parser.add_argument("--honest", type=int, default=2, metavar="N", help="honest solvers a model")
    parser.add_argument("--page", action="store_true", help="only make the page from the results that are there")
    args = parser.parse_args()
    if args.tasks:
        for name in args.model:
            MODELS[name](args.tasks / name)
        return
    if not args.page and len(args.model) > 1:  # a process each
        rest = sys.argv[1:]
        each = [[sys.executable, "-m", "tests.attacks.report", *rest, "--model", name] for name in args.model]
        threads = str(max(1, (os.cpu_count() or 1) // len(each)))  # more than processors, and all wait for each other
        shared = {"OMP_NUM_THREADS": threads, "GENSYN_VERIFY_THREADS": threads}
        processes = [subprocess.Popen(command, env=os.environ | shared) for command in each]
        statuses = [process.wait() for process in processes]
        if any(statuses):
            sys.exit("not all was measured")
    elif not args.page:
        (name,) = args.model
        kept = _results().get(name, {}).get("rows", {})
        for found in measure(name, args.kind, args.calibrated, args.honest, not args.threshold_only, kept):
            _keep(name, found | {"rows": dict(sorted(found["rows"].items()))})
    honest = json.loads(HONEST.read_text()) if HONEST.exists() else {}
    PAGE.write_text(page(_results(), honest))
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

"""Forge a run of a task, as one of the published or known attacks does, to see what a verification policy makes of it.

RUN is an honest, finished run of the task: the victim that thieves steal from. What comes out is a run bundle like any
other; `gverify replay FORGED --task TASK` verifies it. `--list` shows the kinds.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console
from gensyn_verify.errors import MalformedError

if TYPE_CHECKING:
    from gensyn_verify.attacks import Forgery

SUMMARY = "forge a run, to try a verification policy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_path", metavar="RUN", nargs="?", help="folder or URL of an honest run, to steal from")
    parser.add_argument("--list", action="store_true", help="show the kinds of attacks, one line each")
    parser.add_argument("--task", metavar="TASK", help="folder or URL of the task")
    parser.add_argument("--kind", metavar="KIND", help="which attack")
    parser.add_argument("--out", metavar="FORGED", help="folder for the forged run")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what the forger draws (default: 0)")
    parser.add_argument(
        "--no-disguise",
        action="store_true",
        help="log the batches and learning rates that were used, not those that the task names",
    )
    parser.add_argument(
        "--strength", type=float, metavar="X", help="of drift (default 0.001) and gaussian-edits (default 1)"
    )
    parser.add_argument("--backend", default="cpu", metavar="NAME", help="cpu, reference or vendor (default: cpu)")


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify.attacks import KINDS, forge

    if args.list:
        console.table([(name, attack.summary) for name, attack in KINDS.items()], indent="")
        console.result({"kinds": {name: attack.summary for name, attack in KINDS.items()}})
        return 0
    for option, value in (("RUN", args.run_path), *((f"--{n}", getattr(args, n)) for n in ("task", "kind", "out"))):
        if value is None:
            raise MalformedError(f"{option} is missing; `gverify attack --list` shows the kinds")
    from gensyn_verify import api

    task = api.open_task(args.task)
    forgery = forge(
        args.kind, task, args.out, victim=api.open_run(args.run_path, task), seed=args.seed, backend=args.backend,
        disguise=not args.no_disguise, strength=args.strength,
    )  # fmt: skip
    rows = describe(forgery, args.kind)
    console.table(
        [(name, value.hex() if isinstance(value, bytes) else value) for name, value in rows.items()], indent=""
    )
    command = f"gverify replay {args.out} --task {args.task}"
    if forgery.published is not None:
        command += f" --commitment {forgery.published.hex()}"
    if forgery.beacon is not None:
        command += f" --beacon {forgery.beacon.hex()}"
    console.say(f"next: {command}")
    console.result({**rows, "steps": list(forgery.steps_forged), "next": command})
    return 0


def describe(forgery: Forgery, kind: str) -> dict[str, Any]:
    """What was forged and at which price."""
    commitment = forgery.run.commitment
    rows: dict[str, Any] = {
        "attack": kind,
        "run": forgery.run.url,
        "commitment": commitment.digest if commitment else b"",
        "forged": f"{len(forgery.steps_forged)} of {commitment.steps if commitment else 0} steps",
        "cost": f"{forgery.cost:.4g} of the training",
    }
    if forgery.published is not None:
        rows["published before"] = forgery.published
    if forgery.beacon is not None:
        rows["beacon known before"] = forgery.beacon
    return rows

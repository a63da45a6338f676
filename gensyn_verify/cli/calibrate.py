"""Derive the thresholds of a task from honest replays: instruction sets, threads, initial parameters and orders of
batches are varied, and every interval is measured as a verification would. Writes a copy of the task in mode
threshold; who repeats the command with the same arguments on like machines finds like thresholds.

Of a recorded run, an honest pilot, instruction sets and threads are varied over its own batches, and OUT is a file
with the policy: for `gverify replay --policy`, or for recordings like it.
"""

from __future__ import annotations

import argparse
from typing import Any

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.solve import backend

SUMMARY = "derive a task's distance thresholds from honest replays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from gensyn_verify.cli.replay import count

    parser.add_argument("task", metavar="TASK", help="folder or URL of a task, or of a recorded run")
    parser.add_argument("--out", required=True, metavar="OUT", help="the copy in mode threshold; of a run, a file")
    parser.add_argument(
        "--trust-code", metavar="FILE.py:FUNCTION", help="of a recorded run of code: execute this file of yours"
    )
    parser.add_argument(
        "--backend", type=backend, default="vendor", metavar="NAME", help="what solvers may run on (default: vendor)"
    )
    parser.add_argument(
        "--python", action="append", default=[], metavar="FILE",
        help="another Python with this package and another PyTorch: one more variation (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--intervals", type=count, default=12, metavar="N", help="of every run (default: %(default)s)")
    parser.add_argument("--seeds", type=count, default=2, metavar="N", help="runs of every variation (default: 2)")
    parser.add_argument(
        "--rate", type=float, default=1e-4, metavar="P", help="of rejecting an honest interval (default: %(default)s)"
    )
    parser.add_argument("--probes", type=count, default=3, metavar="N", help="of an interval (default: %(default)s)")
    parser.add_argument(
        "--noise", type=count, metavar="N", help="probes multiply state by 1 +- 2^-N (default: found, 19 for fp32)"
    )
    parser.add_argument("--samples", type=count, metavar="K", help="policy: intervals a verifier draws")
    parser.add_argument("--largest", type=count, metavar="K", help="policy: intervals of the largest updates to add")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of probes and variations (default: 0)")


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify import api
    from gensyn_verify.cli.solve import is_run
    from gensyn_verify.protocol.calibrate import calibrate, calibrate_run, variations
    from gensyn_verify.protocol.policy import write_policy

    ways = variations(args.backend, args.python)
    names = ("rate", "probes", "noise", "samples", "largest", "seed")
    options: dict[str, Any] = {name: getattr(args, name) for name in names} | {"ways": ways}
    if is_run(args.task):
        pilot = api.open_run(args.task)
        if args.trust_code and pilot.task is not None:
            options |= {"trust_code": args.trust_code, "backend": api.trusted(args.trust_code, pilot.task)}
        with console.progress("calibrating", len(ways), unit="run") as advance:
            policy, found = calibrate_run(pilot, progress=advance, **options)
        write_policy(policy, args.out)
        digest = b""
    else:
        with console.progress("calibrating", len(ways) * args.seeds, unit="run") as advance:
            task, found = calibrate(
                args.task, args.out, seeds=args.seeds, intervals=args.intervals, progress=advance, **options
            )
        policy, digest = task.policy, task.digest
    console.say(str(found))
    console.say(f"  written to  {args.out}" + (f", task {digest.hex()}" if digest else ""))
    console.result({**found.to_json(), "task": digest, "policy": policy.to_value()})
    return 0

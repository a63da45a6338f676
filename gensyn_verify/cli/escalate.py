"""Take a disputed interval of a run in mode threshold to bits: write the exact task of that interval, re-execute it on
reproducible kernels, and state the last word on its closing checkpoint. With the other side's re-execution of the same
task, pinpoint which operation the two differ in.

Exit codes: 0 the checkpoint is accepted, 1 it is rejected or the re-executions differ, 2 malformed input, 3 undecided.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.replay import count, hex_bytes
from gensyn_verify.cli.solve import add_machine_arguments, apply_machine_arguments, backend

SUMMARY = "re-execute a disputed interval exactly"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_path", metavar="RUN", help="folder or URL of the disputed run")
    parser.add_argument("--task", metavar="TASK", help="folder or URL of the task; recorded runs carry their own")
    parser.add_argument("--interval", type=count, required=True, metavar="N", help="the disputed interval")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="gets the exact task and this side's run of it")
    parser.add_argument("--against", metavar="RUN", help="the other side's run of the exact task: pinpoint the two")
    parser.add_argument(
        "--audit",
        type=backend,
        metavar="BACKEND",
        help="also run it on a vendor backend, each operator within its bound",
    )
    parser.add_argument("--beacon", type=hex_bytes, default=b"", metavar="HEX", help="that of the verification")
    add_machine_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    apply_machine_arguments(args)
    from gensyn_verify import api
    from gensyn_verify.protocol.threshold import Outcome

    found = api.escalate(
        args.run_path, args.interval, args.out, args.task, beacon=args.beacon, backend=args.backend, audit=args.audit
    )
    console.say(str(found))
    result: dict[str, Any] = {
        "outcome": found.outcome.name,
        "task": found.task.digest,
        "statistics": found.deviation.statistics(found.thresholds),
        "audit": found.audit,
    }
    code = {Outcome.ACCEPT: 0, Outcome.REJECT: 1, Outcome.UNDECIDED: 3}[found.outcome]
    if args.against:
        descent = api.pinpoint(args.against, found.run, os.path.join(args.out, "task"), backend=args.backend)
        console.say(str(descent))
        result["pinpoint"] = descent.to_json()
        code = descent.exit_code or code
    console.result(result)
    return code

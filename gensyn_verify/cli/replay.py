"""Replay parts of a run, compare bit for bit with what was committed, state a verdict.

Without --all, intervals are drawn from the beacon (public randomness that nobody knew when the run was committed)
together with the intervals of the largest updates; the report says how probably a forgery would have been met.

A run whose step is code (gensyn_verify.record_loop) is replayed by your own copy of that code and by nothing else:
--trust-code train.py:build executes train.py as it lies here, provided that its BLAKE3 digest is the one that the run
states, and calls build(), which returns (model, optimizer, step). Read the file before you trust it; without the option
nothing is executed and the verdict stays open.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext, redirect_stdout
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.solve import add_machine_arguments, apply_machine_arguments
from gensyn_verify.errors import MalformedError

if TYPE_CHECKING:
    from gensyn_verify.protocol.report import Report

SUMMARY = "verify a run by replaying parts of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_path", metavar="RUN", help="folder or URL of the run")
    parser.add_argument("--task", metavar="TASK", help="folder or URL of the task; recorded runs carry their own")
    group = parser.add_argument_group("what to check")
    amount = group.add_mutually_exclusive_group()
    amount.add_argument("--all", action="store_true", help="replay every interval")
    amount.add_argument("--samples", type=count, metavar="K", help="intervals to draw (default: the task's policy)")
    group.add_argument(
        "--largest",
        type=count,
        metavar="K",
        help="intervals of the largest updates to add (default: the task's policy)",
    )
    group.add_argument(
        "--beacon",
        type=hex_bytes,
        metavar="HEX",
        help="public randomness fixed after the commitment (default: drawn here)",
    )
    group.add_argument(
        "--commitment", type=hex_bytes, metavar="HEX", help="what the solver published: the run must be that one"
    )
    group.add_argument("--solver", type=hex_bytes, metavar="ADDRESS", help="who must have solved it")
    group.add_argument(
        "--share", type=share, metavar="X", action="append", default=[],
        help="also state the probability of having caught a forgery of this share of the steps (may be repeated)",
    )  # fmt: skip
    group.add_argument(
        "--trust-code", metavar="FILE.py:FUNCTION", help="execute this file of yours, the code that the run was made by"
    )
    group.add_argument("--policy", metavar="FILE", help="verify by this policy of yours instead of the task's")
    group.add_argument("--plot", metavar="FILE", help="mode threshold: draw distances over the run, as SVG")
    add_machine_arguments(parser)


def count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def hex_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not hex") from None


def share(text: str) -> Fraction:
    """A share as 0.05, 5% or 1/20."""
    try:
        value = Fraction(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def run(args: argparse.Namespace, console: Console) -> int:
    apply_machine_arguments(args)
    from gensyn_verify import api
    from gensyn_verify.protocol import plot
    from gensyn_verify.protocol.policy import read_policy

    how: dict[str, Any] = {"trust_code": args.trust_code} if args.trust_code else {"backend": args.backend}
    if args.policy:
        how["policy"] = read_policy(args.policy)
    if args.trust_code is not None and args.backend != "cpu":
        raise MalformedError(f"--trust-code is what replays: leave out --backend {args.backend}")
    prints = redirect_stdout(sys.stderr) if args.trust_code else nullcontext()  # stdout is for results
    with prints, console.progress("replaying", 0) as advance:
        report = api.replay(
            args.run_path,
            args.task,
            samples=args.samples,
            largest=args.largest,
            everything=args.all,
            beacon=args.beacon,
            commitment=args.commitment,
            solver=args.solver,
            **how,
            progress=advance,
        )
    if args.plot:
        with open(args.plot, "w", encoding="utf-8") as file:
            file.write(plot.draw(report))
    return show(report, args.share, console)


def show(report: Report, shares: list[Fraction], console: Console) -> int:
    """Print a report; its exit code."""
    asked = [(x, *caught(report, x)) for x in shares]
    console.say(str(report))
    for x, intervals, probability in asked:
        console.say(
            f"  forging {float(x):.4g} of the steps ({intervals} intervals): caught with {float(probability):.6g}"
        )
    console.result(
        {
            **report.to_json(),
            "asked": [{"share": float(x), "intervals": n, "probability": float(p)} for x, n, p in asked],
        }
    )
    return report.exit_code


def caught(report: Report, share: Fraction) -> tuple[int, Fraction]:
    """(intervals that hold this share of the steps, probability that the draw met one of them)."""
    from gensyn_verify.protocol.sampling import probability_caught

    intervals = ceil(ceil(share * report.steps) / Fraction(report.interval))
    drawn = len(set(report.sampled) & set(report.replayed))
    return intervals, probability_caught(report.intervals, drawn, intervals)

"""Find where two runs of one task part: the step, the node with the line of PyTorch it came from, the element of its
output, and the one operation of that element, with the values of both. A referee, the one of the contract, says which
run is wrong there.

Exit codes: 0 the runs agree, 1 they differ, 2 malformed input.
"""

from __future__ import annotations

import argparse

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.solve import add_machine_arguments, apply_machine_arguments

SUMMARY = "bisect two runs that differ down to one operation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_a", metavar="RUN_A", help="folder or URL of a run; in the dispute, the solver's")
    parser.add_argument("run_b", metavar="RUN_B", help="folder or URL of the run to compare: the challenger's")
    parser.add_argument("--task", metavar="TASK", help="folder or URL of the task; recorded runs carry their own")
    parser.add_argument("--svg", metavar="FILE", help="also draw the descent into this file")
    add_machine_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    apply_machine_arguments(args)
    from gensyn_verify import api

    found = api.pinpoint(args.run_a, args.run_b, args.task, backend=args.backend)
    if args.svg:
        with open(args.svg, "w", encoding="utf-8") as file:
            file.write(found.svg())
    console.say(str(found))
    console.result(found.to_json())
    return found.exit_code

"""Post a task on a settlement contract, with reward, fees and bounties in escrow.

The defaults keep the floors of docs/incentives.md for tasks of their size; the contract refuses terms below its own.
"""

from __future__ import annotations

import argparse

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.onchain import add_chain_arguments, connected, ether

SUMMARY = "post a task on a settlement contract"
AMOUNTS = {"reward": "1", "stake": "6", "fee": "0.015", "bounty": "0.1", "bond": "0.3"}
TIMES = {"clock": 172800, "solve_time": 604800, "attest_time": 86400, "disclose_time": 86400, "challenge_time": 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="folder or URL of the task")
    group = parser.add_argument_group("terms (docs/settlement.md)")
    for name, default in AMOUNTS.items():
        group.add_argument(f"--{name}", type=ether, default=ether(default), metavar="ETHER", help=f"default: {default}")
    for name, seconds in TIMES.items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, type=int, default=seconds, metavar="SECONDS", help=f"default: {seconds}")
    group.add_argument("--seats", type=int, default=5, metavar="N", help="verifiers on the committee (default: 5)")
    group.add_argument("--again", type=int, default=0, metavar="N", help="post the same task once more, as copy N")
    add_chain_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify import api
    from gensyn_verify.settle.roles import post_arguments, submit
    from gensyn_verify.settle.settlement import Terms

    task = api.open_task(args.task)
    terms = Terms(**{n: getattr(args, n) for n in (*AMOUNTS, *TIMES, "seats")})
    with connected(args, console) as c:
        if args.dry_run:
            c.send("post", "post", *post_arguments(task, terms), pays=terms.escrow)
            return 0
        number = submit(c.settlement, c.wallet, task, terms, args.again)
    console.say(f"task {number} of {args.contract}")
    console.result({"task": number, "digest": task.digest, "contract": args.contract, "escrow": str(terms.escrow)})
    return 0

"""Verify the run that a solver has shown, as a member of its committee: enroll, seal what was found, later declare it.

Run it once when the run is shown, and again when the solver has disclosed; it does what is due. With --own everything
is trained again (and kept there), else a sample that the chain has drawn is replayed.
"""

from __future__ import annotations

import argparse

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.onchain import add_chain_arguments, connected

SUMMARY = "check a shown run as a verifier of its committee"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", type=int, nargs="?", metavar="N", help="the task's number in the contract")
    parser.add_argument("--enroll", action="store_true", help="put down the stake of one more seat, and nothing else")
    parser.add_argument("--task", metavar="TASK", help="folder or URL of the task")
    parser.add_argument("--run", dest="run_path", metavar="RUN", help="folder or URL of the shown run")
    parser.add_argument("--own", metavar="RUN", help="train everything again, into this folder")
    add_chain_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify import api
    from gensyn_verify.errors import MalformedError
    from gensyn_verify.settle.roles import Verifier
    from gensyn_verify.settle.settlement import Stand, State

    with connected(args, console) as c:
        if args.enroll:
            mine = sum(s["owner"] == c.wallet.address for s in c.settlement.ask("seats"))
            c.send(f"enroll {mine}", "enroll", pays=c.settlement.rules.seat)
            console.result({"enrolled": not args.dry_run})
            return 0
        if args.number is None or args.task is None or not (args.run_path or args.own):
            raise MalformedError("give the task's number, --task, and --run or --own (or only --enroll)")
        verifier = Verifier(c.settlement, c.wallet, args.number, api.open_task(args.task))
        state = State(verifier.onchain()["state"])
        places = verifier.places()
        if not places:
            raise MalformedError(f"{c.wallet.address} has no seat on the committee of task {args.number}")
        if state not in (State.SHOWN, State.DISCLOSED):
            raise MalformedError(f"task {args.number} is {state.name.lower()}: there is nothing to attest or declare")
        if state is State.SHOWN:
            verifier.check_provable()
        finding = verifier.check(args.run_path, args.own)
        console.say("the run is what was shown" if finding.approves else "the run is NOT what was shown")
        wanted = Stand.ABSENT if state is State.SHOWN else Stand.SEALED
        due = [p for p in places if c.settlement.juror(args.number, p)["stand"] == wanted]
        for place in due:
            if args.dry_run:
                console.say(f"would {'attest' if state is State.SHOWN else 'declare'} at place {place}")
            elif state is State.SHOWN:
                verifier.attest(place, finding.root)
            else:
                verifier.declare(place, finding.root)
    said = "attested" if state is State.SHOWN else "declared"
    console.result({"task": args.number, "approves": finding.approves, "root": finding.root, said: due})
    return 0 if finding.approves else 1

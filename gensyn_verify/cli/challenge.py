"""Challenge a disclosed run: open a game if there is none of this key, and make the moves that are due.

--own is the challenger's own run of the task. Run it again for later moves, or with --wait until the game is over.
"""

from __future__ import annotations

import argparse

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.onchain import add_chain_arguments, connected

SUMMARY = "dispute a disclosed run, down to one operation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", type=int, metavar="N", help="the task's number in the contract")
    parser.add_argument("--task", required=True, metavar="TASK", help="folder or URL of the task")
    parser.add_argument("--own", required=True, metavar="RUN", help="the challenger's own run")
    parser.add_argument(
        "--step", type=int, metavar="S", help="the first step that differs (default: the game finds it)"
    )
    parser.add_argument("--wait", action="store_true", help="go on until the game is over")
    add_chain_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify import api
    from gensyn_verify.protocol.pinpoint import players
    from gensyn_verify.protocol.pinpoint.side import Side
    from gensyn_verify.settle.roles import Challenger, play

    task = api.open_task(args.task)
    with connected(args, console) as c:
        role = Challenger(c.settlement, c.wallet, args.number, task)
        if args.dry_run:
            name, more = ("challenge", ()) if args.step is None else ("challengeStep", (args.step,))
            c.send("challenge", name, args.number, *more, pays=role.onchain()["bond"])
            return 0
        number = role.challenge(args.step)
        console.say(f"game {number}")
        player = players.Challenger(Side(api.open_run(args.own, task)))
        while True:
            while play(c.settlement, c.wallet, number, player):
                console.say(f"moved in {c.settlement.game(number).moves[-1][0].stage.name}")
            game = c.settlement.game(number)
            if game.over or not args.wait:
                break
            c.settlement.chain.wait()
        ended = [e for e in c.settlement.events("Ended") if e.values["game"] == number]
    won = None if not ended else not ended[-1].values["solverWins"]
    console.say({None: "the game goes on", True: "won", False: "lost"}[won])
    console.result({"game": number, "over": game.over, "won": won})
    return 0

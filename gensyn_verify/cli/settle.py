"""Do what is due in a task: anyone may settle, expire and time out; its solver also discloses and plays games.

Run it from time to time until the task is closed; then it takes out what the key is owed.
"""

from __future__ import annotations

import argparse

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.onchain import WEI, add_chain_arguments, connected

SUMMARY = "disclose, answer challenges, settle, withdraw: whatever is due"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", type=int, metavar="N", help="the task's number in the contract")
    parser.add_argument("--task", metavar="TASK", help="solver: folder or URL of the task")
    parser.add_argument(
        "--run", dest="run_path", metavar="RUN", help="solver: the run that `gverify solve --claim` made"
    )
    add_chain_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify.settle.settlement import State

    done: list[str] = []
    with connected(args, console) as c:
        settlement, number = c.settlement, args.number
        games = [e.values["game"] for e in settlement.events("Challenged") if e.values["task"] == number]
        if args.task and args.run_path and not args.dry_run:
            done += _as_solver(args, c, games)
        for name in [
            *(("timeout", g) for g in games),
            *(("release", g) for g in games),
            ("settle", number),
            ("expire", number),
        ]:
            if settlement.would_accept(c.wallet, *name):
                c.send(f"{name[0]} {name[1]}", *name)
                done.append(f"{name[0]} {name[1]}")
        owed = settlement.credit(c.wallet.address)
        if owed and not args.dry_run:
            height = settlement.chain.block().number
            c.send(f"withdraw {height}", "withdraw", c.wallet.address)
            done.append(f"withdrew {owed / WEI:g}")
        state = State(settlement.task(number)["state"])
    console.say(f"task {number} is {state.name.lower()}; done: {', '.join(done) or 'nothing was due'}")
    console.result({"task": number, "state": state, "done": done, "owed": str(owed)})
    return 0


def _as_solver(args: argparse.Namespace, c: object, games: list[int]) -> list[str]:
    """Disclose, and answer in every game."""
    from gensyn_verify import api
    from gensyn_verify.cli.onchain import Connection
    from gensyn_verify.cli.solve import decoy_folder
    from gensyn_verify.protocol.pinpoint import players
    from gensyn_verify.protocol.pinpoint.side import Side
    from gensyn_verify.settle.roles import Solver, play
    from gensyn_verify.settle.settlement import State

    assert isinstance(c, Connection)
    task = api.open_task(args.task)
    solver = Solver(c.settlement, c.wallet, args.number, task)
    t = solver.onchain()
    if t["solver"] != c.wallet.address:
        return []
    done = []
    right = api.open_run(args.run_path, task)
    if t["state"] == State.SHOWN and c.settlement.chain.block().timestamp > t["deadline"]:
        decoy = api.open_run(decoy_folder(args.run_path), task) if solver.decoy_is_due() else None
        solver.disclose(right, decoy)
        done.append("disclosed")
    for game in games:
        player = players.Solver(Side(right))
        while play(c.settlement, c.wallet, game, player):
            done.append(f"moved in game {game}")
    return done

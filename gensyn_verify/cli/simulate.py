"""Play settlements many times: is honest play the best reply under these terms, and what breaks below each floor?

Checks the floors of docs/incentives.md, then plays every floor's scenario with the given parameters and once more with
that floor broken. Amounts are in wei, shares in units of 2^-16, times in seconds; payoffs are in costs of a check.
Exits with 1 if a floor is violated or honest play is not the best reply.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gensyn_verify.cli.console import Console

SUMMARY = "play settlements: is honest play the best reply?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parameters", metavar="FILE", help="JSON object of parameters (default: an example)")
    parser.add_argument(
        "--set", metavar="NAME=INTEGER", type=setting, action="append", default=[], help="change one parameter"
    )
    parser.add_argument(
        "--least", action="store_true", help="lower seat, fee, stake, bond and times to the floors first"
    )
    parser.add_argument("--scenario", metavar="FLOOR", action="append", default=[], help="only this floor's scenario")
    parser.add_argument(
        "--tasks", type=int, default=100_000, metavar="N", help="tasks a scenario (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed gives the same numbers (default: 0)"
    )
    parser.add_argument("--plot", metavar="FILE", help="also draw payoffs and population dynamics, as SVG")


def setting(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=INTEGER") from None


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify.errors import MalformedError
    from gensyn_verify.settle import parameters, simulation

    if args.tasks < 1 or args.seed < 0:
        raise MalformedError(
            f"--tasks {args.tasks} --seed {args.seed}: expected at least 1 task and a seed of at least 0"
        )
    names = [scenario.floor for scenario in simulation.SCENARIOS]
    for name in args.scenario:
        if name not in names:
            raise MalformedError(f"--scenario {name}: there is no such floor; there are {', '.join(names)}")
    p = parameters.Parameters.from_json({**read(args.parameters), **dict(args.set)})
    if args.least:
        p = parameters.least(p)

    rows = parameters.all_floors(p)
    console.say("floors")
    console.table([(f.name, f"{'kept    ' if f.holds else 'VIOLATED'} {f.rule}") for f in rows])
    chosen = [s for s in simulation.SCENARIOS if not args.scenario or s.floor in args.scenario]
    results = []
    with console.progress("playing", len(chosen), "scenario") as advance:
        for scenario in chosen:
            results.append(
                tuple(simulation.simulate(scenario, x, args.seed, args.tasks) for x in (p, scenario.broken(p)))
            )
            advance(len(results))
    console.say()
    console.say(f"payoffs in costs of a check, {args.tasks:,} tasks, 99.99 % confidence; [in closed form]")
    for pair in results:
        console.say(f"  {pair[0].floor}: {pair[0].text}")
        for result, where in zip(pair, ("with these parameters", "with this floor broken"), strict=True):
            best = "honest play is best" if result.honest_is_best else "DEVIATING PAYS"
            console.say(f"    {where:23} honest {show(result.honest)}   deviating {show(result.deviation)}   {best}")
    if args.plot:
        plot(args, p, results)
        console.say(f"drew {args.plot}")
    good = all(f.holds for f in rows) and all(inside.honest_is_best for inside, _ in results)
    console.result(
        {
            "parameters": p.to_json(),
            "floors": [{"name": f.name, "holds": f.holds, "left": f.left, "right": f.right} for f in rows],
            "tasks": args.tasks,
            "seed": args.seed,
            "scenarios": [
                {"floor": a.floor, "inside": outcome(a), "broken": outcome(b)} for a, b in results
            ],
            "honest_is_best": good,
        }
    )  # fmt: skip
    return 0 if good else 1


def read(path: str | None) -> dict[str, Any]:
    """The JSON object in a file; empty without one."""
    if path is None:
        return {}
    import json

    from gensyn_verify.errors import MalformedError

    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise MalformedError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedError(f"{path}: expected a JSON object of parameters, found {type(value).__name__}")
    return value


def show(estimate: Any) -> str:
    return f"{estimate.mean:9.3f} \u00b1 {estimate.margin:.3f} [{estimate.expected:.3f}]"


def outcome(result: Any) -> dict[str, Any]:
    return {
        "honest": result.honest,
        "deviation": result.deviation,
        "advantage": result.advantage,
        "honest_is_best": result.honest_is_best,
    }


def plot(args: argparse.Namespace, p: Any, results: list[Any]) -> None:
    from gensyn_verify.settle import simulation
    from gensyn_verify.settle.plot import draw

    broken = next(s for s in simulation.SCENARIOS if s.floor == "checking").broken(p)
    runs = [
        ("These parameters, half honest at first", simulation.evolve(p, args.seed)),
        ("... one in twenty honest at first", simulation.evolve(p, args.seed, honest=0.05)),
        ("\u201cchecking\u201d broken, 90 % honest at first", simulation.evolve(broken, args.seed, honest=0.9)),
    ]
    Path(args.plot).write_text(draw(results, runs), encoding="utf-8")

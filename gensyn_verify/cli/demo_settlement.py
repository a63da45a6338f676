"""Tasks settled on a chain, from posting to payment, with everybody who could cheat: what each has before and after.

The chain runs inside of this process; the task is a small network on scikit-learn's digits; disputes are played to the
one operation that the contract executes. Exit code 0 if everybody ended with what the rules say.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console

if TYPE_CHECKING:
    from gensyn_verify.protocol.run import Run
    from gensyn_verify.protocol.task import Task
    from gensyn_verify.settle.chain import EmbeddedChain
    from gensyn_verify.settle.roles import Solver, Verifier
    from gensyn_verify.settle.settlement import Settlement
    from gensyn_verify.settle.wallet import Wallet

SUMMARY = "tasks settled on an embedded chain: honest and dishonest players, balances before and after"
WEI = 10**18
STEPS, BATCH, INTERVAL = 8, 32, 2
SEAT, REWARD, STAKE, FEE, BOUNTY, BOND = (
    0.4,
    1.0,
    6.0,
    0.02,
    0.1,
    0.3,
)  # ether, inside of the floors of docs/incentives.md
BURN = 0.5
GAS = 0.015  # ether that anybody may spend on transactions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scene", type=int, choices=range(1, len(SCENES) + 1), metavar="N", help="only this scene")


@dataclass
class Stage:
    """The chain, the people, the task; what a scene needs."""

    chain: EmbeddedChain
    settlement: Settlement
    task: Task
    folder: Path
    console: Console
    wallets: dict[str, Wallet] = field(default_factory=dict)
    seats: dict[str, int] = field(default_factory=dict)  # enrolled verifiers, by name
    runs: int = 0

    def __getitem__(self, name: str) -> Wallet:
        from gensyn_verify.program.keccak import keccak256
        from gensyn_verify.settle.wallet import Key, Wallet

        if name not in self.wallets:
            self.wallets[name] = Wallet(self.chain, Key(keccak256(b"demo " + name.encode())))
            self.chain.fund(self.wallets[name].address, 100 * WEI)
        return self.wallets[name]

    def place(self, what: str) -> Path:
        self.runs += 1
        return self.folder / f"{self.runs}-{what}"

    def enroll(self, names: Sequence[str]) -> None:
        """Exactly these verifiers have a seat, so they are the committee."""
        for seat, s in enumerate(self.settlement.ask("seats")):
            if s["owner"] != _NOBODY and s["owner"] not in [self[n].address for n in names]:
                owner = next(w for w in self.wallets.values() if w.address == s["owner"])
                self.settlement.send(owner, f"resign {seat} {self.runs}", "resign", seat)
        owners = [s["owner"] for s in self.settlement.ask("seats")]
        for name in names:
            if self[name].address not in owners:
                self.settlement.send(self[name], f"enroll {self.runs}", "enroll", pays=int(SEAT * WEI))
        self.chain.mine(1)

    def money(self) -> dict[str, float]:
        """Ether of everybody: in the pocket, credited, and in a seat."""
        seats = [s["owner"] for s in self.settlement.ask("seats")]
        return {
            name: (self.chain.balance(w.address) + self.settlement.credit(w.address)) / WEI
            + SEAT * seats.count(w.address)
            for name, w in self.wallets.items()
        }

    # ---- a task, up to the games ----------------------------------------------------------------------------------

    def claimed(self, solver: str, decoy: bool) -> Solver:
        """A new task, claimed. The chain is turned back until the lot says what the scene is about."""
        from gensyn_verify.settle.roles import Solver, submit
        from gensyn_verify.settle.settlement import Terms
        from gensyn_verify.settle.wallet import Journal

        reward, stake, fee, bounty, bond = (int(x * WEI) for x in (REWARD, STAKE, FEE, BOUNTY, BOND))
        terms = Terms(reward, stake, fee, bounty, bond, 86400, 86400, 86400, 7200, 172800, 3)
        self.runs += 1
        number = submit(self.settlement, self["submitter"], self.task, terms, self.runs)
        role = Solver(self.settlement, self[solver], number, self.task)
        snapshot = self.chain.tester.take_snapshot()
        while True:
            role.claim()
            self.chain.mine(self.settlement.rules.delay + 1)
            if role.decoy_is_due() == decoy:
                return role
            self.chain.tester.revert_to_snapshot(snapshot)
            self[solver].journal = Journal(None)
            self.chain.pass_time(12)
            snapshot = self.chain.tester.take_snapshot()

    def shown(self, role: Solver, right: Run, decoy: Run | None = None) -> None:
        role.commit(right, decoy)
        self.chain.mine(self.settlement.rules.delay + 1)
        role.show(decoy or right)

    def judged(self, role: Solver, right: Run, decoy: Run | None, honest: Sequence[str], lazy: Sequence[str]) -> None:
        """The committee attests, the solver discloses, the committee declares."""
        from gensyn_verify.settle.roles import Verifier

        roots: list[tuple[Verifier, int, bytes]] = []
        for name in [*honest, *lazy]:
            verifier = Verifier(self.settlement, self[name], role.number, self.task)
            (place,) = verifier.places()
            if name in lazy:
                root = verifier.shown()[0]
                self.console.say(f"  {name} approves without looking")
            else:
                own = self.place(name) if name == honest[0] else None
                finding = verifier.check((decoy or right).url, own)
                root = finding.root
                how = "trains it all again" if own else "replays a sample"
                self.console.say(f"  {name} {how}: {'the same' if finding.approves else 'NOT what was shown'}")
            verifier.attest(place, root)
            roots.append((verifier, place, root))
        self.chain.pass_time(86401)
        role.disclose(right, decoy)
        self.console.say("  the solver discloses: " + ("a decoy, and the right run" if decoy else "no decoy"))
        for verifier, place, root in roots:
            verifier.declare(place, root)

    def dispute(self, role: Solver, theirs: Run, challenger: str, own: Run) -> None:
        """A game, move by move, to its end on the chain."""
        from gensyn_verify.protocol.pinpoint import players
        from gensyn_verify.protocol.pinpoint.side import Side
        from gensyn_verify.settle.roles import Challenger, first_difference, play

        step = first_difference(own, theirs)
        number = Challenger(self.settlement, self[challenger], role.number, self.task).challenge(step)
        self.console.say(f"  {challenger} challenges step {step}")
        sides = {
            role.wallet.address: (role.wallet, players.Solver(Side(theirs))),
            self[challenger].address: (self[challenger], players.Challenger(Side(own))),
        }
        gas = dict.fromkeys(sides, 0)
        moved = True
        while moved:
            moved = False
            for address, (wallet, player) in sides.items():
                if receipt := play(self.settlement, wallet, number, player):
                    gas[address] += receipt["gasUsed"]
                    moved = True
        stages = [p.stage.name for p, _ in self.settlement.game(number).moves]
        ended = [e for e in self.settlement.events("Ended") if e.values["game"] == number][-1]
        winner = "the solver" if ended.values["solverWins"] else challenger
        self.console.say(f"  {len(stages)} moves, the last {stages[-1]}: the contract says that {winner} is right")
        solver, other = gas.values()
        self.console.say(f"  gas: solver {solver:,}, {challenger} {other:,}")

    def settled(self, role: Solver) -> str:
        """Settle, everybody takes out; the outcome."""
        from gensyn_verify.settle.settlement import Outcome

        self.chain.pass_time(172801)
        self.settlement.send(self["submitter"], f"settle {role.number}", "settle", role.number)
        closed = [e for e in self.settlement.events("Closed") if e.values["task"] == role.number]
        return Outcome(closed[-1].values["outcome"]).name


_NOBODY = "0x0000000000000000000000000000000000000000"


def honest_run(s: Stage) -> tuple[str, dict[str, float]]:
    """an honest run is paid"""
    s.enroll(["vera", "victor", "viola"])
    role = s.claimed("solomon", decoy=False)
    run = role.solve(s.place("run"))
    s.shown(role, run)
    s.judged(role, run, None, ["vera", "victor", "viola"], [])
    return s.settled(role), {
        "solomon": REWARD, "submitter": -REWARD - 3 * FEE, "vera": FEE, "victor": FEE, "viola": FEE,
    }  # fmt: skip


def lazy_verifier(s: Stage) -> tuple[str, dict[str, float]]:
    """a lazy verifier approves a decoy"""
    s.enroll(["vera", "victor", "lazy"])
    role = s.claimed("solomon", decoy=True)
    right, decoy = role.solve(s.place("run")), role.plant(s.place("decoy"))
    s.shown(role, right, decoy)
    s.judged(role, right, decoy, ["vera", "victor"], ["lazy"])
    return s.settled(role), {
        "solomon": REWARD, "submitter": -REWARD - FEE - 2 * BOUNTY, "vera": FEE + BOUNTY, "victor": BOUNTY,
        "lazy": -SEAT,
    }  # fmt: skip


def cheating_solver(s: Stage) -> tuple[str, dict[str, float]]:
    """a solver forges one bit of one state, and a verifier challenges"""
    s.enroll(["vera", "victor", "viola"])
    role = s.claimed("cheat", decoy=False)
    forged = role.plant(s.place("forged"))  # a decoy, but there was no lot for one
    s.shown(role, forged)
    s.judged(role, forged, None, ["vera", "victor", "viola"], [])
    s.dispute(role, forged, "vera", _own(s, "vera"))
    return s.settled(role), {
        "cheat": -STAKE, "submitter": -3 * FEE, "vera": FEE + (1 - BURN) * STAKE, "victor": FEE, "viola": FEE,
    }  # fmt: skip


def colluding_pair(s: Stage) -> tuple[str, dict[str, float]]:
    """a solver and its friends on the committee, and a whistleblower from outside"""
    s.enroll(["friend 1", "friend 2", "victor"])
    role = s.claimed("cheat", decoy=False)
    forged = role.plant(s.place("forged"))
    s.shown(role, forged)
    s.judged(role, forged, None, ["victor"], ["friend 1", "friend 2"])
    s.dispute(role, forged, "wanda", _own(s, "wanda"))
    return s.settled(role), {
        "cheat": -STAKE, "friend 1": -SEAT, "friend 2": -SEAT, "submitter": -FEE, "victor": FEE,
        "wanda": (1 - BURN) * (STAKE + 2 * SEAT),
    }  # fmt: skip


def griefing_challenger(s: Stage) -> tuple[str, dict[str, float]]:
    """a challenger disputes what is right"""
    s.enroll(["vera", "victor", "viola"])
    role = s.claimed("solomon", decoy=False)
    run = role.solve(s.place("run"))
    s.shown(role, run)
    s.judged(role, run, None, ["vera", "victor", "viola"], [])
    from gensyn_verify.protocol.decoy import plant
    from gensyn_verify.protocol.identity import Identity

    wrong = plant(s.task, s.place("grief"), Identity.unsigned(b"g" * 20), b"grief", salt=b"g" * 32)
    s.dispute(role, run, "griefer", wrong)
    return s.settled(role), {
        "solomon": REWARD + (1 - BURN) * BOND, "griefer": -BOND, "submitter": -REWARD - 3 * FEE,
        "vera": FEE, "victor": FEE, "viola": FEE,
    }  # fmt: skip


SCENES = (honest_run, lazy_verifier, cheating_solver, colluding_pair, griefing_challenger)


def _own(s: Stage, name: str) -> Run:
    """A challenger's own run of the task."""
    from gensyn_verify.protocol.identity import Identity
    from gensyn_verify.protocol.solve import solve

    return solve(s.task, s.place(name), identity=Identity.unsigned(s[name].address))


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify.settle.chain import EmbeddedChain
    from gensyn_verify.settle.settlement import Rules, Settlement
    from gensyn_verify.settle.wallet import Key, Wallet

    with tempfile.TemporaryDirectory(prefix="gverify-demo-") as temporary:
        task = _task(Path(temporary) / "task")
        chain = EmbeddedChain()
        owner = Wallet(chain, Key(b"\1" * 32))
        chain.fund(owner.address, 100 * WEI)
        # every second run is a decoy here; in earnest that would be one of some dozens
        rules = Rules(int(SEAT * WEI), WEI // 10, 2 << 16, 3600, 3600, 1 << 15, int(BURN * 65536), 3, 2)
        settlement = Settlement.deploy(owner, rules)
        console.say(f"task        {task.digest.hex()}: {STEPS} steps, {len(task.program.nodes)} nodes")
        console.say(f"settlement  {settlement.address}, on a chain inside of this process\n")
        stage = Stage(chain, settlement, task, Path(temporary), console)
        chosen = [(i, scene) for i, scene in enumerate(SCENES, 1) if args.scene in (None, i)]
        results = [_play(stage, i, scene) for i, scene in chosen]
    good = all(r["good"] for r in results)
    console.result({"good": good, "scenes": results})
    console.say("everybody ended with what the rules say" if good else "SOMEBODY DID NOT END WITH WHAT THE RULES SAY")
    return 0 if good else 1


def _task(path: Path) -> Task:
    import torch

    import gensyn_verify as gv
    from gensyn_verify.cli.demo import load_digits
    from gensyn_verify.protocol.policy import Policy

    torch.manual_seed(0)
    x, y = load_digits().train
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    return gv.capture(
        model, torch.nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-2), (x, y),
        steps=STEPS, batch_size=BATCH, interval=INTERVAL, policy=Policy(samples=STEPS // INTERVAL), path=path,
    )  # fmt: skip


def _play(stage: Stage, number: int, scene: Any) -> dict[str, Any]:
    """One scene; who has gained what, and whether that is right but for gas."""
    console = stage.console
    console.say(f"== {number}. {scene.__doc__}")
    known = set(stage.wallets)
    for name in _CAST[scene.__name__]:
        stage[name]
    before = stage.money()
    outcome, expected = scene(stage)
    after = stage.money()
    people = {n: {"before": before[n], "after": after[n], "expected": expected.get(n, 0.0)} for n in before}
    good = all(-GAS <= p["after"] - p["before"] - p["expected"] <= 1e-9 for p in people.values())
    console.say(f"  outcome: {outcome.lower()}")
    console.say(f"    {'':12} {'before':>10} {'after':>10} {'gain':>9}   by the rules, before gas")
    for name, p in people.items():
        if name in expected or name not in known or abs(p["after"] - p["before"]) > GAS:
            gain = p["after"] - p["before"]
            console.say(f"    {name:12} {p['before']:10.3f} {p['after']:10.3f} {gain:+9.3f}   {p['expected']:+.3f}")
    console.say()
    return {"scene": scene.__name__, "outcome": outcome, "people": people, "good": good}


_CAST = {
    "honest_run": ("submitter", "solomon", "vera", "victor", "viola"),
    "lazy_verifier": ("submitter", "solomon", "vera", "victor", "lazy"),
    "cheating_solver": ("submitter", "cheat", "vera", "victor", "viola"),
    "colluding_pair": ("submitter", "cheat", "friend 1", "friend 2", "victor", "wanda"),
    "griefing_challenger": ("submitter", "solomon", "vera", "victor", "viola", "griefer"),
}

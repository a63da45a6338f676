"""Whole games on the settlement: a run is disclosed, challenged, and played against, on any chain."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from settle.conftest import WEI, World
from settle.node import Anvil

from gensyn_verify.commit import run_commitment
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol.pinpoint.players import Challenger, NothingToSayError, Player
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.task import Task
from gensyn_verify.settle import roles
from gensyn_verify.settle.chain import EmbeddedChain
from gensyn_verify.settle.settlement import ETHER, Outcome, Rules, Settlement, Terms, decoy_is_due, truth_seal
from gensyn_verify.settle.wallet import Key, Wallet

RULES = Rules(WEI // 2, WEI // 10, 4 << 16, 3600, 3600, 1, 32768, 3, 2)  # almost never a decoy
TERMS = Terms(WEI, 6 * WEI, 4 * 10**12, WEI // 10, 3 * WEI // 10, 86400, 86400, 86400, 7200, 172800, 3)


class Embedded(EmbeddedChain):
    """What a test asks of its chain, as `Anvil` has it."""

    def next_block_at(self, timestamp: int) -> None:
        self.tester.time_travel(timestamp)

    def pass_time(self, seconds: int) -> None:
        super().pass_time(seconds)
        self.mine(1)  # what is asked without sending is asked as of the latest block

    def take_snapshot(self) -> Any:
        return self.tester.take_snapshot()

    def revert_to(self, snapshot: Any) -> None:
        self.tester.revert_to_snapshot(snapshot)


def new_world(chain: Embedded | Anvil, asset: str = ETHER) -> World:
    """A settlement on this chain, with as many seats as a committee needs."""
    owner = Wallet(chain, Key(keccak256(b"owner")))
    chain.fund(owner.address, 100 * WEI)
    return World(chain, Settlement.deploy(owner, RULES, asset=asset))


def enroll(world: World) -> None:
    for i in range(TERMS.seats):
        world.settlement.send(world[f"verifier {i}"], "enroll", "enroll", pays=RULES.seat)


def draw_no_decoy(chain: Embedded | Anvil, solver: roles.Solver) -> None:
    """Mine what the lot of a claim needs, again and again with other times until it is no decoy."""
    due = int(solver.onchain()["fixedAt"]) + RULES.delay
    for later in itertools.count(1):
        before = chain.take_snapshot()
        chain.next_block_at(chain.block().timestamp + later)
        chain.mine(RULES.delay + 1)
        if not decoy_is_due(solver.r, chain.block(due).hash, RULES.rate):
            return
        chain.revert_to(before)


def disclosed(world: World, task: Task, side: Side) -> roles.Solver:
    """A task whose solver has disclosed the log of this side. The committee says nothing."""
    s, chain = world.settlement, world.chain
    solver = roles.Solver(s, world["solver"], roles.submit(s, world["submitter"], task, TERMS), task)
    n, salt, root = solver.number, solver.secret("salt"), side.log.root()
    address = bytes.fromhex(solver.wallet.address[2:])
    commitment = run_commitment(task.digest, address, salt, len(side.log), root)
    solver.claim()
    draw_no_decoy(chain, solver)
    assert not solver.decoy_is_due()
    s.send(solver.wallet, f"commit {n}", "commit", n, commitment, truth_seal(solver.r, commitment))
    chain.mine(RULES.delay + 1)
    s.send(solver.wallet, f"show {n}", "show", n, root, salt)
    chain.pass_time(TERMS.attest_time + 1)
    s.send(solver.wallet, f"disclose {n}", "disclose", n, solver.r, bytes(32), bytes(32))
    return solver


@dataclass
class Match:
    """A game between the solver and somebody, by name, each with a player."""

    world: World
    number: int
    players: dict[str, Player]
    first: int  # block

    def move(self) -> str | None:
        """One move of whoever has one to make: the name of who did."""
        for name, player in self.players.items():
            with contextlib.suppress(NothingToSayError):
                if roles.play(self.world.settlement, self.world[name], self.number, player):
                    return name
        return None

    def play(self, enough: Callable[[Any], bool] = lambda game: False) -> Match:
        """To the end, or until nobody says anything more, or the game is as asked for."""
        while not enough(self.game) and self.move():
            pass
        return self

    @property
    def game(self) -> Any:
        return self.world.settlement.game(self.number)

    @property
    def solver_won(self) -> bool | None:
        """None while it is not over."""
        events = self.world.settlement.events("Ended", first=self.first)
        ended = [e for e in events if e.values["game"] == self.number]
        assert len(ended) <= 1
        return bool(ended[0].values["solverWins"]) if ended else None


def challenged(
    world: World, solver: roles.Solver, player: Player, side: Side, name: str = "challenger", step: int | None = None
) -> Match:
    """A game that `name` has opened, with this side, against a solver that plays like `player`."""
    number = roles.Challenger(world.settlement, world[name], solver.number, solver.task).challenge(step)
    return Match(world, number, {"solver": player, name: Challenger(side)}, world.chain.block().number)


def settle(world: World, solver: roles.Solver) -> Outcome:
    world.chain.pass_time(TERMS.challenge_time + 1)
    world.settlement.send(world["anyone"], f"settle {solver.number}", "settle", solver.number)
    return Outcome(world.settlement.events("Closed")[-1].values["outcome"])

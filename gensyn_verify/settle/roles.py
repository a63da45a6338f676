"""Solver, verifier, challenger: what each says when. Whatever is called again after a crash is not said twice.

Secrets (the solver's r, salts) follow from the key, the contract and the task's number, so there is nothing to lose.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from gensyn_verify.commit import keccak256
from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.protocol.decoy import plant
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import Run, StepHasher, open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task
from gensyn_verify.settle.chain import ChainError
from gensyn_verify.settle.gas import check_header
from gensyn_verify.settle.settlement import (
    Settlement,
    State,
    Terms,
    attestation_seal,
    chance_seal,
    decoy_is_due,
    truth_seal,
)
from gensyn_verify.settle.wallet import Wallet


def submit(settlement: Settlement, wallet: Wallet, task: Task, terms: Terms, again: int = 0) -> int:
    """Post a task with its escrow; its number. `again`: a number for posting the same task once more."""
    if task.recorded:
        raise BundleError("a recorded task has no steps of its own: nobody could solve it")
    arguments = post_arguments(task, terms)
    intent = f"post {task.digest.hex()} {keccak256(repr(arguments).encode()).hex()[:16]} {again}"
    receipt = settlement.send(wallet, intent, "post", *arguments, pays=terms.escrow)
    return int(_event(settlement, receipt, "Posted")["task"])


def post_arguments(task: Task, terms: Terms) -> tuple[Any, ...]:
    """What `post` takes. Raises LimitError for a task that could not be disputed."""
    check_header(task.program, f"task {task.digest.hex()[:16]}")
    return task.digest, task.steps, astuple(terms)


def _event(settlement: Settlement, receipt: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for log in receipt["logs"]:
        if log["address"] == settlement.address and (e := settlement.decode(log)).name == name:
            return e.values
    raise ChainError(f"the transaction has no event {name}")


class _Role:
    """Somebody with a wallet and one task of a settlement."""

    def __init__(self, settlement: Settlement, wallet: Wallet, number: int, task: Task) -> None:
        self.settlement, self.wallet, self.number, self.task = settlement, wallet, number, task
        posted = self.onchain()
        if bytes(posted["digest"]) != task.digest:
            found = bytes(posted["digest"]).hex()
            raise MalformedError(f"task {number} of the contract is {found}; the bundle given is {task.digest.hex()}")
        if posted["steps"] != task.steps:
            raise MalformedError(f"task {number} was posted with {posted['steps']} steps; the bundle has {task.steps}")

    def onchain(self) -> dict[str, Any]:
        return self.settlement.task(self.number)

    def check_provable(self) -> None:
        """Raise LimitError for a task whose solver could not prove what it is right about (`gas`).

        Whoever has put down money for one already goes on: to stop would lose it for sure.
        """
        check_header(self.task.program, f"task {self.number}")

    def secret(self, label: str) -> bytes:
        place = f"{self.settlement.chain.chain_id} {self.settlement.address} {self.number}"
        return self.wallet.key.derive(label.encode(), place.encode())

    def _send(self, name: str, *arguments: Any, pays: int = 0, intent: str = "") -> Mapping[str, Any]:
        what = f"{name} {self.number} {intent}".strip()
        return self.settlement.send(self.wallet, what, name, self.number, *arguments, pays=pays)


class Solver(_Role):
    """Claims a task, solves it, plants a decoy where the lot says so, shows and discloses."""

    @property
    def r(self) -> bytes:
        return self.secret("r")

    @property
    def identity(self) -> Identity:
        return Identity.from_key(self.wallet.key.secret)

    def claim(self) -> None:
        t = self.onchain()
        if t["state"] != State.POSTED and t["solver"] != self.wallet.address:
            raise MalformedError(f"task {self.number} is not free: it is {State(t['state']).name.lower()}")
        if t["state"] == State.POSTED:
            self.check_provable()
        self._send("claim", chance_seal(self.task.digest, self.number, self.wallet.address, self.r), pays=t["stake"])

    def decoy_is_due(self) -> bool:
        """What the lot says; pins it where nobody has."""
        t = self.onchain()
        if not any(t["chance"]):
            self._send("pin")
            t = self.onchain()
        return decoy_is_due(self.r, bytes(t["chance"]), self.settlement.rules.rate)

    def solve(self, folder: str | os.PathLike[str]) -> Run:
        return solve(self.task, folder, identity=self.identity, salt=self.secret("salt"))

    def plant(self, folder: str | os.PathLike[str]) -> Run:
        """The decoy to show."""
        return plant(self.task, folder, self.identity, self.secret("decoy"), salt=self.secret("salt of the decoy"))

    def commit(self, right: Run, decoy: Run | None) -> None:
        """To the run that will be shown (`decoy`, where there is one), and hidden to the right one."""
        shown = decoy or right
        assert shown.commitment is not None
        assert right.commitment is not None
        self._send("commit", shown.commitment.digest, truth_seal(self.r, right.commitment.digest))

    def show(self, run: Run) -> None:
        assert run.commitment is not None
        self._send("show", run.commitment.root, run.header.salt)

    def disclose(self, right: Run, decoy: Run | None) -> None:
        assert right.commitment is not None
        opened = (right.commitment.root, right.header.salt) if decoy else (bytes(32), bytes(32))
        self._send("disclose", self.r, *opened)


@dataclass(frozen=True)
class Finding:
    """What a verifier found: the root that it will seal, and whether that is the shown one."""

    root: bytes
    approves: bool


class Verifier(_Role):
    """Checks the run that is shown, seals what it found, declares it later."""

    def places(self) -> list[int]:
        """Of this wallet's seats on the task's committee."""
        seated = self.settlement.events("Seated")
        mine = (e for e in seated if e.values["task"] == self.number and e.values["verifier"] == self.wallet.address)
        return [int(e.values["place"]) for e in mine]

    def shown(self) -> tuple[bytes, bytes]:
        """(log root, beacon) of the shown run."""
        for e in self.settlement.events("Shown"):
            if e.values["task"] == self.number:
                return bytes(e.values["root"]), bytes(e.values["beacon"])
        raise MalformedError(f"no run of task {self.number} has been shown")

    def check(self, run: str | os.PathLike[str], own: str | os.PathLike[str] | None = None) -> Finding:
        """Compare a run with what was shown: with a run of one's own at `own`, solved now if it is not there; else by
        replaying a sample drawn from the beacon."""
        root, beacon = self.shown()
        if own is not None:
            mine = solve(self.task, own, identity=Identity.unsigned(bytes.fromhex(self.wallet.address[2:])))
            assert mine.commitment is not None
            return Finding(mine.commitment.root, mine.commitment.root == root)
        t = self.onchain()
        report = replay(
            open_run(run, self.task), beacon=beacon, commitment=bytes(t["run"]), solver=bytes.fromhex(t["solver"][2:])
        )
        good = report.verdict is Verdict.VERIFIED
        return Finding(root if good else keccak256(b"another root" + root), good)

    def attest(self, place: int, root: bytes) -> None:
        self.check_provable()
        self._send("attest", place, self._seal(root), intent=str(place))

    def _seal(self, root: bytes) -> bytes:
        return attestation_seal(self.task.digest, self.number, self.wallet.address, self.secret("attestation"), root)

    def declare(self, place: int, root: bytes) -> None:
        self._send("declare", place, root, self.secret("attestation"), intent=str(place))


class Challenger(_Role):
    """Opens a game against the run that was disclosed as right."""

    def challenge(self, step: int | None = None) -> int:
        """The game's number. `step`: the first that differs, where the challenger knows it."""
        pays = self.onchain()["bond"]
        name, more = ("challenge", ()) if step is None else ("challengeStep", (step,))
        return int(_event(self.settlement, self._send(name, *more, pays=pays), "Challenged")["game"])


def first_difference(mine: Run, theirs: Run) -> int | None:
    """The first step whose entry differs; None where all are equal."""
    assert mine.task is not None
    hasher = StepHasher(mine.task.program)
    for n in mine.intervals:
        both = zip(mine.segment(n).steps, theirs.segment(n).steps, strict=True)
        for step, (a, b) in enumerate(both, mine.segment(n).first):
            if hasher.entry(step, a) != hasher.entry(step, b):
                return step
    return None


def play(settlement: Settlement, wallet: Wallet, number: int, player: Any) -> Mapping[str, Any] | None:
    """Make the move of a game that is this wallet's to make: its receipt, or None where there is none to make.

    `player` is of `protocol.pinpoint.players`: shown every move (`see`), it says what it does (`move`).
    """
    game = settlement.game(number)
    if game.over:
        return None
    mine = game.challenger if game.position.challenger_moves else settlement.task(game.task)["solver"]
    if mine != wallet.address:
        return None
    for position, move in game.moves:
        player.see(position, move)
    move = player.move(game.position)
    intent = f"move {number} {game.position.hash.hex()}"
    return settlement.send(wallet, intent, "move", number, fields(game.position), move)


def fields(position: Any) -> tuple[Any, ...]:
    """A position as web3 takes the contract's struct."""
    return tuple(int(v) if isinstance(v, int) else v for v in astuple(position))

"""Tasks whose asset is a token, from Python: everything that pays approves first, and nothing is left approved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from protocol.bundles import SALT, SOLVER, dishonest_solve, flip, linear_task
from settle.conftest import WEI
from settle.games import RULES, TERMS, Embedded, challenged, disclosed, enroll, new_world, settle

from contracts.evm import OUT
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol.pinpoint.players import Solver
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.solve import solve
from gensyn_verify.settle import roles
from gensyn_verify.settle.settlement import BURN, Outcome, RefusedError, Settlement, State
from gensyn_verify.settle.wallet import Journal, Key, Wallet

SUPPLY = 10**6 * WEI
GRANT = 100 * WEI


class Tokens:
    """An Erc20 on a chain, and a settlement whose asset it is."""

    def __init__(self) -> None:
        chain = Embedded()
        self.issuer = Wallet(chain, Key(keccak256(b"issuer")))
        chain.fund(self.issuer.address, 100 * WEI)
        made = json.loads((OUT / "Erc20.sol/Erc20.json").read_text())
        contract = chain.web3.eth.contract(abi=made["abi"], bytecode=made["bytecode"]["object"])
        data = bytes.fromhex(contract.constructor(SUPPLY).data_in_transaction[2:])
        address = self.issuer.send("create", "", data)["contractAddress"]
        self.token = chain.web3.eth.contract(address=address, abi=made["abi"])
        self.world = new_world(chain, address)
        for name in ("submitter", "solver", "griefer", *(f"verifier {i}" for i in range(TERMS.seats))):
            self.call(self.issuer, "transfer", self.world[name].address, GRANT)

    def call(self, wallet: Wallet, name: str, *arguments: Any) -> None:
        data = bytes.fromhex(self.token.encode_abi(name, list(arguments))[2:])
        wallet.send(f"{name} {arguments}", self.token.address, data)

    def of(self, who: str) -> int:
        """What somebody has, by name or address."""
        address = who if who.startswith("0x") else self.world[who].address
        return int(self.token.functions.balanceOf(address).call())

    def allowed(self, name: str) -> int:
        return int(self.token.functions.allowance(self.world[name].address, self.settlement.address).call())

    @property
    def settlement(self) -> Settlement:
        return self.world.settlement

    def approvals(self) -> int:
        logs = self.world.chain.logs(self.token.address, 0, self.world.chain.block().number)
        return sum(bytes(log["topics"][0]) == keccak256(b"Approval(address,address,uint256)") for log in logs)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


def test_a_task_is_paid_in_tokens(tokens: Tokens, tmp_path: Path) -> None:
    world, s = tokens.world, tokens.settlement
    task = linear_task(tmp_path / "task", steps=6, interval=2)
    enroll(world)
    side = Side(solve(task, tmp_path / "run", identity=SOLVER, salt=SALT))
    solver = disclosed(world, task, side)
    wrong = dishonest_solve(
        task, tmp_path / "wrong", after=lambda step, state, *_: flip(state["w"]) if step == 3 else None
    )
    match = challenged(world, solver, Solver(side), Side(wrong), "griefer").play()
    assert match.solver_won is True
    assert settle(world, solver) == Outcome.PAID
    assert tokens.approvals() == TERMS.seats + 3  # of every seat, the escrow, the stake, a bond
    assert {tokens.allowed(n) for n in world.wallets} == {0}
    for name in ("submitter", "solver"):
        s.send(world[name], "withdraw", "withdraw", world[name].address)
    s.send(world["anyone"], "burn", "burn")
    assert tokens.of("solver") == GRANT + TERMS.reward + TERMS.bond // 2
    assert tokens.of("griefer") == GRANT - TERMS.bond
    assert tokens.of("submitter") == GRANT - TERMS.reward
    assert tokens.of(BURN) == TERMS.bond - TERMS.bond // 2
    assert tokens.of(s.address) == TERMS.seats * RULES.seat
    assert world.chain.balance(s.address) == 0


def test_a_message_asked_for_again_approves_nothing(tokens: Tokens, tmp_path: Path) -> None:
    world = tokens.world
    task = linear_task(tmp_path / "task", steps=6, interval=2)
    number = roles.submit(tokens.settlement, world["submitter"], task, TERMS)
    before = world.chain.nonce(world["submitter"].address), tokens.approvals()
    assert roles.submit(tokens.settlement, world["submitter"], task, TERMS) == number
    assert before == (world.chain.nonce(world["submitter"].address), tokens.approvals())
    assert roles.submit(tokens.settlement, world["submitter"], task, TERMS, again=1) == number + 1


def test_what_is_refused_leaves_no_allowance(tokens: Tokens, tmp_path: Path) -> None:
    world, s = tokens.world, tokens.settlement
    with pytest.raises(RefusedError, match="refuses claim: WrongState"):
        s.send(world["solver"], "claim", "claim", 7, bytes(32), pays=TERMS.stake)
    with pytest.raises(RefusedError, match=rf"enroll takes {RULES.seat} of the token {s.asset}; .* has 0"):
        s.send(world["beggar"], "enroll", "enroll", pays=RULES.seat)
    assert tokens.approvals() == 0
    # refused, then possible: the approval comes with what it is for
    task = linear_task(tmp_path / "task", steps=6, interval=2)
    number = roles.submit(s, world["submitter"], task, TERMS)
    role = roles.Solver(s, world["solver"], number, task)
    s.send(world["solver"], "enroll", "enroll", pays=RULES.seat)
    role.claim()
    assert s.task(number)["state"] == State.CLAIMED
    assert tokens.allowed("solver") == 0


def test_an_allowance_that_is_too_small_goes_by_way_of_zero(tokens: Tokens) -> None:
    world = tokens.world
    tokens.call(world["verifier 0"], "approve", tokens.settlement.address, RULES.seat - 1)
    tokens.settlement.send(world["verifier 0"], "enroll", "enroll", pays=RULES.seat)
    assert tokens.of("verifier 0") == GRANT - RULES.seat
    tokens.call(world["verifier 1"], "approve", tokens.settlement.address, 2 * RULES.seat)
    before = tokens.approvals()
    for n in range(2):  # enough is allowed
        tokens.settlement.send(world["verifier 1"], f"enroll {n}", "enroll", pays=RULES.seat)
    assert (tokens.approvals(), tokens.allowed("verifier 1")) == (before, 0)


def test_a_dry_run_plans_the_approval(tokens: Tokens) -> None:
    wallet, s = tokens.world["verifier 0"], tokens.settlement
    assert s.plan(wallet, "enroll", "enroll", pays=RULES.seat).call.to == s.asset
    tokens.call(wallet, "approve", s.address, RULES.seat)
    plan = s.plan(wallet, "enroll", "enroll", pays=RULES.seat)
    assert (plan.call.to, plan.call.value) == (s.address, 0)


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("nth", [0, 1])
def test_a_crash_around_approval_or_message_pays_once(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, moment: str
) -> None:
    world, chain = tokens.world, tokens.world.chain
    key, real, count = world["verifier 0"].key, chain.send, iter(range(9))

    def send(raw: bytes) -> None:
        crash = next(count) == nth
        if not (crash and moment == "before"):
            real(raw)
        if crash:
            raise Crash

    def enroll_once() -> None:
        book = Journal(tmp_path / "journal")
        try:
            tokens.settlement.send(Wallet(chain, key, book), "enroll", "enroll", pays=RULES.seat)
        finally:
            book.close()

    monkeypatch.setattr(chain, "send", send)
    with pytest.raises(Crash):
        enroll_once()
    enroll_once()
    assert tokens.of("verifier 0") == GRANT - RULES.seat
    assert (tokens.approvals(), tokens.allowed("verifier 0")) == (1, 0)
    assert len((tmp_path / "journal").read_text().splitlines()) == 2

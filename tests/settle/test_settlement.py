"""The settlement from Python, on the embedded chain: a whole life of a task, its events, what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from settle.conftest import RULES, TERMS, WEI, World

from gensyn_verify.errors import LimitError, MalformedError
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.task import Task
from gensyn_verify.settle import gas, parameters
from gensyn_verify.settle.gas import header_gas
from gensyn_verify.settle.roles import Challenger, Solver, Verifier, first_difference, submit
from gensyn_verify.settle.settlement import Outcome, RefusedError, Rules, Settlement, State, Terms


def solved(world: World, task: Task, folder: Path, decoy: bool) -> tuple[Solver, Run, Run | None]:
    """A task up to `show`, after as many tries as it takes until the lot falls as asked for."""
    for again in range(1000):
        number = submit(world.settlement, world["submitter"], task, TERMS, again)
        solver = Solver(world.settlement, world["solver"], number, task)
        solver.claim()
        world.chain.mine(RULES.delay + 1)
        if solver.decoy_is_due() == decoy:
            break
    right = solver.solve(folder / "right")
    planted = solver.plant(folder / "decoy") if decoy else None
    solver.commit(right, planted)
    world.chain.mine(RULES.delay + 1)
    solver.show(planted or right)
    return solver, right, planted


def committee(world: World, number: int, task: Task) -> list[tuple[Verifier, int]]:
    verifiers = [Verifier(world.settlement, world[f"verifier {i}"], number, task) for i in range(4)]
    return [(v, place) for v in verifiers for place in v.places()]


@pytest.mark.parametrize("decoy", [False, True])
def test_a_run_is_checked_and_paid(world: World, task: Task, tmp_path: Path, decoy: bool) -> None:
    before = world.chain.balance(world["solver"].address)
    solver, right, planted = solved(world, task, tmp_path, decoy)
    seats = committee(world, solver.number, task)
    assert len(seats) == TERMS.seats
    findings = []
    for i, (verifier, place) in enumerate(seats):
        finding = verifier.check((planted or right).url, tmp_path / "own" if i == 0 else None)
        assert finding.approves is not decoy or i > 0  # a sample may miss the fault, a whole replay does not
        verifier.attest(place, finding.root)
        findings.append(finding)
    world.chain.pass_time(TERMS.attest_time + 1)
    solver.disclose(right, planted)
    for (verifier, place), finding in zip(seats, findings, strict=True):
        verifier.declare(place, finding.root)
    world.chain.pass_time(TERMS.challenge_time + 1)
    world.settlement.send(world["anyone"], f"settle {solver.number}", "settle", solver.number)
    assert world.settlement.events("Closed")[-1].values["outcome"] == Outcome.PAID
    assert world.settlement.task(solver.number)["state"] == State.CLOSED
    assert world.settlement.credit(world["solver"].address) == TERMS.reward + TERMS.stake
    expected = TERMS.fee + (TERMS.bounty if decoy else 0)
    assert world.settlement.credit(seats[0][0].wallet.address) == expected
    world.settlement.send(world["solver"], "withdraw", "withdraw", world["solver"].address)
    spent = before - world.chain.balance(world["solver"].address)
    claims = len(world.settlement.events("Claimed")) - 1  # tries that the lot spoiled still hold stakes
    assert spent - claims * TERMS.stake + TERMS.reward < WEI // 10  # gas


def test_a_decoy_differs_from_one_step_on(world: World, task: Task, tmp_path: Path) -> None:
    solver, right, planted = solved(world, task, tmp_path, decoy=True)
    assert planted is not None
    step = first_difference(right, planted)
    assert step is not None
    again = solver.plant(tmp_path / "again")
    assert again.commitment == planted.commitment
    assert first_difference(planted, again) is None


def test_refusals_name_the_error_and_its_arguments(world: World, task: Task) -> None:
    number = submit(world.settlement, world["submitter"], task, TERMS)
    with pytest.raises(RefusedError, match=r"refuses cancel: NotYours\(\)"):
        world.settlement.send(world["anyone"], "cancel", "cancel", number)
    with pytest.raises(RefusedError, match=r"refuses settle: WrongState\(found 1\)"):
        world.settlement.send(world["anyone"], "settle", "settle", number)
    low = TERMS.__class__(**{**TERMS.__dict__, "stake": WEI})
    with pytest.raises(RefusedError, match=r"refuses post: BelowFloor\(what stake\)"):
        submit(world.settlement, world["submitter"], task, low)
    with pytest.raises(MalformedError, match="has no task 7"):
        world.settlement.task(7)


def test_a_task_bundle_that_was_not_posted_is_refused(world: World, task: Task, tmp_path: Path) -> None:
    from protocol.bundles import linear_task

    number = submit(world.settlement, world["submitter"], task, TERMS)
    other = linear_task(tmp_path / "other", steps=6, interval=3)
    with pytest.raises(MalformedError, match="the bundle given is"):
        Solver(world.settlement, world["solver"], number, other)


def test_a_task_whose_header_cannot_be_proven_is_refused_before_money_is_put_down(
    world: World, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever would put it down. Who has done so already goes on, as it would lose it by stopping."""
    least = header_gas(task.program)

    def refused(message: Callable[[], object]) -> None:
        monkeypatch.setattr(gas, "MAX_GAS", least - 1)
        head = world.chain.block()
        with pytest.raises(LimitError, match=f"prove the program's header .* up to {least} gas, .* {least - 1}: "):
            message()
        assert world.chain.block() == head
        monkeypatch.setattr(gas, "MAX_GAS", least)

    everybody = [world[name] for name in ("submitter", "solver", "challenger")]  # funded, before blocks are counted
    refused(lambda: submit(world.settlement, everybody[0], task, TERMS))
    number = submit(world.settlement, everybody[0], task, TERMS)
    solver = Solver(world.settlement, everybody[1], number, task)
    refused(solver.claim)
    solver, right, _ = solved(world, task, tmp_path, decoy=False)
    verifier, place = committee(world, solver.number, task)[0]
    refused(lambda: verifier.attest(place, bytes(32)))
    monkeypatch.setattr(gas, "MAX_GAS", least - 1)
    solver.claim()
    world.chain.pass_time(TERMS.attest_time + 60)
    solver.disclose(right, None)
    challenger = Challenger(world.settlement, everybody[2], solver.number, task)
    challenger.challenge()  # who is right against such a run proves nothing so large, and is not kept from saying it


def test_a_dry_run_sends_nothing(world: World, task: Task) -> None:
    settlement, wallet = world.settlement, world["submitter"]
    number = submit(settlement, wallet, task, TERMS)
    head, balance = world.chain.block().number, world.chain.balance(wallet.address)
    plan = settlement.plan(wallet, "cancel", "cancel", number)
    assert plan.gas > 21000
    with pytest.raises(RefusedError, match="NotYours"):
        settlement.plan(world["solver"], "cancel", "cancel", number)
    assert settlement.task(number)["state"] == State.POSTED
    assert (head, balance) == (world.chain.block().number - 1, world.chain.balance(wallet.address))  # one: funding


def test_the_contract_keeps_the_floors_of_the_derivation(world: World) -> None:
    """By rules made from the parameters the default terms pass; `withholding` is asked for exactly."""
    p = parameters.Parameters()
    made = Rules(*parameters.rules(p).values())
    lenient = replace(made, stake_ratio=0, min_bond=1, rate=parameters.ONE - 1)  # `withholding` alone is left
    strict, loose = (Settlement.deploy(world["owner of rules"], r) for r in (made, lenient))
    assert accepts(world, strict, p)
    assert not accepts(world, strict, replace(p, stake=parameters.least_stake(p) - 1))
    assert not accepts(world, strict, replace(p, bond=made.min_bond - 1))
    rng = random.Random(1)
    seen = set()
    for _ in range(30):
        q = replace(p, seats=rng.randint(5, 16), fee=rng.randint(1, 4 * 10**17), bounty=rng.randint(1, 10**18))
        edge = parameters.ONE * q.seats * max(q.seat + q.fee, q.bounty) // q.burn
        q = replace(q, stake=edge + rng.choice([-(10**15), 0, 1, 10**15]))
        holds = next(f.holds for f in parameters.all_floors(q) if f.name == "withholding")
        assert accepts(world, loose, q) == holds
        seen.add(holds)
    assert seen == {True, False}


def accepts(world: World, settlement: Settlement, p: parameters.Parameters) -> bool:
    times = (p.clock, 86400, p.attest_time, settlement.rules.min_window, p.challenge_time)
    terms = Terms(p.reward, p.stake, p.fee, p.bounty, p.bond, *times, p.seats)
    try:
        settlement.plan(world["submitter"], "post", "post", bytes(32), 1, astuple(terms), pays=terms.escrow)
    except RefusedError as error:
        if "BelowFloor" not in str(error):
            raise
        return False
    return True

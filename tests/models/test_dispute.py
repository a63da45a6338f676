"""A dispute over real training, from the posted task to the slashed stake, on the chain in this process."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from protocol.pinpoint.cheats import Fault, Forger, forged_run
from settle.games import RULES, TERMS, Embedded, challenged, draw_no_decoy, enroll, new_world, settle

import gensyn_verify as gv
from gensyn_verify.program import ops
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.pinpoint.game import play
from gensyn_verify.protocol.pinpoint.players import Challenger, Solver
from gensyn_verify.protocol.pinpoint.position import Stage, begin
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.settle import roles
from gensyn_verify.settle.settlement import Outcome
from tests.models.zoo import TASKS

STEPS, INTERVAL = 8, 4


@pytest.mark.parametrize(("name", "closes"), [("gpt", False), ("resnet20", True)])
def test_one_bit_of_one_moment_costs_the_stake(name: str, closes: bool, tmp_path: Path) -> None:
    """At a random step that closes an interval, or at one whose tensors are in no bundle."""
    began = time.monotonic()
    zoo = TASKS[name]
    model, optimizer = zoo.build()
    data = tuple(t[:8] for t in zoo.data())
    task = gv.capture(
        model, zoo.loss, optimizer, data, steps=STEPS, batch_size=2, interval=INTERVAL, path=tmp_path / "task",
        loss_takes_model=True,
    )  # fmt: skip
    rng = np.random.default_rng(sum(name.encode()))
    types = task.program.inputs_of("state")
    moments = [n for n in task.state if n not in model.state_dict() and types[n].shape]
    moment = str(rng.choice(moments))
    step = int(rng.choice([t for t in range(STEPS) if ((t + 1) % INTERVAL == 0) is closes]))
    fault = Fault(step, moment, int(rng.integers(types[moment].elements)), int(rng.integers(32)))

    world = new_world(Embedded())
    enroll(world)
    s, chain = world.settlement, world.chain
    solver = roles.Solver(s, world["solver"], roles.submit(s, world["submitter"], task, TERMS), task)
    solver.claim()
    draw_no_decoy(chain, solver)
    assert not solver.decoy_is_due()
    forged = forged_run(task, tmp_path / "forged", solver.identity, solver.secret("salt"), fault)
    solver.commit(forged, None)
    chain.mine(RULES.delay + 1)
    solver.show(forged)
    verifier = roles.Verifier(s, world["verifier 0"], solver.number, task)
    (place,) = verifier.places()
    finding = verifier.check(forged.url, tmp_path / "own")
    assert not finding.approves
    verifier.attest(place, finding.root)
    chain.pass_time(TERMS.attest_time + 1)
    solver.disclose(forged, None)
    verifier.declare(place, finding.root)

    own = Side(gv.solve(task, tmp_path / "own", identity=Identity.unsigned(verifier.wallet.address)))
    forger = Forger(forged, fault)
    match = challenged(world, solver, Solver(forger), own, "verifier 0").play()
    assert match.solver_won is False
    assert settle(world, solver) == Outcome.OVERTURNED
    assert s.credit(solver.wallet.address) == 0
    assert s.credit(verifier.wallet.address) == TERMS.stake // 2 + TERMS.bond + TERMS.fee

    positions = [p for p, _ in match.game.moves]
    last = positions[-1]
    assert last.stage == Stage.OPERATION_CHOICE  # down to the operation, not to an entry that nobody has
    assert (last.step, last.element) == (step, fault.element)
    leaf = next(p for p in positions if p.stage == Stage.LEAF_CHOICE)
    assert isinstance(task.program.nodes[leaf.place - leaf.inputs].op, ops.Map)
    assert play(begin(task.digest, own.log.root(), STEPS), Solver(own), Challenger(forger)).solver_wins
    print(f"{name}: {len(task.program.nodes)} nodes, {len(positions)} moves, {time.monotonic() - began:.1f} s in all")

"""Attacks carried into a dispute: the referee finds every one wrong, and on a chain the stake is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from settle.games import TERMS, Embedded, challenged, disclosed, enroll, new_world, settle

import gensyn_verify as gv
from attacks.tasks import linear_task
from gensyn_verify.attacks import KINDS, forge
from gensyn_verify.protocol.pinpoint.players import Solver
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.settle.settlement import Outcome

HONEST_BITS = {"copied-run"}  # a right run under another's name: a claim is exclusive, and a commitment has its owner


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, gv.Task, gv.Run]:
    folder = tmp_path_factory.mktemp("dispute")
    task = linear_task(folder / "task")
    return folder, task, gv.solve(task, folder / "victim")


def forged(bench: tuple[Path, gv.Task, gv.Run], kind: str, out: Path) -> gv.Run:
    _, task, victim = bench
    return forge(kind, task, out, victim=victim, seed=1, backend="cpu").run


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_referee_finds_every_attack_wrong(kind: str, bench: tuple[Path, gv.Task, gv.Run], tmp_path: Path) -> None:
    found = gv.pinpoint(forged(bench, kind, tmp_path / kind), bench[2])
    assert found.verdict == ("agree" if kind in HONEST_BITS else "A is wrong"), str(found)


@pytest.mark.parametrize("kind", ["optimizer-injection", "batchnorm-tamper", "order-change"])
def test_on_a_chain_the_attacker_loses_its_stake(
    kind: str, bench: tuple[Path, gv.Task, gv.Run], tmp_path: Path
) -> None:
    """Posted, claimed, disclosed, challenged by who holds an honest run, and played to the last move."""
    _, task, victim = bench
    attacker, honest = Side(forged(bench, kind, tmp_path / kind), "cpu"), Side(victim, "cpu")
    world = new_world(Embedded())
    enroll(world)
    solver = disclosed(world, task, attacker)
    match = challenged(world, solver, Solver(attacker), honest).play()
    if match.solver_won is None:  # the solver has nothing to say that the referee would take
        world.chain.pass_time(TERMS.clock + 1)
        world.settlement.send(world["anyone"], "timeout", "timeout", match.number)
    assert match.solver_won is False
    assert settle(world, solver) is Outcome.OVERTURNED
    assert TERMS.stake > 0
    assert world.settlement.credit(world["solver"].address) == 0
    assert world.settlement.credit(world["challenger"].address) > 0

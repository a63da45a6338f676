"""A settlement on the chain inside of this process, people with money, and a small real task."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from protocol.bundles import linear_task

from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol.task import Task
from gensyn_verify.settle.chain import EmbeddedChain
from gensyn_verify.settle.settlement import Rules, Settlement, Terms
from gensyn_verify.settle.wallet import Key, Wallet

WEI = 10**18
RULES = Rules(10 * WEI, WEI // 10, 2 << 16, 3600, 3600, 32768, 32768, 3, 2)
TERMS = Terms(WEI, 64 * WEI, WEI // 10, WEI, WEI // 5, 86400, 86400, 86400, 7200, 172800, 3)


@dataclass
class World:
    """Names to wallets, made and funded when first asked for."""

    chain: EmbeddedChain
    settlement: Settlement
    wallets: dict[str, Wallet] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Wallet:
        if name not in self.wallets:
            self.wallets[name] = Wallet(self.chain, Key(keccak256(name.encode())))
            if self.chain.balance(self.wallets[name].address) == 0:
                self.chain.fund(self.wallets[name].address, 1000 * WEI)
        return self.wallets[name]


@pytest.fixture(scope="session")
def deployed() -> tuple[World, int]:
    """A settlement with four seats, and a snapshot of its chain."""
    chain = EmbeddedChain()
    owner = Wallet(chain, Key(keccak256(b"owner")))
    chain.fund(owner.address, 1000 * WEI)
    settlement = Settlement.deploy(owner, RULES)
    world = World(chain, settlement)
    for i in range(4):
        settlement.send(world[f"verifier {i}"], "enroll", "enroll", pays=RULES.seat)
    return world, chain.tester.take_snapshot()


@pytest.fixture
def world(deployed: tuple[World, int]) -> World:
    world, snapshot = deployed
    world.chain.tester.revert_to_snapshot(snapshot)
    return World(world.chain, world.settlement)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return linear_task(tmp_path_factory.mktemp("settle") / "task", steps=6, interval=2)

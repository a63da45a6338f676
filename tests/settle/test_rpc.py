"""The commands of the four roles against a node (anvil), by JSON-RPC: a wrong run is overturned, a key is not shown."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from protocol.bundles import linear_task
from settle.conftest import WEI
from settle.node import Anvil, anvil, needs_anvil

from gensyn_verify import cli
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.settle import gas
from gensyn_verify.settle.settlement import Rules, Settlement
from gensyn_verify.settle.wallet import Key, Wallet


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with anvil() as chain:
        yield chain


class Node:
    """A settlement on the node, and `gverify` as somebody."""

    def __init__(self, chain: Anvil, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.chain, self.folder, self.capsys = chain, folder, capsys
        owner = Wallet(chain, self.key("owner"))
        chain.fund(owner.address, 100 * WEI)
        rules = Rules(WEI // 2, WEI // 10, 4 << 16, 3600, 3600, 1, 32768, 3, 2)  # almost never a decoy
        self.settlement = Settlement.deploy(owner, rules)

    def key(self, name: str) -> Key:
        return Key(keccak256(f"{self.folder} {name}".encode()))

    def gverify(self, who: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        key = self.key(who)
        if self.chain.balance(key.address) == 0:
            self.chain.fund(key.address, 100 * WEI)
        os.environ["GVERIFY_KEY"] = key.secret.hex()
        url = self.chain.web3.provider.endpoint_uri
        chain = ["--rpc", url, "--contract", self.settlement.address]
        if arguments[0] != "watch":
            chain += ["--journal", str(self.folder / f"{who}.journal")]
        found = cli.main([*map(str, arguments), *chain, "--json", "--quiet"])
        out, err = self.capsys.readouterr()
        assert key.secret.hex() not in out + err
        assert found == code, out + err
        return dict(json.loads(out)) if out else {}

    def refused(self, who: str, *arguments: object) -> None:
        """A command that would put down money refuses a header that costs too much to prove, and sends nothing."""
        sent = self.chain.nonce(self.key(who).address)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gas, "MAX_GAS", 100_000)
            for more in ((), ("--dry-run",)):
                said = self.gverify(who, *arguments, *more, code=2)
                assert "and a transaction has at most 100000: an honest solver could" in said["error"]["message"]
        assert self.chain.nonce(self.key(who).address) == sent

    def solve_without_decoy(self, who: str, task: Path, out: Path, number: int) -> dict[str, Any]:
        """What `gverify solve --claim` says; where the lot is a decoy, all is taken back for another lot."""
        while True:
            before, existing = self.chain.take_snapshot(), set(self.folder.iterdir())
            solved = self.gverify(who, "solve", task, "--out", out, "--claim", number)
            if not solved["decoy"]:
                return solved
            self.chain.revert_to(before)
            for made in set(self.folder.iterdir()) - existing:
                shutil.rmtree(made) if made.is_dir() else made.unlink()


@needs_anvil
def test_a_forged_run_is_overturned_by_the_commands(
    node: Anvil, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVERIFY_KEY", "")
    path = tmp_path / "task"
    linear_task(path, steps=6, interval=2)
    n = Node(node, tmp_path, capsys)
    verifiers = ["vera", "victor", "viola"]
    for name in verifiers:
        n.gverify(name, "attest", "--enroll")
    terms = ("--seats", 3, "--fee", "0.000004")
    n.refused("submitter", "submit", path, *terms)
    n.gverify("submitter", "submit", path, *terms, "--dry-run")
    assert n.chain.nonce(n.key("submitter").address) == 0
    number = n.gverify("submitter", "submit", path, *terms)["task"]
    assert n.gverify("submitter", "submit", path, *terms)["task"] == number  # the same, not sent again
    n.refused("cheat", "solve", path, "--out", tmp_path / "run", "--claim", number)
    node.ask("evm_setIntervalMining", 1)

    # a solver that shows a run with one bit wrong: the honest command, with one patch
    from gensyn_verify.settle.roles import Solver

    def forge(self: Solver, folder: str) -> Any:
        return self.plant(folder)

    monkeypatch.setattr(Solver, "solve", forge)
    solved = n.solve_without_decoy("cheat", path, tmp_path / "run", number)
    assert solved["state"] == "SHOWN"
    again = n.gverify("cheat", "solve", path, "--out", tmp_path / "run", "--claim", number)
    assert again["state"] == "SHOWN"
    monkeypatch.undo()
    node.ask("evm_setIntervalMining", 0)
    node.ask("evm_setAutomine", True)

    arguments = ("--task", path, "--run", tmp_path / "run")
    n.refused("vera", "attest", number, *arguments)
    n.gverify("vera", "attest", number, *arguments, "--own", tmp_path / "vera", code=1)
    for name in verifiers[1:]:
        n.gverify(name, "attest", number, *arguments, code=1)
    node.pass_time(86401)
    assert n.gverify("cheat", "settle", number, *arguments)["done"] == ["disclosed"]
    for name in verifiers:
        own = ("--own", tmp_path / "vera") if name == "vera" else ()
        n.gverify(name, "attest", number, *arguments, *own, code=1)
    game = {}
    for _ in range(40):
        game = n.gverify("vera", "challenge", number, "--task", path, "--own", tmp_path / "vera")
        if game["over"]:
            break
        done = n.gverify("cheat", "settle", number, *arguments)["done"]
        assert done
    assert game["won"] is True
    node.pass_time(86401)
    closed = n.gverify("anyone", "settle", number)
    assert closed["state"] == "CLOSED"
    events = n.gverify("anyone", "watch", "--depth", 0, "--once")["events"]
    names = [e["event"] for e in events]
    assert names.count("Claimed") == names.count("Committed") == names.count("Shown") == 1
    assert names.count("Attested") == names.count("Declared") == 3
    assert [e["outcome"] for e in events if e["event"] == "Closed"] == [4]
    n.gverify("vera", "settle", number)
    earned = n.chain.balance(n.key("vera").address) - 100 * WEI
    assert 2.4 * WEI < earned < 2.52 * WEI  # half of the stake and a fee, less her seat, which is still put down


@needs_anvil
def test_a_node_that_reorganises_is_followed(node: Anvil, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gensyn_verify.settle.chain import Follower

    n = Node(node, tmp_path, capsys)
    first = n.chain.block().number
    follower = Follower(n.chain, n.settlement.address, first, confirmations=0)
    state = node.ask("evm_snapshot")
    n.gverify("vera", "attest", "--enroll")
    assert [n.settlement.decode(e).name for e in follower.poll()[1]] == ["Enrolled"]
    node.ask("evm_revert", state)
    node.ask("evm_increaseTime", 100)
    for _ in range(3):
        node.ask("evm_mine")
    gone, new = follower.poll()
    assert [n.settlement.decode(e).name for e in gone] == ["Enrolled"]
    assert new == []
    n.gverify("vera", "attest", "--enroll")  # the journal sends the same bytes again
    assert len((tmp_path / "vera.journal").read_text().splitlines()) == 1
    assert [n.settlement.decode(e).name for e in follower.poll()[1]] == ["Enrolled"]

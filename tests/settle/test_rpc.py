"""The commands of the four roles against a node (anvil), by JSON-RPC: a wrong run is overturned, a key is not shown."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from protocol.bundles import linear_task
from settle.conftest import WEI

from gensyn_verify import cli
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.settle.chain import ChainError, RpcChain
from gensyn_verify.settle.settlement import Rules, Settlement
from gensyn_verify.settle.wallet import Key, Wallet

ANVIL = Path(__file__).parents[1] / "contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
FOUND = str(ANVIL) if ANVIL.exists() else shutil.which("anvil")
needs_anvil = pytest.mark.skipif(FOUND is None, reason="anvil is not installed: `make test-contracts` fetches it")


@pytest.fixture(scope="module")
def node() -> Iterator[RpcChain]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([str(FOUND), "--port", str(port), "--silent", "--host", "127.0.0.1"])
    try:
        for _ in range(600):
            try:
                chain = RpcChain(url, poll=0.01)
                break
            except ChainError:
                time.sleep(0.05)
        yield chain
    finally:
        process.terminate()
        process.wait(10)


def ask(chain: RpcChain, method: str, *arguments: Any) -> Any:
    answer = chain.web3.provider.make_request(method, list(arguments))
    assert "error" not in answer, answer
    return answer.get("result")


class Node:
    """A settlement on the node, and `gverify` as somebody."""

    def __init__(self, chain: RpcChain, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.chain, self.folder, self.capsys = chain, folder, capsys
        owner = Wallet(chain, self.key("owner"))
        self.fund(owner.address)
        rules = Rules(WEI // 2, WEI // 10, 4 << 16, 3600, 3600, 1, 32768, 3, 2)  # almost never a decoy
        self.settlement = Settlement.deploy(owner, rules)

    def key(self, name: str) -> Key:
        return Key(keccak256(f"{self.folder} {name}".encode()))

    def fund(self, address: str) -> None:
        ask(self.chain, "anvil_setBalance", address, hex(100 * WEI))

    def later(self, seconds: int) -> None:
        ask(self.chain, "evm_increaseTime", seconds)
        ask(self.chain, "evm_mine")

    def gverify(self, who: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        key = self.key(who)
        if self.chain.balance(key.address) == 0:
            self.fund(key.address)
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


@needs_anvil
def test_a_forged_run_is_overturned_by_the_commands(
    node: RpcChain, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVERIFY_KEY", "")
    path = tmp_path / "task"
    linear_task(path, steps=6, interval=2)
    n = Node(node, tmp_path, capsys)
    verifiers = ["vera", "victor", "viola"]
    for name in verifiers:
        n.gverify(name, "attest", "--enroll")
    terms = ("--seats", 3, "--fee", "0.000004")
    n.gverify("submitter", "submit", path, *terms, "--dry-run")
    assert n.chain.nonce(n.key("submitter").address) == 0
    number = n.gverify("submitter", "submit", path, *terms)["task"]
    assert n.gverify("submitter", "submit", path, *terms)["task"] == number  # the same, not sent again
    ask(node, "evm_setIntervalMining", 1)

    # a solver that shows a run with one bit wrong: the honest command, with one patch
    from gensyn_verify.settle.roles import Solver

    def forge(self: Solver, folder: str) -> Any:
        return self.plant(folder)

    monkeypatch.setattr(Solver, "solve", forge)
    solved = n.gverify("cheat", "solve", path, "--out", tmp_path / "run", "--claim", number)
    assert solved["state"] == "SHOWN"
    assert solved["decoy"] is False
    again = n.gverify("cheat", "solve", path, "--out", tmp_path / "run", "--claim", number)
    assert again["state"] == "SHOWN"
    monkeypatch.undo()
    ask(node, "evm_setIntervalMining", 0)
    ask(node, "evm_setAutomine", True)

    arguments = ("--task", path, "--run", tmp_path / "run")
    n.gverify("vera", "attest", number, *arguments, "--own", tmp_path / "vera", code=1)
    for name in verifiers[1:]:
        n.gverify(name, "attest", number, *arguments, code=1)
    n.later(86401)
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
    n.later(86401)
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
def test_a_node_that_reorganises_is_followed(
    node: RpcChain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gensyn_verify.settle.chain import Follower

    n = Node(node, tmp_path, capsys)
    first = n.chain.block().number
    follower = Follower(n.chain, n.settlement.address, first, confirmations=0)
    state = ask(node, "evm_snapshot")
    n.gverify("vera", "attest", "--enroll")
    assert [n.settlement.decode(e).name for e in follower.poll()[1]] == ["Enrolled"]
    ask(node, "evm_revert", state)
    ask(node, "evm_increaseTime", 100)
    for _ in range(3):
        ask(node, "evm_mine")
    gone, new = follower.poll()
    assert [n.settlement.decode(e).name for e in gone] == ["Enrolled"]
    assert new == []
    n.gverify("vera", "attest", "--enroll")  # the journal sends the same bytes again
    assert len((tmp_path / "vera.journal").read_text().splitlines()) == 1
    assert [n.settlement.decode(e).name for e in follower.poll()[1]] == ["Enrolled"]

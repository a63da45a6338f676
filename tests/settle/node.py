"""A node for the tests: anvil, at a port of this machine, with the time that a test wants."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gensyn_verify.settle.chain import ChainError, RpcChain

ANVIL = Path(__file__).parents[1] / "contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
FOUND = str(ANVIL) if ANVIL.exists() else shutil.which("anvil")
needs_anvil = pytest.mark.skipif(FOUND is None, reason="anvil is not installed: `make test-contracts` fetches it")


class Anvil(RpcChain):
    """What a test asks of its chain beside `Chain`, as `EmbeddedChain` has it."""

    def ask(self, method: str, *arguments: Any) -> Any:
        answer = self.web3.provider.make_request(method, list(arguments))
        assert "error" not in answer, answer
        return answer.get("result")

    def fund(self, address: str, amount: int) -> None:
        self.ask("anvil_setBalance", address, hex(self.balance(address) + amount))

    def mine(self, blocks: int) -> None:
        self.ask("anvil_mine", hex(blocks))

    def next_block_at(self, timestamp: int) -> None:
        self.ask("evm_setNextBlockTimestamp", timestamp)

    def pass_time(self, seconds: int) -> None:
        self.ask("evm_increaseTime", seconds)
        self.mine(1)

    def take_snapshot(self) -> Any:
        return self.ask("evm_snapshot")

    def revert_to(self, snapshot: Any) -> None:
        self.ask("evm_revert", snapshot)


@contextmanager
def anvil() -> Iterator[Anvil]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([str(FOUND), "--port", str(port), "--silent", "--host", "127.0.0.1"])
    try:
        for _ in range(600):
            try:
                chain = Anvil(f"http://127.0.0.1:{port}", poll=0.01)
                break
            except ChainError:
                time.sleep(0.05)
        yield chain
    finally:
        process.terminate()
        process.wait(10)

"""A chain, as much of it as a settlement needs: one small interface, two implementations.

EmbeddedChain   an EVM inside of this process (eth-tester, py-evm): mines a block a transaction, time is set by hand
RpcChain        a node, by JSON-RPC (web3.py)

Follower        events in order, confirmed, and taken back where the chain was reorganised
"""

from __future__ import annotations

import ast
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gensyn_verify.errors import GensynVerifyError

Log = Mapping[str, Any]
MAX_GAS = 1 << 24  # of a transaction: EIP-7825


class ChainError(GensynVerifyError):
    """A node that cannot be reached, a transaction that cannot be sent or was dropped."""

    exit_code = 3


class RevertedError(GensynVerifyError):
    """A contract refused a call; `data` is what it said (a custom error's selector and arguments)."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


@dataclass(frozen=True)
class Block:
    """`timestamp` in seconds since 1970."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int


@dataclass(frozen=True)
class Call:
    """A call of `sender`; an empty `to` creates a contract."""

    sender: str
    to: str
    data: bytes
    value: int = 0

    def fields(self) -> dict[str, Any]:
        to = {"to": self.to} if self.to else {}
        return {"from": self.sender, "data": "0x" + self.data.hex(), "value": self.value, **to}


class Chain(Protocol):
    """What both implementations give. Addresses are checksummed hex, hashes 32 bytes, amounts in wei."""

    web3: Any
    chain_id: int

    def block(self, number: int | None = None) -> Block:
        """A block, by default the latest. Raises ChainError where there is none."""

    def call(self, call: Call) -> bytes:
        """What a call would return now. Raises RevertedError."""

    def estimate(self, call: Call) -> int:
        """Gas that a call would take now. Raises RevertedError."""

    def fees(self) -> tuple[int, int]:
        """(fee, tip) a gas that get a transaction mined soon, in wei."""

    def nonce(self, address: str) -> int:
        """Transactions of `address` that are mined."""

    def balance(self, address: str) -> int: ...

    def send(self, raw: bytes) -> None:
        """Give a signed transaction to the network; one that it has already is no error."""

    def receipt(self, hash: bytes) -> Mapping[str, Any] | None:
        """Receipt of a transaction that is mined."""

    def logs(self, address: str, first: int, last: int) -> Sequence[Log]:
        """Events of a contract in blocks first to last, in order."""

    def wait(self) -> None:
        """Let some time pass for the network."""


class _Web3Chain:
    def __init__(self, web3: Any) -> None:
        self.web3 = web3
        self.chain_id = int(self._ask(lambda: web3.eth.chain_id))

    def _ask(self, question: Any) -> Any:
        from requests.exceptions import RequestException
        from web3.exceptions import Web3Exception

        try:
            return question()
        except (RequestException, OSError) as error:
            raise ChainError(f"the node does not answer: {type(error).__name__}") from None
        except Web3Exception as error:
            if (data := revert_data(error)) is not None:
                raise RevertedError("the contract refused the call", data) from None
            raise ChainError(f"the node refused: {error}") from None
        except Exception as error:
            if (data := revert_data(error)) is not None:
                raise RevertedError("the contract refused the call", data) from None
            raise

    def block(self, number: int | None = None) -> Block:
        from web3.exceptions import BlockNotFound

        try:
            b = self._ask(lambda: self.web3.eth.get_block("latest" if number is None else number))
        except BlockNotFound:  # pragma: no cover - a Web3Exception, so already a ChainError
            raise ChainError(f"there is no block {number}") from None
        return Block(int(b["number"]), bytes(b["hash"]), bytes(b["parentHash"]), int(b["timestamp"]))

    def call(self, call: Call) -> bytes:
        return bytes(self._ask(lambda: self.web3.eth.call(call.fields())))

    def estimate(self, call: Call) -> int:
        return int(self._ask(lambda: self.web3.eth.estimate_gas(call.fields())))

    def fees(self) -> tuple[int, int]:
        base = int(self._ask(lambda: self.web3.eth.get_block("latest")).get("baseFeePerGas", 0))
        tip = 10**9
        return 2 * base + tip, tip

    def nonce(self, address: str) -> int:
        return int(self._ask(lambda: self.web3.eth.get_transaction_count(address, "latest")))

    def balance(self, address: str) -> int:
        return int(self._ask(lambda: self.web3.eth.get_balance(address)))

    def send(self, raw: bytes) -> None:
        try:
            self._ask(lambda: self.web3.eth.send_raw_transaction(raw))
        except (ChainError, ValueError) as error:
            known = ("already known", "already imported", "nonce too low", "known transaction", "invalid nonce")
            if not any(k in str(error).lower() for k in known):  # whether it was mined, the receipt says
                raise

    def receipt(self, hash: bytes) -> Mapping[str, Any] | None:
        from web3.exceptions import TransactionNotFound

        def ask() -> Any:
            try:
                return self.web3.eth.get_transaction_receipt(hash)
            except TransactionNotFound:
                return None

        found: Mapping[str, Any] | None = self._ask(ask)
        return found if found is not None and found["blockNumber"] is not None else None

    def logs(self, address: str, first: int, last: int) -> Sequence[Log]:
        found = self._ask(lambda: self.web3.eth.get_logs({"address": address, "fromBlock": first, "toBlock": last}))
        return sorted(found, key=lambda x: (x["blockNumber"], x["logIndex"]))


class RpcChain(_Web3Chain):
    """A node at an HTTP(S) address."""

    def __init__(self, url: str, poll: float = 1.0) -> None:
        from web3 import HTTPProvider, Web3

        self._poll = poll
        super().__init__(Web3(HTTPProvider(url, request_kwargs={"timeout": 30})))

    def wait(self) -> None:
        time.sleep(self._poll)


class EmbeddedChain(_Web3Chain):
    """An EVM in this process: nothing listens, nothing is kept."""

    def __init__(self) -> None:
        from eth_tester import EthereumTester, PyEVMBackend
        from web3 import EthereumTesterProvider, Web3

        self.tester = EthereumTester(PyEVMBackend())
        self._faucet = 0
        super().__init__(Web3(EthereumTesterProvider(self.tester)))

    def estimate(self, call: Call) -> int:
        """What any transaction may take: finding less would execute the call some twenty times."""
        self.call(call)
        return MAX_GAS

    def wait(self) -> None:
        self.mine(1)

    def mine(self, blocks: int) -> None:
        self.tester.mine_blocks(blocks)

    def pass_time(self, seconds: int) -> None:
        """The next block is mined so much later than the latest."""
        self.tester.time_travel(self.block().timestamp + seconds)

    def fund(self, address: str, amount: int) -> None:
        """Ether from nowhere."""
        accounts = self.tester.get_accounts()
        self._faucet = (self._faucet + 1) % len(accounts)
        self.web3.eth.send_transaction({"from": accounts[self._faucet], "to": address, "value": amount})


def revert_data(error: BaseException) -> bytes | None:
    """What a contract reverted with, from whatever a node's client raises; None where it is no revert."""
    for item in (getattr(error, "data", None), *error.args):
        data = item.get("data") if isinstance(item, Mapping) else item
        if isinstance(data, BaseException):
            return revert_data(data)
        if isinstance(data, bytes):
            return data
        if isinstance(data, str) and data.startswith("0x"):
            with contextlib.suppress(ValueError):
                return bytes.fromhex(data[2:])
        if isinstance(data, str) and data.endswith(("'", '"')):  # eth-tester: "execution reverted: b'...'"
            with contextlib.suppress(ValueError, SyntaxError):
                return bytes(ast.literal_eval(data.removeprefix("execution reverted: ")))
    reverted = "revert" in str(error).lower() or type(error).__name__ == "TransactionFailed"
    return b"" if reverted else None


@dataclass
class Follower:
    """Events of a contract as the chain confirms them.

    `confirmations`: blocks that must lie on top of one before its events count. Hashes of what was read are kept for
    `memory` blocks; where one is no longer the chain's, what it and its successors said is taken back. Deeper than
    that raises ChainError.
    """

    chain: Chain
    address: str
    first: int = 0
    confirmations: int = 6
    memory: int = 4096

    def __post_init__(self) -> None:
        self._next = self.first
        self._read: list[tuple[int, bytes, list[Log]]] = []  # (last block of a stretch, its hash, events)
        self._forgotten = False

    def poll(self) -> tuple[list[Log], list[Log]]:
        """(events taken back, latest first; events that are new, in order) since the last call."""
        gone: list[Log] = []
        head = self.chain.block().number
        while self._read and not self._stands(self._read[-1], head):
            gone += reversed(self._read.pop()[2])
            if not self._read and self._forgotten:
                raise ChainError(f"the chain was reorganised below block {self._next}: more than {self.memory} blocks")
            self._next = self._read[-1][0] + 1 if self._read else self.first
        last = head - self.confirmations
        if last < self._next:
            return gone, []
        hash = self.chain.block(last).hash
        new = list(self.chain.logs(self.address, self._next, last))
        if self.chain.block(last).hash != hash:  # reorganised while it was read: another time
            return gone, []
        self._read.append((last, hash, new))
        self._next = last + 1
        while len(self._read) > 1 and self._read[0][0] < last - self.memory:
            self._read.pop(0)
            self._forgotten = True
        return gone, new

    def _stands(self, stretch: tuple[int, bytes, list[Log]], head: int) -> bool:
        return stretch[0] <= head and self.chain.block(stretch[0]).hash == stretch[1]

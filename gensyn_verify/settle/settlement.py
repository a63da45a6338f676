"""The settlement contract from Python: its messages, its seals, what it says (docs/settlement.md).

Reading needs a chain; writing needs a wallet, and every message is an intent of it, so that it is sent once however
often it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

from gensyn_verify.errors import MalformedError
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol.pinpoint import position as game_rules
from gensyn_verify.protocol.pinpoint.position import Position, Stage
from gensyn_verify.settle import artifacts
from gensyn_verify.settle.chain import Call, Chain, RevertedError
from gensyn_verify.settle.wallet import Plan, Wallet

ETHER = "0x0000000000000000000000000000000000000000"
BURN = "0x000000000000000000000000000000000000dEaD"
WHOLE_LOG = 2**256 - 1


def _function(name: str, inputs: Sequence[str], output: str) -> dict[str, Any]:
    """The ABI of a function."""
    takes = [{"type": t, "name": ""} for t in inputs]
    gives = [{"type": output, "name": ""}]
    return {"type": "function", "name": name, "stateMutability": "nonpayable", "inputs": takes, "outputs": gives}


_ERC20 = [
    _function("approve", ["address", "uint256"], "bool"),
    _function("allowance", ["address", "address"], "uint256"),
    _function("balanceOf", ["address"], "uint256"),
]
_TRANSFER_FAILED = keccak256(b"TransferFailed()")[:4]


class State(IntEnum):
    NONE, POSTED, CLAIMED, COMMITTED, SHOWN, DISCLOSED, CLOSED = range(7)


class Outcome(IntEnum):
    CANCELLED, VOID, EXPIRED, EXPOSED, OVERTURNED, PAID = range(6)


class Stand(IntEnum):
    ABSENT, SEALED, RIGHT, DECOY, OTHER = range(5)


@dataclass(frozen=True)
class Rules:
    """What a deployment fixes. Amounts in wei, times in seconds, shares and ratios in units of 2^-16."""

    seat: int
    min_bond: int
    stake_ratio: int
    min_clock: int
    min_window: int
    rate: int
    burn: int
    min_seats: int
    delay: int


@dataclass(frozen=True)
class Terms:
    """What a submitter chooses. Amounts in wei, times in seconds."""

    reward: int
    stake: int
    fee: int
    bounty: int
    bond: int
    clock: int
    solve_time: int
    attest_time: int
    disclose_time: int
    challenge_time: int
    seats: int

    @property
    def escrow(self) -> int:
        return self.reward + self.seats * (self.fee + self.bounty)


class Event(NamedTuple):
    """An event of the contract."""

    name: str
    values: Mapping[str, Any]
    block: int


class RefusedError(MalformedError):
    """The contract refused a message; the text names its error and the error's arguments."""


class Game(NamedTuple):
    """A game as the contract has it, and its position, played again from the moves."""

    number: int
    task: int
    challenger: str
    over: bool
    position: Position
    moves: Sequence[tuple[Position, bytes]]  # in order, each with the position that it was made in


# ---- seals ------------------------------------------------------------------------------------------------------


def chance_seal(digest: bytes, task: int, solver: str, r: bytes) -> bytes:
    return keccak256(b"gensyn_verify.chance.1" + digest + task.to_bytes(32, "big") + _address(solver) + r)


def truth_seal(r: bytes, commitment: bytes) -> bytes:
    return keccak256(b"gensyn_verify.truth.1" + r + commitment)


def attestation_seal(digest: bytes, task: int, verifier: str, salt: bytes, root: bytes) -> bytes:
    number = task.to_bytes(32, "big")
    return keccak256(b"gensyn_verify.attestation.1" + digest + number + _address(verifier) + salt + root)


def decoy_is_due(r: bytes, chance: bytes, rate: int) -> bool:
    return int.from_bytes(keccak256(r + chance)[-2:], "big") < rate


def _address(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


class Settlement:
    """A deployed contract."""

    def __init__(self, chain: Chain, address: str) -> None:
        self.chain, self.address = chain, address
        self.contract = chain.web3.eth.contract(address=address, abi=artifacts.load("Settlement")["abi"])
        self._games: dict[int, tuple[int, list[Event]]] = {}  # first block that is not read, events before it

    @staticmethod
    def deploy(wallet: Wallet, rules: Rules, *, asset: str = ETHER, guardian: str = BURN) -> Settlement:
        """Referee and settlement, new on the wallet's chain."""
        referee = create(wallet, "Referee", create(wallet, "StepVerifier"))
        return Settlement(wallet.chain, create(wallet, "Settlement", referee, asset, guardian, astuple(rules)))

    # ---- reading ------------------------------------------------------------------------------------------------

    def ask(self, name: str, *arguments: Any) -> Any:
        """A view function: its value; structs as dictionaries by field."""
        from web3.utils.abi import get_abi_element

        function = getattr(self.contract.functions, name)(*arguments)
        value = function.call()
        outputs = get_abi_element(self.contract.abi, name)["outputs"]  # type: ignore[typeddict-item]
        return _named(outputs[0], value)

    @cached_property
    def rules(self) -> Rules:
        return Rules(*self.ask("rules").values())

    @cached_property
    def asset(self) -> str:
        return str(self.ask("ASSET"))

    def task(self, number: int) -> dict[str, Any]:
        """Fields of the contract's Task; raises MalformedError where there is none."""
        found: dict[str, Any] = self.ask("task", number)
        if found["state"] == State.NONE:
            raise MalformedError(f"{self.address} has no task {number}")
        return found

    def juror(self, task: int, place: int) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("juror", task, place)
        return found

    def credit(self, address: str) -> int:
        return int(self.ask("credit", address))

    def decode(self, log: Mapping[str, Any]) -> Event:
        """An event from a log of the contract."""
        for event in self.contract.events:
            instance = event()
            if log["topics"] and bytes(log["topics"][0]) == bytes.fromhex(instance.topic.removeprefix("0x")):
                decoded = instance.process_log(log)
                return Event(decoded["event"], dict(decoded["args"]), int(log["blockNumber"]))
        raise MalformedError(f"{self.address} has emitted something that is no event of a settlement")

    def events(self, *names: str, first: int = 0) -> list[Event]:
        """All events of these names (default: all) from block `first` to the latest."""
        last = self.chain.block().number
        logs = self.chain.logs(self.address, first, last) if first <= last else []
        found = [self.decode(log) for log in logs]
        return [e for e in found if not names or e.name in names]

    def game(self, number: int) -> Game:
        """A game with its position, which follows from the moves. What was read of it before is not read again."""
        g = self.ask("game", number)
        if not g["task"]:
            raise MalformedError(f"{self.address} has no game {number}")
        t = self.task(g["task"])
        for first, read in (self._games.get(number, (0, [])), (0, [])):  # all of it, where the chain was reorganised
            head = self.chain.block().number
            events = [*read, *self.events("Challenged", "Moved", first=first)]
            events = [e for e in events if e.values["game"] == number]
            found = _played(t, events)
            if found is not None and found[0].hash == bytes(g["position"]):
                self._games[number] = head + 1, [e for e in events if e.block <= head]
                return Game(number, g["task"], g["challenger"], g["over"], *found)
        raise MalformedError(f"game {number}: its moves do not lead to the position that the contract has")

    # ---- writing ------------------------------------------------------------------------------------------------

    def send(self, wallet: Wallet, intent: str, name: str, *arguments: Any, pays: int = 0) -> Mapping[str, Any]:
        """Send a message. `pays`: of the asset; a token is approved first. Raises RefusedError."""
        intent, data = f"{self.address} {intent}", self._data(name, arguments)
        if not wallet.journal.of(intent):  # else it was approved before that was signed
            self._approve(wallet, self._approvals(wallet, name, data, pays))
        try:
            return wallet.send(intent, self.address, data, self._value(pays))
        except RevertedError as error:
            raise self._refused(name, error) from None

    def plan(self, wallet: Wallet, intent: str, name: str, *arguments: Any, pays: int = 0) -> Plan:
        """What `send` would send first, an approval where one is needed; nothing is sent."""
        data = self._data(name, arguments)
        for approval in self._approvals(wallet, name, data, pays):
            return wallet.plan(f"{intent} approve", self.asset, approval)
        try:
            return wallet.plan(intent, self.address, data, self._value(pays))
        except RevertedError as error:
            raise self._refused(name, error) from None

    def _approve(self, wallet: Wallet, approvals: Sequence[bytes]) -> None:
        for approval in approvals:
            # The nonce tells one approval from the next: the same may be needed again.
            intent = f"{self.address} approve {approval.hex()} {self.chain.nonce(wallet.address)}"
            try:
                wallet.send(intent, self.asset, approval)
            except RevertedError as error:
                raise self._refused(f"payment, for the token {self.asset} refuses approve", error) from None

    def _value(self, pays: int) -> int:
        return pays if self.asset == ETHER else 0

    def _approvals(self, wallet: Wallet, name: str, data: bytes, pays: int) -> list[bytes]:
        """Calls of the token without which a message would not be paid: none where it is refused for another reason."""
        if not pays or self.asset == ETHER:
            return []
        try:
            self.chain.call(Call(wallet.address, self.address, data))
        except RevertedError as error:
            if error.data != _TRANSFER_FAILED:
                raise self._refused(name, error) from None
        else:
            return []
        token = self.chain.web3.eth.contract(address=self.asset, abi=_ERC20)
        has = token.functions.balanceOf(wallet.address).call()
        if has < pays:
            raise RefusedError(f"{name} takes {pays} of the token {self.asset}; {wallet.address} has {has}")
        allowed = token.functions.allowance(wallet.address, self.address).call()
        amounts = [0, pays] if allowed else [pays]  # many tokens refuse to go from one amount to another
        return [_bytes(token.encode_abi("approve", [self.address, amount])) for amount in amounts]

    def _data(self, name: str, arguments: Sequence[Any]) -> bytes:
        return _bytes(self.contract.encode_abi(name, list(arguments)))

    def would_accept(self, wallet: Wallet, name: str, *arguments: Any) -> bool:
        """Whether a message that pays nothing would go through now."""
        try:
            self.chain.call(Call(wallet.address, self.address, self._data(name, arguments)))
        except RevertedError:
            return False
        return True

    def _refused(self, name: str, error: RevertedError) -> RefusedError:
        from eth_abi.abi import decode

        for item in self.contract.abi:
            if item["type"] != "error":
                continue
            types = [i["type"] for i in item["inputs"]]
            if keccak256(f"{item['name']}({','.join(types)})".encode())[:4] == error.data[:4]:
                values = decode(types, error.data[4:])
                named = (f"{i['name']} {_shown(v)}" for i, v in zip(item["inputs"], values, strict=True))
                said = f"{item['name']}({', '.join(named)})"
                return RefusedError(f"the contract refuses {name}: {said}")
        said = "0x" + error.data[:100].hex() if error.data else "it gave no reason"
        return RefusedError(f"the contract refuses {name}: {said}")


def _played(task: Mapping[str, Any], events: Sequence[Event]) -> tuple[Position, list[tuple[Position, bytes]]] | None:
    """Position and moves of a game; None where there is none, or these are not its moves in order."""
    position, moves = None, []
    try:
        for e in events:
            if e.name == "Challenged":
                step = None if e.values["step"] == WHOLE_LOG else int(e.values["step"])
                position = game_rules.begin(bytes(task["digest"]), bytes(task["right"]), task["steps"], step)
            elif position is not None:
                moves.append((position, bytes(e.values["move"])))
                position = game_rules.advance(*moves[-1])
    except game_rules.IllegalMoveError:
        return None
    return None if position is None else (position, moves)


def create(wallet: Wallet, name: str, *arguments: Any) -> str:
    """Deploy a contract of `artifacts`; its address."""
    artifact = artifacts.load(name)
    contract = wallet.chain.web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
    data = _bytes(contract.constructor(*arguments).data_in_transaction)
    return str(wallet.send(f"create {name} {keccak256(data).hex()[:16]}", "", data)["contractAddress"])


def _named(output: Mapping[str, Any], value: Any) -> Any:
    """Tuples of the ABI as dictionaries."""
    if output["type"] == "tuple":
        return {c["name"]: _named(c, v) for c, v in zip(output["components"], value, strict=True)}
    if output["type"] == "tuple[]":
        return [_named({**output, "type": "tuple"}, v) for v in value]
    return value


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        return text.decode() if text and text.isascii() and text.decode().isprintable() else "0x" + value.hex()
    return str(value)


__all__ = ["Outcome", "Rules", "Settlement", "Stage", "Stand", "State", "Terms", "create"]

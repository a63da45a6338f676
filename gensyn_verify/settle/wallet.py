"""A key, and a journal that sees to it that nothing is sent twice.

Every transaction belongs to an *intent*, a name that says what it is for ("claim 3"). Its signed bytes are on the disk
before they are sent. Whoever asks for the same intent again, after a crash at any instant, gets the receipt of the same
transaction, or sends the same bytes again. A transaction that waits too long is replaced under its nonce, so that one
of the two can be mined and never both.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gensyn_verify.errors import MalformedError
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.settle.chain import MAX_GAS, Call, Chain, ChainError

KEY_VARIABLE, PASSWORD_VARIABLE = "GVERIFY_KEY", "GVERIFY_PASSWORD"
GAS_MARGIN = 1.25
RAISE = 1.3  # fee of a replacement, times that of what it replaces; nodes want 1.1
FEES = ("maxFeePerGas", "maxPriorityFeePerGas")
PATIENCE = 20  # waits until a transaction is replaced


@dataclass(frozen=True)
class Key:
    """A private key; never shown."""

    secret: bytes = field(repr=False)

    @property
    def address(self) -> str:
        from eth_account import Account

        return str(Account.from_key(self.secret).address)

    def derive(self, *parts: bytes) -> bytes:
        """32 bytes that only this key gives, the same every time: secrets that need not be kept."""
        return keccak256(b"gensyn_verify.secret.1" + self.secret + b"".join(keccak256(p) for p in parts))


def load_key(keystore: str | os.PathLike[str] | None = None, environment: Mapping[str, str] | None = None) -> Key:
    """From a keystore file (its password from GVERIFY_PASSWORD, else asked for), or from GVERIFY_KEY, in hex."""
    from eth_account import Account

    env = os.environ if environment is None else environment
    if keystore is None:
        text = env.get(KEY_VARIABLE, "")
        if not text:
            raise MalformedError(f"no key: give --keystore FILE, or put the private key in {KEY_VARIABLE}")
        try:
            return _checked(bytes.fromhex(text.strip().removeprefix("0x")))
        except ValueError:
            raise MalformedError(f"{KEY_VARIABLE} holds no private key: 32 bytes in hex expected") from None
    password = env.get(PASSWORD_VARIABLE)
    if password is None:
        from getpass import getpass

        password = getpass(f"password of {os.fspath(keystore)}: ")
    try:
        with open(keystore, encoding="utf-8") as file:
            return _checked(bytes(Account.decrypt(json.loads(file.read(1 << 16)), password)))
    except (ValueError, TypeError, KeyError):
        raise MalformedError(f"{os.fspath(keystore)} is no keystore, or the password is wrong") from None


def _checked(secret: bytes) -> Key:
    if len(secret) != 32:
        raise ValueError
    return Key(secret)


@dataclass(frozen=True)
class Plan:
    """What would be sent, where nothing is (--dry-run)."""

    intent: str
    call: Call
    gas: int
    fee: int


class Journal:
    """Signed transactions by intent: one JSON object a line, flushed before anything is sent. `None`: in memory."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self.next_nonce = 0
        self._file = None
        if path is None:
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "r+b")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChainError(f"{os.fspath(path)}: another process sends from this journal") from None
        data = self._file.read()
        whole, _, torn = data.rpartition(b"\n")
        if torn:  # a line that was being written when the process ended: its transaction was not sent
            self._file.truncate(len(data) - len(torn))
        try:
            for line in whole.splitlines():
                self._take(json.loads(line))
        except (ValueError, KeyError, TypeError):
            raise MalformedError(f"{os.fspath(path)} is no journal of transactions") from None

    def of(self, intent: str) -> list[dict[str, Any]]:
        return self._entries.get(intent, [])

    def add(self, intent: str, fields: Mapping[str, Any], raw: bytes, hash: bytes) -> None:
        """A transaction that is about to be sent."""
        self._write({"intent": intent, "fields": dict(fields), "hash": hash.hex(), "raw": raw.hex()})

    def failed(self, intent: str) -> None:
        """The intent's transaction was mined without effect: another one may be sent."""
        self._write({"intent": intent, "failed": 1})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if "failed" in entry:
            self._entries.pop(str(entry["intent"]), None)
            return
        self._entries.setdefault(str(entry["intent"]), []).append(entry)
        self.next_nonce = max(self.next_nonce, entry["fields"]["nonce"] + 1)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Wallet:
    """Sends transactions of one key on one chain."""

    def __init__(self, chain: Chain, key: Key, journal: Journal | None = None, confirmations: int = 0) -> None:
        self.chain, self.key, self.address = chain, key, key.address
        self.journal = journal or Journal(None)
        self.confirmations = confirmations

    def plan(self, intent: str, to: str, data: bytes, value: int = 0) -> Plan:
        """What `send` would send. Raises RevertedError where the contract would refuse it now."""
        call = Call(self.address, to, data, value)
        return Plan(intent, call, self.chain.estimate(call), self.chain.fees()[0])

    def send(self, intent: str, to: str, data: bytes, value: int = 0) -> Mapping[str, Any]:
        """The receipt of this intent's transaction, which is sent if it was not before.

        Raises RevertedError where the contract refuses (found before sending, if it can be), ChainError where another
        transaction has taken the nonce.
        """
        if not self.journal.of(intent):
            plan = self.plan(intent, to, data, value)
            nonce = max(self.chain.nonce(self.address), self.journal.next_nonce)
            fields = {k: v for k, v in plan.call.fields().items() if k != "from"}
            gas = max(plan.gas, min(int(plan.gas * GAS_MARGIN), MAX_GAS))
            fields |= {"gas": gas, "nonce": nonce, "chainId": self.chain.chain_id, "type": 2}
            self._sign(intent, fields | dict(zip(FEES, self.chain.fees(), strict=True)))
        for waited in range(1, 1 << 30):
            entries = self.journal.of(intent)
            found = [r for e in entries if (r := self.chain.receipt(bytes.fromhex(e["hash"])))]
            if found:
                if found[0]["blockNumber"] + self.confirmations <= self.chain.block().number:
                    return self._succeeded(intent, found[0])
            elif self.chain.nonce(self.address) > entries[0]["fields"]["nonce"]:
                if not any(self.chain.receipt(bytes.fromhex(e["hash"])) for e in entries):
                    raise ChainError(f"{intent}: another transaction of {self.address} took its nonce")
            else:
                if waited % PATIENCE == 0:
                    self._replace(intent, entries[-1]["fields"])
                self.chain.send(bytes.fromhex(self.journal.of(intent)[-1]["raw"]))
                if self.chain.receipt(bytes.fromhex(self.journal.of(intent)[-1]["hash"])):
                    continue
            self.chain.wait()
        raise AssertionError

    def _sign(self, intent: str, fields: Mapping[str, Any]) -> None:
        from eth_account import Account

        signed = Account.sign_transaction(dict(fields), self.key.secret)
        self.journal.add(intent, fields, bytes(signed.raw_transaction), bytes(signed.hash))

    def _replace(self, intent: str, fields: Mapping[str, Any]) -> None:
        now = dict(zip(FEES, self.chain.fees(), strict=True))
        self._sign(intent, {**fields, **{k: max(int(RAISE * fields[k]) + 1, now[k]) for k in FEES}})

    def _succeeded(self, intent: str, receipt: Mapping[str, Any]) -> Mapping[str, Any]:
        if receipt["status"] != 1:
            self.journal.failed(intent)
            hash = bytes(receipt["transactionHash"]).hex()
            raise ChainError(f"{intent}: transaction 0x{hash} was mined and failed")
        return receipt

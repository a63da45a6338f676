"""Sending once, whatever happens in between; keys that are never shown; reorganisations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gensyn_verify.errors import MalformedError
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.settle.chain import MAX_GAS, Block, ChainError, EmbeddedChain, Follower
from gensyn_verify.settle.wallet import Journal, Key, Wallet, load_key

KEY = Key(keccak256(b"somebody"))
OTHER = Key(keccak256(b"somebody else")).address


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def chain() -> EmbeddedChain:
    chain = EmbeddedChain()
    chain.fund(KEY.address, 10**20)
    return chain


def transfer(chain: EmbeddedChain, journal: Path, intent: str = "pay", value: int = 5) -> Any:
    book = Journal(journal)
    try:
        return Wallet(chain, KEY, book).send(intent, OTHER, b"", value)
    finally:
        book.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_around_sending_never_sends_twice(
    chain: EmbeddedChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    send = chain.send

    def crashing(raw: bytes) -> None:
        if moment == "after":
            send(raw)
        raise Crash

    monkeypatch.setattr(chain, "send", crashing)
    with pytest.raises(Crash):
        transfer(chain, tmp_path / "journal")
    monkeypatch.setattr(chain, "send", send)
    first = transfer(chain, tmp_path / "journal")
    again = transfer(chain, tmp_path / "journal")
    assert first["transactionHash"] == again["transactionHash"]
    assert chain.balance(OTHER) == 5
    assert chain.nonce(KEY.address) == 1


def test_a_crash_while_the_journal_is_written_sends_nothing(chain: EmbeddedChain, tmp_path: Path) -> None:
    transfer(chain, tmp_path / "journal")
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data + b'{"intent": "pay mo')
    transfer(chain, tmp_path / "journal", "pay more", 7)
    assert chain.balance(OTHER) == 12
    assert len((tmp_path / "journal").read_bytes().splitlines()) == 2


def test_intents_get_their_own_nonces(chain: EmbeddedChain, tmp_path: Path) -> None:
    for i in range(3):
        transfer(chain, tmp_path / "journal", f"pay {i}")
    assert chain.nonce(KEY.address) == 3
    assert chain.balance(OTHER) == 15


def test_a_transaction_that_waits_is_replaced_under_its_nonce(
    chain: EmbeddedChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, raws = chain.send, []

    def choosy(raw: bytes) -> None:  # a network that takes nothing below a price
        raws.append(raw)
        if len(set(raws)) > 2:
            send(raw)

    monkeypatch.setattr(chain, "send", choosy)
    receipt = transfer(chain, tmp_path / "journal")
    entries = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert [e["fields"]["nonce"] for e in entries] == [0, 0, 0]
    fees = [e["fields"]["maxFeePerGas"] for e in entries]
    assert fees[0] * 1.1 < fees[1] < fees[2] / 1.1
    assert receipt["status"] == 1
    assert chain.balance(OTHER) == 5


@pytest.mark.parametrize(
    ("needed", "sent"), [(21_000, 26_250), (14_000_000, MAX_GAS), (MAX_GAS, MAX_GAS), (20_000_000, 20_000_000)]
)
def test_the_margin_of_gas_ends_where_transactions_do(
    chain: EmbeddedChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int, sent: int
) -> None:
    monkeypatch.setattr(chain, "estimate", lambda call: needed)
    transfer(chain, tmp_path / "journal")
    entry = json.loads((tmp_path / "journal").read_text())
    assert entry["fields"]["gas"] == sent


def test_a_nonce_that_another_transaction_took_is_an_error(chain: EmbeddedChain, tmp_path: Path) -> None:
    transfer(chain, tmp_path / "one", "pay")
    book = tmp_path / "two"
    wallet = Wallet(chain, KEY, Journal(book))
    fields = {"to": OTHER, "value": 1, "data": "0x", "gas": 21000, "nonce": 0, "chainId": chain.chain_id, "type": 2}
    wallet._sign("pay more", {**fields, "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 1})
    with pytest.raises(ChainError, match="another transaction of"):
        wallet.send("pay more", OTHER, b"", 1)


def test_a_journal_has_one_writer_and_is_private(tmp_path: Path) -> None:
    book = Journal(tmp_path / "journal")
    with pytest.raises(ChainError, match="another process"):
        Journal(tmp_path / "journal")
    book.close()
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600
    (tmp_path / "journal").write_text("what is this\n")
    with pytest.raises(MalformedError, match="no journal"):
        Journal(tmp_path / "journal")


def test_the_key_is_nowhere_to_be_seen(chain: EmbeddedChain, tmp_path: Path) -> None:
    transfer(chain, tmp_path / "journal")
    secret = KEY.secret.hex()
    assert secret not in (tmp_path / "journal").read_text()
    assert secret not in repr(KEY) + repr(Wallet(chain, KEY).__dict__)


def test_keys_come_from_the_environment_or_a_keystore(tmp_path: Path) -> None:
    from eth_account import Account

    assert load_key(environment={"GVERIFY_KEY": "0x" + KEY.secret.hex()}) == KEY
    store = Account.encrypt(KEY.secret, "open sesame", kdf="pbkdf2", iterations=2)
    (tmp_path / "keystore").write_text(json.dumps(store))
    assert load_key(tmp_path / "keystore", {"GVERIFY_PASSWORD": "open sesame"}) == KEY
    with pytest.raises(MalformedError, match="password is wrong"):
        load_key(tmp_path / "keystore", {"GVERIFY_PASSWORD": "close sesame"})
    with pytest.raises(MalformedError, match="32 bytes in hex") as error:
        load_key(environment={"GVERIFY_KEY": KEY.secret.hex()[:-2]})
    assert KEY.secret.hex()[:20] not in str(error.value)
    with pytest.raises(MalformedError, match="no key"):
        load_key(environment={})


class Fork:
    """A chain that can change its mind: blocks as (hash, events)."""

    def __init__(self) -> None:
        self.blocks: list[tuple[str, list[str]]] = [("genesis", [])]

    def block(self, number: int | None = None) -> Block:
        number = len(self.blocks) - 1 if number is None else number
        if number >= len(self.blocks):
            raise ChainError(f"there is no block {number}")
        return Block(number, self.blocks[number][0].encode(), b"", 0)

    def logs(self, address: str, first: int, last: int) -> list[Any]:
        return [{"event": e} for _, events in self.blocks[first : last + 1] for e in events]


def test_events_of_a_block_that_is_gone_are_taken_back() -> None:
    fork = Fork()
    follower = Follower(fork, "0x", confirmations=1)  # type: ignore[arg-type]
    fork.blocks += [("a1", ["one"]), ("a2", ["two"]), ("a3", ["three"])]
    gone, new = follower.poll()
    assert (gone, [e["event"] for e in new]) == ([], ["one", "two"])
    fork.blocks.append(("a4", []))
    assert [e["event"] for e in follower.poll()[1]] == ["three"]
    fork.blocks[3:] = [("b3", ["drei"]), ("b4", []), ("b5", [])]
    gone, new = follower.poll()
    assert [e["event"] for e in gone] == ["three"]
    assert [e["event"] for e in new] == ["drei"]
    fork.blocks[2:] = [("c2", [])]  # shorter than what was read
    gone, new = follower.poll()
    assert [e["event"] for e in gone] == ["drei", "two", "one"]
    assert [e["event"] for e in new] == ["one"]
    assert follower.poll() == ([], [])

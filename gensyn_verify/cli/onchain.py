"""What the commands that talk to a settlement have in common: a node, a contract, a key, a journal."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console

if TYPE_CHECKING:
    from gensyn_verify.settle.settlement import Settlement
    from gensyn_verify.settle.wallet import Wallet

WEI = 10**18


@dataclass(frozen=True)
class Connection:
    """A settlement, and who speaks to it."""

    settlement: Settlement
    wallet: Wallet
    dry_run: bool
    console: Console

    def send(self, intent: str, name: str, *arguments: Any, pays: int = 0) -> Mapping[str, Any] | None:
        """Send a message, or with --dry-run show what would be sent."""
        if self.dry_run:
            plan = self.settlement.plan(self.wallet, intent, name, *arguments, pays=pays)
            what = name if plan.call.to == self.settlement.address else f"approve, then {name}"
            self.console.say(f"would send {what}: {plan.gas} gas at {plan.fee} wei, {pays / WEI:g} ether or tokens")
            return None
        receipt = self.settlement.send(self.wallet, intent, name, *arguments, pays=pays)
        self.console.say(f"sent {name}: transaction 0x{bytes(receipt['transactionHash']).hex()}")
        return receipt


def add_chain_arguments(parser: argparse.ArgumentParser, key: bool = True, required: bool = True) -> None:
    """--rpc and --contract; with `key` also who sends, and how."""
    group = parser.add_argument_group("chain")
    group.add_argument("--rpc", required=required, metavar="URL", help="JSON-RPC address of a node")
    group.add_argument("--contract", required=required, metavar="ADDRESS", help="the settlement contract")
    if not key:
        return
    group.add_argument("--keystore", metavar="FILE", help="encrypted key (default: a key in hex in GVERIFY_KEY)")
    group.add_argument("--journal", metavar="FILE", help="what was sent, so that it is sent once (default: ~/.gverify)")
    group.add_argument(
        "--confirmations", type=int, default=0, metavar="N", help="blocks to wait for after each message"
    )
    group.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")


@contextmanager
def connected(args: argparse.Namespace, console: Console) -> Iterator[Connection]:
    from web3 import Web3

    from gensyn_verify.errors import MalformedError
    from gensyn_verify.settle.chain import RpcChain
    from gensyn_verify.settle.settlement import Settlement
    from gensyn_verify.settle.wallet import Journal, Wallet, load_key

    key = load_key(args.keystore)
    chain = RpcChain(args.rpc)
    if not Web3.is_address(args.contract):
        raise MalformedError(f"--contract {args.contract} is no address")
    name = f"{chain.chain_id}-{chain.block(0).hash.hex()[:16]}-{key.address}.journal"
    journal = Journal(args.journal or Path(os.path.expanduser("~/.gverify")) / name)
    try:
        wallet = Wallet(chain, key, journal, args.confirmations)
        yield Connection(Settlement(chain, Web3.to_checksum_address(args.contract)), wallet, args.dry_run, console)
    finally:
        journal.close()


def ether(text: str) -> int:
    """An amount in ether (or whole tokens of 18 digits) as wei."""
    try:
        value = Decimal(text) * WEI
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount") from None
    if value != int(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is no amount in steps of 10^-18")
    return int(value)

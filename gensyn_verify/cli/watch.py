"""Follow a settlement: events of confirmed blocks, and what was taken back where the chain was reorganised."""

from __future__ import annotations

import argparse

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.onchain import add_chain_arguments

SUMMARY = "follow the events of a settlement contract"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from-block", type=int, default=0, metavar="B", help="default: 0")
    parser.add_argument("--depth", type=int, default=6, metavar="N", help="confirmations before an event is shown (6)")
    parser.add_argument("--once", action="store_true", help="show what there is, and end")
    add_chain_arguments(parser, key=False)


def run(args: argparse.Namespace, console: Console) -> int:
    from web3 import Web3

    from gensyn_verify.settle.chain import Follower, RpcChain
    from gensyn_verify.settle.settlement import Settlement

    chain = RpcChain(args.rpc)
    settlement = Settlement(chain, Web3.to_checksum_address(args.contract))
    follower = Follower(chain, settlement.address, args.from_block, args.depth)
    seen = []
    while True:
        gone, new = follower.poll()
        for mark, logs in (("- ", gone), ("", new)):
            for event in map(settlement.decode, logs):
                values = ", ".join(f"{k} {_shown(v)}" for k, v in event.values.items())
                console.say(f"{mark}{event.block}  {event.name}  {values}")
                seen.append({"block": event.block, "event": event.name, **event.values})
        if args.once:
            break
        chain.wait()
    console.result({"events": seen})
    return 0


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 32 else f"{len(value)} bytes"
    return str(value)

"""`gverify`: parse, call, show. Nothing here decides anything; each command is one call of `gensyn_verify.api`.

console    results on stdout (text, or one JSON document), progress on stderr
demo, demo_settlement, capture, submit, solve, attest, challenge, settle, watch, calibrate, replay, escalate,
pinpoint, attack, simulate, inspect, doctor     one command a file
onchain    what the commands share that talk to a chain
selftest   what `doctor` checks

Exit codes: 0 verified or done, 1 mismatch, 2 usage or malformed input, 3 undecided. Only a command that needs NumPy or
torch imports it, and only once it runs, so `gverify --help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from gensyn_verify.cli.console import Console
from gensyn_verify.errors import GensynVerifyError, MalformedError

COMMANDS = (
    "demo",
    "demo-settlement",
    "capture",
    "submit",
    "solve",
    "attest",
    "challenge",
    "settle",
    "watch",
    "calibrate",
    "replay",
    "escalate",
    "pinpoint",
    "attack",
    "simulate",
    "inspect",
    "doctor",
)
VERIFIED, MISMATCH, MALFORMED, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 130


class UsageError(MalformedError):
    """Arguments that do not fit the command."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that a usage error is shown like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gverify",
        description="Verify machine-learning work done by strangers: capture a PyTorch training step as data, run it\n"
        "with bits that are the same on every machine, commit to the run, replay parts of it.",
        epilog="exit codes: 0 verified or done, 1 mismatch, 2 usage or malformed input, 3 undecided",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gverify {_version()}")
    common = _Parser(add_help=False)
    group = common.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON document on stdout instead of text")
    group.add_argument("--quiet", action="store_true", help="no progress bars on stderr")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"gensyn_verify.cli.{name.replace('-', '_')}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gensyn_verify")
    except PackageNotFoundError:
        return "(source tree, not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Every error is one line (or a JSON object), a traceback only with --debug."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console(json="--json" in arguments, quiet="--quiet" in arguments)
    try:
        args = build_parser().parse_args(arguments)
        code: int = args.run(args, console)
        console.flush()
        return code
    except KeyboardInterrupt:
        console.fail("interrupted", "Interrupted", INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our stdout has left: say nothing more, not even at interpreter exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNDECIDED
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        code, message = explain(error)
        console.fail(message, type(error).__name__, code)
        return code


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error."""
    if isinstance(error, GensynVerifyError):
        return error.exit_code, str(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        extra = _EXTRAS[error.name]
        return MALFORMED, f"this command needs {error.name}: pip install 'gensyn_verify[{extra}]'"
    if isinstance(error, OSError):
        return MALFORMED, str(error)
    if isinstance(error, MemoryError):
        return UNDECIDED, "out of memory"
    return UNDECIDED, f"unexpected {type(error).__name__}: {error} (a defect; --debug shows where)"


_EXTRAS = {"torch": "torch", "sklearn": "demo", "eth_keys": "sign"}
_EXTRAS |= dict.fromkeys(("web3", "eth_tester", "eth_account", "eth"), "settle")

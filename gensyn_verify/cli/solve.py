"""Solve a task: run its steps, keep a checkpoint an interval, commit to every step.

A run that was interrupted goes on from its last whole interval and ends with the same commitment. The commitment
depends on the task, on who solves and on the salt alone; threads, instruction set and backend change no bit. The
exception is backend vendor, stock PyTorch kernels: its bits are this machine's own, for tasks verified by thresholds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.onchain import add_chain_arguments
from gensyn_verify.errors import BackendError, MalformedError

if TYPE_CHECKING:
    from gensyn_verify.protocol.identity import Identity
    from gensyn_verify.protocol.run import Run

SUMMARY = "run a task and commit to the run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task", metavar="TASK", help="folder or URL of the task; or of a recorded run, whose steps are executed again"
    )
    parser.add_argument(
        "--out", required=True, metavar="RUN", help="folder or URL for the run; one that is there is resumed"
    )
    parser.add_argument(
        "--trust-code", metavar="FILE.py:FUNCTION", help="of a recorded run of code: execute this file of yours"
    )
    parser.add_argument("--fresh", action="store_true", help="refuse to resume: RUN must hold no run yet")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--identity", metavar="ADDRESS", help="solver's address, 20 bytes in hex (default: a random one)")
    who.add_argument("--key", metavar="FILE", help="file with the solver's private key in hex: sign the commitment")
    parser.add_argument(
        "--claim", type=int, metavar="N", help="solve task N of a settlement contract: stake, commit, show"
    )
    add_chain_arguments(parser, required=False)
    add_machine_arguments(parser)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say how to run, never what is computed."""
    group = parser.add_argument_group("machine")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--device",
        dest="backend",
        type=device,
        default="cpu",
        metavar="NAME",
        help="cpu (default), cuda, cuda:N, triton, triton:N (NVIDIA or AMD by Triton) or mps: the same bits on each",
    )
    where.add_argument(
        "--backend",
        type=backend,
        default="cpu",
        metavar="NAME",
        help="cuda, triton, metal, reference, or vendor[:DEVICE[:PRECISION]]: stock PyTorch kernels on cpu, cuda or "
        "mps, matrix products in fp32, tf32 (cuda) or bf16; fast, other bits on every machine",
    )
    group.add_argument("--threads", type=positive, metavar="N", help="default: every processor")
    group.add_argument(
        "--isa", choices=("avx512", "avx2", "neon", "portable"), help="instruction set (default: the best there is)"
    )


def apply_machine_arguments(args: argparse.Namespace) -> None:
    from gensyn_verify import _native
    from gensyn_verify.backends import cpu

    if args.isa:
        cpu.select_isa(args.isa)
    if args.threads:
        _native.set_threads(args.threads)
        if args.backend.startswith("vendor") or getattr(args, "trust_code", None):  # PyTorch executes
            import torch

            torch.set_num_threads(args.threads)


def backend(name: str) -> str:
    """An argument that names a backend."""
    from gensyn_verify.backends.names import parse

    try:
        parse(name)
    except BackendError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def device(name: str) -> str:
    """An argument that names a device; the backend that it means."""
    from gensyn_verify.backends.names import of_device

    try:
        return of_device(name)
    except BackendError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def run(args: argparse.Namespace, console: Console) -> int:
    apply_machine_arguments(args)
    from gensyn_verify import api

    if is_run(args.task):
        return _again(args, console)
    task = api.open_task(args.task)
    if args.claim is not None:
        return _claim(args, task, console)
    metrics: Mapping[str, Any] = {}
    with console.progress("solving", task.steps) as advance:

        def progress(done: int, _: int, found: Mapping[str, Any]) -> None:
            nonlocal metrics
            metrics = found
            advance(done)

        finished = api.solve(
            task, args.out, identity=_identity(args), resume=not args.fresh, progress=progress, backend=args.backend
        )
    return _show(finished, {name: float(a) for name, a in metrics.items() if a.ndim == 0}, console)


def is_run(path: str) -> bool:
    """Whether a run lies there, not a task."""
    from gensyn_verify.protocol.folder import open_folder
    from gensyn_verify.protocol.run import RUN_FILE

    return open_folder(path).size(RUN_FILE) is not None


def _again(args: argparse.Namespace, console: Console) -> int:
    """Execute the steps of a recorded run once more."""
    from gensyn_verify import api
    from gensyn_verify.protocol.solve import solve_again

    run = api.open_run(args.task)
    if args.claim is not None or run.task is None:
        raise MalformedError(f"{args.task} is a run: only its steps can be executed again, if it was recorded")
    how = args.backend if args.trust_code is None else api.trusted(args.trust_code, run.task)
    return _show(solve_again(run, args.out, identity=_identity(args), backend=how), {}, console)


def _show(finished: Run, metrics: Mapping[str, float], console: Console) -> int:
    commitment = finished.commitment
    assert commitment is not None
    rows: dict[str, Any] = {
        "run": finished.url,
        "task": finished.header.task,
        "solver": "0x" + finished.header.solver.hex(),
        "signed": bool(commitment.signature),
        "steps": commitment.steps,
        "commitment": commitment.digest,
        "last metrics": metrics,
    }
    console.table([(n, v.hex() if isinstance(v, bytes) else v) for n, v in rows.items()], indent="")
    console.result(rows)
    return 0


def decoy_folder(run: str) -> str:
    """Where `--claim` puts the decoy, beside the run."""
    return run.rstrip("/") + "-decoy"


def _claim(args: argparse.Namespace, task: Any, console: Console) -> int:
    """Claim, solve, commit and show; called again, it goes on where it was."""
    from gensyn_verify.cli.onchain import connected
    from gensyn_verify.settle.roles import Solver
    from gensyn_verify.settle.settlement import State

    if not args.rpc or not args.contract:
        raise MalformedError("--claim needs --rpc and --contract")
    with connected(args, console) as c:
        solver = Solver(c.settlement, c.wallet, args.claim, task)
        if args.dry_run:
            solver.check_provable()
            t = solver.onchain()
            c.send("claim", "claim", args.claim, bytes(32), pays=t["stake"])
            return 0
        chain, delay = c.settlement.chain, c.settlement.rules.delay
        solver.claim()
        while chain.block().number <= solver.onchain()["fixedAt"] + delay:
            chain.wait()
        due = solver.decoy_is_due()
        right = solver.solve(args.out)
        decoy = solver.plant(decoy_folder(args.out)) if due else None
        if solver.onchain()["state"] == State.CLAIMED:
            solver.commit(right, decoy)
        if solver.onchain()["state"] == State.COMMITTED:
            while chain.block().number <= solver.onchain()["fixedAt"] + delay:
                chain.wait()
            solver.show(decoy or right)
        state = State(solver.onchain()["state"])
    shown = (decoy or right).url
    console.say(f"task {args.claim} is {state.name.lower()}; give {shown} to the committee, and keep {right.url}")
    console.say(f"next: gverify settle {args.claim} --task {args.task} --run {args.out}, after the attest time")
    console.result({"task": args.claim, "state": state, "shown": shown, "run": right.url, "decoy": decoy is not None})
    return 0


def _identity(args: argparse.Namespace) -> Identity | None:
    from gensyn_verify.protocol.identity import Identity

    if args.identity:
        return Identity.unsigned(args.identity)
    if not args.key:
        return None
    with open(args.key, encoding="ascii", errors="replace") as file:
        text = file.read(200).strip().removeprefix("0x")
    try:
        return Identity.from_key(bytes.fromhex(text))
    except ValueError:
        raise MalformedError(f"{args.key} holds no private key: 32 bytes in hex expected") from None

"""Show a program file, a task bundle or a run bundle. Reads data, runs nothing."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console
from gensyn_verify.errors import MalformedError

if TYPE_CHECKING:
    from gensyn_verify.program import Program
    from gensyn_verify.protocol.run import Run
    from gensyn_verify.protocol.task import Task

SUMMARY = "show a program, a task or a run as text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a program file, or the folder or URL of a task or a run")
    parser.add_argument("--program", action="store_true", help="for a task: list its program too")
    parser.add_argument("--scalars", action="store_true", help="list the scalar programs of the program's maps too")


def run(args: argparse.Namespace, console: Console) -> int:
    import os

    from gensyn_verify.program.encoding import MAX_PROGRAM_BYTES, decode

    if os.path.isfile(args.path):
        size = os.path.getsize(args.path)
        if size > MAX_PROGRAM_BYTES:
            raise MalformedError(f"{args.path}: {size} bytes; a program has at most {MAX_PROGRAM_BYTES}")
        with open(args.path, "rb") as file:
            program = decode(file.read(), args.path)
        _say_program(console, program, args.scalars)
        console.result({"kind": "program", **describe_program(program)})
        return 0
    return _bundle(args, console)


def _say_program(console: Console, program: Program, scalars: bool) -> None:
    from gensyn_verify.program.listing import listing

    for line in listing(program, scalars):
        console.say(line)


def describe_program(program: Program) -> dict[str, Any]:
    """The program for `--json`: everything the listing shows."""
    return {
        "digest": program.digest,
        "inputs": [{"role": i.role, "name": i.name, "type": str(i.type)} for i in program.inputs],
        "nodes": [
            {
                "kind": node.op.kind,
                "op": type(node.op).__name__.lower(),
                "attributes": {f.name: getattr(node.op, f.name) for f in dataclasses.fields(node.op)},
                "inputs": node.inputs,
                "types": [str(t) for t in node.types],
                "origin": node.origin,
            }
            for node in program.nodes
        ],
        "outputs": [{"role": o.role, "name": o.name, "value": o.value} for o in program.outputs],
        "scalar_programs": len(program.scalar_programs),
    }


def _bundle(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify.protocol.folder import open_folder
    from gensyn_verify.protocol.run import RUN_FILE, open_run
    from gensyn_verify.protocol.task import TASK_FILE, open_task

    folder = open_folder(args.path)
    if folder.size(RUN_FILE) is not None:
        described = describe_run(open_run(args.path))
    elif folder.size(TASK_FILE) is not None:
        task = open_task(args.path)
        described = describe_task(task)
        if args.program:
            console.say(f"task {task.digest.hex()}")
            _say_program(console, task.program, args.scalars)
            console.result({**described, "program": describe_program(task.program)})
            return 0
    else:
        raise MalformedError(f"{args.path} is no program file and holds neither {TASK_FILE} nor {RUN_FILE}")
    console.result(described)
    console.say(f"{described.pop('kind')} {args.path}")
    say_fields(console, described)
    return 0


def say_fields(console: Console, fields: dict[str, Any]) -> None:
    from gensyn_verify.cli.console import plain

    groups = {name: value for name, value in fields.items() if isinstance(value, dict)}
    console.table([(name, plain(value)) for name, value in fields.items() if name not in groups])
    for name, group in groups.items():
        console.say(f"{name}:")
        console.table([(n, plain(v)) for n, v in group.items()])


def describe_task(task: Task) -> dict[str, Any]:
    """What a task binds a solver to."""
    sampler, state = task.sampler, task.program.inputs_of("state")
    tensors = {
        "initial state": (state, task.state),
        "data": (task.data_types, task.data),
        "schedule": (task.schedule_types, task.schedule),
    }
    return {
        "kind": "task",
        "digest": task.digest,
        "program digest": task.program_digest,
        "nodes": len(task.program.nodes),
        **({} if task.program.nodes else {"step": "code, of which the bundle holds the digest alone"}),
        "steps": task.steps if sampler else "as many as a run records",
        "checkpoint interval": task.interval,
        "batch": sampler.batch if sampler else "recorded with the run",
        "rows": sampler.rows if sampler else "recorded with the run",
        "sampler seed": list(sampler.seed) if sampler else "none",
        "policy": f"{task.policy.mode}: {task.policy.samples} sampled intervals, {task.policy.largest} largest updates",
        "state bytes": sum(t.nbytes for t in state.values()),
        **({} if task.policy.thresholds is None else {"thresholds": dataclasses.asdict(task.policy.thresholds)}),
        **{
            what: {n: f"{t!s:16}  {roots[n].hex()}" for n, t in types.items()}
            for what, (types, roots) in tensors.items()
        },
    }


def describe_run(run: Run) -> dict[str, Any]:
    """What a run claims; `replay` says whether it is true."""
    from gensyn_verify.protocol.identity import signer

    described: dict[str, Any] = {
        "kind": "run",
        "task": run.header.task,
        "solver": "0x" + run.header.solver.hex(),
        "steps done": run.steps_done,
        "checkpoints": len(run.intervals),
    }
    if run.commitment is None:
        described |= {"commitment": "none yet: the run is not finished"}
    else:
        signature = run.commitment.signature
        by = signer(run.commitment.digest, signature) if signature else None
        described |= {
            "commitment": run.commitment.digest,
            "root of the steps": run.commitment.root,
            "committed steps": run.commitment.steps,
            "signature": "none"
            if not signature
            else "by the solver"
            if by == run.header.solver
            else "NOT the solver's",
        }
    return {**described, "environment, as the solver states it": run.header.environment}

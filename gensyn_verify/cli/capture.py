"""Turn a PyTorch training step into a task: program, initial state, data, order of batches, schedule.

SOURCE names a function of your own code, as `train.py:build` or `package.module:build`. It takes no argument and
returns (model, loss_fn, optimizer) or (model, loss_fn, optimizer, data), or a dict of these names that may also have
training options: clip_norm, accumulate, ema, scheduler, autocast, loss_scale ... Data are tensors or arrays whose
first dimension counts the examples: (inputs, targets), or one mapping; --data reads them from a .npz file instead, in
the file's order. Your code runs here and now, and nowhere else: the task holds data only.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from contextlib import redirect_stdout
from typing import Any

from gensyn_verify.cli.console import Console
from gensyn_verify.cli.replay import count
from gensyn_verify.cli.solve import positive
from gensyn_verify.errors import CaptureError, GensynVerifyError, MalformedError

SUMMARY = "turn a PyTorch training step into a task"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="FILE.py:FUNCTION or MODULE:FUNCTION")
    parser.add_argument("--out", required=True, metavar="TASK", help="folder or URL for the task; must hold none yet")
    parser.add_argument("--data", metavar="FILE", help=".npz file with the training data")
    parser.add_argument("--steps", type=positive, required=True, metavar="N", help="training steps")
    parser.add_argument("--batch-size", type=positive, required=True, metavar="B", help="examples a step")
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="seed of the order of batches (default: 0)")
    parser.add_argument("--interval", type=positive, metavar="N", help="steps between checkpoints")
    parser.add_argument("--samples", type=count, metavar="K", help="policy: intervals a verifier draws")
    parser.add_argument("--largest", type=count, metavar="K", help="policy: intervals of the largest updates to add")


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify import api
    from gensyn_verify.cli.inspect import describe_task, say_fields
    from gensyn_verify.protocol.policy import Policy

    built = named(args.source, call(args.source))
    if ("data" in built) == bool(args.data):
        raise MalformedError(f"give the data once: as --data, or with what {args.source} returns")
    given = {name: getattr(args, name) for name in ("samples", "largest") if getattr(args, name) is not None}
    interval = {} if args.interval is None else {"interval": args.interval}
    task = api.capture(
        **(built if "data" in built else {**built, "data": read_npz(args.data)}),
        steps=args.steps,
        batch_size=args.batch_size,
        seed=args.seed,
        policy=Policy(**given),
        path=args.out,
        **interval,
    )
    described = describe_task(task)
    console.result({**described, "task": args.out})
    say_fields(console, {"task": args.out, **described})
    return 0


def named(source: str, built: Any) -> dict[str, Any]:
    """What the submitter's function returned, as arguments of `api.capture` by name."""
    from gensyn_verify.frontend.training import Training

    names = ("model", "loss_fn", "optimizer", "data")
    if isinstance(built, tuple) and len(built) in (3, 4):
        return dict(zip(names, built, strict=False))
    options = {"loss_takes_model", *(f.name for f in dataclasses.fields(Training))}
    if not isinstance(built, dict) or not {*names[:3]} <= built.keys() <= {*names, *options}:
        found = f"a dict of {sorted(map(str, built))}" if isinstance(built, dict) else type(built).__name__
        raise CaptureError(
            f"{source} returned {found}; expected (model, loss_fn, optimizer), (model, loss_fn, optimizer, data), or a "
            f"dict with these names and any of {', '.join(sorted(options))}"
        )
    return built


def call(source: str) -> Any:
    """What the submitter's function returns. What it prints goes to stderr: stdout is for results."""
    from gensyn_verify.source import load_function

    with redirect_stdout(sys.stderr):
        try:
            return load_function(source)()
        except GensynVerifyError:
            raise
        except Exception as error:
            raise CaptureError(f"{source} raised {type(error).__name__}: {error}") from error


def read_npz(path: str) -> tuple[Any, ...]:
    """The arrays of a .npz file in the file's order; pickled objects are refused."""
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            return tuple(torch.from_numpy(np.ascontiguousarray(file[name])) for name in file.files)
    except (ValueError, EOFError, KeyError, TypeError) as error:
        raise MalformedError(f"{path} is no .npz file of plain arrays: {error}") from None

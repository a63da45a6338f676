"""The functions of the package's first page. Only `capture`, `compile` and `record_loop` import torch.

capture     a PyTorch training step and its data -> task
solve       task -> run
replay      run -> report
pinpoint    two runs -> where they part, down to one operation
calibrate   a task -> the same task verified by distances, with thresholds from honest replays
escalate    a disputed interval of such a run -> an exact task and a run of it
compile     a training step for a loop of one's own
record      that loop -> run
record_loop a loop whose step cannot be captured -> run
open_task, open_run
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from gensyn_verify.errors import BundleError, CaptureError
from gensyn_verify.protocol import replay as replaying
from gensyn_verify.protocol.calibrate import calibrate
from gensyn_verify.protocol.escalate import escalate
from gensyn_verify.protocol.pinpoint.descent import pinpoint
from gensyn_verify.protocol.policy import Policy
from gensyn_verify.protocol.record import INTERVAL, record
from gensyn_verify.protocol.report import Report
from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, make_task, open_task

if TYPE_CHECKING:
    import torch

    from gensyn_verify.classic import Loop, TrustedCode
    from gensyn_verify.frontend import Step
    from gensyn_verify.frontend.optimizers import Optimizers


def capture(
    model: torch.nn.Module,
    loss_fn: Callable[..., Any],
    optimizer: Optimizers,
    data: Any,
    *,
    steps: int,
    batch_size: int,
    path: str | os.PathLike[str],
    seed: int = 0,
    interval: int = INTERVAL,
    policy: Policy | None = None,
    loss_takes_model: bool = False,
    **training: Any,
) -> Task:
    """A task bundle at `path`: train `model` with `optimizer` on `data` for `steps` steps of `batch_size` rows.

    `data` are tensors or NumPy arrays whose first dimension counts the rows: (inputs, *targets), or any nest of them
    with `loss_takes_model`; or a dataset or path that `gv.data.load` takes. `seed` orders the batches and feeds
    dropout. `interval` is in steps between checkpoints.
    Further keyword arguments are the training options, fields of `gensyn_verify.frontend.Training`: clip_norm,
    norm_type, clip_value, accumulate, ema, scheduler, lr, autocast, loss_scale. Without `scheduler` and `lr` the
    optimizer's rates stay as they are. `optimizer` may be several, of different parameters.
    Model, optimizer and scheduler are read, not changed. Raises CaptureError for what cannot be captured.
    """
    import torch
    from torch.utils import _pytree as pytree

    from gensyn_verify.data import tensors as load_tensors
    from gensyn_verify.frontend import trace_step
    from gensyn_verify.frontend.capture import name_batch
    from gensyn_verify.frontend.tensors import to_array

    data = load_tensors(data)
    names, tensors = name_batch(data)
    rows = _rows(names, tensors)
    if not 1 <= batch_size <= rows:
        raise CaptureError(f"a batch of {batch_size} from {rows} rows of data")
    if not 0 <= seed < 1 << 64:
        raise CaptureError(f"seed {seed} is not from 0 to 2^64 - 1")
    first = torch.from_numpy(Sampler((seed & 0xFFFFFFFF, seed >> 32), rows, batch_size).indices(0))
    example = pytree.tree_map(lambda t: t[first], data)
    captured = trace_step(model, loss_fn, optimizer, example, loss_takes_model=loss_takes_model, seed=seed, **training)
    wanted = captured.program.inputs_of("batch")
    arrays = {n: to_array(t, f"data {n!r}", copy=False) for n, t in zip(names, tensors, strict=True) if n in wanted}
    return make_task(
        captured, arrays, steps=steps, batch_size=batch_size, seed=seed, interval=interval, path=path, policy=policy
    )


def _rows(names: tuple[str, ...], tensors: list[torch.Tensor]) -> int:
    """The common first dimension."""
    shapes = {name: list(t.shape) for name, t in zip(names, tensors, strict=True)}
    found = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(found) != 1:
        raise CaptureError(f"the first dimension of the data must count the rows, one number for all; found {shapes}")
    return int(found.pop())


def compile(
    model: torch.nn.Module,
    loss_fn: Callable[..., Any],
    optimizer: Optimizers,
    **options: Any,
) -> Step:
    """A training step that runs on the engine and trains `model` in place: `loss = step(batch)`.

    Options: those of training as for `capture`, and loss_takes_model, seed, backend as of
    `gensyn_verify.frontend.compile`.
    """
    from gensyn_verify.frontend import compile as frontend_compile

    return frontend_compile(model, loss_fn, optimizer, **options)


def record_loop(
    what: str | Callable[[], tuple[Any, Any, Callable[..., Any]]] | tuple[Any, Any, Callable[..., Any]],
    out: str | os.PathLike[str],
    **options: Any,
) -> AbstractContextManager[Loop]:
    """Record a loop whose step is any Python function: `with record_loop("train.py:build", "run") as loop: ...`.

    Options: interval, seed, ragged, policy, identity, salt, resume, check, as of `gensyn_verify.classic.record_loop`.
    """
    from gensyn_verify.classic import record_loop as classic_record_loop

    return classic_record_loop(what, out, **options)


def replay(
    run: Run | str | os.PathLike[str],
    task: Task | str | os.PathLike[str] | None = None,
    *,
    trust_code: str | None = None,
    **options: Any,
) -> Report:
    """Verify a run of `task`, which recorded runs carry, and say what was found.

    Options: samples, largest, everything, beacon, commitment, solver, backend, progress, as of
    `gensyn_verify.protocol.replay.replay`. A run of `record_loop` needs `trust_code`: "FILE.py:FUNCTION", a file of the
    verifier's own, whose digest must be the one that the run states; it is executed, and the verdict is worth what it
    is. Nothing else is ever executed.
    """
    if trust_code is None:
        return replaying.replay(run, task, **options)
    opened = run if isinstance(run, Run) and task is None else open_run(run.url if isinstance(run, Run) else run, task)
    if opened.task is None:
        raise BundleError(f"{opened.url} does not carry its task: give the task bundle it claims to solve")
    from gensyn_verify.classic.executor import notes

    code = trusted(trust_code, opened.task)
    report = replaying.replay(opened, backend=code, **options)
    return dataclasses.replace(report, notes=(*report.notes, *notes(code.source, opened.header.environment)))


def trusted(trust_code: str, task: Task) -> TrustedCode:
    """A file of one's own, "FILE.py:FUNCTION", as the backend of a run of code; its digest must be the one stated."""
    from gensyn_verify.classic.executor import trust

    return trust(trust_code, task)


__all__ = [
    "calibrate", "capture", "compile", "escalate", "open_run", "open_task", "pinpoint", "record", "record_loop",
    "replay", "solve",
]  # fmt: skip

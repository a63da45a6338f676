"""Verification engine for machine-learning work done by strangers.

    import gensyn_verify as gv

    task = gv.capture(model, loss_fn, optimizer, data, steps=100, batch_size=32, path="task")
    run = gv.solve(task, "run")
    report = gv.replay(run)

A training step becomes a program whose every output bit is defined, a run a chain of commitments, a verdict the
comparison of what was committed with what a replay of sampled intervals gives. The tour, left to right:

program    a training step as data: node kinds, scalar programs, canonical bytes, digest
frontend   a PyTorch model, loss and optimizer become a program
backends   a program in, bits out: the reference (the definition) and the native CPU kernels
commit     BLAKE3 and keccak-256 trees, state roots, the append-only run commitment
protocol   task and run bundles, solve, replay, sampling, thresholds
data       datasets and files as tensors; augment: augmentation inside of the step
classic    runs of steps that are code, and their replay by trusted code
api        the functions of this page
cli        the command line, `gverify`

A training loop of your own: `step = gv.compile(model, loss_fn, optimizer)`, then `loss = step(batch)`, recorded inside
`with gv.record(...)`; one whose step cannot be captured: `gv.record_loop`. Errors derive from `gv.GensynVerifyError`.
Names load on first use, so that `import gensyn_verify` imports neither torch nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gensyn_verify.api import (
        calibrate,
        capture,
        compile,
        escalate,
        open_run,
        open_task,
        pinpoint,
        record,
        record_loop,
        replay,
        solve,
    )
    from gensyn_verify.errors import GensynVerifyError
    from gensyn_verify.program import Program
    from gensyn_verify.protocol.identity import Identity
    from gensyn_verify.protocol.policy import Policy
    from gensyn_verify.protocol.report import Finding, Report, Verdict
    from gensyn_verify.protocol.run import Run
    from gensyn_verify.protocol.task import Task

_HOME = {
    "calibrate": "api",
    "capture": "api",
    "compile": "api",
    "escalate": "api",
    "open_run": "api",
    "open_task": "api",
    "pinpoint": "api",
    "record": "api",
    "record_loop": "api",
    "replay": "api",
    "solve": "api",
    "GensynVerifyError": "errors",
    "Program": "program",
    "Identity": "protocol.identity",
    "Finding": "protocol.report",
    "Report": "protocol.report",
    "Verdict": "protocol.report",
    "Run": "protocol.run",
    "Policy": "protocol.policy",
    "Task": "protocol.task",
}

__all__ = [
    "Finding", "GensynVerifyError", "Identity", "Policy", "Program", "Report", "Run", "Task", "Verdict", "calibrate",
    "capture", "compile", "escalate", "open_run", "open_task", "pinpoint", "record", "record_loop", "replay", "solve",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("augment", "data"):
        return import_module(f"gensyn_verify.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'gensyn_verify' has no attribute {name!r}")
    value = getattr(import_module(f"gensyn_verify.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

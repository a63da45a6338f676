"""Decoys: a run that is wrong on purpose, planted where a lot says so (docs/settlement.md, section 3).

A decoy is a whole bundle with a commitment of its own. Up to one step it is the honest run; there one bit of one
element of the state is flipped, and all that follows is computed from that. A seed says which step, tensor and bit.
"""

from __future__ import annotations

import os

import numpy as np

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import BundleError
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.roots import constants
from gensyn_verify.protocol.run import Run, RunWriter, environment
from gensyn_verify.protocol.task import Task


def plant(
    task: Task, out: str | os.PathLike[str], identity: Identity, seed: bytes, *, salt: bytes, backend: str = "cpu"
) -> Run:
    """A decoy of `task` at `out`, committed to under `salt`. The same seed gives the same decoy."""
    constant = set(constants(task.program))
    names = [n for n, t in task.program.inputs_of("state").items() if n not in constant and t.nbytes]
    if task.recorded or not names:
        raise BundleError("a decoy needs a task with steps, and a state that changes")
    draw = int.from_bytes(keccak256(b"gensyn_verify.decoy.1" + seed), "big")
    draw, fault = divmod(draw, task.steps)
    draw, which = divmod(draw, len(names))
    with RunWriter(task, out, identity, salt=salt, resume=True, environment=environment(backend)) as writer:
        executor = backends.make(backend, task.program)
        executor.load(writer.saved_state())
        for step in range(writer.steps, task.steps):
            batch, scalars = task.batch(step), task.scalars(step)
            metrics = executor.step(batch, scalars)
            if step == fault:
                executor.load({**executor.state(), names[which]: flipped(executor.state()[names[which]], draw)})
            writer.append(executor.state(), batch, scalars, metrics)
        return writer.finish()


def flipped(array: Array, draw: int) -> Array:
    """A copy with one bit of one element other; of a float one of the low mantissa bits, so that it stays finite."""
    out = np.array(array, copy=True)
    raw = out.reshape(-1).view(f"u{out.itemsize}")
    draw, at = divmod(draw, raw.size)
    if out.dtype == np.bool_:
        raw[at] ^= 1
    else:
        raw[at] ^= raw.dtype.type(1 << draw % min(8, 4 * out.itemsize))
    return out

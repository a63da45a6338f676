"""A small training task without torch: least squares with momentum, weight decay by schedule and a running mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gensyn_verify import backends
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.policy import Policy
from gensyn_verify.protocol.run import Run, RunWriter
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.task import Task, write_task

ROWS, BATCH, FEATURES = 50, 8, 6
STEPS, INTERVAL = 40, 7
SALT = bytes(range(32))
SOLVER = Identity.unsigned("0x" + "5a" * 20)
F32 = Dtype.f32


def linear_program() -> Program:
    """State w (weight), m (moment), running (buffer), step; batch x and label; scalar lr; metric loss."""
    g = ProgramBuilder()
    w = g.input("state", "w", TensorType(F32, (FEATURES,)))
    m = g.input("state", "m", TensorType(F32, (FEATURES,)))
    running = g.input("state", "running", TensorType(F32, (FEATURES,)))
    step = g.input("state", "step", TensorType(Dtype.u32, ()))
    x = g.input("batch", "x", TensorType(F32, (BATCH, FEATURES)))
    label = g.input("batch", "label", TensorType(Dtype.u8, (BATCH,)))
    lr = g.input("scalar", "lr", TensorType(F32, ()))
    with g.origin("linear (net.py:7)"):
        predicted = g.reshape(g.dot(x, g.reshape(w, (FEATURES, 1))), (BATCH,))
    error = g.map(lambda p, y: p - y.to(p.reg), predicted, label)
    loss = g.reduce("sum", g.map(lambda e: e * e, error), [0])
    gradient = g.reshape(g.dot(x, g.reshape(error, (BATCH, 1)), transpose_a=True), (FEATURES,))
    moment = g.map(lambda m, d: m * 0.9 + d, m, gradient)
    mean = g.reduce("sum", x, [0])
    g.output("state", "w", g.map(lambda w, m, lr: w - lr * m, w, moment, lr))
    g.output("state", "m", moment)
    g.output("state", "running", g.map(lambda r, s: r * 0.9 + s * 0.0125, running, mean))
    g.output("state", "step", g.map(lambda s: s + 1, step))
    g.output("metric", "loss", loss)
    return g.build()


def initial_state() -> dict[str, np.ndarray]:
    zeros = np.zeros(FEATURES, np.float32)
    return {
        "w": np.arange(FEATURES, dtype=np.float32) / 64,
        "m": zeros,
        "running": zeros,
        "step": np.array(0, np.uint32),
    }


def dataset() -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).normal(size=(ROWS, FEATURES)).astype(np.float32)
    return {"x": x, "label": (x.sum(1) > 0).astype(np.uint8)}


def linear_task(
    path: Path | str,
    *,
    steps: int = STEPS,
    interval: int = INTERVAL,
    seed: tuple[int, int] = (1, 2),
    policy: Policy | None = None,
    data: dict[str, np.ndarray] | None = None,
    lr: np.ndarray | None = None,
) -> Task:
    rate = np.full(steps, 0.002, np.float32) if lr is None else lr
    return write_task(
        path,
        linear_program(),
        initial_state(),
        data=dataset() if data is None else data,
        schedule={"lr": rate},
        sampler=Sampler(seed, ROWS, BATCH),
        steps=steps,
        interval=interval,
        policy=policy,
    )


Patch = Callable[[int, dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]], None]


def dishonest_solve(
    task: Task,
    out: Path,
    before: Patch | None = None,
    after: Patch | None = None,
    steps: int = 0,
    backend: str = "reference",
) -> Run:
    """The honest solver with one patch: `before` and `after` a step may edit state, batch and scalars in place.

    Everything that it commits to is consistent with what it did; `steps` makes it stop early.
    """
    with RunWriter(task, out, SOLVER, salt=SALT, resume=False, environment={}) as writer:
        executor = backends.make(backend, task.program)
        executor.load(task.initial_state())
        for step in range(steps or task.steps):
            batch = {n: a.copy() for n, a in task.batch(step).items()}
            scalars = {n: a.copy() for n, a in task.scalars(step).items()}
            if before is not None:
                before(step, {}, batch, scalars)
            metrics = executor.step(batch, scalars)
            if after is not None:
                state = {n: a.copy() for n, a in executor.state().items()}
                after(step, state, batch, scalars)
                executor.load(state)
            writer.append(executor.state(), batch, scalars, metrics)
        writer.close_interval(executor.state())
        return writer.finish()


def flip(array: np.ndarray, index: int = 0, bit: int = 0) -> None:
    """Flip one bit of one element in place."""
    array.reshape(-1)[index : index + 1].view(np.uint8)[0] ^= 1 << bit

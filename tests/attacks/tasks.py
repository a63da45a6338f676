"""Small tasks with the names that capture gives, for the tests of the zoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.task import Policy, Task, write_task

ROWS, BATCH, FEATURES = 60, 8, 7
STEPS, INTERVAL, SAMPLES = 24, 3, 2
F32 = Dtype.f32


def linear_program() -> Program:
    """Logistic-like regression without torch: a weight, its momentum, a running mean, a step counter."""
    g = ProgramBuilder()
    vector, scalar = TensorType(F32, (FEATURES,)), TensorType(F32, ())
    w = g.input("state", "param.w", vector)
    m = g.input("state", "optim.momentum_buffer.w", vector)
    running = g.input("state", "buffer.norm.running_mean", vector)
    step = g.input("state", "step", TensorType(Dtype.u32, ()))
    x = g.input("batch", "x", TensorType(F32, (BATCH, FEATURES)))
    label = g.input("batch", "y", TensorType(Dtype.i32, (BATCH,)))
    rate = g.input("scalar", "group0.learning_rate", scalar)
    predicted = g.reshape(g.dot(x, g.reshape(w, (FEATURES, 1))), (BATCH,))
    error = g.map(lambda p, y: p - y.to(p.reg), predicted, label)
    loss = g.reduce("sum", g.map(lambda e: e * e, error), [0])
    gradient = g.reshape(g.dot(x, g.reshape(error, (BATCH, 1)), transpose_a=True), (FEATURES,))
    moment = g.map(lambda m, d: m * 0.9 + d * 0.125, m, gradient)
    mean = g.reduce("sum", x, [0])
    g.output("state", "param.w", g.map(lambda w, m, lr: w - lr * m, w, moment, rate))
    g.output("state", "optim.momentum_buffer.w", moment)
    g.output("state", "buffer.norm.running_mean", g.map(lambda r, s: r * 0.9 + s * 0.0125, running, mean))
    g.output("state", "step", g.map(lambda s: s + 1, step))
    g.output("metric", "loss", loss)
    return g.build()


def linear_task(path: Path | str, *, steps: int = STEPS, interval: int = INTERVAL, samples: int = SAMPLES) -> Task:
    random = np.random.default_rng(3)
    x = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    zeros = np.zeros(FEATURES, np.float32)
    return write_task(
        path,
        linear_program(),
        {
            "param.w": random.normal(size=FEATURES).astype(np.float32) / 4,
            "optim.momentum_buffer.w": zeros,
            "buffer.norm.running_mean": zeros,
            "step": np.array(0, np.uint32),
        },
        data={"x": x, "y": (x.sum(1) > 0).astype(np.int32)},
        schedule={"group0.learning_rate": np.full(steps, 0.02, np.float32)},
        sampler=Sampler((5, 6), ROWS, BATCH),
        steps=steps,
        interval=interval,
        policy=Policy(samples=samples, largest=0),
    )

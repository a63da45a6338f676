"""Training tasks that every machine must commit to alike.

`machine` uses every node kind, every dtype and the published functions, and needs no torch: a convolutional and
embedding classifier with dropout, layer normalisation and momentum. Where torch is there, `mlp` and `cnn` are captured
from PyTorch. As a script:

    machine_task.py write FOLDER             the task bundles, one a name
    machine_task.py solve FOLDER [FLAG ...]  solves them all once a flag, and prints the run commitments and the machine
                                             as a line of JSON. Flags: 2 (threads), 2-hostile (the caller flushes
                                             subnormals and rounds toward zero); without flags as the environment says
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.program import Dtype, Program, ProgramBuilder, Reg, Scalar, TensorType, Value, functions
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, open_task, write_task

STEPS, INTERVAL, BATCH, ROWS = 120, 50, 24, 100
SIDE, CHANNELS, WORDS, WORD, CLASSES = 8, 6, 40, 10, 10
FEATURES = CHANNELS * 36 + WORD
SALT = bytes(range(32))
SOLVER = Identity.unsigned("0x" + "a5" * 20)
HOSTILE = 0x7F80 | 0x8040 if platform.machine() in ("x86_64", "AMD64") else 1 << 24 | 3 << 22
F32 = Dtype.f32

STATE = {
    "kernel": TensorType(F32, (CHANNELS, 9)),
    "words": TensorType(Dtype.bf16, (WORDS, WORD)),
    "weight": TensorType(Dtype.f16, (FEATURES, CLASSES)),
    "moment": TensorType(F32, (FEATURES, CLASSES)),
    "kernel_moment": TensorType(F32, (CHANNELS, 9)),
    "gain": TensorType(F32, (FEATURES,)),
    "count": TensorType(Dtype.i32, (CLASSES,)),
    "trend": TensorType(F32, (CLASSES,)),
    "seed": TensorType(Dtype.u32, (2,)),
    "step": TensorType(Dtype.u32, ()),
    "weight8": TensorType(Dtype.i8, (FEATURES, CLASSES)),
}


def gelu(x: Scalar) -> Scalar:
    return x * 0.5 * (functions.erf(x * 0.70710677) + 1.0)


def bend(x: Scalar) -> Scalar:
    """Every other published function in one bounded, smooth curve."""
    f = functions
    waves = f.sin(x) * 0.125 + f.cos(x * 3.0) * 0.0625 + f.tanh(x) * f.sigmoid(x)
    return waves + f.log1p(f.exp(-x.abs())) * 0.25 + f.expm1(-x.abs()) * f.log(x.abs() + 1.0) * 0.125


def normalised(g: ProgramBuilder, x: Value, gain: Value) -> Value:
    n = x.shape[-1]
    mean = g.map(lambda s: s / float(n), g.reduce("sum", x, [1], keepdims=True))
    centred = g.map(lambda a, m: a - m, x, mean)
    squares = g.reduce("sum", g.map(lambda a: a * a, centred), [1], keepdims=True)
    return g.map(lambda a, s, w: a / (s / float(n) + 1e-5).sqrt() * w, centred, squares, gain)


def program() -> Program:
    g = ProgramBuilder()
    s = {name: g.input("state", name, type) for name, type in STATE.items()}
    image = g.input("batch", "image", TensorType(Dtype.u8, (BATCH, SIDE, SIDE)))
    text = g.input("batch", "text", TensorType(Dtype.i32, (BATCH, 3)))
    label = g.input("batch", "label", TensorType(Dtype.i32, (BATCH,)))
    flipped = g.input("batch", "flipped", TensorType(Dtype.boolean, (BATCH,)))
    rate = g.input("scalar", "rate", TensorType(F32, ()))

    # convolution: pad, windows, one dot; mirrored images by a slice with a negative step
    x = g.map(lambda u: u.to(Reg.f32) / 16.0, image)
    mirror = g.slice(x, (0, 0, SIDE - 1), (BATCH, SIDE, SIDE), (1, 1, -1))
    x = g.map(lambda f, a, b: f.builder.select(f, a, b), g.reshape(flipped, (BATCH, 1, 1)), mirror, x)
    taps = g.window(g.pad(x, (0, 2, 2), (0, 2, 2)), (3, 3), (2, 2), (1, 1))  # [B, 3, 3, 5, 5]
    taps = g.pad(taps, (0, 0, 0, 0, 0), (0, 0, 0, 1, 1))
    taps = g.reshape(g.permute(taps, (0, 3, 4, 1, 2)), (BATCH * 36, 9))
    image_features = g.map(gelu, g.dot(taps, s["kernel"], transpose_b=True))
    image_features = g.reshape(image_features, (BATCH, 36 * CHANNELS))

    # embedding, normalisation, dropout
    words = g.map(bend, g.reduce("sum", g.gather(s["words"], text), [1]))
    joined = g.concat([image_features, words], 1)
    features = normalised(g, joined, s["gain"])
    keep = g.map(lambda w: (w >> 8).to(Reg.f32) < 0.9 * 2**24, g.random(s["seed"], s["step"], (BATCH, FEATURES)))
    features = g.map(lambda k, a: k.builder.select(k, a / 0.9, 0.0), keep, features)

    # the same layer in 8 bits, whose weights are kept
    rounded = g.map(lambda a: (a * 16.0).max(-127.0).min(127.0).to(Reg.i32), features, dtype=Dtype.i8)
    weight8 = g.map(lambda w: (w * 127.0).max(-127.0).min(127.0).to(Reg.i32), s["weight"], dtype=Dtype.i8)
    logits8 = g.dot(rounded, weight8, dtype=Dtype.i32)

    # softmax and its gradient
    logits = g.dot(features, s["weight"])
    top = g.reduce("max", logits, [1], keepdims=True)
    powers = g.map(lambda a, m: functions.exp(a - m), logits, top)
    share = g.map(lambda p, t: p / t, powers, g.reduce("sum", powers, [1], keepdims=True))
    classes = g.full((CLASSES,), 0, Dtype.i32)
    classes = g.scatter_add(g.full((CLASSES,), 1, Dtype.i32), classes, CLASSES)  # [10, 0, 0, ...]
    numbers = g.input("state", "numbers", TensorType(Dtype.i32, (CLASSES,)))
    hit = g.map(lambda a, b: a.equals(b), g.reshape(label, (BATCH, 1)), g.reshape(numbers, (1, CLASSES)))
    error = g.map(lambda p, h: (p - h.to(Reg.u32).to(Reg.f32)) / float(BATCH), share, hit)
    losses = g.map(
        lambda p, h: h.builder.select(h, -functions.log(p.max(2.0**-60)), 0.0), share, hit, shape=(BATCH, CLASSES)
    )

    # a running mean over the rows, and which class is how often the least likely
    (trend,) = g.scan(lambda m, p: m.builder.fma(m, 0.9, p * 0.1), [s["trend"]], [share])
    trend = g.reshape(g.slice(trend, (BATCH - 1, 0), (1, CLASSES)), (CLASSES,))
    least = g.reshape(g.slice(g.sort(share), (0, 0), (BATCH, 1)), (BATCH,))

    # gradients, momentum and the next state
    d_weight = g.dot(features, error, transpose_a=True)
    d_features = g.map(
        lambda k, d, w: k.builder.select(k, d * w, 0.0), keep, g.dot(error, s["weight"], transpose_b=True), s["gain"]
    )
    d_image = g.reshape(g.slice(d_features, (0, 0), (BATCH, 36 * CHANNELS)), (BATCH * 36, CHANNELS))
    d_words = g.slice(d_features, (0, 36 * CHANNELS), (BATCH, WORD))
    d_words = g.broadcast(g.reshape(d_words, (BATCH, 1, WORD)), (BATCH, 3, WORD))
    d_kernel = g.dot(d_image, taps, transpose_a=True)
    moment = g.map(lambda m, d: m.builder.fma(m, 0.9, d), s["moment"], d_weight)
    kernel_moment = g.map(lambda m, d: m * 0.9 + d, s["kernel_moment"], d_kernel)
    words_sum = g.scatter_add(d_words, text, WORDS)
    next_state = {
        "kernel": g.map(lambda w, m, r: w - r * m, s["kernel"], kernel_moment, rate),
        "words": g.map(lambda w, d, r: w - r * d, s["words"], words_sum, rate, dtype=Dtype.bf16),
        "weight": g.map(lambda w, m, r: w - r * m, s["weight"], moment, rate, dtype=Dtype.f16),
        "moment": moment,
        "kernel_moment": kernel_moment,
        "gain": g.map(lambda w, d: (w - d * 1e-3).min(4.0), s["gain"], g.reduce("sum", d_features, [0])),
        "count": g.map(
            lambda c, a, b, z: c + a * 3 + b * 5 + z,
            s["count"],
            g.scatter_add(label, label, CLASSES),
            g.scatter_add(least, least, CLASSES),
            classes,
        ),
        "trend": trend,
        "seed": s["seed"],
        "step": g.map(lambda n: n + 1, s["step"]),
        "numbers": numbers,
        "weight8": g.map(lambda old, new: new + (old >> 6), s["weight8"], weight8, dtype=Dtype.i8),
    }
    for name, value in next_state.items():
        g.output("state", name, value)
    right = g.map(lambda a, b: a.equals(b).to(Reg.u32), g.reduce("argmax", logits, [1]), label)
    g.output("metric", "loss", g.reduce("sum", losses, [0, 1]))
    right8 = g.map(lambda a, b: a.equals(b).to(Reg.u32), g.reduce("argmax", logits8, [1]), label)
    g.output("metric", "right8", g.reduce("sum", right8, [0]))
    g.output("metric", "right", g.reduce("sum", right, [0]))
    return g.build()


def initial_state() -> dict[str, Array]:
    rng = np.random.default_rng(5)

    def normal(*shape: int, scale: float) -> Array:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    return {
        "kernel": normal(CHANNELS, 9, scale=0.3),
        "words": (normal(WORDS, WORD, scale=0.5).view(np.uint32) >> 16).astype(np.uint16),
        "weight": normal(FEATURES, CLASSES, scale=0.05).astype(np.float16),
        "moment": np.zeros((FEATURES, CLASSES), np.float32),
        "kernel_moment": np.full((CHANNELS, 9), 1e-40, np.float32),
        "gain": np.ones(FEATURES, np.float32),
        "count": np.zeros(CLASSES, np.int32),
        "trend": np.full(CLASSES, 0.1, np.float32),
        "seed": np.array([11, 13], np.uint32),
        "step": np.array(0, np.uint32),
        "numbers": np.arange(CLASSES, dtype=np.int32),
        "weight8": np.arange(FEATURES * CLASSES).reshape(FEATURES, CLASSES).astype(np.int8),
    }


def data() -> dict[str, Array]:
    rng = np.random.default_rng(6)
    return {
        "image": rng.integers(0, 17, (ROWS, SIDE, SIDE)).astype(np.uint8),
        "text": rng.integers(-1, WORDS + 1, (ROWS, 3)).clip(0).astype(np.int32) % WORDS,
        "label": rng.integers(0, CLASSES, ROWS).astype(np.int32),
        "flipped": rng.random(ROWS) < 0.5,
    }


def write(folder: Path, steps: int = STEPS, interval: int = INTERVAL) -> Task:
    rate = (0.05 / (1.0 + np.arange(steps) / 50.0)).astype(np.float32)
    return write_task(
        folder,
        program(),
        initial_state(),
        data=data(),
        schedule={"rate": rate},
        sampler=Sampler((3, 4), ROWS, BATCH),
        steps=steps,
        interval=interval,
    )


def capture(folder: Path) -> None:
    """An MLP under AdamW and a small CNN under SGD with Nesterov momentum, as a submitter would write them."""
    import torch
    from torch import nn

    import gensyn_verify as gv

    rng = np.random.default_rng(7)
    image = torch.from_numpy(rng.standard_normal((ROWS, 1, SIDE, SIDE)).astype(np.float32))
    label = torch.from_numpy(rng.integers(0, CLASSES, ROWS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        mlp = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 48), nn.GELU(), nn.Linear(48, CLASSES))
        cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(8, CLASSES),
        )  # fmt: skip
    adamw = torch.optim.AdamW(mlp.parameters(), lr=2e-3, weight_decay=0.05)
    sgd = torch.optim.SGD(cnn.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)
    for name, model, optimizer in (("mlp", mlp, adamw), ("cnn", cnn, sgd)):
        gv.capture(
            model,
            nn.CrossEntropyLoss(),
            optimizer,
            (image, label),
            steps=STEPS,
            batch_size=BATCH,
            path=folder / name,
            interval=INTERVAL,
        )


def write_all(folder: Path) -> list[str]:
    """The names of the tasks written: `machine`, and the captured ones where torch is installed."""
    write(folder / "machine")
    if find_spec("torch") is not None:
        capture(folder)
    return sorted(p.name for p in folder.iterdir())


def solve_all(folder: Path) -> dict[str, str]:
    """The run commitment of every task bundle in a folder, by name."""
    found = {}
    for path in sorted(p for p in folder.iterdir() if (p / "task.json").exists()):
        run = solve(open_task(path), f"memory://{path.name}", identity=SOLVER, salt=SALT)
        assert run.commitment is not None
        found[path.name] = run.commitment.digest.hex()
        fsspec.filesystem("memory").rm(f"/{path.name}", recursive=True)
    return found


def solve_elsewhere(folder: Path, *flags: str, **environment: str) -> list[dict[str, Any]]:
    """`solve` in a process of its own, as a solver would, under the given environment variables: one record a flag."""
    command = [sys.executable, __file__, "solve", str(folder), *flags]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(command: str, folder: str, *flags: str) -> None:
    if command == "write":
        print(*write_all(Path(folder)))
        return
    from gensyn_verify import _native

    for flag in flags or [str(_native.get_threads())]:
        threads, _, hostile = flag.partition("-")
        _native.set_threads(int(threads))
        before = _native.raw_control_register()
        if hostile:
            _native.set_control_register(HOSTILE)
        runs = solve_all(Path(folder))
        left = _native.raw_control_register()
        _native.set_control_register(before)
        machine = {"isa": _native.isa(), "threads": _native.get_threads(), "processor": platform.machine()}
        print(json.dumps({"runs": runs, "control": left, **machine}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A device beside stock PyTorch on the same device: products, maps, sums, rows, hashing, training steps.

    python bench/bench_device.py [--device cuda|triton|mps] [--json FILE] [SET ...]

The workloads are fixed: a set is named by what it measures, a case by its sizes. Every case compares bits with the CPU
backend before it is timed (sums and products on a part where the whole would take minutes). Times are medians over
repeats of many launches between two events; the device's own clock counts where it has one. PyTorch runs float32 with
TF32 off. `share` is of the device's peak, where it is in the table below: fma for products of floats, none for those of
integers, memory for the rest.

`--smoke` runs every case at a hundredth of its sides, once, to see that it works: its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from gensyn_verify import _native, backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.device.selection import describe
from gensyn_verify.backends.names import DeviceName, of_device, parse
from gensyn_verify.frontend import trace_step
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType, activations, functions, ops

# Peak fp32 fma rate (without tensor cores) in TFLOP/s and memory bandwidth in TB/s, as the makers state them.
PEAKS = {
    "A100": (19.5, 2.04), "H100 80GB HBM3": (66.9, 3.35), "H100 PCIe": (51.2, 2.04), "H200": (66.9, 4.8),
    "RTX 4090": (82.6, 1.01), "RTX 5090": (104.8, 1.79), "B200": (75.0, 8.0),
}  # fmt: skip
F32 = Dtype.f32


@dataclass
class Case:
    """A program of one kind with inputs, what PyTorch does in its place, and the work of one run."""

    name: str
    program: Program
    inputs: dict[str, Array]
    peer: Callable[[dict[str, torch.Tensor]], object] | None
    flops: float = 0.0
    nbytes: float = 0.0
    checked: bool = True
    integers: bool = False  # `flops` counts operations on integers: no share of the peak of fp32


@dataclass
class Result:
    set: str
    case: str
    ours_ms: float
    torch_ms: float | None
    ratio: float | None  # speed of ours over that of torch
    rate: str
    share: float | None
    samples: list[float] = field(default_factory=list)


def product(m: int, n: int, k: int, transposed: tuple[bool, bool] = (False, False), batch: int = 0) -> Case:
    g, lead = ProgramBuilder(), (batch,) if batch else ()
    shapes = ((*lead, *((k, m) if transposed[0] else (m, k))), (*lead, *((n, k) if transposed[1] else (k, n))))
    a, b = (g.input("batch", name, TensorType(F32, s)) for name, s in zip("ab", shapes, strict=True))
    g.output("metric", "c", g.emit(ops.Dot(*transposed, F32), a, b)[0])
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(s, np.float32) for name, s in zip("ab", shapes, strict=True)}

    def peer(t: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.matmul(t["a"].mT if transposed[0] else t["a"], t["b"].mT if transposed[1] else t["b"])

    name = f"{batch or 1}x{m}x{n}x{k} {'NT'[transposed[0]]}{'NT'[transposed[1]]}"
    work = 2.0 * max(batch, 1) * m * n * k
    return Case(name, g.build(), inputs, peer, flops=work, checked=work < 3e10)


def int8_product(m: int, n: int, k: int) -> Case:
    """With b transposed, as torch._int_mm, which knows CPUs and CUDA, takes it best."""
    g, shapes = ProgramBuilder(), {"a": (m, k), "b": (n, k)}
    a, b = (g.input("batch", name, TensorType(Dtype.i8, s)) for name, s in shapes.items())
    g.output("metric", "c", g.dot(a, b, transpose_b=True, dtype=Dtype.i32))
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(-128, 128, s, np.int8) for name, s in shapes.items()}
    work = 2.0 * m * n * k
    return Case(
        f"{m}x{n}x{k} NT i8", g.build(), inputs, lambda t: torch._int_mm(t["a"], t["b"].mT), flops=work,
        checked=work < 1e12, integers=True,
    )  # fmt: skip


def elementwise(name: str, count: int, function: Callable[..., Any], arity: int, peer: Callable[..., Any]) -> Case:
    g = ProgramBuilder()
    values = [g.input("batch", f"x{i}", TensorType(F32, (count,))) for i in range(arity)]
    g.output("metric", "y", g.map(function, *values))
    rng = np.random.default_rng(0)
    inputs = {f"x{i}": rng.standard_normal(count, np.float32) for i in range(arity)}
    return Case(f"{name} {count}", g.build(), inputs, lambda t: peer(*t.values()), nbytes=4.0 * count * (arity + 1))


def reduction(rows: int, columns: int, axis: int) -> Case:
    g = ProgramBuilder()
    g.output("metric", "y", g.reduce("sum", g.input("batch", "x", TensorType(F32, (rows, columns))), {axis}))
    inputs = {"x": np.random.default_rng(0).standard_normal((rows, columns), np.float32)}
    return Case(
        f"sum {rows}x{columns} over {axis}", g.build(), inputs, lambda t: t["x"].sum(axis), nbytes=4.0 * rows * columns
    )


def softmax(rows: int, columns: int) -> Case:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F32, (rows, columns)))
    e = g.map(lambda a, m: functions.exp(a - m), x, g.reduce("max", x, {1}, keepdims=True))
    g.output("metric", "y", g.map(lambda a, s: a / s, e, g.reduce("sum", e, {1}, keepdims=True)))
    return _along_rows("softmax", g.build(), rows, columns, lambda t: t["x"].softmax(1))


def layer_norm(rows: int, columns: int) -> Case:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(F32, (rows, columns)))
    mean = g.map(lambda s: s / float(columns), g.reduce("sum", x, {1}, keepdims=True))
    centred = g.map(lambda a, m: a - m, x, mean)
    squares = g.reduce("sum", g.map(lambda a: a * a, centred), {1}, keepdims=True)
    g.output("metric", "y", g.map(lambda a, s: a / (s / float(columns) + 1e-5).sqrt(), centred, squares))
    peer = lambda t: torch.nn.functional.layer_norm(t["x"], (columns,))  # noqa: E731
    return _along_rows("layer norm", g.build(), rows, columns, peer)


def _along_rows(name: str, program: Program, rows: int, columns: int, peer: Callable[..., Any]) -> Case:
    inputs = {"x": np.random.default_rng(0).standard_normal((rows, columns), np.float32)}
    return Case(f"{name} {rows}x{columns}", program, inputs, peer, nbytes=8.0 * rows * columns)


def linear(m: int, n: int, k: int) -> Case:
    """With bias and GELU behind the product."""
    g = ProgramBuilder()
    types = {"x": (m, k), "w": (n, k), "b": (n,)}
    x, w, b = (g.input("batch", name, TensorType(F32, s)) for name, s in types.items())
    g.output("metric", "y", g.map(lambda a, b: activations.gelu(a + b), g.dot(x, w, transpose_b=True), b))
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(s, np.float32) for name, s in types.items()}
    peer = lambda t: torch.nn.functional.gelu(torch.nn.functional.linear(t["x"], t["w"], t["b"]))  # noqa: E731
    work = 2.0 * m * n * k
    return Case(f"{m}x{n}x{k} bias gelu", g.build(), inputs, peer, flops=work, checked=work < 3e10)


def sets(scale: float) -> dict[str, list[Callable[[], Case]]]:
    """The fixed workloads; `scale` shrinks every size for a smoke test."""

    def s(n: int) -> int:
        return max(8, int(n * scale))

    def elements(n: int) -> int:
        return max(8, int(n * scale * scale))

    return {
        "dot": [lambda n=n: product(s(n), s(n), s(n)) for n in (1024, 2048, 4096, 8192)],
        "dot-transformer": [
            lambda: product(s(8192), s(3072), s(768), (False, True)),
            lambda: product(s(8192), s(768), s(3072)),
            lambda: product(s(768), s(3072), s(8192), (True, False)),
            lambda: product(s(16), s(4096), s(4096), (False, True)),
            lambda: product(s(256), s(256), s(64), (False, True), batch=s(96)),
        ],
        "dot-int8": [
            lambda: int8_product(s(4096), s(4096), s(4096)),
            lambda: int8_product(s(8192), s(3072), s(768)),
            lambda: int8_product(s(32), s(4096), s(4096)),
        ],
        "linear": [lambda: linear(s(8192), s(3072), s(768))],
        "map": [
            lambda: elementwise("add", elements(1 << 26), lambda x, y: x + y, 2, torch.add),
            lambda: elementwise("exp", elements(1 << 26), functions.exp, 1, torch.exp),
            lambda: elementwise("tanh", elements(1 << 26), functions.tanh, 1, torch.tanh),
        ],
        "reduce": [
            lambda: reduction(s(1 << 14), s(1 << 12), 1),
            lambda: reduction(s(1 << 14), s(1 << 12), 0),
            lambda: reduction(8, elements(1 << 24), 1),
        ],
        "rows": [
            lambda n=n, of=of: of(s((1 << 26) // n), s(n)) for of in (softmax, layer_norm) for n in (256, 1024, 8192)
        ],
    }  # fmt: skip


class Clock:
    """Milliseconds of one run of a call, on a device."""

    def __init__(self, kind: str, number: int | None) -> None:
        self.kind, self.torch_device = kind, torch.device("mps" if kind == "metal" else f"cuda:{number or 0}")

    def time(self, call: Callable[[], object], smoke: bool) -> list[float]:
        call(), self.wait()
        start = time.perf_counter()
        call(), self.wait()
        once = max(time.perf_counter() - start, 1e-6)
        repeats, runs = (1, 1) if smoke else (9, max(1, int(0.05 / once)))
        out = []
        for _ in range(repeats):
            out.append(self._between(call, runs) / runs)
        return out

    def _between(self, call: Callable[[], object], runs: int) -> float:
        self.wait()
        start = time.perf_counter()
        for _ in range(runs):
            call()
        self.wait()
        return 1e3 * (time.perf_counter() - start)

    def wait(self) -> None:
        if self.kind == "metal":
            torch.mps.synchronize()
        elif torch.cuda.is_available():
            torch.cuda.synchronize(self.torch_device)


class DriverClock(Clock):
    """The events of the driver, on the machine's own stream."""

    def __init__(self, number: int | None, machine: Any) -> None:
        from gensyn_verify.backends.cuda import driver

        super().__init__("cuda", number)
        self.machine = machine
        with machine.device.current():
            self.events = (driver.Event(), driver.Event())

    def wait(self) -> None:
        self.machine.synchronize()

    def _between(self, call: Callable[[], object], runs: int) -> float:
        with self.machine.device.current():
            self.machine.stream.record(self.events[0])
            for _ in range(runs):
                call()
            self.machine.stream.record(self.events[1])
            return self.events[1].since(self.events[0])


def measure(of_set: str, case: Case, name: DeviceName, peaks: tuple[float, float] | None, smoke: bool) -> Result:
    executor = backends.make(backend_name(name), case.program)
    assert isinstance(executor, Executor)
    found = executor.step(case.inputs, {})
    if case.checked or smoke:
        wanted = backends.evaluate(case.program, case.inputs)
        for key, array in wanted.items():
            assert found[key].tobytes() == array.tobytes(), f"{case.name}: the bits are not those of the CPU backend"
    machine: Any = executor._machine
    clock = DriverClock(name.number, machine) if name.kind == "cuda" else Clock(name.kind, name.number)
    ours = clock.time(machine.run, smoke)
    theirs = None
    device = Clock(name.kind, name.number).torch_device
    if case.peer is not None and has_torch_device(device) and not (case.integers and device.type == "mps"):
        tensors = {n: torch.from_numpy(a).to(device) for n, a in case.inputs.items()}
        peer = Clock(name.kind, name.number)
        theirs = median(peer.time(lambda: case.peer(tensors), smoke))  # type: ignore[misc]
    ms = median(ours)
    rate = (case.flops or case.nbytes) / (ms * 1e-3) if ms else 0.0
    peak = (peaks[0] if case.flops else peaks[1]) * 1e12 if peaks and not case.integers else None
    shown = f"{rate * 1e-12:.2f} {'TOP/s' if case.integers else 'TFLOP/s' if case.flops else 'TB/s'}"
    ratio = theirs / ms if theirs is not None and ms else None
    return Result(of_set, case.name, ms, theirs, ratio, shown, rate / peak if peak else None, ours)


def hashing(name: DeviceName, peaks: tuple[float, float] | None, nbytes: int, smoke: bool) -> Result:
    """The root of one tensor that lies on the device."""
    g = ProgramBuilder()
    g.output("state", "x", g.input("state", "x", TensorType(Dtype.u8, (nbytes,))))
    executor = backends.make(backend_name(name), g.build())
    assert isinstance(executor, Executor)
    data = np.random.default_rng(0).integers(0, 256, nbytes).astype(np.uint8)
    executor.load({"x": data})
    assert executor.state_roots() == {"x": _native.blake3_root(data)}
    clock = Clock(name.kind, name.number)
    ours = clock.time(executor.state_roots, smoke)
    ms = median(ours)
    peak = peaks and peaks[1] * 1e12
    rate = nbytes / (ms * 1e-3)
    return Result(
        "hash", f"{nbytes} bytes", ms, None, None, f"{rate * 1e-12:.3f} TB/s", rate / peak if peak else None, ours
    )


def _tiny_batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 784), torch.arange(4)


def torch_step(model: Any, loss: Any, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss(model(x), y).backward()
    optimizer.step()


def training(name: DeviceName, smoke: bool) -> list[Result]:
    """Whole steps, launches alone: state and batch lie on the device, for PyTorch too. Three are compared first."""
    from bench_vendor import CASES

    tiny = CASES[0]._replace(model=lambda: torch.nn.Linear(784, 10), batch=_tiny_batch)
    out = []
    for case in [tiny] if smoke else CASES:
        torch.manual_seed(0)
        model, (x, y) = case.model(), case.batch()
        optimizer = case.optimizer(model.parameters())
        captured = trace_step(model, case.loss, optimizer, (x, y))
        batch = captured.batch_arrays((x, y))
        ours, cpu = backends.make(backend_name(name), captured.program), backends.make("cpu", captured.program)
        assert isinstance(ours, Executor)
        for executor in (ours, cpu):
            executor.load(captured.state)
        for step in range(1, 2 if smoke else 4):
            found, wanted = (e.step(batch, captured.schedule(step)) for e in (ours, cpu))
            assert found["loss"].tobytes() == wanted["loss"].tobytes(), f"{case}: another loss than the CPU backend's"
        machine: Any = ours._machine
        clock = DriverClock(name.number, machine) if name.kind == "cuda" else Clock(name.kind, name.number)
        samples = clock.time(machine.run, smoke)
        theirs, device = None, Clock(name.kind, name.number).torch_device
        if has_torch_device(device):
            model.to(device)
            x, y = x.to(device), y.to(device)
            optimizer = case.optimizer(model.parameters())

            step_there = partial(torch_step, model, case.loss, optimizer, x, y)
            theirs = median(Clock(name.kind, name.number).time(step_there, smoke))
        ms = median(samples)
        out.append(Result("step", str(case), ms, theirs, theirs / ms if theirs and ms else None, "", None, samples))
    return out


def has_torch_device(device: torch.device) -> bool:
    return torch.backends.mps.is_available() if device.type == "mps" else torch.cuda.is_available()


def backend_name(name: DeviceName) -> str:
    return name.kind if name.number is None else f"{name.kind}:{name.number}"


def run(device: str, chosen: list[str], smoke: bool) -> tuple[dict[str, str], list[Result]]:
    name = parse(of_device(device))
    assert isinstance(name, DeviceName), "a device of its own: cuda, triton or mps"
    torch.backends.cuda.matmul.allow_tf32 = False
    about = describe(name)
    peaks = next((p for key, p in PEAKS.items() if key in about["device"]), None)
    print(about["device"])
    results = []
    for of_set, cases in sets(0.01 if smoke else 1.0).items():
        for make in cases if not chosen or of_set in chosen else []:
            results.append(show(measure(of_set, make(), name, peaks, smoke)))
    if not chosen or "hash" in chosen:
        results.append(show(hashing(name, peaks, 10_000 if smoke else 1 << 30, smoke)))
    if not chosen or "step" in chosen:
        results += [show(r) for r in training(name, smoke)]
    return about, results


def show(r: Result) -> Result:
    peer = f"torch {r.torch_ms:9.3f} ms  ours/torch {r.ratio:.2f}" if r.torch_ms and r.ratio else ""
    share = f"{r.share:6.1%} of peak" if r.share is not None else ""
    print(f"{r.set:<16} {r.case:<34} {r.ours_ms:9.3f} ms  {r.rate:>14}  {share}  {peer}", flush=True)
    return r


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join([*sets(1.0), 'hash', 'step'])}")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, triton or mps")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results there")
    parser.add_argument("--smoke", action="store_true", help="a hundredth of every side, once")
    args = parser.parse_args()
    about, results = run(args.device, args.sets, args.smoke)
    if args.json:
        args.json.write_text(json.dumps({"device": about, "results": [asdict(r) for r in results]}, indent=1) + "\n")


if __name__ == "__main__":
    main()

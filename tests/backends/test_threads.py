"""The thread pool: control registers, nesting, several callers at once, and forks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from native import ISAS, assert_same_bits, machine

from gensyn_verify import _native, backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType

X86 = platform.machine() in ("x86_64", "AMD64")
# What a caller might have done. x86: flush-to-zero with denormals-are-zero (as torch.set_flush_denormal does), rounding
# down, up, to zero, and every exception trapping. Arm: flush-to-zero, the three roundings, default NaN.
HOSTILE = (
    {"flush": 0x9FC0, "down": 0x3F80, "up": 0x5F80, "zero": 0x7F80, "traps": 0x0000}
    if X86
    else {"flush": 1 << 24, "down": 2 << 22, "up": 1 << 22, "zero": 3 << 22, "default NaN": 1 << 25}
)
STICKY = 0x3F if X86 else 0
THREADS = 3


def sensitive_program() -> Program:
    """Sums, products, quotients and subnormals in every node kind that computes."""
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (96, 80)))
    w = g.input("batch", "w", TensorType(Dtype.f32, (80, 64)))
    index = g.input("batch", "index", TensorType(Dtype.i32, (96,)))
    g.output("metric", "dot", g.dot(x, w))
    g.output("metric", "sum", g.reduce("sum", x, [1]))
    g.output("metric", "map", g.map(lambda a: (a / 3.0) * 1e-39 + a.sqrt(), x))
    g.output("metric", "half", g.map(lambda a: a * 1e-5, x, dtype=Dtype.f16))
    g.output("metric", "scatter", g.scatter_add(x, index, 5))
    return g.build()


def inputs() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((96, 80)).astype(np.float32)
    x[:, ::7] = (x[:, ::7].astype(np.float64) * 1e-39).astype(np.float32)
    return {
        "x": x,
        "w": rng.standard_normal((80, 64)).astype(np.float32),
        "index": rng.integers(-1, 6, 96).astype(np.int32),
    }


@pytest.fixture(scope="module")
def wanted() -> dict[str, Array]:
    return backends.evaluate(sensitive_program(), inputs(), "reference")


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> Iterator[int]:
    """The control register that the calling thread will be given; whatever it holds then is put right afterwards."""
    before = _native.raw_control_register()
    yield HOSTILE[request.param]
    _native.set_control_register(before)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, THREADS])
def test_a_hostile_control_register_changes_no_bit_and_is_given_back(
    hostile: int, threads: int, isa: str, wanted: dict[str, Array]
) -> None:
    with machine(isa, threads):
        executor = backends.make("cpu", sensitive_program())
        executor.load({})
        batch = inputs()
        _native.set_control_register(hostile)
        held = _native.raw_control_register() & ~STICKY
        found = executor.step(batch, {})
        left = _native.raw_control_register() & ~STICKY
        _native.set_control_register(0x1F80 if X86 else 0)
    assert_same_bits(found, wanted, f"{isa}, {threads} threads, control register {hostile:#x}")
    assert (held, left) == (hostile, hostile)


def test_workers_hold_the_numerics_whoever_made_them(hostile: int) -> None:
    with machine(_native.isa(), THREADS):
        _native.set_threads(THREADS + 1)
        _native.set_control_register(hostile)
        made_now = _native.worker_control_registers()
        made_before = _native.worker_control_registers()
        caller = _native.control_register()
        _native.set_control_register(0x1F80 if X86 else 0)
    assert made_now == made_before == [0] * (THREADS + 1)
    assert caller != 0 or hostile == 0, "the caller's register was not hostile: this test shows nothing"


def test_a_flushing_caller_would_compute_other_bits() -> None:
    """The hostile registers matter: numpy under flush-to-zero loses the subnormals."""
    before = _native.raw_control_register()
    x = np.full(8, 1e-39, np.float32)
    _native.set_control_register(HOSTILE["flush"])
    flushed = x * np.float32(0.5)
    _native.set_control_register(before)
    assert not flushed.any()
    assert (x * np.float32(0.5)).all()


def test_executors_in_several_threads_at_once_compute_the_same_bits(wanted: dict[str, Array]) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            executor = backends.make("cpu", sensitive_program())
            executor.load({})
            for _ in range(30):
                assert_same_bits(executor.step(inputs(), {}), wanted, threading.current_thread().name)
        except BaseException as error:
            failures.append(error)

    with machine(_native.isa(), THREADS):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for n in (1, 2, 4, THREADS):  # changed while the others are computing
            _native.set_threads(n)
        for t in threads:
            t.join()
    assert not failures


FORKING = """
import os, signal, sys, threading
sys.path.insert(0, {here!r}); sys.path.insert(0, {above!r})
import test_threads as t
from gensyn_verify import _native, backends
_native.set_threads(3)
program, data = t.sensitive_program(), t.inputs()
wanted = backends.evaluate(program, data, "cpu")       # the pool exists and its workers are awake
stop = threading.Event()
def busy():
    while not stop.is_set():
        backends.evaluate(program, data, "cpu")
others = [threading.Thread(target=busy) for _ in range({others})]
for o in others: o.start()
def child(depth):
    signal.alarm(100)  # a child that hangs must not outlive this test
    if len(_native.worker_control_registers()) != 3: return 2
    found = backends.evaluate(program, data, "cpu")
    if any(t.np.any(found[n].view("u1") != wanted[n].view("u1")) for n in wanted): return 3
    if depth:
        pid = os.fork()
        if pid == 0: os._exit(child(depth - 1))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 0
codes = []
for n in range({forks}):
    pid = os.fork()
    if pid == 0: os._exit(child({depth}))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
for o in others: o.join()
backends.evaluate(program, data, "cpu")                # the parent's pool still works
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    ("others", "forks", "depth"), [(0, 1, 2), (2, 20, 0)], ids=["a fork of a fork", "forks while threads compute"]
)
def test_a_forked_child_computes_with_threads_of_its_own(others: int, forks: int, depth: int) -> None:
    here = os.path.dirname(__file__)
    script = FORKING.format(here=here, above=os.path.dirname(here), others=others, forks=forks, depth=depth)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == str([0] * forks), done.stderr

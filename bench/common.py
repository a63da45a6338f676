"""Shared by the benchmarks: bits first, then times beside the peers, in one run.

A benchmark names its engines, ours first. `compare` times them in turn, round after round, so that what disturbs the
machine disturbs all of them. One thread: the median CPU time of the thread. More: the least wall-clock time, since
whatever else runs can only add to it. What counts is the ratio to the best peer.
"""

# ruff: noqa: E402

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

# Both change what the peers' BLAS runs; they are read when it is loaded.
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)

import numpy as np
import threadpoolctl
import torch

from gensyn_verify import _native, backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.cpu import Executor
from gensyn_verify.program import Program

Call = Callable[[], object]
C = TypeVar("C")
OURS = "ours"
SPINNING = 0.15  # seconds for which a peer's idle threads may keep a processor busy; OpenBLAS needs most of them


class Native:
    """A program without state on the native backend: `run` executes its nodes alone, with no copies in or out."""

    def __init__(self, program: Program, inputs: Mapping[str, Array]) -> None:
        self._executor = Executor(program)
        self._executor.load({})
        self._executor.step(inputs, {})
        self.run: Call = self._executor._native.run

    @property
    def outputs(self) -> dict[str, Array]:
        return {name: a.copy() for name, a in self._executor._metrics.items()}


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Our kernels, torch and every loaded BLAS on n threads."""
    before = _native.get_threads(), torch.get_num_threads()
    _native.set_threads(n)
    torch.set_num_threads(n)
    try:
        with threadpoolctl.threadpool_limits(n):
            yield
    finally:
        _native.set_threads(before[0])
        torch.set_num_threads(before[1])


def bits(a: Array) -> bytes:
    return np.ascontiguousarray(a).tobytes()


def check_bits(program: Program, inputs: Mapping[str, Array], portable: bool = True) -> None:
    """Every instruction set gives the same bits; without `portable`, every vectorised one."""
    best = _native.isa()
    wanted = Native(program, inputs).outputs
    for isa in _native.supported_isas():
        if isa == best or (isa == "portable" and not portable):
            continue
        _native.use_isa(isa)
        try:
            found = Native(program, inputs).outputs
        finally:
            _native.use_isa(best)
        for name, a in wanted.items():
            assert bits(found[name]) == bits(a), f"{name}: {isa} and {best} differ"


def check_reference(program: Program, inputs: Mapping[str, Array]) -> None:
    """The native bits are those of the definition."""
    wanted, found = backends.evaluate(program, inputs, "reference"), Native(program, inputs).outputs
    for name, a in wanted.items():
        assert bits(found[name]) == bits(a), f"{name}: differs from the reference backend"


@dataclass(frozen=True)
class Row:
    """Seconds of one call, by engine."""

    title: str
    threads: int
    seconds: dict[str, float]
    work: float = 0.0  # of one call, in `unit` times 1e9
    unit: str = ""

    @property
    def best_peer(self) -> str:
        return min((e for e in self.seconds if e != OURS), key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """Speed of ours over that of the best peer."""
        return self.seconds[self.best_peer] / self.seconds[OURS]

    @property
    def ratios(self) -> dict[str, float]:
        return {e: s / self.seconds[OURS] for e, s in self.seconds.items() if e != OURS}

    def __str__(self) -> str:
        def speed(s: float) -> str:
            return f"{self.work / s * 1e-9:8.1f} {self.unit}" if self.work else f"{s * 1e6:9.1f} us"

        cells = "  ".join(f"{e} {speed(s)}" for e, s in self.seconds.items())
        return f"{self.title:<34} {self.threads} thr  {cells}  ours/{self.best_peer} {self.ratio:.2f}"


def compare(
    title: str,
    engines: Mapping[str, Call],
    n_threads: int = 1,
    work: float = 0.0,
    unit: str = "",
    budget: float = 0.4,
) -> Row:
    """Interleaved rounds for about `budget` seconds in all, at least seven."""
    with threads(n_threads):
        once: dict[str, float] = {}
        for engine, call in engines.items():
            call()
            start = time.perf_counter()
            call()
            once[engine] = time.perf_counter() - start
        rounds = max(7, min(200 if n_threads == 1 else 10, int(budget / sum(max(s, 1e-3) for s in once.values()))))
        samples: dict[str, list[float]] = {e: [] for e in engines}
        for _ in range(rounds):
            for engine, call in engines.items():
                call()  # wakes the engine's threads, and puts its data where the caches hold them
                samples[engine] += _one_thread(call, once[engine]) if n_threads == 1 else _more_threads(call)
    summary = median if n_threads == 1 else min
    return Row(title, n_threads, {e: summary(s) for e, s in samples.items()}, work, unit)


def benchmarked(benchmark: Any, capsys: Any, row: Row, ours: Call, shown: object = None, **more: object) -> None:
    """What a test does with a measured row: print it (or what is `shown`), keep its ratios, time ours once more."""
    with capsys.disabled():
        print(f"\n{row if shown is None else shown}", end="")
    benchmark.extra_info.update(threads=row.threads, ratios=row.ratios, **more)
    with threads(row.threads):
        benchmark.pedantic(ours, rounds=5, warmup_rounds=1)


def parser(about: str | None, sets: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The command line of a benchmark that prints tables: which of its sets, where it has several; how many threads."""
    out = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.set_defaults(sets=[])
    if names := list(sets):
        out.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(names)}")
    out.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    return out


def tables(arguments: argparse.Namespace, sets: Mapping[str, Iterable[C]], show: Callable[[C, int], object]) -> None:
    """Print what `show` measures of every case, set by set, on every number of threads."""
    for name in arguments.sets or sets:
        for n_threads in arguments.threads:
            print(f"-- {name}, {n_threads} thread{'s' * (n_threads > 1)}")
            for case in sets[name]:
                print(show(case, n_threads), flush=True)


def _one_thread(call: Call, once: float) -> list[float]:
    """The mean CPU seconds of as many calls as make a millisecond."""
    count = range(max(1, int(1e-3 / max(once, 1e-7))))
    start = time.thread_time()
    for _ in count:
        call()
    return [(time.thread_time() - start) / len(count)]


def _more_threads(call: Call) -> list[float]:
    """The least wall-clock seconds of single calls over a hundredth of a second, after the threads of the engine
    before have stopped spinning.
    """
    time.sleep(SPINNING)
    least, end = float("inf"), time.perf_counter() + 0.01
    while (start := time.perf_counter()) < end:
        call()
        least = min(least, time.perf_counter() - start)
    return [least]

"""Thresholds of a task from honest replays across the machines and kernels that honest solvers use.

Every variation (instruction set, threads, backend, precision, Python with another PyTorch) solves the task in a process
of its own, some of them from other initial parameters and in another order of batches. The verifier measures every
interval of these runs as it would in a verification. What it finds are the excesses of honest intervals:

    accept   the excess that an honest interval passes with probability UNDECIDED
    reject   the one that it passes with probability `rate`
    share    of a tensor's update: four times what honest tensors beyond `reject` were off by, and at least LEAST_SHARE

The tails of excesses are exponential (they are logarithms of distances, whose tails are powers), so both follow from
the values above the 80 % quantile: tail(p) = u + sigma ln(p_u / p), with the upper 95 % confidence limit of sigma. The
few intervals in which rounding met a switch that no probe met do not belong to that tail: sigma is a median, and
`share` keeps them from being rejected.
Derivation, and what was measured beyond calibration: docs/thresholds.md.
"""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gensyn_verify.backends import Backend
from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import BackendError, BundleError, MalformedError
from gensyn_verify.program.types import Dtype
from gensyn_verify.protocol.distance import difference, inner
from gensyn_verify.protocol.policy import BIT, DECIDING, RATE, SHARE, Policy, Thresholds
from gensyn_verify.protocol.replay import measure
from gensyn_verify.protocol.roots import constants
from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.task import Task, open_task, write_task
from gensyn_verify.protocol.threshold import Deviation, Drift

NOISES = (19, 15, 11, 8, 5)  # tried in this order: binary32, then kernels of ever lower precision
PROBES = 3
LEAST_SHARE = -6.0  # bits
UNDECIDED = 1e-2  # of honest intervals, at the accept thresholds
RATE_DEFAULT = 1e-4
CONFIDENCE = 0.95
QUANTILE = 0.8  # where the tail begins
EFFICIENCY = 0.48  # of the median as an estimate of an exponential scale, beside the mean
LEAST_ACCEPT = 1.0  # bits: rounding that meets the switch of a probe goes as far, and no tail says so
LEAST_GAP = 3.0  # bits from accept to reject
LEAST_SIGMA = 0.1  # bits: a scale estimated from few nearly equal values is not believed
ROOM = 2.0  # bits that the resolution may be worse than in any honest interval
BLIND = -1.0  # bits: where probes go half as far as training does, replays cannot tell

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Variation:
    """One way to run a program honestly: a backend, a number of threads, an environment, a Python."""

    name: str
    backend: str = "vendor"
    threads: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    python: str = ""  # default: the one that runs
    trust_code: str = ""  # of a run of code: FILE.py:FUNCTION

    def command(self, task: str, out: str) -> list[str]:
        options = ["--out", out, "--backend", self.backend, "--threads", str(self.threads), "--quiet"]
        options += ["--trust-code", self.trust_code] if self.trust_code else []
        return [self.python or sys.executable, "-m", "gensyn_verify.cli", "solve", task, *options]


def _instructions(aten: str, onednn: str, mkl: str) -> tuple[tuple[str, str], ...]:
    return (("ATEN_CPU_CAPABILITY", aten), ("ONEDNN_MAX_CPU_ISA", onednn), ("MKL_ENABLE_INSTRUCTIONS", mkl))


def variations(backend: str = "vendor", pythons: Sequence[str] = ()) -> list[Variation]:
    """What this machine can vary: PyTorch's instruction sets, one thread and all, every further Python given."""
    levels: dict[str, tuple[tuple[str, str], ...]] = {"best": ()}
    if not backend.startswith("vendor:cuda") and not backend.startswith("vendor:mps"):
        levels |= {
            "avx2": _instructions("avx2", "AVX2", "AVX2"),
            "default": _instructions("default", "SSE41", "SSE4_2"),
        }
    threads = sorted({1, os.cpu_count() or 1})
    out = [Variation(f"{level}, {n} threads", backend, n, e) for level, e in levels.items() for n in threads]
    return out + [Variation(f"best, 1 threads, {python}", backend, 1, (), python) for python in pythons]


@dataclass(frozen=True)
class Calibration:
    """The thresholds, the honest excesses behind them (l2, linf of every interval), what was varied.

    `resolution` is the median one.
    """

    thresholds: Thresholds
    variations: tuple[str, ...]
    intervals: int
    excess_l2: tuple[float, ...]
    excess_linf: tuple[float, ...]
    cosines: tuple[float, ...]
    resolution: float

    @property
    def counted(self) -> float:
        """Upper limit, at CONFIDENCE, of the share of honest intervals beyond all of these, by counting alone."""
        return float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / len(self.excess_l2)))

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "counted": self.counted}

    def __str__(self) -> str:
        t = self.thresholds
        lines = [f"calibrated on {t.replays} honest interval replays: {'; '.join(self.variations)}"]
        lines.append(f"  probes      {t.probes} an interval, state times 1 +- 2^-{t.noise} before every step")
        for norm, values in (("l2", self.excess_l2), ("linf", self.excess_linf)):
            low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
            limits = [getattr(t, f"{what}_{norm}") / BIT for what in ("accept", "reject")]
            limit = "accepted to {:.2f}, rejected above {:.2f}".format(*limits)
            lines.append(f"  excess {norm:5}{low:.2f} to {high:.2f} bits, median {middle:.2f}; {limit}")
        told = self.resolution + t.accept_l2 / BIT
        lines.append(
            f"  resolution  {self.resolution:.2f} bits, the median: accepted is what is off by less than 2^{told:.1f}"
        )
        lines.append(f"              of an update, rejected what is off by more than 2^{t.share / BIT:.1f}")
        lines.append(
            f"  rejects     an honest interval with probability {t.rate / RATE:.2g}, by the fitted tail; by counting "
            f"alone, below {self.counted:.2g} ({CONFIDENCE:.0%} confidence)"
        )
        return "\n".join(lines)


def calibrate(
    task: Task | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    ways: Sequence[Variation] | None = None,
    seeds: int = 2,
    intervals: int = 12,
    rate: float = RATE_DEFAULT,
    probes: int = PROBES,
    noise: int | None = None,
    samples: int | None = None,
    largest: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Task, Calibration]:
    """A copy of `task` at `out` whose policy has mode threshold, and what it was derived from.

    Each of `ways` (default `variations()`) solves the first `intervals` intervals `seeds` times: once as the task says,
    then from shuffled initial parameters and in other orders of batches. `rate`: probability that an honest interval
    is rejected. `noise` None: the least one that explains what honest kernels do. `samples`, `largest`: of the policy,
    default the task's. `seed` draws probes, shuffles and orders.
    Raises BundleError for a recorded task, BackendError where a variation fails, MalformedError where rounding alone
    moves an interval as far as training does.
    """
    if not isinstance(task, Task):
        task = open_task(task)
    if task.recorded:
        raise BundleError(f"{task.store.folder.url} is a recorded task: calibrate a run of it, which has its batches")
    _check_rate(rate)
    ways = variations() if ways is None else ways
    steps = min(task.steps, intervals * task.interval)
    with tempfile.TemporaryDirectory(prefix="gverify-calibrate-") as folder:
        tasks = [varied(task, Path(folder) / f"task{s}", steps, seed, s) for s in range(seeds)]
        jobs = [(way, tasks[s].store.folder.url, tasks[s]) for way in ways for s in range(seeds)]
        seen = _observe(jobs, Path(folder), probes, noise, seed, "cpu", progress)
        finals = [run.checkpoint() for run in seen.runs[:seeds]]
        calibration = _derive(seen, [way.name for way in ways], rate, _apart(task, finals))
    policy = _policy(task, calibration, samples, largest)
    return varied(task, out, task.steps, seed, 0, policy), calibration


def calibrate_run(
    run: Run | str | os.PathLike[str],
    *,
    trust_code: str | None = None,
    backend: Backend = "cpu",
    ways: Sequence[Variation] | None = None,
    rate: float = RATE_DEFAULT,
    probes: int = PROBES,
    noise: int | None = None,
    samples: int | None = None,
    largest: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Policy, Calibration]:
    """A policy for runs like this recorded one, an honest pilot: every variation executes its steps on its batches.

    Of a run of code, `trust_code` names the code for the variations and `backend` makes the verifier's executor of it.
    Other arguments and errors as of `calibrate`.
    """
    if not isinstance(run, Run):
        run = open_run(run)
    if run.task is None or not run.task.recorded:
        raise BundleError(f"{run.url} is no recorded run: calibrate its task")
    _check_rate(rate)
    ways = variations() if ways is None else ways
    with tempfile.TemporaryDirectory(prefix="gverify-calibrate-") as folder:
        jobs = [(dataclasses.replace(way, trust_code=trust_code or ""), run.url, run.task) for way in ways]
        seen = _observe(jobs, Path(folder), probes, noise, seed, backend, progress)
        calibration = _derive(seen, [way.name for way in ways], rate, 0.0)
    return _policy(run.task, calibration, samples, largest), calibration


def _check_rate(rate: float) -> None:
    if not 0.0 < rate <= UNDECIDED:
        raise MalformedError(f"rate is {rate}; expected above 0 and at most {UNDECIDED}")


def _policy(task: Task, calibration: Calibration, samples: int | None, largest: int | None) -> Policy:
    return Policy(
        "threshold",
        task.policy.samples if samples is None else samples,
        task.policy.largest if largest is None else largest,
        calibration.thresholds,
    )


@dataclass
class _Seen:
    """What the runs of all variations showed: deviations and drift of each run."""

    noise: int
    probes: int
    seed: int
    backend: Backend
    runs: list[Run] = dataclasses.field(default_factory=list)
    deviations: list[list[Deviation]] = dataclasses.field(default_factory=list)
    drifts: list[Drift] = dataclasses.field(default_factory=list)

    def measure(self, n: int) -> tuple[list[Deviation], Drift]:
        """The intervals of run `n`."""
        key = self.seed.to_bytes(8, "big") + n.to_bytes(24, "big")
        return measure(self.runs[n], noise=self.noise, probes=self.probes, seed=key, backend=self.backend)


def _observe(
    jobs: Sequence[tuple[Variation, str, Task]],
    folder: Path,
    probes: int,
    noise: int | None,
    seed: int,
    backend: Backend,
    progress: Progress | None,
) -> _Seen:
    """Solve every job, a variation with what it solves, and measure all intervals."""
    seen = _Seen(NOISES[0] if noise is None else noise, probes, seed, backend)
    for done, (way, solved, task) in enumerate(jobs):
        seen.runs.append(open_run(solve_as(solved, way, folder / f"run{done}"), task))
        deviations, drift = _least_noise(seen) if noise is None and done == 0 else seen.measure(done)
        seen.deviations.append(deviations)
        seen.drifts.append(drift)
        if progress is not None:
            progress(done + 1, len(jobs))
    return seen


def varied(
    task: Task, path: str | os.PathLike[str], steps: int, seed: int, number: int, policy: Policy | None = None
) -> Task:
    """The first `steps` steps under `policy`; for `number` > 0 from shuffled parameters and in another order."""
    state, sampler = task.initial_state(), task.sampler
    assert sampler is not None
    if number:
        rng = np.random.default_rng([seed, number])
        fixed = constants(task.program)
        types = task.program.inputs_of("state")
        state = {
            n: rng.permutation(a.reshape(-1)).reshape(a.shape) if types[n].dtype is Dtype.f32 and n not in fixed else a
            for n, a in state.items()
        }
        first, second = (int(word) for word in rng.integers(0, 1 << 32, 2))
        sampler = Sampler((first, second), sampler.rows, sampler.batch)
    schedule = {name: a[:steps] for name, a in task.group("schedule").items()}
    return write_task(
        path, task.program, state, data=task.group("data"), schedule=schedule, sampler=sampler, steps=steps,
        interval=task.interval, policy=policy,
    )  # fmt: skip


def solve_as(task: str, way: Variation, out: Path) -> str:
    """Solve in the way of a variation, in a process of its own: PyTorch chooses instruction sets when it is loaded.

    `task` is the folder of a task, or of a recorded run, whose steps are executed again.
    """
    environment = dict(os.environ) | dict(way.environment)
    done = subprocess.run(way.command(task, str(out)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip()[-500:]
        raise BackendError(f"variation {way.name!r} failed with exit code {done.returncode}: {reason}")
    return str(out)


def _least_noise(seen: _Seen) -> tuple[list[Deviation], Drift]:
    """Set the least noise whose probes go about as far as these honest kernels in the first run; what they measure."""
    for seen.noise in NOISES:
        deviations, drift = seen.measure(0)
        if float(np.median([d.worst("l2")[0] for d in deviations])) <= 0.5:
            return deviations, drift
    raise MalformedError(
        f"these kernels go farther from a replay than probes of 2^-{NOISES[-1]} do: they do not compute this program"
    )


def _apart(task: Task, finals: Sequence[Mapping[str, Array]]) -> float:
    """l2 distance between what two independently seeded runs trained; 0 with one seed."""
    if len(finals) < 2:
        return 0.0
    fixed, total = constants(task.program), 0.0
    for name, type in task.program.inputs_of("state").items():
        if type.dtype is Dtype.f32 and name.startswith("param.") and name not in fixed:
            d = difference(finals[0][name], finals[1][name], type.dtype)
            total += inner(d, d)
    return math.sqrt(total)


# ---- statistics -------------------------------------------------------------------------------------------------


def _derive(seen: _Seen, ways: Sequence[str], rate: float, reference: float) -> Calibration:
    found, drifts, noise, probes = [d for run in seen.deviations for d in run], seen.drifts, seen.noise, seen.probes
    unequal = sorted({name for d in found for name in d.unequal})
    if unequal:
        raise MalformedError(
            f"honest kernels disagree in {unequal[0]!r}, which is no float: it cannot have a threshold"
        )
    excess = {norm: [d.worst(norm)[0] for d in found] for norm in DECIDING}
    worst = max(d.resolution for d in found)
    middle = float(np.median([d.resolution for d in found]))
    if middle > BLIND:
        raise MalformedError(
            f"rounding alone moves half of the intervals 2^{middle:.1f} times as far as training does: no distance can "
            "tell right from wrong. Shorter intervals between checkpoints help"
        )
    accept = {norm: max(LEAST_ACCEPT, tail(values, UNDECIDED)) for norm, values in excess.items()}
    reject = {norm: max(accept[norm] + LEAST_GAP, tail(values, rate)) for norm, values in excess.items()}
    share = _share(found, reject)
    cosines = [c for drift in drifts for c in drift.cosines]
    thresholds = Thresholds(  # rounded up: away from the honest
        noise=noise,
        probes=probes,
        accept_l2=bits(accept["l2"]),
        accept_linf=bits(accept["linf"]),
        reject_l2=bits(reject["l2"]),
        reject_linf=bits(reject["linf"]),
        share=bits(share),
        resolution=bits(min(worst + ROOM, 0.0)),
        mean=bits(float(np.mean(excess["l2"]))),
        spread=bits(max(float(np.std(excess["l2"])), LEAST_SIGMA)),
        coherence=cosine_units(float(np.mean(cosines)) if cosines else 0.0),
        scatter=cosine_units(float(np.std(cosines)) if cosines else 0.0),
        reference=bits(math.log2(reference)) if reference > 0.0 else -(1 << 20),
        rate=round(rate * RATE),
        replays=len(found),
    )
    return Calibration(
        thresholds, tuple(ways), len(found), tuple(excess["l2"]), tuple(excess["linf"]), tuple(cosines), middle
    )


def _share(found: Sequence[Deviation], limits: Mapping[str, float]) -> float:
    """log2 of the share of its update above which a tensor may be rejected.

    An honest tensor beyond the reject limit met a switch that no probe did; how much that moves it is a matter of the
    model, and far less than an update.
    """
    beyond = [t.share(n) for d in found for t in d.tensors.values() for n in DECIDING if t.excess(n) > limits[n]]
    return max([LEAST_SHARE, *(share + 2.0 for share in beyond if math.isfinite(share))])


def bits(x: float) -> int:
    return max(-(1 << 20), min(1 << 20, math.ceil(x * BIT)))


def cosine_units(x: float) -> int:
    return max(-SHARE, min(SHARE, math.ceil(x * SHARE)))


def tail(values: Sequence[float], p: float) -> float:
    """The value that is exceeded with probability `p`, by an exponential tail above the 80 % quantile.

    The median of the excesses over u, divided by ln 2, estimates the scale of an exponential tail, and outliers do not
    move it. It varies like a mean of 0.48 n values, of which 2 n sigma_hat / sigma is chi-square with 2 n degrees of
    freedom: this gives the upper confidence limit.
    """
    u = float(np.quantile(values, QUANTILE))
    above = [v - u for v in values if v > u]
    if not above:
        return u + LEAST_SIGMA * math.log(1.0 / p)
    degrees = max(2.0, 2 * EFFICIENCY * len(above))
    scale = float(np.median(above)) / math.log(2.0)
    sigma = max(LEAST_SIGMA, scale * degrees / chi_square(1.0 - CONFIDENCE, degrees))
    return u + sigma * max(0.0, math.log(len(above) / len(values) / p))


def chi_square(p: float, degrees: float) -> float:
    """The `p` quantile of chi-square, by Wilson and Hilferty (1931); within 3 % for p = 0.05 from 4 degrees on."""
    from statistics import NormalDist

    a = 2.0 / (9.0 * degrees)
    return degrees * (1.0 - a + NormalDist().inv_cdf(p) * math.sqrt(a)) ** 3

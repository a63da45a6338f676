"""Whether a replayed interval of a run on vendor kernels is right: distances against what rounding explains.

Vendor kernels round differently everywhere, and training amplifies that: by a little where it is smooth, by orders of
magnitude where a ReLU switches. So no fixed distance is right for a whole run. The verifier measures, at every
interval that it replays, how far rounding can carry *this* interval:

    replay   the interval from its opening checkpoint on the verifier's backend, by default the reproducible one
    probe    the same replay, whose float state is multiplied by 1 + 2^-noise or 1 - 2^-noise, element by element at
             random, before every step
    excess   log2 of (distance of the solver's closing checkpoint to the replay / distance of the farthest probe to it)

Of each float tensor there is an excess in l2 and in linf; the largest ones count. On a reproducible backend two
verifiers with one beacon get the same numbers. Meaning, calibration and reasons: docs/thresholds.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from gensyn_verify.backends import Executor
from gensyn_verify.backends.arrays import Array
from gensyn_verify.commit import keccak256
from gensyn_verify.program.program import Program
from gensyn_verify.program.types import Dtype
from gensyn_verify.protocol.distance import Norms, cosine, difference, float_types, inner, ulps
from gensyn_verify.protocol.policy import BIT, DECIDING, SHARE, Thresholds
from gensyn_verify.protocol.roots import constants

State = Mapping[str, Array]
Inputs = Callable[[], Iterable[tuple[State, State]]]  # (batch, scalars) of every step of an interval, again and again

_DOMAIN = b"gensyn_verify.probe.1"
LEAST_EXCESS = -40.0  # bits; what is nearer, equal tensors for one, counts as this
FURTHER = 3  # times the policy's probes, added where they do not accept
FLOOR = 2.0**-26  # of a tensor's own norm: a quarter of an ulp; a probe's distance counts as at least this
SIGMAS = 6.0  # of the budget and of coherence
CUSHION = 0.05  # of coherence: a cosine of means that no honest pair of kernels is blamed for


class Outcome(Enum):
    """Of one statistic, of an interval, of a run."""

    ACCEPT = 0
    UNDECIDED = 1
    REJECT = 2


@dataclass(frozen=True)
class Statistic:
    """A number that decides: accepted up to `accept`, rejected above `reject`."""

    name: str  # excess l2, excess linf, resolution, budget, coherence
    value: float
    accept: float
    reject: float
    unit: str
    interval: int | None = None
    tensor: str = ""

    @property
    def outcome(self) -> Outcome:
        if not self.value > self.accept:  # a NaN is above everything
            return Outcome.ACCEPT if self.value == self.value else Outcome.REJECT
        return Outcome.UNDECIDED if self.value <= self.reject else Outcome.REJECT

    def __str__(self) -> str:
        where = f" of {self.tensor!r}" if self.tensor else ""
        where += f" in interval {self.interval}" if self.interval is not None else ""
        limit = f"accepted up to {self.accept:.4g}"
        limit += f", rejected above {self.reject:.4g}" if self.reject < math.inf else ", never rejected for this"
        return f"{self.name}{where}: {self.value:.4g} {self.unit}; {limit}"


@dataclass(frozen=True)
class Interval:
    """What is measured: the states that an interval opens and closes with, and the inputs of its steps."""

    number: int
    opening: State
    inputs: Inputs
    closing: State


@dataclass(frozen=True)
class TensorDeviation:
    """One float tensor at the end of an interval.

    `found`: norms of solver - replay. `probe`: of the farthest probe - replay, in each norm. `update`: of replay -
    opening. `cosine`: of the solver's update and the replay's.
    """

    found: Norms
    probe: Norms
    update: Norms
    cosine: float

    def excess(self, norm: str) -> float:
        """log2 of found over the farthest probe, in bits; infinite for what is no number."""
        found, probe = getattr(self.found, norm), getattr(self.probe, norm)
        return max(LEAST_EXCESS, _bits(found, probe))

    def share(self, norm: str) -> float:
        """log2 of found over update, in bits."""
        return _bits(getattr(self.found, norm), getattr(self.update, norm))


def _bits(x: float, y: float) -> float:
    if x == 0.0:
        return LEAST_EXCESS
    return math.log2(x) - math.log2(y) if math.isfinite(x) and y > 0.0 else math.inf


@dataclass(frozen=True)
class Deviation:
    """One replayed interval: its float tensors, and the names of others that are not equal.

    `ulps` is the histogram of `distance.ulps` over all float tensors.
    """

    interval: int
    steps: int
    probes: int
    tensors: dict[str, TensorDeviation]
    unequal: tuple[str, ...]
    ulps: tuple[int, ...]

    def worst(self, norm: str) -> tuple[float, str]:
        """The largest excess and its tensor."""
        return max(((t.excess(norm), name) for name, t in self.tensors.items()), default=(LEAST_EXCESS, ""))

    @property
    def resolution(self) -> float:
        """log2 of how far the probes went over how far the interval went: the median of the tensors that moved."""
        ratios = [t.probe.l2 / t.update.l2 for t in self.tensors.values() if t.update.l2 > 0.0]
        middle = float(np.median(ratios)) if ratios else 0.0
        return math.log2(middle) if middle > 0.0 else LEAST_EXCESS

    def distance(self, norm: str) -> float:
        """Of the whole state, solver to replay."""
        values = [getattr(t.found, norm) for t in self.tensors.values()]
        if norm == "linf":
            return max(values, default=0.0)
        return math.sqrt(sum(v * v for v in values)) if norm == "l2" else sum(values)

    def statistics(self, thresholds: Thresholds) -> tuple[Statistic, ...]:
        """Resolution, and of both norms the excess of the tensor that is worst.

        Where the resolution is above its limit a replay cannot tell, and there are no others. What is off by a small
        share of its update is not rejected, whatever its excess: a switch that no probe met does that.
        """
        t = thresholds
        resolution = Statistic("resolution", self.resolution, t.resolution / BIT, math.inf, "bits", self.interval)
        if resolution.outcome is not Outcome.ACCEPT:
            return (resolution,)
        out = [resolution]
        for norm in DECIDING:
            accept, reject = getattr(t, f"accept_{norm}") / BIT, getattr(t, f"reject_{norm}") / BIT
            each = [
                Statistic(
                    f"excess {norm}", tensor.excess(norm), accept,
                    reject if tensor.share(norm) > t.share / BIT else math.inf, "bits", self.interval, name,
                )
                for name, tensor in self.tensors.items()
            ]  # fmt: skip
            out += [max(each, key=lambda s: (s.outcome.value, s.value))] if each else []
        return tuple(out)

    def outcome(self, thresholds: Thresholds) -> Outcome:
        """Of this interval alone."""
        return max((s.outcome for s in self.statistics(thresholds)), key=lambda o: o.value)

    def blind(self, thresholds: Thresholds) -> bool:
        """Whether a replay of this interval cannot tell right from wrong."""
        return len(self.statistics(thresholds)) == 1


@dataclass
class Drift:
    """Whether the deviations of a run point one way: the mean cosine between those of any two intervals.

    A solver that pushes a little in every interval, within what rounding explains, pushes somewhere; rounding does not.
    Each deviation is scaled by its tensors' probes and to length 1. `total` is the sum, `last` the latest, `cosines`
    those between each and the one before it.
    """

    total: dict[str, Array] = field(default_factory=dict)
    last: dict[str, Array] = field(default_factory=dict)
    cosines: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, differences: Mapping[str, Array], tensors: Mapping[str, TensorDeviation]) -> None:
        scaled = {n: d / tensors[n].probe.l2 for n, d in differences.items() if tensors[n].probe.l2 > 0.0}
        length = math.sqrt(_inner(scaled, scaled))
        if not 0.0 < length < math.inf:
            return
        unit = {name: d / length for name, d in scaled.items()}
        if self.count:
            self.cosines.append(_inner(unit, self.last))
        self.total = {name: d + self.total[name] if name in self.total else d for name, d in unit.items()}
        self.last = unit
        self.count += 1

    @property
    def coherence(self) -> float:
        """From -1 / (count - 1) to 1; 0 with fewer than two deviations."""
        if self.count < 2:
            return 0.0
        return (_inner(self.total, self.total) - self.count) / (self.count * (self.count - 1))


def _inner(x: Mapping[str, Array], y: Mapping[str, Array]) -> float:
    """Over the tensors that both have, in the order of `x`."""
    return sum(inner(x[n], y[n]) for n in x if n in y)


class Examiner:
    """Replays intervals of one run and measures them. `seed`: 32 bytes that the solver could not foresee."""

    def __init__(self, program: Program, executor: Executor, seed: bytes) -> None:
        self._executor, self._seed = executor, seed
        types = program.inputs_of("state")
        self.floats = float_types(types)
        fixed = constants(program)
        self._perturbed = [n for n, t in types.items() if t.dtype is Dtype.f32 and n not in fixed]
        self.drift = Drift()
        self.steps = 0

    def judge(self, interval: Interval, t: Thresholds, further: bool = True) -> Deviation:
        """Measure with the policy's probes; where they do not accept, and `further`, with more."""
        measured = _Measurement(self, interval)
        measured.probe(t.noise, t.probes)
        deviation = measured.deviation()
        if further and deviation.outcome(t) is not Outcome.ACCEPT:
            measured.probe(t.noise, FURTHER * t.probes)
            deviation = measured.deviation()
        if not deviation.blind(t):
            self.drift.add(measured.found, deviation.tensors)
        return deviation

    def measure(self, interval: Interval, noise: int, probes: int) -> Deviation:
        """Measure with `probes` probes of 2^-noise."""
        measured = _Measurement(self, interval)
        measured.probe(noise, probes)
        deviation = measured.deviation()
        self.drift.add(measured.found, deviation.tensors)
        return deviation

    def run(self, interval: Interval, signs: Iterator[Array] | None = None, noise: int = 0) -> dict[str, Array]:
        """The state after the interval; `signs` and `noise` make it a probe."""
        self._executor.load(interval.opening)
        up, down = np.float32(1 + 2.0**-noise), np.float32(1 - 2.0**-noise)
        for batch, scalars in interval.inputs():
            if signs is not None:
                state = dict(self._executor.state())
                moved = {n: _perturbed(state[n], next(signs), up, down) for n in self._perturbed}
                self._executor.load(state | moved)
            self._executor.step(batch, scalars)
            self.steps += 1
        return {n: np.array(a) for n, a in self._executor.state().items()}

    def signs(self, interval: Interval, probe: int) -> Iterator[Array]:
        """Random bits for every perturbed tensor of every step: NumPy's Philox under keccak(seed, interval, probe)."""
        digest = keccak256(_DOMAIN + self._seed + interval.number.to_bytes(8, "big") + probe.to_bytes(8, "big"))
        stream = np.random.Philox(key=int.from_bytes(digest[:16], "big"))
        while True:
            for name in self._perturbed:
                yield stream.random_raw(-(-interval.opening[name].size // 64)).astype("<u8")


class _Measurement:
    """One interval while probes are added."""

    def __init__(self, examiner: Examiner, interval: Interval) -> None:
        self._examiner, self._interval = examiner, interval
        before = examiner.steps
        self._replay = replay = examiner.run(interval)
        self._steps = examiner.steps - before
        self.found = {n: difference(interval.closing[n], replay[n], t.dtype) for n, t in examiner.floats.items()}
        self._reached = {n: _floor(replay[n], t.dtype) for n, t in examiner.floats.items()}
        self._probes = 0

    def probe(self, noise: int, count: int) -> None:
        """`count` more probes."""
        for _ in range(count):
            state = self._examiner.run(self._interval, self._examiner.signs(self._interval, self._probes), noise)
            self._probes += 1
            for name, type in self._examiner.floats.items():
                norms = Norms.of(difference(state[name], self._replay[name], type.dtype))
                if math.isfinite(norms.l2):  # a probe that overflows says nothing, least of all that all is well
                    self._reached[name] = self._reached[name].farther(norms)

    def deviation(self) -> Deviation:
        floats, tensors, counts = self._examiner.floats, {}, []
        states = self._interval.opening, self._interval.closing, self._replay
        for name, type in floats.items():
            opening, closing, replay = (state[name] for state in states)
            update, claimed = difference(replay, opening, type.dtype), difference(closing, opening, type.dtype)
            tensors[name] = TensorDeviation(
                Norms.of(self.found[name]), self._reached[name], Norms.of(update), cosine(update, claimed)
            )
            counts.append(ulps(closing, replay, type.dtype))
        exact = self._replay.keys() - floats.keys()
        unequal = tuple(sorted(n for n in exact if not np.array_equal(self._replay[n], self._interval.closing[n])))
        histogram = tuple(map(sum, zip(*counts, strict=True)))
        return Deviation(self._interval.number, self._steps, self._probes, tensors, unequal, histogram)


def _floor(replay: Array, dtype: Dtype) -> Norms:
    """What a probe's distance counts as at least."""
    own = Norms.of(difference(replay, np.zeros_like(replay), dtype))
    return Norms(own.l1 * FLOOR, own.l2 * FLOOR, own.linf * FLOOR)


def _perturbed(tensor: Array, words: Array, up: np.float32, down: np.float32) -> Array:
    bits = np.unpackbits(words.view(np.uint8), count=tensor.size).reshape(tensor.shape)
    with np.errstate(all="ignore"):
        return np.where(bits == 1, tensor * up, tensor * down)


def budget(thresholds: Thresholds, n: int) -> float:
    """The largest mean excess of n intervals, in bits, that is not rejected."""
    return (thresholds.mean + SIGMAS * thresholds.spread / math.sqrt(n)) / BIT


def over_the_run(deviations: Sequence[Deviation], drift: Drift, thresholds: Thresholds) -> tuple[Statistic, ...]:
    """What adds up over all replayed intervals: their mean excess, and how far the deviations point one way."""
    t = thresholds
    excesses = [d.worst("l2")[0] for d in deviations if not d.blind(t)]
    n = len(excesses)
    if n < 2:
        return ()
    mean = sum(excesses) / n
    most = budget(t, n)
    pairs = math.sqrt(n * (n - 1) / 2)
    coherence = (t.coherence + SIGMAS * t.scatter / pairs) / SHARE + CUSHION
    return (
        Statistic("budget", mean, most, most, "bits"),
        Statistic("coherence", drift.coherence, coherence, coherence, "(mean cosine)"),
    )

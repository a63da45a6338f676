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
from gensyn_verify.protocol.distance import Norms, cosine, difference, float_types, ulps
from gensyn_verify.protocol.policy import BIT, SHARE, Thresholds
from gensyn_verify.protocol.roots import constants

State = Mapping[str, Array]
Inputs = Callable[[], Iterable[tuple[State, State]]]  # (batch, scalars) of every step of an interval, again and again

_DOMAIN = b"gensyn_verify.probe.1"
FURTHER = 3  # times the policy's probes, added where an interval is not accepted at once
LEAST_EXCESS = -40.0  # bits; what is nearer, equal tensors for one, counts as this
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
class TensorDeviation:
    """One float tensor at the end of an interval.

    `found`: norms of solver - replay. `probe`: of the farthest probe - replay, in each norm. `update`: l2 of replay -
    opening. `cosine`: of the solver's update and the replay's.
    """

    found: Norms
    probe: Norms
    update: float
    cosine: float

    def excess(self, norm: str) -> float:
        """log2 of found over probe, in bits; infinite for what is no number."""
        found, probe = getattr(self.found, norm), getattr(self.probe, norm)
        if found == 0.0:
            return LEAST_EXCESS
        if not math.isfinite(found):
            return math.inf
        return max(LEAST_EXCESS, math.log2(found) - math.log2(probe)) if probe > 0.0 else math.inf


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
        ratios = [t.probe.l2 / t.update for t in self.tensors.values() if t.update > 0.0]
        middle = float(np.median(ratios)) if ratios else 0.0
        return math.log2(middle) if middle > 0.0 else LEAST_EXCESS

    def distance(self, norm: str) -> float:
        """Of the whole state, solver to replay."""
        values = [getattr(t.found, norm) for t in self.tensors.values()]
        if norm == "linf":
            return max(values, default=0.0)
        return math.sqrt(sum(v * v for v in values)) if norm == "l2" else sum(values)

    def statistics(self, thresholds: Thresholds) -> tuple[Statistic, ...]:
        t = thresholds
        out = []
        for norm in ("l2", "linf"):
            value, tensor = self.worst(norm)
            limits = getattr(t, f"accept_{norm}") / BIT, getattr(t, f"reject_{norm}") / BIT
            out.append(Statistic(f"excess {norm}", value, *limits, "bits", self.interval, tensor))
        out.append(Statistic("resolution", self.resolution, t.resolution / BIT, math.inf, "bits", self.interval))
        return tuple(out)

    def outcome(self, thresholds: Thresholds) -> Outcome:
        """Of this interval alone. Where a replay cannot tell, no distance accepts or rejects."""
        *excesses, resolution = (s.outcome for s in self.statistics(thresholds))
        if resolution is not Outcome.ACCEPT:
            return Outcome.UNDECIDED
        return max(excesses, key=lambda o: o.value)


@dataclass
class Drift:
    """Whether the deviations of a run point one way: the mean cosine between those of any two intervals.

    A solver that pushes a little in every interval, within what rounding explains, pushes somewhere; rounding does not.
    Each deviation is scaled by its tensors' probes and to length 1; `total` is the sum.
    """

    total: dict[str, Array] = field(default_factory=dict)
    count: int = 0

    def add(self, differences: Mapping[str, Array], tensors: Mapping[str, TensorDeviation]) -> None:
        scaled = {n: d / tensors[n].probe.l2 for n, d in differences.items() if tensors[n].probe.l2 > 0.0}
        length = math.sqrt(sum(float(np.dot(d.reshape(-1), d.reshape(-1))) for d in scaled.values()))
        if not 0.0 < length < math.inf:
            return
        self.count += 1
        for name, d in scaled.items():
            before = self.total.get(name)
            self.total[name] = d / length if before is None else before + d / length

    @property
    def coherence(self) -> float:
        """From -1 / (count - 1) to 1; 0 with fewer than two deviations."""
        if self.count < 2:
            return 0.0
        square = sum(float(np.dot(d.reshape(-1), d.reshape(-1))) for d in self.total.values())
        return (square - self.count) / (self.count * (self.count - 1))


class Examiner:
    """Replays intervals of one run and measures them. `seed`: 32 bytes that the solver could not foresee."""

    def __init__(
        self, program: Program, executor: Executor, noise: int, probes: int, seed: bytes, accept: Thresholds | None
    ) -> None:
        self._executor = executor
        self._noise, self._probes, self._seed, self._accept = noise, probes, seed, accept
        types = program.inputs_of("state")
        self._floats = float_types(types)
        fixed = constants(program)
        self._perturbed = [n for n, t in types.items() if t.dtype is Dtype.f32 and n not in fixed]
        self.drift = Drift()
        self.steps = 0

    def examine(self, interval: int, opening: State, inputs: Inputs, closing: State) -> Deviation:
        """Replay and probe `interval` and measure its closing checkpoint; more probes where it is not accepted."""
        before = self.steps
        replay = self._run(opening, inputs)
        steps = self.steps - before
        found = {n: difference(closing[n], replay[n], t.dtype) for n, t in self._floats.items()}
        counts = [ulps(closing[n], replay[n], t.dtype) for n, t in self._floats.items()]
        histogram = tuple(map(sum, zip(*counts, strict=True)))
        unequal = tuple(n for n, a in replay.items() if n not in self._floats and not np.array_equal(a, closing[n]))
        tensors = {n: self._tensor(n, found[n], opening[n], replay[n], closing[n]) for n in self._floats}
        first, further = range(self._probes), range(self._probes, self._probes * (1 + FURTHER))
        for probes in (first, further):
            for probe in probes:
                self._probe(interval, probe, opening, inputs, replay, tensors)
            deviation = Deviation(interval, steps, probes.stop, dict(tensors), unequal, histogram)
            if self._accept is None or deviation.outcome(self._accept) is Outcome.ACCEPT:
                break
        self.drift.add(found, tensors)
        return deviation

    def _run(self, opening: State, inputs: Inputs, signs: Iterator[Array] | None = None) -> dict[str, Array]:
        """The state after the interval; `signs` makes it a probe."""
        self._executor.load(opening)
        for batch, scalars in inputs():
            if signs is not None:
                state = dict(self._executor.state())
                self._executor.load(state | {n: self._perturb(state[n], next(signs)) for n in self._perturbed})
            self._executor.step(batch, scalars)
            self.steps += 1
        return {n: np.array(a) for n, a in self._executor.state().items()}

    def _perturb(self, tensor: Array, words: Array) -> Array:
        up, down = np.float32(1 + 2.0**-self._noise), np.float32(1 - 2.0**-self._noise)
        bits = np.unpackbits(words.view(np.uint8), count=tensor.size).reshape(tensor.shape)
        with np.errstate(all="ignore"):
            return np.where(bits == 1, tensor * up, tensor * down)

    def _signs(self, interval: int, probe: int, shapes: list[int]) -> Iterator[Array]:
        """Random bits for every perturbed tensor of every step: NumPy's Philox under keccak(seed, interval, probe)."""
        digest = keccak256(_DOMAIN + self._seed + interval.to_bytes(8, "big") + probe.to_bytes(8, "big"))
        stream = np.random.Philox(key=int.from_bytes(digest[:16], "big"))
        while True:
            for elements in shapes:
                yield stream.random_raw(-(-elements // 64)).astype("<u8")

    def _probe(
        self,
        interval: int,
        probe: int,
        opening: State,
        inputs: Inputs,
        replay: State,
        tensors: dict[str, TensorDeviation],
    ) -> None:
        """One more probe into `tensors`."""
        shapes = [opening[n].size for n in self._perturbed]
        state = self._run(opening, inputs, self._signs(interval, probe, shapes))
        for name, type in self._floats.items():
            t = tensors[name]
            reached = t.probe.farther(Norms.of(difference(state[name], replay[name], type.dtype)))
            tensors[name] = TensorDeviation(t.found, reached, t.update, t.cosine)

    def _tensor(self, name: str, found: Array, opening: Array, replay: Array, closing: Array) -> TensorDeviation:
        """The deviation before any probe."""
        dtype = self._floats[name].dtype
        update = difference(replay, opening, dtype)
        own = Norms.of(difference(replay, np.zeros_like(replay), dtype))
        floor = Norms(own.l1 * FLOOR, own.l2 * FLOOR, own.linf * FLOOR)
        towards = cosine(update, difference(closing, opening, dtype))
        return TensorDeviation(Norms.of(found), floor, Norms.of(update).l2, towards)


def over_the_run(deviations: Sequence[Deviation], drift: Drift, thresholds: Thresholds) -> tuple[Statistic, ...]:
    """What adds up over all replayed intervals: their mean excess, and how far the deviations point one way."""
    n, t = len(deviations), thresholds
    if n < 2:
        return ()
    mean = sum(d.worst("l2")[0] for d in deviations) / n
    budget = (t.mean + SIGMAS * t.spread / math.sqrt(n)) / BIT
    pairs = math.sqrt(n * (n - 1) / 2)
    coherence = (t.coherence + SIGMAS * t.scatter / pairs) / SHARE + CUSHION
    return (
        Statistic("budget", mean, budget, budget, "bits"),
        Statistic("coherence", drift.coherence, coherence, coherence, "(mean cosine)"),
    )

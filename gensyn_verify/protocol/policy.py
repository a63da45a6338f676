"""The verification policy of a task: how many intervals, and by which measure a replayed one is right.

Mode `exact` compares bits. Mode `threshold` compares distances with thresholds that `calibrate` derived from honest
replays; they are integers in the task, so that all parties hold the same ones. What they mean: docs/thresholds.md.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.protocol import manifest as m

T = TypeVar("T")

MAX_SAMPLES = 1 << 40
MAX_FILE = 1 << 16
BIT = 1024  # thresholds in bits are integers in units of 1 / BIT
RATE = 10**9  # probabilities in units of 1 / RATE
SHARE = 1 << 20  # cosines in units of 1 / SHARE
MODES = ("exact", "threshold")
DECIDING = ("l2", "linf")  # the norms that have thresholds


def _field(low: int, high: int) -> Any:
    return dataclasses.field(metadata={"range": (low, high)})


_BITS = (-(1 << 20), 1 << 20)


@dataclass(frozen=True)
class Thresholds:
    """What `calibrate` found. Excesses are in bits / BIT: log2 of a distance over that of the farthest probe.

    noise      a probe is a replay whose float state is multiplied by 1 +- 2^-noise before every step
    probes     of a replayed interval; where they do not accept, three times as many more
    accept_*   the largest excess, over the tensors, that is accepted
    reject_*   the excess above which a tensor is rejected, if it is off by more than
    share      log2 of this share of its update; in between an interval is undecided
    resolution log2 of a probe's distance over the interval's update, the median of the tensors: above it a replay
               cannot tell right from wrong, and the interval is undecided
    mean, spread       of an honest interval's excess in l2; bound the mean over all replayed intervals
    coherence, scatter  mean and spread, / SHARE, of the cosine between the deviations of two intervals of a run; bound
               drift that stays below the thresholds and adds up
    reference  log2 of the distance between the parameters of independently seeded runs, in bits / BIT
    rate       stated probability, / RATE, that an honest interval is rejected
    replays    honest interval replays behind these numbers
    """

    noise: int = _field(1, 23)
    probes: int = _field(1, 64)
    accept_l2: int = _field(*_BITS)
    accept_linf: int = _field(*_BITS)
    reject_l2: int = _field(*_BITS)
    reject_linf: int = _field(*_BITS)
    share: int = _field(*_BITS)
    resolution: int = _field(*_BITS)
    mean: int = _field(*_BITS)
    spread: int = _field(0, 1 << 20)
    coherence: int = _field(-SHARE, SHARE)
    scatter: int = _field(0, SHARE)
    reference: int = _field(*_BITS)
    rate: int = _field(0, RATE)
    replays: int = _field(0, 1 << 40)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            low, high = field.metadata["range"]
            value = getattr(self, field.name)
            if not isinstance(value, int) or not low <= value <= high:
                raise MalformedError(f"policy: threshold {field.name} is {value!r}; expected {low} to {high}")
        for norm in DECIDING:
            accept, reject = getattr(self, f"accept_{norm}"), getattr(self, f"reject_{norm}")
            if accept > reject:
                raise MalformedError(f"policy: accept_{norm} is {accept}, above reject_{norm}, {reject}")


@dataclass(frozen=True)
class Policy:
    """How a run of the task is verified: `samples` intervals from the beacon and the `largest` updates.

    Mode "exact": bit for bit. Mode "threshold", which needs `thresholds`: by distances.
    """

    mode: str = "exact"
    samples: int = 4
    largest: int = 2
    thresholds: Thresholds | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise MalformedError(f"verification mode {self.mode!r} is unknown; known are 'exact' and 'threshold'")
        if (self.mode == "threshold") != (self.thresholds is not None):
            raise MalformedError("a policy has thresholds in mode 'threshold', and only there")
        for name in ("samples", "largest"):
            if not 0 <= getattr(self, name) <= MAX_SAMPLES:
                raise MalformedError(f"policy: {name} is {getattr(self, name)}; expected 0 to 2^40")

    def to_value(self) -> dict[str, Any]:
        value: dict[str, Any] = {"largest": self.largest, "mode": self.mode, "samples": self.samples}
        return value if self.thresholds is None else value | {"thresholds": dataclasses.asdict(self.thresholds)}


def write_policy(policy: Policy, path: str | os.PathLike[str]) -> None:
    """A policy as a file of its own, canonical JSON: of a verifier, or for a recording that is still to begin."""
    with open(path, "wb") as file:
        file.write(m.encode(policy.to_value()))


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file. Raises BundleError where it is malformed."""
    with open(path, "rb") as file:
        return m.decode(file.read(MAX_FILE), parse_policy, os.fspath(path))


_common: dict[str, m.Parser[Any]] = {
    "largest": m.integer(0, MAX_SAMPLES),
    "mode": m.literal(*MODES),
    "samples": m.integer(0, MAX_SAMPLES),
}
_thresholds = m.record(**{f.name: m.integer(*f.metadata["range"]) for f in dataclasses.fields(Thresholds)})
_exact, _threshold = m.record(**_common), m.record(**_common, thresholds=_thresholds)


def parse_policy(value: Any, where: str) -> Policy:
    """The policy object of a manifest."""
    if isinstance(value, dict) and "thresholds" in value:
        fields = _threshold(value, where)
        return _made(where, Policy, fields | {"thresholds": _made(where, Thresholds, fields["thresholds"])})
    return _made(where, Policy, _exact(value, where))


def _made(where: str, kind: Callable[..., T], fields: dict[str, Any]) -> T:
    """An object of checked fields; what they contradict is a BundleError that names `where`."""
    try:
        return kind(**fields)
    except MalformedError as error:
        raise BundleError(f"{where}: {error}") from None

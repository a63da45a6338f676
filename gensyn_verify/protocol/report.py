"""What a verifier says: a verdict, what was wrong, what was done, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

from gensyn_verify.protocol.distance import NORMS
from gensyn_verify.protocol.policy import DECIDING, Thresholds
from gensyn_verify.protocol.threshold import Deviation, Statistic


class Verdict(Enum):
    """VERIFIED and MISMATCH are about bits (mode exact), ACCEPT and REJECT about distances (mode threshold)."""

    VERIFIED = "VERIFIED"
    ACCEPT = "ACCEPT"
    MISMATCH = "MISMATCH"
    REJECT = "REJECT"
    UNDECIDED = "UNDECIDED"

    @property
    def exit_code(self) -> int:
        """What `gverify replay` ends with."""
        return {"VERIFIED": 0, "ACCEPT": 0, "MISMATCH": 1, "REJECT": 1, "UNDECIDED": 3}[self.value]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as committed. `expected` and `found` are digests in hex, or plain words."""

    kind: str  # task, solver, log, commitment, signature, checkpoint, batch, scalar, state, metric, moment
    message: str
    expected: str
    found: str
    interval: int | None = None
    step: int | None = None
    tensor: str = ""

    def __str__(self) -> str:
        return f"{self.message}\n    expected {self.expected}\n    found    {self.found}"


@dataclass(frozen=True)
class Report:
    """The outcome of `replay`. `gaps` are the reasons why nothing can be concluded; `notes` are worth knowing.

    In mode threshold `deviations` are the replayed intervals, `statistics` what they were judged by, the deciding one
    first. `steps_replayed` counts probes too: it is what the verification cost.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]
    notes: tuple[str, ...]
    task: str
    commitment: str
    solver: str
    signed: bool
    steps: int
    intervals: int
    interval: int
    beacon: str
    sampled: tuple[int, ...]
    largest: tuple[int, ...]
    replayed: tuple[int, ...]
    steps_replayed: int
    detection: tuple[tuple[Fraction, int, Fraction], ...]
    backend: str
    thresholds: Thresholds | None = None
    deviations: tuple[Deviation, ...] = ()
    statistics: tuple[Statistic, ...] = ()

    @property
    def exit_code(self) -> int:
        return self.verdict.exit_code

    @property
    def mode(self) -> str:
        return "exact" if self.thresholds is None else "threshold"

    def to_json(self) -> dict[str, Any]:
        """Plain values: strings, integers, lists, objects; probabilities are floats."""
        out: dict[str, Any] = {k: v for k, v in self.__dict__.items() if isinstance(v, str | int | bool)}
        for key in ("gaps", "notes", "sampled", "largest", "replayed"):
            out[key] = list(getattr(self, key))
        out["verdict"] = self.verdict.name
        out["exit_code"], out["mode"] = self.exit_code, self.mode
        out["findings"] = [dict(f.__dict__) for f in self.findings]
        out["detection"] = [{"share": float(s), "intervals": n, "probability": float(p)} for s, n, p in self.detection]
        if self.mode == "threshold":
            out["statistics"] = [{**s.__dict__, "outcome": s.outcome.name} for s in self.statistics]
            out["deviations"] = [_deviation(d) for d in self.deviations]
        return out

    def __str__(self) -> str:
        lines = [f"{self.verdict.name}: {self._headline()}"]
        lines += [f"  {text}" for f in self.findings for text in str(f).splitlines()]
        lines += [f"  {gap}" for gap in self.gaps]
        lines += [f"  {statistic}" for statistic in self.statistics[1:]]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [
            f"  task        {self.task}",
            f"  commitment  {self.commitment or '(none yet)'}",
            f"  solver      {self.solver} ({'signed' if self.signed else 'unsigned'})",
            f"  log         {self.steps} steps in {self.intervals} intervals of {self.interval}",
            f"  replayed    {self.steps_replayed} steps on {self.backend}{self._probes()}: {self._intervals()}",
            f"  beacon      {self.beacon}",
        ]
        if self.detection:
            lines.append("  a forger who packs forged steps as tightly as they go would have been caught with")
            lines += [
                f"    probability {_percent(p)} at {_percent(share)} of the steps ({n} of {self.intervals} intervals)"
                for share, n, p in self.detection
            ]
        return "\n".join(lines)

    def _headline(self) -> str:
        if self.findings:
            more = len(self.findings) - 1
            return self.findings[0].message + (f" (and {more} more)" if more else "")
        if self.gaps and self.verdict is Verdict.UNDECIDED:
            return self.gaps[0]
        if self.statistics:
            return str(self.statistics[0])
        return f"{self.steps_replayed} replayed steps equal the commitment bit for bit"

    def _probes(self) -> str:
        return ", probes included" if self.mode == "threshold" else ""

    def _intervals(self) -> str:
        if len(self.replayed) == self.intervals:
            return "every interval"
        named = (("drawn", self.sampled), ("largest updates", self.largest))
        return "; ".join(f"{name} {_list(which)}" for name, which in named if which) or "none"


def _deviation(d: Deviation) -> dict[str, Any]:
    """One replayed interval as plain values."""
    out: dict[str, Any] = {"interval": d.interval, "steps": d.steps, "probes": d.probes, "unequal": list(d.unequal)}
    out |= {norm: d.distance(norm) for norm in NORMS} | {"resolution": d.resolution, "ulps": list(d.ulps)}
    out["tensors"] = {
        name: {
            **{norm: getattr(t.found, norm) for norm in NORMS},
            **{f"excess_{norm}": t.excess(norm) for norm in DECIDING},
            "update": t.update.l2,
            "cosine": t.cosine,
        }
        for name, t in d.tensors.items()
    }
    return out


def _list(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return shown + (f", ... ({len(numbers)})" if len(numbers) > 12 else "")


def _percent(x: Fraction) -> str:
    return f"{float(100 * x):.4g} %"

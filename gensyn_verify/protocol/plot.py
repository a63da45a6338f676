"""Distances over a run beside their thresholds, as SVG: one dot a replayed interval, the same bytes everywhere."""

from __future__ import annotations

import math

from gensyn_verify import svg
from gensyn_verify.errors import MalformedError
from gensyn_verify.protocol.policy import BIT, DECIDING, Thresholds
from gensyn_verify.protocol.report import Report
from gensyn_verify.protocol.threshold import Deviation, Outcome

WIDTH, PANEL, LEFT, RIGHT, TOP = 860, 210, 70, 30, 56
_COLOURS = {Outcome.ACCEPT: svg.GOOD, Outcome.UNDECIDED: "#e08a1e", Outcome.REJECT: svg.BAD}


def draw(report: Report) -> str:
    """Excess in l2 and in linf, and below them how far run and replay are apart beside what the interval moved."""
    thresholds = report.thresholds
    if thresholds is None:
        raise MalformedError("there are no distances to draw: the run was verified bit for bit")
    parts = [
        svg.text(LEFT, 26, f"{report.verdict.value}: {report.steps} steps, {len(report.deviations)} intervals", size=15)
    ]
    top = TOP
    for norm in DECIDING:
        values = [(d, d.worst(norm)[0]) for d in report.deviations]
        limits = {name: getattr(thresholds, f"{name}_{norm}") / BIT for name in ("accept", "reject")}
        parts += _panel(report, thresholds, f"excess {norm} over the farthest probe, bits", values, limits, top)
        top += PANEL + 50
    values = [(d, _relative(d)) for d in report.deviations]
    parts += _panel(report, thresholds, "l2 from run to replay, log2 of the share of the update", values, {}, top)
    height = top + PANEL + 40
    return svg.document(WIDTH, height, parts)


def _relative(d: Deviation) -> float:
    update = math.sqrt(sum(t.update.l2**2 for t in d.tensors.values()))
    found = d.distance("l2")
    return math.log2(found / update) if found > 0.0 and update > 0.0 else -40.0


def _panel(
    report: Report,
    thresholds: Thresholds,
    title: str,
    values: list[tuple[Deviation, float]],
    limits: dict[str, float],
    top: int,
) -> list[str]:
    shown = [v for _, v in values if math.isfinite(v)] + list(limits.values())
    low, high = math.floor(min(shown, default=0.0)) - 1, math.ceil(max(shown, default=1.0)) + 1
    right = WIDTH - RIGHT

    def x(interval: int) -> float:
        return LEFT + (interval + 0.5) / max(1, report.intervals) * (right - LEFT)

    def y(value: float) -> float:
        return top + PANEL * (high - min(max(value, low), high)) / (high - low)

    out = [svg.text(LEFT, top - 8, title, size=13)]
    stride = max(1, (high - low) // 6)
    for tick in range(low, high + 1, stride):
        out += [
            svg.line(LEFT, y(tick), right, y(tick), svg.FAINT),
            svg.text(LEFT - 8, y(tick) + 4, str(tick), "end", 10),
        ]
    for name, value in limits.items():
        out += [
            svg.line(LEFT, y(value), right, y(value), _COLOURS[Outcome[name.upper()]], 2),
            svg.text(right, y(value) - 4, name, "end", 10),
        ]
    for d, value in values:
        label = f"interval {d.interval}: {value:.2f} ({d.worst('l2')[1]})"
        out.append(svg.dot(x(d.interval), y(value), 4.5, _COLOURS[d.outcome(thresholds)], label))
    out.append(svg.text(LEFT, top + PANEL + 16, "interval 0", size=10))
    out.append(svg.text(right, top + PANEL + 16, f"interval {max(0, report.intervals - 1)}", "end", 10))
    return out

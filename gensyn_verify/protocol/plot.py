"""Distances over a run beside their thresholds, as SVG: one dot a replayed interval, the same bytes everywhere."""

from __future__ import annotations

import math
from html import escape

from gensyn_verify.errors import MalformedError
from gensyn_verify.protocol.policy import BIT, DECIDING, Thresholds
from gensyn_verify.protocol.report import Report
from gensyn_verify.protocol.threshold import Deviation, Outcome

WIDTH, PANEL, LEFT, RIGHT, TOP = 860, 210, 70, 30, 56
_INK, _FAINT = "#1f2933", "#d9dee4"
_COLOURS = {Outcome.ACCEPT: "#2b8a5f", Outcome.UNDECIDED: "#e08a1e", Outcome.REJECT: "#c23b3b"}


def draw(report: Report) -> str:
    """Excess in l2 and in linf, and below them how far run and replay are apart beside what the interval moved."""
    thresholds = report.thresholds
    if thresholds is None:
        raise MalformedError("there are no distances to draw: the run was verified bit for bit")
    parts = [
        _text(LEFT, 26, f"{report.verdict.value}: {report.steps} steps, {len(report.deviations)} intervals", size=15)
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
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{_INK}">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


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

    out = [_text(LEFT, top - 8, title, size=13)]
    stride = max(1, (high - low) // 6)
    for tick in range(low, high + 1, stride):
        out += [_line(LEFT, y(tick), right, y(tick), _FAINT), _text(LEFT - 8, y(tick) + 4, str(tick), "end", 10)]
    for name, value in limits.items():
        out += [
            _line(LEFT, y(value), right, y(value), _COLOURS[Outcome[name.upper()]], 2),
            _text(right, y(value) - 4, name, "end", 10),
        ]
    for d, value in values:
        label = escape(f"interval {d.interval}: {value:.2f} ({d.worst('l2')[1]})")
        colour = _COLOURS[d.outcome(thresholds)]
        dot = f'<circle cx="{x(d.interval):.1f}" cy="{y(value):.1f}" r="4.5" fill="{colour}">'
        out.append(f"{dot}<title>{label}</title></circle>")
    out.append(_text(LEFT, top + PANEL + 16, "interval 0", size=10))
    out.append(_text(right, top + PANEL + 16, f"interval {max(0, report.intervals - 1)}", "end", 10))
    return out


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}"/>'

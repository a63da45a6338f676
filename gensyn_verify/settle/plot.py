"""The picture of a simulation as SVG, written by hand: no plotting library, the same bytes everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign, log10

from gensyn_verify import svg
from gensyn_verify.settle.simulation import POPULATION, VERIFIERS, Dynamics, Result

_LINES = (svg.GOOD, "#e08a1e", "#7a5bb5", "#8794a1")
_CHEATS, _DASHES = svg.BAD, "5 4"


def draw(results: Sequence[tuple[Result, Result]], runs: Sequence[tuple[str, Dynamics]]) -> str:
    """SVG of what deviations bring, inside of the floors and with one floor broken, and of populations below it."""
    height = 110 + 34 * len(results)
    columns = [320 * i for i in range(len(runs))]
    width = max(640, 320 * len(runs))
    parts = [_advantages(results, width)]
    parts += [_population(title, d, x + 44, height + 40) for x, (title, d) in zip(columns, runs, strict=True)]
    if runs:
        parts.append(_legend(44, height + 290))
    total = height + (320 if runs else 0)
    return svg.document(width, total, parts)


def _advantages(results: Sequence[tuple[Result, Result]], width: int) -> str:
    """One row a floor on an axis that is linear near 0 and logarithmic beyond."""
    left, right = 290.0, width - 40.0
    most = max([1.0, *(abs(r.advantage) for pair in results for r in pair)])
    decades = int(log10(most)) + 1

    def at(value: float) -> float:
        share = copysign(log10(1 + abs(value)), value) / log10(1 + 10**decades)
        return (left + right) / 2 + share * (right - left) / 2

    bottom = 72 + 34 * len(results)
    out = [svg.text(20, 28, "What deviating brings, in costs of a check, beside honest play", size=15)]
    out.append(svg.dot(26, 46, 5, svg.GOOD) + svg.text(38, 50, "inside of all floors"))
    out.append(svg.dot(176, 46, 5, svg.BAD) + svg.text(188, 50, "this floor broken"))
    for tick in sorted({0, *(s * 10**k for k in range(decades + 1) for s in (1, -1))}):
        out.append(svg.line(at(tick), 62, at(tick), bottom, svg.INK if tick == 0 else svg.FAINT))
        out.append(svg.text(at(tick), bottom + 16, f"{tick:,}".replace("-", "\u2212"), "middle", 10))
    for i, (inside, broken) in enumerate(results):
        y = 82 + 34 * i
        out.append(svg.text(20, y, inside.floor, size=13))
        out.append(svg.text(20, y + 13, inside.text, size=9, fill="#67737f"))
        out.append(svg.line(at(inside.advantage), y, at(broken.advantage), y, svg.FAINT, 3))
        for result, colour in ((inside, svg.GOOD), (broken, svg.BAD)):
            out.append(svg.dot(at(result.advantage), y, 6, colour, f"{result.floor}: {result.advantage:+.4g}"))
    return "\n".join(out)


def _population(title: str, d: Dynamics, x: float, y: float) -> str:
    """Shares of strategies over generations."""
    w, h, last = 256.0, 190.0, len(d.cheats) - 1
    out = [svg.text(x, y - 10, title, size=13)]
    for k in range(5):
        out.append(svg.line(x, y + h * k / 4, x + w, y + h * k / 4, svg.FAINT))
        out.append(svg.text(x - 6, y + h * k / 4 + 4, f"{100 - 25 * k} %", "end", 10))
    out.append(
        svg.text(x, y + h + 16, "0", "middle", 10) + svg.text(x + w, y + h + 16, f"{last} generations", "end", 10)
    )
    series = [(d.verifiers[:, i], c, "") for i, c in enumerate(_LINES)] + [
        (d.cheats, _CHEATS, f' stroke-dasharray="{_DASHES}"')
    ]
    for values, colour, dash in series:
        points = " ".join(f"{x + w * i / last:.1f},{y + h * (1 - v):.1f}" for i, v in enumerate(values))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.2"{dash}/>')
    return "\n".join(out)


def _legend(x: float, y: float) -> str:
    names = [f"verifiers: {VERIFIERS[k]}" for k in POPULATION] + ["solvers that cheat"]
    out = []
    for i, (name, colour) in enumerate(zip(names, (*_LINES, _CHEATS), strict=True)):
        at = x + 178 * i
        out.append(svg.line(at, y, at + 22, y, colour, 2.5, _DASHES if colour == _CHEATS else ""))
        out.append(svg.text(at + 28, y + 4, name, size=11))
    return "\n".join(out)

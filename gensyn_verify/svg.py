"""Pictures as SVG, written by hand: no plotting library, the same bytes everywhere. What all pictures share."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

INK, FAINT, GOOD, BAD = "#1f2933", "#d9dee4", "#2b8a5f", "#c23b3b"


def document(width: int, height: int, parts: Iterable[str]) -> str:
    """A whole file: `parts` on white, text in ink unless they say otherwise."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, content: str, anchor: str = "start", size: int = 12, fill: str = "") -> str:
    """`content` is any string: it is escaped. `anchor` is which of its ends lies at x: start, middle or end."""
    colour = f' fill="{fill}"' if fill else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{colour}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{stroke}" stroke-width="{width}"{dashes}/>'


def dot(x: float, y: float, radius: float, fill: str, title: str = "") -> str:
    """A disc; `title` is what a browser shows where the pointer rests on it."""
    shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}"'
    return f"{shape}><title>{escape(title)}</title></circle>" if title else f"{shape}/>"

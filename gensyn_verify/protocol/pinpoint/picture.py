"""The descent to one operation, as text, as plain values and as a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Level:
    """One level of the descent. `rows` are (what, value of A, value of B); B is empty where both have the same."""

    name: str
    title: str
    rows: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Descent:
    """What `gverify pinpoint` found. `verdict`: "agree", "A is wrong", "B is wrong" or "differ" (nothing to decide)."""

    verdict: str
    summary: str
    levels: tuple[Level, ...] = ()
    notes: tuple[str, ...] = ()
    moves: int = 0
    bytes_sent: int = 0

    @property
    def exit_code(self) -> int:
        return 0 if self.verdict == "agree" else 1

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        levels = [
            {"name": x.name, "title": x.title, "rows": [{"what": w, "a": a, "b": b or a} for w, a, b in x.rows]}
            for x in self.levels
        ]
        plain = {k: getattr(self, k) for k in ("verdict", "summary", "moves", "bytes_sent", "exit_code")}
        return {**plain, "levels": levels, "notes": list(self.notes)}

    def __str__(self) -> str:
        lines = [self.summary, *(f"note: {note}" for note in self.notes)]
        for depth, level in enumerate(self.levels):
            indent = "   " * (depth - 1) + "└─ " if depth else ""
            lines.append(f"{indent}{level.name}: {level.title}")
            lines += ["   " * depth + ("│  " if depth + 1 < len(self.levels) else "   ") + row for row in _table(level)]
        if self.moves:
            lines.append(f"{self.moves} moves, {self.bytes_sent} bytes")
        return "\n".join(lines)

    def svg(self) -> str:
        """The same as a drawing: a box a level, each below and to the right of the one before."""
        line, pad, step = 18, 12, 26
        texts = [[f"{x.name}: {x.title}", *_table(x)] for x in self.levels]
        width = max((depth * step + 8 * max(map(len, t)) for depth, t in enumerate(texts)), default=0)
        width = max(width, 8 * len(self.summary)) + 4 * pad
        out, y = [], pad
        for depth, rows in enumerate(texts):
            x, height = pad + depth * step, line * len(rows) + pad
            if depth:
                out.append(f'<path d="M{x - step // 2} {y - pad}v{pad + line // 2}h{step // 2}" class="edge"/>')
            out.append(f'<rect x="{x}" y="{y}" width="{width - x - pad}" height="{height}" rx="4"/>')
            for i, row in enumerate(rows):
                out.append(f'<text x="{x + 6}" y="{y + line * (i + 1) - 2}">{escape(row)}</text>')
            y += height + pad
        style = "rect,path{fill:none;stroke:gray} text{font:13px monospace;white-space:pre}"
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + line}"><style>{style}</style>'
        summary = f'<text x="{pad}" y="{y + pad}">{escape(self.summary)}</text>'
        return "\n".join([head, *out, summary, "</svg>"]) + "\n"


def _table(level: Level) -> list[str]:
    """A line a row: one value where both sides have it, else that of A and that of B. Digests are shortened."""
    rows = [(what, _short(a), _short(b)) for what, a, b in level.rows]
    width = max((len(what) for what, _, _ in rows), default=0)
    first = max((len(a) for _, a, b in rows if b), default=0)
    return [f"{what:{width}}  A {a:{first}}  B {b}" if b else f"{what:{width}}  {a}".rstrip() for what, a, b in rows]


def _short(text: str) -> str:
    return f"{text[:16]}…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text

"""Where output goes: results on stdout, as text or as one JSON document; progress and errors on stderr."""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from typing import Any

Advance = Callable[..., None]  # (done so far) or (done so far, total)


class Console:
    """Output of one command. In text mode `say` prints at once; in JSON mode only `result` reaches stdout."""

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def say(self, text: str = "") -> None:
        """A line of the result for people."""
        if not self.json:
            print(printable(text))

    def table(self, rows: Sequence[tuple[str, object]], indent: str = "  ") -> None:
        """Two aligned columns."""
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.say(f"{indent}{name:{width}}  {value}".rstrip())

    def result(self, value: Mapping[str, Any]) -> None:
        """The whole result for programs."""
        if self.json:
            print(json_module.dumps(plain(value), indent=2, allow_nan=False))

    def fail(self, message: str, kind: str, code: int) -> None:
        """An error: one line on stderr, in JSON mode also the document on stdout."""
        self.result({"error": {"kind": kind, "message": message, "exit_code": code}})
        print(f"gverify: error: {printable(message)}", file=sys.stderr)

    def flush(self) -> None:
        sys.stdout.flush()

    @contextmanager
    def progress(self, what: str, total: int, unit: str = "step", done: int = 0) -> Iterator[Advance]:
        """A bar on stderr where that is a terminal; yields a function that takes the number done so far."""
        from tqdm import tqdm

        with tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=unit,
            file=sys.stderr,
            leave=False,
            dynamic_ncols=True,
            disable=True if self.quiet else None,  # None: shown on terminals only
        ) as bar:
            yield partial(_advance, bar)


def _advance(bar: Any, done: int, total: int | None = None) -> None:
    if total is not None:
        bar.total = total
    bar.update(done - bar.n)


def printable(text: str) -> str:
    """`text` with control characters escaped: names and origins of a stranger's bundle must not drive a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def plain(value: Any) -> Any:
    """`value` as JSON types: bytes as hex, data classes as objects, enums by name, non-finite floats as strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Sequence | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "item"):  # a NumPy scalar
        return plain(value.item())
    return str(value)

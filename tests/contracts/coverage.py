"""Branch coverage of the contracts by forge's tests, from what `forge coverage --report lcov` writes.

    python tests/contracts/coverage.py LCOV        a row a contract; fails where a column of the total is below 95 %

Forge compiles without the optimizer, so that every instruction has its place in the source (`--ir-minimum`, which moves
code, is not needed: see tests/contracts/solc). What it counts as branches are the arms that an `if` has in the source,
Solidity's or assembly's: of one without `else` that the condition holds, and nothing else. `outcomes` counts both ways
out of every `if`. That a condition did not hold follows from how often lines were reached: that of the `if` more often
than its arm; or that behind an arm which leaves (return, revert, continue); or that behind an arm on the same line more
often than the arm. Conditional expressions and the parts of `&&` and `||` count in neither column.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LEAST = 0.95
LEAVES = re.compile(r"\b(return|revert|continue)\b")


class File:
    """Of one source: how often every line was reached, and the arms of every `if`."""

    def __init__(self, path: str) -> None:
        self.name = Path(path).name
        self.source = (PROJECT / path).read_text().splitlines()
        self.lines: dict[int, int] = {}
        self.arms: dict[tuple[int, int], list[int]] = defaultdict(list)  # (line, number of the if) -> times taken

    def branches(self) -> list[tuple[int, bool]]:
        """(line, taken) of every arm."""
        return [(line, n > 0) for (line, _), arms in self.arms.items() for n in arms]

    def outcomes(self) -> list[tuple[int, bool]]:
        """(line, seen) of both outcomes of every condition."""
        implied = [(line, self._failed(line, arms[0])) for (line, _), arms in self.arms.items() if len(arms) == 1]
        return self.branches() + implied

    def _failed(self, line: int, taken: int) -> bool:
        """Whether the condition of an `if` with one arm was seen not to hold."""
        if self.lines.get(line, 0) > taken:
            return True
        text = self.source[line - 1].rstrip()
        behind = next((n for at, n in sorted(self.lines.items()) if at > line), 0)
        if LEAVES.search(text):
            return behind > 0
        return text.endswith((";", "}")) and behind > taken


def read(lcov: Path) -> list[File]:
    files: list[File] = []
    for row in lcov.read_text().splitlines():
        kind, _, rest = row.partition(":")
        fields = rest.split(",")
        if kind == "SF":
            files.append(File(rest))
        elif kind == "DA":
            files[-1].lines[int(fields[0])] = int(fields[1])
        elif kind == "BRDA":
            times = 0 if fields[3] == "-" else int(fields[3])
            files[-1].arms[int(fields[0]), int(fields[1])].append(times)
    return [f for f in files if (PROJECT / "gensyn_verify/settle/contracts" / f.name).exists()]


def main() -> None:
    files = read(Path(sys.argv[1]))
    columns = {
        "lines": [[(at, n > 0) for at, n in f.lines.items()] for f in files],
        "branches": [f.branches() for f in files],
        "outcomes": [f.outcomes() for f in files],
    }
    print(f"{'':24}" + "".join(f"{name:>20}" for name in columns))
    rows = [(f.name, [column[n] for column in columns.values()]) for n, f in enumerate(files)]
    total = [[one for file in column for one in file] for column in columns.values()]
    for name, cells in [*rows, ("total", total)]:
        print(f"{name:24}" + "".join(f"{share(c):>20}" for c in cells))
    for f in files:
        for line in sorted({at for at, seen in f.outcomes() if not seen}):
            print(f"{f.name}:{line}: {f.source[line - 1].strip()}")
    low = [name for name, cell in zip(columns, total, strict=True) if sum(s for _, s in cell) < LEAST * len(cell)]
    if low or not files:
        sys.exit(f"below {LEAST:.0%}: {', '.join(low) or 'no contracts'}")


def share(cell: list[tuple[int, bool]]) -> str:
    seen = sum(s for _, s in cell)
    return f"{seen}/{len(cell)} {seen / len(cell):7.2%}" if cell else "-"


if __name__ == "__main__":
    main()

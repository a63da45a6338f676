"""PTX that computes the bits of docs/numerics.md and nothing else: `audit.py MODULE ARCHITECTURE IN OUT [PTXAS]`.

Reads what nvcc wrote, and refuses instructions that approximate, flush, round otherwise, fuse where no program says so,
add without order, multiply matrices of floats, or read clocks and the like. Writes it for the oldest version of PTX
that has the architecture's instructions, so that old drivers take it too; the assembler, where there is one, confirms
that, and that no kernel of dot spills registers. Standard library only: it runs in the build.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Oldest version of PTX for an architecture (PTX ISA, release notes).
VERSIONS = {
    75: "6.3", 80: "7.0", 86: "7.1", 87: "7.4", 88: "9.0", 89: "7.8", 90: "7.8",
    100: "8.6", 103: "8.8", 110: "9.0", 120: "8.7", 121: "8.8",
}  # fmt: skip
_NARROW = r"(?:f16|bf16|f16x2|bf16x2|tf32|e\dm\d(?:x\d)?|ue\dm\d(?:x\d)?)"
_FLOAT = rf"\.(?:{_NARROW}|f32|f32x2|f64)\b"
# What is wrong with an operation, by its name with all qualifiers.
RULES: list[tuple[str, str]] = [
    (r"\.ftz\b", "flushes subnormal numbers"),
    (r"\.(?:approx|full)\b|^(?:ex2|lg2|sin|cos|tanh|rsqrt|tex|tld4)\b", "approximates"),
    (r"\.(?:sat|satfinite|relu)\b", "clamps"),
    (r"^(?:add|sub|mul|fma|mad|div|sqrt|rcp|cvt)\b.*\.(?:rz|rm|rp|rs|rna)\b", "rounds otherwise"),
    (rf"^(?:add|sub|mul|div|sqrt|rcp)\b(?!.*\.rn\b).*{_FLOAT}", "is not rounded to nearest, so it may be fused"),
    (rf"^mad\b.*{_FLOAT}", "fuses or not, by architecture"),
    (rf"^(?:min|max)\b.*{_FLOAT}", "drops NaN or the order of zeros"),
    (r"\.f64\b", "computes in binary64"),
    (rf"^(?:add|sub|mul|fma|neg|abs)\b.*\.{_NARROW}\b", "computes in narrow floats"),
    (rf"^(?:atom|red|multimem)\b|\.reduce\b|^redux\b.*{_FLOAT}", "has no order"),
    (r"(?:^|\.)(?:mma|wmma|wgmma|tcgen05)\b", "multiplies on tensor cores"),
    (r"^(?:call|brx)\b", "leaves the kernel"),
    (r"^activemask\b", "depends on how threads happen to run"),
]
# Of operations on floats nothing else is known to give the bits of docs/numerics.md.
EXACT = re.compile(
    r"(?:(?:add|sub|mul|div|sqrt|rcp|fma)\.rn\.f32(?:x2)?"
    r"|cvt(?:\.rn|\.r[nzmp]i)?(?:\.(?:f32|f16|bf16|[su](?:8|16|32|64))){2}"
    r"|(?:mov|ld|st|set|setp|selp|slct|testp|copysign|neg|abs)\b[\w.:]*)"
)
_DEPENDS = re.compile(r"%(?:clock|globaltimer|n?smid|n?warpid|gridid|envreg|pm\d)")


@dataclass(frozen=True)
class Operation:
    """An instruction: `name` with all qualifiers and without its predicate, `text` with its operands."""

    kernel: str
    line: int
    name: str
    text: str


def operations(text: str) -> Iterator[Operation]:
    """All instructions of a module, however they are spread over lines."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", lambda c: re.sub(r"[^\n]", " ", c[0]), text, flags=re.DOTALL)
    kernel, line, counted = "?", 1, 0
    for part in re.finditer(r"[^;{}]+", text):  # pieces of operands too, which begin with no name of an operation
        entry = re.search(r"\.(?:entry|func)\b\s*(?:\([^)]*\)\s*)?([\w$]+)", part[0])
        if entry:
            kernel = entry[1]
        labels = r"(?:\s*[\w$%]+\s*:(?!:))*"
        found = re.match(
            rf"{labels}\s*(?:@\s*!?\s*[\w$%]+\s+)?([a-z]\w*(?:\s*(?:\.|::)\s*\w+)*)(.*)", part[0], re.DOTALL
        )
        if found:
            begin = part.start() + found.start(1)
            line, counted = line + text.count("\n", counted, begin), begin
            name = "".join(found[1].split())
            yield Operation(kernel, line, name, " ".join([name, *found[2].split()]))


@cache
def faults(name: str) -> tuple[str, ...]:
    """What is wrong with an operation of this name."""
    found = tuple(why for rule, why in RULES if re.search(rule, name))
    unknown = not found and re.search(_FLOAT, name) and not EXACT.fullmatch(name)
    return ("is not known to be exact",) if unknown else found


def audit(text: str, fused: str = r"gv_dot_\w+_(?:f32|bf16|f16)_[nt][nt]") -> list[str]:
    """What is wrong, a line each. A kernel whose name matches `fused` may hold fma."""
    found = []
    for o in operations(text):
        reasons = [*faults(o.name)]
        if _DEPENDS.search(o.text):
            reasons.append("depends on where and when it runs")
        if o.name.startswith("fma.") and not re.fullmatch(fused, o.kernel):
            reasons.append("is fused, and this kernel has nothing to fuse")
        found += [f"{o.kernel}, line {o.line}: {o.text} {why}" for why in reasons]
    return found


def lowered(text: str, architecture: int) -> str:
    """The text for the oldest version of PTX that has the architecture, without hints that it does not know."""
    text = re.sub(r'(?m)^\s*\.pragma "used_bytes_mask [^"]*";\n', "", text)
    return re.sub(r"(?m)^\.version .*$", f".version {VERSIONS[architecture]}", text)


def resources(text: str, architecture: int, ptxas: str) -> dict[str, dict[str, int]]:
    """Registers a thread, spilled bytes, bytes of stack and of static shared memory of every kernel, by the assembler.

    RuntimeError if it refuses the text.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernels.ptx"
        source.write_text(text)
        command = [ptxas, "-v", f"-arch=sm_{architecture}", str(source), "-o", str(source.with_suffix(".cubin"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ptxas for sm_{architecture}: {(done.stderr + done.stdout)[:2000]}")
    told = {"registers": r"Used (\d+) registers", "spilled": r"(\d+) bytes spill stores",
            "stack": r"(\d+) bytes stack frame", "shared": r"(\d+) bytes smem"}  # fmt: skip
    out: dict[str, dict[str, int]] = {}
    for block in re.split(r"Compiling entry function '", done.stderr + done.stdout)[1:]:
        numbers = {what: re.search(pattern, block) for what, pattern in told.items()}
        out[block.split("'")[0]] = {what: int(n[1]) if n else 0 for what, n in numbers.items()}
    return out


def main(module: str, architecture: int, source: Path, target: Path, ptxas: str = "") -> int:
    text = source.read_text()
    wrong = audit(text)
    text = lowered(text, architecture)
    if ptxas:
        used = resources(text, architecture, ptxas)
        wrong += [f"{name}: spills {u['spilled']} bytes" for name, u in used.items() if "dot" in name and u["spilled"]]
    if wrong:
        print(f"{module} for sm_{architecture}:", *wrong[:20], sep="\n  ", file=sys.stderr)
        return 1
    target.write_text(text)
    return 0


if __name__ == "__main__":
    name, architecture, source, target, *ptxas = sys.argv[1:]
    sys.exit(main(name, int(architecture), Path(source), Path(target), *ptxas))

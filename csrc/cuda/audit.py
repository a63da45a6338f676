"""PTX that computes the bits of docs/numerics.md and nothing else: `audit.py MODULE ARCHITECTURE IN OUT [PTXAS]`.

Reads what nvcc wrote, and refuses instructions that approximate, flush, round otherwise, fuse where no program says so,
add without order, or multiply matrices of floats. Writes it for the oldest version of PTX that has the architecture's
instructions, so that old drivers take it too; the assembler, where there is one, confirms that, and that no kernel of dot
spills registers. Standard library only: it runs in the build.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Oldest version of PTX for an architecture (PTX ISA, release notes).
VERSIONS = {75: "6.3", 80: "7.0", 86: "7.1", 89: "7.8", 90: "7.8", 100: "8.6", 103: "8.8", 110: "9.0", 120: "8.7"}
_FLOAT = r"\.(?:f16x2|bf16x2|f16|bf16|tf32|f32x2|f32|f64|e4m3|e5m2)\b"
RULES: list[tuple[str, str]] = [
    (r"\.ftz\b", "flushes subnormal numbers"),
    (r"\.(?:approx|full)\b", "approximates"),
    (r"^(?:ex2|lg2|sin|cos|tanh|rcp|rsqrt)\.", "approximates"),
    (r"\.sat\b", "clamps"),
    (r"^(?:add|sub|mul|fma|mad|div|sqrt|cvt)\b.*\.(?:rz|rm|rp|rs|rna)\b", "rounds otherwise"),
    (rf"^(?:add|sub|mul|mad|div|sqrt)(?!.*\.rn\b).*{_FLOAT}", "is not rounded to nearest, so it may be fused"),
    (rf"^mad\b.*{_FLOAT}", "fuses or not, by architecture"),
    (r"^(?:min|max)\b.*\.f(?:16|32|64)\b", "drops NaN or the order of zeros"),
    (r"\.f64\b", "computes in binary64"),
    (rf"^(?:add|sub|mul|fma)\b.*\.(?:f16|bf16|f16x2|bf16x2)\b", "computes in narrow floats"),
    (r"^(?:atom|red)\b", "has no order"),
    (r"(?:^|\.)(?:mma|wmma|wgmma|tcgen05)\b", "multiplies on tensor cores"),
    (r"^(?:call|brx)\b", "leaves the kernel"),
]


def audit(text: str, fused: str = r"gv_dot_\w*_(?:nn|nt|tn|tt)") -> list[str]:
    """What is wrong, a line each. A kernel whose name matches `fused` may hold fma."""
    found, kernel = [], "?"
    for number, line in enumerate(text.splitlines(), 1):
        entry = re.search(r"\.entry\s+(\w+)", line)
        if entry:
            kernel = entry[1]
        for part in line.split("//")[0].split(";"):
            instruction = re.sub(r"^(?:[\w$]+:)?\s*\{?\s*(?:@!?%\w+\s+)?", "", part.strip())
            for rule, why in RULES:
                if re.search(rule, instruction.split(" ")[0].split("\t")[0]):
                    found.append(f"{kernel}, line {number}: {instruction} {why}")
            if re.match(r"fma\b", instruction) and not re.fullmatch(fused, kernel):
                found.append(f"{kernel}, line {number}: {instruction} is fused, and this kernel has nothing to fuse")
    return found


def lowered(text: str, architecture: int) -> str:
    """The text for the oldest version of PTX that has the architecture."""
    return re.sub(r"(?m)^\.version .*$", f".version {VERSIONS[architecture]}", text)


def resources(text: str, architecture: int, ptxas: str) -> dict[str, dict[str, int]]:
    """Registers, spilled bytes and static shared memory of every kernel, by the assembler; RuntimeError if it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernels.ptx"
        source.write_text(text)
        command = [ptxas, "-v", f"-arch=sm_{architecture}", str(source), "-o", str(source.with_suffix(".cubin"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ptxas for sm_{architecture}: {(done.stderr + done.stdout)[:2000]}")
    out: dict[str, dict[str, int]] = {}
    for block in re.split(r"Compiling entry function '", done.stderr + done.stdout)[1:]:
        name = block.split("'")[0]
        registers, stores = re.search(r"Used (\d+) registers", block), re.search(r"(\d+) bytes spill stores", block)
        out[name] = {"registers": int(registers[1]) if registers else -1, "spilled": int(stores[1]) if stores else 0}
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

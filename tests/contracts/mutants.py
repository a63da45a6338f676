"""Changes one token of SoftFloat32.sol at a time, and says which changes the vectors do not notice.

    python tests/contracts/mutants.py [PART]       PART, e.g. 3/10: the third tenth

Every mutant is compiled and run on the operands of vectors.py. It fails if one survives that is not listed in
`EQUIVALENT`, whose members compute the same numbers as the original.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contracts.evm import Contract
from contracts.test_scalar import operands_of, reference
from contracts.vectors import Operands
from gensyn_verify.program.scalar import OPERATIONS

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "gensyn_verify/settle/contracts"
NAME = "SoftFloat32.sol"
ROWS = 400  # a class
SWAPS = {
    "add(": "sub(", "sub(": "add(", "gt(": "lt(", "lt(": "gt(", "sgt(": "slt(", "slt(": "sgt(", "shl(": "shr(",
    "shr(": "shl(", "or(": "and(", "and(": "or(", "==": "!=", "!=": "==", "&&": "||", "||": "&&", " < ": " <= ",
    " <= ": " < ", " > ": " >= ", " >= ": " > ", " & ": " | ", " | ": " & ", " ^ ": " | ", " + ": " - ", " - ": " + ",
    " ? ": " ? !",
}  # fmt: skip
TOKEN = re.compile(
    r"\b0x[0-9a-fA-F]+\b|(?<![\w.])\d+\b|\b(?:add|sub|gt|lt|sgt|slt|shl|shr|or|and)\(|[=!]=|&&|\|\|"
    r"| [<>]=? | [&|^+-] "
)

# Changed lines that compute the same, and why.
EQUIVALENT = {
    "if (e < 126) return 0;": "m >> 24 is 0 too",
    "return e <= 150 ? m >> (150 - e) : m << (e - 150);": "both shift by 0",
    "return e < 151 ? m >> (150 - e) : m << (e - 150);": "both shift by 0",
    "return x >= y ? _round(s, x - y, e) : _round(z, y - x, e);": "x is not y",
    "if (t >> 251 == 0) top = _top(t);": "the table and _top agree",
    "if slt(e, 2) {": "at e = 1 both ways are the same",
    "if gt(r, 0x7f7fffff) { r := 0x7f800000 }": "it is 0x7f800000 already",
    "usual := and(usual, lt(and(add(ec, 1), 0xfe), 0))": "the long way gives the same",
    "ma := or(shl(add(230, d), ma), slt(d, not(228)))": "one bit more, far below the rounding position",
    "return uint16((r < 0x7c01 ? r : 0x7c00) | ((a >> 16) & 0x8000));": "it is 0x7c00 already",
    "if (b << 1 == 1) return a;": "the sum with 0 comes out as a",
    "case 0 { mb := or(shr(d, mb), gt(d, 229)) }": "one bit more, far below the rounding position",
    "usual := and(usual, gt(and(add(ec, 1), 0xfe), 1))": "it is even",
    "ma := or(shl(add(230, d), ma), slt(d, not(230)))": "so small a product does not move an addend, which is a number",
    "t := shl(24, or(div(ma, mb), lt(1, mod(ma, mb))))": "a rest of 1 leaves low bits in the quotient",
    "t := shl(24, or(div(ma, mb), gt(0, mod(ma, mb))))": "a rest leaves low bits in the quotient",
    "case 0 { mb := or(shr(d, mb), gt(d, 231)) }": "so small a summand does not move the other, which is a number",
    "ma := or(shr(d, ma), gt(d, 231))": "so small a summand does not move the other, which is a number",
    "ma := or(shr(d, ma), gt(d, 229))": "one bit more, far below the rounding position",
    "mc := or(shl(sub(206, d), mc), sgt(d, 205))": "one bit more, far below the rounding position",
    "switch slt(d, 1)": "at 0 both ways are the same",
    "switch slt(d, not(22))": "at -24 both ways are the same",
    "if (b << 0 == 0) return a;": "the sum with -0 comes out as a",
    "if (e == 0 || e >= 254) {": "_normal leaves it as it is",
    "if (e == 0 || e > 253) {": "_normal leaves it as it is",
    "if (a >= INFINITY) return NAN;": "it is not infinity",
    "let z := add(190000000, shr(37, mul(m, 172)))": "as near a start",
    "let z := add(190000001, shr(37, mul(m, 171)))": "as near a start",
    "let z := add(189999999, shr(37, mul(m, 171)))": "as near a start",
    "return _rank(a) <= _rank(b) ? a : b;": "equal ranks are equal numbers",
    "return n <= SIGN ? uint32(0 - n) : SIGN;": "both are the same there",
    "if (a >> 31 == 0) return n <= 0x7fffffff ? uint32(n) : 0x7fffffff;": "both are the same there",
    "if (a >> 31 == 0) return n < 0x80000000 ? uint32(n) : 0x7fffffff;": "both are the same there",
    "if (e <= 113) (shift, e) = (126 - e, 113); // subnormal: multiples of 2^-24": "both are the same there",
    "if (e < 114) (shift, e) = (126 - e, 113); // subnormal: multiples of 2^-24": "both are the same there",
    "let z := add(190000000, shr(37, mul(m, 170)))": "as near a start",
    "e := shr(1, sub(add(e, 161), k))": "e - k is even",
    "return _rank(a) <= _rank(b) ? b : a;": "equal ranks are equal numbers",
    "if (a >> 31 == 0) return n < 0x7ffffffe ? uint32(n) : 0x7fffffff;": "no number of 24 bits lies there",
    "return n <= type(uint32).max ? uint32(n) : type(uint32).max;": "both are the same there",
    "return uint16((r <= 0x7c00 ? r : 0x7c00) | ((a >> 16) & 0x8000));": "it is 0x7c00 already",
    # t is 0 or at least 2^205, and other arguments of _top are below 2^24.
    "n := shl(7, lt(0x100000000000000000000000000000000, x))": "x is not 2^128",
    "n := shl(7, lt(0xfffffffffffffffffffffffffffffffe, x))": "x is not 2^128 - 1",
    "n := or(n, shl(6, lt(0x10000000000000000, shr(n, x))))": "the upper half is not 2^64",
    "n := or(n, shl(6, lt(0xfffffffffffffffe, shr(n, x))))": "the upper half is not 2^64 - 1",
    "n := or(n, shl(5, lt(0x100000000, shr(n, x))))": "a one and 32 zeros: a place further to the left it is the same",
    "n := or(n, shl(5, lt(0xfffffffe, shr(n, x))))": "32 ones are rounded up to the next power of two all the same",
}


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """(line number, its text changed, the whole source with it)."""
    lines = source.splitlines()
    for number, line in enumerate(lines):
        code = line.split("//")[0]
        if not code.strip() or re.match(r"\s*(///|function|library|pragma|error|import)", line):
            continue
        for match in TOKEN.finditer(code):
            token = match[0]
            if token[0].isdigit():
                value, width = int(token, 0), len(token) - 2
                made = [
                    f"0x{v:0{width}x}" if token.startswith("0x") else str(v) for v in (value + 1, value - 1) if v >= 0
                ]
            else:
                made = [SWAPS[token]]
            for other in made:
                changed = line[: match.start()] + other + line[match.end() :]
                yield number + 1, changed.strip(), "\n".join([*lines[:number], changed, *lines[number + 1 :]])


def compiled(source: str) -> str | None:
    """The contract Numbers with this SoftFloat32, as forge would write it; None where it does not compile."""
    names = {f"gensyn_verify/settle/contracts/{n}": (SOURCES / n).read_text() for n in ("Scalar.sol", "Philox.sol")}
    names |= {f"gensyn_verify/settle/contracts/{NAME}": source}
    names |= {"tests/contracts/Numbers.sol": (HERE / "Numbers.sol").read_text()}
    settings = {
        "optimizer": {"enabled": False},
        "evmVersion": "cancun",
        "outputSelection": {"*": {"Numbers": ["abi", "evm.bytecode.object"]}},
    }
    request = {"language": "Solidity", "sources": {k: {"content": v} for k, v in names.items()}, "settings": settings}
    answer = json.loads(
        subprocess.check_output([HERE / "solc", "--standard-json"], input=json.dumps(request), text=True)
    )
    if any(e["severity"] == "error" for e in answer.get("errors", [])):
        return None
    made = answer["contracts"]["tests/contracts/Numbers.sol"]["Numbers"]
    return json.dumps({"abi": made["abi"], "bytecode": {"object": "0x" + made["evm"]["bytecode"]["object"]}})


def main() -> None:
    names = [n for n in OPERATIONS if n.endswith(".f32") and not n.startswith("select")]
    names += ["f32_to_i32", "f32_to_u32", "i32_to_f32", "u32_to_f32", "f32_bits_to_u32"]
    vectors = []
    for name in names:
        op = OPERATIONS[name]
        rows = operands_of(op, Operands(op.code).rows(ROWS))
        vectors.append((op.code, rows, reference(op, rows)))
    halves = Operands(0).narrow(600)

    def stores(contract: Contract) -> list[int]:
        return [contract(f, d, int(x)) for x in halves for f in ("load", "store") for d in (1, 2)]

    source = (SOURCES / NAME).read_text()
    original = compiled(source)
    assert original is not None
    narrow = stores(Contract(original))

    def survives(mutant: tuple[int, str, str]) -> bool | None:
        artifact = compiled(mutant[2])
        if artifact is None:
            return None
        contract = Contract(artifact)
        try:
            for code, rows, expected in vectors:
                for start in (0, len(rows) // 2):
                    part = slice(start, start + len(rows) // 2)
                    if (contract.execute(code, rows[part])[0] != expected[part]).any():
                        return False
            return stores(contract) == narrow
        except (ValueError, TypeError):  # it reverts
            return False

    part, parts = map(int, (sys.argv[1] if sys.argv[1:] else "1/1").split("/"))
    every = list(mutants(source))[part - 1 :: parts]
    with ThreadPoolExecutor(2) as pool:
        fates = list(pool.map(survives, every))
    left = [(n, text) for (n, text, _), fate in zip(every, fates, strict=True) if fate]
    known = [text for _, text in left if text in EQUIVALENT]
    for number, text in left:
        if text not in EQUIVALENT:
            print(f"survives: {NAME}:{number}: {text}")
    killed = sum(fate is False for fate in fates)
    print(f"{len(every)} mutants: {killed} noticed, {fates.count(None)} do not compile, {len(known)} are equivalent")
    if len(known) != len(left):
        sys.exit(1)


if __name__ == "__main__":
    main()

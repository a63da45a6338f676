"""Writes Blake3Compression.sol: the seven rounds of BLAKE3's compression function, unrolled.

One EVM word holds a row of the 4 x 4 state, each 32-bit word of it at the bottom of a lane of 64 bits. So a mixing of
all four columns is one sequence of word operations, and the same, with rows turned against each other, is that of the
diagonals. The upper halves of the lanes take up the carries of additions; what is rotated is masked first.

    python tests/contracts/generate_blake3.py          writes the file
"""

from pathlib import Path

from gensyn_verify.commit.blake3 import _IV as START
from gensyn_verify.commit.blake3 import _PERMUTATION as PERMUTATION

TARGET = Path(__file__).parents[2] / "gensyn_verify/settle/contracts/Blake3Compression.sol"
SLOTS = 0x80  # a slot of 32 bytes a message word, at its end; 24 bytes of zeros follow the last
SLOTS_END = SLOTS + 17 * 32


def row(words: list[int]) -> str:
    return "0x" + "".join(f"{w:016x}" for w in words)


def plus_words(value: str, numbers: list[int]) -> str:
    """`value` plus message word numbers[i] in lane i, the first lane being the highest."""
    for lane, number in enumerate(numbers):
        value = f"add(mload({SLOTS + 32 * number + 8 * (3 - lane):#x}), {value})"
    return value


def rotated(value: str, n: int) -> str:
    return f"and(shr({n}, mul(and({value}, hi), 0x100000001)), hi)"


def mixing(order: list[int], turns: tuple[str, str, str]) -> list[str]:
    """A column or diagonal step, after which rows b, c and d turn to the left by lanes.

    `turns` are 2^64 to the lanes of each: a product modulo 2^256 - 1 is a rotation. Intermediate values are variables
    of a scope of their own, since to assign a value costs more than to forget one.
    """
    lines = [
        f"let x := {plus_words('add(a, b)', order[0::2])}",
        f"let y := {rotated('xor(d, x)', 16)}",
        "let z := add(w0, y)",
        f"let w := {rotated('xor(b, z)', 12)}",
        f"a := {plus_words('add(x, w)', order[1::2])}",
        f"let u := {rotated('xor(y, a)', 8)}",
        "let v := add(z, u)",
        f"b := mulmod({rotated('xor(w, v)', 7)}, {turns[0]}, w1)",
        f"w0 := mulmod(v, {turns[1]}, w1)",
        f"d := mulmod(u, {turns[2]}, w1)",
    ]
    return ["{", *(f"    {line}" for line in lines), "}"]


def source() -> str:
    lines = [f"mstore({32 * i:#x}, w{i})" for i in range(2)]
    lines += [f"mcopy({SLOTS + 32 * i + 28:#x}, {4 * i:#x}, 4)" for i in range(16)]
    lines += ["// From here on w0 is row c, w1 2^256 - 1, lo 2^128, hi the mask: no more variables can be reached."]
    lines += [f"w0 := {row(list(START[:4]))}", "w1 := not(0)", "let one := 0x10000000000000000"]
    lines += ["let three := shl(128, one)", "lo := shl(64, one)", f"hi := {row([0xFFFFFFFF] * 4)}"]
    order = list(range(16))
    for number in range(7):
        lines += [f"// round {number + 1}: columns, diagonals"]
        lines += mixing(order[:8], ("one", "lo", "three")) + mixing(order[8:], ("three", "lo", "one"))
        order = [order[i] for i in PERMUTATION]
    lines += ["lo := and(xor(a, w0), hi)", "hi := and(xor(b, d), hi)"]
    body = "\n".join(f"            {line}" for line in lines)
    return f"""// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

// Written by tests/contracts/generate_blake3.py.

/// @title The compression function of BLAKE3
/// @dev A row of the state is one word, four 32-bit numbers in lanes of 64 bits. The message words lie at fixed places
/// in memory, {SLOTS:#x} to {SLOTS_END:#x}, since an address on the stack would cost a fifth more: `Blake3` sets what
/// lies there aside, zeroes it, and puts it back.
library Blake3Compression {{
    uint256 internal constant SLOTS = {SLOTS:#x};
    uint256 internal constant SLOTS_END = {SLOTS_END:#x};
    uint256 internal constant START_LO = {row(list(START[:4]))};
    uint256 internal constant START_HI = {row(list(START[4:]))};

    /// @param w0 the message's first eight words, as big-endian numbers; w1 the others
    /// @param a the chaining value's first row; b the second; d counter (low, high), length and flags
    function compress(uint256 w0, uint256 w1, uint256 a, uint256 b, uint256 d)
        internal
        pure
        returns (uint256 lo, uint256 hi)
    {{
        assembly {{
{body}
        }}
    }}
}}
"""


if __name__ == "__main__":
    TARGET.write_text(source())

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


def add_words(value: str, numbers: list[int]) -> str:
    """`value` plus message word numbers[i] in lane i, the first lane being the highest."""
    for lane, number in enumerate(numbers):
        value = f"add({value}, mload({SLOTS + 32 * number + 8 * (3 - lane):#x}))"
    return value


def rotated(value: str, n: int) -> str:
    return f"and(shr({n}, mul(and({value}, m), 0x100000001)), m)"


def mixings(first: list[int], second: list[int]) -> list[str]:
    """The four mixings of a column or diagonal step, with their first and second message words."""
    return [
        f"a := {add_words('add(a, b)', first)}",
        f"d := {rotated('xor(d, a)', 16)}",
        "c := add(c, d)",
        f"b := {rotated('xor(b, c)', 12)}",
        f"a := {add_words('add(a, b)', second)}",
        f"d := {rotated('xor(d, a)', 8)}",
        "c := add(c, d)",
        f"b := {rotated('xor(b, c)', 7)}",
    ]


def turned(lanes: dict[str, int]) -> list[str]:
    """Each row turned to the left by a number of lanes: a product modulo 2^256 - 1 is a rotation."""
    return [f"{name} := mulmod({name}, {1 << 64 * n:#x}, not(0))" for name, n in lanes.items()]


def source() -> str:
    lines = [f"mstore({32 * i:#x}, w{i})" for i in range(2)]
    lines += [f"mcopy({SLOTS + 32 * i + 28:#x}, {4 * i:#x}, 4)" for i in range(16)]
    lines += ["let m := 0xffffffff00000000ffffffff00000000ffffffff00000000ffffffff", f"let c := {row(list(START[:4]))}"]
    order = list(range(16))
    for n in range(7):
        lines += [f"// round {n + 1}: columns, diagonals"]
        lines += mixings(order[0:8:2], order[1:8:2]) + turned({"b": 1, "c": 2, "d": 3})
        lines += mixings(order[8:16:2], order[9:16:2]) + turned({"b": 3, "c": 2, "d": 1})
        order = [order[i] for i in PERMUTATION]
    lines += ["lo := and(xor(a, c), m)", "hi := and(xor(b, d), m)"]
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

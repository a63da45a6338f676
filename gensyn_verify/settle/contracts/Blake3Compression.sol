// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

// Written by tests/contracts/generate_blake3.py.

/// @title The compression function of BLAKE3
/// @dev A row of the state is one word, four 32-bit numbers in lanes of 64 bits. The message words lie at fixed places
/// in memory, 0x80 to 0x2a0, since an address on the stack would cost a fifth more: `Blake3` sets what
/// lies there aside, zeroes it, and puts it back.
library Blake3Compression {
    uint256 internal constant SLOTS = 0x80;
    uint256 internal constant SLOTS_END = 0x2a0;
    uint256 internal constant START_LO = 0x000000006a09e66700000000bb67ae85000000003c6ef37200000000a54ff53a;
    uint256 internal constant START_HI = 0x00000000510e527f000000009b05688c000000001f83d9ab000000005be0cd19;

    /// @param w0 the message's first eight words, as big-endian numbers; w1 the others
    /// @param a the chaining value's first row; b the second; d counter (low, high), length and flags
    function compress(uint256 w0, uint256 w1, uint256 a, uint256 b, uint256 d)
        internal
        pure
        returns (uint256 lo, uint256 hi)
    {
        assembly {
            mstore(0x0, w0)
            mstore(0x20, w1)
            mcopy(0x9c, 0x0, 4)
            mcopy(0xbc, 0x4, 4)
            mcopy(0xdc, 0x8, 4)
            mcopy(0xfc, 0xc, 4)
            mcopy(0x11c, 0x10, 4)
            mcopy(0x13c, 0x14, 4)
            mcopy(0x15c, 0x18, 4)
            mcopy(0x17c, 0x1c, 4)
            mcopy(0x19c, 0x20, 4)
            mcopy(0x1bc, 0x24, 4)
            mcopy(0x1dc, 0x28, 4)
            mcopy(0x1fc, 0x2c, 4)
            mcopy(0x21c, 0x30, 4)
            mcopy(0x23c, 0x34, 4)
            mcopy(0x25c, 0x38, 4)
            mcopy(0x27c, 0x3c, 4)
            // From here on w0 is row c, w1 2^256 - 1, lo 2^128, hi the mask: no more variables can be reached.
            w0 := 0x000000006a09e66700000000bb67ae85000000003c6ef37200000000a54ff53a
            w1 := not(0)
            let one := 0x10000000000000000
            let three := shl(128, one)
            lo := shl(64, one)
            hi := 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff
            // round 1: columns, diagonals
            {
                let x := add(mload(0x140), add(mload(0x108), add(mload(0xd0), add(mload(0x98), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x160), add(mload(0x128), add(mload(0xf0), add(mload(0xb8), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), one, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, three, w1)
            }
            {
                let x := add(mload(0x240), add(mload(0x208), add(mload(0x1d0), add(mload(0x198), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x260), add(mload(0x228), add(mload(0x1f0), add(mload(0x1b8), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), three, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, one, w1)
            }
            // round 2: columns, diagonals
            {
                let x := add(mload(0x100), add(mload(0x168), add(mload(0xf0), add(mload(0xd8), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x220), add(mload(0x88), add(mload(0x1d0), add(mload(0x158), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), one, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, three, w1)
            }
            {
                let x := add(mload(0x260), add(mload(0x1a8), add(mload(0x210), add(mload(0xb8), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x180), add(mload(0x248), add(mload(0x130), add(mload(0x1f8), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), three, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, one, w1)
            }
            // round 3: columns, diagonals
            {
                let x := add(mload(0x160), add(mload(0x228), add(mload(0x1d0), add(mload(0xf8), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x240), add(mload(0xc8), add(mload(0x210), add(mload(0x118), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), one, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, three, w1)
            }
            {
                let x := add(mload(0x180), add(mload(0x1e8), add(mload(0x1b0), add(mload(0x158), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0xa0), add(mload(0x268), add(mload(0x90), add(mload(0x138), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), three, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, one, w1)
            }
            // round 4: columns, diagonals
            {
                let x := add(mload(0x220), add(mload(0x248), add(mload(0x210), add(mload(0x1d8), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x260), add(mload(0xe8), add(mload(0x1b0), add(mload(0x178), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), one, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, three, w1)
            }
            {
                let x := add(mload(0xa0), add(mload(0x128), add(mload(0x1f0), add(mload(0x118), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x140), add(mload(0x188), add(mload(0xd0), add(mload(0x98), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), three, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, one, w1)
            }
            // round 5: columns, diagonals
            {
                let x := add(mload(0x240), add(mload(0x268), add(mload(0x1b0), add(mload(0x218), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x180), add(mload(0x1c8), add(mload(0x1f0), add(mload(0x238), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), one, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, three, w1)
            }
            {
                let x := add(mload(0x140), add(mload(0x88), add(mload(0x130), add(mload(0x178), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x100), add(mload(0xa8), add(mload(0xf0), add(mload(0xd8), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), three, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, one, w1)
            }
            // round 6: columns, diagonals
            {
                let x := add(mload(0x260), add(mload(0x188), add(mload(0x1f0), add(mload(0x1b8), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0xa0), add(mload(0x208), add(mload(0x130), add(mload(0x258), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), one, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, three, w1)
            }
            {
                let x := add(mload(0x100), add(mload(0xc8), add(mload(0x90), add(mload(0x238), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x160), add(mload(0x148), add(mload(0x1d0), add(mload(0xf8), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), three, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, one, w1)
            }
            // round 7: columns, diagonals
            {
                let x := add(mload(0x180), add(mload(0xa8), add(mload(0x130), add(mload(0x1f8), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x140), add(mload(0x1a8), add(mload(0x90), add(mload(0x278), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), one, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, three, w1)
            }
            {
                let x := add(mload(0x160), add(mload(0xe8), add(mload(0xd0), add(mload(0x258), add(a, b)))))
                let y := and(shr(16, mul(and(xor(d, x), hi), 0x100000001)), hi)
                let z := add(w0, y)
                let w := and(shr(12, mul(and(xor(b, z), hi), 0x100000001)), hi)
                a := add(mload(0x220), add(mload(0x108), add(mload(0x210), add(mload(0x1d8), add(x, w)))))
                let u := and(shr(8, mul(and(xor(y, a), hi), 0x100000001)), hi)
                let v := add(z, u)
                b := mulmod(and(shr(7, mul(and(xor(w, v), hi), 0x100000001)), hi), three, w1)
                w0 := mulmod(v, lo, w1)
                d := mulmod(u, one, w1)
            }
            lo := and(xor(a, w0), hi)
            hi := and(xor(b, d), hi)
        }
    }
}

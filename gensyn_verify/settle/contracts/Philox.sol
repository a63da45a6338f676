// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Philox4x32-10, the generator of `random` nodes and of the sampler: docs/numerics.md, section 9
library Philox {
    /// @notice The four words of a block
    /// @param counter four 32-bit words, the first one highest
    /// @param key two 32-bit words, the first one higher
    /// @return words as the counter
    function block_(uint128 counter, uint64 key) internal pure returns (uint128 words) {
        assembly ("memory-safe") {
            let m := 0xffffffff
            let k0 := and(shr(32, key), m)
            let k1 := and(key, m)
            let c0 := and(shr(96, counter), m)
            let c1 := and(shr(64, counter), m)
            let c2 := and(shr(32, counter), m)
            let c3 := and(counter, m)
            for { let i := 10 } i { i := sub(i, 1) } {
                let p := mul(c0, 0xd2511f53)
                let q := mul(c2, 0xcd9e8d57)
                c0 := xor(xor(shr(32, q), c1), and(k0, m))
                c1 := and(q, m)
                c2 := xor(xor(shr(32, p), c3), and(k1, m))
                c3 := and(p, m)
                k0 := add(k0, 0x9e3779b9)
                k1 := add(k1, 0xbb67ae85)
            }
            words := or(or(shl(96, c0), shl(64, c1)), or(shl(32, c2), c3))
        }
    }

    /// @notice Element number `number`, in row-major order, of a `random` node
    /// @param seed two 32-bit words, the first one higher
    function element(uint64 seed, uint64 number, uint32 stream, uint32 step) internal pure returns (uint32) {
        uint128 counter =
            (uint128(uint32(number >> 2)) << 96) | (uint128(number >> 34) << 64) | (uint128(stream) << 32) | step;
        return uint32(block_(counter, seed) >> (96 - 32 * (number & 3)));
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blake3Compression} from "./Blake3Compression.sol";
import {Merkle} from "./Merkle.sol";

/// @title Openings of BLAKE3 hashes: chunks of 1,024 bytes against the root of any number of bytes
/// @notice The prover supplies a chunk and chaining values; sides follow from index and length. The tree has the shape
/// of `Merkle`'s.
library Blake3 {
    uint256 internal constant CHUNK = 1024;

    uint256 private constant CHUNK_START = 1;
    uint256 private constant CHUNK_END = 2;
    uint256 private constant PARENT = 4;
    uint256 private constant ROOT = 8;

    /// @notice The chunks of an input of `length` bytes; the empty input is one empty chunk
    function chunks(uint64 length) internal pure returns (uint64) {
        unchecked {
            return length == 0 ? 1 : (length - 1) / uint64(CHUNK) + 1;
        }
    }

    /// @notice The bytes in chunk number `index` of `length` bytes
    function chunkLength(uint64 index, uint64 length) internal pure returns (uint256) {
        unchecked {
            uint64 n = chunks(length);
            if (index >= n) revert Merkle.Misfit();
            return index == n - 1 ? length - uint256(index) * CHUNK : CHUNK;
        }
    }

    /// @notice The root that `path` leads to from chunk number `index` of an input of `length` bytes
    function root(bytes memory chunk, uint64 index, uint64 length, bytes32[] memory path)
        internal
        pure
        returns (bytes32 value)
    {
        if (chunk.length != chunkLength(index, length)) revert Merkle.Misfit();
        (uint256 left, uint256 levels) = Merkle.sides(index, chunks(length));
        if (path.length != levels) revert Merkle.Misfit();
        value = chunkValue(chunk, index, levels == 0);
        unchecked {
            for (uint256 i = 0; i < levels; ++i) {
                (bytes32 first, bytes32 second) = left >> i & 1 == 1 ? (path[i], value) : (value, path[i]);
                value = parent(first, second, i == levels - 1);
            }
        }
    }

    /// @notice The chaining value of chunk number `index`, at most 1,024 bytes; the root where it is the whole input
    function chunkValue(bytes memory chunk, uint64 index, bool isRoot) internal pure returns (bytes32) {
        unchecked {
            uint256 left = chunk.length;
            if (left > CHUNK) revert Merkle.Misfit();
            uint256 aside;
            uint256 place;
            assembly {
                // The chunk is copied, with zeros behind, because it may lie where the slots are.
                aside := mload(0x40)
                if lt(aside, 0x2a0) { aside := 0x2a0 }
                place := add(aside, 0x220)
                mcopy(place, add(chunk, 32), left)
                calldatacopy(add(place, left), calldatasize(), 64)
            }
            _open(aside);
            uint256 counter = (uint256(uint32(index)) << 192) | (uint256(index >> 32) << 128);
            uint256 lo = Blake3Compression.START_LO;
            uint256 hi = Blake3Compression.START_HI;
            uint256 w0;
            uint256 w1;
            uint256 flags = CHUNK_START;
            for (; left > 64; left -= 64) {
                (w0, w1) = _words(place);
                (lo, hi) = Blake3Compression.compress(w0, w1, lo, hi, counter | (64 << 64) | flags);
                place += 64;
                flags = 0;
            }
            flags |= isRoot ? CHUNK_END | ROOT : CHUNK_END;
            (w0, w1) = _words(place);
            (lo, hi) = Blake3Compression.compress(w0, w1, lo, hi, counter | (left << 64) | flags);
            _close(aside);
            return _bytes(lo, hi);
        }
    }

    /// @notice The chaining value over two subtrees, or the root
    function parent(bytes32 left, bytes32 right, bool isRoot) internal pure returns (bytes32) {
        uint256 aside;
        uint256 w0;
        uint256 w1;
        assembly {
            aside := mload(0x40)
            if lt(aside, 0x2a0) { aside := 0x2a0 }
            mstore(0, left)
            mstore(0x20, right)
        }
        _open(aside);
        (w0, w1) = _words(0);
        (w0, w1) = Blake3Compression.compress(
            w0,
            w1,
            Blake3Compression.START_LO,
            Blake3Compression.START_HI,
            (64 << 64) | (isRoot ? PARENT | ROOT : PARENT)
        );
        _close(aside);
        return _bytes(w0, w1);
    }

    /// @notice The chaining value of a node of n chunks, or the root, from those of its ranges four levels below
    function fold(bytes32[] memory values, uint64 n, bool isRoot) internal pure returns (bytes32 value) {
        if (n == 0) revert Merkle.Misfit();
        uint256 next;
        (value, next) = _fold(values, 0, n, Merkle.LEVELS, isRoot);
        if (next != values.length) revert Merkle.Misfit();
    }

    function _fold(bytes32[] memory values, uint256 first, uint256 n, uint256 levels, bool isRoot)
        private
        pure
        returns (bytes32 left, uint256 next)
    {
        unchecked {
            if (levels == 0 || n == 1) {
                if (first >= values.length) revert Merkle.Misfit();
                return (values[first], first + 1);
            }
            uint256 k = Merkle.split(n);
            bytes32 right;
            (left, next) = _fold(values, first, k, levels - 1, false);
            (right, next) = _fold(values, next, n - k, levels - 1, false);
            return (parent(left, right, isRoot), next);
        }
    }

    /// @dev Sets aside what lies at the slots, and zeroes them
    function _open(uint256 aside) private pure {
        assembly {
            mcopy(aside, 0x80, 0x220)
            calldatacopy(0x80, calldatasize(), 0x220)
        }
    }

    /// @dev Puts it back
    function _close(uint256 aside) private pure {
        assembly {
            mcopy(0x80, aside, 0x220)
        }
    }

    /// @dev The sixteen message words at a place in memory, as two big-endian numbers
    function _words(uint256 place) private pure returns (uint256 w0, uint256 w1) {
        assembly ("memory-safe") {
            w0 := mload(place)
            w1 := mload(add(place, 32))
            let m := 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff
            w0 := or(and(shr(8, w0), m), shl(8, and(w0, m)))
            w1 := or(and(shr(8, w1), m), shl(8, and(w1, m)))
            m := 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff
            w0 := or(and(shr(16, w0), m), shl(16, and(w0, m)))
            w1 := or(and(shr(16, w1), m), shl(16, and(w1, m)))
        }
    }

    /// @dev The chaining value in two rows, as bytes
    function _bytes(uint256 lo, uint256 hi) private pure returns (bytes32 value) {
        assembly ("memory-safe") {
            // The lanes' lower halves move together,
            let m := 0xffffffffffffffff0000000000000000ffffffffffffffff
            lo := and(or(lo, shr(32, lo)), m)
            hi := and(or(hi, shr(32, hi)), m)
            m := 0xffffffffffffffff
            lo := or(shl(192, shr(128, lo)), shl(128, and(lo, m)))
            value := or(lo, or(and(shr(64, hi), shl(64, m)), and(hi, m)))
            // then the bytes of each word turn around.
            m := 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff
            value := or(and(shr(8, value), m), shl(8, and(value, m)))
            m := 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff
            value := or(and(shr(16, value), m), shl(16, and(value, m)))
        }
    }
}

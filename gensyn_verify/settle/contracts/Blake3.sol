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
        returns (bytes32)
    {
        unchecked {
            if (chunk.length != chunkLength(index, length)) revert Merkle.Misfit();
            uint256 last = chunks(length) - 1;
            bytes32 digest = chunkValue(chunk, index, last == 0);
            uint256 at = index;
            for (uint256 i = 0; i < path.length; ++i) {
                if (last == 0) revert Merkle.Misfit();
                bool top = i == path.length - 1;
                if (at & 1 == 1 || at == last) {
                    digest = parent(path[i], digest, top);
                    while (at & 1 == 0) (at, last) = (at >> 1, last >> 1);
                } else {
                    digest = parent(digest, path[i], top);
                }
                (at, last) = (at >> 1, last >> 1);
            }
            if (last != 0) revert Merkle.Misfit();
            return digest;
        }
    }

    /// @notice The chaining value of chunk number `index`, at most 1,024 bytes; the root where it is the whole input
    function chunkValue(bytes memory chunk, uint64 index, bool isRoot) internal pure returns (bytes32 value) {
        unchecked {
            uint256 left = chunk.length;
            if (left > CHUNK) revert Merkle.Misfit();
            uint256 aside;
            uint256 at;
            assembly {
                // The chunk is copied, with zeros behind, because it may lie where the slots are.
                aside := mload(0x40)
                if lt(aside, 0x2a0) { aside := 0x2a0 }
                at := add(aside, 0x220)
                mcopy(at, add(chunk, 32), left)
                calldatacopy(add(at, left), calldatasize(), 64)
            }
            _open(aside);
            uint256 counter = (uint256(uint32(index)) << 192) | (uint256(index >> 32) << 128);
            uint256 flags = CHUNK_START;
            uint256 lo = Blake3Compression.START_LO;
            uint256 hi = Blake3Compression.START_HI;
            while (true) {
                uint256 n = left < 64 ? left : 64;
                left -= n;
                if (left == 0) flags |= isRoot ? CHUNK_END | ROOT : CHUNK_END;
                uint256 w0;
                uint256 w1;
                assembly {
                    w0 := mload(at)
                    w1 := mload(add(at, 32))
                }
                (lo, hi) = Blake3Compression.compress(_swap(w0), _swap(w1), lo, hi, counter | (n << 64) | flags);
                if (left == 0) break;
                at += 64;
                flags = 0;
            }
            _close(aside);
            return bytes32(_swap((_pack(lo) << 128) | _pack(hi)));
        }
    }

    /// @notice The chaining value over two subtrees, or the root
    function parent(bytes32 left, bytes32 right, bool isRoot) internal pure returns (bytes32) {
        uint256 aside;
        assembly {
            aside := mload(0x40)
            if lt(aside, 0x2a0) { aside := 0x2a0 }
        }
        _open(aside);
        (uint256 lo, uint256 hi) = Blake3Compression.compress(
            _swap(uint256(left)),
            _swap(uint256(right)),
            Blake3Compression.START_LO,
            Blake3Compression.START_HI,
            (64 << 64) | (isRoot ? PARENT | ROOT : PARENT)
        );
        _close(aside);
        return bytes32(_swap((_pack(lo) << 128) | _pack(hi)));
    }

    /// @notice The chaining value of a node of n chunks, or the root, from those of its ranges four levels below
    function fold(bytes32[] memory values, uint64 n, bool isRoot) internal pure returns (bytes32 value) {
        if (n == 0) revert Merkle.Misfit();
        uint256 next;
        (value, next) = _fold(values, 0, n, Merkle.LEVELS, isRoot);
        if (next != values.length) revert Merkle.Misfit();
    }

    function _fold(bytes32[] memory values, uint256 at, uint256 n, uint256 levels, bool isRoot)
        private
        pure
        returns (bytes32 left, uint256 next)
    {
        unchecked {
            if (levels == 0 || n == 1) {
                if (at >= values.length) revert Merkle.Misfit();
                return (values[at], at + 1);
            }
            uint256 k = Merkle.split(n);
            bytes32 right;
            (left, next) = _fold(values, at, k, levels - 1, false);
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

    /// @dev Turns the bytes of each of the eight 32-bit words around
    function _swap(uint256 x) private pure returns (uint256 y) {
        assembly ("memory-safe") {
            let m := 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff
            y := or(and(shr(8, x), m), shl(8, and(x, m)))
            m := 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff
            y := or(and(shr(16, y), m), shl(16, and(y, m)))
        }
    }

    /// @dev Four lanes of 64 bits, each below 2^32, to 128 bits
    function _pack(uint256 x) private pure returns (uint256 y) {
        assembly ("memory-safe") {
            y := and(or(x, shr(32, x)), 0xffffffffffffffff0000000000000000ffffffffffffffff)
            y := or(and(y, 0xffffffffffffffff), shr(64, y))
        }
    }
}

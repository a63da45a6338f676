// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The keccak tree: docs/formats.md, section 3
/// @notice The prover supplies digests and nothing else: every side follows from index and count.
library Merkle {
    /// @notice The shape of a tree has no place for what was given: an index, or a number of digests.
    error Misfit();

    /// @notice How many levels below a node `fold` and `range` look
    uint256 internal constant LEVELS = 4;

    /// @notice keccak(0x00 | data)
    function leaf(bytes memory data) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            // The last byte of the length serves as the prefix.
            let length := mload(data)
            mstore8(add(data, 31), 0)
            digest := keccak256(add(data, 31), add(length, 1))
            mstore(data, length)
        }
    }

    /// @notice keccak(0x01 | left | right)
    function parent(bytes32 left, bytes32 right) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(0, 1)
            mstore(0x20, left)
            mstore(0x40, right)
            digest := keccak256(31, 65)
            mstore(0x40, free)
        }
    }

    /// @notice The root of `count` leaves under `top_`: keccak(0x02 | count | top)
    function seal(uint64 count, bytes32 top_) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(2), count, top_));
    }

    /// @notice The root that `path` leads to from the leaf with these bytes
    function root(bytes memory data, uint64 index, uint64 count, bytes32[] memory path)
        internal
        pure
        returns (bytes32)
    {
        return seal(count, top(leaf(data), index, count, path));
    }

    /// @notice The top that `path` leads to from a leaf's digest
    function top(bytes32 digest, uint64 index, uint64 count, bytes32[] memory path) internal pure returns (bytes32) {
        (uint256 left, uint256 levels) = sides(index, count);
        if (path.length != levels) revert Misfit();
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(0, 1)
            for { let end := add(path, shl(5, levels)) } lt(path, end) { left := shr(1, left) } {
                path := add(path, 32)
                let right := shl(5, and(left, 1)) // where our digest stands, counted from the left one's place
                mstore(add(0x20, right), digest)
                mstore(sub(0x40, right), mload(path))
                digest := keccak256(31, 65)
            }
            mstore(0x40, free)
        }
        return digest;
    }

    /// @notice The siblings on the way up from a leaf: how many, and bit i is set where number i is a left child
    /// @dev Below the node where the ways to this leaf and to the last one part, all levels are complete. Above it the
    /// way follows the right edge, where only the left children have siblings.
    function sides(uint64 index, uint64 count) internal pure returns (uint256 left, uint256 levels) {
        if (index >= count) revert Misfit();
        unchecked {
            uint256 n = index ^ (count - 1);
            for (; n != 0; n >>= 1) {
                ++levels;
            }
            left = index & ((1 << levels) - 1);
            for (n = index >> levels; n != 0; n &= n - 1) {
                left |= 1 << levels++;
            }
        }
    }

    /// @notice The largest power of two below n > 1: the leaves of the left child of n leaves
    function split(uint256 n) internal pure returns (uint256) {
        unchecked {
            n -= 1;
            n |= n >> 1;
            n |= n >> 2;
            n |= n >> 4;
            n |= n >> 8;
            n |= n >> 16;
            n |= n >> 32;
            return n - (n >> 1);
        }
    }

    /// @notice The digest of a node of n leaves, from those of its ranges four levels below
    function fold(bytes32[] memory digests, uint64 n) internal pure returns (bytes32 digest) {
        if (n == 0) revert Misfit();
        uint256 next;
        (digest, next) = _fold(digests, 0, n, LEVELS);
        if (next != digests.length) revert Misfit();
    }

    /// @notice The place of a range among the n leaves of a node, and its size
    function range(uint64 n, uint256 pick) internal pure returns (uint64 offset, uint64 size) {
        unchecked {
            for (uint256 side = 1 << LEVELS >> 1; side != 0 && n > 1; side >>= 1) {
                uint64 k = uint64(split(n));
                uint256 left = k < side ? k : side;
                if (pick < left) {
                    n = k;
                } else {
                    (pick, offset, n) = (pick - left, offset + k, n - k);
                }
            }
            if (n == 0 || pick != 0) revert Misfit();
            return (offset, n);
        }
    }

    function _fold(bytes32[] memory digests, uint256 first, uint256 n, uint256 levels)
        private
        pure
        returns (bytes32 left, uint256 next)
    {
        unchecked {
            if (levels == 0 || n == 1) {
                if (first >= digests.length) revert Misfit();
                return (digests[first], first + 1);
            }
            uint256 k = split(n);
            bytes32 right;
            (left, next) = _fold(digests, first, k, levels - 1);
            (right, next) = _fold(digests, next, n - k, levels - 1);
            return (parent(left, right), next);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bytes} from "./Bytes.sol";

/// @notice Where the fields of a node leaf lie, as offsets into its bytes.
struct Node {
    uint256 code; // operation of the node (formats, section 2)
    uint256 first; // number of its first output value
    uint256 end; // end of the record, which begins at 9
    uint256[4] attributes;
    uint256 inputs; // value numbers, u32 each
    uint256 inputCount;
    uint256 outputs; // types, one after the other
    uint256 outputCount;
    uint256 operands; // type and root each
    uint256 roots; // of the outputs, 32 bytes each
}

/// @title Leaves of a trace and the types in them (dispute, section 2; formats, sections 1 and 2).
/// @dev Whoever shows a leaf chose its bytes: every count is bounded by the bytes that must follow it.
library Leaf {
    /// @notice The bytes are no leaf of this kind: a code out of range, or a length that does not fit.
    error BadLeaf();

    uint256 internal constant RECORD = 9;
    uint256 private constant MAX_ELEMENTS = 1 << 36;
    uint256 private constant MAX_INPUTS = 2048; // of a program too; why so many: docs/dispute.md, section 6
    uint256 private constant MAX_LIST = 16;
    /// @dev 16 bits an operation, 4 bits an attribute: 1 and 8 are its bytes, 2 is a list of i64.
    uint256 private constant ATTRIBUTES = 0x0228_0000_0028_0018_0000_0222_0002_0008_8222_0222_0002_0002_0128_0111_0228;

    /// @notice The parts of a node leaf. Reverts unless it is exactly as long as its counts say, and these are within the
    /// limits of a program: a leaf that fits into a transaction of its solver must fit into one of its challenger.
    function node(bytes calldata leaf) internal pure returns (Node memory n) {
        n.code = Bytes.u(leaf, RECORD, 1);
        if (Bytes.u(leaf, 0, 1) != 1 || n.code > 14) revert BadLeaf();
        n.first = Bytes.u(leaf, 1, 4);
        n.end = RECORD + Bytes.u(leaf, 5, 4);
        uint256 offset = RECORD + 1;
        uint256 kinds = (ATTRIBUTES >> (16 * n.code)) & 0xffff;
        for (uint256 k = 0; kinds != 0; ++k) {
            n.attributes[k] = offset;
            uint256 size = kinds & 15;
            if (size == 2) {
                uint256 items = Bytes.u(leaf, offset, 2);
                if (items > MAX_LIST) revert BadLeaf();
                size += 8 * items;
            }
            offset += size;
            kinds >>= 4;
        }
        n.inputCount = Bytes.u(leaf, offset, 4);
        if (n.inputCount > MAX_INPUTS) revert BadLeaf();
        n.inputs = offset + 4;
        offset = n.inputs + 4 * n.inputCount;
        n.outputCount = Bytes.u(leaf, offset, 1);
        n.outputs = offset + 1;
        offset = typeAfter(leaf, n.outputs, n.outputCount, 0);
        if (offset != n.end) revert BadLeaf();
        n.operands = offset;
        n.roots = typeAfter(leaf, offset, n.inputCount, 32);
        if (leaf.length != n.roots + 32 * n.outputCount) revert BadLeaf();
    }

    /// @notice The end of `count` types from `offset` on, each followed by `more` bytes.
    function typeAfter(bytes calldata leaf, uint256 offset, uint256 count, uint256 more)
        internal
        pure
        returns (uint256)
    {
        for (; count != 0; --count) {
            uint256 rank = Bytes.u(leaf, offset + 1, 1);
            if (Bytes.u(leaf, offset, 1) > 7 || rank > 8) revert BadLeaf();
            offset += 2 + 8 * rank + more;
        }
        return offset;
    }

    /// @notice The end of the type at `offset`.
    function typeEnd(bytes calldata leaf, uint256 offset) internal pure returns (uint256) {
        return typeAfter(leaf, offset, 1, 0);
    }

    /// @notice Where operand `q` begins: its type, then its root.
    function operand(bytes calldata leaf, Node memory n, uint256 q) internal pure returns (uint256) {
        if (q >= n.inputCount) revert BadLeaf();
        return typeAfter(leaf, n.operands, q, 32);
    }

    /// @notice Where the type of output `q` begins.
    function output(bytes calldata leaf, Node memory n, uint256 q) internal pure returns (uint256) {
        if (q >= n.outputCount) revert BadLeaf();
        return typeAfter(leaf, n.outputs, q, 0);
    }

    function dtype(bytes calldata leaf, uint256 offset) internal pure returns (uint256) {
        return Bytes.u(leaf, offset, 1);
    }

    function rankOf(bytes calldata leaf, uint256 offset) internal pure returns (uint256) {
        return Bytes.u(leaf, offset + 1, 1);
    }

    /// @notice Dimension `axis` of the type at `offset`.
    function dim(bytes calldata leaf, uint256 offset, uint256 axis) internal pure returns (uint256) {
        return Bytes.u(leaf, offset + 2 + 8 * axis, 8);
    }

    /// @notice The product of the dimensions from `axis` on, at most 2^36.
    function elementsFrom(bytes calldata leaf, uint256 offset, uint256 axis) internal pure returns (uint256 product) {
        uint256 rank = rankOf(leaf, offset);
        product = 1;
        for (; axis < rank; ++axis) {
            product *= dim(leaf, offset, axis);
        }
        if (product > MAX_ELEMENTS) revert BadLeaf();
    }

    /// @notice Bytes of an element of a dtype: f32, bf16, f16, i32, u32, u8, boolean, i8.
    function width(uint256 code) internal pure returns (uint256) {
        return uint8(bytes8(0x0402020404010101)[code]);
    }

    /// @notice Register type of a dtype: 0 f32, 1 i32, 2 u32, 3 boolean.
    function register(uint256 code) internal pure returns (uint256) {
        return uint8(bytes8(0x0000000102020301)[code]);
    }
}

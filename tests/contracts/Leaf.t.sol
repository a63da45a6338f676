// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bytes} from "gensyn_verify/settle/contracts/Bytes.sol";
import {Leaf, Node} from "gensyn_verify/settle/contracts/Leaf.sol";

contract Parser {
    function node(bytes calldata leaf) external pure returns (Node memory) {
        return Leaf.node(leaf);
    }

    function u(bytes calldata data, uint256 offset, uint256 size) external pure returns (uint256) {
        return Bytes.u(data, offset, size);
    }

    function operand(bytes calldata leaf, uint256 q) external pure returns (uint256) {
        return Leaf.operand(leaf, Leaf.node(leaf), q);
    }

    function output(bytes calldata leaf, uint256 q) external pure returns (uint256) {
        return Leaf.output(leaf, Leaf.node(leaf), q);
    }

    function typeEnd(bytes calldata leaf) external pure returns (uint256) {
        return Leaf.typeEnd(leaf, 0);
    }

    function elements(bytes calldata leaf) external pure returns (uint256) {
        return Leaf.elementsFrom(leaf, 0, 0);
    }
}

/// @notice Parsers of leaves: what is read lies inside of the bytes, and nothing fits but the exact length.
contract LeafTest {
    Parser internal immutable parser = new Parser();

    /// A concat along axis 0 of `count` vectors of 3 and one output.
    function concat(uint32 first, uint8 count) internal pure returns (bytes memory leaf) {
        bytes memory record = abi.encodePacked(uint8(7), int64(0), uint32(count));
        for (uint32 i = 0; i < count; ++i) {
            record = abi.encodePacked(record, i);
        }
        record = abi.encodePacked(record, uint8(1), uint8(0), uint8(1), uint64(3) * count);
        leaf = abi.encodePacked(uint8(1), first, uint32(record.length), record);
        for (uint256 i = 0; i < count; ++i) {
            leaf = abi.encodePacked(leaf, uint8(0), uint8(1), uint64(3), keccak256(abi.encode(i)));
        }
        leaf = abi.encodePacked(leaf, keccak256("output"));
    }

    function testFuzzParts(uint32 first, uint8 count) public view {
        count = count % 9;
        bytes memory leaf = concat(first, count);
        Node memory n = parser.node(leaf);
        require(n.code == 7 && n.first == first && n.inputCount == count && n.outputCount == 1, "counts");
        require(n.roots + 32 == leaf.length && n.end == n.operands, "places");
        for (uint256 q = 0; q < count; ++q) {
            require(parser.operand(leaf, q) == n.operands + 42 * q, "operand");
        }
        refused(abi.encodeCall(parser.operand, (leaf, count)));
        require(parser.output(leaf, 0) == n.outputs, "output");
        refused(abi.encodeCall(parser.output, (leaf, 1)));
    }

    function testFuzzNoOtherLengthFits(uint8 count, uint256 cut, bytes calldata more) public view {
        bytes memory leaf = concat(5, count % 8);
        if (more.length != 0) refused(abi.encodeCall(parser.node, (abi.encodePacked(leaf, more))));
        cut = cut % leaf.length;
        bytes memory shorter = new bytes(cut);
        for (uint256 i = 0; i < cut; ++i) {
            shorter[i] = leaf[i];
        }
        refused(abi.encodeCall(parser.node, (shorter)));
    }

    function testFuzzForeignBytesAreRefusedOrInside(bytes calldata data) public view {
        bytes memory leaf = data.length == 0 ? bytes("\x01") : bytes(data);
        leaf[0] = 0x01;
        try parser.node(leaf) returns (Node memory n) {
            require(n.code < 15 && n.roots + 32 * n.outputCount == leaf.length && n.inputs <= leaf.length, "outside");
        } catch {}
    }

    function testTypesHaveEightDtypesAndUpToEightDimensions() public view {
        for (uint256 dtype = 0; dtype < 256; ++dtype) {
            for (uint256 rank = 0; rank < 11; ++rank) {
                bytes memory shape = abi.encodePacked(uint8(dtype), uint8(rank), new bytes(8 * rank));
                if (dtype > 7 || rank > 8) refused(abi.encodeCall(parser.typeEnd, (shape)));
                else require(parser.typeEnd(shape) == shape.length, "end");
            }
        }
    }

    function testFuzzNumbers(bytes32 word, uint8 offset, uint8 size) public view {
        size = size % 33;
        if (size == 0) size = 1;
        bytes memory data = abi.encode(word);
        if (uint256(offset) + size > 32) {
            refused(abi.encodeCall(parser.u, (data, offset, size)));
        } else {
            uint256 wanted = uint256(word << (8 * offset)) >> (256 - 8 * uint256(size));
            require(parser.u(data, offset, size) == wanted, "number");
        }
        refused(abi.encodeCall(parser.u, (data, type(uint256).max - offset, size)));
    }

    function testFuzzElements(uint64 a, uint64 b, uint64 c) public view {
        bytes memory shape = abi.encodePacked(uint8(0), uint8(3), a, b, c);
        uint256 product = uint256(a) * b * c;
        if (product > 1 << 36) refused(abi.encodeCall(parser.elements, (shape)));
        else require(parser.elements(shape) == product, "product");
    }

    function refused(bytes memory call) internal view {
        (bool done,) = address(parser).staticcall(call);
        require(!done, "accepted");
    }
}

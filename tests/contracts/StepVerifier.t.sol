// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bytes} from "gensyn_verify/settle/contracts/Bytes.sol";
import {Leaf} from "gensyn_verify/settle/contracts/Leaf.sol";
import {Element, Location, Operation, StepVerifier} from "gensyn_verify/settle/contracts/StepVerifier.sol";
import {Vectors} from "./Vectors.sol";

/// @notice The sequences of tests/vectors/sequence.json: lengths, where operands lie, results; and what has no sequence.
contract StepVerifierTest is Vectors {
    StepVerifier internal immutable verifier = new StepVerifier();

    struct Case {
        Element element;
        bytes leaf;
        bytes scalar;
        uint64 length;
    }

    function sequence(string memory json, uint256 i) internal pure returns (Case memory c) {
        uint256[] memory e = FILES.parseJsonUintArray(json, item(".sequences", i, ".element"));
        c.element = Element(uint64(e[0]), uint32(e[1]), uint64(e[2]), uint64(e[3]));
        c.leaf = hexadecimal(json, item(".sequences", i, ".leaf"));
        c.scalar = hexadecimal(json, item(".sequences", i, ".scalar"));
        c.length = uint64(FILES.parseJsonUint(json, item(".sequences", i, ".length")));
    }

    /// @dev The sequence of this name.
    function named(string memory name) internal view returns (Case memory) {
        string memory json = read("sequence");
        uint256 i = 0;
        while (!equal(FILES.parseJsonString(json, item(".sequences", i, ".name")), name)) ++i;
        return sequence(json, i);
    }

    function testLengthsLocationsAndResults() public view {
        string memory json = read("sequence");
        uint256 n = count(json, ".sequences");
        require(n > 90, "sequences");
        for (uint256 i = 0; i < n; ++i) {
            Case memory c = sequence(json, i);
            require(verifier.length(c.element, c.leaf, c.scalar) == c.length, "length");
            string memory operations = item(".sequences", i, ".operations");
            uint256 some = count(json, operations);
            for (uint256 k = 0; k < some; ++k) {
                check(c, FILES.parseJsonUintArray(json, item(operations, k, "")));
            }
        }
    }

    /// @dev row: t, code, operands, result, and six words an operand that say where it lies.
    function check(Case memory c, uint256[] memory row) internal view {
        uint64[3] memory operands = [uint64(row[2]), uint64(row[3]), uint64(row[4])];
        Operation memory o = verifier.locate(c.element, c.leaf, c.scalar, uint64(row[0]), operands);
        require(o.code == row[1], "code");
        for (uint256 q = 0; q < 3; ++q) {
            Location memory place = o.operands[q];
            uint256 k = 6 + 6 * q;
            require(place.kind == row[k] && place.dtype == row[k + 1] && place.raw == (row[k + 2] == 1), "kind");
            require(place.index == row[k + 3] && uint256(place.root) == row[k + 4], "index");
            require(place.length == row[k + 5], "bytes");
        }
        require(verifier.execute(c.element, c.leaf, c.scalar, uint64(row[0]), operands) == row[5], "result");
    }

    function testNoSequenceHasAnOperationBehindItsLast() public view {
        string memory json = read("sequence");
        uint256 n = count(json, ".sequences");
        for (uint256 i = 0; i < n; ++i) {
            Case memory c = sequence(json, i);
            noOperation(c, c.length);
            noOperation(c, type(uint32).max);
        }
    }

    function noOperation(Case memory c, uint64 t) internal view {
        uint64[3] memory none;
        bytes memory call = abi.encodeCall(verifier.locate, (c.element, c.leaf, c.scalar, t, none));
        refused(address(verifier), call, StepVerifier.NoOperation.selector);
    }

    function testAnOutputThatAScalarProgramHasNotHasNoOperation() public view {
        Case memory c = named("map, output 0, element 7");
        c.scalar[c.scalar.length - 15] = 0x00; // of seven outputs
        noOperation(c, c.length - 1);
    }

    function testAPositionOutsideOfTheRowHasNoSequence() public view {
        Case memory c = named("sort of i32, element 7");
        c.element.value = 5;
        uint64[3] memory none;
        bytes4 selector = StepVerifier.NoSequence.selector;
        refused(address(verifier), abi.encodeCall(verifier.length, (c.element, c.leaf, c.scalar)), selector);
        refused(address(verifier), abi.encodeCall(verifier.locate, (c.element, c.leaf, c.scalar, 0, none)), selector);
        c.element.value = 4;
        require(verifier.length(c.element, c.leaf, c.scalar) == 6, "length");
    }

    function testAnInstructionThatDoesNotExistIsNotExecuted() public view {
        Case memory c = named("map, output 0, element 7");
        uint64[3] memory none;
        for (uint256 code = 138; code < 256; ++code) {
            c.scalar[instruction(c.scalar)] = bytes1(uint8(code));
            bytes memory call = abi.encodeCall(verifier.execute, (c.element, c.leaf, c.scalar, 0, none));
            refused(address(verifier), call, StepVerifier.UnknownOperation.selector);
        }
    }

    /// @dev Where the code of the first instruction is: behind u8 inputs | inputs | u16 constants, 5 bytes each | u16.
    function instruction(bytes memory scalar) internal pure returns (uint256) {
        uint256 offset = 1 + uint8(scalar[0]);
        return offset + 2 + 5 * (uint256(uint8(scalar[offset])) << 8 | uint8(scalar[offset + 1])) + 2;
    }

    function testAnOutputOrOperandThatTheNodeHasNotIsRefused() public view {
        Case memory c = named("scan, output 1, element 10");
        c.element.output = 2;
        refused(
            address(verifier), abi.encodeCall(verifier.length, (c.element, c.leaf, c.scalar)), Leaf.BadLeaf.selector
        );
        c = named("map, output 0, element 7");
        c.scalar = bytes.concat(c.scalar[0]); // cut short
        refused(
            address(verifier), abi.encodeCall(verifier.length, (c.element, c.leaf, c.scalar)), Bytes.Truncated.selector
        );
    }
}

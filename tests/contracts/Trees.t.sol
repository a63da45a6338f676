// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Merkle} from "gensyn_verify/settle/contracts/Merkle.sol";
import {Trees} from "./Trees.sol";
import {Vectors} from "./Vectors.sol";

/// @notice Openings of tests/vectors/merkle.json and blake3.json, and numbers of digests that no tree has.
contract TreesTest is Vectors {
    Trees internal immutable trees = new Trees();

    function testPathsLeadToTheRoot() public view {
        string memory json = read("merkle");
        uint256 n = count(json, ".cases");
        require(n == 14, "cases");
        for (uint256 i = 0; i < n; ++i) {
            bytes32 root = bytes32(hexadecimal(json, item(".cases", i, ".root")));
            string memory paths = item(".cases", i, ".paths");
            for (uint64 k = 0; k < i; ++k) {
                bytes memory leaf = hexadecimal(json, item(".leaves", k, ""));
                (bytes32 found,) = trees.merkleRoot(leaf, k, uint64(i), digests(json, item(paths, k, "")));
                require(found == root, "root");
            }
        }
    }

    /// @dev No call gives the root: what has no place in the tree is a misfit, all else leads to another root.
    function testCorruptedPathsDoNot() public view {
        string memory json = read("merkle");
        uint256 n = count(json, ".path_corruptions");
        require(n > 10, "corruptions");
        uint256 misfits = 0;
        for (uint256 i = 0; i < n; ++i) {
            string memory case_ = item(".path_corruptions", i, "");
            uint256 leaves = FILES.parseJsonUint(json, string.concat(case_, ".count"));
            bytes[] memory path = FILES.parseJsonBytesArray(json, string.concat(case_, ".path"));
            if (leaves > type(uint64).max || !whole(path)) continue; // not even a call
            bytes memory data = hexadecimal(json, string.concat(case_, ".data"));
            uint64 index = uint64(FILES.parseJsonUint(json, string.concat(case_, ".index")));
            try trees.merkleRoot(data, index, uint64(leaves), words(path)) returns (bytes32 found, uint256) {
                require(found != bytes32(hexadecimal(json, string.concat(case_, ".root"))), "accepted");
            } catch (bytes memory answer) {
                require(bytes4(answer) == Merkle.Misfit.selector, "another error");
                ++misfits;
            }
        }
        require(misfits > 3, "misfits");
    }

    function testOpeningsLeadToTheHash() public view {
        string memory json = read("blake3");
        uint256 n = count(json, ".cases");
        require(n > 25, "cases");
        for (uint256 i = 0; i < n; ++i) {
            uint64 length = uint64(FILES.parseJsonUint(json, item(".cases", i, ".length")));
            bytes32 root = bytes32(hexadecimal(json, item(".cases", i, ".root")));
            string memory openings = item(".cases", i, ".openings");
            uint256 some = count(json, openings);
            for (uint256 k = 0; k < some; ++k) {
                uint64 index = uint64(FILES.parseJsonUint(json, item(openings, k, ".index")));
                bytes32[] memory path = digests(json, item(openings, k, ".path"));
                bytes memory chunk = input(index, length);
                (bytes32 found,) = trees.blake3Root(chunk, index, length, path);
                require(found == root, "root");
                misfit(abi.encodeCall(trees.blake3Root, (bytes.concat(chunk, "0"), index, length, path)));
                misfit(abi.encodeCall(trees.blake3Root, (chunk, index, length, new bytes32[](path.length + 1))));
            }
            misfit(abi.encodeCall(trees.blake3Root, ("", (length + 1023) / 1024 + 1, length, new bytes32[](0))));
        }
    }

    /// @dev Chunk `index` of `length` bytes whose byte i is i mod 251.
    function input(uint256 index, uint256 length) internal pure returns (bytes memory chunk) {
        uint256 left = length - 1024 * index;
        chunk = new bytes(left < 1024 ? left : 1024);
        for (uint256 i = 0; i < chunk.length; ++i) {
            chunk[i] = bytes1(uint8((1024 * index + i) % 251));
        }
    }

    function testFoldsTakeAsManyDigestsAsThereAreRanges() public view {
        for (uint64 n = 0; n < 17; ++n) {
            for (uint256 k = 0; k < 18; ++k) {
                if (k == n && n != 0) continue;
                misfit(abi.encodeCall(trees.merkleFold, (new bytes32[](k), n)));
                misfit(abi.encodeCall(trees.blake3Fold, (new bytes32[](k), n, true)));
            }
            if (n == 0) continue;
            (bytes32 root,) = trees.merkleFold(new bytes32[](n), n);
            (bytes32 hash,) = trees.blake3Fold(new bytes32[](n), n, true);
            require((root == 0) == (n == 1) && (hash == 0) == (n == 1), "folded");
        }
        misfit(abi.encodeCall(trees.range, (0, 0)));
        misfit(abi.encodeCall(trees.range, (40, 16)));
        (uint64 offset, uint64 size) = trees.range(40, 8); // 32 leaves in eight ranges of 4, then eight of one
        require(offset == 32 && size == 1, "range");
    }

    function testChunksAreNotLongerThanTheyAre() public view {
        trees.chunkValue(new bytes(1024), 0, true);
        misfit(abi.encodeCall(trees.chunkValue, (new bytes(1025), 0, true)));
    }

    function misfit(bytes memory call) internal view {
        refused(address(trees), call, Merkle.Misfit.selector);
    }

    function digests(string memory json, string memory key) internal pure returns (bytes32[] memory) {
        return words(FILES.parseJsonBytesArray(json, key));
    }

    function words(bytes[] memory values) internal pure returns (bytes32[] memory out) {
        out = new bytes32[](values.length);
        for (uint256 i = 0; i < values.length; ++i) {
            out[i] = bytes32(values[i]);
        }
    }

    function whole(bytes[] memory values) internal pure returns (bool yes) {
        yes = true;
        for (uint256 i = 0; i < values.length; ++i) {
            yes = yes && values[i].length == 32;
        }
    }
}

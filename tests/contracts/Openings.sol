// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Merkle} from "gensyn_verify/settle/contracts/Merkle.sol";

/// @dev Keccak trees built from their leaves, and the paths in them: what a prover computes (docs/formats.md, section 3).
library Openings {
    function root(bytes[] memory leaves) internal pure returns (bytes32) {
        return Merkle.seal(uint64(leaves.length), top(leaves, 0, leaves.length));
    }

    /// @dev The siblings of leaf `index`, from below.
    function path(bytes[] memory leaves, uint256 index) internal pure returns (bytes32[] memory out) {
        (uint256 start, uint256 size, uint256 n) = (0, leaves.length, 0);
        bytes32[64] memory down;
        for (; size > 1; ++n) {
            uint256 k = Merkle.split(size);
            if (index < start + k) {
                down[n] = top(leaves, start + k, size - k);
                size = k;
            } else {
                down[n] = top(leaves, start, k);
                (start, size) = (start + k, size - k);
            }
        }
        out = new bytes32[](n);
        for (uint256 i = 0; i < n; ++i) {
            out[i] = down[n - 1 - i];
        }
    }

    function top(bytes[] memory leaves, uint256 start, uint256 size) private pure returns (bytes32) {
        if (size == 1) return Merkle.leaf(leaves[start]);
        uint256 k = Merkle.split(size);
        return Merkle.parent(top(leaves, start, k), top(leaves, start + k, size - k));
    }

    /// @dev Trees of one and of two leaves.
    function list(bytes memory a) internal pure returns (bytes[] memory leaves) {
        leaves = new bytes[](1);
        leaves[0] = a;
    }

    function list(bytes memory a, bytes memory b) internal pure returns (bytes[] memory leaves) {
        leaves = new bytes[](2);
        (leaves[0], leaves[1]) = (a, b);
    }
}

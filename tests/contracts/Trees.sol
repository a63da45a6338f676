// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blake3} from "../../gensyn_verify/settle/contracts/Blake3.sol";
import {Merkle} from "../../gensyn_verify/settle/contracts/Merkle.sol";

/// @notice The libraries' functions as those of a contract. `gas` is what the call inside took.
contract Trees {
    function merkleRoot(bytes memory data, uint64 index, uint64 count, bytes32[] memory path)
        external
        view
        returns (bytes32 result, uint256 gas)
    {
        gas = gasleft();
        result = Merkle.root(data, index, count, path);
        gas -= gasleft();
    }

    function merkleFold(bytes32[] memory digests, uint64 n) external view returns (bytes32 result, uint256 gas) {
        gas = gasleft();
        result = Merkle.fold(digests, n);
        gas -= gasleft();
    }

    function range(uint64 n, uint256 pick) external pure returns (uint64 offset, uint64 size) {
        return Merkle.range(n, pick);
    }

    function blake3Root(bytes memory chunk, uint64 index, uint64 length, bytes32[] memory path)
        external
        view
        returns (bytes32 result, uint256 gas)
    {
        gas = gasleft();
        result = Blake3.root(chunk, index, length, path);
        gas -= gasleft();
    }

    function chunkValue(bytes memory chunk, uint64 index, bool isRoot)
        external
        view
        returns (bytes32 result, uint256 gas)
    {
        gas = gasleft();
        result = Blake3.chunkValue(chunk, index, isRoot);
        gas -= gasleft();
    }

    function blake3Fold(bytes32[] memory values, uint64 n, bool isRoot)
        external
        view
        returns (bytes32 result, uint256 gas)
    {
        gas = gasleft();
        result = Blake3.fold(values, n, isRoot);
        gas -= gasleft();
    }
}

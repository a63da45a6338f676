// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Numbers out of bytes: big endian, never beyond the end.
library Bytes {
    /// @notice A number reaches beyond the end of the bytes that should hold it.
    error Truncated();

    /// @notice The unsigned number of `size` (1 to 32) bytes at `offset`.
    function u(bytes calldata data, uint256 offset, uint256 size) internal pure returns (uint256 x) {
        unchecked {
            if (offset > data.length || size > data.length - offset) revert Truncated();
        }
        assembly ("memory-safe") {
            x := shr(sub(256, shl(3, size)), calldataload(add(data.offset, offset)))
        }
    }

    /// @notice The digest at `offset`.
    function digest(bytes calldata data, uint256 offset) internal pure returns (bytes32) {
        return bytes32(u(data, offset, 32));
    }
}

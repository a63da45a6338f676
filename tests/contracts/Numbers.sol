// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Philox} from "../../gensyn_verify/settle/contracts/Philox.sol";
import {Scalar} from "../../gensyn_verify/settle/contracts/Scalar.sol";

/// @notice The libraries' functions as those of a contract. `gas` is what the call inside took.
contract Numbers {
    function execute(uint8 code, uint32 a, uint32 b, uint32 c) external pure returns (uint32) {
        return Scalar.execute(code, a, b, c);
    }

    /// @param operands 12 bytes an execution: a, b, c, big endian
    /// @return results 4 bytes an execution
    function executeAll(uint8 code, bytes calldata operands)
        external
        view
        returns (bytes memory results, uint256 gas, uint256 most)
    {
        unchecked {
            uint256 n = operands.length / 12;
            results = new bytes(4 * n);
            for (uint256 i = 0; i < n; ++i) {
                uint256 v = uint96(bytes12(operands[12 * i:]));
                uint256 spent = gasleft();
                uint32 result = Scalar.execute(code, uint32(v >> 64), uint32(v >> 32), uint32(v));
                spent -= gasleft();
                gas += spent;
                if (spent > most) most = spent;
                assembly {
                    let at := add(add(results, 4), mul(4, i))
                    mstore(at, or(and(mload(at), not(0xffffffff)), and(result, 0xffffffff)))
                }
            }
        }
    }

    function load(uint8 dtype, uint32 stored) external pure returns (uint32) {
        return Scalar.load(dtype, stored);
    }

    function store(uint8 dtype, uint32 register) external pure returns (uint32) {
        return Scalar.store(dtype, register);
    }

    function philox(uint64 seed, uint64 number, uint32 stream, uint32 step)
        external
        view
        returns (uint32 result, uint256 gas)
    {
        gas = gasleft();
        result = Philox.element(seed, number, stream, step);
        gas -= gasleft();
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Scalar} from "gensyn_verify/settle/contracts/Scalar.sol";
import {Numbers} from "./Numbers.sol";
import {Vectors} from "./Vectors.sol";

/// @notice Operations, loads and stores of tests/vectors/scalar_ops.json, and Philox by philox.json.
contract ScalarTest is Vectors {
    Numbers internal immutable numbers = new Numbers();

    function testOperations() public view {
        string memory json = read("scalar_ops");
        string[] memory names = FILES.parseJsonKeys(json, ".operations");
        require(names.length == 60, "operations");
        for (uint256 i = 0; i < names.length; ++i) {
            string memory key = string.concat(".operations['", names[i], "']");
            uint8 code = uint8(FILES.parseJsonUint(json, string.concat(key, ".code")));
            string[][] memory cases = rows(json, string.concat(key, ".cases"));
            for (uint256 k = 0; k < cases.length; ++k) {
                uint32[4] memory x;
                uint256 last = cases[k].length - 1;
                for (uint256 j = 0; j < last; ++j) {
                    x[j] = number(cases[k][j]);
                }
                require(numbers.execute(code, x[0], x[1], x[2]) == number(cases[k][last]), names[i]);
            }
        }
    }

    function testLoadsAndStores() public view {
        string memory json = read("scalar_ops");
        uint256 n = count(json, ".storage");
        require(n > 5, "storage");
        for (uint256 i = 0; i < n; ++i) {
            uint8 from = dtype(FILES.parseJsonString(json, item(".storage", i, ".load")));
            uint8 to = dtype(FILES.parseJsonString(json, item(".storage", i, ".store")));
            string[][] memory cases = rows(json, item(".storage", i, ".cases"));
            for (uint256 k = 0; k < cases.length; ++k) {
                require(numbers.store(to, numbers.load(from, number(cases[k][0]))) == number(cases[k][1]), "stored");
            }
        }
    }

    function testFuzzSignedBytes(uint32 register) public view {
        uint32 stored = numbers.store(7, register);
        require(stored == register % 256, "stored");
        int256 loaded = int256(uint256(stored)) - (stored > 127 ? int256(256) : int256(0));
        require(int256(int32(numbers.load(7, stored))) == loaded, "loaded");
    }

    function testUnknownCodesAreRefused() public view {
        for (uint256 code = 60; code < 256; ++code) {
            bytes memory call = abi.encodeCall(numbers.execute, (uint8(code), 0, 0, 0));
            refused(address(numbers), call, Scalar.UnknownOperation.selector);
        }
        for (uint256 code = 8; code < 256; ++code) {
            refused(address(numbers), abi.encodeCall(numbers.load, (uint8(code), 0)), Scalar.UnknownDtype.selector);
            refused(address(numbers), abi.encodeCall(numbers.store, (uint8(code), 0)), Scalar.UnknownDtype.selector);
        }
    }

    function testRandomNodes() public view {
        string memory json = read("philox");
        uint256 n = count(json, ".cases");
        require(n > 5, "cases");
        for (uint256 i = 0; i < n; ++i) {
            string[] memory seed = FILES.parseJsonStringArray(json, item(".cases", i, ".seed"));
            string[] memory bits = FILES.parseJsonStringArray(json, item(".cases", i, ".result.bits"));
            uint32 stream = uint32(FILES.parseJsonUint(json, item(".cases", i, ".stream")));
            uint32 step = uint32(FILES.parseJsonUint(json, item(".cases", i, ".step")));
            uint64 key = uint64(number(seed[0])) << 32 | number(seed[1]);
            for (uint64 k = 0; k < bits.length; ++k) {
                (uint32 found,) = numbers.philox(key, k, stream, step);
                require(found == number(bits[k]), "word");
            }
        }
    }

    function rows(string memory json, string memory key) internal pure returns (string[][] memory) {
        return abi.decode(FILES.parseJson(json, key), (string[][]));
    }

    /// @dev Of hexadecimal digits.
    function number(string memory digits) internal pure returns (uint32 x) {
        bytes memory d = bytes(digits);
        for (uint256 i = 0; i < d.length; ++i) {
            uint8 c = uint8(d[i]);
            x = x << 4 | (c < 58 ? c - 48 : c - 87);
        }
    }

    /// @dev The code of a dtype: its place in the order of formats, section 1.
    function dtype(string memory name) internal pure returns (uint8 code) {
        string[8] memory names = ["f32", "bf16", "f16", "i32", "u32", "u8", "boolean", "i8"];
        while (keccak256(bytes(names[code])) != keccak256(bytes(name))) ++code;
    }
}

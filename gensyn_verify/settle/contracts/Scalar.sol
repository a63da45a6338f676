// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SoftFloat32} from "./SoftFloat32.sol";

/// @title The operations of scalar programs, and how registers are loaded and stored: docs/numerics.md, sections 2 and 4
/// @notice A register is 32 bits: of a float with the one NaN 0x7fc00000, of an integer in two's complement, of a
/// boolean 0 or 1.
library Scalar {
    error UnknownOperation(uint8 code);
    error UnknownDtype(uint8 code);

    /// @notice The result of one operation, by its code in the bytes of a program. Operands that it has not are ignored.
    function execute(uint8 code, uint32 a, uint32 b, uint32 c) internal pure returns (uint32) {
        if (code == 9) return SoftFloat32.fma(a, b, c);
        if (code < 13) return _float(code, a, b);
        if (code < 28) return _integer(code - 13, a, b, true);
        if (code < 43) return _integer(code - 28, a, b, false);
        if (code == 43) return a & b;
        if (code == 44) return a | b;
        if (code == 45) return a ^ b;
        // slither-disable-next-line incorrect-exp
        if (code == 46) return a ^ 1;
        if (code < 51) return a == 1 ? b : c;
        if (code == 51) return SoftFloat32.toI32(a);
        if (code == 52) return SoftFloat32.toU32(a);
        if (code == 53) return SoftFloat32.fromI32(a);
        if (code == 54) return SoftFloat32.fromU32(a);
        if (code == 56 || code == 57) return SoftFloat32.canonical(a);
        if (code < 60) return a;
        revert UnknownOperation(code);
    }

    /// @notice The register that an element becomes, by the code of its dtype; `stored` is its little-endian bytes as
    /// a number
    function load(uint8 dtype, uint32 stored) internal pure returns (uint32) {
        if (dtype == 0) return SoftFloat32.canonical(stored);
        if (dtype == 1) return SoftFloat32.fromBf16(uint16(stored));
        if (dtype == 2) return SoftFloat32.fromF16(uint16(stored));
        if (dtype < 7) return stored;
        if (dtype == 7) return uint32(int32(int8(uint8(stored))));
        revert UnknownDtype(dtype);
    }

    /// @notice The element that a register is stored as, as `load` reads it
    function store(uint8 dtype, uint32 register) internal pure returns (uint32) {
        if (dtype == 0) return SoftFloat32.canonical(register);
        if (dtype == 1) return SoftFloat32.toBf16(register);
        if (dtype == 2) return SoftFloat32.toF16(register);
        if (dtype == 5 || dtype == 7) return register & 0xff;
        if (dtype < 7) return register;
        revert UnknownDtype(dtype);
    }

    function _float(uint8 code, uint32 a, uint32 b) private pure returns (uint32) {
        if (code == 0) return SoftFloat32.add(a, b);
        if (code == 1) return SoftFloat32.sub(a, b);
        if (code == 2) return SoftFloat32.mul(a, b);
        if (code == 3) return SoftFloat32.div(a, b);
        if (code == 4) return SoftFloat32.min(a, b);
        if (code == 5) return SoftFloat32.max(a, b);
        if (code == 6) return SoftFloat32.sqrt(a);
        if (code == 7) return SoftFloat32.neg(a);
        if (code == 8) return SoftFloat32.abs(a);
        if (code == 10) return _bit(SoftFloat32.eq(a, b));
        if (code == 11) return _bit(SoftFloat32.lt(a, b));
        return _bit(SoftFloat32.le(a, b));
    }

    /// @dev `code` counts from the first operation of the type
    function _integer(uint8 code, uint32 a, uint32 b, bool signed) private pure returns (uint32) {
        unchecked {
            if (code == 0) return a + b;
            if (code == 1) return a - b;
            if (code == 2) return a * b;
            if (code == 6) return a & b;
            if (code == 7) return a | b;
            if (code == 8) return a ^ b;
            if (code == 9) return ~a;
            if (code == 10) return a << (b & 31);
            if (code == 12) return _bit(a == b);
            int256 x = signed ? int256(int32(a)) : int256(uint256(a));
            if (code == 11) return uint32(uint256(x >> (b & 31)));
            int256 y = signed ? int256(int32(b)) : int256(uint256(b));
            if (code == 3) return uint32(uint256((x * y) >> 32));
            if (code == 4) return x < y ? a : b;
            if (code == 5) return x < y ? b : a;
            if (code == 13) return _bit(x < y);
            return _bit(x <= y);
        }
    }

    function _bit(bool x) private pure returns (uint32) {
        return x ? 1 : 0;
    }
}

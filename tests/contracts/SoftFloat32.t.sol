// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SoftFloat32} from "../../gensyn_verify/settle/contracts/SoftFloat32.sol";

/// @notice Laws that hold for all operands, fuzzed
contract SoftFloat32Test {
    uint32 private constant ONE = 0x3f800000;
    uint32 private constant SIGN = 0x80000000;

    function testFuzz_AdditionAndMultiplicationCommute(uint32 a, uint32 b, uint32 c) external pure {
        assert(SoftFloat32.add(a, b) == SoftFloat32.add(b, a));
        assert(SoftFloat32.mul(a, b) == SoftFloat32.mul(b, a));
        assert(SoftFloat32.fma(a, b, c) == SoftFloat32.fma(b, a, c));
    }

    function testFuzz_FmaContainsAddAndMul(uint32 a, uint32 b) external pure {
        assert(SoftFloat32.fma(a, ONE, b) == SoftFloat32.add(a, b));
        assert(SoftFloat32.fma(ONE, a, b) == SoftFloat32.add(a, b));
        assert(SoftFloat32.fma(a, b, (a ^ b) & SIGN) == SoftFloat32.mul(a, b));
    }

    function testFuzz_SignsPassThrough(uint32 a, uint32 b) external pure {
        assert(SoftFloat32.mul(a ^ SIGN, b) == SoftFloat32.neg(SoftFloat32.mul(a, b)));
        assert(SoftFloat32.div(a ^ SIGN, b) == SoftFloat32.neg(SoftFloat32.div(a, b)));
        assert(SoftFloat32.add(a, b) == SoftFloat32.sub(a, b ^ SIGN));
    }

    function testFuzz_OneAndZeroAreIdentities(uint32 a) external pure {
        uint32 same = SoftFloat32.canonical(a);
        assert(SoftFloat32.mul(a, ONE) == same && SoftFloat32.div(a, ONE) == same);
        assert(SoftFloat32.add(a, SIGN) == same && SoftFloat32.sub(a, 0) == same);
    }

    function testFuzz_EveryResultIsCanonical(uint32 a, uint32 b, uint32 c) external pure {
        assert(_canonical(SoftFloat32.add(a, b)));
        assert(_canonical(SoftFloat32.mul(a, b)));
        assert(_canonical(SoftFloat32.div(a, b)));
        assert(_canonical(SoftFloat32.sqrt(a)));
        assert(_canonical(SoftFloat32.fma(a, b, c)));
        assert(_canonical(SoftFloat32.min(a, b)) && _canonical(SoftFloat32.max(a, b)));
        assert(_canonical(SoftFloat32.neg(a)) && _canonical(SoftFloat32.abs(a)));
    }

    function testFuzz_RootsOfSquaresAreExact(uint16 a) external pure {
        uint32 n = SoftFloat32.fromU32(a & 0xfff);
        assert(SoftFloat32.sqrt(SoftFloat32.mul(n, n)) == n);
    }

    function testFuzz_OrderIsTotalButForNan(uint32 a, uint32 b) external pure {
        bool nan = SoftFloat32.isNan(a) || SoftFloat32.isNan(b);
        assert(SoftFloat32.le(a, b) == (SoftFloat32.lt(a, b) || SoftFloat32.eq(a, b)));
        assert((SoftFloat32.lt(a, b) || SoftFloat32.le(b, a)) == !nan);
    }

    function testFuzz_IntegersBelow24BitsConvertBack(uint32 a) external pure {
        a &= 0xffffff;
        assert(SoftFloat32.toU32(SoftFloat32.fromU32(a)) == a && SoftFloat32.toI32(SoftFloat32.fromI32(a)) == a);
    }

    function testFuzz_NarrowFloatsWidenExactly(uint16 a) external pure {
        uint32 half = SoftFloat32.fromF16(a);
        uint32 brain = SoftFloat32.fromBf16(a);
        assert(SoftFloat32.toF16(half) == (SoftFloat32.isNan(half) ? 0x7e00 : a));
        assert(SoftFloat32.toBf16(brain) == (SoftFloat32.isNan(brain) ? 0x7fc0 : a));
    }

    function _canonical(uint32 a) private pure returns (bool) {
        return !SoftFloat32.isNan(a) || a == 0x7fc00000;
    }
}

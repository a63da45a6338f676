// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SoftFloat32} from "../../gensyn_verify/settle/contracts/SoftFloat32.sol";

/// @notice For all operands, no result is a NaN other than 0x7fc00000: proven by halmos (`make test-proofs`)
contract SoftFloat32Proofs {
    function check_add(uint32 a, uint32 b) external pure {
        _canonical(SoftFloat32.add(a, b));
    }

    function check_sub(uint32 a, uint32 b) external pure {
        _canonical(SoftFloat32.sub(a, b));
    }

    function check_mul(uint32 a, uint32 b) external pure {
        _canonical(SoftFloat32.mul(a, b));
    }

    function check_div(uint32 a, uint32 b) external pure {
        _canonical(SoftFloat32.div(a, b));
    }

    function check_sqrt(uint32 a) external pure {
        _canonical(SoftFloat32.sqrt(a));
    }

    function check_fma(uint32 a, uint32 b, uint32 c) external pure {
        _canonical(SoftFloat32.fma(a, b, c));
    }

    function check_minMax(uint32 a, uint32 b) external pure {
        _canonical(SoftFloat32.min(a, b));
        _canonical(SoftFloat32.max(a, b));
    }

    function check_signs(uint32 a) external pure {
        _canonical(SoftFloat32.neg(a));
        _canonical(SoftFloat32.abs(a));
        _canonical(SoftFloat32.canonical(a));
    }

    function check_conversions(uint32 a) external pure {
        _canonical(SoftFloat32.fromU32(a));
        _canonical(SoftFloat32.fromI32(a));
    }

    function check_loads(uint16 a) external pure {
        _canonical(SoftFloat32.fromBf16(a));
        _canonical(SoftFloat32.fromF16(a));
    }

    function check_stores(uint32 a) external pure {
        uint16 half = SoftFloat32.toF16(a);
        uint16 brain = SoftFloat32.toBf16(a);
        assert(half & 0x7fff <= 0x7c00 || half == 0x7e00);
        assert(brain & 0x7fff <= 0x7f80 || brain == 0x7fc0);
    }

    function _canonical(uint32 a) private pure {
        assert(a & 0x7fffffff <= 0x7f800000 || a == 0x7fc00000);
    }
}

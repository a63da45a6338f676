// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title IEEE 754 binary32 on the EVM, as docs/numerics.md defines it
/// @notice Every operation rounds once, to nearest, ties to even; subnormal numbers are ordinary numbers. A number is
/// its 32 bits. Any NaN pattern is read as the NaN, and the only NaN that is ever returned is 0x7fc00000.
/// @dev Finite numbers are m * 2^(e - 150) with a significand m below 2^24. An operation computes its result exactly,
/// or with all that is below the rounding position gathered in one low bit, as an integer t below 2^255, and `_round`
/// makes a number of it. Operands whose exponents are neither 0 nor 255 take the short way.
library SoftFloat32 {
    uint32 internal constant NAN = 0x7fc00000;
    uint32 private constant INFINITY = 0x7f800000;
    uint32 private constant SIGN = 0x80000000;

    /// @notice a + b
    function add(uint32 a, uint32 b) internal pure returns (uint32) {
        unchecked {
            (uint256 ea, uint256 ma, uint256 eb, uint256 mb, bool usual) = _unpack(a, b);
            if (!usual) {
                if (ea == 255 || eb == 255) {
                    if (isNan(a) || isNan(b) || (ea == eb && a != b)) return NAN;
                    return ea == 255 ? a : b;
                }
                if (a << 1 == 0) return b << 1 == 0 ? a & b : b;
                if (b << 1 == 0) return a;
                (ea, ma) = _denormal(ea, ma);
                (eb, mb) = _denormal(eb, mb);
            }
            assembly ("memory-safe") {
                // the larger exponent first; d that it is above the other
                let d := sub(ea, eb)
                ma := shl(230, ma)
                mb := shl(230, mb)
                switch slt(d, 0)
                case 0 { mb := or(shr(d, mb), gt(d, 230)) }
                default {
                    d := sub(eb, ea)
                    ea := eb
                    ma := or(shr(d, ma), gt(d, 230))
                }
            }
            return _sum(a >> 31, ma, b >> 31, mb, ea + 1);
        }
    }

    /// @notice a - b
    function sub(uint32 a, uint32 b) internal pure returns (uint32) {
        return add(a, b ^ SIGN);
    }

    /// @notice a * b
    function mul(uint32 a, uint32 b) internal pure returns (uint32) {
        unchecked {
            (uint256 ea, uint256 ma, uint256 eb, uint256 mb, bool usual) = _unpack(a, b);
            uint256 s = (a ^ b) >> 31;
            if (!usual) {
                if (ea == 255 || eb == 255) {
                    if (isNan(a) || isNan(b) || a << 1 == 0 || b << 1 == 0) return NAN;
                    return uint32(s << 31) | INFINITY;
                }
                if (a << 1 == 0 || b << 1 == 0) return uint32(s << 31);
                (ea, ma) = _denormal(ea, ma);
                (eb, mb) = _denormal(eb, mb);
            }
            return _round(s, (ma * mb) << 207, ea + eb - 126);
        }
    }

    /// @notice a * b + c, rounded once
    function fma(uint32 a, uint32 b, uint32 c) internal pure returns (uint32) {
        unchecked {
            (uint256 ea, uint256 ma, uint256 eb, uint256 mb, bool usual) = _unpack(a, b);
            uint256 ec;
            uint256 mc;
            uint256 s = (a ^ b) >> 31;
            assembly ("memory-safe") {
                ec := and(shr(23, c), 0xff)
                mc := or(and(c, 0x7fffff), 0x800000)
                usual := and(usual, gt(and(add(ec, 1), 0xfe), 0))
            }
            if (!usual) {
                if (ea == 255 || eb == 255) {
                    if (isNan(a) || isNan(b) || isNan(c) || a << 1 == 0 || b << 1 == 0) return NAN;
                    return ec == 255 && c >> 31 != s ? NAN : uint32(s << 31) | INFINITY;
                }
                if (ec == 255) return isNan(c) ? NAN : c;
                if (a << 1 == 0 || b << 1 == 0) return c << 1 == 0 ? c & uint32(s << 31) : c;
                (ea, ma) = _denormal(ea, ma);
                (eb, mb) = _denormal(eb, mb);
                if (c << 1 == 0) return _round(s, (ma * mb) << 207, ea + eb - 126);
                (ec, mc) = _denormal(ec, mc);
            }
            assembly ("memory-safe") {
                // the product, a * 2^(ea - 150); d that its unit is above the addend's
                ma := mul(ma, mb)
                ea := sub(add(ea, eb), 150)
                let d := sub(ea, ec)
                switch slt(d, not(23))
                case 0 {
                    ma := shl(206, ma)
                    mc := or(shl(sub(206, d), mc), sgt(d, 206))
                    ea := add(ea, 25)
                }
                default {
                    ma := or(shl(add(230, d), ma), slt(d, not(229)))
                    mc := shl(230, mc)
                    ea := add(ec, 1)
                }
            }
            return _sum(s, ma, c >> 31, mc, ea);
        }
    }

    /// @notice a / b
    function div(uint32 a, uint32 b) internal pure returns (uint32) {
        unchecked {
            (uint256 ea, uint256 ma, uint256 eb, uint256 mb, bool usual) = _unpack(a, b);
            uint256 s = (a ^ b) >> 31;
            if (!usual) {
                if (isNan(a) || isNan(b)) return NAN;
                if (ea == 255) return eb == 255 ? NAN : uint32(s << 31) | INFINITY;
                if (b << 1 == 0) return a << 1 == 0 ? NAN : uint32(s << 31) | INFINITY;
                if (eb == 255 || a << 1 == 0) return uint32(s << 31);
                (ea, ma) = _denormal(ea, ma);
                (eb, mb) = _normal(eb, mb);
            }
            uint256 t;
            assembly ("memory-safe") {
                ma := shl(230, ma)
                t := shl(24, or(div(ma, mb), lt(0, mod(ma, mb))))
            }
            return _round(s, t, ea - eb + 127);
        }
    }

    /// @notice The square root of a
    function sqrt(uint32 a) internal pure returns (uint32) {
        unchecked {
            uint256 e = a >> 23;
            uint256 m = (a & 0x7fffff) | 0x800000;
            if (e == 0 || e > 254) {
                if (a << 1 == 0 || a == INFINITY) return a;
                if (a > INFINITY) return NAN;
                (e, m) = _normal(e, m);
            }
            assembly ("memory-safe") {
                // m * 2^k in [2^56, 2^58), e - 150 - k even
                let k := sub(34, and(e, 1))
                m := shl(k, m)
                // A chord's middle is within 5 % of the root, and a step of Newton squares that: after three of them z is
                // the root's whole part, or one more.
                let z := add(190000000, shr(37, mul(m, 171)))
                z := shr(1, add(z, div(m, z)))
                z := shr(1, add(z, div(m, z)))
                z := shr(1, add(z, div(m, z)))
                z := sub(z, gt(mul(z, z), m))
                // 29 bits and one for the rest
                m := shl(225, or(shl(1, z), lt(mul(z, z), m)))
                e := shr(1, sub(add(e, 160), k))
            }
            return _round(0, m, e);
        }
    }

    function neg(uint32 a) internal pure returns (uint32) {
        return isNan(a) ? NAN : a ^ SIGN;
    }

    function abs(uint32 a) internal pure returns (uint32) {
        return isNan(a) ? NAN : a & ~SIGN;
    }

    /// @notice The smaller of two, where -0 is below +0; NaN if either is
    function min(uint32 a, uint32 b) internal pure returns (uint32) {
        if (isNan(a) || isNan(b)) return NAN;
        return _rank(a) < _rank(b) ? a : b;
    }

    /// @notice The larger of two, where -0 is below +0; NaN if either is
    function max(uint32 a, uint32 b) internal pure returns (uint32) {
        if (isNan(a) || isNan(b)) return NAN;
        return _rank(a) < _rank(b) ? b : a;
    }

    /// @notice Whether a equals b; -0 equals +0, and a NaN nothing
    function eq(uint32 a, uint32 b) internal pure returns (bool) {
        return (a == b && !isNan(a)) || (a | b) << 1 == 0;
    }

    function lt(uint32 a, uint32 b) internal pure returns (bool) {
        return _rank(a) < _rank(b) && (a | b) << 1 != 0 && !isNan(a) && !isNan(b);
    }

    function le(uint32 a, uint32 b) internal pure returns (bool) {
        return (_rank(a) <= _rank(b) || (a | b) << 1 == 0) && !isNan(a) && !isNan(b);
    }

    function isNan(uint32 a) internal pure returns (bool r) {
        assembly ("memory-safe") {
            r := gt(and(a, 0x7fffffff), 0x7f800000)
        }
    }

    /// @notice The bits of any NaN become those of the one NaN.
    function canonical(uint32 a) internal pure returns (uint32) {
        return isNan(a) ? NAN : a;
    }

    /// @notice Toward zero; out of range the nearest i32, NaN gives 0. The result in two's complement.
    function toI32(uint32 a) internal pure returns (uint32) {
        unchecked {
            if (isNan(a)) return 0;
            uint256 n = _magnitude(a);
            if (a >> 31 == 0) return n < 0x7fffffff ? uint32(n) : 0x7fffffff;
            return n < SIGN ? uint32(0 - n) : SIGN;
        }
    }

    /// @notice Toward zero; out of range the nearest u32, NaN gives 0
    function toU32(uint32 a) internal pure returns (uint32) {
        if (isNan(a) || a >> 31 != 0) return 0;
        uint256 n = _magnitude(a);
        return n < type(uint32).max ? uint32(n) : type(uint32).max;
    }

    /// @param a in two's complement
    function fromI32(uint32 a) internal pure returns (uint32) {
        unchecked {
            return a < SIGN ? fromU32(a) : fromU32(0 - a) | SIGN;
        }
    }

    function fromU32(uint32 a) internal pure returns (uint32) {
        return a == 0 ? 0 : _round(0, uint256(a) << 222, 159);
    }

    function fromBf16(uint16 a) internal pure returns (uint32) {
        return canonical(uint32(a) << 16);
    }

    function toBf16(uint32 a) internal pure returns (uint16) {
        unchecked {
            if (isNan(a)) return 0x7fc0;
            return uint16((uint256(a) + 0x7fff + ((a >> 16) & 1)) >> 16);
        }
    }

    function fromF16(uint16 a) internal pure returns (uint32) {
        unchecked {
            uint256 s = a >> 15;
            uint256 e = (a >> 10) & 31;
            uint256 m = a & 0x3ff;
            if (e == 31) return m == 0 ? uint32(s << 31) | INFINITY : NAN;
            if (e != 0) return uint32((s << 31) | ((e + 112) << 23) | (m << 13));
            return m == 0 ? uint32(s << 31) : _round(s, m << 244, 113);
        }
    }

    function toF16(uint32 a) internal pure returns (uint16) {
        unchecked {
            if (isNan(a)) return 0x7e00;
            uint256 e = (a >> 23) & 255;
            uint256 m = (a & 0x7fffff) | 0x800000;
            uint256 shift = 13;
            if (e < 113) (shift, e) = (126 - e, 113); // subnormal: multiples of 2^-24
            uint256 r = (m + (1 << (shift - 1)) - 1 + ((m >> shift) & 1)) >> shift;
            r += (e - 113) << 10;
            return uint16((r < 0x7c00 ? r : 0x7c00) | ((a >> 16) & 0x8000));
        }
    }

    // ---- parts ---------------------------------------------------------------------------------------------------

    /// @dev Exponents and significands of two numbers, as they are if no exponent is 0 or 255: usual
    function _unpack(uint32 a, uint32 b)
        private
        pure
        returns (uint256 ea, uint256 ma, uint256 eb, uint256 mb, bool usual)
    {
        assembly ("memory-safe") {
            ea := and(shr(23, a), 0xff)
            ma := or(and(a, 0x7fffff), 0x800000)
            eb := and(shr(23, b), 0xff)
            mb := or(and(b, 0x7fffff), 0x800000)
            usual := iszero(iszero(mul(and(add(ea, 1), 0xfe), and(add(eb, 1), 0xfe))))
        }
    }

    /// @dev What `_unpack` says of a finite number, corrected for a subnormal one
    function _denormal(uint256 e, uint256 m) private pure returns (uint256, uint256) {
        return e == 0 ? (1, m ^ 0x800000) : (e, m);
    }

    /// @dev As `_denormal`, with m scaled to at least 2^23
    function _normal(uint256 e, uint256 m) private pure returns (uint256, uint256) {
        unchecked {
            (e, m) = _denormal(e, m);
            uint256 k = 23 - _top(m);
            return (e - k, m << k);
        }
    }

    /// @dev Orders all numbers but NaN, -0 below +0
    function _rank(uint32 a) private pure returns (uint32) {
        return a < SIGN ? a | SIGN : ~a;
    }

    /// @dev |a| toward zero, where that is below 2^33; 2^33 or more otherwise
    function _magnitude(uint32 a) private pure returns (uint256) {
        unchecked {
            uint256 e = (a >> 23) & 255;
            uint256 m = (a & 0x7fffff) | 0x800000;
            if (e < 127) return 0;
            return e < 150 ? m >> (150 - e) : m << (e - 150);
        }
    }

    /// @dev x with sign s, plus y with sign z, both at the scale of `_round` and below 2^254
    function _sum(uint256 s, uint256 x, uint256 z, uint256 y, uint256 e) private pure returns (uint32) {
        unchecked {
            if (s == z) return _round(s, x + y, e);
            if (x == y) return 0;
            return x > y ? _round(s, x - y, e) : _round(z, y - x, e);
        }
    }

    /// @dev The number with sign s and magnitude t * 2^(e - 127 - 254), rounded; 0 < t < 2^255, e in two's complement
    function _round(uint256 s, uint256 t, uint256 e) private pure returns (uint32 r) {
        uint256 top = 0;
        if (t >> 250 == 0) top = _top(t);
        assembly ("memory-safe") {
            // bring the first bit to 254
            let k := byte(shr(250, t), 0x0004030302020202010101010101010100000000000000000000000000000000)
            if top { k := sub(254, top) }
            t := shl(k, t)
            e := sub(e, k)
            // keep 24 bits, or those of the subnormal numbers, whose last is 2^-149
            k := 231
            let half := 0x3fffffffffffffffffffffffffffffffffffffffffffffffffffffffff // less one
            if slt(e, 1) {
                k := sub(232, e)
                // slither-disable-next-line incorrect-shift
                half := sub(shl(sub(k, 1), 1), 1)
                e := 1
            }
            t := shr(k, add(add(t, half), and(shr(k, t), 1)))
            // the first bit, and a carry out of the 24, count into the exponent
            r := add(t, shl(23, sub(e, 1)))
            if gt(r, 0x7f800000) { r := 0x7f800000 }
            r := or(r, shl(31, s))
        }
    }

    /// @dev The number of the highest bit of x, which is not 0
    function _top(uint256 x) private pure returns (uint256 n) {
        assembly ("memory-safe") {
            n := shl(7, lt(0xffffffffffffffffffffffffffffffff, x))
            n := or(n, shl(6, lt(0xffffffffffffffff, shr(n, x))))
            n := or(n, shl(5, lt(0xffffffff, shr(n, x))))
            n := or(n, shl(4, lt(0xffff, shr(n, x))))
            n := or(n, shl(3, lt(0xff, shr(n, x))))
            n := or(n, shl(2, lt(0xf, shr(n, x))))
            n := or(n, shl(1, lt(3, shr(n, x))))
            n := or(n, lt(1, shr(n, x)))
        }
    }
}

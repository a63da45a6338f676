// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bytes} from "./Bytes.sol";
import {Leaf, Node} from "./Leaf.sol";
import {Philox} from "./Philox.sol";
import {Scalar} from "./Scalar.sol";

/// @notice The element whose sequence is asked for.
struct Element {
    uint64 step;
    uint32 output; // which output of the node
    uint64 index; // in row-major order
    uint64 value; // its stored bits, as the solver says; only a sort reads them
}

/// @notice Where an operand lies.
struct Location {
    uint8 kind; // 0 constant, 1 result of an earlier operation, 2 element of a tensor
    uint8 dtype; // of the element, or of the element that the result is
    bool raw; // taken as it is stored; else loaded into a register
    uint64 index; // the constant; the operation; the element
    bytes32 root; // of the tensor
    uint64 length; // of the tensor, in bytes
}

/// @notice One operation of a sequence: its code, its operands, and what its meaning depends on.
struct Operation {
    uint8 code;
    uint8 dtype; // STORE: the dtype; ARGMAX, ARGMIN, SCATTER, COUNT: the register type; COPY: the slot
    uint64 x; // ARGMAX, ARGMIN, COUNT: the position; SCATTER: the row; PHILOX: the element; RANK: the place
    uint64 y; // COUNT, RANK: the claimed result; PHILOX: the stream
    Location[3] operands;
}

/// @title The sequence of an element: how long it is, what its operations read, and what they give.
/// @notice Stateless. The rules are those of docs/dispute.md, section 3; the meaning of every operation is in
/// docs/numerics.md.
/// @dev `leaf` is a node leaf of a trace, or a source (dispute, section 6) in place of one. `scalar` is the record of the
/// node's scalar program, or empty. Both are agreed when they come here; all reads are bounds-checked all the same.
contract StepVerifier {
    /// @notice The sequence has no operation of this number.
    error NoOperation();
    /// @notice The claimed result of a sort is no position of its row, so it has no sequence.
    error NoSequence();
    /// @notice An operation with this code does not exist.
    error UnknownOperation();

    uint8 internal constant STORE = 128;
    uint8 internal constant COPY = 129;
    uint8 internal constant ARGMAX = 130;
    uint8 internal constant ARGMIN = 131;
    uint8 internal constant POSITION = 132;
    uint8 internal constant SCATTER = 133;
    uint8 internal constant PHILOX = 134;
    uint8 internal constant COUNT = 135;
    uint8 internal constant RANK = 136;
    uint8 internal constant MULTIPLY_ADD = 137;

    uint256 private constant NEGATIVE_ZERO = 0x80000000;
    uint256 private constant BLOCK = 128;
    uint256 private constant SEGMENT = 2048;
    uint256 private constant LANES = 64;
    /// @dev By operation code, the operations with one operand, and those with three.
    uint256 private constant UNARY = 0x0ff8_4020_0040_01c0;
    uint256 private constant TERNARY = 0x0007_8000_0000_0200;

    /// @dev A parsed leaf and what is asked of it; the scalar program's parts where there is one.
    struct Query {
        Node node;
        uint256 number; // of the output
        uint256 output; // offset of its type
        uint256 element;
        uint256 value; // of the element
        uint256 t;
        uint256 claimed; // the operand in slot 0
        uint256 position; // of a scan, along its first axis
        uint256 constants; // offset
        uint256 constantCount;
        uint256 instructions; // offset
        uint256 instructionCount;
        uint256 inputCount;
    }

    /// @notice The number of operations of the element's sequence.
    function length(Element calldata e, bytes calldata leaf, bytes calldata scalar) external pure returns (uint64) {
        if (Bytes.u(leaf, 0, 1) == 2) return 1;
        Query memory q = _query(e, leaf, scalar);
        Node memory n = q.node;
        uint256 code = n.code;
        if (code == 0) return uint64(q.instructionCount + 1);
        if (code == 1) {
            uint256 k = _inner(leaf, n);
            return uint64(k == 0 ? 1 : k + _blocks(k));
        }
        if (code == 2) {
            (, uint256 count) = _reduced(leaf, n);
            return uint64(Bytes.u(leaf, n.attributes[0], 8) == 0 ? _sumLength(count) : count);
        }
        if (code == 11) return uint64(Leaf.elementsFrom(leaf, Leaf.operand(leaf, n, 1), 0) + 1);
        if (code == 13) {
            uint256 row = Leaf.dim(leaf, q.output, Leaf.rankOf(leaf, q.output) - 1);
            if (q.value >= row) revert NoSequence();
            return uint64(row + 1);
        }
        if (code == 14) {
            uint256 position = q.element / Leaf.elementsFrom(leaf, q.output, 1);
            uint256 width = q.instructionCount + n.outputCount;
            return uint64(width * position + q.instructionCount + q.number + 1);
        }
        return 1;
    }

    /// @notice Where the operands of operation `t` lie. `claimed` are the operands as the solver stated them: where the
    /// data of a gather lie depends on its index.
    function locate(
        Element calldata e,
        bytes calldata leaf,
        bytes calldata scalar,
        uint64 t,
        uint64[3] calldata claimed
    ) public pure returns (Operation memory o) {
        if (Bytes.u(leaf, 0, 1) == 2) {
            if (t != 0) revert NoOperation();
            return _source(e, leaf);
        }
        Query memory q = _query(e, leaf, scalar);
        q.t = t;
        q.claimed = claimed[0];
        _describe(o, q, leaf, scalar);
    }

    function _describe(Operation memory o, Query memory q, bytes calldata leaf, bytes calldata scalar) private pure {
        uint256 code = q.node.code;
        if (code == 0) _map(o, q, leaf, scalar);
        else if (code == 1) _dot(o, q, leaf);
        else if (code == 2) _reduce(o, q, leaf);
        else if (code < 10) _layout(o, q, leaf);
        else if (code == 10) _gather(o, q, leaf);
        else if (code == 11) _scatter(o, q, leaf);
        else if (code == 12) _random(o, q, leaf);
        else if (code == 13) _sort(o, q, leaf);
        else _scan(o, q, leaf, scalar);
    }

    /// @notice Where operand `q` of operation `t` lies; see `locate`.
    function operand(
        Element calldata e,
        bytes calldata leaf,
        bytes calldata scalar,
        uint64 t,
        uint64[3] calldata claimed,
        uint32 q
    ) external pure returns (Location memory) {
        return locate(e, leaf, scalar, t, claimed).operands[q];
    }

    /// @notice The result of operation `t` on these operands.
    function execute(
        Element calldata e,
        bytes calldata leaf,
        bytes calldata scalar,
        uint64 t,
        uint64[3] calldata operands
    ) external pure returns (uint256) {
        return _result(locate(e, leaf, scalar, t, operands), operands);
    }

    function _result(Operation memory o, uint64[3] calldata operands) private pure returns (uint256) {
        uint256 a = operands[0];
        uint256 b = operands[1];
        if (o.code < STORE) return Scalar.execute(o.code, uint32(a), uint32(b), uint32(operands[2]));
        if (o.code == STORE) return Scalar.store(o.dtype, uint32(a));
        if (o.code == COPY) return operands[o.dtype];
        if (o.code == ARGMAX || o.code == ARGMIN) {
            if (o.x == 1) a <<= 32; // the first element is plain
            return _better(o.code == ARGMAX, o.dtype, b, a >> 32) ? (b << 32) | o.x : a;
        }
        if (o.code == POSITION) return a & 0xffffffff;
        if (o.code == SCATTER) {
            return b == o.x ? Scalar.execute(_base(o.dtype), uint32(a), uint32(operands[2]), 0) : a;
        }
        if (o.code == PHILOX) {
            return Philox.element(uint64(a << 32 | uint32(b)), o.x, uint32(o.y), uint32(operands[2]));
        }
        if (o.code == COUNT) return uint32(a + (_before(o.dtype, b, o.x, operands[2], o.y) ? 1 : 0));
        if (o.code == RANK) return a == o.x ? o.y : 0xffffffff;
        if (o.code == MULTIPLY_ADD) return uint32(a * b + operands[2]);
        revert UnknownOperation();
    }

    /// @dev Whether `x` takes the place of `best` (numerics, section 6): the first NaN, else the first extreme.
    function _better(bool largest, uint256 register, uint256 x, uint256 best) private pure returns (bool) {
        if (register == 0) {
            if (_isNaN(best)) return false;
            if (_isNaN(x)) return true;
        }
        return largest ? _less(register, best, x) : _less(register, x, best);
    }

    /// @dev Whether `y` at position `t` comes before `z` at position `w` (numerics, section 10).
    function _before(uint256 register, uint256 y, uint256 t, uint256 z, uint256 w) private pure returns (bool) {
        if (register == 0) {
            if (_isNaN(y)) return _isNaN(z) && t < w;
            if (_isNaN(z)) return true;
        }
        return _less(register, y, z) || (t < w && !_less(register, z, y));
    }

    function _isNaN(uint256 x) private pure returns (bool) {
        return x & 0x7fffffff > 0x7f800000;
    }

    function _less(uint256 register, uint256 x, uint256 y) private pure returns (bool) {
        return Scalar.execute(register == 0 ? 11 : register == 1 ? 26 : 41, uint32(x), uint32(y), 0) == 1;
    }

    /// @dev Code of `add` of a register type; `min` follows 4, `max` 5 places later.
    function _base(uint256 register) private pure returns (uint8) {
        return register == 0 ? 0 : register == 1 ? 13 : 28;
    }

    // ---- locations

    function _constant(uint256 x) private pure returns (Location memory place) {
        place.index = uint64(x);
    }

    function _earlier(uint256 t) private pure returns (Location memory place) {
        place.kind = 1;
        place.raw = true;
        place.index = uint64(t);
    }

    /// @dev Element `index` of the operand at offset `offset`.
    function _element(bytes calldata leaf, uint256 offset, uint256 index, bool raw)
        private
        pure
        returns (Location memory place)
    {
        place.kind = 2;
        place.dtype = uint8(Leaf.dtype(leaf, offset));
        place.raw = raw;
        place.index = uint64(index);
        place.root = Bytes.digest(leaf, Leaf.typeEnd(leaf, offset));
        place.length = uint64(Leaf.elementsFrom(leaf, offset, 0) * Leaf.width(place.dtype));
    }

    /// @dev The element of the operand at `offset` that broadcasts to `index` of a shape whose dimensions end at `end`.
    function _broadcast(bytes calldata leaf, uint256 offset, uint256 end, uint256 index)
        private
        pure
        returns (uint256 source)
    {
        uint256 stride = 1;
        for (uint256 axis = Leaf.rankOf(leaf, offset); axis != 0;) {
            --axis;
            end -= 8;
            uint256 d = Bytes.u(leaf, end, 8);
            uint256 own = Leaf.dim(leaf, offset, axis);
            if (own != 1) source += (index % d) * stride;
            stride *= own;
            index /= d;
        }
    }

    /// @dev Item `i` of the list at `offset`.
    function _item(bytes calldata leaf, uint256 offset, uint256 i) private pure returns (uint256) {
        return Bytes.u(leaf, offset + 2 + 8 * i, 8);
    }

    function _query(Element calldata e, bytes calldata leaf, bytes calldata scalar)
        private
        pure
        returns (Query memory q)
    {
        q.node = Leaf.node(leaf);
        q.number = e.output;
        q.output = Leaf.output(leaf, q.node, e.output);
        q.element = e.index;
        q.value = e.value;
        if (q.node.code == 0 || q.node.code == 14) {
            q.inputCount = Bytes.u(scalar, 0, 1);
            q.constants = 3 + q.inputCount;
            q.constantCount = Bytes.u(scalar, q.constants - 2, 2);
            q.instructions = q.constants + 5 * q.constantCount + 2;
            q.instructionCount = Bytes.u(scalar, q.instructions - 2, 2);
        }
    }

    // ---- node kinds: every function fills in the operation number q.t

    function _storeOf(Operation memory o, bytes calldata leaf, Query memory q, Location memory from) private pure {
        o.code = STORE;
        o.dtype = uint8(Leaf.dtype(leaf, q.output));
        o.operands[0] = from;
    }

    /// @dev The offset of instruction `j`, or for j = `instructionCount` of the number of outputs.
    function _instructionAt(Query memory q, bytes calldata scalar, uint256 j) private pure returns (uint256 offset) {
        offset = q.instructions;
        for (; j != 0; --j) {
            offset += 1 + 2 * _arity(Bytes.u(scalar, offset, 1));
        }
    }

    function _arity(uint256 code) private pure returns (uint256) {
        return 2 + ((TERNARY >> code) & 1) - ((UNARY >> code) & 1);
    }

    /// @dev Instruction `j` of the scalar program.
    function _instruction(Operation memory o, Query memory q, bytes calldata leaf, bytes calldata scalar, uint256 j)
        private
        pure
    {
        uint256 offset = _instructionAt(q, scalar, j);
        o.code = uint8(Bytes.u(scalar, offset, 1));
        for (uint256 i = _arity(o.code); i != 0; --i) {
            o.operands[i - 1] = _value(q, leaf, scalar, offset + 2 * i - 1);
        }
    }

    /// @dev STORE of output `i` of the scalar program.
    function _storeOutput(Operation memory o, Query memory q, bytes calldata leaf, bytes calldata scalar, uint256 i)
        private
        pure
    {
        uint256 offset = _instructionAt(q, scalar, q.instructionCount);
        if (i >= Bytes.u(scalar, offset, 1)) revert NoOperation();
        o.code = STORE;
        o.dtype = uint8(Leaf.dtype(leaf, Leaf.output(leaf, q.node, i)));
        o.operands[0] = _value(q, leaf, scalar, offset + 1 + 2 * i);
    }

    /// @dev Where the value lies whose number is at `v` in the scalar program, of a scan at its position.
    function _value(Query memory q, bytes calldata leaf, bytes calldata scalar, uint256 v)
        private
        pure
        returns (Location memory)
    {
        v = Bytes.u(scalar, v, 2);
        uint256 width = q.instructionCount + q.node.outputCount; // operations of a position of a scan
        if (v >= q.inputCount) {
            v -= q.inputCount;
            if (v < q.constantCount) return _constant(Bytes.u(scalar, q.constants + 5 * v + 1, 4));
            return _earlier(q.position * width + v - q.constantCount);
        }
        if (q.node.code == 0) return _broadcastElement(q, leaf, v, q.element);
        if (v >= q.node.outputCount || q.position == 0) return _scanned(q, leaf, v);
        Location memory place = _earlier((q.position - 1) * width + q.instructionCount + v);
        place.dtype = uint8(Leaf.dtype(leaf, Leaf.output(leaf, q.node, v)));
        place.raw = false;
        return place;
    }

    /// @dev Input `v` of a scan at its position: an initial tensor, or one that is read along the first axis.
    function _scanned(Query memory q, bytes calldata leaf, uint256 v) private pure returns (Location memory) {
        uint256 rest = Leaf.elementsFrom(leaf, q.output, 1);
        uint256 index = q.element % rest;
        return _broadcastElement(q, leaf, v, v < q.node.outputCount ? index : q.position * rest + index);
    }

    /// @dev The element of operand `v` that broadcasts to number `index` of the output's shape. Shapes are aligned at the
    /// right, so that this serves the shape without its first axis too.
    function _broadcastElement(Query memory q, bytes calldata leaf, uint256 v, uint256 index)
        private
        pure
        returns (Location memory)
    {
        v = Leaf.operand(leaf, q.node, v);
        uint256 end = Leaf.typeEnd(leaf, q.output);
        index = _broadcast(leaf, v, end, index);
        return _element(leaf, v, index, false);
    }

    function _map(Operation memory o, Query memory q, bytes calldata leaf, bytes calldata scalar) private pure {
        if (q.t > q.instructionCount) revert NoOperation();
        if (q.t < q.instructionCount) _instruction(o, q, leaf, scalar, q.t);
        else _storeOutput(o, q, leaf, scalar, q.number);
    }

    function _scan(Operation memory o, Query memory q, bytes calldata leaf, bytes calldata scalar) private pure {
        uint256 width = q.instructionCount + q.node.outputCount;
        uint256 last = q.element / Leaf.elementsFrom(leaf, q.output, 1);
        if (q.t > width * last + q.instructionCount + q.number) revert NoOperation();
        q.position = q.t / width;
        uint256 j = q.t % width;
        if (j < q.instructionCount) _instruction(o, q, leaf, scalar, j);
        else _storeOutput(o, q, leaf, scalar, j - q.instructionCount);
    }

    /// @dev Length of the inner dimension of a dot.
    function _inner(bytes calldata leaf, Node memory n) private pure returns (uint256) {
        uint256 rank = Leaf.rankOf(leaf, n.operands);
        return Leaf.dim(leaf, n.operands, Bytes.u(leaf, n.attributes[0], 1) == 0 ? rank - 1 : rank - 2);
    }

    /// @dev Blocks of k > 0 values: 128 each, a remainder of at most 64 joins the last full one.
    function _blocks(uint256 k) private pure returns (uint256) {
        return k < 65 ? 1 : (k - 65) / BLOCK + 1;
    }

    function _dot(Operation memory o, Query memory q, bytes calldata leaf) private pure {
        uint256 k = _inner(leaf, q.node);
        if (k == 0) {
            if (q.t != 0) revert NoOperation();
            return _storeOf(o, leaf, q, _constant(0));
        }
        uint256 blocks = _blocks(k);
        if (q.t >= k + blocks) revert NoOperation();
        if (q.t == k + blocks - 1) return _storeOf(o, leaf, q, _earlier(q.t - 1));
        // Block 0 has 128 operations, every further one an addition more; the last takes the remainder.
        uint256 b = (q.t + 1) / (BLOCK + 1);
        if (b >= blocks) b = blocks - 1;
        uint256 start = b == 0 ? 0 : (BLOCK + 1) * b - 1;
        uint256 i = q.t - start;
        bool floats = Leaf.register(Leaf.dtype(leaf, q.output)) == 0; // else i8 are multiplied into i32
        if (i == (b == blocks - 1 ? k - BLOCK * b : BLOCK)) {
            o.code = _base(floats ? 0 : 1);
            o.operands[0] = _earlier(start - 1);
            o.operands[1] = _earlier(q.t - 1);
        } else {
            o.code = floats ? 9 : MULTIPLY_ADD; // 9: fma.f32
            _factors(o, q, leaf, k, BLOCK * b + i);
            o.operands[2] = i == 0 ? _constant(0) : _earlier(q.t - 1);
        }
    }

    /// @dev a[i, at] and b[at, j] of the element's row i and column j.
    function _factors(Operation memory o, Query memory q, bytes calldata leaf, uint256 k, uint256 offset) private pure {
        uint256 rank = Leaf.rankOf(leaf, q.output);
        uint256 rows = Leaf.dim(leaf, q.output, rank - 2);
        uint256 columns = Leaf.dim(leaf, q.output, rank - 1);
        uint256 row = q.element / columns;
        o.operands[0] = _factor(q, leaf, 0, row / rows * rows * k, row % rows, rows, offset, k);
        o.operands[1] = _factor(q, leaf, 1, row / rows * columns * k, q.element % columns, columns, offset, k);
    }

    /// @dev Value `offset` of k, of row or column `line` of `lines`, of operand `side`; `batch` is where its matrix begins.
    function _factor(
        Query memory q,
        bytes calldata leaf,
        uint256 side,
        uint256 batch,
        uint256 line,
        uint256 lines,
        uint256 offset,
        uint256 k
    ) private pure returns (Location memory) {
        // k is the last axis of a as it is, and of b transposed.
        line =
            (Bytes.u(leaf, q.node.attributes[side], 1) == 0) == (side == 0) ? line * k + offset : offset * lines + line;
        offset = Leaf.operand(leaf, q.node, side);
        if (Leaf.rankOf(leaf, offset) > 2) line += batch;
        return _element(leaf, offset, line, false);
    }

    /// @dev The reduced axes as bits, and how many values they hold.
    function _reduced(bytes calldata leaf, Node memory n) private pure returns (uint256 axes, uint256 count) {
        uint256 offset = n.attributes[1];
        count = 1;
        for (uint256 i = Bytes.u(leaf, offset, 2); i != 0; --i) {
            uint256 axis = _item(leaf, offset, i - 1);
            axes |= 1 << axis;
            count *= Leaf.dim(leaf, n.operands, axis);
        }
    }

    /// @dev Value `i` of those that the element is reduced from.
    function _reducedElement(Query memory q, bytes calldata leaf, uint256 axes, uint256 i)
        private
        pure
        returns (Location memory)
    {
        uint256 offset = q.node.operands;
        uint256 rest = q.element;
        uint256 index = 0;
        uint256 stride = 1;
        for (uint256 axis = Leaf.rankOf(leaf, offset); axis != 0;) {
            --axis;
            uint256 d = Leaf.dim(leaf, offset, axis);
            if ((axes >> axis) & 1 == 1) {
                index += (i % d) * stride;
                i /= d;
            } else {
                index += (rest % d) * stride;
                rest /= d;
            }
            stride *= d;
        }
        return _element(leaf, offset, index, false);
    }

    function _reduce(Operation memory o, Query memory q, bytes calldata leaf) private pure {
        uint256 kind = Bytes.u(leaf, q.node.attributes[0], 8);
        uint8 register = uint8(Leaf.register(Leaf.dtype(leaf, q.node.operands)));
        (uint256 axes, uint256 count) = _reduced(leaf, q.node);
        if (kind == 0) return _sum(o, q, leaf, axes, count);
        uint256 t = q.t;
        if (t >= count) revert NoOperation();
        if (t < count - 1) {
            o.code = kind == 3 ? ARGMAX : kind == 4 ? ARGMIN : _base(register) + (kind == 1 ? 5 : 4);
            o.dtype = register;
            o.x = uint64(t + 1);
            o.operands[0] = t == 0 ? _reducedElement(q, leaf, axes, 0) : _earlier(t - 1);
            o.operands[1] = _reducedElement(q, leaf, axes, t + 1);
        } else if (kind < 3) {
            _storeOf(o, leaf, q, t == 0 ? _reducedElement(q, leaf, axes, 0) : _earlier(t - 1));
        } else {
            o.code = POSITION;
            o.operands[0] = t == 0 ? _constant(0) : _earlier(t - 1);
        }
    }

    function _sumLength(uint256 count) private pure returns (uint256 total) {
        if (count == 0) return 1;
        while (true) {
            uint256 segments = (count + SEGMENT - 1) / SEGMENT;
            total += count + (LANES - 1) * segments;
            if (segments == 1) return total + 1;
            count = segments;
        }
    }

    function _min(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }

    /// @dev A level of a sum: the values that it adds, and where its operations begin; the same of the level before.
    struct Level {
        uint256 count;
        uint256 start;
        uint256 countBelow;
        uint256 startBelow;
    }

    function _sum(Operation memory o, Query memory q, bytes calldata leaf, uint256 axes, uint256 count) private pure {
        Level memory level = Level(count, 0, 0, 0);
        while (true) {
            uint256 segments = (level.count + SEGMENT - 1) / SEGMENT;
            uint256 next = level.start + level.count + (LANES - 1) * segments;
            if (q.t < next) break;
            if (segments < 2) {
                if (q.t != next) revert NoOperation();
                return _storeOf(o, leaf, q, count == 0 ? _constant(0) : _earlier(q.t - 1));
            }
            level = Level(segments, next, level.count, level.start);
        }
        uint256 register = Leaf.register(Leaf.dtype(leaf, q.node.operands));
        o.code = _base(register);
        _addition(o, q, leaf, axes, level, _constant(register == 0 ? NEGATIVE_ZERO : 0));
    }

    /// @dev The addition number q.t, of this level; `identity` is a lane without values.
    function _addition(
        Operation memory o,
        Query memory q,
        bytes calldata leaf,
        uint256 axes,
        Level memory level,
        Location memory identity
    ) private pure {
        uint256 segment = (q.t - level.start) / (SEGMENT + LANES - 1);
        uint256 start = level.start + segment * (SEGMENT + LANES - 1);
        uint256 values = _min(SEGMENT, level.count - segment * SEGMENT);
        uint256 i = q.t - start;
        if (i < values) {
            o.operands[0] = i < LANES ? identity : _earlier(q.t - LANES);
            i += segment * SEGMENT;
            o.operands[1] = level.start == 0 ? _reducedElement(q, leaf, axes, i) : _earlier(_sumOf(level, i));
            return;
        }
        // Folding: 32 additions, then 16, 8, 4, 2, 1.
        i -= values;
        uint256 half = LANES / 2;
        for (; i >= half; half /= 2) {
            i -= half;
        }
        o.operands[0] = _lane(identity, start, values, i, half);
        o.operands[1] = _lane(identity, start, values, i + half, half);
    }

    /// @dev The operation that ends segment `i` of the level before.
    function _sumOf(Level memory level, uint256 i) private pure returns (uint256) {
        return level.startBelow + i * (SEGMENT + LANES - 1) + _min(SEGMENT, level.countBelow - i * SEGMENT) + LANES - 2;
    }

    /// @dev Where the lane lies that is about to be folded by `half`.
    function _lane(Location memory identity, uint256 start, uint256 values, uint256 lane, uint256 half)
        private
        pure
        returns (Location memory)
    {
        if (half < LANES / 2) return _earlier(start + values + LANES - 4 * half + lane);
        return lane < values ? _earlier(start + lane + (values - 1 - lane) / LANES * LANES) : identity;
    }

    function _layout(Operation memory o, Query memory q, bytes calldata leaf) private pure {
        if (q.t != 0) revert NoOperation();
        Node memory n = q.node;
        o.code = COPY;
        uint256 offset = n.operands;
        uint256 index = q.element;
        if (n.code == 4) {
            index = _permuted(q, leaf);
        } else if (n.code == 5) {
            index = _sliced(q, leaf);
        } else if (n.code == 6) {
            bool inside;
            (inside, index) = _padded(q, leaf);
            if (!inside) {
                o.operands[0] = _constant(Bytes.u(leaf, n.attributes[3], 8));
                return;
            }
        } else if (n.code == 7) {
            (offset, index) = _concatenated(q, leaf);
        } else if (n.code == 8) {
            index = _broadcast(leaf, offset, Leaf.typeEnd(leaf, q.output), index);
        } else if (n.code == 9) {
            index = _window(q, leaf);
        }
        o.operands[0] = _element(leaf, offset, index, true);
    }

    /// @dev Axis i of the output is axis axes[i] of the input.
    function _permuted(Query memory q, bytes calldata leaf) private pure returns (uint256 index) {
        uint256 offset = q.node.operands;
        uint256 rest = q.element;
        for (uint256 i = Leaf.rankOf(leaf, offset); i != 0;) {
            --i;
            uint256 d = Leaf.dim(leaf, q.output, i);
            uint256 axis = _item(leaf, q.node.attributes[0], i);
            index += (rest % d) * Leaf.elementsFrom(leaf, offset, axis + 1);
            rest /= d;
        }
    }

    function _sliced(Query memory q, bytes calldata leaf) private pure returns (uint256 index) {
        uint256 offset = q.node.operands;
        uint256 rest = q.element;
        uint256 stride = 1;
        for (uint256 i = Leaf.rankOf(leaf, offset); i != 0;) {
            --i;
            uint256 d = Leaf.dim(leaf, q.output, i);
            int256 step = int64(uint64(_item(leaf, q.node.attributes[2], i)));
            index += uint256(int256(_item(leaf, q.node.attributes[0], i)) + step * int256(rest % d)) * stride;
            stride *= Leaf.dim(leaf, offset, i);
            rest /= d;
        }
    }

    function _padded(Query memory q, bytes calldata leaf) private pure returns (bool inside, uint256 index) {
        uint256 offset = q.node.operands;
        uint256 rest = q.element;
        uint256 stride = 1;
        inside = true;
        for (uint256 i = Leaf.rankOf(leaf, offset); i != 0;) {
            --i;
            uint256 d = Leaf.dim(leaf, q.output, i);
            uint256 place = rest % d;
            rest /= d;
            d = Leaf.dim(leaf, offset, i);
            uint256 low = _item(leaf, q.node.attributes[0], i);
            uint256 gap = _item(leaf, q.node.attributes[2], i) + 1;
            if (place < low || (place - low) % gap != 0 || (place - low) / gap >= d) return (false, 0);
            index += (place - low) / gap * stride;
            stride *= d;
        }
    }

    function _concatenated(Query memory q, bytes calldata leaf) private pure returns (uint256 offset, uint256 index) {
        uint256 axis = Bytes.u(leaf, q.node.attributes[0], 8);
        uint256 inner = Leaf.elementsFrom(leaf, q.output, axis + 1);
        uint256 d = Leaf.dim(leaf, q.output, axis);
        uint256 place = (q.element / inner) % d;
        offset = q.node.operands;
        for (uint256 own; place >= (own = Leaf.dim(leaf, offset, axis));) {
            place -= own;
            offset = Leaf.typeEnd(leaf, offset) + 32;
        }
        index = (q.element / inner / d * Leaf.dim(leaf, offset, axis) + place) * inner + q.element % inner;
    }

    /// @dev The output has the leading axes, then the places in the window, then the places of the window.
    function _window(Query memory q, bytes calldata leaf) private pure returns (uint256 index) {
        uint256 spatial = Bytes.u(leaf, q.node.attributes[0], 2);
        uint256 lead = Leaf.rankOf(leaf, q.output) - 2 * spatial;
        uint256 windows = Leaf.elementsFrom(leaf, q.output, lead + spatial);
        uint256 place = q.element % windows;
        uint256 tap = q.element / windows;
        uint256 stride = 1;
        for (uint256 i = spatial; i != 0;) {
            --i;
            uint256 d = Leaf.dim(leaf, q.output, lead + spatial + i);
            index += place % d * _item(leaf, q.node.attributes[1], i) * stride;
            place /= d;
            d = Leaf.dim(leaf, q.output, lead + i);
            index += tap % d * _item(leaf, q.node.attributes[2], i) * stride;
            tap /= d;
            stride *= Leaf.dim(leaf, q.node.operands, lead + i);
        }
        index += tap * stride;
    }

    function _gather(Operation memory o, Query memory q, bytes calldata leaf) private pure {
        if (q.t != 0) revert NoOperation();
        uint256 row = q.claimed;
        uint256 data = q.node.operands;
        uint256 width = Leaf.elementsFrom(leaf, data, 1);
        o.code = COPY;
        o.dtype = 1;
        o.operands[0] = _element(leaf, Leaf.operand(leaf, q.node, 1), q.element / width, false);
        o.operands[1] = row < Leaf.dim(leaf, data, 0) && row < 1 << 31
            ? _element(leaf, data, row * width + q.element % width, true)
            : _constant(_missing(Leaf.dtype(leaf, data)));
    }

    /// @dev What a row that does not exist holds: the NaN of the dtype, 0 where there is none.
    function _missing(uint256 dtype) private pure returns (uint256) {
        return Leaf.register(dtype) == 0 ? Scalar.store(uint8(dtype), 0x7fc00000) : 0;
    }

    function _scatter(Operation memory o, Query memory q, bytes calldata leaf) private pure {
        uint256 index = Leaf.operand(leaf, q.node, 1);
        uint256 count = Leaf.elementsFrom(leaf, index, 0);
        Location memory previous = q.t == 0 ? _constant(0) : _earlier(q.t - 1);
        if (q.t > count) revert NoOperation();
        if (q.t == count) return _storeOf(o, leaf, q, previous);
        uint256 width = Leaf.elementsFrom(leaf, q.output, 1);
        o.code = SCATTER;
        o.dtype = uint8(Leaf.register(Leaf.dtype(leaf, q.output)));
        // A row beyond 2^31 has no index of its own: a negative one is none.
        o.x = uint64(q.element / width < 1 << 31 ? q.element / width : type(uint64).max);
        o.operands[0] = previous;
        o.operands[1] = _element(leaf, index, q.t, false);
        o.operands[2] = _element(leaf, q.node.operands, q.t * width + q.element % width, false);
    }

    function _random(Operation memory o, Query memory q, bytes calldata leaf) private pure {
        if (q.t != 0) revert NoOperation();
        o.code = PHILOX;
        o.x = uint64(q.element);
        o.y = uint64(Bytes.u(leaf, q.node.attributes[0], 8));
        o.operands[0] = _element(leaf, q.node.operands, 0, false);
        o.operands[1] = _element(leaf, q.node.operands, 1, false);
        o.operands[2] = _element(leaf, Leaf.operand(leaf, q.node, 1), 0, false);
    }

    function _sort(Operation memory o, Query memory q, bytes calldata leaf) private pure {
        uint256 offset = q.node.operands;
        uint256 row = Leaf.dim(leaf, offset, Leaf.rankOf(leaf, offset) - 1);
        if (q.value >= row) revert NoSequence();
        if (q.t > row) revert NoOperation();
        o.operands[0] = q.t == 0 ? _constant(0) : _earlier(q.t - 1);
        o.y = uint64(q.value);
        if (q.t == row) {
            o.code = RANK;
            o.x = uint64(q.element % row);
            return;
        }
        o.code = COUNT;
        o.dtype = uint8(Leaf.register(Leaf.dtype(leaf, offset)));
        o.x = uint64(q.t);
        uint256 first = q.element - q.element % row;
        o.operands[1] = _element(leaf, offset, first + q.t, false);
        o.operands[2] = _element(leaf, offset, first + q.value, false);
    }

    // ---- data and schedule

    /// @dev source = u8 2 | u8 role | type | root | u64 rows | u32 seed | u32 seed | u64 batch (dispute, section 6).
    function _source(Element calldata e, bytes calldata leaf) private pure returns (Operation memory o) {
        uint256 root = Leaf.typeEnd(leaf, 2);
        uint256 width = Leaf.elementsFrom(leaf, 2, 0);
        uint256 index = uint256(e.step) * width + e.index;
        if (Bytes.u(leaf, 1, 1) == 1) {
            width = Leaf.elementsFrom(leaf, 2, 1);
            index = _row(leaf, root + 32, e.step, e.index / width) * width + e.index % width;
        }
        o.code = COPY;
        Location memory place = o.operands[0];
        place.kind = 2;
        place.dtype = uint8(Leaf.dtype(leaf, 2));
        place.raw = true;
        place.index = uint64(index);
        place.root = Bytes.digest(leaf, root);
        place.length = uint64(Bytes.u(leaf, root + 32, 8) * width * Leaf.width(place.dtype));
    }

    /// @dev The row of the data that is row `i` of the batch of a step (formats, section 11). `offset`: rows, seed, batch.
    function _row(bytes calldata leaf, uint256 offset, uint256 step, uint256 i) private pure returns (uint256 x) {
        uint256[5] memory network; // a, b, epoch, seed words
        uint256 rows = Bytes.u(leaf, offset, 8);
        uint256 batch = Bytes.u(leaf, offset + 16, 8);
        network[0] = _ceilSqrt(rows);
        network[1] = (rows + network[0] - 1) / network[0];
        network[2] = step / (rows / batch);
        network[3] = Bytes.u(leaf, offset + 8, 4);
        network[4] = Bytes.u(leaf, offset + 12, 4);
        x = step % (rows / batch) * batch + i;
        do {
            x = _permute(network, x);
        } while (x >= rows);
    }

    function _ceilSqrt(uint256 x) private pure returns (uint256 a) {
        for (uint256 bit = 1 << 18; bit != 0; bit >>= 1) {
            if ((a + bit) * (a + bit) < x) a += bit;
        }
        ++a;
    }

    function _permute(uint256[5] memory network, uint256 x) private pure returns (uint256) {
        uint256 left = x / network[1];
        uint256 right = x % network[1];
        uint64 seed = uint64(network[3] << 32 | network[4]);
        for (uint256 i = 0; i < 10; ++i) {
            uint256 counter = (i & 1 == 0 ? right : left) << 96 | ((1 << 31) + i) << 64 | uint256(uint32(network[2]))
                << 32 | network[2] >> 32;
            uint256 words = Philox.block_(uint128(counter), seed);
            words = words >> 96 | (words >> 64 & 0xffffffff) << 32;
            if (i & 1 == 0) left = (left + words) % network[0];
            else right = (right + words) % network[1];
        }
        return left * network[1] + right;
    }
}

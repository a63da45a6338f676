// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blake3} from "./Blake3.sol";
import {Bytes} from "./Bytes.sol";
import {IReferee, Position} from "./IReferee.sol";
import {Leaf, Node} from "./Leaf.sol";
import {Merkle} from "./Merkle.sol";
import {Scalar} from "./Scalar.sol";
import {Stage, Turn, What} from "./Stages.sol";
import {Element, Location, StepVerifier} from "./StepVerifier.sol";

/// @notice An opening in the task's program: the record is a leaf of its tree, its root a leaf of the task's.
struct Record {
    bytes record;
    bytes32[] path;
    uint64 count;
    bytes32 program;
    bytes32[] taskPath;
}

/// @title The referee of the dispute game: a position and a move give the next position.
/// @notice Stateless. It holds no money and knows no players: who may move, and until when, is the settlement's concern.
/// The rules are those of docs/dispute.md, sections 4 to 6. A move that does not fit, or whose proof does not hold, reverts.
/// @dev Moves are read where they lie in the calldata: the bytes of a move are the ABI encoding of the members of one of
/// the structs below, which is what a calldata pointer to that struct stands for.
contract Referee is IReferee {
    /// @notice The move does not have the form that the stage asks for.
    error BadMove();
    /// @notice The game is decided.
    error Decided();
    /// @notice What was shown is not what the position holds the digest of.
    error BadOpening();
    /// @notice This cannot be picked or contested here.
    error BadChoice();

    struct Kids {
        bytes32[] kids;
    }

    struct Data {
        bytes data;
    }

    struct Choice {
        What what;
        uint32 which;
        bytes data;
    }

    struct StepOpening {
        bytes entry;
        bytes32[] path;
        bytes before;
        bytes32[] beforePath;
        bytes32 trace;
        uint32 states;
        uint32 batches;
        uint32 inputs;
        uint32 nodes;
    }

    struct InputOpening {
        bytes leaf;
        bytes entry;
        bytes32[] path;
        bytes32 group;
        bytes32[] groupPath;
        bytes sampler;
        bytes32[] samplerPath;
    }

    struct SequenceOpening {
        bytes leaf;
        Record scalar;
        bytes32 root;
        bytes32[] path;
    }

    struct OperationOpening {
        uint64 result;
        uint64[3] operands;
    }

    /// @dev The data of OPERATION, and the proof of RECORD.
    struct LeafAndRecord {
        bytes leaf;
        Record record;
    }

    struct CountsProof {
        Record header;
    }

    struct EntryProof {
        Record header;
        bytes entry;
        bytes leaf;
        uint32 index;
        bytes32[] path;
    }

    struct FirstProof {
        bytes leaf;
        bytes previous;
        bytes32[] path;
    }

    struct OperandProof {
        bytes leaf;
        bytes producer;
        uint32 index;
        bytes32[] path;
    }

    struct ValueProof {
        bytes leaf;
        Record scalar;
        bytes chunk;
        bytes32[] path;
    }

    uint64 private constant TASK_LEAVES = 8;

    /// @notice Who knows the sequences of elements.
    StepVerifier public immutable VERIFIER;

    constructor(StepVerifier verifier) {
        VERIFIER = verifier;
    }

    /// @notice Whose move it is. In PROVE it is the solver's clock that runs, but anyone may bring the proof.
    function turn(Position calldata position) external pure returns (Turn) {
        Stage s = Stage(position.stage);
        if (s > Stage.PROVE) return Turn.NOBODY;
        if (
            s == Stage.LOG_PICK || s == Stage.STEP_CHOICE || s == Stage.TRACE_PICK || s == Stage.LEAF_CHOICE
                || s == Stage.CHUNK_PICK || s == Stage.ELEMENT_PICK || s == Stage.SEQUENCE_PICK
                || s == Stage.OPERATION_CHOICE
        ) return Turn.CHALLENGER;
        return Turn.SOLVER;
    }

    /// @notice The position after a move.
    /// @param position any position that the game has come to
    /// @param move ABI-encoded as the stage says
    function advance(Position calldata position, bytes calldata move) external view returns (Position memory p) {
        p = position;
        Stage s = Stage(p.stage);
        if (s == Stage.STEP_OPEN) _openStep(p, move);
        else if (s == Stage.LEAF_OPEN) _openLeaf(p, move);
        else if (s == Stage.INPUT_OPEN) _openInput(p, move);
        else if (s == Stage.CHUNK_OPEN) _openChunk(p, move);
        else if (s == Stage.SEQUENCE_OPEN) _openSequence(p, move);
        else if (s == Stage.OPERATION_OPEN) _openOperation(p, move);
        else if (s == Stage.STEP_CHOICE) _chooseStep(p, _choice(move));
        else if (s == Stage.LEAF_CHOICE) _chooseLeaf(p, _choice(move));
        else if (s == Stage.ELEMENT_PICK) _pickElement(p, _choice(move));
        else if (s == Stage.OPERATION_CHOICE) _chooseOperation(p, _choice(move));
        else if (s == Stage.PROVE) _decide(p, _prove(p, move));
        else if (s > Stage.PROVE) revert Decided();
        else if (turnIsReveal(s)) _reveal(p, move);
        else _pick(p, _choice(move));
    }

    function turnIsReveal(Stage s) private pure returns (bool) {
        return s == Stage.LOG_REVEAL || s == Stage.TRACE_REVEAL || s == Stage.CHUNK_REVEAL || s == Stage.SEQUENCE_REVEAL;
    }

    function _require(bool holds) private pure {
        if (!holds) revert BadOpening();
    }

    /// @dev A decided position keeps nothing but the task.
    function _decide(Position memory p, bool solverIsRight) private pure {
        Position memory q;
        q.task = p.task;
        q.stage = uint8(solverIsRight ? Stage.SOLVER_WINS : Stage.CHALLENGER_WINS);
        assembly ("memory-safe") {
            // The members of a Position are 32 words; the operands lie elsewhere, and the last word but four points there.
            mcopy(p, q, 0x400)
        }
    }

    // ---- walks: the solver shows digests four levels below, the challenger picks one

    function _reveal(Position memory p, bytes calldata move) private pure {
        bytes32[] memory kids = _kids(move);
        Stage s = Stage(p.stage);
        if (s != Stage.CHUNK_REVEAL) {
            bytes32 top = Merkle.fold(kids, p.size);
            (bytes32 root, uint256 count) = s == Stage.LOG_REVEAL
                ? (p.log, p.steps)
                : s == Stage.SEQUENCE_REVEAL
                    ? (p.sequence, p.length)
                    : p.what == uint8(What.ENTRY) ? _group(p) : (p.trace, uint256(p.inputs) + p.nodes);
            _require(p.size == count ? Merkle.seal(p.size, top) == root : top == p.digest);
        } else {
            // As many as there are ranges: the last one ends where the node does.
            if (kids.length == 0) revert BadMove();
            (uint64 offset, uint64 size) = Merkle.range(p.size, kids.length - 1);
            if (offset + size != p.size) revert BadMove();
        }
        p.shown = _joined(kids);
        p.stage = uint8(s) + 1;
    }

    /// @dev Root and number of entries of the group in dispute.
    function _group(Position memory p) private pure returns (bytes32, uint256) {
        if (p.which == 0) return (p.after_, p.states);
        if (p.which == 1) return (p.batch, p.batches);
        return (p.scalars, uint256(p.inputs) - p.states - p.batches);
    }

    function _pick(Position memory p, Choice calldata c) private pure {
        Stage s = Stage(p.stage);
        if (s == Stage.CHUNK_PICK && c.what == What.FOLD) {
            p.what = uint8(What.FOLD);
            p.stage = uint8(Stage.PROVE);
            return;
        }
        if (c.what != What.PICK) revert BadChoice();
        _require(keccak256(c.data) == p.shown);
        (uint64 offset, uint64 size) = Merkle.range(p.size, c.which);
        p.start += offset;
        p.size = size;
        p.digest = Bytes.digest(c.data, 32 * uint256(c.which));
        p.shown = 0;
        if (size > 1) {
            p.stage = uint8(s) - 1;
        } else if (s == Stage.CHUNK_PICK) {
            p.stage = uint8(Stage.CHUNK_OPEN);
        } else if (s == Stage.SEQUENCE_PICK) {
            p.operation = p.start;
            p.start = p.size = 0;
            p.stage = uint8(Stage.OPERATION_OPEN);
        } else {
            if (s == Stage.LOG_PICK) {
                p.step = p.start;
                p.stage = uint8(Stage.STEP_OPEN);
            } else {
                p.place = uint32(p.start);
                p.leaf = p.digest;
                p.stage = uint8(p.what == uint8(What.ENTRY) ? Stage.PROVE : Stage.LEAF_OPEN);
            }
            p.start = p.size = 0;
            p.digest = 0;
        }
    }

    // ---- step and leaf

    function _openStep(Position memory p, bytes calldata move) private pure {
        StepOpening calldata m = _stepOpening(move);
        _require(m.entry.length == 104 && Bytes.u(m.entry, 0, 8) == p.step);
        _require(Merkle.root(m.entry, p.step, p.steps, m.path) == p.log);
        if (p.step == 0) {
            _require(m.before.length == 32);
            _inTask(p, "state", 2, m.before, m.beforePath);
            p.before = Bytes.digest(m.before, 0);
        } else {
            _require(m.before.length == 104);
            _require(Merkle.root(m.before, p.step - 1, p.steps, m.beforePath) == p.log);
            p.before = Bytes.digest(m.before, 8);
        }
        if (uint256(m.states) + m.batches > m.inputs) revert BadMove();
        p.log = 0;
        p.steps = 0;
        p.after_ = Bytes.digest(m.entry, 8);
        p.batch = Bytes.digest(m.entry, 40);
        p.scalars = Bytes.digest(m.entry, 72);
        p.trace = m.trace;
        p.states = m.states;
        p.batches = m.batches;
        p.inputs = m.inputs;
        p.nodes = m.nodes;
        p.stage = uint8(Stage.STEP_CHOICE);
    }

    function _chooseStep(Position memory p, Choice calldata c) private pure {
        if (c.what == What.COUNTS) {
            p.what = uint8(What.COUNTS);
            p.stage = uint8(Stage.PROVE);
            return;
        }
        p.stage = uint8(Stage.TRACE_REVEAL);
        p.start = 0;
        if (c.what == What.PICK) {
            p.size = uint64(p.inputs) + p.nodes;
            return;
        }
        if (c.what != What.ENTRY || c.which > 2) revert BadChoice();
        p.what = uint8(What.ENTRY);
        p.which = c.which;
        (bytes32 root, uint256 count) = _group(p);
        if (count == 0) _decide(p, root == Merkle.seal(0, 0));
        else p.size = uint64(count);
    }

    function _openLeaf(Position memory p, bytes calldata move) private pure {
        bytes calldata leaf = _data(move);
        _require(Merkle.leaf(leaf) == p.leaf);
        if (p.place < p.inputs) {
            if (_inputNumber(leaf) != p.place) revert Leaf.BadLeaf();
        } else {
            uint256 first = Leaf.node(leaf).first;
            if (p.place == p.inputs && first != p.inputs) revert Leaf.BadLeaf();
        }
        p.stage = uint8(Stage.LEAF_CHOICE);
    }

    /// @dev The value number of an input leaf: u8 0 | u32 number | type | root.
    function _inputNumber(bytes calldata leaf) private pure returns (uint256) {
        if (Bytes.u(leaf, 0, 1) != 0 || leaf.length != Leaf.typeEnd(leaf, 5) + 32) revert Leaf.BadLeaf();
        return Bytes.u(leaf, 1, 4);
    }

    function _chooseLeaf(Position memory p, Choice calldata c) private pure {
        bytes calldata leaf = c.data;
        _require(Merkle.leaf(leaf) == p.leaf);
        What what = c.what;
        if (p.place < p.inputs) {
            if (what != What.INPUT) revert BadChoice();
            p.stage = uint8(Stage.INPUT_OPEN);
            return;
        }
        Node memory n = Leaf.node(leaf);
        if (what == What.OUTPUT) {
            uint256 offset = Leaf.output(leaf, n, c.which);
            return _intoTensor(p, leaf, offset, Bytes.digest(leaf, n.roots + 32 * uint256(c.which)), c.which);
        }
        if (
            what != What.RECORD && (what != What.FIRST || p.place == p.inputs)
                && (what != What.OPERAND || c.which >= n.inputCount)
        ) revert BadChoice();
        p.what = uint8(what);
        p.which = c.which;
        p.stage = uint8(Stage.PROVE);
    }

    /// @dev The game goes on inside of the tensor with the type at `offset`.
    function _intoTensor(Position memory p, bytes calldata leaf, uint256 offset, bytes32 root, uint32 output)
        private
        pure
    {
        p.before = p.after_ = p.batch = p.scalars = p.trace = 0;
        p.states = p.batches = p.inputs = p.nodes = p.place = 0;
        p.output = output;
        p.tensor = p.digest = root;
        p.width = uint8(Leaf.width(Leaf.dtype(leaf, offset)));
        p.length = uint64(Leaf.elementsFrom(leaf, offset, 0) * p.width);
        p.start = 0;
        p.size = Blake3.chunks(p.length);
        p.stage = uint8(p.size > 1 ? Stage.CHUNK_REVEAL : Stage.CHUNK_OPEN);
    }

    function _openInput(Position memory p, bytes calldata move) private pure {
        InputOpening calldata m = _inputOpening(move);
        _require(Merkle.leaf(m.leaf) == p.leaf);
        if (p.place < p.states) {
            _require(Merkle.root(m.entry, p.place, p.states, m.path) == p.before);
            return _decide(p, keccak256(m.entry[1 + Bytes.u(m.entry, 0, 1):]) == keccak256(m.leaf[5:]));
        }
        _inTask(p, "sampler", 4, m.sampler, m.samplerPath);
        if (m.sampler.length == 0) return _decide(p, true); // a recorded task brings its own data
        bool isBatch = p.place - p.states < p.batches;
        _inGroup(p, m, isBatch ? 0 : p.batches, isBatch ? p.batches : p.inputs - p.states);
        _inTask(p, isBatch ? "data" : "schedule", isBatch ? 3 : 5, bytes.concat(m.group), m.groupPath);
        _ontoSource(p, m, isBatch);
    }

    /// @dev Reverts unless the entry is that of the input among those of its role, `first` to `end` behind the states.
    function _inGroup(Position memory p, InputOpening calldata m, uint64 first, uint64 end) private pure {
        uint64 number = p.place - p.states - first;
        _require(Merkle.root(m.entry, number, end - first, m.path) == m.group);
    }

    /// @dev The data of the task take the place of the leaf: u8 2 | u8 role | type | root | u64 rows | seed | u64 batch.
    function _ontoSource(Position memory p, InputOpening calldata m, bool isBatch) private pure {
        bytes calldata leaf = m.leaf;
        uint256 end = Leaf.typeEnd(leaf, 5);
        // The entry's type is u8 dtype | u8 rank | u64 rows | the other dimensions.
        bytes calldata data = m.entry[1 + Bytes.u(m.entry, 0, 1):];
        if (Bytes.u(data, 1, 1) == 0 || data.length != Leaf.typeEnd(data, 0) + 32) revert Leaf.BadLeaf();
        bytes memory expected = isBatch
            ? bytes.concat(data[0:2], m.sampler[16:24], data[10:data.length - 32])
            : bytes.concat(data[0:1], bytes1(uint8(data[1]) - 1), data[10:data.length - 32]);
        if (keccak256(expected) != keccak256(leaf[5:end])) return _decide(p, false);
        bytes memory sampler = isBatch ? bytes.concat(m.sampler[0:8], m.sampler[16:24]) : new bytes(16);
        p.leaf = Merkle.leaf(
            bytes.concat(
                isBatch ? bytes2(0x0201) : bytes2(0x0202), expected, data[data.length - 32:], data[2:10], sampler
            )
        );
        _intoTensor(p, leaf, 5, Bytes.digest(leaf, end), 0);
    }

    // ---- chunk and element

    function _openChunk(Position memory p, bytes calldata move) private pure {
        bytes calldata chunk = _data(move);
        if (chunk.length != Blake3.chunkLength(p.start, p.length)) revert BadMove();
        p.shown = keccak256(chunk);
        p.stage = uint8(Stage.ELEMENT_PICK);
    }

    function _pickElement(Position memory p, Choice calldata c) private pure {
        if (c.what == What.CHUNK) {
            p.what = uint8(What.CHUNK);
            p.stage = uint8(Stage.PROVE);
            return;
        }
        if (c.what != What.PICK) revert BadChoice();
        _require(keccak256(c.data) == p.shown);
        p.element = p.start * uint64(Blake3.CHUNK) / p.width + c.which;
        p.value = uint64(_stored(c.data, uint256(c.which) * p.width, p.width));
        p.tensor = p.digest = p.shown = 0;
        p.length = p.start = p.size = 0;
        p.width = 0;
        p.stage = uint8(Stage.SEQUENCE_OPEN);
    }

    /// @dev The little-endian number of `width` bytes at `offset`.
    function _stored(bytes calldata chunk, uint256 offset, uint256 width) private pure returns (uint256 x) {
        for (uint256 i = width; i != 0; --i) {
            x = x << 8 | Bytes.u(chunk, offset + i - 1, 1);
        }
    }

    // ---- sequence and operation

    function _openSequence(Position memory p, bytes calldata move) private view {
        SequenceOpening calldata m = _sequenceOpening(move);
        bytes calldata scalar = _scalar(p, m.leaf, m.scalar);
        p.length = VERIFIER.length(_element(p), m.leaf, scalar);
        p.sequence = m.root;
        bytes memory last = abi.encodePacked(p.value);
        _require(Merkle.root(last, p.length - 1, p.length, m.path) == m.root);
        if (p.length == 1) {
            p.digest = Merkle.leaf(last);
            p.stage = uint8(Stage.OPERATION_OPEN);
        } else {
            p.start = 0;
            p.size = p.length;
            p.stage = uint8(Stage.SEQUENCE_REVEAL);
        }
    }

    function _openOperation(Position memory p, bytes calldata move) private pure {
        OperationOpening calldata m = _operationOpening(move);
        p.result = m.result;
        p.operands = m.operands;
        _require(Merkle.leaf(abi.encodePacked(p.result)) == p.digest);
        p.digest = 0;
        p.stage = uint8(Stage.OPERATION_CHOICE);
    }

    function _chooseOperation(Position memory p, Choice calldata c) private view {
        if (c.what == What.VALUE) {
            if (c.which > 2) revert BadChoice();
            p.what = uint8(What.VALUE);
            p.which = c.which;
            p.stage = uint8(Stage.PROVE);
            return;
        }
        if (c.what != What.OPERATION) revert BadChoice();
        LeafAndRecord calldata m = _leafAndRecord(c.data);
        bytes calldata scalar = _scalar(p, m.leaf, m.record);
        _decide(p, VERIFIER.execute(_element(p), m.leaf, scalar, p.operation, p.operands) == p.result);
    }

    function _element(Position memory p) private pure returns (Element memory) {
        return Element(p.step, p.output, p.element, p.value);
    }

    /// @dev The scalar program of the leaf in dispute, opened in the task's program; nothing where it has none.
    function _scalar(Position memory p, bytes calldata leaf, Record calldata r) private pure returns (bytes calldata) {
        _require(Merkle.leaf(leaf) == p.leaf);
        uint256 code = Bytes.u(leaf, Leaf.RECORD, 1);
        if (Bytes.u(leaf, 0, 1) != 1 || (code != 0 && code != 14)) return leaf[0:0];
        _inProgram(p, r, uint64(1 + Bytes.u(leaf, Leaf.RECORD + 1, 8)));
        return r.record;
    }

    // ---- proofs: is what was contested as the solver says?

    function _prove(Position memory p, bytes calldata move) private view returns (bool) {
        What what = What(p.what);
        if (what == What.COUNTS) return _proveCounts(p, move);
        if (what == What.ENTRY) return _proveEntry(p, move);
        if (what == What.RECORD) return _proveRecord(p, move);
        if (what == What.FIRST) return _proveFirst(p, move);
        if (what == What.OPERAND) return _proveOperand(p, move);
        if (what == What.VALUE) return _proveValue(p, move);
        if (what == What.FOLD) {
            bytes32[] memory kids = _kids(move);
            _require(_joined(kids) == p.shown);
            return Blake3.fold(kids, p.size, p.size == Blake3.chunks(p.length)) == p.digest;
        }
        if (what != What.CHUNK) revert BadChoice();
        bytes calldata chunk = _data(move);
        _require(keccak256(chunk) == p.shown);
        return Blake3.chunkValue(chunk, p.start, Blake3.chunks(p.length) == 1) == p.digest;
    }

    /// @dev header = u32 scalar programs | u32 nodes | u32 inputs | inputs | u32 outputs | outputs (formats, section 2).
    function _proveCounts(Position memory p, bytes calldata move) private pure returns (bool) {
        Record calldata r = _countsProof(move).header;
        _inProgram(p, r, 0);
        bytes calldata header = r.record;
        uint256 inputs = Bytes.u(header, 8, 4);
        if (inputs != p.inputs || Bytes.u(header, 4, 4) != p.nodes) return false;
        uint256[3] memory roles;
        uint256 offset = 12;
        for (; inputs != 0; --inputs) {
            ++roles[Bytes.u(header, offset, 1)];
            offset = Leaf.typeEnd(header, _afterName(header, offset + 1));
        }
        return roles[0] == p.states && roles[1] == p.batches;
    }

    function _afterName(bytes calldata data, uint256 offset) private pure returns (uint256) {
        return offset + 1 + Bytes.u(data, offset, 1);
    }

    function _proveEntry(Position memory p, bytes calldata move) private pure returns (bool) {
        EntryProof calldata m = _entryProof(move);
        _require(Merkle.leaf(m.entry) == p.leaf);
        _inProgram(p, m.header, 0);
        (uint256 name, uint256 value) = _named(p, m.header.record);
        _inTrace(p, m.leaf, m.index, m.path);
        bytes memory held = _held(m.leaf, value);
        bytes calldata header = m.header.record;
        return keccak256(bytes.concat(header[name:_afterName(header, name)], held)) == keccak256(m.entry);
    }

    /// @dev Where the header names entry `place` of the group, and the number of its value.
    function _named(Position memory p, bytes calldata header) private pure returns (uint256 offset, uint256 value) {
        offset = 12;
        uint256 inputs = Bytes.u(header, 8, 4);
        if (p.which != 0) {
            value = uint256(p.place) + p.states + (p.which == 1 ? 0 : p.batches);
            if (value >= inputs) revert BadMove();
            inputs = value;
        }
        for (; inputs != 0; --inputs) {
            offset = Leaf.typeEnd(header, _afterName(header, offset + 1));
        }
        if (p.which != 0) return (offset + 1, value);
        if (p.place >= Bytes.u(header, offset, 4)) revert BadMove();
        offset += 4; // outputs, those of states first: u8 role | name | u32 value
        for (uint256 k = p.place; k != 0; --k) {
            offset = _afterName(header, offset + 1) + 4;
        }
        return (offset + 1, Bytes.u(header, _afterName(header, offset + 1), 4));
    }

    /// @dev Type and root of the value of this number, which the leaf must hold.
    function _held(bytes calldata leaf, uint256 value) private pure returns (bytes memory) {
        if (Bytes.u(leaf, 0, 1) == 0) {
            _require(_inputNumber(leaf) == value);
            return leaf[5:];
        }
        Node memory n = Leaf.node(leaf);
        _require(value >= n.first && value - n.first < n.outputCount);
        value -= n.first;
        uint256 offset = Leaf.output(leaf, n, value);
        return bytes.concat(leaf[offset:Leaf.typeEnd(leaf, offset)], Bytes.digest(leaf, n.roots + 32 * value));
    }

    function _proveRecord(Position memory p, bytes calldata move) private pure returns (bool) {
        LeafAndRecord calldata m = _leafAndRecord(move);
        bytes calldata leaf = m.leaf;
        _require(Merkle.leaf(leaf) == p.leaf);
        // Nodes are the last records: of a count that is smaller than this, the subtraction fails.
        _inProgram(p, m.record, m.record.count - (uint64(p.nodes) + p.inputs - p.place));
        return keccak256(leaf[Leaf.RECORD:Leaf.node(leaf).end]) == keccak256(m.record.record);
    }

    function _proveFirst(Position memory p, bytes calldata move) private pure returns (bool) {
        FirstProof calldata m = _firstProof(move);
        _require(Merkle.leaf(m.leaf) == p.leaf);
        bytes calldata previous = m.previous;
        _inTrace(p, previous, p.place - 1, m.path);
        uint256 next;
        if (Bytes.u(previous, 0, 1) == 0) {
            next = _inputNumber(previous) + 1;
        } else {
            Node memory n = Leaf.node(previous);
            next = n.first + n.outputCount;
        }
        return Leaf.node(m.leaf).first == next;
    }

    function _proveOperand(Position memory p, bytes calldata move) private pure returns (bool) {
        OperandProof calldata m = _operandProof(move);
        bytes calldata leaf = m.leaf;
        _require(Merkle.leaf(leaf) == p.leaf);
        _require(m.index < p.place); // what lies to the right is agreed by nobody
        _inTrace(p, m.producer, m.index, m.path);
        Node memory n = Leaf.node(leaf);
        bytes memory held = _held(m.producer, Bytes.u(leaf, n.inputs + 4 * uint256(p.which), 4));
        uint256 offset = Leaf.operand(leaf, n, p.which);
        return keccak256(held) == keccak256(leaf[offset:Leaf.typeEnd(leaf, offset) + 32]);
    }

    function _proveValue(Position memory p, bytes calldata move) private view returns (bool) {
        ValueProof calldata m = _valueProof(move);
        Location memory place = _locate(p, m);
        uint256 found = place.index;
        if (place.kind == 1) {
            _require(m.chunk.length == 8 && Merkle.root(m.chunk, place.index, p.length, m.path) == p.sequence);
            found = Bytes.u(m.chunk, 0, 8);
        } else if (place.kind == 2) {
            uint256 width = Leaf.width(place.dtype);
            uint256 offset = place.index * width;
            _require(Blake3.root(m.chunk, uint64(offset / Blake3.CHUNK), place.length, m.path) == place.root);
            found = _stored(m.chunk, offset % Blake3.CHUNK, width);
        }
        if (place.kind != 0 && !place.raw) found = Scalar.load(place.dtype, uint32(found));
        return found == p.operands[p.which];
    }

    function _locate(Position memory p, ValueProof calldata m) private view returns (Location memory) {
        bytes calldata scalar = _scalar(p, m.leaf, m.scalar);
        return VERIFIER.operand(_element(p), m.leaf, scalar, p.operation, p.operands, p.which);
    }

    // ---- openings

    /// @dev Reverts unless the task's leaf of this name has this value: u8 length of the name | name | value.
    function _inTask(Position memory p, string memory name, uint64 index, bytes memory value, bytes32[] calldata path)
        private
        pure
    {
        bytes memory leaf = bytes.concat(bytes1(uint8(bytes(name).length)), bytes(name), value);
        _require(Merkle.root(leaf, index, TASK_LEAVES, path) == p.task);
    }

    /// @dev Reverts unless `r` is record number `index` of the task's program.
    function _inProgram(Position memory p, Record calldata r, uint64 index) private pure {
        _inTask(p, "program", 1, bytes.concat(r.program), r.taskPath);
        _require(Merkle.root(r.record, index, r.count, r.path) == r.program);
    }

    function _inTrace(Position memory p, bytes calldata leaf, uint32 index, bytes32[] calldata path) private pure {
        _require(Merkle.root(leaf, index, uint64(p.inputs) + p.nodes, path) == p.trace);
    }

    function _joined(bytes32[] memory kids) private pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            digest := keccak256(add(kids, 0x20), shl(5, mload(kids)))
        }
    }

    // ---- moves where they lie

    /// @dev Reverts unless `move` is the ABI encoding of a struct with members of these kinds, and so the only one of what
    /// it holds: two referees that read the same move must not find different things in it, nor one find nothing.
    /// 4 bits each, the lowest first: the number of members, then their kinds: 1 to 8 a number of so many bytes, 9 a
    /// digest, 10 bytes, 11 digests, 12 a Record. What is read behind the move's end cannot be right: then the end is not.
    function _encoded(bytes calldata move, uint256 kinds) private pure {
        (uint256 end, uint256 wrong) = (0, 0);
        assembly ("memory-safe") {
            function walk(move_, start, members) -> following, bad {
                following := add(start, shl(5, and(members, 15)))
                members := shr(4, members)
                for { let head := start } members {
                    members := shr(4, members)
                    head := add(head, 32)
                } {
                    let kind := and(members, 15)
                    if eq(kind, 9) { continue }
                    let word := calldataload(add(move_, head))
                    if lt(kind, 9) {
                        bad := or(bad, shr(shl(3, kind), word))
                        continue
                    }
                    bad := or(bad, xor(word, sub(following, start))) // the offset of what comes behind all before it
                    if eq(kind, 12) {
                        let more
                        following, more := walk(move_, following, 0xb98ba5)
                        bad := or(bad, more)
                        continue
                    }
                    let length := calldataload(add(move_, following))
                    bad := or(bad, shr(32, length))
                    if eq(kind, 11) { length := shl(5, length) }
                    following := add(add(following, 32), length)
                    let last := and(length, 31)
                    if last {
                        following := add(following, sub(32, last))
                        bad := or(bad, shl(shl(3, last), calldataload(add(move_, sub(following, 32))))) // the padding
                    }
                }
            }
            end, wrong := walk(move.offset, 0, kinds)
        }
        if (wrong != 0 || end != move.length) revert BadMove();
    }

    function _kids(bytes calldata move) private pure returns (bytes32[] calldata) {
        _encoded(move, 0xb1);
        Kids calldata m;
        assembly ("memory-safe") {
            m := move.offset
        }
        return m.kids;
    }

    function _data(bytes calldata move) private pure returns (bytes calldata) {
        _encoded(move, 0xa1);
        Data calldata m;
        assembly ("memory-safe") {
            m := move.offset
        }
        return m.data;
    }

    function _choice(bytes calldata move) private pure returns (Choice calldata m) {
        _encoded(move, 0xa413);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _stepOpening(bytes calldata move) private pure returns (StepOpening calldata m) {
        _encoded(move, 0x44449baba9);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _inputOpening(bytes calldata move) private pure returns (InputOpening calldata m) {
        _encoded(move, 0xbab9baa7);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _sequenceOpening(bytes calldata move) private pure returns (SequenceOpening calldata m) {
        _encoded(move, 0xb9ca4);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _operationOpening(bytes calldata move) private pure returns (OperationOpening calldata m) {
        _encoded(move, 0x88884);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _leafAndRecord(bytes calldata move) private pure returns (LeafAndRecord calldata m) {
        _encoded(move, 0xca2);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _countsProof(bytes calldata move) private pure returns (CountsProof calldata m) {
        _encoded(move, 0xc1);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _entryProof(bytes calldata move) private pure returns (EntryProof calldata m) {
        _encoded(move, 0xb4aac5);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _firstProof(bytes calldata move) private pure returns (FirstProof calldata m) {
        _encoded(move, 0xbaa3);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _operandProof(bytes calldata move) private pure returns (OperandProof calldata m) {
        _encoded(move, 0xb4aa4);
        assembly ("memory-safe") {
            m := move.offset
        }
    }

    function _valueProof(bytes calldata move) private pure returns (ValueProof calldata m) {
        _encoded(move, 0xbaca4);
        assembly ("memory-safe") {
            m := move.offset
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Leaf} from "gensyn_verify/settle/contracts/Leaf.sol";
import {Merkle} from "gensyn_verify/settle/contracts/Merkle.sol";
import {Record, Referee} from "gensyn_verify/settle/contracts/Referee.sol";
import {Stage, Turn, What} from "gensyn_verify/settle/contracts/Stages.sol";
import {Openings} from "./Openings.sol";
import {Games} from "./Referee.t.sol";

/// @notice Moves that the referee refuses, stage by stage: positions of the published games with one thing changed.
contract RefereeRefusalsTest is Games {
    string internal constant DOT = "dot: an fma, from the log on";
    string internal constant SOURCE = "a batch row";
    string internal constant LONG = "map: an operand"; // of a tensor of several chunks
    string internal constant FOLD = "a fold";
    string internal constant CHUNK = "a chunk";
    bytes32 internal constant OTHER = keccak256("another digest");
    bytes4 internal constant BAD_OPENING = Referee.BadOpening.selector;

    function chosen(What what, uint32 which) internal pure returns (bytes memory) {
        return abi.encode(uint8(what), which, "");
    }

    function testTurns() public view {
        Position memory p;
        for (uint8 stage = 0; stage < 21; ++stage) {
            p.stage = stage;
            Turn turn = stage > 18 ? Turn.NOBODY : 0x294aa >> stage & 1 == 1 ? Turn.CHALLENGER : Turn.SOLVER;
            require(referee.turn(p) == turn, "turn");
        }
    }

    function testADecidedGameHasNoMoves() public view {
        Position memory p;
        for (p.stage = 19; p.stage < 21; ++p.stage) {
            refused(p, abi.encode(uint256(0)), Referee.Decided.selector);
        }
    }

    // ---- what is shown must open

    function testRevealedDigestsMustFold() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.LOG_REVEAL);
        p.log = OTHER;
        refused(p, move, BAD_OPENING);
        (p, move) = moment(DOT, Stage.TRACE_REVEAL);
        p.trace = OTHER;
        refused(p, move, BAD_OPENING);
        (p, move) = moment(DOT, Stage.SEQUENCE_REVEAL);
        p.sequence = OTHER;
        refused(p, move, BAD_OPENING);
        string[3] memory groups = ["state", "batch", "schedule"];
        for (uint256 i = 0; i < 3; ++i) {
            (p, move) = moment(string.concat("an entry of the ", groups[i]), Stage.TRACE_REVEAL);
            require(p.which == i, "group");
            (p.after_, p.batch, p.scalars) =
            (i == 0 ? OTHER : p.after_, i == 1 ? OTHER : p.batch, i == 2 ? OTHER : p.scalars);
            refused(p, move, BAD_OPENING);
        }
    }

    function testRevealedDigestsMustBeAsManyAsRanges() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.TRACE_REVEAL);
        refused(p, abi.encode(new bytes32[](0)), Merkle.Misfit.selector);
        (p, move) = moment(FOLD, Stage.CHUNK_REVEAL);
        bytes32[] memory kids = abi.decode(move, (bytes32[]));
        refused(p, abi.encode(new bytes32[](0)), Referee.BadMove.selector);
        refused(p, abi.encode(new bytes32[](kids.length - 1)), Referee.BadMove.selector);
        refused(p, abi.encode(new bytes32[](kids.length + 1)), Merkle.Misfit.selector);
        leads(p, abi.encode(new bytes32[](kids.length)), Stage.CHUNK_PICK); // chaining values are not checked
    }

    function testPicksBringWhatWasShown() public view {
        Stage[5] memory stages =
            [Stage.LOG_PICK, Stage.TRACE_PICK, Stage.CHUNK_PICK, Stage.SEQUENCE_PICK, Stage.ELEMENT_PICK];
        for (uint256 i = 0; i < 5; ++i) {
            (Position memory p, bytes memory move) = moment(stages[i] == Stage.CHUNK_PICK ? LONG : DOT, stages[i]);
            p.shown = OTHER;
            refused(p, move, BAD_OPENING);
        }
        string[2] memory names = [FOLD, CHUNK];
        for (uint256 i = 0; i < 2; ++i) {
            (Position memory p, bytes memory move) = moment(names[i], Stage.PROVE);
            p.shown = OTHER;
            refused(p, move, BAD_OPENING);
        }
    }

    function testAPickLiesAmongTheRanges() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.TRACE_PICK);
        (,, bytes memory kids) = abi.decode(move, (uint8, uint32, bytes));
        refused(p, abi.encode(uint8(What.PICK), uint32(kids.length / 32), kids), Merkle.Misfit.selector);
    }

    function testAStepOpensInTheLog() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.STEP_OPEN);
        require(p.step == 2, "step");
        ++p.step;
        refused(p, move, BAD_OPENING); // another step's entry
        --p.step;
        p.log = OTHER;
        refused(p, move, BAD_OPENING);
        (p, move) = moment(DOT, Stage.STEP_OPEN);
        StepOpening memory m = decoded(move);
        leads(p, encoded(m), Stage.STEP_CHOICE);
        m.before[8] ^= 0x01;
        refused(p, encoded(m), BAD_OPENING);
        m.before = bytes.concat(m.before, "0");
        refused(p, encoded(m), BAD_OPENING);
        m = decoded(move);
        m.entry = bytes.concat(m.entry, "0");
        refused(p, encoded(m), BAD_OPENING);
    }

    /// @dev Before the first step stands the task's state.
    function testTheFirstStepBeginsWithTheState() public view {
        StepOpening memory m;
        bytes32 state = keccak256("state");
        bytes[] memory task = leaves("state", 2, abi.encodePacked(state));
        m.entry = abi.encodePacked(uint64(0), bytes32(0), bytes32(0), bytes32(0));
        (m.before, m.beforePath, m.inputs) = (abi.encodePacked(state), Openings.path(task, 2), 1);
        Position memory p;
        (p.stage, p.steps, p.log) = (uint8(Stage.STEP_OPEN), 1, Openings.root(Openings.list(m.entry)));
        p.task = Openings.root(task);
        Position memory next = referee.advance(p, encoded(m));
        require(next.before == state && next.stage == uint8(Stage.STEP_CHOICE), "state");
        m.before[0] ^= 0x01;
        refused(p, encoded(m), BAD_OPENING);
        m.before = "state";
        refused(p, encoded(m), BAD_OPENING);
    }

    function testRolesAreNotMoreThanInputs() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.STEP_OPEN);
        StepOpening memory m = decoded(move);
        m.states = m.inputs - m.batches + 1;
        refused(p, encoded(m), Referee.BadMove.selector);
        m.states = type(uint32).max;
        refused(p, encoded(m), Referee.BadMove.selector);
        m.states = m.inputs - m.batches;
        leads(p, encoded(m), Stage.STEP_CHOICE);
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

    function decoded(bytes memory move) internal pure returns (StepOpening memory) {
        return abi.decode(bytes.concat(bytes32(uint256(32)), move), (StepOpening));
    }

    /// @dev The members of the struct, without the word that says where it begins.
    function encoded(StepOpening memory m) internal pure returns (bytes memory move) {
        bytes memory whole = abi.encode(m);
        move = new bytes(whole.length - 32);
        for (uint256 i = 0; i < move.length; ++i) {
            move[i] = whole[32 + i];
        }
    }

    function testALeafIsThatOfThePosition() public view {
        string[4] memory names = [DOT, DOT, SOURCE, DOT];
        Stage[4] memory stages = [Stage.LEAF_OPEN, Stage.LEAF_CHOICE, Stage.INPUT_OPEN, Stage.SEQUENCE_OPEN];
        for (uint256 i = 0; i < 4; ++i) {
            (Position memory p, bytes memory move) = moment(names[i], stages[i]);
            p.leaf = OTHER;
            refused(p, move, BAD_OPENING);
        }
        string[3] memory proofs = ["leaf: record", "leaf: first", "leaf: operand"];
        for (uint256 i = 0; i < 3; ++i) {
            (Position memory p, bytes memory move) = moment(proofs[i], Stage.PROVE);
            p.leaf = OTHER;
            refused(p, move, BAD_OPENING);
        }
    }

    function testALeafFitsItsPlace() public view {
        (Position memory p, bytes memory move) = moment(SOURCE, Stage.LEAF_OPEN);
        leads(p, move, Stage.LEAF_CHOICE);
        ++p.place; // another input's
        refused(p, move, Leaf.BadLeaf.selector);
        p.inputs = p.place; // an input's in the place of a node
        refused(p, move, Leaf.BadLeaf.selector);
        (p, move) = moment(DOT, Stage.LEAF_OPEN);
        p.place = p.inputs; // a later node's in that of the first
        refused(p, move, Leaf.BadLeaf.selector);
        p.place = 0; // a node's in the place of an input
        refused(p, move, Leaf.BadLeaf.selector);
    }

    function testAnInputLeafIsExactlyAsLongAsItsType() public view {
        Position memory p;
        (p.stage, p.inputs) = (uint8(Stage.LEAF_OPEN), 1);
        bytes memory leaf = abi.encodePacked(uint8(0), uint32(0), uint8(0), uint8(1), uint64(3), bytes32(0));
        p.leaf = Merkle.leaf(leaf);
        leads(p, abi.encode(leaf), Stage.LEAF_CHOICE);
        leaf = bytes.concat(leaf, "0");
        p.leaf = Merkle.leaf(leaf);
        refused(p, abi.encode(leaf), Leaf.BadLeaf.selector);
    }

    function testAChunkIsAsLongAsItsPlace() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.CHUNK_OPEN);
        bytes memory chunk = abi.decode(move, (bytes));
        refused(p, abi.encode(bytes.concat(chunk, "0")), Referee.BadMove.selector);
        refused(p, abi.encode(""), Referee.BadMove.selector);
    }

    function testASequenceEndsWithTheValue() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.SEQUENCE_OPEN);
        p.value ^= 1;
        refused(p, move, BAD_OPENING);
    }

    function testAResultIsThatOfTheSequence() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.OPERATION_OPEN);
        p.digest = OTHER;
        refused(p, move, BAD_OPENING);
        bytes memory shorter = new bytes(0x60);
        (bool done,) = address(referee).staticcall(abi.encodeCall(referee.advance, (p, shorter)));
        require(!done, "accepted");
    }

    function testOpeningsAreThoseOfTheTask() public view {
        string[7] memory names = [
            "an entry of the state",
            "an entry of the batch",
            "counts",
            "leaf: record",
            "map: an operand",
            SOURCE,
            "a schedule scalar"
        ];
        for (uint256 i = 0; i < 7; ++i) {
            Stage stage = i < 4 ? Stage.PROVE : i == 4 ? Stage.SEQUENCE_OPEN : Stage.INPUT_OPEN;
            (Position memory p, bytes memory move) = moment(names[i], stage);
            p.task = OTHER;
            refused(p, move, BAD_OPENING);
        }
    }

    function testInputsOpenInWhatIsAgreed() public view {
        (Position memory p, bytes memory move) = moment("a weight before the step", Stage.INPUT_OPEN);
        leads(p, move, Stage.CHALLENGER_WINS);
        p.before = OTHER;
        refused(p, move, BAD_OPENING);
        (p, move) = moment(SOURCE, Stage.INPUT_OPEN);
        ++p.states; // the entry is another one's
        refused(p, move, BAD_OPENING);
    }

    function testValuesOpenWhereTheyLie() public view {
        (Position memory p, bytes memory move) = moment("map: an operand", Stage.PROVE);
        (bytes memory leaf, Record memory scalar, bytes memory chunk, bytes32[] memory path) =
            abi.decode(move, (bytes, Record, bytes, bytes32[]));
        leads(p, move, Stage.CHALLENGER_WINS);
        chunk[0] ^= 0x01;
        refused(p, abi.encode(leaf, scalar, chunk, path), BAD_OPENING);
        (p, move) = moment("dot: an operand that is an earlier result", Stage.PROVE);
        (leaf, scalar, chunk, path) = abi.decode(move, (bytes, Record, bytes, bytes32[]));
        leads(p, move, Stage.CHALLENGER_WINS);
        chunk[7] ^= 0x01;
        refused(p, abi.encode(leaf, scalar, chunk, path), BAD_OPENING);
        refused(p, abi.encode(leaf, scalar, bytes.concat(chunk, "0"), path), BAD_OPENING);
        (p.operation, p.which) = (0, 2); // a sum of products begins with the constant 0
        (chunk, path) = ("", new bytes32[](0));
        p.operands[2] = 1;
        leads(p, abi.encode(leaf, scalar, chunk, path), Stage.CHALLENGER_WINS);
        p.operands[2] = 0;
        leads(p, abi.encode(leaf, scalar, chunk, path), Stage.SOLVER_WINS);
    }

    // ---- what can be chosen

    function testPicksPickNothingElse() public view {
        Stage[4] memory stages = [Stage.LOG_PICK, Stage.TRACE_PICK, Stage.SEQUENCE_PICK, Stage.CHUNK_PICK];
        for (uint256 i = 0; i < 4; ++i) {
            (Position memory p,) = moment(stages[i] == Stage.CHUNK_PICK ? LONG : DOT, stages[i]);
            for (uint8 what = 1; what < 12; ++what) {
                if (what == uint8(What.FOLD) && stages[i] == Stage.CHUNK_PICK) {
                    leads(p, chosen(What(what), 0), Stage.PROVE);
                } else {
                    refused(p, chosen(What(what), 0), Referee.BadChoice.selector);
                }
            }
        }
    }

    function testChoicesAreThoseOfTheirStage() public view {
        choices(DOT, Stage.STEP_CHOICE, 1 << uint8(What.PICK) | 1 << uint8(What.COUNTS) | 1 << uint8(What.ENTRY));
        choices(DOT, Stage.ELEMENT_PICK, 1 << uint8(What.PICK) | 1 << uint8(What.CHUNK));
        choices(DOT, Stage.OPERATION_CHOICE, 1 << uint8(What.OPERATION) | 1 << uint8(What.VALUE));
        (Position memory p,) = moment(DOT, Stage.STEP_CHOICE);
        refused(p, chosen(What.ENTRY, 3), Referee.BadChoice.selector);
        (p,) = moment(DOT, Stage.OPERATION_CHOICE);
        leads(p, chosen(What.VALUE, 2), Stage.PROVE);
        refused(p, chosen(What.VALUE, 3), Referee.BadChoice.selector);
    }

    function choices(string memory name, Stage stage, uint256 allowed) internal view {
        (Position memory p,) = moment(name, stage);
        for (uint8 what = 0; what < 12; ++what) {
            if (allowed >> what & 1 == 0) refused(p, chosen(What(what), 0), Referee.BadChoice.selector);
        }
    }

    function testWhatCanBeContestedInALeaf() public view {
        (Position memory p, bytes memory move) = moment(DOT, Stage.LEAF_CHOICE);
        (,, bytes memory leaf) = abi.decode(move, (uint8, uint32, bytes));
        for (uint8 what = 0; what < 12; ++what) {
            bytes memory choice = abi.encode(what, uint32(1), leaf);
            if (what == uint8(What.OUTPUT)) refused(p, choice, Leaf.BadLeaf.selector); // a dot has one
            else if (what >= uint8(What.RECORD) && what <= uint8(What.OPERAND)) leads(p, choice, Stage.PROVE);
            else refused(p, choice, Referee.BadChoice.selector);
        }
        refused(p, abi.encode(uint8(What.OPERAND), uint32(2), leaf), Referee.BadChoice.selector); // and two operands
        p.place = p.inputs; // before the first node there is none
        refused(p, abi.encode(uint8(What.FIRST), uint32(0), leaf), Referee.BadChoice.selector);
        (p, move) = moment(SOURCE, Stage.LEAF_CHOICE);
        (,, leaf) = abi.decode(move, (uint8, uint32, bytes));
        for (uint8 what = 0; what < 12; ++what) {
            if (what == uint8(What.INPUT)) leads(p, abi.encode(what, uint32(0), leaf), Stage.INPUT_OPEN);
            else refused(p, abi.encode(what, uint32(0), leaf), Referee.BadChoice.selector);
        }
    }

    function testOnlyWhatWasContestedIsProven() public view {
        Position memory p;
        p.stage = uint8(Stage.PROVE);
        What[4] memory others = [What.PICK, What.OUTPUT, What.INPUT, What.OPERATION];
        for (uint256 i = 0; i < 4; ++i) {
            p.what = uint8(others[i]);
            refused(p, abi.encode(new bytes32[](0)), Referee.BadChoice.selector);
        }
    }

    function testAGroupWithoutEntriesDecidesAtOnce() public view {
        (Position memory p,) = moment(DOT, Stage.STEP_CHOICE);
        p.states = 0;
        leads(p, chosen(What.ENTRY, 0), Stage.CHALLENGER_WINS);
        p.after_ = Merkle.seal(0, 0);
        leads(p, chosen(What.ENTRY, 0), Stage.SOLVER_WINS);
        leads(p, chosen(What.ENTRY, 1), Stage.TRACE_REVEAL);
    }

    // ---- proofs

    function testCountsAreThoseOfTheHeader() public view {
        (Position memory p, bytes memory move) = moment("counts", Stage.PROVE);
        leads(p, move, Stage.CHALLENGER_WINS);
        --p.nodes;
        leads(p, move, Stage.SOLVER_WINS);
        ++p.inputs;
        leads(p, move, Stage.CHALLENGER_WINS);
        --p.inputs;
        ++p.states;
        leads(p, move, Stage.CHALLENGER_WINS);
        --p.states;
        --p.batches;
        leads(p, move, Stage.CHALLENGER_WINS);
    }

    function testEntriesAreThoseOfTheHeader() public view {
        string[3] memory names = ["an entry of the state", "an entry of the batch", "an entry of the schedule"];
        for (uint256 i = 0; i < 3; ++i) {
            (Position memory p, bytes memory move) = moment(names[i], Stage.PROVE);
            require(p.which == i, "group");
            leads(p, move, Stage.CHALLENGER_WINS);
            p.place ^= 1; // another entry, whose value the leaf does not hold
            refused(p, move, BAD_OPENING);
            p.place = 1000; // the program has not so many
            refused(p, move, Referee.BadMove.selector);
        }
        (Position memory q, bytes memory honest) = moment("an entry of the state; the solver is honest", Stage.PROVE);
        leads(q, honest, Stage.SOLVER_WINS);
        q.trace = OTHER;
        refused(q, honest, BAD_OPENING);
    }

    /// @dev A trace with the leaf of an input in a node's place: numbers go on behind it all the same.
    function testNumbersGoOnBehindWhateverLeaf() public view {
        bytes memory previous = abi.encodePacked(uint8(0), uint32(6), uint8(0), uint8(0), bytes32(0));
        Position memory p;
        (p.stage, p.what, p.nodes, p.place) = (uint8(Stage.PROVE), uint8(What.FIRST), 2, 1);
        for (uint32 first = 6; first < 9; ++first) {
            bytes memory leaf = reshape(first);
            bytes[] memory trace = Openings.list(previous, leaf);
            (p.leaf, p.trace) = (Merkle.leaf(leaf), Openings.root(trace));
            bytes memory proof = abi.encode(leaf, previous, Openings.path(trace, 0));
            leads(p, proof, first == 7 ? Stage.SOLVER_WINS : Stage.CHALLENGER_WINS);
        }
    }

    /// @dev The leaf of a reshape of value 0, a scalar.
    function reshape(uint32 first) internal pure returns (bytes memory) {
        bytes memory record = abi.encodePacked(uint8(3), uint16(0), uint32(1), uint32(0), uint8(1), uint8(0), uint8(0));
        bytes memory operand = abi.encodePacked(uint8(0), uint8(0), bytes32(0));
        return abi.encodePacked(uint8(1), first, uint32(record.length), record, operand, bytes32(0));
    }

    function testAProducerLiesToTheLeft() public view {
        (Position memory p, bytes memory move) = moment("leaf: operand", Stage.PROVE);
        leads(p, move, Stage.CHALLENGER_WINS);
        (bytes memory leaf, bytes memory producer, uint32 index, bytes32[] memory path) =
            abi.decode(move, (bytes, bytes, uint32, bytes32[]));
        refused(p, abi.encode(leaf, producer, index ^ 1, path), BAD_OPENING);
        // leaves whose operand is what the other one, or they themselves, hold
        bytes[] memory trace = Openings.list(reshape(0), reshape(5));
        (p.inputs, p.nodes, p.which, p.trace) = (0, 2, 0, Openings.root(trace));
        (p.place, p.leaf) = (1, Merkle.leaf(trace[1]));
        leads(p, abi.encode(trace[1], trace[0], uint32(0), Openings.path(trace, 0)), Stage.SOLVER_WINS);
        (p.place, p.leaf) = (0, Merkle.leaf(trace[0]));
        refused(p, abi.encode(trace[0], trace[0], uint32(0), Openings.path(trace, 0)), BAD_OPENING);
        trace = Openings.list(reshape(5), reshape(0));
        (p.trace, p.leaf) = (Openings.root(trace), Merkle.leaf(trace[0]));
        refused(p, abi.encode(trace[0], trace[1], uint32(1), Openings.path(trace, 1)), BAD_OPENING);
    }

    // ---- data of the task

    /// @dev A task's eight leaves, of which only this one says anything.
    function leaves(string memory name, uint256 index, bytes memory value) internal pure returns (bytes[] memory all) {
        all = new bytes[](8);
        all[index] = abi.encodePacked(uint8(bytes(name).length), name, value);
    }

    struct Data {
        bytes leaf;
        bytes entry;
        bytes sampler;
        bytes group;
        bytes[] task;
    }

    /// @dev One batch input of two rows of three f32, out of seven rows of data.
    function data() internal pure returns (Position memory p, Data memory d) {
        (p.stage, p.inputs, p.batches, p.nodes) = (uint8(Stage.INPUT_OPEN), 1, 1, 1);
        d.leaf = abi.encodePacked(uint8(0), uint32(0), uint8(0), uint8(2), uint64(2), uint64(3), keccak256("batch"));
        d.entry = abi.encodePacked(uint8(1), "x", uint8(0), uint8(2), uint64(7), uint64(3), keccak256("data"));
        d.sampler = abi.encodePacked(uint32(5), uint32(6), uint64(7), uint64(2));
    }

    function inputMove(Position memory p, Data memory d) internal pure returns (bytes memory) {
        d.group = abi.encodePacked(Openings.root(Openings.list(d.entry)));
        d.task = leaves("sampler", 4, d.sampler);
        d.task[3] = leaves("data", 3, d.group)[3];
        (p.leaf, p.task) = (Merkle.leaf(d.leaf), Openings.root(d.task));
        return abi.encode(
            d.leaf,
            d.entry,
            new bytes32[](0),
            bytes32(d.group),
            Openings.path(d.task, 3),
            d.sampler,
            Openings.path(d.task, 4)
        );
    }

    function testDataOfTheTaskStandForABatch() public view {
        (Position memory p, Data memory d) = data();
        bytes memory move = inputMove(p, d);
        Position memory next = referee.advance(p, move);
        bytes memory source = abi.encodePacked(uint8(2), uint8(1), uint8(0), uint8(2), uint64(2), uint64(3));
        source = abi.encodePacked(source, keccak256("data"), uint64(7), uint32(5), uint32(6), uint64(2));
        require(next.leaf == Merkle.leaf(source) && next.tensor == keccak256("batch"), "source");
        require(next.length == 24 && next.stage == uint8(Stage.CHUNK_OPEN), "tensor");
    }

    function testARecordedTaskBringsItsOwnData() public view {
        (Position memory p, Data memory d) = data();
        d.sampler = "";
        bytes memory move = inputMove(p, d);
        leads(p, move, Stage.SOLVER_WINS);
    }

    function testAnotherTypeThanTheDataGiveIsWrong() public view {
        for (uint256 i = 5; i < 23; ++i) {
            (Position memory p, Data memory d) = data();
            if (i == 6) continue; // the rank: no leaf of that length
            d.leaf[i] ^= 0x01;
            bytes memory move = inputMove(p, d);
            leads(p, move, Stage.CHALLENGER_WINS);
        }
    }

    function testDataWithoutRowsAreNone() public view {
        (Position memory p, Data memory d) = data();
        bytes memory right = d.entry;
        d.entry = abi.encodePacked(uint8(1), "x", uint8(0), uint8(0), keccak256("data"));
        bytes memory move = inputMove(p, d);
        refused(p, move, Leaf.BadLeaf.selector);
        d.entry = bytes.concat(right, "0");
        move = inputMove(p, d);
        refused(p, move, Leaf.BadLeaf.selector);
    }
}

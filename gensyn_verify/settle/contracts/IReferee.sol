// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice A position of the dispute game, docs/dispute.md section 4.
struct Position {
    bytes32 task;
    bytes32 log;
    uint64 steps;
    uint8 stage;
    uint8 what;
    uint32 which;
    uint64 step;
    bytes32 before;
    bytes32 after_;
    bytes32 batch;
    bytes32 scalars;
    bytes32 trace;
    uint32 states;
    uint32 batches;
    uint32 inputs;
    uint32 nodes;
    uint32 place;
    bytes32 leaf;
    uint32 output;
    bytes32 tensor;
    uint64 length;
    uint8 width;
    uint64 element;
    uint64 value;
    bytes32 sequence;
    uint64 operation;
    uint64 result;
    uint64[3] operands;
    uint64 start;
    uint64 size;
    bytes32 digest;
    bytes32 shown;
}

/// @notice The rules of the dispute game, without state: all that a settlement needs of them.
interface IReferee {
    /// @notice The position after a move. Reverts where the move does not fit or does not prove what it must.
    function advance(Position calldata position, bytes calldata move) external view returns (Position memory);
}

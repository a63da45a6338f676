// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice What a move must be, and whose it is (dispute, section 5).
enum Stage {
    LOG_REVEAL,
    LOG_PICK,
    STEP_OPEN,
    STEP_CHOICE,
    TRACE_REVEAL,
    TRACE_PICK,
    LEAF_OPEN,
    LEAF_CHOICE,
    INPUT_OPEN,
    CHUNK_REVEAL,
    CHUNK_PICK,
    CHUNK_OPEN,
    ELEMENT_PICK,
    SEQUENCE_OPEN,
    SEQUENCE_REVEAL,
    SEQUENCE_PICK,
    OPERATION_OPEN,
    OPERATION_CHOICE,
    PROVE,
    SOLVER_WINS,
    CHALLENGER_WINS
}

/// @notice What a challenger picks or contests.
enum What {
    PICK,
    COUNTS,
    ENTRY,
    RECORD,
    FIRST,
    OPERAND,
    OUTPUT,
    INPUT,
    FOLD,
    CHUNK,
    OPERATION,
    VALUE
}

/// @notice Who is to move.
enum Turn {
    SOLVER,
    CHALLENGER,
    NOBODY
}

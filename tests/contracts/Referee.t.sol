// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Referee} from "gensyn_verify/settle/contracts/Referee.sol";
import {Stage} from "gensyn_verify/settle/contracts/Stages.sol";
import {StepVerifier} from "gensyn_verify/settle/contracts/StepVerifier.sol";
import {Vectors} from "./Vectors.sol";

/// @dev The games of tests/vectors/dispute.json as lists of positions and moves.
abstract contract Games is Vectors {
    Referee internal immutable referee = new Referee(new StepVerifier());

    struct Game {
        Position[] positions; // the first, then those after every move
        bytes[] moves;
        bytes[] hashes; // of the positions after every move
        uint8 winner; // the last stage
    }

    function game(string memory json, uint256 i) internal view returns (Game memory g) {
        g.moves = FILES.parseJsonBytesArray(json, item(".games", i, ".moves"));
        g.hashes = FILES.parseJsonBytesArray(json, item(".games", i, ".hashes"));
        g.winner = uint8(FILES.parseJsonUint(json, item(".games", i, ".winner")));
        g.positions = new Position[](g.moves.length + 1);
        g.positions[0] = abi.decode(FILES.parseJsonBytes(json, item(".games", i, ".start")), (Position));
        for (uint256 k = 0; k < g.moves.length; ++k) {
            g.positions[k + 1] = referee.advance(g.positions[k], g.moves[k]);
        }
    }

    /// @dev The first position of the game of this name that is at this stage, and the move from there.
    function moment(string memory name, Stage stage) internal view returns (Position memory p, bytes memory move) {
        string memory json = read("dispute");
        uint256 i = 0;
        while (!equal(FILES.parseJsonString(json, item(".games", i, ".name")), name)) ++i;
        Game memory g = game(json, i);
        uint256 k = 0;
        while (g.positions[k].stage != uint8(stage)) ++k;
        return (g.positions[k], g.moves[k]);
    }

    function refused(Position memory p, bytes memory move, bytes4 selector) internal view {
        refused(address(referee), abi.encodeCall(referee.advance, (p, move)), selector);
    }

    function leads(Position memory p, bytes memory move, Stage stage) internal view {
        require(referee.advance(p, move).stage == uint8(stage), "another stage than expected");
    }
}

/// @notice The games of tests/vectors/dispute.json, move by move.
contract RefereeGamesTest is Games {
    function testEveryMoveLeadsToTheStatedPosition() public view {
        string memory json = read("dispute");
        uint256 n = count(json, ".games");
        require(n > 20, "games");
        for (uint256 i = 0; i < n; ++i) {
            Game memory g = game(json, i);
            for (uint256 k = 0; k < g.moves.length; ++k) {
                require(keccak256(abi.encode(g.positions[k + 1])) == bytes32(g.hashes[k]), "position");
                refuseLonger(g.positions[k], g.moves[k]);
            }
            require(g.positions[g.moves.length].stage == g.winner, "winner");
            refuseChanged(json, i, g);
        }
    }

    /// @dev Moves are whole words.
    function refuseLonger(Position memory p, bytes memory move) internal view {
        refused(p, bytes.concat(move, "0"), Referee.BadMove.selector);
    }

    /// @dev A byte of a move of game `i` set to another value, where the file has one that must be refused.
    function refuseChanged(string memory json, uint256 i, Game memory g) internal view {
        string memory list = item(".games", i, ".rejected");
        uint256 n = count(json, list);
        for (uint256 j = 0; j < n; ++j) {
            uint256 k = FILES.parseJsonUint(json, item(list, j, ".move"));
            uint256 place = FILES.parseJsonUint(json, item(list, j, ".byte"));
            bytes memory move = bytes.concat(g.moves[k]);
            move[place] = bytes1(uint8(FILES.parseJsonUint(json, item(list, j, ".value"))));
            (bool done,) = address(referee).staticcall(abi.encodeCall(referee.advance, (g.positions[k], move)));
            require(!done, "accepted");
        }
    }
}

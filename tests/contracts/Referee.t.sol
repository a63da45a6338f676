// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Referee} from "gensyn_verify/settle/contracts/Referee.sol";
import {StepVerifier} from "gensyn_verify/settle/contracts/StepVerifier.sol";
import {Vectors} from "./Vectors.sol";

/// @notice The games of tests/vectors/dispute.json, move by move.
contract RefereeGamesTest is Vectors {
    Referee internal immutable referee = new Referee(new StepVerifier());

    function testEveryMoveLeadsToTheStatedPosition() public view {
        string memory json = read("dispute");
        uint256 n = count(json, ".games");
        require(n > 20, "games");
        for (uint256 i = 0; i < n; ++i) {
            Position memory p = abi.decode(FILES.parseJsonBytes(json, item(".games", i, ".start")), (Position));
            bytes[] memory moves = FILES.parseJsonBytesArray(json, item(".games", i, ".moves"));
            bytes[] memory hashes = FILES.parseJsonBytesArray(json, item(".games", i, ".hashes"));
            for (uint256 k = 0; k < moves.length; ++k) {
                refuseChanged(json, i, k, p, moves[k]);
                p = referee.advance(p, moves[k]);
                require(keccak256(abi.encode(p)) == bytes32(hashes[k]), "position");
            }
            require(p.stage == FILES.parseJsonUint(json, item(".games", i, ".winner")), "winner");
        }
    }

    /// @dev A byte of move `k` of game `i` set to another value, where the file has one that must be refused.
    function refuseChanged(string memory json, uint256 i, uint256 k, Position memory p, bytes memory move)
        internal
        view
    {
        string memory list = item(".games", i, ".rejected");
        uint256 n = count(json, list);
        for (uint256 j = 0; j < n; ++j) {
            if (FILES.parseJsonUint(json, item(list, j, ".move")) != k) continue;
            uint256 place = FILES.parseJsonUint(json, item(list, j, ".byte"));
            bytes1 right = move[place];
            move[place] = bytes1(uint8(FILES.parseJsonUint(json, item(list, j, ".value"))));
            (bool done,) = address(referee).staticcall(abi.encodeCall(referee.advance, (p, move)));
            require(!done, "accepted");
            move[place] = right;
        }
    }
}

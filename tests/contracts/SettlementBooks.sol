// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IReferee, Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {Cheats} from "./SettlementFixture.sol";

/// @dev What we use of halmos's cheat codes.
interface Symbols {
    function createUint256(string calldata name) external pure returns (uint256);
    function createBool(string calldata name) external pure returns (bool);
    function load(address of_, bytes32 slot) external view returns (uint256);
    function enableSymbolicStorage(address of_) external;
}

/// @dev Answers with any stage at all.
contract AnyReferee is IReferee {
    Symbols private constant SVM = Symbols(address(uint160(uint256(keccak256("svm cheat code")))));

    function advance(Position calldata, bytes calldata) external pure returns (Position memory p) {
        p.stage = uint8(SVM.createUint256("stage"));
    }
}

/// @dev What a settlement has to account for, before a message and after it: SettlementProofs.sol, PayoutProofs.sol.
abstract contract SettlementBooks {
    Cheats internal constant vm = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));
    Symbols internal constant svm = Symbols(address(uint160(uint256(keccak256("svm cheat code")))));
    address internal constant BURN = 0x000000000000000000000000000000000000dEaD;
    uint256 internal constant SEAT = 10 ether;

    struct Books {
        uint256 locked;
        uint256 owed;
        uint256 balance;
        Settlement.Task task;
        uint256 escrow; // its product is taken once: two of them are beyond solvers
        uint256 seats;
    }

    /// @dev The contract with the lists of seats.
    function subject() internal view virtual returns (Settlement);

    function rules() internal pure returns (Settlement.Rules memory) {
        return Settlement.Rules({
            seat: uint128(SEAT),
            minBond: 0.1 ether,
            stakeRatio: 2 << 16,
            minClock: 1 hours,
            minWindow: 1 hours,
            rate: 6554,
            burn: 32768,
            minSeats: 1,
            delay: 2
        });
    }

    /// @dev Any storage, balance, block and time.
    function anyState() internal {
        svm.enableSymbolicStorage(address(subject()));
        vm.deal(address(subject()), svm.createUint256("balance"));
        vm.roll(svm.createUint256("block"));
        vm.warp(svm.createUint256("time"));
    }

    function books(uint256 id) internal view returns (Books memory b) {
        Settlement s = subject();
        (b.locked, b.owed, b.balance) = (s.locked(), s.owed(), address(s).balance);
        (b.task, b.seats) = (s.task(id), seats());
        b.escrow = escrow(b.task);
        vm.assume(b.task.seats <= 16);
        vm.assume(b.escrow <= type(uint128).max);
        uint256 state = uint256(b.task.state);
        uint256 committee = SEAT * b.task.seats & when(state > 3 && state < 6);
        vm.assume(due(b.task, b.escrow) + committee + (b.task.bond & when(b.task.games > 0)) <= b.locked);
    }

    function escrow(Settlement.Task memory t) internal pure returns (uint256) {
        return t.reward + t.seats * (uint256(t.fee) + t.bounty);
    }

    /// @dev What of `locked` is the task's, without its seats and games.
    function due(Settlement.Task memory t, uint256 escrow_) private pure returns (uint256) {
        uint256 state = uint256(t.state);
        return (escrow_ & when(state > 0 && state < 6)) + (t.stake & when(state > 1 && state < 6));
    }

    /// @dev How many have an owner: the lengths of the lists of all seats and of the empty ones.
    function seats() internal view virtual returns (uint256) {
        unchecked {
            return load(6) - load(7);
        }
    }

    function load(uint256 slot) private view returns (uint256) {
        return Symbols(address(vm)).load(address(subject()), bytes32(slot));
    }

    /// @dev Whether `change` is what is locked more than before. No branches: the solver is to look at all cases at once.
    function accounted(Books memory b, uint256 id, uint256 change) internal view returns (uint256 good) {
        unchecked {
            Settlement.Task memory t = subject().task(id);
            uint256 games = uint256(t.games) - b.task.games;
            uint256 bonds = (t.bond & when(games == 1)) - (t.bond & when(games + 1 == 0));
            bonds += SEAT * (seats() - b.seats);
            good = when(games + 1 < 3) & terms(t, b.task);
            good &= when(change == due(t, b.escrow) - due(b.task, b.escrow) + bonds);
        }
    }

    /// @dev Whether both have the same.
    function terms(Settlement.Task memory t, Settlement.Task memory u) private pure returns (uint256) {
        uint256 difference = (t.reward ^ u.reward) | (t.stake ^ u.stake) | (t.fee ^ u.fee) | (t.bounty ^ u.bounty);
        return when(difference | (t.bond ^ u.bond) | (t.seats ^ u.seats) == 0);
    }

    /// @dev Whether `x` is one of `who`.
    function named(address x, address[] memory who) internal pure returns (uint256 mask) {
        for (uint256 i = 0; i < who.length; ++i) {
            mask |= when(x == who[i]);
        }
    }

    /// @dev All bits, or none.
    function when(bool condition) internal pure returns (uint256 mask) {
        assembly ("memory-safe") {
            mask := sub(0, condition)
        }
    }

    function people() internal pure returns (address[] memory) {}

    function people(address a) internal pure returns (address[] memory who) {
        who = new address[](1);
        who[0] = a;
    }
}

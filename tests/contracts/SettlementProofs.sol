// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IReferee, Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {Cheats} from "./SettlementFixture.sol";

/// @dev What we use of halmos's cheat codes.
interface Symbols {
    function createUint256(string calldata name) external pure returns (uint256);
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

/// @notice Most messages create and destroy no money: proven by halmos (`make test-proofs`), message by message, from any state
/// of the contract's storage, for any sender, arguments, payment, block and time. Of a message that does not revert:
///   1. locked + owed changes by what the contract's balance changes by;
///   2. owed changes by what the credits of those change by whom the message may credit, and nobody else's does;
///   3. locked changes by what is due to the task, its escrow, the stake once there is one, the bonds of its open games, and
///      by a stake for every seat that is taken or given up;
///   4. `withdraw` pays exactly the credit, once.
/// Nothing is locked, owed or credited at first: so it follows by induction that the balance is locked + owed (ether that is
/// forced on the contract apart), that all credits together are owed, and what locked accounts for.
///
/// @dev Excluded are states alone in which these do not hold before: somebody has more credit than is owed, more is due to
/// a task than is locked, or a task that was not posted is there. The payee of `withdraw` takes the money without a call
/// back: what it might call is a message of its own, in a state that `withdraw` has left complete. Ether is the asset.
///
/// What halmos does not manage: of `timeout` and `move` (by any referee) 1 alone is proven; `pin`, `commit` and `show` ask for
/// block hashes, which its version 0.3.3 cannot read; of `settle`, `expire` and `expose`, which credit up to six people,
/// queries do not end, even for a committee of one. These are held by Settlement.invariant.t.sol.
/// @custom:halmos --loop 16
contract SettlementProofs {
    Cheats private constant vm = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));
    Symbols private constant svm = Symbols(address(uint160(uint256(keccak256("svm cheat code")))));
    address private constant BURN = 0x000000000000000000000000000000000000dEaD;
    address private constant PAYEE = address(0x9999);
    uint256 private constant SEAT = 10 ether;

    Settlement private s;

    function setUp() public {
        Settlement.Rules memory rules = Settlement.Rules({
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
        s = new Settlement(new AnyReferee(), address(0), address(0x5005), rules);
        svm.enableSymbolicStorage(address(s));
        vm.deal(address(s), svm.createUint256("balance"));
        vm.roll(svm.createUint256("block"));
        vm.warp(svm.createUint256("time"));
    }

    // ---- messages that bring money

    /// @dev A task that was not there has no books: the terms are those that are posted.
    function check_post(bytes32 digest, uint64 steps, Settlement.Terms calldata posted, uint256 value) external {
        uint256 id = uint256(s.taskCount()) + 1;
        Settlement.Task memory t = s.task(id);
        vm.assume(t.state == Settlement.State.None && t.games == 0);
        (uint256 locked, uint256 owed, uint256 balance) = (s.locked(), s.owed(), address(s).balance);
        s.post{value: value}(digest, steps, posted);
        t = s.task(id);
        assert(t.state == Settlement.State.Posted && t.games == 0);
        assert(escrow(t) == value);
        assert(s.locked() == locked + value && s.owed() == owed && address(s).balance == balance + value);
    }

    function check_claim(uint256 id, bytes32 seal, uint256 value, address x) external {
        Books memory b = books(id, people(), x);
        s.claim{value: value}(id, seal);
        conserved(b, id, people(), x);
    }

    function check_challenge(uint256 id, uint64 step, bool whole, uint256 value, address x) external {
        Books memory b = books(id, people(), x);
        if (whole) s.challenge{value: value}(id);
        else s.challengeStep{value: value}(id, step);
        conserved(b, id, people(), x);
    }

    function check_enroll(uint256 value, address x) external {
        Books memory b = books(0, people(), x);
        s.enroll{value: value}();
        conserved(b, 0, people(), x);
        assert(value == SEAT);
    }

    // ---- messages that end something

    function check_cancel(uint256 id, address caller, address x) external {
        address[] memory who = people(s.task(id).submitter);
        Books memory b = books(id, who, x);
        vm.prank(caller);
        s.cancel(id);
        conserved(b, id, who, x);
    }

    function check_release(uint256 number, address x) external {
        Settlement.Game memory g = s.game(number);
        address[] memory who = people(g.challenger);
        Books memory b = books(g.task, who, x);
        s.release(number);
        conserved(b, g.task, who, x);
    }

    function check_resign(uint256 seat, address caller, address x) external {
        address[] memory who = people(caller);
        Books memory b = books(0, who, x);
        vm.prank(caller);
        s.resign(seat);
        conserved(b, 0, who, x);
    }

    // ---- moves and clocks, which may end a game

    function check_timeout(uint256 number) external {
        kept(address(this), abi.encodeCall(s.timeout, (number)));
    }

    function check_move(uint256 number, Position calldata position, address caller) external {
        kept(caller, abi.encodeCall(s.move, (number, position, "")));
    }

    /// @dev The first sentence alone: with the credits of three people, who may be the same, solvers do not come to an end.
    function kept(address caller, bytes memory message) private {
        (uint256 locked, uint256 owed, uint256 balance) = (s.locked(), s.owed(), address(s).balance);
        vm.prank(caller);
        (bool done,) = address(s).call(message);
        vm.assume(done);
        assert(uint256(s.locked()) + s.owed() == locked + owed && address(s).balance == balance);
    }

    // ---- messages without money

    function check_words(uint256 id, uint256 place, bytes32 r, bytes32 root, bytes32 salt, uint256 message, address x)
        external
    {
        Books memory b = books(id, people(), x);
        address caller = address(uint160(svm.createUint256("caller")));
        vm.prank(caller);
        if (message == 0) s.disclose(id, r, root, salt);
        else if (message == 1) s.attest(id, place, r);
        else if (message == 2) s.declare(id, place, root, salt);
        else s.pause(message == 3);
        conserved(b, id, people(), x);
    }

    // ---- money that leaves

    function check_withdraw(address caller, address x) external {
        vm.assume(caller != address(s));
        uint256 amount = s.credit(caller);
        uint256 had = PAYEE.balance;
        address[] memory who = people(caller);
        Books memory b = books(0, who, x);
        vm.prank(caller);
        s.withdraw(PAYEE);
        assert(PAYEE.balance == had + amount);
        conserved(b, 0, who, x);
        assert(amount > 0 && s.credit(caller) == 0);
        vm.prank(caller);
        (bool again,) = address(s).call(abi.encodeCall(s.withdraw, (PAYEE)));
        assert(!again);
    }

    function check_burn(address caller, address x) external {
        (uint256 amount, uint256 had) = (s.credit(BURN), BURN.balance);
        address[] memory who = people(BURN);
        Books memory b = books(0, who, x);
        vm.prank(caller);
        s.burn();
        assert(BURN.balance == had + amount);
        conserved(b, 0, who, x);
        assert(amount > 0 && s.credit(BURN) == 0);
    }

    // ---- the books

    struct Books {
        uint256 locked;
        uint256 owed;
        uint256 balance;
        Settlement.Task task;
        uint256 escrow; // its product is taken once: two of them are beyond solvers
        uint256 seats;
        uint256[] credits;
        uint256 other; // credit of anybody
    }

    function books(uint256 id, address[] memory who, address x) private view returns (Books memory b) {
        (b.locked, b.owed, b.balance) = (s.locked(), s.owed(), address(s).balance);
        (b.task, b.seats) = (s.task(id), seats());
        b.escrow = escrow(b.task);
        vm.assume(b.escrow <= type(uint128).max);
        uint256 state = uint256(b.task.state);
        uint256 committee_ = SEAT * b.task.seats & when(state > 3 && state < 6);
        vm.assume(due(b.task, b.escrow) + committee_ + (b.task.bond & when(b.task.games > 0)) <= b.locked);
        b.credits = new uint256[](who.length);
        for (uint256 i = 0; i < who.length; ++i) {
            b.credits[i] = s.credit(who[i]);
            vm.assume(b.credits[i] <= b.owed);
        }
        b.other = s.credit(x);
    }

    function escrow(Settlement.Task memory t) private pure returns (uint256) {
        return t.reward + t.seats * (uint256(t.fee) + t.bounty);
    }

    /// @dev What of `locked` is the task's, without its seats and games.
    function due(Settlement.Task memory t, uint256 escrow_) private pure returns (uint256) {
        uint256 state = uint256(t.state);
        return (escrow_ & when(state > 0 && state < 6)) + (t.stake & when(state > 1 && state < 6));
    }

    /// @dev How many have an owner: the lengths of the lists of all seats and of the empty ones.
    function seats() private view returns (uint256) {
        unchecked {
            return load(6) - load(7);
        }
    }

    function load(uint256 slot) private view returns (uint256) {
        return Symbols(address(vm)).load(address(s), bytes32(slot));
    }

    /// @dev No branches: the solver is to look at all cases at once.
    function conserved(Books memory b, uint256 id, address[] memory who, address x) private view {
        unchecked {
            uint256 credited = 0;
            uint256 named = 0;
            for (uint256 i = 0; i < who.length; ++i) {
                named |= when(x == who[i]);
                uint256 again = 0;
                for (uint256 j = 0; j < i; ++j) {
                    again |= when(who[i] == who[j]);
                }
                credited += (s.credit(who[i]) - b.credits[i]) & ~again;
            }
            (uint256 locked, uint256 owed) = (s.locked(), s.owed());
            uint256 good = when(owed - b.owed == credited);
            good &= when(locked + owed - b.locked - b.owed == address(s).balance - b.balance);
            good &= when((s.credit(x) - b.other) & ~named == 0);
            assert(good & accounted(b, s.task(id), locked - b.locked) != 0);
        }
    }

    /// @dev Whether `change` is what is locked more than before.
    function accounted(Books memory b, Settlement.Task memory t, uint256 change) private view returns (uint256 good) {
        unchecked {
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

    /// @dev All bits, or none.
    function when(bool condition) private pure returns (uint256 mask) {
        assembly ("memory-safe") {
            mask := sub(0, condition)
        }
    }

    // ---- people

    function people() private pure returns (address[] memory) {}

    function people(address a) private pure returns (address[] memory who) {
        who = new address[](1);
        who[0] = a;
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {AnyReferee, SettlementBooks} from "./SettlementBooks.sol";

/// @notice Messages create and destroy no money: proven by halmos (`make test-proofs`), message by message, from any state
/// of the contract's storage, for any sender, arguments, payment, block and time. Of a message that does not revert:
///   1. locked + owed changes by what the contract's balance changes by;
///   2. owed changes by what the credits of those change by whom the message may credit, and nobody else's does;
///   3. locked changes by what is due to the task, its escrow, the stake once there is one, the bonds of its open games, and
///      by a stake for every seat that is taken or given up;
///   4. `withdraw` pays exactly the credit, once.
/// Nothing is locked, owed or credited at first: so it follows by induction that the balance is locked + owed (ether that is
/// forced on the contract apart), that all credits together are owed, and what locked accounts for.
///
/// @dev Here are the messages that credit one person at most, of the contract as it is deployed. Those that credit several,
/// and those that ask for a block hash, are in PayoutProofs.sol.
///
/// Excluded are states alone in which these do not hold before: somebody has more credit than is owed, more is due to a task
/// than is locked, a committee has more than 16 seats, or a task that was not posted is there. The payee of `withdraw` takes
/// the money without a call back: what it might call is a message of its own, in a state that `withdraw` has left complete.
/// Ether is the asset, and the rules are those of SettlementBooks.sol.
/// @custom:halmos --loop 16
contract SettlementProofs is SettlementBooks {
    address private constant PAYEE = address(0x9999);

    Settlement private s;

    function setUp() public {
        s = new Settlement(new AnyReferee(), address(0), address(0x5005), rules());
        anyState();
    }

    function subject() internal view override returns (Settlement) {
        return s;
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
        assert(escrow(t) == value && t.seats <= 16);
        assert(s.locked() == locked + value && s.owed() == owed && address(s).balance == balance + value);
    }

    function check_claim(uint256 id, bytes32 seal, uint256 value, address x) external {
        (Books memory b, Credits memory c) = open(id, people(), x);
        s.claim{value: value}(id, seal);
        conserved(b, c, id);
    }

    function check_challenge(uint256 id, uint64 step, bool whole, uint256 value, address x) external {
        (Books memory b, Credits memory c) = open(id, people(), x);
        if (whole) s.challenge{value: value}(id);
        else s.challengeStep{value: value}(id, step);
        conserved(b, c, id);
    }

    function check_enroll(uint256 value, address x) external {
        (Books memory b, Credits memory c) = open(0, people(), x);
        s.enroll{value: value}();
        conserved(b, c, 0);
        assert(value == SEAT);
    }

    // ---- messages that end something

    function check_cancel(uint256 id, address caller, address x) external {
        (Books memory b, Credits memory c) = open(id, people(s.task(id).submitter), x);
        vm.prank(caller);
        s.cancel(id);
        conserved(b, c, id);
    }

    function check_release(uint256 number, address x) external {
        Settlement.Game memory g = s.game(number);
        (Books memory b, Credits memory c) = open(g.task, people(g.challenger), x);
        s.release(number);
        conserved(b, c, g.task);
    }

    function check_resign(uint256 seat, address caller, address x) external {
        (Books memory b, Credits memory c) = open(0, people(caller), x);
        vm.prank(caller);
        s.resign(seat);
        conserved(b, c, 0);
    }

    // ---- messages without money

    function check_words(uint256 id, uint256 place, bytes32 r, bytes32 root, bytes32 salt, uint256 message, address x)
        external
    {
        (Books memory b, Credits memory c) = open(id, people(), x);
        address caller = address(uint160(svm.createUint256("caller")));
        vm.prank(caller);
        if (message == 0) s.disclose(id, r, root, salt);
        else if (message == 1) s.attest(id, place, r);
        else if (message == 2) s.declare(id, place, root, salt);
        else s.pause(message == 3);
        conserved(b, c, id);
    }

    // ---- money that leaves

    function check_withdraw(address caller, address x) external {
        vm.assume(caller != address(s));
        uint256 amount = s.credit(caller);
        uint256 had = PAYEE.balance;
        (Books memory b, Credits memory c) = open(0, people(caller), x);
        vm.prank(caller);
        s.withdraw(PAYEE);
        assert(PAYEE.balance == had + amount);
        conserved(b, c, 0);
        assert(amount > 0 && s.credit(caller) == 0);
        vm.prank(caller);
        (bool again,) = address(s).call(abi.encodeCall(s.withdraw, (PAYEE)));
        assert(!again);
    }

    function check_burn(address caller, address x) external {
        (uint256 amount, uint256 had) = (s.credit(BURN), BURN.balance);
        (Books memory b, Credits memory c) = open(0, people(BURN), x);
        vm.prank(caller);
        s.burn();
        assert(BURN.balance == had + amount);
        conserved(b, c, 0);
        assert(amount > 0 && s.credit(BURN) == 0);
    }

    // ---- the books

    /// @dev Of whom the message may credit, and of anybody, `x`.
    struct Credits {
        address[] who;
        uint256[] had;
        address x;
        uint256 other;
    }

    function open(uint256 id, address[] memory who, address x) private view returns (Books memory b, Credits memory c) {
        b = books(id);
        (c.who, c.x, c.other) = (who, x, s.credit(x));
        c.had = new uint256[](who.length);
        for (uint256 i = 0; i < who.length; ++i) {
            c.had[i] = s.credit(who[i]);
            vm.assume(c.had[i] <= b.owed);
        }
    }

    /// @dev No branches: the solver is to look at all cases at once.
    function conserved(Books memory b, Credits memory c, uint256 id) private view {
        unchecked {
            uint256 credited = 0;
            for (uint256 i = 0; i < c.who.length; ++i) {
                credited += s.credit(c.who[i]) - c.had[i];
            }
            (uint256 locked, uint256 owed) = (s.locked(), s.owed());
            uint256 good = when(owed - b.owed == credited);
            good &= when(locked + owed - b.locked - b.owed == address(s).balance - b.balance);
            good &= when((s.credit(c.x) - c.other) & ~named(c.x, c.who) == 0);
            assert(good & accounted(b, id, locked - b.locked) != 0);
        }
    }
}

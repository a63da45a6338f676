// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IReferee, Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {Cheats} from "./SettlementFixture.sol";
import {AnyReferee, SettlementBooks, Symbols} from "./SettlementBooks.sol";

/// @dev The settlement, in which some functions do what is proven of them, however they do it:
///   - a credit is written down instead of being booked (`check_credit`): with the credits of several people, who may be the
///     same, solvers do not come to an end;
///   - a verifier is judged or dismissed with any result that these have (`check_judge`, `check_dismiss`), so that a loop over
///     a committee has one case a length;
///   - a lot is any word, as halmos 0.3.3 cannot read block hashes.
/// That drawing a committee writes who sits where, and nothing else, is read off `_draw`: here it says yes or no.
contract Ledger is Settlement {
    Symbols private constant SVM = Symbols(address(uint160(uint256(keccak256("svm cheat code")))));
    Cheats private constant VM = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant SEAT_ = 10 ether;

    address private _watched;
    /// @notice Credited since `open`, to all and to the address that it watches.
    uint256 public credited;
    uint256 public toWatched;
    /// @notice What of any credit is above 128 bits, and would not be booked in `locked` and `owed`.
    uint256 public excess;
    /// @notice Seats that were given up or slashed since `open`, without those that the lists show.
    uint256 public gone;

    constructor(Rules memory r) Settlement(new AnyReferee(), address(0), address(0x5005), r) {}

    function open(address watched) external {
        (_watched, credited, toWatched, excess, gone) = (watched, 0, 0, 0, 0);
    }

    // ---- as they are

    function credit_(address to, uint256 amount) external {
        super._credit(to, amount);
    }

    function judge(uint256 id, uint256 place) external returns (uint256 lost, uint256 pay) {
        return super._judge(_tasks[id], _jurors[id][place]);
    }

    function dismiss(uint256 id, uint256 place, bool giveUp) external returns (uint256 pay) {
        return super._dismiss(_tasks[id], _jurors[id][place], giveUp);
    }

    // ---- as messages see them

    /// @dev No branches: each would double the cases of all that follows.
    function _credit(address to, uint256 amount) internal override {
        bool watched = to == _watched;
        uint256 mask;
        assembly ("memory-safe") {
            mask := sub(0, watched)
        }
        unchecked {
            credited += amount;
            toWatched += amount & mask;
            excess |= amount >> 128;
        }
    }

    function _judge(Task storage t, Juror storage j) internal override returns (uint256 lost, uint256 pay) {
        uint256 slashed = any(1);
        pay = any(uint256(t.fee) + t.bounty);
        _leave(j, pay, slashed + any(1 - slashed), slashed);
        lost = SEAT_ * slashed;
    }

    function _dismiss(Task storage t, Juror storage j, bool) internal override returns (uint256 pay) {
        pay = any(t.fee);
        _leave(j, pay, any(1), 0);
    }

    /// @dev The owner is paid, and gets the stake of a seat that is gone and not slashed.
    function _leave(Juror storage j, uint256 pay, uint256 left, uint256 slashed) private {
        VM.assume(j.owner != _watched);
        unchecked {
            credited += pay + SEAT_ * (left - slashed);
            gone += left;
        }
    }

    function _lot(uint256) internal pure override returns (bytes32) {
        return bytes32(SVM.createUint256("lot"));
    }

    function _draw(uint256, Task storage, bytes32) internal pure override returns (bool) {
        return SVM.createBool("drawn");
    }

    function any(uint256 most) private pure returns (uint256 x) {
        x = SVM.createUint256("any");
        VM.assume(x <= most);
    }
}

/// @notice The sentences 1 to 3 of SettlementProofs.sol for the messages that credit several people, or ask for a block hash.
/// First what booking a credit, judging and dismissing a verifier do; then, of each message, that it changes `locked`, `owed`
/// and the balance by nothing but credits, that these sum up to what 3. says, that each fits into 128 bits, and that nobody
/// else gets one, whatever the size of the committee.
/// @dev Of `expire`, `expose` and `settle`, `x` owns no seat of the committee. Moves are without bytes: `move` hands them on.
/// @custom:halmos --loop 17
contract PayoutProofs is SettlementBooks {
    Ledger private s;

    function setUp() public {
        s = new Ledger(rules());
        anyState();
    }

    function subject() internal view override returns (Settlement) {
        return s;
    }

    // ---- what messages are made of

    function check_credit(address to, uint256 amount, address x) external {
        vm.assume(amount <= type(uint128).max);
        (uint256 locked, uint256 owed, uint256 balance) = (s.locked(), s.owed(), address(s).balance);
        (uint256 had, uint256 other) = (s.credit(to), s.credit(x));
        s.credit_(to, amount);
        assert(s.locked() + amount == locked && s.owed() == owed + amount && address(s).balance == balance);
        assert(s.credit(to) == had + amount && (x == to || s.credit(x) == other));
    }

    function check_judge(uint256 id, uint256 place, address x) external {
        Books memory b = open(id, x);
        address owner = s.juror(id, place).owner;
        (uint256 lost, uint256 pay) = s.judge(id, place);
        assert(lost == 0 || lost == SEAT);
        assert(pay <= uint256(b.task.fee) + b.task.bounty);
        leaves(b, id, lost, pay, owner, x);
    }

    function check_dismiss(uint256 id, uint256 place, bool giveUp, address x) external {
        Books memory b = open(id, x);
        address owner = s.juror(id, place).owner;
        uint256 pay = s.dismiss(id, place, giveUp);
        assert(pay <= b.task.fee);
        leaves(b, id, 0, pay, owner, x);
    }

    function leaves(Books memory b, uint256 id, uint256 lost, uint256 pay, address owner, address x) private view {
        unchecked {
            uint256 seatsGone = b.seats - seats();
            assert(seatsGone <= 1 && lost <= SEAT * seatsGone);
            assert(s.credited() == pay + SEAT * seatsGone - lost);
            assert(accounted(b, id, 0 - SEAT * seatsGone) & untouched(b, people(owner), x) != 0);
        }
    }

    // ---- messages that ask for a lot

    function check_words(uint256 id, bytes32 run, bytes32 truth, bool pin, address caller, address x) external {
        Books memory b = open(id, x);
        vm.prank(caller);
        if (pin) s.pin(id);
        else s.commit(id, run, truth);
        conserved(b, id, people(), x);
    }

    function check_show(uint256 id, bytes32 root, bytes32 salt, address caller, address x) external {
        Books memory b = open(id, x);
        vm.prank(caller);
        s.show(id, root, salt);
        conserved(b, id, people(b.task.submitter, b.task.solver), x);
    }

    // ---- moves and clocks, which may end a game

    function check_timeout(uint256 number, address caller, address x) external {
        ends(number, caller, abi.encodeCall(s.timeout, (number)), x);
    }

    function check_move(uint256 number, Position calldata position, address caller, address x) external {
        ends(number, caller, abi.encodeCall(s.move, (number, position, "")), x);
    }

    function ends(uint256 number, address caller, bytes memory message, address x) private {
        Settlement.Game memory g = s.game(number);
        Books memory b = open(g.task, x);
        vm.prank(caller);
        (bool done,) = address(s).call(message);
        vm.assume(done);
        conserved(b, g.task, people(BURN, b.task.solver, g.challenger), x);
    }

    // ---- messages that end a task

    function check_expire(uint256 id, address x) external {
        Books memory b = open(id, x);
        s.expire(id);
        conserved(b, id, people(BURN, b.task.submitter), x);
    }

    function check_expose(uint256 id, bytes32 r, address caller, address x) external {
        Books memory b = open(id, x);
        vm.prank(caller);
        s.expose(id, r);
        conserved(b, id, people(BURN, caller, b.task.submitter), x);
    }

    function check_settle(uint256 id, address x) external {
        Books memory b = open(id, x);
        s.settle(id);
        conserved(b, id, people(BURN, b.task.submitter, b.task.overturned ? b.task.winner : b.task.solver), x);
    }

    // ---- the books

    function open(uint256 id, address x) private returns (Books memory) {
        s.open(x);
        return books(id);
    }

    function seats() internal view override returns (uint256) {
        unchecked {
            return super.seats() - s.gone();
        }
    }

    function conserved(Books memory b, uint256 id, address[] memory who, address x) private view {
        unchecked {
            assert(accounted(b, id, 0 - s.credited()) & untouched(b, who, x) != 0);
        }
    }

    /// @dev Nothing moves but by credits, each of 128 bits, and by them nothing to anybody else.
    function untouched(Books memory b, address[] memory who, address x) private view returns (uint256 good) {
        good = when(s.locked() == b.locked && s.owed() == b.owed && address(s).balance == b.balance);
        good &= when(s.excess() == 0) & when(s.toWatched() & ~named(x, who) == 0);
    }

    function people(address a, address b) private pure returns (address[] memory who) {
        who = new address[](2);
        (who[0], who[1]) = (a, b);
    }

    function people(address a, address b, address c) private pure returns (address[] memory who) {
        who = new address[](3);
        (who[0], who[1], who[2]) = (a, b, c);
    }
}

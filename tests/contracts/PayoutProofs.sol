// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IReferee, Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {AnyReferee, SettlementBooks, Symbols} from "./SettlementBooks.sol";

/// @dev The settlement, but for three functions. A credit is written down instead of being booked: what it does when
/// it is booked is `check_credit`, and solvers do not come to an end with the credits of six people who may be the same. A lot
/// is any word, as halmos cannot read block hashes. The committee is drawn or not: drawing writes who sits where, which no
/// amount depends on in the same message.
contract Ledger is Settlement {
    Symbols private constant SVM = Symbols(address(uint160(uint256(keccak256("svm cheat code")))));

    address private _watched;
    /// @notice Credited since `open`, to all and to the address that it watches.
    uint256 public credited;
    uint256 public toWatched;
    /// @notice What of any credit is above 128 bits, and would not be booked in `locked` and `owed`.
    uint256 public excess;

    constructor(Rules memory r) Settlement(new AnyReferee(), address(0), address(0x5005), r) {}

    function open(address watched) external {
        (_watched, credited, toWatched, excess) = (watched, 0, 0, 0);
    }

    /// @notice A credit as it is booked.
    function book(address to, uint256 amount) external {
        super._credit(to, amount);
    }

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

    function _lot(uint256) internal pure override returns (bytes32) {
        return bytes32(SVM.createUint256("lot"));
    }

    function _draw(uint256, Task storage, bytes32) internal pure override returns (bool) {
        return SVM.createBool("drawn");
    }
}

/// @notice The sentences 1 to 3 of SettlementProofs.sol for the messages that credit several people, or ask for a block hash.
/// First what booking a credit does; then, of each message, that it changes `locked`, `owed` and the balance by nothing but
/// credits, that these sum up to what 3. says, that each fits into 128 bits, and that nobody else gets one.
/// @dev The committees of `settle`, `expire` and `expose` have up to three seats here; of larger ones there are too many
/// cases, and the invariants of Settlement.invariant.t.sol hold them.
/// @custom:halmos --loop 16
contract PayoutProofs is SettlementBooks {
    Ledger private s;

    function setUp() public {
        s = new Ledger(rules());
        anyState();
    }

    function subject() internal view override returns (Settlement) {
        return s;
    }

    function check_credit(address to, uint256 amount, address x) external {
        vm.assume(amount <= type(uint128).max);
        (uint256 locked, uint256 owed, uint256 balance) = (s.locked(), s.owed(), address(s).balance);
        (uint256 had, uint256 other) = (s.credit(to), s.credit(x));
        s.book(to, amount);
        assert(s.locked() + amount == locked && s.owed() == owed + amount && address(s).balance == balance);
        assert(s.credit(to) == had + amount && (x == to || s.credit(x) == other));
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

    function check_expire_0(uint256 id, address x) external {
        expires(id, 0, x);
    }

    function check_expire_1(uint256 id, address x) external {
        expires(id, 1, x);
    }

    function check_expire_2(uint256 id, address x) external {
        expires(id, 2, x);
    }

    function check_expire_3(uint256 id, address x) external {
        expires(id, 3, x);
    }

    function expires(uint256 id, uint256 committee, address x) private {
        Books memory b = open(id, x);
        vm.assume(b.task.seats == committee);
        s.expire(id);
        conserved(b, id, jurors(id, committee, people(BURN, b.task.submitter)), x);
    }

    function check_expose_0(uint256 id, bytes32 r, address caller, address x) external {
        exposes(id, 0, r, caller, x);
    }

    function check_expose_1(uint256 id, bytes32 r, address caller, address x) external {
        exposes(id, 1, r, caller, x);
    }

    function check_expose_2(uint256 id, bytes32 r, address caller, address x) external {
        exposes(id, 2, r, caller, x);
    }

    function check_expose_3(uint256 id, bytes32 r, address caller, address x) external {
        exposes(id, 3, r, caller, x);
    }

    function exposes(uint256 id, uint256 committee, bytes32 r, address caller, address x) private {
        Books memory b = open(id, x);
        vm.assume(b.task.seats == committee);
        vm.prank(caller);
        s.expose(id, r);
        conserved(b, id, jurors(id, committee, people(BURN, caller, b.task.submitter)), x);
    }

    function check_settle_0(uint256 id, address x) external {
        settles(id, 0, x);
    }

    function check_settle_1(uint256 id, address x) external {
        settles(id, 1, x);
    }

    function check_settle_2(uint256 id, address x) external {
        settles(id, 2, x);
    }

    function check_settle_3(uint256 id, address x) external {
        settles(id, 3, x);
    }

    function settles(uint256 id, uint256 committee, address x) private {
        Books memory b = open(id, x);
        vm.assume(b.task.seats == committee);
        s.settle(id);
        address gainer = b.task.overturned ? b.task.winner : b.task.solver;
        conserved(b, id, jurors(id, committee, people(BURN, b.task.submitter, gainer)), x);
    }

    // ---- the books

    function open(uint256 id, address x) private returns (Books memory) {
        s.open(x);
        return books(id);
    }

    function conserved(Books memory b, uint256 id, address[] memory who, address x) private view {
        unchecked {
            uint256 good = when(s.locked() == b.locked && s.owed() == b.owed && address(s).balance == b.balance);
            good &= when(s.excess() == 0) & when(s.toWatched() & ~named(x, who) == 0);
            assert(good & accounted(b, id, 0 - s.credited()) != 0);
        }
    }

    /// @dev `who`, and the owners of the seats of a task.
    function jurors(uint256 id, uint256 committee, address[] memory who) private view returns (address[] memory all) {
        all = new address[](who.length + committee);
        for (uint256 i = 0; i < who.length; ++i) {
            all[i] = who[i];
        }
        for (uint256 i = 0; i < committee; ++i) {
            all[who.length + i] = s.juror(id, i).owner;
        }
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

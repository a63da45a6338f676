// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {Runs, SettlementFixture} from "./SettlementFixture.sol";

/// @dev A token with every habit that tokens have, one at a time.
contract Token {
    enum Habit {
        None,
        AnswersNothing,
        TakesAFee,
        AnswersFalse,
        Lies,
        CallsBack,
        HidesBalances,
        CutsBalances
    }

    mapping(address => uint256) private _balances;
    mapping(address => mapping(address => uint256)) public allowance;
    Habit public habit;
    Settlement public target;

    function setHabit(Habit to, Settlement target_) external {
        (habit, target) = (to, target_);
    }

    function balanceOf(address of_) external view returns (uint256 held) {
        require(habit != Habit.HidesBalances, "hidden");
        held = _balances[of_];
        if (habit == Habit.CutsBalances) {
            assembly ("memory-safe") {
                mstore(0, held)
                return(1, 31)
            }
        }
    }

    function mint(address to, uint256 amount) external {
        _balances[to] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
        _answer();
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        if (habit == Habit.CallsBack) target.enroll();
        _move(from, to, amount);
        _answer();
    }

    function _move(address from, address to, uint256 amount) private {
        if (habit == Habit.Lies || habit == Habit.AnswersFalse) return;
        _balances[from] -= amount;
        _balances[to] += habit == Habit.TakesAFee ? amount - amount / 100 : amount;
    }

    function _answer() private view {
        if (habit == Habit.AnswersNothing) return;
        bool good = habit != Habit.AnswersFalse;
        assembly ("memory-safe") {
            mstore(0, good)
            return(0, 32)
        }
    }
}

contract SettlementTokensTest is SettlementFixture {
    Token private token;

    function setUp() public override {
        super.setUp();
        token = new Token();
        s = new Settlement(referee, address(token), GUARDIAN, rules());
        token.mint(SUBMITTER, 100 ether);
        vm.prank(SUBMITTER);
        token.approve(address(s), 100 ether);
    }

    function post() private returns (uint256 id) {
        vm.prank(SUBMITTER);
        id = s.post(Runs.digest(), 1, terms());
    }

    function roundTrip() private {
        uint256 id = post();
        eq(escrow(), token.balanceOf(address(s)));
        vm.prank(SUBMITTER);
        s.cancel(id);
        vm.prank(SUBMITTER);
        s.withdraw(BOB);
        eq(escrow(), token.balanceOf(BOB));
        eq(0, uint256(s.locked()) + s.owed());
    }

    function testTokensAreTakenAndPaid() public {
        roundTrip();
    }

    function testTokensThatAnswerNothingWork() public {
        token.setHabit(Token.Habit.AnswersNothing, s);
        roundTrip();
    }

    function testTokensWithAFeeAreRefused() public {
        token.setHabit(Token.Habit.TakesAFee, s);
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        post();
    }

    function testTokensThatAnswerFalseAreRefused() public {
        token.setHabit(Token.Habit.AnswersFalse, s);
        vm.expectPartialRevert(Settlement.TransferFailed.selector);
        post();
    }

    function testTokensThatLieAreRefused() public {
        token.setHabit(Token.Habit.Lies, s);
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        post();
    }

    function testTokensThatDoNotTellBalancesAreRefused() public {
        Token.Habit[2] memory habits = [Token.Habit.HidesBalances, Token.Habit.CutsBalances];
        for (uint256 i = 0; i < 2; ++i) {
            token.setHabit(habits[i], s);
            vm.expectPartialRevert(Settlement.TransferFailed.selector);
            post();
        }
    }

    function testTokensWithoutAllowanceAreRefused() public {
        vm.expectPartialRevert(Settlement.TransferFailed.selector);
        s.enroll();
    }

    function testTokensThatCallBackAreRefused() public {
        token.setHabit(Token.Habit.CallsBack, s);
        vm.expectPartialRevert(Settlement.TransferFailed.selector);
        post();
    }

    function testTokensThatFailOnPaymentKeepTheCredit() public {
        uint256 id = post();
        vm.prank(SUBMITTER);
        s.cancel(id);
        token.setHabit(Token.Habit.AnswersFalse, s);
        vm.prank(SUBMITTER);
        vm.expectPartialRevert(Settlement.TransferFailed.selector);
        s.withdraw(BOB);
        eq(escrow(), s.credit(SUBMITTER));
    }

    function testEtherIsRefusedWhereATokenIsTheAsset() public {
        vm.prank(SUBMITTER);
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        s.post{value: 1}(Runs.digest(), 1, terms());
    }

    function testMoreThanEverIsRefused() public {
        Settlement.Terms memory t = terms();
        (t.stake, t.reward, t.seats) = (type(uint128).max, type(uint128).max / 2, 16);
        (t.bounty, t.fee) = (type(uint128).max / 33, type(uint128).max / 33 / 1000 * 52);
        vm.prank(SUBMITTER);
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        s.post(Runs.digest(), 1, t);
    }
}

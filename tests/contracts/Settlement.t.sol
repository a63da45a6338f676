// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {IReferee, Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Runs, SettlementFixture} from "./SettlementFixture.sol";

/// @dev Every end of a task, who gets what, and the attacks of docs/settlement.md section 6.
contract SettlementTest is SettlementFixture {
    // ---------------------------------------------------------------------------------------------- ends of a task

    function testHonestRunIsPaid() public {
        uint256 id = approved(false, rightRoot());
        address[3] memory jurors = owners(id);
        settleLater(id);
        gained(SOLVER, 1 ether);
        gained(SUBMITTER, -1 ether - 0.3 ether);
        for (uint256 i = 0; i < 3; ++i) {
            eq(0.1 ether, uint256(seatGain(jurors[i])));
        }
        yes(s.task(id).state == Settlement.State.Closed);
        allFree();
        conserved();
    }

    function testHonestRunWithADecoyIsPaidAndTheBountiesToo() public {
        uint256 id = disclosed(true, rightRoot(), [rightRoot(), otherRoot(), rightRoot()]);
        address[3] memory jurors = owners(id);
        settleLater(id);
        gained(SOLVER, 1 ether);
        eq(1.1 ether, uint256(seatGain(jurors[0])));
        eq(1 ether, uint256(seatGain(jurors[1])));
        gained(SUBMITTER, -1 ether - 3.2 ether);
    }

    function testLazyVerifierLosesItsSeatToADecoy() public {
        uint256 id = disclosed(true, rightRoot(), [decoyRoot(), rightRoot(), rightRoot()]);
        address lazy = s.juror(id, 0).owner;
        settleLater(id);
        yes(seatGain(lazy) == -10 ether);
        eq(10 ether, s.credit(s.BURN()));
        gained(SUBMITTER, -1 ether - 2.2 ether);
        gained(SOLVER, 1 ether);
    }

    function testUndeclaredSealIsSlashed() public {
        uint256 id = shown(true, rightRoot());
        for (uint256 i = 0; i < 3; ++i) {
            attest(id, i, decoyRoot());
        }
        address[3] memory jurors = owners(id);
        disclose(id, true, rightRoot());
        settleLater(id);
        for (uint256 i = 0; i < 3; ++i) {
            yes(seatGain(jurors[i]) == -10 ether);
        }
        eq(30 ether, s.credit(s.BURN()));
    }

    function testFalseAlarmForfeitsTheFee() public {
        uint256 id = disclosed(false, rightRoot(), [otherRoot(), rightRoot(), rightRoot()]);
        address grump = s.juror(id, 0).owner;
        settleLater(id);
        yes(seatGain(grump) == 0);
        gained(SUBMITTER, -1.2 ether);
        gained(SOLVER, 1 ether);
    }

    function testAbsentVerifierGivesItsSeatUp() public {
        uint256 id = shown(false, rightRoot());
        attest(id, 0, rightRoot());
        address[3] memory jurors = owners(id);
        disclose(id, false, rightRoot());
        declare(id, 0, rightRoot());
        settleLater(id);
        yes(seatGain(jurors[1]) == 0);
        eq(START, jurors[1].balance + s.credit(jurors[1]));
        eq(4, enrolled() + 1);
    }

    function testWrongRunIsOverturned() public {
        uint256 id = disclosed(false, wrongRoot(), [wrongRoot(), rightRoot(), wrongRoot()]);
        address[3] memory jurors = owners(id);
        uint256 g = challenge(id, ALICE);
        win(g, ALICE);
        settleLater(id);
        gained(SOLVER, -64 ether);
        gained(ALICE, 42 ether); // half of the stake and of two seats
        eq(42 ether, s.credit(s.BURN()));
        yes(seatGain(jurors[0]) == -10 ether && seatGain(jurors[2]) == -10 ether);
        yes(seatGain(jurors[1]) == 0.1 ether);
        gained(SUBMITTER, -0.1 ether);
        conserved();
    }

    function testSilentSolverLosesTheGame() public {
        uint256 id = approved(false, wrongRoot());
        uint256 g = challenge(id, ALICE);
        skipTime(1 days + 1);
        s.timeout(g);
        settleLater(id);
        gained(SOLVER, -64 ether);
        yes(s.task(id).overturned);
    }

    function testGriefingChallengerPaysTheSolver() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        lose(g, ALICE);
        settleLater(id);
        gained(ALICE, -0.2 ether);
        gained(SOLVER, 1.1 ether);
        eq(0.1 ether, s.credit(s.BURN()));
    }

    function testSilentChallengerLosesItsBond() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        vm.prank(SOLVER);
        s.move(g, Runs.begin(rightRoot()), Runs.openStep(Runs.RIGHT, keccak256("state")));
        skipTime(1 days + 1);
        s.timeout(g);
        settleLater(id);
        gained(ALICE, -0.2 ether);
        gained(SOLVER, 1.1 ether);
    }

    function testWholeLogGame() public {
        uint256 id = approved(false, wrongRoot());
        vm.prank(ALICE);
        uint256 g = s.challenge{value: 0.2 ether}(id);
        Position memory p = Runs.begin(wrongRoot());
        (p.stage, p.size) = (0, 1);
        p = step(g, p, SOLVER, Runs.showLog(Runs.WRONG, keccak256("state")));
        p = step(g, p, ALICE, Runs.pick(Runs.WRONG, keccak256("state")));
        p = step(g, p, SOLVER, Runs.openStep(Runs.WRONG, keccak256("state")));
        p = step(g, p, ALICE, Runs.contestScalars());
        eq(20, p.stage);
        yes(s.task(id).overturned && s.game(g).over);
    }

    function testCancelledTaskGivesTheEscrowBack() public {
        uint256 id = posted();
        vm.expectPartialRevert(Settlement.NotYours.selector);
        s.cancel(id);
        vm.prank(SUBMITTER);
        s.cancel(id);
        gained(SUBMITTER, 0);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.WrongState.selector);
        s.claim{value: 64 ether}(id, 0);
    }

    function testTooFewSeatsVoidTheTask() public {
        uint256 id = committed(false, rightRoot());
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(verifiers[i]);
            s.resign(i);
        }
        vm.prank(SOLVER);
        s.show(id, rightRoot(), SALT);
        gained(SOLVER, 0);
        gained(SUBMITTER, 0);
        allFree();
        yes(s.task(id).state == Settlement.State.Closed);
    }

    function testPoolWithoutSeatsVoidsTheTask() public {
        for (uint256 i = 0; i < 5; ++i) {
            vm.prank(verifiers[i]);
            s.resign(i);
        }
        Settlement empty = s;
        s = new Settlement(referee, address(0), GUARDIAN, rules());
        uint256 id = shown(false, rightRoot());
        yes(s.task(id).state == Settlement.State.Closed);
        s = empty;
    }

    // ---------------------------------------------------------------------------------------------- silence of the solver

    function testSilenceBurnsTheStake() public {
        uint256 id = claimed(false);
        s.pin(id);
        skipTime(3 days - 100);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.expire(id);
        skipTime(200);
        bytes32 run = Runs.commitment(SOLVER, SALT, rightRoot());
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.commit(id, run, 0);
        s.expire(id);
        gained(SOLVER, -64 ether);
        eq(64 ether, s.credit(s.BURN()));
        gained(SUBMITTER, 0);

        id = shown(true, rightRoot()); // it has seen the lot, and does not disclose
        attest(id, 0, decoyRoot());
        address[3] memory jurors = owners(id);
        skipTime(1 days + 2 hours);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.expire(id);
        skipTime(12);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.disclose(id, secret, rightRoot(), SALT2);
        s.expire(id);
        gained(SOLVER, -128 ether);
        eq(128 ether, s.credit(s.BURN()));
        gained(SUBMITTER, -0.1 ether);
        yes(seatGain(jurors[0]) == 0.1 ether && seatGain(jurors[1]) == 0);
        allFree();
        eq(3, enrolled()); // who did not attest has given its seat up
    }

    function testLotsAreForgottenAfter256Blocks() public {
        uint256 id = claimed(false); // three blocks after the claim; its lot is that of block two
        skipBlocks(255);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.expire(id);
        skipBlocks(1);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.pin(id);
        s.expire(id);
        id = committed(false, rightRoot());
        skipBlocks(256);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.show(id, rightRoot(), SALT);
        s.expire(id);
        gained(SOLVER, -128 ether);
    }

    function testLotsAreNotKnownBeforeTheirBlock() public {
        uint256 id = posted();
        vm.prank(SOLVER);
        s.claim{value: 64 ether}(id, 0);
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectPartialRevert(Settlement.TooEarly.selector);
            s.pin(id);
            skipBlocks(1);
        }
        s.pin(id);
        bytes32 chance = s.task(id).chance;
        eq(uint256(blockhash(vm.getBlockNumber() - 1)), uint256(chance));
        skipBlocks(300);
        s.pin(id); // kept, and not drawn again
        yes(s.task(id).chance == chance);
    }

    function testPinnedLotOutlivesTheBlockHash() public {
        uint256 id = claimed(false);
        s.pin(id);
        skipBlocks(2000);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.expire(id);
        vm.prank(SOLVER);
        s.commit(id, bytes32(uint256(1)), 0);
    }

    // ---------------------------------------------------------------------------------------------- commitments

    function testCopiedCommitmentDoesNotOpen() public {
        uint256 id = posted();
        bytes32 seal = chanceSeal(id, SOLVER, "r"); // another solver's seal, copied from the mempool
        vm.prank(ALICE);
        s.claim{value: 64 ether}(id, seal);
        skipBlocks(3);
        bytes32 run = Runs.commitment(SOLVER, SALT, rightRoot()); // and its commitment
        vm.prank(ALICE);
        s.commit(id, run, 0);
        skipBlocks(3);
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.DoesNotOpen.selector);
        s.show(id, rightRoot(), SALT);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.NotYours.selector);
        s.show(id, rightRoot(), SALT);
    }

    function testCopiedAttestationDoesNotOpen() public {
        uint256 id = shown(false, rightRoot());
        attest(id, 0, rightRoot());
        (address honest, address copier) = (s.juror(id, 0).owner, s.juror(id, 1).owner);
        bytes32 seal = attestSeal(id, honest, rightRoot());
        vm.prank(copier);
        s.attest(id, 1, seal);
        disclose(id, false, rightRoot());
        vm.prank(copier);
        vm.expectPartialRevert(Settlement.DoesNotOpen.selector);
        s.declare(id, 1, rightRoot(), SALT);
        vm.prank(copier);
        vm.expectPartialRevert(Settlement.NotYours.selector);
        s.declare(id, 0, rightRoot(), SALT);
        declare(id, 0, rightRoot());
    }

    function testDecoyMustDiffer() public {
        uint256 id = claimed(true);
        bytes32 run = Runs.commitment(SOLVER, SALT, rightRoot());
        bytes32 truth = truthSeal(secret, SALT2, rightRoot());
        vm.prank(SOLVER);
        s.commit(id, run, truth);
        skipBlocks(3);
        vm.prank(SOLVER);
        s.show(id, rightRoot(), SALT);
        skipTime(1 days + 1);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.SameRun.selector);
        s.disclose(id, secret, rightRoot(), SALT2);
    }

    function testDecoyWithoutTheLotIsNoWayOut() public {
        uint256 id = claimed(false); // no decoy was drawn, a wrong run is shown with another one hidden
        bytes32 run = Runs.commitment(SOLVER, SALT, wrongRoot());
        bytes32 truth = truthSeal(secret, SALT2, rightRoot());
        vm.prank(SOLVER);
        s.commit(id, run, truth);
        skipBlocks(3);
        vm.prank(SOLVER);
        s.show(id, wrongRoot(), SALT);
        skipTime(1 days + 1);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.DoesNotOpen.selector);
        s.disclose(id, secret, rightRoot(), SALT2);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.DoesNotOpen.selector);
        s.disclose(id, "another secret", rightRoot(), SALT2);
    }

    function testRightRunOfADecoyIsFixedAtTheCommitment() public {
        uint256 id = shown(true, rightRoot());
        skipTime(1 days + 1);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.DoesNotOpen.selector);
        s.disclose(id, secret, wrongRoot(), SALT2);
    }

    function testOverturnedTruthSparesWhoApprovedTheDecoy() public {
        uint256 id = disclosed(true, wrongRoot(), [decoyRoot(), otherRoot(), wrongRoot()]);
        address[3] memory jurors = owners(id);
        win(challenge(id, ALICE), ALICE);
        settleLater(id);
        yes(seatGain(jurors[0]) == 0.1 ether && seatGain(jurors[1]) == 0.1 ether);
        yes(seatGain(jurors[2]) == -10 ether);
        gained(ALICE, 37 ether);
    }

    function testExposedSecretSlashes() public {
        uint256 id = claimed(false);
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.DoesNotOpen.selector);
        s.expose(id, "a guess");
        vm.prank(ALICE);
        s.expose(id, secret);
        gained(SOLVER, -64 ether);
        gained(ALICE, 32 ether);
        gained(SUBMITTER, 0);
        id = shown(true, rightRoot());
        attest(id, 1, rightRoot());
        address verifier = s.juror(id, 1).owner;
        vm.prank(ALICE);
        s.expose(id, secret);
        yes(seatGain(verifier) == 0.1 ether);
        yes(seatGain(s.juror(id, 0).owner) == 0); // had not attested yet
        eq(5, enrolled());
        allFree();
        id = shown(false, rightRoot()); // due, and so no secret any more
        skipTime(1 days + 1);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.expose(id, secret);
    }

    // ---------------------------------------------------------------------------------------------- committee

    function testCommitteeIsDrawnByTheBeacon() public {
        uint256 id = committed(false, rightRoot());
        bytes32 beacon = blockhash(vm.getBlockNumber() - 1);
        vm.prank(SOLVER);
        s.show(id, rightRoot(), SALT);
        uint256 j = 0;
        bool[5] memory taken;
        for (uint256 i = 0; i < 3; ++i) {
            uint256 lot;
            do {
                lot = uint256(keccak256(abi.encode(beacon, id, j++))) % 5;
            } while (taken[lot]);
            taken[lot] = true;
            eq(lot, s.juror(id, i).seat);
            eq(id, s.seats()[lot].task);
        }
    }

    function testSeatsEnrolledAfterTheCommitmentAreNotDrawn() public {
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(verifiers[i]);
            s.resign(i);
        }
        uint256 id = committed(false, rightRoot());
        // two take the empty seats, the rest makes the pool longer
        for (uint256 i = 0; i < 20; ++i) {
            vm.prank(ALICE);
            s.enroll{value: 10 ether}();
        }
        vm.prank(SOLVER);
        s.show(id, rightRoot(), SALT);
        for (uint256 i = 0; i < 3; ++i) {
            yes(s.juror(id, i).owner != ALICE && s.juror(id, i).owner != address(0));
        }
    }

    function testSeatOnACommitteeCannotLeave() public {
        uint256 id = shown(false, rightRoot());
        Settlement.Juror memory j = s.juror(id, 0);
        vm.prank(j.owner);
        vm.expectPartialRevert(Settlement.SeatTaken.selector);
        s.resign(j.seat);
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.NotYours.selector);
        s.resign(j.seat);
    }

    function testSeatSitsOnOneCommittee() public {
        shown(false, rightRoot());
        uint256 second = shown(false, rightRoot()); // five seats, three taken: two are not enough
        yes(s.task(second).state == Settlement.State.Closed);
        allFreeBut(3);
    }

    function testAttestationsAreTimedAndSingle() public {
        uint256 id = shown(false, rightRoot());
        attest(id, 0, rightRoot());
        address again = s.juror(id, 0).owner;
        address late = s.juror(id, 1).owner;
        vm.prank(again);
        vm.expectPartialRevert(Settlement.DoesNotOpen.selector);
        s.attest(id, 0, "seal");
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.NotYours.selector);
        s.attest(id, 1, "seal");
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.disclose(id, secret, 0, 0);
        skipTime(1 days + 1);
        vm.prank(late);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.attest(id, 1, "seal");
        vm.prank(SOLVER);
        s.disclose(id, secret, 0, 0);
        skipTime(2 days + 1);
        vm.prank(again);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.declare(id, 0, rightRoot(), SALT);
    }

    // ---------------------------------------------------------------------------------------------- games

    function testLosingChallengerShieldsNobody() public {
        uint256 id = approved(false, wrongRoot());
        uint256 sybil = challenge(id, BOB);
        uint256 honest = challenge(id, ALICE);
        vm.prank(SOLVER);
        s.move(sybil, Runs.begin(wrongRoot()), Runs.openStep(Runs.WRONG, keccak256("state")));
        skipTime(12 hours);
        win(honest, ALICE);
        yes(s.task(id).overturned && s.task(id).winner == ALICE);
    }

    function testLostSybilGameShieldsNobody() public {
        uint256 id = approved(false, wrongRoot());
        uint256 sybil = challenge(id, BOB);
        vm.prank(SOLVER);
        s.move(sybil, Runs.begin(wrongRoot()), Runs.openStep(Runs.WRONG, keccak256("state")));
        skipTime(1 days + 1); // the friend lets its clock run out
        s.timeout(sybil);
        uint256 honest = challenge(id, ALICE);
        win(honest, ALICE);
        settleLater(id);
        gained(BOB, -0.2 ether);
        gained(ALICE, 47 ether);
    }

    function testSelfChallengeCostsTheBurnedShare() public {
        uint256 id = approved(false, wrongRoot());
        uint256 self = challenge(id, BOB);
        uint256 honest = challenge(id, ALICE);
        win(self, BOB);
        Position memory p = Runs.begin(wrongRoot());
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.GameOver.selector);
        s.move(honest, p, "");
        vm.expectPartialRevert(Settlement.GameOver.selector);
        s.timeout(honest);
        s.release(honest);
        vm.expectPartialRevert(Settlement.GameOver.selector);
        s.release(honest);
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.GameOver.selector);
        s.challenge{value: 0.2 ether}(id);
        settleLater(id);
        gained(ALICE, 0);
        yes(gain(SOLVER) + gain(BOB) == 15 ether - 32 ether); // half of three seats that approved, less half of the stake
    }

    function testGamesAreIndependent() public {
        uint256 id = approved(false, rightRoot());
        uint256 one = challenge(id, ALICE);
        uint256 two = challenge(id, BOB);
        skipTime(12 hours);
        lose(one, ALICE);
        eq(12 hours, 1 days - s.game(one).solverLeft);
        eq(1 days, s.game(two).solverLeft); // charged when it moves there, and there alone
        skipTime(11 hours);
        lose(two, BOB);
        eq(1 hours, s.game(two).solverLeft);
        settleLater(id);
        gained(SOLVER, 1.2 ether);
    }

    function testLastSecondMoveLeavesTheOtherItsClock() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        Position memory p = Runs.begin(rightRoot());
        bytes memory move = Runs.openStep(Runs.RIGHT, keccak256("state"));
        skipTime(1 days);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.timeout(g);
        p = step(g, p, SOLVER, move);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.timeout(g);
        skipTime(1 days);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.timeout(g);
        step(g, p, ALICE, Runs.contestScalars());
    }

    function testNoTimeoutBeforeTheClockIsOut() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        skipTime(1 days);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.timeout(g);
        skipTime(1);
        Position memory p = Runs.begin(rightRoot());
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        s.move(g, p, Runs.openStep(Runs.RIGHT, keccak256("state")));
        s.timeout(g);
        yes(s.task(id).overturned);
    }

    /// forge-config: default.fuzz.runs = 256
    function testFuzzEveryGameEndsWithinTwoClocks(uint32 a, uint32 b) public {
        uint256 id = approved(false, rightRoot());
        uint256 begun = vm.getBlockTimestamp();
        uint256 g = challenge(id, ALICE);
        vm.warp(begun + a % (1 days + 1));
        Position memory p = step(g, Runs.begin(rightRoot()), SOLVER, Runs.openStep(Runs.RIGHT, keccak256("state")));
        vm.warp(vm.getBlockTimestamp() + b % (1 days + 1));
        step(g, p, ALICE, Runs.contestScalars());
        yes(vm.getBlockTimestamp() <= begun + 2 days);
        eq(1 days - a % (1 days + 1), s.game(g).solverLeft);
        eq(1 days - b % (1 days + 1), s.game(g).challengerLeft);
        vm.warp(begun + 2 days + 1);
        s.settle(id);
    }

    function testEveryGameEndsWithinTwoClocks() public {
        uint256 id = approved(false, rightRoot());
        skipTime(2 days - 12);
        uint256 g = challenge(id, ALICE); // at the last moment
        skipTime(12);
        vm.prank(BOB);
        vm.expectPartialRevert(Settlement.TooLate.selector);
        skipTime(1);
        s.challenge{value: 0.2 ether}(id);
        vm.expectPartialRevert(Settlement.GamesOpen.selector);
        s.settle(id);
        skipTime(2 days);
        s.timeout(g);
        s.settle(id);
    }

    function testReplayedMoveIsRefused() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        Position memory p = Runs.begin(rightRoot());
        bytes memory move = Runs.openStep(Runs.RIGHT, keccak256("state"));
        step(g, p, SOLVER, move);
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.WrongPosition.selector);
        s.move(g, p, move);
        uint256 other = challenge(id, BOB);
        p = referee.advance(p, move);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.WrongPosition.selector); // another game's position
        s.move(other, p, Runs.contestScalars());
    }

    function testOnlyWhoseTurnItIsMoves() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        Position memory p = Runs.begin(rightRoot());
        bytes memory move = Runs.openStep(Runs.RIGHT, keccak256("state"));
        address[2] memory others = [ALICE, BOB];
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(others[i]);
            vm.expectPartialRevert(Settlement.NotYours.selector);
            s.move(g, p, move);
        }
        p = step(g, p, SOLVER, move);
        others = [SOLVER, BOB];
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(others[i]);
            vm.expectPartialRevert(Settlement.NotYours.selector);
            s.move(g, p, Runs.contestScalars());
        }
    }

    function testAnyoneMayProve() public {
        s = new Settlement(new Proving(), address(0), GUARDIAN, rules());
        for (uint256 i = 0; i < 5; ++i) {
            vm.prank(verifiers[i]);
            s.enroll{value: 10 ether}();
        }
        skipBlocks(1);
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        Position memory p = Runs.begin(rightRoot());
        vm.prank(SOLVER);
        s.move(g, p, "");
        p.stage = 18;
        vm.prank(BOB);
        s.move(g, p, "");
        yes(s.game(g).over && s.task(id).overturned);
        gained(ALICE, 0); // the bond is back; the rest comes with `settle`, and is the challenger's, not the helper's
        settleLater(id);
        gained(ALICE, 47 ether);
    }

    function testTurnsAreThoseOfTheStages() public {
        Staged staged = new Staged();
        s = new Settlement(staged, address(0), GUARDIAN, rules());
        for (uint256 i = 0; i < 5; ++i) {
            vm.prank(verifiers[i]);
            s.enroll{value: 10 ether}();
        }
        skipBlocks(1);
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        Position memory p = Runs.begin(rightRoot());
        bool[18] memory challengers;
        (challengers[1], challengers[3], challengers[5], challengers[7]) = (true, true, true, true);
        (challengers[10], challengers[12], challengers[15], challengers[17]) = (true, true, true, true);
        uint8[17] memory order = [uint8(0), 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
        address mover = SOLVER; // stage 2
        for (uint256 i = 0; i < order.length; ++i) {
            Position memory found = p;
            vm.prank(mover == SOLVER ? ALICE : SOLVER);
            vm.expectPartialRevert(Settlement.NotYours.selector);
            s.move(g, found, abi.encode(order[i]));
            p = stepOn(g, found, mover, abi.encode(order[i]));
            mover = challengers[order[i]] ? ALICE : SOLVER;
        }
    }

    /// @dev Its errors as they are; what is no position is refused.
    function testAnswersOfTheRefereeAreHandedOn() public {
        s = new Settlement(IReferee(address(new Odd())), address(0), GUARDIAN, rules());
        for (uint256 i = 0; i < 5; ++i) {
            vm.prank(verifiers[i]);
            s.enroll{value: 10 ether}();
        }
        skipBlocks(1);
        uint256 g = challenge(approved(false, rightRoot()), ALICE);
        vm.prank(SOLVER);
        vm.expectRevert(abi.encodeWithSelector(Odd.Says.selector, 7));
        s.move(g, Runs.begin(rightRoot()), abi.encode(uint256(7)));
        uint256[3] memory sizes = [uint256(0x420), 0x460, 0x440]; // a position has 0x440
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(SOLVER);
            if (i < 2) vm.expectPartialRevert(Settlement.BadReferee.selector);
            s.move(g, Runs.begin(rightRoot()), abi.encode(sizes[i]));
        }
    }

    function testStepMustBeInTheLog() public {
        uint256 id = approved(false, rightRoot());
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.BadSteps.selector);
        s.challengeStep{value: 0.2 ether}(id, 1);
    }

    // ---------------------------------------------------------------------------------------------- states go forward

    function testNothingIsSettledTwice() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        lose(g, ALICE);
        vm.expectPartialRevert(Settlement.GameOver.selector);
        s.timeout(g);
        vm.expectPartialRevert(Settlement.GameOver.selector);
        s.release(g);
        vm.expectPartialRevert(Settlement.TooEarly.selector);
        s.settle(id);
        settleLater(id);
        vm.expectPartialRevert(Settlement.WrongState.selector);
        s.settle(id);
        vm.expectPartialRevert(Settlement.WrongState.selector);
        s.expire(id);
        vm.expectPartialRevert(Settlement.WrongState.selector);
        s.expose(id, secret);
        vm.prank(SUBMITTER);
        vm.expectPartialRevert(Settlement.WrongState.selector);
        s.cancel(id);
    }

    function testReleaseNeedsAnOverturnedRun() public {
        uint256 id = approved(false, rightRoot());
        uint256 g = challenge(id, ALICE);
        vm.expectPartialRevert(Settlement.NotOverturned.selector);
        s.release(g);
    }

    function testReleaseAfterSettlement() public {
        uint256 id = approved(false, wrongRoot());
        uint256 one = challenge(id, ALICE);
        uint256 two = challenge(id, BOB);
        win(one, ALICE);
        settleLater(id);
        s.release(two);
        gained(BOB, 0);
    }

    // ---------------------------------------------------------------------------------------------- terms, rules, guardian

    function testTermsBelowTheFloorsAreRefused() public {
        Settlement.Terms[13] memory bad;
        bytes32[13] memory what = [
            bytes32("seats"),
            "seats",
            "reward",
            "stake",
            "bond",
            "stake",
            "fee",
            "bounty",
            "clock",
            "solveTime",
            "attestTime",
            "discloseTime",
            "stake"
        ];
        for (uint256 i = 0; i < 13; ++i) {
            bad[i] = terms();
        }
        bad[0].seats = 2;
        bad[1].seats = 17;
        bad[2].reward = 0;
        bad[3].reward = 32 ether + 1;
        bad[4].bond = 0.1 ether - 1;
        (bad[5].reward, bad[5].stake) = (0.05 ether, 0.19 ether);
        bad[6].fee = 0;
        bad[7].fee = 0.6 ether;
        bad[8].clock = 1 hours - 1;
        bad[9].solveTime = 1 hours - 1;
        bad[10].attestTime = 1 hours - 1;
        bad[11].discloseTime = 1 hours - 1;
        bad[12].bounty = 11 ether; // three of them are more than what is burned
        for (uint256 i = 0; i < 13; ++i) {
            vm.prank(SUBMITTER);
            vm.expectRevert(abi.encodeWithSelector(Settlement.BelowFloor.selector, what[i]));
            s.post{value: escrow()}(bytes32(0), 1, bad[i]);
        }
        Settlement.Terms memory t = terms();
        t.challengeTime = 0;
        vm.prank(SUBMITTER);
        vm.expectRevert(abi.encodeWithSelector(Settlement.BelowFloor.selector, bytes32("challengeTime")));
        s.post{value: escrow()}(bytes32(0), 1, t);
    }

    function testStepsAreBounded() public {
        uint64[2] memory bad = [0, uint64(1 << 40) + 1];
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectPartialRevert(Settlement.BadSteps.selector);
            s.post(bytes32(0), bad[i], terms());
        }
    }

    function testRulesAreChecked() public {
        for (uint256 i = 0; i < 9; ++i) {
            Settlement.Rules memory r = rules();
            if (i == 0) r.seat = 0;
            if (i == 1) r.minBond = 0;
            if (i == 2) r.rate = 0;
            if (i == 3) r.burn = 0;
            if (i == 4) r.minSeats = 0;
            if (i == 5) r.minSeats = 17;
            if (i == 6) r.minClock = 0;
            if (i == 7) r.minWindow = 0;
            if (i == 8) r.delay = 0;
            vm.expectPartialRevert(Settlement.BadRules.selector);
            new Settlement(referee, address(0), GUARDIAN, r);
        }
        vm.expectPartialRevert(Settlement.BadRules.selector);
        new Settlement(IReferee(address(1)), address(0), GUARDIAN, rules());
        vm.expectPartialRevert(Settlement.BadRules.selector);
        new Settlement(referee, address(1), GUARDIAN, rules());
        yes(keccak256(abi.encode(s.rules())) == keccak256(abi.encode(rules())));
    }

    function testGuardianStopsNewTasksOnly() public {
        uint256 id = committed(false, rightRoot());
        uint256 waiting = posted();
        vm.prank(SUBMITTER);
        vm.expectPartialRevert(Settlement.NotYours.selector);
        s.pause(true);
        vm.prank(GUARDIAN);
        s.pause(true);
        vm.prank(SUBMITTER);
        vm.expectPartialRevert(Settlement.Paused.selector);
        s.post{value: escrow()}(bytes32(0), 1, terms());
        vm.prank(SOLVER);
        s.show(id, rightRoot(), SALT);
        for (uint256 i = 0; i < 3; ++i) {
            attest(id, i, rightRoot());
        }
        disclose(id, false, rightRoot());
        lose(challenge(id, ALICE), ALICE);
        settleLater(id);
        vm.prank(SOLVER);
        s.claim{value: 64 ether}(waiting, "seal");
        vm.prank(SOLVER);
        s.withdraw(SOLVER);
        vm.prank(GUARDIAN);
        vm.expectPartialRevert(Settlement.NoCredit.selector);
        s.withdraw(GUARDIAN);
        vm.prank(GUARDIAN);
        s.pause(false);
        posted();
    }

    // ---------------------------------------------------------------------------------------------- money

    function testWrongAmountsAreRefused() public {
        vm.prank(SUBMITTER);
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        s.post{value: 1 ether}(bytes32(0), 1, terms());
        uint256 id = posted();
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        s.claim{value: 64 ether + 1}(id, "seal");
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        s.enroll();
        id = approved(false, rightRoot());
        vm.prank(ALICE);
        vm.expectPartialRevert(Settlement.WrongAmount.selector);
        s.challenge(id);
    }

    function testWithdrawPaysOnce() public {
        uint256 id = approved(false, rightRoot());
        settleLater(id);
        uint256 before = BOB.balance;
        vm.prank(SOLVER);
        s.withdraw(BOB);
        eq(before + 65 ether, BOB.balance);
        vm.prank(SOLVER);
        vm.expectPartialRevert(Settlement.NoCredit.selector);
        s.withdraw(BOB);
    }

    function testBurnSendsToNobody() public {
        uint256 id = claimed(false);
        vm.prank(ALICE);
        s.expose(id, secret);
        s.burn();
        eq(32 ether, s.BURN().balance);
        vm.expectPartialRevert(Settlement.NoCredit.selector);
        s.burn();
    }

    function testReceiverThatRevertsBlocksOnlyItself() public {
        Refusing submitter = new Refusing();
        vm.deal(address(submitter), 100 ether);
        vm.prank(address(submitter));
        uint256 id = s.post{value: escrow()}(Runs.digest(), 1, terms());
        vm.prank(address(submitter));
        s.cancel(id);
        vm.prank(address(submitter));
        vm.expectPartialRevert(Settlement.TransferFailed.selector);
        s.withdraw(address(submitter));
        uint256 mine = posted();
        vm.prank(SUBMITTER);
        s.cancel(mine);
        vm.prank(SUBMITTER);
        s.withdraw(SUBMITTER);
        eq(START, SUBMITTER.balance);
        vm.prank(address(submitter));
        s.withdraw(ALICE); // to another address it can
        eq(START + escrow(), ALICE.balance);
    }

    function testReentrantWithdrawIsRefused() public {
        Reentering thief = new Reentering(s);
        vm.deal(address(thief), 100 ether);
        posted(); // somebody else's money
        thief.begin{value: 0}(escrow(), terms());
        vm.expectPartialRevert(Settlement.TransferFailed.selector);
        thief.steal();
    }

    /// @dev While it pays, no function that moves money can be entered; the other ones only credit.
    function testNothingThatMovesMoneyIsEnteredTwice() public {
        uint256 open = approved(false, rightRoot());
        Meddling meddler = new Meddling(s, terms(), posted(), open);
        vm.deal(address(meddler), 1000 ether);
        meddler.begin(escrow());
        meddler.pay();
        eq(7, meddler.refused());
    }

    // ---------------------------------------------------------------------------------------------- gas

    function testGasOfTheSmallMessages() public {
        uint256 id = posted();
        vm.prank(SOLVER);
        s.claim{value: 64 ether}(id, "seal");
        cheap();
        id = shown(false, rightRoot());
        address verifier = s.juror(id, 0).owner;
        bytes32 seal = attestSeal(id, verifier, rightRoot());
        vm.prank(verifier);
        s.attest(id, 0, seal);
        cheap();
        id = posted();
        vm.prank(SUBMITTER);
        s.cancel(id);
        vm.prank(SUBMITTER);
        s.withdraw(address(0x9999));
        cheap();
    }

    // ---------------------------------------------------------------------------------------------- helpers

    /// @dev Of the last call: below 120,000 with the 21,000 of a transaction and 16 a byte for 100 bytes.
    function cheap() private view {
        yes(vm.lastCallGas().total + 21_000 + 1_600 < 120_000);
    }

    function gained(address who, int256 amount) private view {
        if (gain(who) != amount) revert Unequal(uint256(amount), uint256(gain(who)));
    }

    function owners(uint256 id) private view returns (address[3] memory out) {
        for (uint256 i = 0; i < 3; ++i) {
            out[i] = s.juror(id, i).owner;
        }
    }

    function enrolled() private view returns (uint256 count) {
        Settlement.Seat[] memory all = s.seats();
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i].owner != address(0)) ++count;
        }
    }

    function allFree() private view {
        allFreeBut(0);
    }

    function allFreeBut(uint256 taken) private view {
        Settlement.Seat[] memory all = s.seats();
        uint256 found = 0;
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i].task != 0) ++found;
        }
        eq(taken, found);
    }

    function step(uint256 g, Position memory p, address mover, bytes memory move) private returns (Position memory) {
        vm.prank(mover);
        s.move(g, p, move);
        return referee.advance(p, move);
    }

    function stepOn(uint256 g, Position memory p, address mover, bytes memory move) private returns (Position memory) {
        vm.prank(mover);
        s.move(g, p, move);
        return s.REFEREE().advance(p, move);
    }
}

/// @dev A proof is due at once, and any proves against the solver.
contract Proving is IReferee {
    function advance(Position calldata position, bytes calldata) external pure returns (Position memory p) {
        p = position;
        p.stage = p.stage == 18 ? 20 : 18;
    }
}

/// @dev A move names the stage that it leads to.
contract Staged is IReferee {
    function advance(Position calldata position, bytes calldata move) external pure returns (Position memory p) {
        p = position;
        p.stage = abi.decode(move, (uint8));
    }
}

/// @dev Answers as many bytes as the move says, or with an error where it says 7.
contract Odd {
    error Says(uint256 number);

    function advance(Position calldata, bytes calldata move) external pure {
        uint256 size = abi.decode(move, (uint256));
        if (size == 7) revert Says(size);
        assembly {
            return(0x80, size)
        }
    }
}

contract Refusing {
    receive() external payable {
        revert("no");
    }
}

contract Reentering {
    Settlement private immutable S;

    constructor(Settlement s) {
        S = s;
    }

    function begin(uint256 amount, Settlement.Terms calldata terms) external payable {
        S.cancel(S.post{value: amount}(bytes32(0), 1, terms));
    }

    function steal() external {
        S.withdraw(address(this));
    }

    receive() external payable {
        S.withdraw(address(this));
    }
}

/// @dev Tries, while it is paid, all functions that take or pay money.
contract Meddling {
    Settlement private immutable S;
    Settlement.Terms private _terms;
    uint256 private immutable POSTED;
    uint256 private immutable DISCLOSED;
    uint256 public refused;

    constructor(Settlement s, Settlement.Terms memory terms, uint256 posted, uint256 disclosed) {
        (S, POSTED, DISCLOSED, _terms) = (s, posted, disclosed, terms);
    }

    function begin(uint256 amount) external {
        S.cancel(S.post{value: amount}(bytes32(0), 1, _terms));
    }

    function pay() external {
        S.withdraw(address(this));
    }

    receive() external payable {
        _try(3.3 ether + 1 ether, abi.encodeCall(S.post, (bytes32(0), 1, _terms)));
        _try(64 ether, abi.encodeCall(S.claim, (POSTED, bytes32(0))));
        _try(10 ether, abi.encodeCall(S.enroll, ()));
        _try(0.2 ether, abi.encodeCall(S.challenge, (DISCLOSED)));
        _try(0.2 ether, abi.encodeCall(S.challengeStep, (DISCLOSED, 0)));
        _try(0, abi.encodeCall(S.withdraw, (address(this))));
        _try(0, abi.encodeCall(S.burn, ()));
    }

    function _try(uint256 value, bytes memory call) private {
        (bool done, bytes memory answer) = address(S).call{value: value}(call);
        if (!done && bytes4(answer) == Settlement.Reentered.selector) ++refused;
    }
}

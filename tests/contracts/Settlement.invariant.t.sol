// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";
import {Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Runs, SettlementFixture} from "./SettlementFixture.sol";

/// @dev Everything that people can do, each picking by its argument some task, seat or game for which it is due. Several
/// tasks are under way at once. `done[i]` counts successes of action i, so that nobody believes in a suite of reverts.
contract Handler is SettlementFixture {
    enum Action {
        Post,
        Cancel,
        Claim,
        Pin,
        Commit,
        Show,
        Attest,
        Disclose,
        Declare,
        Challenge,
        Move,
        Timeout,
        Release,
        Settle,
        Expire,
        Expose,
        Enroll,
        Resign,
        Withdraw,
        Burn
    }
    uint256 public constant ACTIONS = 20;
    uint256[ACTIONS] public done;
    uint256 public paid;
    uint256 public overturned;
    uint256 public decoys;

    struct Secrets {
        bytes32 r;
        bytes32 shown;
        bytes32 right;
        bool decoy;
    }
    mapping(uint256 => Secrets) private _secrets;
    mapping(uint256 => mapping(uint256 => bytes32)) private _roots; // sealed by a verifier
    mapping(uint256 => Position) private _positions;

    constructor() {
        setUp();
    }

    function settlement() external view returns (Settlement) {
        return s;
    }

    // ---- what is due

    function _task(uint256 seed, Settlement.State state) private view returns (uint256) {
        uint256 n = s.taskCount();
        for (uint256 i = 0; i < n; ++i) {
            uint256 id = (seed % n + i) % n + 1;
            if (s.task(id).state == state) return id;
        }
        return 0;
    }

    function _game(uint256 seed, bool dead) private view returns (uint256) {
        uint256 n = s.gameCount();
        for (uint256 i = 0; i < n; ++i) {
            uint256 g = (seed % n + i) % n + 1;
            Settlement.Game memory game = s.game(g);
            if (!game.over && s.task(game.task).overturned == dead) return g;
        }
        return 0;
    }

    function _did(Action a) private {
        ++done[uint256(a)];
    }

    function _someone(uint256 seed) private pure returns (address) {
        return seed % 2 == 0 ? ALICE : BOB;
    }

    // ---- actions

    function post(uint256) external {
        if (s.taskCount() > 60) return;
        posted();
        _did(Action.Post);
    }

    function cancel(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Posted);
        if (id == 0 || seed % 5 != 0) return;
        vm.prank(SUBMITTER);
        s.cancel(id);
        _did(Action.Cancel);
    }

    function claim(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Posted);
        if (id == 0) return;
        bytes32 r = findSecret(seed % 3 == 0);
        _secrets[id].r = r;
        vm.prank(SOLVER);
        s.claim{value: 64 ether}(id, chanceSeal(id, SOLVER, r));
        skipBlocks(3);
        _did(Action.Claim);
    }

    function pin(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Claimed);
        if (id == 0 || s.task(id).chance != 0) return;
        try s.pin(id) {
            _did(Action.Pin);
        } catch {}
    }

    function commit(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Claimed);
        if (id == 0) return;
        try s.pin(id) {}
        catch {
            return;
        }
        Secrets storage x = _secrets[id];
        x.decoy = uint16(uint256(keccak256(abi.encode(x.r, s.task(id).chance)))) < 6554;
        x.right = seed % 3 == 0 ? wrongRoot() : rightRoot();
        x.shown = x.decoy ? decoyRoot() : x.right;
        bytes32 truth = truthSeal(x.r, x.decoy ? SALT2 : SALT, x.right);
        vm.prank(SOLVER);
        try s.commit(id, Runs.commitment(SOLVER, SALT, x.shown), truth) {
            skipBlocks(3);
            _did(Action.Commit);
        } catch {}
    }

    function show(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Committed);
        if (id == 0) return;
        vm.prank(SOLVER);
        try s.show(id, _secrets[id].shown, SALT) {
            _did(Action.Show);
        } catch {}
    }

    function attest(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Shown);
        if (id == 0) return;
        for (uint256 i = 0; i < 3; ++i) {
            Settlement.Juror memory j = s.juror(id, i);
            if (j.stand != Settlement.Stand.Absent) continue;
            bytes32[4] memory roots = [rightRoot(), _secrets[id].shown, _secrets[id].right, otherRoot()];
            bytes32 root = roots[(seed >> 8) % 4];
            vm.prank(j.owner);
            try s.attest(id, i, attestSeal(id, j.owner, root)) {
                _roots[id][i] = root;
                _did(Action.Attest);
            } catch {}
            return;
        }
    }

    function disclose(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Shown);
        if (id == 0) return;
        if (vm.getBlockTimestamp() <= s.task(id).deadline) skipTime(1 days + 1);
        Secrets storage x = _secrets[id];
        vm.prank(SOLVER);
        try s.disclose(id, x.r, x.decoy ? x.right : bytes32(0), x.decoy ? SALT2 : bytes32(0)) {
            if (x.decoy) ++decoys;
            _did(Action.Disclose);
        } catch {}
    }

    function declare(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Disclosed);
        if (id == 0) return;
        for (uint256 i = 0; i < 3; ++i) {
            Settlement.Juror memory j = s.juror(id, i);
            if (j.stand != Settlement.Stand.Sealed) continue;
            vm.prank(j.owner);
            try s.declare(id, i, _roots[id][i], SALT) {
                _did(Action.Declare);
            } catch {}
            return;
        }
    }

    function challenge(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Disclosed);
        if (id == 0) return;
        vm.prank(_someone(seed));
        try s.challengeStep{value: 0.2 ether}(id, 0) returns (uint256 g) {
            _positions[g] = Runs.begin(_secrets[id].right);
            _did(Action.Challenge);
        } catch {}
    }

    function move(uint256 seed) external {
        uint256 g = _game(seed, false);
        if (g == 0) return;
        Settlement.Game memory game = s.game(g);
        bool wrong = _secrets[game.task].right == wrongRoot();
        bytes memory m = game.stage == 2
            ? Runs.openStep(wrong ? Runs.WRONG : Runs.RIGHT, keccak256("state"))
            : Runs.contestScalars();
        vm.prank(game.stage == 2 ? SOLVER : game.challenger);
        try s.move(g, _positions[g], m) {
            _positions[g] = referee.advance(_positions[g], m);
            _did(Action.Move);
        } catch {}
    }

    function timeout(uint256 seed) external {
        uint256 g = _game(seed, false);
        if (g == 0) return;
        if (seed % 4 == 0) skipTime(1 days + 1);
        try s.timeout(g) {
            _did(Action.Timeout);
        } catch {}
    }

    function release(uint256 seed) external {
        uint256 g = _game(seed, true);
        if (g == 0) return;
        s.release(g);
        _did(Action.Release);
    }

    function settle(uint256 seed) external {
        uint256 id = _task(seed, Settlement.State.Disclosed);
        if (id == 0) return;
        if (seed % 4 == 0) skipTime(2 days + 1);
        bool bad = s.task(id).overturned;
        try s.settle(id) {
            if (bad) ++overturned;
            else ++paid;
            _did(Action.Settle);
        } catch {}
    }

    function expire(uint256 seed) external {
        Settlement.State[3] memory states =
            [Settlement.State.Claimed, Settlement.State.Committed, Settlement.State.Shown];
        uint256 id = _task(seed >> 2, states[seed % 3]);
        if (id == 0) return;
        try s.expire(id) {
            _did(Action.Expire);
        } catch {}
    }

    function expose(uint256 seed) external {
        Settlement.State[3] memory states =
            [Settlement.State.Claimed, Settlement.State.Committed, Settlement.State.Shown];
        uint256 id = _task(seed >> 8, states[seed % 3]);
        if (id == 0 || (seed >> 4) % 8 != 0) return;
        vm.prank(_someone(seed));
        try s.expose(id, _secrets[id].r) {
            _did(Action.Expose);
        } catch {}
    }

    function enroll(uint256 seed) external {
        if (s.seats().length > 24) return;
        address who = verifiers[seed % 5];
        vm.prank(who);
        s.enroll{value: 10 ether}();
        _did(Action.Enroll);
    }

    function resign(uint256 seed) external {
        Settlement.Seat[] memory all = s.seats();
        uint256 seat = seed % all.length;
        if (all[seat].owner == address(0) || all[seat].task != 0 || (seed >> 8) % 4 != 0) return;
        vm.prank(all[seat].owner);
        s.resign(seat);
        _did(Action.Resign);
    }

    function withdraw(uint256 seed) external {
        address who = _person(seed % 9);
        if (s.credit(who) == 0) return;
        vm.prank(who);
        s.withdraw(who);
        _did(Action.Withdraw);
    }

    function burn(uint256) external {
        if (s.credit(s.BURN()) == 0) return;
        s.burn();
        _did(Action.Burn);
    }

    function _person(uint256 i) private view returns (address) {
        address[4] memory rest = [SUBMITTER, SOLVER, ALICE, BOB];
        return i < 5 ? verifiers[i] : rest[i - 5];
    }

    // ---- what must always hold

    /// @dev Covered; and what is locked is exactly what tasks, games and seats account for.
    function check() external view {
        conserved();
        uint256 locked = 0;
        uint256 n = s.taskCount();
        for (uint256 id = 1; id <= n; ++id) {
            Settlement.Task memory t = s.task(id);
            if (t.state == Settlement.State.None) revert Untrue();
            if (t.state == Settlement.State.Closed) continue;
            locked += escrow();
            if (t.state != Settlement.State.Posted) locked += t.stake;
        }
        uint256 games = 0;
        for (uint256 g = 1; g <= s.gameCount(); ++g) {
            if (!s.game(g).over) ++games;
        }
        locked += games * 0.2 ether;
        Settlement.Seat[] memory all = s.seats();
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i].owner != address(0)) locked += 10 ether;
            if (all[i].task != 0) {
                Settlement.State state = s.task(all[i].task).state;
                yes(state == Settlement.State.Shown || state == Settlement.State.Disclosed);
            }
        }
        eq(locked, s.locked());
        uint256 owed = s.credit(s.BURN());
        for (uint256 i = 0; i < 9; ++i) {
            owed += s.credit(_person(i));
        }
        eq(owed, s.owed());
    }

    /// @dev From wherever things stand, with the help of anyone and time alone (seats and posted tasks: of their
    /// owners), everything ends and the contract is empty.
    function windDown() external {
        skipTime(30 days);
        for (uint256 g = 1; g <= s.gameCount(); ++g) {
            Settlement.Game memory game = s.game(g);
            if (game.over) continue;
            if (s.task(game.task).overturned) s.release(g);
            else s.timeout(g);
        }
        for (uint256 id = 1; id <= s.taskCount(); ++id) {
            Settlement.State state = s.task(id).state;
            if (state == Settlement.State.Posted) {
                vm.prank(SUBMITTER);
                s.cancel(id);
            } else if (state == Settlement.State.Disclosed) {
                s.settle(id);
            } else if (state != Settlement.State.Closed) {
                s.expire(id);
            }
        }
        Settlement.Seat[] memory all = s.seats();
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i].owner == address(0)) continue;
            vm.prank(all[i].owner);
            s.resign(i);
        }
        for (uint256 i = 0; i < 9; ++i) {
            address who = _person(i);
            if (s.credit(who) == 0) continue;
            vm.prank(who);
            s.withdraw(who);
        }
        if (s.credit(s.BURN()) > 0) s.burn();
        eq(0, uint256(s.locked()) + s.owed());
        eq(0, address(s).balance);
        uint256 total = s.BURN().balance;
        for (uint256 i = 0; i < 9; ++i) {
            total += _person(i).balance;
        }
        eq(9 * START, total);
    }
}

contract SettlementInvariants {
    Handler private handler;

    function setUp() public {
        handler = new Handler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), actions());
    }

    function actions() private pure returns (bytes4[] memory a) {
        a = new bytes4[](20);
        (a[0], a[1], a[2], a[3]) =
        (Handler.post.selector, Handler.cancel.selector, Handler.claim.selector, Handler.pin.selector);
        (a[4], a[5], a[6], a[7]) =
        (Handler.commit.selector, Handler.show.selector, Handler.attest.selector, Handler.disclose.selector);
        (a[8], a[9], a[10], a[11]) =
        (Handler.declare.selector, Handler.challenge.selector, Handler.move.selector, Handler.timeout.selector);
        (a[12], a[13], a[14], a[15]) =
        (Handler.release.selector, Handler.settle.selector, Handler.expire.selector, Handler.expose.selector);
        (a[16], a[17], a[18], a[19]) =
        (Handler.enroll.selector, Handler.resign.selector, Handler.withdraw.selector, Handler.burn.selector);
    }

    function invariant_everyWeiIsAccountedFor() public view {
        handler.check();
    }

    function afterInvariant() public {
        handler.windDown();
    }

    /// @dev The same by a fixed stream of calls, long enough that every action has succeeded and every end was seen.
    function testEveryActionSucceedsAndNothingStaysLocked() public {
        bytes4[] memory a = actions();
        for (uint256 i = 0; i < 3000; ++i) {
            uint256 seed = uint256(keccak256(abi.encode("action", i)));
            (bool good,) = address(handler).call(abi.encodeWithSelector(a[seed % 20], seed >> 16));
            require(good, "an action reverted");
            if (i % 50 == 0) handler.check();
        }
        for (uint256 i = 0; i < 20; ++i) {
            require(handler.done(i) > 0, string.concat("never done: ", string(abi.encodePacked(uint8(65 + i)))));
        }
        require(handler.paid() > 0 && handler.overturned() > 0 && handler.decoys() > 0, "an end was never seen");
        handler.check();
        handler.windDown();
    }
}

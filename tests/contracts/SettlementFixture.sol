// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IReferee, Position} from "gensyn_verify/settle/contracts/IReferee.sol";
import {Referee} from "gensyn_verify/settle/contracts/Referee.sol";
import {StepVerifier} from "gensyn_verify/settle/contracts/StepVerifier.sol";
import {Settlement} from "gensyn_verify/settle/contracts/Settlement.sol";

/// @dev What we use of forge's cheat codes.
interface Cheats {
    function prank(address sender) external;
    function deal(address account, uint256 amount) external;
    function warp(uint256 time) external;
    function roll(uint256 number) external;
    function expectRevert() external;
    function expectRevert(bytes calldata reason) external;
    function expectPartialRevert(bytes4 selector) external;
    function assume(bool condition) external pure;
    function getBlockNumber() external view returns (uint256);
    function getBlockTimestamp() external view returns (uint256);
    function lastCallGas() external view returns (Gas memory);

    struct Gas {
        uint64 limit;
        uint64 total;
        uint64 used;
        int64 refunded;
        uint64 remaining;
    }
}

/// @dev Tasks of one step without scalars. A game about the group of scalars is decided in two moves, by openings
/// alone: the solver opens the step entry, and its scalars root is that of no entries (RIGHT_RUN) or is not (WRONG_RUN).
library Runs {
    bytes32 internal constant RIGHT = keccak256(abi.encodePacked(bytes1(0x02), uint64(0), bytes32(0)));
    bytes32 internal constant WRONG = bytes32(uint256(7));

    function entry(bytes32 scalars, bytes32 state) internal pure returns (bytes memory) {
        return abi.encodePacked(uint64(0), state, keccak256("batch"), scalars);
    }

    function log(bytes32 scalars, bytes32 state) internal pure returns (bytes32) {
        bytes32 leaf = keccak256(abi.encodePacked(bytes1(0x00), entry(scalars, state)));
        return keccak256(abi.encodePacked(bytes1(0x02), uint64(1), leaf));
    }

    /// @dev A task digest with a leaf `state`, third of eight; the others are nobody's business here.
    function digest() internal pure returns (bytes32) {
        bytes32[] memory path = statePath();
        bytes32 node = keccak256(abi.encodePacked(bytes1(0x00), uint8(5), "state", initialState()));
        node = keccak256(abi.encodePacked(bytes1(0x01), node, path[0]));
        node = keccak256(abi.encodePacked(bytes1(0x01), path[1], node));
        node = keccak256(abi.encodePacked(bytes1(0x01), node, path[2]));
        return keccak256(abi.encodePacked(bytes1(0x02), uint64(8), node));
    }

    function initialState() internal pure returns (bytes32) {
        return keccak256("initial state");
    }

    function statePath() internal pure returns (bytes32[] memory path) {
        path = new bytes32[](3);
        (path[0], path[1], path[2]) = (keccak256("data"), keccak256("format, program"), keccak256("sampler to policy"));
    }

    function commitment(address solver, bytes32 salt, bytes32 root) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked("gensyn_verify.run.1", digest(), solver, salt, uint64(1), root));
    }

    // ---- moves

    function showLog(bytes32 scalars, bytes32 state) internal pure returns (bytes memory) {
        bytes32[] memory kids = new bytes32[](1);
        kids[0] = keccak256(abi.encodePacked(bytes1(0x00), entry(scalars, state)));
        return abi.encode(kids);
    }

    function pick(bytes32 scalars, bytes32 state) internal pure returns (bytes memory) {
        bytes32 kid = keccak256(abi.encodePacked(bytes1(0x00), entry(scalars, state)));
        return abi.encode(uint8(0), uint32(0), abi.encodePacked(kid));
    }

    function openStep(bytes32 scalars, bytes32 state) internal pure returns (bytes memory) {
        bytes memory before = abi.encodePacked(initialState());
        bytes32[] memory none = new bytes32[](0);
        return abi.encode(
            entry(scalars, state),
            none,
            before,
            statePath(),
            keccak256("trace"),
            uint32(1),
            uint32(1),
            uint32(2),
            uint32(5)
        );
    }

    function contestScalars() internal pure returns (bytes memory) {
        return abi.encode(uint8(2), uint32(2), "");
    }

    function begin(bytes32 root) internal pure returns (Position memory p) {
        (p.task, p.log, p.steps, p.stage) = (digest(), root, 1, 2);
    }
}

/// @dev One settlement in ether with its people, and the way of a task up to every state.
abstract contract SettlementFixture {
    Cheats internal constant vm = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant START = 100_000 ether;
    address internal constant SUBMITTER = address(0x5001);
    address internal constant SOLVER = address(0x5002);
    address internal constant ALICE = address(0x5003);
    address internal constant BOB = address(0x5004);
    address internal constant GUARDIAN = address(0x5005);
    address[5] internal verifiers =
        [address(0x6001), address(0x6002), address(0x6003), address(0x6004), address(0x6005)];

    bytes32 internal constant SALT = keccak256("salt");
    bytes32 internal constant SALT2 = keccak256("salt of the right run");

    Settlement internal s;
    IReferee internal referee;
    bytes32 internal secret; // r of the last claim

    function rules() internal pure returns (Settlement.Rules memory) {
        return Settlement.Rules({
            seat: 10 ether,
            minBond: 0.1 ether,
            stakeRatio: 2 << 16,
            minClock: 1 hours,
            minWindow: 1 hours,
            rate: 6554,
            burn: 32768,
            minSeats: 3,
            delay: 2
        });
    }

    function terms() internal pure returns (Settlement.Terms memory) {
        return Settlement.Terms({
            reward: 1 ether,
            stake: 64 ether,
            fee: 0.1 ether,
            bounty: 1 ether,
            bond: 0.2 ether,
            clock: 1 days,
            solveTime: 3 days,
            attestTime: 1 days,
            discloseTime: 2 hours,
            challengeTime: 2 days,
            seats: 3
        });
    }

    function escrow() internal pure returns (uint256) {
        Settlement.Terms memory t = terms();
        return t.reward + t.seats * (uint256(t.fee) + t.bounty);
    }

    function setUp() public virtual {
        vm.roll(1000);
        vm.warp(1_000_000);
        referee = new Referee(new StepVerifier());
        s = new Settlement(referee, address(0), GUARDIAN, rules());
        address[4] memory rest = [SUBMITTER, SOLVER, ALICE, BOB];
        for (uint256 i = 0; i < 4; ++i) {
            vm.deal(rest[i], START);
        }
        for (uint256 i = 0; i < verifiers.length; ++i) {
            vm.deal(verifiers[i], START);
            vm.prank(verifiers[i]);
            s.enroll{value: 10 ether}();
        }
        skipBlocks(1);
    }

    // ---- time

    function skipBlocks(uint256 n) internal {
        vm.roll(vm.getBlockNumber() + n);
        vm.warp(vm.getBlockTimestamp() + 12 * n);
    }

    function skipTime(uint256 seconds_) internal {
        vm.roll(vm.getBlockNumber() + seconds_ / 12);
        vm.warp(vm.getBlockTimestamp() + seconds_);
    }

    // ---- a task, state by state

    function posted() internal returns (uint256 id) {
        vm.prank(SUBMITTER);
        id = s.post{value: escrow()}(Runs.digest(), 1, terms());
    }

    /// @dev A secret that gives a decoy or none, found by looking at the block that is not yet there.
    function findSecret(bool decoy) internal returns (bytes32 r) {
        uint256 now_ = vm.getBlockNumber();
        vm.roll(now_ + 3);
        bytes32 chance = blockhash(now_ + 2);
        vm.roll(now_);
        for (uint256 i = 0;; ++i) {
            r = keccak256(abi.encode("secret", i));
            if ((uint16(uint256(keccak256(abi.encode(r, chance)))) < 6554) == decoy) return r;
        }
    }

    function chanceSeal(uint256 id, address solver, bytes32 r) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked("gensyn_verify.chance.1", Runs.digest(), id, solver, r));
    }

    function truthSeal(bytes32 r, bytes32 salt, bytes32 root) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked("gensyn_verify.truth.1", r, Runs.commitment(SOLVER, salt, root)));
    }

    function attestSeal(uint256 id, address verifier, bytes32 root) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked("gensyn_verify.attestation.1", Runs.digest(), id, verifier, SALT, root));
    }

    function claimed(bool decoy) internal returns (uint256 id) {
        id = posted();
        secret = findSecret(decoy);
        vm.prank(SOLVER);
        s.claim{value: 64 ether}(id, chanceSeal(id, SOLVER, secret));
        skipBlocks(3);
    }

    /// @dev Without a decoy `root` is shown; with one `decoyRoot()` is, and `root` is the right run's.
    function committed(bool decoy, bytes32 root) internal returns (uint256 id) {
        id = claimed(decoy);
        bytes32 run = Runs.commitment(SOLVER, SALT, decoy ? decoyRoot() : root);
        bytes32 truth = decoy ? truthSeal(secret, SALT2, root) : truthSeal(secret, SALT, root);
        vm.prank(SOLVER);
        s.commit(id, run, truth);
        skipBlocks(3);
    }

    function shown(bool decoy, bytes32 root) internal returns (uint256 id) {
        id = committed(decoy, root);
        vm.prank(SOLVER);
        s.show(id, decoy ? decoyRoot() : root, SALT);
    }

    function attest(uint256 id, uint256 place, bytes32 root) internal {
        address verifier = s.juror(id, place).owner;
        vm.prank(verifier);
        s.attest(id, place, attestSeal(id, verifier, root));
    }

    function declare(uint256 id, uint256 place, bytes32 root) internal {
        vm.prank(s.juror(id, place).owner);
        s.declare(id, place, root, SALT);
    }

    function disclose(uint256 id, bool decoy, bytes32 root) internal {
        skipTime(1 days + 1);
        vm.prank(SOLVER);
        s.disclose(id, secret, decoy ? root : bytes32(0), decoy ? SALT2 : bytes32(0));
    }

    /// @dev Every seat attests and declares the root that `roots` has for it.
    function disclosed(bool decoy, bytes32 root, bytes32[3] memory roots) internal returns (uint256 id) {
        id = shown(decoy, root);
        for (uint256 i = 0; i < 3; ++i) {
            attest(id, i, roots[i]);
        }
        disclose(id, decoy, root);
        for (uint256 i = 0; i < 3; ++i) {
            declare(id, i, roots[i]);
        }
    }

    function approved(bool decoy, bytes32 root) internal returns (uint256 id) {
        return disclosed(decoy, root, [root, root, root]);
    }

    function settleLater(uint256 id) internal {
        skipTime(2 days + 1);
        s.settle(id);
    }

    // ---- games

    function challenge(uint256 id, address who) internal returns (uint256 g) {
        vm.prank(who);
        g = s.challengeStep{value: 0.2 ether}(id, 0);
    }

    /// @dev The solver opens the step, the challenger contests its scalars: decides, by which run it is.
    function play(uint256 g, address challenger, bytes32 scalars, bytes32 state) internal {
        Position memory p = Runs.begin(Runs.log(scalars, state));
        bytes memory move = Runs.openStep(scalars, state);
        vm.prank(SOLVER);
        s.move(g, p, move);
        p = referee.advance(p, move);
        vm.prank(challenger);
        s.move(g, p, Runs.contestScalars());
    }

    // ---- roots

    function rightRoot() internal pure returns (bytes32) {
        return Runs.log(Runs.RIGHT, keccak256("state"));
    }

    function wrongRoot() internal pure returns (bytes32) {
        return Runs.log(Runs.WRONG, keccak256("state"));
    }

    function decoyRoot() internal pure returns (bytes32) {
        return Runs.log(Runs.WRONG, keccak256("decoy"));
    }

    function otherRoot() internal pure returns (bytes32) {
        return keccak256("another root");
    }

    function win(uint256 g, address challenger) internal {
        play(g, challenger, Runs.WRONG, keccak256("state"));
    }

    function lose(uint256 g, address challenger) internal {
        play(g, challenger, Runs.RIGHT, keccak256("state"));
    }

    // ---- expectations

    error Unequal(uint256 expected, uint256 found);
    error Untrue();

    function eq(uint256 expected, uint256 found) internal pure {
        if (expected != found) revert Unequal(expected, found);
    }

    function yes(bool condition) internal pure {
        if (!condition) revert Untrue();
    }

    /// @dev What an account has, in its pocket and as credit, over what it began with.
    function gain(address who) internal view returns (int256) {
        return int256(who.balance + s.credit(who)) - int256(START);
    }

    /// @dev All seats are owned by a verifier each; by how much the owner of a place has gained, its seat's stake included.
    function seatGain(address who) internal view returns (int256 total) {
        total = gain(who);
        Settlement.Seat[] memory all = s.seats();
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i].owner == who) total += 10 ether;
        }
    }

    function conserved() internal view {
        yes(address(s).balance >= uint256(s.locked()) + s.owed());
    }
}

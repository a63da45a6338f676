// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IReferee, Position} from "./IReferee.sol";

/// @title Tasks, claims, committees, disputes and the money in them: docs/settlement.md
/// @notice No proxy and no owner. The guardian may stop new tasks, nothing else. Payments are credits, pulled.
/// @dev One contract has one asset. Every amount that comes in is `locked` until it is a credit, then `owed`.
/// What is virtual or internal is so for the proofs alone (tests/contracts/PayoutProofs.sol).
contract Settlement {
    // ---------------------------------------------------------------------------------------------- types

    enum State {
        None,
        Posted,
        Claimed,
        Committed,
        Shown,
        Disclosed,
        Closed
    }
    enum Outcome {
        Cancelled,
        Void,
        Expired,
        Exposed,
        Overturned,
        Paid
    }
    enum Stand {
        Absent,
        Sealed,
        Right,
        Decoy,
        Other
    }

    /// @notice What holds for all tasks, fixed at deployment. Shares and ratios are in units of 2^-16.
    struct Rules {
        uint128 seat; // a verifier's stake for one seat
        uint128 minBond; // a challenger's bond at least; also what a winner gets at least
        uint32 stakeRatio; // stake / reward at least
        uint32 minClock; // seconds of a party in a game, at least
        uint32 minWindow; // seconds of each of the windows, at least
        uint16 rate; // probability of a decoy
        uint16 burn; // share of a slashed stake that is burned
        uint8 minSeats; // of a committee
        uint8 delay; // blocks from what is fixed to its lot
    }

    /// @notice What a submitter chooses. Times are in seconds.
    struct Terms {
        uint128 reward;
        uint128 stake;
        uint128 fee;
        uint128 bounty;
        uint128 bond;
        uint32 clock;
        uint32 solveTime;
        uint32 attestTime;
        uint32 discloseTime;
        uint32 challengeTime;
        uint8 seats;
    }

    struct Task {
        bytes32 digest;
        address submitter;
        State state;
        uint8 seats;
        uint32 pool; // seats there were when the run was committed
        uint32 solveTime;
        uint128 reward;
        uint128 stake;
        uint128 fee;
        uint128 bounty;
        uint128 bond;
        uint32 clock;
        uint32 attestTime;
        uint32 discloseTime;
        uint32 challengeTime;
        address solver;
        uint48 fixedAt; // block of the claim, then of the commitment
        uint48 steps;
        uint48 deadline; // end of the window that is open
        uint32 games; // open ones
        bool decoy;
        bool overturned;
        address winner;
        bytes32 seal; // hides r
        bytes32 chance; // block hash that decides, with r, on a decoy
        bytes32 run; // commitment of the run that is shown
        bytes32 truth; // hides the commitment of the right run
        bytes32 shown; // log root of the shown run
        bytes32 right; // log root of the right run
    }

    struct Juror {
        address owner;
        uint32 seat;
        Stand stand;
        bytes32 seal;
    }

    struct Seat {
        address owner;
        uint48 since; // block
        uint48 task; // of the committee that it sits on, or 0
    }

    /// @dev What a move writes is in the second and third slot.
    struct Game {
        address challenger;
        uint48 task;
        bytes32 position;
        uint48 last; // time of the last move
        uint32 solverLeft; // seconds
        uint32 challengerLeft;
        uint8 stage;
        bool over;
    }

    // ---------------------------------------------------------------------------------------------- errors and events

    error WrongState(State found);
    error NotYours();
    error TooEarly(uint256 until);
    error TooLate(uint256 since);
    error Paused();
    error BelowFloor(bytes32 what);
    error BadRules();
    error BadReferee();
    error BadSteps(uint256 found);
    error DoesNotOpen();
    error SameRun();
    error WrongPosition(bytes32 expected, bytes32 found);
    error GameOver();
    error GamesOpen(uint256 count);
    error NotOverturned();
    error SeatTaken(uint256 task);
    error NoCredit();
    error WrongAmount(uint256 expected, uint256 found);
    error TransferFailed();
    error Reentered();

    event Posted(uint256 indexed task, bytes32 indexed digest, address indexed submitter, uint64 steps, Terms terms);
    event Claimed(uint256 indexed task, address indexed solver, bytes32 seal);
    event Pinned(uint256 indexed task, bytes32 chance);
    event Committed(uint256 indexed task, bytes32 run, bytes32 truth, uint256 pool);
    event Shown(uint256 indexed task, bytes32 root, bytes32 salt, bytes32 beacon);
    event Seated(uint256 indexed task, address indexed verifier, uint256 place, uint256 seat);
    event Attested(uint256 indexed task, uint256 place, bytes32 seal);
    event Disclosed(uint256 indexed task, bytes32 r, bool decoy, bytes32 root, bytes32 salt);
    event Declared(uint256 indexed task, uint256 place, bytes32 root, Stand stand);
    event Challenged(uint256 indexed game, uint256 indexed task, address indexed challenger, uint256 step);
    event Moved(uint256 indexed game, address by, uint8 stage, bytes move);
    event Ended(uint256 indexed game, bool solverWins, bool byClock);
    event Released(uint256 indexed game);
    event Closed(uint256 indexed task, Outcome outcome);
    event Enrolled(uint256 indexed seat, address indexed verifier);
    event Left(uint256 indexed seat, bool slashed);
    event Credited(address indexed to, uint256 amount);
    event Withdrawn(address indexed from, address to, uint256 amount);
    event PausedSet(bool paused);

    // ---------------------------------------------------------------------------------------------- constants

    /// @notice Where burned money goes.
    address public constant BURN = 0x000000000000000000000000000000000000dEaD;
    uint256 private constant WHOLE_LOG = type(uint256).max; // step of a game that begins with the whole log
    uint256 private constant MAX_SEATS = 16;
    uint256 private constant MAX_STEPS = 1 << 40;
    uint256 private constant DRAWS = 16; // lots a seat at most
    uint256 private constant CHALLENGER_MOVES = 0x294aa; // stages 1 3 5 7 10 12 15 17
    uint256 private constant POSITION_BYTES = 0x440; // 34 words
    uint8 private constant PROVE = 18;
    uint8 private constant SOLVER_WINS = 19;
    uint8 private constant CHALLENGER_WINS = 20;

    /// @notice The rules of the dispute game.
    IReferee public immutable REFEREE;
    /// @notice The token of all amounts; zero: ether.
    address public immutable ASSET;
    /// @notice Who may stop new tasks.
    address public immutable GUARDIAN;
    uint256 private immutable SEAT;
    uint256 private immutable MIN_BOND;
    uint256 private immutable STAKE_RATIO;
    uint256 private immutable MIN_CLOCK;
    uint256 private immutable MIN_WINDOW;
    uint256 private immutable RATE;
    uint256 private immutable BURN_SHARE;
    uint256 private immutable MIN_SEATS;
    uint256 private immutable DELAY;

    // ---------------------------------------------------------------------------------------------- state

    /// @notice Whether new tasks are refused.
    bool public paused;
    /// @notice Numbers of tasks and games count from 1.
    uint48 public taskCount;
    uint48 public gameCount;
    /// @notice Money that is not yet anybody's, and money that was credited and not withdrawn.
    uint128 public locked;
    uint128 public owed;
    /// @notice What an account may withdraw.
    mapping(address => uint256) public credit;
    mapping(uint256 => Task) internal _tasks;
    mapping(uint256 => Game) private _games;
    mapping(uint256 => mapping(uint256 => Juror)) internal _jurors;
    Seat[] private _seats;
    uint32[] private _emptySeats;
    bool private transient _entered;

    modifier guarded() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    constructor(IReferee referee, address asset, address guardian, Rules memory r) {
        bool valid = address(referee).code.length > 0 && (asset == address(0) || asset.code.length > 0);
        valid = valid && r.seat > 0 && r.minBond > 0 && r.rate > 0 && r.burn > 0 && r.minSeats > 0;
        valid = valid && r.minSeats <= MAX_SEATS && r.minClock > 0 && r.minWindow > 0 && r.delay > 0;
        if (!valid) revert BadRules();
        (REFEREE, ASSET, GUARDIAN) = (referee, asset, guardian);
        (SEAT, MIN_BOND, STAKE_RATIO, MIN_CLOCK) = (r.seat, r.minBond, r.stakeRatio, r.minClock);
        (MIN_WINDOW, RATE, BURN_SHARE, MIN_SEATS, DELAY) = (r.minWindow, r.rate, r.burn, r.minSeats, r.delay);
    }

    // ---------------------------------------------------------------------------------------------- submitter

    /// @notice Post a task and escrow reward, fees and bounties.
    /// @param digest the task digest (formats, section 10)
    /// @param steps as in the task's extent; a run has so many
    function post(bytes32 digest, uint64 steps, Terms calldata terms) external payable guarded returns (uint256 id) {
        if (paused) revert Paused();
        if (steps == 0 || steps > MAX_STEPS) revert BadSteps(steps);
        _checkFloors(terms);
        id = ++taskCount;
        Task storage t = _tasks[id];
        (t.digest, t.submitter, t.state, t.steps) = (digest, msg.sender, State.Posted, uint48(steps));
        (t.reward, t.stake, t.fee, t.bounty) = (terms.reward, terms.stake, terms.fee, terms.bounty);
        (t.bond, t.clock, t.seats, t.solveTime) = (terms.bond, terms.clock, terms.seats, terms.solveTime);
        (t.attestTime, t.discloseTime, t.challengeTime) = (terms.attestTime, terms.discloseTime, terms.challengeTime);
        emit Posted(id, digest, msg.sender, steps, terms);
        _take(_escrow(t));
    }

    /// @notice Take back a task that nobody has claimed.
    function cancel(uint256 id) external {
        Task storage t = _in(id, State.Posted);
        if (msg.sender != t.submitter) revert NotYours();
        _close(id, t, Outcome.Cancelled);
        _credit(t.submitter, _escrow(t));
    }

    /// @dev Derived in docs/incentives.md.
    function _checkFloors(Terms calldata t) private view {
        if (t.seats < MIN_SEATS || t.seats > MAX_SEATS) revert BelowFloor("seats");
        if (t.reward == 0) revert BelowFloor("reward");
        if (uint256(t.stake) << 16 < t.reward * STAKE_RATIO) revert BelowFloor("stake");
        if (t.bond < MIN_BOND) revert BelowFloor("bond");
        if (t.stake - _burned(t.stake) < MIN_BOND) revert BelowFloor("stake");
        // the burned share exceeds what silence about a decoy would save the committee, or the submitter
        uint256 perSeat = t.bounty > SEAT + t.fee ? t.bounty : SEAT + t.fee;
        if (BURN_SHARE * t.stake <= (t.seats * perSeat) << 16) revert BelowFloor("stake");
        if (t.fee == 0) revert BelowFloor("fee");
        // what a decoy costs who approves it, beside what it brings who finds it, is at least twice the fee a check
        if (RATE * (SEAT + t.bounty + t.fee) < uint256(t.fee) << 17) revert BelowFloor("bounty");
        if (t.clock < MIN_CLOCK) revert BelowFloor("clock");
        if (t.solveTime < MIN_WINDOW) revert BelowFloor("solveTime");
        if (t.attestTime < MIN_WINDOW) revert BelowFloor("attestTime");
        if (t.discloseTime < MIN_WINDOW) revert BelowFloor("discloseTime");
        if (t.challengeTime < MIN_WINDOW) revert BelowFloor("challengeTime");
    }

    // ---------------------------------------------------------------------------------------------- solver

    /// @notice Take a task alone, with a stake.
    /// @param seal keccak("gensyn_verify.chance.1" | digest | id | solver | r)
    function claim(uint256 id, bytes32 seal) external payable guarded {
        Task storage t = _in(id, State.Posted);
        (t.state, t.solver, t.seal) = (State.Claimed, msg.sender, seal);
        t.fixedAt = uint48(block.number);
        t.deadline = uint48(block.timestamp + t.solveTime);
        emit Claimed(id, msg.sender, seal);
        _take(t.stake);
    }

    /// @notice Keep the block hash that decides on a decoy. Anyone may; `commit` does where nobody has.
    function pin(uint256 id) external {
        Task storage t = _in(id, State.Claimed);
        if (t.chance == 0) _pin(id, t);
    }

    function _pin(uint256 id, Task storage t) private {
        t.chance = _lot(t.fixedAt);
        emit Pinned(id, t.chance);
    }

    /// @notice Commit to a run.
    /// @param run the run commitment (formats, section 6) of the run that will be shown
    /// @param truth keccak("gensyn_verify.truth.1" | r | commitment of the right run)
    function commit(uint256 id, bytes32 run, bytes32 truth) external {
        Task storage t = _of(id, State.Claimed, msg.sender);
        if (block.timestamp > t.deadline) revert TooLate(t.deadline);
        if (t.chance == 0) _pin(id, t);
        (t.state, t.run, t.truth) = (State.Committed, run, truth);
        (t.fixedAt, t.pool) = (uint48(block.number), uint32(_seats.length));
        emit Committed(id, run, truth, _seats.length);
    }

    /// @notice Open the commitment: the log root is public from here on, and the committee is drawn.
    function show(uint256 id, bytes32 root, bytes32 salt) external {
        Task storage t = _of(id, State.Committed, msg.sender);
        if (t.run != _commitment(t, root, salt)) revert DoesNotOpen();
        bytes32 beacon = _lot(t.fixedAt);
        (t.state, t.shown) = (State.Shown, root);
        t.deadline = uint48(block.timestamp + t.attestTime);
        emit Shown(id, root, salt, beacon);
        if (_draw(id, t, beacon)) return;
        _close(id, t, Outcome.Void);
        _credit(t.solver, t.stake);
        _credit(t.submitter, _escrow(t));
    }

    /// @notice After the attestations: say whether the shown run was a decoy, and if so, open the right one.
    /// @param root,salt of the right run; zero without a decoy
    function disclose(uint256 id, bytes32 r, bytes32 root, bytes32 salt) external {
        Task storage t = _of(id, State.Shown, msg.sender);
        if (block.timestamp <= t.deadline) revert TooEarly(t.deadline);
        if (block.timestamp > t.deadline + t.discloseTime) revert TooLate(t.deadline + t.discloseTime);
        if (t.seal != _chanceSeal(id, t, r)) revert DoesNotOpen();
        bytes32 run = t.run;
        bool decoy = uint16(uint256(keccak256(abi.encode(r, t.chance)))) < RATE;
        if (decoy) {
            if (root == t.shown) revert SameRun();
            run = _commitment(t, root, salt);
        } else {
            root = t.shown;
        }
        if (t.truth != keccak256(abi.encodePacked("gensyn_verify.truth.1", r, run))) revert DoesNotOpen();
        (t.state, t.decoy, t.right) = (State.Disclosed, decoy, root);
        t.deadline = uint48(block.timestamp + t.challengeTime);
        emit Disclosed(id, r, decoy, root, salt);
    }

    /// @notice Close a task whose solver missed a deadline: its stake is burned.
    function expire(uint256 id) external {
        Task storage t = _tasks[id];
        (State state, uint256 end) = (t.state, t.deadline);
        if (state == State.Shown) end += t.discloseTime;
        else if (state != State.Claimed && state != State.Committed) revert WrongState(state);
        // in Claimed the lot must be kept in time, in Committed there is no other limit
        bool lotLost = block.number > t.fixedAt + DELAY + 256 && state != State.Shown
            && (state == State.Committed || t.chance == 0);
        bool late = state != State.Committed && block.timestamp > end;
        if (!lotLost && !late) revert TooEarly(end);
        _close(id, t, Outcome.Expired);
        _credit(BURN, t.stake);
        _dissolve(id, t, state == State.Shown, true);
    }

    /// @notice Whoever knows the solver's secret before it is disclosed takes the stake, less what is burned.
    function expose(uint256 id, bytes32 r) external {
        Task storage t = _tasks[id];
        State state = t.state;
        if (state != State.Claimed && state != State.Committed && state != State.Shown) revert WrongState(state);
        if (state == State.Shown && block.timestamp > t.deadline) revert TooLate(t.deadline);
        if (t.seal != _chanceSeal(id, t, r)) revert DoesNotOpen();
        _close(id, t, Outcome.Exposed);
        uint256 burned = _burned(t.stake);
        _credit(BURN, burned);
        _credit(msg.sender, t.stake - burned);
        _dissolve(id, t, state == State.Shown, false);
    }

    /// @dev The rest of a task that ends without a verdict: who attested is paid, seats are free again.
    function _dissolve(uint256 id, Task storage t, bool seated, bool giveUp) private {
        uint256 rest = _escrow(t);
        for (uint256 i = 0; seated && i < t.seats; ++i) {
            rest -= _dismiss(t, _jurors[id][i], giveUp);
        }
        _credit(t.submitter, rest);
    }

    /// @dev What a verifier was paid; its seat is given up, or free again.
    function _dismiss(Task storage t, Juror storage j, bool giveUp) internal virtual returns (uint256 pay) {
        if (j.stand == Stand.Absent && giveUp) {
            _giveUp(j.seat, j.owner);
        } else {
            _seats[j.seat].task = 0;
            if (j.stand == Stand.Sealed) pay = t.fee;
            _credit(j.owner, pay);
        }
    }

    // ---------------------------------------------------------------------------------------------- verifiers

    /// @notice Put down a seat's stake.
    function enroll() external payable guarded returns (uint256 seat) {
        if (_emptySeats.length == 0) {
            seat = _seats.length;
            _seats.push();
        } else {
            seat = _emptySeats[_emptySeats.length - 1];
            _emptySeats.pop();
        }
        _seats[seat] = Seat(msg.sender, uint48(block.number), 0);
        emit Enrolled(seat, msg.sender);
        _take(SEAT);
    }

    /// @notice Take a seat's stake back, while it sits on no committee.
    function resign(uint256 seat) external {
        Seat storage s = _seats[seat];
        if (s.owner != msg.sender) revert NotYours();
        if (s.task != 0) revert SeatTaken(s.task);
        _giveUp(uint32(seat), msg.sender);
    }

    function _giveUp(uint32 seat, address owner) private {
        _empty(seat, false);
        _credit(owner, SEAT);
    }

    function _empty(uint32 seat, bool slashed) private {
        delete _seats[seat];
        _emptySeats.push(seat);
        emit Left(seat, slashed);
    }

    /// @dev Draws the committee by lots over the seats that there were at the commitment; whether there were enough.
    function _draw(uint256 id, Task storage t, bytes32 beacon) internal virtual returns (bool) {
        (uint256 wanted, uint256 pool, uint256 found) = (t.seats, t.pool, 0);
        uint32[] memory drawn = new uint32[](wanted);
        for (uint256 j = 0; found < wanted && pool > 0 && j < DRAWS * wanted; ++j) {
            // the beacon was nobody's choice: a block hash later than the commitment
            // slither-disable-next-line weak-prng
            uint32 seat = uint32(uint256(keccak256(abi.encode(beacon, id, j))) % pool);
            Seat storage s = _seats[seat];
            if (s.owner == address(0) || s.task != 0 || s.since >= t.fixedAt) continue;
            s.task = uint48(id);
            drawn[found++] = seat;
        }
        for (uint256 i = 0; i < found; ++i) {
            Seat storage s = _seats[drawn[i]];
            if (found < wanted) {
                s.task = 0;
                continue;
            }
            Juror storage j = _jurors[id][i];
            (j.owner, j.seat) = (s.owner, drawn[i]);
            emit Seated(id, s.owner, i, drawn[i]);
        }
        return found == wanted;
    }

    /// @notice Seal the root of the run as the verifier finds it.
    /// @param seal keccak("gensyn_verify.attestation.1" | digest | id | verifier | salt | root)
    function attest(uint256 id, uint256 place, bytes32 seal) external {
        Task storage t = _in(id, State.Shown);
        Juror storage j = _jurors[id][place];
        if (j.owner != msg.sender) revert NotYours();
        if (block.timestamp > t.deadline) revert TooLate(t.deadline);
        if (j.stand != Stand.Absent) revert DoesNotOpen();
        (j.stand, j.seal) = (Stand.Sealed, seal);
        emit Attested(id, place, seal);
    }

    /// @notice Open a seal, after the solver has disclosed.
    function declare(uint256 id, uint256 place, bytes32 root, bytes32 salt) external {
        Task storage t = _in(id, State.Disclosed);
        Juror storage j = _jurors[id][place];
        if (j.owner != msg.sender) revert NotYours();
        if (block.timestamp > t.deadline) revert TooLate(t.deadline);
        bytes memory sealed_ = abi.encodePacked("gensyn_verify.attestation.1", t.digest, id, msg.sender, salt, root);
        if (j.stand != Stand.Sealed || j.seal != keccak256(sealed_)) revert DoesNotOpen();
        j.stand = root == t.right ? Stand.Right : root == t.shown ? Stand.Decoy : Stand.Other;
        emit Declared(id, place, root, j.stand);
    }

    // ---------------------------------------------------------------------------------------------- games

    /// @notice Challenge the run that was disclosed as right; the game begins with its whole log.
    function challenge(uint256 id) external payable guarded returns (uint256) {
        return _challenge(id, WHOLE_LOG);
    }

    /// @notice Challenge step `step` of it.
    function challengeStep(uint256 id, uint64 step) external payable guarded returns (uint256) {
        if (step >= _tasks[id].steps) revert BadSteps(step);
        return _challenge(id, step);
    }

    function _challenge(uint256 id, uint256 step) private returns (uint256 number) {
        Task storage t = _in(id, State.Disclosed);
        if (block.timestamp > t.deadline) revert TooLate(t.deadline);
        if (t.overturned) revert GameOver();
        Position memory p;
        (p.task, p.log, p.steps) = (t.digest, t.right, t.steps);
        if (step == WHOLE_LOG) p.size = t.steps;
        else (p.stage, p.step) = (2, uint64(step));
        number = ++gameCount;
        ++t.games;
        Game storage g = _games[number];
        (g.challenger, g.solverLeft, g.challengerLeft, g.stage) = (msg.sender, t.clock, t.clock, p.stage);
        (g.task, g.last, g.position) = (uint48(id), uint48(block.timestamp), keccak256(abi.encode(p)));
        emit Challenged(number, id, msg.sender, step);
        _take(t.bond);
    }

    /// @notice Make a move: `position` is the game's, `move_` as its stage says (docs/dispute.md).
    function move(uint256 number, Position calldata position, bytes calldata move_) external {
        Game storage g = _open(number);
        Task storage t = _tasks[g.task];
        if (t.overturned) revert GameOver();
        bytes32 found = _hash(position);
        if (found != g.position) revert WrongPosition(g.position, found);
        uint256 used = block.timestamp - g.last;
        uint8 stage = g.stage;
        if (_challengerMoves(stage)) {
            if (msg.sender != g.challenger) revert NotYours();
            if (used > g.challengerLeft) revert TooLate(g.last + g.challengerLeft);
            g.challengerLeft -= uint32(used);
        } else {
            if (msg.sender != t.solver && stage != PROVE) revert NotYours();
            if (used > g.solverLeft) revert TooLate(g.last + g.solverLeft);
            g.solverLeft -= uint32(used);
        }
        emit Moved(number, msg.sender, stage, move_);
        (stage, found) = _advance(position, move_);
        (g.stage, g.last, g.position) = (stage, uint48(block.timestamp), found);
        if (stage >= SOLVER_WINS) _end(number, g, t, stage == SOLVER_WINS, false);
    }

    /// @dev Of the words as they were sent, which is what `abi.encode` gives of values that fit their types.
    function _hash(Position calldata position) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let p := mload(0x40)
            calldatacopy(p, position, POSITION_BYTES)
            hash := keccak256(p, POSITION_BYTES)
        }
    }

    /// @dev `REFEREE.advance(position, move_)`, handing words on as they are: the stage and the hash of what comes back.
    function _advance(Position calldata position, bytes calldata move_)
        private
        view
        returns (uint8 stage, bytes32 hash)
    {
        (address referee, bytes4 selector) = (address(REFEREE), IReferee.advance.selector);
        bool fits;
        assembly ("memory-safe") {
            let p := mload(0x40)
            let tail := add(p, add(POSITION_BYTES, 0x24))
            mstore(p, selector)
            calldatacopy(add(p, 4), position, POSITION_BYTES)
            mstore(sub(tail, 0x20), add(POSITION_BYTES, 0x20))
            mstore(tail, move_.length)
            calldatacopy(add(tail, 0x20), move_.offset, move_.length)
            let size := add(sub(tail, p), add(0x20, move_.length))
            if iszero(staticcall(gas(), referee, p, size, 0, 0)) {
                returndatacopy(p, 0, returndatasize())
                revert(p, returndatasize())
            }
            fits := eq(returndatasize(), POSITION_BYTES)
            if fits {
                returndatacopy(p, 0, POSITION_BYTES)
                stage := and(mload(add(p, 0x60)), 0xff)
                hash := keccak256(p, POSITION_BYTES)
            }
        }
        if (!fits) revert BadReferee();
    }

    /// @notice End a game in which the party whose turn it is has used up its clock.
    function timeout(uint256 number) external {
        Game storage g = _open(number);
        Task storage t = _tasks[g.task];
        if (t.overturned) revert GameOver();
        bool challengers = _challengerMoves(g.stage);
        uint256 end = uint256(g.last) + (challengers ? g.challengerLeft : g.solverLeft);
        if (block.timestamp <= end) revert TooEarly(end);
        _end(number, g, t, challengers, true);
    }

    /// @notice Give a bond back whose game lost its object: the run was overturned in another one.
    function release(uint256 number) external {
        Game storage g = _open(number);
        Task storage t = _tasks[g.task];
        if (!t.overturned) revert NotOverturned();
        g.over = true;
        --t.games;
        emit Released(number);
        _credit(g.challenger, t.bond);
    }

    function _end(uint256 number, Game storage g, Task storage t, bool solverWins, bool byClock) private {
        g.over = true;
        --t.games;
        emit Ended(number, solverWins, byClock);
        if (solverWins) {
            uint256 burned = _burned(t.bond);
            _credit(BURN, burned);
            _credit(t.solver, t.bond - burned);
        } else {
            (t.overturned, t.winner) = (true, g.challenger);
            _credit(g.challenger, t.bond);
        }
    }

    function _challengerMoves(uint8 stage) private pure returns (bool) {
        return (CHALLENGER_MOVES >> stage) & 1 == 1;
    }

    // ---------------------------------------------------------------------------------------------- settlement

    /// @notice Credit everybody of a task whose challenge time and games are over, or whose run was overturned.
    function settle(uint256 id) external {
        Task storage t = _in(id, State.Disclosed);
        if (block.timestamp <= t.deadline) revert TooEarly(t.deadline);
        if (!t.overturned && t.games > 0) revert GamesOpen(t.games);
        _close(id, t, t.overturned ? Outcome.Overturned : Outcome.Paid);
        uint256 rest = _escrow(t);
        uint256 slashed = 0;
        for (uint256 i = 0; i < t.seats; ++i) {
            (uint256 lost, uint256 pay) = _judge(t, _jurors[id][i]);
            slashed += lost;
            rest -= pay;
        }
        if (t.overturned) {
            uint256 burned = _burned(t.stake + slashed);
            _credit(BURN, burned);
            _credit(t.winner, t.stake + slashed - burned);
        } else {
            rest -= t.reward;
            _credit(BURN, slashed);
            _credit(t.solver, uint256(t.reward) + t.stake);
        }
        _credit(t.submitter, rest);
    }

    /// @dev What a verifier loses, and what it was paid; its seat is slashed, given up, or free again.
    function _judge(Task storage t, Juror storage j) internal virtual returns (uint256 lost, uint256 pay) {
        bool slash;
        (slash, pay) = _due(t, j.stand);
        if (slash) {
            _empty(j.seat, true);
            lost = SEAT;
        } else if (j.stand == Stand.Absent) {
            _giveUp(j.seat, j.owner);
        } else {
            _seats[j.seat].task = 0;
            _credit(j.owner, pay);
        }
    }

    /// @dev What a verifier's root is worth: docs/settlement.md section 5.
    function _due(Task storage t, Stand stand) private view returns (bool slash, uint256 pay) {
        if (stand == Stand.Absent) return (false, 0);
        if (stand == Stand.Sealed) return (true, 0);
        if (t.overturned) return stand == Stand.Right ? (true, 0) : (false, t.fee);
        if (stand == Stand.Decoy) return (true, 0);
        return (false, (stand == Stand.Right ? t.fee : 0) + (t.decoy ? t.bounty : 0));
    }

    // ---------------------------------------------------------------------------------------------- money

    /// @notice Take out what was credited to the sender.
    function withdraw(address to) external guarded {
        _pay(msg.sender, to);
    }

    /// @notice Send what is burned to where nobody can use it.
    function burn() external guarded {
        _pay(BURN, BURN);
    }

    function _pay(address from, address to) private {
        uint256 amount = credit[from];
        if (amount == 0) revert NoCredit();
        credit[from] = 0;
        owed -= uint128(amount);
        emit Withdrawn(from, to, amount);
        if (ASSET == address(0)) {
            (bool sent,) = to.call{value: amount}("");
            if (!sent) revert TransferFailed();
        } else {
            _call(abi.encodeWithSignature("transfer(address,uint256)", to, amount));
        }
    }

    /// @dev Takes exactly `amount` from the sender.
    function _take(uint256 amount) private {
        if (amount > type(uint128).max) revert WrongAmount(type(uint128).max, amount);
        locked += uint128(amount);
        uint256 wanted = ASSET == address(0) ? amount : 0;
        if (msg.value != wanted) revert WrongAmount(wanted, msg.value);
        if (ASSET == address(0)) return;
        uint256 before = _balance();
        _call(abi.encodeWithSignature("transferFrom(address,address,uint256)", msg.sender, address(this), amount));
        uint256 received = _balance() - before;
        if (received != amount) revert WrongAmount(amount, received);
    }

    function _balance() private view returns (uint256) {
        (bool done, bytes memory answer) =
            ASSET.staticcall(abi.encodeWithSignature("balanceOf(address)", address(this)));
        if (!done || answer.length < 32) revert TransferFailed();
        return abi.decode(answer, (uint256));
    }

    /// @dev A token that answers nothing has succeeded, as some do; one that answers must answer true.
    function _call(bytes memory data) private {
        (bool done, bytes memory answer) = ASSET.call(data);
        if (!done || (answer.length > 0 && abi.decode(answer, (uint256)) != 1)) revert TransferFailed();
    }

    function _credit(address to, uint256 amount) internal virtual {
        if (amount == 0) return;
        locked -= uint128(amount);
        owed += uint128(amount);
        credit[to] += amount;
        emit Credited(to, amount);
    }

    function _burned(uint256 amount) private view returns (uint256) {
        return (amount * BURN_SHARE) >> 16;
    }

    function _escrow(Task storage t) private view returns (uint256) {
        return t.reward + t.seats * (uint256(t.fee) + t.bounty);
    }

    // ---------------------------------------------------------------------------------------------- guardian

    /// @notice Stop new tasks, or allow them again. What was posted before is not touched.
    function pause(bool paused_) external {
        if (msg.sender != GUARDIAN) revert NotYours();
        paused = paused_;
        emit PausedSet(paused_);
    }

    // ---------------------------------------------------------------------------------------------- reading

    function task(uint256 id) external view returns (Task memory) {
        return _tasks[id];
    }

    function game(uint256 number) external view returns (Game memory) {
        return _games[number];
    }

    function juror(uint256 id, uint256 place) external view returns (Juror memory) {
        return _jurors[id][place];
    }

    function seats() external view returns (Seat[] memory) {
        return _seats;
    }

    function rules() external view returns (Rules memory r) {
        (r.seat, r.minBond, r.stakeRatio) = (uint128(SEAT), uint128(MIN_BOND), uint32(STAKE_RATIO));
        (r.minClock, r.minWindow, r.rate) = (uint32(MIN_CLOCK), uint32(MIN_WINDOW), uint16(RATE));
        (r.burn, r.minSeats, r.delay) = (uint16(BURN_SHARE), uint8(MIN_SEATS), uint8(DELAY));
    }

    // ---------------------------------------------------------------------------------------------- helpers

    function _in(uint256 id, State state) private view returns (Task storage t) {
        t = _tasks[id];
        if (t.state != state) revert WrongState(t.state);
    }

    function _of(uint256 id, State state, address solver) private view returns (Task storage t) {
        t = _in(id, state);
        if (t.solver != solver) revert NotYours();
    }

    function _open(uint256 number) private view returns (Game storage g) {
        g = _games[number];
        if (g.challenger == address(0) || g.over) revert GameOver();
    }

    function _close(uint256 id, Task storage t, Outcome outcome) private {
        t.state = State.Closed;
        emit Closed(id, outcome);
    }

    /// @dev The hash of the block `DELAY` after `from`: known to nobody when `from` was mined, and kept by the EVM for 256 blocks.
    function _lot(uint256 from) internal view virtual returns (bytes32 hash) {
        uint256 number = from + DELAY;
        if (block.number <= number) revert TooEarly(number);
        hash = blockhash(number);
        if (hash == 0) revert TooLate(number + 256);
    }

    /// @dev formats, section 6
    function _commitment(Task storage t, bytes32 root, bytes32 salt) private view returns (bytes32) {
        return keccak256(abi.encodePacked("gensyn_verify.run.1", t.digest, t.solver, salt, uint64(t.steps), root));
    }

    function _chanceSeal(uint256 id, Task storage t, bytes32 r) private view returns (bytes32) {
        return keccak256(abi.encodePacked("gensyn_verify.chance.1", t.digest, id, t.solver, r));
    }
}

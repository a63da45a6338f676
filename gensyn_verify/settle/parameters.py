"""What a settlement's amounts, shares and times must satisfy so that honest play is the best reply.

The derivation is docs/incentives.md; here are its inequalities, in the integer arithmetic that a contract does: no
division that rounds in a cheater's favour, every intermediate below 2^256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gensyn_verify.errors import MalformedError

ONE = 1 << 16
"""Shares and probabilities are in units of 2^-16."""
WHOLE = 1 << 64
"""Probabilities of missing a wrong run are in units of 2^-64."""
MOVES = 32
"""Moves of one side in the longest game: 2^20 steps, 4,096 nodes, a tensor of 1 GiB, a dot over 65,536 (dispute.md)."""

_LIMITS = {"seats": 17, "delay": 256, "rate": ONE, "burn": ONE, "detection": ONE + 1, "dishonest": ONE + 1}
_SECONDS = ("attest_time", "challenge_time", "clock", "check_time", "response_time")
_AT_LEAST_ONE = ("seats", "delay", "rate", "burn", "detection", "reward", "stake", "seat", "check_cost")


class FloorError(MalformedError):
    """Terms under which honest play is not the best reply."""


@dataclass(frozen=True)
class Parameters:
    """Amounts are in wei, below 2^128; shares in units of 2^-16; times in seconds, below 2^32; delay in blocks.

    The first two groups are the contract's rules and a task's terms, named as in docs/settlement.md. The facts of the
    last group no contract can know: who deploys it and who posts a task state them, cautiously.
    """

    # rules
    seat: int = 500 * 10**15  # a verifier's stake for one seat
    rate: int = 3277  # probability of a decoy
    burn: int = 32768  # burned share of what is slashed
    delay: int = 4  # blocks from what is fixed to its lot
    # terms
    seats: int = 5  # verifiers on the committee
    reward: int = 10**18  # of the solver, at least the work that a cheater saves
    stake: int = 6 * 10**18  # of the solver
    fee: int = 15 * 10**15  # for a check
    bounty: int = 100 * 10**15  # for telling a decoy apart
    bond: int = 300 * 10**15  # of a challenger
    attest_time: int = 86400
    challenge_time: int = 86400
    clock: int = 172800  # of one side in a game
    # facts
    check_cost: int = 10 * 10**15  # of a check, gas of the attestation included
    gain: int = 2 * 10**18  # of a cheater, beside the reward, from a wrong run that is accepted
    solver_game_cost: int = 125 * 10**15  # gas of the longest game
    challenger_game_cost: int = 125 * 10**15
    detection: int = 62259  # probability that a check finds what is wrong; 65536 for a full replay
    dishonest: int = 13107  # share of the seats that are idle or in league with a solver
    check_time: int = 14400
    response_time: int = 3600  # to find and send one move

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low = int(field.name in _AT_LEAST_ONE)
            high = _LIMITS.get(field.name, 1 << 32 if field.name in _SECONDS else 1 << 128)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < high:
                raise MalformedError(f"parameter {field.name}: expected an integer in [{low}, {high}), found {value!r}")

    def to_json(self) -> dict[str, int]:
        """All fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Parameters:
        """The inverse of `to_json`; fields left out keep their defaults. Raises MalformedError for any other name."""
        if not isinstance(value, Mapping):
            raise MalformedError(f"parameters: expected an object, found {type(value).__name__}")
        names = [field.name for field in fields(cls)]
        for name in value:
            if name not in names:
                raise MalformedError(f"unknown parameter {name!r}; there are {', '.join(names)}")
        return cls(**value)


@dataclass(frozen=True)
class Floor:
    """One inequality, left > right (`griefing` and the two of time: left >= right), with its numbers.

    All but the times have both sides scaled alike, by powers of two that docs/incentives.md states.
    """

    name: str
    holds: bool
    left: int
    right: int
    rule: str

    def __str__(self) -> str:
        return f"{self.name}: {self.rule}; found {self.left} against {self.right}"


def miss(p: Parameters) -> int:
    """Probability, in units of 2^-64 rounded up, that a wrong run meets no checker: an upper bound, at most 2^64.

    Every one of the seats is idle, in league, or blind; or the lot gave a decoy, so that the right run was not shown.
    """
    blind = ONE - (ONE - p.dishonest) * p.detection // ONE
    none = WHOLE
    for _ in range(p.seats):
        none = -(-none * blind // ONE)
    return min(WHOLE, none + p.rate * (WHOLE // ONE))


def all_floors(p: Parameters) -> list[Floor]:
    """Every floor with both of its sides, kept or not."""
    found = p.rate * p.detection * (p.bounty + p.seat)
    missed = p.rate * (ONE - p.detection) * (p.bounty + p.seat)
    cost = p.check_cost * ONE * ONE
    kept = ONE - p.burn  # the share that a cheater can win back by challenging itself
    escaped = miss(p)
    loss = max(0, p.burn * p.stake - kept * p.seats * p.seat)
    rows = [
        ("checking", found, cost, "what a decoy costs who approves it must exceed the check"),
        ("guessing", (ONE - p.rate) * ONE * p.fee, missed + cost, "the fee must exceed the check"),
        (
            "cheating",
            loss * (WHOLE - escaped),
            ONE * (p.gain * escaped + p.reward * WHOLE),
            "the burned share of the stake, less seats that a self-challenge wins, must exceed what cheating brings",
        ),
        (
            "withholding",
            p.burn * p.stake,
            ONE * p.seats * max(p.seat + p.fee, p.bounty),
            "the burned share of the stake must exceed what silence about a decoy saves the committee or the submitter",
        ),
        (
            "challenging",
            p.detection * kept * p.stake,
            p.detection * ONE * p.challenger_game_cost + cost,
            "the rest of the stake must pay the game and the check of who overturns a run",
        ),
        ("griefing", kept * p.bond, ONE * p.solver_game_cost, "a lost bond must pay the solver's game"),
        (
            "windows",
            min(p.attest_time, p.challenge_time),
            p.check_time,
            "the attest time and the challenge time must suffice for a check",
        ),
        ("clock", p.clock, MOVES * p.response_time, f"the clock must suffice for {MOVES} moves"),
    ]
    equal = ("griefing", "windows", "clock")
    return [
        Floor(n, left > right or (n in equal and left == right), left, right, rule) for n, left, right, rule in rows
    ]


def floors(p: Parameters) -> list[Floor]:
    """The floors that `p` violates; empty if honest play is the best reply."""
    return [floor for floor in all_floors(p) if not floor.holds]


def require(p: Parameters) -> None:
    """Raise one FloorError that names every violated floor with its numbers."""
    if violated := floors(p):
        raise FloorError("terms below the floors: " + "; ".join(map(str, violated)))


def least_stake(p: Parameters) -> int:
    """The smallest stake that keeps `cheating`, `withholding` and `challenging`; FloorError if none does."""
    kept, cost, escaped = ONE - p.burn, p.check_cost * ONE * ONE, miss(p)
    if escaped == WHOLE:
        raise FloorError(f"no stake deters: seats {p.seats}, detection {p.detection}, dishonest {p.dishonest}")
    loss = ONE * (p.gain * escaped + p.reward * WHOLE) // (WHOLE - escaped) + 1
    return max(
        -(-(loss + kept * p.seats * p.seat) // p.burn),
        ONE * p.seats * max(p.seat + p.fee, p.bounty) // p.burn + 1,
        (p.detection * ONE * p.challenger_game_cost + cost) // (p.detection * kept) + 1,
    )


def least(p: Parameters) -> Parameters:
    """`p` with the smallest seat, fee, stake, bond and times that keep all floors, everything else as it is.

    Raises FloorError where no stake deters, because a wrong run is as good as never met.
    """
    kept, cost = ONE - p.burn, p.check_cost * ONE * ONE
    seat = max(1, cost // (p.rate * p.detection) + 1 - p.bounty)
    missed = p.rate * (ONE - p.detection) * (p.bounty + seat)
    fee = (missed + cost) // ((ONE - p.rate) * ONE) + 1
    p = replace(p, seat=seat, fee=fee)
    return replace(
        p,
        stake=least_stake(p),
        bond=-(-ONE * p.solver_game_cost // kept),
        attest_time=p.check_time,
        challenge_time=p.check_time,
        clock=MOVES * p.response_time,
    )


def rules(p: Parameters) -> dict[str, int]:
    """The rules by which a contract keeps the floors of tasks like `p`, named as in Settlement.sol.

    stakeRatio (units of 2^-16) stands for "cheating" and "withholding", minBond for "challenging" and "griefing", seat
    for "checking", minWindow and minClock (seconds) for the times. Raises FloorError where seat and fee are too low.
    """
    stake = least_stake(p)
    low = replace(least(p), seat=p.seat, fee=p.fee, stake=stake)
    require(low)
    return {
        "seat": p.seat,
        "minBond": max(low.bond, p.challenger_game_cost + p.check_cost * ONE // p.detection + 1),
        "stakeRatio": -(-stake * ONE // p.reward),
        "minClock": low.clock,
        "minWindow": low.attest_time,
        "rate": p.rate,
        "burn": p.burn,
        "minSeats": p.seats,
        "delay": p.delay,
    }

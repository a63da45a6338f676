"""Settlements played many times: payoffs of honest players and of others, and how populations of them change.

`play` follows the tables of docs/settlement.md, section 5. `SCENARIOS` has one entry a floor (docs/incentives.md): an
honest player, the one that would rather deviate, both of their expected payoffs in closed form, and parameters that
break this floor. Amounts are float64, in units of the cost of a check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gensyn_verify.settle.parameters import MOVES, ONE, Parameters

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CHECK, APPROVE, REJECT, ABSTAIN, COLLUDE, COPY = range(6)
VERIFIERS = ("check", "approve unseen", "reject unseen", "abstain", "collude", "copy the first seat")
HONEST, CHEAT, SELF_CHALLENGE, WITHHOLD = range(4)
SOLVERS = ("honest", "cheat", "cheat and challenge oneself", "withhold a decoy")
NOBODY, WATCH, GRIEF = range(3)
OUTSIDERS = ("nobody", "watch", "grief")


@dataclass(frozen=True)
class Payoffs:
    """What each player of each task gained: solver and outsider [tasks], seats [tasks, seats].

    A solver's zero is what an honest one earns that is not drawn into a game.
    """

    solver: Floats
    seats: Floats
    outsider: Floats


class Units:
    """Parameters as floats: amounts in check costs, shares in 1."""

    def __init__(self, p: Parameters) -> None:
        c = p.check_cost
        self.L, self.f, self.B, self.S, self.D = (x / c for x in (p.seat, p.fee, p.bounty, p.stake, p.bond))
        self.G, self.w = p.gain / c, p.reward / c
        self.gs, self.gc = p.solver_game_cost / c, p.challenger_game_cost / c
        self.p, self.b, self.d, self.a = (x / ONE for x in (p.rate, p.burn, p.detection, p.dishonest))
        self.m = p.seats
        self.late = p.check_time > p.attest_time
        self.slow = MOVES * p.response_time > p.clock


def play(
    p: Parameters, rng: np.random.Generator, solver: Ints, seats: Ints, outsider: int = NOBODY, evidence: bool = False
) -> Payoffs:
    """Settle one task for every entry of `solver`.

    solver int[tasks] of SOLVERS; seats int[tasks, p.seats] of VERIFIERS; outsider one of OUTSIDERS. With
    `evidence` a seat that rejects unseen is never paid, as if who dissents had to seal the step that is wrong
    (docs/incentives.md, section 6).
    """
    u = Units(p)
    tasks = len(solver)
    decoy = rng.integers(0, ONE, tasks) < p.rate
    found = rng.integers(0, ONE, seats.shape) < p.detection
    wrong = (solver == CHEAT) | (solver == SELF_CHALLENGE)
    checks = (seats == CHECK) & (not u.late)
    sealed = (seats != ABSTAIN) & ((seats != CHECK) | checks)
    dissents = np.where(seats == COLLUDE, decoy[:, None], seats == REJECT) | (checks & found & (wrong | decoy)[:, None])

    copies = seats == COPY  # another seat of the owner of seat 0, which must not copy itself
    dissents = np.where(copies, dissents[:, :1], dissents)
    sealed = np.where(copies, sealed[:, :1], sealed)

    # who challenges the run that was disclosed: seats saw it only if it was shown
    knows = checks & found & (wrong & ~decoy)[:, None]
    sees = np.zeros(tasks, bool)
    if outsider == WATCH and p.challenge_time >= p.check_time:
        sees = wrong & (rng.integers(0, ONE, tasks) < p.detection)
    griefs = ~wrong if outsider == GRIEF else np.zeros(tasks, bool)
    withheld = (solver == WITHHOLD) & decoy
    overturned = (knows.any(1) | sees | (griefs & u.slow)) & ~withheld

    shown_wrong = np.where(overturned, ~decoy, decoy)[
        :, None
    ]  # approving the decoy of an overturned run is not punished
    right = np.where(overturned[:, None], u.f, np.where(decoy[:, None], u.B, 0.0)) * (
        (seats != REJECT) | (not evidence)
    )
    slashed = sealed & ~dissents & shown_wrong & ~withheld[:, None]
    pay = np.where(dissents, right, np.where(slashed, -u.L, u.f))
    pay = np.where(withheld[:, None], u.f, pay) * sealed - (seats == CHECK)  # a check costs 1, in time or not

    pot = np.where(overturned, (1 - u.b) * (u.S + u.L * slashed.sum(1)), 0.0)
    to_solver = solver == SELF_CHALLENGE
    to_outsider = ~to_solver & (sees | griefs)
    to_seat = overturned & ~to_solver & ~to_outsider
    first = np.argmax(rng.random(seats.shape) * knows, axis=1)
    pay[np.arange(tasks), first] += np.where(to_seat, pot - u.gc, 0.0)

    gains = (
        wrong * u.w
        + np.where(wrong & ~overturned, u.G, 0.0)
        - overturned * u.S
        + to_solver * pot
        - withheld * u.b * u.S
    )
    answered = griefs & ~overturned & ~withheld
    gains = gains + answered * ((1 - u.b) * u.D - u.gs)
    watches = to_outsider * pot - (sees | griefs) * u.gc - answered * u.D - float(outsider == WATCH)
    return Payoffs(gains, pay, watches)


@dataclass(frozen=True)
class Side:
    """One way to play a scenario: samples of its payoff, and its expectation."""

    name: str
    samples: Callable[[Parameters, np.random.Generator, int], Floats]
    expected: Callable[[Parameters], float]


@dataclass(frozen=True)
class Scenario:
    """Honest play beside the deviation that a floor makes unprofitable."""

    floor: str
    text: str
    honest: Side
    deviation: Side
    broken: Callable[[Parameters], Parameters]


def _seats(p: Parameters, tasks: int, first: int, others: int = CHECK) -> Ints:
    seats = np.full((tasks, p.seats), others)
    seats[:, 0] = first
    return seats


def _verifier(strategy: int) -> Side:
    """The seat at place 0 plays `strategy`, all others check, the solver is honest."""

    def samples(p: Parameters, rng: np.random.Generator, tasks: int) -> Floats:
        return play(p, rng, np.full(tasks, HONEST), _seats(p, tasks, strategy)).seats[:, 0]

    return Side(VERIFIERS[strategy], samples, lambda p: expected_verifier(p, strategy))


def expected_verifier(p: Parameters, strategy: int) -> float:
    """What a seat earns beside an honest solver, in check costs, whatever others do; of COPY, if seat 0 checks."""
    u = Units(p)
    if strategy == CHECK:
        return -1.0 if u.late else (1 - u.p) * u.f + u.p * (u.d * u.B - (1 - u.d) * u.L) - 1
    return {
        APPROVE: (1 - u.p) * u.f - u.p * u.L,
        REJECT: u.p * u.B,
        ABSTAIN: 0.0,
        COLLUDE: (1 - u.p) * u.f + u.p * u.B,
        COPY: (1 - u.p) * u.f + u.p * (u.d * u.B - (1 - u.d) * u.L),
    }[strategy]


def _cheat(p: Parameters, rng: np.random.Generator, tasks: int) -> Floats:
    seats = np.where(rng.integers(0, ONE, (tasks, p.seats)) < p.dishonest, COLLUDE, CHECK)
    return play(p, rng, np.full(tasks, SELF_CHALLENGE), seats).solver


def _expected_cheat(p: Parameters) -> float:
    u = Units(p)
    if u.late:
        return u.w + u.G
    approves = 1 - (1 - u.a) * u.d
    escapes = u.p + (1 - u.p) * approves**u.m
    seized = (1 - u.p) * (1 - u.b) * u.L * u.m * (approves - approves**u.m)
    return u.w + escapes * u.G - (1 - escapes) * u.b * u.S + seized


def _ring(solver: int) -> Side:
    """A solver and a committee that looks at nothing, together."""

    def samples(p: Parameters, rng: np.random.Generator, tasks: int) -> Floats:
        x = play(p, rng, np.full(tasks, solver), np.full((tasks, p.seats), APPROVE))
        together: Floats = x.solver + x.seats.sum(1)
        return together

    def expected(p: Parameters) -> float:
        u = Units(p)
        decoy = u.m * u.f - u.b * u.S if solver == WITHHOLD else -u.m * u.L
        return (1 - u.p) * u.m * u.f + u.p * decoy

    return Side("withhold" if solver == WITHHOLD else "disclose", samples, expected)


def _watch(p: Parameters, rng: np.random.Generator, tasks: int) -> Floats:
    return play(p, rng, np.full(tasks, CHEAT), np.full((tasks, p.seats), COLLUDE), WATCH).outsider


def _expected_watch(p: Parameters) -> float:
    u = Units(p)
    return u.d * ((1 - u.b) * (u.S + (1 - u.p) * u.m * u.L) - u.gc) - 1


def _grieved(p: Parameters, rng: np.random.Generator, tasks: int) -> Floats:
    return play(p, rng, np.full(tasks, HONEST), np.full((tasks, p.seats), CHECK), GRIEF).solver


def _expected_grieved(p: Parameters) -> float:
    u = Units(p)
    return (1 - u.b) * u.D - u.gs


def _griefs(p: Parameters, rng: np.random.Generator, tasks: int) -> Floats:
    return play(p, rng, np.full(tasks, HONEST), np.full((tasks, p.seats), CHECK), GRIEF).outsider


def _expected_griefs(p: Parameters) -> float:
    u = Units(p)
    if u.slow:
        return (1 - u.b) * (u.S + (1 - u.p) * u.m * u.L) - u.gc
    return -u.D - u.gc


def _nothing(name: str) -> Side:
    return Side(name, lambda p, rng, tasks: np.zeros(tasks), lambda p: 0.0)


def _cheap_seat(p: Parameters) -> Parameters:
    return replace(p, seat=max(1, p.seat // 8), bounty=p.bounty // 8)


def _dear_games(p: Parameters) -> Parameters:
    return replace(p, challenger_game_cost=2 * (p.stake + p.seats * p.seat))


SCENARIOS = (
    Scenario("checking", "a seat approves without a look", _verifier(CHECK), _verifier(APPROVE), _cheap_seat),
    Scenario(
        "guessing",
        "a seat rejects without a look",
        _verifier(CHECK),
        _verifier(REJECT),
        lambda p: replace(p, fee=p.check_cost // 2),
    ),
    Scenario(
        "cheating",
        "a solver saves the work; caught, it challenges itself",
        _nothing("solve"),
        Side("cheat", _cheat, _expected_cheat),
        lambda p: replace(p, stake=max(1, (p.reward * ONE) // (2 * p.burn))),
    ),
    Scenario(
        "withholding",
        "solver and lazy committee keep silent about a decoy",
        _ring(HONEST),
        _ring(WITHHOLD),
        lambda p: replace(p, stake=max(1, p.seats * p.seat * ONE // (2 * p.burn))),
    ),
    Scenario(
        "challenging",
        "a whistleblower looks away while everybody colludes",
        Side("watch", _watch, _expected_watch),
        _nothing("look away"),
        _dear_games,
    ),
    Scenario(
        "griefing",
        "challenges of right runs drive a solver away",
        Side("defend", _grieved, _expected_grieved),
        _nothing("stay away"),
        lambda p: replace(p, bond=p.bond // 4),
    ),
    Scenario(
        "windows",
        "checks come too late",
        _verifier(CHECK),
        _verifier(APPROVE),
        lambda p: replace(p, attest_time=p.check_time - 1, seat=1, bounty=p.bounty + p.seat - 1),
    ),
    Scenario(
        "clock",
        "a challenger waits for an honest solver's clock",
        _nothing("keep still"),
        Side("grief", _griefs, _expected_griefs),
        lambda p: replace(p, clock=MOVES * p.response_time - 1),
    ),
)


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks, half the width of its confidence interval, and the closed form, in check costs."""

    mean: float
    margin: float
    expected: float


@dataclass(frozen=True)
class Result:
    """A scenario played with some parameters."""

    floor: str
    text: str
    honest: Estimate
    deviation: Estimate

    @property
    def advantage(self) -> float:
        """What the deviation brings beside honest play, in closed form."""
        return self.deviation.expected - self.honest.expected

    @property
    def honest_is_best(self) -> bool:
        """Closed forms; equality counts, for `griefing` asks for no more."""
        return self.advantage <= 1e-9


Z = 3.89
"""Half-width in standard errors: 99.99 % confidence under the normal approximation."""


def estimate(side: Side, p: Parameters, rng: np.random.Generator, tasks: int) -> Estimate:
    """Play `tasks` tasks. The normal approximation needs tasks * rate well above 1: use 10,000 tasks or more."""
    x = side.samples(p, rng, tasks)
    margin = Z * float(x.std()) / tasks**0.5 + 1e-9 * (1 + float(np.abs(x).max()))
    return Estimate(float(x.mean()), margin, side.expected(p))


def simulate(scenario: Scenario, p: Parameters, seed: int, tasks: int) -> Result:
    """Both sides of a scenario; the same seed gives the same numbers."""
    rng = np.random.default_rng([seed, [s.floor for s in SCENARIOS].index(scenario.floor)])
    honest, deviation = (estimate(side, p, rng, tasks) for side in (scenario.honest, scenario.deviation))
    return Result(scenario.floor, scenario.text, honest, deviation)


POPULATION = (CHECK, APPROVE, REJECT, ABSTAIN)


@dataclass(frozen=True)
class Dynamics:
    """Shares after each generation: verifiers [generations + 1, 4] of POPULATION, cheats [generations + 1]."""

    verifiers: Floats
    cheats: Floats


def evolve(
    p: Parameters,
    seed: int,
    *,
    honest: float = 0.5,
    evidence: bool = False,
    generations: int = 120,
    tasks: int = 2000,
    pace: float = 0.25,
) -> Dynamics:
    """Replicator dynamics: a strategy grows by exp(pace * what it earns beyond the average, bounded).

    Begins with this share of honest verifiers and of honest solvers; other verifiers are split evenly, other solvers
    cheat and challenge themselves. Seats and solvers are drawn from the population, so what pays depends on who is
    there.
    """
    rng = np.random.default_rng([seed, len(SCENARIOS)])
    x, y = np.array([honest, *[(1 - honest) / 3] * 3]), 1 - honest
    verifiers, cheats = [x], [y]
    for _ in range(generations):
        kinds = np.array(POPULATION)[rng.choice(len(POPULATION), size=(tasks, p.seats), p=x)]
        solver = np.where(rng.random(tasks) < y, SELF_CHALLENGE, HONEST)
        # a few of each kind are always tried, so that nothing is judged by a chance absence
        kinds[: 4 * 25, 0] = np.repeat(POPULATION, 25)
        solver[:50], solver[50:100] = HONEST, SELF_CHALLENGE
        outcome = play(p, rng, solver, kinds, evidence=evidence)
        earned = np.array([outcome.seats[kinds == k].mean() for k in POPULATION])
        x = x * np.exp(pace * np.clip(earned - x @ earned, -1, 1))
        x = np.maximum(x / x.sum(), 1e-4)
        x = x / x.sum()
        bias = outcome.solver[solver == SELF_CHALLENGE].mean() - outcome.solver[solver == HONEST].mean()
        odds = y / (1 - y) * np.exp(pace * np.clip(bias, -1, 1))
        y = float(np.clip(odds / (1 + odds), 1e-4, 1 - 1e-4))
        verifiers.append(x)
        cheats.append(y)
    return Dynamics(np.array(verifiers), np.array(cheats))

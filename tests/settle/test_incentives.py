"""Floors of a settlement's parameters, and settlements played: docs/incentives.md."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from xml.etree import ElementTree

import numpy as np
import pytest

from gensyn_verify.cli import main
from gensyn_verify.errors import MalformedError
from gensyn_verify.settle import parameters, simulation
from gensyn_verify.settle.parameters import MOVES, ONE, WHOLE, FloorError, Parameters, floors, least
from gensyn_verify.settle.simulation import SCENARIOS

NAMES = [scenario.floor for scenario in SCENARIOS]
BY_NAME = dict(zip(NAMES, SCENARIOS, strict=True))


def grid(count: int) -> list[Parameters]:
    """Random facts over several orders of magnitude, with the least terms that keep the floors."""
    rng = np.random.default_rng(20)

    def between(low: float, high: float) -> int:
        return int(10 ** rng.uniform(np.log10(low), np.log10(high)))

    out = []
    for _ in range(count):
        cost = between(1e14, 1e17)
        out.append(
            least(
                Parameters(
                    check_cost=cost,
                    reward=cost * between(1, 1000),
                    gain=cost * between(1, 10000),
                    bounty=cost * between(1, 50),
                    solver_game_cost=between(1e15, 1e18),
                    challenger_game_cost=between(1e15, 1e18),
                    rate=between(0.005 * ONE, 0.2 * ONE),
                    burn=between(0.2 * ONE, 0.9 * ONE),
                    seats=int(rng.integers(1, 17)),
                    detection=int(rng.uniform(0.7, 1) * ONE),
                    dishonest=int(rng.uniform(0, 0.5) * ONE),
                    check_time=between(60, 1e5),
                    response_time=between(10, 1e4),
                )
            )
        )
    return out


GRID = grid(200)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_inside_the_floors_honest_play_is_the_best_reply_at_every_point_of_a_grid(scenario):
    for p in GRID:
        assert floors(p) == []
        assert scenario.deviation.expected(p) - scenario.honest.expected(p) <= 1e-9, p


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_breaking_a_floor_makes_deviating_pay_at_every_point_of_a_grid(scenario):
    for p in GRID:
        broken = scenario.broken(p)
        assert scenario.floor in [floor.name for floor in floors(broken)]
        assert scenario.deviation.expected(broken) > scenario.honest.expected(broken), broken


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_simulated_payoffs_lie_within_the_confidence_interval_of_the_closed_form(scenario):
    for p in (Parameters(), GRID[0], GRID[1]):
        for x in (p, scenario.broken(p)):
            result = simulation.simulate(scenario, x, seed=1, tasks=30_000)
            for side in (result.honest, result.deviation):
                assert abs(side.mean - side.expected) <= side.margin + 1e-6 * abs(side.expected), (x, result)


@pytest.mark.parametrize("strategy", range(5), ids=simulation.VERIFIERS[:5])
def test_what_a_seat_earns_beside_an_honest_solver_does_not_depend_on_the_other_seats(strategy):
    p, tasks = Parameters(), 30_000
    for others in (simulation.CHECK, simulation.APPROVE, simulation.REJECT, simulation.COLLUDE):
        seats = np.full((tasks, p.seats), others)
        seats[:, 0] = strategy
        x = simulation.play(p, np.random.default_rng(others), np.zeros(tasks, np.int64), seats).seats[:, 0]
        expected = simulation.expected_verifier(p, strategy)
        assert abs(x.mean() - expected) <= simulation.Z * x.std() / tasks**0.5 + 1e-9


def test_a_seat_that_the_solver_tells_of_decoys_saves_a_check_and_gains_no_more():
    for p in GRID:
        told, honest = (simulation.expected_verifier(p, s) for s in (simulation.COLLUDE, simulation.CHECK))
        u = simulation.Units(p)
        assert told - honest == pytest.approx(1 + u.p * (1 - u.d) * (u.B + u.L))


def test_seats_of_one_owner_share_a_check_and_guard_like_one_seat():
    p, tasks = replace(Parameters(), dishonest=0, detection=ONE * 3 // 4), 50_000
    seats = np.full((tasks, p.seats), simulation.COPY)
    seats[:, 0] = simulation.CHECK
    honest = simulation.play(p, np.random.default_rng(0), np.full(tasks, simulation.HONEST), seats).seats[:, 3]
    expected = simulation.expected_verifier(p, simulation.COPY)
    assert expected == pytest.approx(simulation.expected_verifier(p, simulation.CHECK) + 1)
    assert abs(honest.mean() - expected) <= simulation.Z * honest.std() / tasks**0.5
    cheat = simulation.play(p, np.random.default_rng(0), np.full(tasks, simulation.CHEAT), seats).solver
    assert (cheat > 0).mean() == pytest.approx(1 / 4 + 3 / 4 * p.rate / ONE, abs=0.01)  # five seats: 0.05


def test_one_checker_or_one_whistleblower_undoes_a_colluding_committee():
    p = replace(Parameters(), detection=ONE)
    solver = np.full(2000, simulation.CHEAT)
    ring = np.full((2000, p.seats), simulation.COLLUDE)
    assert (simulation.play(p, np.random.default_rng(0), solver, ring).solver > 0).all()
    watched = simulation.play(p, np.random.default_rng(0), solver, ring, simulation.WATCH)
    assert (watched.solver < 0).all()
    assert (watched.outsider > 0).all()
    one = ring.copy()
    one[:, 2] = simulation.CHECK
    checked = simulation.play(p, np.random.default_rng(0), solver, one)
    caught = checked.solver < 0
    assert caught.mean() > 1 - 2 * p.rate / ONE  # all but those that a decoy covered
    assert (checked.seats[caught][:, [0, 1, 3, 4]] < 0).all()
    assert (checked.seats[caught][:, 2] > 0).all()


def test_no_money_is_made_by_a_settlement():
    p = Parameters()
    rng = np.random.default_rng(3)
    solver, seats = rng.integers(0, 4, 20_000), rng.integers(0, 5, (20_000, p.seats))
    u = simulation.Units(p)
    for outsider in range(3):
        x = simulation.play(p, rng, solver, seats, outsider)
        brought = u.w + u.G + u.m * (u.f + u.B)  # from the submitter, and from outside by a wrong run
        assert (x.solver + x.seats.sum(1) + x.outsider <= brought + 1e-6).all()


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    scenario = BY_NAME["cheating"]
    one, again, other = (simulation.simulate(scenario, Parameters(), seed, 1000) for seed in (5, 5, 6))
    assert one == again
    assert one != other


def test_populations_become_honest_inside_the_floors_and_lazy_below_them():
    p = Parameters()
    inside = simulation.evolve(p, 0)
    assert inside.verifiers[-1][0] > 0.95
    assert inside.cheats[-1] < 0.01
    below = simulation.evolve(BY_NAME["checking"].broken(p), 0, honest=0.9)
    assert below.verifiers[-1][1] > 0.9
    assert below.cheats[-1] > 0.9


def test_where_nearly_everybody_cheats_rejecting_unseen_feeds_on_checkers_unless_it_must_show_evidence():
    p = replace(Parameters(), detection=ONE)
    trap = simulation.evolve(p, 0, honest=0.05)
    assert trap.verifiers[-1][2] > 0.5
    assert trap.cheats[-1] > 0.9
    freed = simulation.evolve(p, 0, honest=0.05, evidence=True)
    assert freed.verifiers[-1][0] > 0.95
    assert freed.cheats[-1] < 0.01


# ---------------------------------------------------------------------------------------------- parameters


def test_least_terms_cannot_be_lowered():
    for p in GRID[:50]:
        for name, floor in (("fee", "guessing"), ("bond", "griefing"), ("attest_time", "windows"), ("clock", "clock")):
            assert floor in [f.name for f in floors(replace(p, **{name: getattr(p, name) - 1}))]
        lower = [f.name for f in floors(replace(p, stake=p.stake * 999 // 1000))]
        assert {"cheating", "withholding", "challenging"} & set(lower)
        if p.seat > 1:
            assert "checking" in [f.name for f in floors(replace(p, seat=p.seat - 1))]


def test_terms_at_the_contracts_rules_keep_all_floors():
    for p in (Parameters(), *GRID):
        rules = parameters.rules(p)
        terms = {
            "seat": rules["seat"],
            "stake": -(-p.reward * rules["stakeRatio"] // ONE),
            "bond": rules["minBond"],
            "attest_time": rules["minWindow"],
            "challenge_time": rules["minWindow"],
            "clock": rules["minClock"],
        }
        assert floors(replace(p, **terms)) == []


def test_the_example_is_accepted_by_a_contract_with_its_rules():
    p = Parameters()
    rules = parameters.rules(p)
    assert p.stake * ONE >= p.reward * rules["stakeRatio"]
    assert p.bond >= rules["minBond"]
    assert p.stake * (ONE - p.burn) >= rules["minBond"] * ONE
    assert p.rate * (p.seat + p.bounty + p.fee) >= 2 * ONE * p.fee
    with pytest.raises(FloorError, match="guessing"):
        parameters.rules(replace(p, fee=1))


def test_miss_is_the_exact_probability_rounded_up():
    for p in (Parameters(), *GRID):
        blind = 1 - (1 - Fraction(p.dishonest, ONE)) * Fraction(p.detection, ONE)
        exact = min(Fraction(1), blind**p.seats + Fraction(p.rate, ONE))
        assert 0 <= Fraction(parameters.miss(p), WHOLE) - exact <= Fraction(p.seats + 1, ONE)


def test_every_intermediate_of_the_largest_parameters_fits_256_bits():
    top = (1 << 128) - 1
    p = Parameters(
        seat=top, rate=ONE - 1, burn=ONE - 1, seats=16, reward=top, stake=top, fee=top, bounty=top, bond=top,
        check_cost=top, gain=top, solver_game_cost=top, challenger_game_cost=top, detection=ONE, dishonest=ONE,
    )  # fmt: skip
    assert all(0 <= side < 1 << 256 for floor in parameters.all_floors(p) for side in (floor.left, floor.right))


def test_violated_floors_are_one_error_with_all_numbers():
    with pytest.raises(FloorError) as caught:
        parameters.require(replace(Parameters(), fee=1, clock=5))
    assert "guessing" in str(caught.value)
    assert f"clock: the clock must suffice for {MOVES} moves; found 5 against 115200" in str(caught.value)
    parameters.require(Parameters())


def test_no_stake_deters_where_nobody_looks():
    with pytest.raises(FloorError, match="no stake deters"):
        least(replace(Parameters(), dishonest=ONE))


@pytest.mark.parametrize(
    "change",
    [
        {"stake": -1},
        {"stake": 1 << 128},
        {"rate": 0},
        {"rate": ONE},
        {"seats": 17},
        {"delay": 256},
        {"fee": 1.5},
        {"fee": True},
    ],
)
def test_parameters_out_of_range_are_refused(change):
    with pytest.raises(MalformedError, match=f"parameter {next(iter(change))}: expected an integer"):
        replace(Parameters(), **change)


def test_parameters_survive_json_and_refuse_unknown_names():
    p = GRID[0]
    assert Parameters.from_json(json.loads(json.dumps(p.to_json()))) == p
    with pytest.raises(MalformedError, match="unknown parameter 'stakes'"):
        Parameters.from_json({"stakes": 1})


# ---------------------------------------------------------------------------------------------- gverify simulate


def test_simulate_command_reports_and_draws(tmp_path, capsys):
    picture = tmp_path / "plot.svg"
    assert main(["simulate", "--tasks", "2000", "--json", "--quiet", "--plot", str(picture)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["honest_is_best"]
    assert [s["floor"] for s in document["scenarios"]] == NAMES
    assert all(s["inside"]["honest_is_best"] and not s["broken"]["honest_is_best"] for s in document["scenarios"])
    drawn = ElementTree.parse(picture).getroot()
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 3 * 5


def test_simulate_command_exits_with_1_below_a_floor_and_2_for_bad_input(tmp_path, capsys):
    quick = ["simulate", "--tasks", "500", "--quiet", "--scenario", "guessing"]
    assert main([*quick, "--set", "fee=1"]) == 1
    assert "VIOLATED" in capsys.readouterr().out
    assert main([*quick, "--least"]) == 0
    assert main(["simulate", "--scenario", "nothing"]) == 2
    assert main([*quick, "--set", "fee"]) == 2
    (tmp_path / "terms.json").write_text("[]")
    assert main([*quick, "--parameters", str(tmp_path / "terms.json")]) == 2
    assert "expected a JSON object" in capsys.readouterr().err

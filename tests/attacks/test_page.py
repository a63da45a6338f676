"""docs/attacks.md is made of the numbers in bench/results, by `python -m tests.attacks.report --page`."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

pytest.importorskip("sklearn")  # report makes the tasks of the attacks, on its digits

from gensyn_verify.protocol.policy import BIT, Thresholds
from gensyn_verify.protocol.sampling import probability_caught
from gensyn_verify.protocol.threshold import SIGMAS
from tests.attacks.honest import CALIBRATED
from tests.attacks.honest import RESULTS as HONEST
from tests.attacks.page import page
from tests.attacks.report import PAGE, RESULTS, over_budget


def test_the_page_is_what_the_results_give() -> None:
    assert PAGE.read_text() == page(json.loads(RESULTS.read_text()), json.loads(HONEST.read_text()))


def test_a_calibration_names_the_variations_that_it_was_made_on() -> None:
    for found in json.loads(HONEST.read_text())["threshold"].values():
        assert found["calibrated on"] == list(CALIBRATED)
        assert f"replays: {'; '.join(CALIBRATED)}\n" in found["calibration"]


def test_a_sampled_draw_is_rejected_for_a_bad_interval_or_for_its_mean() -> None:
    """A mean of -2 bits that spreads by 1: the limit of two intervals is -2 + 6 / sqrt 2."""
    limits = dict.fromkeys(Thresholds.__dataclass_fields__, 1)
    t = Thresholds(**(limits | {"mean": -2 * BIT, "spread": BIT}))
    assert over_budget(9, 4, {1, 2}, dict.fromkeys(range(9), -2.0), t) == pytest.approx(
        float(probability_caught(9, 4, 2))
    )
    assert over_budget(9, 4, set(), dict.fromkeys(range(9), 5.0), t) == 1.0
    assert over_budget(9, 4, set(), {3: 50.0}, t) == 0.0  # one interval that can tell is no mean
    excess = {0: 3.0, 1: 2.5, 2: 1.0, 3: -2.0, 5: 9.0}  # nothing is known of interval 4
    rejected = 0
    for drawn in combinations(range(6), 3):
        known = [excess[i] for i in drawn if i in excess]
        rejected += 3 in drawn or (len(known) > 1 and sum(known) / len(known) > -2 + SIGMAS / len(known) ** 0.5)
    assert 0.5 < rejected / 20 < 1.0
    assert over_budget(6, 3, {3}, excess, t) == pytest.approx(rejected / 20)

"""docs/attacks.md is made of the numbers in bench/results, by `python -m tests.attacks.report --page`."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("sklearn")  # report makes the tasks of the attacks, on its digits

from tests.attacks.honest import CALIBRATED
from tests.attacks.honest import RESULTS as HONEST
from tests.attacks.page import page
from tests.attacks.report import PAGE, RESULTS


def test_the_page_is_what_the_results_give() -> None:
    assert PAGE.read_text() == page(json.loads(RESULTS.read_text()), json.loads(HONEST.read_text()))


def test_a_calibration_names_the_variations_that_it_was_made_on() -> None:
    for found in json.loads(HONEST.read_text())["threshold"].values():
        assert found["calibrated on"] == list(CALIBRATED)
        assert f"replays: {'; '.join(CALIBRATED)}\n" in found["calibration"]

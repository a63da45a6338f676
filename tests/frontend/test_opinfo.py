"""PyTorch's own samples of every operation that it tests: as accurate as PyTorch, forward and backward.

The test suite takes the first SAMPLES of an operation after a seeded shuffle; `make test-opinfo` takes all of them.
"""

from __future__ import annotations

import itertools
import os
import re
import warnings

import pytest

from tests.frontend.opinfo import LEFT_OUT, OPERATIONS, ROUNDING, Sample, check, samples

SAMPLES = None if os.environ.get("GENSYN_VERIFY_OPINFO") == "all" else 1
STRIDE = 3  # the first samples are often scalars


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in LEFT_OUT])
def test_samples_are_as_accurate_as_pytorch(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(itertools.islice(samples(OPERATIONS[name]), None if SAMPLES is None else SAMPLES * STRIDE))
        chosen = found if SAMPLES is None else found[-SAMPLES:]
        check([result for sample in chosen for result in sample.run()])


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_cannot_be_taken_in(name: str) -> None:
    """Some sample fails for the stated reason, and none for another."""
    reason, pattern = LEFT_OUT[name]
    found = (failure(sample) for sample in samples(OPERATIONS[name]))
    failures = (f for f in found if f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reasons = list(failures if SAMPLES is None else itertools.islice(failures, SAMPLES))
    # How PyTorch rounds depends on the machine.
    assert reasons or reason is ROUNDING, "every sample passes: take the operation off LEFT_OUT"
    for text in reasons:
        assert re.search(pattern, text), f"not because of {reason}"


def failure(sample: Sample) -> str:
    """What keeps a sample from passing, or nothing."""
    try:
        check(sample.run())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

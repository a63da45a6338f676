"""PyTorch's own samples of every operation that it tests: as accurate as PyTorch, forward and backward, or refused.

The test suite takes one sample of an operation; `make test-opinfo` takes all of them.
"""

from __future__ import annotations

import itertools
import os
import warnings

import pytest

from gensyn_verify.frontend.lowering import TABLE
from gensyn_verify.frontend.trace import RESTATED
from tests.frontend.opinfo import FACTORS, OPERATIONS, REFUSED, check, samples

ALL = os.environ.get("GENSYN_VERIFY_OPINFO") == "all"
FIRST = 2  # the first samples are often scalars


@pytest.mark.parametrize("name", OPERATIONS)
def test_samples_are_as_accurate_as_pytorch_or_refused_for_the_listed_reason(name: str) -> None:
    listed = REFUSED.get(name, {})
    results, refused = [], set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(itertools.islice(samples(OPERATIONS[name]), None if ALL else FIRST + 1))
        for sample in found if ALL else found[-1:]:
            try:
                results += sample.run()
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                reasons = {part for part in listed if part in text}
                if not reasons:
                    raise
                refused |= reasons
        check(results, FACTORS.get(name, 1.5))
    assert not ALL or refused == set(listed), "listed as refused, but is not: take it off the list"


def test_what_is_listed_exists_and_has_no_rule() -> None:
    assert set(REFUSED) | set(FACTORS) <= set(OPERATIONS)
    supported = {f"the operation {name}." for name in [*TABLE, *RESTATED]}
    assert not supported & {text for texts in REFUSED.values() for text in texts}

"""The CUDA kernels wait for each other where they have to, and nowhere else: every barrier left out is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from emulation.races import Barrier, barriers, built, outcome, work

SOURCES = sorted({b.source for b in barriers()})
ALL = os.environ.get("GENSYN_VERIFY_CUDA_RACES") == "all"


@pytest.mark.parametrize("source", SOURCES if ALL else ["move.cu"])
def test_no_kernel_has_a_race(source: str, tmp_path: Path) -> None:
    binary = built(tmp_path, source)
    for seed in (0, 1) if source == "dot.cu" else (1,):  # asynchronous copies arrive late, at once
        found = outcome(binary, work(source), seed)
        assert found.report == ""
        assert not found.wrong


@pytest.mark.parametrize("barrier", [b for b in barriers() if ALL or b.source == "move.cu"], ids=str)
def test_a_barrier_left_out_is_noticed(barrier: Barrier, tmp_path: Path) -> None:
    binary = built(tmp_path, barrier.source, without=barrier)
    asynchronous = barrier.call == "wait_async"
    found = outcome(binary, work(barrier.source), seed=0 if asynchronous else 1)
    assert found.wrong if asynchronous else "WARNING: ThreadSanitizer: data race" in found.report

"""The frontend's tests need torch; without it they are left out, and the header of the run says so."""

from __future__ import annotations

from importlib.util import find_spec

TORCH = find_spec("torch") is not None
collect_ignore = [] if TORCH else ["frontend"]


def pytest_report_header() -> str:
    return "torch: installed" if TORCH else "torch: not installed, tests/frontend is left out"

"""Tests that compare with torch are left out where it is not installed, and the header of the run says so."""

from __future__ import annotations

from importlib.util import find_spec

TORCH = find_spec("torch") is not None
NEED_TORCH = ["classic", "frontend", "integrations", "models", "program/test_functions.py"]
collect_ignore = [] if TORCH else NEED_TORCH


def pytest_report_header() -> str:
    return "torch: installed" if TORCH else f"torch: not installed, left out: {', '.join(NEED_TORCH)}"

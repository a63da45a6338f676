"""Compiled contracts, as they are shipped: ABI and creation bytecode by name. `make contracts` makes them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def load(name: str) -> dict[str, Any]:
    """{"abi": [...], "bytecode": hex} of a contract."""
    found: dict[str, Any] = json.loads(files(__name__).joinpath(f"{name}.json").read_bytes())
    return found

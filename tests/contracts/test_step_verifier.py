"""StepVerifier against the definition: every test of sequences once more, with the contract's answers.

Length, operation code, where every operand lies, and result, for elements of every node kind.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from contracts.referee import contracts, leaf_of, scalar_of
from gensyn_verify.backends.arrays import Array
from gensyn_verify.protocol.pinpoint.sequence import Constant, Operand, Result, Sequence, stored_bits

settings.register_profile("contracts", deadline=None)
settings.load_profile("contracts")
_FILE = Path(__file__).parents[1] / "protocol/pinpoint/test_sequence.py"
_SPEC = importlib.util.spec_from_file_location("sequences", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
definition = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(definition)


def location(s: Sequence, operand: Operand) -> tuple[Any, ...]:
    """What `locate` says of an operand."""
    if isinstance(operand, Constant):
        return (0, 0, False, operand.value, bytes(32), 0)
    if isinstance(operand, Result):
        return (1, operand.load.code if operand.load else 0, operand.load is None, operand.index, bytes(32), 0)
    type = s.reads[operand.tensor]
    root = operand.tensor.to_bytes(32, "big")
    return (2, type.dtype.code, operand.raw, operand.index, root, type.nbytes)


def check(s: Sequence, tensors: list[Array], wanted: int, rng: np.random.Generator, most: int = 3) -> None:
    """The contract agrees on the length and on operations: the first, the last, and some between."""
    flat = [stored_bits(t) for t in tensors]
    leaf, scalar = leaf_of(s), scalar_of(s)
    element = (s.step, s.output, s.element, s.value)
    call = contracts().call
    assert call("length", element, leaf, scalar) == s.length
    results = s.results(flat)
    chosen = {0, 1, s.length - 2, s.length - 1, *rng.integers(0, s.length, most).tolist()}
    for t in sorted(chosen & set(range(s.length))):
        values = s.operands(t, flat, results[:t])
        operation, operands = s.operation(t, values), [*values, 0, 0, 0][:3]
        code, *_, places = call("locate", element, leaf, scalar, t, operands)
        assert code == operation.code, t
        assert list(places) == [location(s, operation.operand(q)) for q in range(3)], t
        assert call("execute", element, leaf, scalar, t, operands) == int(results[t]), t
    with pytest.raises(RuntimeError):
        call("locate", element, leaf, scalar, s.length, (0, 0, 0))


definition.check = check
for _name in [n for n in dir(definition) if n.startswith("test_") or n == "rng"]:
    globals()[_name] = getattr(definition, _name)

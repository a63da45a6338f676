"""Every scalar operation of the contracts equals the reference, on vectors and on random operands of all classes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from contracts.evm import library
from contracts.vectors import Operands, Words
from gensyn_verify.backends.arrays import REGISTER, narrow, widen
from gensyn_verify.backends.reference import SCALAR
from gensyn_verify.program.scalar import OPERATIONS, Operation
from gensyn_verify.program.types import Dtype, Reg

ROWS = int(os.environ.get("GENSYN_VERIFY_FLOAT_ROWS", "200"))  # a class; there are 14 classes and 60 operations
SEED = int(os.environ.get("GENSYN_VERIFY_FLOAT_SEED", "1"))


def reference(op: Operation, operands: Words) -> Words:
    """The results by the reference backend, as bits."""
    registers = []
    for column, reg in zip(np.ascontiguousarray(operands.T), op.operands, strict=False):
        registers.append(column.astype(np.bool_) if reg is Reg.boolean else column.view(REGISTER[reg]))
    with np.errstate(all="ignore"):
        result = np.asarray(SCALAR[op.name](*registers))
    if op.result is Reg.boolean:
        return result.astype(np.uint32)
    bits = np.ascontiguousarray(result).view(np.uint32).copy()
    if op.result is Reg.f32:
        bits[np.isnan(result)] = 0x7FC00000
    return bits


def operands_of(op: Operation, rows: Words) -> Words:
    """Rows with operands of the operation's types: booleans, and the one NaN where bits are only passed on."""
    rows = rows.copy()
    for i, reg in enumerate(op.operands):
        if reg is Reg.boolean:
            rows[:, i] &= 1
        elif reg is Reg.f32:
            nan = (rows[:, i] & 0x7FFFFFFF) > 0x7F800000
            rows[nan & (op.name == "select.f32"), i] = 0x7FC00000
    return rows


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_equals_the_reference(name: str) -> None:
    op = OPERATIONS[name]
    rows = operands_of(op, Operands(SEED * 1000 + op.code).rows(ROWS))
    found, _, _ = library("Numbers").execute(op.code, rows)
    wrong = np.flatnonzero(found != reference(op, rows))
    assert not len(wrong), [(*map(hex, rows[i]), hex(found[i]), hex(reference(op, rows)[i])) for i in wrong[:5]]


def test_published_vectors() -> None:
    vectors = json.loads((Path(__file__).parents[1] / "vectors/scalar_ops.json").read_text())
    for name, operation in vectors["operations"].items():
        for *args, expected in operation["cases"]:
            operands = [int(bits, 16) for bits in args] + [0] * (3 - len(args))
            found = library("Numbers")("execute", operation["code"], *operands)
            assert found == int(expected, 16), (name, args)


def test_unknown_codes_are_refused() -> None:
    assert library("Numbers")("execute", len(OPERATIONS), 0, 0, 0) == "UnknownOperation"
    assert library("Numbers")("load", len(Dtype), 0) == library("Numbers")("store", len(Dtype), 0) == "UnknownDtype"


@pytest.mark.parametrize("dtype", Dtype)
def test_loads_and_stores_equal_the_reference(dtype: Dtype) -> None:
    contract, rows = library("Numbers"), Operands(SEED).narrow(600)
    if dtype is Dtype.boolean:
        rows &= 1
    register = rows.astype(np.bool_) if dtype is Dtype.boolean else rows.view(REGISTER[dtype.reg])
    stored = narrow(register, dtype).view(f"<u{dtype.size}")
    assert [contract("store", dtype.code, int(x)) for x in rows] == stored.tolist()
    bits = (rows & ((1 << 8 * dtype.size) - 1)).astype(f"<u{dtype.size}")
    loaded = widen(bits.view(narrow(register, dtype).dtype), dtype)
    if dtype.is_float:
        loaded = np.where(np.isnan(loaded), np.uint32(0x7FC00000).view(np.float32), loaded)
    expected = loaded.astype(np.uint32) if dtype is Dtype.boolean else np.ascontiguousarray(loaded).view(np.uint32)
    assert [contract("load", dtype.code, int(x)) for x in bits] == expected.tolist()

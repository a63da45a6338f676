"""Roots of named tensors: what they bind, what opens, and what need not be hashed again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensyn_verify.commit import StateEntry, open_entry, state_entries, state_root, tensor_root, verify_entry
from gensyn_verify.errors import LimitError, MalformedError, ProgramError
from gensyn_verify.program import merkle
from gensyn_verify.program.types import Dtype, TensorType

TYPES = {
    "weight": TensorType(Dtype.f32, (3, 4)),
    "bias": TensorType(Dtype.f32, (4,)),
    "Weight": TensorType(Dtype.bf16, (2,)),
    "mask": TensorType(Dtype.boolean, ()),
    "empty": TensorType(Dtype.i32, (0, 7)),
}
TENSORS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "bias": np.ones(4, np.float32),
    "Weight": np.array([0x3F80, 0x4000], np.uint16),
    "mask": np.array(True),
    "empty": np.zeros((0, 7), np.int32),
}


def test_the_root_is_the_tree_over_the_records_in_order_of_names() -> None:
    entries = state_entries(TYPES, TENSORS)
    assert [e.name for e in entries] == ["Weight", "bias", "empty", "mask", "weight"]
    assert [e.root for e in entries] == [tensor_root(TENSORS[e.name]) for e in entries]
    assert state_root(entries) == merkle.merkle_root([e.record() for e in entries])


def test_a_record_has_the_published_layout() -> None:
    e = StateEntry("w.0", TensorType(Dtype.f16, (2, 300)), bytes(range(32)))
    wanted = "03 772e30 02 02 0000000000000002 000000000000012c" + bytes(range(32)).hex()
    assert e.record() == bytes.fromhex(wanted)


@given(st.permutations(sorted(TYPES)))
def test_the_order_in_which_entries_are_given_does_not_matter(names: list[str]) -> None:
    by_name = {e.name: e for e in state_entries(TYPES, TENSORS)}
    assert state_root([by_name[n] for n in names]) == state_root(by_name.values())


def test_name_dtype_shape_and_content_are_bound() -> None:
    base = StateEntry("w", TensorType(Dtype.f32, (2, 6)), bytes(32))
    variants = [
        base,
        StateEntry("v", base.type, base.root),
        StateEntry("w", TensorType(Dtype.i32, (2, 6)), base.root),
        StateEntry("w", TensorType(Dtype.f32, (6, 2)), base.root),
        StateEntry("w", TensorType(Dtype.f32, (12,)), base.root),
        StateEntry("w", base.type, b"\x01" + bytes(31)),
    ]
    assert len({state_root([v]) for v in variants}) == len(variants)


def test_an_additional_entry_changes_the_root() -> None:
    entries = state_entries(TYPES, TENSORS)
    assert len({state_root(entries[:n]) for n in range(len(entries) + 1)}) == len(entries) + 1


def test_two_entries_of_one_name_are_refused() -> None:
    e = StateEntry("w", TensorType(Dtype.f32, ()), bytes(32))
    with pytest.raises(MalformedError, match="two entries are named 'w'"):
        state_root([e, StateEntry("w", e.type, b"\x01" * 32)])


@pytest.mark.parametrize(
    ("name", "type", "root", "error", "says"),
    [
        ("", TYPES["bias"], bytes(32), ProgramError, "is no name"),
        ("../w", TYPES["bias"], bytes(32), ProgramError, "is no name"),
        ("w", TensorType(Dtype.f32, (1,) * 9), bytes(32), LimitError, "rank 9"),
        ("w", TensorType(Dtype.f32, (1 << 37,)), bytes(32), LimitError, "2\\^36"),
        ("w", TYPES["bias"], bytes(31), MalformedError, "has 32 bytes, found 31"),
    ],
)
def test_an_entry_that_no_tensor_can_have_is_refused(
    name: str, type: TensorType, root: bytes, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        StateEntry(name, type, root)


@pytest.mark.parametrize("count", range(1, 6))
def test_every_entry_opens_and_no_changed_one(count: int) -> None:
    entries = state_entries(TYPES, TENSORS)[:count]
    root = state_root(entries)
    for e in entries:
        opening = open_entry(reversed(entries), e.name)
        assert opening.entry == e
        assert verify_entry(root, opening)
        forged = StateEntry(e.name, e.type, tensor_root(b"forged"))
        assert not verify_entry(root, type(opening)(forged, opening.index, opening.count, opening.path))
        assert not verify_entry(root, type(opening)(e, opening.index, count + 1, opening.path))
        assert not verify_entry(root, type(opening)(e, opening.index, opening.count, (*opening.path, bytes(32))))


def test_there_is_no_opening_of_an_unknown_name() -> None:
    with pytest.raises(KeyError, match="gradient"):
        open_entry(state_entries(TYPES, TENSORS), "gradient")


def test_an_unchanged_tensor_is_not_read() -> None:
    entries = state_entries(TYPES, TENSORS)
    known = {e.name: e.root for e in entries if e.name != "bias"}
    assert state_entries(TYPES, {"bias": TENSORS["bias"]}, known) == entries
    changed = state_entries(TYPES, {"bias": TENSORS["bias"] * 2}, known)
    assert [a.name for a, b in zip(entries, changed, strict=True) if a != b] == ["bias"]


def test_a_tensor_without_content_or_root_is_named() -> None:
    with pytest.raises(MalformedError, match=r"'Weight' \(4 of 5 missing\)"):
        state_entries(TYPES, {"bias": TENSORS["bias"]})

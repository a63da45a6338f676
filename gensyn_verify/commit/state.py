"""Roots of groups of named tensors: a state, the batch of a step, its scalars. One construction for all three.

A group is a list of entries sorted by name; its root is the Merkle root (`program.merkle`) over the entries' bytes:

    u8 length of name | name, ASCII | u8 dtype code | u8 rank | u64 dimensions, big endian | tensor root, 32 bytes

The root of a group binds names, dtypes, shapes and contents, and nothing else. Vectors: tests/vectors/state_root.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from gensyn_verify._native import keccak256, merkle_root
from gensyn_verify.commit.tensor import Data, tensor_root
from gensyn_verify.errors import MalformedError
from gensyn_verify.program.encoding import Writer
from gensyn_verify.program.merkle import leaf_digest, merkle_path, verify_path
from gensyn_verify.program.program import check_name
from gensyn_verify.program.types import TensorType


@dataclass(frozen=True)
class StateEntry:
    """A named tensor of a group: its type and its tensor root. Raises ProgramError for what cannot be a tensor."""

    name: str
    type: TensorType
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        self.type.check()
        if len(self.root) != 32:
            raise MalformedError(f"entry {self.name!r}: a tensor root has 32 bytes, found {len(self.root)}")

    def record(self) -> bytes:
        """The canonical bytes: the leaf of the Merkle tree."""
        w = Writer()
        w.text(self.name)
        w.type(self.type)
        w.out += self.root
        return bytes(w.out)


@dataclass(frozen=True)
class EntryOpening:
    """An entry, its place among `count` entries, and the sibling digests from it upwards."""

    entry: StateEntry
    index: int
    count: int
    path: tuple[bytes, ...]


def state_entries(
    types: Mapping[str, TensorType], tensors: Mapping[str, Data], unchanged: Mapping[str, bytes] | None = None
) -> list[StateEntry]:
    """Entries of the tensors, sorted by name. A name in `unchanged` takes its root from there and is not hashed.

    `tensors` needs the other names only. Whoever passes `unchanged` vouches for it.
    """
    known = unchanged or {}
    missing = sorted(set(types) - set(tensors) - set(known))
    if missing:
        raise MalformedError(f"no tensor and no root for {missing[0]!r} ({len(missing)} of {len(types)} missing)")
    return [
        StateEntry(name, types[name], known[name] if name in known else tensor_root(tensors[name]))
        for name in sorted(types)
    ]


def _sorted(entries: Iterable[StateEntry]) -> list[StateEntry]:
    ordered = sorted(entries, key=lambda e: e.name)
    for a, b in pairwise(ordered):
        if a.name == b.name:
            raise MalformedError(f"two entries are named {a.name!r}")
    return ordered


def state_root(entries: Iterable[StateEntry]) -> bytes:
    """The root of a group: of a state, a batch, or the scalars of a step. Entries may come in any order."""
    return merkle_root([e.record() for e in _sorted(entries)])


def open_entry(entries: Iterable[StateEntry], name: str) -> EntryOpening:
    """The opening of the entry named `name`; KeyError where there is none."""
    ordered = _sorted(entries)
    index = {e.name: i for i, e in enumerate(ordered)}[name]
    digests = [leaf_digest(e.record(), keccak256) for e in ordered]
    return EntryOpening(ordered[index], index, len(ordered), tuple(merkle_path(digests, index, keccak256)))


def verify_entry(root: bytes, opening: EntryOpening) -> bool:
    """Whether the opened entry is in the group under `root`."""
    o = opening
    return verify_path(root, o.entry.record(), o.index, o.count, o.path, keccak256)

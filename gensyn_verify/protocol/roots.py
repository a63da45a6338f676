"""Roots of groups of named tensors: a state, a batch, the scalars of a step, a data set, a schedule."""

from __future__ import annotations

from collections.abc import Mapping

from gensyn_verify.backends.arrays import Array
from gensyn_verify.commit import StateEntry, state_root, tensor_root
from gensyn_verify.program.types import TensorType

Types = Mapping[str, TensorType]
Roots = Mapping[str, bytes]


def roots_of(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """The tensor root of every array, sorted by name."""
    return {name: tensor_root(arrays[name]) for name in sorted(arrays)}


def group_root(types: Types, roots: Roots) -> bytes:
    """The Merkle root over (name, dtype, shape, tensor root), sorted by name."""
    return state_root([StateEntry(name, types[name], roots[name]) for name in sorted(types)])

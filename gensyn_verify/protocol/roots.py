"""Roots of groups of named tensors: a state, a batch, the scalars of a step, a data set, a schedule."""

from __future__ import annotations

from collections.abc import Mapping

from gensyn_verify._native import merkle_root
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device.executor import State as DeviceState
from gensyn_verify.commit import StateEntry, tensor_root
from gensyn_verify.program.program import Program
from gensyn_verify.program.types import TensorType

Types = Mapping[str, TensorType]
Roots = Mapping[str, bytes]


class Group:
    """The root of tensors of fixed names and types, `commit.state_root`, for many sets of contents.

    What an entry says beside its tensor root is encoded once: a run has a state root every step.
    """

    def __init__(self, types: Types) -> None:
        self._start = {name: StateEntry(name, types[name], bytes(32)).record()[:-32] for name in sorted(types)}

    def root(self, roots: Roots) -> bytes:
        return merkle_root([start + roots[name] for name, start in self._start.items()])


def group_root(types: Types, roots: Roots) -> bytes:
    """The root of one group."""
    return Group(types).root(roots)


def roots_of(arrays: Mapping[str, Array], known: Roots | None = None) -> dict[str, bytes]:
    """The tensor root of every array, sorted by name. A name in `known` takes its root from there, unhashed."""
    known = known or {}
    unknown = [name for name in sorted(arrays) if name not in known]
    if isinstance(arrays, DeviceState):
        found = arrays.roots(unknown)  # hashed where they lie
    else:
        found = {name: tensor_root(arrays[name]) for name in unknown}
    return {name: known[name] if name in known else found[name] for name in sorted(arrays)}


def constants(program: Program) -> frozenset[str]:
    """State tensors that no step changes, because their next value is themselves.

    None of a program without nodes, which says nothing about a step: docs/formats.md, section 16.
    """
    if not program.nodes:
        return frozenset()
    return frozenset(o.name for o in program.outputs if o.role == "state" and _is_input(program, o.value, o.name))


def _is_input(program: Program, value: int, name: str) -> bool:
    if value >= len(program.inputs):
        return False
    source = program.inputs[value]
    return source.role == "state" and source.name == name

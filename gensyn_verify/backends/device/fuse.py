"""Programs as devices like them: fewer, larger maps, each right behind the dot that it reads.

A program becomes a program with the same inputs, outputs and bits.

Chains of maps become one map: what one hands to the next stays in a register. A map joins the group of maps of its
shape whose values it reads unbroadcast; a group ends where another node reads one of its values. Values in narrow
storage are rounded when stored, so groups end there too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Output, Program
from gensyn_verify.program.scalar import (
    MAX_INPUTS,
    MAX_INSTRUCTIONS,
    MAX_OUTPUTS,
    Constant,
    Instruction,
    ScalarProgram,
)
from gensyn_verify.program.types import Reg


@dataclass
class _Group:
    """Maps of one shape, by node number, in order."""

    shape: tuple[int, ...]
    members: list[int] = field(default_factory=list)


class _Fuser:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.readers: dict[int, set[int]] = defaultdict(set)
        for n, node in enumerate(program.nodes):
            for v in node.inputs:
                self.readers[v].add(n)
        for o in program.outputs:
            self.readers[o.value].add(len(program.nodes))  # the world
        self.group_of: dict[int, _Group] = {}  # value -> the open group that computes it
        self.scalars: dict[ScalarProgram, int] = {}
        self.nodes: list[Node] = []
        self.number = {v: v for v in range(len(program.inputs))}  # old value -> new
        self.values = len(program.inputs)

    def run(self) -> Program:
        for n, node in enumerate(self.program.nodes):
            group = self.joins(n, node) if isinstance(node.op, ops.Map) else None
            for v in node.inputs:
                other = self.group_of.get(v)
                if other is not None and other is not group:
                    self.close(other)
            if isinstance(node.op, ops.Map):
                group = group or _Group(node.op.shape)
                group.members.append(n)
                self.group_of.update((v, group) for v in _values(self.program, n))
            else:
                self.write(node, node.inputs, _values(self.program, n))
        for group in list({id(g): g for g in self.group_of.values()}.values()):
            self.close(group)
        outputs = tuple(Output(o.role, o.name, self.number[o.value]) for o in self.program.outputs)
        return Program(self.program.inputs, tuple(self.scalars), tuple(self.nodes), outputs)

    def joins(self, n: int, node: Node) -> _Group | None:
        """The group that the map can join: of its shape, read from, not read through narrow storage, not full."""
        assert isinstance(node.op, ops.Map)
        for v in node.inputs:
            group = self.group_of.get(v)
            if group is None or group.shape != node.op.shape:
                continue
            inside = [u for u in node.inputs if self.group_of.get(u) is group]
            types = [self.program.value_types[u] for u in inside]
            if any(t.dtype.size != 4 and t.dtype.reg is not Reg.boolean for t in types):
                continue
            if self.combine([*group.members, n])[0] is not None:
                return group
        return None

    def combine(self, members: list[int]) -> tuple[ScalarProgram | None, list[int], list[int]]:
        """The members as one scalar program (None if it would be too large), the values it reads, those it writes."""
        p = self.program
        inside, own = set(members), {v for n in members for v in _values(self.program, n)}
        inputs = list(dict.fromkeys(v for n in members for v in p.nodes[n].inputs if v not in own))
        kept = [v for n in members for v in _values(self.program, n) if self.readers[v] - inside]
        maps = [op for op in (p.nodes[n].op for n in members) if isinstance(op, ops.Map)]  # all of them are
        programs = [p.scalar_programs[op.program] for op in maps]
        size = sum(len(s.code) for s in programs)
        if size > MAX_INSTRUCTIONS or len(inputs) > MAX_INPUTS or not kept or len(kept) > MAX_OUTPUTS:
            return None, inputs, kept
        constants = sorted({c for s in programs for c in s.constants}, key=lambda c: (c.reg, c.bits))
        if size + len(constants) > MAX_INSTRUCTIONS:
            return None, inputs, kept
        place: dict[int | Constant, int] = {v: i for i, v in enumerate(inputs)}
        place.update((c, len(inputs) + i) for i, c in enumerate(constants))
        code: list[Instruction] = []
        for n, s in zip(members, programs, strict=True):
            local = [place[v] for v in p.nodes[n].inputs] + [place[c] for c in s.constants]
            for i in s.code:
                code.append(Instruction(i.op, tuple(local[a] for a in i.args)))
                local.append(len(inputs) + len(constants) + len(code) - 1)
            place.update(zip(_values(self.program, n), (local[o] for o in s.outputs), strict=True))
        regs = tuple(p.value_types[v].dtype.reg for v in inputs)
        return ScalarProgram(regs, tuple(constants), tuple(code), tuple(place[v] for v in kept)), inputs, kept

    def close(self, group: _Group) -> None:
        for n in group.members:
            for v in _values(self.program, n):
                del self.group_of[v]
        first = self.program.nodes[group.members[0]]
        if len(group.members) == 1:
            self.write(first, first.inputs, _values(self.program, group.members[0]))
            return
        scalar, inputs, kept = self.combine(group.members)
        if scalar is None:
            assert not kept  # nobody reads what the group computes
            for n in group.members:
                self.write(self.program.nodes[n], self.program.nodes[n].inputs, _values(self.program, n))
            return
        types = tuple(self.program.value_types[v] for v in kept)
        op = ops.Map(self.scalars.setdefault(scalar, len(self.scalars)), group.shape, tuple(t.dtype for t in types))
        origin = self.program.nodes[group.members[-1]].origin
        self.append(Node(op, tuple(self.number[v] for v in inputs), types, origin), kept)

    def write(self, node: Node, inputs: tuple[int, ...], outputs: range) -> None:
        op = node.op
        if isinstance(op, ops.Map | ops.Scan):
            scalar = self.program.scalar_programs[op.program]
            op = type(op)(self.scalars.setdefault(scalar, len(self.scalars)), op.shape, op.dtypes)
        self.append(Node(op, tuple(self.number[v] for v in inputs), node.types, node.origin), list(outputs))

    def append(self, node: Node, values: list[int]) -> None:
        self.nodes.append(node)
        for v in values:
            self.number[v] = self.values
            self.values += 1


def fuse_maps(program: Program) -> Program:
    """The program with chains of maps as one map; the same bits."""
    return _Fuser(program).run()


_VIEWS = (ops.Reshape, ops.Permute, ops.Broadcast, ops.Slice, ops.Window)


def maps_behind_dots(program: Program) -> Program:
    """The program with a map right behind a dot that it reads, where the map can run there; the same bits.

    Maps that compute states stay where they are: the old state may have readers in between.
    """
    states = {o.value for o in program.outputs if o.role == "state"}
    writer = {v: n for n in range(len(program.nodes)) for v in _values(program, n)}
    readers: dict[int, list[int]] = defaultdict(list)  # value -> the nodes that read it or a view of it
    viewed: dict[int, int] = {}  # view -> what it is a view of
    for n, node in enumerate(program.nodes):
        for v in {viewed.get(v, v) for v in node.inputs}:
            readers[v].append(n)
        if isinstance(node.op, _VIEWS):
            (v,) = node.inputs
            viewed[program.first_value[n]] = viewed.get(v, v)
    order: dict[int, None] = {}
    there = set(range(len(program.inputs)))

    def place(n: int) -> None:
        order[n] = None
        there.update(_values(program, n))

    def place_behind(m: int) -> bool:
        """Map m, if it and the views that it reads can be computed of what is there."""
        missing = set()
        for v in program.nodes[m].inputs:
            at = v
            while at not in there:
                if at not in viewed:
                    return False
                missing.add(writer[at])
                (at,) = program.nodes[writer[at]].inputs
        for n in sorted(missing):
            place(n)
        place(m)
        return True

    for n, node in enumerate(program.nodes):
        if n in order:
            continue
        place(n)
        if isinstance(node.op, ops.Dot):
            for m in readers[program.first_value[n]]:
                is_free = isinstance(program.nodes[m].op, ops.Map) and not states & set(_values(program, m))
                if m not in order and is_free and place_behind(m):
                    break
    number = {v: v for v in range(len(program.inputs))}
    for n in order:
        for v in _values(program, n):
            number[v] = len(number)
    nodes = [program.nodes[n] for n in order]
    nodes = [Node(n.op, tuple(number[v] for v in n.inputs), n.types, n.origin) for n in nodes]
    outputs = tuple(Output(o.role, o.name, number[o.value]) for o in program.outputs)
    return Program(program.inputs, program.scalar_programs, tuple(nodes), outputs)


def prepared(program: Program) -> Program:
    """The program as devices run it."""
    return maps_behind_dots(fuse_maps(program))


def _values(program: Program, n: int) -> range:
    """The values that a node computes."""
    first = program.first_value[n]
    return range(first, first + len(program.nodes[n].types))

"""A program: one training step as data, and the builder that writes it.

Values are numbered: program inputs first (sorted by role, then name), then the outputs of each node in order. A node
reads only values numbered below its own, so there are no cycles by construction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from gensyn_verify.errors import GensynVerifyError, LimitError, ProgramError
from gensyn_verify.program import ops
from gensyn_verify.program.scalar import Constant, Instruction, Operand, Scalar, ScalarBuilder, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, Shape, TensorType

INPUT_ROLES = ("state", "batch", "scalar")
OUTPUT_ROLES = ("state", "metric")
SKIPPED = "skipped"  # a boolean metric of this name says that the step updated nothing, whatever its loss
MAX_NODES = 1 << 17
MAX_NODE_INPUTS = 1 << 11  # two such nodes can be shown to a contract in one transaction: dispute.md, section 6
MAX_NAME = 200
MAX_TOTAL_BYTES = 1 << 44


@dataclass(frozen=True)
class Input:
    """A program input. `role` is state (carried from step to step), batch (data) or scalar (a per-step number)."""

    role: str
    name: str
    type: TensorType


@dataclass(frozen=True)
class Output:
    """A program output: the next value of a state input of the same name, or a metric."""

    role: str
    name: str
    value: int


@dataclass(frozen=True)
class Node:
    """An operation on values and its outputs' types. `origin` (module and source line) is no part of the digest."""

    op: ops.Op
    inputs: tuple[int, ...]
    types: tuple[TensorType, ...]
    origin: str = field(default="", compare=False)


def check_name(name: str) -> None:
    """Names are 1 to 200 printable ASCII characters without spaces or slashes, so that no name is ever a path."""
    if not 1 <= len(name) <= MAX_NAME or not all(33 <= ord(c) < 127 and c not in '/\\"' for c in name):
        raise ProgramError(
            f'{name[:MAX_NAME]!r} is no name: 1 to {MAX_NAME} printable ASCII characters, no space / \\ "'
        )


@dataclass(frozen=True)
class Program:
    """A validated training step. Equality and digest ignore the nodes' origins."""

    inputs: tuple[Input, ...]
    scalar_programs: tuple[ScalarProgram, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]

    def __post_init__(self) -> None:
        self._validate()

    @cached_property
    def value_types(self) -> tuple[TensorType, ...]:
        """The type of every value, in value order."""
        return (*(i.type for i in self.inputs), *(t for n in self.nodes for t in n.types))

    @cached_property
    def first_value(self) -> tuple[int, ...]:
        """The number of each node's first output value."""
        firsts, n = [], len(self.inputs)
        for node in self.nodes:
            firsts.append(n)
            n += len(node.types)
        return tuple(firsts)

    def inputs_of(self, role: str) -> dict[str, TensorType]:
        return {i.name: i.type for i in self.inputs if i.role == role}

    def outputs_of(self, role: str) -> dict[str, TensorType]:
        return {o.name: self.value_types[o.value] for o in self.outputs if o.role == role}

    @cached_property
    def digest(self) -> bytes:
        """32 bytes: the Merkle root over header, scalar programs and node records."""
        from gensyn_verify.program.encoding import program_digest

        return program_digest(self)

    def _validate(self) -> None:
        """Recompute every type and check every rule; the first offence raises, naming its place."""
        _check_table("input", [(i.role, i.name) for i in self.inputs], INPUT_ROLES)
        _check_table("output", [(o.role, o.name) for o in self.outputs], OUTPUT_ROLES)
        if len(self.nodes) > MAX_NODES:
            raise LimitError(f"{len(self.nodes)} nodes; the limit is {MAX_NODES}")
        types: list[TensorType] = []
        for i in self.inputs:
            with _place(f"input {i.name!r}"):
                i.type.check()
            types.append(i.type)
        streams: set[int] = set()
        total = sum(t.nbytes for t in types)
        for n, node in enumerate(self.nodes):
            with _place(f"node {n} ({type(node.op).__name__})"):
                if len(node.inputs) > MAX_NODE_INPUTS:
                    raise LimitError(f"{len(node.inputs)} inputs; the limit is {MAX_NODE_INPUTS}")
                for v in node.inputs:
                    if not 0 <= v < len(types):
                        raise ProgramError(f"reads value {v}; only 0 to {len(types) - 1} exist before it")
                found = node.op.infer([types[v] for v in node.inputs], self.scalar_programs)
                if found != node.types:
                    stated, given = (", ".join(map(str, types)) for types in (node.types, found))
                    raise ProgramError(f"declares outputs {stated}; its inputs give {given}")
                for t in found:
                    t.check()
                if isinstance(node.op, ops.Random):
                    if node.op.stream in streams:
                        raise ProgramError(f"random stream {node.op.stream} is used twice")
                    streams.add(node.op.stream)
            types.extend(found)
            total += sum(t.nbytes for t in found)
        if total > MAX_TOTAL_BYTES:
            raise LimitError(f"the values of the program take {total} bytes; the limit is 2^44")
        states = {i.name: i.type for i in self.inputs if i.role == "state"}
        for o in self.outputs:
            with _place(f"output {o.name!r}"):
                if not 0 <= o.value < len(types):
                    raise ProgramError(f"is value {o.value}; only 0 to {len(types) - 1} exist")
                if o.role == "state" and states.get(o.name) != types[o.value]:
                    wanted = states.get(o.name, "no such state input")
                    raise ProgramError(f"next state is {types[o.value]}; the state input is {wanted}")
        missing = set(states) - {o.name for o in self.outputs if o.role == "state"}
        if missing:
            raise ProgramError(f"state input {sorted(missing)[0]!r} has no next value among the outputs")


@contextmanager
def _place(where: str) -> Iterator[None]:
    try:
        yield
    except GensynVerifyError as error:
        raise type(error)(f"{where}: {error}") from None


def _check_table(what: str, entries: list[tuple[str, str]], roles: tuple[str, ...]) -> None:
    if len(entries) > MAX_NODES:
        raise LimitError(f"{len(entries)} {what}s; the limit is {MAX_NODES}")
    for role, name in entries:
        if role not in roles:
            raise ProgramError(f"{what} {name!r} has role {role!r}; roles are {', '.join(roles)}")
        check_name(name)
    keys = [(roles.index(role), name) for role, name in entries]
    for a, b in itertools.pairwise(keys):
        if a >= b:
            raise ProgramError(f"{what}s are not sorted by role and name without repetition: {a[1]!r} before {b[1]!r}")


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor under construction."""

    type: TensorType
    key: tuple[int, int]  # (-1, input) or (node, output)

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> Dtype:
        return self.type.dtype


MapFunction = Callable[..., Operand | Sequence[Operand]]


class ProgramBuilder:
    """Writes a program node by node; equal nodes on equal values are one node, unused nodes are left out.

    >>> g = ProgramBuilder()
    >>> w = g.input("state", "w", TensorType(Dtype.f32, (3,)))
    >>> g.output("state", "w", g.map(lambda x: x * 0.5, w))
    >>> program = g.build()
    """

    def __init__(self) -> None:
        self._inputs: list[Input] = []
        self._nodes: list[tuple[ops.Op, tuple[tuple[int, int], ...], tuple[TensorType, ...], str]] = []
        self._outputs: list[tuple[str, str, Value]] = []
        self._scalars: dict[ScalarProgram, int] = {}
        self._seen: dict[tuple[ops.Op, tuple[tuple[int, int], ...]], int] = {}
        self._streams = 0
        self._origin = ""

    @contextmanager
    def origin(self, text: str) -> Iterator[None]:
        """Nodes written inside carry `text` as their origin."""
        before, self._origin = self._origin, text
        try:
            yield
        finally:
            self._origin = before

    def input(self, role: str, name: str, type: TensorType) -> Value:
        self._inputs.append(Input(role, name, type))
        return Value(type, (-1, len(self._inputs) - 1))

    def output(self, role: str, name: str, value: Value) -> None:
        self._outputs.append((role, name, value))

    def emit(self, op: ops.Op, *inputs: Value) -> tuple[Value, ...]:
        key = (op, tuple(v.key for v in inputs))
        if key not in self._seen:
            types = op.infer([v.type for v in inputs], list(self._scalars))
            for t in types:
                t.check()
            self._seen[key] = len(self._nodes)
            self._nodes.append((*key, types, self._origin))
        n = self._seen[key]
        return tuple(Value(t, (n, i)) for i, t in enumerate(self._nodes[n][2]))

    def map(
        self,
        function: MapFunction,
        *inputs: Value,
        shape: Shape | None = None,
        dtype: Dtype | None = None,
    ) -> Value:
        """One-output `maps`."""
        (out,) = self.maps(function, *inputs, shape=shape, dtypes=None if dtype is None else (dtype,))
        return out

    def maps(
        self,
        function: MapFunction,
        *inputs: Value,
        shape: Shape | None = None,
        dtypes: Sequence[Dtype] | None = None,
    ) -> tuple[Value, ...]:
        """A map node whose scalar program is traced from `function` over one Scalar an input.

        `shape` defaults to the broadcast of the inputs, dtypes to f32, i32, u32 or boolean by register type. A
        function that needs `fma` or `select` takes it from the Scalars' builder: `x.builder.fma(x, y, z)`.
        """
        scalar = _traced(function, inputs)
        if shape is None:
            shape = broadcast_shapes(*(v.shape for v in inputs))
        if dtypes is None:
            dtypes = [Dtype[r.name] for r in scalar.output_types]
        number = self._scalars.setdefault(scalar, len(self._scalars))
        return self.emit(ops.Map(number, shape, tuple(dtypes)), *inputs)

    def full(self, shape: Shape, value: float | int, dtype: Dtype = Dtype.f32) -> Value:
        """A tensor of one number."""
        number = ScalarBuilder()
        scalar = number.build(number.literal(value, dtype.reg))
        return self.emit(ops.Map(self._scalars.setdefault(scalar, len(self._scalars)), shape, (dtype,)))[0]

    def dot(
        self, a: Value, b: Value, transpose_a: bool = False, transpose_b: bool = False, dtype: Dtype = Dtype.f32
    ) -> Value:
        return self.emit(ops.Dot(transpose_a, transpose_b, dtype), a, b)[0]

    def reduce(self, name: str, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
        """`name` is one of ops.REDUCTIONS; sums of narrow floats are stored as f32."""
        axes = tuple(sorted(a % len(x.shape) for a in axes))
        dtype = Dtype.i32 if name.startswith("arg") else Dtype[x.dtype.reg.name] if name == "sum" else x.dtype
        (out,) = self.emit(ops.Reduce(ops.REDUCTIONS.index(name), axes, dtype), x)
        if keepdims:
            out = self.reshape(out, tuple(1 if a in axes else d for a, d in enumerate(x.shape)))
        return out

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """One dimension may be -1: the rest of the elements."""
        shape = tuple(shape)
        if -1 in shape:
            known = math.prod(d for d in shape if d != -1)
            shape = tuple(x.type.elements // max(known, 1) if d == -1 else d for d in shape)
        return x if shape == x.shape else self.emit(ops.Reshape(shape), x)[0]

    def permute(self, x: Value, axes: Sequence[int]) -> Value:
        return x if list(axes) == list(range(len(x.shape))) else self.emit(ops.Permute(tuple(axes)), x)[0]

    def slice(self, x: Value, start: Sequence[int], shape: Sequence[int], step: Sequence[int] | None = None) -> Value:
        step = tuple(step) if step is not None else (1,) * len(x.shape)
        start = tuple(s if n else 0 for s, n in zip(start, shape, strict=True))
        step = tuple(s if n else 1 for s, n in zip(step, shape, strict=True))
        if tuple(shape) == x.shape and all(s == 1 for s in step):
            return x
        return self.emit(ops.Slice(start, tuple(shape), step), x)[0]

    def pad(
        self,
        x: Value,
        low: Sequence[int],
        high: Sequence[int],
        interior: Sequence[int] | None = None,
        fill_bits: int = 0,
    ) -> Value:
        interior = tuple(interior) if interior is not None else (0,) * len(x.shape)
        if not any((*low, *high, *interior)):
            return x
        return self.emit(ops.Pad(tuple(low), tuple(high), interior, fill_bits), x)[0]

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        """One after the other; in groups, and these in groups, where there are more than a node takes."""
        while len(xs) > MAX_NODE_INPUTS:
            groups = [xs[i : i + MAX_NODE_INPUTS] for i in range(0, len(xs), MAX_NODE_INPUTS)]
            xs = [self.concat(group, axis) if len(group) > 1 else group[0] for group in groups]
        return self.emit(ops.Concat(axis), *xs)[0]

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        return x if tuple(shape) == x.shape else self.emit(ops.Broadcast(tuple(shape)), x)[0]

    def window(self, x: Value, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Value:
        return self.emit(ops.Window(tuple(size), tuple(stride), tuple(dilation)), x)[0]

    def gather(self, data: Value, index: Value) -> Value:
        return self.emit(ops.Gather(), data, index)[0]

    def scatter_add(self, source: Value, index: Value, rows: int) -> Value:
        return self.emit(ops.ScatterAdd(rows, Dtype[source.dtype.reg.name]), source, index)[0]

    def random(self, seed: Value, step: Value, shape: Sequence[int]) -> Value:
        """Fresh u32 words; every call has a stream of its own."""
        self._streams += 1
        return self.emit(ops.Random(self._streams - 1, tuple(shape)), seed, step)[0]

    def sort(self, x: Value) -> Value:
        """The positions that put the last axis in ascending order."""
        return self.emit(ops.Sort(), x)[0]

    def scan(
        self, function: MapFunction, initial: Sequence[Value], inputs: Sequence[Value], shape: Shape | None = None
    ) -> tuple[Value, ...]:
        """A scan along the first axis of `shape` (default: the broadcast of the inputs).

        `function` takes one Scalar an initial value, then one an input, and gives the carried values' next ones.
        """
        scalar = _traced(function, [*initial, *inputs])
        if shape is None:
            shape = broadcast_shapes(*(v.shape for v in inputs))
        number = self._scalars.setdefault(scalar, len(self._scalars))
        return self.emit(ops.Scan(number, shape, tuple(v.dtype for v in initial)), *initial, *inputs)

    def build(self) -> Program:
        """The validated program."""
        order = sorted(
            range(len(self._inputs)), key=lambda i: _rank(INPUT_ROLES, self._inputs[i].role, self._inputs[i].name)
        )
        needed: set[int] = set()
        stack = [v.key[0] for _, _, v in self._outputs]
        while stack:
            n = stack.pop()
            if n >= 0 and n not in needed:
                needed.add(n)
                stack.extend(k[0] for k in self._nodes[n][1])
        number = {(-1, i): position for position, i in enumerate(order)}
        scalars = list(self._scalars)
        scalar_number: dict[int, int] = {}
        nodes = []
        for n in sorted(needed):
            op, inputs, types, origin = self._nodes[n]
            if isinstance(op, ops.Map | ops.Scan):
                op = replace(op, program=scalar_number.setdefault(op.program, len(scalar_number)))
            nodes.append(Node(op, tuple(number[k] for k in inputs), types, origin))
            for i in range(len(types)):
                number[n, i] = len(number)
        outputs = sorted(
            (Output(role, name, number[v.key]) for role, name, v in self._outputs),
            key=lambda o: _rank(OUTPUT_ROLES, o.role, o.name),
        )
        return Program(
            tuple(self._inputs[i] for i in order),
            tuple(scalars[old] for old in scalar_number),
            tuple(nodes),
            tuple(outputs),
        )


def _traced(function: MapFunction, inputs: Sequence[Value]) -> ScalarProgram:
    """The scalar program of `function` over one Scalar an input."""
    builder = ScalarBuilder()
    results = function(*(builder.input(v.dtype.reg) for v in inputs))
    return builder.build(*(results if isinstance(results, Sequence) else (results,)))


def _rank(roles: tuple[str, ...], role: str, name: str) -> tuple[int, str]:
    if role not in roles:
        raise ProgramError(f"{name!r} has role {role!r}; roles are {', '.join(roles)}")
    return roles.index(role), name


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape by NumPy's rule."""
    rank = max((len(s) for s in shapes), default=0)
    out = []
    for dims in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        wide = {d for d in dims if d != 1}
        if len(wide) > 1:
            raise ProgramError(f"shapes {[list(s) for s in shapes]} do not broadcast together")
        out.append(wide.pop() if wide else 1)
    return tuple(out)


__all__ = [
    "Constant", "Dtype", "Input", "Instruction", "Node", "Output", "Program", "ProgramBuilder", "Reg", "Scalar",
    "ScalarBuilder", "ScalarProgram", "TensorType", "Value",
]  # fmt: skip

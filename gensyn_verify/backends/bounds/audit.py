"""All values of one step as a solver claims them, against the exact backend: each node from its claimed inputs.

Errors do not add up from node to node, because every node starts from what was claimed before it. So the bounds are
those of single operators, and a cheat has to be out of bounds somewhere or to have computed the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gensyn_verify.backends import cpu
from gensyn_verify.backends.arrays import Array, check_array, widen
from gensyn_verify.backends.bounds.model import FP32, Model
from gensyn_verify.backends.bounds.nodes import node_bounds
from gensyn_verify.errors import MalformedError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Input, Node, Output, Program
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import TensorType


@dataclass(frozen=True)
class Fault:
    """The first value out of bounds: element `element` of output `output` of a node, and what was allowed there."""

    node: int
    kind: str
    origin: str
    output: int
    value: int
    element: tuple[int, ...]
    claimed: float
    expected: float
    bound: float

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        return (
            f"node {self.node} {self.kind}{where}, value {self.value}{list(self.element)}: claimed {self.claimed:.9g}, "
            f"expected {self.expected:.9g} within {self.bound:.3g}"
        )


def audit(
    program: Program, inputs: Sequence[Array], values: Callable[[int], Array], model: Model = FP32
) -> Fault | None:
    """The first node whose claimed outputs are out of bounds given its claimed inputs; None if there is none.

    `inputs` are the program inputs in their order, as carriers; `values(v)` is the claimed value number v of a node,
    asked for as often as it is read. Raises MalformedError for a value of another type than the program's.
    """
    types, first_free = program.value_types, len(program.inputs)
    if len(inputs) != first_free:
        raise MalformedError(f"the program has {first_free} inputs, found {len(inputs)}")
    given = [check_array(f"input {i.name!r}", x, i.type) for i, x in zip(program.inputs, inputs, strict=True)]

    def claimed(v: int) -> Array:
        return given[v] if v < first_free else check_array(f"value {v}", values(v), types[v])

    for n, (node, first) in enumerate(zip(program.nodes, program.first_value, strict=True)):
        outputs = [claimed(first + i) for i in range(len(node.types))]
        fault = check_node(program, n, [claimed(v) for v in node.inputs], outputs, model)
        if fault is not None:
            return fault
    return None


def check_node(
    program: Program, n: int, inputs: Sequence[Array], outputs: Sequence[Array], model: Model = FP32
) -> Fault | None:
    """The first element of node `n` that is out of bounds, given its inputs; None if there is none."""
    node, types = program.nodes[n], [program.value_types[v] for v in program.nodes[n].inputs]
    scalar = program.scalar_programs[node.op.program] if isinstance(node.op, ops.Map | ops.Scan) else None
    if isinstance(node.op, ops.Scan):
        node, types, inputs = _positions(node, node.op, types, inputs, outputs)
    expected = exact(node, scalar, types, inputs)
    bounds = node_bounds(node, scalar, inputs, [t.dtype for t in types], expected, model)
    for i, (t, found, wanted, bound) in enumerate(zip(node.types, outputs, expected, bounds, strict=True)):
        with np.errstate(invalid="ignore"):
            x, y = (np.asarray(widen(a, t.dtype), np.float64) for a in (found, wanted))
            fine = (x == y) | (np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= bound) | (bound == np.inf)
        if not fine.all():
            at = tuple(int(p) for p in np.argwhere(~fine)[0])
            value = program.first_value[n] + i
            kind = program.nodes[n].op.kind
            return Fault(n, kind, node.origin, i, value, at, float(x[at]), float(y[at]), float(bound[at]))
    return None


def _positions(
    node: Node, op: ops.Scan, types: Sequence[TensorType], inputs: Sequence[Array], outputs: Sequence[Array]
) -> tuple[Node, list[TensorType], list[Array]]:
    """A scan as a map: what each position got from the one before it is among the claims."""
    carried = len(outputs)
    before = [
        np.concatenate([np.broadcast_to(x, (1, *op.shape[1:])), out[:-1]])[: op.shape[0]]
        for x, out in zip(inputs, outputs, strict=False)
    ]
    as_map = replace(node, op=ops.Map(op.program, op.shape, op.dtypes))
    carried_types = [TensorType(d, op.shape) for d in op.dtypes]
    return as_map, [*carried_types, *types[carried:]], [*before, *inputs[carried:]]


def exact(
    node: Node, scalar: ScalarProgram | None, types: Sequence[TensorType], inputs: Sequence[Array]
) -> list[Array]:
    """The outputs of one node on the exact backend."""
    op = replace(node.op, program=0) if isinstance(node.op, ops.Map) else node.op
    names = [f"{i:04}" for i in range(max(len(types), len(node.types)))]
    alone = Program(
        tuple(Input("batch", name, t) for name, t in zip(names, types, strict=False)),
        () if scalar is None else (scalar,),
        (Node(op, tuple(range(len(types))), node.types),),
        tuple(Output("metric", name, len(types) + i) for i, name in zip(range(len(node.types)), names, strict=False)),
    )
    executor = cpu.Executor(alone)
    executor.load({})
    arrays = {name: np.asarray(x, order="C") for name, x in zip(names, inputs, strict=False)}
    found = executor.step(arrays, {})
    return [found[name] for name in names[: len(node.types)]]

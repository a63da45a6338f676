"""A call of a plan on the CPU: a program of one node, run by the native backend from the call's operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gensyn_verify.backends import cpu
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.backends.device import plan
from gensyn_verify.backends.device.plan import Place, View
from gensyn_verify.errors import BackendError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Input, Node, Output, Program
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype, Shape, TensorType

Read = Callable[[int, int], Array]  # offset, bytes -> uint8[bytes]
Write = Callable[[int, Array], None]


@dataclass(frozen=True)
class HostCall:
    """A call as a program of one node, and where its operands and (contiguous) results lie."""

    program: Program
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]

    def run(self, read: Read, write: Write) -> None:
        executor = cpu.Executor(self.program)
        batch = {i.name: _array(p, read) for i, p in zip(self.program.inputs, self.inputs, strict=True)}
        results = executor.step(batch, {})
        for place, name in zip(self.outputs, self.program.outputs_of("metric"), strict=True):
            if results[name].size:
                write(place.offset, np.ascontiguousarray(results[name]).reshape(-1).view(np.uint8))


def host_call(call: plan.Call, scalars: Sequence[ScalarProgram]) -> HostCall:
    """The program of a call that computes with floats."""
    if isinstance(call, plan.Map | plan.Scan):
        return _elementwise(call, scalars[call.program])
    if isinstance(call, plan.Dot):
        return _dot(call)
    if isinstance(call, plan.Reduce):
        shape, strides = (*call.kept_shape, *call.reduced_shape), (*call.kept_strides, *call.reduced_strides)
        axes = tuple(range(len(call.kept_shape), len(shape)))
        op = ops.Reduce(call.op, axes, call.y_dtype)
        return _program(op, [Place(call.x, call.x_dtype, shape, strides)], [call.y])
    if isinstance(call, plan.ScatterAdd):
        scatter = ops.ScatterAdd(call.rows, call.out_dtype)
        source = Place(call.source, call.source_dtype, (call.count, call.row), (call.row, 1))
        return _program(scatter, [source, Place(call.index, Dtype.i32, (call.count,), (1,))], [call.out])
    raise BackendError(f"{type(call).__name__} does not compute with floats, so it is never run on the host")


def _elementwise(call: plan.Map | plan.Scan, scalar: ScalarProgram) -> HostCall:
    dtypes = tuple(v.dtype for v in call.outputs)
    carried = len(call.outputs) if isinstance(call, plan.Scan) else 0
    inputs = [_compact(v, call.shape[1:] if i < carried else call.shape) for i, v in enumerate(call.inputs)]
    op = (ops.Scan if carried else ops.Map)(0, call.shape, dtypes)
    return _program(op, inputs, [v.offset for v in call.outputs], (scalar,))


def _dot(c: plan.Dot) -> HostCall:
    def matrix(at: int, dtype: Dtype, batch_stride: int, rows: int, columns: int) -> Place:
        return Place(at, dtype, (c.batch, rows, columns), (batch_stride, columns, 1))

    a = matrix(c.a, c.a_dtype, c.a_batch_stride, *((c.k, c.m) if c.transpose_a else (c.m, c.k)))
    b = matrix(c.b, c.b_dtype, c.b_batch_stride, *((c.n, c.k) if c.transpose_b else (c.k, c.n)))
    return _program(ops.Dot(c.transpose_a, c.transpose_b, c.c_dtype), [a, b], [c.c])


def _compact(view: View, shape: Shape) -> Place:
    """Without the repetitions: axes along which the view stands still have length 1, and broadcast."""
    kept = tuple(1 if s == 0 and d else d for d, s in zip(shape, view.strides, strict=True))
    return Place(view.offset, view.dtype, kept, view.strides)


def _program(
    op: ops.Op, inputs: Sequence[Place], outputs: Sequence[int], scalars: tuple[ScalarProgram, ...] = ()
) -> HostCall:
    types = [TensorType(p.dtype, p.shape) for p in inputs]
    results = op.infer(types, scalars)
    n = len(inputs)
    program = Program(
        tuple(Input("batch", f"x{i:02}", t) for i, t in enumerate(types)),
        scalars,
        (Node(op, tuple(range(n)), results, ""),),
        tuple(Output("metric", f"y{i:02}", n + i) for i in range(len(results))),
    )
    places = tuple(Place(at, t.dtype, t.shape, ()) for at, t in zip(outputs, results, strict=True))
    return HostCall(program, tuple(inputs), places)


def _array(place: Place, read: Read) -> Array:
    carrier = CARRIER[place.dtype]
    begin, end = place.span
    if begin == end:
        return np.zeros(place.shape, carrier)
    strides = tuple(s * carrier.itemsize for s in place.strides)
    return np.array(
        np.ndarray(place.shape, carrier, read(begin, end - begin), place.offset - begin, strides), order="C"
    )

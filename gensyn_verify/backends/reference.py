"""The definition: what every node kind and every scalar operation computes, bit for bit, in plain NumPy.

Slow and obvious. NumPy's elementwise float32 + - * / and sqrt are IEEE-754 operations, rounded once to nearest even;
nothing else of NumPy's arithmetic is used on floats. Orders of accumulation are loops written out here. Every other
backend equals this one in every bit. Prose and reasons: docs/numerics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, REGISTER, Array, check_arrays, narrow, widen
from gensyn_verify.errors import BackendError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Program
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype, Reg

NAN = np.uint32(0x7FC00000).view(np.float32)
DOT_BLOCK = 128
SUM_LANES = 64
SUM_SEGMENT = 2048


# ---- scalar operations ------------------------------------------------------------------------------------------


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c rounded once to binary32, for all inputs.

    In binary64 the product of two binary32 numbers is exact (24 + 24 <= 53 bits, exponents far inside the range).
    The sum s = p + c is rounded there, and TwoSum gives its exact error. Where the error is not zero, s is moved to
    the neighbour with an odd last bit ("round to odd"). A number rounded to odd with at least 24 + 2 bits rounds to
    the same binary32 as the exact value (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008), in
    the subnormal range too, where binary32 keeps fewer bits still. So the last line rounds exactly once.
    """
    p = a.astype(np.float64) * b.astype(np.float64)
    d = c.astype(np.float64)
    s = p + d
    t = s - p
    error = (p - (s - t)) + (d - t)  # NaN where s is infinite or NaN: nothing to correct there
    bits = np.array(s).view(np.int64)
    inexact_and_even = (error != 0) & ~np.isnan(error) & (bits & 1 == 0)
    towards_error = np.where((error > 0) == (s > 0), 1, -1)  # grow or shrink the magnitude
    odd = np.where(inexact_and_even, bits + towards_error, bits).view(np.float64)
    return odd.astype(np.float32)


def _minimum(a: Array, b: Array) -> Array:
    """NaN if either is NaN; -0 < +0."""
    smaller = np.where((a < b) | ((a == b) & np.signbit(a)), a, b)
    return np.where(np.isnan(a) | np.isnan(b), NAN, smaller)


def _maximum(a: Array, b: Array) -> Array:
    larger = np.where((a > b) | ((a == b) & ~np.signbit(a)), a, b)
    return np.where(np.isnan(a) | np.isnan(b), NAN, larger)


def _canonical(x: Array) -> Array:
    """A NaN has no sign and no payload: it is one value with the bits 0x7FC00000."""
    return np.where(np.isnan(x), NAN, x)


def _truncate(x: Array, low: int, high: int, to: type[np.generic]) -> Array:
    """Toward zero, saturating; NaN gives 0. binary64 holds every bound and every binary32 exactly."""
    wide = np.where(np.isnan(x), 0.0, np.trunc(x.astype(np.float64)))
    return np.clip(wide, float(low), float(high)).astype(np.int64).astype(to)


def _mulhi(a: Array, b: Array) -> Array:
    wide = np.int64 if a.dtype == np.int32 else np.uint64
    return ((a.astype(wide) * b.astype(wide)) >> wide(32)).astype(a.dtype)


def _shift(a: Array, amount: Array, left: bool) -> Array:
    amount = (amount & np.uint32(31)).astype(a.dtype)  # the amount counts modulo 32
    return np.left_shift(a, amount) if left else np.right_shift(a, amount)  # arithmetic for i32, logical for u32


_FLOAT: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "sqrt": np.sqrt,
    "fma": fma, "min": _minimum, "max": _maximum, "neg": np.negative, "abs": np.abs,
    "eq": np.equal, "lt": np.less, "le": np.less_equal,
}  # fmt: skip
_INTEGER: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "mulhi": _mulhi, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.bitwise_not,
    "shl": lambda a, n: _shift(a, n, True), "shr": lambda a, n: _shift(a, n, False),
    "eq": np.equal, "lt": np.less, "le": np.less_equal,
}  # fmt: skip
_BOOLEAN: dict[str, Callable[..., Array]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not,
}  # fmt: skip
SCALAR: dict[str, Callable[..., Array]] = {
    **{f"{n}.f32": f for n, f in _FLOAT.items()},
    **{f"{n}.{t}": f for t in ("i32", "u32") for n, f in _INTEGER.items()},
    **{f"{n}.boolean": f for n, f in _BOOLEAN.items()},
    **{f"select.{r.name}": np.where for r in Reg},
    "f32_to_i32": lambda x: _truncate(x, -(1 << 31), (1 << 31) - 1, np.int32),
    "f32_to_u32": lambda x: _truncate(x, 0, (1 << 32) - 1, np.uint32),
    "i32_to_f32": lambda x: x.astype(np.float32),
    "u32_to_f32": lambda x: x.astype(np.float32),
    "boolean_to_u32": lambda x: x.astype(np.uint32),
    "f32_bits_to_u32": lambda x: _canonical(x).view(np.uint32),
    "u32_bits_to_f32": lambda x: x.view(np.float32),
    "i32_bits_to_u32": lambda x: x.view(np.uint32),
    "u32_bits_to_i32": lambda x: x.view(np.int32),
}  # fmt: skip


def run_scalar_program(scalar: ScalarProgram, inputs: list[Array]) -> list[Array]:
    """Every instruction in order, on arrays of registers of one shape; the values of the outputs."""
    shape = inputs[0].shape if inputs else ()
    values = list(inputs)
    for c in scalar.constants:
        bits = np.full(shape, c.bits, np.uint32)
        values.append(bits.astype(np.bool_) if c.reg is Reg.boolean else bits.view(REGISTER[c.reg]))
    with np.errstate(all="ignore"):
        for instruction in scalar.code:
            args = [np.asarray(values[v]) for v in instruction.args]
            values.append(np.asarray(SCALAR[instruction.op](*args)))
    return [values[v] for v in scalar.outputs]


# ---- node kinds -------------------------------------------------------------------------------------------------


def run_map(op: ops.Map, scalar: ScalarProgram, inputs: list[Array], dtypes: list[Dtype]) -> list[Array]:
    registers = [
        np.asarray(np.broadcast_to(widen(x, d), op.shape), order="C") for x, d in zip(inputs, dtypes, strict=True)
    ]
    results = run_scalar_program(scalar, registers)
    return [
        narrow(np.asarray(np.broadcast_to(r, op.shape), order="C"), d) for r, d in zip(results, op.dtypes, strict=True)
    ]


def dot_blocks(k: int) -> Iterator[tuple[int, int]]:
    """The blocks [start, end) of k: 128 each; a remainder of at most 64 joins the last full block (k <= 192 is one)."""
    start = 0
    while k - start > DOT_BLOCK + DOT_BLOCK // 2:
        yield start, start + DOT_BLOCK
        start += DOT_BLOCK
    if k > start:
        yield start, k


def matrix_product(a: Array, b: Array) -> Array:
    """[m, k] x [k, n] in float32: a chain of fma over ascending k in each block, block sums added left to right."""
    total: Array = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for start, end in dot_blocks(a.shape[1]):
        chain = np.zeros_like(total)
        for k in range(start, end):
            chain = fma(a[:, k, None], b[None, k, :], chain)
        total = chain if start == 0 else total + chain
    return total


def integer_product(a: Array, b: Array) -> Array:
    """[m, k] x [k, n] in int32: the exact sums modulo 2^32, whatever the order."""
    total: Array = np.zeros((a.shape[0], b.shape[1]), np.int32)
    for k in range(a.shape[1]):
        total += a[:, k, None] * b[None, k, :]
    return total


def run_dot(op: ops.Dot, a: Array, b: Array, shape: tuple[int, ...]) -> Array:
    if op.transpose_a:
        a = np.swapaxes(a, -1, -2)
    if op.transpose_b:
        b = np.swapaxes(b, -1, -2)
    out = np.zeros(shape, a.dtype)
    product = matrix_product if op.dtype.is_float else integer_product
    with np.errstate(all="ignore"):
        for batch in np.ndindex(*shape[:-2]):
            out[batch] = product(a[batch] if a.ndim > 2 else a, b[batch] if b.ndim > 2 else b)
    return narrow(out, op.dtype)


def sum_segment(x: Array) -> Array:
    """Sum of at most 2,048 values over the last axis: element i goes to lane i mod 64; lanes start at -0, the exact
    identity of addition, and take their elements in ascending order; then lane l takes lane l + h, h = 32, 16, ... 1.
    """
    lanes = np.full((*x.shape[:-1], SUM_LANES), -0.0 if x.dtype == np.float32 else 0, x.dtype)
    for i in range(0, x.shape[-1], SUM_LANES):
        part = x[..., i : i + SUM_LANES]
        lanes[..., : part.shape[-1]] += part
    half = SUM_LANES // 2
    while half:
        lanes[..., :half] += lanes[..., half : 2 * half]
        half //= 2
    return lanes[..., 0]


def reduce_sum(x: Array) -> Array:
    """Sum over the last axis: every 2,048 values are a segment, and the segments' sums are summed by the same rule
    until one is left. The empty sum is +0.
    """
    n = x.shape[-1]
    if n == 0:
        return np.zeros(x.shape[:-1], x.dtype)
    if n <= SUM_SEGMENT:
        return sum_segment(x)
    return reduce_sum(np.stack([sum_segment(x[..., i : i + SUM_SEGMENT]) for i in range(0, n, SUM_SEGMENT)], -1))


def reduce_extreme(x: Array, name: str) -> Array:
    better = (_FLOAT if x.dtype == np.float32 else _INTEGER)[name]
    out = x[..., 0]
    for i in range(1, x.shape[-1]):
        out = better(out, x[..., i])
    return out


def reduce_arg(x: Array, name: str) -> Array:
    """The position of the first NaN, else of the first element that none exceeds; -0 equals +0."""
    best, position = x[..., 0].copy(), np.zeros(x.shape[:-1], np.int32)
    for i in range(1, x.shape[-1]):
        beats = x[..., i] > best if name == "argmax" else x[..., i] < best
        if x.dtype == np.float32:
            beats = (beats | np.isnan(x[..., i])) & ~np.isnan(best)
        best, position = np.where(beats, x[..., i], best), np.where(beats, np.int32(i), position)
    return position


def run_reduce(op: ops.Reduce, x: Array, dtype: Dtype) -> Array:
    kept = [a for a in range(x.ndim) if a not in op.axes]
    n = math.prod(x.shape[a] for a in op.axes)
    rows = np.transpose(x, [*kept, *op.axes]).reshape([*(x.shape[a] for a in kept), n])
    rows = np.asarray(widen(rows, dtype), order="C")
    name = ops.REDUCTIONS[op.op]
    with np.errstate(all="ignore"):
        if name == "sum":
            return narrow(np.asarray(reduce_sum(rows)), op.dtype)
        if name in ("max", "min"):
            return narrow(np.asarray(reduce_extreme(rows, name)), op.dtype)
        return np.asarray(reduce_arg(rows, name))


def run_layout(op: ops.Op, inputs: list[Array], shape: tuple[int, ...]) -> Array:
    """Bits move, nothing is computed."""
    x = inputs[0]
    if isinstance(op, ops.Reshape):
        return x.reshape(shape)
    if isinstance(op, ops.Permute):
        return np.transpose(x, op.axes)
    if isinstance(op, ops.Broadcast):
        return np.broadcast_to(x, shape)
    if isinstance(op, ops.Concat):
        return np.concatenate(inputs, op.axis)
    if isinstance(op, ops.Slice):
        for axis, (start, n, step) in enumerate(zip(op.start, op.shape, op.step, strict=True)):
            x = np.take(x, start + step * np.arange(n), axis)
        return x
    if isinstance(op, ops.Pad):
        spots = [lo + np.arange(d) * (gap + 1) for d, lo, gap in zip(x.shape, op.low, op.interior, strict=True)]
        fill = np.array(op.fill, np.uint64).astype(f"<u{x.dtype.itemsize}").view(x.dtype)
        out = np.full(shape, fill, x.dtype)
        out[np.ix_(*spots)] = x
        return out
    assert isinstance(op, ops.Window)
    lead = x.ndim - len(op.size)
    sizes = shape[lead + len(op.size) :]
    windows: Array = np.empty(shape, x.dtype)
    for tap in np.ndindex(*op.size):
        where = [k * d + np.arange(o) * t for k, d, o, t in zip(tap, op.dilation, sizes, op.stride, strict=True)]
        source = x
        for axis, places in enumerate(where):
            source = np.take(source, places, lead + axis)
        windows[(slice(None),) * lead + tap] = source
    return windows


def run_gather(data: Array, index: Array, dtype: Dtype) -> Array:
    """Rows by index; outside the rows: canonical NaN for floats, 0 for the rest."""
    outside = (
        narrow(np.full((1, *data.shape[1:]), NAN), dtype)
        if dtype.is_float
        else np.zeros((1, *data.shape[1:]), data.dtype)
    )
    table = np.concatenate([data, outside])
    inside = (index >= 0) & (index < len(data))
    return table[np.where(inside, index, len(data))]


def run_scatter_add(op: ops.ScatterAdd, source: Array, index: Array, dtype: Dtype, shape: tuple[int, ...]) -> Array:
    """out[index[i]] = out[index[i]] + source[i] for ascending i, from +0."""
    register = REGISTER[dtype.reg]
    out: Array = np.zeros(shape, register)
    rows = widen(source, dtype).reshape(index.size, *shape[1:])
    with np.errstate(all="ignore"):
        for i, row in zip(index.reshape(-1), rows, strict=True):
            if 0 <= i < op.rows:
                out[i] = out[i] + row
    return narrow(out, op.dtype)


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, ...]:
    """Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011): four u32 words a counter."""
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


def run_random(op: ops.Random, seed: Array, step: Array) -> Array:
    """Element e is word e mod 4 of the block at counter (e div 4 low, e div 4 high, stream, step)."""
    count = int(np.prod(op.shape, dtype=np.int64))
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    stream, steps = np.full_like(block, op.stream), np.full_like(block, int(step))
    counter = (block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), stream, steps)
    words = philox(counter, (int(seed[0]), int(seed[1])))
    return np.stack(words, -1).reshape(-1)[:count].reshape(op.shape)


def comes_before(a: Array, b: Array) -> bool:
    """The order of sort on two numbers: NaN after everything else; -0 and +0 are equal, and so are two NaN."""
    return bool(a < b or (np.isnan(b) and not np.isnan(a)))


def sort_positions(values: Array) -> list[int]:
    """Insertion sort: each element moves in front of those that it comes before, so equal ones keep their order."""
    order: list[int] = []
    for i in range(len(values)):
        place = i
        while place > 0 and comes_before(values[i], values[order[place - 1]]):
            place -= 1
        order.insert(place, i)
    return order


def run_sort(x: Array, dtype: Dtype) -> Array:
    """The positions of the elements of each row of the last axis, in their order."""
    rows = widen(x, dtype).reshape(-1, x.shape[-1]) if x.size else np.zeros((0, 0), np.float32)
    return np.array([sort_positions(row) for row in rows], np.int32).reshape(x.shape)


def run_scan(op: ops.Scan, scalar: ScalarProgram, inputs: list[Array], dtypes: list[Dtype]) -> list[Array]:
    """A map a position of the first axis, whose first inputs are the outputs of the last one."""
    step = ops.Map(op.program, op.shape[1:], op.dtypes)
    carried = inputs[: len(op.dtypes)]
    rest = [np.broadcast_to(x, op.shape) for x in inputs[len(op.dtypes) :]]
    out = [np.empty(op.shape, CARRIER[d]) for d in op.dtypes]
    for t in range(op.shape[0]):
        carried = run_map(step, scalar, [*carried, *(x[t] for x in rest)], dtypes)
        for all_steps, value in zip(out, carried, strict=True):
            all_steps[t] = value
    return out


def run_node(program: Program, node: Node, inputs: list[Array], dtypes: list[Dtype]) -> list[Array]:
    """The outputs of one node."""
    op = node.op
    if isinstance(op, ops.Map):
        return run_map(op, program.scalar_programs[op.program], inputs, dtypes)
    if isinstance(op, ops.Dot):
        a, b = (widen(x, d) for x, d in zip(inputs, dtypes, strict=True))
        return [run_dot(op, a, b, node.types[0].shape)]
    if isinstance(op, ops.Reduce):
        return [run_reduce(op, inputs[0], dtypes[0])]
    if isinstance(op, ops.Gather):
        return [run_gather(inputs[0], inputs[1], dtypes[0])]
    if isinstance(op, ops.ScatterAdd):
        return [run_scatter_add(op, inputs[0], inputs[1], dtypes[0], node.types[0].shape)]
    if isinstance(op, ops.Random):
        return [run_random(op, inputs[0], inputs[1])]
    if isinstance(op, ops.Sort):
        return [run_sort(inputs[0], dtypes[0])]
    if isinstance(op, ops.Scan):
        return run_scan(op, program.scalar_programs[op.program], inputs, dtypes)
    return [run_layout(op, inputs, node.types[0].shape)]


class Executor:
    """Runs a program node by node and keeps every value of the last step in `values` (by value number)."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.values: list[Array] = []
        self._state: dict[str, Array] = {}

    def load(self, state: Mapping[str, Array]) -> None:
        checked = check_arrays(state, self.program.inputs_of("state"), "state")
        self._state = {name: array.copy() for name, array in checked.items()}

    def state(self) -> dict[str, Array]:
        return dict(self._state)

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        p = self.program
        if len(self._state) != len(p.inputs_of("state")):
            raise BackendError("step before load: the executor has no state yet")
        given = {
            "state": self._state,
            "batch": check_arrays(batch, p.inputs_of("batch"), "batch"),
            "scalar": check_arrays(scalars, p.inputs_of("scalar"), "scalars"),
        }
        self.values = [given[i.role][i.name] for i in p.inputs]
        types = p.value_types
        for node in p.nodes:
            outputs = run_node(p, node, [self.values[v] for v in node.inputs], [types[v].dtype for v in node.inputs])
            self.values.extend(
                np.asarray(x, order="C").reshape(t.shape) for x, t in zip(outputs, node.types, strict=True)
            )
        results = {(o.role, o.name): self.values[o.value].copy() for o in p.outputs}
        self._state = {name: array for (role, name), array in results.items() if role == "state"}
        return {name: array for (role, name), array in results.items() if role == "metric"}

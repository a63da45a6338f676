"""The sequence of an element: the operations that compute it, one after the other (docs/dispute.md, section 3).

This file is the definition. A `Sequence` knows its `length`, `operation(t)` with a reference for every operand, and
what an operation gives (`execute`). `results` runs it whole; kinds with long sequences override that with loops over
arrays, and the tests hold the two against each other.

Numbers are what the contract sees: unsigned integers. A register is its 32 bits, a NaN 7fc00000, a boolean 0 or 1; a
stored element is its bits, zero-extended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, Array, narrow, widen
from gensyn_verify.backends.reference import (
    DOT_BLOCK,
    SCALAR,
    SUM_LANES,
    SUM_SEGMENT,
    comes_before,
    dot_blocks,
    fma,
    philox,
)
from gensyn_verify.errors import MalformedError
from gensyn_verify.program import ops
from gensyn_verify.program.scalar import BY_CODE, OPERATIONS, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, Shape, TensorType
from gensyn_verify.protocol.sampler import permute

STORE, COPY, ARGMAX, ARGMIN, POSITION, SCATTER, PHILOX, COUNT, RANK, MULTIPLY_ADD = range(128, 138)
NAMES = {
    **{code: op.name for code, op in BY_CODE.items()},
    STORE: "store", COPY: "copy", ARGMAX: "argmax", ARGMIN: "argmin", POSITION: "position", SCATTER: "scatter",
    PHILOX: "philox", COUNT: "count", RANK: "rank", MULTIPLY_ADD: "multiply_add",
}  # fmt: skip
NAN = 0x7FC00000
NOWHERE = 0xFFFFFFFF  # the rank of a position that stands elsewhere in its row
_NUMPY: dict[Reg, Any] = {Reg.f32: np.float32, Reg.i32: np.int32, Reg.u32: np.uint32, Reg.boolean: np.bool_}


# ---- operands and operations ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    value: int


@dataclass(frozen=True)
class Result:
    """The result of an earlier operation; `load`: it is a stored element of this dtype, read into a register."""

    index: int
    load: Dtype | None = None


@dataclass(frozen=True)
class Element:
    """An element of operand tensor `tensor`, read into a register or, `raw`, as it is stored."""

    tensor: int
    index: int
    raw: bool = False


Operand = Constant | Result | Element
ZERO = Constant(0)


@dataclass(frozen=True)
class Operation:
    code: int
    operands: tuple[Operand, ...]

    def operand(self, slot: int) -> Operand:
        """A slot that is not used holds the constant 0."""
        return self.operands[slot] if slot < len(self.operands) else ZERO


@dataclass(frozen=True)
class Source:
    """Where a batch or scalar input comes from: `rows` rows of data or schedule; seed and batch of the sampler."""

    role: str
    rows: int
    seed: tuple[int, int]
    batch: int


# ---- bits -------------------------------------------------------------------------------------------------------


def stored_bits(array: Array) -> Array:
    """The elements of a carrier array in row-major order, as unsigned integers. Refers to its memory."""
    return np.ascontiguousarray(array).reshape(-1).view(f"<u{array.dtype.itemsize}")


def load(stored: Array, dtype: Dtype) -> Array:
    """Registers of stored bits: u32, one NaN."""
    if dtype is Dtype.boolean:
        return stored.astype(np.uint32)
    return _bits(widen(stored.view(CARRIER[dtype]), dtype))


def _bits(register: Array) -> Array:
    if register.dtype == np.bool_:
        return register.astype(np.uint32)
    bits = np.ascontiguousarray(register).view(np.uint32)
    return np.where(np.isnan(register), np.uint32(NAN), bits) if register.dtype == np.float32 else bits


def _register(bits: Array, reg: Reg) -> Array:
    return bits.astype(np.bool_) if reg is Reg.boolean else bits.astype(np.uint32).view(_NUMPY[reg])


def load_one(stored: int, dtype: Dtype) -> int:
    return int(load(np.array([stored], f"<u{dtype.size}"), dtype)[0])


def store_one(register: int, dtype: Dtype) -> int:
    return int(stored_bits(narrow(_register(np.array([register]), dtype.reg), dtype))[0])


def execute_scalar(code: int, operands: SequenceOf[int]) -> int:
    """One operation of scalar programs."""
    op = BY_CODE[code]
    args = [_register(np.array([x]), reg) for x, reg in zip(operands, op.operands, strict=False)]
    with np.errstate(all="ignore"):
        return int(_bits(np.asarray(SCALAR[op.name](*args)))[0])


def _code(name: str, reg: Reg) -> int:
    return OPERATIONS[f"{name}.{reg.name}"].code


# ---- places -----------------------------------------------------------------------------------------------------


def strides_of(shape: Shape) -> tuple[int, ...]:
    """How many elements lie between neighbours along each axis."""
    return tuple(math.prod(shape[a + 1 :]) for a in range(len(shape)))


def index(number: Any, shape: SequenceOf[int], strides: SequenceOf[int]) -> Any:
    """The place in another tensor, of these strides, of row-major element `number` (or an array of them) of `shape`."""
    place: Any = 0
    for d, stride in zip(reversed(shape), reversed(strides), strict=True):
        place = place + number % d * stride
        number = number // d
    return place


def broadcast_index(element: int, shape: Shape, source: Shape) -> int:
    """The element of `source` that element `element` of `shape` reads."""
    strides = [0 if d == 1 else s for d, s in zip(source, strides_of(source), strict=True)]
    return int(index(element, shape[len(shape) - len(source) :], strides))


def multi_index(element: int, shape: Shape) -> tuple[int, ...]:
    return tuple(element // s % d for d, s in zip(shape, strides_of(shape), strict=True))


# ---- sequences --------------------------------------------------------------------------------------------------


class Sequence:
    """The operations of one element. `value` is its claimed stored bits, which only a sort looks at."""

    length: int

    def __init__(
        self,
        op: ops.Op | Source,
        reads: SequenceOf[TensorType],
        type: TensorType,
        scalar: ScalarProgram | None,
        output: int,
        element: int,
        value: int,
        step: int,
    ) -> None:
        self.op, self.reads, self.type, self.scalar = op, reads, type, scalar
        self.output, self.element, self.value, self.step = output, element, value, step
        self.setup()

    def setup(self) -> None:
        """Set `length`, and whatever does not depend on the operation."""
        self.length = 1

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        """Operation t. Where an operand lies may depend on the `claimed` values of lower slots."""
        raise NotImplementedError

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        """What operation t, of this code, gives for the values of its operands."""
        if code == STORE:
            return store_one(operands[0], self.type.dtype)
        return execute_scalar(code, operands)

    def fetch(self, operand: Operand, tensors: SequenceOf[Array], results: SequenceOf[int] | Array) -> int:
        """The value of an operand. `tensors`: the operand tensors, flat, as stored bits."""
        if isinstance(operand, Constant):
            return operand.value
        if isinstance(operand, Result):
            found = int(results[operand.index])
            return found if operand.load is None else load_one(found, operand.load)
        found = int(tensors[operand.tensor][operand.index])
        return found if operand.raw else load_one(found, self.reads[operand.tensor].dtype)

    def operands(self, t: int, tensors: SequenceOf[Array], results: SequenceOf[int] | Array) -> list[int]:
        """The values of the operands of operation t, in order."""
        values: list[int] = []
        for slot in range(len(self.operation(t, [0, 0, 0]).operands)):
            values.append(self.fetch(self.operation(t, [*values, 0, 0, 0]).operands[slot], tensors, results))
        return values

    def results(self, tensors: SequenceOf[Array]) -> Array:
        """The results of all operations, u64 [length]."""
        out: list[int] = []
        for t in range(self.length):
            operands = self.operands(t, tensors, out)
            out.append(self.execute(t, self.operation(t, operands).code, operands))
        return np.array(out, np.uint64)

    def registers(self, tensors: SequenceOf[Array], tensor: int, places: Array) -> Array:
        """Elements of an operand tensor, loaded: u32."""
        return load(tensors[tensor][places], self.reads[tensor].dtype)


class MapSequence(Sequence):
    """The instructions of the scalar program, then the store of one output."""

    op: ops.Map

    def setup(self) -> None:
        assert self.scalar is not None
        self.length = len(self.scalar.code) + 1

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        s = self.scalar
        assert s is not None
        if t == len(s.code):
            return Operation(STORE, (self._value(s, s.outputs[self.output]),))
        return Operation(OPERATIONS[s.code[t].op].code, tuple(self._value(s, v) for v in s.code[t].args))

    def _value(self, s: ScalarProgram, v: int) -> Operand:
        if v < len(s.inputs):
            return Element(v, broadcast_index(self.element, self.op.shape, self.reads[v].shape))
        v -= len(s.inputs)
        return Constant(s.constants[v].bits) if v < len(s.constants) else Result(v - len(s.constants))


class ScanSequence(Sequence):
    """Position by position of the first axis: the instructions, then a store of every output."""

    op: ops.Scan

    def setup(self) -> None:
        assert self.scalar is not None
        self.inner_shape = self.op.shape[1:]
        self.position, self.inner = divmod(self.element, math.prod(self.inner_shape))
        self.code = len(self.scalar.code)
        self.each = self.code + len(self.op.dtypes)
        self.length = self.each * self.position + self.code + self.output + 1

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        s = self.scalar
        assert s is not None
        position, i = divmod(t, self.each)
        if i < self.code:
            return Operation(OPERATIONS[s.code[i].op].code, tuple(self._value(s, position, v) for v in s.code[i].args))
        return Operation(STORE, (self._value(s, position, s.outputs[i - self.code]),))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        if code == STORE:
            return store_one(operands[0], self.op.dtypes[t % self.each - self.code])
        return execute_scalar(code, operands)

    def _value(self, s: ScalarProgram, position: int, v: int) -> Operand:
        carried = len(self.op.dtypes)
        if v < carried and position:
            return Result(self.each * (position - 1) + self.code + v, self.op.dtypes[v])
        if v < carried:
            return Element(v, broadcast_index(self.inner, self.inner_shape, self.reads[v].shape))
        if v < len(s.inputs):
            here = position * math.prod(self.inner_shape) + self.inner
            return Element(v, broadcast_index(here, self.op.shape, self.reads[v].shape))
        v -= len(s.inputs)
        if v < len(s.constants):
            return Constant(s.constants[v].bits)
        return Result(self.each * position + v - len(s.constants))


class DotSequence(Sequence):
    """Chains of fma over the blocks of k; after each block but the first, the sum of blocks.

    Products of i8 are added up modulo 2^32 by as many operations, in as many blocks, though their order is free.
    """

    op: ops.Dot

    def setup(self) -> None:
        a, b = self.reads
        self.reg = Reg.f32 if self.type.dtype.is_float else Reg.i32  # i32 is the result of i8 alone
        self.multiply_add = _code("fma", Reg.f32) if self.reg is Reg.f32 else MULTIPLY_ADD
        m, n = self.type.shape[-2:]
        over, j = divmod(self.element, n)
        over, i = divmod(over, m)
        self.places = []  # (first, stride along k) of either side
        for t, transposed, row in ((a, self.op.transpose_a, i), (b, not self.op.transpose_b, j)):
            own = over * math.prod(t.shape[-2:]) if len(t.shape) > 2 else 0
            width = t.shape[-1]
            self.places.append((own + row, width) if transposed else (own + row * width, 1))
        self.k = a.shape[-2] if self.op.transpose_a else a.shape[-1]
        self.blocks = list(dot_blocks(self.k))
        self.length = self.k + len(self.blocks) if self.k else 1

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        if t == self.length - 1:
            return Operation(STORE, (Result(t - 1) if self.k else ZERO,))
        block = 0 if t < DOT_BLOCK else min(1 + (t - DOT_BLOCK) // (DOT_BLOCK + 1), len(self.blocks) - 1)
        start, end = self.blocks[block]
        k = t - max(block - 1, 0)  # behind each block but the first stands an addition
        if k == end:
            return Operation(_code("add", self.reg), (Result(start + block - 2), Result(t - 1)))
        (a, step_a), (b, step_b) = self.places
        chain = ZERO if k == start else Result(t - 1)
        return Operation(self.multiply_add, (Element(0, a + k * step_a), Element(1, b + k * step_b), chain))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        if code == MULTIPLY_ADD:
            return (operands[0] * operands[1] + operands[2]) & 0xFFFFFFFF
        return super().execute(t, code, operands)

    def results(self, tensors: SequenceOf[Array]) -> Array:
        if self.k == 0:
            return super().results(tensors)
        k = np.arange(self.k)
        a, b = (
            self.registers(tensors, side, first + k * step).view(_NUMPY[self.reg])
            for side, (first, step) in enumerate(self.places)
        )
        full = self.blocks[-1][0] // DOT_BLOCK  # blocks before the last, all of one length: side by side
        out: list[Array] = []
        total = _NUMPY[self.reg](0)
        with np.errstate(all="ignore"):
            chains = [
                *_chains(*(side[: full * DOT_BLOCK].reshape(full, DOT_BLOCK) for side in (a, b))),
                *_chains(a[None, full * DOT_BLOCK :], b[None, full * DOT_BLOCK :]),
            ]
            for block, chain in enumerate(chains):
                total = total + chain[-1] if block else chain[-1]
                out += [chain, np.array([total])] if block else [chain]
        results = _bits(np.concatenate(out)).astype(np.uint64)
        return np.append(results, np.uint64(store_one(int(results[-1]), self.type.dtype)))


def _chains(a: Array, b: Array) -> Array:
    """[blocks, k]: the chain of every block, from 0."""
    if a.dtype == np.int32:
        return np.cumsum(a * b, axis=1, dtype=np.int32)
    out = np.zeros((a.shape[1], a.shape[0]), np.float32)
    chain: Array = np.zeros(a.shape[0], np.float32)
    for k in range(a.shape[1]):
        chain = out[k] = fma(a[:, k], b[:, k], chain)
    return out.T


class ReduceSequence(Sequence):
    """What all reductions share: the values x[0] ... x[n - 1] of one element."""

    op: ops.Reduce

    def setup(self) -> None:
        (x,) = self.reads
        self.reg = x.dtype.reg
        strides = strides_of(x.shape)
        kept = [a for a in range(len(x.shape)) if a not in self.op.axes]
        self.first = index(self.element, [x.shape[a] for a in kept], [strides[a] for a in kept])
        self.dims, self.strides = [x.shape[a] for a in self.op.axes], [strides[a] for a in self.op.axes]
        self.n = math.prod(self.dims)
        self.length = max(self.n, 1)

    def x(self, i: int) -> Element:
        return Element(0, int(self.first + index(i, self.dims, self.strides)))

    def values(self, tensors: SequenceOf[Array]) -> Array:
        """x, loaded: u32 [n]."""
        return self.registers(tensors, 0, np.asarray(self.first + index(np.arange(self.n), self.dims, self.strides)))


class SumSequence(ReduceSequence):
    """Level by level, segment by segment: 64 lanes, then the fold of the lanes."""

    FOLDS: ClassVar[int] = SUM_LANES - 1

    def setup(self) -> None:
        super().setup()
        self.levels = []  # (number of the first operation, values)
        start, n = 0, self.n
        while n:
            self.levels.append((start, n))
            segments = -(-n // SUM_SEGMENT)
            start += n + segments * self.FOLDS
            n = segments if segments > 1 else 0
        self.length = start + 1
        self.lane = Constant(0x80000000 if self.reg is Reg.f32 else 0)

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        if t == self.length - 1:
            return Operation(STORE, (Result(t - 1) if self.n else ZERO,))
        level = max(i for i, (start, _) in enumerate(self.levels) if start <= t)
        base, n = self.levels[level]
        segment, i = divmod(t - base, SUM_SEGMENT + self.FOLDS)
        start, m = t - i, min(SUM_SEGMENT, n - segment * SUM_SEGMENT)
        if i < m:
            lane = Result(start + i - SUM_LANES) if i >= SUM_LANES else self.lane
            number = segment * SUM_SEGMENT + i
            x: Operand = self.x(number) if level == 0 else Result(self._sum(level - 1, number))
            return Operation(_code("add", self.reg), (lane, x))
        half, first = SUM_LANES // 2, 0  # of the fold in which operation i - m is, and its first
        while i - m >= first + half:
            first, half = first + half, half // 2
        lanes = (i - m - first, i - m - first + half)
        if first == 0:
            both = [Result(start + (m - 1 - x) // SUM_LANES * SUM_LANES + x) if x < m else self.lane for x in lanes]
        else:
            both = [Result(start + m + first - 2 * half + x) for x in lanes]
        return Operation(_code("add", self.reg), tuple(both))

    def _sum(self, level: int, segment: int) -> int:
        """The operation that gives the sum of a segment."""
        start, n = self.levels[level]
        return start + min((segment + 1) * SUM_SEGMENT, n) + (segment + 1) * self.FOLDS - 1

    def results(self, tensors: SequenceOf[Array]) -> Array:
        if self.n == 0:
            return super().results(tensors)
        values: Array = self.values(tensors).view(_NUMPY[self.reg])
        out: list[Array] = []
        with np.errstate(all="ignore"):
            for _ in self.levels:
                whole = len(values) // SUM_SEGMENT * SUM_SEGMENT
                parts = [values[:whole].reshape(-1, SUM_SEGMENT), values[None, whole:]]
                done = [self._segments(p) for p in parts if p.size]
                out += [d.reshape(-1) for d in done]
                values = np.concatenate([d[:, -1] for d in done])
        results = _bits(np.concatenate(out)).astype(np.uint64)
        return np.append(results, np.uint64(store_one(int(results[-1]), self.type.dtype)))

    def _segments(self, x: Array) -> Array:
        """[segments, m] -> the operations of every segment, [segments, m + 63]."""
        lanes: Array = np.full((x.shape[0], SUM_LANES), self.lane.value, np.uint32).view(x.dtype)
        out: list[Array] = []
        for i in range(0, x.shape[1], SUM_LANES):
            part = x[:, i : i + SUM_LANES]
            out.append(lanes[:, : part.shape[1]] + part)
            lanes[:, : part.shape[1]] = out[-1]
        half = SUM_LANES // 2
        while half:
            lanes = lanes[:, :half] + lanes[:, half : 2 * half]
            out.append(lanes)
            half //= 2
        return np.concatenate(out, 1)


class ExtremeSequence(ReduceSequence):
    """max and min: the running one."""

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        previous = Result(t - 1) if t else self.x(0)
        if t == self.n - 1:
            return Operation(STORE, (previous,))
        return Operation(_code(ops.REDUCTIONS[self.op.op], self.reg), (previous, self.x(t + 1)))

    def results(self, tensors: SequenceOf[Array]) -> Array:
        values = self.values(tensors)
        key = _ordered(values, self.reg, ops.REDUCTIONS[self.op.op])
        best = values[_running_best(key)[1:]]
        last = int(best[-1] if self.n > 1 else values[0])
        return np.append(best.astype(np.uint64), np.uint64(store_one(last, self.type.dtype)))


class ArgSequence(ReduceSequence):
    """argmax and argmin: the best so far, and its position."""

    @property
    def code(self) -> int:
        return ARGMAX if ops.REDUCTIONS[self.op.op] == "argmax" else ARGMIN

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        if t == self.n - 1:
            return Operation(POSITION, (Result(t - 1) if t else ZERO,))
        return Operation(self.code, (Result(t - 1) if t else self.x(0), self.x(t + 1)))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        if code == POSITION:
            return operands[0] & 0xFFFFFFFF
        best = operands[0] if t else operands[0] << 32
        a, b = (_register(np.array([x]), self.reg)[0] for x in (best >> 32 & 0xFFFFFFFF, operands[1]))
        beats = b > a if code == ARGMAX else b < a
        if self.reg is Reg.f32:
            beats = (beats or np.isnan(b)) and not np.isnan(a)
        return operands[1] << 32 | t + 1 if beats else best

    def results(self, tensors: SequenceOf[Array]) -> Array:
        values = self.values(tensors)
        equal_zeros = np.where(values == 0x80000000, np.uint32(0), values) if self.reg is Reg.f32 else values
        best = _running_best(_ordered(equal_zeros, self.reg, ops.REDUCTIONS[self.op.op][3:]))
        out = values[best].astype(np.uint64) << np.uint64(32) | best.astype(np.uint64)
        return np.append(out[1:], out[-1] & np.uint64(0xFFFFFFFF))


def _ordered(registers: Array, reg: Reg, name: str) -> Array:
    """u64 keys: the greater, the better; NaN is best of all, -0 is below +0."""
    sign = np.uint32(0x80000000)
    key = registers
    if reg is Reg.f32:
        key = np.where(registers & sign, ~registers, registers | sign)
    elif reg is Reg.i32:
        key = registers ^ sign
    if name == "min":
        key = ~key
    if reg is Reg.f32:
        key = np.where(registers == NAN, np.uint32(0xFFFFFFFF), key)
    return key.astype(np.uint64)


def _running_best(key: Array) -> Array:
    """The position of the first best of keys 0 to i, for every i. An integer maximum: no order matters."""
    late = np.uint64(0xFFFFFFFF) - np.arange(len(key), dtype=np.uint64)
    best: Array = np.maximum.accumulate(key << np.uint64(32) | late)
    return (np.uint64(0xFFFFFFFF) - (best & np.uint64(0xFFFFFFFF))).astype(np.int64)


class LayoutSequence(Sequence):
    """One copy, of an element or of what pads."""

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        return Operation(COPY, (self._origin(),))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        return operands[0]

    def _origin(self) -> Operand:
        op, e, shape = self.op, self.element, self.type.shape
        x = self.reads[0].shape
        strides = strides_of(x)
        if isinstance(op, ops.Reshape):
            return Element(0, e, raw=True)
        if isinstance(op, ops.Broadcast):
            return Element(0, broadcast_index(e, shape, x), raw=True)
        if isinstance(op, ops.Permute):
            return Element(0, int(index(e, shape, [strides[a] for a in op.axes])), raw=True)
        at = multi_index(e, shape)
        if isinstance(op, ops.Slice):
            places = [s + i * step for s, i, step in zip(op.start, at, op.step, strict=True)]
        elif isinstance(op, ops.Window):
            lead, d = len(x) - len(op.size), len(op.size)
            taps, positions = at[lead : lead + d], at[lead + d :]
            places = [
                *at[:lead],
                *(o * s + k * g for o, s, k, g in zip(positions, op.stride, taps, op.dilation, strict=True)),
            ]
        elif isinstance(op, ops.Pad):
            steps = [divmod(i - low, gap + 1) for i, low, gap in zip(at, op.low, op.interior, strict=True)]
            if any(between or not 0 <= i < d for (i, between), d in zip(steps, x, strict=True)):
                return Constant(op.fill)
            places = [i for i, _ in steps]
        else:
            assert isinstance(op, ops.Concat)
            tensor, along = 0, at[op.axis]
            while along >= self.reads[tensor].shape[op.axis]:
                along -= self.reads[tensor].shape[op.axis]
                tensor += 1
            strides = strides_of(self.reads[tensor].shape)
            places = [*at[: op.axis], along, *at[op.axis + 1 :]]
            return Element(tensor, sum(i * s for i, s in zip(places, strides, strict=True)), raw=True)
        return Element(0, sum(i * s for i, s in zip(places, strides, strict=True)), raw=True)


class GatherSequence(Sequence):
    """A copy of the element that the index selects."""

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        data = self.reads[0]
        row, rest = divmod(self.element, math.prod(data.shape[1:]))
        where = claimed[0] if claimed else 0
        if where < min(data.shape[0], 1 << 31):  # a negative index has its high bit set
            return Operation(COPY, (Element(1, row), Element(0, where * math.prod(data.shape[1:]) + rest, raw=True)))
        outside = store_one(NAN, data.dtype) if data.dtype.is_float else 0
        return Operation(COPY, (Element(1, row), Constant(outside)))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        return operands[1]


class ScatterSequence(Sequence):
    """All source rows in order, of which those of the element's row are added; from 0."""

    op: ops.ScatterAdd

    def setup(self) -> None:
        source, places = self.reads
        self.reg = source.dtype.reg
        self.n, self.inner = places.elements, math.prod(self.type.shape[1:])
        self.row, self.rest = divmod(self.element, self.inner)
        self.length = self.n + 1

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        previous = Result(t - 1) if t else ZERO
        if t == self.n:
            return Operation(STORE, (previous,))
        return Operation(SCATTER, (previous, Element(1, t), Element(0, t * self.inner + self.rest)))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        if code == STORE:
            return super().execute(t, code, operands)
        total, where, x = operands
        here = where == self.row and self.row < 1 << 31
        return execute_scalar(_code("add", self.reg), (total, x)) if here else total

    def results(self, tensors: SequenceOf[Array]) -> Array:
        hits = np.flatnonzero(load(tensors[1], Dtype.i32).view(np.int32) == self.row)
        xs: Array = self.registers(tensors, 0, hits * self.inner + self.rest).view(_NUMPY[self.reg])
        sums: Array = np.zeros(len(hits) + 1, _NUMPY[self.reg])
        with np.errstate(all="ignore"):
            for i in range(len(hits)):
                sums[i + 1] = sums[i] + xs[i]
        out = np.repeat(_bits(sums), np.diff([0, *hits, self.n])).astype(np.uint64)
        return np.append(out, np.uint64(store_one(int(_bits(sums)[-1]), self.type.dtype)))


class RandomSequence(Sequence):
    """One word of Philox."""

    op: ops.Random

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        return Operation(PHILOX, (Element(0, 0), Element(0, 1), Element(1, 0)))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        block, word = divmod(self.element, 4)
        counter = (block & 0xFFFFFFFF, block >> 32, self.op.stream, operands[2])
        c0, c1, c2, c3 = (np.array([c]) for c in counter)
        return int(philox((c0, c1, c2, c3), (operands[0], operands[1]))[word][0])


class SortSequence(Sequence):
    """How many elements of the row come before the one whose position is claimed."""

    def setup(self) -> None:
        (x,) = self.reads
        self.reg, self.n = x.dtype.reg, x.shape[-1]
        self.first = self.element - self.element % self.n
        if self.value >= self.n:
            raise MalformedError(f"position {self.value} of a row of {self.n} has no sequence")
        self.length = self.n + 1

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        previous = Result(t - 1) if t else ZERO
        if t == self.n:
            return Operation(RANK, (previous,))
        return Operation(COUNT, (previous, Element(0, self.first + t), Element(0, self.first + self.value)))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        if code == RANK:
            return self.value if operands[0] == self.element - self.first else NOWHERE
        y, z = (_register(np.array([x]), self.reg)[0] for x in operands[1:])
        before = comes_before(y, z) or (t < self.value and not comes_before(z, y))
        return (operands[0] + before) & 0xFFFFFFFF

    def results(self, tensors: SequenceOf[Array]) -> Array:
        row = _register(self.registers(tensors, 0, self.first + np.arange(self.n)), self.reg)
        z = row[self.value]
        if np.isnan(z):
            before, after = ~np.isnan(row), np.zeros(self.n, np.bool_)
        else:
            before, after = row < z, (row > z) | np.isnan(row)
        count = np.cumsum(before | (~after & (np.arange(self.n) < self.value))).astype(np.uint64)
        rank = self.value if count[-1] == self.element - self.first else NOWHERE
        return np.append(count, np.uint64(rank))


class SourceSequence(Sequence):
    """One copy out of the task's data, from the row that the sampler says, or out of the schedule's row `step`."""

    op: Source

    def operation(self, t: int, claimed: SequenceOf[int] = ()) -> Operation:
        if self.op.role == "scalar":
            return Operation(COPY, (Element(0, self.step * self.type.elements + self.element, raw=True),))
        inner = math.prod(self.type.shape[1:])
        number, rest = divmod(self.element, inner)
        epoch, position = divmod(self.step, self.op.rows // self.op.batch)
        (row,) = permute(np.array([position * self.op.batch + number]), self.op.rows, self.op.seed, epoch)
        return Operation(COPY, (Element(0, int(row) * inner + rest, raw=True),))

    def execute(self, t: int, code: int, operands: SequenceOf[int]) -> int:
        return operands[0]


_REDUCTIONS: dict[str, type[Sequence]] = {
    "sum": SumSequence, "max": ExtremeSequence, "min": ExtremeSequence, "argmax": ArgSequence, "argmin": ArgSequence,
}  # fmt: skip
_KINDS: dict[type, type[Sequence]] = {
    ops.Map: MapSequence, ops.Dot: DotSequence, ops.Gather: GatherSequence, ops.ScatterAdd: ScatterSequence,
    ops.Random: RandomSequence, ops.Sort: SortSequence, ops.Scan: ScanSequence, Source: SourceSequence,
}  # fmt: skip


def sequence(
    op: ops.Op | Source,
    reads: SequenceOf[TensorType],
    type: TensorType,
    scalar: ScalarProgram | None = None,
    output: int = 0,
    element: int = 0,
    value: int = 0,
    step: int = 0,
) -> Sequence:
    """The sequence of row-major element `element` of output number `output`, which has this type.

    `reads` are the types of the operand tensors; `scalar` the program of a map or scan; `value` the claimed stored bits
    (of a sort); `step` the step (of a source). Raises MalformedError where there is no sequence.
    """
    kind = _REDUCTIONS[ops.REDUCTIONS[op.op]] if isinstance(op, ops.Reduce) else None
    kind = kind or _KINDS.get(op.__class__, LayoutSequence)
    if not 0 <= element < type.elements:
        raise MalformedError(f"element {element} of {type}")
    return kind(op, reads, type, scalar, output, element, value, step)

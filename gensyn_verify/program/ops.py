"""The nine node kinds: `map dot reduce layout gather scatter_add random sort scan`. Attributes, and output types from
inputs.

Each class is one operation of a kind; `layout` has seven. Fields are integers, integer tuples, booleans and dtypes
only, so that one encoder serves all. `infer` recomputes the output types from the input types and raises
ProgramError where the inputs do not fit. What a kind computes is written in `gensyn_verify.backends.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gensyn_verify.errors import ProgramError
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, Shape, TensorType

Types = Sequence[TensorType]


def _arity(types: Types, n: int) -> None:
    if len(types) != n:
        raise ProgramError(f"{n} inputs expected, {len(types)} found")


def _index_type(t: TensorType) -> None:
    if t.dtype is not Dtype.i32:
        raise ProgramError(f"the index tensor must be i32, found {t}")


def broadcasts_to(source: Shape, target: Shape) -> bool:
    """NumPy's rule: aligned at the right, each source dimension equals the target's or is 1."""
    return len(source) <= len(target) and all(
        s in (1, t) for s, t in zip(reversed(source), reversed(target), strict=False)
    )


@dataclass(frozen=True)
class Op:
    """Base of all operations. `code` is the byte in canonical bytes."""

    kind: ClassVar[str]
    code: ClassVar[int]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        raise NotImplementedError


@dataclass(frozen=True)
class Map(Op):
    """Scalar program number `program` at every element of `shape`; inputs broadcast to it, outputs have `dtypes`."""

    kind: ClassVar[str] = "map"
    code: ClassVar[int] = 0
    program: int
    shape: tuple[int, ...]
    dtypes: tuple[Dtype, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        if not 0 <= self.program < len(scalar_programs):
            raise ProgramError(f"scalar program {self.program} does not exist; there are {len(scalar_programs)}")
        scalar = scalar_programs[self.program]
        _arity(types, len(scalar.inputs))
        for n, (t, reg) in enumerate(zip(types, scalar.inputs, strict=True)):
            if t.dtype.reg is not reg:
                raise ProgramError(f"input {n} is {t}, the scalar program expects {reg.name}")
            if not broadcasts_to(t.shape, self.shape):
                raise ProgramError(f"input {n} is {t}, which does not broadcast to {list(self.shape)}")
        if tuple(d.reg for d in self.dtypes) != scalar.output_types:
            raise ProgramError(
                f"output dtypes {[d.name for d in self.dtypes]} do not store {[r.name for r in scalar.output_types]}"
            )
        return tuple(TensorType(d, self.shape) for d in self.dtypes)


@dataclass(frozen=True)
class Dot(Op):
    """Batched matrix product [..., m, k] x [..., k, n], either side stored transposed.

    Batch dimensions are equal, or one operand is a plain matrix that serves every batch. Elements are floats; or, which
    is experimental, i8, whose products are summed exactly modulo 2^32 in i32.
    """

    kind: ClassVar[str] = "dot"
    code: ClassVar[int] = 1
    transpose_a: bool
    transpose_b: bool
    dtype: Dtype

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 2)
        a, b = types
        dtypes = (a.dtype, b.dtype, self.dtype)
        if not all(d.is_float for d in dtypes) and dtypes != (Dtype.i8, Dtype.i8, Dtype.i32):
            raise ProgramError(f"dot multiplies floats into floats, or i8 into i32; found {a}, {b}, {self.dtype.name}")
        if len(a.shape) < 2 or len(b.shape) < 2:
            raise ProgramError(f"dot takes matrices, found {a} and {b}")
        m, k = a.shape[:-3:-1] if self.transpose_a else a.shape[-2:]
        k2, n = b.shape[:-3:-1] if self.transpose_b else b.shape[-2:]
        if k != k2:
            raise ProgramError(f"inner dimensions differ: {k} of {a} against {k2} of {b}")
        batch_a, batch_b = a.shape[:-2], b.shape[:-2]
        if batch_a and batch_b and batch_a != batch_b:
            raise ProgramError(f"batch dimensions differ: {a} against {b}")
        return (TensorType(self.dtype, (*(batch_a or batch_b), m, n)),)


REDUCTIONS = ("sum", "max", "min", "argmax", "argmin")


@dataclass(frozen=True)
class Reduce(Op):
    """Reduction `REDUCTIONS[op]` over `axes` (ascending), which disappear from the shape.

    Values are taken in row-major order of the reduced axes. Sums have `dtype`; max and min keep the input's;
    argmax and argmin give the i32 position in that order.
    """

    kind: ClassVar[str] = "reduce"
    code: ClassVar[int] = 2
    op: int
    axes: tuple[int, ...]
    dtype: Dtype

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        (x,) = types
        if not 0 <= self.op < len(REDUCTIONS):
            raise ProgramError(f"reduction {self.op} is unknown; known are 0 to {len(REDUCTIONS) - 1}")
        name = REDUCTIONS[self.op]
        if list(self.axes) != sorted(set(self.axes)) or any(not 0 <= a < len(x.shape) for a in self.axes):
            raise ProgramError(f"axes {list(self.axes)} are not ascending axes of {x}")
        n = math.prod(x.shape[a] for a in self.axes)
        if x.dtype.reg is Reg.boolean:
            raise ProgramError(f"{name} takes numbers, found {x}")
        if name == "sum":
            if self.dtype.reg is not x.dtype.reg:
                raise ProgramError(f"sum of {x.dtype.name} cannot be stored as {self.dtype.name}")
        else:
            wanted = Dtype.i32 if name.startswith("arg") else x.dtype
            if self.dtype is not wanted:
                raise ProgramError(f"{name} of {x} gives {wanted.name}, found {self.dtype.name}")
            if n == 0:
                raise ProgramError(f"{name} over no values: {x} over axes {list(self.axes)}")
            if n > 1 << 31:
                raise ProgramError(f"{name} over {n} values; the limit is 2^31")
        return (TensorType(self.dtype, tuple(d for a, d in enumerate(x.shape) if a not in self.axes)),)


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under another shape."""

    kind: ClassVar[str] = "layout"
    code: ClassVar[int] = 3
    shape: tuple[int, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        out = TensorType(types[0].dtype, self.shape)
        out.check()
        if out.elements != types[0].elements:
            raise ProgramError(f"{types[0]} has {types[0].elements} elements, {list(self.shape)} has {out.elements}")
        return (out,)


@dataclass(frozen=True)
class Permute(Op):
    """out axis i is input axis `axes[i]`."""

    kind: ClassVar[str] = "layout"
    code: ClassVar[int] = 4
    axes: tuple[int, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        if sorted(self.axes) != list(range(len(types[0].shape))):
            raise ProgramError(f"axes {list(self.axes)} are no permutation of the axes of {types[0]}")
        return (TensorType(types[0].dtype, tuple(types[0].shape[a] for a in self.axes)),)


@dataclass(frozen=True)
class Slice(Op):
    """out[i] = input[start + i * step] on every axis; steps may be negative, never zero."""

    kind: ClassVar[str] = "layout"
    code: ClassVar[int] = 5
    start: tuple[int, ...]
    shape: tuple[int, ...]
    step: tuple[int, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        (x,) = types
        if not len(self.start) == len(self.shape) == len(self.step) == len(x.shape):
            raise ProgramError(f"start, shape and step need one number an axis of {x}")
        for axis, (d, first, n, step) in enumerate(zip(x.shape, self.start, self.shape, self.step, strict=True)):
            last = first + (n - 1) * step
            if step == 0 or n < 0 or (n > 0 and not (0 <= first < d and 0 <= last < d)):
                raise ProgramError(f"axis {axis} of {x}: start {first}, {n} elements, step {step} leave the tensor")
            if n == 0 and (first, step) != (0, 1):
                raise ProgramError(f"axis {axis}: an empty slice is written as start 0, step 1")
        return (TensorType(x.dtype, self.shape),)


@dataclass(frozen=True)
class Pad(Op):
    """`low` and `high` fill elements around each axis and `interior` ones between neighbours.

    `fill` holds the bits of one element of the dtype.
    """

    kind: ClassVar[str] = "layout"
    code: ClassVar[int] = 6
    low: tuple[int, ...]
    high: tuple[int, ...]
    interior: tuple[int, ...]
    fill: int

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        (x,) = types
        if not len(self.low) == len(self.high) == len(self.interior) == len(x.shape):
            raise ProgramError(f"low, high and interior need one number an axis of {x}")
        if min((*self.low, *self.high, *self.interior), default=0) < 0:
            raise ProgramError("padding is negative; use a slice to cut")
        if not 0 <= self.fill < 1 << (8 * x.dtype.size) or (x.dtype is Dtype.boolean and self.fill > 1):
            raise ProgramError(f"fill {self.fill:#x} is no bit pattern of {x.dtype.name}")
        shape = tuple(
            lo + d + max(d - 1, 0) * gap + hi
            for d, lo, hi, gap in zip(x.shape, self.low, self.high, self.interior, strict=True)
        )
        return (TensorType(x.dtype, shape),)


@dataclass(frozen=True)
class Concat(Op):
    """Inputs one after the other along `axis`."""

    kind: ClassVar[str] = "layout"
    code: ClassVar[int] = 7
    axis: int

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        if not types:
            raise ProgramError("concat of nothing")
        first = types[0]
        if not 0 <= self.axis < len(first.shape):
            raise ProgramError(f"axis {self.axis} is no axis of {first}")

        def rest(t: TensorType) -> Shape:
            return t.shape[: self.axis] + t.shape[self.axis + 1 :]

        for t in types:
            if t.dtype is not first.dtype or len(t.shape) != len(first.shape) or rest(t) != rest(first):
                raise ProgramError(f"{t} does not fit {first} along axis {self.axis}")
        length = sum(t.shape[self.axis] for t in types)
        return (TensorType(first.dtype, (*first.shape[: self.axis], length, *first.shape[self.axis + 1 :])),)


@dataclass(frozen=True)
class Broadcast(Op):
    """The input repeated to `shape` by NumPy's rule."""

    kind: ClassVar[str] = "layout"
    code: ClassVar[int] = 8
    shape: tuple[int, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        if not broadcasts_to(types[0].shape, self.shape):
            raise ProgramError(f"{types[0]} does not broadcast to {list(self.shape)}")
        return (TensorType(types[0].dtype, self.shape),)


@dataclass(frozen=True)
class Window(Op):
    """All windows over the last len(size) axes: [..., S1..Sd] -> [..., size1..sized, O1..Od] (im2col).

    out[..., k, o] = input[..., o * stride + k * dilation]; there is no padding here, `Pad` does that.
    """

    kind: ClassVar[str] = "layout"
    code: ClassVar[int] = 9
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        (x,) = types
        d = len(self.size)
        if not (1 <= d == len(self.stride) == len(self.dilation) <= len(x.shape)):
            raise ProgramError(f"size, stride and dilation need equal lengths, at most the rank of {x}")
        if min((*self.size, *self.stride, *self.dilation)) < 1:
            raise ProgramError("window sizes, strides and dilations are at least 1")
        lead, spatial = x.shape[: len(x.shape) - d], x.shape[len(x.shape) - d :]
        out = tuple(
            (s - (k - 1) * dil - 1) // stride + 1
            for s, k, stride, dil in zip(spatial, self.size, self.stride, self.dilation, strict=True)
        )
        if min(out) < 1:
            raise ProgramError(f"a window of {list(self.size)} does not fit into {x}")
        return (TensorType(x.dtype, (*lead, *self.size, *out)),)


@dataclass(frozen=True)
class Gather(Op):
    """Rows of `data` [v, ...] at `index` [...]: out[i, ...] = data[index[i], ...].

    An index outside 0 to v-1 gives canonical NaN for floats and 0 for the rest: defined, and loud in a loss.
    """

    kind: ClassVar[str] = "gather"
    code: ClassVar[int] = 10

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 2)
        data, index = types
        _index_type(index)
        if not data.shape:
            raise ProgramError("gather from a scalar")
        return (TensorType(data.dtype, (*index.shape, *data.shape[1:])),)


@dataclass(frozen=True)
class ScatterAdd(Op):
    """The transpose of `Gather`: source rows [*index, ...] added into `rows` rows of +0, ascending source order.

    An index outside 0 to rows-1 adds nothing. Sums of floats are kept in f32 and stored once as `dtype`.
    """

    kind: ClassVar[str] = "scatter_add"
    code: ClassVar[int] = 11
    rows: int
    dtype: Dtype

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 2)
        source, index = types
        _index_type(index)
        n = len(index.shape)
        if source.shape[:n] != index.shape:
            raise ProgramError(f"source {source} does not start with the shape of the index {index}")
        if source.dtype.reg is Reg.boolean or self.dtype.reg is not source.dtype.reg:
            raise ProgramError(f"cannot add {source.dtype.name} into {self.dtype.name}")
        if self.rows < 0:
            raise ProgramError(f"{self.rows} rows")
        return (TensorType(self.dtype, (self.rows, *source.shape[n:])),)


@dataclass(frozen=True)
class Random(Op):
    """u32 words of Philox4x32-10 from inputs seed u32[2] and step u32[].

    Element e is word e mod 4 of the block at counter (e div 4 low, e div 4 high, stream, step) under key = seed.
    `stream` is unique among the random nodes of a program, so no two draw the same numbers.
    """

    kind: ClassVar[str] = "random"
    code: ClassVar[int] = 12
    stream: int
    shape: tuple[int, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 2)
        if types[0] != TensorType(Dtype.u32, (2,)) or types[1] != TensorType(Dtype.u32, ()):
            raise ProgramError(f"random takes a seed u32[2] and a step u32[], found {types[0]} and {types[1]}")
        if not 0 <= self.stream < 1 << 32:
            raise ProgramError(f"stream {self.stream} is no u32")
        return (TensorType(Dtype.u32, self.shape),)


@dataclass(frozen=True)
class Sort(Op):
    """The i32 positions that put each row of the last axis in ascending order; equal elements keep their order.

    NaN comes last, and -0 equals +0.
    """

    kind: ClassVar[str] = "sort"
    code: ClassVar[int] = 13

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        _arity(types, 1)
        (x,) = types
        if not x.shape:
            raise ProgramError("sort of a scalar")
        if x.dtype.reg is Reg.boolean:
            raise ProgramError(f"sort takes numbers, found {x}")
        if x.shape[-1] > 1 << 31:
            raise ProgramError(f"sort of {x.shape[-1]} values; the limit is 2^31")
        return (TensorType(Dtype.i32, x.shape),)


@dataclass(frozen=True)
class Scan(Op):
    """Scalar program number `program` along the first axis of `shape`, fed with its own last results.

    Inputs are one initial tensor an output, broadcast to the shape without its first axis, then tensors that broadcast
    to `shape`. Position t of the outputs is the program of position t - 1 of the outputs, as they are stored, and
    position t of the tensors; at t = 0 the initial tensors take the outputs' place.
    """

    kind: ClassVar[str] = "scan"
    code: ClassVar[int] = 14
    program: int
    shape: tuple[int, ...]
    dtypes: tuple[Dtype, ...]

    def infer(self, types: Types, scalar_programs: Sequence[ScalarProgram]) -> tuple[TensorType, ...]:
        if not self.shape:
            raise ProgramError("scan over a scalar")
        carried = types[: len(self.dtypes)]
        for n, (t, dtype) in enumerate(zip(carried, self.dtypes, strict=False)):
            if t.dtype is not dtype:
                raise ProgramError(f"input {n} is {t}, the output that it begins is {dtype.name}")
            if not broadcasts_to(t.shape, self.shape[1:]):
                raise ProgramError(f"input {n} is {t}, which does not broadcast to {list(self.shape[1:])}")
        outputs = Map(self.program, self.shape, self.dtypes).infer(types, scalar_programs)
        if len(carried) < len(outputs):
            raise ProgramError(f"{len(outputs)} outputs begin with as many inputs, found {len(types)}")
        return outputs


OPS: tuple[type[Op], ...] = (
    Map, Dot, Reduce, Reshape, Permute, Slice, Pad, Concat, Broadcast, Window, Gather, ScatterAdd, Random, Sort, Scan,
)  # fmt: skip
KINDS = ("map", "dot", "reduce", "layout", "gather", "scatter_add", "random", "sort", "scan")

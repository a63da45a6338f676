"""A program as calls on one arena, planned natively (csrc/executor.cpp), for devices to launch.

Tensors are byte offsets into the arena; strides count elements. What is a view in the program is a view here: no call
moves bytes that a kernel can read where they lie. Calls run one after the other, and may read what earlier ones wrote.
The orders of accumulation are those of docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gensyn_verify import _native
from gensyn_verify.program.encoding import encode
from gensyn_verify.program.program import Program
from gensyn_verify.program.types import Dtype, Shape

ALIGN = 64  # of every tensor that is not a view, in bytes
OUTSIDE = {Dtype.f32: 0x7FC00000, Dtype.bf16: 0x7FC0, Dtype.f16: 0x7E00}  # what a gather gives for a bad index; else 0


@dataclass(frozen=True)
class View:
    """A strided tensor of a shape that the call states."""

    offset: int
    dtype: Dtype
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Operand:
    """A tensor of a kernel: strides, in elements, over the kernel's shape; `step` along a scan's first axis."""

    dtype: Dtype
    strides: tuple[int, ...]
    step: int = 0


@dataclass(frozen=True)
class Place:
    """Where a value lies."""

    offset: int
    dtype: Dtype
    shape: Shape
    strides: tuple[int, ...]

    @property
    def span(self) -> tuple[int, int]:
        """First and last byte + 1 that its elements touch."""
        reach = [(d - 1) * s * self.dtype.size for d, s in zip(self.shape, self.strides, strict=True)]
        if 0 in self.shape:
            return self.offset, self.offset
        return self.offset + sum(min(r, 0) for r in reach), self.offset + sum(
            max(r, 0) for r in reach
        ) + self.dtype.size


@dataclass(frozen=True)
class Map:
    """Scalar program number `program` on every element of `shape`; the outputs are contiguous.

    An output may lie over an input of its type that is read unbroadcast.
    """

    program: int
    shape: Shape
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]


@dataclass(frozen=True)
class Scan:
    """A map for every position of the first axis of `shape`, after each other.

    The first inputs, one an output, have the shape without that axis and begin the outputs; later positions read the
    outputs of the position before in their place.
    """

    program: int
    shape: Shape
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]


@dataclass(frozen=True)
class Dot:
    """c[s, i, j] = the blocked chain over k of a[s, i, k] * b[s, k, j]; c contiguous.

    a is stored [m, k] or, transposed, [k, m]; b [k, n] or [n, k]; a batch stride (elements) of 0 reuses one matrix.
    """

    batch: int
    m: int
    n: int
    k: int
    a: int
    b: int
    c: int
    a_batch_stride: int
    b_batch_stride: int
    a_dtype: Dtype
    b_dtype: Dtype
    c_dtype: Dtype
    transpose_a: bool
    transpose_b: bool


@dataclass(frozen=True)
class Reduce:
    """y[kept, row-major] = reduction number `op` (`ops.REDUCTIONS`), in row-major order of the reduced axes, of x."""

    op: int
    kept_shape: Shape
    kept_strides: tuple[int, ...]
    reduced_shape: Shape
    reduced_strides: tuple[int, ...]
    x: int
    x_dtype: Dtype
    y: int
    y_dtype: Dtype


@dataclass(frozen=True)
class Copy:
    """target[i . target_strides] = source[i . source_strides] for i in shape; elements of `size` bytes."""

    size: int
    shape: Shape
    source_strides: tuple[int, ...]
    target_strides: tuple[int, ...]
    source: int
    target: int


@dataclass(frozen=True)
class Fill:
    """`count` elements of `size` bytes."""

    size: int
    bits: int
    count: int
    target: int


@dataclass(frozen=True)
class Gather:
    """out[i, :] = data[index[i], :]; an index outside of the rows gives canonical NaN, or 0."""

    data: int
    index: int
    out: int
    rows: int
    row: int
    count: int
    dtype: Dtype


@dataclass(frozen=True)
class ScatterAdd:
    """out[index[i], :] += source[i, :] for ascending i, from +0, in registers; an index outside adds nothing."""

    source: int
    index: int
    out: int
    rows: int
    row: int
    count: int
    source_dtype: Dtype
    out_dtype: Dtype


@dataclass(frozen=True)
class Random:
    """Words of Philox4x32-10; seed (2 words) and step (1) lie in the arena."""

    seed: int
    step: int
    stream: int
    count: int
    out: int


@dataclass(frozen=True)
class Sort:
    """out[r, k] = position of the k-th of the `row` elements x[r, :]; stable, NaN last."""

    x: int
    dtype: Dtype
    out: int
    rows: int
    row: int


Call = Map | Scan | Dot | Reduce | Copy | Fill | Gather | ScatterAdd | Random | Sort


@dataclass(frozen=True)
class Private:
    """A value of a region that nothing outside reads. Its offsets, `nbytes` from `offset` on, lie beyond the arena.

    It has memory only for the rows at work: a row of it, `row_bytes`, lies at `scratch` of that row's scratch memory.
    """

    offset: int
    nbytes: int
    row_bytes: int
    scratch: int


@dataclass(frozen=True)
class Rows:
    """Maps and reductions (sum, max, min) whose outputs have `rows` rows each, as one kernel.

    Row r of any of them depends on row r alone of what others of them compute; a reduction gives one value a row.
    """

    rows: int
    scratch_bytes: int  # of a row's private values
    private: tuple[Private, ...]
    calls: tuple[Map | Reduce, ...]


@dataclass(frozen=True)
class Epilogue:
    """A dot of f32 and maps of as many elements, each of which reads of these values the same element alone.

    A map's input at an offset where the dot or a map before it writes is that value, contiguous.
    """

    dot: Dot
    maps: tuple[Map, ...]
    private: tuple[Private, ...]


Region = Rows | Epilogue


def reads(call: Map | Reduce) -> list[tuple[Shape, View]]:
    """What a call reads, each as a view of a shape; a reduction's begins with the axes that it keeps."""
    if isinstance(call, Map):
        return [(call.shape, view) for view in call.inputs]
    view = View(call.x, call.x_dtype, (*call.kept_strides, *call.reduced_strides))
    return [((*call.kept_shape, *call.reduced_shape), view)]


def private_at(region: Region, offset: int) -> Private | None:
    return next((p for p in region.private if p.offset <= offset < p.offset + p.nbytes), None)


@dataclass(frozen=True)
class Plan:
    """`inputs` by number of the program input, `states` and `metrics` in the order of the outputs of that role.

    A state lies at its place in `states` before the calls and after them. `values` are readable after the calls only
    if the plan keeps them.
    """

    program: Program
    arena_bytes: int
    calls: tuple[Call | Region, ...]
    inputs: tuple[Place, ...]
    states: tuple[Place, ...]
    metrics: tuple[Place, ...]
    values: tuple[Place, ...]

    @property
    def plain(self) -> tuple[Call, ...]:
        """The calls of a plan without regions."""
        plain = tuple(c for c in self.calls if not isinstance(c, Region))
        assert len(plain) == len(self.calls), "a plan with regions, for a machine without kernels for them"
        return plain


_DTYPE = {d.code: d for d in Dtype}
# The class of every kind, and which arguments are codes of dtypes.
_MAKE: dict[str, tuple[Callable[..., Call], tuple[int, ...]]] = {
    "map": (lambda program, shape, inputs, outputs: Map(program, shape, _views(inputs), _views(outputs)), ()),
    "scan": (lambda program, shape, inputs, outputs: Scan(program, shape, _views(inputs), _views(outputs)), ()),
    "dot": (Dot, (9, 10, 11)),
    "reduce": (Reduce, (6, 8)),
    "copy": (Copy, ()),
    "fill": (Fill, ()),
    "gather": (Gather, (6,)),
    "scatter_add": (ScatterAdd, (6, 7)),
    "random": (Random, ()),
    "sort": (Sort, (1,)),
}


def _call(kind: str, *args: Any) -> Call:
    make, dtypes = _MAKE[kind]
    return make(*(_DTYPE[a] if i in dtypes else a for i, a in enumerate(args)))


def _views(told: tuple[tuple[int, int, tuple[int, ...]], ...]) -> tuple[View, ...]:
    return tuple(View(offset, _DTYPE[dtype], strides) for offset, dtype, strides in told)


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[Shape, list[tuple[int, ...]]]:
    """The same walk with as few axes as possible, at least one, through tensors of these strides.

    Axes of length 1 are left out, and neighbours that every tensor steps through evenly become one.
    """
    merged: list[tuple[int, list[int]]] = []
    for axis, d in enumerate(shape):
        steps = [s[axis] for s in strides]
        if d == 1:
            continue
        if merged and all(outer == inner * d for outer, inner in zip(merged[-1][1], steps, strict=True)):
            merged[-1] = (merged[-1][0] * d, steps)
        else:
            merged.append((d, steps))
    merged = merged or [(1, [0] * len(strides))]
    return tuple(d for d, _ in merged), [tuple(steps[t] for _, steps in merged) for t in range(len(strides))]


def _gathered(told: Sequence[tuple[Any, ...]]) -> tuple[Call | Region, ...]:
    """The calls that were told, those of a region as one."""
    found: list[Call | Region] = []
    inside: list[Any] | None = None
    for kind, *args in told:
        if kind == "begin_region":
            (rows, scratch_bytes, values), inside = args, []
        elif kind == "end_region":
            assert inside is not None
            private = tuple(Private(*p) for p in values)
            if isinstance(inside[0], Dot):
                found.append(Epilogue(inside[0], tuple(inside[1:]), private))
            else:
                found.append(Rows(rows, scratch_bytes, private, tuple(inside)))
            inside = None
        else:
            (found if inside is None else inside).append(_call(kind, *args))
    return tuple(found)


def make_plan(program: Program, keep: bool = False, regions: bool = False) -> Plan:
    """The plan of one step, with regions if the device has kernels for them.

    With `keep` every value, the next state too, has memory of its own, and there are no regions.
    """
    arena_bytes, told, *places = _native.device_plan(encode(program), keep, regions)
    values, states, metrics = ([Place(o, _DTYPE[d], shape, s) for o, d, shape, s in p] for p in places)
    return Plan(
        program, arena_bytes, _gathered(told), tuple(values[: len(program.inputs)]),
        tuple(states), tuple(metrics), tuple(values),
    )  # fmt: skip

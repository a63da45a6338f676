"""Rows of a plan (softmax, layer norm, losses and their gradients) as the source of one Triton kernel.

A program has a block of rows. What one call hands to the next is not kept: every reduction, in a loop over its row, and
every store computes anew what it needs of a row, from what lies outside and from the row's reductions before it. So
values that nothing else reads take no memory at all. What is stored in fewer bits is rounded where it is computed.

Sums of floats are those of triton_reduce: 64 lanes from -0, segments of 2,048 values, the segments' sums by the same
rule. No call writes what another one of the same rows reads from outside, so stores may come last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gensyn_verify.backends.device.plan import Map, Operand, Reduce, Rows, View, collapse, private_at, reads
from gensyn_verify.kernels import triton_map, triton_reduce, triton_scalar
from gensyn_verify.program.ops import REDUCTIONS
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, Shape

LANES = triton_reduce.LANES
BLOCK_ROWS = 8  # rows a program, at most
BLOCK_ELEMENTS = 1024  # the same where a row is one element
PROGRAMS = 512  # wanted before one has several rows
MOST_INSTRUCTIONS = 4096  # of scalar programs, in a kernel
OPERATIONS_A_VALUE = 32  # that a GPU computes while a value goes to memory or comes from it
UNROLLED = 4  # rounds of the lanes whose values may be loaded together


@dataclass(frozen=True)
class RowsKernel:
    """kernel(*pointers to `views`, rows, ROWS) with ROWS = `block` rows a program."""

    source: str
    views: tuple[View, ...]
    block: int
    fuses: bool

    @cached_property
    def kernel(self) -> Any:
        return triton_map.compile_source(self.source, triton_scalar, triton_reduce)


class _NoKernelError(Exception):
    """The calls do not make one kernel."""


def rows_kernel(call: Rows, programs: Sequence[ScalarProgram]) -> RowsKernel | None:
    """None if the calls have to run one after the other.

    They have to if one reads of its row what another computed at another place, or if computing values anew would take
    longer than storing them.
    """
    try:
        return _Writer(call, programs).write()
    except _NoKernelError:
        return None


@dataclass(frozen=True)
class _Value:
    """An output of call number `call`: `length` elements a row, from `offset` on."""

    call: int
    output: int
    offset: int
    nbytes: int
    dtype: Dtype
    length: int


@dataclass
class _Block:
    """Code for a row (`length` 1), or for 64 positions of one."""

    length: int
    lines: list[str] = field(default_factory=list)
    loaded: dict[str, str] = field(default_factory=dict)  # what is loaded: its name
    computed: dict[int, list[str]] = field(default_factory=dict)  # call: names of its outputs


class _Writer:
    def __init__(self, call: Rows, programs: Sequence[ScalarProgram]) -> None:
        self.call, self.programs = call, programs
        self.pointers: dict[View, str] = {}
        self.values: list[_Value] = []
        self.row = _Block(1)
        self.names = self.instructions = 0
        self.operations = self.moved = 0  # of a row: operations; values that memory does not see

    def write(self) -> RowsKernel:
        once = 0
        for number, one in enumerate(self.call.calls):
            if isinstance(one, Map):
                length = math.prod(one.shape) // self.call.rows
                once += len(self.programs[one.program].code) * length
                self.values += [self.value(number, i, v.offset, v.dtype, length) for i, v in enumerate(one.outputs)]
                if length == 1:
                    self.compute(self.row, number)
            else:
                self.row.computed[number] = [self.reduce(one)]
                self.values.append(self.value(number, 0, one.y, one.y_dtype, 1))
        for length in sorted({v.length for v in self.kept}):
            self.store(length)
        self.moved += sum(v.length for v in self.values if v not in self.kept)
        if self.operations - once > OPERATIONS_A_VALUE * self.moved:
            raise _NoKernelError
        fuses = any(triton_map.fuses(self.programs[one.program]) for one in self.call.calls if isinstance(one, Map))
        return RowsKernel(self.source(), tuple(self.pointers), self.block(), fuses)

    def value(self, call: int, output: int, offset: int, dtype: Dtype, length: int) -> _Value:
        return _Value(call, output, offset, self.call.rows * length * dtype.size, dtype, length)

    @property
    def kept(self) -> list[_Value]:
        return [v for v in self.values if private_at(self.call, v.offset) is None]

    def block(self) -> int:
        """Rows a program, a power of two."""
        elements = all(isinstance(one, Map) for one in self.call.calls) and all(v.length == 1 for v in self.values)
        most, wanted = (BLOCK_ELEMENTS, self.call.rows) if elements else (BLOCK_ROWS, self.call.rows // PROGRAMS)
        return min(most, 1 << max(wanted - 1, 0).bit_length())

    def source(self) -> str:
        read = [(shape, [view.strides]) for one in self.call.calls for shape, view in reads(one)]
        widest = (self.call.rows, max(v.length for v in self.values))
        wide = any(triton_map.is_wide(shape, strides) for shape, strides in [*read, (widest, [])])
        pid = "tl.program_id(0).to(tl.int64)" if wide else "tl.program_id(0)"
        head = [
            f"def kernel({', '.join(self.pointers.values())}, rows, ROWS: tl.constexpr):",
            f"    row = ({pid} * ROWS + tl.arange(0, ROWS))[:, None]",
            "    inside = row < rows",
            f"    lane = tl.arange(0, {LANES})[None, :]",
        ]
        return "\n".join([*head, *(f"    {line}" for line in self.row.lines)]) + "\n"

    def name(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def pointer(self, offset: int, dtype: Dtype) -> str:
        return self.pointers.setdefault(View(offset, dtype, ()), f"x{len(self.pointers)}")

    # ---- values

    def read(self, block: _Block, shape: Shape, view: View) -> str:
        """The name of the elements of a view, computed in the block or before it, or loaded."""
        value = next((v for v in self.values if v.offset <= view.offset < v.offset + v.nbytes), None)
        if value is None:
            return self.load(block, shape, view)
        _, (strides,) = collapse(shape, [view.strides])
        same = value.length == block.length and strides == (1,)
        of_row = value.length == 1 and strides == (1, 0)
        if view.offset != value.offset or not (same or of_row):
            raise _NoKernelError
        if value.length == 1:
            return self.row.computed[value.call][value.output]
        self.moved += value.length
        return self.compute(block, value.call)[value.output]

    def load(self, block: _Block, shape: Shape, view: View) -> str:
        strides = view.strides
        lead = next(n for n in range(len(shape) + 1) if math.prod(shape[:n]) == self.call.rows)
        if not any(s for s, d in zip(strides[lead:], shape[lead:], strict=True) if d > 1):  # the same in all of a row
            block, shape, strides = self.row, shape[:lead], strides[:lead]
        shape, (strides,) = collapse(shape, [strides])
        place = self.pointer(view.offset, view.dtype)
        e, inside = ("row", "inside") if block.length == 1 else ("e", "there")
        text = triton_map.load_text(place, Operand(view.dtype, strides), (0, *shape[1:]), e=e, inside=inside)
        if text not in block.loaded:
            block.loaded[text] = self.name()
            block.lines.append(f"{block.loaded[text]} = {text}")
        return block.loaded[text]

    def compute(self, block: _Block, number: int) -> list[str]:
        """The names of a map's outputs in a block."""
        if number not in block.computed:
            one = self.call.calls[number]
            assert isinstance(one, Map)
            scalar = self.programs[one.program]
            self.instructions += len(scalar.code)
            self.operations += len(scalar.code) * block.length
            if self.instructions > MOST_INSTRUCTIONS:
                raise _NoKernelError
            inputs = [self.read(block, shape, view) for shape, view in reads(one)]
            name = self.name()
            block.lines += [f"{name}_{i} = {x}" for i, x in enumerate(inputs)]
            block.lines += triton_map.program_lines(scalar, f"{name}_")
            for i, (v, view) in enumerate(zip(scalar.outputs, one.outputs, strict=True)):
                block.lines.append(f"{name}y{i} = {triton_map.stored_text(f'{name}_{v}', view.dtype)}")
            block.computed[number] = [f"{name}y{i}" for i in range(len(one.outputs))]
        return block.computed[number]

    # ---- walks along rows

    def walk(self, block: _Block, rounds: str, start: str) -> list[str]:
        """The lines of a block, for 64 positions at a time from `start` on."""
        unrolled = f", loop_unroll_factor={UNROLLED}" if block.length >= UNROLLED * LANES else ""
        return [
            f"for i in tl.range(0, {rounds}{unrolled}):",
            f"    p = {start}i * {LANES} + lane",
            f"    there = inside & (p < {block.length})",
            f"    e = row * {block.length} + p",
            *(f"    {line}" for line in block.lines),
        ]

    def reduce(self, one: Reduce) -> str:
        """The name of a reduction's value of the row."""
        op, reg, length = REDUCTIONS[one.op], one.x_dtype.reg.name, math.prod(one.reduced_shape)
        block = _Block(length) if length > 1 else self.row
        x, result, lines = self.read(block, *reads(one)[0]), self.name(), self.row.lines
        if length == 1:  # -0 and the only value, or the largest of one
            lines.append(f"{result} = {triton_map.stored_text(x, one.y_dtype)}")
            return result
        lanes, sums, none = f"{result}_lanes", f"{result}_sums", f'nothing(ROWS, "{op}", "{reg}")'
        block.lines.append(f'{lanes} = join({lanes}, tl.where(there, enter({x}, p, "{op}"), {none}), "{op}")')
        segment, rounds = triton_reduce.SEGMENT, -(-length // LANES)
        segments = -(-length // segment) if (op, reg) == ("sum", Reg.f32.name) else 1
        if segments == 1:
            lines += [f"{lanes} = {none}", *self.walk(block, str(rounds), "")]
        elif segments <= LANES:
            most = segment // LANES
            walk = self.walk(block, f"min({most}, {rounds} - s * {most})", f"s * {segment} + ")
            lines += [f"{sums} = {none}", f"for s in range(0, {segments}):", f"    {lanes} = {none}"]
            lines += [f"    {line}" for line in walk]
            lines.append(f'    {sums} = tl.where(lane == s, fold({lanes}, "{op}", ROWS)[:, None], {sums})')
        else:
            raise _NoKernelError
        last = lanes if segments == 1 else sums
        lines.append(f'{result}_all = leave(fold({last}, "{op}", ROWS), "{op}", "{reg}")[:, None]')
        lines.append(f"{result} = {triton_map.stored_text(f'{result}_all', one.y_dtype)}")
        return result

    def store(self, length: int) -> None:
        """All that is stored of values with so many elements a row."""
        block = _Block(length) if length > 1 else self.row
        e, inside = ("e", "there") if length > 1 else ("row", "inside")
        for v in self.kept:
            if v.length != length:
                continue
            name = self.row.computed[v.call] if length == 1 else self.compute(block, v.call)
            place = self.pointer(v.offset, v.dtype)
            block.lines.append(f'tl.store({place} + {e}, narrow({name[v.output]}, "{v.dtype.name}"), mask={inside})')
        if length > 1:
            self.row.lines += self.walk(block, str(-(-length // LANES)), "")

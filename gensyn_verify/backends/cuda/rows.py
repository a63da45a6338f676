"""PTX of rows: maps and reductions along rows, softmax and layer norm for instance, as one kernel.

A team of threads has a row: one thread where a row is one element, a warp, or, where rows are long, a thread block. It
walks through the row for one call after the other, and waits for itself where a call reads of its row what another
thread of the team wrote. Values that nothing else reads lie in shared memory. Sums are those of
csrc/cuda/reduce.cu: 64 lanes, two a thread of a warp, and segments of 2,048 values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gensyn_verify.backends.cuda.ptx import (
    THREADS,
    Body,
    Kernel,
    address,
    apply,
    compute,
    digest,
    index,
    load,
    parameter,
    store,
)
from gensyn_verify.backends.device.plan import Map, Private, Reduce, Rows, collapse, private_at, reads
from gensyn_verify.program.ops import REDUCTIONS
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype, Reg

LANES, SEGMENT = 64, 2048  # of a sum
SHARED = 48 << 10  # bytes that every GPU gives a thread block
_WARP_ROW = 2048  # values of the longest row that a warp takes
_PARTIAL = 32  # values that the warps of a team hand to each other
_AHEAD = 4  # rounds of the lanes whose values a thread reads before it adds them
_IDENTITY = {
    ("sum", Reg.f32): 0x80000000, ("max", Reg.f32): 0xFF800000, ("min", Reg.f32): 0x7F800000,
    ("max", Reg.i32): 0x80000000, ("min", Reg.i32): 0x7FFFFFFF, ("min", Reg.u32): 0xFFFFFFFF,
}  # fmt: skip


def views(call: Rows) -> list[int]:
    """The offsets in the arena whose addresses the kernel takes as parameters."""
    found: list[int] = []
    for one in call.calls:
        found += [*(v.offset for _, v in reads(one)), *(begin for begin, *_ in _written(one))]
    return [offset for offset in dict.fromkeys(found) if private_at(call, offset) is None]


def rows_kernel(call: Rows, programs: Sequence[ScalarProgram], multiprocessors: int) -> Kernel:
    """Parameters are the addresses of `views`. Few rows are spread over all multiprocessors."""
    return _Writer(call, programs, multiprocessors).write()


def _length(call: Map | Reduce, rows: int) -> int:
    return math.prod(call.shape) // rows if isinstance(call, Map) else math.prod(call.reduced_shape)


def _written(call: Map | Reduce) -> list[tuple[int, int, bool]]:
    """Where the outputs of a call begin and end, and whether each thread wrote the elements that it walks along."""
    if isinstance(call, Reduce):
        return [(call.y, call.y + math.prod(call.kept_shape) * call.y_dtype.size, False)]
    count = math.prod(call.shape)
    return [(v.offset, v.offset + count * v.dtype.size, True) for v in call.outputs]


def _read(call: Map | Reduce) -> list[tuple[int, bool]]:
    """Where the inputs of a call begin, and whether they are read in the order in which they lie."""
    return [(v.offset, collapse(shape, [v.strides])[1] == [(1,)]) for shape, v in reads(call)]


class _Writer:
    def __init__(self, call: Rows, programs: Sequence[ScalarProgram], multiprocessors: int) -> None:
        self.call, self.programs = call, programs
        longest = max(_length(c, call.rows) for c in call.calls)
        reduces = any(isinstance(c, Reduce) for c in call.calls)
        self.team = 1 if longest == 1 and not reduces else 32 if longest <= _WARP_ROW else THREADS
        # Rows of a thread block: as many as its threads and its shared memory have room for, and a whole warp of them.
        room = min(THREADS // self.team, (SHARED - 4 * _PARTIAL) // max(call.scratch_bytes, 1))
        self.slots = max(1, min(room, max(call.rows // multiprocessors, 32 // self.team)))
        self.body = Body()
        self.labels = 0

    def write(self) -> Kernel:
        body, call = self.body, self.call
        thread, slot, group, beyond = body.new("r"), body.new("r"), body.new("r"), body.new("p")
        self.row, self.lane = body.new("d"), body.new("r")
        shift = self.team.bit_length() - 1
        body.add(f"mov.u32 {thread}, %tid.x; mov.u32 {group}, %ctaid.x")
        body.add(f"and.b32 {self.lane}, {thread}, {self.team - 1}; shr.u32 {slot}, {thread}, {shift}")
        body.add(f"mul.wide.u32 {self.row}, {group}, {self.slots}")
        wide = body.new("d")
        body.add(f"cvt.u64.u32 {wide}, {slot}; add.u64 {self.row}, {self.row}, {wide}")
        body.add(f"setp.ge.u64 {beyond}, {self.row}, {call.rows}; @{beyond} bra DONE")
        self.bases = {offset: parameter(body, f"p{n}") for n, offset in enumerate(views(call))}
        self.place_private(slot)
        since: list[Map | Reduce] = []  # the last time that the team waited
        for one in call.calls:
            if any(self.crosses(before, one) for before in since):
                self.wait()
                since = []
            since.append(one)
            if isinstance(one, Map):
                self.map(one)
            else:
                self.reduce(one)
        body.label("DONE")
        body.add("ret")
        name = f"gv_rows_{digest(body.text('', len(self.bases)))}"
        shared = self.slots * call.scratch_bytes + 4 * _PARTIAL
        text = body.text(name, len(self.bases))
        return Kernel(name, text, -(-call.rows // self.slots), self.slots * self.team, shared)

    def place_private(self, slot: str) -> None:
        """For every private value where its row 0 would lie in shared memory if all rows did."""
        body, call = self.body, self.call
        start, row, self.partial = body.new("r"), body.new("r"), body.new("r")
        body.add(f"mov.u32 {self.partial}, gv_shared; cvt.u32.u64 {row}, {self.row}")
        body.add(f"mul.lo.u32 {start}, {slot}, {call.scratch_bytes}; add.u32 {start}, {start}, {self.partial}")
        body.add(f"add.u32 {start}, {start}, {4 * _PARTIAL}")
        self.scratch: dict[Private, str] = {}
        for p in call.private:
            at, before = body.new("r"), body.new("r")
            body.add(f"mul.lo.u32 {before}, {row}, {p.row_bytes}; sub.u32 {at}, {start}, {before}")
            body.add(f"add.u32 {at}, {at}, {p.scratch}")
            self.scratch[p] = at

    def address(self, offset: int, dtype: Dtype, place: str) -> tuple[str, str]:
        """The space and the address of the element at `place`, b64, of the tensor at `offset`."""
        body, p = self.body, private_at(self.call, offset)
        if p is None:
            return "global", address(body, dtype, self.bases[offset], place)
        at = body.new("r")
        body.add(f"cvt.u32.u64 {at}, {place}; shl.b32 {at}, {at}, {dtype.size.bit_length() - 1}")
        body.add(f"add.u32 {at}, {at}, {self.scratch[p]}")
        if offset > p.offset:
            body.add(f"add.u32 {at}, {at}, {offset - p.offset}")
        return "shared", at

    def load(self, offset: int, dtype: Dtype, place: str) -> str:
        space, at = self.address(offset, dtype, place)
        return load(self.body, dtype, at, space)

    def store(self, offset: int, dtype: Dtype, place: str, value: str) -> None:
        space, at = self.address(offset, dtype, place)
        store(self.body, dtype, at, value, space)

    def label(self) -> str:
        self.labels += 1
        return f"L{self.labels}"

    def wait(self) -> None:
        if self.team > 1:
            self.body.add("bar.warp.sync -1" if self.team == 32 else "bar.sync 0")

    def crosses(self, before: Map | Reduce, call: Map | Reduce) -> bool:
        """Whether a thread may read or overwrite in `call` what another thread wrote or reads in `before`."""
        if self.parts_of(before) > 1 and self.parts_of(call) > 1:  # both in `partial`
            return True
        for begin, end, contiguous in _written(before):
            for at, along in _read(call):
                mine = along and contiguous and at == begin
                mine = mine and _length(before, self.call.rows) == _length(call, self.call.rows)
                if isinstance(call, Reduce) and REDUCTIONS[call.op] == "sum":
                    mine = mine and self.team == 32  # of a thread block, a warp sums what lies together
                if begin <= at < end and not mine:
                    return True
        used = self.scratch_of([*(begin for begin, *_ in _written(before)), *(at for at, _ in _read(before))])
        taken = self.scratch_of([begin for begin, *_ in _written(call)])
        return any(a < d and c < b for a, b in used for c, d in taken)

    def scratch_of(self, offsets: Sequence[int]) -> list[tuple[int, int]]:
        """Where the private values among these begin and end in a row's scratch memory."""
        found = [p for offset in offsets if (p := private_at(self.call, offset))]
        return [(p.scratch, p.scratch + p.row_bytes) for p in found]

    def walk(self, count: int, visit: Callable[[str], None]) -> None:
        """`visit` of every position of the thread's, b32, below `count`."""
        body, position, beyond, end = self.body, self.body.new("r"), self.body.new("p"), self.label()
        again = self.label()
        body.add(f"mov.b32 {position}, {self.lane}")
        body.label(again)
        body.add(f"setp.ge.u32 {beyond}, {position}, {count}; @{beyond} bra {end}")
        visit(position)
        if count > self.team:
            body.add(f"add.u32 {position}, {position}, {self.team}; bra {again}")
        body.label(end)

    # ---- map

    def map(self, call: Map) -> None:
        body, count = self.body, math.prod(call.shape)
        length = count // self.call.rows
        shape, strides = collapse(call.shape, [v.strides for v in call.inputs])
        first = body.new("d")
        body.add(f"mul.lo.u64 {first}, {self.row}, {length}")

        def visit(position: str) -> None:
            element = body.new("d")
            body.add(f"cvt.u64.u32 {element}, {position}; add.u64 {element}, {element}, {first}")
            places = [index(body, element, shape, s, count) for s in strides]
            values = [self.load(v.offset, v.dtype, at) for v, at in zip(call.inputs, places, strict=True)]
            results = compute(body, self.programs[call.program], values)
            for view, value in zip(call.outputs, results, strict=True):
                self.store(view.offset, view.dtype, element, value)

        self.walk(length, visit)

    # ---- reduce

    def parts_of(self, call: Map | Reduce) -> int:
        """How many parts of a row are reduced by themselves: segments of a sum, or what each warp walked along."""
        if isinstance(call, Map):
            return 0
        return -(-_length(call, self.call.rows) // SEGMENT) if REDUCTIONS[call.op] == "sum" else self.team // 32

    def reduce(self, call: Reduce) -> None:
        body, kind = self.body, REDUCTIONS[call.op]
        length = _length(call, self.call.rows)
        kept, (kept_strides,) = collapse(call.kept_shape, [call.kept_strides])
        base = index(body, self.row, kept, kept_strides, self.call.rows)
        shape, (strides,) = collapse(call.reduced_shape, [call.reduced_strides])
        reg = call.x_dtype.reg
        operation = f"{'add' if kind == 'sum' else kind}.{'u32' if reg is Reg.i32 and kind == 'sum' else reg.name}"
        identity = _IDENTITY.get((kind, reg), 0)

        def read(position: str) -> str:
            wide, place = body.new("d"), body.new("d")
            body.add(f"cvt.u64.u32 {wide}, {position}")
            body.add(f"add.s64 {place}, {base}, {index(body, wide, shape, strides, length)}")
            return self.load(call.x, call.x_dtype, place)

        def combine(to: str, value: str) -> None:
            body.add(f"mov.b32 {to}, {apply(body, operation, [to, value])}")

        lane, warp = body.new("r"), body.new("r")
        body.add(f"and.b32 {lane}, {self.lane}, 31; shr.u32 {warp}, {self.lane}, 5")
        total, parts = body.new("r"), self.parts_of(call)
        if kind == "sum":
            self.segments(total, lane, warp, length, identity, read, combine)
        else:
            body.add(f"mov.b32 {total}, {identity}")
            self.walk(length, lambda position: combine(total, read(position)))
            self.fold(total, combine)
            if parts > 1:
                self.hand_over(total, lane, warp)
        if parts > 1:  # the parts of a row, one a lane, as a row
            self.parts(total, lane, parts, identity)
            self.fold(total, combine)
        writer, end = body.new("p"), self.label()
        body.add(f"setp.ne.u32 {writer}, {self.lane}, 0; @{writer} bra {end}")
        self.store(call.y, call.y_dtype, self.row, total)
        body.label(end)

    def segments(
        self, total: str, lane: str, warp: str, length: int, identity: int, read: Callable[[str], str],
        combine: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        """The sums of a row's segments, each by a warp: `total` in its lane 0 if there is one, else in `partial`."""
        body, parts, warps = self.body, -(-length // SEGMENT), max(1, self.team // 32)
        segment, beyond, again, done = body.new("r"), body.new("p"), self.label(), self.label()
        position, end, high = body.new("r"), body.new("r"), body.new("r")
        body.add(f"mov.b32 {segment}, {warp}")
        body.label(again)
        body.add(f"setp.ge.u32 {beyond}, {segment}, {parts}; @{beyond} bra {done}")
        body.add(f"mul.lo.u32 {position}, {segment}, {SEGMENT}; add.u32 {end}, {position}, {SEGMENT}")
        body.add(f"min.u32 {end}, {end}, {length}; add.u32 {position}, {position}, {lane}")
        body.add(f"mov.b32 {total}, {identity}; mov.b32 {high}, {identity}")
        if length >= _AHEAD * LANES:
            self.lanes(position, end, total, high, read, combine, _AHEAD)
        self.lanes(position, end, total, high, read, combine, 1)
        skip, short = self.label(), body.new("p")
        body.add(f"setp.ge.u32 {short}, {position}, {end}; @{short} bra {skip}")
        combine(total, read(position))  # a round without the thread's second lane
        body.label(skip)
        combine(total, high)
        self.fold(total, combine)
        if parts > 1:
            self.hand_over(total, lane, segment)
            body.add(f"add.u32 {segment}, {segment}, {warps}; bra {again}")
        body.label(done)

    def lanes(
        self, position: str, end: str, low: str, high: str, read: Callable[[str], str],
        combine: Callable[[str, str], None], rounds: int,
    ) -> None:  # fmt: skip
        """Rounds of the 64 lanes, as long as that many are whole."""
        body, last, beyond = self.body, self.body.new("r"), self.body.new("p")
        again, done = self.label(), self.label()
        body.label(again)
        body.add(f"add.u32 {last}, {position}, {LANES * rounds - 32}; setp.ge.u32 {beyond}, {last}, {end}")
        body.add(f"@{beyond} bra {done}")
        values = []
        for _ in range(2 * rounds):
            values.append(read(position))
            body.add(f"add.u32 {position}, {position}, 32")
        for n, value in enumerate(values):
            combine(high if n % 2 else low, value)
        body.add(f"bra {again}")
        body.label(done)

    def fold(self, total: str, combine: Callable[[str, str], None]) -> None:
        for half in (16, 8, 4, 2, 1):
            other = self.body.new("r")
            self.body.add(f"shfl.sync.down.b32 {other}, {total}, {half}, 31, -1")
            combine(total, other)

    def hand_over(self, total: str, lane: str, part: str) -> None:
        """What a warp has for a part of the row, to the others."""
        body, at, writer, end = self.body, self.body.new("r"), self.body.new("p"), self.label()
        body.add(f"setp.ne.u32 {writer}, {lane}, 0; @{writer} bra {end}")
        body.add(f"shl.b32 {at}, {part}, 2; add.u32 {at}, {at}, {self.partial}; st.shared.b32 [{at}], {total}")
        body.label(end)

    def parts(self, total: str, lane: str, parts: int, identity: int) -> None:
        """Part number `lane` of the row in every lane that has one."""
        body, at, beyond, end = self.body, self.body.new("r"), self.body.new("p"), self.label()
        self.wait()
        body.add(f"mov.b32 {total}, {identity}; setp.ge.u32 {beyond}, {lane}, {parts}; @{beyond} bra {end}")
        body.add(f"shl.b32 {at}, {lane}, 2; add.u32 {at}, {at}, {self.partial}; ld.shared.b32 {total}, [{at}]")
        body.label(end)

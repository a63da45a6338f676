"""The native CPU backend: a program becomes a list of kernel calls on one arena, walked in C++.

Instruction set: the best that the CPU has, or GENSYN_VERIFY_ISA (avx512, avx2, neon, portable).
Threads: all, or GENSYN_VERIFY_THREADS. Neither changes a bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, Array, check_array, check_arrays
from gensyn_verify.backends.fusion import Region, find_regions
from gensyn_verify.backends.planning import ALIGN, FOREVER, Place, Root, assign_offsets, is_contiguous, row_major, view
from gensyn_verify.errors import BackendError, LimitError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Node, Program
from gensyn_verify.program.scalar import OPERATIONS, ScalarProgram
from gensyn_verify.program.types import TensorType

try:
    from gensyn_verify import _native
except ImportError as error:  # pragma: no cover
    raise BackendError(f"the native kernels are not built ({error}); install the package with pip") from error


def select_isa(wanted: str) -> None:
    """Use this instruction set from now on; BackendError where it is not supported here."""
    supported = _native.supported_isas()
    if wanted not in supported:
        raise BackendError(f"instruction set {wanted!r} is not supported here; supported: {', '.join(supported)}")
    _native.use_isa(wanted)


if "GENSYN_VERIFY_ISA" in os.environ:
    select_isa(os.environ["GENSYN_VERIFY_ISA"])


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Executor:
    """A program planned onto one arena.

    `keep=True` gives every value memory of its own, the next state too, so that `value(v)` shows each value of the
    last step. `fuse=False` runs every node on its own; the bits are the same.
    `memory_limit` in bytes (default: nine tenths of the machine's memory) is checked before anything is allocated.
    """

    def __init__(
        self, program: Program, keep: bool = False, memory_limit: int | None = None, fuse: bool = True
    ) -> None:
        self.program = program
        self._keep = keep
        self._loaded = False
        planner = _Planner(program, keep, fuse and not keep)
        limit = physical_memory() * 9 // 10 if memory_limit is None else memory_limit
        if planner.arena_bytes > limit:
            raise LimitError(f"the program needs {planner.arena_bytes} bytes of memory; the limit is {limit}")
        try:
            self._plan = _native.Plan(planner.arena_bytes)
        except MemoryError:
            raise LimitError(f"{planner.arena_bytes} bytes of memory for the program are not to be had") from None
        planner.write(self._plan)
        self._places = planner.places
        named = {(i.role, i.name): self._array(planner.places[v]) for v, i in enumerate(program.inputs)}
        self._old_state = {name: a for (role, name), a in named.items() if role == "state"}
        self._state = {name: self._array(place) for name, place in planner.next_state.items()}
        self._batch = {name: a for (role, name), a in named.items() if role == "batch"}
        self._scalars = {name: a for (role, name), a in named.items() if role == "scalar"}
        self._metrics = {name: self._array(place) for name, place in planner.metrics.items()}

    @property
    def arena_bytes(self) -> int:
        return self._plan.arena_bytes

    def _array(self, place: Place) -> Array:
        """The memory of a place, as a NumPy view."""
        dtype = CARRIER[place.type.dtype]
        root: Array = self._plan.view(place.root.offset, place.root.nbytes).view(dtype)
        strides = tuple(s * dtype.itemsize for s in place.strides)
        return np.lib.stride_tricks.as_strided(root[place.start :], place.type.shape, strides)

    def load(self, state: Mapping[str, Array]) -> None:
        for name, array in check_arrays(state, self.program.inputs_of("state"), "state").items():
            self._state[name][...] = array
        self._loaded = True

    def state(self) -> dict[str, Array]:
        return dict(self._state)

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        if not self._loaded and self._state:
            raise BackendError("step before load: the executor has no state yet")
        for what, given, held in (("batch", batch, self._batch), ("scalars", scalars, self._scalars)):
            if given.keys() != held.keys():
                check_arrays(given, self.program.inputs_of({"batch": "batch", "scalars": "scalar"}[what]), what)
            for name, target in held.items():
                source = given[name]
                if type(source) is not np.ndarray or source.dtype != target.dtype or source.shape != target.shape:
                    role = "batch" if what == "batch" else "scalar"
                    source = check_array(f"{what} {name!r}", source, self.program.inputs_of(role)[name])
                target[...] = source
        if self._keep:
            for name, array in self._state.items():
                self._old_state[name][...] = array
        self._plan.run()
        return {name: a.copy() for name, a in self._metrics.items()}

    def value(self, v: int) -> Array:
        """Value number `v` of the last step (only with keep=True)."""
        if not self._keep:
            raise BackendError("values are kept only by an executor made with keep=True")
        return self._array(self._places[v])


class _Planner:
    """First pass: places and lifetimes. Second pass (`write`): kernel calls with final offsets."""

    def __init__(self, program: Program, keep: bool, fuse: bool) -> None:
        self.program = program
        self.keep = keep
        self.roots: list[Root] = []
        self.places: list[Place] = []
        self.contiguous: dict[int, Place] = {}  # value -> its contiguous copy, made by the first node that needs one
        self.copied_at: dict[int, list[int]] = {}  # node -> values copied to contiguous memory before it runs
        end = len(program.nodes)
        self.state_out = {o.name: o.value for o in program.outputs if o.role == "state"}
        for i in program.inputs:
            self.places.append(self._new(i.type, -1))
            self.places[-1].root.dies = FOREVER
        self.in_place = {} if keep else self._in_place_states()
        updates = {
            n
            for n, v in enumerate(program.first_value)
            for o in range(v, v + len(program.nodes[n].types))
            if o in self.in_place
        }
        self.regions = find_regions(program, updates) if fuse else []
        self.region_of = {n: r for r in self.regions for n in range(r.first, r.last + 1)}
        self.used: dict[int, list[int]] = {}  # root of a value of a region -> nodes that write it first, read it last
        for n, node in enumerate(program.nodes):
            self._place_node(n, node)
        for o in program.outputs:
            self._read(o.value, end + 1)
        self.metrics, self.before_end = self._metric_places(end)
        self.next_state = self._next_state_places()
        self.staged = self._staged_states(end)
        private = {r: self._private_roots(r) for r in self.regions}
        hidden = {id(root) for roots in private.values() for root in roots}
        self.arena_bytes = max(assign_offsets([r for r in self.roots if id(r) not in hidden]), 64)
        for region, roots in private.items():
            shared = self._under_outputs(region, roots)
            for root, output in shared:
                root.offset = output.offset
            private[region] = [r for r in roots if all(r is not s for s, _ in shared)]
        self.scratch = {r.first: self._assign_private(r, roots) for r, roots in private.items()}

    def _private_roots(self, region: Region) -> list[Root]:
        """Values that nothing outside the region reads: they exist for one block of rows at a time."""
        inside = [r for r in self.roots if r.born == region.first and r.dies <= region.last]
        return [r for r in inside if id(r) in self.used]

    def _under_outputs(self, region: Region, private: list[Root]) -> list[tuple[Root, Root]]:
        """Private values that may lie in the memory of an output of the region: the map that writes it reads them
        last, unbroadcast. So that memory comes to cache while the value is computed."""
        hidden = {id(r) for r in private}
        found: list[tuple[Root, Root]] = []
        for root in private:
            n = self.used[id(root)][1]
            node, first = self.program.nodes[n], self.program.first_value[n]
            places = [self.places[v] for v in node.inputs if self.places[v].root is root]
            if not isinstance(node.op, ops.Map) or not places or places[0].root.born != region.first:
                continue
            for out in self.places[first : first + len(node.types)]:
                free = id(out.root) not in hidden and all(out.root is not o for _, o in found)
                same = all(p.type == out.type and p.contiguous and p.start == 0 for p in places)
                if free and same and root.nbytes == out.root.nbytes:
                    found.append((root, out.root))
                    break
        return found

    def _assign_private(self, region: Region, roots: list[Root]) -> tuple[int, list[tuple[int, int, int, int]]]:
        """Scratch bytes for a block of rows, and per value its offset (beyond the arena), bytes, row bytes and
        offset in the scratch memory."""
        blocks = [Root(r.nbytes // region.rows * region.block_rows, *self.used[id(r)]) for r in roots]
        scratch = assign_offsets(blocks)
        values, offset = [], math.ceil(self.arena_bytes / ALIGN) * ALIGN
        for root, block in zip(roots, blocks, strict=True):
            root.offset = offset
            offset += math.ceil(root.nbytes / ALIGN) * ALIGN
            values.append((root.offset, root.nbytes, root.nbytes // region.rows, block.offset))
        return scratch, values

    def _new(self, type: TensorType, born: int) -> Place:
        self.roots.append(Root(type.nbytes, born, FOREVER if self.keep else born))
        return Place(self.roots[-1], type, 0, row_major(type.shape))

    def _read(self, v: int, n: int) -> None:
        root, region = self.places[v].root, self.region_of.get(n)
        if region is not None:  # the nodes of a region run side by side: what one reads lives until all are done
            if id(root) in self.used:
                self.used[id(root)][1] = n
            n = region.last
        root.dies = max(root.dies, n)

    def _last_reads(self) -> tuple[list[int], dict[int, int]]:
        """Value -> the value whose memory it may view, and that -> the last node that may read it."""
        p = self.program
        owner = list(range(len(p.value_types)))
        last: dict[int, int] = {}
        for n, node in enumerate(p.nodes):
            for v in node.inputs:
                last[owner[v]] = n
            if node.op.kind == "layout" and not isinstance(node.op, ops.Pad | ops.Concat):
                owner[p.first_value[n]] = owner[node.inputs[0]]
        for o in p.outputs:
            if o.role == "metric" or owner[o.value] < len(p.inputs):
                last[owner[o.value]] = len(p.nodes)
        return owner, last

    def _in_place_states(self) -> dict[int, int]:
        """Value -> state input whose memory it may take: it is the next state, computed elementwise by the last
        node that reads the old one, which that node reads unbroadcast."""
        p = self.program
        owner, last = self._last_reads()
        number = {i.name: v for v, i in enumerate(p.inputs) if i.role == "state"}
        wanted: dict[int, int] = {}
        for name, v in self.state_out.items():
            wanted.setdefault(v, number[name])
        found = {}
        for n, node in enumerate(p.nodes):
            if not isinstance(node.op, ops.Map):
                continue
            views = {owner[v] for v in node.inputs if owner[v] != v}
            for v in range(p.first_value[n], p.first_value[n] + len(node.types)):
                state = wanted.get(v)
                if state is not None and last.get(state, n) <= n and state not in views:
                    found[v] = state
        return found

    def _place_node(self, n: int, node: Node) -> None:
        op, first = node.op, self.program.first_value[n]
        for v in node.inputs:
            self._read(v, n)
        if op.kind == "layout":
            place = view(op, self.places[node.inputs[0]], node.types[0])
            if place is not None:
                self.places.append(place)
                return
        if not isinstance(op, ops.Map | ops.Reduce) and op.kind != "layout":
            for v in node.inputs:
                if not self._usable(op, v):
                    self._copy_before(n, v)
        for i, t in enumerate(node.types):
            state = self.in_place.get(first + i)
            if state is not None:
                self.places.append(self.places[state])
                continue
            region = self.region_of.get(n)
            self.places.append(self._new(t, n if region is None else region.first))
            if region is not None:
                self.used[id(self.places[-1].root)] = [n, n]

    def _usable(self, op: ops.Op, v: int) -> bool:
        """Whether the kernel reads this view as it is: contiguous, or for dot a whole transposed matrix."""
        place = self.places[v]
        return place.contiguous or (isinstance(op, ops.Dot) and _flipped(place) is not None)

    def _copy_before(self, n: int, v: int) -> None:
        if v not in self.contiguous:
            self.contiguous[v] = self._new(self.places[v].type, n)
            self.copied_at.setdefault(n, []).append(v)
        root = self.contiguous[v].root
        root.dies = max(root.dies, n)

    def _metric_places(self, end: int) -> tuple[dict[str, Place], list[tuple[Place, Place]]]:
        """Where metrics lie, and the copies that save those inside the old state from the new one."""
        old = {id(self.places[v].root) for v in range(len(self.program.inputs))}
        places, copies = {}, []
        for o in self.program.outputs:
            if o.role != "metric":
                continue
            places[o.name] = place = self.places[o.value]
            if id(place.root) in old and o.value not in self.in_place:
                places[o.name] = self._new(place.type, end)
                places[o.name].root.dies = FOREVER
                copies.append((place, places[o.name]))
        return places, copies

    def _next_state_places(self) -> dict[str, Place]:
        """Where a step leaves the state: in the place of the old one, or beside it if every value is kept."""
        old = {i.name: v for v, i in enumerate(self.program.inputs) if i.role == "state"}
        if self.keep:
            return {name: self._new(self.places[v].type, -1) for name, v in old.items()}
        return {name: self.places[v] for name, v in old.items()}

    def _staged_states(self, end: int) -> list[tuple[Place, Place | None, Place]]:
        """(source, staging, target) copies that end a step. A source inside another state's memory is staged first."""
        inputs = {id(place.root) for place in self.next_state.values()}
        copies = []
        for name, v in self.state_out.items():
            source, target = self.places[v], self.next_state[name]
            if source.root is target.root and source.start == 0 and source.strides == target.strides:
                continue
            staging = None
            if id(source.root) in inputs:
                staging = self._new(source.type, end)
                staging.root.dies = end + 1
            copies.append((source, staging, target))
        return copies

    # ---- second pass

    def write(self, plan: _native.Plan) -> None:
        scalars = [plan.scalar_program(*_scalar_arguments(s)) for s in self.program.scalar_programs]
        for n, node in enumerate(self.program.nodes):
            for v in self.copied_at.get(n, ()):
                _copy(plan, self.places[v], self.contiguous[v])
            region = self.region_of.get(n)
            if region is not None and n == region.first:
                roots = [self.places[v].root for v in region.streams]
                streams = [(root.offset, root.nbytes // region.rows) for root in roots]
                plan.begin_region(region.rows, region.block_rows, *self.scratch[n], streams)
            self._write_node(plan, n, node, scalars)
            if region is not None and n == region.last:
                plan.end_region()
        for source, target in self.before_end:
            _copy(plan, source, target)
        for source, staging, _ in self.staged:
            if staging is not None:
                _copy(plan, source, staging)
        for source, staging, target in self.staged:
            _copy(plan, staging or source, target)

    def _input(self, op: ops.Op, v: int) -> Place:
        return self.places[v] if self._usable(op, v) else self.contiguous[v]

    def _write_node(self, plan: _native.Plan, n: int, node: Node, scalars: list[int]) -> None:
        op, first = node.op, self.program.first_value[n]
        out = self.places[first]
        if out.type.elements == 0:
            return
        if isinstance(op, ops.Map):
            inputs = [_broadcast(self.places[v], op.shape) for v in node.inputs]
            outputs = [self.places[first + i] for i in range(len(node.types))]
            plan.map(scalars[op.program], op.shape, [_triple(p) for p in inputs], [_triple(p) for p in outputs])
        elif isinstance(op, ops.Dot):
            a, b = (self._input(op, v) for v in node.inputs)
            _write_dot(plan, op, a, b, out)
        elif isinstance(op, ops.Reduce):
            x = self.places[node.inputs[0]]
            kept = [a for a in range(len(x.type.shape)) if a not in op.axes]
            axes = [[s[a] for a in which] for which in (kept, op.axes) for s in (x.type.shape, x.strides)]
            plan.reduce(op.op, *axes, x.byte_offset, x.type.dtype.code, out.byte_offset, out.type.dtype.code)
        elif isinstance(op, ops.Gather):
            data, index = (self._input(op, v) for v in node.inputs)
            rows, count = data.type.shape[0], index.type.elements
            row = out.type.elements // count
            places = (data.byte_offset, index.byte_offset, out.byte_offset)
            plan.gather(*places, rows, row, count, data.type.dtype.code)
        elif isinstance(op, ops.ScatterAdd):
            source, index = (self._input(op, v) for v in node.inputs)
            places = (source.byte_offset, index.byte_offset, out.byte_offset)
            sizes = (op.rows, out.type.elements // op.rows, index.type.elements)
            plan.scatter_add(*places, *sizes, source.type.dtype.code, out.type.dtype.code)
        elif isinstance(op, ops.Random):
            seed, step = (self._input(op, v) for v in node.inputs)
            plan.random(seed.byte_offset, step.byte_offset, op.stream, out.type.elements, out.byte_offset)
        elif out.root.born == n:  # a layout that moves bytes; views were placed over their input
            _write_layout(plan, op, [self.places[v] for v in node.inputs], out)


def _triple(place: Place) -> tuple[int, int, tuple[int, ...]]:
    return place.byte_offset, place.type.dtype.code, place.strides


def _broadcast(place: Place, shape: tuple[int, ...]) -> Place:
    wide = view(ops.Broadcast(shape), place, TensorType(place.type.dtype, shape))
    assert wide is not None
    return wide


def _copy(plan: _native.Plan, source: Place, target: Place) -> None:
    if source.type.elements:
        size = source.type.dtype.size
        plan.copy(size, source.type.shape, source.strides, target.strides, source.byte_offset, target.byte_offset)


def _flipped(place: Place) -> Place | None:
    """The place with its last two axes swapped, where that is contiguous."""
    shape, strides = place.type.shape, place.strides
    if len(shape) < 2:
        return None
    swapped = (*shape[:-2], shape[-1], shape[-2])
    strides = (*strides[:-2], strides[-1], strides[-2])
    if not is_contiguous(swapped, strides):
        return None
    return Place(place.root, TensorType(place.type.dtype, swapped), place.start, strides)


def _write_dot(plan: _native.Plan, op: ops.Dot, a: Place, b: Place, out: Place) -> None:
    m, n = out.type.shape[-2:]
    k = a.type.shape[-2 if op.transpose_a else -1]
    batch = out.type.elements // (m * n)
    operands, flags = [], []
    for place, transposed in ((a, op.transpose_a), (b, op.transpose_b)):
        flipped = None if place.contiguous else _flipped(place)
        shape = place.type.shape
        stride = 0 if len(shape) == 2 else shape[-1] * shape[-2]
        operands.append((place.byte_offset, place.type.dtype.code, [stride]))
        flags.append(transposed ^ (flipped is not None))
    plan.dot(batch, m, n, k, *operands, (out.byte_offset, out.type.dtype.code, [m * n]), *flags)


def _write_layout(plan: _native.Plan, op: ops.Op, inputs: list[Place], out: Place) -> None:
    if isinstance(op, ops.Pad):
        (x,) = inputs
        plan.fill(out.type.dtype.size, op.fill, out.type.elements, out.byte_offset)
        start = sum(lo * s for lo, s in zip(op.low, out.strides, strict=True))
        strides = tuple((gap + 1) * s for gap, s in zip(op.interior, out.strides, strict=True))
        _copy(plan, x, Place(out.root, x.type, start, strides))
    elif isinstance(op, ops.Concat):
        start = 0
        for x in inputs:
            _copy(plan, x, Place(out.root, x.type, start, out.strides))
            start += x.type.shape[op.axis] * out.strides[op.axis]
    else:  # a reshape of something that is not contiguous
        (x,) = inputs
        _copy(plan, x, Place(out.root, x.type, 0, row_major(x.type.shape)))


def _scalar_arguments(s: ScalarProgram) -> tuple[int, list[int], list[int], list[int], list[int]]:
    code: list[int] = []
    for i in s.code:
        code += [OPERATIONS[i.op].code, *i.args, *[0] * (3 - len(i.args))]
    types = [int(t) for t in s.value_types]
    return len(s.inputs), [c.bits for c in s.constants], code, list(s.outputs), types

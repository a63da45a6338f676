"""A plan on a device of torch: the arena is one uint8 tensor, and every call is one or more launches of kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import triton
from triton import knobs

from gensyn_verify import _native
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.device import plan
from gensyn_verify.errors import BackendError
from gensyn_verify.kernels import (
    triton_blake3,
    triton_copy,
    triton_dot,
    triton_epilogue,
    triton_gather,
    triton_map,
    triton_random,
    triton_reduce,
    triton_rows,
    triton_sort,
)
from gensyn_verify.kernels.triton_findings import findings
from gensyn_verify.program import ops
from gensyn_verify.program.types import Dtype

BLOCK = 1024  # lanes a program of kernels without an order
TILE = 64  # rows and columns of c a program of dot, at most
_CARRIER = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@dataclass(frozen=True)
class Scratch:
    """`count` elements between the launches of one call; the same memory for every call, by number."""

    number: int
    count: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Launch:
    """A kernel on `programs` programs; `fuses`: its source has fused operations, quotients or roots."""

    kernel: Any
    programs: int
    args: tuple[Any, ...]
    constants: dict[str, Any]
    fuses: bool = False

    def __call__(self) -> Any:
        """Triton's CompiledKernel; None in the interpreter."""
        return self.kernel[(self.programs,)](*self.args, **self.constants, num_warps=4, enable_fp_fusion=False)


def check_compiled(compiled: Any, fuses: bool) -> None:
    """BackendError where a kernel, as this version of Triton compiled it for this device, may compute other bits."""
    texts = {kind: compiled.asm[kind] for kind in ("llir", "ptx", "amdgcn") if kind in compiled.asm}
    found = findings(texts, fuses)
    if found:
        raise BackendError(
            f"backend triton: {compiled.name}, as Triton {triton.__version__} compiled it, may compute other bits: "
            f"{found[0]} ({len(found)} such lines); use another version of Triton, or another backend"
        )


def _dot_strides(c: plan.Dot) -> tuple[int, ...]:
    """Elements between matrices, rows and values of k of a; between matrices, values of k and columns of b."""
    a = (1, c.m) if c.transpose_a else (c.k, 1)
    b = (1, c.k) if c.transpose_b else (c.n, 1)
    return (c.a_batch_stride, *a, c.b_batch_stride, *b)


def _above(n: int, most: int) -> int:
    """The power of two that n elements fill, at most `most`."""
    return min(most, 1 << max(n - 1, 0).bit_length())


class TritonMachine:
    """device.executor.Machine on "cuda", "cuda:N", or "cpu" in the interpreter."""

    def __init__(self, plan_: plan.Plan, device: str = "cuda") -> None:
        self._plan = plan_
        self._device = torch.device(device)
        interpreted = bool(knobs.runtime.interpret)
        if (self._device.type == "cpu") != interpreted:
            raise BackendError(
                f"backend triton on {device!r}: Triton's interpreter is {'on' if interpreted else 'off'}; "
                "set TRITON_INTERPRET=1 before the start for cpu, and unset it for a GPU"
            )
        if interpreted and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
            raise BackendError(
                f"Triton {triton.__version__} interprets tl.fma with two roundings; install 3.9 or later"
            )
        programs = plan_.program.scalar_programs
        self._rows_kernels = {c: triton_rows.rows_kernel(c, programs) for c in plan_.calls if isinstance(c, plan.Rows)}
        # Private values lie behind the arena where calls run one after the other.
        alone = [p for c, kernel in self._rows_kernels.items() if kernel is None for p in c.private]
        arena_bytes = max([plan_.arena_bytes, *(p.offset + p.nbytes for p in alone)])
        try:
            whole = (arena_bytes // plan.ALIGN + 1) * plan.ALIGN  # kernels read whole words
            self._arena = torch.zeros(whole, dtype=torch.uint8, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(
                f"backend triton: no {arena_bytes} bytes on device {device!r} ({error}); use cpu"
            ) from error
        self._read: set[str] | None = set()  # hashes of compiled kernels; None after the first run, which reads them
        self._launches = self._with_scratch([launch for call in plan_.calls for launch in self._lower(call)])

    def write(self, offset: int, data: Array) -> None:
        source = data if data.flags.writeable else data.copy()  # torch warns of arrays that it could not write to
        self._arena[offset : offset + len(data)].copy_(torch.from_numpy(source))

    def read(self, offset: int, nbytes: int) -> Array:
        return self._arena[offset : offset + nbytes].cpu().numpy()

    def run(self) -> None:
        with self._here():
            for launch in self._launches:
                compiled = launch()
                if self._read is not None and compiled is not None and compiled.hash not in self._read:
                    check_compiled(compiled, launch.fuses)
                    self._read.add(compiled.hash)
        self._read = None

    def roots(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        if self._device.type == "cpu":
            return [_native.blake3_root(self.read(begin, end - begin).data) for begin, end in spans]
        return self.device_roots(spans)

    def device_roots(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """`roots` by Triton's kernels on any device; 32 bytes a root come to the host."""
        with self._here():
            roots = [self._root(begin, end - begin) for begin, end in spans]
        return [words.tobytes() for words in torch.stack(roots).cpu().numpy()] if roots else []

    def _root(self, begin: int, nbytes: int) -> torch.Tensor:
        """The 8 words of the BLAKE3 root, left on the device."""
        data = self._at(begin, 4) if begin % 4 == 0 else self._aligned(begin, nbytes)
        count, block = max(1, -(-nbytes // triton_blake3.CHUNK)), triton_blake3.BLOCK
        nodes = self._nodes(count)
        blocks = max(1, min(16, -(-nbytes // 64)))
        args: tuple[Any, ...] = (data, nodes, nbytes, count, blocks)
        Launch(triton_blake3.chunk_kernel, -(-count // block), args, {"BLOCK": block})()
        while count > 1:
            above = -(-count // 2)
            parents = self._nodes(above)
            Launch(triton_blake3.parent_kernel, -(-above // block), (nodes, parents, count), {"BLOCK": block})()
            nodes, count = parents, above
        return nodes

    def _nodes(self, count: int) -> torch.Tensor:
        return torch.empty(count * triton_blake3.WORDS, dtype=torch.int32, device=self._device)

    def _aligned(self, begin: int, nbytes: int) -> torch.Tensor:
        """A copy that begins at a multiple of 4 bytes."""
        copy = torch.empty(-(-nbytes // 4) * 4, dtype=torch.uint8, device=self._device)
        copy[:nbytes] = self._arena[begin : begin + nbytes]
        return copy.view(torch.int32)

    def _here(self) -> AbstractContextManager[Any]:
        """Triton launches on the current device; its interpreter computes in NumPy, which warns."""
        if self._device.type == "cpu":
            return np.errstate(all="ignore")
        return torch.cuda.device(self._device)

    # ---- memory ----

    def _at(self, offset: int, size: int) -> torch.Tensor:
        """The arena from `offset` on, as integers of `size` bytes."""
        rest = self._arena[offset:]
        return rest[: len(rest) // size * size].view(_CARRIER[size])

    def _with_scratch(self, launches: list[Launch]) -> list[Launch]:
        wanted = [a for launch in launches for a in launch.args if isinstance(a, Scratch)]
        held = {
            number: torch.empty(
                max(s.count * s.dtype.itemsize for s in wanted if s.number == number),
                dtype=torch.uint8,
                device=self._device,
            )
            for number in {s.number for s in wanted}
        }

        def resolve(a: Any) -> Any:
            return held[a.number][: a.count * a.dtype.itemsize].view(a.dtype) if isinstance(a, Scratch) else a

        return [replace(launch, args=tuple(map(resolve, launch.args))) for launch in launches]

    # ---- calls ----

    def _lower(self, call: plan.Call | plan.Region) -> list[Launch]:
        lower: dict[type, Callable[[Any], list[Launch]]] = {
            plan.Rows: self._rows,
            plan.Epilogue: self._epilogue,
            plan.Map: self._map,
            plan.Scan: self._scan,
            plan.Dot: self._dot,
            plan.Reduce: self._reduce,
            plan.Copy: self._copy,
            plan.Fill: self._fill,
            plan.Gather: self._gather,
            plan.ScatterAdd: self._scatter_add,
            plan.Random: self._random,
            plan.Sort: self._sort,
        }
        return [launch for launch in lower[type(call)](call) if launch.programs]

    def _rows(self, c: plan.Rows) -> list[Launch]:
        k = self._rows_kernels[c]
        if k is None:
            return [launch for one in c.calls for launch in self._lower(one)]
        pointers = [self._at(v.offset, v.dtype.size) for v in k.views]
        return [Launch(k.kernel, -(-c.rows // k.block), (*pointers, c.rows), {"ROWS": k.block}, k.fuses)]

    def _map(self, c: plan.Map) -> list[Launch]:
        scalar = self._plan.program.scalar_programs[c.program]
        views = (*c.inputs, *c.outputs)
        n = math.prod(c.shape)
        shape, strides = plan.collapse(c.shape, [v.strides for v in views])
        operands = tuple(plan.Operand(v.dtype, s) for v, s in zip(views, strides, strict=True))
        kernel = triton_map.map_kernel(
            triton_map.Elementwise(
                scalar,
                (0, *shape[1:]),  # the first length is in n alone
                operands[: len(c.inputs)],
                operands[len(c.inputs) :],
                triton_map.is_wide(shape, strides),
            )
        )
        block = triton_map.BLOCK
        pointers = [self._at(v.offset, v.dtype.size) for v in views]
        return [Launch(kernel, -(-n // block), (*pointers, n), {"BLOCK": block}, triton_map.fuses(scalar))]

    def _scan(self, c: plan.Scan) -> list[Launch]:
        scalar = self._plan.program.scalar_programs[c.program]
        carried = len(c.outputs)
        views = (*c.inputs, *c.outputs)
        inner = [v.strides if i < carried else v.strides[1:] for i, v in enumerate(views)]
        steps = [0 if i < carried else v.strides[0] for i, v in enumerate(views)]
        n = math.prod(c.shape[1:])
        shape, strides = plan.collapse(c.shape[1:], inner)
        operands = tuple(plan.Operand(v.dtype, s, step) for v, s, step in zip(views, strides, steps, strict=True))
        kernel = triton_map.scan_kernel(
            triton_map.Elementwise(
                scalar,
                (0, *shape[1:]),
                operands[: len(c.inputs)],
                operands[len(c.inputs) :],
                triton_map.is_wide((c.shape[0], *shape), [(t, *s) for t, s in zip(steps, strides, strict=True)]),
            )
        )
        block = triton_map.SERIES
        pointers = [self._at(v.offset, v.dtype.size) for v in views]
        programs = -(-n // block) if c.shape[0] else 0
        return [Launch(kernel, programs, (*pointers, n, c.shape[0]), {"BLOCK": block}, triton_map.fuses(scalar))]

    def _dot(self, c: plan.Dot) -> list[Launch]:
        if c.a_dtype is Dtype.i8:
            return self._int8_dot(c)
        return self._product(c, triton_dot.dot_kernel, (plan.View(c.c, c.c_dtype, ()),), C=c.c_dtype.name)

    def _int8_dot(self, c: plan.Dot) -> list[Launch]:
        M, N = (max(16, _above(size, TILE)) for size in (c.m, c.n))  # matrix units have no smaller ones
        chains = -(-c.k // (triton_dot.INT8_K * triton_dot.INT8_CHAIN))
        args = (self._at(c.a, 1), self._at(c.b, 1), self._at(c.c, 4), c.m, c.n, c.k, chains, *_dot_strides(c))
        constants = {"M": M, "N": N, "K": triton_dot.INT8_K, "CHAIN": triton_dot.INT8_CHAIN}
        programs = c.batch * -(-c.m // M) * -(-c.n // N)
        return [Launch(triton_dot.int8_kernel, programs, args, constants)]

    def _epilogue(self, c: plan.Epilogue) -> list[Launch]:
        k = triton_epilogue.epilogue_kernel(c, self._plan.program.scalar_programs)
        options = triton_epilogue.NVIDIA if self._device.type == "cuda" and torch.version.hip is None else {}
        return self._product(c.dot, k.kernel, k.views, **options)

    def _product(self, c: plan.Dot, kernel: Any, views: Sequence[plan.View], **own: Any) -> list[Launch]:
        """A kernel of a dot; `views` are what it takes besides the operands, `own` its constants and options."""
        M, N = _above(c.m, TILE), _above(c.n, TILE)
        leading = triton_dot.leading_blocks(c.k)
        args = (
            self._at(c.a, c.a_dtype.size), self._at(c.b, c.b_dtype.size),
            *(self._at(v.offset, v.dtype.size) for v in views),
            c.m, c.n, leading, c.k - leading * triton_dot.BLOCK_K,
            *_dot_strides(c),
        )  # fmt: skip
        constants = {
            "A": c.a_dtype.name, "B": c.b_dtype.name, "M": M, "N": N,
            "BLOCK": triton_dot.BLOCK_K, "UNROLLED": triton_dot.UNROLL,
        }  # fmt: skip
        programs = c.batch * -(-c.m // M) * -(-c.n // N)
        return [Launch(kernel, programs, args, {**constants, **own}, fuses=True)]

    def _reduce(self, c: plan.Reduce) -> list[Launch]:
        """Passes until one value a row is left; what they leave in between are accumulators, in scratch memory."""
        op = ops.REDUCTIONS[c.op]
        rows, n = math.prod(c.kept_shape), math.prod(c.reduced_shape)
        kept, (kept_strides,) = plan.collapse(c.kept_shape, [c.kept_strides])
        reduced, (reduced_strides,) = plan.collapse(c.reduced_shape, [c.reduced_strides])
        accumulator = torch.int64 if op.startswith("arg") else torch.int32
        R = _above(rows, 16)
        launches: list[Launch] = []
        source: torch.Tensor | Scratch = self._at(c.x, c.x_dtype.size)
        x = c.x_dtype.name
        for number in range(64):
            segments = max(1, -(-n // triton_reduce.SEGMENT))
            last = segments == 1
            target: torch.Tensor | Scratch = (
                self._at(c.y, c.y_dtype.size) if last else Scratch(number % 2, rows * segments, accumulator)
            )
            constants = {
                "OP": op, "REG": c.x_dtype.reg.name, "X": x, "Y": c.y_dtype.name if last else "",
                "KEPT": kept, "KEPT_STRIDES": kept_strides, "REDUCED": reduced, "REDUCED_STRIDES": reduced_strides,
                "ROWS": R, "LENGTH": triton_reduce.SEGMENT,
            }  # fmt: skip
            programs = -(-rows // R) * segments
            launches.append(
                Launch(triton_reduce.reduce_kernel, programs, (source, target, rows, n, segments), constants)
            )
            if last:
                break
            source, x, n = target, "", segments
            kept, kept_strides, reduced, reduced_strides = (rows,), (segments,), (segments,), (1,)
        return launches

    def _copy(self, c: plan.Copy) -> list[Launch]:
        n = math.prod(c.shape)
        shape, (source, target) = plan.collapse(c.shape, [c.source_strides, c.target_strides])
        constants = {
            "SHAPE": (0, *shape[1:]), "SOURCE": source, "TARGET": target,
            "WIDE": triton_map.is_wide(shape, [source, target]), "BLOCK": BLOCK,
        }  # fmt: skip
        args = (self._at(c.source, c.size), self._at(c.target, c.size), n)
        return [Launch(triton_copy.copy_kernel, -(-n // BLOCK), args, constants)]

    def _fill(self, c: plan.Fill) -> list[Launch]:
        top = 8 * c.size - 1
        bits = c.bits if c.size == 1 else c.bits - ((c.bits >> top) << (top + 1))
        args = (self._at(c.target, c.size), c.count)
        return [Launch(triton_copy.fill_kernel, -(-c.count // BLOCK), args, {"BITS": bits, "BLOCK": BLOCK})]

    def _gather(self, c: plan.Gather) -> list[Launch]:
        size = c.dtype.size
        J = _above(c.row, BLOCK)
        rows = BLOCK // J
        args = (self._at(c.data, size), self._at(c.index, 4), self._at(c.out, size), c.count, c.rows, c.row)
        constants = {"OUTSIDE": plan.OUTSIDE.get(c.dtype, 0), "INDICES": rows, "COLUMNS": J}
        return [Launch(triton_gather.gather_kernel, -(-c.count // rows) * -(-c.row // J), args, constants)]

    def _sorted_keys(
        self, x: torch.Tensor, dtype: Dtype, rows: int, row: int, limit: int = -1
    ) -> tuple[Scratch, int, list[Launch]]:
        """Ascending keys [rows, padded] of x [rows, row] in scratch memory; padded; the launches."""
        padded = 1 << max(row - 1, 0).bit_length()
        total = rows * padded
        keys = Scratch(0, total, torch.int64)
        constants = {"X": dtype.name, "LIMIT": limit, "BLOCK": BLOCK}
        launches = [Launch(triton_sort.key_kernel, -(-total // BLOCK), (x, keys, row, padded, total), constants)]
        size = 2
        while size <= padded:
            stride = size // 2
            while stride:
                args = (keys, total // 2, padded, size, stride)
                launches.append(Launch(triton_sort.exchange_kernel, -(-total // 2 // BLOCK), args, {"BLOCK": BLOCK}))
                stride //= 2
            size *= 2
        return keys, padded, launches

    def _scatter_add(self, c: plan.ScatterAdd) -> list[Launch]:
        keys, padded, launches = self._sorted_keys(self._at(c.index, 4), Dtype.i32, 1, c.count, c.rows)
        J = _above(c.row, 256)
        R = max(1, 256 // J)
        args = (
            self._at(c.source, c.source_dtype.size), keys, self._at(c.out, c.out_dtype.size),
            c.rows, c.row, padded,
        )  # fmt: skip
        constants = {"X": c.source_dtype.name, "Y": c.out_dtype.name, "TARGETS": R, "COLUMNS": J}
        programs = -(-c.rows // R) * -(-c.row // J)
        return [*launches, Launch(triton_gather.scatter_kernel, programs, args, constants)]

    def _random(self, c: plan.Random) -> list[Launch]:
        args = (self._at(c.seed, 4), self._at(c.step, 4), self._at(c.out, 4), c.stream, 0, c.count)
        return [Launch(triton_random.random_kernel, -(-c.count // 4 // BLOCK), args, {"BLOCK": BLOCK})]

    def _sort(self, c: plan.Sort) -> list[Launch]:
        if not c.rows * c.row:
            return []
        keys, padded, launches = self._sorted_keys(self._at(c.x, c.dtype.size), c.dtype, c.rows, c.row)
        total = c.rows * c.row
        args = (keys, self._at(c.out, 4), c.row, padded, total)
        return [*launches, Launch(triton_sort.position_kernel, -(-total // BLOCK), args, {"BLOCK": BLOCK})]

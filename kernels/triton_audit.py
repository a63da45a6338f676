"""Compiles every Triton kernel for GPUs that are not there, and reads what came of it (triton_findings).

    python -m gensyn_verify.kernels.triton_audit              all cases, all targets
    python -m gensyn_verify.kernels.triton_audit --core sm_90 gfx942

Kernels are compiled as they are launched, with enable_fp_fusion=False, in the variants that Triton's launcher chooses
by its arguments: pointers and numbers of any alignment, all divisible by 16, and all numbers 1.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from triton.tools.disasm import get_sass

from gensyn_verify.backends.device.plan import Epilogue, Operand, Rows, make_plan
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
    triton_scalar,
    triton_sort,
)
from gensyn_verify.kernels.triton_findings import findings, integer_units, source_findings
from gensyn_verify.kernels.triton_scalar import CARRIERS
from gensyn_verify.program import ops
from gensyn_verify.program.program import Program, ProgramBuilder
from gensyn_verify.program.published import PUBLISHED, trace
from gensyn_verify.program.scalar import OPERATIONS, Instruction, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, TensorType

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx1100": GPUTarget("hip", "gfx1100", 32),
}
VARIANTS = ("any", "divisible", "ones")


@dataclass(frozen=True)
class Case:
    """A kernel and what it is compiled for: carriers of pointers, types of numbers, constants.

    `fma`: the source has tl.fma, a division or a square root. `core`: among those that `make test` compiles. `nvidia`:
    options of the compiler there. `units`: it is there for the sake of matrix units, and has to use them.
    """

    name: str
    kernel: Any
    pointers: Mapping[str, str]
    numbers: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    fma: bool = False
    core: bool = False
    nvidia: Mapping[str, int] = field(default_factory=dict)
    units: bool = False


def _carrier(dtype: str) -> str:
    return CARRIERS[dtype]


def _numbers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


# ---- cases ------------------------------------------------------------------------------------------------------


def every_operation() -> ScalarProgram:
    """All operations once, and every result stored by way of a few outputs."""
    regs = tuple(Reg)
    first = {reg: 3 * i for i, reg in enumerate(regs)}
    inputs = tuple(reg for reg in regs for _ in range(3))
    code = []
    last = dict(first)
    for op in OPERATIONS.values():
        taken = dict.fromkeys(regs, 0)
        args = []
        for reg in op.operands:
            args.append(last[reg] if not taken[reg] else first[reg] + taken[reg])
            taken[reg] += 1
        code.append(Instruction(op.name, tuple(args)))
        last[op.result] = len(inputs) + len(code) - 1
    return ScalarProgram(inputs, (), tuple(code), tuple(last.values()))


def map_case(
    name: str, scalar: ScalarProgram, shape: tuple[int, ...], dtypes: Mapping[Reg, Dtype], core: bool = False
) -> Case:
    """A map over contiguous operands of `shape`; the first input is broadcast along the first axis if there are two."""
    strides = _contiguous(shape)
    inputs = [Operand(dtypes[reg], strides) for reg in scalar.inputs]
    if inputs and len(shape) > 1:
        inputs[0] = Operand(inputs[0].dtype, (0, *strides[1:]))
    outputs = tuple(Operand(dtypes[reg], strides) for reg in scalar.output_types)
    kernel = triton_map.map_kernel(triton_map.Elementwise(scalar, shape, tuple(inputs), outputs, False))
    pointers = {f"x{i}": _carrier(x.dtype.name) for i, x in enumerate(inputs)}
    pointers |= {f"y{i}": _carrier(y.dtype.name) for i, y in enumerate(outputs)}
    constants = {"BLOCK": triton_map.BLOCK}
    return Case(f"map {name}", kernel, pointers, _numbers("n"), constants, triton_map.fuses(scalar), core)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def map_cases() -> Iterator[Case]:
    wide = {reg: Dtype[reg.name] for reg in Reg}
    narrow = {**wide, Reg.f32: Dtype.bf16, Reg.u32: Dtype.u8, Reg.i32: Dtype.i8}
    half = {**wide, Reg.f32: Dtype.f16}
    everything = every_operation()
    yield map_case("every operation", everything, (0,), wide, core=True)
    yield map_case("every operation, strided, bf16, u8 and i8", everything, (0, 7), narrow)
    yield map_case("every operation, strided, f16", everything, (0, 5, 3), half)
    separate = trace(lambda x, y, z: x * y + z - x * z, Reg.f32, Reg.f32, Reg.f32)
    yield map_case("products and sums", separate, (0,), wide, core=True)
    yield map_case("products and sums of f16", separate, (0,), half, core=True)
    for name, scalar in PUBLISHED.items():
        yield map_case(name, scalar, (0,), wide)


def scan_case(wide: bool) -> Case:
    scalar = trace(lambda s, x: s * x + x, Reg.f32, Reg.f32)
    k = triton_map.Elementwise(
        scalar,
        (0, 3),
        (Operand(Dtype.bf16, (3, 1)), Operand(Dtype.f32, (3, 1), 12)),
        (Operand(Dtype.bf16, (3, 1), 12),),
        wide,
    )
    pointers = {"x0": "i16", "x1": "i32", "y0": "i16"}
    constants = {"BLOCK": triton_map.SERIES}
    name = "scan, wide" if wide else "scan"
    return Case(name, triton_map.scan_kernel(k), pointers, _numbers("n", "steps"), constants, core=not wide)


def dot_cases() -> Iterator[Case]:
    numbers = _numbers("m", "n", "leading", "last", "a_batch", "a_m", "a_k", "b_batch", "b_k", "b_n")
    floats = ("f32", "bf16", "f16")
    stored = {(a, b): floats[(i + j) % 3] for (i, a), (j, b) in product(enumerate(floats), repeat=2)}
    tiles = [(a, b, c, 64, 64) for (a, b), c in stored.items()] + [("f32", "f32", "f32", 1, 16)]
    for a, b, c, m, n in tiles:
        constants = {"A": a, "B": b, "C": c, "M": m, "N": n}
        yield Case(
            f"dot {a} {b} {c} {m}x{n}",
            triton_dot.dot_kernel,
            {"a": _carrier(a), "b": _carrier(b), "c": _carrier(c)},
            numbers,
            {**constants, "BLOCK": triton_dot.BLOCK_K, "UNROLLED": triton_dot.UNROLL},
            fma=True,
            core=(a, b) == ("f32", "bf16"),
        )
    pointers = {"a": _carrier("i8"), "b": _carrier("i8"), "c": "i32"}
    numbers = _numbers("m", "n", "k", "chains", "a_batch", "a_m", "a_k", "b_batch", "b_k", "b_n")
    for m, n in ((64, 64), (16, 64)):
        constants = {"M": m, "N": n, "K": triton_dot.INT8_K, "CHAIN": triton_dot.INT8_CHAIN}
        yield Case(f"dot i8 {m}x{n}", triton_dot.int8_kernel, pointers, numbers, constants, core=m == n, units=True)


def reduce_cases() -> Iterator[Case]:
    for op, dtype in product(ops.REDUCTIONS, ("f32", "bf16", "f16", "i32", "u32", "u8", "i8")):
        accumulator = "i64" if op.startswith("arg") else "i32"
        reg = Dtype[dtype].reg.name
        out = "i32" if op.startswith("arg") else dtype
        passes = [(dtype, out, "whole"), (dtype, "", "first pass"), ("", out, "last pass")]
        for x, y, what in passes if dtype in ("f32", "i32") else passes[:1]:
            yield Case(
                f"reduce {op} {dtype} {what}",
                triton_reduce.reduce_kernel,
                {"x": _carrier(x) if x else accumulator, "y": _carrier(y) if y else accumulator},
                _numbers("rows", "n", "segments"),
                {
                    "OP": op, "REG": reg, "X": x, "Y": y, "KEPT": (9, 4), "KEPT_STRIDES": (52, 1), "REDUCED": (13,),
                    "REDUCED_STRIDES": (4,), "ROWS": 16, "LENGTH": triton_reduce.SEGMENT,
                },
                core=op in ("sum", "argmin") and dtype == "f32" and what == "whole",
            )  # fmt: skip


def region_case(name: str, program: Program, core: bool = False) -> Case:
    """The kernel of the one region that a program is."""
    plan = make_plan(program, regions=True)
    (call,) = plan.calls
    if isinstance(call, Rows):
        rows = triton_rows.rows_kernel(call, plan.program.scalar_programs)
        assert rows is not None, name
        pointers = {x: _carrier(v.dtype.name) for x, v in zip(rows.kernel.arg_names, rows.views, strict=False)}
        return Case(name, rows.kernel, pointers, _numbers("rows"), {"ROWS": rows.block}, rows.fuses, core)
    assert isinstance(call, Epilogue), name
    ending, dot = triton_epilogue.epilogue_kernel(call, plan.program.scalar_programs), call.dot
    views = zip(ending.kernel.arg_names[2:], ending.views, strict=False)
    pointers = {"a": _carrier(dot.a_dtype.name), "b": _carrier(dot.b_dtype.name)}
    pointers |= {x: _carrier(v.dtype.name) for x, v in views}
    constants = {"A": dot.a_dtype.name, "B": dot.b_dtype.name, "M": 64, "N": 64}
    constants |= {"BLOCK": triton_dot.BLOCK_K, "UNROLLED": triton_dot.UNROLL}
    numbers = _numbers(*triton_epilogue.NUMBERS)
    return Case(name, ending.kernel, pointers, numbers, constants, True, core, triton_epilogue.NVIDIA)


def region_cases() -> Iterator[Case]:
    for length, dtype, out, core in ((4099, Dtype.f32, Dtype.f32, True), (10, Dtype.bf16, Dtype.f16, False)):
        for name in ("sum", "max"):
            g = ProgramBuilder()
            x = g.input("batch", "x", TensorType(dtype, (4096, length)))
            y = g.map(lambda a, b: a * 0.5 - b, x, g.reduce(name, x, (1,), keepdims=True), dtype=out)
            g.output("metric", "y", g.map(lambda a, b: a * b, y, g.reduce("sum", y, (1,), keepdims=True)))
            yield region_case(f"rows {name} {dtype.name} {length}", g.build(), core and name == "max")
    g = ProgramBuilder()
    y = g.map(lambda a: a * 0.5, g.input("batch", "x", TensorType(Dtype.f32, (5000,))), dtype=Dtype.bf16)
    g.output("metric", "y", g.map(lambda a: a * 0.3 + 1.0, y))
    yield region_case("rows of elements", g.build())
    for dtype, out in ((Dtype.f32, Dtype.f32), (Dtype.bf16, Dtype.f16)):
        g = ProgramBuilder()
        a, b = (g.input("batch", n, TensorType(dtype, (64, 64))) for n in "ab")
        bias = g.input("batch", "bias", TensorType(Dtype.f32, (64,)))
        g.output("metric", "y", g.map(lambda a, b: (a + b).max(0.0) * 0.1 + a, g.dot(a, b), bias, dtype=out))
        yield region_case(f"dot {dtype.name} with a map", g.build(), core=dtype is Dtype.f32)


def move_cases() -> Iterator[Case]:
    block = {"BLOCK": 1024}
    for dtype in ("f32", "bf16", "i32", "u8", "i8"):
        x = {"x": _carrier(dtype), "keys": "i64"}
        keys = {"X": dtype, "LIMIT": 7 if dtype == "i32" else -1, **block}
        yield Case(f"sort key {dtype}", triton_sort.key_kernel, x, _numbers("row", "padded", "total"), keys)
        out = {"source": _carrier(dtype), "keys": "i64", "out": _carrier(dtype)}
        tile = {"X": dtype, "Y": dtype, "TARGETS": 4, "COLUMNS": 64}
        numbers = _numbers("rows", "row", "padded")
        yield Case(f"scatter_add {dtype}", triton_gather.scatter_kernel, out, numbers, tile, core=dtype == "f32")
    numbers = _numbers("pairs", "padded", "size", "stride")
    yield Case("sort exchange", triton_sort.exchange_kernel, {"keys": "i64"}, numbers, block, core=True)
    numbers = _numbers("row", "padded", "total")
    yield Case("sort position", triton_sort.position_kernel, {"keys": "i64", "out": "i32"}, numbers, block)
    for carrier, outside in (("i32", 0x7FC00000), ("i16", 0x7E00), ("u8", 0)):
        moved = {"data": carrier, "index": "i32", "out": carrier}
        tile = {"OUTSIDE": outside, "INDICES": 4, "COLUMNS": 256}
        yield Case(f"gather {carrier}", triton_gather.gather_kernel, moved, _numbers("count", "rows", "row"), tile)
        shape = {"SHAPE": (0, 3, 4), "SOURCE": (12, 1, -3), "TARGET": (12, 4, 1), "WIDE": carrier == "u8", **block}
        yield Case(
            f"copy {carrier}", triton_copy.copy_kernel, {"source": carrier, "target": carrier}, _numbers("n"), shape
        )
        yield Case(f"fill {carrier}", triton_copy.fill_kernel, {"target": carrier}, _numbers("n"), {"BITS": 1, **block})
    words = {"seed": "i32", "step": "i32", "out": "i32"}
    numbers = {"stream": "i64", "first": "i64", "count": "i32"}
    yield Case("random", triton_random.random_kernel, words, numbers, block, core=True)


def hash_cases() -> Iterator[Case]:
    block = {"BLOCK": triton_blake3.BLOCK}
    numbers = {"nbytes": "i64", "chunks": "i32", "blocks": "i32"}
    yield Case("blake3 chunks", triton_blake3.chunk_kernel, {"data": "i32", "nodes": "i32"}, numbers, block)
    pointers = {"nodes": "i32", "parents": "i32"}
    yield Case("blake3 parents", triton_blake3.parent_kernel, pointers, _numbers("count"), block, core=True)


def cases() -> list[Case]:
    return [
        *map_cases(),
        scan_case(False),
        scan_case(True),
        *dot_cases(),
        *reduce_cases(),
        *region_cases(),
        *move_cases(),
        *hash_cases(),
    ]


# ---- compilation ------------------------------------------------------------------------------------------------


def compiled(case: Case, target: str, variant: str, **options: bool) -> Any:
    """Triton's CompiledKernel, for a GPU that need not be there."""
    kernel = case.kernel
    names = list(kernel.arg_names)
    fixed = {p.name for p in kernel.params if p.do_not_specialize}
    constants = dict(case.constants)
    if variant == "ones":
        constants |= {n: 1 for n in case.numbers if n not in fixed}
    types = {**{n: f"*{t}" for n, t in case.pointers.items()}, **case.numbers, **dict.fromkeys(constants, "constexpr")}
    divisible = [n for n in names if n in case.pointers or (n in case.numbers and n not in fixed)]
    attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in divisible} if variant == "divisible" else {}
    source = ASTSource(fn=kernel, signature={n: types[n] for n in names}, constexprs=constants, attrs=attributes)
    own = case.nvidia if TARGETS[target].backend == "cuda" else {}
    return triton.compile(source, target=TARGETS[target], options={"enable_fp_fusion": False, **own, **options})


def compile_case(case: Case, target: str, variant: str, **options: bool) -> dict[str, str]:
    """The texts of a compilation: "llir", and "ptx" and "sass", or "amdgcn"."""
    asm = compiled(case, target, variant, **options).asm
    if "ptx" in asm:
        return {"llir": asm["llir"], "ptx": asm["ptx"], "sass": get_sass(asm["cubin"])}
    return {"llir": asm["llir"], "amdgcn": asm["amdgcn"]}


def kernel_sources() -> dict[str, str]:
    """The text of every jitted function of this package by name, of every expression, and of kernels of regions."""
    modules = (
        triton_scalar, triton_dot, triton_gather, triton_blake3, triton_copy, triton_random, triton_reduce, triton_sort,
    )  # fmt: skip
    found = {f"{m.__name__}.{n}": f.src for m in modules for n, f in vars(m).items() if isinstance(f, JITFunction)}
    found |= {case.name: case.kernel.src for case in region_cases()}
    return found | {name: text.format("a", "b", "c") for name, text in triton_scalar.EXPRESSIONS.items()}


def audit(targets: list[str], core: bool) -> tuple[int, list[str]]:
    """How many compilations were read, and what was found."""
    count, found = 0, [f"{name}: {f}" for name, text in kernel_sources().items() for f in source_findings(text)]
    for case in cases():
        for target, variant in product(targets, VARIANTS):
            if core and not (case.core and variant == "divisible"):
                continue
            count += 1
            texts = compile_case(case, target, variant)
            wrong = findings(texts, case.fma)
            if case.units and not integer_units(texts):
                wrong.append("no integers in matrix units")
            found += [f"{case.name}, {target}, {variant}: {f}" for f in wrong]
    return count, found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="triton_audit", description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--core", action="store_true", help="a few kernels, each in one variant")
    asked = parser.parse_args(arguments)
    count, found = audit(asked.targets, asked.core)
    print(*found, f"{count} compilations, {len(found)} findings", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

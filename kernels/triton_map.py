"""A scalar program as the source of a Triton kernel: maps (one element a lane) and scans (one series a lane).

The source is made of this file's templates, the expressions of triton_scalar and integers; no text of a program's
author enters it. Elements do not meet, so there is no order to keep in a map. A scan keeps ascending positions of the
first axis: a lane walks them, and what it carries is what it stored, rounded to its dtype.
"""

import hashlib
import linecache
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import triton
import triton.language as tl

from gensyn_verify.backends.device.plan import Operand
from gensyn_verify.kernels import triton_scalar
from gensyn_verify.kernels.triton_scalar import EXPRESSIONS
from gensyn_verify.program.scalar import Constant, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg

BLOCK = 1024  # elements a program of a map
SERIES = 256  # series a program of a scan
INT32_ELEMENTS = 1 << 31


@dataclass(frozen=True)
class Elementwise:
    """What a kernel depends on. `shape` is collapsed and has one axis or more; the first one's length is an argument,
    so that flat maps of all sizes are one kernel. `wide`: places need 64 bits.
    """

    scalar: ScalarProgram
    shape: tuple[int, ...]
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    wide: bool


def is_wide(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> bool:
    """Whether a place, or the number of a lane beyond the last element, needs more than 31 bits."""
    reach = [sum(abs(s) * (d - 1) for s, d in zip(x, shape, strict=True)) for x in strides]
    count = 1
    for d in shape:
        count *= d
    return max([count + BLOCK, *reach]) >= INT32_ELEMENTS


def fuses(scalar: ScalarProgram) -> bool:
    """Whether compilers may use fused operations for it: it has some, or quotients or roots, which are made of them."""
    return any(i.op in ("fma.f32", "div.f32", "sqrt.f32") for i in scalar.code)


def _literal(c: Constant) -> str:
    if c.reg is Reg.f32:
        return f"real(tl.full((), {c.bits:#x}, tl.uint32))"
    if c.reg is Reg.i32:
        return f"tl.full((), {c.bits - ((c.bits >> 31) << 32)}, tl.int32)"
    return f"tl.full((), {c.bits:#x}, tl.{'uint32' if c.reg is Reg.u32 else 'int1'})"


def program_lines(scalar: ScalarProgram, v: str = "v") -> list[str]:
    """Values v0, v1, ... in SSA form; the inputs exist already."""
    first = len(scalar.inputs)
    lines = [f"{v}{first + i} = {_literal(c)}" for i, c in enumerate(scalar.constants)]
    first += len(scalar.constants)
    for i, instruction in enumerate(scalar.code):
        lines.append(f"{v}{first + i} = " + EXPRESSIONS[instruction.op].format(*(f"{v}{a}" for a in instruction.args)))
    return lines


def load_text(
    name: str, x: Operand, shape: tuple[int, ...], step: str = "", e: str = "e", inside: str = "inside"
) -> str:
    """Elements number `e` where `inside`. An operand that is the same everywhere is a scalar in the kernel too."""
    where = f"offset({e}, {shape}, {x.strides})" if any(x.strides) else ""
    mask = f", mask={inside}, other=0" if where else ""
    return f'widen(tl.load({" + ".join(filter(None, [name, where, step]))}{mask}), "{x.dtype.name}")'


def stored_text(name: str, dtype: Dtype) -> str:
    """The register of what a store keeps. Of 32 bits it keeps all but a NaN's, which nothing can tell."""
    same = dtype.size == 4 or dtype is Dtype.boolean
    return name if same else f'widen(narrow({name}, "{dtype.name}"), "{dtype.name}")'


def _header(k: Elementwise, block: str) -> list[str]:
    names = [*(f"x{i}" for i in range(len(k.inputs))), *(f"y{i}" for i in range(len(k.outputs)))]
    pid = "tl.program_id(0).to(tl.int64)" if k.wide else "tl.program_id(0)"
    return [
        f"def kernel({', '.join(names)}, n, {block}BLOCK: tl.constexpr):",
        f"    e = {pid} * BLOCK + tl.arange(0, BLOCK)",
        "    inside = e < n",
    ]


def map_source(k: Elementwise) -> str:
    lines = _header(k, "")
    lines += [f"    v{i} = {load_text(f'x{i}', x, k.shape)}" for i, x in enumerate(k.inputs)]
    lines += [f"    {line}" for line in program_lines(k.scalar)]
    for i, (y, v) in enumerate(zip(k.outputs, k.scalar.outputs, strict=True)):
        lines.append(
            f'    tl.store(y{i} + offset(e, {k.shape}, {y.strides}), narrow(v{v}, "{y.dtype.name}"), mask=inside)'
        )
    return "\n".join(lines) + "\n"


def scan_source(k: Elementwise) -> str:
    """`s0, s1, ...` are the carried elements as stored; they are the program's first inputs."""
    carried = len(k.outputs)
    lines = _header(k, "steps, ")
    for i, x in enumerate(k.inputs[:carried]):
        load = f"tl.load(x{i} + offset(e, {k.shape}, {x.strides}), mask=inside, other=0)"
        lines.append(f"    s{i} = {load}")
    lines.append("    for t in range(0, steps):")
    if k.wide:
        lines.append("        t = e * 0 + t")
    lines += [f'        v{i} = widen(s{i}, "{x.dtype.name}")' for i, x in enumerate(k.inputs[:carried])]
    for i, x in enumerate(k.inputs[carried:], carried):
        lines.append(f"        v{i} = {load_text(f'x{i}', x, k.shape, f't * {x.step}')}")
    lines += [f"        {line}" for line in program_lines(k.scalar)]
    for i, (y, v) in enumerate(zip(k.outputs, k.scalar.outputs, strict=True)):
        place = f"y{i} + offset(e, {k.shape}, {y.strides}) + t * {y.step}"
        lines.append(f'        s{i} = tl.where(inside, narrow(v{v}, "{y.dtype.name}"), 0)')
        lines.append(f"        tl.store({place}, s{i}, mask=inside)")
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=4096)
def compile_source(source: str, *modules: ModuleType) -> Any:
    """The jitted function `kernel` of generated source, which has the names of the modules, or of triton_scalar.

    Triton reads the source back through linecache.
    """
    name = f"<gensyn_verify.kernels {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = {k: v for m in modules or (triton_scalar,) for k, v in vars(m).items()}
    scope: dict[str, Any] = {**names, "tl": tl, "__name__": "gensyn_verify.kernels.generated"}
    exec(compile(source, name, "exec"), scope)
    return triton.jit(scope["kernel"])


def map_kernel(k: Elementwise) -> Any:
    """kernel(*inputs, *outputs, n, BLOCK): pointers to carriers, n elements; ceil(n / BLOCK) programs."""
    return compile_source(map_source(k))


def scan_kernel(k: Elementwise) -> Any:
    """kernel(*inputs, *outputs, n, steps, BLOCK): n series of `steps` elements."""
    return compile_source(scan_source(k))

"""A program as text to read: `gverify inspect`. Not parsed by anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from gensyn_verify.program import ops
from gensyn_verify.program.program import Program
from gensyn_verify.program.scalar import ScalarProgram, bits_f32
from gensyn_verify.program.types import Dtype, Reg


def _literal(reg: Reg, bits: int) -> str:
    if reg is Reg.f32:
        return f"{bits_f32(bits):.9g}"
    if reg is Reg.boolean:
        return "true" if bits else "false"
    return str(bits - (1 << 32) if reg is Reg.i32 and bits >> 31 else bits)


def scalar_listing(s: ScalarProgram) -> Iterator[str]:
    """One line an instruction: `v3 = fma.f32 x0 0.5 v2`."""
    names = [f"x{i}" for i in range(len(s.inputs))] + [_literal(c.reg, c.bits) for c in s.constants]
    yield f"({', '.join(f'x{i}: {r.name}' for i, r in enumerate(s.inputs))})"
    for n, instruction in enumerate(s.code):
        yield f"  v{n} = {instruction.op} {' '.join(names[a] for a in instruction.args)}"
        names.append(f"v{n}")
    yield f"  -> {', '.join(names[v] for v in s.outputs)}"


def _attributes(op: ops.Op) -> str:
    if isinstance(op, ops.Reduce):
        return f"{ops.REDUCTIONS[op.op]} axes={list(op.axes)}"
    parts = []
    for f in dataclasses.fields(op):
        x = getattr(op, f.name)
        if f.name in ("shape", "dtype", "dtypes") and not isinstance(op, ops.Slice):
            continue  # told by the output types
        if isinstance(x, bool):
            parts += [f.name] if x else []
        elif isinstance(x, tuple):
            parts.append(f"{f.name}={[d.name if isinstance(d, Dtype) else d for d in x]}")
        else:
            parts.append(f"s{x}" if isinstance(op, ops.Map | ops.Scan) else f"{f.name}={x}")
    return " ".join(parts)


def listing(p: Program, scalars: bool = True) -> Iterator[str]:
    """Lines: inputs, nodes with types and origins, outputs, then the scalar programs."""
    names = [i.name for i in p.inputs]
    for i in p.inputs:
        yield f"{i.role:6} {i.name}: {i.type}"
    yield ""
    for n, node in enumerate(p.nodes):
        op = node.op
        word = (
            op.kind
            if type(op).__name__.lower() == op.kind.replace("_", "")
            else f"{op.kind}.{type(op).__name__.lower()}"
        )
        outs = [f"%{len(names) + i}" for i in range(len(node.types))]
        left = ", ".join(f"{o}: {t}" for o, t in zip(outs, node.types, strict=True))
        line = f"{n:5}  {left} = {word} {_attributes(op)}({', '.join(names[v] for v in node.inputs)})"
        yield f"{line}  # {node.origin}" if node.origin else line
        names += outs
    yield ""
    for o in p.outputs:
        yield f"{o.role:6} {o.name} = {names[o.value]}"
    if scalars:
        for n, s in enumerate(p.scalar_programs):
            first, *rest = scalar_listing(s)
            yield ""
            yield f"s{n}{first}"
            yield from rest
    yield ""
    yield f"{len(p.nodes)} nodes, {len(p.scalar_programs)} scalar programs, digest {p.digest.hex()}"

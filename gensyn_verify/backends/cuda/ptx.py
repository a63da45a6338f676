"""PTX of maps and scans, written from their scalar programs: one instruction of the program, one or a few of PTX.

PTX is compiled by the driver when it is loaded, so no compiler is needed where a program runs. `.rn` everywhere:
nothing may be fused afterwards, nothing is flushed. The text is for `.target sm_75`, version 6.3, so every driver since
CUDA 10 takes it and every GPU since then runs it.

A kernel is made for one shape: sizes and strides are constants in it, addresses are its parameters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gensyn_verify.backends.device.plan import Map, Scan, View, collapse
from gensyn_verify.program.scalar import OPERATIONS, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg

HEADER = ".version 6.3\n.target sm_75\n.address_size 64\n.extern .shared .align 16 .b8 gv_shared[];\n"
THREADS = 256
NAN = "0x7FC00000"

# Operation -> lines, with {r} the result, {a} {b} {c} the operands, {t0} ... scratch registers and {p0} ... predicates.
_EXTREME = (
    "setp.{less}.f32 {{p0}}, {{a}}, {{b}}; selp.b32 {{t0}}, {{a}}, {{b}}, {{p0}}; setp.eq.f32 {{p1}}, {{a}}, {{b}}; "
    "{zeros}.b32 {{t1}}, {{a}}, {{b}}; selp.b32 {{t0}}, {{t1}}, {{t0}}, {{p1}}; setp.nan.f32 {{p2}}, {{a}}, {{b}}; "
    "selp.b32 {{r}}, " + NAN + ", {{t0}}, {{p2}};"
)
_TWO = "{name} {{r}}, {{a}}, {{b}};"
_ONE = "{name} {{r}}, {{a}};"
TABLE: dict[str, str] = {
    **{f"{n}.f32": _TWO.format(name=f"{n}.rn.f32") for n in ("add", "sub", "mul", "div")},
    "min.f32": _EXTREME.format(less="lt", zeros="or"),
    "max.f32": _EXTREME.format(less="gt", zeros="and"),
    "sqrt.f32": _ONE.format(name="sqrt.rn.f32"),
    "neg.f32": "xor.b32 {r}, {a}, 0x80000000;",
    "abs.f32": "and.b32 {r}, {a}, 0x7FFFFFFF;",
    "fma.f32": "fma.rn.f32 {r}, {a}, {b}, {c};",
    **{f"{n}.{t}": _TWO.format(name=f"setp.{n}.{p}") for n in ("eq", "lt", "le") for t, p in
       (("f32", "f32"), ("i32", "s32"), ("u32", "u32"))},
    **{f"{n}.{t}": _TWO.format(name=f"{i}.{p}") for n, i in (
        ("add", "add"), ("sub", "sub"), ("mul", "mul.lo"), ("mulhi", "mul.hi"), ("min", "min"), ("max", "max"),
    ) for t, p in (("i32", "s32"), ("u32", "u32"))},
    **{f"{n}.{t}": _TWO.format(name=f"{n}.b32") for n in ("and", "or", "xor") for t in ("i32", "u32")},
    **{f"not.{t}": _ONE.format(name="not.b32") for t in ("i32", "u32")},
    **{f"shl.{t}": "and.b32 {t0}, {b}, 31; shl.b32 {r}, {a}, {t0};" for t in ("i32", "u32")},
    "shr.i32": "and.b32 {t0}, {b}, 31; shr.s32 {r}, {a}, {t0};",
    "shr.u32": "and.b32 {t0}, {b}, 31; shr.u32 {r}, {a}, {t0};",
    **{f"{n}.boolean": _TWO.format(name=f"{n}.pred") for n in ("and", "or", "xor")},
    "not.boolean": _ONE.format(name="not.pred"),
    **{f"select.{t}": "selp.b32 {r}, {b}, {c}, {a};" for t in ("f32", "i32", "u32")},
    "select.boolean":
        "and.pred {p0}, {a}, {b}; not.pred {p1}, {a}; and.pred {p1}, {p1}, {c}; or.pred {r}, {p0}, {p1};",
    "f32_to_i32": "cvt.rzi.s32.f32 {r}, {a};",
    "f32_to_u32": "cvt.rzi.u32.f32 {r}, {a};",
    "i32_to_f32": "cvt.rn.f32.s32 {r}, {a};",
    "u32_to_f32": "cvt.rn.f32.u32 {r}, {a};",
    "boolean_to_u32": "selp.b32 {r}, 1, 0, {a};",
    "f32_bits_to_u32": "setp.nan.f32 {p0}, {a}, {a}; selp.b32 {r}, " + NAN + ", {a}, {p0};",
    **{n: _ONE.format(name="mov.b32") for n in ("u32_bits_to_f32", "i32_bits_to_u32", "u32_bits_to_i32")},
}  # fmt: skip
assert TABLE.keys() == OPERATIONS.keys()

_LOAD = {
    Dtype.bf16: "ld.global.u16 {h}, [{at}]; cvt.u32.u16 {r}, {h}; shl.b32 {r}, {r}, 16;",
    Dtype.f16: "ld.global.b16 {h}, [{at}]; cvt.f32.f16 {r}, {h};",
    Dtype.u8: "ld.global.u8 {r}, [{at}];",
    Dtype.i8: "ld.global.s8 {r}, [{at}];",
    Dtype.boolean: "ld.global.u8 {t}, [{at}]; setp.ne.u32 {r}, {t}, 0;",
}
_STORE = {
    Dtype.f32: "setp.nan.f32 {p}, {r}, {r}; selp.b32 {t}, " + NAN + ", {r}, {p}; st.global.b32 [{at}], {t};",
    Dtype.bf16: "shr.u32 {t}, {r}, 16; and.b32 {t}, {t}, 1; add.u32 {t}, {t}, 0x7FFF; add.u32 {t}, {t}, {r}; "
    "shr.u32 {t}, {t}, 16; setp.nan.f32 {p}, {r}, {r}; selp.b32 {t}, 0x7FC0, {t}, {p}; cvt.u16.u32 {h}, {t}; "
    "st.global.u16 [{at}], {h};",
    Dtype.f16: "cvt.rn.f16.f32 {h}, {r}; cvt.u32.u16 {t}, {h}; setp.nan.f32 {p}, {r}, {r}; "
    "selp.b32 {t}, 0x7E00, {t}, {p}; cvt.u16.u32 {h}, {t}; st.global.u16 [{at}], {h};",
    Dtype.u8: "st.global.u8 [{at}], {r};",
    Dtype.i8: "st.global.u8 [{at}], {r};",
    Dtype.boolean: "selp.b32 {t}, 1, 0, {r}; st.global.u8 [{at}], {t};",
}


@dataclass(frozen=True)
class Kernel:
    """An entry of a module, to be run by `blocks` of `threads` threads; parameters are 64-bit addresses."""

    name: str
    text: str
    blocks: int
    threads: int = THREADS
    shared: int = 0  # bytes


class Body:
    """Lines and registers of one kernel; names of registers begin with `prefix`."""

    def __init__(self, prefix: str = "") -> None:
        self.lines: list[str] = []
        self._prefix = prefix
        self._counts: dict[str, int] = {}

    def new(self, kind: str) -> str:
        """A register: b32 "r", b64 "d", b16 "h", pred "p"."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"%{self._prefix}{kind}{self._counts[kind] - 1}"

    def add(self, line: str) -> None:
        self.lines += [f"    {part.strip()};" for part in line.split(";") if part.strip()]

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def registers(self) -> list[str]:
        types = {"r": "b32", "d": "b64", "h": "b16", "p": "pred"}
        return [f"    .reg .{types[k]} %{self._prefix}{k}<{n}>;" for k, n in sorted(self._counts.items())]

    def text(self, name: str, parameters: int) -> str:
        given = ",\n".join(f"    .param .u64 p{i}" for i in range(parameters))
        entry = (f".visible .entry {name}(\n{given}\n)", f".maxntid {THREADS}, 1, 1")
        return "\n".join([*entry, "{", *self.registers(), *self.lines, "}", ""])


def map_kernel(call: Map, scalar: ScalarProgram) -> Kernel:
    """One thread an element; parameters are the addresses of the inputs, then of the outputs."""
    body = Body()
    count = math.prod(call.shape)
    element = _element(body, count)
    shape, strides = collapse(call.shape, [v.strides for v in call.inputs])
    addresses = _addresses(body, call.inputs, [index(body, element, shape, s, count) for s in strides])
    values = [load(body, v.dtype, at) for v, at in zip(call.inputs, addresses, strict=True)]
    results = compute(body, scalar, values)
    outputs = _addresses(body, call.outputs, [element] * len(call.outputs), first=len(call.inputs))
    for view, at, value in zip(call.outputs, outputs, results, strict=True):
        store(body, view.dtype, at, value)
    return _finish(body, "map", len(call.inputs) + len(call.outputs), count)


def scan_kernel(call: Scan, scalar: ScalarProgram) -> Kernel:
    """One thread an element of a position, through all positions; parameters as for a map."""
    body = Body()
    steps, step_shape = call.shape[0], call.shape[1:]
    count, carried = math.prod(step_shape), len(call.outputs)
    element = _element(body, count)
    inner = [v.strides if i < carried else v.strides[1:] for i, v in enumerate(call.inputs)]
    shape, strides = collapse(step_shape, inner)
    addresses = _addresses(body, call.inputs, [index(body, element, shape, s, count) for s in strides])
    outputs = _addresses(body, call.outputs, [element] * carried, first=len(call.inputs))
    values = [load(body, v.dtype, at) for v, at in zip(call.inputs[:carried], addresses, strict=False)]
    left, more = body.new("r"), body.new("p")
    body.add(f"mov.u32 {left}, {steps}")
    body.label("NEXT")
    rest = [load(body, v.dtype, at) for v, at in zip(call.inputs[carried:], addresses[carried:], strict=True)]
    results = compute(body, scalar, [*values, *rest])
    for view, at, value in zip(call.outputs, outputs, results, strict=True):
        store(body, view.dtype, at, value)
    for carry, view, at in zip(values, call.outputs, outputs, strict=True):  # as stored, which rounds
        again = load(body, view.dtype, at)
        body.add(f"mov.{'pred' if view.dtype.reg is Reg.boolean else 'b32'} {carry}, {again}")
    for at, view in zip(addresses[carried:], call.inputs[carried:], strict=True):
        body.add(f"add.s64 {at}, {at}, {view.strides[0] * view.dtype.size}")
    for at, view in zip(outputs, call.outputs, strict=True):
        body.add(f"add.s64 {at}, {at}, {count * view.dtype.size}")
    body.add(f"sub.u32 {left}, {left}, 1; setp.ne.u32 {more}, {left}, 0; @{more} bra NEXT")
    return _finish(body, "scan", len(call.inputs) + carried, count)


def _finish(body: Body, kind: str, parameters: int, count: int) -> Kernel:
    body.label("DONE")
    body.add("ret")
    name = f"gv_{kind}_{digest(body.text('', parameters))}"
    return Kernel(name, body.text(name, parameters), -(-count // THREADS))


def digest(text: str) -> str:
    """For names: equal texts, equal names."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _element(body: Body, count: int) -> str:
    """The thread's element, b64; threads beyond the last one end."""
    group, thread, size, wide, element, beyond = (body.new(k) for k in ("r", "r", "r", "d", "d", "p"))
    body.add(f"mov.u32 {group}, %ctaid.x; mov.u32 {thread}, %tid.x; mov.u32 {size}, %ntid.x")
    body.add(f"mul.wide.u32 {element}, {group}, {size}; cvt.u64.u32 {wide}, {thread}")
    body.add(f"add.u64 {element}, {element}, {wide}; setp.ge.u64 {beyond}, {element}, {count}; @{beyond} bra DONE")
    return element


def index(body: Body, element: str, shape: Sequence[int], strides: Sequence[int], count: int) -> str:
    """The element's place in a tensor of these strides, b64; the register `element` itself where they are equal."""
    if tuple(strides) == (1,):
        return element
    place, rest = body.new("d"), element
    body.add(f"mov.u64 {place}, 0")
    for axis in range(len(shape) - 1, -1, -1):
        position = rest
        if axis > 0:
            quotient, product, position = body.new("d"), body.new("d"), body.new("d")
            _divide(body, quotient, rest, shape[axis], count)
            body.add(f"mul.lo.u64 {product}, {quotient}, {shape[axis]}; sub.u64 {position}, {rest}, {product}")
            rest = quotient
        if strides[axis]:
            term = body.new("d")
            body.add(f"mul.lo.s64 {term}, {position}, {strides[axis]}; add.s64 {place}, {place}, {term}")
    return place


def _divide(body: Body, quotient: str, x: str, by: int, count: int) -> None:
    """quotient = x / by for x < count. Below 2^31: q = x m >> p exactly, m = ceil(2^p / by), p = 31 + ceil(log2 by).

    The error of m is below 2^(p - 31), so that of x m is below 2^p (Granlund and Montgomery 1994).
    """
    if by & (by - 1) == 0:
        body.add(f"shr.u64 {quotient}, {x}, {by.bit_length() - 1}")
    elif count <= 1 << 31 and by < 1 << 31:
        p = 31 + (by - 1).bit_length()
        body.add(f"mul.lo.u64 {quotient}, {x}, {-(-(1 << p) // by)}; shr.u64 {quotient}, {quotient}, {p}")
    else:
        body.add(f"div.u64 {quotient}, {x}, {by}")


def _addresses(body: Body, views: Sequence[View], indices: Sequence[str], first: int = 0) -> list[str]:
    views_and_places = zip(views, indices, strict=True)
    return [address(body, v.dtype, parameter(body, f"p{n}"), i) for n, (v, i) in enumerate(views_and_places, first)]


def parameter(body: Body, name: str) -> str:
    """An address that the kernel was given."""
    base = body.new("d")
    body.add(f"ld.param.u64 {base}, [{name}]; cvta.to.global.u64 {base}, {base}")
    return base


def address(body: Body, dtype: Dtype, base: str, place: str) -> str:
    """Of the element at `place` of a tensor in global memory."""
    at = body.new("d")
    body.add(f"shl.b64 {at}, {place}, {dtype.size.bit_length() - 1}; add.s64 {at}, {base}, {at}")
    return at


def load(body: Body, dtype: Dtype, at: str, space: str = "global") -> str:
    value = body.new("p" if dtype is Dtype.boolean else "r")
    line = _LOAD.get(dtype, "ld.global.b32 {r}, [{at}];").replace("global", space)
    body.add(line.format(r=value, at=at, h=body.new("h") if "{h}" in line else "", t=body.new("r")))
    return value


def store(body: Body, dtype: Dtype, at: str, value: str, space: str = "global") -> None:
    line = _STORE.get(dtype, "st.global.b32 [{at}], {r};").replace("global", space)
    body.add(line.format(r=value, at=at, t=body.new("r"), h=body.new("h") if "{h}" in line else "", p=body.new("p")))


def compute(body: Body, scalar: ScalarProgram, inputs: Sequence[str]) -> list[str]:
    """The registers of a scalar program's outputs."""
    values = list(inputs)
    for c in scalar.constants:
        boolean = c.reg is Reg.boolean
        values.append(body.new("p" if boolean else "r"))
        body.add(f"setp.ne.u32 {values[-1]}, {c.bits}, 0" if boolean else f"mov.b32 {values[-1]}, {c.bits}")
    for i in scalar.code:
        values.append(apply(body, i.op, [values[v] for v in i.args]))
    return [values[v] for v in scalar.outputs]


def apply(body: Body, operation: str, args: Sequence[str]) -> str:
    """The register of an operation's result."""
    line = TABLE[operation]
    names = dict(zip("abc", args, strict=False))
    for scratch, kind in (("t0", "r"), ("t1", "r"), ("p0", "p"), ("p1", "p"), ("p2", "p")):
        if f"{{{scratch}}}" in line:
            names[scratch] = body.new(kind)
    result = body.new("p" if OPERATIONS[operation].result is Reg.boolean else "r")
    body.add(line.format(r=result, **names))
    return result

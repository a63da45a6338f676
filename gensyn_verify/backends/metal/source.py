"""A scalar program as the source of a Metal kernel: maps (one element a thread) and scans (one series a thread).

The source is made of this file's templates, the functions of kernels/metal/common.metal and integers; no text of a
program's author enters it. Every register is a `uint`, whatever its type.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from gensyn_verify.backends.device.plan import Map, Operand, Scan, collapse
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype

FILES = ("common", "dot", "reduce", "move", "random", "sort", "blake3")
INT32_ELEMENTS = 1 << 31

_FLOAT = {
    "add": "add({0}, {1}, risky)", "sub": "subtract({0}, {1}, risky)", "mul": "multiply({0}, {1}, risky)",
    "div": "divide({0}, {1}, risky)", "sqrt": "root({0}, risky)", "fma": "multiply_add({0}, {1}, {2}, risky)",
    "min": "minimum({0}, {1})", "max": "maximum({0}, {1})", "neg": "{0} ^ SIGN", "abs": "{0} & ~SIGN",
    "eq": "equal({0}, {1})", "lt": "less({0}, {1})", "le": "less_equal({0}, {1})",
}  # fmt: skip
_INTEGER = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "mulhi": "high_TYPE({0}, {1})",
    "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "not": "~{0}", "shl": "{0} << ({1} & 31)",
}  # fmt: skip
_ORDER = {  # of integers as they are, or with the sign's bit flipped
    "min": "({A}) < ({B}) ? {0} : {1}", "max": "({A}) > ({B}) ? {0} : {1}", "eq": "{0} == {1}", "lt": "({A}) < ({B})",
    "le": "({A}) <= ({B})",
}  # fmt: skip
_FLIP = {"i32": ("{0} ^ SIGN", "{1} ^ SIGN"), "u32": ("{0}", "{1}")}
EXPRESSIONS = {
    **{f"{name}.f32": text for name, text in _FLOAT.items()},
    **{f"{name}.{t}": text.replace("TYPE", t) for t in _FLIP for name, text in _INTEGER.items()},
    **{
        f"{name}.{t}": text.replace("{A}", a).replace("{B}", b)
        for t, (a, b) in _FLIP.items()
        for name, text in _ORDER.items()
    },
    "shr.i32": "shift_right_i32({0}, {1})",
    "shr.u32": "{0} >> ({1} & 31)",
    **{f"{name}.boolean": _INTEGER[name] for name in ("and", "or", "xor")},
    "not.boolean": "{0} ^ 1",
    **{f"select.{reg}": "{0} ? {1} : {2}" for reg in ("f32", "i32", "u32", "boolean")},
    "f32_to_i32": "to_i32({0})",
    "f32_to_u32": "to_u32({0})",
    "i32_to_f32": "from_i32({0})",
    "u32_to_f32": "from_u32({0})",
    "f32_bits_to_u32": "canonical({0})",
    **dict.fromkeys(("boolean_to_u32", "u32_bits_to_f32", "i32_bits_to_u32", "u32_bits_to_i32"), "{0}"),
}


@cache
def common() -> str:
    """What every source begins with."""
    return (files("gensyn_verify") / "kernels" / "metal" / "common.metal").read_text()


@cache
def kernels() -> str:
    """One source with the kernels of every node kind that needs no scalar program."""
    folder = files("gensyn_verify") / "kernels" / "metal"
    return "\n".join((folder / f"{name}.metal").read_text() for name in FILES)


@dataclass(frozen=True)
class Arrangement:
    """What the kernel of a map or scan depends on. `shape` is collapsed; `steps` is the length of a scan, or None."""

    scalar: ScalarProgram
    shape: tuple[int, ...]
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    wide: bool  # places need 64 bits
    scan: bool

    def source(self, name: str) -> str:
        """A kernel of this name. It is given: elements (series), steps, the flag, every input, every output."""
        lines = self._scan() if self.scan else self._map()
        index = "long" if self.wide else "int"
        body = "\n".join(f"        {line}" for line in lines)
        return (
            f"GV_KERNEL({name}) {{\n    using namespace gv;\n    typedef {index} Index;\n    bool risky = false;\n"
            "    for (Index e = Index(GV_THREAD); e < Index(given[0]); e += Index(GV_THREADS)) {\n"
            f"{body}\n    }}\n    if (risky) raise(arena, given[2]);\n}}\n"
        )

    def _map(self) -> list[str]:
        lines = [f"const uint v{i} = {self._load(i)};" for i in range(len(self.inputs))]
        return lines + self._program() + [self._store(i) for i in range(len(self.outputs))]

    def _scan(self) -> list[str]:
        """`s0, s1, ...` are the carried elements as they are stored."""
        carried = len(self.outputs)
        lines = [f"uint s{i} = {self._get(i)};" for i in range(carried)]
        body = [f"const uint v{i} = {_widen(f's{i}', self.inputs[i].dtype)};" for i in range(carried)]
        body += [f"const uint v{i} = {self._load(i)};" for i in range(carried, len(self.inputs))]
        body += self._program()
        for i, (y, v) in enumerate(zip(self.outputs, self.scalar.outputs, strict=True)):
            body.append(f"s{i} = {_narrow(f'v{v}', y.dtype)};")
        body += [self._put(i, f"s{i}") for i in range(carried)]
        return [*lines, "for (Index t = 0; t < Index(given[1]); t++) {", *(f"    {line}" for line in body), "}"]

    def _program(self) -> list[str]:
        first = len(self.inputs)
        lines = [f"const uint v{first + i} = {c.bits:#x}u;" for i, c in enumerate(self.scalar.constants)]
        first += len(self.scalar.constants)
        for i, instruction in enumerate(self.scalar.code):
            text = EXPRESSIONS[instruction.op].format(*(f"v{a}" for a in instruction.args))
            lines.append(f"const uint v{first + i} = {text};")
        return lines

    def _place(self, x: Operand) -> str:
        """The element of `x` at position e of `shape`, row-major; the first axis is as long as it is."""
        terms, rest = [], "e"
        for axis in range(len(self.shape) - 1, -1, -1):
            d = self.shape[axis]
            if x.strides[axis]:
                here = rest if axis == 0 else f"{rest} % {d}"
                terms.append(f"({here}) * Index({x.strides[axis]})")
            rest = f"{rest} / {d}" if rest == "e" else f"({rest}) / {d}"
        if x.step:
            terms.append(f"t * Index({x.step})")
        return " + ".join(terms) or "0"

    def _get(self, i: int) -> str:
        x = self.inputs[i]
        return f"get(arena + given[{3 + i}], {self._place(x)}, {x.dtype.size})"

    def _load(self, i: int) -> str:
        return _widen(self._get(i), self.inputs[i].dtype)

    def _put(self, i: int, stored: str) -> str:
        y = self.outputs[i]
        return f"put(arena + given[{3 + len(self.inputs) + i}], {self._place(y)}, {y.dtype.size}, {stored});"

    def _store(self, i: int) -> str:
        return self._put(i, _narrow(f"v{self.scalar.outputs[i]}", self.outputs[i].dtype))


def _widen(stored: str, dtype: Dtype) -> str:
    """`stored` may have more bits than the dtype: a carried element of 8 bits is its register (_narrow)."""
    texts = {
        Dtype.bf16: f"{stored} << 16", Dtype.f16: f"widen_f16({stored})", Dtype.u8: f"{stored} & 0xFF",
        Dtype.i8: f"widen_i8({stored})",
    }  # fmt: skip
    return texts.get(dtype, stored)


def _narrow(x: str, dtype: Dtype) -> str:
    texts = {Dtype.f32: f"canonical({x})", Dtype.bf16: f"narrow_bf16({x})", Dtype.f16: f"narrow_f16({x})"}
    return texts.get(dtype, x)


def arrange(call: Map | Scan, scalar: ScalarProgram, threads: int) -> tuple[Arrangement, int]:
    """The arrangement of a call, and its number of elements (series). `threads`: the most that run at once.

    Arrangements that differ only in the length of their first axis are equal.
    """
    scan = isinstance(call, Scan)
    carried = len(call.outputs) if scan else 0
    views = [*call.inputs, *call.outputs]
    shape = call.shape[1:] if scan else call.shape
    steps = [v.strides[0] if scan and i >= carried else 0 for i, v in enumerate(views)]
    strides = [v.strides[1:] if scan and i >= carried else v.strides for i, v in enumerate(views)]
    shape, strides = collapse(shape, strides)
    count = 1
    for d in shape:
        count *= d
    last = call.shape[0] - 1 if scan else 0
    reach = [
        sum(abs(s) * (d - 1) for s, d in zip(x, shape, strict=True)) + abs(step) * last
        for x, step in zip(strides, steps, strict=True)
    ]
    operands = tuple(Operand(v.dtype, s, t) for v, s, t in zip(views, strides, steps, strict=True))
    n = len(call.inputs)
    wide = max([count + threads, last + 1, *reach]) >= INT32_ELEMENTS
    return Arrangement(scalar, (0, *shape[1:]), operands[:n], operands[n:], wide, scan), count

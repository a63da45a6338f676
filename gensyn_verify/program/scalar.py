"""Scalar programs: straight-line SSA over 32-bit registers. The meaning of `map`, one element at a time.

A program has typed inputs, a constant pool, instructions and outputs. Values are numbered in that order: inputs
first, then constants, then one value an instruction. An instruction names its operation and the values it reads,
all numbered below its own. There are no branches and no memory.

`OPERATIONS` is the whole machine. What an operation computes, bit for bit, is written in
`gensyn_verify.backends.reference`; prose and reasons are in docs/numerics.md.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property

from gensyn_verify.errors import LimitError, ProgramError
from gensyn_verify.program.types import Reg

MAX_INPUTS = 64
MAX_OUTPUTS = 16
MAX_INSTRUCTIONS = 4096

_F, _I, _U, _B = Reg.f32, Reg.i32, Reg.u32, Reg.boolean


@dataclass(frozen=True)
class Operation:
    """An operation: its name, its byte in canonical bytes, operand types and result type."""

    name: str
    code: int
    operands: tuple[Reg, ...]
    result: Reg


def _operations() -> dict[str, Operation]:
    table: list[tuple[str, tuple[Reg, ...], Reg]] = [
        *[(f"{n}.f32", (_F, _F), _F) for n in ("add", "sub", "mul", "div", "min", "max")],
        *[(f"{n}.f32", (_F,), _F) for n in ("sqrt", "neg", "abs")],
        ("fma.f32", (_F, _F, _F), _F),
        *[(f"{n}.f32", (_F, _F), _B) for n in ("eq", "lt", "le")],
    ]
    for t in (_I, _U):
        table += [(f"{n}.{t.name}", (t, t), t) for n in ("add", "sub", "mul", "mulhi", "min", "max")]
        table += [(f"{n}.{t.name}", (t, t), t) for n in ("and", "or", "xor")]
        table += [(f"not.{t.name}", (t,), t)]
        table += [(f"{n}.{t.name}", (t, _U), t) for n in ("shl", "shr")]
        table += [(f"{n}.{t.name}", (t, t), _B) for n in ("eq", "lt", "le")]
    table += [(f"{n}.boolean", (_B, _B), _B) for n in ("and", "or", "xor")]
    table += [("not.boolean", (_B,), _B)]
    table += [(f"select.{t.name}", (_B, t, t), t) for t in Reg]
    table += [
        ("f32_to_i32", (_F,), _I),
        ("f32_to_u32", (_F,), _U),
        ("i32_to_f32", (_I,), _F),
        ("u32_to_f32", (_U,), _F),
        ("boolean_to_u32", (_B,), _U),
        ("f32_bits_to_u32", (_F,), _U),
        ("u32_bits_to_f32", (_U,), _F),
        ("i32_bits_to_u32", (_I,), _U),
        ("u32_bits_to_i32", (_U,), _I),
    ]
    return {name: Operation(name, code, operands, result) for code, (name, operands, result) in enumerate(table)}


OPERATIONS = _operations()
BY_CODE = {op.code: op for op in OPERATIONS.values()}


@dataclass(frozen=True)
class Constant:
    """A literal: a register type and its 32 bits (booleans: 0 or 1; NaN only as 0x7FC00000)."""

    reg: Reg
    bits: int


@dataclass(frozen=True)
class Instruction:
    op: str
    args: tuple[int, ...]


@dataclass(frozen=True)
class ScalarProgram:
    """A validated scalar program; `outputs` are value numbers."""

    inputs: tuple[Reg, ...]
    constants: tuple[Constant, ...]
    code: tuple[Instruction, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        self.validate()

    @cached_property
    def value_types(self) -> tuple[Reg, ...]:
        """The register type of every value, in value order."""
        return (*self.inputs, *(c.reg for c in self.constants), *(OPERATIONS[i.op].result for i in self.code))

    @cached_property
    def output_types(self) -> tuple[Reg, ...]:
        types = self.value_types
        return tuple(types[v] for v in self.outputs)

    def validate(self) -> None:
        """Raise ProgramError naming the instruction that breaks a rule, LimitError for a size."""
        for what, items, limit in (
            ("inputs", self.inputs, MAX_INPUTS),
            ("instructions and constants", self.code + self.constants, MAX_INSTRUCTIONS),
            ("outputs", self.outputs, MAX_OUTPUTS),
        ):
            if len(items) > limit:
                raise LimitError(f"scalar program has {len(items)} {what}; the limit is {limit}")
        if not self.outputs:
            raise ProgramError("scalar program has no outputs")
        for n, constant in enumerate(self.constants):
            top = 1 if constant.reg is Reg.boolean else 0xFFFFFFFF
            if not 0 <= constant.bits <= top:
                raise ProgramError(f"constant {n} has bits {constant.bits:#x}, outside 0 to {top:#x}")
            if constant.reg is Reg.f32 and (constant.bits & 0x7FFFFFFF) > 0x7F800000 and constant.bits != 0x7FC00000:
                raise ProgramError(f"constant {n} is the NaN {constant.bits:#010x}; the only NaN is 0x7fc00000")
        if list(self.constants) != sorted(set(self.constants), key=lambda c: (c.reg, c.bits)):
            raise ProgramError("constants are not sorted by (type, bits) without repetition")
        types: list[Reg] = [*self.inputs, *(c.reg for c in self.constants)]
        for n, instruction in enumerate(self.code):
            op = OPERATIONS.get(instruction.op)
            if op is None:
                raise ProgramError(f"instruction {n}: unknown operation {instruction.op!r}")
            if len(instruction.args) != len(op.operands):
                raise ProgramError(
                    f"instruction {n} ({op.name}): {len(op.operands)} operands expected, {len(instruction.args)} found"
                )
            for arg, wanted in zip(instruction.args, op.operands, strict=True):
                if not 0 <= arg < len(types):
                    raise ProgramError(
                        f"instruction {n} ({op.name}): reads value {arg}; only 0 to {len(types) - 1} exist before it"
                    )
                if types[arg] is not wanted:
                    raise ProgramError(
                        f"instruction {n} ({op.name}): value {arg} is {types[arg].name}, expected {wanted.name}"
                    )
            types.append(op.result)
        for arg in self.outputs:
            if not 0 <= arg < len(types):
                raise ProgramError(f"output reads value {arg}; only 0 to {len(types) - 1} exist")


def f32_bits(x: float) -> int:
    """The bits of `x` rounded to binary32, to nearest even; overflow gives an infinity, NaN the canonical one."""
    if math.isnan(x):
        return 0x7FC00000
    try:
        return int(struct.unpack("<I", struct.pack("<f", x))[0])
    except OverflowError:
        return 0xFF800000 if x < 0 else 0x7F800000


def bits_f32(bits: int) -> float:
    """The binary32 with these bits, as a Python float."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


@dataclass(frozen=True, eq=False)
class Scalar:
    """A value under construction. Operators give one instruction each and never fuse: `a * b + c` rounds twice."""

    builder: ScalarBuilder
    key: int | Constant  # index of an input (as ~index) or instruction, or a literal
    reg: Reg

    def _two(self, name: str, other: Operand, swap: bool = False) -> Scalar:
        b = self.builder.literal(other, self.reg)
        return self.builder.emit(f"{name}.{self.reg.name}", *((b, self) if swap else (self, b)))

    def __add__(self, o: Operand) -> Scalar:
        return self._two("add", o)

    def __radd__(self, o: Operand) -> Scalar:
        return self._two("add", o, True)

    def __sub__(self, o: Operand) -> Scalar:
        return self._two("sub", o)

    def __rsub__(self, o: Operand) -> Scalar:
        return self._two("sub", o, True)

    def __mul__(self, o: Operand) -> Scalar:
        return self._two("mul", o)

    def __rmul__(self, o: Operand) -> Scalar:
        return self._two("mul", o, True)

    def __truediv__(self, o: Operand) -> Scalar:
        return self._two("div", o)

    def __rtruediv__(self, o: Operand) -> Scalar:
        return self._two("div", o, True)

    def __and__(self, o: Operand) -> Scalar:
        return self._two("and", o)

    def __or__(self, o: Operand) -> Scalar:
        return self._two("or", o)

    def __xor__(self, o: Operand) -> Scalar:
        return self._two("xor", o)

    def __invert__(self) -> Scalar:
        return self.builder.emit(f"not.{self.reg.name}", self)

    def __lshift__(self, o: Operand) -> Scalar:
        return self.builder.emit(f"shl.{self.reg.name}", self, self.builder.literal(o, Reg.u32))

    def __rshift__(self, o: Operand) -> Scalar:
        return self.builder.emit(f"shr.{self.reg.name}", self, self.builder.literal(o, Reg.u32))

    def __neg__(self) -> Scalar:
        return self.builder.emit("neg.f32", self)

    def __lt__(self, o: Operand) -> Scalar:
        return self._two("lt", o)

    def __le__(self, o: Operand) -> Scalar:
        return self._two("le", o)

    def __gt__(self, o: Operand) -> Scalar:
        return self._two("lt", o, True)

    def __ge__(self, o: Operand) -> Scalar:
        return self._two("le", o, True)

    def equals(self, o: Operand) -> Scalar:
        return self._two("eq", o)

    def mulhi(self, o: Operand) -> Scalar:
        return self._two("mulhi", o)

    def min(self, o: Operand) -> Scalar:
        return self._two("min", o)

    def max(self, o: Operand) -> Scalar:
        return self._two("max", o)

    def abs(self) -> Scalar:
        return self.builder.emit("abs.f32", self)

    def sqrt(self) -> Scalar:
        return self.builder.emit("sqrt.f32", self)

    def to(self, reg: Reg) -> Scalar:
        """Convert by value: float -> integer truncates and saturates, NaN -> 0; integer -> float rounds to even."""
        if reg is self.reg:
            return self
        if self.reg is Reg.boolean and reg is not Reg.u32:
            return self.to(Reg.u32).to(reg)
        if {self.reg, reg} == {Reg.i32, Reg.u32}:
            return self.bits(reg)
        if reg is Reg.boolean:
            return ~self.equals(0)
        return self.builder.emit(f"{self.reg.name}_to_{reg.name}", self)

    def bits(self, reg: Reg) -> Scalar:
        """Reinterpret the 32 bits as another type."""
        if reg is self.reg:
            return self
        if {self.reg, reg} == {Reg.f32, Reg.i32}:
            return self.bits(Reg.u32).bits(reg)
        return self.builder.emit(f"{self.reg.name}_bits_to_{reg.name}", self)


Operand = Scalar | float | int


class ScalarBuilder:
    """Writes a scalar program; equal instructions on equal values are one instruction.

    >>> b = ScalarBuilder()
    >>> x, y = b.input(Reg.f32), b.input(Reg.f32)
    >>> program = b.build(b.fma(x, y, 1.0))
    """

    def __init__(self) -> None:
        self._inputs: list[Reg] = []
        self._code: list[tuple[str, tuple[Scalar, ...]]] = []
        self._seen: dict[tuple[str, tuple[int | Constant, ...]], Scalar] = {}

    def input(self, reg: Reg = Reg.f32) -> Scalar:
        self._inputs.append(reg)
        return Scalar(self, ~(len(self._inputs) - 1), reg)

    def literal(self, x: Operand, reg: Reg = Reg.f32) -> Scalar:
        """A constant of type `reg`; a Python float rounds once to binary32."""
        if isinstance(x, Scalar):
            return x
        if reg is Reg.f32:
            bits = f32_bits(float(x))
        else:
            if not isinstance(x, int):
                raise ProgramError(f"literal {x!r} is not a {reg.name}")
            bits = int(x) & 0xFFFFFFFF
        return Scalar(self, Constant(reg, bits), reg)

    def emit(self, name: str, *args: Scalar) -> Scalar:
        op = OPERATIONS.get(name)
        if op is None:
            raise ProgramError(f"unknown operation {name!r}")
        if tuple(a.reg for a in args) != op.operands:
            raise ProgramError(f"{name} takes {[r.name for r in op.operands]}, found {[a.reg.name for a in args]}")
        key = (name, tuple(a.key for a in args))
        if key not in self._seen:
            self._seen[key] = Scalar(self, len(self._code), op.result)
            self._code.append((name, args))
        return self._seen[key]

    def fma(self, a: Operand, b: Operand, c: Operand) -> Scalar:
        """a * b + c with one rounding."""
        return self.emit("fma.f32", self.literal(a), self.literal(b), self.literal(c))

    def select(self, condition: Scalar, a: Operand, b: Operand) -> Scalar:
        """`a` where the condition holds, else `b`; at least one of the two is a Scalar."""
        reg = a.reg if isinstance(a, Scalar) else b.reg if isinstance(b, Scalar) else Reg.f32
        return self.emit(f"select.{reg.name}", condition, self.literal(a, reg), self.literal(b, reg))

    def build(self, *outputs: Operand) -> ScalarProgram:
        """The program that computes `outputs`; instructions that no output needs are left out."""
        wanted = [self.literal(o) for o in outputs]
        needed: set[int] = set()
        literals: set[Constant] = set()
        stack = [s.key for s in wanted]
        while stack:
            key = stack.pop()
            if isinstance(key, Constant):
                literals.add(key)
            elif key >= 0 and key not in needed:
                needed.add(key)
                stack.extend(a.key for a in self._code[key][1])
        constants = sorted(literals, key=lambda c: (c.reg, c.bits))
        number: dict[int | Constant, int] = {~i: i for i in range(len(self._inputs))}
        for c in constants:
            number[c] = len(number)
        code = []
        for n in sorted(needed):
            name, args = self._code[n]
            code.append(Instruction(name, tuple(number[a.key] for a in args)))
            number[n] = len(number)
        return ScalarProgram(tuple(self._inputs), tuple(constants), tuple(code), tuple(number[s.key] for s in wanted))

"""What a lowering rule works with: the builder, the types that its results must have, constants, common steps.

A rule gets a `Context` and the arguments of one ATen call, where a tensor is a `Value` (computed by the program) or a
real `torch.Tensor` (known at capture). It returns a Value, a real tensor, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.tensors import I32_MAX, I32_MIN, tensor_type, to_array
from gensyn_verify.program import Dtype, ProgramBuilder, Reg, Scalar, TensorType, Value

Number = float | int | bool
Operand = Value | Tensor | Number
ScalarFunction = Callable[..., Any]


class Builder(ProgramBuilder):
    """A ProgramBuilder that writes chains of reshapes or permutations as one, and nothing where they cancel."""

    def __init__(self) -> None:
        super().__init__()
        self._reshaped: dict[tuple[int, int], Value] = {}
        self._permuted: dict[tuple[int, int], tuple[Value, tuple[int, ...]]] = {}

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        source = self._reshaped.get(x.key, x)
        out = super().reshape(source, shape)
        if out.key != source.key:
            self._reshaped[out.key] = source
        return out

    def permute(self, x: Value, axes: Sequence[int]) -> Value:
        source, before = self._permuted.get(x.key, (x, tuple(range(len(x.shape)))))
        joined = tuple(before[a] for a in axes)
        out = super().permute(source, joined)
        if out.key != source.key:
            self._permuted[out.key] = source, joined
        return out

    def matrix(self, x: Value) -> tuple[Value, bool]:
        """`x`, or what it is the transpose of (the last two axes swapped), and whether it is one."""
        rank = len(x.shape)
        source, axes = self._permuted.get(x.key, (x, ()))
        swapped = rank >= 2 and axes == (*range(rank - 2), rank - 1, rank - 2)
        return (source, True) if swapped else (x, False)


class Context:
    """The state of one lowering.

    Of the ATen call being lowered, `types` are the result types, and `memory` says where its first operand lies in
    PyTorch: the offset of the first element and the strides.
    """

    def __init__(self, g: Builder, step: Value, seed: int) -> None:
        self.g = g
        self.types: tuple[TensorType, ...] = ()
        self.memory: tuple[int, Sequence[int]] = 0, ()
        self.added_state: dict[str, Array] = {}
        self._step = step
        self._seed_words = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
        self._seed: Value | None = None
        self._constants: dict[tuple[TensorType, bytes], Value] = {}

    @property
    def type(self) -> TensorType:
        """The type of the first result."""
        return self.types[0]

    # ---- operands ---------------------------------------------------------------------------------------------

    def value(self, x: Operand, dtype: Dtype | None = None) -> Value:
        """`x` as a Value: a real tensor becomes a constant, a number a tensor without axes."""
        if isinstance(x, Value):
            return x
        if isinstance(x, Tensor):
            return self.constant(x)
        return self.g.full((), x, dtype or self.type.dtype)

    def constant(self, tensor: Tensor) -> Value:
        """A real tensor: one literal repeated, else a state entry `constant.N` that no step changes."""
        kind = tensor_type(tensor)
        if kind.elements and bool((tensor == tensor.reshape(-1)[0]).all()):
            first = tensor.reshape(-1)[0]
            if not (first == 0 and tensor.is_floating_point() and bool((tensor.signbit() != first.signbit()).any())):
                return self.g.full(kind.shape, self.number(first.item()), kind.dtype)
        array = to_array(tensor, "a constant")
        key = (kind, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._new_state(f"constant.{len(self._constants)}", kind, array)
        return self._constants[key]

    def indices(self, numbers: Sequence[int] | Array, shape: Sequence[int] | None = None) -> Value:
        """Integers known at capture, as i32."""
        tensor = torch.as_tensor(np.asarray(numbers, np.int64))
        return self.constant(tensor if shape is None else tensor.reshape(tuple(shape)))

    def number(self, x: Number) -> Number:
        """`x` if a program can hold it."""
        if isinstance(x, int) and not isinstance(x, bool) and not I32_MIN <= x <= I32_MAX:
            raise CaptureError(f"the integer {x} is outside of int32, in which integer arithmetic is done")
        return x

    def _new_state(self, name: str, kind: TensorType, array: Array) -> Value:
        value = self.g.input("state", name, kind)
        self.g.output("state", name, value)
        self.added_state[name] = array
        return value

    # ---- elementwise ------------------------------------------------------------------------------------------

    def elementwise(self, f: ScalarFunction, *args: Operand, compute: Reg | None = None, result: int = 0) -> Value:
        """`f` over Scalars, one an argument, all of register type `compute` (the result's own, if not given).

        Numbers become literals, rounded once to binary32. The result has type `types[result]`.
        """
        out = self.types[result]
        return self.map(f, *args, out=out, compute=compute)

    def map(self, f: ScalarFunction, *args: Operand, out: TensorType, compute: Reg | None = None) -> Value:
        """`elementwise` with an explicit result type."""
        reg = out.dtype.reg if compute is None else compute
        args = tuple(a.item() if isinstance(a, Tensor) and a.dim() == 0 else a for a in args)
        args = tuple(self.value(a) if isinstance(a, Tensor) else a for a in args)
        values = [a for a in args if isinstance(a, Value)]
        if not values:
            values = [self.g.full((), self.number(args[0]), Dtype[reg.name])]  # type: ignore[arg-type]
            args = (values[0], *args[1:])

        def program(*scalars: Scalar) -> Scalar:
            loaded = iter(scalars)
            operands = [
                next(loaded).to(reg) if isinstance(a, Value) else scalars[0].builder.literal(self._literal(a, reg), reg)
                for a in args
            ]
            b = scalars[0].builder
            result = f(*operands)
            return (result if isinstance(result, Scalar) else b.literal(result, out.dtype.reg)).to(out.dtype.reg)

        return self.g.map(program, *values, shape=out.shape, dtype=out.dtype)

    def _literal(self, x: Any, reg: Reg) -> Number:
        if reg is Reg.f32:
            return float(x)
        if isinstance(x, float):
            if not x.is_integer():
                raise CaptureError(f"the number {x} meets an integer tensor")
            x = int(x)
        return self.number(int(x))

    def promoted(self, *args: Operand) -> Reg:
        """The register type in which operands of different types meet: f32 before i32 (which also holds booleans)."""

        def is_float(a: Operand) -> bool:
            if isinstance(a, Tensor):
                return a.is_floating_point()
            return a.dtype.is_float if isinstance(a, Value) else isinstance(a, float)

        return Reg.f32 if any(map(is_float, args)) else Reg.i32

    def cast(self, x: Operand, dtype: Dtype) -> Value:
        """`x` stored as `dtype`."""
        x = self.value(x)
        return x if x.dtype is dtype else self.map(lambda v: v, x, out=TensorType(dtype, x.shape), compute=x.dtype.reg)

    # ---- common steps -----------------------------------------------------------------------------------------

    def dot(self, a: Value, b: Value, dtype: Dtype = Dtype.f32) -> Value:
        """Matrix product; an operand that is the transpose of a value is read in place."""
        (a, transpose_a), (b, transpose_b) = self.g.matrix(a), self.g.matrix(b)
        return self.g.dot(a, b, transpose_a, transpose_b, dtype)

    def sum(self, x: Operand, axes: Sequence[int], keepdims: bool = False) -> Value:
        """Sum over `axes` in the order of reduce: floats in f32, everything else in i32."""
        x = self.value(x)
        if not x.dtype.is_float:
            x = self.cast(x, Dtype.i32)
        if not axes:
            return self.cast(x, Dtype[x.dtype.reg.name])
        return self.g.reduce("sum", x, axes, keepdims)

    def pad_or_crop(
        self, x: Value, low: Sequence[int], high: Sequence[int], interior: Sequence[int] | None = None, fill: int = 0
    ) -> Value:
        """`Pad` over the last axes, where a negative number cuts instead."""
        lead = len(x.shape) - len(low)
        low, high = [0] * lead + list(low), [0] * lead + list(high)
        inside = [0] * lead + list(interior or [0] * (len(low) - lead))
        x = self.g.pad(x, [max(n, 0) for n in low], [max(n, 0) for n in high], inside, fill)
        shape = [d + min(lo, 0) + min(hi, 0) for d, lo, hi in zip(x.shape, low, high, strict=True)]
        return self.g.slice(x, [max(-n, 0) for n in low], shape)

    def moved(self, x: Value, axis: int, to: int) -> Value:
        """x with one axis at another place; the others keep their order."""
        rank = len(x.shape)
        axes = [a for a in range(rank) if a != axis % rank]
        axes.insert(to % rank, axis % rank)
        return self.g.permute(x, axes)

    def repeated(self, x: Value, times: Sequence[int]) -> Value:
        """Each element of the last axes repeated: times[0] times along the first of them, and so on."""
        lead, size = x.shape[: -len(times)], x.shape[-len(times) :]
        once = [n for d in size for n in (d, 1)]
        wide = [n for pair in zip(size, times, strict=True) for n in pair]
        spread = self.g.broadcast(self.g.reshape(x, (*lead, *once)), (*lead, *wide))
        return self.g.reshape(spread, (*lead, *(d * t for d, t in zip(size, times, strict=True))))

    def random_words(self, shape: Sequence[int]) -> Value:
        """Fresh u32 words that depend on the seed and the step alone."""
        if self._seed is None:
            self._seed = self._new_state("seed", TensorType(Dtype.u32, (2,)), self._seed_words)
        return self.g.random(self._seed, self._step, shape)


def nan_of(b: Any) -> Scalar:
    """The NaN as a literal."""
    literal = b.literal(float("nan"))
    assert isinstance(literal, Scalar)
    return literal


def axes_of(dim: Any, rank: int) -> tuple[int, ...]:
    """ATen's dim argument as ascending axes: None and [] are all, negative numbers count from the end."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(rank))
    dims = dim if isinstance(dim, (list, tuple)) else [dim]
    return tuple(sorted(d % rank for d in dims)) if rank else ()

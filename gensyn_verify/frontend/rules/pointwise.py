"""Elementwise rules: each is one scalar expression."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand, ScalarFunction, nan_of
from gensyn_verify.program import Reg, Scalar, Value, activations, functions, rounding

Rule = Callable[..., Any]


def pointwise(f: ScalarFunction) -> Rule:
    """`f` in the register type of the result."""
    return lambda c, *args: c.elementwise(f, *args)


def comparison(f: ScalarFunction) -> Rule:
    """`f` in the type in which both sides meet; the result is boolean."""
    return lambda c, x, y: c.elementwise(f, x, y, compute=c.promoted(x, y))


def add(c: Context, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    """x + alpha y; with an alpha other than 1 fused, as the kernels of PyTorch do it."""
    if c.type.dtype.reg is Reg.boolean:
        return c.elementwise(lambda x, y: x | y, x, y)
    if alpha == 1:
        return c.elementwise(lambda x, y: x + y, x, y)
    if c.type.dtype.is_float:
        return c.elementwise(lambda x, y: x.builder.fma(alpha, y, x), x, y)
    return c.elementwise(lambda x, y: x + y * alpha, x, y)


def sub(c: Context, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    if alpha == 1:
        return c.elementwise(lambda x, y: x - y, x, y)
    return add(c, x, y, -alpha)


def rsub(c: Context, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return sub(c, y, x, alpha)


def mul(c: Context, x: Operand, y: Operand) -> Value:
    boolean = c.type.dtype.reg is Reg.boolean
    return c.elementwise((lambda x, y: x & y) if boolean else (lambda x, y: x * y), x, y)


def div(c: Context, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    """Quotient of floats; with a rounding mode rounded to an integer, for integers too."""
    if rounding_mode is None:
        return c.elementwise(lambda x, y: x / y, x, y)
    return c.elementwise(rounding.floor_div if rounding_mode == "floor" else rounding.trunc_div, x, y)


def addcmul(c: Context, x: Operand, a: Operand, b: Operand, value: Number = 1) -> Value:
    return c.elementwise(lambda x, a, b: x.builder.fma(a * value if value != 1 else a, b, x), x, a, b)


def addcdiv(c: Context, x: Operand, a: Operand, b: Operand, value: Number = 1) -> Value:
    return c.elementwise(lambda x, a, b: x + (a * value if value != 1 else a) / b, x, a, b)


def lerp(c: Context, x: Operand, y: Operand, weight: Operand) -> Value:
    """x + w (y - x), from the nearer end."""

    def f(x: Scalar, y: Scalar, w: Scalar) -> Scalar:
        b = x.builder
        return b.select(w.abs() < 0.5, b.fma(w, y - x, x), b.fma(1.0 - w, x - y, y))

    return c.elementwise(f, x, y, weight)


def power(c: Context, x: Operand, exponent: Operand) -> Value:
    """Integer powers by repeated multiplication up to 64, halves by a square root, all others by `functions.pow`."""
    if isinstance(exponent, Tensor) and exponent.dim() == 0:
        exponent = exponent.item()
    doubled = exponent * 2 if isinstance(exponent, (int, float)) else math.nan
    if not float(doubled).is_integer() or abs(doubled) > 128:
        if not c.type.dtype.is_float:
            raise CaptureError("integers to the power of a tensor or of a large number are not supported")
        return c.elementwise(functions.pow, x, exponent)
    if not c.type.dtype.is_float and doubled < 0:
        raise CaptureError(f"integers to the power {exponent} are not supported")
    whole, half = divmod(abs(int(doubled)), 2)

    def f(x: Scalar) -> Scalar | float | int:
        power: Any = None
        square = x
        for bit in bin(whole)[:1:-1]:
            if bit == "1":
                power = square if power is None else power * square
            square = square * square
        if half:
            power = x.sqrt() if power is None else power * x.sqrt()
        if power is None:
            return 1
        result: Scalar = 1.0 / power if doubled < 0 else power
        return result

    return c.elementwise(f, x)


def clamp(c: Context, x: Operand, low: Operand | None = None, high: Operand | None = None) -> Value:
    """min(max(x, low), high); NaN stays NaN."""
    bounds = [b for b in (low, high) if b is not None]

    def f(x: Scalar, *given: Scalar) -> Scalar:
        rest = iter(given)
        if low is not None:
            x = x.max(next(rest))
        return x.min(next(rest)) if high is not None else x

    return c.elementwise(f, x, *bounds)


def clamp_min(c: Context, x: Operand, low: Operand) -> Value:
    return clamp(c, x, low)


def clamp_max(c: Context, x: Operand, high: Operand) -> Value:
    return clamp(c, x, None, high)


def where(c: Context, condition: Operand, x: Operand, y: Operand) -> Value:
    condition = c.value(condition)
    regs = c.type.dtype.reg

    def f(flag: Scalar, x: Scalar, y: Scalar) -> Scalar:
        return flag.builder.select(flag.to(Reg.boolean), x.to(regs), y.to(regs))

    x, y = (v if isinstance(v, Value) else c.value(v, c.type.dtype) for v in (x, y))
    return c.g.map(f, condition, x, y, shape=c.type.shape, dtype=c.type.dtype)


def masked_fill(c: Context, x: Operand, mask: Operand, fill: Operand) -> Value:
    return where(c, mask, fill, x)


def sign(x: Scalar) -> Scalar:
    if x.reg is not Reg.f32:
        zero = x.builder.literal(0, x.reg)
        one, minus = x.builder.literal(1, x.reg), x.builder.literal(-1, x.reg)
        return x.builder.select(x < 0, minus, x.builder.select(x.equals(0), zero, one))
    b = x.builder
    return b.select(x > 0.0, 1.0, b.select(x < 0.0, -1.0, b.select(x.equals(0.0), 0.0, x)))


def absolute(x: Scalar) -> Scalar:
    return x.abs() if x.reg is Reg.f32 else x.max(0 - x)


def negate(x: Scalar) -> Scalar:
    return -x if x.reg is Reg.f32 else 0 - x


def logical_xor(c: Context, x: Operand, y: Operand) -> Value:
    return c.elementwise(lambda x, y: x ^ y, x, y, compute=Reg.boolean)


def classify(f: ScalarFunction) -> Rule:
    """A boolean about each float."""
    return lambda c, x: c.elementwise(f, x, compute=Reg.f32)


def prefer_number(largest: bool) -> Rule:
    """fmax, fmin: the other operand where one is NaN."""

    def f(x: Scalar, y: Scalar) -> Scalar:
        b = x.builder
        return b.select(x.equals(x), b.select(y.equals(y), x.max(y) if largest else x.min(y), x), y)

    return pointwise(f)


def nan_to_num(
    c: Context, x: Operand, nan: Number | None = None, top: Number | None = None, bottom: Number | None = None
) -> Value:
    """Given numbers in place of NaN (default 0) and of the infinities (default the largest finite numbers)."""
    if not c.type.dtype.is_float:
        return c.value(x)
    largest = float(np.finfo(np.float32).max)
    ends = [largest if top is None else top, -largest if bottom is None else bottom]

    def f(x: Scalar) -> Scalar:
        b = x.builder
        x = b.select(x.equals(math.inf), ends[0], b.select(x.equals(-math.inf), ends[1], x))
        return b.select(x.equals(x), x, nan or 0.0)

    return c.elementwise(f, x)


def round_decimals(c: Context, x: Operand, decimals: int = 0) -> Value:
    """To the nearest integer, ties to even; with decimals, of x times a power of ten, divided by it."""
    scale = 10.0 ** abs(decimals)
    if decimals == 0:
        return c.elementwise(rounding.round_even, x)
    if decimals > 0:
        return c.elementwise(lambda x: rounding.round_even(x * scale) / scale, x)
    return c.elementwise(lambda x: rounding.round_even(x / scale) * scale, x)


def logical_not(c: Context, x: Operand) -> Value:
    return c.elementwise(lambda x: ~x, x, compute=Reg.boolean)


def is_nan(c: Context, x: Operand) -> Value:
    return c.elementwise(lambda x: ~x.equals(x), x, compute=c.promoted(x))


# ---- activations and their derivatives --------------------------------------------------------------------------


def softshrink(c: Context, x: Operand, level: Number = 0.5) -> Value:
    def f(x: Scalar) -> Scalar:
        b = x.builder
        return b.select(x > level, x - level, b.select(x < -level, x + level, b.select(x.equals(x), 0.0, x)))

    return c.elementwise(f, x)


def shrink_backward(c: Context, grad: Operand, x: Operand, level: Number) -> Value:
    """The gradient where |x| > level (or x is NaN), else 0."""
    return c.elementwise(lambda g, x: g.builder.select(x.abs() <= level, 0.0, g), grad, x)


def threshold_backward(c: Context, grad: Operand, x: Operand, threshold: Number) -> Value:
    """The gradient where x > threshold (or x is NaN), else 0."""
    return c.elementwise(lambda g, x: g.builder.select(x <= threshold, 0.0, g), grad, x)


def threshold(c: Context, x: Operand, level: Number, value: Number) -> Value:
    return c.elementwise(lambda x: x.builder.select(x <= level, value, x), x)


def gelu(c: Context, x: Operand, approximate: str = "none") -> Value:
    return c.elementwise(activations.gelu_tanh if approximate == "tanh" else activations.gelu, x)


def gelu_backward(c: Context, grad: Operand, x: Operand, approximate: str = "none") -> Value:
    f = activations.gelu_tanh_backward if approximate == "tanh" else activations.gelu_backward
    return c.elementwise(f, grad, x)


def leaky_relu(c: Context, x: Operand, slope: Number = 0.01) -> Value:
    return c.elementwise(lambda x: x.builder.select(x > 0.0, x, x * slope), x)


def leaky_relu_backward(c: Context, grad: Operand, x: Operand, slope: Number, is_result: bool) -> Value:
    return c.elementwise(lambda g, x: g.builder.select(x > 0.0, g, g * slope), grad, x)


def elu(c: Context, x: Operand, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Value:
    def f(x: Scalar) -> Scalar:
        low = functions.expm1(x * input_scale) * (alpha * scale)
        return x.builder.select(x <= 0.0, low, x * scale)

    return c.elementwise(f, x)


def elu_backward(
    c: Context, grad: Operand, alpha: Number, scale: Number, input_scale: Number, is_result: bool, x: Operand
) -> Value:
    def f(g: Scalar, x: Scalar) -> Scalar:
        if is_result:
            low = g * input_scale * (x + alpha * scale)
        else:
            low = g * (input_scale * alpha * scale) * functions.exp(x * input_scale)
        return x.builder.select(x <= 0.0, low, g * scale)

    return c.elementwise(f, grad, x)


def hardtanh(c: Context, x: Operand, low: Number = -1, high: Number = 1) -> Value:
    return clamp(c, x, low, high)


def hardtanh_backward(c: Context, grad: Operand, x: Operand, low: Number, high: Number) -> Value:
    return c.elementwise(lambda g, x: g.builder.select((x <= low) | (x >= high), 0.0, g), grad, x)


def softplus(c: Context, x: Operand, beta: Number = 1, level: Number = 20) -> Value:
    def f(x: Scalar) -> Scalar:
        z = x * beta
        return x.builder.select(z > level, x, functions.log1p(functions.exp(z)) / beta)

    return c.elementwise(f, x)


def softplus_backward(c: Context, grad: Operand, x: Operand, beta: Number, level: Number) -> Value:
    def f(g: Scalar, x: Scalar) -> Scalar:
        z = x * beta
        return x.builder.select(z > level, g, g * functions.sigmoid(z))

    return c.elementwise(f, grad, x)


def log_sigmoid(c: Context, x: Operand) -> tuple[Value, Value]:
    """min(x, 0) - log1p(exp(-|x|)), and the buffer exp(-|x|) that the backward pass reads."""
    y = c.elementwise(lambda x: x.min(0.0) - functions.log1p(functions.exp(-x.abs())), x)
    if 0 in c.types[1].shape:  # the CPU kernel returns no buffer in inference
        return y, c.g.full(c.types[1].shape, 0.0)
    return y, c.elementwise(lambda x: functions.exp(-x.abs()), x, result=1)


def log_sigmoid_backward(c: Context, grad: Operand, x: Operand, buffer: Operand) -> Value:
    return c.elementwise(lambda g, x: g * functions.sigmoid(-x), grad, x)


__all__ = ["nan_of"]

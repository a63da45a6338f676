"""Activations and their derivatives as scalar functions; `published` has the native build compile them in advance."""

from __future__ import annotations

import math

from gensyn_verify.program import functions
from gensyn_verify.program.scalar import Scalar

SQRT_HALF = math.sqrt(0.5)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu(x: Scalar) -> Scalar:
    return 0.5 * x * (1.0 + functions.erf(x * SQRT_HALF))


def gelu_backward(g: Scalar, x: Scalar) -> Scalar:
    cdf = 0.5 * (1.0 + functions.erf(x * SQRT_HALF))
    density = functions.exp(-0.5 * (x * x)) * (0.5 * SQRT_2_OVER_PI)
    return g * x.builder.fma(x, density, cdf)


def _gelu_tanh_inner(x: Scalar) -> Scalar:
    return SQRT_2_OVER_PI * x.builder.fma(CUBIC, x * x * x, x)


def gelu_tanh(x: Scalar) -> Scalar:
    return 0.5 * x * (1.0 + functions.tanh(_gelu_tanh_inner(x)))


def gelu_tanh_backward(g: Scalar, x: Scalar) -> Scalar:
    t = functions.tanh(_gelu_tanh_inner(x))
    inner = SQRT_2_OVER_PI * x.builder.fma(3 * CUBIC, x * x, 1.0)
    slope = 0.5 * x * ((1.0 - t) * (1.0 + t)) * inner
    return g * (0.5 * (1.0 + t) + slope)


def tanh_backward(g: Scalar, y: Scalar) -> Scalar:
    """From the result y = tanh x."""
    return g * (1.0 - y * y)


def sigmoid_backward(g: Scalar, y: Scalar) -> Scalar:
    """From the result y = sigmoid x."""
    return g * ((1.0 - y) * y)


def silu(x: Scalar) -> Scalar:
    return x * functions.sigmoid(x)


def silu_backward(g: Scalar, x: Scalar) -> Scalar:
    s = functions.sigmoid(x)
    return g * (s * x.builder.fma(x, 1.0 - s, 1.0))


# ---- normalization: x with its mean and 1/deviation ---------------------------------------------------------------


def squared_distance(x: Scalar, mean: Scalar) -> Scalar:
    d = x - mean
    return d * d


def standard(x: Scalar, mean: Scalar, inverse: Scalar) -> Scalar:
    return (x - mean) * inverse


def normalize(x: Scalar, mean: Scalar, inverse: Scalar, weight: Scalar, bias: Scalar) -> Scalar:
    return x.builder.fma(weight, standard(x, mean, inverse), bias)

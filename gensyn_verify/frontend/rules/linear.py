"""Matrix products: one dot node each; transposed operands are read in place."""

from __future__ import annotations

from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.program import TensorType, Value


def mm(c: Context, a: Operand, b: Operand) -> Value:
    """Product of matrices or of stacks of matrices."""
    return c.dot(c.value(a), c.value(b), c.type.dtype)


def addmm(c: Context, x: Operand, a: Operand, b: Operand, beta: Number = 1, alpha: Number = 1) -> Value:
    """beta x + alpha (a b): the product is complete before anything is added."""
    product = c.dot(c.value(a), c.value(b))

    def f(x: object, p: object) -> object:
        p = p if alpha == 1 else p * alpha  # type: ignore[operator]
        return p + (x if beta == 1 else x * beta)  # type: ignore[operator]

    return c.elementwise(f, x, product)


def mv(c: Context, a: Operand, b: Operand) -> Value:
    vector = c.value(b)
    column = c.g.reshape(vector, (vector.shape[0], 1))
    return c.g.reshape(c.dot(c.value(a), column, c.type.dtype), c.type.shape)


def vector_dot(c: Context, a: Operand, b: Operand) -> Value:
    x, y = c.value(a), c.value(b)
    n = x.shape[0]
    return c.g.reshape(c.dot(c.g.reshape(x, (1, n)), c.g.reshape(y, (n, 1)), c.type.dtype), ())


def linear(c: Context, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    """x weight^T + bias over the last axis."""
    inputs, w = c.value(x), c.value(weight)
    rows = c.g.reshape(inputs, (inputs.type.elements // inputs.shape[-1], inputs.shape[-1]))
    product = c.g.reshape(c.g.dot(rows, w, False, True), c.type.shape)
    if bias is None:
        return c.cast(product, c.type.dtype)
    return c.map(lambda p, b: p + b, product, bias, out=TensorType(c.type.dtype, c.type.shape))

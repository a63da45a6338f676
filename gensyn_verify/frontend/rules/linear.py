"""Matrix products: one dot node each; transposed operands are read in place."""

from __future__ import annotations

from collections.abc import Sequence

from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.program import Dtype, TensorType, Value

Ints = Sequence[int]


def mm(c: Context, a: Operand, b: Operand) -> Value:
    """Product of matrices or of stacks of matrices; of int8 it is exact in int32, then what the result's type keeps."""
    x, y = c.value(a), c.value(b)
    return c.cast(c.dot(x, y, Dtype.i32 if x.dtype is Dtype.i8 else c.type.dtype), c.type.dtype)


def addmm(c: Context, x: Operand, a: Operand, b: Operand, beta: Number = 1, alpha: Number = 1) -> Value:
    """beta x + alpha (a b): the product is complete before anything is added."""
    product = c.dot(c.value(a), c.value(b))

    def f(x: object, p: object) -> object:
        p = p if alpha == 1 else p * alpha  # type: ignore[operator]
        return p + (x if beta == 1 else x * beta)  # type: ignore[operator]

    return c.elementwise(f, x, product)


def addbmm(c: Context, x: Operand, a: Operand, b: Operand, beta: Number = 1, alpha: Number = 1) -> Value:
    """beta x + alpha times the sum of a stack of products, which is one product over a longer axis."""
    a, b = c.value(a), c.value(b)
    count, n, k = a.shape
    wide = c.g.reshape(c.g.permute(a, (1, 0, 2)), (n, count * k))
    return addmm(c, x, wide, c.g.reshape(b, (count * k, b.shape[2])), beta, alpha)


def mv(c: Context, a: Operand, b: Operand) -> Value:
    vector = c.value(b)
    column = c.g.reshape(vector, (vector.shape[0], 1))
    return c.g.reshape(c.dot(c.value(a), column, c.type.dtype), c.type.shape)


def vector_dot(c: Context, a: Operand, b: Operand) -> Value:
    """Products, then a sum in the order of reduce: more accurate for long vectors than one chain."""
    x, y = c.value(a), c.value(b)
    products = c.map(lambda x, y: x * y, x, y, out=TensorType(Dtype.f32, x.shape))
    return c.cast(c.sum(products, (0,)), c.type.dtype)


def trilinear(
    c: Context, a: Operand, b: Operand, d: Operand, new_a: Ints, new_b: Ints, new_d: Ints, summed: Ints, unroll: int = 1
) -> Value:
    """Products of three tensors that get new axes, then a sum over axes."""
    values = []
    for x, new in ((c.value(a), new_a), (c.value(b), new_b), (c.value(d), new_d)):
        lengths = iter(x.shape)
        values.append(c.g.reshape(x, [1 if n in new else next(lengths) for n in range(len(x.shape) + len(new))]))
    products = c.g.map(lambda x, y, z: x * y * z, *values, dtype=Dtype.f32)
    return c.cast(c.sum(products, sorted(summed)), c.type.dtype)

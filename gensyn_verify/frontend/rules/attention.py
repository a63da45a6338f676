"""Attention kernels that a script asks for by name; everywhere else capturing sees the products and the softmax.

q, k, v are [batch, heads, length, width]; the scores are complete before the softmax, whatever a kernel does in blocks.
"""

from __future__ import annotations

import math

import torch

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.context import Context, Number, Operand
from gensyn_verify.frontend.rules.reductions import inverse_of, shifted
from gensyn_verify.program import Dtype, Scalar, TensorType, Value, functions


def _scores(c: Context, q: Value, k: Value, causal: bool, mask: Operand | None, scale: Number | None) -> Value:
    """scale q k' + mask, with -infinity after the diagonal where causal."""
    if q.shape[:2] != k.shape[:2]:
        raise CaptureError(f"queries {q.type} and keys {k.type} have different batches or heads; repeat the keys")
    products = c.dot(q, c.g.permute(k, (0, 1, 3, 2)))
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    later = torch.ones(products.shape[-2:], dtype=torch.bool).triu(1)
    given = [c.constant(torch.zeros(later.shape).masked_fill(later, -math.inf))] if causal else []
    given += [] if mask is None else [c.value(mask)]

    def f(s: Scalar, *masks: Scalar) -> Scalar:
        s = s * factor
        for m in masks:
            s = s + m
        return s

    return c.map(f, products, *given, out=products.type)


def attention(
    c: Context,
    q: Operand,
    k: Operand,
    v: Operand,
    dropout: Number = 0.0,
    causal: bool = False,
    attn_mask: Operand | None = None,
    scale: Number | None = None,
) -> tuple[Value, Value]:
    """softmax(scale q k' + mask) v, and the logarithms of the softmax's denominators."""
    if dropout:
        raise CaptureError("the CPU kernel of attention has no dropout; leave the choice of a kernel to PyTorch")
    s = _scores(c, c.value(q), c.value(k), causal, attn_mask, scale)
    top, powers, total = shifted(c, s, 3)
    weights = c.map(lambda p, i: p * i, powers, inverse_of(c, total), out=s.type)
    logs = c.map(lambda t, m: functions.log(t) + m, total, top, out=total.type)
    return c.dot(weights, c.value(v), c.type.dtype), c.cast(c.g.reshape(logs, c.types[1].shape), c.types[1].dtype)


def attention_backward(
    c: Context,
    grad: Operand,
    q: Operand,
    k: Operand,
    v: Operand,
    out: Operand,
    logs: Operand,
    dropout: Number,
    causal: bool,
    attn_mask: Operand | None = None,
    scale: Number | None = None,
) -> tuple[Value, Value, Value]:
    """With weights p = exp(scores - logs) and h = p (grad v' - sum(grad out)): by q scale h k, by k scale h' q, by v
    p' grad."""
    grad, q, k, v, out, logs = (c.value(x) for x in (grad, q, k, v, out, logs))
    s = _scores(c, q, k, causal, attn_mask, scale)
    column = c.g.reshape(logs, (*s.shape[:3], 1))
    p = c.map(lambda s, m: functions.exp(s - m), s, column, out=s.type)
    level = c.sum(c.map(lambda g, y: g * y, grad, out, out=TensorType(Dtype.f32, out.shape)), (3,), True)
    by_p = c.dot(grad, c.g.permute(v, (0, 1, 3, 2)))
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    h = c.map(lambda p, d, a: p * (d - a) * factor, p, by_p, level, out=s.type)
    swap = (0, 1, 3, 2)
    return (
        c.dot(h, k, c.types[0].dtype),
        c.dot(c.g.permute(h, swap), q, c.types[1].dtype),
        c.dot(c.g.permute(p, swap), grad, c.types[2].dtype),
    )

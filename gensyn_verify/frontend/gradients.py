"""What happens to gradients between the backward pass and the optimizer: sums over microbatches, clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from gensyn_verify.frontend.rules.reductions import real_power
from gensyn_verify.program import Dtype, ProgramBuilder, Scalar, Value

Gradients = dict[str, Value]
FLT_MAX = 3.4028234663852886e38


def accumulate(g: ProgramBuilder, parts: Sequence[Mapping[str, Value]]) -> Gradients:
    """The sum over microbatches, added left to right as `.grad` is."""
    total = dict(parts[0])
    for part in parts[1:]:
        for name, x in part.items():
            total[name] = g.map(lambda a, b: a + b, total[name], x, dtype=x.dtype) if name in total else x
    return total


def largest(g: ProgramBuilder, gradients: Mapping[str, Value]) -> Value:
    """The largest magnitude of all, f32 without axes; NaN where there is one."""
    return _over_all(
        g, "max", [_reduced(g, "max", lambda x: x.abs(), x) for x in gradients.values() if x.type.elements]
    )


def clip_value(g: ProgramBuilder, gradients: Mapping[str, Value], limit: float) -> Gradients:
    """Every element between -limit and limit: torch.nn.utils.clip_grad_value_."""
    return {name: g.map(lambda x: x.max(-limit).min(limit), x, dtype=x.dtype) for name, x in gradients.items()}


def clip_norm(g: ProgramBuilder, gradients: Mapping[str, Value], limit: float, order: float) -> Gradients:
    """All gradients scaled by one number so that their common norm is at most `limit`.

    torch.nn.utils.clip_grad_norm_ with error_if_nonfinite=False: a norm that is not finite spoils every gradient. The
    norm is taken of all elements at once, not of norms of tensors.
    """
    if math.isinf(order):
        norm = largest(g, gradients)
    else:
        parts = [_reduced(g, "sum", lambda x: _power(x, order), x) for x in gradients.values()]
        norm = g.map(lambda s: _root(s, order), _over_all(g, "sum", parts))
    share = g.map(lambda n: (limit / (n + 1e-6)).min(1.0), norm)
    return {name: g.map(lambda x, s: x * s, x, share, dtype=x.dtype) for name, x in gradients.items()}


def _power(x: Scalar, order: float) -> Scalar:
    """|x|^order."""
    if order == 2.0:
        return x * x
    return x.abs() if order == 1.0 else real_power(x, order)


def _root(x: Scalar, order: float) -> Scalar:
    if order == 2.0:
        return x.sqrt()
    return x if order == 1.0 else real_power(x, 1 / order)


def _reduced(g: ProgramBuilder, how: str, f: Callable[[Scalar], Scalar], x: Value) -> Value:
    """`f` of every element, reduced to f32[1]."""
    each = g.map(f, x, dtype=Dtype.f32)
    return g.reduce(how, g.reshape(each, (-1,)), (0,), keepdims=True)


def _over_all(g: ProgramBuilder, how: str, parts: Sequence[Value]) -> Value:
    return g.reduce(how, g.concat(parts, 0), (0,)) if parts else g.full((), 0.0)


def choose(g: ProgramBuilder, skip: Value, old: Value, new: Value) -> Value:
    """`old` where the boolean `skip` holds, else `new`."""

    def f(skip: Scalar, old: Scalar, new: Scalar) -> Scalar:
        return old.builder.select(skip, old, new)

    return g.map(f, skip, old, new, shape=old.shape, dtype=old.dtype)

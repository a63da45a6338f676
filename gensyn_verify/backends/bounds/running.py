"""Running error analysis: a scalar program computed beside a bound on what roundings may have done to each value.

Every value is a center, in binary64, and a distance: whatever an honest kernel has there lies within the distance of
the center. Map inputs have distance 0. An operation takes the distances of its operands on and adds its own rounding;
published functions (`lift`) are single operations, with a slope and the accuracy that vendors promise.

Conditions and integers are certain or open. A comparison is open where the two sides may change places; a select on
an open condition may give either operand; an integer is open where a conversion or a look at the bits of an inexact
float could turn out differently. Nothing is said about open integers and what comes of them: their distance is
infinite. So a select, a maximum or a condition on inputs of the node is exact, and near ties of computed values both
results are let through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import REGISTER, Array
from gensyn_verify.backends.bounds.model import TINY, U
from gensyn_verify.backends.lift import COMPOSED, ELEMENTARY, lift
from gensyn_verify.program.scalar import OPERATIONS, ScalarProgram
from gensyn_verify.program.types import Reg

LIMIT = 2.0**128 * (1 - 2.0**-25)  # what reaches it rounds to an infinity
UNDERFLOW = 64 * TINY  # what a product may lose where it is subnormal, or a vendor's other order makes it so
FUNCTION_ROUNDING = 10.0  # in u: the 4 ulp of the least accurate CUDA function, and 1 ulp of the center
# Some versions of torch have formula 7.1.26 of Abramowitz and Stegun, 1.5e-7 and its roundings; oneDNN's gelu is off
# by 12 u near erf = 1 (measured).
ERF_ABSOLUTE = 2.0**-21


@dataclass(frozen=True)
class Running:
    """`center` in binary64 with `distance` for floats; integers and booleans as they are, `distance` 0 or infinite."""

    center: Array
    distance: Array


def analyse(scalar: ScalarProgram, inputs: Sequence[Array]) -> list[Running]:
    """The outputs of a scalar program on exact registers, all of one shape."""
    program = lift(scalar, composed=False)
    # Kernels for a gelu or for the gradient of a sigmoid multiply in their own order, and overflow earlier or later.
    reordered = any(i.op in COMPOSED and not i.op.startswith("relu") for i in lift(scalar).code)
    limit = LIMIT / 8 if reordered else LIMIT
    shape = inputs[0].shape if inputs else ()
    values = [_exact(x) for x in inputs]
    for c in program.constants:
        bits = np.full(shape, c.bits, np.uint32)
        values.append(_exact(bits.astype(np.bool_) if c.reg is Reg.boolean else bits.view(REGISTER[c.reg])))
    with np.errstate(all="ignore"):
        for instruction in program.code:
            args = [values[a] for a in instruction.args]
            if instruction.op in ELEMENTARY:
                result = _function(instruction.op, args, limit)
            else:
                result = _operation(instruction.op, args, limit)
            values.append(result)
    return [values[v] for v in program.outputs]


def _exact(x: Array) -> Running:
    with np.errstate(invalid="ignore"):  # signalling NaN
        center = x.astype(np.float64) if x.dtype == np.float32 else x
    return Running(center, np.zeros(x.shape))


def _settle(step: Step, args: Sequence[Running], limit: float) -> Running:
    """Infinities and NaN of exact operands are exact; nothing is said where one side alone may become infinite."""
    center, moved, rounding = step
    exact = np.all([a.distance == 0 for a in args], axis=0)
    beyond = np.isfinite(center) & ~(np.abs(center) + moved < limit)
    if limit < LIMIT:
        beyond |= np.any([np.isfinite(a.center) & (np.abs(a.center) > limit) for a in args], axis=0)
    distance = moved + rounding
    distance = np.where(np.isnan(distance) | beyond, np.inf, distance)
    return Running(center, np.where(~np.isfinite(center) & exact, 0.0, distance))


def _operation(name: str, args: Sequence[Running], limit: float) -> Running:
    operation = OPERATIONS[name]
    if name.startswith("select"):
        return _select(args[0], args[1], args[2], operation.result is Reg.f32)
    if name in _FLOAT:
        return _settle(_FLOAT[name](args), args, limit)
    if operation.operands[0] is Reg.f32 and operation.result is not Reg.f32:
        return _from_float(name, args)
    # Integers and booleans in; an operand that is open leaves the result open.
    found = np.asarray(reference.SCALAR[name](*(a.center for a in args)))
    with np.errstate(invalid="ignore"):  # signalling NaN
        center = found.astype(np.float64) if found.dtype == np.float32 else found
    return Running(center, np.sum([a.distance for a in args], axis=0))


def _from_float(name: str, args: Sequence[Running]) -> Running:
    """Comparisons, conversions to integers and bits of floats: certain where the distance cannot change them."""
    distance = np.sum([a.distance for a in args], axis=0)
    if len(args) == 2:
        x, y = args
        found = np.asarray(reference.SCALAR[name](x.center, y.center))
        is_open = (distance > 0) & ~(np.abs(x.center - y.center) > distance) & ~np.isnan(x.center) & ~np.isnan(y.center)
        return Running(found, np.where(is_open, np.inf, 0.0))
    found = np.asarray(reference.SCALAR[name](args[0].center.astype(np.float32)))
    if name == "f32_bits_to_u32":
        is_open = distance > 0
    else:
        low, high = (
            reference.SCALAR[name]((args[0].center + d).astype(np.float32)) for d in (-args[0].distance, distance)
        )
        is_open = (distance > 0) & ~((low == found) & (high == found))
    return Running(found, np.where(is_open, np.inf, 0.0))


def _select(condition: Running, a: Running, b: Running, floats: bool) -> Running:
    """What the condition says; where it is open, all between the two: the middle, and half of what is between."""
    is_open = condition.distance > 0
    center = np.where(condition.center, a.center, b.center)
    distance = np.where(is_open, np.maximum(a.distance, b.distance), np.where(condition.center, a.distance, b.distance))
    differs = is_open & (a.center != b.center)
    if not floats:
        return Running(center, np.where(differs, np.inf, distance))
    half = (b.center - a.center) / 2
    known = np.isfinite(half)
    center = np.where(differs & known, a.center + half, center)
    return Running(center, np.where(differs, np.where(known, distance + np.abs(half), np.inf), distance))


Step = tuple[Array, Array, Array]  # the center, its distance before it is rounded, and what rounding adds
Rule = Callable[[Sequence[Running]], Step]


def _add(args: Sequence[Running], sign: float = 1.0) -> Step:
    x, y = args
    center, moved = x.center + sign * y.center, x.distance + y.distance
    moved = np.where(np.isinf(center) & np.isfinite(moved), 0.0, moved)  # an infinity plus whatever is finite
    return center, moved, np.where(np.isinf(center), 0.0, U * (np.abs(center) + moved))


def _mul(args: Sequence[Running]) -> Step:
    x, y = args
    center = x.center * y.center
    moved = np.abs(x.center) * y.distance + np.abs(y.center) * x.distance + x.distance * y.distance
    moved = np.where((x.distance == 0) & (y.distance == 0), 0.0, moved)
    lost = UNDERFLOW * np.maximum(1.0, np.maximum(np.abs(x.center), np.abs(y.center)))
    return center, moved, U * (np.abs(center) + moved) + np.where(center == 0, 0.0, lost)


def _fma(args: Sequence[Running]) -> Step:
    """Rounded once, or the product first."""
    return _add([_settle(_mul(args[:2]), args[:2], LIMIT), args[2]])


def _div(args: Sequence[Running]) -> Step:
    """Two roundings: a vendor may multiply by the reciprocal of a constant, which may be subnormal or overflow."""
    x, y = args
    center, size, least = x.center / y.center, np.abs(y.center), np.abs(y.center) - y.distance
    moved = np.where(least > 0, (x.distance + np.abs(center) * y.distance) / least, np.inf)
    moved = np.where((x.distance == 0) & (y.distance == 0), 0.0, moved)
    lost = TINY * np.where(size > 2.0**125, np.maximum(1.0, np.abs(x.center)), 1.0)
    lost = np.where(size < 2.0**-125, np.inf, lost)
    return center, moved, 2 * U * (np.abs(center) + moved) + np.where(center == 0, 0.0, lost)


def _sqrt(args: Sequence[Running]) -> Step:
    """Within an ulp, which is what MKL gives."""
    (x,) = args
    center, low, high = np.sqrt(x.center), x.center - x.distance, x.center + x.distance
    moved = np.maximum(np.sqrt(high) - center, center - np.sqrt(low))
    moved = np.where(x.distance == 0, 0.0, np.where(low < 0, np.inf, moved))
    return center, moved, 2 * U * (np.abs(center) + moved)


def _same(function: Callable[..., Array]) -> Rule:
    """Exact and no further apart than the operands: neg, abs, min, max."""
    return lambda args: (function(*(a.center for a in args)), np.max([a.distance for a in args], axis=0), np.array(0.0))


_FLOAT: dict[str, Rule] = {
    "add.f32": _add,
    "sub.f32": lambda args: _add(args, -1.0),
    "mul.f32": _mul,
    "fma.f32": _fma,
    "div.f32": _div,
    "sqrt.f32": _sqrt,
    "neg.f32": _same(np.negative),
    "abs.f32": _same(np.abs),
    "min.f32": _same(np.minimum),
    "max.f32": _same(np.maximum),
}


# ---- published functions ------------------------------------------------------------------------------------------


def _function(name: str, args: Sequence[Running], limit: float) -> Running:
    """The published program at the nearest binary32, the slope times the distance, and what vendors promise."""
    nearest = [np.asarray(a.center.astype(np.float32)) for a in args]
    (center,) = reference.run_scalar_program(ELEMENTARY[name], nearest)
    center = center.astype(np.float64)
    off = [a.distance + np.where(a.distance > 0, np.abs(a.center - x), 0.0) for a, x in zip(args, nearest, strict=True)]
    if len(args) == 1:
        moved = SLOPE[name](np.abs(args[0].center) if name in _EVEN else args[0].center, off[0]) * off[0]
    else:
        moved = MOVED[name](args[0].center, args[1].center, off[0], off[1], center)
    exact = np.all([o == 0 for o in off], axis=0)
    moved = np.where(exact, 0.0, np.where(np.isnan(moved), np.inf, moved))
    if name in ("sinh", "cosh"):  # halves of exponentials, which may overflow before they do
        limit = min(limit, LIMIT / 8)
    absolute = ERF_ABSOLUTE if name == "erf" else 2.0**-126  # kernels may flush what is subnormal on the way
    return _settle((center, moved, FUNCTION_ROUNDING * U * (np.abs(center) + moved) + absolute), args, limit)


def _bell(x: Array, e: Array) -> Array:
    """The slope of the logistic function, which is largest nearest to 0."""
    t = np.exp(-np.maximum(x - e, 0))
    return np.asarray(t / (1 + t) ** 2)


_LN2, _LN10 = np.log(2.0), np.log(10.0)
# The largest slope within e of x; x is |x| for functions whose slope is even.
SLOPE: dict[str, Callable[[Array, Array], Array]] = {
    "exp": lambda x, e: np.exp(x + e),
    "expm1": lambda x, e: np.exp(x + e),
    "exp2": lambda x, e: _LN2 * np.exp2(x + e),
    "log": lambda x, e: _reciprocal(x - e),
    "log1p": lambda x, e: _reciprocal(1 + x - e),
    "log2": lambda x, e: _reciprocal(x - e) / _LN2,
    "log10": lambda x, e: _reciprocal(x - e) / _LN10,
    "sigmoid": _bell,
    "tanh": lambda x, e: 4 * _bell(2 * x, 2 * e),
    "erf": lambda x, e: 2 / np.sqrt(np.pi) * np.exp(-(np.maximum(x - e, 0) ** 2)),
    "erfc": lambda x, e: 2 / np.sqrt(np.pi) * np.exp(-(np.maximum(x - e, 0) ** 2)),
    "sin": lambda x, e: np.ones_like(x),
    "cos": lambda x, e: np.ones_like(x),
    "tan": lambda x, e: _reciprocal(np.abs(np.cos(x)) - e) ** 2,
    "atan": lambda x, e: 1 / (1 + np.maximum(x - e, 0) ** 2),
    "asin": lambda x, e: _reciprocal(np.sqrt(1 - (x + e) ** 2)),
    "acos": lambda x, e: _reciprocal(np.sqrt(1 - (x + e) ** 2)),
    "sinh": lambda x, e: np.cosh(x + e),
    "cosh": lambda x, e: np.sinh(x + e),
    "asinh": lambda x, e: 1 / np.sqrt(1 + np.maximum(x - e, 0) ** 2),
    "acosh": lambda x, e: _reciprocal(np.sqrt((x - e) ** 2 - 1)),
    "atanh": lambda x, e: _reciprocal(1 - (x + e) ** 2),
}
_EVEN = frozenset({
    "sigmoid", "tanh", "erf", "erfc", "atan", "asin", "acos", "sinh", "cosh", "asinh", "atanh",
})  # fmt: skip


def _reciprocal(x: Array) -> Array:
    return np.asarray(np.where(x > 0, 1 / x, np.inf))


def _pow(x: Array, y: Array, ex: Array, ey: Array, center: Array) -> Array:
    """x^y is monotonic in either: the corners of what is possible, for positive x."""
    corners = [np.power(x + s * ex, y + t * ey) for s in (-1, 1) for t in (-1, 1)]
    apart = np.max([np.abs(c - center) for c in corners], axis=0)
    return np.asarray(np.where(x - ex > 0, apart, np.inf))


def _atan2(y: Array, x: Array, ey: Array, ex: Array, center: Array) -> Array:
    """Away from the cut the angle moves by no more than the distance over the radius."""
    on_cut = (x - ex <= 0) & (np.abs(y) <= ey)
    return np.asarray(np.where(on_cut, np.inf, (ex + ey) * _reciprocal(np.hypot(x, y) - (ex + ey))))


MOVED: dict[str, Callable[..., Array]] = {
    "pow": _pow,
    "atan2": _atan2,
    "hypot": lambda x, y, ex, ey, center: ex + ey,
}

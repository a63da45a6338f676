"""Every scalar operation as one or a few torch calls over whole tensors. Integers and booleans are exact.

u32 is int32 with the same bits: sums and products wrap alike; what orders, divides or widens says so here. `fma` rounds
twice, which is what eager PyTorch does too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensyn_verify.program.types import Reg

Call = Callable[..., Any]  # of tensors to a tensor
SIGN = -(1 << 31)
LOW = 0xFFFFFFFF


def unsigned(x: Tensor) -> Tensor:
    """int64 numbers of u32 bits."""
    return x.to(torch.int64) & LOW


def ordered(x: Tensor) -> Tensor:
    """u32 bits as int32 in the order of the unsigned numbers; its own inverse."""
    return x ^ SIGN


def canonical(x: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), float("nan"), x)


def fma(a: Tensor, b: Tensor, c: Tensor, out: Tensor | None = None) -> Tensor:
    """Two roundings."""
    product = torch.mul(a, b, out=out)
    return torch.add(product, c, out=out)


def _mulhi_u32(a: Tensor, b: Tensor) -> Tensor:
    # The product may pass 2^63: its bits are right modulo 2^64, and the low half of the shifted bits is the answer.
    return ((unsigned(a) * unsigned(b)) >> 32).to(torch.int32)


def _shift_right_u32(a: Tensor, n: Tensor) -> Tensor:
    return (unsigned(a) >> (n & 31)).to(torch.int32)


def _to_i32(x: Tensor) -> Tensor:
    """Toward zero, saturating; NaN gives 0. The bounds are the outermost binary32 inside of int32."""
    inside = torch.nan_to_num(x, nan=0.0).clamp(-(2.0**31), 2.0**31 - 128).to(torch.int32)
    return torch.where(x >= 2.0**31, (1 << 31) - 1, inside).to(torch.int32)


def _to_u32(x: Tensor) -> Tensor:
    inside = torch.nan_to_num(x, nan=0.0).clamp(0.0, 2.0**32 - 256).to(torch.int64)
    return torch.where(x >= 2.0**32, LOW, inside).to(torch.int32)


_BOTH: dict[str, Call] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul,
    "and": torch.bitwise_and, "or": torch.bitwise_or, "xor": torch.bitwise_xor, "not": torch.bitwise_not,
    "shl": lambda a, n: a << (n & 31), "eq": torch.eq,
}  # fmt: skip
_FLOAT: dict[str, Call] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "sqrt": torch.sqrt, "fma": fma,
    "min": torch.minimum, "max": torch.maximum, "neg": torch.neg, "abs": torch.abs,
    "eq": torch.eq, "lt": torch.lt, "le": torch.le,
}  # fmt: skip
_SIGNED: dict[str, Call] = {"min": torch.minimum, "max": torch.maximum, "lt": torch.lt, "le": torch.le}
OPERATIONS: dict[str, Call] = {
    **{f"{n}.f32": f for n, f in _FLOAT.items()},
    **{f"{n}.{t}": f for t in ("i32", "u32") for n, f in _BOTH.items()},
    "mulhi.i32": lambda a, b: ((a.to(torch.int64) * b.to(torch.int64)) >> 32).to(torch.int32),
    "mulhi.u32": _mulhi_u32,
    "shr.i32": lambda a, n: a >> (n & 31),
    "shr.u32": _shift_right_u32,
    **{f"{n}.i32": f for n, f in _SIGNED.items()},
    "min.u32": lambda a, b: ordered(torch.minimum(ordered(a), ordered(b))),
    "max.u32": lambda a, b: ordered(torch.maximum(ordered(a), ordered(b))),
    "lt.u32": lambda a, b: torch.lt(ordered(a), ordered(b)),
    "le.u32": lambda a, b: torch.le(ordered(a), ordered(b)),
    "and.boolean": torch.logical_and, "or.boolean": torch.logical_or, "xor.boolean": torch.logical_xor,
    "not.boolean": torch.logical_not,
    **{f"select.{r.name}": torch.where for r in Reg},
    "f32_to_i32": _to_i32,
    "f32_to_u32": _to_u32,
    "i32_to_f32": lambda x: x.to(torch.float32),
    "u32_to_f32": lambda x: unsigned(x).to(torch.float32),
    "boolean_to_u32": lambda x: x.to(torch.int32),
    "f32_bits_to_u32": lambda x: canonical(x).view(torch.int32),
    "u32_bits_to_f32": lambda x: x.view(torch.float32),
    "i32_bits_to_u32": lambda x: x,
    "u32_bits_to_i32": lambda x: x,
}  # fmt: skip


def _alike(function: Call) -> Call:
    """oneDNN's kernels and those of CUDA take two tensors of one shape on one device, no numbers."""

    def call(g: Tensor, x: Tensor) -> Tensor:
        if g.shape != x.shape or g.device != x.device:
            shape, device = np.broadcast_shapes(g.shape, x.shape), x.device if g.device.type == "cpu" else g.device
            g, x = (t.to(device).expand(shape).contiguous() for t in (g, x))
        found: Tensor = function(g, x)
        return found

    return call


_aten = torch.ops.aten
FUNCTIONS: dict[str, Call] = {
    **{n: getattr(torch, n) for n in (
        "exp", "expm1", "sigmoid", "tanh", "erf", "log", "log1p", "sin", "cos", "tan", "exp2", "log2", "log10", "atan",
        "asin", "acos", "sinh", "cosh", "asinh", "acosh", "atanh", "erfc", "pow", "atan2", "hypot", "relu",
    )},
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "gelu_backward": _alike(_aten.gelu_backward),
    "gelu_tanh_backward": _alike(partial(_aten.gelu_backward, approximate="tanh")),
    "silu_backward": _alike(_aten.silu_backward),
    "sigmoid_backward": _alike(_aten.sigmoid_backward),
    "tanh_backward": _alike(_aten.tanh_backward),
    "relu_backward": _alike(lambda g, x: _aten.threshold_backward(g, x, 0)),
}  # fmt: skip
"""The published functions that `lift` finds."""

VIEWS = ("u32_bits_to_f32", "i32_bits_to_u32", "u32_bits_to_i32")  # their results share the operand's memory
WITH_OUT = frozenset(
    name
    for name, f in {**OPERATIONS, **FUNCTIONS}.items()
    if f is fma or (isinstance(f, BuiltinFunctionType) and name not in ("relu", *VIEWS))
)
"""What takes `out=`."""

"""Scalar programs that the native build compiles ahead of time: name -> program.

A map node whose scalar program equals one of these runs as compiled code instead of in the virtual machine, with the
same bits. Nothing depends on the list but speed: it holds what the frontend writes most.
"""

from __future__ import annotations

from collections.abc import Callable

from gensyn_verify.program import activations, functions
from gensyn_verify.program.scalar import Scalar, ScalarBuilder, ScalarProgram
from gensyn_verify.program.types import Reg


def trace(function: Callable[..., Scalar], *inputs: Reg) -> ScalarProgram:
    """The scalar program of `function` over one Scalar an input, as `ProgramBuilder.map` writes it."""
    builder = ScalarBuilder()
    return builder.build(function(*(builder.input(reg) for reg in inputs)))


F = Reg.f32

PUBLISHED: dict[str, ScalarProgram] = {
    "add": trace(lambda x, y: x + y, F, F),
    "sub": trace(lambda x, y: x - y, F, F),
    "mul": trace(lambda x, y: x * y, F, F),
    "div": trace(lambda x, y: x / y, F, F),
    "square": trace(lambda x: x * x, F),
    "relu": trace(lambda x: x.max(0.0), F),
    "relu_backward": trace(lambda g, x: g.builder.select(x <= 0.0, 0.0, g), F, F),
    **{f.__name__: trace(f, F) for f in (
        functions.exp, functions.expm1, functions.log, functions.log1p, functions.sigmoid, functions.tanh,
        functions.erf, functions.sin, functions.cos, activations.gelu, activations.gelu_tanh, activations.silu,
    )},
    **{f.__name__: trace(f, F, F) for f in (
        activations.gelu_backward, activations.gelu_tanh_backward, activations.tanh_backward,
        activations.sigmoid_backward, activations.silu_backward,
    )},
    "exp_difference": trace(lambda x, m: functions.exp(x - m), F, F),  # of softmax
    "softmax_backward": trace(lambda g, y, s: y * (g - s), F, F, F),
    "log_softmax": trace(lambda x, m, log: (x - m) - log, F, F, F),
    "log_softmax_backward": trace(lambda g, y, s: g - functions.exp(y) * s, F, F, F),
    "squared_distance": trace(activations.squared_distance, F, F),
    "standard": trace(activations.standard, F, F, F),
    "normalize": trace(activations.normalize, F, F, F, F, F),
}  # fmt: skip

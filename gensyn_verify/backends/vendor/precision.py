"""The precision of matrix products: what rounds the operands, and the switches of torch that hold during a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Rounding = Callable[[Tensor], Tensor]


def rounding(precision: str) -> Rounding:
    """What a product does to its f32 operands first.

    bf16 operands stay in f32 tensors: products of them are exact there, so the result is what a bf16 product with f32
    sums gives; on CUDA TF32 kernels, which keep three more bits, compute exactly that.
    """
    if precision == "bf16":
        return lambda x: x.to(torch.bfloat16).to(torch.float32)
    return lambda x: x


def _settings(tf32: bool) -> list[tuple[Any, str, object]]:
    """Where torch keeps its precision of f32 products, under which name, and what it has to be.

    Since 2.9 every library has a switch of its own, oneDNN too; before, one of matrix products and one of cuDNN.
    """
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return [(place, "allow_tf32", tf32) for place in (backends.cuda.matmul, backends.cudnn)]
    gpu, cpu = (backends.cuda.matmul, backends.cudnn.conv), (backends.mkldnn.matmul, backends.mkldnn.conv)
    name = "fp32_precision"
    return [*((place, name, "tf32" if tf32 else "ieee") for place in gpu), *((place, name, "ieee") for place in cpu)]


@contextmanager
def switches(device: torch.device, precision: str) -> Iterator[None]:
    """torch's switches for f32 products, as they were in the end: TF32 where asked for, else no less than f32."""
    settings = _settings(device.type == "cuda" and precision in ("tf32", "bf16"))
    before = [getattr(place, name) for place, name, _ in settings]
    try:
        for place, name, value in settings:
            setattr(place, name, value)
        yield
    finally:
        for (place, name, _), value in zip(settings, before, strict=True):
            setattr(place, name, value)

"""The precision of matrix products: what rounds the operands, and the switches of torch that hold during a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def switches(device: torch.device, precision: str) -> Iterator[None]:
    """torch's switches for f32 products, restored in the end: TF32 where asked for, else no less than f32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), matmul.allow_tf32, cudnn.allow_tf32
    tf32 = device.type == "cuda" and precision in ("tf32", "bf16")
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        matmul.allow_tf32 = cudnn.allow_tf32 = tf32
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        matmul.allow_tf32, cudnn.allow_tf32 = before[1:]

"""The same bits from Triton, on NVIDIA and AMD GPUs, or on the CPU in Triton's interpreter.

machine   a plan's arena as one torch tensor, its calls as launches of the kernels in gensyn_verify.kernels

Needs torch and triton (the extra `triton`). No kernel adds floats in an order that Triton, or the device, chose.
"""

from __future__ import annotations

from functools import partial

import torch
import triton
from triton import knobs

from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.triton.machine import TritonMachine
from gensyn_verify.program.program import Program


def make(program: Program, keep: bool = False, fuse: bool = True, device: str = "cuda") -> Executor:
    """An executor of `program` on a device as torch names it: "cuda", "cuda:N" (AMD too), or "cpu" under
    TRITON_INTERPRET=1, which has to be set before the kernels are imported.
    """
    return Executor(program, partial(TritonMachine, device=device), keep, fuse, regions=True)


def describe(number: int | None) -> dict[str, str]:
    """The device as torch sees it."""
    if knobs.runtime.interpret:
        return {"device": f"the CPU, in the interpreter of Triton {triton.__version__}"}
    if not torch.cuda.is_available():
        return {"device": f"none: torch {torch.__version__} finds no GPU here"}
    return {"device": f"{torch.cuda.get_device_name(number)}, Triton {triton.__version__}"}


__all__ = ["TritonMachine", "describe", "make"]

"""The program on stock PyTorch kernels: vendor speed, not reproducible, for the threshold mode. Imports torch.

executor     the state, step by step
plan         which calls, in which order
convolution  convolutions found again in pad, window, reshape, dot
scalar       scalar programs as torch calls
operations   every scalar operation, and the published functions that torch has
kernels      the other node kinds
precision    fp32, tf32, bf16 products
tensors      carrier arrays as torch tensors
"""

from __future__ import annotations

import torch

from gensyn_verify.backends.names import VendorName
from gensyn_verify.backends.vendor.executor import Executor


def environment(name: VendorName) -> dict[str, str]:
    """What a run's record says about this backend: nothing depends on it, the bits do."""
    return {
        "device": name.device,
        "precision": name.precision,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


__all__ = ["Executor", "environment"]

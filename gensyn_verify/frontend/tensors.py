"""PyTorch tensors as the arrays and types of programs, and back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.errors import CaptureError
from gensyn_verify.program.types import Dtype, TensorType

STORED_AS: dict[torch.dtype, Dtype] = {
    torch.float32: Dtype.f32,
    torch.bfloat16: Dtype.bf16,
    torch.float16: Dtype.f16,
    torch.int64: Dtype.i32,  # values are checked where they enter; arithmetic wraps at 2^31
    torch.int32: Dtype.i32,
    torch.uint8: Dtype.u8,
    torch.int8: Dtype.i8,
    torch.bool: Dtype.boolean,
}
TORCH_DTYPE = {STORED_AS[t]: t for t in (torch.float32, torch.bfloat16, torch.float16)}
I32_MIN, I32_MAX = -(1 << 31), (1 << 31) - 1


def stored_dtype(dtype: torch.dtype) -> Dtype:
    """The element type that stands for a torch dtype; CaptureError where there is none."""
    if dtype not in STORED_AS:
        advice = "; convert it with .float()" if dtype is torch.float64 else ""
        advice = "; keep real and imaginary parts, or cosine and sine" if dtype.is_complex else advice
        known = ", ".join(str(d).removeprefix("torch.") for d in STORED_AS)
        raise CaptureError(f"{dtype} has no place in a program; supported are {known}{advice}")
    return STORED_AS[dtype]


def tensor_type(tensor: Tensor) -> TensorType:
    return TensorType(stored_dtype(tensor.dtype), tuple(tensor.shape))


def check_dtype(tensor: Tensor, what: str) -> Dtype:
    """The element type of `tensor`; CaptureError naming `what` where there is none."""
    try:
        return stored_dtype(tensor.dtype)
    except CaptureError as error:
        raise CaptureError(f"{what}: {error}") from None


def check_memory(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """Raise CaptureError where a parameter shares memory with another tensor: a program has no aliases."""
    by_storage: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in [*parameters.items(), *buffers.items()]:
        if tensor.numel():
            by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append((name, tensor.detach()))
    for (a, first), (b, second) in (pair for group in by_storage.values() for pair in combinations(group, 2)):
        if (a in parameters or b in parameters) and np.shares_memory(_memory(first), _memory(second)):
            raise CaptureError(
                f"{a!r} and {b!r} share memory but are two tensors, so an update of one would change the other; to tie "
                "weights, assign one Parameter to both modules"
            )


def _memory(tensor: Tensor) -> Array:
    """The bytes of `tensor` where they are."""
    array: Array = tensor.view(torch.int16).numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()
    return array


def to_array(tensor: Tensor, what: str, copy: bool = True) -> Array:
    """A copy of `tensor` in its carrier, C-contiguous; int64 becomes int32 if every value fits.

    Without `copy`, the tensor's own memory where that is in its carrier already.

    Raises CaptureError, naming `what`, for other devices, sparse layouts, dtypes without a place, values out of range.
    """
    dtype = check_dtype(tensor, what)
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise CaptureError(f"{what}: expected a dense tensor on the cpu, found {tensor.layout} on {tensor.device}")
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if dtype is Dtype.bf16:
        array: Array = dense.view(torch.int16).numpy().view(np.uint16)
    else:
        array = dense.numpy()
    if array.dtype == np.int64 and array.size and not I32_MIN <= int(array.min()) <= int(array.max()) <= I32_MAX:
        raise CaptureError(
            f"{what}: int64 values are kept as int32, from {I32_MIN} to {I32_MAX}; "
            f"found {int(array.min())} to {int(array.max())}"
        )
    make = np.array if copy else np.asarray
    return make(array, dtype=CARRIER[dtype], order="C").reshape(tuple(tensor.shape))


def write_array(array: Array, tensor: Tensor) -> None:
    """Copy a carrier array into `tensor`, whatever its strides; the reverse of `to_array`."""
    with torch.no_grad():
        tensor.copy_(_as_tensor(array, tensor.dtype))


def holds(tensor: Tensor, array: Array) -> bool:
    """Whether `tensor` has exactly the bits of a carrier array: what `to_array` would give."""
    if tuple(tensor.shape) != array.shape:
        return False
    own, other = tensor.detach().contiguous(), _as_tensor(array, tensor.dtype)
    if own.is_floating_point():
        bits = torch.int16 if own.element_size() == 2 else torch.int32
        own, other = own.view(bits), other.view(bits)
    return torch.equal(own, other.to(own.dtype))


def _as_tensor(array: Array, dtype: torch.dtype) -> Tensor:
    """A carrier array as a tensor on the same memory; `dtype` tells bfloat16 from the integers that carry it."""
    source: Any = np.ascontiguousarray(array).reshape(array.shape)
    if not source.flags.writeable:
        source = source.copy()  # torch has no read-only tensors
    if dtype is torch.bfloat16:
        return torch.from_numpy(source.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(source)

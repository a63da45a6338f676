"""Tensors that lie in a GPU's memory already, handed over by address: `__cuda_array_interface__`, version 3.

PyTorch, CuPy, Numba and JAX tell of their tensors in this way. What lies on the GPU is copied there, and never comes to
the host. Tensors of bfloat16, which the interface has no name for, come as 16-bit integers: `tensor.view(torch.int16)`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from gensyn_verify.errors import MalformedError
from gensyn_verify.program.types import Dtype, Shape, TensorType

_NAMES = {
    Dtype.f32: ("<f4",), Dtype.bf16: ("<u2", "<i2"), Dtype.f16: ("<f2",), Dtype.i32: ("<i4",), Dtype.u32: ("<u4",),
    Dtype.u8: ("|u1",), Dtype.boolean: ("|b1",), Dtype.i8: ("|i1",),
}  # fmt: skip


@dataclass(frozen=True)
class DeviceTensor:
    """A contiguous tensor at an address of a GPU.

    `stream`: a handle; what comes before in it has to be done before the tensor is read. None: all is done.
    """

    type: TensorType
    address: int
    stream: int | None = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.type.shape, "typestr": _NAMES[self.type.dtype][0], "data": (self.address, True),
            "strides": None, "version": 3, "stream": self.stream or None,
        }  # fmt: skip


def device_tensor(name: str, given: object, wanted: TensorType) -> DeviceTensor | None:
    """`given` as a tensor of the wanted type on a GPU; None if it is none on a GPU, MalformedError if it is another."""
    told = getattr(given, "__cuda_array_interface__", None)
    if not isinstance(told, dict):
        return None
    shape, typestr, strides = tuple(told["shape"]), told["typestr"], told.get("strides")
    if shape != wanted.shape or typestr not in _NAMES[wanted.dtype]:
        raise MalformedError(f"{name}: expected {wanted} ({_NAMES[wanted.dtype][0]}), found {typestr}{list(shape)}")
    if strides is not None and 0 not in shape and tuple(strides) != _contiguous(shape, wanted.dtype.size):
        raise MalformedError(f"{name}: a tensor on a GPU has to be contiguous, found strides {list(strides)} in bytes")
    return DeviceTensor(wanted, int(told["data"][0]), _stream(given, told))


def _contiguous(shape: Shape, size: int) -> tuple[int, ...]:
    strides = [size]
    for d in reversed(shape[1:]):
        strides.append(strides[-1] * d)
    return tuple(reversed(strides[: len(shape)]))


def _stream(given: object, told: dict[str, Any]) -> int | None:
    """PyTorch says nothing of its stream: it is the current one."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.Tensor):
        return int(torch.cuda.current_stream(given.device).cuda_stream)
    stream = told.get("stream")
    return None if stream is None else int(stream)

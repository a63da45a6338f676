"""Carrier arrays as torch tensors. u32 lies in int32 with the same bits, in tensors and in registers alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.program.types import Dtype, Reg

STORAGE: dict[Dtype, torch.dtype] = {
    Dtype.f32: torch.float32,
    Dtype.bf16: torch.bfloat16,
    Dtype.f16: torch.float16,
    Dtype.i32: torch.int32,
    Dtype.u32: torch.int32,
    Dtype.u8: torch.uint8,
    Dtype.boolean: torch.bool,
    Dtype.i8: torch.int8,
}
REGISTER: dict[Reg, torch.dtype] = {
    Reg.f32: torch.float32,
    Reg.i32: torch.int32,
    Reg.u32: torch.int32,
    Reg.boolean: torch.bool,
}
_BITS = {Dtype.bf16: (np.int16, torch.int16), Dtype.u32: (np.int32, torch.int32)}  # what NumPy or torch has no type for
_NAN: dict[Dtype, tuple[type, int]] = {
    Dtype.f32: (np.uint32, 0x7FC00000),
    Dtype.bf16: (np.uint16, 0x7FC0),
    Dtype.f16: (np.uint16, 0x7E00),
}


def to_tensor(array: Array, dtype: Dtype, device: torch.device) -> Tensor:
    """A carrier array on the device; on a CPU the two may share memory, so nobody writes to it."""
    array = np.asarray(array, order="C")
    if not array.flags.writeable:  # torch warns that it could write to it
        array = array.copy()
    bits = array.view(_BITS[dtype][0]) if dtype in _BITS else array
    return torch.from_numpy(bits).view(STORAGE[dtype]).to(device)


def to_array(tensor: Tensor, dtype: Dtype) -> Array:
    """The carrier array of a contiguous tensor, NaN canonical; on a CPU the two share memory."""
    bits = tensor.view(_BITS[dtype][1]) if dtype in _BITS else tensor
    array: Array = bits.cpu().numpy().view(CARRIER[dtype])
    if dtype.is_float:
        word, canonical = _NAN[dtype]
        nan = array & 0x7FFF > 0x7F80 if dtype is Dtype.bf16 else np.isnan(array)
        if nan.any():
            np.copyto(array.view(word), canonical, where=nan)
    return array


def widen(x: Tensor, dtype: Dtype) -> Tensor:
    """The registers of stored elements: exact."""
    return x.to(REGISTER[dtype.reg])


def narrow(x: Tensor, dtype: Dtype) -> Tensor:
    """The stored elements of registers: floats round to nearest even, u8 and i8 keep the low byte."""
    return x.to(STORAGE[dtype])

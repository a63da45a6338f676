"""Tensors, numbers and batches of PyTorch code as arrays of programs, every bit of them, and back.

A tensor whose dtype a program has is that tensor. Of any other dtype an element is its little-endian words, as
u32[..., n], or its bytes, u8[..., n], where it is no whole number of words: int64 is u32[..., 2]. A number is u32[2]:
an int (a bool) in two's complement, a float as binary64.

A batch is a nest of tuples, lists and dicts. The name of a leaf is its path and its type, so that names alone give the
nest back: `batch(0):float32`, `batch[2]:int64`, `batch.mask:bool`; a Python number is `batch.k=int`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.errors import CaptureError, MalformedError
from gensyn_verify.program.types import Dtype, TensorType

AS_THEY_ARE: dict[torch.dtype, Dtype] = {
    torch.float32: Dtype.f32, torch.bfloat16: Dtype.bf16, torch.float16: Dtype.f16, torch.int32: Dtype.i32,
    torch.uint32: Dtype.u32, torch.uint8: Dtype.u8, torch.bool: Dtype.boolean,
}  # fmt: skip
IN_BATCHES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (*AS_THEY_ARE, torch.int8, torch.int16, torch.int64, torch.float64, torch.complex64, torch.complex128)
}
NUMBER = TensorType(Dtype.u32, (2,))
NUMBERS: dict[str, type] = {"int": int, "float": float, "bool": bool}
_PART = r"\(\d{1,4}\)|\[\d{1,4}\]|\.[A-Za-z_][\w-]*"
_LEAF = re.compile(rf"batch((?:{_PART})*)([:=])(\w+)", re.ASCII)


def type_of(tensor: Tensor) -> TensorType:
    """What stands for a tensor."""
    dtype, shape = AS_THEY_ARE.get(tensor.dtype), tuple(tensor.shape)
    if dtype is not None:
        return TensorType(dtype, shape)
    size = tensor.element_size()
    return TensorType(Dtype.u8, (*shape, size)) if size % 4 else TensorType(Dtype.u32, (*shape, size // 4))


def to_array(tensor: Tensor, what: str, copy: bool = True) -> Array:
    """A copy of the tensor's bits, from whatever device; without `copy` its own memory where that has the form already.

    Raises CaptureError, naming `what`, for sparse and quantized tensors.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise CaptureError(f"{what}: expected a dense tensor, found {tensor.layout} of {tensor.dtype}")
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    octets: Array = dense.reshape(-1).view(torch.uint8).numpy()
    wanted = type_of(tensor)
    return (octets.copy() if copy else octets).view(CARRIER[wanted.dtype]).reshape(wanted.shape)


def as_tensor(array: Array, dtype: torch.dtype) -> Tensor:
    """The tensor of a dtype that an array stands for, on memory of its own; the reverse of `to_array`."""
    shape = array.shape if dtype in AS_THEY_ARE else array.shape[:-1]
    if not array.size:
        return torch.empty(shape, dtype=dtype)
    octets = torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8).copy())
    return octets.view(dtype).reshape(shape)


def write(array: Array, tensor: Tensor) -> None:
    """Put an array's bits into `tensor` where it lies, whatever its strides and device."""
    with torch.no_grad():
        tensor.copy_(as_tensor(array, tensor.dtype))


def carried(array: Array) -> TensorType:
    """The type of an array that stands for something."""
    return TensorType(next(d for d, carrier in CARRIER.items() if carrier == array.dtype), array.shape)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays of one type have the same bytes."""
    return np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))


def from_number(number: float, what: str) -> Array:
    """u32[2] of an int, a bool or a float; CaptureError where an int has more than 64 bits."""
    try:
        octets = struct.pack("<d" if isinstance(number, float) else "<q", number)
    except struct.error:
        raise CaptureError(f"{what}: {number} has more than 64 bits") from None
    return np.frombuffer(octets, np.dtype("<u4")).copy()


def to_number(words: Array, type: type) -> Any:
    """The number of a type (int, float or bool) that u32[2] stands for."""
    (number,) = struct.unpack("<d" if type is float else "<q", words.astype("<u4").tobytes())
    return type(number)


# ---- batches ----------------------------------------------------------------------------------------------------


def flatten(batch: Any) -> dict[str, Array]:
    """The leaves of a batch by name. Raises CaptureError, naming the place, for what is no nest of tensors."""
    return dict(_leaves(batch, "batch"))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Array]]:
    if isinstance(value, Tensor):
        name = str(value.dtype).removeprefix("torch.")
        if name not in IN_BATCHES:
            raise CaptureError(f"{path} is of {value.dtype}; a recorded batch has {', '.join(IN_BATCHES)}")
        yield f"{path}:{name}", to_array(value, path)
    elif type(value) in NUMBERS.values():
        yield f"{path}={type(value).__name__}", from_number(value, path)
    elif isinstance(value, Mapping | tuple | list) and len(value):
        for part, item in _parts(value, path):
            yield from _leaves(item, path + part)
    else:
        raise CaptureError(
            f"{path} is {type(value).__name__} ({value!r:.60}); a recorded batch is a nest of tuples, lists and dicts, "
            "none of them empty, of tensors and numbers"
        )


def _parts(value: Mapping[Any, Any] | tuple[Any, ...] | list[Any], path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", key, re.ASCII):
                raise CaptureError(f"{path} has the key {key!r}; keys of a recorded batch are words")
            yield f".{key}", item
    else:
        for n, item in enumerate(value):
            yield (f"[{n}]" if isinstance(value, list) else f"({n})"), item


def unflatten(arrays: Mapping[str, Array], device: torch.device) -> Any:
    """The batch that leaves by name stand for, its tensors on `device`; the reverse of `flatten`, dicts by sorted key.

    Raises MalformedError for names and arrays that `flatten` does not give.
    """
    root: dict[str, Any] = {}
    for name in sorted(arrays):
        match = _LEAF.fullmatch(name)
        if match is None:
            raise MalformedError(f"{name!r} is no name of a recorded batch's leaf")
        parts = ["batch", *re.findall(_PART, match[1], re.ASCII)]
        node = root
        for part in parts[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise MalformedError(f"batch {name!r}: {part} is a leaf and has parts")
        if parts[-1] in node:
            raise MalformedError(f"batch {name!r}: {parts[-1]} is there twice")
        node[parts[-1]] = _leaf(name, arrays[name], match[2], match[3], device)
    if not root:
        raise MalformedError("a recorded batch has no leaf")
    return _nest(root["batch"])


def _leaf(name: str, array: Array, mark: str, kind: str, device: torch.device) -> Any:
    if mark == "=" and kind in NUMBERS:
        if (array.dtype, array.shape) == (CARRIER[NUMBER.dtype], NUMBER.shape):
            return to_number(array, NUMBERS[kind])
    elif mark == ":" and kind in IN_BATCHES:
        dtype = IN_BATCHES[kind]
        empty = type_of(torch.empty(0, dtype=dtype))
        words = empty.shape[1:]
        if array.dtype == CARRIER[empty.dtype] and array.shape[array.ndim - len(words) :] == words:
            return as_tensor(array, dtype).to(device)
    raise MalformedError(f"batch {name!r}: {array.dtype}{list(array.shape)} is not what stands for {kind}")


def _nest(node: Any) -> Any:
    """Containers from the parts of paths."""
    if not isinstance(node, dict):
        return node
    marks = {part[0] for part in node}
    if marks == {"."}:
        return {part[1:]: _nest(item) for part, item in node.items()}
    by_number = {part[1:-1]: item for part, item in node.items()}
    if len(marks) != 1 or by_number.keys() != {str(n) for n in range(len(node))}:
        raise MalformedError(f"a recorded batch has the parts {sorted(node)} side by side")
    items = [_nest(by_number[str(n)]) for n in range(len(node))]
    return items if marks == {"["} else tuple(items)

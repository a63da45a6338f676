"""How tensors lie in NumPy: one carrier dtype for every storage dtype, and the conversions to and from registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gensyn_verify.errors import MalformedError
from gensyn_verify.program.types import Dtype, Reg, TensorType

Array = npt.NDArray[Any]

CARRIER: dict[Dtype, np.dtype[Any]] = {
    Dtype.f32: np.dtype("<f4"),
    Dtype.bf16: np.dtype("<u2"),  # the bits: NumPy has no bfloat16
    Dtype.f16: np.dtype("<f2"),
    Dtype.i32: np.dtype("<i4"),
    Dtype.u32: np.dtype("<u4"),
    Dtype.u8: np.dtype("u1"),
    Dtype.boolean: np.dtype("?"),
    Dtype.i8: np.dtype("i1"),
}

REGISTER: dict[Reg, type[np.generic]] = {
    Reg.f32: np.float32, Reg.i32: np.int32, Reg.u32: np.uint32, Reg.boolean: np.bool_,
}  # fmt: skip


def check_array(name: str, array: object, wanted: TensorType) -> Array:
    """`array` as a C-contiguous carrier array of the wanted type; raises MalformedError naming both sides."""
    if isinstance(array, np.generic):
        array = np.asarray(array)
    if not isinstance(array, np.ndarray):
        raise MalformedError(f"{name}: expected a NumPy array for {wanted}, found {type(array).__name__}")
    if array.dtype != CARRIER[wanted.dtype] or array.shape != wanted.shape:
        raise MalformedError(
            f"{name}: expected {wanted} (NumPy {CARRIER[wanted.dtype]}), found {array.dtype}{list(array.shape)}"
        )
    return np.asarray(array, order="C")


T = TypeVar("T")


def check_arrays(arrays: Mapping[str, object], wanted: Mapping[str, TensorType], what: str) -> dict[str, Array]:
    """`check_array` on every entry; names must be the wanted ones, no more and no fewer."""
    return check_named(arrays, wanted, what, check_array)


def check_named(
    arrays: Mapping[str, object],
    wanted: Mapping[str, TensorType],
    what: str,
    check: Callable[[str, object, TensorType], T],
) -> dict[str, T]:
    """`check` on every entry; names must be the wanted ones, no more and no fewer."""
    missing, extra = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or extra:
        raise MalformedError(f"{what}: missing {missing or 'none'}, unknown {extra or 'none'}")
    return {name: check(f"{what} {name!r}", arrays[name], t) for name, t in wanted.items()}


def widen(stored: Array, dtype: Dtype) -> Array:
    """Registers (float32, int32, uint32 or bool) of stored elements: exact."""
    if dtype is Dtype.bf16:
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype is Dtype.f16:
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
            return stored.astype(np.float32)
    return stored.astype(REGISTER[dtype.reg], copy=False)


def narrow(register: Array, dtype: Dtype) -> Array:
    """Stored elements of registers: floats round once to nearest even and every NaN becomes the canonical one."""
    if not dtype.is_float:
        return register.astype(CARRIER[dtype])
    nan = np.isnan(register)
    if dtype is Dtype.f32:
        return np.where(nan, np.uint32(0x7FC00000), register.view(np.uint32)).astype(np.uint32).view(np.float32)
    if dtype is Dtype.f16:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            half = register.astype(np.float16)
        return np.where(nan, np.uint16(0x7E00), half.view(np.uint16)).astype(np.uint16).view(np.float16)
    bits = register.view(np.uint32)
    # Add half an ulp of bf16, less one if the kept part is even: ties go to even, carries reach the exponent.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(nan, np.uint32(0x7FC0), rounded).astype(np.uint16)

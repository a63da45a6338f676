"""Element types of tensors, register types of scalar programs, and tensor types.

A tensor element is stored as a `Dtype`. Inside a scalar program it lives in a 32-bit register of a `Reg` type:
narrow storage widens exactly on load and is rounded once, to nearest even, on store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, IntEnum

from gensyn_verify.errors import LimitError, ProgramError

MAX_RANK = 8
MAX_ELEMENTS = 1 << 36


class Reg(IntEnum):
    """Register types of scalar programs (their codes in canonical bytes)."""

    f32 = 0
    i32 = 1
    u32 = 2
    boolean = 3


class Dtype(Enum):
    """Storage types: (code in canonical bytes, bytes an element, register type)."""

    f32 = (0, 4, Reg.f32)
    bf16 = (1, 2, Reg.f32)
    f16 = (2, 2, Reg.f32)
    i32 = (3, 4, Reg.i32)
    u32 = (4, 4, Reg.u32)
    u8 = (5, 1, Reg.u32)
    boolean = (6, 1, Reg.boolean)
    i8 = (7, 1, Reg.i32)

    def __init__(self, code: int, size: int, reg: Reg) -> None:
        self.code = code
        self.size = size
        self.reg = reg

    @property
    def is_float(self) -> bool:
        return self.reg is Reg.f32

    @staticmethod
    def from_code(code: int) -> Dtype:
        for dtype in Dtype:
            if dtype.code == code:
                return dtype
        raise ProgramError(f"dtype code {code} is unknown; known codes are 0 to {len(Dtype) - 1}")


Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorType:
    """A dtype and a static shape."""

    dtype: Dtype
    shape: Shape

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.size

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"

    def check(self) -> None:
        """Raise unless rank, dimensions and element count are within the limits of the format."""
        if len(self.shape) > MAX_RANK:
            raise LimitError(f"rank {len(self.shape)} exceeds the limit of {MAX_RANK}")
        if any(d < 0 for d in self.shape):
            raise ProgramError(f"shape {list(self.shape)} has a negative dimension")
        if self.elements > MAX_ELEMENTS or any(d > MAX_ELEMENTS for d in self.shape):
            raise LimitError(f"shape {list(self.shape)} exceeds the limit of 2^36 elements a tensor")

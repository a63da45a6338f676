"""What an honest kernel may do. u is the unit roundoff: half the distance from 1 to the next number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gensyn_verify.backends.arrays import Array
from gensyn_verify.errors import MalformedError
from gensyn_verify.program.types import Dtype

U = 2.0**-24  # of binary32
TINY = 2.0**-149  # its smallest subnormal: what a product may lose
LARGEST: dict[Dtype, float] = {
    Dtype.f32: (2 - 2.0**-23) * 2.0**127,
    Dtype.bf16: (2 - 2.0**-7) * 2.0**127,
    Dtype.f16: 65504.0,
}
STORE: dict[Dtype, tuple[float, float]] = {  # unit roundoff and half the smallest subnormal of narrow storage
    Dtype.bf16: (2.0**-8, 2.0**-134),
    Dtype.f16: (2.0**-11, 2.0**-25),
}
OPERANDS = {"fp32": 0.0, "tf32": 2.0**-10, "bf16": 2.0**-8}  # TF32 units may cut operands off instead of rounding them


@dataclass(frozen=True)
class Model:
    """`precision` of matrix products (fp32, tf32, bf16). Subnormals are gradual, as on CPUs and CUDA.

    `confidence` is lambda of the probabilistic bound: lambda sqrt(n) u in place of n u. It holds for a sum of n terms
    with probability at least 1 - 2 n exp(-lambda^2 / 2) if rounding errors are independent and of mean zero, which
    they are not where a solver chooses them or terms are much alike; None gives the bound that always holds.
    """

    precision: str = "fp32"
    confidence: float | None = None

    def __post_init__(self) -> None:
        if self.precision not in OPERANDS:
            raise MalformedError(f"precision {self.precision!r} is unknown; known are {', '.join(OPERANDS)}")
        if self.confidence is not None and not self.confidence > 0:
            raise MalformedError(f"confidence is {self.confidence}; it has to be above 0")

    def gamma(self, n: Array | float) -> Array:
        """The relative error of n roundings in a row, one after another on the same sum."""
        n = np.maximum(np.asarray(n, np.float64), 0.0)
        if self.confidence is not None:
            return np.asarray(np.expm1(np.minimum(self.confidence * np.sqrt(n), n) * U + n * U * U))
        return np.asarray(np.where(n * U < 1, n * U / np.maximum(1 - n * U, U), np.inf))

    @property
    def product(self) -> float:
        """The relative error of a product of two rounded operands."""
        return math.expm1(2 * math.log1p(OPERANDS[self.precision]))


FP32 = Model()

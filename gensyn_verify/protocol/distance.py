"""How far two states of a run are from each other, tensor by tensor, in binary64.

A difference has norms l1, l2 and linf; two updates from one opening state have a cosine; two tensors have a histogram
of distances in ulps, the count of representable numbers between two elements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gensyn_verify.backends.arrays import Array, widen
from gensyn_verify.program.types import Dtype, TensorType

NORMS = ("l1", "l2", "linf")
ULP_BUCKETS = 33  # bucket 0: equal; bucket k: 2^(k-1) to 2^k - 1 ulps


@dataclass(frozen=True)
class Norms:
    """Norms of a difference; infinite where an element of it is no number."""

    l1: float
    l2: float
    linf: float

    @staticmethod
    def of(difference: Array) -> Norms:
        size = np.abs(difference.reshape(-1))
        if not size.size:
            return Norms(0.0, 0.0, 0.0)
        if not np.isfinite(size).all():
            return Norms(math.inf, math.inf, math.inf)
        return Norms(float(size.sum()), math.sqrt(inner(size, size)), float(size.max()))

    def farther(self, other: Norms) -> Norms:
        """The larger one of each norm."""
        return Norms(max(self.l1, other.l1), max(self.l2, other.l2), max(self.linf, other.linf))


def difference(a: Array, b: Array, dtype: Dtype) -> Array:
    """a - b of two tensors as they are stored, in binary64; equal elements differ by 0, infinite ones too."""
    x, y = (widen(t, dtype).astype(np.float64) for t in (a, b))
    with np.errstate(invalid="ignore"):
        return np.where(x == y, 0.0, x - y)


def inner(a: Array, b: Array) -> float:
    """The sum of products of two differences, in the order of NumPy's pairwise sums.

    `np.dot` would ask a BLAS, whose order depends on the processor: two verifiers would get other statistics.
    """
    with np.errstate(all="ignore"):
        return float(np.multiply(a, b).reshape(-1).sum())


def cosine(a: Array, b: Array) -> float:
    """Of two differences; 1 where both are zero, 0 where one is, or where an element is no number."""
    sizes = math.sqrt(inner(a, a)), math.sqrt(inner(b, b))
    if sizes == (0.0, 0.0):
        return 1.0
    product = inner(a, b) / sizes[0] / sizes[1] if min(sizes) > 0.0 else 0.0
    return product if math.isfinite(product) else 0.0


def ulps(a: Array, b: Array, dtype: Dtype) -> tuple[int, ...]:
    """How many elements are 0, 1, 2-3, 4-7 ... ulps of `dtype` apart: ULP_BUCKETS counts. -0 and +0 are equal."""
    bits = 8 * dtype.size
    unsigned, signed = np.dtype(f"u{dtype.size}"), np.int64

    def place(t: Array) -> Array:  # the position of each element among all numbers of the dtype, ascending
        raw = np.ascontiguousarray(t).reshape(-1).view(unsigned).astype(signed)
        negative = raw >> (bits - 1)
        size = raw & ((1 << (bits - 1)) - 1)
        return np.where(negative == 1, -size, size)

    apart = np.abs(place(a) - place(b))
    bucket = np.where(apart == 0, 0, np.frexp(apart.astype(np.float64))[1])
    return tuple(int(n) for n in np.bincount(bucket, minlength=ULP_BUCKETS))


def float_types(types: Mapping[str, TensorType]) -> dict[str, TensorType]:
    """The tensors of a state that have distances; all others are equal or not."""
    return {name: t for name, t in types.items() if t.dtype.is_float}

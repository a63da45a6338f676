"""Operands that find mistakes in soft floats: rows of three binary32 patterns.

Random bits hardly ever make two numbers meet. Each class below aims at one place: ties, cancellation, the subnormal
range, overflow. `ties` (a product of exactly 25 bits, and an addend far below it) and `short` (a subnormal of a few
bits times a large number) are the ones without which mutants of the rounding survive.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

EDGES = [
    0x00000000, 0x00000001, 0x00000002, 0x00000003, 0x003FFFFF, 0x00400000, 0x007FFFFE, 0x007FFFFF, 0x00800000,
    0x00800001, 0x00C00000, 0x00FFFFFF, 0x01000000, 0x0C800000, 0x19800000, 0x1F800000, 0x20000000, 0x33800000,
    0x33800001, 0x337FFFFF, 0x34000000, 0x3EFFFFFF, 0x3F000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FFFFFFF,
    0x40000000, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x4B000000, 0x4B7FFFFF, 0x4EFFFFFF, 0x4F000000, 0x4F7FFFFF,
    0x4F800000, 0x5F800000, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF,
]  # fmt: skip


class Operands:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def make(self, exponent: Integers, sparse: bool = False) -> Words:
        """Numbers of these exponents (clipped to finite ones), random signs and fractions; sparse: few bits of them."""
        n = len(exponent)
        fraction = self.rng.integers(0, 1 << 23, n)
        if sparse:
            fraction &= 0x7FFFFF << self.rng.integers(0, 24, n)
        sign = self.rng.integers(0, 2, n) << 31
        return (sign | np.clip(exponent, 0, 254) << 23 | (fraction & 0x7FFFFF)).astype(np.uint32)

    def exponents(self, n: int, low: int = 0, high: int = 255) -> Integers:
        return self.rng.integers(low, high, n)

    def edges(self, n: int) -> Words:
        values = np.array([*EDGES, *(e | 1 << 31 for e in EDGES)], np.uint32)
        if n >= len(values) ** 3:
            return np.array(list(itertools.product(values, repeat=3)), np.uint32)
        return self.rng.choice(values, (n, 3))

    def uniform(self, n: int) -> Words:
        return self.rng.integers(0, 1 << 32, (n, 3), dtype=np.uint32)

    def near(self, n: int, sparse: bool = False) -> Words:
        """c about as large as a * b, and b about as large as a in half of them."""
        a = self.exponents(n)
        b = np.where(self.rng.random(n) < 0.5, self.exponents(n), a + self.rng.integers(-27, 28, n))
        c = a + b - 127 + self.rng.integers(-52, 53, n)
        return np.stack([self.make(a, sparse), self.make(b, sparse), self.make(c, sparse)], 1)

    def sparse(self, n: int) -> Words:
        return self.near(n, True)

    def tiny(self, n: int) -> Words:
        """Results in and around the subnormal range."""
        a = self.exponents(n, 0, 128)
        b = 126 - a + self.rng.integers(-30, 31, n)
        return np.stack([self.make(a), self.make(b, True), self.make(self.exponents(n, 0, 30))], 1)

    def small(self, n: int) -> Words:
        """Subnormal operands, and quotients that are."""
        a, b = self.exponents(n, 0, 3), self.exponents(n, 0, 140)
        rows = np.stack([self.make(a, True), self.make(b, True), self.make(self.exponents(n, 0, 3))], 1)
        swap = self.rng.random(n) < 0.3
        rows[swap] = rows[swap][:, [1, 0, 2]]
        return rows

    def cancelling(self, n: int) -> Words:
        """c = -(a * b) rounded, or a neighbour; b = -a or a neighbour in half of them."""
        rows = self.near(n)
        half = self.rng.random(n) < 0.5
        step = self.rng.integers(-3, 4, n).astype(np.uint32)
        rows[half, 1] = (rows[half, 0] ^ np.uint32(1 << 31)) + step[half]
        with np.errstate(all="ignore"):
            product = np.asarray(rows.view(np.float32)[:, 0] * rows.view(np.float32)[:, 1]).view(np.uint32)
        rows[:, 2] = (product ^ np.uint32(1 << 31)) + self.rng.permutation(step)
        return rows

    def huge(self, n: int) -> Words:
        """Results around the largest finite number."""
        a = self.exponents(n, 120, 255)
        b = np.where(self.rng.random(n) < 0.5, 381 - a + self.rng.integers(-3, 4, n), a + self.rng.integers(-25, 2, n))
        rows = np.stack([self.make(a), self.make(b, True), self.make(self.exponents(n, 225, 255))], 1)
        few = self.rng.random(n) < 0.5  # fractions of 0 or 1 unit
        rows[few, :2] = rows[few, :2] & np.uint32(0xFF800000) | self.rng.integers(0, 2, (int(few.sum()), 2), np.uint32)
        return rows

    def signs(self, n: int) -> Words:
        """Zeros, ones, twos, infinities and the NaN, each with each."""
        values = [0, 1, 0x3F800000, 0x40000000, 0x7F7FFFFF, 0x7F800000]
        return self.rng.choice(np.array([*values, *(v | 1 << 31 for v in values), 0x7FC00000], np.uint32), (n, 3))

    def runs(self, n: int) -> Words:
        """One bit, and what is just below and above: integers and subnormal numbers whose highest bit is anywhere."""
        bit = 1 << self.rng.integers(0, 33, (n, 3))
        return np.asarray(bit + self.rng.integers(-1, 4, (n, 3))).astype(np.uint32)

    def ties(self, n: int) -> Words:
        """a * b has exactly 25 bits, so it lies between two numbers; c is anywhere below, of either sign, or 0."""
        bits = self.rng.integers(1, 25, n)

        def odd(bits: Integers) -> Integers:
            top = 1 << (bits - 1)
            return np.asarray(top | self.rng.integers(0, 1 << 23, n) & (top - 1) | 1)

        def number(m: Integers, bits: Integers, exponent: Integers) -> Words:
            sign = self.rng.integers(0, 2, n) << 31
            return np.asarray(sign | exponent << 23 | (m << (24 - bits)) & 0x7FFFFF).astype(np.uint32)

        a = self.exponents(n, 1)
        b = np.clip(127 - a + self.rng.integers(0, 254, n), 1, 254)
        c = a + b - 127 - self.rng.integers(0, 230, n)
        # products so large that an addend falls below all that is kept of it, or just not
        edge = self.rng.random(n) < 0.2
        a, b = (
            np.where(edge, 254 - self.rng.integers(0, 12, n), a),
            np.where(edge, 126 - self.rng.integers(0, 12, n), b),
        )
        c = np.where(edge, a + b - 357 + self.rng.integers(-1, 2, n), c)
        addend = self.make(c)
        addend[self.rng.random(n) < 0.3] &= np.uint32(1 << 31)
        return np.stack([number(odd(bits), bits, a), number(odd(25 - bits), 25 - bits, b), addend], 1)

    def short(self, n: int) -> Words:
        """A subnormal number of a few bits times a large one, c around the product."""
        a = self.rng.integers(1, 1 << 23, n) >> self.rng.integers(0, 23, n)
        a = np.maximum(a, 1) | self.rng.integers(0, 2, n) << 31
        b = self.exponents(n, 1)
        c = b - 149 + self.rng.integers(-60, 61, n)
        return np.stack([a.astype(np.uint32), self.make(b, True), self.make(c, True)], 1)

    def sum_ties(self, n: int) -> Words:
        """a + b is half a unit from a number, or nearly; also close to integers, for conversions."""
        a = self.exponents(n, 25, 254)
        gap = self.rng.integers(23, 27, n)
        rows = np.stack([self.make(a, True), self.make(a - gap, True), self.uniform(n)[:, 2]], 1)
        near_one = self.rng.random(n) < 0.3
        rows[near_one, 0] = self.make(self.exponents(int(near_one.sum()), 120, 161), True)
        return rows

    def squares(self, n: int) -> Words:
        """Squares of short numbers and their neighbours; integers, small and large."""
        root = self.rng.integers(1, 1 << 12, n).astype(np.float32) * np.exp2(self.rng.integers(-74, 50, n)).astype(
            np.float32
        )
        with np.errstate(all="ignore"):
            square = (root * root).view(np.uint32) + self.rng.integers(-2, 3, n).astype(np.uint32)
        other = self.rng.integers(0, 1 << 32, (n, 2), dtype=np.uint32) >> self.rng.integers(0, 32, (n, 2)).astype(
            np.uint32
        )
        return np.column_stack([square & np.uint32(0x7FFFFFFF), other]).astype(np.uint32)

    def narrow(self, n: int) -> Words:
        """One column: ties between numbers of binary16 and of bfloat16, and their neighbours; as halves, all kinds."""
        bits = self.make(np.where(self.rng.random(n) < 0.7, self.exponents(n, 98, 146), self.exponents(n)))
        for unit in (13, 16):
            tie = self.rng.random(n) < 0.4
            near = (1 << (unit - 1)) + self.rng.integers(-1, 2, n).astype(np.uint32)
            bits = np.where(tie, bits >> unit << unit | near, bits).astype(np.uint32)
        halves = [sign << 15 | e << shift | f for sign in (0, 1) for shift in (7, 10) for e in range(1 << 15 - shift)
                  for f in (0, 1, (1 << shift) - 1)]  # fmt: skip
        return np.concatenate([bits, np.array([*EDGES, *halves], np.uint32)])

    CLASSES = ("edges", "signs", "runs", "uniform", "near", "sparse", "tiny", "small", "cancelling", "huge", "ties",
               "short", "sum_ties", "squares")  # fmt: skip

    def rows(self, n: int) -> Words:
        """n rows of every class, in order."""
        return np.concatenate([getattr(self, name)(n) for name in self.CLASSES])

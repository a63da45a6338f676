"""The order of batches: a permutation every epoch, random access, no visible pattern."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensyn_verify.errors import MalformedError
from gensyn_verify.protocol.sampler import Sampler, permute

SEEDS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


def plain_philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 with Python integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return c


def plain_row(position: int, rows: int, seed: tuple[int, int], epoch: int) -> int:
    """The permutation as docs/formats.md words it, one position at a time."""
    a = math.isqrt(rows - 1) + 1
    b = -(-rows // a)
    x = position
    while True:
        left, right = divmod(x, b)
        for i in range(10):
            counter = [right if i % 2 == 0 else left, 2**31 + i, epoch % 2**32, epoch // 2**32]
            w0, w1, _, _ = plain_philox(counter, seed)
            if i % 2 == 0:
                left = (left + w0 + 2**32 * w1) % a
            else:
                right = (right + w0 + 2**32 * w1) % b
        x = left * b + right
        if x < rows:
            return x


@given(st.integers(1, 300), SEEDS, st.integers(0, 2**40))
def test_every_epoch_is_a_permutation(rows: int, seed: tuple[int, int], epoch: int) -> None:
    assert sorted(permute(np.arange(rows), rows, seed, epoch)) == list(range(rows))


@given(st.integers(1, 2**36), SEEDS, st.integers(0, 2**40), st.data())
def test_rows_follow_the_written_definition(rows: int, seed: tuple[int, int], epoch: int, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, rows - 1))
    assert permute(np.array([position]), rows, seed, epoch)[0] == plain_row(position, rows, seed, epoch)


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), SEEDS, st.lists(st.integers(0, 400), max_size=8))
def test_any_step_may_be_asked_for_in_any_order(rows: int, batch: int, seed: tuple[int, int], steps: list[int]) -> None:
    batch = min(rows, batch)
    sampler = Sampler(seed, rows, batch)
    per_epoch = rows // batch
    for step in steps:
        epoch, place = divmod(step, per_epoch)
        whole = permute(np.arange(rows), rows, seed, epoch)
        np.testing.assert_array_equal(sampler.indices(step), whole[place * batch : (place + 1) * batch])


def test_rows_behind_the_last_full_batch_are_left_out_of_their_epoch() -> None:
    sampler = Sampler((3, 4), 10, 4)
    assert sampler.steps_per_epoch == 2
    first = np.concatenate([sampler.indices(0), sampler.indices(1)])
    assert len(set(first)) == 8
    assert set(first) < set(range(10))
    left_out = [
        {*range(10)} - {*np.concatenate([sampler.indices(2 * e), sampler.indices(2 * e + 1)])} for e in range(50)
    ]
    assert set.union(*left_out) == set(range(10))  # other rows in other epochs


def test_seeds_and_epochs_give_unrelated_orders() -> None:
    orders = [
        tuple(permute(np.arange(1000), 1000, seed, epoch)) for seed in [(0, 0), (1, 0), (0, 1)] for epoch in range(3)
    ]
    assert len(set(orders)) == 9
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert sum(x == y for x, y in zip(a, b, strict=True)) < 12  # 1 expected; 12 has probability 1e-9


def chi_square(observed: np.ndarray, expected: float) -> float:
    """The statistic in standard deviations of its own distribution (degrees of freedom: one less than the cells)."""
    freedom = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("rows", [3, 4, 5])
def test_all_orders_of_few_rows_are_equally_frequent(rows: int) -> None:
    count = 8 * math.factorial(rows)
    found = Counter(tuple(int(x) for x in permute(np.arange(rows), rows, (5, rows), e)) for e in range(count))
    observed = np.array([found[p] for p in permutations(range(rows))])
    assert abs(chi_square(observed, 8)) < 5


@pytest.mark.parametrize("rows", [7, 97, 500])
def test_every_position_holds_every_row_equally_often(rows: int) -> None:
    epochs = 400
    table = np.stack([permute(np.arange(rows), rows, (9, 9), e) for e in range(epochs)])
    for position in (0, rows // 2, rows - 1):
        cells = np.bincount(table[:, position] * 7 // rows, minlength=7)
        sizes = np.bincount(np.arange(rows) * 7 // rows, minlength=7) / rows * epochs
        assert (((cells - sizes) ** 2 / sizes).sum() - 6) / math.sqrt(12) < 5


def test_neighbours_in_an_epoch_are_not_neighbours_in_the_data() -> None:
    rows = 4096
    order = permute(np.arange(rows), rows, (1, 1), 0).astype(np.int64)
    for lag in (1, 2, 64):  # 64 is the width of the network's halves
        products = (order[lag:] - order.mean()) * (order[:-lag] - order.mean())
        correlation = products.mean() / order.var()
        assert abs(correlation) < 5 / math.sqrt(rows)
        steps = np.diff(order[::lag]) % rows
        assert Counter(steps.tolist()).most_common(1)[0][1] < 12


@pytest.mark.parametrize(
    ("seed", "rows", "batch"),
    [((0,), 5, 1), ((0, 1 << 32), 5, 1), ((-1, 0), 5, 1), ((0, 0), 5, 0), ((0, 0), 5, 6), ((0, 0), (1 << 36) + 1, 1)],
)
def test_impossible_samplers_are_refused(seed: tuple[int, int], rows: int, batch: int) -> None:
    with pytest.raises(MalformedError):
        Sampler(seed, rows, batch)

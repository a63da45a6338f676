"""dot: every dtype, transposition and batch form equals the reference bit for bit, and the reference exact integers."""

from __future__ import annotations

from itertools import product

import exact_numerics as exact
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import check_against_reference
from strategies import F32_SPECIAL, dot_program, random_tensor

from gensyn_verify import backends
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.program import Dtype, Program

FLOATS = (Dtype.f32, Dtype.bf16, Dtype.f16)
F32_3 = (Dtype.f32,) * 3
FORMATS = {Dtype.f32: exact.F32, Dtype.bf16: exact.BF16, Dtype.f16: exact.F16}
# Ends of blocks of k: 128 each, the last 65 to 192; six of them make one pass over the result.
BLOCK_ENDS = [64, 65, 127, 128, 129, 191, 192, 193, 255, 256, 257, 320, 321, 448, 449, 832, 833]


def random_inputs(program: Program, seed: int, special: float = 0.0) -> dict[str, Array]:
    """Everyday numbers and, for `special` > 0, random bits and patterns at which rules change."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for i in program.inputs:
        if special:
            inputs[i.name] = random_tensor(rng, i.type.dtype, i.type.shape, special)
        else:
            words = rng.standard_normal(i.type.shape).astype(np.float32)
            bf16 = (words.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
            inputs[i.name] = bf16 if i.type.dtype is Dtype.bf16 else words.astype(CARRIER[i.type.dtype])
    return inputs


dtypes3 = st.tuples(*[st.sampled_from(FLOATS)] * 3) | st.just(F32_3)
transposes = st.tuples(st.booleans(), st.booleans())


@st.composite
def batches(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.sampled_from([(), (1,), (2,), (5,), (0,), (2, 3)]))
    return draw(st.sampled_from([(shape, shape), (shape, ()), ((), shape)]))


@given(
    m=st.integers(0, 40),
    n=st.integers(0, 60),
    k=st.integers(0, 40) | st.sampled_from(BLOCK_ENDS[:9]),
    dtypes=dtypes3,
    transpose=transposes,
    batch=batches(),
    special=st.sampled_from([0.0, 0.02, 0.5]),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_ragged_shapes_dtypes_transposes_and_batches(
    m: int,
    n: int,
    k: int,
    dtypes: tuple[Dtype, Dtype, Dtype],
    transpose: tuple[bool, bool],
    batch: tuple[tuple[int, ...], tuple[int, ...]],
    special: float,
    seed: int,
) -> None:
    program = dot_program(m, n, k, dtypes, transpose, batch)
    check_against_reference(program, random_inputs(program, seed, special))


@pytest.mark.parametrize("k", BLOCK_ENDS)
@pytest.mark.parametrize(("m", "n"), [(9, 20), (2, 20), (20, 1)])
def test_blocks_of_k_end_where_the_definition_ends_them(m: int, n: int, k: int) -> None:
    program = dot_program(m, n, k, transpose=(k % 3 == 0, m < 9 or k % 2 == 0))
    check_against_reference(program, random_inputs(program, k), threads=(1,))


# Enough work to be split over threads, and to pass every threshold of blocking on some instruction set.
@pytest.mark.parametrize("transpose", [*product([False, True], repeat=2)])
@pytest.mark.parametrize(
    ("m", "n", "k", "batch"),
    [
        (33, 500, 70, ((), ())),  # rows in place
        (131, 70, 120, ((), ())),  # few columns
        (150, 151, 66, ((), ())),  # both sides packed
        (900, 3, 400, ((), ())),  # vectors run along m
        (1, 3000, 400, ((), ())),  # a row
        (3000, 1, 400, ((), ())),  # a column
        (17, 50, 300, ((5,), (5,))),  # batches over threads
        (20, 60, 150, ((), (9,))),  # one matrix for every batch
        (20, 60, 300, ((3,), ())),
    ],
)
def test_threads_split_rows_columns_or_batches(
    m: int, n: int, k: int, batch: tuple[tuple[int, ...], tuple[int, ...]], transpose: tuple[bool, bool]
) -> None:
    program = dot_program(m, n, k, F32_3, transpose, batch)
    check_against_reference(program, random_inputs(program, m + n), threads=(1, 2, 3))


@pytest.mark.parametrize(
    ("m", "n", "k", "dtypes", "transpose"),
    [
        (140, 2200, 3, F32_3, (False, False)),  # several blocks of columns
        (900, 150, 200, F32_3, (False, True)),  # several blocks of rows
        (600, 2000, 2, (Dtype.f32, Dtype.f32, Dtype.bf16), (False, False)),  # results staged in several parts
        (70000, 3, 3, F32_3, (True, False)),  # and transposed
        (70000, 2, 5, (Dtype.bf16, Dtype.f16, Dtype.f16), (True, False)),
    ],
)
def test_sizes_beyond_one_cache_block(
    m: int, n: int, k: int, dtypes: tuple[Dtype, Dtype, Dtype], transpose: tuple[bool, bool]
) -> None:
    program = dot_program(m, n, k, dtypes, transpose)
    check_against_reference(program, random_inputs(program, 1), threads=(1, 2))


I8_3 = (Dtype.i8, Dtype.i8, Dtype.i32)


@given(
    m=st.integers(0, 40),
    n=st.integers(0, 60),
    k=st.integers(0, 40) | st.sampled_from([511, 512, 513, 1023, 1024, 1025]),
    transpose=transposes,
    batch=batches(),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_i8_of_ragged_shapes_transposes_and_batches(
    m: int,
    n: int,
    k: int,
    transpose: tuple[bool, bool],
    batch: tuple[tuple[int, ...], tuple[int, ...]],
    seed: int,
) -> None:
    program = dot_program(m, n, k, I8_3, transpose, batch)
    check_against_reference(program, random_inputs(program, seed, 0.2))


@pytest.mark.parametrize("transpose", [(False, False), (True, True)])
@pytest.mark.parametrize(("m", "n", "k"), [(300, 2000, 40), (7, 800, 2600), (2500, 1, 300), (1, 1, 1 << 14)])
def test_i8_beyond_one_cache_block(m: int, n: int, k: int, transpose: tuple[bool, bool]) -> None:
    program = dot_program(m, n, k, I8_3, transpose)
    check_against_reference(program, random_inputs(program, 1, 0.2), threads=(1, 3))


@pytest.mark.parametrize(("a", "b"), [*product((-128, -127, 127), repeat=2)])
def test_i8_at_its_ends_is_exact_and_wraps(a: int, b: int) -> None:
    for k in (1, 4, 1025, 1 << 17, (1 << 18) + 3):
        inputs = {"a": np.full((1, k), a, np.int8), "b": np.full((k, 1), b, np.int8)}
        found = backends.evaluate(dot_program(1, 1, k, I8_3), inputs, "cpu")["c"]
        assert int(found[0, 0]) & 0xFFFFFFFF == k * a * b & 0xFFFFFFFF


@pytest.mark.parametrize("dtypes", [*product(FLOATS, repeat=2)])
@pytest.mark.parametrize("k", [1, 2])
def test_every_pair_of_special_values(dtypes: tuple[Dtype, Dtype], k: int) -> None:
    """Signed zeros, subnormals, extremes, infinities, NaNs of every kind; with k = 2 also as an addend."""
    patterns = [
        np.unique(np.array(F32_SPECIAL, np.uint32) >> np.uint32(32 - 8 * d.size)).astype(f"<u{d.size}").view(CARRIER[d])
        for d in dtypes
    ]
    a = np.stack([patterns[0]] * k, 1)
    b = np.stack([patterns[1], patterns[1][::-1]][:k], 0)
    for out in FLOATS:
        program = dot_program(len(a), b.shape[1], k, (*dtypes, out))
        check_against_reference(program, {"a": a, "b": b}, threads=(1,))


def test_nan_is_stored_as_one_value() -> None:
    bits = np.array([[0xFFABCDEF], [0x7F800001], [0x7FC00000], [0x7F800000]], np.uint32)
    zero = np.zeros((1, 1), np.float32)
    for dtype, nan in ((Dtype.f32, 0x7FC00000), (Dtype.bf16, 0x7FC0), (Dtype.f16, 0x7E00)):
        program = dot_program(4, 1, 1, (Dtype.f32, Dtype.f32, dtype))
        c = backends.evaluate(program, {"a": bits.view(np.float32), "b": zero}, "cpu")["c"]
        assert (c.view(f"u{dtype.size}") == nan).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_terms_sum_to_positive_zero(dtype: Dtype) -> None:
    program = dot_program(3, 5, 0, (Dtype.f32, Dtype.f32, dtype), batch=((2,), ()))
    c = backends.evaluate(program, random_inputs(program, 0), "cpu")["c"]
    assert c.shape == (2, 3, 5)
    assert not c.view(f"u{dtype.size}").any()


@pytest.mark.parametrize("dtypes", [F32_3, (Dtype.bf16, Dtype.f16, Dtype.f32), (Dtype.f32, Dtype.bf16, Dtype.f16)])
@pytest.mark.parametrize("special", [0.0, 0.05])
def test_exact_integers_give_the_same_bits(dtypes: tuple[Dtype, Dtype, Dtype], special: float) -> None:
    m, n = 2, 3
    for seed, k in enumerate((1, 7, 192, 193, 400)):
        program = dot_program(m, n, k, dtypes)
        inputs = random_inputs(program, seed, special)
        a, b = (
            [[exact.widen(int(x), FORMATS[d]) for x in row] for row in array.view(f"u{d.size}")]
            for d, array in zip(dtypes, (inputs["a"], inputs["b"].T.copy()), strict=False)
        )
        c = backends.evaluate(program, inputs, "cpu")["c"].view(f"u{dtypes[2].size}")
        for i, j in np.ndindex(m, n):
            assert int(c[i, j]) == exact.narrow(exact.dot(a[i], b[j]), FORMATS[dtypes[2]]), (k, i, j)


def test_another_order_gives_other_bits() -> None:
    """The check above would notice one long chain, and blocks of another length."""
    program = dot_program(4, 4, 448)
    inputs = random_inputs(program, 3)
    a, b = inputs["a"].view(np.uint32).tolist(), inputs["b"].T.copy().view(np.uint32).tolist()
    c = backends.evaluate(program, inputs, "cpu")["c"].view(np.uint32)
    for wrong in ([448], [256, 192], [128, 128, 128, 64], [192, 128, 128]):
        assert any(int(c[i, j]) != exact.dot(a[i], b[j], wrong) for i, j in np.ndindex(4, 4)), wrong

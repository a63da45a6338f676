"""Tensors, numbers and batches as arrays: every bit there and back, and nothing else taken for one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gensyn_verify.classic import ragged, values
from gensyn_verify.errors import CaptureError, MalformedError
from gensyn_verify.program import Dtype, TensorType
from gensyn_verify.program.program import check_name

CPU = torch.device("cpu")
OTHERS = (torch.uint16, torch.uint64, torch.float8_e4m3fn, torch.complex32)


def octets(tensor: torch.Tensor) -> bytes:
    if not tensor.numel():
        return b""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", [*values.IN_BATCHES.values(), *OTHERS], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (4, 3)])
def test_every_bit_of_a_tensor_comes_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Random bits: NaNs of any payload, subnormals, the largest integers."""
    size = torch.empty(0, dtype=dtype).element_size()
    high = 2 if dtype is torch.bool else 256
    bits = torch.from_numpy(np.random.default_rng(0).integers(0, high, math.prod(shape) * size).astype(np.uint8))
    tensor = bits.view(dtype).reshape(shape) if len(bits) else torch.empty(shape, dtype=dtype)
    array = values.to_array(tensor, "x")
    assert values.carried(array) == values.type_of(tensor)
    assert values.type_of(tensor).nbytes == len(bits)
    back = values.as_tensor(array, dtype)
    assert (back.dtype, back.shape, octets(back)) == (dtype, tensor.shape, bits.numpy().tobytes())
    target = torch.zeros(shape, dtype=dtype).t() if len(shape) == 2 else torch.zeros(shape, dtype=dtype)
    values.write(values.to_array(tensor.t() if len(shape) == 2 else tensor, "x"), target)
    assert octets(target.t() if len(shape) == 2 else target) == bits.numpy().tobytes()


def test_the_encoding_is_the_documented_one() -> None:
    assert values.type_of(torch.zeros(5, dtype=torch.int64)) == TensorType(Dtype.u32, (5, 2))
    assert values.type_of(torch.zeros(5, dtype=torch.int16)) == TensorType(Dtype.u8, (5, 2))
    assert values.to_array(torch.tensor([-2]), "x").tolist() == [[0xFFFFFFFE, 0xFFFFFFFF]]
    assert values.from_number(1.0, "x").tolist() == [0, 0x3FF00000]
    assert values.from_number(True, "x").tolist() == [1, 0]
    assert list(values.flatten((torch.ones(1), {"b": [2, torch.ones(1, dtype=torch.bool)], "a": 1.5}))) == [
        "batch(0):float32", "batch(1).b[0]=int", "batch(1).b[1]:bool", "batch(1).a=float"
    ]  # fmt: skip


NUMBERS = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.floats(), st.booleans())
TENSORS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=4).map(lambda x: torch.tensor(x, dtype=torch.int64))
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,5}", fullmatch=True)
NESTS = st.recursive(
    NUMBERS | TENSORS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=12)
        | st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, min_size=1, max_size=3)
    ),
    max_leaves=16,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and octets(a) == octets(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return values.from_number(a, "").tolist() == values.from_number(b, "").tolist()


@given(NESTS)
def test_a_batch_comes_back_from_the_names_and_arrays_of_its_leaves(batch: Any) -> None:
    arrays = values.flatten(batch)
    for name in arrays:
        check_name(name)
    assert same(values.unflatten(arrays, CPU), batch)


@given(NESTS, st.integers(0, 9))
def test_a_packed_batch_comes_back(batch: Any, padding: int) -> None:
    arrays = values.flatten(batch)
    size = 4 + sum(len(n) + 3 + 8 * a.ndim + a.nbytes for n, a in arrays.items())
    (packed,) = ragged.pack(arrays, size + padding).values()
    assert packed.shape == (size + padding,)
    assert same(values.unflatten(ragged.unpack(packed), CPU), batch)
    with pytest.raises(CaptureError, match=f"takes {size} bytes"):
        ragged.pack(arrays, size - 1)


PACKED = ragged.pack({"batch.a:bool": np.array([True, False]), "batch.b=int": np.zeros(2, np.uint32)}, 80)["ragged"]


@pytest.mark.parametrize(
    ("at", "octet", "word"),
    [
        (3, 3, "boolean|names ascend|dtype|expected"),  # a leaf more
        (0, 1, "the limit is"),
        (4, 200, "bytes expected"),  # the length of a name
        (11, ord("c"), "names ascend"),
        (17, 9, "dtype code 9"),
        (18, 9, "the limit is 8"),
        (19, 1, "2\\^36"),
        (26, 60, "bytes expected"),  # elements
        (27, 2, "neither 0 nor 1"),
        (79, 1, "behind the batch"),
    ],
)
def test_a_packed_batch_of_another_form_is_refused(at: int, octet: int, word: str) -> None:
    bad = PACKED.copy()
    bad[at] = octet
    with pytest.raises(MalformedError, match=word):
        values.unflatten(ragged.unpack(bad), CPU)


def test_numbers_too_large_are_refused() -> None:
    with pytest.raises(CaptureError, match=r"batch\[0\]: 9223372036854775808 has more than 64 bits"):
        values.flatten([1 << 63])


def test_a_sparse_tensor_is_refused() -> None:
    with pytest.raises(CaptureError, match="batch: expected a dense tensor"):
        values.flatten(torch.eye(2).to_sparse())


@pytest.mark.parametrize(
    "names",
    [
        ["batch"], ["batch:f32"], ["batch:float32", "batch(0):float32"], ["batch(0):float32", "batch:float32"],
        ["batch(1):float32"], ["batch(00):float32"], ["batch(0):float32", "batch[1]:float32"],
        ["batch(0):float32", "batch(0)=int"], ["x:float32"], ["batch.a.:float32"], ["batch:os"], ["batch=eval"],
        ["batch:__class__"], ["batch:int64"], ["batch=int"], ["batch(10000):float32"], ["batch(0):float32\n"], [],
    ],
    ids=str,
)  # fmt: skip
def test_names_that_no_batch_gives_are_refused(names: list[str]) -> None:
    with pytest.raises(MalformedError):
        values.unflatten({name: np.zeros(3, np.float32) for name in names}, CPU)

"""Native BLAKE3 against the blake3 package and against the definition, on every instruction set and thread count."""

from __future__ import annotations

import blake3 as package
import numpy as np
import pytest
from native import ISAS, machine

from gensyn_verify import _native
from gensyn_verify.commit import blake3, tensor_root

KIB, MIB = 1 << 10, 1 << 20
DATA = np.random.default_rng(3).bytes(3 * MIB + 5000)
SPAN = 256 * KIB  # what one task hashes
NEAR_EDGES = sorted(
    {64 * k + d for k in range(4) for d in (-1, 0, 1)}
    | {KIB * k + d for k in range(1, 10) for d in (-65, -1, 0, 1, 64)}
)[1:]


def package_root(data: bytes | memoryview) -> bytes:
    return package.blake3(data).digest()


@pytest.mark.parametrize("isa", ISAS)
def test_every_length_to_ten_kib_equals_the_package(isa: str) -> None:
    view = memoryview(DATA)
    with machine(isa):
        wrong = [n for n in range(10 * KIB + 2) if _native.blake3_root(view[:n]) != package_root(view[:n])]
    assert wrong == []


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("isa", ISAS)
def test_roots_and_trees_near_every_group_of_lanes_and_task_equal_the_package(isa: str, threads: int) -> None:
    chunks = [16, 17, 24, 25, 31, 32, 33, 34, 40, 48, 63, 64, 65, 67, 100, 129]
    spans = [
        SPAN - KIB,
        SPAN,
        SPAN + KIB,
        2 * SPAN,
        2 * SPAN + 3 * KIB,
        3 * SPAN,
        5 * SPAN,
        8 * SPAN,
        9 * SPAN,
        3 * MIB,
    ]
    lengths = [edge + d for edge in [c * KIB for c in chunks] + spans for d in (-1, 0, 1, 1000)]
    view = memoryview(DATA)
    with machine(isa, threads):
        for n in lengths:
            wanted = package_root(view[:n])
            assert _native.blake3_root(view[:n]) == wanted, n
            assert _native.blake3_tree(view[:n])[-32:] == wanted, n


@pytest.mark.parametrize("isa", ISAS)
def test_more_data_than_one_wave_of_tasks_equals_the_package(isa: str) -> None:
    data = np.resize(np.frombuffer(DATA, np.uint8), 129 * MIB + 1234)  # two full waves of 64 MiB and a part
    wanted = package.blake3(memoryview(data), max_threads=2).digest()
    with machine(isa, 2):
        assert _native.blake3_root(data) == wanted


def test_the_definition_equals_the_package() -> None:
    for n in NEAR_EDGES:
        assert blake3.root(DATA[:n]) == package_root(DATA[:n]), n


@pytest.mark.parametrize("isa", ISAS)
def test_all_levels_of_the_tree_equal_the_definition(isa: str) -> None:
    with machine(isa):
        for n in [*NEAR_EDGES, 17 * KIB + 1, 34 * KIB - 3]:
            assert _native.blake3_tree(DATA[:n]) == b"".join(b"".join(level) for level in blake3.tree(DATA[:n])), n


def test_every_tree_of_many_tasks_is_the_same_on_every_machine() -> None:
    for n in (3 * SPAN + 1, 4 * SPAN - 1, 7 * SPAN + 5 * KIB):
        trees = set()
        for isa in ISAS:
            for threads in (1, 2, 3):
                with machine(isa, threads):
                    trees.add(_native.blake3_tree(memoryview(DATA)[:n]))
        assert len(trees) == 1
        (levels,) = trees
        count, at = blake3.chunk_count(n), 0
        while count > 2:  # parents of neighbours, sampled: the definition takes a millisecond each
            above = at + 32 * count
            for i in {0, 1, 127, 128, count // 2 - 1} & set(range(count // 2)):
                pair = levels[at + 64 * i : at + 64 * i + 64]
                assert levels[above + 32 * i : above + 32 * i + 32] == blake3.parent_value(pair[:32], pair[32:])
            at, count = above, (count + 1) // 2


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("start", [1, 2, 3, 31, 33])
def test_data_may_start_at_any_address(isa: str, start: int) -> None:
    view = memoryview(DATA)[start : start + 70 * KIB + 7]
    with machine(isa):
        assert _native.blake3_root(view) == package_root(view)


def test_a_tensor_root_is_the_hash_of_the_row_major_bytes() -> None:
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert tensor_root(a) == package_root(a.tobytes())
    assert tensor_root(a.T) == package_root(a.T.tobytes()) != tensor_root(a)
    assert tensor_root(a[:, ::2]) == package_root(a[:, ::2].tobytes())
    assert tensor_root(np.float32(1.5)[()].reshape(())) == package_root(np.float32(1.5).tobytes())
    assert tensor_root(np.zeros((0, 3), np.float16)) == package_root(b"") == tensor_root(b"")
    assert tensor_root(np.array([True, False])) == package_root(b"\x01\x00")
    assert tensor_root(bytearray(b"abc")) == tensor_root(memoryview(b"abc")) == package_root(b"abc")


def test_a_tensor_root_tells_signed_zeros_and_nan_payloads_apart() -> None:
    words = np.array([0x00000000, 0x80000000, 0x7FC00000, 0x7FC00001], np.uint32)
    assert len({tensor_root(words[i : i + 1].view(np.float32)) for i in range(4)}) == 4

"""The append-only log: the roots and proofs of the Merkle tree's definition, for every earlier size."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensyn_verify._native import keccak256, merkle_root
from gensyn_verify.commit import MerkleLog, RunAccumulator, StepEntry, run_commitment, verify_step
from gensyn_verify.errors import MalformedError
from gensyn_verify.program import keccak, merkle

LEAVES = [bytes([i]) * (i % 7) for i in range(33)]
DIGESTS = [merkle.leaf_digest(leaf, keccak256) for leaf in LEAVES]


def log_of(leaves: list[bytes]) -> MerkleLog:
    log = MerkleLog()
    for leaf in leaves:
        log.append_leaf(leaf)
    return log


@given(st.binary(max_size=700))
def test_native_keccak_equals_the_definition(data: bytes) -> None:
    assert keccak256(data) == keccak.keccak256(data)


@given(st.lists(st.binary(max_size=300), max_size=9))
def test_native_merkle_root_equals_the_definition(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == merkle.merkle_root(leaves)


def test_native_merkle_root_equals_the_definition_at_every_count() -> None:
    for n in range(len(LEAVES) + 1):
        assert merkle_root(LEAVES[:n]) == merkle.merkle_root(LEAVES[:n], keccak256)


def test_the_root_after_every_append_is_the_tree_over_all_leaves_so_far() -> None:
    log = MerkleLog()
    for n, leaf in enumerate(LEAVES):
        assert log.root() == merkle_root(LEAVES[:n])
        log.append_leaf(leaf)
        assert len(log) == n + 1
    for n in range(len(LEAVES) + 1):
        assert log.root(n) == merkle_root(LEAVES[:n])


def test_every_inclusion_proof_of_every_size_is_that_of_the_definition() -> None:
    log = log_of(LEAVES)
    for n in range(1, len(LEAVES) + 1):
        for i in range(n):
            path = log.path(i, n)
            assert path == merkle.merkle_path(DIGESTS[:n], i, keccak256)
            assert merkle.verify_path(log.root(n), LEAVES[i], i, n, path, keccak256)


def test_every_consistency_proof_of_every_pair_of_sizes_is_that_of_the_definition() -> None:
    log = log_of(LEAVES)
    for n in range(1, len(LEAVES) + 1):
        for m in range(n + 1):
            path = log.consistency(m, n)
            assert path == (merkle.consistency_path(DIGESTS[:n], m, keccak256) if m else [])
            assert merkle.verify_consistency(log.root(m), m, log.root(n), n, path, keccak256)


def test_proofs_of_what_is_not_there_are_refused() -> None:
    log = log_of(LEAVES[:5])
    for call in (
        lambda: log.root(6), lambda: log.root(-1), lambda: log.path(5), lambda: log.path(-1), lambda: log.path(3, 3),
        lambda: log.path(0, 6), lambda: log.consistency(6), lambda: log.consistency(4, 3), lambda: log.consistency(-1),
    ):  # fmt: skip
        with pytest.raises(IndexError, match="of"):
            call()


def test_appending_and_asking_for_the_root_take_logarithmically_many_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(data: bytes) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.sha256(data).digest()

    monkeypatch.setattr("gensyn_verify.commit.log.keccak256", counted)
    log, n = MerkleLog(), 1000
    for i in range(n):
        log.append_leaf(i.to_bytes(8, "big"))
    assert calls <= 2 * n
    calls = 0
    log.root()
    assert calls <= 1 + n.bit_length()
    calls = 0
    log.path(700)
    log.consistency(700)
    assert calls <= 2 * n.bit_length()


# ---- the run


def entry(step: int) -> StepEntry:
    return StepEntry(step, bytes([step]) * 32, b"b" * 32, b"s" * 32)


def accumulator(steps: int) -> RunAccumulator:
    run = RunAccumulator()
    for i in range(steps):
        run.append(entry(i))
    return run


def test_a_step_is_shown_to_be_in_the_run_and_no_other_is() -> None:
    run = accumulator(10)
    for step in range(10):
        path = run.path(step)
        assert verify_step(run.root(), 10, entry(step), path)
        for other in set(range(12)) - {step}:
            assert not verify_step(run.root(), 10, entry(other), path)
        moved = StepEntry((step + 1) % 10, entry(step).state, entry(step).batch, entry(step).scalars)
        assert not verify_step(run.root(), 10, moved, run.path(moved.step))


@pytest.mark.parametrize("step", [0, 1, 3, 4])
def test_steps_are_appended_in_order_without_gaps(step: int) -> None:
    run = accumulator(2)
    with pytest.raises(MalformedError, match=f"has 2 steps; the next entry is not step {step}"):
        run.append(entry(step))
    assert len(run) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": b"x" * 31}, "state root has 32 bytes, found 31"),
        ({"batch": b""}, "batch root has 32 bytes, found 0"),
        ({"scalars": b"x" * 33}, "scalars root has 32 bytes, found 33"),
        ({"step": 1 << 64}, "step is 0 to 2\\^64 - 1"),
        ({"step": -1}, "step is 0 to 2\\^64 - 1"),
    ],
)
def test_an_entry_of_other_sizes_has_no_record(changes: dict[str, object], says: str) -> None:
    fields = {"step": 0, "state": bytes(32), "batch": bytes(32), "scalars": bytes(32), **changes}
    with pytest.raises(MalformedError, match=says):
        StepEntry(**fields).record()  # type: ignore[arg-type]


def test_the_commitment_depends_on_every_field() -> None:
    task, solver, salt, root = (bytes([i]) * n for i, n in ((1, 32), (2, 20), (3, 32), (4, 32)))
    committed = {
        run_commitment(task, solver, salt, 5, root),
        run_commitment(root, solver, salt, 5, root),
        run_commitment(task, b"x" * 20, salt, 5, root),
        run_commitment(task, solver, task, 5, root),
        run_commitment(task, solver, salt, 6, root),
        run_commitment(task, solver, salt, 5, salt),
    }
    assert len(committed) == 6


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [(0, b"", "task digest has 32"), (1, bytes(32), "solver's address has 20"), (2, bytes(31), "salt has 32"),
     (3, 1 << 64, "number of steps"), (4, bytes(33), "log root has 32")],
)  # fmt: skip
def test_a_commitment_to_fields_of_other_sizes_is_refused(place: int, value: object, says: str) -> None:
    fields: list[object] = [bytes(32), bytes(20), bytes(32), 1, bytes(32)]
    fields[place] = value
    with pytest.raises(MalformedError, match=says):
        run_commitment(*fields)  # type: ignore[arg-type]

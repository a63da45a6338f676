"""The published vectors of the formats: the definitions and the native code give them, and refuse their corruptions."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from gensyn_verify import _native
from gensyn_verify.commit import (
    ChunkOpening,
    EntryOpening,
    MerkleLog,
    RunAccumulator,
    StateEntry,
    StepEntry,
    TensorTree,
    blake3,
    open_entry,
    run_commitment,
    state_root,
    tensor_root,
    verify_chunk,
    verify_entry,
    verify_step,
)
from gensyn_verify.errors import MalformedError
from gensyn_verify.program import keccak, merkle
from gensyn_verify.program.types import Dtype, TensorType

FOLDER = Path(__file__).parent.parent / "vectors"
Json = dict[str, Any]
HASHES = {"native": _native.keccak256, "definition": keccak.keccak256}


def load(name: str) -> Json:
    loaded: Json = json.loads((FOLDER / name).read_text())
    return loaded


BLAKE3, MERKLE, STATE, RUN = map(load, ("blake3.json", "merkle.json", "state_root.json", "run_commitment.json"))


def unhex(items: list[str]) -> list[bytes]:
    return [bytes.fromhex(x) for x in items]


def why(corruption: Json) -> str:
    return str(corruption["why"])


def test_the_generator_writes_the_files_as_they_are() -> None:
    generator = runpy.run_path(str(FOLDER / "make_formats.py"))
    for name, make in generator["FILES"].items():
        assert (FOLDER / name).read_text() == generator["text"](make()), name


# ---- blake3.json


def pattern(length: int) -> bytes:
    return bytes(i % 251 for i in range(length))


@pytest.mark.parametrize("case", BLAKE3["cases"], ids=lambda c: c["length"])
def test_blake3_cases(case: Json) -> None:
    data, root = pattern(case["length"]), bytes.fromhex(case["root"])
    tree = TensorTree(data)
    assert root == tensor_root(data) == tree.root == blake3.root(data)
    for opening in case["openings"]:
        found = tree.open(opening["index"])
        assert list(found.path) == unhex(opening["path"])
        assert verify_chunk(root, case["length"], opening["index"], found)


def flipped(data: bytes, byte: int, bit: int) -> bytes:
    return data[:byte] + bytes([data[byte] ^ 1 << bit]) + data[byte + 1 :]


def corrupted(c: Json) -> tuple[bytes, int, int, ChunkOpening]:
    """The claim that a corruption of blake3.json makes: root, length, index, opening."""
    tree = TensorTree(pattern(c["length"]))
    root, opening = tree.root, tree.open(c["index"])
    chunk, path = opening.chunk, list(opening.path)
    if "chunk_bit" in c:
        chunk = flipped(chunk, *c["chunk_bit"])
    chunk = chunk[: len(chunk) - c.get("chunk_cut", 0)] + bytes.fromhex(c.get("chunk_append", ""))
    if "path_bit" in c:
        entry, byte, bit = c["path_bit"]
        path[entry] = flipped(path[entry], byte, bit)
    if "path_swap" in c:
        a, b = c["path_swap"]
        path[a], path[b] = path[b], path[a]
    if "path_drop" in c:
        del path[c["path_drop"]]
    if "path_append" in c:
        path.append(bytes.fromhex(c["path_append"]))
    if "path_cut" in c:
        path[c["path_cut"]] = path[c["path_cut"]][:-1]
    if "root_bit" in c:
        root = flipped(root, *c["root_bit"])
    length, index = c.get("claim_length", c["length"]), c.get("claim_index", c["index"])
    return root, length, index, ChunkOpening(chunk, tuple(path))


@pytest.mark.parametrize("corruption", BLAKE3["corruptions"], ids=why)
def test_blake3_corruptions(corruption: Json) -> None:
    tree, index = TensorTree(pattern(corruption["length"])), corruption["index"]
    claim = corrupted(corruption)
    assert claim != (tree.root, tree.length, index, tree.open(index))
    assert not verify_chunk(*claim)


# ---- merkle.json


@pytest.mark.parametrize("case", MERKLE["cases"], ids=lambda c: c["count"])
@pytest.mark.parametrize("hash", HASHES.values(), ids=HASHES)
def test_merkle_cases(case: Json, hash: merkle.Hash) -> None:
    leaves, root, count = unhex(MERKLE["leaves"])[: case["count"]], bytes.fromhex(case["root"]), case["count"]
    assert merkle.merkle_root(leaves, hash) == root
    for i, path in enumerate(case["paths"]):
        assert merkle.verify_path(root, leaves[i], i, count, unhex(path), hash)
    for m, path in enumerate(case["consistency"], start=1):
        old = bytes.fromhex(MERKLE["cases"][m]["root"])
        assert merkle.verify_consistency(old, m, root, count, unhex(path), hash)


def test_merkle_cases_from_the_native_root_and_the_log() -> None:
    leaves = unhex(MERKLE["leaves"])
    log = MerkleLog()
    for leaf in leaves:
        log.append_leaf(leaf)
    for case in MERKLE["cases"]:
        n = case["count"]
        assert _native.merkle_root(leaves[:n]).hex() == log.root(n).hex() == case["root"]
        assert [[x.hex() for x in log.path(i, n)] for i in range(n)] == case["paths"]
        assert [[x.hex() for x in log.consistency(m, n)] for m in range(1, n + 1)] == case["consistency"]


@pytest.mark.parametrize("c", MERKLE["path_corruptions"], ids=why)
@pytest.mark.parametrize("hash", HASHES.values(), ids=HASHES)
def test_merkle_path_corruptions(c: Json, hash: merkle.Hash) -> None:
    root, data = unhex([c["root"], c["data"]])
    assert not merkle.verify_path(root, data, c["index"], c["count"], unhex(c["path"]), hash)


@pytest.mark.parametrize("c", MERKLE["consistency_corruptions"], ids=why)
@pytest.mark.parametrize("hash", HASHES.values(), ids=HASHES)
def test_merkle_consistency_corruptions(c: Json, hash: merkle.Hash) -> None:
    old, new = unhex([c["old_root"], c["new_root"]])
    assert not merkle.verify_consistency(old, c["old"], new, c["new"], unhex(c["path"]), hash)


# ---- state_root.json


def state_entry(e: Json) -> StateEntry:
    return StateEntry(e["name"], TensorType(Dtype[e["dtype"]], tuple(e["shape"])), bytes.fromhex(e["root"]))


@pytest.mark.parametrize("case", STATE["cases"], ids=lambda c: f"{len(c['entries'])} entries")
def test_state_root_cases(case: Json) -> None:
    entries, root = list(map(state_entry, case["entries"])), bytes.fromhex(case["root"])
    assert [e.record().hex() for e in entries] == [e["record"] for e in case["entries"]]
    assert root == state_root(entries) == merkle.merkle_root([e.record() for e in entries])
    for i, path in enumerate(case["paths"]):
        opening = EntryOpening(entries[i], i, len(entries), tuple(unhex(path)))
        assert opening == open_entry(entries, entries[i].name)
        assert verify_entry(root, opening)


@pytest.mark.parametrize("c", STATE["corruptions"], ids=why)
def test_state_root_corruptions(c: Json) -> None:
    root = bytes.fromhex(STATE["cases"][-1]["root"])
    assert not verify_entry(root, EntryOpening(state_entry(c), c["index"], c["count"], tuple(unhex(c["path"]))))


@pytest.mark.parametrize("refusal", STATE["refusals"], ids=why)
def test_state_root_refusals(refusal: Json) -> None:
    with pytest.raises(MalformedError):
        state_entry(refusal)


# ---- run_commitment.json


def step_entry(e: Json) -> StepEntry:
    return StepEntry(e["step"], *unhex([e["state"], e["batch"], e["scalars"]]))


def reveal(r: Json) -> bytes:
    task, solver, salt, root = unhex([r["task"], r["solver"], r["salt"], r["root"]])
    return run_commitment(task, solver, salt, r["steps"], root)


def test_run_commitment_log() -> None:
    run = RunAccumulator()
    for n, step in enumerate(RUN["steps"]):
        assert run.root().hex() == RUN["roots"][n]
        assert step_entry(step).record().hex() == step["record"]
        run.append(step_entry(step))
    root, steps = run.root(), len(run)
    assert root.hex() == RUN["roots"][-1]
    for i, path in enumerate(RUN["paths"]):
        assert run.path(i) == unhex(path)
        assert verify_step(root, steps, step_entry(RUN["steps"][i]), unhex(path))
    for m, path in enumerate(RUN["consistency"], start=1):
        assert run.consistency(m) == unhex(path)
        assert merkle.verify_consistency(bytes.fromhex(RUN["roots"][m]), m, root, steps, unhex(path))


def test_run_commitment_reveal() -> None:
    assert keccak.keccak256(bytes.fromhex(RUN["preimage"])).hex() == RUN["commitment"]
    assert reveal(RUN["reveal"]).hex() == RUN["commitment"]


@pytest.mark.parametrize("rejected", RUN["reveals_rejected"], ids=why)
def test_run_commitment_rejected_reveals(rejected: Json) -> None:
    assert reveal(rejected).hex() != RUN["commitment"]


@pytest.mark.parametrize("rejected", RUN["steps_rejected"], ids=why)
def test_run_commitment_rejected_steps(rejected: Json) -> None:
    root = bytes.fromhex(RUN["roots"][-1])
    assert not verify_step(root, rejected["steps"], step_entry(rejected), unhex(rejected["path"]))

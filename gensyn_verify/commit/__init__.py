"""Commitments: a run as a chain of roots, any part of which opens.

    blake3   the definition of BLAKE3 in plain Python
    tensor   tensor root = BLAKE3 of the bytes; openings of 1 KiB chunks
    state    root of named tensors (a state, a batch, scalars); openings of one entry
    log      the append-only Merkle log: inclusion and consistency proofs
    run      step entries, and the commitment that binds their log to task, solver and salt

    element -> chunk -> tensor root -> entry -> state root -> step entry -> log root -> run commitment

Digests of tensors are BLAKE3, for speed; the small trees above are keccak-256 (`program.merkle`), for the contract.
Everything hashes natively; the verification of chunk openings is plain Python.
"""

from gensyn_verify._native import keccak256
from gensyn_verify.commit.log import MerkleLog
from gensyn_verify.commit.run import RunAccumulator, StepEntry, run_commitment, verify_step
from gensyn_verify.commit.state import EntryOpening, StateEntry, open_entry, state_entries, state_root, verify_entry
from gensyn_verify.commit.tensor import ChunkOpening, TensorTree, chunk_of_element, tensor_root, verify_chunk

__all__ = [
    "ChunkOpening", "EntryOpening", "MerkleLog", "RunAccumulator", "StateEntry", "StepEntry", "TensorTree",
    "chunk_of_element", "keccak256", "open_entry", "run_commitment", "state_entries", "state_root", "tensor_root",
    "verify_chunk", "verify_entry", "verify_step",
]  # fmt: skip

"""The run commitment: an append-only Merkle log of step entries, bound to task, solver and salt.

A step entry is one leaf of the log (`program.merkle`), 104 bytes, entry i at leaf i:

    u64 step, big endian | state root after the step | batch root | scalars root          (roots of commit.state)

The commitment is keccak-256 of 143 bytes:

    "gensyn_verify.run.1" (19) | task digest (32) | solver's address (20) | salt (32) | u64 steps (8) | log root (32)

The solver publishes these 32 bytes before it reveals anything, and the fields under them afterwards. Address and salt
are inside, so a commitment that someone copies opens to another solver's work and is worth nothing to the copier; the
salt hides a log that could be guessed. Vectors: tests/vectors/run_commitment.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gensyn_verify._native import keccak256
from gensyn_verify.commit.log import MerkleLog
from gensyn_verify.errors import MalformedError
from gensyn_verify.program.merkle import verify_path

RUN_DOMAIN = b"gensyn_verify.run.1"


def _sized(what: str, value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise MalformedError(f"{what} has {size} bytes, found {len(value)}")
    return value


def _u64(what: str, value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise MalformedError(f"{what} is 0 to 2^64 - 1, found {value}")
    return value.to_bytes(8, "big")


@dataclass(frozen=True)
class StepEntry:
    """What the run commits to of one step: the state after it, and what went in."""

    step: int
    state: bytes
    batch: bytes
    scalars: bytes

    def record(self) -> bytes:
        """The 104 canonical bytes."""
        roots = (("state root", self.state), ("batch root", self.batch), ("scalars root", self.scalars))
        return _u64("step", self.step) + b"".join(_sized(what, root, 32) for what, root in roots)


class RunAccumulator(MerkleLog):
    """Takes one entry a step; the root after each, and proofs about any earlier size, cost O(log steps)."""

    def append(self, entry: StepEntry) -> None:
        if entry.step != len(self):
            raise MalformedError(f"the log of a run has {len(self)} steps; the next entry is not step {entry.step}")
        self.append_leaf(entry.record())


def verify_step(root: bytes, steps: int, entry: StepEntry, path: Sequence[bytes]) -> bool:
    """Whether `entry` is the one of its step in a log of `steps` steps. `path` is RunAccumulator.path(step)."""
    return verify_path(root, entry.record(), entry.step, steps, path, keccak256)


def commitment_bytes(task: bytes, solver: bytes, salt: bytes, steps: int, root: bytes) -> bytes:
    """The 143 bytes that a commitment hides. Raises MalformedError for a field of another size."""
    return (
        RUN_DOMAIN
        + _sized("task digest", task, 32)
        + _sized("solver's address", solver, 20)
        + _sized("salt", salt, 32)
        + _u64("number of steps", steps)
        + _sized("log root", root, 32)
    )


def run_commitment(task: bytes, solver: bytes, salt: bytes, steps: int, root: bytes) -> bytes:
    """32 bytes that bind a run of `steps` steps under `root` to its task digest, solver's address and salt."""
    return keccak256(commitment_bytes(task, solver, salt, steps, root))

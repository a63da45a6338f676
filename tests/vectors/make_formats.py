"""Writes blake3, merkle, state_root, run_commitment and program.json: `python tests/vectors/make_formats.py`.

Everything is computed by the plain Python definitions, without native code. Deterministic: the test suite runs it and
compares with the files.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gensyn_verify.commit import blake3
from gensyn_verify.commit.run import StepEntry, commitment_bytes
from gensyn_verify.commit.state import StateEntry
from gensyn_verify.program import encode, merkle
from gensyn_verify.program.encoding import records
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.program.program import Program, ProgramBuilder
from gensyn_verify.program.types import Dtype, TensorType

VECTORS = Path(__file__).resolve().parent
Json = dict[str, Any]


def pattern(length: int) -> bytes:
    """The inputs of BLAKE3's own vectors: byte i is i mod 251."""
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def digest(*words: object) -> bytes:
    """A digest that stands for something."""
    return keccak256(" ".join(map(str, words)).encode())


def flip(data: bytes, at: int) -> bytes:
    """`data` with the lowest bit of byte `at` flipped."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def hexes(items: Sequence[bytes]) -> list[str]:
    return [x.hex() for x in items]


# ---- blake3.json


def chunk_path(levels: list[list[bytes]], index: int) -> list[bytes]:
    path = []
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        index //= 2
    return path


def blake3_case(length: int) -> Json:
    levels = blake3.tree(pattern(length))
    count = len(levels[0])
    return {
        "length": length,
        "root": levels[-1][0].hex(),
        "openings": [
            {"index": i, "path": hexes(chunk_path(levels, i))}
            for i in sorted({0, 1, count // 2, count - 1})
            if i < count
        ],
    }


def blake3_corruptions() -> Iterator[Json]:
    yield {"why": "a flipped bit in the chunk", "length": 3073, "index": 1, "chunk_bit": [700, 3]}
    yield {"why": "a flipped bit in the last, short chunk", "length": 3073, "index": 3, "chunk_bit": [0, 0]}
    yield {"why": "a flipped bit in the only chunk", "length": 1023, "index": 0, "chunk_bit": [1022, 7]}
    yield {"why": "a chunk that is longer than the tensor says", "length": 3073, "index": 3, "chunk_append": "00"}
    yield {"why": "a chunk that is cut", "length": 2048, "index": 1, "chunk_cut": 1}
    yield {"why": "the empty chunk of the empty input with a byte", "length": 0, "index": 0, "chunk_append": "00"}
    for level in range(3):
        why = f"a flipped bit in the sibling at level {level}"
        yield {"why": why, "length": 8192, "index": 5, "path_bit": [level, 31, 0]}
    yield {"why": "two siblings swapped", "length": 8192, "index": 5, "path_swap": [0, 1]}
    yield {"why": "the chunk of another index", "length": 8192, "index": 5, "claim_index": 4}
    yield {"why": "an index past the end", "length": 3072, "index": 2, "claim_index": 3}
    yield {"why": "a negative index", "length": 3072, "index": 2, "claim_index": -1}
    yield {"why": "another number of chunks: one more sibling is due", "length": 8192, "index": 0, "claim_length": 8193}
    yield {"why": "another length of the last chunk", "length": 3073, "index": 3, "claim_length": 3074}
    yield {"why": "the lowest sibling left out", "length": 8192, "index": 5, "path_drop": 0}
    yield {"why": "the highest sibling left out", "length": 8192, "index": 5, "path_drop": 2}
    yield {"why": "one sibling too many", "length": 8192, "index": 5, "path_append": "00" * 32}
    yield {"why": "a sibling where the whole input is one chunk", "length": 64, "index": 0, "path_append": "00" * 32}
    yield {"why": "a sibling of 31 bytes", "length": 2048, "index": 0, "path_cut": 0}
    yield {"why": "a flipped bit in the root", "length": 2048, "index": 0, "root_bit": [0, 0]}


BLAKE3_LENGTHS = [
    0, 1, 3, 4, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 3073, 4096, 4097, 5120, 6145, 7168,
    8192, 8193, 9217, 16384, 17409, 31744,
]  # fmt: skip


def blake3_vectors() -> Json:
    return {
        "_comment": textwrap.wrap(
            "Tensor roots: BLAKE3 (default mode, 32 bytes) of an input whose byte i is i mod 251. An opening of "
            "chunk `index` (bytes 1024 index to 1024 index + 1023, as far as the input goes) is the chunk and "
            "`path`: the sibling chaining values from the chunk upwards. A level whose last node has no sibling "
            "has no entry. Every corruption takes the opening of `index` in the input of `length`, changes it "
            "in one way, and must be rejected: chunk_bit [byte, bit], chunk_append hex, chunk_cut bytes; "
            "path_bit [entry, byte, bit], path_swap [entry, entry], path_drop entry, path_append hex, path_cut "
            "entry (loses its last byte); claim_index and claim_length replace what the verifier is told; "
            "root_bit [byte, bit].",
            width=110,
        ),
        "cases": [blake3_case(n) for n in BLAKE3_LENGTHS],
        "corruptions": list(blake3_corruptions()),
    }


# ---- merkle.json

LEAVES = [bytes(range(n)) for n in (0, 1, 2, 3, 31, 32, 33, 64, 65, 135, 136, 137, 200)]


def leaf_digests(count: int) -> list[bytes]:
    return [merkle.leaf_digest(leaf) for leaf in LEAVES[:count]]


def merkle_case(count: int) -> Json:
    digests = leaf_digests(count)
    return {
        "count": count,
        "root": merkle.merkle_root(LEAVES[:count]).hex(),
        "paths": [hexes(merkle.merkle_path(digests, i)) for i in range(count)],
        "consistency": [hexes(merkle.consistency_path(digests, old)) for old in range(1, count + 1)],
    }


def path_corruptions() -> Iterator[Json]:
    def case(why: str, **changes: Any) -> Json:
        count, index = 7, 4
        fields = {
            "root": merkle.merkle_root(LEAVES[:count]),
            "data": LEAVES[index],
            "index": index,
            "count": count,
            "path": merkle.merkle_path(leaf_digests(count), index),
        } | changes
        return {"why": why, **{k: hexes(v) if isinstance(v, list) else plain(v) for k, v in fields.items()}}

    path = merkle.merkle_path(leaf_digests(7), 4)
    digests = leaf_digests(7)
    inner = merkle.seal(2, keccak256(b"\x01" + digests[0] + digests[1]))
    yield case("a flipped bit in the leaf", data=flip(LEAVES[4], 30))
    yield case("another leaf's place", index=5)
    yield case("an index equal to the count", index=7)
    yield case("another count of the same depth", count=8)
    yield case("another count of another depth", count=4)
    yield case("a count that no tree has", count=1 << 64)
    for i in range(3):
        yield case(f"a flipped bit in sibling {i}", path=[flip(s, 9) if i == j else s for j, s in enumerate(path)])
    yield case("siblings in reverse", path=path[::-1])
    yield case("the last sibling left out", path=path[:-1])
    yield case("one sibling too many", path=[*path, bytes(32)])
    yield case("a sibling of 33 bytes", path=[path[0] + b"\0", *path[1:]])
    yield case("a flipped bit in the root", root=flip(merkle.merkle_root(LEAVES[:7]), 31))
    yield case(
        "an inner node passed off as a leaf", root=inner, data=digests[0] + digests[1], index=0, count=1, path=[]
    )


def consistency_corruptions() -> Iterator[Json]:
    digests = leaf_digests(7)

    def case(why: str, old: int = 5, new: int = 7, path: list[bytes] | None = None, **roots: bytes) -> Json:
        return {
            "why": why,
            "old_root": roots.get("old_root", merkle.merkle_root(LEAVES[:5])).hex(),
            "old": old,
            "new_root": roots.get("new_root", merkle.merkle_root(LEAVES[:7])).hex(),
            "new": new,
            "path": hexes(merkle.consistency_path(digests, 5) if path is None else path),
        }

    good = merkle.consistency_path(digests, 5)
    yield case("another old count", old=6)
    yield case("another new count", new=8)
    yield case("old and new exchanged", old=7, new=5)
    yield case("the old root of another tree", old_root=merkle.merkle_root([b"", *LEAVES[1:4], b"x"]))
    yield case(
        "the new root of a tree that rewrote a leaf", new_root=merkle.merkle_root([*LEAVES[:4], b"x", *LEAVES[5:7]])
    )
    for i in range(len(good)):
        yield case(f"a flipped bit in node {i}", path=[flip(s, 0) if i == j else s for j, s in enumerate(good)])
    yield case("the first node left out", path=good[1:])
    yield case("one node too many", path=[*good, bytes(32)])
    yield case("no nodes", path=[])
    yield case("equal counts, different roots", old=7, path=merkle.consistency_path(digests, 7))
    yield case("an empty old tree with a root that is not the empty one's", old=0, path=[])


def plain(x: Any) -> Any:
    return x.hex() if isinstance(x, bytes) else x


def merkle_vectors() -> Json:
    return {
        "_comment": textwrap.wrap(
            "The keccak-256 tree: leaf = keccak(00 | data), inner = keccak(01 | left | right), left over the "
            "largest power of two of leaves below the count, root = keccak(02 | u64 count, big endian | top), "
            "top of no leaves: 32 zeros. A case is the tree over the first `count` of `leaves`. paths[i] are "
            "the siblings of leaf i from below. consistency[m - 1] proves that the tree over the first m leaves "
            "is a prefix: first the node that both trees have at the old edge, then its siblings from below. "
            "Every entry of path_corruptions and consistency_corruptions is a complete claim that must be "
            "rejected.",
            width=110,
        ),
        "leaves": hexes(LEAVES),
        "cases": [merkle_case(n) for n in range(len(LEAVES) + 1)],
        "path_corruptions": list(path_corruptions()),
        "consistency_corruptions": list(consistency_corruptions()),
    }


# ---- state_root.json

GROUP = [
    StateEntry("0.bias", TensorType(Dtype.f32, (10,)), digest("bias")),
    StateEntry("0.weight", TensorType(Dtype.f32, (10, 64)), digest("weight")),
    StateEntry("0.weight.momentum", TensorType(Dtype.f32, (10, 64)), digest("momentum")),
    StateEntry("bn.mask", TensorType(Dtype.boolean, (2, 1, 3)), digest("mask")),
    StateEntry("data.cursor", TensorType(Dtype.u32, ()), digest("cursor")),
    StateEntry("half", TensorType(Dtype.bf16, (0, 5)), digest("half")),
]


def entry_json(e: StateEntry) -> Json:
    return {"name": e.name, "dtype": e.type.dtype.name, "shape": list(e.type.shape), "root": e.root.hex()}


def state_case(entries: list[StateEntry]) -> Json:
    digests = [merkle.leaf_digest(e.record()) for e in entries]
    return {
        "entries": [entry_json(e) | {"record": e.record().hex()} for e in entries],
        "root": merkle.merkle_root([e.record() for e in entries]).hex(),
        "paths": [hexes(merkle.merkle_path(digests, i)) for i in range(len(entries))],
    }


def state_corruptions() -> Iterator[Json]:
    index, entry = 1, GROUP[1]
    path = merkle.merkle_path([merkle.leaf_digest(e.record()) for e in GROUP], index)

    def case(why: str, **changes: Any) -> Json:
        return {"why": why, **entry_json(entry), "index": index, "count": len(GROUP), "path": hexes(path)} | changes

    yield case("another name", name="0.weighs")
    yield case("another dtype of the same size", dtype="u32")
    yield case("another shape of the same size", shape=[64, 10])
    yield case("an additional dimension of 1", shape=[1, 10, 64])
    yield case("another tensor", root=flip(entry.root, 0).hex())
    yield case("another entry's tensor", root=GROUP[2].root.hex())
    yield case("another entry's place", index=2)
    yield case("another count", count=5)
    yield case("a sibling left out", path=hexes(path[1:]))
    yield case("a flipped bit in a sibling", path=hexes([flip(path[0], 31), *path[1:]]))


def state_vectors() -> Json:
    return {
        "_comment": textwrap.wrap(
            "Roots of groups of named tensors (a state, a batch, the scalars of a step). A record is u8 length "
            "of name | name | u8 dtype code | u8 rank | u64 dimensions, big endian | tensor root; the root of "
            "the group is the keccak-256 tree of merkle.json over the records, sorted by name. paths[i] opens "
            "entry i. Every corruption is the opening of an entry of the last case with one change, and must be "
            "rejected. Every refusal is an entry that no group can have.",
            width=110,
        ),
        "cases": [state_case(GROUP[:n]) for n in (0, 1, 2, 3, 6)],
        "corruptions": list(state_corruptions()),
        "refusals": [
            entry_json(GROUP[0]) | {"why": why} | change
            for why, change in [
                ("an empty name", {"name": ""}),
                ("a name that is a path", {"name": "../0.bias"}),
                ("a name beyond ASCII", {"name": "gewicht\u00e4"}),
                ("a name of 201 characters", {"name": "a" * 201}),
                ("nine dimensions", {"shape": [1] * 9}),
                ("a negative dimension", {"shape": [-1]}),
                ("more than 2^36 elements", {"shape": [1 << 18, (1 << 18) + 1]}),
                ("a root of 31 bytes", {"root": "00" * 31}),
            ]
        ],
    }


# ---- run_commitment.json


def step_entry(i: int) -> StepEntry:
    return StepEntry(i, digest("state", i), digest("batch", i), digest("scalars", i))


def step_json(e: StepEntry) -> Json:
    return {"step": e.step, "state": e.state.hex(), "batch": e.batch.hex(), "scalars": e.scalars.hex()}


def run_vectors() -> Json:
    entries = [step_entry(i) for i in range(11)]
    leaves = [e.record() for e in entries]
    digests = [merkle.leaf_digest(leaf) for leaf in leaves]
    roots = [merkle.merkle_root(leaves[:n]) for n in range(len(leaves) + 1)]
    task, salt, solver = digest("task"), digest("salt"), digest("solver")[:20]

    def reveal(**changes: Any) -> Json:
        fields = {"task": task, "solver": solver, "salt": salt, "steps": 11, "root": roots[11]} | changes
        return {k: plain(v) for k, v in fields.items()}

    preimage = commitment_bytes(task, solver, salt, 11, roots[11])
    step = {**step_json(entries[6]), "steps": 11, "path": hexes(merkle.merkle_path(digests, 6))}
    return {
        "_comment": textwrap.wrap(
            "The run commitment. A step's record is u64 step, big endian | state root | batch root | scalars "
            "root; the log is the keccak-256 tree of merkle.json over the records; roots[n] is its root after n "
            "steps. paths[i] opens step i in the log of all steps, consistency[m - 1] proves that its first m "
            "steps were not rewritten. preimage = 'gensyn_verify.run.1' | task | solver | salt | u64 steps, big "
            "endian | log root, and the commitment its keccak-256. Every entry of reveals_rejected opens to "
            "another commitment; every entry of steps_rejected is no step of the log.",
            width=110,
        ),
        "steps": [step_json(e) | {"record": e.record().hex()} for e in entries],
        "roots": hexes(roots),
        "paths": [hexes(merkle.merkle_path(digests, i)) for i in range(11)],
        "consistency": [hexes(merkle.consistency_path(digests, m)) for m in range(1, 12)],
        "reveal": reveal(),
        "preimage": preimage.hex(),
        "commitment": keccak256(preimage).hex(),
        "reveals_rejected": [
            {"why": "another task", **reveal(task=flip(task, 0))},
            {"why": "another solver", **reveal(solver=flip(solver, 19))},
            {"why": "another salt", **reveal(salt=flip(salt, 31))},
            {"why": "another number of steps", **reveal(steps=10)},
            {"why": "the log of ten steps", **reveal(steps=10, root=roots[10])},
            {"why": "another log", **reveal(root=flip(roots[11], 5))},
        ],
        "steps_rejected": [
            step | {"why": "another state", "state": flip(entries[6].state, 0).hex()},
            step | {"why": "another batch", "batch": flip(entries[6].batch, 0).hex()},
            step | {"why": "other scalars", "scalars": flip(entries[6].scalars, 0).hex()},
            step
            | {
                "why": "batch and scalars exchanged",
                "batch": entries[6].scalars.hex(),
                "scalars": entries[6].batch.hex(),
            },
            step | {"why": "another step's place", "step": 7},
            step | {"why": "another number of steps", "steps": 12},
            step | {"why": "a step past the end", "step": 11},
            step | {"why": "a sibling left out", "path": step["path"][:-1]},
        ],
    }


# ---- program.json


def affine_step() -> Program:
    """One step of gradient descent on a linear model: dot, map, reduce, and a metric."""
    g = ProgramBuilder()
    x, y = g.input("batch", "x", TensorType(Dtype.f32, (8, 3))), g.input("batch", "y", TensorType(Dtype.f32, (8, 1)))
    w, rate = g.input("state", "w", TensorType(Dtype.f32, (3, 1))), g.input("scalar", "rate", TensorType(Dtype.f32, ()))
    error = g.map(lambda p, t: p - t, g.dot(x, w), y)
    gradient = g.dot(x, error, transpose_a=True)
    g.output("state", "w", g.map(lambda w, d, r: w - r * d, w, gradient, rate))
    g.output("metric", "loss", g.reduce("sum", g.map(lambda e: e * e, error), (0, 1)))
    return g.build()


def every_kind() -> Program:
    """Every operation once, so that every attribute has a place."""
    g = ProgramBuilder()
    image = g.input("batch", "image", TensorType(Dtype.u8, (2, 5, 4)))
    index = g.input("batch", "index", TensorType(Dtype.i32, (3,)))
    seed, step = (
        g.input("scalar", "seed", TensorType(Dtype.u32, (2,))),
        g.input("scalar", "step", TensorType(Dtype.u32, ())),
    )
    table = g.input("state", "table", TensorType(Dtype.bf16, (6, 4)))
    wide = g.pad(g.slice(image, (0, 4, 0), (2, 3, 4), (1, -2, 1)), (0, 1, 0), (0, 0, 1), (0, 1, 0), 0)
    windows = g.window(wide, (2, 2), (1, 1), (2, 1))
    flat = g.reshape(g.permute(windows, (0, 3, 4, 1, 2)), (-1, 4))
    numbers = g.map(lambda v: v.to(Dtype.f32.reg), flat)
    rows = g.gather(table, index)
    product = g.dot(numbers, rows, transpose_b=True)
    noise = g.map(lambda u: (u >> 8).to(Dtype.f32.reg) * 2.0**-24, g.random(seed, step, (3,)))
    noisy = g.map(lambda a, b: a.max(b), product, g.broadcast(noise, product.shape))
    g.output("metric", "best", g.reduce("argmax", g.concat([noisy, product], 1), (1,)))
    update = g.scatter_add(rows, index, 6)
    g.output("state", "table", g.map(lambda t, u: t - u * 0.125, table, update, dtype=Dtype.bf16))
    return g.build()


def program_case(name: str, p: Program) -> Json:
    return {"name": name, "bytes": encode(p).hex(), "records": hexes(records(p)), "digest": p.digest.hex()}


Edit = Callable[[bytearray], None]


def program_corruptions() -> Iterator[Json]:
    p = affine_step()
    data = encode(p)
    leaves = records(p)
    at = [data.index(leaf) for leaf in leaves]  # header, three scalar programs, nodes

    def case(why: str, error: str, says: str, *edits: tuple[int, bytes], cut: int = 0, add: bytes = b"") -> Json:
        changed = bytearray(data)
        for place, new in edits:
            changed[place : place + len(new)] = new
        return {"why": why, "bytes": bytes(changed[: len(changed) - cut] + add).hex(), "error": error, "says": says}

    nodes = at[1 + len(p.scalar_programs) :]
    first_map = next(i for i, n in enumerate(p.nodes) if n.op.kind == "map")
    node_inputs = nodes[0] + 1 + 3 + 4  # op code, dot's attributes, number of inputs
    yield case("no program of this version", "ProgramError", "does not start with gvprog01", (0, b"gvprog02"))
    yield case("a byte missing at the end", "ProgramError", "left", cut=1)
    yield case("a byte too many at the end", "ProgramError", "1 bytes too many", add=b"\0")
    yield case(
        "a header that states another number of nodes", "ProgramError", "header states", (at[0] + 4, b"\0\0\0\7")
    )
    yield case("more nodes than any program has", "LimitError", "limit", (at[0] + 4, b"\xff\xff\xff\xff"))
    yield case("an input role that does not exist", "ProgramError", "role 3", (at[0] + 12, b"\3"))
    yield case("a name that is a path", "ProgramError", "is no name", (data.index(b"rate"), b"../e"))
    yield case("inputs out of order", "ProgramError", "not sorted", (data.index(b"\1y\0\2") + 1, b"a"))
    yield case("an operation code that does not exist", "ProgramError", "op code 255", (nodes[0], b"\xff"))
    yield case("a flag that is neither 0 nor 1", "ProgramError", "a flag is 0 or 1", (nodes[0] + 1, b"\2"))
    yield case("a dtype that does not exist", "ProgramError", "dtype code 8", (nodes[0] + 3, b"\x08"))
    yield case("a node that reads its own output", "ProgramError", "only 0 to 3 exist", (node_inputs, b"\0\0\0\4"))
    yield case("a node that reads a later one", "ProgramError", "only 0 to 3 exist", (node_inputs + 4, b"\0\0\0\5"))
    yield case(
        "inner dimensions that differ", "ProgramError", "inner dimensions differ", (node_inputs + 4, b"\0\0\0\2")
    )
    yield case("an output type that the inputs do not give", "ProgramError", "declares outputs", (nodes[1] - 5, b"\2"))
    yield case(
        "a scalar program that does not exist", "ProgramError", "scalar program 255", (nodes[first_map] + 8, b"\xff")
    )
    yield case("a register type that does not exist", "ProgramError", "register type 4", (at[1] + 1, b"\4"))
    yield case("an instruction of other types", "ProgramError", "expected f32", (at[1] + 1, b"\1"))
    yield case("an instruction that reads itself", "ProgramError", "only 0 to 1 exist", (at[1] + 8, b"\0\2"))
    yield case("an unknown operation of a scalar program", "ProgramError", "unknown operation", (at[1] + 7, b"\xff"))


def program_vectors() -> Json:
    return {
        "_comment": textwrap.wrap(
            "Canonical bytes of programs. records are the leaves of the keccak-256 tree of merkle.json (header, "
            "scalar programs, nodes), whose root is the digest. Every corruption must be refused with the named "
            "error, whose message contains `says`.",
            width=110,
        ),
        "cases": [program_case("affine_step", affine_step()), program_case("every_kind", every_kind())],
        "corruptions": list(program_corruptions()),
    }


FILES: dict[str, Callable[[], Json]] = {
    "blake3.json": blake3_vectors,
    "merkle.json": merkle_vectors,
    "state_root.json": state_vectors,
    "run_commitment.json": run_vectors,
    "program.json": program_vectors,
}


def text(vectors: Json) -> str:
    return json.dumps(vectors, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    for name, make in FILES.items():
        (VECTORS / name).write_text(text(make()))

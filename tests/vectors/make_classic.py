"""Writes classic.json: `python tests/vectors/make_classic.py`.

Seeds, numbers, tensors, batches and packed batches are computed here a second time, from the words of docs/formats.md.
The run is recorded by the package. Deterministic, on any PyTorch: the test suite runs it and compares with the file.
"""

from __future__ import annotations

import json
import struct
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from gensyn_verify.program.keccak import keccak256

VECTORS = Path(__file__).resolve().parent
Json = dict[str, Any]
CODES = {"f32": 0, "bf16": 1, "f16": 2, "i32": 3, "u32": 4, "u8": 5, "boolean": 6}
# torch's dtype: the one that stands for it, and how many of that are an element, None where it is what it is
STORED: dict[str, tuple[str, int | None]] = {
    "float32": ("f32", None), "bfloat16": ("bf16", None), "float16": ("f16", None), "int32": ("i32", None),
    "uint32": ("u32", None), "uint8": ("u8", None), "bool": ("boolean", None), "int8": ("u8", 1), "int16": ("u8", 2),
    "int64": ("u32", 2), "float64": ("u32", 2), "complex64": ("u32", 2), "complex128": ("u32", 4),
}  # fmt: skip


def seeding_case(seed: int, step: int) -> Json:
    digest = keccak256(b"gensyn_verify.classic.1" + struct.pack(">QQ", seed, step))
    return {
        "seed": str(seed),
        "step": str(step),
        "digest": digest.hex(),
        "torch": str(int.from_bytes(digest[:8], "big")),
        "numpy": list(struct.unpack(">8I", digest)),
    }


def number_case(value: float) -> Json:
    """An int, a bool or a float: what it is as text (floats in hexadecimal), and its two words."""
    octets = struct.pack("<d", value) if isinstance(value, float) else struct.pack("<q", value)
    text = value.hex() if isinstance(value, float) else str(value)
    return {"type": type(value).__name__, "value": text, "words": list(struct.unpack("<2I", octets))}


def stored(dtype: str, shape: list[int]) -> tuple[str, list[int]]:
    name, words = STORED[dtype]
    return name, shape + ([] if words is None else [words])


def tensor_case(dtype: str, shape: list[int], data: bytes) -> Json:
    """A tensor by the little-endian bytes of its elements, and the type that stands for it; the bytes are the same."""
    return {"dtype": dtype, "shape": shape, "bytes": data.hex(), "stored": list(stored(dtype, shape))}


# A batch is written with one key a node: {"tuple": [..]}, {"list": [..]}, {"dict": {..}}, {"tensor": [dtype, shape,
# bytes]}, {"int": "-2"}, {"float": "0x1p-1"}, {"bool": "True"}.


def leaves(batch: Json, path: str = "batch") -> dict[str, tuple[str, list[int], bytes]]:
    """name -> dtype, shape and bytes of the array that stands for the leaf."""
    ((kind, value),) = batch.items()
    if kind == "tensor":
        return {f"{path}:{value[0]}": (*stored(value[0], value[1]), bytes.fromhex(value[2]))}
    if kind == "dict":
        parts = [(f".{key}", item) for key, item in value.items()]
    elif kind in ("tuple", "list"):
        parts = [(f"({n})" if kind == "tuple" else f"[{n}]", item) for n, item in enumerate(value)]
    else:
        python = {"int": int, "float": float.fromhex, "bool": lambda text: text == "True"}[kind](value)
        return {f"{path}={kind}": ("u32", [2], struct.pack("<2I", *number_case(python)["words"]))}
    return {name: leaf for part, item in parts for name, leaf in leaves(item, path + part).items()}


def batch_case(batch: Json) -> Json:
    return {
        "batch": batch,
        "leaves": [
            {"name": name, "dtype": dtype, "shape": shape, "bytes": data.hex()}
            for name, (dtype, shape, data) in sorted(leaves(batch).items())
        ],
    }


def packed(batch: Json, capacity: int) -> bytes:
    found = sorted(leaves(batch).items())
    out = struct.pack(">I", len(found))
    for name, (dtype, shape, data) in found:
        out += bytes([len(name)]) + name.encode() + bytes([CODES[dtype], len(shape)])
        out += b"".join(struct.pack(">Q", d) for d in shape) + data
    assert len(out) <= capacity
    return out + bytes(capacity - len(out))


PAIR: Json = {
    "tuple": [{"tensor": ["float32", [2], "0000803f000000c0"]}, {"tensor": ["int64", [1], "feffffffffffffff"]}]
}
NEST: Json = {
    "dict": {
        "mask": {"tensor": ["bool", [2, 2], "01000001"]},
        "k": {"list": [{"int": "-2"}, {"float": "0x1.0000000000000p-1"}, {"bool": "True"}]},
        "empty": {"tensor": ["int16", [0], ""]},
    }
}
RAGGED: Json = {"dict": {"a": {"tensor": ["bool", [2], "0100"]}, "b": {"int": "3"}}}
NAMES = {
    "no type": ["batch"],
    "a program's dtype, not torch's": ["batch:f32"],
    "a leaf that has parts": ["batch:float32", "batch(0):float32"],
    "a tuple that begins with 1": ["batch(1):float32"],
    "another spelling of 0": ["batch(00):float32"],
    "a tuple and a list in one": ["batch(0):float32", "batch[1]:float32"],
    "a key that is no word": ["batch.a.:float32"],
    "a module": ["batch:os"],
    "a function": ["batch=eval"],
    "a number for a tensor": ["batch:int"],
    "another root": ["x:float32"],
    "no leaf": [],
}
CODE = '''\
"""A step that draws from every generator and computes with small binary fractions: exact on every machine."""

import random

import numpy
import torch


class Weights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.register_buffer("seen", torch.tensor(0))


def step(model, optimizer, batch):
    optimizer.zero_grad()
    drawn = random.getrandbits(2) + int(numpy.random.randint(4)) + int(torch.randint(4, ()))
    loss = (model.weight * batch["x"]).sum() * batch["scale"] * drawn
    loss.backward()
    optimizer.step()
    model.seen += len(batch["x"])
    return loss.detach()


def build():
    model = Weights()
    return model, torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5), step
'''


def record(folder: Path) -> Json:
    """Three steps of CODE in intervals of two, and what must not pass for them."""
    import torch

    import gensyn_verify as gv
    from gensyn_verify.protocol.store import file_name

    (folder / "code.py").write_text(CODE)
    solver = gv.Identity.unsigned("0x" + "5a" * 20)
    options: Json = {"interval": 2, "seed": 7 << 32 | 5, "salt": bytes(range(32)), "identity": solver}
    with gv.record_loop(f"{folder / 'code.py'}:build", folder / "run", **options) as loop:
        for n in range(3):
            loop({"x": torch.tensor([n + 1.0, 0.5, -2.0]), "scale": 0.125})
    run = folder / "run"
    header = json.loads((run / "run.json").read_bytes())
    header["environment"] = {}  # of the machine that made it, bound by nothing
    (run / "run.json").write_text(json.dumps(header, sort_keys=True, separators=(",", ":")))
    opened = gv.open_run(run)
    assert opened.task is not None
    assert opened.commitment is not None
    log = opened.segment(0).steps
    names = {"state": "param.weight", "batch": "batch.x:float32", "scalar": "group.0.lr"}
    types = {role: opened.task.program.inputs_of(role)[name] for role, name in names.items()}

    def flipped(why: str, role: str) -> Json:
        name = names[role]
        file = file_name(log[1].group(role)[name], types[role])
        return {"why": why, "file": file, "at": (run / file).stat().st_size - 1, "tensor": name}

    files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name != "lock"]
    return {
        "code": CODE,
        "codes_rejected": [
            {"why": "a comment more", "code": CODE + "# the same\n"},
            {"why": "other line ends", "code": CODE.replace("\n", "\r\n")},
        ],
        "inputs": [
            [i.role, i.name, i.type.dtype.name, list(i.type.shape)] for i in opened.task.program.inputs
        ],
        "files": {str(p.relative_to(run)): p.read_bytes().hex() for p in files},
        "digest": opened.task.digest.hex(),
        "commitment": opened.commitment.digest.hex(),
        "bits_rejected": [
            flipped("a weight of the second step", "state"),
            flipped("an element of its batch", "batch"),
            flipped("its learning rate", "scalar"),
        ],
        "present_rejected": [
            {"why": "a kind that there is not", "present": [6]},
            {"why": "an int where the optimizer has a tensor", "present": [3]},
        ],
    }  # fmt: skip


def vectors() -> Json:
    text = (
        "Runs of code, docs/formats.md, section 16. seeding: the digest of (seed, step), what torch is seeded with, "
        "and NumPy's words; `random` takes the digest. numbers: u32[2] of a Python number. tensors: the type that "
        "stands for a tensor of torch, with the same bytes. batches: nests and their leaves by name; names_rejected: "
        "sets of names that no batch gives. ragged: a batch packed into `capacity` bytes; corruptions are [why, "
        "offset, octet] written over it. run: files of a run of `code`, whose step is exact on every machine, and what "
        "its program reads; codes_rejected are other files, bits_rejected flip the lowest bit of a file at an offset, "
        "present_rejected are kinds of optimizer entries that the state cannot have."
    )
    seeds = ((0, 0), (1, 0), (0, 1), (7 << 32 | 5, 2), ((1 << 64) - 1, 1 << 31))
    batches: list[Json] = [PAIR, NEST, RAGGED, {"tensor": ["uint8", [1], "07"]}, {"float": "0x0.0p+0"}]
    with tempfile.TemporaryDirectory() as folder:
        run = record(Path(folder))
    return {
        "_comment": textwrap.wrap(text, width=110),
        "seeding": [seeding_case(*s) for s in seeds],
        "numbers": [number_case(x) for x in (0, -2, 1 << 40, -(1 << 63), True, False, 1.0, -0.0, 0.1, float("inf"))],
        "tensors": [
            tensor_case("float32", [2], bytes.fromhex("0000803f0100c07f")),  # 1 and a NaN with a payload
            tensor_case("bfloat16", [], bytes.fromhex("803f")),
            tensor_case("float16", [1, 1], bytes.fromhex("003c")),
            tensor_case("int32", [1], bytes.fromhex("feffffff")),
            tensor_case("uint32", [0, 4], b""),
            tensor_case("uint8", [3], bytes(range(3))),
            tensor_case("bool", [2], bytes([1, 0])),
            tensor_case("int8", [2], bytes.fromhex("fe01")),
            tensor_case("int16", [2], bytes.fromhex("feff0100")),
            tensor_case("int64", [1, 2], bytes.fromhex("feffffffffffffff0100000000000000")),
            tensor_case("float64", [1], struct.pack("<d", 0.1)),
            tensor_case("complex64", [1], struct.pack("<2f", 1.0, -2.0)),
            tensor_case("complex128", [], struct.pack("<2d", 1.0, -2.0)),
        ],
        "batches": [batch_case(b) for b in batches],
        "names_rejected": [{"why": why, "names": names} for why, names in NAMES.items()],
        "ragged": {
            "batch": RAGGED,
            "capacity": 80,
            "bytes": packed(RAGGED, 80).hex(),
            "corruptions": [
                ["a leaf more than there are", 3, 3],
                ["2^24 leaves more", 0, 1],
                ["a name that is longer than all", 4, 200],
                ["names that do not ascend", 11, ord("c")],
                ["a dtype that there is not", 17, 9],
                ["a rank of nine", 18, 9],
                ["a tensor of more than 2^36 elements", 19, 1],
                ["a tensor that is longer than all", 26, 60],
                ["a boolean that is neither 0 nor 1", 27, 2],
                ["a byte behind the batch", 79, 1],
            ],
        },
        "run": run,
    }  # fmt: skip


def text(value: Json) -> str:
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    (VECTORS / "classic.json").write_text(text(vectors()))

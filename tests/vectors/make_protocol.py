"""Writes sampler, sampling and bundles.json: `python tests/vectors/make_protocol.py`.

The order of batches is computed here a second time, with Python integers, from the words of docs/formats.md. The
rest is written by the package, and the readers are tested against it and against the corruptions. Deterministic: the
test suite runs it and compares with the files.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from gensyn_verify.program import Dtype, Program, ProgramBuilder, TensorType
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.sampling import detection_table, draw
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.store import file_name, header
from gensyn_verify.protocol.task import Task, write_task

VECTORS = Path(__file__).resolve().parent
Json = dict[str, Any]


def comment(text: str) -> list[str]:
    return textwrap.wrap(text, width=110)


# ---- sampler.json


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 with Python integers."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = q >> 32 ^ b ^ k, q & 0xFFFFFFFF, p >> 32 ^ d ^ m, p & 0xFFFFFFFF
        k, m = k + 0x9E3779B9 & 0xFFFFFFFF, m + 0xBB67AE85 & 0xFFFFFFFF
    return a, b, c, d


def row_of(position: int, rows: int, seed: tuple[int, int], epoch: int) -> int:
    """The row at a position of an epoch."""
    a = math.isqrt(rows - 1) + 1
    b = -(-rows // a)
    x = position
    while True:
        left, right = divmod(x, b)
        for i in range(10):
            value, modulus = (right, a) if i % 2 == 0 else (left, b)
            w0, w1, _, _ = philox((value, 2**31 + i, epoch % 2**32, epoch >> 32), seed)
            if i % 2 == 0:
                left = (left + w0 + (w1 << 32)) % modulus
            else:
                right = (right + w0 + (w1 << 32)) % modulus
        x = left * b + right
        if x < rows:
            return x


def epoch_case(rows: int, seed: tuple[int, int], epoch: int) -> Json:
    return {
        "rows": rows,
        "seed": list(seed),
        "epoch": epoch,
        "order": [row_of(p, rows, seed, epoch) for p in range(rows)],
    }


def position_case(rows: int, seed: tuple[int, int], epoch: int, positions: list[int]) -> Json:
    found = [row_of(p, rows, seed, epoch) for p in positions]
    return {"rows": rows, "seed": list(seed), "epoch": epoch, "positions": positions, "order": found}


def batch_case(rows: int, batch: int, seed: tuple[int, int], step: int) -> Json:
    epoch, place = divmod(step, rows // batch)
    found = [row_of(place * batch + i, rows, seed, epoch) for i in range(batch)]
    record = struct.pack(">IIQQ", *seed, rows, batch).hex()
    return {"rows": rows, "batch": batch, "seed": list(seed), "step": step, "indices": found, "record": record}


def sampler_vectors() -> Json:
    big = 1 << 36
    return {
        "_comment": comment(
            "The order of batches. epochs: the row at every position of an epoch. positions: single rows of data "
            "sets that are too long to list. batches: the rows of a step's batch, and the record that a task commits "
            "to (seed u32 u32, rows u64, batch u64, big endian). refusals: samplers that no task can have."
        ),
        "epochs": [
            epoch_case(rows, seed, epoch)
            for rows, seed, epoch in [
                (1, (0, 0), 0),
                (2, (0, 0), 0),
                (2, (0, 0), 1),
                (3, (1, 2), 0),
                (4, (1, 2), 0),
                (5, (1, 2), 7),
                (16, (0xFFFFFFFF, 0), 3),
                (17, (0, 0xFFFFFFFF), 1 << 32),
                (50, (1, 2), 0),
                (50, (1, 2), 1),
                (50, (2, 1), 0),
                (101, (0x243F6A88, 0x85A308D3), 5),
            ]
        ],
        "positions": [
            position_case(60000, (1, 2), 3, [0, 1, 29999, 59999]),
            position_case((1 << 32) + 1, (7, 7), 0, [0, 1 << 31, 1 << 32]),
            position_case(big, (3, 4), (1 << 40) + 1, [0, 12345678901, big - 1]),
        ],
        "batches": [batch_case(50, 8, (1, 2), step) for step in (0, 1, 5, 6, 40)]
        + [batch_case(7, 7, (9, 9), 2), batch_case(10, 4, (3, 4), 1)],
        "refusals": [
            {"why": "a batch larger than the data", "rows": 4, "batch": 5, "seed": [0, 0]},
            {"why": "an empty batch", "rows": 4, "batch": 0, "seed": [0, 0]},
            {"why": "more than 2^36 rows", "rows": big + 1, "batch": 1, "seed": [0, 0]},
            {"why": "a seed word beyond 32 bits", "rows": 4, "batch": 1, "seed": [0, 1 << 32]},
            {"why": "three seed words", "rows": 4, "batch": 1, "seed": [0, 0, 0]},
        ],
    }


# ---- sampling.json


def draw_case(beacon: bytes, intervals: int, samples: int) -> Json:
    commitment = keccak256(b"run")
    return {
        "beacon": beacon.hex(),
        "commitment": commitment.hex(),
        "intervals": intervals,
        "samples": samples,
        "drawn": draw(beacon, commitment, intervals, samples),
    }


def sampling_vectors() -> Json:
    return {
        "_comment": comment(
            "Which intervals a verifier replays: seed = keccak('gensyn_verify.sample.1' | u32 length of beacon | "
            "beacon | run commitment); draw j is keccak(seed | j as 8 bytes) as a big-endian integer mod intervals, "
            "intervals that were drawn before are skipped. detection: for steps, interval and samples the rows "
            "[share of steps forged, intervals that hold them, probability that the draw met one], as fractions."
        ),
        "draws": [
            draw_case(beacon, intervals, samples)
            for beacon, intervals, samples in [
                (b"", 10, 3),
                (b"beacon", 10, 3),
                (b"beacon", 10, 9),
                (b"beacon", 10, 10),
                (b"beacon", 3, 5),
                (b"beacon", 1, 1),
                (b"beacon", 5, 0),
                (bytes(32), 1000, 8),
                (b"\xff" * 64, 1 << 40, 4),
            ]
        ],
        "detection": [
            {
                "steps": s,
                "interval": i,
                "samples": n,
                "rows": [[str(a), b, str(c)] for a, b, c in detection_table(s, i, n)],
            }
            for s, i, n in [(400, 20, 4), (41, 7, 2), (10000, 100, 10), (5, 10, 1)]
        ],
    }


# ---- bundles.json

TEXTS = {
    b"": "empty",
    b"[1,2": "cut",
    b'{"a":1,"a":1}': "a key twice",
    b'{"b":1,"a":1}': "keys out of order",
    b'{"a": 1}': "a space",
    b'{"a":1}\n': "a line end",
    b'{"a":"\\u0041"}': "another spelling of A",
    b'{"a":"\\/"}': "an escape that is not needed",
    b'{"a":-0}': "another spelling of 0",
    b'{"a":01}': "a leading zero",
    b'{"a":1.0}': "a float",
    b'{"a":1e2}': "a float in disguise",
    b'{"a":NaN}': "not JSON, though many readers take it",
    b'{"a":null}': "null",
    b'{"a":true}': "a boolean",
    b'{"a":"\\n"}': "a character that is not printable",
    b'{"a":"\xc3\xa9"}': "a character beyond ASCII",
    b'{"a":12345678901234567890}': "an integer of 20 digits",
}


def tensor_case(dtype: Dtype, shape: tuple[int, ...], data: bytes) -> Json:
    from gensyn_verify.commit import tensor_root

    type = TensorType(dtype, shape)
    root = tensor_root(data)
    return {
        "dtype": dtype.name,
        "shape": list(shape),
        "root": root.hex(),
        "name": file_name(root, type),
        "file": (header(type) + data).hex(),
    }


def linear_step() -> Program:
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(Dtype.f32, (2, 3)))
    w = g.input("state", "w", TensorType(Dtype.f32, (3, 1)))
    rate = g.input("scalar", "rate", TensorType(Dtype.f32, ()))
    p = g.dot(x, w)
    g.output("state", "w", g.map(lambda w, d, r: w - r * d, w, g.dot(x, p, transpose_a=True), rate))
    g.output("metric", "loss", g.reduce("sum", g.map(lambda e: e * e, p), (0, 1)))
    return g.build()


def small_task(path: Path) -> Task:
    return write_task(
        path,
        linear_step(),
        {"w": np.array([[1], [-2], [3]], np.float32)},
        data={"x": (np.arange(15, dtype=np.float32) / 8).reshape(5, 3)},
        schedule={"rate": np.array([0.5, 0.25, 0.125], np.float32)},
        sampler=Sampler((11, 22), 5, 2),
        steps=3,
        interval=2,
    )


def bundle_vectors() -> Json:
    with tempfile.TemporaryDirectory() as folder:
        return _bundles(Path(folder))


def _bundles(folder: Path) -> Json:
    task = small_task(folder / "task")
    solver = Identity.unsigned("0x" + "5a" * 20)
    run = solve(task, folder / "run", identity=solver, salt=bytes(range(32)), backend="reference")
    assert run.commitment is not None
    leaf, index, count, path = task.opening("sampler")
    log = (folder / "run" / "steps" / "00000000.steps").read_bytes()
    return {
        "_comment": comment(
            "Bundles. json: bytes that are canonical, and bytes that are not, with the reason. tensors: a tensor's "
            "name in the store and its file. task: every file of a small task, the eight leaves under its digest in "
            "order, and the opening of one; fields_rejected are single fields that make the manifest malformed. run: "
            "the manifests and step logs of its run by `solver` under `salt`; logs_rejected are changes to the first "
            "step log: [offset, bytes] written over it, or cut to a length. signature: by a key that everybody has."
        ),
        "json": {
            "canonical": ['{"a":{"A":[],"z":0},"b":[1,-5,"x\\"\\\\ ~"]}', "[]", '""', "9223372036854775807"],
            "rejected": [{"why": why, "bytes": text.hex()} for text, why in TEXTS.items()],
        },
        "tensors": [
            tensor_case(Dtype.f32, (2,), np.array([1.5, -2], "<f4").tobytes()),
            tensor_case(Dtype.bf16, (1, 3), bytes.fromhex("803f00c00000")),
            tensor_case(Dtype.f16, (1,), bytes.fromhex("003c")),
            tensor_case(Dtype.i32, (), bytes.fromhex("feffffff")),
            tensor_case(Dtype.u32, (0, 4), b""),
            tensor_case(Dtype.u8, (5,), bytes(range(5))),
            tensor_case(Dtype.i8, (3,), bytes([0x80, 0xFF, 0x7F])),
            tensor_case(Dtype.boolean, (2, 2), bytes([1, 0, 0, 1])),
        ],
        "task": {
            "files": {
                str(p.relative_to(folder / "task")): p.read_bytes().hex()
                for p in sorted((folder / "task").rglob("*"))
                if p.is_file()
            },
            "leaves": [[name, value.hex()] for name, value in task.leaves.items()],
            "digest": task.digest.hex(),
            "opening": {"leaf": leaf.hex(), "index": index, "count": count, "path": [p.hex() for p in path]},
            "fields_rejected": [
                {"why": "no steps", "change": {"steps": 0}},
                {"why": "a number as text", "change": {"steps": "3"}},
                {"why": "an unknown field", "change": {"shape": [1]}},
                {"why": "an unknown version", "change": {"version": 2}},
                {"why": "an unknown mode", "change": {"policy": {"largest": 2, "mode": "trust", "samples": 4}}},
                {
                    "why": "a state that the program does not have",
                    "change": {"state": {"w": "00" * 32, "v": "00" * 32}},
                },
                {"why": "a state that is missing", "change": {"state": {}}},
                {"why": "a path for a name", "change": {"state": {"../w": "00" * 32}}},
                {"why": "upper-case hex", "change": {"program": task.program.digest.hex().upper()}},
                {"why": "another program's digest", "change": {"program": "00" * 32}},
                {
                    "why": "another batch than the program's",
                    "change": {"sampler": [{"batch": 1, "rows": 5, "seed": [11, 22]}]},
                },
            ],
        },
        "run": {
            "solver": solver.address.hex(),
            "salt": bytes(range(32)).hex(),
            "logs": {p.name: p.read_bytes().hex() for p in sorted((folder / "run" / "steps").iterdir())},
            "commitment.json": (folder / "run" / "commitment.json").read_text(),
            "logs_rejected": [
                {"why": "another magic", "write": [0, b"gvsteps2".hex()]},
                {"why": "a step more than there are", "write": [24, "00000003"]},
                {"why": "no steps", "write": [24, "00000000"]},
                {"why": "other groups of the same size", "write": [28, "0000000000000002"]},
                {"why": "cut by a byte", "cut": len(log) - 1},
                {"why": "cut in the header", "cut": 43},
                {"why": "empty", "cut": 0},
            ],
        },
        "signature": {
            "key": (b"\x11" * 32).hex(),
            "address": Identity.from_key(b"\x11" * 32).address.hex(),
            "commitment": run.commitment.digest.hex(),
            "signature": Identity.from_key(b"\x11" * 32).sign(run.commitment.digest).hex(),
        },
    }


FILES = {"sampler.json": sampler_vectors, "sampling.json": sampling_vectors, "bundles.json": bundle_vectors}


def text(value: Json) -> str:
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    for name, make in FILES.items():
        (VECTORS / name).write_text(text(make()))

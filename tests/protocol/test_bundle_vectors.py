"""The published vectors of order, sampling and bundles: the package gives them, and refuses their corruptions."""

from __future__ import annotations

import json
import runpy
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.program.merkle import verify_path
from gensyn_verify.program.types import Dtype, TensorType
from gensyn_verify.protocol import manifest
from gensyn_verify.protocol.folder import open_folder
from gensyn_verify.protocol.identity import Identity, signer
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.sampler import Sampler, permute
from gensyn_verify.protocol.sampling import detection_table, draw
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.store import TensorStore
from gensyn_verify.protocol.task import Task, open_task

VECTORS = Path(__file__).parent.parent / "vectors"
Json = dict[str, Any]


def load(name: str) -> Json:
    loaded: Json = json.loads((VECTORS / name).read_text())
    return loaded


SAMPLER, SAMPLING, BUNDLES = load("sampler.json"), load("sampling.json"), load("bundles.json")


def why(case: Json) -> str:
    return str(case.get("why", ""))


def test_the_generator_writes_the_files_as_they_are() -> None:
    pytest.importorskip("eth_keys")
    generator = runpy.run_path(str(VECTORS / "make_protocol.py"))
    for name, make in generator["FILES"].items():
        assert (VECTORS / name).read_text() == generator["text"](make()), name


@pytest.mark.parametrize("case", SAMPLER["epochs"] + SAMPLER["positions"])
def test_rows_of_an_epoch(case: Json) -> None:
    positions = np.array(case.get("positions", range(case["rows"])))
    assert permute(positions, case["rows"], tuple(case["seed"]), case["epoch"]).tolist() == case["order"]


@pytest.mark.parametrize("case", SAMPLER["batches"])
def test_rows_of_a_batch(case: Json) -> None:
    sampler = Sampler(tuple(case["seed"]), case["rows"], case["batch"])
    assert sampler.indices(case["step"]).tolist() == case["indices"]
    assert sampler.record().hex() == case["record"]


@pytest.mark.parametrize("case", SAMPLER["refusals"], ids=why)
def test_refused_samplers(case: Json) -> None:
    with pytest.raises(MalformedError):
        Sampler(tuple(case["seed"]), case["rows"], case["batch"])


@pytest.mark.parametrize("case", SAMPLING["draws"])
def test_drawn_intervals(case: Json) -> None:
    beacon, commitment = bytes.fromhex(case["beacon"]), bytes.fromhex(case["commitment"])
    assert draw(beacon, commitment, case["intervals"], case["samples"]) == case["drawn"]


@pytest.mark.parametrize("case", SAMPLING["detection"])
def test_detection(case: Json) -> None:
    rows = [(Fraction(a), b, Fraction(c)) for a, b, c in case["rows"]]
    assert detection_table(case["steps"], case["interval"], case["samples"]) == rows


@pytest.mark.parametrize("text", BUNDLES["json"]["canonical"])
def test_canonical_json(text: str) -> None:
    value = manifest.decode(text.encode(), lambda v, where: v, "vector")
    assert manifest.encode(value) == text.encode()


@pytest.mark.parametrize("case", BUNDLES["json"]["rejected"], ids=why)
def test_json_that_is_not_canonical(case: Json) -> None:
    with pytest.raises(BundleError):
        manifest.decode(bytes.fromhex(case["bytes"]), lambda v, where: v, "vector")


@pytest.mark.parametrize("case", BUNDLES["tensors"])
def test_tensor_files(case: Json, tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    folder.write(case["name"], [bytes.fromhex(case["file"])])
    type, root = TensorType(Dtype[case["dtype"]], tuple(case["shape"])), bytes.fromhex(case["root"])
    array = TensorStore(folder).get(type, root, "vector")
    TensorStore(copy := open_folder(tmp_path / "copy")).put(array, type, root)
    assert (tmp_path / "copy" / case["name"]).read_bytes().hex() == case["file"]
    assert copy.names("tensors") == [case["name"].partition("/")[2]]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    for name, data in BUNDLES["task"]["files"].items():
        file = tmp_path / "task" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes.fromhex(data))
    return open_task(tmp_path / "task")


def test_task_digest_and_opening(task: Task) -> None:
    vector = BUNDLES["task"]
    assert [[n, v.hex()] for n, v in task.leaves.items()] == vector["leaves"]
    assert task.digest.hex() == vector["digest"]
    o = vector["opening"]
    leaf, path = bytes.fromhex(o["leaf"]), [bytes.fromhex(p) for p in o["path"]]
    assert (leaf, o["index"], o["count"], path) == task.opening("sampler")
    assert verify_path(task.digest, leaf, o["index"], o["count"], path)
    assert not verify_path(task.digest, leaf[:-1] + b"\0", o["index"], o["count"], path)


@pytest.mark.parametrize("case", BUNDLES["task"]["fields_rejected"], ids=why)
def test_malformed_task_manifests(case: Json, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "task" / "task.json"
    file.write_bytes(manifest.encode({**json.loads(file.read_bytes()), **case["change"]}))
    with pytest.raises(BundleError):
        open_task(tmp_path / "task")


def test_run_of_the_task(task: Task, tmp_path: Path) -> None:
    vector = BUNDLES["run"]
    identity, salt = Identity.unsigned(vector["solver"]), bytes.fromhex(vector["salt"])
    run = solve(task, tmp_path / "run", identity=identity, salt=salt, backend="cpu")
    for name, data in vector["logs"].items():
        assert (tmp_path / "run" / "steps" / name).read_bytes().hex() == data
    assert (tmp_path / "run" / "commitment.json").read_text() == vector["commitment.json"]
    assert replay(run, everything=True, backend="reference").verdict is Verdict.VERIFIED


@pytest.mark.parametrize("case", BUNDLES["run"]["logs_rejected"], ids=why)
def test_malformed_step_logs(case: Json, task: Task, tmp_path: Path) -> None:
    run = solve(task, tmp_path / "run", backend="reference")
    file = tmp_path / "run" / "steps" / "00000000.steps"
    data = bytearray(file.read_bytes())
    if "write" in case:
        at, new = case["write"]
        data[at : at + len(new) // 2] = bytes.fromhex(new)
    file.write_bytes(data[: case.get("cut")])
    with pytest.raises(BundleError):
        replay(run, everything=True, backend="reference")


def test_signature() -> None:
    pytest.importorskip("eth_keys")
    vector = {name: bytes.fromhex(x) for name, x in BUNDLES["signature"].items()}
    identity = Identity.from_key(vector["key"])
    assert identity.address == vector["address"]
    assert identity.sign(vector["commitment"]) == vector["signature"]
    assert signer(vector["commitment"], vector["signature"]) == vector["address"]

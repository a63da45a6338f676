"""The published vectors of runs of code: the package gives them, and refuses their corruptions."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gensyn_verify as gv
from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.classic import ragged, trust, values
from gensyn_verify.classic.code import PRESENT, seeded
from gensyn_verify.errors import MalformedError
from gensyn_verify.program import Dtype, TensorType

VECTORS = Path(__file__).parent.parent / "vectors"
Json = dict[str, Any]
CLASSIC: Json = json.loads((VECTORS / "classic.json").read_text())
CPU = torch.device("cpu")
NUMBERS = {"int": int, "float": float.fromhex, "bool": lambda text: text == "True"}


def why(case: Any) -> str:
    return str(case["why"] if isinstance(case, dict) else case[0])


def test_the_generator_writes_the_file_as_it_is() -> None:
    generator = runpy.run_path(str(VECTORS / "make_classic.py"))
    assert (VECTORS / "classic.json").read_text() == generator["text"](generator["vectors"]())


@pytest.mark.parametrize("case", CLASSIC["seeding"])
def test_generators_are_seeded_from_seed_and_step(case: Json) -> None:
    with seeded(int(case["seed"]), int(case["step"])):
        assert torch.initial_seed() == int(case["torch"])
        assert random.getstate() == random.Random(bytes.fromhex(case["digest"])).getstate()
        mine, wanted = np.random.get_state()[1], np.random.RandomState(np.array(case["numpy"], np.uint32)).get_state()
        np.testing.assert_array_equal(mine, wanted[1])


@pytest.mark.parametrize("case", CLASSIC["numbers"])
def test_numbers(case: Json) -> None:
    value = NUMBERS[case["type"]](case["value"])
    words = values.from_number(value, "x")
    assert words.tolist() == case["words"]
    back = values.to_number(words, type(value))
    assert (type(back), repr(back)) == (type(value), repr(value))


def tensor(dtype: str, shape: list[int], octets: str) -> torch.Tensor:
    data = (
        torch.frombuffer(bytearray.fromhex(octets), dtype=torch.uint8) if octets else torch.empty(0, dtype=torch.uint8)
    )
    return data.view(getattr(torch, dtype)).reshape(shape)


@pytest.mark.parametrize("case", CLASSIC["tensors"], ids=lambda c: c["dtype"])
def test_tensors(case: Json) -> None:
    given = tensor(case["dtype"], case["shape"], case["bytes"])
    name, shape = case["stored"]
    assert values.type_of(given) == TensorType(Dtype[name], tuple(shape))
    array = values.to_array(given, "x")
    assert (values.carried(array), array.tobytes().hex()) == (values.type_of(given), case["bytes"])
    back = values.as_tensor(array, given.dtype)
    assert (back.dtype, back.shape, values.to_array(back, "x").tobytes().hex()) == (
        given.dtype,
        given.shape,
        case["bytes"],
    )


def nest(batch: Json) -> Any:
    ((kind, value),) = batch.items()
    if kind == "tensor":
        return tensor(*value)
    if kind == "dict":
        return {key: nest(item) for key, item in value.items()}
    if kind in ("tuple", "list"):
        return {"tuple": tuple, "list": list}[kind](map(nest, value))
    return NUMBERS[kind](value)


def arrays(case: Json) -> dict[str, Array]:
    return {
        leaf["name"]: np.frombuffer(bytes.fromhex(leaf["bytes"]), CARRIER[Dtype[leaf["dtype"]]]).reshape(leaf["shape"])
        for leaf in case["leaves"]
    }


def same(found: dict[str, Array], wanted: dict[str, Array]) -> bool:
    def described(leaves: dict[str, Array]) -> dict[str, Any]:
        return {name: (a.dtype, a.shape, a.tobytes()) for name, a in leaves.items()}

    return described(found) == described(wanted)


@pytest.mark.parametrize("case", CLASSIC["batches"], ids=lambda c: c["leaves"][0]["name"])
def test_batches(case: Json) -> None:
    batch, wanted = nest(case["batch"]), arrays(case)
    assert same(values.flatten(batch), wanted)
    back = values.unflatten(wanted, CPU)
    assert type(back) is type(batch)
    assert same(values.flatten(back), wanted)


@pytest.mark.parametrize("case", CLASSIC["names_rejected"], ids=why)
def test_names_that_no_batch_gives(case: Json) -> None:
    with pytest.raises(MalformedError):
        values.unflatten({name: np.zeros(3, np.float32) for name in case["names"]}, CPU)


def test_a_packed_batch() -> None:
    vector = CLASSIC["ragged"]
    leaves = values.flatten(nest(vector["batch"]))
    packed = ragged.pack(leaves, vector["capacity"])[ragged.NAME]
    assert packed.tobytes().hex() == vector["bytes"]
    assert same(ragged.unpack(packed), leaves)


@pytest.mark.parametrize("case", CLASSIC["ragged"]["corruptions"], ids=why)
def test_packed_batches_that_no_batch_gives(case: list[Any]) -> None:
    data = bytearray.fromhex(CLASSIC["ragged"]["bytes"])
    data[case[1]] = case[2]
    with pytest.raises(MalformedError):
        ragged.unpack(np.frombuffer(bytes(data), np.uint8))


# ---- the run ----------------------------------------------------------------------------------------------------

RUN = CLASSIC["run"]


@pytest.fixture
def code(tmp_path: Path) -> str:
    file = tmp_path / "code.py"
    file.write_bytes(RUN["code"].encode())
    return f"{file}:build"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name, data in RUN["files"].items():
        file = tmp_path / "run" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes.fromhex(data))
    return tmp_path / "run"


def test_the_run_is_verified_by_its_code_and_by_nothing_else(run: Path, code: str) -> None:
    report = gv.replay(run, trust_code=code, everything=True)
    assert (report.verdict, report.steps_replayed) == (gv.Verdict.VERIFIED, 3)
    assert (report.task, report.commitment) == (RUN["digest"], RUN["commitment"])
    assert gv.replay(run, everything=True).verdict is gv.Verdict.UNDECIDED
    task = gv.open_run(run).task
    assert task is not None
    assert [[i.role, i.name, i.type.dtype.name, list(i.type.shape)] for i in task.program.inputs] == RUN["inputs"]


@pytest.mark.parametrize("case", RUN["codes_rejected"], ids=why)
def test_another_file_is_not_its_code(case: Json, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.py"
    file.write_bytes(case["code"].encode())
    with pytest.raises(MalformedError, match="is not the code of this run"):
        gv.replay(run, trust_code=f"{file}:build")


@pytest.mark.parametrize("case", RUN["bits_rejected"], ids=why)
@pytest.mark.parametrize("trusted", [True, False])
def test_a_flipped_bit_of_the_run(case: Json, trusted: bool, run: Path, code: str) -> None:
    """A checkpoint is looked at in any case, what steps read when they are executed."""
    data = bytearray((run / case["file"]).read_bytes())
    data[case["at"]] ^= 1
    (run / case["file"]).write_bytes(data)
    report = gv.replay(run, trust_code=code if trusted else None, everything=True)
    seen = trusted or case["tensor"].startswith("param.")
    assert report.verdict is (gv.Verdict.MISMATCH if seen else gv.Verdict.UNDECIDED)
    assert {f.tensor for f in report.findings} == ({case["tensor"]} if seen else set())


@pytest.mark.parametrize("case", RUN["present_rejected"], ids=why)
def test_a_state_whose_optimizer_entries_cannot_be(case: Json, run: Path, code: str) -> None:
    task = gv.open_run(run).task
    assert task is not None
    executor = trust(code, task)(task.program)
    state = task.initial_state()
    executor.load(state)
    with pytest.raises(MalformedError, match="its kind is"):
        executor.load({**state, PRESENT: np.array(case["present"], np.uint8)})

"""The published vectors of docs/numerics.md, on the definition and on every instruction set; and how they are made."""

from __future__ import annotations

import json
from collections.abc import Iterator

import exact_numerics as exact
import make_vectors as make
import native
import numpy as np
import pytest

from gensyn_verify.backends import reference
from gensyn_verify.errors import ProgramError
from gensyn_verify.program import ops
from gensyn_verify.program.types import Dtype, Reg, TensorType

VECTORS = {name: json.loads((make.VECTORS / f"{name}.json").read_text()) for name in make.FILES}


@pytest.fixture(params=["reference", *native.ISAS])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The definition, then the native backend on each instruction set."""
    with native.backend(request.param) as name:
        yield name


def types(*tensors: make.Json) -> list[TensorType]:
    return [TensorType(Dtype[t["dtype"]], tuple(t["shape"])) for t in tensors]


def result_bits(case: make.Json) -> list[int]:
    return [int(b, 16) for b in case["result"]["bits"]]


@pytest.mark.parametrize("name", make.FILES)
def test_vectors_are_what_the_definition_and_exact_arithmetic_agree_on(name: str) -> None:
    """Writing them compares the reference with exact_numerics; then the file must be what was written."""
    assert make.text(make.FILES[name]()) == (make.VECTORS / f"{name}.json").read_text()


def test_scalar_operations(backend: str) -> None:
    for name, entry in VECTORS["scalar_ops"]["operations"].items():
        rows = [[int(x, 16) for x in row] for row in entry["cases"]]
        found = make.run_scalars(make.scalar_program(name), [row[:-1] for row in rows], backend)
        assert [(name, *row[:-1], y) for row, (y,) in zip(rows, found, strict=True)] == [(name, *row) for row in rows]


def test_scalar_programs_keep_every_rounding(backend: str) -> None:
    for entry in VECTORS["scalar_ops"]["programs"]:
        cases, results = ([[int(x, 16) for x in side] for side in sides] for sides in zip(*entry["cases"], strict=True))
        assert (entry["name"], make.run_scalars(make.read_scalar_program(entry), cases, backend)) == (
            entry["name"],
            results,
        )


def test_storage_widens_exactly_and_rounds_once(backend: str) -> None:
    for entry in VECTORS["scalar_ops"]["storage"]:
        loaded, stored = ([int(x, 16) for x in side] for side in zip(*entry["cases"], strict=True))
        assert make.convert(Dtype[entry["load"]], Dtype[entry["store"]], loaded, backend) == stored


@pytest.mark.parametrize("entry", VECTORS["scalar_ops"]["rejected"], ids=lambda e: e["why"])
def test_malformed_scalar_programs_are_rejected(entry: make.Json) -> None:
    with pytest.raises(ProgramError):
        make.read_scalar_program(entry)


def test_dot(backend: str) -> None:
    for case in VECTORS["dot"]["cases"]:
        op, arrays, dtypes = make.read_dot(case)
        (y,) = make.run_one(op, arrays, dtypes, backend)
        assert (case["why"], list(y.shape), make.to_bits(y)) == (
            case["why"],
            case["result"]["shape"],
            result_bits(case),
        )


def test_dot_blocks() -> None:
    for k, lengths in VECTORS["dot"]["blocks"].items():
        assert [end - start for start, end in reference.dot_blocks(int(k))] == lengths


def test_reduce(backend: str) -> None:
    for case in VECTORS["reduce"]["cases"]:
        op, x, dtype = make.read_reduce(case)
        (y,) = make.run_one(op, [x], [dtype], backend)
        assert (case["why"], case["op"], make.to_bits(y)) == (case["why"], case["op"], result_bits(case))


def test_every_mistaken_order_is_told_apart() -> None:
    """Each mistake that the files know gives wrong bits in at least one vector."""
    told = {
        name
        for file, section in (("dot", "cases"), ("reduce", "cases"), ("gather_scatter", "scatter_add"))
        for case in VECTORS[file][section]
        for name, wrong in case["wrong"].items()
        if wrong != case["result"]["bits"]
    }
    assert told == {*make.WRONG_BLOCKS, *make.WRONG_SUMS, "descending source order"}


def test_philox(backend: str) -> None:
    for case in VECTORS["philox"]["cases"]:
        op = ops.Random(case["stream"], tuple(case["result"]["shape"]))
        inputs = [np.array([int(w, 16) for w in case["seed"]], np.uint32), np.array(case["step"], np.uint32)]
        (y,) = make.run_one(op, inputs, [Dtype.u32, Dtype.u32], backend)
        assert make.to_bits(y) == result_bits(case)


def test_philox_blocks() -> None:
    for block in VECTORS["philox"]["blocks"]:
        counter, key, words = ([int(w, 16) for w in block[k]] for k in ("counter", "key", "words"))
        c0, c1, c2, c3 = (np.array(c) for c in counter)
        assert [int(w) for w in reference.philox((c0, c1, c2, c3), (key[0], key[1]))] == words
        assert exact.philox(counter, key) == words


def test_layout(backend: str) -> None:
    for case in VECTORS["layout"]["cases"]:
        op, arrays, dtypes = make.read_layout(case)
        (y,) = make.run_one(op, arrays, dtypes, backend)
        assert (case["why"], list(y.shape), make.to_bits(y)) == (
            case["why"],
            case["result"]["shape"],
            result_bits(case),
        )


def test_gather(backend: str) -> None:
    for case in VECTORS["gather_scatter"]["gather"]:
        inputs = [make.read_tensor(case["data"]), make.read_tensor(case["index"])]
        (y,) = make.run_one(ops.Gather(), inputs, [Dtype[case["data"]["dtype"]], Dtype.i32], backend)
        assert (case["why"], make.to_bits(y)) == (case["why"], result_bits(case))


def test_scatter_add(backend: str) -> None:
    for case in VECTORS["gather_scatter"]["scatter_add"]:
        inputs = [make.read_tensor(case["source"]), make.read_tensor(case["index"])]
        op = ops.ScatterAdd(case["rows"], Dtype[case["dtype"]])
        (y,) = make.run_one(op, inputs, [Dtype[case["source"]["dtype"]], Dtype.i32], backend)
        assert (case["why"], make.to_bits(y)) == (case["why"], result_bits(case))


def test_sort(backend: str) -> None:
    for case in VECTORS["sort_scan"]["sort"]:
        (y,) = make.run_one(ops.Sort(), [make.read_tensor(case["x"])], [Dtype[case["x"]["dtype"]]], backend)
        assert (case["why"], make.to_bits(y)) == (case["why"], result_bits(case))


def test_scan(backend: str) -> None:
    for case in VECTORS["sort_scan"]["scan"]:
        op, scalar, arrays, dtypes = make.read_scan(case)
        outs = make.run_one(op, arrays, dtypes, backend, (scalar,))
        wanted = [[int(b, 16) for b in r["bits"]] for r in case["results"]]
        assert (case["why"], [make.to_bits(y) for y in outs]) == (case["why"], wanted)


def rejected(name: str) -> list[make.Json]:
    return [{**entry, "file": name} for entry in VECTORS[name]["rejected"]]


@pytest.mark.parametrize(
    "entry",
    [e for name in ("dot", "reduce", "layout", "gather_scatter", "philox", "sort_scan") for e in rejected(name)],
    ids=lambda e: f"{e['file']}: {e['why']}",
)
def test_operations_that_do_not_fit_their_inputs_are_rejected(entry: make.Json) -> None:
    with pytest.raises(ProgramError):
        _infer(entry)


def _infer(entry: make.Json) -> tuple[TensorType, ...]:
    if entry["file"] == "dot":
        return ops.Dot(False, False, Dtype.f32).infer(types(entry["a"], entry["b"]), ())
    if entry["file"] == "reduce":
        op = ops.Reduce(ops.REDUCTIONS.index(entry["op"]), tuple(entry["axes"]), Dtype[entry["dtype"]])
        return op.infer(types(entry["x"]), ())
    if entry["file"] == "layout":
        attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["attributes"].items()}
        return make.LAYOUTS[entry["op"]](**attributes).infer(types(*entry["inputs"]), ())
    if entry["file"] == "gather_scatter":
        op_of = {"gather": ops.Gather(), "scatter_add": ops.ScatterAdd(2, Dtype[entry["data"]["dtype"]])}
        return op_of[entry["op"]].infer(types(entry["data"], entry["index"]), ())
    if entry["file"] == "sort_scan":
        x = types(entry["x"])
        identity = make.identity(Reg.f32)
        op_of = {"sort": ops.Sort(), "scan": ops.Scan(0, x[0].shape, (Dtype.f32,))}
        return op_of[entry["op"]].infer(x, (identity,))
    seed, step = (TensorType(Dtype.u32, tuple(entry[f"{x}_shape"])) for x in ("seed", "step"))
    return ops.Random(entry["stream"], (4,)).infer([seed, step], ())

"""What strangers may send: each gives one clear error, before anything is allocated, followed or executed."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import INTERVAL, STEPS, initial_state, linear_program, linear_task

from gensyn_verify.errors import BundleError, GensynVerifyError, LimitError, MalformedError
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType, encode
from gensyn_verify.protocol import manifest
from gensyn_verify.protocol.limits import check_memory, peak_bytes
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.store import file_name
from gensyn_verify.protocol.task import Task, open_task, write_task

Copy = tuple[Path, Callable[[], Run]]


@pytest.fixture
def bundle(task: Task, tmp_path: Path) -> Path:
    """A copy of the task bundle to spoil."""
    return Path(shutil.copytree(task.store.folder.url, tmp_path / "task"))


def edit(file: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(file.read_bytes())
    change(value)
    file.write_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def refused(call: Callable[[], object], *words: str, kind: type[Exception] = BundleError) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, GensynVerifyError)
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- manifests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("steps"), ["missing keys ['steps']"]),
        (lambda v: v.update(extra=1), ["unknown keys ['extra']"]),
        (lambda v: v.update(steps="40"), ["task.json.steps", "an integer", "'40'"]),
        (lambda v: v.update(steps=True), ["bool"]),
        (lambda v: v.update(steps=40.0), ["40.0 is not an integer"]),
        (lambda v: v.update(steps=None), ["NoneType"]),
        (lambda v: v.update(steps=-1), ["from 0 to"]),
        (lambda v: v.update(steps=0), ["steps is 0"]),
        (lambda v: v.update(steps=10**18), ["from 0 to"]),
        (lambda v: v.update(steps=10**30), ["31 digits"]),
        (lambda v: v.update(interval=0), ["interval", "from 1 to"]),
        (lambda v: v.update(format="other"), ["'gensyn_verify.task'"]),
        (lambda v: v.update(version=2), ["version", "expected 1"]),
        (lambda v: v.update(program="00" * 32), ["digest"]),
        (lambda v: v.update(program="zz" * 32), ["lower-case hex"]),
        (lambda v: v.update(program="AB" * 32), ["lower-case hex"]),
        (lambda v: v.update(program="00" * 31), ["32 bytes"]),
        (lambda v: v["state"].pop("w"), ["state: missing ['w']"]),
        (lambda v: v["state"].update(extra="00" * 32), ["unknown ['extra']"]),
        (lambda v: v["state"].update({"../../etc/passwd": "00" * 32}), ["'../../etc/passwd' is no name"]),
        (lambda v: v["state"].update({"a/b": "00" * 32}), ["'a/b' is no name"]),
        (lambda v: v["state"].update(w="../../etc/passwd"), ["task.json.state.w", "hex"]),
        (lambda v: v["data"].pop("x"), ["data: missing ['x']"]),
        (lambda v: v["schedule"].pop("lr"), ["schedule: missing ['lr']"]),
        (lambda v: v["sampler"][0].update(rows=7), ["a batch of 8 from 7 rows"]),
        (lambda v: v["sampler"][0].update(batch=4), ["first dimension must be the batch"]),
        (lambda v: v["sampler"][0].update(seed=[1]), ["seed"]),
        (lambda v: v["sampler"][0].update(seed=[1, 2, 3]), ["seed", "3 items"]),
        (lambda v: v["sampler"][0].update(seed=[1, 1 << 32]), ["seed"]),
        (lambda v: v["sampler"].append(v["sampler"][0]), ["2 items"]),
        (lambda v: v["sampler"].clear(), ["recorded"]),
        (lambda v: v["policy"].update(mode="trust"), ["policy.mode", "'exact'"]),
        (lambda v: v["policy"].update(samples=-1), ["policy.samples"]),
    ],
)
def test_wrong_field_of_a_task_is_named(bundle: Path, change: Callable[[dict], object], words: list[str]) -> None:
    edit(bundle / "task.json", change)
    refused(lambda: open_task(bundle), *words, kind=MalformedError)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "an object"),
        (b"\xff\xfe", "not ASCII"),
        (b'{"a":1,"a":1}', "twice"),
        (b'{"b":1,"a":1}', "canonical"),
        (b'{"a": 1}', "canonical"),
        (b'{"a":1}\n', "canonical"),
        (b'{"a":"\\u0041"}', "canonical"),
        (b'{"a":-0}', "canonical"),
        (b'{"a":1e3}', "not an integer"),
        (b'{"a":NaN}', "not an integer"),
        (b'{"a":"\\u0000"}', "printable"),
        (b'{"a":"\\ud800"}', "printable"),
        (b"[" * 100000 + b"]" * 100000, "nested too deeply"),
        (b'{"a":"[]\\"",' + b'"b":[' * 17, "nested too deeply"),
        (b"9" * 100000, "digits"),
    ],
)
def test_text_that_is_no_canonical_manifest_is_refused(bundle: Path, data: bytes, word: str) -> None:
    (bundle / "task.json").write_bytes(data)
    refused(lambda: open_task(bundle), "task.json", word)


def test_depth_does_not_count_on_the_interpreter() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1 << 20)  # as some packages do: the stack would be full before that
    try:
        with pytest.raises(BundleError, match="nested too deeply"):
            manifest.decode(b"[" * 100000, lambda v, where: v, "x")
    finally:
        sys.setrecursionlimit(limit)
    assert manifest.decode(b'{"a":"' + b"[" * 20 + b'"}', lambda v, where: v, "x") == {"a": "[" * 20}


def test_canonical_json_has_one_spelling() -> None:
    value = {"b": [1, -5, 'x"\\ ~'], "a": {"z": 0, "A": []}}
    data = manifest.encode(value)
    assert data == b'{"a":{"A":[],"z":0},"b":[1,-5,"x\\"\\\\ ~"]}'
    assert manifest.decode(data, lambda v, where: v, "x") == value


@pytest.mark.parametrize("value", [1.0, None, True, "é", "\n", {1: 2}, {"a": (1,)}])
def test_values_outside_the_format_are_not_written(value: object) -> None:
    with pytest.raises(BundleError):
        manifest.encode(value)


def test_oversized_manifest_is_refused_before_it_is_read(bundle: Path) -> None:
    with open(bundle / "task.json", "wb") as file:
        file.truncate(1 << 40)  # sparse: takes no disk
    refused(lambda: open_task(bundle), "task.json", str(1 << 40), "limit", kind=LimitError)


def test_folder_without_a_task_or_run_says_so(tmp_path: Path) -> None:
    refused(lambda: open_task(tmp_path), "holds no task")
    refused(lambda: open_task(tmp_path / "nowhere"), "holds no task")
    refused(lambda: open_run(tmp_path), "holds no run")


# ---- program ----------------------------------------------------------------------------------------------------


def test_program_that_is_not_the_named_one_is_refused(bundle: Path) -> None:
    g = ProgramBuilder()
    g.output("state", "w", g.input("state", "w", TensorType(Dtype.f32, (1,))))
    (bundle / "program").write_bytes(encode(g.build()))
    refused(lambda: open_task(bundle), "the program has digest", "the manifest names")


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_truncated_program_is_refused(bundle: Path, cut: int) -> None:
    data = (bundle / "program").read_bytes()
    (bundle / "program").write_bytes(data[:cut])
    refused(lambda: open_task(bundle), "program", kind=MalformedError)


def test_missing_program_is_refused(bundle: Path) -> None:
    (bundle / "program").unlink()
    refused(lambda: open_task(bundle), "program is missing")


@pytest.mark.parametrize("origins", [["x"], ["x"] * 1000, "x", [1]])
def test_origins_that_do_not_fit_the_program_are_refused(bundle: Path, origins: object) -> None:
    (bundle / "origins.json").write_bytes(manifest.encode({"origins": origins}))
    refused(lambda: open_task(bundle), "origins")


def test_task_without_origins_opens_with_the_same_digest(bundle: Path, task: Task) -> None:
    (bundle / "origins.json").unlink()
    assert open_task(bundle).digest == task.digest


def test_origins_survive_the_bundle(task: Task) -> None:
    assert "linear (net.py:7)" in [n.origin for n in task.program.nodes]


def test_program_beyond_the_memory_limit_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    g = ProgramBuilder()
    w = g.input("state", "w", TensorType(Dtype.f32, (4,)))
    huge = g.broadcast(g.reshape(w, (1, 4)), (1 << 34, 4))
    total = g.reduce("sum", huge, [0])
    g.output("state", "w", total)
    write_task(tmp_path / "task", g.build(), {"w": np.zeros(4, np.float32)}, interval=1)
    refused(lambda: open_task(tmp_path / "task"), "takes", "limit", kind=LimitError)


def test_memory_limit_is_an_argument(task: Task) -> None:
    url = task.store.folder.url
    open_task(url, memory_limit=1 << 20)
    refused(lambda: open_task(url, memory_limit=1000), "limit is 1000", kind=LimitError)


def test_peak_memory_counts_what_lives_at_once() -> None:
    g = ProgramBuilder()
    x = g.input("state", "x", TensorType(Dtype.f32, (10,)))  # 40 bytes, alive throughout
    a = g.map(lambda v: v + 1.0, x)
    b = g.map(lambda v: v * v, a)
    c = g.map(lambda v: v - 1.0, b)
    g.output("state", "x", c)
    assert peak_bytes(g.build()) == 3 * 40  # x, and two neighbours of the chain


def test_memory_of_a_long_chain_does_not_add_up() -> None:
    g = ProgramBuilder()
    v = x = g.input("state", "x", TensorType(Dtype.f32, (100,)))
    for i in range(50):
        v = g.map(lambda e, i=i: e + float(i + 1), v)
    g.output("state", "x", v)
    program = g.build()
    assert peak_bytes(program) == 3 * x.type.nbytes
    check_memory(program, 0, 1200, "here")
    with pytest.raises(LimitError, match="here"):
        check_memory(program, 1, 1200, "here")


# ---- tensors ----------------------------------------------------------------------------------------------------


def tensor_file(bundle: Path, group: str, name: str) -> Path:
    task = open_task(bundle)
    types = {"state": task.program.inputs_of("state"), "data": task.data_types, "schedule": task.schedule_types}[group]
    return bundle / file_name(getattr(task, group)[name], types[name])


def use(bundle: Path) -> None:
    task = open_task(bundle)
    task.initial_state()
    task.batch(0)
    task.scalars(0)


@pytest.mark.parametrize(("group", "name"), [("state", "w"), ("data", "x"), ("data", "label"), ("schedule", "lr")])
def test_tensor_file_with_a_flipped_bit_is_named_with_both_digests(bundle: Path, group: str, name: str) -> None:
    file = tensor_file(bundle, group, name)
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x10
    file.write_bytes(data)
    refused(lambda: use(bundle), f"tensor '{name}'", "content has root", f"expected {file.name.split('-')[0]}")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: d[:-1], ["bytes expected"]),
        (lambda d: d + b"\0", ["bytes expected"]),
        (lambda d: b"", ["0 found"]),
        (lambda d: d[:4], ["4 found"]),
        (lambda d: struct.pack("<Q", 1 << 60) + d[8:], ["header"]),
        (lambda d: d.replace(b'"F32"', b'"I32"'), ["header"]),
        (lambda d: d.replace(b"[6]", b"[7]"), ["header"]),
        (lambda d: d.replace(b"[0,24]", b"[4,28]"), ["header"]),
        (lambda d: d.replace(b"tensor", b"tensos"), ["header"]),
    ],
)
def test_tensor_file_of_another_form_is_refused(
    bundle: Path, spoil: Callable[[bytes], bytes], words: list[str]
) -> None:
    file = tensor_file(bundle, "state", "w")
    file.write_bytes(spoil(file.read_bytes()))
    refused(lambda: use(bundle), "tensor 'w'", *words)


def test_huge_sparse_tensor_file_is_refused_by_its_size(bundle: Path) -> None:
    with open(tensor_file(bundle, "data", "x"), "r+b") as file:
        file.truncate(1 << 42)
    refused(lambda: use(bundle), "tensor 'x'", f"{1 << 42} found")


def test_missing_tensor_file_is_named(bundle: Path) -> None:
    tensor_file(bundle, "data", "label").unlink()
    refused(lambda: use(bundle), "tensor 'label'", "is missing")


def test_boolean_other_than_0_or_1_is_refused(tmp_path: Path) -> None:
    from gensyn_verify.commit import tensor_root
    from gensyn_verify.protocol.folder import open_folder
    from gensyn_verify.protocol.store import TensorStore, header

    type = TensorType(Dtype.boolean, (3,))
    root = tensor_root(np.array([1, 2, 0], np.uint8))
    folder = open_folder(tmp_path)
    folder.write(file_name(root, type), [header(type), bytes([1, 2, 0])])
    refused(lambda: TensorStore(folder).get(type, root, "mask"), "mask", "stored as 0 or 1, found 2")


def test_tensors_are_safetensors_files(bundle: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    task = open_task(bundle)
    for name, array in task.initial_state().items():
        loaded = safetensors.load_file(tensor_file(bundle, "state", name))
        np.testing.assert_array_equal(loaded["tensor"], array)


# ---- links, pipes, other file kinds -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["task.json", "program", "origins.json"])
def test_symbolic_link_for_a_file_is_refused(bundle: Path, name: str) -> None:
    target = bundle.parent / "outside"
    (bundle / name).rename(target)
    (bundle / name).symlink_to(target)
    refused(lambda: open_task(bundle), name, "symbolic link")


def test_symbolic_link_for_a_tensor_is_refused(bundle: Path) -> None:
    file = tensor_file(bundle, "state", "w")
    outside = bundle.parent / "outside"
    shutil.copy(file, outside)
    file.unlink()
    file.symlink_to(outside)
    refused(lambda: use(bundle), "symbolic link")


def test_symbolic_link_for_the_folder_of_tensors_is_refused(bundle: Path) -> None:
    (bundle / "tensors").rename(bundle.parent / "elsewhere")
    (bundle / "tensors").symlink_to(bundle.parent / "elsewhere")
    refused(lambda: use(bundle), "symbolic link")


def test_bundle_behind_a_link_that_the_caller_named_opens(bundle: Path, task: Task) -> None:
    link = bundle.parent / "link"
    link.symlink_to(bundle)
    assert open_task(link).digest == task.digest


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipe_or_directory_for_a_file_is_refused_without_waiting(bundle: Path, make: Callable[[Path], None]) -> None:
    (bundle / "task.json").unlink()
    make(bundle / "task.json")
    refused(lambda: open_task(bundle), "no regular file")


# ---- runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda v: v.update(solver="00" * 19), "20 bytes"),
        (lambda v: v.update(salt=""), "32 bytes"),
        (lambda v: v.update(task=1), "run.json.task"),
        (lambda v: v.update(environment=[]), "environment"),
        (lambda v: v["environment"].update({"../x": "y"}), "is no name"),
        (lambda v: v.pop("version"), "missing keys ['version']"),
    ],
)
def test_wrong_field_of_a_run_is_named(copy: Copy, change: Callable[[dict], object], word: str) -> None:
    path, reopen = copy
    edit(path / "run.json", change)
    refused(reopen, "run.json", word)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda v: v.update(signature="00" * 64), "0 or 65 bytes"),
        (lambda v: v.update(steps=-1), "steps"),
        (lambda v: v.update(root=[]), "root"),
    ],
)
def test_wrong_field_of_a_commitment_is_named(copy: Copy, change: Callable[[dict], object], word: str) -> None:
    path, reopen = copy
    edit(path / "commitment.json", change)
    refused(reopen, "commitment.json", word)


HEAD = struct.Struct(">8sQQIIIII")


def rewrite_head(data: bytes, **changes: object) -> bytes:
    names = ("magic", "interval", "first", "count", "state", "batch", "scalar", "metric")
    fields = dict(zip(names, HEAD.unpack_from(data), strict=True)) | changes
    return HEAD.pack(*fields.values()) + data[HEAD.size :]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: d[:-1], ["steps take"]),
        (lambda d: d + b"\0", ["steps take"]),
        (lambda d: b"", ["0 bytes"]),
        (lambda d: d[:20], ["20 bytes"]),
        (lambda d: b"x" + d[1:], ["gvsteps1"]),
        (lambda d: rewrite_head(d, count=6), ["6 steps take"]),
        (lambda d: rewrite_head(d, count=(1 << 32) - 1), ["steps take"]),
        (lambda d: rewrite_head(d, state=3, batch=3), ["the task's program has"]),
        (lambda d: rewrite_head(d, count=0)[: HEAD.size], ["at least one step"]),
        (lambda d: rewrite_head(d, count=8) + d[HEAD.size : HEAD.size + 228], ["8 steps in an interval of 7"]),
    ],
)
def test_malformed_step_log_is_refused(
    copy: Copy, task: Task, spoil: Callable[[bytes], bytes], words: list[str]
) -> None:
    path, reopen = copy
    file = path / "steps" / "00000002.steps"
    file.write_bytes(spoil(file.read_bytes()))
    refused(lambda: replay(reopen(), task, backend="reference"), "00000002.steps", *words)


@pytest.mark.parametrize(
    "name", ["x", "0000000a.steps", "2.steps", "000000002.steps", "00000002.txt", "-0000001.steps"]
)
def test_stray_file_among_the_step_logs_is_refused(copy: Copy, task: Task, name: str) -> None:
    path, reopen = copy
    (path / "steps" / name).write_bytes(b"")
    refused(lambda: replay(reopen(), task, backend="reference"), name)


def test_truncated_checkpoint_is_malformed(copy: Copy, task: Task) -> None:
    path, reopen = copy
    run = reopen()
    root = run.segment(1).steps[-1].state["w"]
    file = path / file_name(root, task.program.inputs_of("state")["w"])
    file.write_bytes(file.read_bytes()[:-2])
    refused(lambda: replay(reopen(), task, backend="reference"), f"step {2 * INTERVAL - 1}", "'w'", "bytes expected")


def test_replay_of_a_run_without_its_task_asks_for_it(honest: Run) -> None:
    refused(lambda: replay(honest.url), "give the task bundle")


def test_run_tells_how_far_it_got_without_its_task(honest: Run) -> None:
    run = open_run(honest.url)
    assert run.steps_done == STEPS
    assert run.finished


# ---- arguments of the writing side ------------------------------------------------------------------------------


def test_task_is_not_written_over_another(bundle: Path) -> None:
    refused(lambda: linear_task(bundle), "holds a task already")


def test_folder_that_cannot_be_written_is_one_clear_error(task: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        refused(lambda: solve(task, out, backend="reference"), str(out))  # noqa: B023
        refused(lambda: linear_task(out), str(out))  # noqa: B023


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({**initial_state(), "w": np.zeros(5, np.float32)}, ["'w'", "f32[6]", "[5]"]),
        ({**initial_state(), "w": np.zeros(6, np.float64)}, ["'w'", "float64"]),
        ({**initial_state(), "z": np.zeros(6, np.float32)}, ["unknown ['z']"]),
        ({"w": np.zeros(6, np.float32)}, ["missing ['m', 'running', 'step']"]),
    ],
)
def test_arrays_that_do_not_fit_the_program_are_named(tmp_path: Path, state: dict, words: list[str]) -> None:
    refused(
        lambda: write_task(tmp_path / "t", linear_program(), state, interval=1), "state", *words, kind=MalformedError
    )

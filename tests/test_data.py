"""Data from wherever it lies: the same rows make the same task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyarrow = pytest.importorskip("pyarrow")

import gensyn_verify as gv  # noqa: E402
from gensyn_verify import data  # noqa: E402
from gensyn_verify.errors import CaptureError  # noqa: E402
from gensyn_verify.protocol import store  # noqa: E402

ROWS = 40
X = np.random.default_rng(0).standard_normal((ROWS, 3, 2)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 4, ROWS)


class Items(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return torch.from_numpy(X[i]), int(Y[i])


def table(chunks: int = 1, fixed: bool = True) -> Any:
    """Columns y and x, in an order of their own, in so many chunks."""
    pixels = pyarrow.array(X.reshape(-1))
    if fixed:
        x = pyarrow.FixedSizeListArray.from_arrays(pyarrow.FixedSizeListArray.from_arrays(pixels, 2), 3)
    else:
        x = pyarrow.array(X.tolist(), pyarrow.list_(pyarrow.list_(pyarrow.float32())))
    whole = pyarrow.table({"y": pyarrow.array(Y), "x": x, "name": pyarrow.array(["row"] * ROWS)})
    step = ROWS // chunks
    parts = [whole.select(["y", "x"]).slice(start, step) for start in range(0, ROWS, step)]
    return pyarrow.concat_tables(parts)


def npz(folder: Path) -> Any:
    np.savez(folder / "d.npz", x=X, y=Y)
    return data.load(folder / "d.npz", "x", "y")


def npy(folder: Path) -> Any:
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return data.load(folder / "x.npy"), data.load(folder / "y.npy")


def safetensors(folder: Path) -> Any:
    from safetensors.numpy import save_file

    save_file({"x": X, "y": Y}, folder / "d.safetensors")
    return data.load(folder / "d.safetensors", "x", "y")


def parquet(folder: Path) -> Any:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table(4), folder / "d.parquet", row_group_size=7)
    return data.load(folder / "d.parquet", "x", "y")


def arrow(folder: Path) -> Any:
    with pyarrow.ipc.new_file(folder / "d.arrow", table().schema) as file:
        file.write_table(table())
    return data.load(folder / "d.arrow", "x", "y")


def arrow_stream(folder: Path) -> Any:
    given = table(5, fixed=False)
    with pyarrow.ipc.new_stream(folder / "d.arrow", given.schema) as file:
        file.write_table(given)
    return data.load(folder / "d.arrow", "x", "y")


def hugging_face(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    given = datasets.Dataset.from_dict({"x": X[::-1].copy(), "y": Y[::-1].copy()})
    given.save_to_disk(folder / "hf")
    mapped = datasets.load_from_disk(folder / "hf").select(range(ROWS - 1, -1, -1))
    return data.load(mapped, "x", "y")


SOURCES: dict[str, Callable[[Path], Any]] = {
    "arrays": lambda _: (X, Y),
    "TensorDataset": lambda _: torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "Subset": lambda _: torch.utils.data.Subset(
        torch.utils.data.TensorDataset(torch.from_numpy(X[::-1].copy()), torch.from_numpy(Y[::-1].copy())),
        range(ROWS - 1, -1, -1),
    ),
    "map-style Dataset": lambda _: Items(),
    "npz": npz,
    "npy": npy,
    "safetensors": safetensors,
    "parquet": parquet,
    "arrow": arrow,
    "arrow stream": arrow_stream,
    "Hugging Face": hugging_face,
}


def capture(source: Any, path: Path) -> Any:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return gv.capture(model, torch.nn.CrossEntropyLoss(), optimizer, source, steps=6, batch_size=8, path=path)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_the_same_rows_make_the_same_task(source: Callable[[Path], Any], tmp_path: Path) -> None:
    wanted = capture((torch.from_numpy(X), torch.from_numpy(Y)), tmp_path / "wanted")
    assert capture(source(tmp_path), tmp_path / "found").digest == wanted.digest


def test_large_data_stay_on_the_disk_and_give_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture((X, Y), tmp_path / "task")
    wanted = gv.solve(gv.open_task(tmp_path / "task"), tmp_path / "read")
    monkeypatch.setattr(store, "MAPPED", 1)
    opened = gv.open_task(tmp_path / "task", memory_limit=4000)
    assert not opened.group("data")["x"].flags.owndata
    found = gv.solve(opened, tmp_path / "mapped")
    assert found.commitment is not None
    assert wanted.commitment is not None
    assert found.commitment.root == wanted.commitment.root
    assert gv.replay(found).verdict is gv.Verdict.VERIFIED


def test_a_mapped_tensor_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = capture((X, Y), tmp_path / "task")
    monkeypatch.setattr(store, "MAPPED", 1)
    (file,) = (tmp_path / "task" / "tensors").glob(f"{made.data['x'].hex()}*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(gv.GensynVerifyError, match="content has root"):
        gv.open_task(tmp_path / "task").batch(0)


def test_windows_cut_a_stream_of_tokens(tmp_path: Path) -> None:
    stream = np.arange(23, dtype=np.uint16)
    np.save(tmp_path / "tokens.npy", stream)
    assert data.windows(tmp_path / "tokens.npy", 5).tolist() == [[*range(a, a + 5)] for a in (0, 5, 10, 15)]
    overlapping = data.windows(torch.arange(23), 5, stride=4)
    assert overlapping.dtype is torch.int32
    assert overlapping.tolist() == [[*range(a, a + 5)] for a in (0, 4, 8, 12, 16)]


@pytest.mark.parametrize(
    ("stream", "length", "stride"),
    [(np.zeros(3, np.int32), 4, 1), (np.zeros((4, 4), np.int32), 2, 1), (np.zeros(9, np.float32), 2, 1),
     (np.zeros(9, np.int32), 2, 0)],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(stream: Any, length: int, stride: int) -> None:
    with pytest.raises(CaptureError, match="one-dimensional integer array"):
        data.windows(stream, length, stride)


def lists(*rows: list[int] | None) -> Any:
    return pyarrow.table({"x": pyarrow.array(rows)})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda _: lists([1], [1, 2]), "lists of 1 to 2 values; pad them"),
        (lambda _: lists([1], None), "1 missing values"),
        (lambda _: pyarrow.table({"x": ["a", "b"]}), "not of numbers"),
        (lambda _: "data.csv", "data.load reads .npy"),
        (lambda folder: folder / "missing.parquet", "missing.parquet"),
        (lambda folder: folder / "no.npy", "No such file"),
        (lambda _: iter([1]), "no path and no dataset"),
        (lambda _: torch.utils.data.ChainDataset([]), "no rows that a committed order could pick"),
        (lambda _: torch.utils.data.ConcatDataset([[("a", torch.ones(1))], [torch.ones(2)]]), "do not stack"),
    ],
)
def test_what_cannot_become_rows_says_why(source: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=message):
        data.load(source(tmp_path))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CaptureError, match=r"evil\.npy"):
        data.load(tmp_path / "evil.npy")


def test_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(CaptureError, match="no column 'z'; the columns are y, x"):
        data.load(table(), "z")
    with pytest.raises(CaptureError, match="has no named columns"):
        data.load(Items(), "x")

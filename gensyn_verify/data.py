"""Training data where it lies: files, datasets and token streams as tensors whose first dimension counts the rows.

    x, y = gv.data.load("digits.parquet", "pixels", "label")
    task = gv.capture(model, loss_fn, optimizer, (x, y), ...)

.npy and .safetensors files, Arrow files and Hugging Face datasets are mapped, not read: what the task's bundle keeps
is hashed and copied from there piece by piece. Nothing is unpickled.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, default_collate

from gensyn_verify.errors import CaptureError

Columns = dict[str, Tensor]
ITEMS = 1024  # of a dataset that are collated at once


def load(source: Any, *names: str) -> Any:
    """The columns `names` of `source` as a tuple of tensors; without names, all there is.

    `source` is a path to .npy (one unnamed array), .npz, .safetensors, .parquet, .arrow or .feather; a pyarrow Table;
    a Hugging Face Dataset; or a map-style torch Dataset, whose items are read once and collated. Without names a
    named source gives a dict, an unnamed one what its items are made of. Lists must be of one length; text and images
    have to become numbers first. Raises CaptureError for what cannot become tensors.
    """
    if isinstance(source, str | os.PathLike):
        found = _file(Path(source))
    elif isinstance(source, Dataset):
        found = _torch_dataset(source)
    elif _module(source) == "datasets":
        found = _hugging_face(source)
    elif _module(source) == "pyarrow":
        found = _table(source)
    else:
        raise CaptureError(f"{type(source).__name__} is no path and no dataset that data.load knows")
    if not names:
        return found
    if not isinstance(found, Mapping):
        raise CaptureError(f"{source!r} has no named columns, so none is called {names[0]!r}")
    if missing := [n for n in names if n not in found]:
        raise CaptureError(f"there is no column {missing[0]!r}; the columns are {', '.join(found)}")
    return tuple(found[n] for n in names)


def windows(tokens: Any, length: int, stride: int | None = None) -> Tensor:
    """Rows of `length` consecutive tokens, int32 [rows, length], one every `stride` tokens (default: `length`).

    `tokens` is one-dimensional: a tensor, an array (a memory map of uint16, say) or the path of an .npy file. What is
    left over at the end is left out. A language model takes row[:-1] for its input and row[1:] for its target.
    """
    stream = load(tokens) if isinstance(tokens, str | os.PathLike) else tokens
    array = np.asarray(stream)
    stride = length if stride is None else stride
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) < length or length < 1 or stride < 1:
        raise CaptureError(
            f"windows of {length} every {stride} need a one-dimensional integer array that is as long, found "
            f"{array.dtype} of shape {list(array.shape)}"
        )
    rows = np.lib.stride_tricks.sliding_window_view(array, length)[::stride]
    return tensor(rows.astype(np.int32) if array.dtype != np.int32 else rows, "tokens")


def tensors(data: Any) -> Any:
    """What `capture` is given as a nest of tensors: datasets and paths are loaded, arrays wrapped."""
    if isinstance(data, str | os.PathLike | Dataset) or _module(data) in ("datasets", "pyarrow"):
        data = load(data)
    data = list(data) if isinstance(data, tuple | list) else data
    return pytree.tree_map(lambda x: x if isinstance(x, Tensor) else tensor(x, "data"), data)


def tensor(array: Any, what: str) -> Tensor:
    """An array as a tensor on the same memory; unsigned integers that torch computes with badly become int32."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype == np.longdouble:
        raise CaptureError(f"{what}: {array.dtype} is no number that a program holds; encode it first")
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    elif array.dtype in (np.int8, np.int16, np.uint16):
        array = array.astype(np.int32)
    elif array.dtype in (np.uint32, np.uint64):
        if array.size and array.max() > np.iinfo(np.int32).max:
            raise CaptureError(f"{what}: {array.dtype} with values beyond int32, found {array.max()}")
        array = array.astype(np.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # capture only reads
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _module(x: object) -> str:
    return type(x).__module__.partition(".")[0]


# ---- files ------------------------------------------------------------------------------------------------------


def _file(path: Path) -> Any:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise CaptureError(f"{path}: data.load reads {', '.join(READERS)}")
    try:
        return reader(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise CaptureError(f"{path}: {error}") from error


def _npy(path: Path) -> Tensor:
    return tensor(np.load(path, mmap_mode="r", allow_pickle=False), str(path))


def _npz(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: tensor(arrays[name], f"{path}: {name}") for name in arrays.files}


def _safetensors(path: Path) -> Columns:
    safetensors = _optional("safetensors", "safetensors.torch")
    try:
        return dict(safetensors.torch.load_file(path))
    except safetensors.SafetensorError as error:
        raise ValueError(error) from error


def _parquet(path: Path) -> Columns:
    return _table(_optional("pyarrow", "pyarrow.parquet").parquet.read_table(path, memory_map=True))


def _arrow(path: Path) -> Columns:
    pyarrow = _optional("pyarrow", "pyarrow.ipc")
    source = pyarrow.memory_map(str(path))
    try:
        return _table(pyarrow.ipc.open_file(source).read_all())
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return _table(pyarrow.ipc.open_stream(source).read_all())


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}


def _optional(package: str, module: str) -> Any:
    import importlib

    try:
        importlib.import_module(module)
    except ImportError as error:
        raise CaptureError(f"reading this needs the package {package}: pip install {package}") from error
    return importlib.import_module(package)


# ---- Arrow ------------------------------------------------------------------------------------------------------


def _table(table: Any) -> Columns:
    return {name: _column(table.column(name), name) for name in table.column_names}


def _column(column: Any, name: str) -> Tensor:
    """A column of numbers, or of lists of one length (of lists ...); the memory of a single chunk is used in place."""
    types = _optional("pyarrow", "pyarrow.types").types
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    shape = [len(array)]
    while True:
        if array.null_count:
            raise CaptureError(f"column {name!r} has {array.null_count} missing values")
        if types.is_fixed_size_list(array.type):
            shape.append(array.type.list_size)
        elif types.is_list(array.type) or types.is_large_list(array.type):
            shape.append(_one_length(array, name))
        else:
            break
        array = array.flatten()
    if not (types.is_integer(array.type) or types.is_floating(array.type) or types.is_boolean(array.type)):
        raise CaptureError(f"column {name!r} is of {column.type}, not of numbers; encode it first")
    flat = array.to_numpy(zero_copy_only=False)
    return tensor(flat.reshape(shape), f"column {name!r}")


def _one_length(array: Any, name: str) -> int:
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    if len(lengths) and (lengths != lengths[0]).any():
        raise CaptureError(
            f"column {name!r} has lists of {lengths.min()} to {lengths.max()} values; pad them, or join them to one "
            "stream of tokens for data.windows"
        )
    return int(lengths[0]) if len(lengths) else 0


# ---- datasets ---------------------------------------------------------------------------------------------------


def _hugging_face(dataset: Any) -> Columns:
    if not hasattr(dataset, "data") or not hasattr(dataset, "flatten_indices"):
        raise CaptureError(f"a {type(dataset).__name__} is not one table of rows; choose one split of it, as a Dataset")
    if dataset._indices is not None:  # shuffled or selected: only then are the rows of the table in another order
        dataset = dataset.flatten_indices()
    return _table(dataset.data.table)


def _torch_dataset(dataset: Any) -> Any:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise CaptureError(
            f"{type(dataset).__name__} has no rows that a committed order could pick; train in a loop of your own "
            "with gv.compile and gv.record, which commit batches as they come"
        )
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors)
    if isinstance(dataset, Subset) and isinstance(dataset.dataset, TensorDataset):
        return [t[torch.as_tensor(dataset.indices)] for t in dataset.dataset.tensors]
    parts = []
    for start in range(0, len(dataset), ITEMS):
        items = [dataset[i] for i in range(start, min(start + ITEMS, len(dataset)))]
        try:
            parts.append(default_collate(items))
        except (TypeError, RuntimeError) as error:
            raise CaptureError(f"the items of {type(dataset).__name__} do not stack: {error}") from error
    if not parts:
        raise CaptureError(f"{type(dataset).__name__} is empty")
    return pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)


__all__ = ["load", "tensors", "windows"]

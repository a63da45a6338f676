"""Tensors stored by content: one safetensors file a tensor, named by root, dtype and shape.

    tensors/<root>-<dtype>-<d0xd1x...>.safetensors        (a scalar has "scalar" for its shape)

A tensor that did not change has the root it had, so it is stored once. The file has exactly one spelling: 8 bytes
length, little endian; the header {"tensor":{"dtype":..,"shape":..,"data_offsets":[0,n]}} without whitespace, padded
with spaces to a multiple of 8; the data to the end of the file. Any safetensors library reads it. Reading compares
the header byte for byte with the one that dtype and shape give, so no header is ever parsed, and size, header and root
are checked in this order, before allocation, before reading and after. dtype and shape are in the name because the
root is of the bytes alone, and zeros look alike in every shape.
"""

from __future__ import annotations

import json
import mmap
from typing import BinaryIO

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.commit import tensor_root
from gensyn_verify.errors import BundleError
from gensyn_verify.program.types import Dtype, TensorType
from gensyn_verify.protocol.folder import Folder, LocalFolder, MissingDataError

FOLDER = "tensors"
MAPPED = 1 << 28  # bytes from which a tensor that asks for it stays on the disk
_SAFETENSORS = {
    Dtype.f32: "F32", Dtype.bf16: "BF16", Dtype.f16: "F16", Dtype.i32: "I32", Dtype.u32: "U32", Dtype.u8: "U8",
    Dtype.boolean: "BOOL", Dtype.i8: "I8",
}  # fmt: skip


class ContentMismatchError(BundleError):
    """A well-formed tensor file whose data do not have the root that names it."""

    def __init__(self, message: str, found: bytes) -> None:
        super().__init__(message)
        self.found = found


def header(type: TensorType) -> bytes:
    """The first bytes of a tensor file: length and header."""
    fields = {"dtype": _SAFETENSORS[type.dtype], "shape": list(type.shape), "data_offsets": [0, type.nbytes]}
    text = json.dumps({"tensor": fields}, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def file_name(root: bytes, type: TensorType) -> str:
    shape = "x".join(map(str, type.shape)) or "scalar"
    return f"{FOLDER}/{root.hex()}-{type.dtype.name}-{shape}.safetensors"


class TensorStore:
    """The tensors of one bundle."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._present: set[str] = set()

    def put(self, array: Array, type: TensorType, root: bytes) -> None:
        """Store a carrier array of this type and root, unless it is there; `sync` puts it on the disk for good.

        A file that an earlier process left is read and compared: a power cut may have spoilt what was not synced.
        """
        name = file_name(root, type)
        if name not in self._present:
            if not self._holds(type, root):
                self.folder.write(name, [header(type), _bytes(np.ascontiguousarray(array))], durable=False)
            self._present.add(name)

    def _holds(self, type: TensorType, root: bytes) -> bool:
        try:
            self.get(type, root, "tensor")
        except BundleError:
            return False
        return True

    def maps(self, type: TensorType) -> bool:
        """Whether `get` leaves a tensor of this type on the disk when asked to."""
        return type.nbytes >= MAPPED and isinstance(self.folder, LocalFolder)

    def get(self, type: TensorType, root: bytes, what: str, mapped: bool = False) -> Array:
        """The tensor; `what` names it in errors. Raises MissingDataError, BundleError, or ContentMismatchError.

        A `mapped` one, where `maps` says so, is a read-only memory map of the file, checked like any other; whoever can
        write into the folder while it is used can change it.
        """
        name, start = file_name(root, type), header(type)
        where = f"{self.folder.url}: {what} ({name})"
        try:
            with self.folder.open(name) as (file, size):
                if size != len(start) + type.nbytes:
                    raise BundleError(f"{where}: {len(start) + type.nbytes} bytes expected for {type}, {size} found")
                found = file.read(len(start))
                if found != start:
                    raise BundleError(f"{where}: header {found[8:60]!r}... expected {start[8:].rstrip()!r}")
                if mapped and self.maps(type):
                    memory = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                    array: Array = np.frombuffer(memory, CARRIER[type.dtype], offset=len(start)).reshape(type.shape)
                else:
                    array = np.empty(type.shape, CARRIER[type.dtype])
                    if _fill(file, array) != type.nbytes:
                        raise BundleError(f"{where}: the data end early")
        except MissingDataError:
            raise MissingDataError(f"{where} is missing: copy the bundle again, or ask its owner for it") from None
        if type.dtype is Dtype.boolean and (array.view(np.uint8) > 1).any():
            raise BundleError(f"{where}: a boolean is stored as 0 or 1, found {int(array.view(np.uint8).max())}")
        actual = tensor_root(array)
        if actual != root:
            raise ContentMismatchError(f"{where}: content has root {actual.hex()}, expected {root.hex()}", actual)
        return array

    def sync(self) -> None:
        self.folder.sync(FOLDER)


def _bytes(array: Array) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _fill(file: BinaryIO, array: Array) -> int:
    """Read into the array's memory until it is full or the file ends."""
    view = _bytes(array)
    done = 0
    while done < len(view) and (n := file.readinto(view[done : done + (1 << 30)])):  # type: ignore[attr-defined]
        done += n
    return done

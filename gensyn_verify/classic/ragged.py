"""Batches that differ in shape and form from step to step, in one type: u8[capacity].

    u32 leaves | leaves x (name | type | bytes of the tensor) | zeros

Names ascend; names and types are as in programs, integers big endian. The types of a program are fixed, so the
longest batch says how long all are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gensyn_verify.backends.arrays import CARRIER, Array
from gensyn_verify.classic.values import carried
from gensyn_verify.errors import CaptureError
from gensyn_verify.program import Dtype
from gensyn_verify.program.encoding import Reader, Writer
from gensyn_verify.program.program import MAX_NODES

NAME = "ragged"


def pack(arrays: Mapping[str, Array], capacity: int) -> dict[str, Array]:
    """The leaves of a batch as one input; CaptureError where they take more than `capacity` bytes."""
    w = Writer()
    w.u(4, len(arrays))
    for name in sorted(arrays):
        w.text(name)
        w.type(carried(arrays[name]))
        w.out += arrays[name].tobytes()
    if len(w.out) > capacity:
        raise CaptureError(f"the batch takes {len(w.out)} bytes, and ragged={capacity} was said to hold every one")
    return {NAME: np.frombuffer(bytes(w.out) + bytes(capacity - len(w.out)), np.uint8)}


def unpack(packed: Array) -> dict[str, Array]:
    """The leaves by name; MalformedError for what `pack` does not give."""
    r = Reader(packed.tobytes(), f"batch {NAME!r}")
    arrays: dict[str, Array] = {}
    last = ""
    for _ in range(r.count(4, MAX_NODES)):
        name, type = r.text(), r.type()
        type.check()
        if name <= last:
            raise r.fail(f"{name!r} is behind {last!r}; names ascend")
        last = name
        octets = r.take(type.nbytes)
        if type.dtype is Dtype.boolean and octets.strip(b"\x00\x01"):
            raise r.fail(f"a boolean of {name!r} is neither 0 nor 1")
        arrays[name] = np.frombuffer(octets, CARRIER[type.dtype]).reshape(type.shape)
    if r.data[r.at :].strip(b"\x00"):
        raise r.fail("something is behind the batch")
    return arrays

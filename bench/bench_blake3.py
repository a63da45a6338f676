"""BLAKE3 beside the blake3 package (Rust and assembly) and hashlib.

    pytest bench/bench_blake3.py --benchmark-only          1 MiB and more, one and two threads
    python bench/bench_blake3.py [--threads 1 2] [--isa NAME]      a table from 4 KiB to 64 MiB

Before the times: root and tree equal the package's hash on every instruction set. "tree kept" is ours with all chaining
values. With several threads the package runs twice: in a pool of its own, made for the call (max_threads=n), and in its
process-wide pool of one thread a core (auto). hashlib knows one thread only.
"""

from __future__ import annotations

import hashlib

import blake3
import common
import numpy as np
import pytest
from common import OURS, Call, Row

from gensyn_verify import _native

KIB, MIB = 1 << 10, 1 << 20
SIZES = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB]
LARGE = [size for size in SIZES if size >= MIB]


def check(data: memoryview) -> None:
    wanted = blake3.blake3(data).digest()
    best = _native.isa()
    try:
        for isa in _native.supported_isas():
            _native.use_isa(isa)
            assert _native.blake3_root(data) == wanted, f"root of {len(data)} bytes on {isa}"
            assert _native.blake3_tree(data)[-32:] == wanted, f"tree of {len(data)} bytes on {isa}"
    finally:
        _native.use_isa(best)


def engines(size: int, n_threads: int) -> dict[str, Call]:
    data = memoryview(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    check(data)
    calls: dict[str, Call] = {
        OURS: lambda: _native.blake3_root(data),
        "blake3": lambda: blake3.blake3(data, max_threads=n_threads).digest(),
    }
    if n_threads > 1:
        calls["blake3 auto"] = lambda: blake3.blake3(data, max_threads=blake3.blake3.AUTO).digest()
    calls["sha256"] = lambda: hashlib.sha256(data).digest()
    calls["blake2b"] = lambda: hashlib.blake2b(data, digest_size=32).digest()
    return calls


def measure(size: int, n_threads: int) -> tuple[Row, Row, Call]:
    """The root, and the root with its tree beside the root alone."""
    calls = engines(size, n_threads)
    name = f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
    data = memoryview(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    root = common.compare(f"blake3 {name}", calls, n_threads, work=size, unit="GB/s", budget=0.8)
    peers = {e: call for e, call in calls.items() if e.startswith("blake3")}
    with_tree = {OURS: lambda: _native.blake3_tree(data), **peers}
    tree = common.compare(f"blake3 {name}, tree kept", with_tree, n_threads, work=size, unit="GB/s", budget=0.5)
    return root, tree, calls[OURS]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("size", LARGE, ids=lambda s: f"{s // MIB}MiB")
def test_root(benchmark, capsys, size: int, n_threads: int) -> None:  # type: ignore[no-untyped-def]
    root, tree, ours = measure(size, n_threads)
    common.benchmarked(benchmark, capsys, root, ours, f"{root}\n{tree}", tree_ratios=tree.ratios)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--isa", choices=_native.supported_isas(), help="ours on this instruction set")
    arguments = parser.parse_args()
    if arguments.isa:
        _native.use_isa(arguments.isa)
    common.tables(arguments, {"blake3": SIZES}, lambda size, n: "{}\n{}".format(*measure(size, n)[:2]))


if __name__ == "__main__":
    main()

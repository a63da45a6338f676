"""What computes which kind of node on which device: one table. `gverify doctor` shows what is not there.

An entry names the kernels; "cpu" in it says when the CPU takes over. docs/devices.md says how each entry was checked.
"""

from __future__ import annotations

from gensyn_verify.backends.names import DeviceName

FLUSHED = "where a subnormal may have been flushed"
TABLE: dict[str, dict[str, str]] = {
    "map": {"cuda": "PTX from the scalar program", "triton": "Triton from the scalar program",
            "metal": f"Metal from the scalar program; cpu {FLUSHED}"},
    "dot": {"cuda": "gv_dot_*, of i8 gv_dot_int8_*", "triton": "triton_dot, of i8 on matrix units",
            "metal": f"gv_dot, of i8 gv_dot_int8; cpu {FLUSHED}"},
    "reduce": {"cuda": "gv_sum_*, gv_extreme", "triton": "triton_reduce", "metal": f"gv_reduce; cpu {FLUSHED}"},
    "layout": {"cuda": "gv_copy, gv_transpose, gv_fill", "triton": "triton_copy", "metal": "gv_copy, gv_fill"},
    "gather": {"cuda": "gv_gather", "triton": "triton_gather", "metal": "gv_gather"},
    "scatter_add": {"cuda": "gv_sort_*, gv_scatter_add", "triton": "triton_gather",
                    "metal": f"gv_scatter_add; cpu {FLUSHED}"},
    "random": {"cuda": "gv_random", "triton": "triton_random", "metal": "gv_random"},
    "sort": {"cuda": "gv_sort_*", "triton": "triton_sort", "metal": "gv_sort"},
    "scan": {"cuda": "PTX from the scalar program", "triton": "Triton from the scalar program",
             "metal": f"Metal from the scalar program; cpu {FLUSHED}"},
    "state roots": {"cuda": "gv_blake3_*", "triton": "triton_blake3", "metal": "gv_blake3_*"},
}  # fmt: skip
DEVICES = ("cuda", "triton", "metal")


def elsewhere(device: str) -> dict[str, list[str]]:
    """When the CPU computes for a device, and what."""
    found: dict[str, list[str]] = {}
    for kind, row in TABLE.items():
        if "cpu " in row[device]:
            found.setdefault(row[device].split("cpu ")[1], []).append(kind)
    return found


def describe(name: DeviceName) -> dict[str, str]:
    """What doctor says of a device: whether it is here, else why not, and what runs elsewhere. Never raises."""
    from gensyn_verify.backends import device_package

    try:
        found: dict[str, str] = device_package(name).describe(name.number)
    except Exception as error:  # a missing package, driver or device: each is an answer
        found = {"device": f"none: {error}"}
    moved = "; ".join(f"{when}: {', '.join(kinds)}" for when, kinds in elsewhere(name.kind).items())
    return {**found, "runs on the cpu": moved or "nothing"}


def is_there(found: dict[str, str]) -> bool:
    return not found["device"].startswith("none")

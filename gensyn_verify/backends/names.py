"""Names of backends: "cpu", "reference", "cuda[:N]", "triton[:N]", "metal", "vendor[:DEVICE[:PRECISION]]".

Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gensyn_verify.errors import BackendError

DEVICES = ("cpu", "cuda", "cuda:N", "mps")
PRECISIONS = ("fp32", "tf32", "bf16")
_DEVICE = re.compile(r"(?P<kind>cuda|triton)(?::(?P<number>[0-9]{1,3}))?|metal")
_VENDOR = re.compile(r"vendor(?::(?P<device>cpu|cuda|cuda:[0-9]{1,3}|mps)(?::(?P<precision>[a-z0-9]+))?)?")


@dataclass(frozen=True)
class VendorName:
    """The vendor backend on a device, as torch names it, with products in a precision (`PRECISIONS`)."""

    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True)
class DeviceName:
    """A backend of devices, "cuda", "triton" or "metal", with the bits of every other; `number` counts from 0, and
    None is the device that torch uses, else the first.
    """

    kind: str
    number: int | None = None


def of_device(device: str) -> str:
    """The backend that `--device` means: cpu, cuda[:N], triton[:N] or mps; BackendError names what is known."""
    name = "metal" if device == "mps" else device
    if name != "cpu" and (device == "metal" or _DEVICE.fullmatch(name) is None):
        raise BackendError(f"device {device!r} is unknown; known are cpu, cuda, cuda:N, triton, triton:N, mps")
    return name


def parse(name: str) -> str | DeviceName | VendorName:
    """ "cpu", "reference", a DeviceName or a VendorName; BackendError names what is known."""
    if name in ("cpu", "reference"):
        return name
    if on_device := _DEVICE.fullmatch(name):
        return DeviceName(on_device["kind"] or "metal", int(on_device["number"]) if on_device["number"] else None)
    if name.partition(":")[0] != "vendor":
        raise BackendError(
            f"backend {name!r} is unknown; known are cpu, reference, cuda, cuda:N, triton, triton:N, metal, vendor and "
            f"vendor:DEVICE:PRECISION, DEVICE {', '.join(DEVICES)}, PRECISION {', '.join(PRECISIONS)}"
        )
    match = _VENDOR.fullmatch(name)
    if match is None:
        raise BackendError(
            f"backend {name!r}: expected vendor:DEVICE or vendor:DEVICE:PRECISION, DEVICE one of {', '.join(DEVICES)}"
        )
    device, precision = match["device"] or "cpu", match["precision"] or "fp32"
    if precision not in PRECISIONS:
        raise BackendError(f"backend {name!r}: precision {precision!r} is unknown; known are {', '.join(PRECISIONS)}")
    if precision == "tf32" and not device.startswith("cuda"):
        raise BackendError(f"backend {name!r}: tf32 exists only on cuda; use fp32 or bf16 on {device}")
    return VendorName(device, precision)

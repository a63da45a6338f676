"""Show what this machine supports and check that its kernels give the published bits.

Exit code 0 if every check passes, 1 if one does not.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from gensyn_verify.cli.console import Console

if TYPE_CHECKING:
    from gensyn_verify.cli.selftest import Check

SUMMARY = "show what this machine supports and check its kernels"
PACKAGES = ("gensyn_verify", "numpy", "torch", "triton", "scikit-learn", "eth-keys", "safetensors", "fsspec")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-torch", action="store_true", help="leave out the check of capture, which imports torch")


def run(args: argparse.Namespace, console: Console) -> int:
    from gensyn_verify.backends.device import selection
    from gensyn_verify.backends.names import DeviceName
    from gensyn_verify.cli import selftest

    machine = {"versions": versions(), "machine": describe_machine(), "environment": overrides()}
    for title, rows in machine.items():
        console.say(f"{title}:")
        console.table(list(rows.items()) or [("none", "no GENSYN_VERIFY_* variable is set")])
    devices = {kind: selection.describe(DeviceName(kind)) for kind in selection.DEVICES}
    for kind, rows in devices.items():
        console.say(f"{kind}:")
        console.table(list(rows.items()))
    console.say("self-test:")
    found = []
    with console.progress("self-test", 0, unit="check") as advance:
        for check in selftest.checks():
            found.append(check)
            advance(len(found))
        for kind, rows in devices.items():
            if selection.is_there(rows):
                found.append(selftest.check_device(kind))
                advance(len(found))
    if not args.no_torch and machine["versions"]["torch"] != "not installed":
        found.append(capture_check())
    width = max(len(c.name) for c in found)
    for c in found:
        console.say(f"  {c.name:{width}}  {'ok' if c.ok else 'FAILED: ' + c.detail}")
    failed = [c.name for c in found if not c.ok]
    verdict = "unfit" if failed else "fit"
    console.say()
    console.say(
        f"verdict: {verdict}: {len(failed)} of {len(found)} checks failed"
        if failed
        else f"verdict: {verdict}: all {len(found)} checks gave the published bits"
    )
    console.result({**machine, "devices": devices, "checks": found, "verdict": verdict})
    return 1 if failed else 0


def capture_check() -> Check:
    """Whether one training step of this torch becomes a program and runs."""
    import numpy as np
    import torch

    from gensyn_verify.cli.selftest import Check
    from gensyn_verify.frontend import compile

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()
    try:
        step = compile(model, torch.nn.MSELoss(), optimizer)
        loss = float(step((torch.ones(4, 3), torch.zeros(4, 2))))
    except Exception as error:
        return Check("capture with torch", False, f"{type(error).__name__}: {error}")
    moved = not torch.equal(before, model.weight)
    return Check("capture with torch", bool(np.isfinite(loss)) and moved, f"loss {loss}, weights moved: {moved}")


def versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = "not installed"
    return out


def describe_machine() -> dict[str, Any]:
    """The CPU, and what the native kernels make of it."""
    from gensyn_verify import _native
    from gensyn_verify.backends import cpu  # noqa: F401  (applies GENSYN_VERIFY_ISA)
    from gensyn_verify.protocol.limits import machine_memory

    registers = _native.worker_control_registers()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "memory": f"{machine_memory() / 2**30:.1f} GiB",
        "instruction sets built": " ".join(_native.built_isas()),
        "instruction sets supported": " ".join(_native.supported_isas()),
        "instruction set in force": _native.isa(),
        "threads": f"{_native.get_threads()} of {os.cpu_count()} processors",
        "control register, this thread": f"{_native.raw_control_register():#x}",
        "control registers, workers": " ".join(
            "ok" if r == 0 else f"{r:#x} (bits that change results)" for r in registers
        ),
    }


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def overrides() -> dict[str, str]:
    """Variables that change how the engine runs (never what it computes)."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith("GENSYN_VERIFY_")}

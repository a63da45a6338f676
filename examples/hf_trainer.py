"""The Hugging Face Trainer: another class makes `train()` a run that anyone can check.

pip install gensyn_verify[transformers]
python examples/hf_trainer.py --steps 40
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

import gensyn_verify as gv
from gensyn_verify.integrations.transformers import EngineTrainer


def rows(count: int) -> list[dict[str, Any]]:
    """Sequences of 16 numbers below 50; the label is which fifth of them the first is of."""
    numbers = torch.randint(1, 50, (count, 16), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": n, "labels": int(n[0]) // 10} for n in numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=5
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = EngineTrainer(
            BertForSequenceClassification(config),
            TrainingArguments(
                f"{folder}/out", use_cpu=True, max_steps=args.steps, per_device_train_batch_size=16,
                learning_rate=2e-3, logging_steps=10, report_to=[], disable_tqdm=True, dataloader_drop_last=True,
            ),
            train_dataset=rows(800),
            eval_dataset=rows(80),
            record=Path(folder) / "run",
            record_options={"interval": 20},
        )  # fmt: skip
        trainer.train()
        print(trainer.evaluate())
        report = gv.replay(Path(folder) / "run")
        print(report)
        assert report.verdict is gv.Verdict.VERIFIED


if __name__ == "__main__":
    main()

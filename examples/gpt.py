"""A small GPT on real text: rotary positions, dropout, tied embeddings, AdamW.

    python examples/gpt.py --steps 60

Dropout draws from the task's committed seed, so a replay drops the same elements.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gensyn_verify as gv


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind()
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, dropout_p=dropout, is_causal=True
        )
        return self.out(x.transpose(1, 2).reshape(n, t, width))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x[i], x[i + half]) turned by the angle of its position and frequency."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), cos, sin))
        return x + self.drop(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Tokens [N, T] to scores of the next ones [N, T, words]; the embedding is also the output layer."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self, words: int, context: int, width: int = 64, layers: int = 4, heads: int = 4, dropout: float = 0.1
    ):
        super().__init__()
        self.words = nn.Embedding(words, width)
        nn.init.normal_(self.words.weight, std=0.05)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight
        frequency = 10000.0 ** (-torch.arange(width // heads // 2) / (width // heads // 2))
        angles = torch.arange(context)[:, None] * frequency
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.words(tokens))
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


def loss_fn(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten())


def text() -> str:
    """What scikit-learn says of its data sets: some 40 kB of English."""
    folder = resources.files("sklearn.datasets.descr")
    return "\n".join(
        f.read_text("utf-8") for f in sorted(folder.iterdir(), key=lambda f: f.name) if f.name.endswith("rst")
    )


def windows(context: int) -> tuple[Tensor, Tensor]:
    """The text as bytes, cut into rows: tokens [N, context] and the ones that follow them."""
    tokens = torch.tensor(list(text().encode("ascii", "replace")))
    rows = tokens[: len(tokens) // (context + 1) * (context + 1)].reshape(-1, context + 1)
    return rows[:, :-1], rows[:, 1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=64)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = GPT(words=128, context=args.context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    with tempfile.TemporaryDirectory() as folder:
        task = gv.capture(
            model,
            loss_fn,
            optimizer,
            windows(args.context),
            steps=args.steps,
            batch_size=args.batch_size,
            interval=10,
            lr=lambda step: 3e-3 * min(1.0, step / 10),
            path=Path(folder) / "task",
        )
        run = gv.solve(task, Path(folder) / "run", progress=lambda n, _, m: print(f"step {n}: loss {m['loss']:.4f}"))
        report = gv.replay(run, task=task, samples=2)
        print(report)
        assert report.verdict is gv.Verdict.VERIFIED


if __name__ == "__main__":
    main()

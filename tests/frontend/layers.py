"""Cases of whole layers: convolution, pooling, normalization, attention, recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tests.frontend.operations import Case, Shape, SumCase

LINE, IMAGE, VOLUME = (3, 4, 11), (3, 4, 9, 8), (2, 3, 6, 7, 5)
HEADS = (2, 4, 7, 8)


def _conv(*args: Any, **kwargs: Any) -> Callable[..., Tensor]:
    return lambda x, w, *b: F.conv2d(x, w, *b, *args, **kwargs)


def _attention(**options: Any) -> Callable[..., Tensor]:
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(q, k, v, *mask, **options)


def _layer(module: nn.Module, *shapes: Shape, **options: Any) -> Case:
    """A module of inputs of `shapes` and of all its parameters."""
    names = [name for name, _ in module.named_parameters()]

    def f(*tensors: Tensor) -> Any:
        weights = dict(zip(names, tensors[len(shapes) :], strict=True))
        results = functional_call(module, weights, tensors[: len(shapes)], options)
        return [r for r in torch.utils._pytree.tree_leaves(results) if r is not None]

    return Case(f, (*shapes, *(tuple(p.shape) for p in module.parameters())), draw=lambda x: x * 0.5)


def _rotated(angles: Tensor, q: Tensor) -> Tensor:
    """Rotary positions as halves."""
    low, high = q.chunk(2, -1)
    wide = torch.cat([angles, angles], -1)
    return q * wide.cos() + torch.cat([-high, low], -1) * wide.sin()


def _rotated_pairs(angles: Tensor, q: Tensor) -> Tensor:
    """Rotary positions as neighbours."""
    even, odd = q[..., ::2], q[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def _rope(rotate: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    frequencies = 10000 ** (-torch.arange(0, HEADS[-1], 2) / HEADS[-1])
    return lambda q: rotate(torch.outer(torch.arange(q.shape[-2]).float(), frequencies), q)


CASES: dict[str, Case] = {
    # ---- convolution
    "conv2d": SumCase(_conv(), (IMAGE, (6, 4, 3, 3), (6,))),
    "conv2d padded": SumCase(_conv(padding=2), (IMAGE, (6, 4, 3, 2))),
    "conv2d strided": SumCase(_conv(stride=(2, 3), padding=(1, 0)), (IMAGE, (6, 4, 3, 3))),
    "conv2d dilated": SumCase(_conv(dilation=2, padding=1), (IMAGE, (6, 4, 3, 3))),
    "conv2d grouped": SumCase(_conv(groups=2, stride=2, padding=1), (IMAGE, (6, 2, 3, 3), (6,))),
    "conv2d depthwise": SumCase(_conv(groups=4, padding=1), (IMAGE, (4, 1, 3, 3))),
    "conv2d 1x1 strided": SumCase(_conv(stride=2), (IMAGE, (6, 4, 1, 1))),
    "conv2d padding beyond kernel": SumCase(_conv(padding=3, stride=2), (IMAGE, (6, 4, 2, 2))),
    "conv1d": SumCase(lambda x, w: F.conv1d(x, w, stride=2, padding=1), ((3, 4, 11), (5, 4, 3))),
    "conv_transpose2d": SumCase(
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2),
        (IMAGE, (4, 3, 3, 3), (6,)),
    ),
    # ---- padding
    "pad, circular": Case(lambda x: F.pad(x, (2, 1, 0, 3), mode="circular"), (IMAGE,)),
    # ---- pooling
    "max_pool2d": Case(lambda x: F.max_pool2d(x, 2), (IMAGE,)),
    "max_pool2d overlapping": Case(lambda x: F.max_pool2d(x, 3, 2, 1), (IMAGE,)),
    "max_pool2d dilated, ceil": Case(lambda x: F.max_pool2d(x, 2, 3, 0, 2, ceil_mode=True), (IMAGE,)),
    "max_pool2d uneven": Case(lambda x: F.max_pool2d(x, (4, 3), padding=(1, 1), ceil_mode=True), (IMAGE,)),
    "max_pool2d indices": Case(
        lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True), (IMAGE,), draw=lambda x: (4 * x).round()
    ),
    "avg_pool2d": Case(lambda x: F.avg_pool2d(x, 2), (IMAGE,)),
    "avg_pool2d overlapping": Case(lambda x: F.avg_pool2d(x, 3, 2, 1), (IMAGE,)),
    "avg_pool2d without padding in the count": Case(
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (IMAGE,)
    ),
    "avg_pool2d ceil": Case(lambda x: F.avg_pool2d(x, 3, 3, 1, ceil_mode=True), (IMAGE,)),
    "avg_pool2d divisor": Case(lambda x: F.avg_pool2d(x, 3, divisor_override=2), (IMAGE,)),
    "adaptive_avg_pool2d": Case(lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (IMAGE,)),
    "adaptive_avg_pool2d to one": Case(lambda x: F.adaptive_avg_pool2d(x, 1), (IMAGE,)),
    # ---- normalization
    "batch_norm": Case(
        lambda x, w, b, m, v: F.batch_norm(x, m.detach() * 1, v.detach().square(), w, b, training=True),
        (IMAGE, (4,), (4,), (4,), (4,)),
    ),
    "batch_norm in evaluation": Case(
        lambda x, w, b, m, v: F.batch_norm(x, m.detach(), v.detach().square() + 1, w, b),
        (IMAGE, (4,), (4,), (4,), (4,)),
    ),
    "batch_norm without running statistics": Case(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), ((9, 4), (4,), (4,))
    ),
    "instance_norm": Case(lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (IMAGE, (4,), (4,))),
    "instance_norm with running statistics": Case(
        lambda x, m, v: F.instance_norm(x, m.detach() * 1, v.detach().square()), (LINE, (4,), (4,))
    ),
    "group_norm": Case(lambda x, w, b: F.group_norm(x, 2, w, b), (IMAGE, (4,), (4,))),
    "group_norm of vectors": Case(lambda x: F.group_norm(x, 3, eps=0.1), ((5, 12),)),
    "layer_norm": Case(lambda x, w, b: F.layer_norm(x, (8, 7), w, b), ((9, 8, 7), (8, 7), (8, 7))),
    "layer_norm without weights": Case(lambda x: F.layer_norm(x, (7,)), ((9, 8, 7),)),
    "rms_norm": Case(lambda x, w: F.rms_norm(x, (7,), w) + F.rms_norm(x, (8, 7), eps=0.1), ((9, 8, 7), (7,))),
    "weight_norm": SumCase(
        lambda x, g, v: F.linear(x, torch._weight_norm(v, g, 0)), ((3, 4), (5, 1), (5, 4)), draw=lambda x: x
    ),
    # ---- attention
    "attention": Case(_attention(), (HEADS,) * 3),
    "attention, causal": Case(_attention(is_causal=True, scale=0.3), (HEADS,) * 3),
    "attention with a mask": Case(
        lambda q, k, v, m: _attention()(q, k, v, m & (torch.arange(7) > 0)[:, None]),
        (HEADS,) * 3,
        extra=lambda g: [torch.rand(7, 7, generator=g) < 0.5],
    ),
    "attention with a bias": Case(_attention(), (*(HEADS,) * 3, (2, 1, 7, 7))),
    "attention of grouped queries": Case(_attention(enable_gqa=True), (HEADS, (2, 2, 9, 8), (2, 2, 9, 5))),
    "rotary halves": Case(_rope(_rotated), (HEADS,)),
    "rotary pairs": Case(_rope(_rotated_pairs), (HEADS,)),
    "MultiheadAttention": _layer(nn.MultiheadAttention(8, 2, batch_first=True), *((2, 5, 8),) * 3),
    "MultiheadAttention with masks": _layer(
        nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, kdim=4, vdim=3),
        (5, 2, 8), (6, 2, 4), (6, 2, 3),
        attn_mask=torch.ones(5, 6).triu(2).bool(),
        key_padding_mask=torch.tensor([[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]]).bool(),
        average_attn_weights=False,
    ),
    "TransformerEncoderLayer": _layer(nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0), (5, 3, 16)),
    "TransformerEncoderLayer in evaluation": _layer(
        nn.TransformerEncoderLayer(16, 2, 24, activation="gelu", batch_first=True).eval(), (3, 5, 16)
    ),
    "TransformerDecoderLayer": _layer(
        nn.TransformerDecoderLayer(16, 2, 24, dropout=0.0, norm_first=True), (5, 3, 16), (6, 3, 16), tgt_is_causal=True,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(5),
    ),
    # ---- recurrent layers
    "LSTM": _layer(nn.LSTM(5, 6, num_layers=2, bidirectional=True), (4, 3, 5)),
    "LSTM with projection": _layer(nn.LSTM(5, 6, proj_size=4, batch_first=True), (3, 4, 5)),
    "GRU": _layer(nn.GRU(5, 6, num_layers=2, batch_first=True), (3, 4, 5)),
    "GRU, bidirectional": _layer(nn.GRU(5, 6, bidirectional=True, bias=False), (4, 5)),
    "RNN": _layer(nn.RNN(5, 6, bidirectional=True), (4, 3, 5)),
    "RNN with relu": _layer(nn.RNN(5, 6, nonlinearity="relu"), (4, 3, 5)),
    "LSTMCell": _layer(nn.LSTMCell(5, 6), (3, 5)),
    "GRUCell": _layer(nn.GRUCell(5, 6), (3, 5), (3, 6)),
    "RNNCell": _layer(nn.RNNCell(5, 6), (3, 5), (3, 6)),
}  # fmt: skip

"""Cases of whole layers: convolution, pooling, normalization, attention, recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.frontend.operations import Case, Shape, SumCase

LINE, IMAGE, VOLUME = (3, 4, 11), (3, 4, 9, 8), (2, 3, 6, 7, 5)
HEADS = (2, 4, 7, 8)


def _conv(*args: Any, **kwargs: Any) -> Callable[..., Tensor]:
    return lambda x, w, *b: F.conv2d(x, w, *b, *args, **kwargs)


def _attention(**options: Any) -> Callable[..., Tensor]:
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(q, k, v, *mask, **options)


def _flash(**options: Any) -> Callable[..., Tensor]:
    def f(*tensors: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return _attention(**options)(*tensors)

    return f


def _layer(module: nn.Module, *shapes: Shape, **options: Any) -> Case:
    """A module of inputs of `shapes` and of all its parameters."""
    names = [name for name, _ in module.named_parameters()]

    def f(*tensors: Tensor) -> Any:
        weights = dict(zip(names, tensors[len(shapes) :], strict=True))
        results = functional_call(module, weights, tensors[: len(shapes)], options)
        return [r for r in torch.utils._pytree.tree_leaves(results) if r is not None]

    return Case(f, (*shapes, *(tuple(p.shape) for p in module.parameters())), draw=lambda x: x * 0.5)


def _pad(mode: str, rank: int) -> Case:
    shape = (LINE, IMAGE, VOLUME)[rank - 1]
    return Case(lambda x: F.pad(x, (2, 1, 0, 3, 4, 5)[: 2 * rank], mode=mode), (shape,))


def _interpolations() -> dict[str, Case]:
    """Each mode for each rank, to multiples, to given sizes and by factors."""
    modes: dict[str, tuple[Shape, ...]] = {
        "nearest": (LINE, IMAGE, VOLUME), "nearest-exact": (LINE, IMAGE, VOLUME),
        "linear": (LINE,), "bilinear": (IMAGE,), "trilinear": (VOLUME,), "bicubic": (IMAGE,), "area": (IMAGE,),
    }  # fmt: skip
    sizes: dict[str, dict[str, Any]] = {"twice": {"scale_factor": 2}, "down": {"scale_factor": 0.6}}
    cases = {}

    def add(name: str, shape: Shape, **options: Any) -> None:
        cases[name] = Case(lambda x: F.interpolate(x, **options), (shape,))

    for mode, shapes in modes.items():
        for shape in shapes:
            odd = {"size": [2 * n - 3 for n in shape[2:]]}
            for how, size in (sizes | {"odd": odd}).items():
                add(f"{mode} {len(shape) - 2}d {how}", shape, mode=mode, **size)
        if mode.endswith(("linear", "cubic")):
            add(f"{mode} of corners", shapes[0], mode=mode, align_corners=True, **odd)
    for mode in ("bilinear", "bicubic"):
        add(f"{mode} smoothed", IMAGE, mode=mode, antialias=True, scale_factor=(0.4, 1.7))
    return cases


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
    "conv1d same": SumCase(
        lambda x, w, b: F.conv1d(x, w, b, padding="same", dilation=3), (LINE, (5, 4, 4), (5,))
    ),
    "conv2d without batch": SumCase(_conv(), ((4, 9, 8), (5, 4, 3, 2), (5,))),
    "conv3d": SumCase(
        lambda x, w, b: F.conv3d(x, w, b, padding=1, stride=(1, 2, 1)), ((2, 4, 5, 6, 5), (6, 4, 3, 3, 2), (6,))
    ),
    "conv3d dilated, grouped": SumCase(
        lambda x, w: F.conv3d(x, w, padding=2, dilation=2, groups=2), ((2, 4, 5, 6, 5), (6, 2, 3, 2, 2))
    ),
    "conv_transpose1d": SumCase(
        lambda x, w, b: F.conv_transpose1d(x, w, b, stride=3, padding=1, output_padding=2), (LINE, (4, 5, 3), (5,))
    ),
    "conv_transpose2d dilated": SumCase(
        lambda x, w: F.conv_transpose2d(x, w, padding=2, dilation=2), (IMAGE, (4, 3, 3, 2))
    ),
    "conv_transpose3d": SumCase(
        lambda x, w: F.conv_transpose3d(x, w, stride=2, padding=1, output_padding=1, groups=2),
        ((2, 4, 3, 4, 3), (4, 3, 3, 3, 2)),
    ),
    "unfold": Case(lambda x: F.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=2), (IMAGE,)),
    "fold": Case(lambda x: F.fold(x, (9, 8), (3, 2), padding=(1, 2), stride=(2, 1)), ((2, 18, 55),)),
    # ---- padding
    "pad, circular": Case(lambda x: F.pad(x, (2, 1, 0, 3), mode="circular"), (IMAGE,)),
    **{f"pad{rank}d, {mode}": _pad(mode, rank) for mode in ("reflect", "replicate") for rank in (1, 2, 3)},
    "pad, replicate beyond the length": Case(lambda x: F.pad(x, (9, -1, -2, 20), mode="replicate"), (IMAGE,)),
    # ---- interpolation
    **{f"interpolate {kind}": case for kind, case in _interpolations().items()},
    # ---- sampling
    **{
        f"grid_sample {mode}, {padding}{', aligned' * aligned}": Case(
            lambda x, g, m=mode, p=padding, a=aligned: F.grid_sample(x, g, m, p, a), (IMAGE, (3, 5, 6, 2))
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding, aligned in (("zeros", False), ("border", True), ("reflection", False), ("reflection", True))
    },
    "grid_sample of volumes": Case(
        lambda x, g: F.grid_sample(x, g, align_corners=False), (VOLUME, (2, 3, 4, 5, 3))
    ),
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
    "max_pool1d": Case(lambda x: F.max_pool1d(x, 3, 2, 1, 2, ceil_mode=True, return_indices=True), (LINE,)),
    "max_pool2d without batch": Case(lambda x: F.max_pool2d(x, 2), ((4, 9, 8),)),
    "max_pool3d": Case(lambda x: F.max_pool3d(x, (2, 3, 2)), (VOLUME,)),
    "max_pool3d indices": Case(
        lambda x: F.max_pool3d(x, 2, (2, 3, 1), 1, (1, 2, 1), ceil_mode=True, return_indices=True), (VOLUME,)
    ),
    "avg_pool1d": Case(lambda x: F.avg_pool1d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (LINE,)),
    "avg_pool3d": Case(
        lambda x: F.avg_pool3d(x, (2, 3, 2), (2, 2, 3), (1, 1, 0), ceil_mode=True, count_include_pad=False), (VOLUME,)
    ),
    "avg_pool3d divisor": Case(lambda x: F.avg_pool3d(x, 2, divisor_override=5), (VOLUME,)),
    "lp_pool2d": Case(lambda x: F.lp_pool2d(x, 2, 3, 2), (IMAGE,)),
    "adaptive_avg_pool1d": Case(lambda x: F.adaptive_avg_pool1d(x, 4), (LINE,)),
    "adaptive_avg_pool2d of uneven windows": Case(lambda x: F.adaptive_avg_pool2d(x, (12, 3)), (IMAGE,)),
    "adaptive_avg_pool3d": Case(lambda x: F.adaptive_avg_pool3d(x, (4, 3, None)), (VOLUME,)),
    "adaptive_max_pool1d": Case(lambda x: F.adaptive_max_pool1d(x, 4), (LINE,)),
    "adaptive_max_pool2d": Case(
        lambda x: F.adaptive_max_pool2d(x, (4, 3), return_indices=True), (IMAGE,), draw=lambda x: (4 * x).round()
    ),
    "adaptive_max_pool3d": Case(lambda x: F.adaptive_max_pool3d(x, (3, 3, 2), return_indices=True), (VOLUME,)),
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
    "attention by a kernel": Case(_flash(is_causal=True), ((2, 4, 7, 8), (2, 4, 9, 8), (2, 4, 9, 8))),
    "attention by a kernel with a bias": Case(
        lambda q, k, v, m: _flash(scale=0.3)(q, k, v, m.detach()), (*(HEADS,) * 3, (2, 1, 7, 7))
    ),
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

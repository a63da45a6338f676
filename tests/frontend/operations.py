"""Every operation of the lowering table as a differentiable function.

A case is a function of floating inputs (and of fixed integer or boolean tensors). Its ATen graph holds forward and
backward, so one case exercises several entries of the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from tests.frontend.comparison import graph_of, results_of, with_gradients

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """`f(*inputs, *fixed)`: inputs are float tensors of `shapes` from `draw`, fixed ones come from `extra`."""

    f: Callable[..., Any]
    shapes: tuple[Shape, ...]
    draw: Callable[[Tensor], Tensor] = lambda x: x
    extra: Callable[[torch.Generator], Sequence[Tensor]] = lambda g: ()
    sums: bool = False  # sums of products: what their errors are relative to is the sum of the absolute products

    def inputs(self, seed: int) -> list[Tensor]:
        """Float inputs, then the fixed ones."""
        g = torch.Generator().manual_seed(seed)
        return [*(self.draw(torch.randn(s, generator=g)) for s in self.shapes), *self.extra(g)]

    def weights(self, seed: int) -> list[Tensor]:
        """One random tensor a result: the loss is the sum of the products."""
        g = torch.Generator().manual_seed(seed + 1000)
        return [torch.randn(r.shape, generator=g) for r in self.results(self.inputs(0))]

    def results(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return results_of(self.f, inputs)

    def with_gradients(self, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        """All results, and the gradients of the loss by those inputs that it depends on."""
        return with_gradients(self.f, inputs, len(self.shapes), weights)

    def examples(self, seed: int) -> list[Tensor]:
        """What the graph of the case takes."""
        return [*self.inputs(seed), *self.weights(seed)]

    @cached_property
    def graph(self) -> fx.GraphModule:
        """The functional ATen graph of results and gradients; its inputs are those of `examples`."""
        return graph_of(self.f, self.inputs(0), len(self.shapes), self.weights(0))


SumCase = partial(Case, sums=True)


def _integers(high: int, *shapes: Shape) -> Callable[[torch.Generator], list[Tensor]]:
    return lambda g: [torch.randint(0, high, s, generator=g) for s in shapes]


def _int8(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, generator=g, dtype=torch.int8)


def _bits(*shape: int) -> Callable[[torch.Generator], list[Tensor]]:
    return lambda g: [torch.rand(shape, generator=g) < 0.5]


def _positive(x: Tensor) -> Tensor:
    return x.abs() + 0.1


def _probabilities(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def _wide(x: Tensor) -> Tensor:
    return 8 * x


ROWS = (33, 70)


def _changed(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1] += 1
    y[1:, ::2].mul_(2)
    return y.transpose(0, 1).contiguous().view(-1)


def _assigned(x: Tensor, i: Tensor, j: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[i, :, j] = y
    return x.clone().transpose(0, 1)


def _shifted_diagonal(x: Tensor) -> Tensor:
    y = x.clone()
    y.diagonal(-1).mul_(3)
    return y


CASES: dict[str, Case] = {
    # ---- matrix products
    "int8 products": Case(
        lambda x, a, b: (torch._int_mm(a, b) * x, torch._int_mm(a, a.t()), a @ b, torch.stack([a, a]) @ b),
        ((7, 5),),
        extra=lambda g: [_int8(g, 7, 300), _int8(g, 300, 5)],
    ),
    "mm": SumCase(lambda a, b: a @ b, ((7, 300), (300, 5))),
    "mm of transposes": SumCase(lambda a, b: a.t() @ b.t(), ((300, 7), (5, 300))),
    "mm over a long axis": SumCase(lambda a, b: a @ b, ((9, 3000), (3000, 8))),
    "bmm": SumCase(lambda a, b: a @ b, ((3, 7, 40), (3, 40, 5))),
    "bmm of permuted views": SumCase(lambda a, b: a.permute(1, 2, 0) @ b.transpose(1, 2), ((40, 3, 7), (3, 5, 40))),
    "linear": SumCase(F.linear, ((6, 4, 50), (8, 50), (8,))),
    "addmm": SumCase(lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), ((5,), (4, 60), (60, 5))),
    "baddbmm": SumCase(torch.baddbmm, ((3, 4, 5), (3, 4, 60), (3, 60, 5))),
    "mv": SumCase(torch.mv, ((9, 80), (80,))),
    "dot": SumCase(torch.dot, ((600,), (600,))),
    "addbmm": SumCase(partial(torch.addbmm, beta=0.5, alpha=2), ((4, 5), (3, 4, 60), (3, 60, 5))),
    "addmv": SumCase(partial(torch.addmv, beta=0.5, alpha=2), ((9,), (9, 80), (80,))),
    "addr": SumCase(partial(torch.addr, beta=0.5, alpha=2), ((9, 8), (9,), (8,))),
    "vdot": SumCase(torch.vdot, ((600,), (600,))),
    "bilinear": SumCase(F.bilinear, ((3, 4), (3, 5), (6, 4, 5), (6,))),
    **{
        f"einsum {formula}": SumCase(partial(torch.einsum, formula), shapes)
        for formula, shapes in {
            "bhqd,bhkd->bhqk": ((2, 3, 4, 5), (2, 3, 6, 5)), "bqhd,bkhd->bhqk": ((2, 4, 3, 5), (2, 6, 3, 5)),
            "bhwc,hkc->bhwk": ((2, 3, 4, 5), (3, 6, 5)), "bi,ij,bj->b": ((3, 4), (4, 5), (3, 5)),
            "...ij,...jk->...ki": ((2, 3, 4), (4, 5)), "ij,ij->j": ((3, 4), (3, 4)), "i,j->ij": ((3,), (4,)),
            "bii->bi": ((2, 4, 4),), "ii": ((4, 4),), "ij->": ((3, 4),),
        }.items()
    },
    # ---- arithmetic
    "add": Case(lambda x, y: x + y + 0.1, (ROWS, (70,))),
    "add alpha": Case(lambda x, y: torch.add(x, y, alpha=0.3) + torch.sub(y, x, alpha=0.7), (ROWS, ROWS)),
    "sub": Case(lambda x, y: (x - y) - (0.7 - x), (ROWS, (33, 1))),
    "mul": Case(lambda x, y: x * y * 3, (ROWS, ROWS)),
    "div": Case(lambda x, y: x / y + 2.5 / y + x / 3, (ROWS, ROWS), _positive),
    "neg": Case(lambda x: -x, (ROWS,)),
    "abs": Case(torch.abs, (ROWS,)),
    "sign": Case(lambda x: (x.sign() * x, torch.sgn(x)), (ROWS,)),
    "reciprocal": Case(torch.reciprocal, (ROWS,), _positive),
    "sqrt": Case(torch.sqrt, (ROWS,), _positive),
    "rsqrt": Case(torch.rsqrt, (ROWS,), _positive),
    "square": Case(torch.square, (ROWS,)),
    "rounding": Case(
        lambda x, y: (
            x.floor() + x.ceil() + x.trunc() + x.round() + x.round(decimals=1) + x.frac(),
            x.remainder(y), x.fmod(y), x.detach() // y.detach(), torch.div(x, y, rounding_mode="trunc"), x % 0.7,
        ),
        (ROWS, ROWS),
    ),
    "integer division": Case(
        lambda x, i, j: (
            x.sum(), (i - 20) // (j + 1), (i - 20) % (-1 - j), torch.div(i - 20, 3, rounding_mode="trunc"), i.fmod(-7)
        ),
        ((2,),),
        extra=_integers(50, (40,), (40,)),
    ),
    "copysign, extremes beside NaN": Case(
        lambda x, y, m: (
            x.copysign(y), x.fmax(y.masked_fill(m, math.nan)), x.fmin(y), x.hypot(y), torch.ldexp(x, (4 * y).round()),
            x.masked_fill(m, float("nan")).nan_to_num(), (x / 0).nan_to_num(0.0, 1.0, -1.0),
        ),
        (ROWS, ROWS),
        extra=_bits(*ROWS),
    ),
    "classes of floats": Case(
        lambda x, y, m: (
            (x / m).isinf(), (x / m).isposinf(), (x / m).isneginf(), x.signbit(), m.logical_xor(x > 0),
            (y / m).isfinite(),
        ),
        (ROWS, ROWS),
        extra=_bits(*ROWS),
    ),
    "pow by tensors": Case(lambda x, y: (x**y, x**0.3, 2.5**y, x ** -(2 * y)), (ROWS, ROWS), _positive),
    "pow": Case(lambda x: (x**3, x**0.5, x**-1, x**-1.5, x**0, x**5), (ROWS,), _positive),
    "addcmul": Case(lambda x, a, b: torch.addcmul(x, a, b, value=0.3), (ROWS, ROWS, ROWS)),
    "addcdiv": Case(lambda x, a, b: torch.addcdiv(x, a, b, value=0.3), (ROWS, ROWS, ROWS), _positive),
    "lerp": Case(lambda x, y: torch.lerp(x, y, 0.3) + torch.lerp(x, y, 0.8), (ROWS, ROWS)),
    "lerp by a tensor": Case(torch.lerp, (ROWS, ROWS, ROWS), _probabilities),
    "maximum": Case(lambda x, y: torch.maximum(x, y) * torch.minimum(x, y + 1), (ROWS, ROWS)),
    "clamp": Case(lambda x: x.clamp(-0.5, 0.7) + x.clamp_min(0.1) * x.clamp_max(0.2), (ROWS,)),
    "clamp by tensors": Case(torch.clamp, (ROWS, ROWS, ROWS)),
    # ---- elementary functions
    "exp": Case(torch.exp, (ROWS,), _wide),
    "expm1": Case(torch.expm1, (ROWS,)),
    "log": Case(torch.log, (ROWS,), _positive),
    "log1p": Case(torch.log1p, (ROWS,), _positive),
    "sin and cos": Case(lambda x: torch.sin(x) + torch.cos(2 * x), (ROWS,), _wide),
    "erf": Case(torch.erf, (ROWS,)),
    "powers and logarithms of 2 and 10": Case(
        lambda x: (x.exp2(), x.log2(), x.log10(), torch.logaddexp(x, 2 * x), torch.xlogy(x, x),
                   torch.special.entr(x), torch.special.xlog1py(x, x)),
        (ROWS,),
        _positive,
    ),
    "circular and hyperbolic": Case(
        lambda x, y: (x.tan(), x.sinh(), x.cosh(), x.atan(), torch.atan2(x, y), torch.sinc(x)), (ROWS, ROWS)
    ),
    "inverse circular and hyperbolic": Case(
        lambda x: (x.asin(), x.acos(), x.asinh(), (x + 3).acosh(), x.atanh(), x.erfc()),
        (ROWS,),
        lambda x: x.sin() * 0.9,
    ),
    # ---- comparison and choice
    "comparisons": Case(
        lambda x, y: (x == y, x != y, x < y, x <= 0, x > y, x >= 0.5, x.isnan()),
        (ROWS, ROWS),
        draw=lambda x: (2 * x).round() / 2,
    ),
    "integer comparisons": Case(
        lambda x, i, j: (i < j, i == 3, i > 2.5, (i + 2 * j - 1) * x, -i, i.abs(), i.sign()),
        ((4, 5),),
        extra=_integers(6, (4, 5), (4, 5)),
    ),
    "booleans": Case(
        lambda x, a, b: (a & b, a | b, ~a, a ^ b, a.logical_and(b), a.logical_or(b), a.logical_not(), a.sum(), a * x),
        ((4, 5),),
        extra=lambda g: [torch.rand(4, 5, generator=g) < 0.5, torch.rand(4, 5, generator=g) < 0.5],
    ),
    "where": Case(lambda x, y, m: torch.where(m, x, y * 2), (ROWS, ROWS), extra=_bits(*ROWS)),
    "masked_fill": Case(lambda x, m: x.masked_fill(m, -1e9).masked_fill(~m, float("-inf")), (ROWS,), extra=_bits(70)),
    # ---- activations
    "relu": Case(F.relu, (ROWS,)),
    "threshold": Case(lambda x: F.threshold(x, 0.3, 2.0), (ROWS,)),
    "gelu": Case(F.gelu, (ROWS,)),
    "gelu tanh": Case(lambda x: F.gelu(x, approximate="tanh"), (ROWS,)),
    "tanh": Case(torch.tanh, (ROWS,)),
    "sigmoid": Case(torch.sigmoid, (ROWS,), _wide),
    "silu": Case(F.silu, (ROWS,)),
    "leaky_relu": Case(lambda x: F.leaky_relu(x, 0.2), (ROWS,)),
    "elu": Case(lambda x: F.elu(x, 0.7) + F.selu(x), (ROWS,)),
    "hardtanh": Case(lambda x: F.hardtanh(x, -0.5, 0.8) + F.relu6(8 * x), (ROWS,)),
    "softplus": Case(lambda x: F.softplus(x, beta=2.0, threshold=3.0), (ROWS,)),
    "logsigmoid": Case(F.logsigmoid, (ROWS,)),
    "shrinks": Case(lambda x: F.softshrink(x, 0.3) + F.hardshrink(x, 0.4), (ROWS,)),
    "restated activations": Case(
        lambda x, w: (
            F.hardswish(4 * x) + F.hardsigmoid(4 * x) + F.mish(x) + F.celu(x, 0.7) + F.softsign(x) + F.tanhshrink(x),
            F.prelu(x, w), F.glu(x), torch.logit(torch.sigmoid(x), 0.1),
        ),
        (ROWS, (1,)),
    ),
    # ---- sorting
    "sort": Case(lambda x: (*x.sort(1), *x.sort(0, descending=True), x.argsort(), x.msort()), ((20, 30),)),
    "sort of equal elements": Case(
        lambda x: (*x.sort(dim=1, stable=True), *x.sort(dim=0, descending=True, stable=True)),
        ((20, 30),),
        lambda x: x.round(),
    ),
    "topk": Case(lambda x: (*x.topk(4, 1), *x.topk(3, 0, largest=False)), ((20, 30),)),
    "medians": Case(
        lambda x, m: (
            *x.kthvalue(3, 0), x.median(), *x.median(1), *x.masked_fill(m, float("nan")).nanmedian(0),
            *x.masked_fill(m, float("nan")).median(1), x.nanmedian(), x.quantile(0.3, 1),
        ),
        ((20, 30),),
        extra=_bits(20, 30),
    ),
    "searchsorted": Case(
        lambda x, e: (
            torch.searchsorted(e.sort(1)[0].detach(), x), torch.searchsorted(e.detach(), x, sorter=e.argsort(1)),
            torch.bucketize(x, e[0].sort()[0].detach(), right=True),
        ),
        ((5, 9), (5, 12)),
    ),
    # ---- scans
    "cumsum": Case(lambda x, i: (x.cumsum(1), x.cumsum(0), i.cumsum(0)), ((30, 700),), extra=_integers(9, (4, 5))),
    "cumprod": Case(lambda x, i: (x.cumprod(1), i.cumprod(0)), ((5, 30),), _positive, _integers(9, (4, 5))),
    "cumulative extremes": Case(lambda x: (*x.cummax(1), *x.cummin(0), x.logcumsumexp(1)), ((20, 30),)),
    "prod": Case(lambda x, i: (x.prod(), x.prod(1), i.prod(0)), ((5, 9),), _positive, _integers(9, (4, 5))),
    # ---- reductions
    "sum": SumCase(lambda x: (x.sum(), x.sum(1), x.sum((0, 2), keepdim=True)), ((20, 30, 7),)),
    "trace": SumCase(lambda x: x[:, :9].trace(), (ROWS,)),
    "mean": SumCase(lambda x: (x.mean(), x.mean(-1), x.mean((0, 2), keepdim=True)), ((20, 30, 7),)),
    "var": Case(lambda x: (x.var(), x.var(1, keepdim=True), x.var((0, 2), correction=0)), ((20, 30, 7),)),
    "var_mean": Case(lambda x: torch.var_mean(x, (0, 2)), ((20, 30, 7),)),
    "std": Case(lambda x: x.std(1), ((20, 30, 7),)),
    "amax": Case(lambda x: (x.amax(1), x.amin((0, 2))), ((20, 30, 7),)),
    "max": Case(lambda x: (x.max(), x.min(), *x.max(1), *x.min(-1, keepdim=True)), ((20, 30, 7),)),
    "argmax": Case(lambda x: (x.argmax(), x.argmax(1), x.argmin(0, keepdim=True)), ((20, 30),)),
    "any": Case(lambda x: ((x > 1).any(), (x > 0).all(1), (x > 2).any(0)), ((20, 30),)),
    "logsumexp": Case(lambda x: (x.logsumexp(1), (9 * x).logsumexp((0, 2), keepdim=True)), ((20, 30, 7),)),
    "vector norms": Case(
        lambda x: (x.norm(), torch.linalg.vector_norm(x, dim=1), F.normalize(x, dim=-1), x.norm(1, dim=0)),
        ((9, 8, 7),),
    ),
    "norms of other orders": Case(
        lambda x: (x.norm(3, 1), x.norm(math.inf), x.norm(0.5, 2), x.norm(-math.inf, 0), x.norm(0)), ((9, 8, 7),)
    ),
    "norm": Case(lambda x: F.pairwise_distance(x[0], x[1]), ((2, 9, 8),)),
    "renorm": Case(lambda x: torch.renorm(x.detach(), 2, 1, 2.5) * x, ((9, 8),)),
    "distances between rows": Case(
        lambda x, y: tuple(
            f
            for p in (0.0, 1.0, 1.5, 2.0, 3.0, math.inf)
            for f in (torch.cdist(x, y, p), torch.cdist(x[0], y, p), torch.pdist(y[0], p))
        ),
        ((2, 9, 8), (2, 7, 8)),
    ),
    "distances by products": Case(
        lambda x, y: torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist"), ((2, 9, 8), (2, 7, 8))
    ),
    "softmax": Case(lambda x: F.softmax(3 * x, 1), ((20, 30, 7),)),
    "log_softmax": Case(lambda x: F.log_softmax(3 * x, -1), (ROWS,)),
    # ---- losses
    "nll_loss": Case(lambda x, t: F.nll_loss(F.log_softmax(x, 1), t), (ROWS,), extra=_integers(70, (33,))),
    "nll_loss of one": Case(lambda x, t: F.nll_loss(F.log_softmax(x, 0), t), ((9,),), extra=_integers(9, ())),
    "nll_loss of pixels": Case(
        lambda x, t: F.cross_entropy(x, t, ignore_index=2), ((2, 5, 6, 7),), extra=_integers(5, (2, 6, 7))
    ),
    "cross_entropy": Case(
        lambda x, t: (F.cross_entropy(x, t, label_smoothing=0.1), F.cross_entropy(x, t, reduction="sum")),
        (ROWS,),
        extra=_integers(70, (33,)),
    ),
    "cross_entropy weighted": Case(
        lambda x, w, t: F.cross_entropy(x, t, w.detach(), ignore_index=3),
        ((33, 5), (5,)),
        _positive,
        _integers(5, (33,)),
    ),
    "cross_entropy each": Case(
        lambda x, t: F.cross_entropy(x, t, reduction="none", ignore_index=3), ((33, 5),), extra=_integers(5, (33,))
    ),
    "cross_entropy of probabilities": Case(lambda x, y: F.cross_entropy(x, y.softmax(1)), (ROWS, ROWS)),
    "mse_loss": Case(
        lambda x, y: (F.mse_loss(x, y), F.mse_loss(x, y, reduction="none"), F.mse_loss(x, y, reduction="sum")),
        (ROWS, ROWS),
    ),
    "l1_loss": Case(F.l1_loss, (ROWS, ROWS)),
    "smooth_l1_loss": Case(lambda x, y: F.smooth_l1_loss(x, y, beta=0.7), (ROWS, ROWS)),
    "soft_margin_loss": Case(lambda x, y: F.soft_margin_loss(x, y.sign().detach()), (ROWS, ROWS)),
    "gaussian_nll_loss": Case(
        lambda x, y, v: (
            F.gaussian_nll_loss(x, y, v[:, 0].exp()), F.gaussian_nll_loss(x, y, v.exp(), full=True, reduction="sum"),
        ),
        (ROWS, ROWS, ROWS),
    ),
    "ctc_loss": Case(
        lambda x, t, i, n: (
            F.ctc_loss(x.log_softmax(2), t, i, n, zero_infinity=True),
            F.ctc_loss(x.log_softmax(2)[:, :3], t[:3], i[:3], n[:3], reduction="none"),
            F.ctc_loss(x.log_softmax(2)[:, 0], t[0], (9,), (4,), blank=5, reduction="sum"),
        ),
        ((9, 4, 6),),
        extra=lambda g: [
            torch.randint(1, 5, (4, 4), generator=g), torch.tensor([9, 9, 8, 3]), torch.tensor([4, 2, 0, 4])
        ],
    ),
    "multi_margin_loss": Case(
        lambda x, w, t: (
            F.multi_margin_loss(x, t, weight=w.detach()), F.multi_margin_loss(x, t, 2, 0.7, reduction="none"),
            F.multi_margin_loss(x[0], t[0], reduction="sum"),
        ),
        (ROWS, (70,)),
        extra=_integers(70, (33,)),
    ),
    "huber_loss": Case(lambda x, y: F.huber_loss(x, y, delta=0.7), (ROWS, ROWS)),
    "binary_cross_entropy": Case(lambda x, y: F.binary_cross_entropy(x, y.detach()), (ROWS, ROWS), _probabilities),
    "binary_cross_entropy_with_logits": Case(
        lambda x, y: F.binary_cross_entropy_with_logits(x, torch.sigmoid(y).detach()), (ROWS, ROWS)
    ),
    "binary_cross_entropy_with_logits weighted": Case(
        lambda x, y, w: F.binary_cross_entropy_with_logits(x, y.detach(), pos_weight=w.detach()),
        (ROWS, ROWS, (70,)),
        _probabilities,
    ),
    # ---- indexing
    "embedding": Case(
        lambda w, i: F.embedding(i, w, padding_idx=2), ((9, 5),), extra=_integers(9, (6, 8))
    ),
    "gather": Case(lambda x, i: torch.gather(x, 1, i), ((6, 9),), extra=_integers(9, (6, 4))),
    "scatter_add": Case(
        lambda x, y, i: torch.scatter_add(x, 0, i, y), ((6, 9), (8, 9)), extra=_integers(6, (8, 9))
    ),
    "index": Case(lambda x, i, j: (x[i], x[:, j], x[i, j]), ((9, 9, 4),), extra=_integers(9, (3, 7), (7,))),
    "index on axes that are not neighbours": Case(
        lambda x, y, i, j: (x[:, None][i, :, 1:, j], x[None][:, i, :, j], _assigned(x, i, j, y)),
        ((9, 8, 7), (3, 7, 8)),
        extra=_integers(7, (3, 7), (7,)),
    ),
    "index by negative numbers": Case(lambda x, i: x[:, i - 5], ((4, 5, 3),), extra=_integers(10, (2, 6))),
    "scatter": Case(
        lambda x, y, i: (x.scatter(1, i, y), x.scatter(0, i, 0.3)), ((6, 9), (6, 1)), extra=_integers(6, (6, 1))
    ),
    "index_add": Case(
        lambda x, y, i: torch.index_add(x, 1, i, y, alpha=0.5), ((4, 6), (4, 12)), extra=_integers(6, (12,))
    ),
    "scatter of several": Case(
        lambda x, y, i: (x.scatter(0, i, y), x.scatter(0, i, 0.3)), ((6, 9), (8, 9)), extra=_integers(6, (8, 9))
    ),
    "scatter_reduce": Case(
        lambda x, y, i: tuple(
            x.scatter_reduce(0, i, y, reduce, include_self=own)
            for reduce in ("sum", "mean", "amax", "amin", "prod") for own in (True, False)
        ),
        ((6, 9), (8, 9)),
        extra=_integers(6, (8, 9)),
    ),
    "index_reduce": Case(
        lambda x, y, i: tuple(
            x.index_reduce(1, i, y, reduce, include_self=own)
            for reduce in ("mean", "amax", "amin", "prod") for own in (True, False)
        ),
        ((6, 9), (6, 12)),
        extra=_integers(9, (12,)),
    ),
    "embedding_bag": Case(
        lambda w, p, i, o: (
            *(F.embedding_bag(i, w, o, mode=mode, padding_idx=3) for mode in ("sum", "mean", "max")),
            F.embedding_bag(i, w, o, mode="sum", per_sample_weights=p, include_last_offset=True),
            F.embedding_bag(i.view(2, 6), w.detach()),
        ),
        ((9, 5), (12,)),
        extra=lambda g: [torch.randint(0, 9, (12,), generator=g), torch.tensor([0, 4, 4, 9, 12])],
    ),
    "assignment": Case(
        lambda x, y, i, m: (
            torch.index_put(x, (i, i - 3), y[:, 0]), torch.index_put(x, (i,), y),
            torch.index_put(x, (m,), x[0, 0].detach()),
            torch.index_put(x, (m,), x[0, 1].detach(), accumulate=True), x.masked_scatter(m, y), x.put(i, y[:, 0]),
            x.put(i, y[:, 0], accumulate=True),
        ),
        ((6, 9), (12, 9)),
        extra=lambda g: [torch.randint(0, 6, (12,), generator=g), torch.rand(6, 9, generator=g) < 0.5],
    ),
    "index_copy": Case(
        lambda x, y, i: (x.index_copy(1, i, y), x.index_fill(1, i, 0.5), x.take(i * 3), x.take_along_dim(i[None], 1)),
        ((4, 6), (4, 12)),
        extra=_integers(6, (12,)),
    ),
    "masked indices": Case(
        lambda x, m, i: (
            torch.ops.aten._unsafe_index(x, [i]), torch.ops.aten._unsafe_index_put(x, [i], x[:3], True),
            torch.ops.aten._unsafe_masked_index(x, m[:, None], [i], 0.5),
            torch.ops.aten._unsafe_masked_index_put_accumulate(x, m[:, None], [i], x[:3]),
        ),
        ((6, 9),),
        extra=lambda g: [torch.rand(3, generator=g) < 0.5, torch.randint(0, 6, (3,), generator=g)],
    ),
    "restated by PyTorch": Case(
        lambda x, y: (
            *x.aminmax(dim=1), x.count_nonzero(), x.deg2rad() + x.rad2deg(), x.dist(y),
            x.detach().heaviside(y.detach()),
            torch.isin(x, y[0]),
            torch.linalg.cross(x[:, :3], y[:, :3]), x.logaddexp2(y), x.nansum(1), x.rot90(), *torch.std_mean(x, 1),
            x.clone().zero_() + x, torch.diagonal_copy(x),
        ),
        (ROWS, ROWS),
    ),
    "unfold": Case(lambda x: (x.unfold(0, 3, 2), x.unfold(1, 2, 1)), ((7, 5),)),
    "unsafe_index": Case(  # what interpolation becomes in PyTorch before 2.10
        lambda x: torch.ops.aten._unsafe_index(x, [None, torch.tensor([4, 0, 4, 1])]), (ROWS,)
    ),
    "index_select": Case(lambda x, i: x.index_select(1, i), ((4, 9),), extra=_integers(9, (12,))),
    "max_unpool": Case(
        lambda x: (
            F.max_unpool1d(*F.max_pool1d(x[0], 2, return_indices=True), 2),
            F.max_unpool2d(*F.max_pool2d(x, (2, 3), return_indices=True), (2, 3), output_size=x.shape),
            F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2, output_size=(4, 6, 7)),
        ),
        ((2, 4, 6, 7),),
    ),
    # ---- shape
    "views": Case(
        lambda x: x.view(6, -1).unsqueeze(1).squeeze(1).t().reshape(3, -1).flatten().detach() * x.flatten(),
        ((2, 3, 8),),
    ),
    "expand": Case(lambda x: x.expand(4, 3, 5) * 2, ((3, 1),)),
    "slice of everything": Case(lambda x: x[:, ::1] * x, (ROWS,)),
    "permute": Case(lambda x: x.permute(2, 0, 1).transpose(0, 1).contiguous().view(-1, 2), ((2, 3, 4),)),
    "flip": Case(lambda x: x.flip(0, -1) * x, ((4, 3, 5),)),
    "roll": Case(lambda x: (x.roll(2, 1), x.roll(-1), x.roll((1, 2), (0, 1))), ((4, 5),)),
    "repeat": Case(lambda x: x.repeat(2, 1, 3), ((4, 5),)),
    "slices": Case(lambda x: (x[1:, ::3], x[..., -2], x[-3:-1].sum(0)), ((7, 10),)),
    "in-place changes of views": Case(_changed, ((6, 8),)),
    "windows of a tensor": Case(lambda x: x.unfold(0, 3, 2).unfold(1, 2, 2), ((7, 10, 3),)),
    "copies of views": Case(
        lambda x: (
            torch.diagonal_copy(x, 1), torch.unfold_copy(x, 0, 2, 1), torch.alias_copy(x), torch.t_copy(x),
            torch.expand_copy(x, (2, 4, 5)), torch.permute_copy(x, (1, 0)), *torch.split_with_sizes_copy(x, (1, 3)),
            torch.squeeze_copy(torch.unsqueeze_copy(x, 0), 0), torch.narrow_copy(x.detach(), 1, 1, 2),
            torch.transpose_copy(x, 0, 1),
            *torch.unbind_copy(x), torch.view_copy(x, (2, 10)), torch._chunk_cat([x.detach()] * 2, 1, 2),
        ),
        ((4, 5),),
    ),
    "diagonal matrices": Case(
        lambda x, y: (torch.diag(x), torch.diag_embed(y, -1, 0, 1), torch.block_diag(x, y)), ((3, 3), (2, 4))
    ),
    "diagonals": Case(lambda x: (x.diagonal(), x.diagonal(1, 2, 0), x.diagonal(-2, 0, 1)), ((5, 4, 3),)),
    "in-place change of a diagonal": Case(_shifted_diagonal, ((5, 4),)),
    "pixel_shuffle": Case(lambda x: (F.pixel_shuffle(x, 2), F.channel_shuffle(x, 4)), ((3, 8, 3, 4),)),
    "pixel_unshuffle": Case(lambda x: F.pixel_unshuffle(x, 2), ((3, 2, 6, 4),)),
    "split": Case(
        lambda x: (x.split(3, 1)[1] * 2, x.chunk(2)[0], x.split([2, 5, 1], 1)[2], x.unbind(0)[1]), ((4, 8),)
    ),
    "cat": Case(lambda x, y: (torch.cat([x, y, x], 1), torch.stack([x, x * 2], -1)), ((4, 3), (4, 5))),
    "pad": Case(lambda x: (F.pad(x, (1, 2, -1, 3), value=0.5), F.pad(x, (-1, -1))), ((4, 5),)),
    "triangles": Case(lambda x: x.tril(1) - x.triu(-1), ((4, 5),)),
    # ---- conversions and factories
    "conversions": Case(
        lambda x, i, b: (x.long(), i.float() * x, b.float() - x, i.bool(), i.byte()),
        ((4, 5),),
        _wide,
        lambda g: [torch.randint(0, 9, (4, 5), generator=g), torch.rand(4, 5, generator=g) < 0.5],
    ),
    "bytes": Case(lambda x, u: (u.float() / 255 * x, u + u), ((4, 5),), extra=lambda g: [
        torch.randint(0, 256, (4, 5), generator=g, dtype=torch.uint8)]),
    "int8": Case(
        lambda x, i, j: (
            (16 * x).to(torch.int8), x.to(torch.int8), i.float() * x, i + j, i - 3, i * j, -i, i.abs(), i // 3, i % 7,
            i & j, i ^ j, ~i, i.clamp(-5, 100), torch.maximum(i, j), torch.where(x > 0, i, j), i.long(), i.byte(),
            i.bool(), i < j, i.amax(0), i.argmin(1), i.sum(1), i.cumsum(0), i.sort(1).values, i.t().reshape(2, 10),
            torch.cat([i, j]), F.pad(i, (1, 2), value=-7), i[:, [4, 0]], torch.full_like(i, -100),
            torch.zeros(5, dtype=torch.int8).index_add(0, torch.tensor([1, 1, 4, 0]), j[:, 2]),
            i.scatter_add(1, i.long().abs() % 5, j),
        ),
        ((4, 5),),
        extra=lambda g: [_int8(g, 4, 5), _int8(g, 4, 5)],
    ),
    "factories": Case(
        lambda x: x * torch.arange(5) + torch.full_like(x, 0.3) + x.new_ones(5) + torch.tensor([0.1]) * torch.zeros(5)
        + torch.eye(5)[:4] + torch.linspace(0, 1, 5) + x.new_full((1,), 2.0) + torch.zeros_like(x).fill_(4.0),
        ((4, 5),),
    ),
    "assembled": Case(
        lambda x: torch.empty_like(x).copy_(x * 2) + x.new_zeros(4, 5).add_(x) + torch.empty(4, 5).copy_(x)
        + torch.empty_strided((4, 5), (5, 1)).copy_(x),
        ((4, 5),),
    ),
    "as_strided": Case(
        lambda x: (
            (2 * x).as_strided((10, 2), (2, 1)), (2 * x).t().as_strided((3, 3), (5, 2), 4),
            (2 * x)[1:].as_strided((3, 4), (4, 1)), torch.as_strided_copy(x, (3, 4), (2, 1)),
            torch.as_strided_scatter(x, x[1:, 1:], (3, 4), (4, 1), 2),
        ),
        ((4, 5),),
    ),
}  # fmt: skip

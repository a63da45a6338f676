"""From ATen operations to nodes: the table, and the loop that follows it.

To support a further operation, add a line to the table: its name, and a rule. A rule that is one scalar expression is
written in place with `pointwise`; anything longer is a function in `gensyn_verify.frontend.rules`, which gets a
`Context` and the arguments of the ATen call (keyword arguments that only say where or how a result is stored are left
out: `Context.types` has the types of the results). `tests/frontend` compares every entry with PyTorch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from gensyn_verify.errors import CaptureError, LimitError, ProgramError
from gensyn_verify.frontend.context import Context
from gensyn_verify.frontend.rules import (
    attention,
    bags,
    convolution,
    distances,
    indexing,
    linear,
    losses,
    normalization,
    pooling,
    randomness,
    reductions,
    resampling,
    sampling,
    scans,
    shape,
    sorting,
)
from gensyn_verify.frontend.rules import pointwise as point
from gensyn_verify.frontend.rules.pointwise import comparison, pointwise
from gensyn_verify.frontend.tensors import tensor_type
from gensyn_verify.frontend.trace import Origin
from gensyn_verify.program import Reg, TensorType, Value, activations, functions, rounding

Rule = Callable[..., Any]


def _for_ranks(name: str, rule: Rule, *ranks: int) -> dict[str, Rule]:
    """One rule for an operation that PyTorch has once for each number of spatial axes."""
    return {name.format(rank): pooling.spatial(rank, rule) for rank in ranks}


def _interpolation(name: str, make: resampling.Make, *ranks: int) -> dict[str, Rule]:
    forward = {name.format(rank): resampling.upsample(make, rank) for rank in ranks}
    return forward | {name.format(rank) + "_backward": resampling.upsample_backward(make, rank) for rank in ranks}


def _padding(name: str, make: resampling.Make, *ranks: int) -> dict[str, Rule]:
    forward = {name.format(rank): resampling.pad(make) for rank in ranks}
    return forward | {name.format(rank) + "_backward": resampling.pad_backward(make) for rank in ranks}


SUBJECTS: dict[str, dict[str, Rule]] = {
    "Matrix products": {
        "aten.mm": linear.mm,
        "aten.bmm": linear.mm,
        "aten._int_mm": linear.mm,
        "aten.addmm": linear.addmm,
        "aten.baddbmm": linear.addmm,
        "aten.addbmm": linear.addbmm,
        "aten.mv": linear.mv,
        "aten.dot": linear.vector_dot,
        "aten._trilinear": linear.trilinear,
    },
    "Convolution": {
        "aten.convolution": convolution.convolution,
        "aten.convolution_backward": convolution.convolution_backward,
        "aten.im2col": convolution.im2col,
        "aten.col2im": convolution.col2im,
    },
    "Pooling": {
        **_for_ranks("aten.max_pool{}d_with_indices", pooling.max_pool, 2, 3),
        **_for_ranks("aten.max_pool{}d_with_indices_backward", pooling.max_pool_backward, 2, 3),
        **_for_ranks("aten.avg_pool{}d", pooling.avg_pool, 2, 3),
        **_for_ranks("aten.avg_pool{}d_backward", pooling.avg_pool_backward, 2, 3),
        **_for_ranks("aten._adaptive_avg_pool{}d", pooling.adaptive_avg_pool, 2, 3),
        **_for_ranks("aten._adaptive_avg_pool{}d_backward", pooling.adaptive_avg_pool_backward, 2, 3),
        **_for_ranks("aten.adaptive_max_pool{}d", pooling.adaptive_max_pool, 2, 3),
        **_for_ranks("aten.adaptive_max_pool{}d_backward", pooling.adaptive_max_pool_backward, 2, 3),
    },
    "Attention kernels": {
        "aten._scaled_dot_product_flash_attention_for_cpu": attention.attention,
        "aten._scaled_dot_product_flash_attention_for_cpu_backward": attention.attention_backward,
    },
    "Interpolation and padding": {
        **_interpolation("aten.upsample_nearest{}d", resampling.nearest, 1, 2, 3),
        **_interpolation("aten._upsample_nearest_exact{}d", resampling.nearest_exact, 1, 2, 3),
        **_interpolation("aten.upsample_linear{}d", resampling.linear, 1),
        **_interpolation("aten.upsample_bilinear{}d", resampling.linear, 2),
        **_interpolation("aten.upsample_trilinear{}d", resampling.linear, 3),
        **_interpolation("aten.upsample_bicubic{}d", resampling.cubic, 2),
        **_interpolation("aten._upsample_bilinear{}d_aa", resampling.smooth_linear, 2),
        **_interpolation("aten._upsample_bicubic{}d_aa", resampling.smooth_cubic, 2),
        **_padding("aten.reflection_pad{}d", resampling.reflected, 1, 2, 3),
        **_padding("aten.replication_pad{}d", resampling.replicated, 1, 2, 3),
    },
    "Sampling at places": {
        **_for_ranks("aten.grid_sampler_{}d", sampling.grid_sampler, 2, 3),
        **_for_ranks("aten.grid_sampler_{}d_backward", sampling.grid_sampler_backward, 2, 3),
    },
    "Arithmetic": {
        "aten.add": point.add,
        "aten.sub": point.sub,
        "aten.rsub": point.rsub,
        "aten.mul": point.mul,
        "aten.div": point.div,
        "aten.neg": pointwise(point.negate),
        "aten.abs": pointwise(point.absolute),
        "aten.sgn": pointwise(point.sign),
        "aten.sign": pointwise(point.sign),
        "aten.reciprocal": pointwise(lambda x: 1.0 / x),
        "aten.sqrt": pointwise(lambda x: x.sqrt()),
        "aten.rsqrt": pointwise(lambda x: 1.0 / x.sqrt()),
        "aten.pow": point.power,
        "aten.addcmul": point.addcmul,
        "aten.addcdiv": point.addcdiv,
        "aten.lerp": point.lerp,
        "aten.remainder": pointwise(rounding.remainder),
        "aten.fmod": pointwise(rounding.fmod),
        "aten.floor_divide": pointwise(rounding.floor_div),
        "aten.floor": pointwise(rounding.floor),
        "aten.ceil": pointwise(rounding.ceil),
        "aten.trunc": pointwise(rounding.trunc),
        "aten.round": point.round_decimals,
        "aten.frac": pointwise(rounding.frac),
        "aten.copysign": pointwise(rounding.copysign),
        "aten.hypot": pointwise(functions.hypot),
        "aten.ldexp": pointwise(lambda x, n: x * functions.exp2(n)),
        "aten.fmax": point.prefer_number(largest=True),
        "aten.fmin": point.prefer_number(largest=False),
        "aten.nan_to_num": point.nan_to_num,
        "aten.maximum": pointwise(lambda x, y: x.max(y)),
        "aten.minimum": pointwise(lambda x, y: x.min(y)),
        "aten.clamp": point.clamp,
        "aten.clamp_min": point.clamp_min,
        "aten.clamp_max": point.clamp_max,
    },
    "Elementary functions": {
        "aten.exp": pointwise(functions.exp),
        "aten.expm1": pointwise(functions.expm1),
        "aten.log": pointwise(functions.log),
        "aten.log1p": pointwise(functions.log1p),
        "aten.tan": pointwise(functions.tan),
        "aten.sinh": pointwise(functions.sinh),
        "aten.cosh": pointwise(functions.cosh),
        "aten.asin": pointwise(functions.asin),
        "aten.acos": pointwise(functions.acos),
        "aten.atan": pointwise(functions.atan),
        "aten.atan2": pointwise(functions.atan2),
        "aten.asinh": pointwise(functions.asinh),
        "aten.acosh": pointwise(functions.acosh),
        "aten.atanh": pointwise(functions.atanh),
        "aten.exp2": pointwise(functions.exp2),
        "aten.log2": pointwise(functions.log2),
        "aten.log10": pointwise(functions.log10),
        "aten.sin": pointwise(functions.sin),
        "aten.cos": pointwise(functions.cos),
        "aten.erf": pointwise(functions.erf),
        "aten.erfc": pointwise(functions.erfc),
    },
    "Comparison and choice": {
        "aten.eq": comparison(lambda x, y: x.equals(y)),
        "aten.ne": comparison(lambda x, y: ~x.equals(y)),
        "aten.lt": comparison(lambda x, y: x < y),
        "aten.le": comparison(lambda x, y: x <= y),
        "aten.gt": comparison(lambda x, y: x > y),
        "aten.ge": comparison(lambda x, y: x >= y),
        "aten.isnan": point.is_nan,
        "aten.isinf": point.classify(lambda x: x.abs().equals(math.inf)),
        "aten.isposinf": point.classify(lambda x: x.equals(math.inf)),
        "aten.isneginf": point.classify(lambda x: x.equals(-math.inf)),
        "aten.signbit": point.classify(lambda x: ~(x.bits(Reg.u32) & 0x80000000).equals(0)),
        "aten.logical_xor": point.logical_xor,
        "aten.where": point.where,
        "aten.masked_fill": point.masked_fill,
        "aten.logical_not": point.logical_not,
        "aten.logical_and": pointwise(lambda x, y: x & y),
        "aten.logical_or": pointwise(lambda x, y: x | y),
        "aten.bitwise_not": pointwise(lambda x: ~x),
        "aten.bitwise_and": pointwise(lambda x, y: x & y),
        "aten.bitwise_or": pointwise(lambda x, y: x | y),
        "aten.bitwise_xor": pointwise(lambda x, y: x ^ y),
    },
    "Activations and their derivatives": {
        "aten.relu": pointwise(lambda x: x.max(0)),
        "aten.softshrink": point.softshrink,
        "aten.softshrink_backward": point.shrink_backward,
        "aten.hardshrink": lambda c, x, level=0.5: point.shrink_backward(c, x, x, level),
        "aten.hardshrink_backward": point.shrink_backward,
        "aten.threshold": point.threshold,
        "aten.threshold_backward": point.threshold_backward,
        "aten.gelu": point.gelu,
        "aten.gelu_backward": point.gelu_backward,
        "aten.tanh": pointwise(functions.tanh),
        "aten.tanh_backward": pointwise(activations.tanh_backward),
        "aten.sigmoid": pointwise(functions.sigmoid),
        "aten.sigmoid_backward": pointwise(activations.sigmoid_backward),
        "aten.silu": pointwise(activations.silu),
        "aten.silu_backward": pointwise(activations.silu_backward),
        "aten.leaky_relu": point.leaky_relu,
        "aten.leaky_relu_backward": point.leaky_relu_backward,
        "aten.elu": point.elu,
        "aten.elu_backward": point.elu_backward,
        "aten.hardtanh": point.hardtanh,
        "aten.hardtanh_backward": point.hardtanh_backward,
        "aten.softplus": point.softplus,
        "aten.softplus_backward": point.softplus_backward,
        "aten.log_sigmoid_forward": point.log_sigmoid,
        "aten.log_sigmoid_backward": point.log_sigmoid_backward,
    },
    "Reductions": {
        "aten.sum": reductions.total,
        "aten.mean": reductions.mean,
        "aten.var": reductions.variance,
        "aten.var_mean": reductions.variance_and_mean,
        "aten.std": reductions.deviation,
        "aten.prod": reductions.product,
        "aten.amax": reductions.extreme("max"),
        "aten.amin": reductions.extreme("min"),
        "aten.max": reductions.maximum,
        "aten.min": reductions.minimum,
        "aten.argmax": reductions.position("argmax"),
        "aten.argmin": reductions.position("argmin"),
        "aten.any": reductions.any_true,
        "aten.all": reductions.all_true,
        "aten.logsumexp": reductions.log_sum_exp,
        "aten.linalg_vector_norm": reductions.vector_norm,
        "aten.norm": reductions.norm,
        "aten.renorm": reductions.renorm,
        "aten._safe_softmax": reductions.safe_softmax,
        "aten._softmax": reductions.softmax,
        "aten._softmax_backward_data": reductions.softmax_backward,
        "aten._log_softmax": reductions.log_softmax,
        "aten._log_softmax_backward_data": reductions.log_softmax_backward,
    },
    "Distances between rows": {
        "aten._cdist_forward": distances.cdist,
        "aten._cdist_backward": distances.cdist_backward,
        "aten._pdist_forward": distances.pdist,
        "aten._pdist_backward": distances.pdist_backward,
    },
    "Normalization": {
        "aten._native_batch_norm_legit": normalization.batch_norm_without_statistics,
        "aten._native_batch_norm_legit_functional": normalization.batch_norm,
        "aten.native_batch_norm_backward": normalization.batch_norm_backward,
        "aten.native_layer_norm": normalization.layer_norm,
        "aten.native_layer_norm_backward": normalization.layer_norm_backward,
        "aten.native_group_norm": normalization.group_norm,
        "aten.native_group_norm_backward": normalization.group_norm_backward,
        "aten._weight_norm_interface": normalization.weight_norm,
        "aten._weight_norm_interface_backward": normalization.weight_norm_backward,
    },
    "Losses": {
        "aten.nll_loss_forward": losses.nll_loss,
        "aten.nll_loss_backward": losses.nll_loss_backward,
        "aten.nll_loss2d_forward": losses.nll_loss,
        "aten.nll_loss2d_backward": losses.nll_loss_backward,
        "aten.mse_loss": losses.distance(losses.squared),
        "aten.mse_loss_backward": losses.distance_backward(losses.squared_slope),
        "aten.smooth_l1_loss": losses.distance(losses.smooth_l1),
        "aten.smooth_l1_loss_backward": losses.distance_backward(losses.smooth_l1_slope),
        "aten.soft_margin_loss": losses.distance(losses.soft_margin),
        "aten.soft_margin_loss_backward": losses.distance_backward(losses.soft_margin_slope),
        "aten.huber_loss": losses.distance(losses.huber),
        "aten.huber_loss_backward": losses.distance_backward(losses.huber_slope),
        "aten.multi_margin_loss": losses.multi_margin,
        "aten.multi_margin_loss_backward": losses.multi_margin_backward,
        "aten.binary_cross_entropy": losses.bce,
        "aten.binary_cross_entropy_backward": losses.bce_backward,
    },
    "Sorting": {
        "aten.sort": sorting.sort,
        "aten.topk": sorting.topk,
        "aten.kthvalue": sorting.kthvalue,
        "aten.median": sorting.median(skip_nan=False),
        "aten.nanmedian": sorting.median(skip_nan=True),
        "aten.searchsorted": indexing.searchsorted,
        "aten.bucketize": indexing.bucketize,
    },
    "Running sums, products and extremes": {
        "aten.cumsum": scans.cumsum,
        "aten.cumprod": scans.cumprod,
        "aten.cummax": scans.cumulative_extreme(largest=True),
        "aten.cummin": scans.cumulative_extreme(largest=False),
        "aten.logcumsumexp": scans.log_cumsum_exp,
    },
    "Indexing by tensors": {
        "aten.embedding": indexing.embedding,
        "aten.embedding_dense_backward": indexing.embedding_backward,
        "aten._embedding_bag": bags.embedding_bag,
        "aten._embedding_bag_forward_only": bags.embedding_bag,
        "aten._embedding_bag_backward": bags.embedding_bag_backward,
        "aten._embedding_bag_per_sample_weights_backward": bags.weights_backward,
        "aten.gather": indexing.gather,
        "aten.scatter": indexing.scatter,
        "aten.scatter_add": indexing.scatter_add,
        "aten.scatter_reduce": indexing.scatter_reduce,
        "aten.index_reduce": indexing.index_reduce,
        "aten.index_copy": indexing.index_copy,
        "aten.index_fill": indexing.index_fill,
        "aten.take": indexing.take,
        "aten.put": indexing.put,
        "aten.masked_scatter": indexing.masked_scatter,
        "aten.masked_scatter_backward": indexing.masked_scatter_backward,
        "aten.index": indexing.index,
        "aten._unsafe_index": indexing.index,
        "aten.index_put": indexing.index_put,
        "aten._unsafe_index_put": indexing.index_put,
        "aten.index_select": indexing.index_select,
        "aten.index_add": indexing.index_add,
    },
    "Views and copies": {
        "aten.alias": shape.same,
        "aten.detach": shape.same,
        "aten.clone": shape.same,
        "aten.lift_fresh_copy": shape.same,
        "aten.copy": shape.copy,
        "aten._to_copy": shape.convert,
        "aten.view": shape.reshape,
        "aten._unsafe_view": shape.reshape,
        "aten.squeeze": shape.reshape,
        "aten.unsqueeze": shape.reshape,
        "aten.as_strided": shape.as_strided,
        "aten.as_strided_copy": shape.as_strided,
        "aten.as_strided_scatter": shape.as_strided_scatter,
        "aten.expand": shape.expand,
        "aten.t": shape.transpose,
        "aten.transpose": shape.transpose,
        "aten.permute": shape.permute,
        "aten.flip": shape.flip,
        "aten.roll": shape.roll,
        "aten.repeat": shape.repeat,
    },
    "Cuts and joins": {
        "aten.slice": shape.slice_,
        "aten.slice_backward": shape.slice_backward,
        "aten.slice_scatter": shape.slice_scatter,
        "aten.select": shape.select,
        "aten.select_backward": shape.select_backward,
        "aten.select_scatter": shape.select_scatter,
        "aten.split": shape.split,
        "aten.split_with_sizes": shape.split,
        "aten.unfold": shape.unfold,
        "aten.unfold_backward": shape.unfold_backward,
        "aten.diag_embed": shape.diag_embed,
        "aten.diagonal": shape.diagonal,
        "aten.diagonal_backward": shape.diagonal_backward,
        "aten.diagonal_scatter": shape.diagonal_scatter,
        "aten.unsafe_split": shape.split,
        "aten.unbind": shape.unbind,
        "aten.cat": shape.cat,
        "aten.stack": shape.stack,
        "aten.constant_pad_nd": shape.constant_pad,
        "aten.tril": shape.triangle(lower=True),
        "aten.triu": shape.triangle(lower=False),
    },
    "Factories": {
        "aten.zeros_like": shape.filled(0),
        "aten.zero": shape.filled(0),
        "aten.ones_like": shape.filled(1),
        "aten.full_like": shape.filled(None),
        "aten.fill": shape.filled(None),
        "aten.new_empty": shape.filled(0),
        "aten.new_zeros": shape.filled(0),
        "aten.new_ones": shape.filled(1),
        "aten.new_full": shape.filled(None),
        "aten.empty": shape.filled(0),
        "aten.empty_strided": shape.filled(0),
        "aten.empty_like": shape.filled(0),
        "aten.new_empty_strided": shape.filled(0),
    },
    "Random numbers": {
        "aten.bernoulli": randomness.bernoulli,
        "aten.exponential": randomness.exponential,
        "aten.native_dropout": randomness.native_dropout,
        "aten.native_dropout_backward": randomness.native_dropout_backward,
        "aten.normal": randomness.normal,
        "aten.normal_functional": randomness.normal_like,
        "aten.rand": randomness.unit_uniform,
        "aten.rand_like": randomness.unit_uniform,
        "aten.randint": randomness.integers,
        "aten.randint_like": randomness.integers,
        "aten.randn": randomness.standard_normal,
        "aten.randn_like": randomness.standard_normal,
        "aten.randperm": randomness.permutation,
        "aten.rrelu_with_noise_backward": randomness.random_relu_backward,
        "aten.rrelu_with_noise_functional": randomness.random_relu,
        "aten.uniform": randomness.uniform,
    },
}

TABLE: dict[str, Rule] = {name: rule for rules in SUBJECTS.values() for name, rule in rules.items()}

STORAGE_ONLY = ("memory_format", "device", "layout", "pin_memory", "dtype", "non_blocking")
# Not to be computed at capture: their elements are arbitrary, or are found by strides, which constants need not keep.
IN_MEMORY = (
    "aten.empty", "aten.empty_strided", "aten.new_empty", "aten.as_strided", "aten.as_strided_copy",
    "aten.as_strided_scatter",
)  # fmt: skip


def lower(graph: fx.GraphModule, inputs: Sequence[Value], c: Context, builder_results: Sequence[int]) -> list[Any]:
    """Write the nodes of `graph` whose results number `builder_results` are needed; returns those results.

    `inputs` stand for the placeholders in order. A result is a Value, a real tensor, or None. Raises CaptureError with
    the operation, the module and the source line where there is no rule or a rule refuses.
    """
    results = next(n for n in graph.graph.nodes if n.op == "output").args[0]
    wanted = [results[i] for i in builder_results]
    needed = _needed([n for n in wanted if isinstance(n, fx.Node)])
    known: dict[fx.Node, Any] = {}
    placeholders = iter(inputs)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(placeholders)
        elif node not in needed:
            continue
        elif node.op == "get_attr":
            known[node] = getattr(graph, str(node.target))
        elif node.op == "call_function":
            known[node] = _call(node, known, c)
    return [known[n] if isinstance(n, fx.Node) else n for n in wanted]


def _needed(wanted: Sequence[fx.Node]) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    stack = list(wanted)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return needed


def _call(node: fx.Node, known: Mapping[fx.Node, Any], c: Context) -> Any:
    args: Any = fx.node.map_arg(node.args, lambda n: known[n])
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: known[n])
    if node.target is operator.getitem:
        return args[0][args[1]]
    origin: Origin = node.meta.get("origin", Origin())
    name = str(getattr(node.target, "overloadpacket", node.target)).replace("gensyn_verify.", "aten.")
    if _known_at_capture(node, name, args, kwargs):
        return node.target(*args, **kwargs)  # type: ignore[operator]
    if name not in TABLE:
        raise CaptureError(f"the operation {node.target} is not supported\nat {origin.describe()}\n{_advice(node)}")
    kwargs = {k: v for k, v in kwargs.items() if k not in STORAGE_ONLY}
    try:
        if kwargs.pop("generator", None) is not None:
            raise CaptureError("a torch.Generator has no place in a program; its numbers come from the task's seed")
        c.types = _result_types(node.meta["val"])
        c.memory = _memory(node)
        with c.g.origin(str(origin)):
            result = TABLE[name](c, *args, **kwargs)
        _check(result, c.types)
    except (CaptureError, ProgramError, LimitError, TypeError) as error:
        raise CaptureError(f"{node.target}: {error}\nat {origin.describe()}") from error
    return result


def _advice(node: fx.Node) -> str:
    """What to do about an operation without a rule."""
    if any(isinstance(v, Tensor) and v.is_complex() for v in torch.utils._pytree.tree_leaves(node.meta["val"])):
        return "a program has no complex numbers: compute with real and imaginary parts, or with cosine and sine"
    return "to support it, add its rule to the table in gensyn_verify/frontend/lowering.py"


def _known_at_capture(node: fx.Node, name: str, args: Any, kwargs: Any) -> bool:
    """Whether PyTorch can compute the node now: no operand is computed by the program and nothing is random."""
    flat = torch.utils._pytree.tree_leaves((args, kwargs))
    tags = getattr(node.target, "tags", ())
    return (
        not any(isinstance(a, Value) for a in flat)
        and torch.Tag.nondeterministic_seeded not in tags
        and name not in IN_MEMORY
    )


def _result_types(val: Any) -> tuple[TensorType, ...]:
    return tuple(tensor_type(v) for v in (val if isinstance(val, (tuple, list)) else (val,)) if isinstance(v, Tensor))


def _memory(node: fx.Node) -> tuple[int, Sequence[int]]:
    """Offset and strides of the first operand."""
    for operand in node.all_input_nodes[:1]:
        tensor = operand.meta.get("val")
        if isinstance(tensor, Tensor):
            return int(tensor.storage_offset()), tensor.stride()
    return 0, ()


def _check(result: Any, types: Sequence[TensorType]) -> None:
    """A rule must give what PyTorch gives; results that nobody asked for are None."""
    results = [r for r in (result if isinstance(result, tuple) else (result,)) if r is not None]
    found = [r.type if isinstance(r, Value) else tensor_type(r) for r in results]
    if found != list(types):
        wanted = ", ".join(map(str, types))
        raise CaptureError(f"the rule gives {', '.join(map(str, found))} where PyTorch gives {wanted}")

"""The samples of PyTorch's own operator tests (OpInfo) as functions of tensors, and which operations are left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.frontend.comparison import (
    ULP,
    Array,
    Engine,
    Function,
    check_accuracy,
    graph_of,
    results_of,
    with_gradients,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo.core import OpInfo, SampleInput

NARROW = (torch.float16, torch.bfloat16)
OPERATIONS: dict[str, OpInfo] = {op.formatted_name: op for op in op_db if op.supports_dtype(torch.float32, "cpu")}

# Whose elements are what lay in memory: only shapes can be compared.
ARBITRARY = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided", "resize_"}


@dataclass(frozen=True)
class Sample:
    """One sample: what it computes, its tensors (those to differentiate by first), and how many of those there are."""

    f: Function
    tensors: list[Tensor]
    leaves: int

    def run(self) -> list[tuple[Array, Array, Array, Array]]:
        """Of every result and gradient: of the engine, of PyTorch, in binary64, and what errors are relative to."""
        outs = results_of(self.f, self.tensors)
        g = torch.Generator().manual_seed(7)
        weights = [torch.randn(o.shape, generator=g) for o in outs]
        signs = [torch.randint(0, 2, t.shape, generator=g) * 2 - 1 for t in [*self.tensors, *weights]]

        def compute(dtype: torch.dtype, shift: float = 0.0) -> list[Array]:
            given = [
                t.to(dtype) * (1 + shift * s) if t.is_floating_point() else t
                for t, s in zip([*self.tensors, *weights], signs, strict=True)
            ]
            n = len(self.tensors)
            results = with_gradients(self.f, given[:n], self.leaves, given[n:])
            return [(t.float() if t.dtype in NARROW else t).numpy(force=True) for t in results]

        stock, exact, moved = compute(torch.float32), compute(torch.float64), compute(torch.float64, ULP)
        examples = [*self.tensors, *weights]
        found = Engine(graph_of(self.f, self.tensors, self.leaves, weights), examples, "cpu")(examples)
        sizes = [_magnitude(e, m) if s.dtype.kind == "f" else e for s, e, m in zip(stock, exact, moved, strict=True)]
        return [(_wide(f, s), s, e, m) for f, s, e, m in zip(found, stock, exact, sizes, strict=True)]


def check(results: Sequence[tuple[Array, Array, Array, Array]]) -> None:
    """Results of one operation: floats are as accurate as PyTorch's, taken together; everything else is equal."""
    floats = [r for r in results if r[1].dtype == np.float32]
    for part in ([floats] if floats else []) + [[r] for r in results if r[1].dtype != np.float32]:
        check_accuracy(*zip(*part, strict=True))


def _wide(found: Array, stock: Array) -> Array:
    """A result in float32 where PyTorch's was narrow; bfloat16 is carried by integers."""
    if found.dtype == np.uint16 and stock.dtype.kind == "f":
        return (found.astype(np.uint32) << 16).view(np.float32)
    return found.astype(np.float32) if found.dtype.kind == "f" else found


def _magnitude(exact: Array, moved: Array) -> Array:
    """What an error is relative to: the result, or what a change of the inputs by one unit does to it, in units."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change = np.abs(moved - exact) / ULP
    return np.asarray(np.abs(exact) + np.where(change < np.inf, change, 0))


def samples(op: OpInfo) -> Iterator[Sample]:
    """All samples of an operation in float32, the same in every run."""
    torch.manual_seed(0)
    for sample in op.sample_inputs("cpu", torch.float32, requires_grad=op.supports_autograd):
        yield _function(op, sample)


def _function(op: OpInfo, sample: SampleInput) -> Sample:
    leaves, structure = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
    tensors = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
    order = sorted(tensors, key=lambda i: not leaves[i].requires_grad)

    def f(*given: Tensor) -> Sequence[Tensor]:
        own: list[Any] = list(leaves)
        for i, t in zip(order, given, strict=True):
            own[i] = t
        first, args, kwargs = pytree.tree_unflatten(own, structure)
        result = sample.output_process_fn_grad(op(first, *args, **kwargs))
        results = [x for x in pytree.tree_leaves(result) if isinstance(x, Tensor)]
        return [torch.zeros_like(x) for x in results] if op.name in ARBITRARY else results

    return Sample(f, [leaves[i].detach() for i in order], sum(leaves[i].requires_grad for i in order))


# ---- what is left out -------------------------------------------------------------------------------------------

FACTORED = "a factorization of a matrix, whose steps depend on its values"
SPECIAL = "a special function without a published program"
RANDOM = "other random numbers than those of PyTorch, from the committed stream"
SHAPES = "the shape of a result, or an index of a view, depends on data"
VALUES = "Python control flow on the values of tensors"
WIDE = "float64, float16 or integers that programs do not have"
COMPLEX = "complex numbers"
SPARSE = "sparse tensors"
CHOICE = "no rule yet: rare in training"
CUDA = "CUDA alone"
ROUNDING = "a result that is mostly rounding error, in PyTorch too, or softmax's second rounding seen by cancellation"

# Operations of which some sample cannot be run, or not be compared; the pattern is found in what it raises.
LEFT_OUT: dict[str, tuple[str, str]] = {}


def _left_out(reason: str, pattern: str, *names: str) -> None:
    LEFT_OUT.update(dict.fromkeys(names, (reason, pattern)))


_left_out(
    SPECIAL, "not supported",
    "acos", "acosh", "asin", "asinh", "atanh", "digamma", "erfc", "erfinv", "i0", "igamma", "igammac", "lgamma",
    "mvlgamma_mvlgamma_p_1", "mvlgamma_mvlgamma_p_3", "mvlgamma_mvlgamma_p_5", "polygamma_polygamma_n_0",
    "polygamma_polygamma_n_1", "polygamma_polygamma_n_2", "polygamma_polygamma_n_3", "polygamma_polygamma_n_4",
    "special_airy_ai", "special_bessel_j0", "special_bessel_j1", "special_bessel_y0", "special_bessel_y1",
    "special_chebyshev_polynomial_t", "special_chebyshev_polynomial_u", "special_chebyshev_polynomial_v",
    "special_chebyshev_polynomial_w", "special_entr", "special_erfcx", "special_hermite_polynomial_h",
    "special_hermite_polynomial_he", "special_i0e", "special_i1", "special_i1e", "special_laguerre_polynomial_l",
    "special_legendre_polynomial_p", "special_log_ndtr", "special_modified_bessel_i0", "special_modified_bessel_i1",
    "special_modified_bessel_k0", "special_modified_bessel_k1", "special_ndtri",
    "special_polygamma_special_polygamma_n_0", "special_scaled_modified_bessel_k0",
    "special_scaled_modified_bessel_k1", "special_shifted_chebyshev_polynomial_t",
    "special_shifted_chebyshev_polynomial_u", "special_shifted_chebyshev_polynomial_v",
    "special_shifted_chebyshev_polynomial_w", "special_spherical_bessel_j0", "special_xlog1py", "special_zeta",
)  # fmt: skip
_left_out(
    RANDOM, "ulp|equal|cauchy|geometric|log_normal|multinomial|randint|derivative",
    "cauchy", "exponential", "geometric", "log_normal", "multinomial",
    "nn_functional_feature_alpha_dropout_with_train", "nn_functional_multi_head_attention_forward",
    "nn_functional_rrelu", "normal", "normal_number_mean", "rand_like", "randint", "randint_like", "randn",
    "randn_like",
)  # fmt: skip
_left_out(
    SHAPES, "nonzero|masked_select|unique|boolean mask|DynamicOutput|histogram",
    "argwhere", "combinations", "histogram", "histogramdd", "index_fill", "index_put", "linalg_lstsq",
    "linalg_lstsq_grad_oriented", "masked_select", "nn_functional_ctc_loss", "nonzero", "nonzero_static", "unique",
    "unique_consecutive",
)  # fmt: skip
_left_out(
    CHOICE, "not supported|no values|uneven",
    "_batch_norm_with_update", "_segment_reduce_lengths", "_segment_reduce_offsets", "as_strided",
    "as_strided_copy", "as_strided_partial_views", "as_strided_scatter", "cdist", "frexp", "grid_sampler_2d",
    "grid_sampler_3d", "hash_tensor", "histc", "index_reduce_amax", "index_reduce_amin", "index_reduce_mean",
    "index_reduce_prod", "mode", "nextafter", "nn_functional_embedding_bag", "nn_functional_fractional_max_pool2d",
    "nn_functional_fractional_max_pool3d", "nn_functional_grid_sample",
    "nn_functional_linear_cross_entropy_chunked", "nn_functional_linear_cross_entropy_chunked_none",
    "nn_functional_max_unpool1d", "nn_functional_max_unpool1d_grad", "nn_functional_max_unpool2d",
    "nn_functional_max_unpool2d_grad", "nn_functional_max_unpool3d", "nn_functional_max_unpool3d_grad",
    "nn_functional_multi_margin_loss", "nn_functional_multilabel_margin_loss", "nn_functional_pdist", "resize_as_",
    "scatter_reduce_prod",
)  # fmt: skip
_left_out(
    FACTORED, "linalg|cholesky|geqrf|lu_|ormqr|triangular|svd|qr|pinv",
    "cholesky", "cholesky_inverse", "cholesky_solve", "geqrf", "linalg_cholesky", "linalg_cholesky_ex",
    "linalg_cond", "linalg_det", "linalg_eigh", "linalg_eigvalsh", "linalg_householder_product", "linalg_inv",
    "linalg_inv_ex", "linalg_ldl_factor", "linalg_ldl_factor_ex", "linalg_ldl_solve", "linalg_lu",
    "linalg_lu_factor", "linalg_lu_factor_ex", "linalg_lu_solve", "linalg_matrix_rank",
    "linalg_matrix_rank_hermitian", "linalg_pinv", "linalg_pinv_hermitian", "linalg_pinv_singular", "linalg_qr",
    "linalg_slogdet", "linalg_solve", "linalg_solve_ex", "linalg_solve_triangular", "linalg_svd", "linalg_svdvals",
    "linalg_tensorinv", "linalg_tensorsolve", "logdet", "lu", "lu_solve", "lu_unpack", "matrix_exp", "norm_nuc",
    "ormqr", "pca_lowrank", "pinverse", "qr", "svd", "svd_lowrank", "triangular_solve",
)  # fmt: skip
_left_out(
    COMPLEX, "(?i)complex|angle|linalg_eig|ZeroTensor",
    "angle", "cdouble", "cfloat", "chalf", "complex", "fft_fft", "fft_fft2", "fft_fftn", "fft_hfft", "fft_hfft2",
    "fft_hfftn", "fft_ifft", "fft_ifft2", "fft_ifftn", "fft_ihfft", "fft_ihfft2", "fft_ihfftn", "fft_irfft",
    "fft_irfft2", "fft_irfftn", "fft_rfft", "fft_rfft2", "fft_rfftn", "linalg_eig", "linalg_eigvals", "polar",
    "stft", "view_as_complex",
)  # fmt: skip
_left_out(
    VALUES, "Data|Guard|data is not allocated|_local_scalar|resize",
    "allclose", "corrcoef", "cov", "equal", "narrow", "nn_functional_gaussian_nll_loss", "tensor_split",
)  # fmt: skip
_left_out(
    SPARSE, "Sparse|_to_sparse",
    "sparse_mm_reduce", "sparse_sampled_addmm", "to_sparse",
)  # fmt: skip
_left_out(
    WIDE, "float64|int8|int16",
    "char", "double", "float_power", "log_softmax_with_dtype",
    "nn_functional_softmin_with_dtype", "short", "softmax_with_dtype", "to",
)  # fmt: skip
_left_out(
    CUDA, "Jiterator",
    "jiterator_2inputs_2outputs", "jiterator_4inputs_with_extra_args", "jiterator_binary",
    "jiterator_binary_return_by_ref", "jiterator_unary",
)  # fmt: skip
_left_out(
    CHOICE, "not supported",
    "expand_copy", "alias_copy", "split_with_sizes_copy", "_chunk_cat", "searchsorted", "unbind_copy", "narrow_copy",
    "view_copy", "permute_copy", "renorm", "squeeze_copy", "t_copy", "unsqueeze_copy", "transpose_copy",
    "_unsafe_masked_index", "_unsafe_masked_index_put_accumulate", "logspace_tensor_overload",
    "linspace_tensor_overload",
)  # fmt: skip
_left_out(
    RANDOM, "ulp",
    "nn_functional_dropout", "nn_functional_dropout2d", "nn_functional_dropout3d", "nn_functional_alpha_dropout",
    "nn_functional_scaled_dot_product_attention",
)  # fmt: skip
_left_out(ROUNDING, "ulp", "nn_functional_normalize", "masked_softmin")

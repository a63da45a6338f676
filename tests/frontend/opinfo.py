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
        """Of every result and gradient: of the engine, of PyTorch, in binary64, and what errors are relative to.

        Where random numbers are drawn, from the committed stream and not from PyTorch's, only shapes can be compared:
        all elements are 0.
        """
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
        graph = graph_of(self.f, self.tensors, self.leaves, weights)
        found = Engine(graph, examples, "cpu")(examples)
        if any(torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ()) for n in graph.graph.nodes):
            return [(np.zeros_like(f), *[np.zeros_like(s)] * 3) for f, s in zip(found, stock, strict=True)]
        sizes = [_magnitude(e, m) if s.dtype.kind == "f" else e for s, e, m in zip(stock, exact, moved, strict=True)]
        return [(_wide(f, s), s, e, m) for f, s, e, m in zip(found, stock, exact, sizes, strict=True)]


def check(results: Sequence[tuple[Array, Array, Array, Array]], factor: float = 1.5) -> None:
    """Results of one operation: floats are as accurate as PyTorch's, taken together; everything else is equal."""
    floats = [r for r in results if r[1].dtype == np.float32]
    for part in ([floats] if floats else []) + [[r] for r in results if r[1].dtype != np.float32]:
        check_accuracy(*zip(*part, strict=True), factor=factor)


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
RANDOM = "draws without a rule: rare in training steps"
SHAPES = "the shape of a result depends on data"
VALUES = "Python or PyTorch branches on the values of tensors"
DTYPES = "float64, or integers that programs do not have"
COMPLEX = "complex numbers"
SPARSE = "sparse tensors"
RARE = "no rule: rare in training"
CUDA = "CUDA alone"

# Of each operation of which some sample is refused: all texts of which one stands in any refusal, with the reason.
REFUSED: dict[str, dict[str, str]] = {}


def _refused(reason: str, names: str, *texts: str) -> None:
    """`aten.x`: the operation has no rule; without texts that of the same name."""
    for name in names.split():
        for text in texts or (f"aten.{name}",):
            found = f"the operation {text}." if text.startswith("aten.") else text
            REFUSED.setdefault(name, {})[found] = reason


_refused(
    SPECIAL,
    "digamma erfinv i0 igamma igammac lgamma special_airy_ai special_bessel_j0 "
    "special_bessel_j1 special_bessel_y0 special_bessel_y1 special_chebyshev_polynomial_t "
    "special_chebyshev_polynomial_u special_chebyshev_polynomial_v special_chebyshev_polynomial_w special_erfcx "
    "special_hermite_polynomial_h special_hermite_polynomial_he special_i0e special_i1 special_i1e "
    "special_laguerre_polynomial_l special_legendre_polynomial_p special_log_ndtr special_modified_bessel_i0 "
    "special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_ndtri "
    "special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t "
    "special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v "
    "special_shifted_chebyshev_polynomial_w special_spherical_bessel_j0 special_zeta",
)
_refused(SPECIAL, "mvlgamma_mvlgamma_p_1 mvlgamma_mvlgamma_p_3 mvlgamma_mvlgamma_p_5", "aten.mvlgamma")
_refused(
    SPECIAL,
    "polygamma_polygamma_n_0 polygamma_polygamma_n_1 polygamma_polygamma_n_2 polygamma_polygamma_n_3 "
    "polygamma_polygamma_n_4 special_polygamma_special_polygamma_n_0",
    "aten.polygamma",
)
_refused(RANDOM, "cauchy geometric log_normal multinomial")
_refused(RARE, "angle frexp hash_tensor histc histogram mode nextafter nonzero_static")
_refused(RARE, "_batch_norm_with_update", "aten._batch_norm_with_update_functional")
_refused(RARE, "_segment_reduce_lengths _segment_reduce_offsets", "aten.segment_reduce")
_refused(RARE, "histogramdd", "aten._histogramdd_bin_edges", "aten._histogramdd_from_bin_tensors")
_refused(RARE, "nn_functional_fractional_max_pool2d", "aten.fractional_max_pool2d")
_refused(RARE, "nn_functional_fractional_max_pool3d", "aten.fractional_max_pool3d")
_refused(RARE, "nn_functional_multilabel_margin_loss", "aten.multilabel_margin_loss_forward")
_refused(RARE, "resize_as_", "aten.resize_as")
_refused(RARE, "linspace_tensor_overload", "aten.linspace")
_refused(RARE, "logspace_tensor_overload", "aten.logspace")
_refused(RARE, "as_strided_partial_views", "reach elements outside of", "are out of bounds for storage")
_refused(
    RARE,
    "nn_functional_linear_cross_entropy_chunked nn_functional_linear_cross_entropy_chunked_none",
    "the operation torch_nn._linear_cross_entropy_batch_chunked",
)
_refused(SHAPES, "argwhere nonzero", "aten.nonzero")
_refused(SHAPES, "combinations", "aten.masked_select")
_refused(SHAPES, "masked_select", "aten.masked_select", "The size of tensor a (u0)")
_refused(SHAPES, "unique", "aten._unique2", "aten.unique_dim")
_refused(SHAPES, "unique_consecutive")
_refused(SHAPES, "repeat_interleave", "aten.repeat_interleave")
_refused(SHAPES, "index_fill", "aten._unique")
_refused(SHAPES, "__getitem__ index_put", "indexing by a boolean mask")
_refused(VALUES, "allclose", "DataDependentOutputException: aten.allclose")
_refused(VALUES, "corrcoef cov equal", "DataDependentOutputException: aten.equal")
_refused(VALUES, "narrow", "aten._local_scalar_dense")
_refused(VALUES, "tensor_split", "its data is not allocated yet", "data-dependent expression")
_refused(
    FACTORED,
    "cholesky cholesky_inverse cholesky_solve geqrf linalg_cholesky_ex linalg_householder_product linalg_inv_ex "
    "linalg_ldl_factor_ex linalg_ldl_solve linalg_lu linalg_lu_factor_ex linalg_lu_solve linalg_pinv linalg_qr "
    "linalg_solve_triangular lu_unpack ormqr triangular_solve",
)
_refused(FACTORED, "linalg_cholesky", "aten.linalg_cholesky_ex")
_refused(FACTORED, "linalg_det", "aten._linalg_det")
_refused(FACTORED, "linalg_eigh linalg_eigvalsh linalg_matrix_rank_hermitian", "aten._linalg_eigh")
_refused(FACTORED, "linalg_inv linalg_matrix_power linalg_tensorinv", "aten.linalg_inv_ex")
_refused(FACTORED, "linalg_ldl_factor", "aten.linalg_ldl_factor_ex")
_refused(FACTORED, "linalg_lstsq linalg_lstsq_grad_oriented", "DynamicOutputShapeException: aten.linalg_lstsq")
_refused(FACTORED, "linalg_lu_factor lu", "aten.linalg_lu_factor_ex")
_refused(FACTORED, "linalg_pinv_hermitian linalg_pinv_singular pinverse", "aten.linalg_pinv")
_refused(FACTORED, "linalg_slogdet logdet", "aten._linalg_slogdet")
_refused(FACTORED, "linalg_solve linalg_solve_ex linalg_tensorsolve", "aten._linalg_solve_ex")
_refused(
    FACTORED,
    "linalg_cond linalg_matrix_norm linalg_matrix_rank linalg_norm linalg_norm_subgradients_at_zero linalg_svd "
    "linalg_svdvals norm_nuc svd",
    "aten._linalg_svd",
)
_refused(FACTORED, "lu_solve", "aten.linalg_lu_solve")
_refused(FACTORED, "matrix_exp", "aten.linalg_matrix_exp")
_refused(FACTORED, "pca_lowrank qr svd_lowrank", "aten.linalg_qr")
_refused(
    COMPLEX,
    "cdouble cfloat complex fft_fft fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_ifftn fft_ihfft fft_ihfft2 fft_ihfftn "
    "fft_rfft fft_rfft2 fft_rfftn linalg_eig linalg_eigvals polar stft view_as_complex",
    "only for real scalar outputs but got torch.complex",
)
_refused(
    COMPLEX,
    "fft_hfft fft_hfft2 fft_hfftn fft_irfft fft_irfft2 fft_irfftn",
    "torch.complex64 has no place in a program",
)
_refused(COMPLEX, "stft", "aten._fft_r2c")
_refused(COMPLEX, "chalf", "not implemented for 'ComplexHalf'")
_refused(
    DTYPES,
    "double empty_like float_power full_like linalg_matrix_rank log_softmax_with_dtype "
    "new_empty new_empty_strided new_full new_ones new_zeros nn_functional_softmin_with_dtype "
    "ones_like rand_like randint randint_like randn_like renorm softmax_with_dtype to zeros_like",
    "torch.float64 has no place in a program",
)
_refused(DTYPES, "short", "torch.int16 has no place in a program")
_refused(SPARSE, "sparse_mm_reduce sparse_sampled_addmm", "can't convert SparseCsr layout tensor to numpy")
_refused(SPARSE, "to_sparse", "aten._to_sparse")
_refused(
    CUDA,
    "jiterator_2inputs_2outputs jiterator_4inputs_with_extra_args jiterator_binary jiterator_binary_return_by_ref "
    "jiterator_unary",
    "Jiterator is only supported on CUDA",
)

# By how much errors may exceed those of PyTorch, where not by 1.5: results that are mostly rounding error in PyTorch
# too, and the gradient of a softmax, whose elements here are rounded twice, seen by cancellation.
FACTORS = {"nn_functional_normalize": 2.0, "nn_functional_batch_norm": 2.0, "masked_softmin": 3.0}

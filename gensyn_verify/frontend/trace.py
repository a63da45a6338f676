"""A PyTorch training step as one flat ATen graph: forward, loss, gradients, changed buffers.

The step runs once on fake tensors (shapes without storage), so nothing is computed, nothing of the model changes and
no random numbers are drawn. A second pass turns in-place operations into pure ones. Every node keeps its `Origin`: the
module that was running and the line of the caller's source. A node of the backward pass has the origin of the forward
operation that it differentiates.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.traceable import Traceable

T = TypeVar("T", bound=Tensor)


@dataclass(frozen=True)
class Origin:
    """Where an ATen operation comes from."""

    module: str = ""  # dotted path of the running module, "" outside of the model
    file: str = ""
    line: int = 0
    backward: bool = False

    def __str__(self) -> str:
        """Short, for listings: `features.0 (net.py:12) backward`."""
        parts = [self.module or "loss", f"({os.path.basename(self.file)}:{self.line})" if self.file else ""]
        return " ".join(p for p in [*parts, "backward" if self.backward else ""] if p)

    def describe(self) -> str:
        """Long, for errors: module path, file, line and the source text."""
        place = f"module {self.module!r}" if self.module else "the loss function"
        if self.backward:
            place = f"the backward pass of {place}"
        if not self.file:
            return place
        source = linecache.getline(self.file, self.line).strip()
        return f"{place}, {self.file}:{self.line}" + (f"\n    {source}" if source else "")


@dataclass(frozen=True)
class Traced:
    """The graph and the meaning of its placeholders and results, in order.

    Placeholders: parameters, buffers, batch leaves, the scale of the loss. Results: the loss itself, the gradient of
    scale * loss by each name in `gradients` (None where the loss does not depend on it), every parameter and every
    buffer after the forward pass.
    """

    graph: fx.GraphModule
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    batch: tuple[str, ...]
    gradients: tuple[str, ...]


class StepModule(nn.Module):
    """Model and loss as one module, so that the tensors of both are found, named and replaced together."""

    def __init__(self, model: nn.Module, loss_fn: Callable[..., Any], loss_takes_model: bool) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn
        self._loss_takes_model = loss_takes_model

    def forward(self, batch: Any) -> Any:
        if self._loss_takes_model:
            return self.loss_fn(self.model, batch)
        inputs, *targets = batch if isinstance(batch, (tuple, list)) else (batch,)
        if isinstance(inputs, Mapping):
            return self.loss_fn(self.model(**inputs), *targets)
        if isinstance(inputs, (tuple, list)):
            return self.loss_fn(self.model(*inputs), *targets)
        return self.loss_fn(self.model(inputs), *targets)


def public_name(name: str) -> str:
    """The name a user knows: tensors of the model without prefix, those of the loss function under `loss_fn.`."""
    return name.removeprefix("model.")


def parameters_of(step: StepModule) -> dict[str, nn.Parameter]:
    """Every parameter once, by public name; a shared one under its first name."""
    return _by_public_name(step.named_parameters())


def buffers_of(step: StepModule) -> dict[str, Tensor]:
    """Every buffer once, persistent or not, by public name."""
    return _by_public_name(step.named_buffers())


def _by_public_name(named: Iterable[tuple[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, tensor in named:
        if public_name(name) in found:
            raise CaptureError(f"model and loss function both have a tensor {public_name(name)!r}; rename one")
        found[public_name(name)] = tensor
    return found


def trace(
    step: StepModule,
    batch: Any,
    batch_names: Sequence[str],
    gradients: Sequence[str],
    autocast: torch.dtype | None = None,
) -> Traced:
    """The ATen graph of one step of `step` on `batch`.

    `batch_names` name the tensors of `batch` in pytree order; `gradients` are the parameters to differentiate by.
    With `autocast` model and loss run under torch.autocast, whose conversions become part of the graph.
    Raises CaptureError where the step cannot be traced: control flow that depends on data, a loss that is no float32
    scalar, a changed tensor that is neither parameter nor buffer.
    """
    private = {public_name(n): n for n, _ in [*step.named_parameters(), *step.named_buffers()]}
    parameters, buffers = parameters_of(step), buffers_of(step)
    leaves, structure = pytree.tree_flatten(batch)
    recorder = _Recorder()

    def one_step(ps: list[Tensor], bs: list[Tensor], xs: list[Tensor], scale: Tensor) -> list[Tensor | None]:
        p = {n: t.detach().requires_grad_(n in gradients) for n, t in zip(parameters, ps, strict=True)}
        tensors = {private[n]: t for n, t in [*p.items(), *zip(buffers, bs, strict=True)]}
        with torch.enable_grad(), recorder:
            with torch.autocast("cpu", autocast) if autocast else nullcontext():
                loss = functional_call(step, tensors, (pytree.tree_unflatten(xs, structure),))
            _check_loss(loss)
            wanted = [p[n] for n in gradients]
            grads = torch.autograd.grad(loss, wanted, scale, allow_unused=True) if wanted else ()
        return [loss.detach(), *grads, *(tensors[private[n]].detach() for n in [*parameters, *buffers])]

    _refuse_modules(step)
    with torch.random.fork_rng(devices=[]), _module_paths(step, recorder):
        try:
            scale = torch.ones(())
            first = recorded(one_step, list(parameters.values()), list(buffers.values()), leaves, scale)
        except CaptureError:
            raise
        except Exception as error:
            advice = "\nshapes and control flow must not depend on the values of tensors" if _needs_data(error) else ""
            raise CaptureError(
                f"the training step cannot be traced at {recorder.origin.describe()}\n"
                f"{type(error).__name__}: {str(error).strip().partition(_BLANK)[0]}{advice}"
            ) from error
        _refuse_hidden_state(first)
        graph = functional(first, [t.detach() for t in (*parameters.values(), *buffers.values(), *leaves, scale)])
    return Traced(graph, tuple(parameters), tuple(buffers), tuple(batch_names), tuple(gradients))


def recorded(f: Callable[..., Any], *arguments: Any) -> fx.GraphModule:
    """The ATen operations that `f` calls on tensors like those of `arguments`, in-place operations among them."""
    table: dict[Any, Any] = {**VISIBLE_CHANGES, **WHOLE}
    trace = make_fx(f, decomposition_table=table, tracing_mode="fake", _allow_non_fake_inputs=True)
    with _plain_kernels(), Traceable():
        return trace(*arguments)


def functional(graph: fx.GraphModule, arguments: Sequence[Tensor]) -> fx.GraphModule:
    """The same computation without in-place operations and with those of `RESTATED` in terms of others."""
    interpreter = _KeepOrigins(graph)

    def pure(*flat: Tensor) -> Any:
        return interpreter.run(*flat, enable_io_processing=False)

    restated = get_decompositions([getattr(torch.ops.aten, name.removeprefix("aten.")) for name in RESTATED])
    trace = make_fx(
        functionalize(pure, remove="mutations"),
        decomposition_table=restated,  # type: ignore[arg-type]  # keyed by overloads, as get_decompositions gives it
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )
    with _plain_kernels():  # as when recorded: the strides of results, on which views depend, follow the kernels
        return trace(*arguments)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Inside, PyTorch calls no fused kernels for attention, transformer layers and recurrent layers."""
    fast, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(onednn)


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    aten = torch.ops.aten._native_batch_norm_legit
    if mean is None or variance is None:
        return aten.no_stats(x, weight, bias, training, momentum, eps)
    return aten.default(x, weight, bias, mean, variance, training, momentum, eps)


# Operations that change an argument without saying so in their schema, as ones that do.
VISIBLE_CHANGES = {torch.ops.aten.native_batch_norm.default: _batch_norm}


# The lowering table has this operation, and PyTorch before 2.13 takes it apart below of where that could be said: under
# a name of its own it stays whole, so that a capture does not depend on the version.
_library: Any = torch.library.Library("gensyn_verify", "DEF")  # type: ignore[no-untyped-call]
_library.define("silu_backward(Tensor gradient, Tensor x) -> Tensor")
_library.impl("silu_backward", torch.ops.aten.silu_backward.default, "CompositeExplicitAutograd")
WHOLE = {torch.ops.aten.silu_backward.default: torch.ops.gensyn_verify.silu_backward.default}


# Operations that PyTorch itself defines by simpler ones, which the lowering table has.
RESTATED = (
    "aten._chunk_cat", "aten._euclidean_dist", "aten._prelu_kernel", "aten._prelu_kernel_backward",
    "aten._unsafe_masked_index", "aten._unsafe_masked_index_put_accumulate", "aten.addmv", "aten.addr",
    "aten.alias_copy", "aten.aminmax", "aten.block_diag", "aten.celu", "aten.channel_shuffle", "aten.count_nonzero",
    "aten.deg2rad", "aten.diagonal_copy", "aten.dist", "aten.expand_copy", "aten.glu", "aten.glu_backward",
    "aten.hardsigmoid", "aten.hardsigmoid_backward", "aten.hardswish", "aten.hardswish_backward", "aten.heaviside",
    "aten.isin", "aten.linalg_cross", "aten.logaddexp", "aten.logaddexp2", "aten.logit", "aten.logit_backward",
    "aten.max_unpool2d", "aten.max_unpool3d", "aten.mish", "aten.mish_backward", "aten.nansum", "aten.narrow_copy",
    "aten.permute_copy", "aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.rad2deg", "aten.rot90", "aten.sinc",
    "aten.special_entr", "aten.special_xlog1py", "aten.split_with_sizes_copy", "aten.squeeze_copy", "aten.std_mean",
    "aten.t_copy", "aten.trace", "aten.transpose_copy", "aten.unbind_copy", "aten.unfold_copy", "aten.unsqueeze_copy",
    "aten.vdot", "aten.view_copy", "aten.xlogy",
)  # fmt: skip


def _needs_data(error: BaseException) -> bool:
    """Whether tracing failed for want of a tensor's values."""
    return "DataDependent" in type(error).__name__ or isinstance(error, DynamicOutputShapeException)


_BLANK = "\n\n"  # what follows in PyTorch's messages is advice for debugging PyTorch


def _refuse_modules(step: nn.Module) -> None:
    for name, module in step.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            raise CaptureError(
                f"module {public_name(name)!r} is SyncBatchNorm, which exchanges statistics between processes; a step "
                "is one program: use BatchNorm on the whole batch, or GroupNorm"
            )


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor):
        raise CaptureError(f"the loss function must return a tensor, found {type(loss).__name__}")
    if loss.dim() != 0 or loss.dtype is not torch.float32:
        raise CaptureError(
            f"the loss must be one float32 number, found {loss.dtype} of shape {list(loss.shape)}; "
            "reduce it with .mean() or .sum()"
        )
    if not loss.requires_grad:
        raise CaptureError("the loss does not depend on any parameter that the optimizer trains")


_TORCH = os.path.dirname(torch.__file__) + os.sep
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _caller() -> tuple[str, int]:
    """File and line of the innermost frame that belongs to neither torch nor this package."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE, "<frozen", "<eval_with_key>")) and not file.endswith("contextlib.py"):
            return file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes the origin of every traced node into its meta, and refuses changes to tensors outside of the step."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules: list[str] = []
        self.origin = Origin()
        self._forward: dict[int, Origin] = {}  # autograd sequence number -> origin of the forward operation
        self._drawn: dict[tuple[str, bytes], Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.origin = self._locate()
        _refuse_outside_change(func, args, self.origin)
        with _origin_of_new_nodes(self.origin):
            if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
                return self._draw(func, args, kwargs or {})
            return func(*args, **(kwargs or {}))

    def _draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Random numbers: fresh ones, but the same again from the same state of PyTorch's generator.

        Activation checkpointing sets the state back before it computes a second time what the forward pass drew.
        """
        key = str(func), _next_generator_state()
        written = [value for value in _written(func, args) if isinstance(value, Tensor)]
        if key not in self._drawn:
            result = func(*args, **kwargs)
            self._drawn[key] = pytree.tree_map_only(Tensor, torch.clone, (result, written))
            return result
        result, values = pytree.tree_map_only(Tensor, torch.clone, self._drawn[key])
        for target, value in zip(written, values, strict=True):
            target.copy_(value)
        return written[0] if func._schema.name.endswith("_") else result

    def _locate(self) -> Origin:
        node = torch._C._current_autograd_node()
        if node is not None:
            forward = self._forward.get(node._sequence_nr(), Origin())
            return Origin(forward.module, forward.file, forward.line, backward=True)
        origin = Origin(self.modules[-1] if self.modules else "", *_caller())
        self._forward.setdefault(torch.autograd._get_sequence_nr() - 1, origin)
        return origin


def _next_generator_state() -> bytes:
    """The state of PyTorch's generator, which advances: fake tensors alone would leave it as it is."""
    with _disable_current_modes():
        state = torch.get_rng_state()
        torch.rand(())
        return bytes(state.numpy())


@contextmanager
def _origin_of_new_nodes(origin: Origin | None) -> Iterator[None]:
    """Nodes that the proxy tracer appends inside get `origin`."""
    mode = get_proxy_mode()
    if mode is None:
        yield
        return
    graph = mode.tracer.graph
    before = len(graph.nodes)
    yield
    for _, node in zip(range(len(graph.nodes) - before), reversed(graph.nodes), strict=False):
        if origin is not None:
            node.meta["origin"] = origin


class _KeepOrigins(fx.Interpreter):
    """Runs the first graph and hands each node's origin to the nodes it becomes."""

    def run_node(self, n: fx.Node) -> Any:
        with _origin_of_new_nodes(n.meta.get("origin")):
            return super().run_node(n)


@contextmanager
def _module_paths(step: StepModule, recorder: _Recorder) -> Iterator[None]:
    """While inside, `recorder.modules` is the stack of paths of the running modules."""
    handles = []

    def enter(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            recorder.modules.append(path)
            if any(isinstance(x, PackedSequence) for x in inputs):
                raise CaptureError(
                    f"module {path!r} gets a PackedSequence, whose shape depends on the lengths of the sequences; pad "
                    "them to one length and leave the padding out of the loss (a mask, ignore_index)"
                )

        return hook

    def leave(*_: Any) -> None:
        recorder.modules.pop()

    for name, module in step.named_modules():
        if name:
            path = name if name == "model" else public_name(name)
            handles.append(module.register_forward_pre_hook(enter(path), prepend=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _written(func: Any, args: Sequence[Any]) -> Iterator[Any]:
    """The arguments that an operation changes in place."""
    if isinstance(func, torch._ops.OpOverload):
        for declared, value in zip(func._schema.arguments, args, strict=False):
            if declared.alias_info is not None and declared.alias_info.is_write:
                yield value


_HIDDEN = "a tensor that is neither parameter nor buffer; make it state with register_buffer"


def _refuse_outside_change(func: Any, args: Sequence[Any], origin: Origin) -> None:
    """A real tensor among fake ones comes from outside of the step: changing it would also change the user's tensor."""
    for value in _written(func, args):
        if type(value) in (Tensor, nn.Parameter):
            raise CaptureError(f"{func} changes {_HIDDEN}\nat {origin.describe()}")


def _refuse_hidden_state(graph: fx.GraphModule) -> None:
    """The same for views of outside tensors, which are already fake: found by following views to their base."""
    for node in graph.graph.nodes:
        for value in _written(node.target, node.args):
            base = value
            while isinstance(base, fx.Node) and base.op == "call_function" and getattr(base.target, "is_view", False):
                base = base.args[0]
            if isinstance(base, fx.Node) and base.op == "get_attr":
                origin = node.meta.get("origin", Origin())
                raise CaptureError(f"{node.target} changes {_HIDDEN}\nat {origin.describe()}")

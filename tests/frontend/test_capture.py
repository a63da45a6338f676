"""What capturing accepts, refuses and leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import rnn
from torch.utils.checkpoint import checkpoint

from gensyn_verify import backends
from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend import Captured, compile, trace_step
from gensyn_verify.program import ops

X, Y = torch.linspace(-1, 1, 12).reshape(4, 3), torch.tensor([0, 1, 1, 0])


def capture(model: nn.Module, loss: Any = F.cross_entropy, batch: Any = (X, Y), **options: Any) -> Captured:
    return trace_step(model, loss, torch.optim.SGD(model.parameters(), lr=0.1), batch, **options)


def run_once(captured: Captured, batch: Any) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
    """Loss and next state of one step."""
    executor = backends.make("cpu", captured.program)
    executor.load(captured.state)
    metrics = executor.step(captured.batch_arrays(batch), captured.schedule(1))
    return float(metrics["loss"]), {name: a.copy() for name, a in executor.state().items()}


def assert_step_is_that_of_pytorch(
    model: nn.Module, loss: Callable[..., Tensor] = F.cross_entropy, batch: Any = (X, Y)
) -> dict[str, np.ndarray[Any, Any]]:
    """One SGD step on the engine against one in PyTorch; returns the engine's next state."""
    captured = capture(model, loss, batch)
    found, state = run_once(captured, batch)
    stock = copy.deepcopy(model)
    optimizer = torch.optim.SGD(stock.parameters(), lr=0.1)
    wanted = loss(stock(batch[0]), *batch[1:])
    wanted.backward()
    optimizer.step()
    np.testing.assert_allclose(found, wanted.item(), rtol=1e-5)
    for name, parameter in stock.named_parameters():
        np.testing.assert_allclose(state[f"param.{name}"], parameter.detach().numpy(), rtol=1e-4, atol=1e-6)
    for name, buffer in stock.named_buffers():
        np.testing.assert_allclose(state[f"buffer.{name}"], buffer.numpy(), rtol=1e-5)
    return state


class Module(nn.Module):
    """A linear layer and a forward pass given as a function."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **tensors: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self._forward = forward
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


# ---- names, types, conventions ----------------------------------------------------------------------------------


def test_names_of_state_batch_and_scalars() -> None:
    model = Module(lambda m, x: m.layer(x) + m.shift, shift=torch.tensor([0.5, 0.25]))
    optimizer = torch.optim.AdamW(model.parameters())
    captured = trace_step(model, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])), optimizer, (X, Y))
    slots = [f"optim.{slot}.layer.{name}" for slot in ("exp_avg", "exp_avg_sq") for name in ("bias", "weight")]
    named = {"buffer.loss_fn.weight", "buffer.shift", "param.layer.bias", "param.layer.weight", "step", *slots}
    state = captured.program.inputs_of("state")
    assert named == {name for name in state if not name.startswith("constant.")}
    assert state.keys() == captured.state.keys()
    assert {n: str(t) for n, t in captured.program.inputs_of("batch").items()} == {"x": "f32[4,3]", "y": "i32[4]"}
    assert captured.batch_names == ("x", "y")
    assert list(captured.program.outputs_of("metric")) == ["loss"]


@pytest.mark.parametrize(
    ("batch", "names"),
    [
        ((X, Y), ("x", "y")),
        ((X, Y, X[:, 0]), ("batch.0", "batch.1", "batch.2")),
        (((X, X), Y), ("batch.0", "batch.1", "batch.2")),
        ({"pixels": X, "label": Y}, ("pixels", "label")),
        (X, ("batch.0",)),
    ],
)
def test_batches_of_any_structure(batch: Any, names: tuple[str, ...]) -> None:
    model = Module(lambda m, x: m.layer(x))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        leaves = torch.utils._pytree.tree_leaves(batch)
        return sum((model(t).square().mean() for t in leaves if t.shape == X.shape), torch.zeros(()))

    captured = capture(model, loss, batch, loss_takes_model=True)
    assert captured.batch_names == names
    assert run_once(captured, batch)[0] == pytest.approx(loss(model, batch).item(), rel=1e-6)


def test_inputs_spread_over_the_arguments_of_the_model() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.layer(a - 2 * b)  # type: ignore[no-any-return]

    model = Two()
    wanted = F.cross_entropy(model(X, X * X), Y).item()
    assert run_once(capture(model, batch=((X, X * X), Y)), ((X, X * X), Y))[0] == pytest.approx(wanted, rel=1e-6)
    named = ({"a": X, "b": X * X}, Y)
    assert run_once(capture(model, batch=named), named)[0] == pytest.approx(wanted, rel=1e-6)


def test_byte_images_stay_bytes() -> None:
    model = Module(lambda m, x: m.layer(x.float() / 255))
    images = torch.arange(12, dtype=torch.uint8).reshape(4, 3) * 20
    captured = capture(model, batch=(images, Y))
    assert str(captured.program.inputs_of("batch")["x"]) == "u8[4,3]"
    assert_step_is_that_of_pytorch(model, batch=(images, Y))


def test_origins_name_module_and_line() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    captured = capture(model)
    dots = [n.origin for n in captured.program.nodes if isinstance(n.op, ops.Dot)]
    assert [o.split()[0] for o in dots] == ["0", "2", "2", "2", "0"]
    assert [o.endswith("backward") for o in dots] == [False, False, True, True, True]
    assert all("test_capture.py:" in o for o in dots)


def test_capturing_twice_gives_the_same_program() -> None:
    first, second = (capture(Module(lambda m, x: F.gelu(m.layer(x)))) for _ in range(2))
    assert first.program.digest == second.program.digest


# ---- models with pitfalls ---------------------------------------------------------------------------------------


def test_tied_weights_are_one_state_entry() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.encode = nn.Linear(3, 5, bias=False)
            self.decode = nn.Linear(5, 3, bias=False)
            self.decode.weight = nn.Parameter(torch.randn(3, 5))
            self.again = nn.Linear(3, 5, bias=False)
            self.again.weight = self.encode.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.decode(self.again(self.decode(self.encode(x))))  # type: ignore[no-any-return]

    state = assert_step_is_that_of_pytorch(Tied(), F.mse_loss, (X, X))
    assert [n for n in state if n.startswith("param.")] == ["param.decode.weight", "param.encode.weight"]


def test_frozen_and_unused_parameters_do_not_change() -> None:
    model = Module(lambda m, x: m.layer(x))
    model.unused = nn.Linear(2, 2)
    model.layer.weight.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
    captured = trace_step(model, F.cross_entropy, optimizer, (X, Y))
    _, state = run_once(captured, (X, Y))
    changed = {n for n in state if n.startswith("param.") and not np.array_equal(state[n], captured.state[n])}
    assert changed == {"param.layer.bias"}
    assert not any("unused" in n or "weight" in n for n in state if n.startswith("optim."))


def test_layout_of_parameters_in_memory_does_not_matter() -> None:
    model = Module(lambda m, x: m.layer(x))
    model.layer.weight = nn.Parameter(torch.randn(3, 2).t())
    assert not model.layer.weight.is_contiguous()
    assert_step_is_that_of_pytorch(model)
    step = compile(model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.layer.weight.detach().clone()
    step((X, Y))
    assert model.layer.weight.stride() == (1, 2)
    assert not torch.equal(model.layer.weight, before)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.layer(x).mul_(2).add_(1).relu_(),
        lambda m, x: m.layer(x.t().contiguous().t().permute(0, 1)),
        lambda m, x: m.layer(x) * torch.tensor(0.1) + 2**-30 + 1e-40,
        lambda m, x: m.layer(x) * m.layer(x).detach().exp(),
        lambda m, x: torch.stack([m.layer(row) for row in x]),
        lambda m, x: m.layer(x)[torch.arange(4).flip(0)],
        lambda m, x: m.layer(x) + torch.full((), 0.3, dtype=torch.float64),
        lambda m, x: m.layer(x) - m.layer(x).logsumexp(1, keepdim=True),
        lambda m, x: F.normalize(m.layer(x), dim=1),
        lambda m, x: F.pairwise_distance(m.layer(x)[:, None], x[:, None, :2]).expand(4, 2),
    ],
    ids=["in-place", "permuted-views", "literals", "detached", "loop", "constant-index", "wide-scalar", "logsumexp",
         "normalize", "distance"],
)  # fmt: skip
def test_forward_passes(forward: Callable[[Any, Tensor], Tensor]) -> None:
    assert_step_is_that_of_pytorch(Module(forward))


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: F.cross_entropy(z, y, reduction="none").mean(),
        lambda z, y: F.cross_entropy(z, y, reduction="sum"),
        lambda z, y: -z.log_softmax(1)[torch.arange(4), y].mean(),
        lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, 2).float()),
        lambda z, y: (z.softmax(1).gather(1, y[:, None]) - 1).square().sum().sqrt(),
    ],
)
def test_losses(loss: Callable[..., Tensor]) -> None:
    assert_step_is_that_of_pytorch(Module(lambda m, x: m.layer(x)), loss)


def test_buffers_change_as_in_pytorch() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        if m.training:
            m.count += 1
            m.average.mul_(0.9).add_(x.mean(0), alpha=0.1)
            m.last = x.detach() * 2
        return m.layer(x - m.average)  # type: ignore[no-any-return]

    buffers = {"count": torch.tensor(3), "average": torch.ones(3), "last": torch.zeros(4, 3)}
    state = assert_step_is_that_of_pytorch(Module(forward, **buffers))
    assert state["buffer.count"] == 4
    quiet = Module(forward, **{n: b.clone() for n, b in buffers.items()}).eval()
    assert run_once(capture(quiet), (X, Y))[1]["buffer.count"] == 3


@pytest.mark.parametrize("training", [True, False])
def test_normalization_layers(training: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.LayerNorm(16),
        nn.BatchNorm1d(16),
        nn.Linear(16, 2),
    ).train(training)
    assert_step_is_that_of_pytorch(model, batch=(torch.randn(4, 1, 3, 3), Y))


def test_attention() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.attention(x, x, x, need_weights=False)
            return self.out(y.mean(1))  # type: ignore[no-any-return]

    assert_step_is_that_of_pytorch(Attention(), batch=(torch.randn(4, 5, 8), Y))


def test_weights_changed_by_the_forward_pass_are_what_the_optimizer_updates() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            m.layer.weight.clamp_(-0.2, 0.2)
        return m.layer(x)  # type: ignore[no-any-return]

    assert_step_is_that_of_pytorch(Module(forward))


@pytest.mark.parametrize("label", [2, -1, 1000])
def test_a_label_outside_of_the_classes_gives_a_nan_loss(label: int) -> None:
    model = Module(lambda m, x: m.layer(x))
    bad = torch.tensor([0, label, 1, 0])
    assert np.isnan(run_once(capture(model, batch=(X, bad)), (X, bad))[0])


def test_ignored_labels_count_for_nothing() -> None:
    assert_step_is_that_of_pytorch(Module(lambda m, x: m.layer(x)), batch=(X, torch.tensor([0, -100, 1, -100])))


def test_dropout_draws_new_numbers_every_step_and_the_same_ones_again() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.25))
    model.scale = nn.Parameter(torch.ones(()))
    x = torch.ones(8, 1000)

    def loss(model: Any, batch: Tensor) -> Tensor:
        return (model(batch) * model.scale).mean()

    captured = capture(model, loss, x, loss_takes_model=True, seed=7)
    assert captured.state["seed"].tolist() == [7, 0]
    losses = []
    for _ in range(2):
        executor = backends.make("cpu", captured.program)
        executor.load(captured.state)
        batch = captured.batch_arrays(x)
        losses.append([float(executor.step(batch, {"group0.learning_rate": np.float32(0)})["loss"]) for _ in range(3)])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3
    assert all(abs(one - 1) < 0.03 for one in losses[0])  # 6 standard deviations


class Recomputed(nn.Module):
    """The same random layers twice, recomputed in the backward pass or not."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.RReLU(), nn.Linear(8, 3), nn.AlphaDropout(0.5))
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = checkpoint(self.part, x, use_reentrant=False) if self.recompute else self.part(x)
        return x


def test_recomputed_layers_draw_the_numbers_of_the_forward_pass() -> None:
    states = []
    for recompute in (False, True):
        captured = capture(Recomputed(recompute), F.mse_loss, (X, X), seed=3)
        assert sum(isinstance(n.op, ops.Random) for n in captured.program.nodes) == 6
        states.append(run_once(captured, (X, X))[1])
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name])


# ---- capturing changes nothing ----------------------------------------------------------------------------------


def test_capturing_leaves_everything_as_it_was() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.register_buffer("count", torch.tensor(0))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return torch.special.i0(F.dropout(self.conv(x))).flatten(1) + torch.rand(())

    model = Noisy()
    hooks = [dict(m._forward_hooks) | dict(m._forward_pre_hooks) for m in model.modules()]
    optimizer = torch.optim.Adam(model.parameters())
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    x, y = torch.randn(2, 1, 4, 4), torch.tensor([0, 1])
    batch = x.clone(), y.clone()
    generator = torch.get_rng_state()
    with pytest.raises(CaptureError):  # torch.special.i0 is not in the table
        trace_step(model, F.cross_entropy, optimizer, (x, y))
    assert torch.equal(torch.get_rng_state(), generator)
    after = model.state_dict(), optimizer.state_dict()
    assert all(torch.equal(before[0][n], after[0][n]) for n in before[0])
    assert before[1] == after[1]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x, batch[0])
    assert torch.equal(y, batch[1])
    assert hooks == [dict(m._forward_hooks) | dict(m._forward_pre_hooks) for m in model.modules()]


def test_capturing_works_without_gradient_mode() -> None:
    with torch.no_grad():
        captured = capture(Module(lambda m, x: m.layer(x)))
    assert not np.array_equal(run_once(captured, (X, Y))[1]["param.layer.weight"], captured.state["param.layer.weight"])


# ---- refusals ---------------------------------------------------------------------------------------------------


def fold(x: Tensor) -> Tensor:
    return torch.lgamma(x)  # the line that the message must name


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return fold(x)


def test_an_unsupported_operation_is_named_with_module_and_line() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU(), Inner()))
    with pytest.raises(CaptureError) as error:
        capture(model)
    line = fold.__code__.co_firstlineno + 1
    assert str(error.value) == (
        "the operation aten.lgamma.default is not supported\n"
        f"at module '1.1', {__file__}:{line}\n"
        "    return torch.lgamma(x)  # the line that the message must name\n"
        "to support it, add its rule to the table in gensyn_verify/frontend/lowering.py"
    )


outside = torch.zeros(2)


def _changes_a_closure(m: Any, x: Tensor) -> Tensor:
    outside.add_(1)
    return m.layer(x) + outside  # type: ignore[no-any-return]


def _changes_a_view_of_a_closure(m: Any, x: Tensor) -> Tensor:
    outside[0] = 1
    return m.layer(x) + outside  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: m.layer(x) if x.sum() > 0 else m.layer(-x), "must not depend on the values"),
        (lambda m, x: m.layer(x) * x.max().item(), "must not depend on the values"),
        (lambda m, x: m.layer(x[x[:, 0] > 0]), "must not depend on the values"),
        (lambda m, x: m.layer(x).double().sum(1, keepdim=True).expand(4, 2).float(), "float64 has no place"),
        (lambda m, x: torch.fft.fft(m.layer(x)).real, "is not supported(.|\n)*real and imaginary parts"),
        (lambda m, x: torch.zeros(4, 2), "does not depend on any parameter"),
        (_changes_a_closure, "neither parameter nor buffer; make it state with register_buffer"),
        (_changes_a_view_of_a_closure, "neither parameter nor buffer; make it state with register_buffer"),
    ],
)
def test_forward_passes_that_are_refused(forward: Callable[[Any, Tensor], Tensor], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        capture(Module(forward))
    assert not outside.any()


def test_modules_that_are_refused() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(3, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            packed = rnn.pack_padded_sequence(x[None], torch.tensor([3]), batch_first=True)
            return self.layer(packed)[0].data  # type: ignore[no-any-return]

    with pytest.raises(CaptureError, match=r"'layer' gets a PackedSequence.*pad them to one length"):
        capture(Packed())
    with pytest.raises(CaptureError, match=r"'1' is SyncBatchNorm.*use BatchNorm"):
        capture(nn.Sequential(nn.Linear(3, 2), nn.SyncBatchNorm(2)))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X.double(), Y), "batch 'x': torch.float64 has no place in a program.*float\\(\\)"),
        ((X, Y + (1 << 40)), "int64 values are kept as int32.*found 1099511627776"),
        ((X, 3), "batch leaf 1 is int"),
        ((X.numpy(), Y), "batch leaf 0 is a NumPy array"),
        ({"x": X, "y": Y}, "loss_takes_model=True"),
        ((X[:, :2], Y), "cannot be traced at module 'layer'"),
    ],
)
def test_batches_that_are_refused(batch: Any, message: str) -> None:
    model = Module(lambda m, x: m.layer(x))
    with pytest.raises(CaptureError, match=message):
        run_once(capture(model, batch=batch), batch)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda z, y: F.cross_entropy(z, y, reduction="none"), "one float32 number, found torch.float32 of shape"),
        (lambda z, y: 3.0, "must return a tensor, found float"),
        (lambda z, y: z.detach().sum(), "does not depend on any parameter"),
    ],
)
def test_losses_that_are_refused(loss: Callable[..., Any], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        capture(Module(lambda m, x: m.layer(x)), loss)


class OwnSgd(torch.optim.SGD):
    pass


def _with_hook(p: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(p, lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            torch.optim.LBFGS,
            "optimizer torch.optim.lbfgs.LBFGS is not supported; supported are SGD, Adam, AdamW.*register",
        ),
        (OwnSgd, "OwnSgd is not supported"),
        (lambda p: torch.optim.Adam(p, capturable=True), "group 0: option capturable=True"),
        (lambda p: torch.optim.SGD(p, lr=0.1, differentiable=True), "group 0: option differentiable=True"),
        (lambda p: torch.optim.SGD([nn.Parameter(torch.zeros(7))], lr=0.1), "shape \\[7\\] is not in the model"),
        (_with_hook, "step hooks"),
    ],
)
def test_optimizers_that_are_refused(make: Callable[..., torch.optim.Optimizer], message: str) -> None:
    model = Module(lambda m, x: m.layer(x))
    with pytest.raises(CaptureError, match=message):
        trace_step(model, F.cross_entropy, make(list(model.parameters())), (X, Y))


def test_gradient_hooks_are_refused() -> None:
    model = Module(lambda m, x: m.layer(x))
    model.layer.weight.register_hook(lambda g: g * 2)
    with pytest.raises(CaptureError, match=r"layer\.weight has gradient hooks"):
        capture(model)


def test_a_compiled_step_refuses_what_changed_since_its_capture() -> None:
    model = Module(lambda m, x: m.layer(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = compile(model, F.cross_entropy, optimizer)
    step((X, Y))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with pytest.raises(CaptureError, match=r"batch 'x' is f32\[3,3\].*captured for f32\[4,3\].*drop_last=True"):
        step((X[:3], Y[:3]))
    with pytest.raises(CaptureError, match="int64 values are kept as int32"):
        step((X, Y + (1 << 40)))
    model.eval()
    with pytest.raises(CaptureError, match=r"train\(\) and eval\(\)"):
        step((X, Y))
    model.train()
    model.layer.bias.requires_grad_(False)
    with pytest.raises(CaptureError, match="replaced, frozen or unfrozen"):
        step((X, Y))
    model.layer.bias.requires_grad_(True)
    optimizer.param_groups[0]["momentum"] = 0.5
    with pytest.raises(CaptureError, match=r"group 0: momentum was 0\.9 .* and is 0\.5 now"):
        step((X, Y))
    optimizer.param_groups[0]["momentum"] = 0.9
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    step((X, Y))
    assert (step.steps, step.reloads) == (2, 0)
    optimizer.state.clear()
    with pytest.raises(CaptureError, match=r"state of layer.* was replaced: it counts 0 updates, 1 were made"):
        step((X, Y))


def test_names_shared_by_model_and_loss_function_are_refused() -> None:
    model = Module(lambda m, x: m.layer(x))
    model.loss_fn = nn.CrossEntropyLoss(weight=torch.ones(2))
    with pytest.raises(CaptureError, match=r"both have a tensor 'loss_fn\.weight'"):
        capture(model, nn.CrossEntropyLoss(weight=torch.ones(2)))

"""Convolutions found again in programs: pad, window, reshape, dot as one call of torch's convolution.

The frontend writes a convolution as padding, windows and a product (frontend/rules/convolution.py). Three shapes of
that come back as one call, because vendors have kernels for them:

    windows    weight [O, k] x windows [N, k, P]: the convolution itself, and the gradient by the input, where zeros
               may stand between the places (a transposed convolution)
    grouped    the same for groups [G, O/G, k] x [G, k, N P], with the turn of the result that follows
    weight     grad [O, N P] x windows [C K, N P], transposed: the gradient by the weight

Anything else stays windows, which are views, and a product. A call replaces the last node of its chain; what the chain
computed before is left out where nobody else reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gensyn_verify.backends.vendor.kernels import run_layout
from gensyn_verify.backends.vendor.precision import Rounding
from gensyn_verify.backends.vendor.tensors import narrow, widen
from gensyn_verify.program import ops
from gensyn_verify.program.program import Program
from gensyn_verify.program.types import Dtype, Shape

Call = Callable[[Sequence[Tensor]], Tensor]
_FORWARD = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
_TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


@dataclass(frozen=True)
class Windows:
    """Windows of `kernel` over the spatial axes of value `x`, which is `source` padded by `pad` or not at all."""

    x: int
    source: int
    pad: ops.Pad | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.kernel)


class Finder:
    """Looks up what computed a value."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._node = {
            first: node for node, first in zip(program.nodes, program.first_value, strict=True) if len(node.types) == 1
        }
        self.types = program.value_types

    def op(self, v: int, kind: type[ops.Op]) -> tuple[ops.Op, int] | None:
        """The operation of class `kind` that computed value `v`, and its first input."""
        node = self._node.get(v)
        return (node.op, node.inputs[0]) if node is not None and type(node.op) is kind else None

    def dot(self, v: int) -> tuple[ops.Dot, int, int] | None:
        node = self._node.get(v)
        return (node.op, *node.inputs) if node is not None and isinstance(node.op, ops.Dot) else None  # type: ignore[return-value]

    def windows(self, v: int, lead: int) -> Windows | None:
        """Windows over all axes but `lead`, under any reshape."""
        reshaped = self.op(v, ops.Reshape)
        place = v if reshaped is None else reshaped[1]
        found = self.op(place, ops.Window)
        if found is None:
            return None
        window, x = found
        assert isinstance(window, ops.Window)
        rank = len(window.size)
        if len(self.types[x].shape) != lead + rank:
            return None
        out = self.types[place].shape[lead + rank :]

        def windows(pad: ops.Pad | None, source: int) -> Windows:
            return Windows(x, source, pad, window.size, window.stride, window.dilation, out)

        whole = windows(*self.padded(self.uncut(x, lead), lead))
        if _padding(self, whole, lead) is None:  # what was cut off does matter
            return windows(*self.padded(x, lead))
        return whole

    def padded(self, v: int, lead: int) -> tuple[ops.Pad | None, int]:
        """The padding that ends in value `v`, zeros around spatial axes alone, and what it pads."""
        found = self.op(v, ops.Pad)
        if found is not None and isinstance(found[0], ops.Pad) and _plain(found[0], lead):
            return found[0], found[1]
        return None, v

    def uncut(self, v: int, lead: int) -> int:
        """What value `v` is the beginning of along spatial axes: a convolution may stop before the end by itself."""
        cut = self.op(v, ops.Slice)
        if cut is None or not isinstance(cut[0], ops.Slice) or any(cut[0].start) or set(cut[0].step) != {1}:
            return v
        return cut[1] if self.types[v].shape[:lead] == self.types[cut[1]].shape[:lead] else v


def _padding(f: Finder, w: Windows, lead: int) -> tuple[int, ...] | None:
    """What torch calls padding, where w has it: as many places fit with equally many zeros at both ends.

    The frontend leaves out zeros that no window reaches, so its own ends may differ.
    """
    if w.pad is not None and any(w.pad.interior):
        return None
    low = (0,) * w.rank if w.pad is None else w.pad.low[lead:]
    fitting = tuple(
        (n + 2 * lo - d * (k - 1) - 1) // s + 1
        for n, lo, d, k, s in zip(f.types[w.source].shape[lead:], low, w.dilation, w.kernel, w.stride, strict=True)
    )
    return low if fitting == w.out else None


def _plain(pad: ops.Pad, lead: int) -> bool:
    """Zeros around spatial axes only."""
    return pad.fill == 0 and not any((*pad.low[:lead], *pad.high[:lead], *pad.interior[:lead]))


@dataclass(frozen=True)
class Convolution:
    """One call: from the values `inputs` to the value that the chain ends in."""

    inputs: tuple[int, ...]
    call: Call


def find(finder: Finder, v: int, operand: Rounding, every_value: bool = False) -> Convolution | None:
    """The convolution that computes value `v`, if it is one; `operand` rounds what is multiplied.

    With `every_value` it ends in the dot of its chain, so that no value of the program goes missing; the bits are the
    same, and of grouped convolutions some copies more.
    """
    grouped = _grouped_dot if every_value else _grouped
    return _windows(finder, v, operand) or grouped(finder, v, operand) or _weight(finder, v, operand)


def _windows(f: Finder, v: int, operand: Rounding) -> Convolution | None:
    """dot(weight [O, k], reshape(windows [N, C, *K, *P])) -> [N, O, P]."""
    dot = f.dot(v)
    if dot is None or dot[0].transpose_a or dot[0].transpose_b:
        return None
    op, a, b = dot
    w = f.windows(b, 2)
    if w is None or w.rank > 3 or len(f.types[a].shape) != 2:
        return None
    images, channels = f.types[w.x].shape[:2]
    if f.types[b].shape != (images, channels * math.prod(w.kernel), math.prod(w.out)):
        return None
    return _correlation(f, w, a, operand, 1, f.types[v].shape, op.dtype)


def _grouped(f: Finder, v: int, operand: Rounding) -> Convolution | None:
    """permute(reshape(dot(weight [G, O/G, k], columns [G, k, N P])), (1, 0, 2)) -> [N, O, P]."""
    turned = f.op(v, ops.Permute)
    reshaped = None if turned is None else f.op(turned[1], ops.Reshape)
    if turned is None or reshaped is None or getattr(turned[0], "axes", None) != (1, 0, 2):
        return None
    found = _grouped_windows(f, reshaped[1])
    if found is None:
        return None
    op, a, w, images = found
    shape = (images, math.prod(f.types[a].shape[:2]), math.prod(w.out))
    if f.types[v].shape != shape:
        return None
    return _correlation(f, w, a, operand, f.types[a].shape[0], shape, op.dtype)


def _grouped_dot(f: Finder, v: int, operand: Rounding) -> Convolution | None:
    """dot(weight [G, O/G, k], columns [G, k, N P]) -> [G, O/G, N P]."""
    found = _grouped_windows(f, v)
    if found is None:
        return None
    op, a, w, images = found
    shape = (images, math.prod(f.types[a].shape[:2]), math.prod(w.out))
    convolution = _correlation(f, w, a, operand, f.types[a].shape[0], shape, op.dtype)

    def call(inputs: Sequence[Tensor]) -> Tensor:
        return convolution.call(inputs).transpose(0, 1).reshape(f.types[v].shape)

    return Convolution(convolution.inputs, call)


def _grouped_windows(f: Finder, v: int) -> tuple[ops.Dot, int, Windows, int] | None:
    """The product `v` of weights [G, O/G, k] and columns [G, k, N P]: the dot, weights, windows, number of images."""
    dot = f.dot(v)
    if dot is None or dot[0].transpose_a or dot[0].transpose_b:
        return None
    op, a, b = dot
    columns = f.op(b, ops.Reshape)
    swapped = None if columns is None else f.op(columns[1], ops.Permute)
    w = None if swapped is None else f.windows(swapped[1], 2)
    if swapped is None or w is None or w.rank > 3 or len(f.types[a].shape) != 3:
        return None
    images, channels = f.types[w.x].shape[:2]
    groups, _, k = f.types[a].shape
    if (
        getattr(swapped[0], "axes", None) != (1, 2, 0, 3)
        or channels % groups
        or k != channels // groups * math.prod(w.kernel)
        or f.types[swapped[1]].shape != (images, groups, k, math.prod(w.out))
        or f.types[b].shape != (groups, k, images * math.prod(w.out))
    ):
        return None
    return op, a, w, images


def _correlation(
    f: Finder, w: Windows, a: int, operand: Rounding, groups: int, shape: Shape, dtype: Dtype
) -> Convolution:
    """Windows of `w` times the weights [O, k] or [G, O/G, k], value `a`."""
    turned = _turned(f, a, w.rank)
    spread = w.pad is not None and any(w.pad.interior)
    cropping = _cropping(f, w) if spread or turned is not None else None
    if cropping is not None:  # the gradient of a convolution, which torch calls a transposed one
        return _transposed(f, w, a, turned, cropping, operand, groups, shape, dtype)
    types, padded, channels = (f.types[w.source].dtype, f.types[a].dtype), f.types[w.x], f.types[w.x].shape[1] // groups
    padding = _padding(f, w, 2)
    pad = w.pad if padding is None else None
    pads = padding or (0,) * w.rank

    def call(inputs: Sequence[Tensor]) -> Tensor:
        x, weight = inputs
        if pad is not None:
            x = run_layout(pad, [x], padded.shape, padded.dtype)
        x, weight = operand(widen(x, types[0])), operand(widen(weight, types[1]))
        weight = weight.reshape(-1, channels, *w.kernel)
        y = _FORWARD[w.rank](x, weight, None, list(w.stride), list(pads), list(w.dilation), groups)
        return narrow(y.reshape(shape), dtype)

    return Convolution((w.source, a), call)


def _transposed(
    f: Finder,
    w: Windows,
    a: int,
    turned: int | None,
    cropping: tuple[list[int], list[int], list[int]],
    operand: Rounding,
    groups: int,
    shape: Shape,
    dtype: Dtype,
) -> Convolution:
    """torch turns the weights itself: it gets those of value `turned`, or those of `a` turned back."""
    stride, crop, more = cropping
    weights = a if turned is None else turned
    types, channels = (f.types[w.source].dtype, f.types[weights].dtype), f.types[w.x].shape[1] // groups
    spatial = list(range(2, 2 + w.rank))

    def call(inputs: Sequence[Tensor]) -> Tensor:
        x, weight = (operand(widen(x, d)) for x, d in zip(inputs, types, strict=True))
        outputs = weight.numel() // (groups * channels * math.prod(w.kernel))
        weight = weight.reshape(groups, outputs, channels, *w.kernel).transpose(1, 2).flatten(0, 1)
        weight = weight.flip(spatial) if turned is None else weight
        y = _TRANSPOSED[w.rank](x, weight, None, stride, crop, more, groups, list(w.dilation))
        return narrow(y.reshape(shape), dtype)

    return Convolution((w.source, weights), call)


def _turned(f: Finder, a: int, rank: int) -> int | None:
    """The weights [.., .., *K] of which value `a` is the reshaped mirror image along every spatial axis."""
    reshaped = f.op(a, ops.Reshape)
    cut = None if reshaped is None else f.op(reshaped[1], ops.Slice)
    if cut is None or not isinstance(cut[0], ops.Slice) or len(cut[0].step) != 2 + rank:
        return None
    whole = cut[0].shape == f.types[cut[1]].shape
    return cut[1] if whole and cut[0].step == (1, 1, *(-1,) * rank) else None


def _cropping(f: Finder, w: Windows) -> tuple[list[int], list[int], list[int]] | None:
    """Stride, padding and output padding of the transposed convolution; None where torch does not take them."""
    none = (0,) * w.rank
    low, high, gaps = (none,) * 3 if w.pad is None else (w.pad.low[2:], w.pad.high[2:], w.pad.interior[2:])
    crop = [d * (k - 1) - lo for d, k, lo in zip(w.dilation, w.kernel, low, strict=True)]
    more = [hi - lo for lo, hi in zip(low, high, strict=True)]
    stride = [gap + 1 for gap in gaps]
    out = tuple(
        (n - 1) * s - 2 * c + d * (k - 1) + 1 + m
        for n, s, c, d, k, m in zip(f.types[w.source].shape[2:], stride, crop, w.dilation, w.kernel, more, strict=True)
    )
    fits = all(c >= 0 and 0 <= m < max(s, d) for c, m, s, d in zip(crop, more, stride, w.dilation, strict=True))
    return (stride, crop, more) if fits and set(w.stride) == {1} and out == w.out else None


def _weight(f: Finder, v: int, operand: Rounding) -> Convolution | None:
    """dot(grad [(G,) O/G, N P], windows [(G,) C/G K, N P], transposed) of x [C, N, *S], windows over (1, *K)."""
    dot = f.dot(v)
    if dot is None or dot[0].transpose_a or not dot[0].transpose_b:
        return None
    op, a, b = dot
    gathered = f.op(a, ops.Reshape)
    swapped = None if gathered is None else f.op(gathered[1], ops.Permute)
    w = f.windows(b, 1)
    if swapped is None or w is None or not 2 <= w.rank <= 3 or (w.kernel[0], w.stride[0], w.dilation[0]) != (1, 1, 1):
        return None
    if w.pad is not None and not _plain(w.pad, 2):
        return None
    turned = f.op(w.source, ops.Permute)
    rank = w.rank - 1
    swap = (1, 0, *range(2, 2 + rank))
    if turned is None or getattr(turned[0], "axes", None) != swap or getattr(swapped[0], "axes", None) != swap:
        return None
    grad, x = swapped[1], turned[1]
    kernel, stride, dilation = list(w.kernel[1:]), list(w.stride[1:]), list(w.dilation[1:])
    padding = _padding(f, w, 1)
    images, channels = f.types[x].shape[:2]
    outputs, places = f.types[grad].shape[1], f.types[grad].shape[2:]
    shape = f.types[v].shape
    groups = shape[0] if len(shape) == 3 else 1
    k = images * math.prod(places)
    lead = () if len(shape) == 2 else (groups,)
    if (
        padding is None
        or (images, *places) != w.out
        or f.types[a].shape != (*lead, outputs // groups, k)
        or f.types[b].shape != (*lead, channels // groups * math.prod(kernel), k)
    ):
        return None
    types = (f.types[grad].dtype, f.types[x].dtype)
    like, low = (outputs, channels // groups, *kernel), list(padding[1:])

    def call(inputs: Sequence[Tensor]) -> Tensor:
        g, x = (operand(widen(t, d)) for t, d in zip(inputs, types, strict=True))
        weight = x.new_empty(like)  # its shape is all that counts
        _, found, _ = torch.ops.aten.convolution_backward(
            g, x, weight, None, stride, low, dilation, False, [0] * rank, groups, [False, True, False]
        )
        return narrow(found.reshape(shape), op.dtype)

    return Convolution((grad, x), call)

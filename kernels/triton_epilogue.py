"""A dot and the maps behind it as the source of one Triton kernel, in which elements of c are stored when these ran.

The chains of c are those of triton_dot. What a map hands to the next stays in a register.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gensyn_verify.backends.device.plan import Epilogue, Operand, View, collapse, private_at
from gensyn_verify.kernels import triton_dot, triton_map, triton_scalar
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype

NUMBERS = ("m", "n", "leading", "last", "a_batch", "a_m", "a_k", "b_batch", "b_k", "b_n")  # of triton_dot.tile
CONSTANTS = ("A", "B", "M", "N", "BLOCK", "UNROLLED")
NVIDIA = {"maxnreg": 128}  # as many as triton_dot has; more, for the maps, would leave fewer threads for the chains


@dataclass(frozen=True)
class EpilogueKernel:
    """kernel(a, b, *pointers to `views`, *NUMBERS, *CONSTANTS), with the programs of triton_dot.dot_kernel."""

    source: str
    views: tuple[View, ...]

    @cached_property
    def kernel(self) -> Any:
        return triton_map.compile_source(self.source, triton_scalar, triton_dot)


def epilogue_kernel(call: Epilogue, programs: Sequence[ScalarProgram]) -> EpilogueKernel:
    pointers: dict[View, str] = {}
    names = {call.dot.c: "total"}  # of what the kernel computes, by offset
    lines = []

    def pointer(view: View) -> str:
        return pointers.setdefault(View(view.offset, view.dtype, ()), f"x{len(pointers)}")

    def store(view: View) -> None:
        if private_at(call, view.offset) is None:
            value = f'narrow({names[view.offset]}, "{view.dtype.name}")'
            lines.append(f"tl.store({pointer(view)} + e, {value}, mask=inside)")

    store(View(call.dot.c, Dtype.f32, ()))
    for number, one in enumerate(call.maps):
        scalar, v = programs[one.program], f"v{number}_"
        shape, strides = collapse(one.shape, [view.strides for view in one.inputs])
        for i, (view, steps) in enumerate(zip(one.inputs, strides, strict=True)):
            operand = Operand(view.dtype, steps)
            if view.offset in names:
                x = triton_map.stored_text(names[view.offset], view.dtype)
            else:
                x = triton_map.load_text(pointer(view), operand, (0, *shape[1:]))
            lines.append(f"{v}{i} = {x}")
        lines += triton_map.program_lines(scalar, v)
        for view, output in zip(one.outputs, scalar.outputs, strict=True):
            names[view.offset] = f"{v}{output}"
            store(view)
    arguments = ", ".join(["a", "b", *pointers.values(), *NUMBERS, *(f"{c}: tl.constexpr" for c in CONSTANTS)])
    head = [
        f"def kernel({arguments}):",
        f"    total, e, inside = tile({', '.join(['a', 'b', *NUMBERS, *CONSTANTS])})",
    ]
    return EpilogueKernel("\n".join([*head, *(f"    {line}" for line in lines)]) + "\n", tuple(pointers))

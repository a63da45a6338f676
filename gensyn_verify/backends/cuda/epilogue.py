"""Maps in place of the store of a dot: their instructions put into the PTX of a dot kernel.

Where csrc/cuda/dot.cu is about to store an element of c, its PTX has a comment with two registers, the element and its
position in c (a register of 64 bits). The instructions of the maps' scalar programs go there: what they compute takes
the element's place, and is stored as an output of the last map; other outputs they store themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gensyn_verify.backends.cuda.ptx import NAN, Body, address, compute, digest, index, load, parameter, store
from gensyn_verify.backends.device.plan import Epilogue, View, collapse, private_at
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype

_MARK = re.compile(r"// gv_epilogue (%\w+), (%\w+)")


def stored(call: Epilogue) -> View | None:
    """The output that takes the place of c."""
    for view in call.maps[-1].outputs:
        if view.dtype.is_float and private_at(call, view.offset) is None:
            return view
    return None


def views(call: Epilogue) -> list[View]:
    """Whose addresses the kernel takes as parameters: what the maps read from outside, then what is stored beside c."""
    inside = {call.dot.c, *(v.offset for m in call.maps for v in m.outputs)}
    read = [v for m in call.maps for v in m.inputs if v.offset not in inside]
    return [*read, *_beside(call)]


def _beside(call: Epilogue) -> list[View]:
    written = [View(call.dot.c, Dtype.f32, (1,)), *(v for m in call.maps for v in m.outputs)]
    return [v for v in written if v != stored(call) and private_at(call, v.offset) is None]


def head(module: str) -> str:
    """What stands before the entries of a module."""
    return module[: module.index(".visible .entry")]


def with_epilogue(module: str, kernel: str, call: Epilogue, programs: Sequence[ScalarProgram]) -> tuple[str, str]:
    """The name and the text of an entry of a module, with the maps in it.

    It takes the parameters of the kernel, then the position in c of the first element that it computes, then the
    addresses of `views`.
    """
    found = re.search(rf"^\.visible \.entry {kernel}\(\n(.*?)\n\)\n(.*?)^\{{\n(.*?)^\}}\n", module, re.S | re.M)
    assert found is not None, kernel
    given, directives, code = found.groups()
    body = Body("gv_")
    count = 1 + len(views(call))
    first = body.new("d")
    body.add(f"ld.param.u64 {first}, [gv_0]")
    bases = [parameter(body, f"gv_{n}") for n in range(1, count)]
    hoisted, body.lines = body.lines, []
    _element(body, first, bases, call, programs)
    lines = "\n".join(body.lines)
    # Every place has the same registers: none of them is read behind it.
    code = _MARK.sub(lambda mark: lines.replace("VALUE", mark[1]).replace("POSITION", mark[2]).lstrip(), code)
    code = "\n".join([*body.registers(), *hoisted, code])
    parameters = ",\n".join([given, *(f"\t.param .u64 gv_{n}" for n in range(count))])
    name = f"{kernel}__{digest(parameters + code)}"
    return name, f".visible .entry {name}(\n{parameters}\n)\n{directives}{{\n{code}}}\n"


def _element(body: Body, first: str, bases: Sequence[str], call: Epilogue, programs: Sequence[ScalarProgram]) -> None:
    count = call.dot.batch * call.dot.m * call.dot.n
    place, value, nan = body.new("d"), body.new("r"), body.new("p")
    body.add(f"add.u64 {place}, POSITION, {first}; mov.b32 {value}, VALUE")
    body.add(f"setp.nan.f32 {nan}, {value}, {value}; selp.b32 {value}, {NAN}, {value}, {nan}")
    addresses = iter(bases)
    have = {call.dot.c: value}
    for one in call.maps:
        shape, strides = collapse(one.shape, [v.strides for v in one.inputs])
        values = []
        for view, steps in zip(one.inputs, strides, strict=True):
            if view.offset in have:
                values.append(have[view.offset])
            else:
                at = address(body, view.dtype, next(addresses), index(body, place, shape, steps, count))
                values.append(load(body, view.dtype, at))
        results = compute(body, programs[one.program], values)
        have.update((v.offset, result) for v, result in zip(one.outputs, results, strict=True))
    for view in _beside(call):
        store(body, view.dtype, address(body, view.dtype, next(addresses), place), have[view.offset])
    last = stored(call)
    if last is not None:
        body.add(f"mov.b32 VALUE, {have[last.offset]}")

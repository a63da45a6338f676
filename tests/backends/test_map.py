"""map: native kernels against the definition, and scalar operations against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import check_against_reference
from strategies import broadcastable, random_tensor, scalar_programs, storage

from gensyn_verify import _native
from gensyn_verify.program import Dtype, Program, Reg, ScalarProgram, TensorType, ops
from gensyn_verify.program.program import Input, Node, Output
from gensyn_verify.program.published import PUBLISHED

NARROW = {Reg.f32: Dtype.bf16, Reg.i32: Dtype.i32, Reg.u32: Dtype.u8, Reg.boolean: Dtype.boolean}


def one_map(scalar: ScalarProgram, types: list[TensorType], shape: tuple[int, ...], dtypes: list[Dtype]) -> Program:
    """A program of one map node, every output a metric."""
    inputs = tuple(Input("batch", f"x{n:02}", t) for n, t in enumerate(types))
    op = ops.Map(0, shape, tuple(dtypes))
    node = Node(op, tuple(range(len(types))), tuple(TensorType(d, shape) for d in dtypes))
    outputs = tuple(Output("metric", f"y{n:02}", len(types) + n) for n in range(len(dtypes)))
    return Program(inputs, (scalar,), (node,), outputs)


def check(
    scalar: ScalarProgram, types: list[TensorType], shape: tuple[int, ...], dtypes: list[Dtype], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    program = one_map(scalar, types, shape, dtypes)
    check_against_reference(program, {i.name: random_tensor(rng, i.type.dtype, i.type.shape) for i in program.inputs})


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_random_scalar_programs_give_the_bits_of_the_definition(data: st.DataObject) -> None:
    scalar = data.draw(scalar_programs())
    shape = tuple(data.draw(st.lists(st.integers(0, 9) | st.sampled_from([16, 33]), max_size=4)))
    types = [TensorType(data.draw(storage(r)), data.draw(broadcastable(shape))) for r in scalar.inputs]
    dtypes = [data.draw(storage(r)) for r in scalar.output_types]
    check(scalar, types, shape, dtypes, data.draw(st.integers(0, 1 << 32)))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("compiled", [True, False])
def test_compiled_programs_and_the_virtual_machine_give_the_bits_of_the_definition(name: str, compiled: bool) -> None:
    scalar = PUBLISHED[name]
    _native.use_published(compiled)
    try:
        for seed, shape in enumerate([(5,), (64,), (3, 700), (2, 3, 16)]):
            types = [TensorType(Dtype[r.name], shape) for r in scalar.inputs]
            check(scalar, types, shape, [Dtype[r.name] for r in scalar.output_types], seed)
            narrow = [TensorType(NARROW[r], shape[-1:]) for r in scalar.inputs]
            check(scalar, narrow, shape, [NARROW[r] for r in scalar.output_types], seed)
    finally:
        _native.use_published(True)

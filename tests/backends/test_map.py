"""map: native kernels against the definition, and scalar operations against exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import exact_numerics
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import ISAS, check_against_reference, machine
from strategies import broadcastable, random_tensor, scalar_programs, special_words, storage

from gensyn_verify import _native, backends
from gensyn_verify.backends.arrays import CARRIER
from gensyn_verify.program import (
    Dtype,
    Program,
    ProgramBuilder,
    Reg,
    Scalar,
    ScalarBuilder,
    ScalarProgram,
    TensorType,
    functions,
    ops,
)
from gensyn_verify.program.program import Input, Node, Output
from gensyn_verify.program.published import PUBLISHED
from gensyn_verify.program.scalar import OPERATIONS, Constant, Instruction

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


UNARY = [
    functions.exp,
    functions.expm1,
    functions.log,
    functions.log1p,
    functions.sigmoid,
    functions.tanh,
    functions.erf,
]


@pytest.mark.parametrize("outer", UNARY)
@pytest.mark.parametrize("compiled", [True, False])
def test_published_programs_inside_larger_ones_keep_their_bits(
    outer: Callable[[Scalar], Scalar], compiled: bool
) -> None:
    _native.use_published(compiled)
    try:
        for n, inner in enumerate(UNARY):
            b = ScalarBuilder()
            x, y = b.input(), b.input()
            inside = inner(x * y)
            result = outer(inside + x) * 0.5
            exponent = (functions.exp(x - y).bits(Reg.u32) >> 23).bits(Reg.i32)
            scalar = b.build(result, b.select(x < y, inside, functions.exp(x)), exponent)
            types = [TensorType(Dtype.f32, (3, 100)), TensorType(Dtype.f32, (3, 1))]
            check(scalar, types, (3, 100), [Dtype.f32, Dtype.f32, Dtype.i32], n)
    finally:
        _native.use_published(True)


def test_a_part_of_a_published_program_is_none() -> None:
    """The steps of exp but the last, and exp with another constant, must not be taken for exp."""
    exp = PUBLISHED["exp"]
    for value in range(1 + len(exp.constants), 1 + len(exp.constants) + len(exp.code)):
        if exp.value_types[value] is Reg.f32:
            scalar = ScalarProgram(exp.inputs, exp.constants, exp.code, (value,))
            check(scalar, [TensorType(Dtype.f32, (70,))], (70,), [Dtype.f32], value)
    for n, c in enumerate(exp.constants):
        if c.reg is Reg.f32 and c.bits != 0x7F800000 and c.bits + 1 not in {d.bits for d in exp.constants}:
            changed = (*exp.constants[:n], Constant(c.reg, c.bits + 1), *exp.constants[n + 1 :])
            scalar = ScalarProgram(exp.inputs, changed, exp.code, exp.outputs)
            check(scalar, [TensorType(Dtype.f32, (70,))], (70,), [Dtype.f32], n)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_exact_on_boundary_and_random_operands(name: str) -> None:
    """Against integers alone, which share nothing with the definition."""
    op = OPERATIONS[name]
    rng = np.random.default_rng(op.code)
    columns = []
    for reg in op.operands:
        special = rng.choice(special_words(reg), 500)
        anything = rng.integers(0, 2 if reg is Reg.boolean else 1 << 32, 500)
        near = rng.choice([0x3F800000, 0x4B000000, 0x00800000], 500) + rng.integers(-8, 8, 500)  # close to each other
        parts = [special, anything, near if reg is Reg.f32 else anything[::-1]]
        columns.append(np.concatenate([*parts, rng.permutation(np.concatenate(parts))[:200]]).astype(np.uint32))
    operation = exact_numerics.OPERATIONS[name]
    wanted = [operation(*(int(a) for a in args)) for args in zip(*columns, strict=True)]
    if op.result is Reg.f32:
        wanted = [exact_numerics.NAN if exact_numerics.is_nan(w) else w for w in wanted]
    types = [TensorType(Dtype[r.name], columns[0].shape) for r in op.operands]
    scalar = ScalarProgram(op.operands, (), (Instruction(name, tuple(range(len(types)))),), (len(types),))
    program = one_map(scalar, types, columns[0].shape, [Dtype[op.result.name]])
    inputs = {
        i.name: c.astype(np.bool_) if i.type.dtype is Dtype.boolean else c.view(CARRIER[i.type.dtype])
        for i, c in zip(program.inputs, columns, strict=True)
    }
    for isa in ISAS:
        with machine(isa):
            found = backends.evaluate(program, inputs)["y00"]
            words = found.astype(np.uint32) if found.dtype == np.bool_ else found.view(np.uint32)
            wrong = np.flatnonzero(words != np.array(wanted, np.uint32))
            assert not len(wrong), (
                f"{isa}: {name} of {[hex(c[wrong[0]]) for c in columns]} gives {words[wrong[0]]:#x}, "
                f"expected {wanted[wrong[0]]:#x}"
            )


def test_the_native_build_has_the_operations_of_the_definition() -> None:
    assert _native.operation_names() == [name.replace(".", "_") for name in OPERATIONS]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_maps_read_views_and_long_rows_in_place(data: st.DataObject) -> None:
    """Permuted, sliced, reversed, windowed and broadcast inputs of every dtype, rows above and below the block size."""
    dtype = data.draw(st.sampled_from(list(Dtype)))
    shape = data.draw(st.sampled_from([(3, 5, 40), (2, 700), (4, 513), (70, 9), (6, 4, 4, 8)]))
    g = ProgramBuilder()
    x = g.input("batch", "x", TensorType(dtype, shape))
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    last = len(shape) - 1
    lows = (*(0,) * last, 1)
    views = [
        x,
        g.permute(x, axes),
        g.slice(x, lows, (*shape[:last], (shape[last] - 1) // 2), (*(1,) * last, 2)),
        g.slice(x, tuple(d - 1 for d in shape), shape, (-1,) * len(shape)),
        g.slice(x, (0,) * len(shape), (1, *shape[1:])),
        g.slice(x, (0,) * len(shape), (*shape[:last], 1)),
        g.window(x, (2,), (3,), (1,)),
    ]
    y = data.draw(st.sampled_from(views))
    other = data.draw(st.sampled_from([v for v in views if broadcasts(v.shape, y.shape)]))
    same = {Reg.boolean: lambda a, b: a ^ b, Reg.f32: lambda a, b: a.max(b)}.get(dtype.reg, lambda a, b: a + b)
    g.output("metric", "y", g.map(same, y, other, dtype=dtype))
    seed = data.draw(st.integers(0, 1 << 32))
    check_against_reference(g.build(), {"x": random_tensor(np.random.default_rng(seed), dtype, shape)})


def broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) <= len(b) and all(x in (1, y) for x, y in zip(reversed(a), reversed(b), strict=False))

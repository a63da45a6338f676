"""Programs and scalar programs: what is accepted, what is refused and with which words."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from gensyn_verify.errors import LimitError, ProgramError
from gensyn_verify.program import (
    Dtype,
    Input,
    Node,
    Output,
    Program,
    ProgramBuilder,
    Reg,
    ScalarBuilder,
    ScalarProgram,
    TensorType,
    ops,
)
from gensyn_verify.program.listing import listing
from gensyn_verify.program.scalar import MAX_INSTRUCTIONS, OPERATIONS, Constant, Instruction, bits_f32, f32_bits

F = Dtype.f32
MATRIX = TensorType(F, (3, 4))


def small(**changes: object) -> Program:
    """x -> relu(x) . x^T, one state entry; with fields replaced."""
    relu = ScalarProgram((Reg.f32,), (Constant(Reg.f32, 0),), (Instruction("max.f32", (0, 1)),), (2,))
    parts: dict[str, object] = {
        "inputs": (Input("state", "w", MATRIX), Input("batch", "x", MATRIX)),
        "scalar_programs": (relu,),
        "nodes": (
            Node(ops.Map(0, (3, 4), (F,)), (1,), (MATRIX,)),
            Node(ops.Dot(False, True, F), (2, 1), (TensorType(F, (3, 3)),)),
        ),
        "outputs": (Output("state", "w", 2), Output("metric", "m", 3)),
    }
    return Program(**{**parts, **changes})  # type: ignore[arg-type]


def test_the_program_package_imports_neither_torch_nor_numpy_nor_native_code() -> None:
    code = (
        "import sys, gensyn_verify.program, gensyn_verify.program.listing, gensyn_verify.program.functions;"
        "print([m for m in ('torch', 'numpy', 'gensyn_verify._native') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (Input("batch", "x", MATRIX), Input("state", "w", MATRIX))}, "not sorted"),
        ({"inputs": (Input("state", "w", MATRIX), Input("state", "w", MATRIX))}, "not sorted"),
        ({"inputs": (Input("weights", "w", MATRIX), Input("batch", "x", MATRIX))}, "role 'weights'"),
        ({"inputs": (Input("state", "../w", MATRIX), Input("batch", "x", MATRIX))}, "is no name"),
        ({"inputs": (Input("state", "w", MATRIX), Input("batch", "x", TensorType(F, (3, -4))))}, "negative"),
        ({"outputs": (Output("metric", "m", 3),)}, "state input 'w' has no next value"),
        ({"outputs": (Output("state", "w", 3),)}, r"next state is f32\[3,3\]; the state input is f32\[3,4\]"),
        ({"outputs": (Output("state", "v", 2), Output("state", "w", 2))}, "no such state input"),
        ({"outputs": (Output("state", "w", 99),)}, "is value 99; only 0 to 3 exist"),
        ({"nodes": (Node(ops.Map(0, (3, 4), (F,)), (2,), (MATRIX,)),)}, "node 0 .Map.: reads value 2; only 0 to 1"),
        ({"nodes": (Node(ops.Map(7, (3, 4), (F,)), (1,), (MATRIX,)),)}, "scalar program 7 does not exist"),
        ({"nodes": (Node(ops.Map(0, (3, 5), (F,)), (1,), (MATRIX,)),)}, "does not broadcast"),
        ({"nodes": (Node(ops.Map(0, (3, 4), (Dtype.i32,)), (1,), (MATRIX,)),)}, "do not store"),
        ({"nodes": (Node(ops.Dot(False, False, F), (0, 1), (MATRIX,)),)}, "inner dimensions differ: 4 of .* against 3"),
        ({"nodes": (Node(ops.Dot(False, True, F), (0, 1), (MATRIX,)),)}, r"its inputs give f32\[3,3\]"),
    ],
)
def test_a_program_that_breaks_a_rule_is_refused(changes: dict[str, object], message: str) -> None:
    small()
    with pytest.raises(ProgramError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (ops.Reduce(0, (1, 0), F), [MATRIX], "not ascending"),
        (ops.Reduce(1, (0,), F), [TensorType(F, (0, 2))], "over no values"),
        (ops.Reduce(3, (0,), F), [MATRIX], "gives i32"),
        (ops.Reduce(9, (0,), F), [MATRIX], "unknown"),
        (ops.Gather(), [MATRIX, MATRIX], "index tensor must be i32"),
        (ops.ScatterAdd(3, Dtype.i32), [MATRIX, TensorType(Dtype.i32, (3,))], "cannot add f32 into i32"),
        (ops.Random(0, (4,)), [TensorType(Dtype.u32, ()), TensorType(Dtype.u32, ())], r"seed u32\[2\]"),
        (ops.Concat(0), [MATRIX, TensorType(F, (3, 5))], "does not fit"),
        (ops.Sort(), [TensorType(Dtype.boolean, (3,))], "takes numbers"),
        (ops.Sort(), [TensorType(F, ())], "of a scalar"),
        (ops.Sort(), [TensorType(Dtype.u8, (1 << 32,))], "limit is 2"),
        (ops.Scan(0, (), (F,)), [MATRIX], "over a scalar"),
        (ops.Scan(0, (5, 4), (F,)), [TensorType(Dtype.bf16, (4,))], "begins is f32"),
        (ops.Scan(0, (5, 4), (F,)), [TensorType(F, (5, 4))], "does not broadcast to .4."),
        (ops.Scan(0, (5, 4), (F,)), [TensorType(F, (4,))], "scalar program 0 does not exist"),
        (ops.Dot(False, False, F), [TensorType(F, (2, 3, 4)), TensorType(F, (5, 4, 3))], "batch dimensions differ"),
    ],
)
def test_an_operation_that_does_not_fit_its_inputs_is_refused(
    op: ops.Op, types: list[TensorType], message: str
) -> None:
    with pytest.raises(ProgramError, match=message):
        op.infer(types, ())


def test_absurd_sizes_are_refused_by_arithmetic_alone() -> None:
    with pytest.raises(LimitError, match="2\\^36"):
        small(inputs=(Input("state", "w", TensorType(F, (1 << 20, 1 << 20))), Input("batch", "x", MATRIX)))
    with pytest.raises(LimitError, match="rank 9"):
        TensorType(F, (1,) * 9).check()
    g = ProgramBuilder()
    for i in range(500):
        g.output("metric", f"m{i}", g.full((1 << 34,), float(i)))
    with pytest.raises(LimitError, match="2\\^44"):
        g.build()


def test_one_random_stream_cannot_be_drawn_twice() -> None:
    seed, step = TensorType(Dtype.u32, (2,)), TensorType(Dtype.u32, ())
    words = (TensorType(Dtype.u32, (4,)),)
    inputs = (Input("batch", "seed", seed), Input("batch", "step", step))
    nodes = tuple(Node(ops.Random(5, (4,)), (0, 1), words) for _ in range(2))
    with pytest.raises(ProgramError, match="stream 5 is used twice"):
        Program(inputs, (), nodes, ())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (((Reg.f32,), (), (Instruction("pow.f32", (0, 0)),), (1,)), "unknown operation 'pow.f32'"),
        (((Reg.f32,), (), (Instruction("add.f32", (0,)),), (1,)), "2 operands expected, 1 found"),
        (((Reg.f32,), (), (Instruction("add.f32", (0, 1)),), (1,)), "reads value 1; only 0 to 0"),
        (((Reg.i32,), (), (Instruction("add.f32", (0, 0)),), (1,)), "value 0 is i32, expected f32"),
        (((Reg.f32,), (), (), (3,)), "output reads value 3"),
        (((Reg.f32,), (), (), ()), "no outputs"),
        (((), (Constant(Reg.f32, 0x7FC00001),), (), (0,)), "the only NaN"),
        (((), (Constant(Reg.boolean, 2),), (), (0,)), "outside 0 to 0x1"),
        (((), (Constant(Reg.f32, 2), Constant(Reg.f32, 1)), (), (0,)), "not sorted"),
    ],
)
def test_a_scalar_program_that_breaks_a_rule_is_refused(parts: tuple[object, ...], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        ScalarProgram(*parts)  # type: ignore[arg-type]


def test_a_scalar_program_has_a_length_limit() -> None:
    code = tuple(Instruction("neg.f32", (n,)) for n in range(MAX_INSTRUCTIONS + 1))
    with pytest.raises(LimitError, match=str(MAX_INSTRUCTIONS)):
        ScalarProgram((Reg.f32,), (), code, (0,))


def test_the_builder_merges_equal_work_and_leaves_out_unused_work() -> None:
    b = ScalarBuilder()
    x = b.input()
    unused = x / 3.0
    program = b.build((x * 2.0 + 1.0) - (x * 2.0 + 1.0))
    assert unused.reg is Reg.f32
    assert [i.op for i in program.code] == ["mul.f32", "add.f32", "sub.f32"]
    g = ProgramBuilder()
    w = g.input("state", "w", MATRIX)
    g.map(lambda a: a + 1.0, w)
    g.output("state", "w", g.map(lambda a: a * 2.0, w))
    g.output("metric", "same", g.reduce("sum", g.map(lambda a: a * 2.0, w), (0, 1)))
    assert [n.op.kind for n in g.build().nodes] == ["map", "reduce"]


def test_origins_are_shown_but_do_not_change_the_digest() -> None:
    def build(origin: str) -> Program:
        g = ProgramBuilder()
        w = g.input("state", "w", MATRIX)
        with g.origin(origin):
            g.output("state", "w", g.map(lambda a: a * 2.0, w))
        return g.build()

    a, b = build("layers.0 (train.py:7)"), build("")
    assert a.digest == b.digest
    assert a == b
    assert any("layers.0 (train.py:7)" in line for line in listing(a))


def test_a_listing_names_every_node_input_and_scalar_operation() -> None:
    text = "\n".join(listing(small()))
    for part in ("state  w: f32[3,4]", "%2: f32[3,4] = map s0(x)", "%3: f32[3,3] = dot transpose_b(%2, x)",
                 "metric m = %3", "v0 = max.f32 x0 0", small().digest.hex()):  # fmt: skip
        assert part in text


def test_literals_round_once_to_nearest_even() -> None:
    assert bits_f32(f32_bits(0.1)) == 0.10000000149011612
    assert f32_bits(1e300) == 0x7F800000
    assert f32_bits(-1e300) == 0xFF800000
    assert f32_bits(3.4028235677973366e38) == 0x7F800000  # the tie above the largest number goes to infinity
    assert f32_bits(float("nan")) == 0x7FC00000
    assert f32_bits(-0.0) == 0x80000000


def test_operation_codes_are_frozen() -> None:
    """Codes are part of every digest ever committed: a new operation goes to the end, none moves."""
    names = [f"{o.code} {o.name}" for o in OPERATIONS.values()] + [f"{o.code} {o.__name__}" for o in ops.OPS]
    found = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert found == "d79cfee2bcfa3c15dd7185876e87b3303dfedea5ccda77f443faf1165827510d"

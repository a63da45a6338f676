"""The Metal kernels, run on the host, give the bits of the definition: every node kind, and random programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product

import metal_host
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metal_host import HostLibrary, needs_compiler, on_metal
from native import assert_same_bits
from strategies import kept_bytes, programs, random_tensor, special_words

from gensyn_verify import _native, backends
from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import CARRIER, Array, narrow
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.device.plan import Reduce
from gensyn_verify.backends.metal import MetalMachine, launches, make, source
from gensyn_verify.backends.metal.mps import MpsLibrary
from gensyn_verify.errors import BackendError
from gensyn_verify.program import Dtype, Program, ProgramBuilder, Reg, TensorType, Value, functions, ops
from gensyn_verify.program.scalar import OPERATIONS, Instruction, ScalarProgram

pytestmark = needs_compiler
FLOATS = [Dtype.f32, Dtype.bf16, Dtype.f16]
NUMBERS = [d for d in Dtype if d is not Dtype.boolean]
WORD = {Reg.f32: Dtype.f32, Reg.i32: Dtype.i32, Reg.u32: Dtype.u32, Reg.boolean: Dtype.boolean}


def special_inputs(program: Program) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {i.name: random_tensor(rng, i.type.dtype, i.type.shape, 0.1) for i in program.inputs}


def everyday_inputs(program: Program) -> dict[str, Array]:
    """Floats that no sum or product takes near the subnormal range; integers below 50."""
    rng = np.random.default_rng(2)

    def tensor(t: TensorType) -> Array:
        if t.dtype.is_float:
            return narrow(rng.standard_normal(t.shape).astype(np.float32), t.dtype)
        return rng.integers(0, 2 if t.dtype is Dtype.boolean else 50, t.shape).astype(CARRIER[t.dtype])

    return {i.name: tensor(i.type) for i in program.inputs}


def check(program: Program, seeds: Sequence[int] = (0, 3), inputs: Sequence[Mapping[str, Array]] = ()) -> None:
    """The bits of the definition, whatever the order of threads: from the kernels alone where the device is as IEEE 754
    says, with the guard where it flushes.
    """
    for given_ in inputs or (special_inputs(program), everyday_inputs(program)):
        wanted = backends.evaluate(program, given_, "reference")
        for seed in seeds:
            assert_same_bits(on_metal(program, given_, HostLibrary(seed), guard=False)[0], wanted, f"seed {seed}")
        assert_same_bits(on_metal(program, given_, HostLibrary(1, flush=True))[0], wanted, "flushing")
    if not inputs:
        assert on_metal(program, everyday_inputs(program), HostLibrary(flush=True))[1].host_calls == []


def builder(write: Callable[[ProgramBuilder], Sequence[Value]]) -> Program:
    g = ProgramBuilder()
    for n, value in enumerate(write(g)):
        g.output("metric", f"out{n:03}", value)
    return g.build()


# ---- map and scan -----------------------------------------------------------------------------------------------


def operations_program(n: int) -> Program:
    """A map of every operation on all pairs of n operands; a third operand is the second, in reverse."""
    g = ProgramBuilder()
    columns = {reg: g.input("batch", f"{reg.name}_column", TensorType(d, (n, 1))) for reg, d in WORD.items()}
    rows = {reg: g.input("batch", f"{reg.name}_row", TensorType(d, (n,))) for reg, d in WORD.items()}
    backwards = {reg: g.slice(v, (n - 1,), (n,), (-1,)) for reg, v in rows.items()}
    for op in OPERATIONS.values():
        arity = len(op.operands)
        scalar = ScalarProgram(op.operands, (), (Instruction(op.name, tuple(range(arity))),), (arity,))
        number = g._scalars.setdefault(scalar, len(g._scalars))
        operands = [where[reg] for where, reg in zip((columns, rows, backwards), op.operands, strict=False)]
        g.output("metric", op.name, g.emit(ops.Map(number, (n, n), (WORD[op.result],)), *operands)[0])
    return g.build()


def test_every_operation_on_pairs_of_special_and_random_operands() -> None:
    n = 75
    program, rng = operations_program(n), np.random.default_rng(1)
    inputs = {}
    for i in program.inputs:
        words = rng.integers(0, 1 << 32, n, dtype=np.uint64).astype(np.uint32)
        special = special_words(i.type.dtype.reg)
        words[: len(special)] = special
        array = words.astype(np.uint8) & 1 if i.type.dtype is Dtype.boolean else words
        inputs[i.name] = array.view(CARRIER[i.type.dtype]).reshape(i.type.shape)
    check(program, (0,), [inputs])
    _, machine = on_metal(program, inputs, HostLibrary(flush=True))
    assert len(machine.host_calls) == len(launches.ROUNDING)  # no operation by integers needs help


def test_maps_of_every_storage_broadcast_and_strided() -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        out = []
        for d in Dtype:
            x = g.input("batch", f"{d.name}_x", TensorType(d, (5, 3, 7)))
            y = g.input("batch", f"{d.name}_y", TensorType(d, (3, 1)))
            twice = g.permute(g.slice(x, (4, 0, 6), (3, 3, 4), (-2, 1, -2)), (2, 1, 0))
            if d is Dtype.boolean:
                out.append(g.map(lambda a, b: a ^ b, x, y))
            elif d.is_float:
                out += [g.map(lambda a, b: a * b + 1.0, x, y, dtype=to) for to in FLOATS]
                out.append(g.map(lambda a: a + a, twice))
            else:
                out += [g.map(lambda a, b: a * b + 3, x, y), g.map(lambda a: a + a, twice)]
        return out

    check(builder(write))


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf", "sin", "pow"])
def test_published_functions(name: str) -> None:
    function = getattr(functions, name)

    def write(g: ProgramBuilder) -> list[Value]:
        x = g.input("batch", "x", TensorType(Dtype.f32, (1000,)))
        return [g.map(lambda a: function(a, a) if name == "pow" else function(a), x)]

    program = builder(write)
    check(program, (0,), [special_inputs(program)])


def test_scans_carry_what_they_stored() -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        out: list[Value] = []
        for d in FLOATS:
            start = g.input("batch", f"{d.name}_a", TensorType(d, (3,)))
            x = g.input("batch", f"{d.name}_x", TensorType(d, (9, 2, 3)))
            out += g.scan(lambda c, v: c * 0.5 + v, [start], [x])
            zero = g.input("batch", f"{d.name}_z", TensorType(d, ()))
            out += g.scan(lambda s, e, v: [s + v, e - v], [zero, start], [g.slice(x, (8, 0, 0), (9, 2, 3), (-1, 1, 1))])
        return out

    check(builder(write))


def test_scans_of_integers_carry_as_many_bits_as_they_store() -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        out: list[Value] = []
        for d in (Dtype.u8, Dtype.i8, Dtype.u32, Dtype.i32):
            start = g.input("batch", f"{d.name}_a", TensorType(d, (3,)))
            x = g.input("batch", f"{d.name}_x", TensorType(d, (9, 2, 3)))
            out += g.scan(lambda c, v: (c >> 1) + v, [start], [x])  # what is above the stored bits would come down
        return out

    check(builder(write))


def test_tensors_too_large_for_32_bits_have_kernels_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "INT32_ELEMENTS", 0)

    def write(g: ProgramBuilder) -> list[Value]:
        x = g.input("batch", "x", TensorType(Dtype.f32, (5, 3, 7)))
        back = g.slice(x, (4, 0, 6), (3, 3, 4), (-2, 1, -2))
        start = g.full((3, 4), 1.0)
        return [g.map(lambda a: a + a, g.permute(back, (2, 1, 0))), *g.scan(lambda c, a: c + a, [start], [back])]

    check(builder(write))


def test_arrangements_that_differ_in_length_alone_are_one_kernel() -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        xs = [g.input("batch", f"x{n}", TensorType(Dtype.f32, (n, 2))) for n in (1, 5, 300)]
        return [g.map(lambda a: a * 3.0, x) for x in xs]

    program = builder(write)
    _, machine = on_metal(program, everyday_inputs(program))
    assert len(machine.kernels) == 1
    check(program)


# ---- dot --------------------------------------------------------------------------------------------------------


def test_products_of_every_length_cut_into_blocks() -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        out = []
        for k in (0, 1, 15, 16, 17, 127, 128, 129, 192, 193, 256, 320, 321):
            a = g.input("batch", f"a{k:03}", TensorType(Dtype.f32, (5, k)))
            b = g.input("batch", f"b{k:03}", TensorType(Dtype.f32, (k, 3)))
            out.append(g.dot(a, b))
        return out

    check(builder(write))


@pytest.mark.parametrize("shape", [(1, 1), (63, 65), (64, 64), (130, 2)])
def test_products_of_every_storage_side_and_batch(shape: tuple[int, int]) -> None:
    m, n = shape
    k = 33

    def write(g: ProgramBuilder) -> list[Value]:
        out = []
        for number, (da, db) in enumerate(zip(FLOATS, [Dtype.f16, Dtype.f32, Dtype.bf16], strict=True)):
            for ta, tb in ((False, False), (True, False), (False, True), (True, True)):
                batch_a, batch_b = ((2,), (2,)) if ta == tb else ((2,), ()) if ta else ((), (2,))
                name = f"{number}{int(ta)}{int(tb)}"
                a = g.input("batch", f"a{name}", TensorType(da, (*batch_a, *((k, m) if ta else (m, k)))))
                b = g.input("batch", f"b{name}", TensorType(db, (*batch_b, *((n, k) if tb else (k, n)))))
                out += g.emit(ops.Dot(ta, tb, db), a, b)
        return out

    program = builder(write)
    for inputs in (special_inputs(program), everyday_inputs(program)):
        wanted = backends.evaluate(program, inputs, "cpu")
        assert_same_bits(on_metal(program, inputs, HostLibrary(5), guard=False)[0], wanted, str(shape))
        assert_same_bits(on_metal(program, inputs, HostLibrary(5, flush=True))[0], wanted, str(shape))


def int8_products(*shapes: tuple[int, int, int]) -> Program:
    """Of every side, alone and in batches of which one operand may be a single matrix."""

    def write(g: ProgramBuilder) -> list[Value]:
        out = []
        for number, ((m, n, k), ta, tb) in enumerate(product(shapes, (False, True), (False, True))):
            batch_a, batch_b = ((3,), (3,)) if ta == tb else ((3,), ()) if ta else ((), (3,))
            a = g.input("batch", f"a{number}", TensorType(Dtype.i8, (*batch_a, *((k, m) if ta else (m, k)))))
            b = g.input("batch", f"b{number}", TensorType(Dtype.i8, (*batch_b, *((n, k) if tb else (k, n)))))
            out.append(g.dot(a, b, ta, tb, Dtype.i32))
        return out

    return builder(write)


def test_products_of_int8() -> None:
    check(int8_products((1, 1, 0), (3, 2, 1), (5, 7, 3), (64, 64, 4), (65, 1, 5), (2, 130, 63), (70, 40, 1000)))


def test_products_of_int8_wrap() -> None:
    k = (1 << 17) + 5
    a, b = np.full((1, k), -128, np.int8), np.full((k, 2), -128, np.int8)
    b[:, 1] = 127

    def write(g: ProgramBuilder) -> list[Value]:
        return [g.dot(*(g.input("batch", n, TensorType(Dtype.i8, x.shape)) for n, x in (("a", a), ("b", b))),
                      dtype=Dtype.i32)]  # fmt: skip

    check(builder(write), (3,), [{"a": a, "b": b}])


# ---- reduce -----------------------------------------------------------------------------------------------------


def reductions(shape: tuple[int, ...], axes: tuple[int, ...], dtype: Dtype) -> Program:
    def write(g: ProgramBuilder) -> list[Value]:
        x = g.input("batch", "x", TensorType(dtype, shape))
        names = ops.REDUCTIONS if np.prod([shape[a] for a in axes]) else ("sum",)
        return [g.reduce(name, x, axes) for name in names]

    return builder(write)


@pytest.mark.parametrize("n", [0, 1, 3, 31, 33, 63, 64, 65, 1000, 2047, 2048, 2049, 4100])
def test_sums_and_extremes_of_rows_and_columns(n: int) -> None:
    check(reductions((3, n), (1,), Dtype.f32))
    check(reductions((n, 35), (0,), Dtype.f32))


def test_a_sum_of_three_levels() -> None:
    program = builder(lambda g: [g.reduce("sum", g.input("batch", "x", TensorType(Dtype.f32, (2, 2100 * 2048))), [1])])
    inputs = everyday_inputs(program)
    found, _ = on_metal(program, inputs, HostLibrary(3))
    assert_same_bits(found, backends.evaluate(program, inputs, "cpu"), "three levels")


def test_no_level_of_a_sum_writes_over_what_it_reads() -> None:
    rows, length = 9, 5_000_000
    call = Reduce(0, (rows,), (length,), (length,), (1,), 0, Dtype.f32, 4 * rows * length, Dtype.f32)
    levels = launches.Lowering((), 1 << 40).launches(call, 0)
    assert len(levels) == 3
    for x, y, _, n, _, _, _, segments, *_ in (launch.given for launch in levels):
        assert x + 4 * rows * n <= y or y + 4 * rows * segments <= x


@pytest.mark.parametrize("shape", [(1, 131_073), (131_073, 2)])
def test_sums_of_more_than_64_segments(shape: tuple[int, int]) -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        return [g.reduce("sum", g.input("batch", "x", TensorType(Dtype.f32, shape)), (int(shape[0] > 1) ^ 1,))]

    check(builder(write), seeds=(3,))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_reductions_of_every_storage(dtype: Dtype) -> None:
    check(reductions((4, 70, 3), (1,), dtype))
    check(reductions((70, 3, 5), (0, 2), dtype))


def test_a_sum_of_negative_zeros_and_extremes_of_nans_and_zeros() -> None:
    words = [0x80000000, 0, 0x7F800001, 0xFFC00000, 0xFFFFFFFF, 0x3F800000, 0xFF800000, 1, 0x80000001]
    rng = np.random.default_rng(0)
    x = rng.choice(np.array(words, np.uint32), (300, 5)).view(np.float32)
    x[:20] = -0.0
    check(reductions((300, 5), (1,), Dtype.f32), (0,), [{"x": x}])
    check(reductions((5, 300), (0,), Dtype.f32), (0,), [{"x": np.ascontiguousarray(x.T)}])


# ---- the rest ---------------------------------------------------------------------------------------------------


def test_layouts_of_every_width() -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        out = []
        for d in (Dtype.f32, Dtype.bf16, Dtype.u8, Dtype.i8):
            x = g.input("batch", d.name, TensorType(d, (4, 5, 6)))
            out += [
                g.pad(x, (1, 0, 2), (0, 3, 1), (1, 0, 2), 77),
                g.concat([x, g.slice(x, (3, 0, 0), (4, 5, 6), (-1, 1, 1))], 1),
                g.reshape(g.permute(x, (2, 0, 1)), (24, 5)),
                g.reshape(g.window(x, (2, 3), (1, 2), (2, 1)), (4 * 2 * 3, -1 + 3 + 1, 2)),
                g.reshape(g.broadcast(g.slice(x, (0, 0, 0), (1, 5, 1)), (3, 5, 2)), (30,)),
            ]
        return out

    check(builder(write))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_rows_are_gathered_and_added_in_order(dtype: Dtype) -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        data = g.input("batch", "data", TensorType(dtype, (40, 3)))
        index = g.input("batch", "index", TensorType(Dtype.i32, (7, 30)))
        source_ = g.input("batch", "source", TensorType(dtype, (7, 30, 2)))
        return [g.gather(data, index), g.scatter_add(source_, index, 40), g.scatter_add(source_, index, 0)]

    program = builder(write)
    check(program)
    inputs = everyday_inputs(program)
    inputs["index"] = np.random.default_rng(3).integers(-3, 44, (7, 30)).astype(np.int32)
    check(program, (0,), [inputs])


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(1, 1), (60, 7), (2, 700)])
def test_sorted_positions(dtype: Dtype, shape: tuple[int, int]) -> None:
    program = builder(lambda g: [g.sort(g.input("batch", "x", TensorType(dtype, shape)))])
    check(program)


@pytest.mark.parametrize("row", [2049, 9000])
def test_sorted_positions_of_long_rows(row: int) -> None:
    program = builder(lambda g: [g.sort(g.input("batch", "x", TensorType(Dtype.f32, (2, row))))])
    inputs = special_inputs(program)
    wanted = backends.evaluate(program, inputs, "cpu")
    assert_same_bits(on_metal(program, inputs, HostLibrary(3))[0], wanted, "long rows")


def test_random_words() -> None:
    def write(g: ProgramBuilder) -> list[Value]:
        seed = g.input("batch", "seed", TensorType(Dtype.u32, (2,)))
        step = g.input("scalar", "step", TensorType(Dtype.u32, ()))
        return [g.random(seed, step, (n,)) for n in (0, 1, 5, 1030)]

    check(builder(write))


def test_counters_of_random_words_above_32_bits() -> None:
    library = HostLibrary()
    kernel = library.compile(source.kernels()).gv_random
    buffer = library.buffer(256)
    library.write(buffer, 0, np.array([11, 22, 33], np.uint32).view(np.uint8))
    first, count, stream = (1 << 32) - 2, 22, 7
    kernel(buffer, [0, 8, 64, stream, count, first], threads=[32, 1, 1], group_size=[32, 1, 1])
    found = library.read(buffer, 64, 4 * count).view(np.uint32)
    block = first + np.arange(6, dtype=np.uint64)
    counter = (block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), np.full(6, stream), np.full(6, 33))
    wanted = np.stack(reference.philox(counter, (11, 22)), -1).reshape(-1)[:count]
    np.testing.assert_array_equal(found, wanted)


# ---- programs ---------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(program=programs(), seed=st.integers(0, 5), flush=st.booleans(), keep=st.booleans())
def test_random_programs(program: Program, seed: int, flush: bool, keep: bool) -> None:
    inputs = special_inputs(program)
    wanted = backends.evaluate(program, inputs, "reference")
    found, _ = on_metal(program, inputs, HostLibrary(seed, flush), keep, guard=flush)
    assert_same_bits(found, wanted, f"seed {seed}, flush {flush}, keep {keep}")


def test_floats_exist_only_where_the_guard_looks() -> None:
    """Registers are integers, so that nothing else can be flushed, contracted or rounded by a compiler's choice."""
    code = re.sub("//.*", "", source.kernels())
    assert not re.findall(r"\b(double|half|float\d|simdgroup_float\w+)\b", code)
    assert len(re.findall(r"\bfloat\b", code)) == len(re.findall(r"\bas_type<float>\(", code))
    unguarded = [line for line in code.splitlines() if "as_type<float>" in line and "const uint r =" not in line]
    assert len(unguarded) == 3  # the root, whose result is never subnormal; fma and addition of the fast loop of dot


@pytest.mark.parametrize("task", ["mlp", "residual", "transformer"])
def test_steps_captured_from_pytorch(task: str) -> None:
    pytest.importorskip("torch")
    from gensyn_verify.frontend import trace_step
    from tests.frontend.models import LARGER_TASKS, OPTIMIZERS, TASKS

    made = {**TASKS, **LARGER_TASKS}[task]
    model = made.build()
    batches = made.batches(2)
    captured = trace_step(model, made.loss, OPTIMIZERS["adamw"](model.parameters()), batches[0])
    metal = Executor(captured.program, lambda plan: MetalMachine(plan, HostLibrary(2, flush=True)))
    cpu = backends.make("cpu", captured.program)
    metal.load(captured.state)
    cpu.load(captured.state)
    for n, batch in enumerate(batches, 1):
        found, wanted = (e.step(captured.batch_arrays(batch), captured.schedule(n)) for e in (metal, cpu))
        assert_same_bits(found, wanted, f"step {n}")
        assert_same_bits(metal.state(), cpu.state(), f"step {n}")
    assert metal.state_roots() == {n: _native.blake3_root(a.tobytes()) for n, a in cpu.state().items()}


def test_roots_of_many_lengths() -> None:
    program, state = kept_bytes()
    for seed in (0, 3):
        executor = Executor(program, partial(MetalMachine, library=HostLibrary(seed)))
        executor.load(state)
        found, wanted = executor.state(), {name: _native.blake3_root(array) for name, array in state.items()}
        assert found.roots(found) == wanted
        some = list(wanted)[1::3]
        assert found.roots(some) == {name: wanted[name] for name in some}
        assert found.roots([]) == {}


@pytest.mark.parametrize("begin", [0, 1, 2, 5])
def test_roots_at_any_alignment(begin: int) -> None:
    g = ProgramBuilder()
    g.output("state", "x", g.input("state", "x", TensorType(Dtype.u8, (3000,))))
    x = np.random.default_rng(1).integers(0, 256, 3000, np.uint8)
    executor = Executor(g.build(), lambda plan: MetalMachine(plan, HostLibrary()))
    executor.load({"x": x})
    at = executor._states["x"].offset + begin
    assert executor._machine.roots([(at, at + 2500)]) == [_native.blake3_root(x[begin : begin + 2500])]


# ---- through PyTorch --------------------------------------------------------------------------------------------


def test_without_an_apple_gpu_the_backend_says_so() -> None:
    if find_spec("torch") and import_module("torch").backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(BackendError, match="backend metal"):
        make(builder(lambda g: [g.input("batch", "x", TensorType(Dtype.f32, (1,)))]))


@pytest.fixture
def torch_on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch with an Apple GPU whose kernels are compiled for the host."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "compile_shader", HostLibrary().compile)


@pytest.mark.usefixtures("torch_on_host")
def test_tensors_of_pytorch_hold_the_arena() -> None:
    program = operations_program(9)
    inputs = everyday_inputs(program)
    found, _ = on_metal(program, inputs, MpsLibrary(device="cpu"))
    assert_same_bits(found, backends.evaluate(program, inputs, "reference"), "torch")


@pytest.mark.usefixtures("torch_on_host")
def test_fast_math_and_other_simd_groups_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metal_host.Kernel, "thread_execution_width", 64)
    with pytest.raises(BackendError, match="runs in SIMD groups of 64 threads"):
        MpsLibrary().compile(source.kernels())
    monkeypatch.setenv("PYTORCH_MPS_FAST_MATH", "1")
    with pytest.raises(BackendError, match="PYTORCH_MPS_FAST_MATH"):
        MpsLibrary()

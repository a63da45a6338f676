"""Whether a device computes as kernels/metal assumes; what a driver's compiler may break without a word.

Every operation that rounds is run on many operands: where the guard does not speak up it has to be that of IEEE 754.
Then every kernel is run once, and has to give the bits of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from gensyn_verify import _native
from gensyn_verify.backends import cpu, reference
from gensyn_verify.backends.arrays import CARRIER, Array, narrow
from gensyn_verify.backends.device.executor import Executor
from gensyn_verify.backends.metal import source
from gensyn_verify.errors import BackendError
from gensyn_verify.program.program import Program, ProgramBuilder
from gensyn_verify.program.scalar import Scalar
from gensyn_verify.program.types import Dtype, TensorType

if TYPE_CHECKING:
    from gensyn_verify.backends.metal.machine import Library

OPERANDS = 1 << 16
# Subnormals, zeros, infinities, NaN and their neighbours, with either sign.
_WORDS = [0, 1, 0x7FFFFF, 0x800000, 0x33000000, 0x3F800000, 0x4EFFFFFF, 0x4F000000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]
SPECIAL = np.array([w | sign for sign in (0, 1 << 31) for w in _WORDS], np.uint32).view(np.float32)
# Name: the call in a kernel, the number of operands, the definition.
OPERATIONS: dict[str, tuple[str, int, Callable[..., Array]]] = {
    "add": ("add(a, b, risky)", 2, np.add),
    "sub": ("subtract(a, b, risky)", 2, np.subtract),
    "mul": ("multiply(a, b, risky)", 2, np.multiply),
    "div": ("divide(a, b, risky)", 2, np.divide),
    "sqrt": ("root(a, risky)", 1, np.sqrt),
    "fma": ("multiply_add(a, b, c, risky)", 3, reference.fma),
    "mul_then_add": ("add(multiply(a, b, risky), c, risky)", 3, lambda a, b, c: a * b + c),
}


@cache
def operation_kernels() -> str:
    """For every operation a kernel: from operands a, b, c of element e its result, and whether it was risky."""
    return source.common() + "".join(
        f"""
GV_KERNEL(gv_test_{name}) {{
    using namespace gv;
    for (long e = GV_THREAD; e < given[0]; e += GV_THREADS) {{
        device uint* x = (device uint*)arena + 5 * e;
        const uint a = x[0], b = x[1], c = x[2];
        bool risky = false;
        x[3] = {call};
        x[4] = risky;
    }}
}}
"""
        for name, (call, _, _) in OPERATIONS.items()
    )


def run_operation(library: Library, name: str, operands: Array) -> tuple[Array, Array]:
    """Results (float32[n]) and whether they were risky (bool[n]), of operands float32[n, 3]."""
    n = len(operands)
    rows = np.zeros((n, 5), np.uint32)
    rows[:, :3] = operands.view(np.uint32)
    buffer = library.buffer(rows.nbytes)
    library.write(buffer, 0, rows.view(np.uint8).reshape(-1))
    kernel = getattr(library.compile(operation_kernels()), f"gv_test_{name}")
    kernel(buffer, [n], threads=[1024, 1, 1], group_size=[32, 1, 1])
    rows = library.read(buffer, 0, rows.nbytes).view(np.uint32).reshape(n, 5)
    return rows[:, 3].copy().view(np.float32), rows[:, 4] != 0


def wanted_result(name: str, operands: Array) -> Array:
    """What IEEE 754 says, float32[n]."""
    _, arity, function = OPERATIONS[name]
    with np.errstate(all="ignore"):
        return np.asarray(function(*operands.T[:arity]))


def same_number(a: Array, b: Array) -> Array:
    return np.asarray((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b)))


def _operands() -> Array:
    """Everyday numbers, half of them of random bits."""
    rng = np.random.default_rng(0)
    everyday = (rng.standard_normal((OPERANDS, 3)) * 2.0 ** rng.integers(-8, 9, (OPERANDS, 3))).astype(np.float32)
    everyday[::4, 2] = -(everyday[::4, 0] * everyday[::4, 1])  # fma then gives a product's rounding error
    bits = rng.integers(0, 1 << 32, (OPERANDS, 3), dtype=np.uint64).astype(np.uint32).view(np.float32)
    return np.where(rng.random((OPERANDS, 1)) < 0.5, everyday, bits)


def _program() -> Program:
    """Every node kind, in the shapes for which there are kernels, and a state to be hashed."""
    g = ProgramBuilder()
    f32, f16, bf16, i32 = Dtype.f32, Dtype.f16, Dtype.bf16, Dtype.i32
    x, y, b = (g.input("batch", n, TensorType(f32, s)) for n, s in (("x", (70, 321)), ("y", (321, 65)), ("z", (321,))))
    h, low = (g.input("batch", n, TensorType(d, (33, 321))) for n, d in (("h", f16), ("low", bf16)))
    index = g.input("batch", "index", TensorType(i32, (500,)))
    long_ = g.input("batch", "long", TensorType(f32, (2, 5000)))
    rows = g.input("batch", "rows", TensorType(f32, (500, 3)))
    seed, step = (
        g.input("batch", "seed", TensorType(Dtype.u32, (2,))),
        g.input("scalar", "step", TensorType(Dtype.u32, ())),
    )

    bytes_ = g.input("batch", "bytes", TensorType(Dtype.i8, (70, 33)))
    special = g.input("batch", "special", TensorType(f32, (SPECIAL.size,)))

    def pick(v: Scalar, w: Scalar) -> tuple[Scalar, ...]:
        return v.min(w), v.max(-w), v.builder.select(v <= w, v.abs(), w), v.to(Dtype.i32.reg), v.equals(w)

    def count(v: Scalar) -> Scalar:
        return v.to(Dtype.i32.reg) * 7 + (v < 0.5).to(Dtype.i32.reg)

    values = [
        g.map(lambda v, w: v * w + v / w, x, b),
        g.map(count, g.permute(x, (1, 0))),
        g.map(lambda v, w: v - w.abs().sqrt(), h, low),
        *g.scan(lambda c, v: c * 0.5 + v, [b], [x]),
        g.dot(x, y),
        g.dot(h, low, transpose_b=True),
        g.dot(y, x, transpose_a=True, transpose_b=True),
        *(g.reduce(op, long_, [1]) for op in ("sum", "max", "argmin")),
        g.reduce("sum", g.permute(long_, (1, 0)), [0]),
        g.reduce("sum", x, [0]),
        g.pad(h, (1, 0), (0, 2), (1, 0), 7),
        g.gather(rows, index),
        g.scatter_add(rows, index, 40),
        g.random(seed, step, (50, 3)),
        g.sort(long_),
        g.sort(g.permute(x, (1, 0))),
        *g.maps(pick, special, g.reshape(special, (SPECIAL.size, 1))),
        g.sort(special),
        *(g.reduce(op, special, [0]) for op in ("min", "argmax")),
        g.dot(bytes_, bytes_, transpose_b=True, dtype=i32),
        g.map(lambda v: v * 3, bytes_),
        *(g.reduce(op, bytes_, [1]) for op in ("sum", "min")),
        g.sort(bytes_),
    ]
    g.output("state", "kept", g.input("state", "kept", TensorType(Dtype.u8, (5003,))))
    for n, value in enumerate(values):
        g.output("metric", f"value{n:02}", value)
    return g.build()


def _inputs(program: Program) -> dict[str, dict[str, Array]]:
    rng = np.random.default_rng(1)

    def tensor(t: TensorType) -> Array:
        if t.dtype.is_float:
            return narrow(rng.standard_normal(t.shape).astype(np.float32), t.dtype)
        return rng.integers(-128 if t.dtype is Dtype.i8 else 0, 44, t.shape).astype(CARRIER[t.dtype])

    given = {role: {n: tensor(t) for n, t in program.inputs_of(role).items()} for role in ("state", "batch", "scalar")}
    given["batch"]["special"] = SPECIAL
    return given


def check(library: Library) -> None:
    """BackendError where an operation or a kernel is wrong on this device."""
    from gensyn_verify.backends.metal.machine import MetalMachine

    operands = _operands()
    for name in OPERATIONS:
        found, risky = run_operation(library, name, operands)
        wanted = wanted_result(name, operands)
        wrong = np.flatnonzero(~same_number(found, wanted) & ~risky)
        if len(wrong):
            e = int(wrong[0])
            of = ", ".join(float(x).hex() for x in operands[e, : OPERATIONS[name][1]])
            raise BackendError(
                f"backend metal: {name} of {of} gives {float(found[e]).hex()} on this device, "
                f"{float(wanted[e]).hex()} in IEEE 754; its driver rounds otherwise: use cpu"
            )
    program = _program()
    given = _inputs(program)
    metal = Executor(program, partial(MetalMachine, library=library))
    exact = cpu.Executor(program)
    exact.load(given["state"])
    metal.load(given["state"])
    right, results = (e.step(given["batch"], given["scalar"]) for e in (exact, metal))
    bad = [n for n, array in right.items() if results[n].tobytes() != array.tobytes()]
    if metal.state_roots() != {n: _native.blake3_root(x.data) for n, x in given["state"].items()}:
        bad.append("the roots")
    if bad:
        raise BackendError(f"backend metal: {', '.join(bad)} of its self-test differ from the CPU's: use cpu")

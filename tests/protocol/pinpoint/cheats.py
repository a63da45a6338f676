"""A training program with every node kind, and dishonest sides: the honest one with one patch each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import strategies
from hypothesis import assume
from hypothesis import strategies as st

from gensyn_verify import backends
from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import CARRIER, Array, narrow
from gensyn_verify.commit import MerkleLog, tensor_root
from gensyn_verify.errors import LimitError, ProgramError
from gensyn_verify.program import ops
from gensyn_verify.program.program import Program, ProgramBuilder, Value
from gensyn_verify.program.types import Dtype, Reg, TensorType
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.pinpoint import abi
from gensyn_verify.protocol.pinpoint.players import Challenger, NothingToSayError, Solver
from gensyn_verify.protocol.pinpoint.position import (
    MOVES,
    OPERATION,
    IllegalMoveError,
    Position,
    Stage,
    What,
    advance,
    choice,
    solver_move,
)
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.pinpoint.trace import Trace, merkle_log
from gensyn_verify.protocol.run import Run, RunWriter
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.steps import StepRecord
from gensyn_verify.protocol.task import Task, write_task

F32, BATCH, STEPS = Dtype.f32, 6, 5


def every_kind() -> Program:
    """Every node kind, layout and reduction, several dtypes, tensors of one chunk and of many."""
    g = ProgramBuilder()
    w = g.input("state", "w", TensorType(F32, (10, 300)))
    m = g.input("state", "moment", TensorType(Dtype.bf16, (10, 300)))
    seed = g.input("state", "seed", TensorType(Dtype.u32, (2,)))
    x = g.input("batch", "x", TensorType(F32, (BATCH, 10)))
    image = g.input("batch", "image", TensorType(Dtype.u8, (BATCH, 5, 6)))
    label = g.input("batch", "label", TensorType(Dtype.i32, (BATCH,)))
    lr = g.input("scalar", "lr", TensorType(F32, ()))
    step = g.input("scalar", "step", TensorType(Dtype.u32, ()))
    h = g.dot(x, w)
    back = g.dot(h, w, transpose_b=True, dtype=Dtype.f16)  # k = 300: two blocks
    gradient = g.dot(x, h, transpose_a=True)
    moment = g.map(lambda m, d: m * 0.9 + d, m, gradient, dtype=Dtype.bf16)
    both = g.maps(lambda w, m, lr: (w - lr * m, w < m), w, moment, lr)
    kept = [h, back, gradient, *both]
    kept += [g.reduce(name, h, [1]) for name in ops.REDUCTIONS]
    kept += [g.reduce("sum", h, [0, 1]), g.reduce("sum", w, [0, 1]), g.reduce("max", image, [0, 2])]
    kept += [
        g.reshape(h, (4, 450)), g.permute(h, (1, 0)), g.slice(h, (5, 0), (3, 100), (-2, 3)),
        g.pad(image, (0, 1, 0), (0, 0, 2), (0, 1, 0), 7), g.concat([x, back_to_f32(g, back)], 0),
        g.broadcast(x, (3, BATCH, 10)), g.window(image, (2, 3), (1, 2), (2, 1)),
    ]  # fmt: skip
    rows = g.gather(w, label)
    eight = g.slice(x, (0, 0), (BATCH, 8))  # of a position any of the low 3 bits may be wrong, and it stays in its row
    kept += [rows, g.scatter_add(rows, label, 10), eight, g.sort(eight)]
    random = g.random(seed, step, (5, 7))
    kept += [random, g.map(lambda r: (r >> 8).to(Reg.f32) * 2.0**-24, random)]
    kept += g.scan(
        lambda a, b, x: (a + x, b.builder.select(x < 0.0, b, x)), [lr, g.slice(lr, (), ())],
        [g.reshape(x, (10, BATCH))], (10, BATCH),
    )  # fmt: skip
    small = g.map(lambda w: (w * 40.0).to(Reg.i32), w, dtype=Dtype.i8)
    kept += [small, g.dot(small, small, transpose_b=True, dtype=Dtype.i32)]  # k = 300: two blocks
    g.output("state", "w", both[0])
    g.output("state", "moment", moment)
    g.output("state", "seed", seed)
    for n, value in enumerate([x, label, step, *kept]):
        keep(g, f"kept{n:02}", value)
    return g.build()


def back_to_f32(g: ProgramBuilder, x: Value) -> Value:
    return g.map(lambda a: a * 1.0, x)


def keep(g: ProgramBuilder, name: str, value: Value) -> None:
    """Make a value part of the state, so that nobody can lie about it unseen."""
    g.input("state", name, value.type)
    g.output("state", name, value)


@st.composite
def training_programs(draw: st.DrawFn) -> Program:
    """Random nodes over a state, a batch and step scalars; what they give is kept in the state."""
    g = ProgramBuilder()
    dtypes, shapes = st.sampled_from(Dtype), st.lists(st.integers(1, 4), max_size=3).map(tuple)
    values = [
        g.input("state", "weight", TensorType(draw(dtypes), draw(shapes))),
        g.input("batch", "x", TensorType(draw(dtypes), (BATCH, *draw(shapes)[:2]))),
        g.input("batch", "y", TensorType(Dtype.i32, (BATCH,))),
        g.input("scalar", "rate", TensorType(Dtype.f32, ())),
    ]
    g.output("state", "weight", values[0])
    for _ in range(draw(st.integers(3, 10))):
        try:
            values += strategies.draw_node(draw, g, values)
        except (ProgramError, LimitError):  # the operands do not fit: no node
            continue
    for n, value in enumerate(values[1:]):
        keep(g, f"kept{n:02}", value)
    program = g.build()
    assume(program.nodes)  # without any there is nothing to solve
    return program


@st.composite
def training_steps(draw: st.DrawFn) -> Program:
    """A training step of random sizes and dtypes: every node kind, in random order, and random nodes between."""
    g = ProgramBuilder()
    width, hidden = draw(st.integers(1, 8)), draw(st.integers(1, 110))
    stored = st.sampled_from([Dtype.f32, Dtype.bf16, Dtype.f16])
    weight = g.input("state", "weight", TensorType(draw(stored), (width, hidden)))
    moment = g.input("state", "moment", TensorType(draw(stored), (width, hidden)))
    seed = g.input("state", "seed", TensorType(Dtype.u32, (2,)))
    x = g.input("batch", "x", TensorType(draw(stored), (BATCH, width)))
    row = g.input("batch", "row", TensorType(Dtype.i32, (BATCH,)))
    rate = g.input("scalar", "rate", TensorType(F32, ()))
    step = g.input("scalar", "step", TensorType(Dtype.u32, ()))
    values = [weight, moment, x, row, rate, step]

    def more(*made: Value) -> Value:
        values.extend(made)
        for _ in range(draw(st.integers(0, 2))):
            with contextlib.suppress(ProgramError, LimitError):  # the operands do not fit: no node
                values.extend(strategies.draw_node(draw, g, values))
        return made[0]

    hidden_layer = more(g.dot(x, weight, dtype=draw(stored)))
    activation = more(*random_map(draw, g, hidden_layer, values))

    def gather_and_scatter() -> None:
        rows = more(g.gather(weight, row))
        more(g.scatter_add(rows, row, width))

    def reduce() -> None:
        more(g.reduce(draw(st.sampled_from(ops.REDUCTIONS)), hidden_layer, draw(st.sets(st.sampled_from([0, 1])))))
        more(g.reduce(draw(st.sampled_from(["argmax", "argmin"])), hidden_layer, [1]))

    def layout() -> None:
        more(g.permute(activation, (1, 0)))
        more(g.pad(x, (1, 0), (0, 2), (0, 1), 3))

    def noise() -> None:
        bits = more(g.random(seed, step, (BATCH, draw(st.integers(1, 9)))))
        more(g.map(lambda r: (r >> 8).to(Reg.f32) * 2.0**-24, bits))

    def integers() -> None:
        some, others = (g.map(lambda a: (a * 50.0).to(Reg.i32), v, dtype=Dtype.i8) for v in (x, weight))
        more(g.dot(some, others, dtype=Dtype.i32))
        more(g.dot(others, others, transpose_b=True, dtype=Dtype.i32))
        more(some)
        more(others)

    def scan() -> None:
        start = g.reshape(g.slice(weight, (0, 0), (1, hidden)), (hidden,))
        more(*g.scan(lambda m, y: m.builder.fma(m, 0.9, y * 0.1), [start], [hidden_layer]))

    parts = [gather_and_scatter, reduce, layout, noise, integers, scan, lambda: more(g.sort(x))]
    for part in draw(st.permutations(parts)):
        part()
    gradient = more(g.dot(x, hidden_layer, transpose_a=True))
    moment = more(g.map(lambda m, d: m.builder.fma(m, 0.9, d), moment, gradient, dtype=moment.type.dtype))
    weight = g.map(lambda w, m, r: w - r * m, weight, moment, rate, dtype=weight.type.dtype)
    for name, value in (("weight", weight), ("moment", moment), ("seed", seed)):
        g.output("state", name, value)
    for n, value in enumerate(v for v in values[2:] if v is not moment):
        keep(g, f"kept{n:02}", value)
    return g.build()


def random_map(draw: st.DrawFn, g: ProgramBuilder, x: Value, others: list[Value]) -> tuple[Value, ...]:
    """A random scalar program over `x`, and over others of the registers that it takes, where they broadcast."""
    scalar = draw(strategies.scalar_programs(max_inputs=3))
    operands = []
    for reg in scalar.inputs:
        fit = [v for v in (x, *others) if v.type.dtype.reg is reg and v.shape in (x.shape, x.shape[1:], ())]
        operands.append(draw(st.sampled_from(fit)) if fit else g.map(lambda a, r=reg: a.equals(a).to(r), x))
    number = g._scalars.setdefault(scalar, len(g._scalars))
    return g.emit(ops.Map(number, x.shape, tuple(draw(strategies.storage(r)) for r in scalar.output_types)), *operands)


def some_task(
    path: Path | str, program: Program, rng: np.random.Generator, steps: int = STEPS, zeros: bool = False
) -> Task:
    """A task of this program on random numbers, or on zeros; the first dimension of batch inputs is BATCH."""
    rows = 2 * BATCH + 1

    def numbers(t: TensorType, shape: tuple[int, ...]) -> Array:
        if zeros:
            return np.zeros(shape, CARRIER[t.dtype])
        if t.dtype.is_float:
            return narrow(rng.normal(size=shape).astype(np.float32), t.dtype)
        return rng.integers(0, 2 if t.dtype is Dtype.boolean else 12, shape).astype(CARRIER[t.dtype])

    return write_task(
        path,
        program,
        {n: numbers(t, t.shape) for n, t in program.inputs_of("state").items()},
        data={n: numbers(t, (rows, *t.shape[1:])) for n, t in program.inputs_of("batch").items()},
        schedule={n: numbers(t, (steps, *t.shape)) for n, t in program.inputs_of("scalar").items()},
        sampler=Sampler((5, 6), rows, BATCH),
        steps=steps,
        interval=2,
    )


def flipped(array: Array, element: int, bit: int) -> Array:
    """A copy with one bit of one element flipped."""
    out = np.array(array, order="C")
    bits = out.reshape(-1).view(np.uint8).reshape(out.size, -1)
    if out.dtype == np.bool_:
        bit = 0
    bits[element, bit // 8 % out.dtype.itemsize] ^= 1 << bit % 8
    return out


class Faulty(Side):
    """Honest but for step `fault_step`. What it computes there it commits to."""

    def __init__(self, run: Run, fault_step: int, backend: str = "cpu") -> None:
        super().__init__(run, backend)
        self.fault_step = fault_step

    def record(self, step: int) -> StepRecord:
        honest = super().record(step)
        if step != self.fault_step:
            return honest
        trace, p = self.trace(step), self.program
        state = {o.name: trace.root_of(o.value) for o in p.outputs if o.role == "state"}
        inputs = {role: {i.name: trace.root_of(v) for v, i in enumerate(p.inputs) if i.role == role} for role in ROLES}
        return StepRecord(state, inputs["batch"], inputs["scalar"], honest.metrics)

    @property
    def log(self) -> MerkleLog:  # type: ignore[override]
        return merkle_log(self.entry(step).record() for step in range(self.run.steps_done))

    def _stand_by(self, step: int, values: list[Array]) -> None:
        """It remembers what it computed."""


ROLES = ("batch", "scalar")


class WrongValue(Faulty):
    """One bit of value `v` of the step is wrong, and everything that follows is computed from it."""

    def __init__(self, run: Run, fault_step: int, value: int, element: int, bit: int) -> None:
        super().__init__(run, fault_step)
        self.wrong = value, element, bit

    def values(self, step: int) -> list[Array]:
        values = super().values(step)
        if step != self.fault_step:
            return values
        wrong, element, bit = self.wrong
        p = self.program
        values[wrong] = flipped(values[wrong], element, bit)
        for node, first in zip(p.nodes, p.first_value, strict=True):
            if first + len(node.types) <= wrong:
                continue
            dtypes = [p.value_types[v].dtype for v in node.inputs]
            with np.errstate(all="ignore"):
                outputs = reference.run_node(p, node, [values[v] for v in node.inputs], dtypes)
            for v, (out, type) in enumerate(zip(outputs, node.types, strict=True), first):
                if v != wrong:
                    values[v] = np.asarray(out, order="C").reshape(type.shape)
        return values


class ForgedSequence(WrongValue):
    """The same, but from operation `start` on its sequences are made up, as an element with a wrong value needs."""

    start = 0.0  # as a share of the length

    def results(self, sequence, tensors):  # type: ignore[no-untyped-def]
        honest = super().results(sequence, tensors)
        first = int(self.start * len(honest))
        return np.concatenate([honest[:first], honest[first:] ^ np.uint64(1)])


@dataclass(frozen=True)
class Fault:
    """One bit of one element of the state after a step."""

    step: int
    name: str
    element: int
    bit: int

    def strike(self, array: Array) -> Array:
        return flipped(array, self.element, self.bit)


def forged_run(task: Task, folder: Path, identity: Identity, salt: bytes, fault: Fault) -> Run:
    """The honest solver with one patch: a run with this fault, in which all that follows is computed from it."""
    with RunWriter(task, folder, identity, salt=salt, resume=False, environment={}) as writer:
        executor = backends.make("cpu", task.program)
        executor.load(task.initial_state())
        for step in range(task.steps):
            batch, scalars = task.batch(step), task.scalars(step)
            metrics = executor.step(batch, scalars)
            if step == fault.step:
                state = executor.state()
                executor.load({**state, fault.name: fault.strike(state[fault.name])})
            writer.append(executor.state(), batch, scalars, metrics)
        return writer.finish()


class Forger(Side):
    """Who has such a run computes it again, fault and all, also where the bundle has no tensors of the step."""

    def __init__(self, run: Run, fault: Fault) -> None:
        super().__init__(run)
        self.fault = fault

    def _stand_by(self, step: int, values: list[Array]) -> None:
        if step == self.fault.step:
            value = next(o.value for o in self.program.outputs if (o.role, o.name) == ("state", self.fault.name))
            values[value] = self.fault.strike(values[value])


class WrongRow(Faulty):
    """Trains on another batch, or with another schedule, than the task's."""

    def __init__(self, run: Run, fault_step: int, role: str) -> None:
        super().__init__(run, fault_step)
        self.role = role

    def inputs(self, step: int) -> tuple[dict[str, Array], dict[str, Array]]:
        batch, scalars = super().inputs(step)
        if step == self.fault_step:
            other = super().inputs((step + 1) % self.task.steps)
            return (other[0], scalars) if self.role == "batch" else (batch, other[1])
        return batch, scalars


class WrongEntry(Faulty):
    """The step is honest, the step entry is not: a tensor root of a group, of which nobody has the tensor."""

    def __init__(self, run: Run, fault_step: int, role: str, number: int) -> None:
        super().__init__(run, fault_step)
        self.where = role, number

    def record(self, step: int) -> StepRecord:
        record = Side.record(self, step)
        if step == self.fault_step:
            role, number = self.where
            roots = record.group(role)
            name = sorted(roots)[number % len(roots)]
            return replace(record, **{role: {**roots, name: tensor_root(b"another")}})
        return record


class WrongLeaf(WrongEntry):
    """A trace with one leaf that is not the program's; the entry differs too, so that there is a game."""

    def __init__(self, run: Run, fault_step: int, place: int, change: Callable[[Any], Any]) -> None:
        super().__init__(run, fault_step, "state", 0)
        self.place, self.change = place, change

    def trace(self, step: int) -> Trace:
        if self._traced is None or self._traced[0] != step:
            trace = super().trace(step)
            if step == self.fault_step:
                trace.leaves[self.place] = self.change(trace.leaves[self.place])
                trace.log = merkle_log(trace.records())
        assert self._traced is not None
        return self._traced[1]


# ---- players ----------------------------------------------------------------------------------------------------


class Griefer(Challenger):
    """Makes any move that the referee takes."""

    def __init__(self, side: Side, seed: int) -> None:
        super().__init__(side)
        self.rng = np.random.default_rng(seed)

    def move(self, position: Position) -> bytes:
        p = position
        if p.stage == Stage.OPERATION_CHOICE:
            data = abi.encode(OPERATION, (self.leaf, self._scalar_record(p)))
        elif p.stage == Stage.STEP_CHOICE:
            data = b""
        else:
            data = b"".join(self.shown[0]) if isinstance(self.shown[0], tuple) else self.shown[0]
        moves = [choice(what, which, data) for what in What for which in range(16)]
        while True:
            move = moves.pop(self.rng.integers(len(moves)))
            with contextlib.suppress(IllegalMoveError):
                advance(p, move)
                return move


class Babbler(Solver):
    """In one stage says something else than it should, if the referee takes anything else."""

    def __init__(self, side: Side, stage: Stage, seed: int) -> None:
        super().__init__(side)
        self.stage, self.rng = stage, np.random.default_rng(seed)

    def move(self, position: Position) -> bytes:
        move = super().move(position)
        for _ in range(30 if position.stage == self.stage else 0):
            other = bytearray(move)
            other[int(self.rng.integers(len(move)))] ^= 1 << int(self.rng.integers(8))
            with contextlib.suppress(IllegalMoveError):
                advance(position, bytes(other))
                return bytes(other)
        return move


class Silent(Solver):
    """Says nothing from a stage on."""

    def __init__(self, side: Side, stage: Stage) -> None:
        super().__init__(side)
        self.stage = stage

    def move(self, position: Position) -> bytes:
        if position.stage == self.stage:
            raise NothingToSayError("withheld")
        return super().move(position)


class Liar(Solver):
    """Changes what it says in one stage: `lie` gets and gives the values of the move."""

    def __init__(self, side: Side, stage: Stage, lie: Callable[..., tuple[Any, ...]]) -> None:
        super().__init__(side)
        self.stage, self.lie = stage, lie

    def move(self, position: Position) -> bytes:
        move = super().move(position)
        if position.stage == self.stage:
            return solver_move(position.stage, *self.lie(*abi.decode(MOVES[position.stage], move)))
        return move


class WithoutProof(Solver):
    """Another solver, until a proof is due."""

    def __init__(self, other: Solver) -> None:
        super().__init__(other.side)
        self.other = other

    def see(self, position: Position, move: bytes) -> None:
        self.other.see(position, move)

    def move(self, position: Position) -> bytes:
        if position.stage == Stage.PROVE:
            raise NothingToSayError("withheld")
        return self.other.move(position)

"""Two runs against each other: where they part, and what each has there."""

from __future__ import annotations

import os
from functools import cached_property

from gensyn_verify.backends import check_reproducible
from gensyn_verify.commit.blake3 import CHUNK_BYTES, chunk_count
from gensyn_verify.errors import BundleError
from gensyn_verify.program.scalar import BY_CODE, bits_f32
from gensyn_verify.program.types import Dtype, Reg
from gensyn_verify.protocol.pinpoint import sequence
from gensyn_verify.protocol.pinpoint.game import Game, play
from gensyn_verify.protocol.pinpoint.leaves import decode_entry
from gensyn_verify.protocol.pinpoint.picture import Descent, Level
from gensyn_verify.protocol.pinpoint.players import Challenger, Solver
from gensyn_verify.protocol.pinpoint.position import Position, Stage, What, begin
from gensyn_verify.protocol.pinpoint.side import Side
from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.steps import GROUPS
from gensyn_verify.protocol.task import Task, open_task


def pinpoint(
    run_a: Run | str | os.PathLike[str],
    run_b: Run | str | os.PathLike[str],
    task: Task | str | os.PathLike[str] | None = None,
    *,
    backend: str = "cpu",
) -> Descent:
    """Where two runs of one task part, down to one operation, and which of them the referee finds wrong there.

    A is the solver and B the challenger of docs/dispute.md. Each side re-executes the interval up to the first step
    that differs from its own checkpoint. `task`: the bundle that both solve; recorded runs carry their own.
    Raises BundleError where a bundle is malformed or has no step.
    """
    check_reproducible(backend, "pinpoint")
    if task is not None and not isinstance(task, Task):
        task = open_task(task)
    a, b = (r if isinstance(r, Run) else open_run(r, task) for r in (run_a, run_b))
    if a.header.task != b.header.task:
        return Descent("differ", f"the runs are of different tasks: {a.header.task.hex()} and {b.header.task.hex()}")
    lengths = a.steps_done, b.steps_done
    if min(lengths) == 0:
        raise BundleError(f"{(a if lengths[0] == 0 else b).url} has no finished interval: there is nothing to compare")
    sides = [Side(run, backend, steps=min(lengths)) for run in (a, b)]
    if sides[0].task.digest != a.header.task:
        raise BundleError(f"{a.url} is a run of task {a.header.task.hex()}; given is {sides[0].task.digest.hex()}")
    notes = _notes(a, b, sides, lengths)
    if sides[0].log.root() == sides[1].log.root():
        if lengths[0] == lengths[1]:
            return Descent("agree", f"the runs agree in all {lengths[0]} steps", notes=notes)
        text = f"the runs agree in the {min(lengths)} steps that both have; A has {lengths[0]}, B {lengths[1]}"
        return Descent("differ", text, notes=notes)
    if not sides[0].program.nodes:
        return Descent("differ", _parting(sides, min(lengths)), notes=notes)
    start = begin(a.header.task, sides[0].log.root(), min(lengths))
    solver, challenger = Solver(sides[0]), Challenger(sides[1])
    game = play(start, solver, challenger)
    return _Reader(game, solver, challenger).descent(notes)


def _parting(sides: list[Side], steps: int) -> str:
    """Where two runs of code part: nothing but that code can say which is right."""
    step = next(s for s in range(steps) if sides[0].entry(s) != sides[1].entry(s))
    a, b = (side.record(step) for side in sides)
    found = [
        f"{role} {name!r}" for role in GROUPS for name, root in a.group(role).items() if b.group(role)[name] != root
    ]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return (
        f"the runs part at step {step}, in {found[0]}{more}; the step is code, and no referee runs code: "
        "replay each with --trust-code FILE.py:FUNCTION"
    )


def _notes(a: Run, b: Run, sides: list[Side], lengths: tuple[int, int]) -> tuple[str, ...]:
    notes = []
    if a.header.solver != b.header.solver:
        notes.append(f"different solvers: A 0x{a.header.solver.hex()}, B 0x{b.header.solver.hex()}")
    if lengths[0] != lengths[1]:
        notes.append(f"different lengths: A has {lengths[0]} steps, B {lengths[1]}; compared are {min(lengths)}")
    for name, run, side, length in (("A", a, sides[0], lengths[0]), ("B", b, sides[1], lengths[1])):
        c = run.commitment
        if c is None:
            notes.append(f"{name} is not finished: it has no commitment")
        elif length == len(side.log) and c.root != side.log.root():
            notes.append(f"the log of {name} is not what it committed to")
    return tuple(notes)


class _Reader:
    """Reads a finished game: what both sides had at every level."""

    def __init__(self, game: Game, solver: Solver, challenger: Challenger) -> None:
        self.game, self.solver, self.challenger = game, solver, challenger
        self.a, self.b = solver.side, challenger.side
        self.program = self.b.program

    def descent(self, notes: tuple[str, ...]) -> Descent:
        g = self.game
        steps = (self._run, self._step, self._entry, self._leaf, self._tensor, self._operation)
        levels = tuple(level for read in steps if (level := read()) is not None)
        if self._other_data:
            verdict, why = "differ", "the runs recorded different data: nothing says which is right"
        elif g.silence is not None:
            loser = "B" if g.last.challenger_moves else "A"
            verdict, why = f"{loser} is wrong", f"{loser} has no move in stage {g.last.stage.name}: {g.silence}"
        else:
            verdict = "B is wrong" if g.solver_wins else "A is wrong"
            why = f"{verdict}: {self._reason}"
        step = g.at(Stage.STEP_OPEN)
        summary = f"the runs part at step {step.step}; {why}" if step else f"the runs differ; {why}"
        return Descent(verdict, summary, levels, notes, len(g.moves), sum(len(m) for _, m in g.moves))

    @cached_property
    def _other_data(self) -> bool:
        """A recorded task's own batch or scalars, about which the referee cannot decide."""
        leaf = self.game.at(Stage.INPUT_OPEN)
        return leaf is not None and leaf.place >= leaf.states and self.b.task.recorded

    @property
    def _reason(self) -> str:
        p = self.game.moves[-1][0]
        side = "A" if not self.game.solver_wins else "B"
        if p.stage == Stage.INPUT_OPEN:
            return f"the input that {side} used is not the one agreed"
        if p.stage == Stage.STEP_CHOICE:
            return f"the root of a group of {side} is not that of no entries"
        if p.stage == Stage.OPERATION_CHOICE:
            return f"the operation does not give what {side} says"
        return f"{_CONTESTS[p.what]} of {side} is not what the proof shows"

    # ---- levels -------------------------------------------------------------------------------------------------

    def _run(self) -> Level:
        step = self.game.at(Stage.STEP_OPEN)
        steps = len(self.a.log)
        where = f"step {step.step} is the first of {steps} that differs" if step else f"{steps} steps"
        rows = (("log root", self.a.log.root().hex(), self.b.log.root().hex()),)
        return Level("run", where, rows)

    def _step(self) -> Level | None:
        p = self.game.at(Stage.STEP_CHOICE)
        if p is None:
            return None
        own = self.b.entry(p.step)
        trace = self.b.trace(p.step).log.root()
        differs = "one differs first" if p.trace != trace else "all agree"
        pairs = [("trace root", p.trace, trace), ("state after", p.after, own.state)]
        pairs += [("batch", p.batch, own.batch), ("scalars", p.scalars, own.scalars)]
        rows = tuple((what, x.hex(), y.hex() if x != y else "") for what, x, y in pairs)
        return Level("step", f"of {p.inputs} inputs and {p.nodes} nodes {differs}", rows)

    def _entry(self) -> Level | None:
        p = self.game.moves[-1][0] if self.game.moves else None
        if p is None or p.what != What.ENTRY or p.stage != Stage.PROVE:
            return None
        (name, theirs), (_, ours) = (decode_entry(s.group(p.step, p.which)[p.place]) for s in (self.a, self.b))
        title = f"{GROUPS[p.which]} {name!r} {ours.type} is not what the trace holds"
        rows = [("tensor root", theirs.root.hex(), ours.root.hex())]
        if p.which == 0:
            value = next(o.value for o in self.program.outputs if (o.role, o.name) == ("state", name))
            rows += [(what, text, "") for what, text in self._origin(self.b.trace(p.step).place_of(value))]
        return Level("entry", title, tuple(rows))

    def _origin(self, place: int) -> list[tuple[str, str]]:
        """What a trace leaf is, for people."""
        inputs = self.program.inputs
        if place < len(inputs):
            return [("input", f"{inputs[place].role} {inputs[place].name!r} {inputs[place].type}")]
        n = place - len(inputs)
        node = self.program.nodes[n]
        types = ", ".join(map(str, node.types))
        rows = [("node", f"{n}: {type(node.op).__name__.lower()} -> {types}")]
        return rows + ([("from", node.origin)] if node.origin else [])

    def _leaf(self) -> Level | None:
        p = self.game.at(Stage.LEAF_CHOICE)
        if p is None:
            return None
        inputs = self.program.inputs
        if p.place < len(inputs):
            title = f"{inputs[p.place].role} input {inputs[p.place].name!r} {inputs[p.place].type}"
            rows = []
        else:
            (_, title), *rest = self._origin(p.place)
            rows = [(what, text, "") for what, text in rest]
        what = self.game.moves[-1][0].what
        if what in (What.RECORD, What.FIRST, What.OPERAND):
            rows.append(("contested", _CONTESTS[what], ""))
        for name in self._outputs_of(p):
            rows.append(("becomes", name, ""))
        return Level("node" if p.place >= len(inputs) else "input", title, tuple(rows))

    def _outputs_of(self, p: Position) -> list[str]:
        """The names of the program's outputs that this leaf holds."""
        leaf = self.b.trace(p.step).leaves[p.place]
        return [f"{o.role} {o.name!r}" for o in self.program.outputs if leaf.held(o.value)]

    def _tensor(self) -> Level | None:
        p = self.game.at(Stage.SEQUENCE_OPEN)
        if p is None:
            return None
        place = self.challenger.place
        type = self.program.value_types[self.b.value_number(p.step, place, p.output)]
        ours = int(sequence.stored_bits(self.b.array(p.step, place, p.output))[p.element])
        chunk, chunks = p.element * type.dtype.size // CHUNK_BYTES, chunk_count(type.nbytes)
        index = list(sequence.multi_index(p.element, type.shape))
        title = f"output {p.output}, {type}: chunk {chunk} of {chunks}, element {p.element} = {index}"
        return Level("tensor", title, (("value", show(p.value, type.dtype), show(ours, type.dtype)),))

    def _operation(self) -> Level | None:
        p = self.game.at(Stage.OPERATION_CHOICE)
        if p is None:
            return None
        place = self.challenger.place
        s, results, _ = self.b.sequence(p.step, place, p.output, p.element, p.value)
        own = self.b.operands(p.step, place, s, p.operation, results)
        op = s.operation(p.operation, own)
        shown = operand_types(s, p.operation, op)
        rows = []
        for slot, (operand, type) in enumerate(zip(op.operands, shown, strict=False)):
            x, y = show(p.operands[slot], type), show(own[slot], type)
            rows.append((self._where(s, operand), x, y if x != y else ""))
        out = shown[len(op.operands)]
        x, y = show(p.result, out), show(int(results[p.operation]), out)
        rows.append(("result", x, y if x != y else ""))
        computed = s.execute(p.operation, op.code, p.operands)
        rows.append(("recomputed", show(computed, out), ""))
        title = f"operation {p.operation} of {s.length}: {sequence.NAMES[op.code]}"
        return Level("operation", title, tuple(rows))

    def _where(self, s: sequence.Sequence, operand: sequence.Operand) -> str:
        if isinstance(operand, sequence.Constant):
            return "constant"
        if isinstance(operand, sequence.Result):
            return f"result {operand.index}"
        type = s.reads[operand.tensor]
        return f"operand {operand.tensor} {list(sequence.multi_index(operand.index, type.shape))}"


_CONTESTS = {
    What.COUNTS: "the number of inputs or nodes",
    What.ENTRY: "the entry",
    What.RECORD: "the node of the program",
    What.FIRST: "the numbering of values",
    What.OPERAND: "the wiring of an operand",
    What.FOLD: "the hash of the digests shown",
    What.CHUNK: "the hash of the chunk shown",
    What.VALUE: "an operand",
}
_Shown = Reg | Dtype | str


def operand_types(s: sequence.Sequence, t: int, op: sequence.Operation) -> list[_Shown]:
    """How operands, and last the result, of an operation are to be read."""
    reg = s.reads[0].dtype.reg if s.reads else Reg.u32
    stored = s.type.dtype
    if isinstance(s, sequence.ScanSequence) and op.code == sequence.STORE:
        stored = s.op.dtypes[t % s.each - s.code]
    special: dict[int, list[_Shown]] = {
        sequence.STORE: [stored.reg, stored],
        sequence.COPY: [*([Dtype.i32] if len(op.operands) > 1 else []), s.type.dtype, s.type.dtype],
        sequence.ARGMAX: ["best" if t else reg, reg, "best"],
        sequence.ARGMIN: ["best" if t else reg, reg, "best"],
        sequence.POSITION: ["best", Dtype.i32],
        sequence.SCATTER: [reg, Dtype.i32, reg, reg],
        sequence.PHILOX: [Reg.u32] * 4,
        sequence.COUNT: [Reg.u32, reg, reg, Reg.u32],
        sequence.RANK: [Reg.u32, Dtype.i32],
        sequence.MULTIPLY_ADD: [Reg.i32] * 4,
    }
    if op.code in special:
        return special[op.code]
    scalar = BY_CODE[op.code]
    return [*scalar.operands, scalar.result]


def show(bits: int, type: _Shown) -> str:
    """A number in hexadecimal and in decimal."""
    if isinstance(type, str):  # the best so far: register and position
        return f"{bits >> 32:08x} at {bits & 0xFFFFFFFF}"
    if isinstance(type, Dtype) and type.is_float:
        return f"{bits:0{2 * type.size}x} = {bits_f32(sequence.load_one(bits, type))!r}"
    if type is Reg.f32:
        return f"{bits:08x} = {bits_f32(bits & 0xFFFFFFFF)!r}"
    size = type.size if isinstance(type, Dtype) else 4
    signed = (type.reg if isinstance(type, Dtype) else type) is Reg.i32
    return f"{bits:0{2 * size}x} = {bits - (bits >> 8 * size - 1 << 8 * size if signed else 0)}"

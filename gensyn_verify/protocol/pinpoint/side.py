"""What one side of a dispute has: the task, its own run, and what both give of a disputed step.

A side re-executes the interval up to the disputed step from its own checkpoint, traces that one step, and computes the
sequence of one element. It stands by what it committed to: where its log says another state after the step than it
computes, and the bundle still has that tensor (the step closes an interval), the tensor takes its place in the trace,
and its element the place of the last result. For an honest run nothing of this ever differs.

Memory: the trace (see `trace`), the chunk tree of one tensor (3 % of it), about 200 bytes an operation of one sequence,
64 bytes a step of the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array
from gensyn_verify.commit import MerkleLog, StepEntry, TensorTree, tensor_root
from gensyn_verify.commit.tensor import chunk_of_element
from gensyn_verify.errors import BundleError
from gensyn_verify.program.encoding import records
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import TensorType
from gensyn_verify.protocol.folder import MissingDataError
from gensyn_verify.protocol.pinpoint.leaves import InputLeaf, NodeLeaf, SourceLeaf, Tensor, encode_entry
from gensyn_verify.protocol.pinpoint.sequence import Sequence, Source, stored_bits
from gensyn_verify.protocol.pinpoint.trace import Trace, merkle_log, run_step
from gensyn_verify.protocol.run import Run, StepHasher, checkpoint, stored_inputs
from gensyn_verify.protocol.steps import GROUPS, StepRecord

Record = tuple[bytes, list[bytes], int, bytes, list[bytes]]


class Side:
    """One party's data. `steps`: of its log, how many are looked at (default: all)."""

    def __init__(self, run: Run, backend: str = "cpu", steps: int | None = None) -> None:
        if run.task is None:
            raise BundleError(f"{run.url} does not carry its task: give the task bundle it claims to solve")
        self.run, self.task, self.program, self.backend = run, run.task, run.task.program, backend
        self.steps = steps
        self._hasher = StepHasher(self.program)
        self._traced: tuple[int, Trace] | None = None
        self._tree: tuple[int, TensorTree] | None = None
        self._sequence: tuple[Any, tuple[Sequence, Array, MerkleLog]] | None = None

    # ---- run ----------------------------------------------------------------------------------------------------

    @cached_property
    def log(self) -> MerkleLog:
        """The tree over the step entries."""
        log = MerkleLog()
        for n in self.run.intervals:
            segment = self.run.segment(n)
            if segment.first != n * self.task.interval:
                raise BundleError(f"{self.run.url}: the log of interval {n} begins with step {segment.first}")
            for record in segment.steps:
                if self.steps is None or len(log) < self.steps:
                    log.append_leaf(self._hasher.entry(len(log), record).record())
        return log

    def record(self, step: int) -> StepRecord:
        """The tensor roots that this side committed to."""
        segment = self.run.segment(step // self.task.interval)
        if not segment.first <= step < segment.end:
            raise BundleError(f"{self.run.url}: the log of interval {segment.interval} does not hold step {step}")
        return segment.steps[step - segment.first]

    def entry(self, step: int) -> StepEntry:
        return self._hasher.entry(step, self.record(step))

    def group(self, step: int, number: int) -> list[bytes]:
        """The entries of group `number` of a step: state after it, batch, scalars."""
        role = GROUPS[number]
        return _entries(self.program.inputs_of(role), self.record(step).group(role))

    def state_entries_before(self, step: int) -> list[bytes]:
        """The entries of the state before a step."""
        return self.group(step - 1, 0) if step else _entries(self.program.inputs_of("state"), self.task.state)

    # ---- step ---------------------------------------------------------------------------------------------------

    def inputs(self, step: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Batch and scalars of a step: the task's, or of a recorded run those that it stored."""
        if not self.task.recorded:  # then the log need not hold the step
            return self.task.batch(step), self.task.scalars(step)
        return stored_inputs(self.task, self.run.store, step, self.record(step))

    def state_before(self, step: int) -> dict[str, Array]:
        """The state before a step, computed from the checkpoint that opens its interval."""
        n, ahead = divmod(step, self.task.interval)
        first = step - ahead
        state = self.task.initial_state()
        if n:
            state = checkpoint(self.task, self.run.store, first - 1, self.record(first - 1).state)
        if not ahead:
            return state
        executor = backends.make(self.backend, self.program)
        executor.load(state)
        for s in range(first, step):
            executor.step(*self.inputs(s))
        return {name: array.copy() for name, array in executor.state().items()}

    def values(self, step: int) -> list[Array]:
        """Every value of a step, in value order."""
        values = run_step(self.program, self.state_before(step), *self.inputs(step), self.backend)
        self._stand_by(step, values)
        return values

    def _stand_by(self, step: int, values: list[Array]) -> None:
        """Put the tensors of the checkpoint that closes with this step where the values differ."""
        if (step + 1) % self.task.interval and step + 1 != self.run.steps_done:
            return
        committed, types = self.record(step).state, self.program.value_types
        for o in self.program.outputs:
            if o.role != "state" or o.value < len(self.program.inputs):
                continue
            if tensor_root(values[o.value]) != committed[o.name]:
                with contextlib.suppress(MissingDataError):
                    what = f"state {o.name!r} after step {step}"
                    values[o.value] = self.run.store.get(types[o.value], committed[o.name], what)

    def trace(self, step: int) -> Trace:
        if self._traced is None or self._traced[0] != step:
            self._traced = step, Trace(self.program, self.values(step))
        return self._traced[1]

    # ---- task ---------------------------------------------------------------------------------------------------

    @cached_property
    def _records(self) -> tuple[list[bytes], MerkleLog]:
        leaves = records(self.program)
        return leaves, merkle_log(leaves)

    def record_of(self, index: int) -> Record:
        """The opening of a record of the program: 0 the header, then scalar programs, then nodes."""
        leaves, log = self._records
        index %= len(leaves)
        return leaves[index], log.path(index), len(leaves), self.task.program_digest, self.task_path("program")

    def node_record_of(self, node: int) -> Record:
        return self.record_of(node - len(self.program.nodes))

    def task_path(self, name: str) -> list[bytes]:
        return self.task.opening(name)[3]

    def source(self, place: int) -> tuple[SourceLeaf, list[bytes], int]:
        """Where batch or scalar input `place` comes from; the entries of that group, and its number among them."""
        i, task = self.program.inputs[place], self.task
        assert task.sampler is not None
        batch = i.role == "batch"
        types, roots = (task.data_types, task.data) if batch else (task.schedule_types, task.schedule)
        s = task.sampler
        rows = types[i.name].shape[0]
        source = Source(i.role, rows, s.seed, s.batch) if batch else Source(i.role, rows, (0, 0), 0)
        return SourceLeaf(source, i.type, roots[i.name]), _entries(types, roots), sorted(types).index(i.name)

    # ---- tensor and element -------------------------------------------------------------------------------------

    def leaf(self, step: int, place: int) -> NodeLeaf | SourceLeaf:
        """The leaf that elements are computed from."""
        leaf = self.trace(step).leaves[place]
        return self.source(place)[0] if isinstance(leaf, InputLeaf) else leaf

    def value_number(self, step: int, place: int, output: int) -> int:
        leaf = self.trace(step).leaves[place]
        return leaf.number if isinstance(leaf, InputLeaf) else leaf.first + output

    def array(self, step: int, place: int, output: int) -> Array:
        return self.trace(step).values[self.value_number(step, place, output)]

    def tree(self, step: int, place: int, output: int) -> TensorTree:
        """The chunk tree of an output."""
        number = self.value_number(step, place, output)
        if self._tree is None or self._tree[0] != number:
            self._tree = number, TensorTree(self.trace(step).values[number])
        return self._tree[1]

    def operand_tensors(self, step: int, place: int) -> list[Array]:
        """The operand tensors of a leaf, as they are stored."""
        leaf = self.trace(step).leaves[place]
        if isinstance(leaf, NodeLeaf):
            return [self.trace(step).values[v] for v in leaf.node.inputs]
        i = self.program.inputs[place]
        return [self.task.group("data" if i.role == "batch" else "schedule")[i.name]]

    def scalar(self, leaf: NodeLeaf | SourceLeaf) -> ScalarProgram | None:
        """The scalar program of a leaf's node, where it has one."""
        return None if leaf.scalar_program is None else self.program.scalar_programs[leaf.scalar_program]

    def sequence(
        self, step: int, place: int, output: int, element: int, claimed: int
    ) -> tuple[Sequence, Array, MerkleLog]:
        """The sequence of an element for a claimed value, its results, and the tree over them."""
        key = step, place, output, element, claimed
        if self._sequence is None or self._sequence[0] != key:
            leaf = self.leaf(step, place)
            s = leaf.sequence(output, element, claimed, step, self.scalar(leaf))
            results = self.results(s, [stored_bits(t) for t in self.operand_tensors(step, place)])
            results[-1] = stored_bits(self.array(step, place, output))[element]  # a side stands by its value
            encoded = results.astype(">u8").tobytes()
            log = merkle_log(encoded[i : i + 8] for i in range(0, len(encoded), 8))
            self._sequence = key, (s, results, log)
        return self._sequence[1]

    def results(self, sequence: Sequence, tensors: list[Array]) -> Array:
        """The results of a sequence; `tensors` are flat stored bits."""
        return sequence.results(tensors)

    def operands(self, step: int, place: int, sequence: Sequence, t: int, results: Array) -> list[int]:
        """The operands of operation t, three slots."""
        tensors = [stored_bits(x) for x in self.operand_tensors(step, place)]
        found = sequence.operands(t, tensors, results)
        return [*found, 0, 0, 0][:3]

    def open_element(self, step: int, place: int, tensor: int, element: int) -> tuple[bytes, tuple[bytes, ...]]:
        """The chunk of an operand tensor that holds an element, and its path."""
        array = self.operand_tensors(step, place)[tensor]
        chunk, _ = chunk_of_element(self.leaf(step, place).operands[tensor].type.dtype, element)
        opening = TensorTree(array).open(chunk)
        return opening.chunk, opening.path


def _entries(types: Mapping[str, TensorType], roots: Mapping[str, bytes]) -> list[bytes]:
    """The entries of a group, sorted by name."""
    return [encode_entry(name, Tensor(types[name], roots[name])) for name in sorted(types)]

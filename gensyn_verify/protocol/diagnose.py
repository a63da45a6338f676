"""Where a NaN or an infinity came from: a step run again with every value kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from gensyn_verify import backends
from gensyn_verify.backends.arrays import Array, widen
from gensyn_verify.backends.names import DeviceName, VendorName, parse
from gensyn_verify.program.program import SKIPPED, Program
from gensyn_verify.program.types import Dtype, TensorType

Test = Callable[[int], bool]


def non_finite(metrics: Mapping[str, Array], program: Program) -> str:
    """The first float metric that holds a NaN or an infinity; "" if none does.

    A step that says by the boolean metric `skipped` that it updated nothing may have any loss: a loss scale that was
    too large is what it answers to, and the run goes on.
    """
    types = program.outputs_of("metric")
    if SKIPPED in types and types[SKIPPED] == TensorType(Dtype.boolean, ()) and bool(metrics[SKIPPED]):
        return ""
    for name, array in metrics.items():
        if types[name].dtype.is_float and not np.isfinite(widen(array, types[name].dtype)).all():
            return name
    return ""


class Inspector:
    """An executor that keeps every value of its last step and can say what made an output bad.

    It runs on `backend`, whose bits it must have: a step is looked at as it was taken, and what vendor kernels overflow
    on, the reproducible ones may not.
    """

    def __init__(self, program: Program, backend: str) -> None:
        self.program = program
        self._executor, self._value = _keeping(program, backend)
        self._inputs: list[Array] = []

    def load(self, state: Mapping[str, Array]) -> None:
        self._executor.load(state)

    def state(self) -> Mapping[str, Array]:
        return self._executor.state()

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> None:
        before = {name: array.copy() for name, array in self._executor.state().items()}
        given = {"state": before, "batch": batch, "scalar": scalars}
        self._inputs = [given[i.role][i.name] for i in self.program.inputs]
        self._executor.step(batch, scalars)

    def fault(self) -> str:
        """What made the first bad output of the last step bad; "" where every output is as finite as it was before.

        A state that was bad before the step is no new fault, unless a metric shows it.
        """
        p = self.program
        before = {i.name: v for v, i in enumerate(p.inputs) if i.role == "state"}
        for o in sorted(p.outputs, key=lambda o: o.role):  # metrics first: they are nearer to the cause
            if self._bad(o.value) and not (o.role == "state" and self._bad(before[o.name])):
                return f"{o.role} {o.name!r} becomes {self._word(o.value)}: {self._cause(o.value)}"
        return ""

    def _cause(self, value: int) -> str:
        """The first NaN on the way to `value`; where an infinity led to it, that first."""
        if not self._nan(value):
            return self._describe(_first(self.program, [value], self._bad))
        nan = _first(self.program, [value], self._nan)
        infinite = [v for v in _node_inputs(self.program, nan) if self._bad(v)]
        if not infinite:
            return self._describe(nan)
        return f"{self._describe(_first(self.program, infinite, self._bad))}, from it {self._describe(nan)}"

    def _describe(self, v: int) -> str:
        p = self.program
        if v < len(p.inputs):
            return f"{p.inputs[v].role} input {p.inputs[v].name!r} already holds {self._word(v)}"
        n = _producer(p, v)
        node = p.nodes[n]
        origin = f", {node.origin}" if node.origin else ""
        return f"node {n} ({type(node.op).__name__.lower()}{origin}) gives {self._word(v)}"

    def _word(self, v: int) -> str:
        return "NaN" if self._nan(v) else "an infinity"

    def _array(self, v: int) -> Array | None:
        type = self.program.value_types[v]
        if not type.dtype.is_float:
            return None
        stored = self._inputs[v] if v < len(self._inputs) else self._value(v)
        return widen(np.ascontiguousarray(stored), type.dtype)

    def _bad(self, v: int) -> bool:
        array = self._array(v)
        return array is not None and not np.isfinite(array).all()

    def _nan(self, v: int) -> bool:
        array = self._array(v)
        return array is not None and bool(np.isnan(array).any())


def _keeping(program: Program, backend: str) -> tuple[backends.Executor, Callable[[int], Array]]:
    """An executor on `backend` that keeps what it computes, and how to read a value of its last step."""
    name = parse(backend)
    if isinstance(name, VendorName):
        vendor = backends.vendor_package().Executor(program, name, keep=True)
        return vendor, vendor.value
    if isinstance(name, DeviceName):
        device = backends.on_device(name, program, keep=True)
        return device, device.value
    if name == "cpu":
        from gensyn_verify.backends import cpu

        native = cpu.Executor(program, keep=True)
        return native, native.value
    from gensyn_verify.backends import reference

    plain = reference.Executor(program)
    return plain, lambda v: plain.values[v]


def _producer(program: Program, v: int) -> int:
    """The node that outputs value `v`."""
    return int(np.searchsorted(program.first_value, v, side="right")) - 1


def _node_inputs(program: Program, v: int) -> tuple[int, ...]:
    return () if v < len(program.inputs) else program.nodes[_producer(program, v)].inputs


def _first(program: Program, values: Iterable[int], test: Test) -> int:
    """The lowest-numbered value that `values` depend on (themselves included) and that passes.

    Values are numbered in execution order, so nothing that this one was computed from passes.
    """
    seen, stack = set(values), list(values)
    while stack:
        for v in _node_inputs(program, stack.pop()):
            if v not in seen:
                seen.add(v)
                stack.append(v)
    return min(v for v in seen if test(v))

"""Backends: a program in, bits out. `reference` is the definition; all equal it bit for bit, `vendor` but for rounding.

arrays     how tensors lie in NumPy
reference  plain NumPy: the definition of every node kind
cpu        native kernels: AVX-512, AVX2, NEON or portable C++
device     what the backends of devices share: plans, fused maps, the executor
cuda       NVIDIA GPUs through the driver API
triton     NVIDIA and AMD GPUs through Triton
metal      Apple GPUs through torch's Metal
vendor     stock PyTorch kernels: fast, not reproducible, for the threshold mode of verification
names      how backends are named
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from gensyn_verify.backends.arrays import Array, check_array
from gensyn_verify.backends.names import DeviceName, VendorName, parse
from gensyn_verify.errors import BackendError, MalformedError
from gensyn_verify.program.program import Program

if TYPE_CHECKING:
    from gensyn_verify.backends.device.executor import Executor as DeviceExecutor

BACKENDS = ("cpu", "reference")  # the reproducible ones that are on every machine


class Executor(Protocol):
    """A program with its state. One call of `step` is one training step."""

    program: Program

    def load(self, state: Mapping[str, Array]) -> None:
        """Copy in the whole state, by name."""

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        """Advance the state by one step; the metrics."""

    def state(self) -> Mapping[str, Array]:
        """The state by name; views that the next `step` or `load` may overwrite."""


Backend = str | Callable[[Program], Executor]  # what str() of it gives, reports name


def make(backend: Backend, program: Program) -> Executor:
    """An executor of `program` on a backend by its name (`names`).

    What is no name makes the executor itself. BackendError where the backend's device or package is missing.
    """
    if not isinstance(backend, str):
        return backend(program)
    name = parse(backend)
    if isinstance(name, VendorName):
        executor: Executor = vendor_package().Executor(program, name)
        return executor
    if isinstance(name, DeviceName):
        return on_device(name, program)
    if name == "cpu":
        from gensyn_verify.backends.cpu import Executor as CpuExecutor

        return CpuExecutor(program)
    from gensyn_verify.backends.reference import Executor as ReferenceExecutor

    return ReferenceExecutor(program)


def on_device(name: DeviceName, program: Program, keep: bool = False) -> DeviceExecutor:
    """An executor on a device; with `keep` it keeps every value of a step."""
    options: dict[str, object] = {}
    if name.kind == "cuda":
        options = {"number": name.number}
    elif name.kind == "triton":
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own variable: on the CPU, for tests
        options = {"device": "cpu" if interpreted else "cuda" if name.number is None else f"cuda:{name.number}"}
    try:
        executor: DeviceExecutor = device_package(name).make(program, keep=keep, **options)
    except ImportError as error:
        raise BackendError(f"backend {name.kind} needs a package that is missing here ({error}); use cpu") from error
    return executor


def device_package(name: DeviceName) -> ModuleType:
    return import_module(f"gensyn_verify.backends.{name.kind}")


def check_reproducible(backend: Backend, what: str) -> None:
    """BackendError where `what`, which compares bits, would run on a backend whose bits are its machine's own."""
    if isinstance(backend, str) and isinstance(parse(backend), VendorName):
        raise BackendError(f"{what} compares bits, and those of backend {backend!r} differ by machine: use cpu")


def vendor_package() -> ModuleType:
    """The package of the vendor backend; BackendError without torch."""
    try:
        return import_module("gensyn_verify.backends.vendor")
    except ImportError as error:
        raise BackendError(f"backend vendor needs PyTorch ({error}); install torch, or use cpu") from error


def evaluate(program: Program, inputs: Mapping[str, Array], backend: Backend = "cpu") -> dict[str, Array]:
    """All outputs of one step by name, from all inputs by name (no name may serve two roles)."""
    names = [i.name for i in program.inputs]
    if len(set(names)) != len(names) or set(names) != set(inputs):
        raise MalformedError(f"inputs expected: {names}; found {sorted(inputs)}")
    executor = make(backend, program)
    checked = {i.name: check_array(i.name, inputs[i.name], i.type) for i in program.inputs}
    roles = {role: {name: checked[name] for name in program.inputs_of(role)} for role in ("state", "batch", "scalar")}
    executor.load(roles["state"])
    metrics = executor.step(roles["batch"], roles["scalar"])
    return {**{n: a.copy() for n, a in executor.state().items()}, **metrics}

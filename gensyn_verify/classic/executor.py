"""A recorded run of code, replayed by the verifier's own code.

The bundle names no code and holds none. It states the digest of a file; the verifier names a file of his own, and where
that has the digest, it is executed. So a stranger's bundle chooses nothing but the numbers that trusted code works on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gensyn_verify.backends.arrays import Array
from gensyn_verify.classic.code import CODE, FIXED, Code, check_same, read_seed
from gensyn_verify.errors import BackendError, GensynVerifyError, MalformedError
from gensyn_verify.program import Program
from gensyn_verify.protocol.task import Task
from gensyn_verify.source import Source


class CodeExecutor:
    """The verifier's own model, optimizer and step as an `Executor` of a program without nodes."""

    def __init__(self, code: Code, program: Program) -> None:
        check_same(code, program)
        self.program = program
        self._code = code
        self._seed, self._step = 0, 0

    def load(self, state: Mapping[str, Array]) -> None:
        """Put a whole state into model and optimizer.

        Its `code` is left aside: `state()` has the digest of the code that ran, so a run that changed it is found out.
        """
        self._code.write(state)
        self._seed, self._step = read_seed(state)

    def step(self, batch: Mapping[str, Array], scalars: Mapping[str, Array]) -> dict[str, Array]:
        """One step; no metrics. Raises BackendError where the code raises."""
        try:
            self._code.step(batch, scalars, self._seed, self._step)
        except GensynVerifyError:
            raise
        except Exception as error:
            raise BackendError(
                f"{self._code.where}: step {self._step} raised {type(error).__name__}: {error}"
            ) from error
        self._step += 1
        return {}

    def state(self) -> dict[str, Array]:
        """A copy of the state."""
        return self._code.read(self._seed, self._step)


@dataclass(frozen=True)
class TrustedCode:
    """A file of the verifier's own that has the digest which the run states; makes the executor, and executes the file
    for that, when it is called: what `gensyn_verify.protocol.replay` takes as backend.
    """

    source: Source

    def __call__(self, program: Program) -> CodeExecutor:
        return CodeExecutor(builder(self.source)(), program)

    def __str__(self) -> str:
        return f"trusted code {self.source}"


def trust(text: str, task: Task) -> TrustedCode:
    """The file that "FILE.py:FUNCTION" names, for runs of `task`. Nothing is executed yet.

    Raises MalformedError where the task's step is a program, or is other code than the file.
    """
    source = Source.read(text)
    types = task.program.inputs_of("state")
    if task.program.nodes:
        raise MalformedError(f"the step of this run is a program: no code is needed to replay it, leave out {text}")
    if {name: types.get(name) for name in FIXED} != FIXED:
        raise MalformedError("the step of this run is neither a program nor recorded code: its state names no code")
    stated = task.store.get(FIXED[CODE], task.state[CODE], f"state tensor {CODE!r}").tobytes()
    if stated != source.digest:
        raise MalformedError(
            f"{source.path} is not the code of this run: its BLAKE3 digest is {source.digest.hex()}, the run states "
            f"{stated.hex()}; nothing was executed"
        )
    return TrustedCode(source)


def builder(source: Source) -> Callable[[], Code]:
    """Execute the file; what comes back calls the function that it is named with. What they raise is a BackendError."""
    function = _guarded(source, source.load)
    return lambda: Code(_guarded(source, function), source.digest, str(source))


def _guarded(source: Source, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except GensynVerifyError:
        raise
    except Exception as error:
        raise BackendError(f"{source} raised {type(error).__name__}: {error}") from error


def versions() -> dict[str, str]:
    """What the bits of PyTorch depend on beside code and device, as far as PyTorch says so."""
    return {
        "torch": str(torch.__version__),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


def notes(source: Source, stated: Mapping[str, str]) -> list[str]:
    """What a reader of the report must know: whom the verdict relies on, and where solver and verifier differ."""
    found = [f"replayed by {source}, code that the verifier trusts: the verdict is worth what that code is"]
    for name, here in versions().items():
        if (there := stated.get(name)) != here:
            found.append(f"{name} is {here} here, {there or 'not stated'} with the solver: bits may differ by that")
    return found

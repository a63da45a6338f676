"""`record_loop`: a loop whose step cannot be captured, recorded as a run."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gensyn_verify.backends.arrays import Array
from gensyn_verify.classic import values
from gensyn_verify.classic.code import CODE, Code, check_same, read_seed, seeded
from gensyn_verify.classic.executor import builder, versions
from gensyn_verify.classic.ragged import pack
from gensyn_verify.errors import BundleError, CaptureError, MalformedError
from gensyn_verify.program import Program, TensorType
from gensyn_verify.protocol.folder import open_folder
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.record import INTERVAL, Recorder, record
from gensyn_verify.protocol.run import RUN_FILE, Run, open_run
from gensyn_verify.protocol.run import environment as machine
from gensyn_verify.source import Source

if TYPE_CHECKING:
    from gensyn_verify.protocol.policy import Policy

Built = tuple[Any, Any, Callable[..., Any]]
State = dict[str, Array]


@dataclass(frozen=True)
class _Captured:
    """What a recorder asks of a step: its signature and the state before the first recorded one."""

    program: Program
    state: Mapping[str, Array] = field(repr=False)
    read_state: Callable[[int], State] = field(repr=False)


class Loop:
    """A recorded step: `loss = loop(batch)` is one step of the user's code, whose result it returns.

    `model` and `optimizer` are those that the step trains, `steps` counts what lies behind, `run` is the finished run
    once the block has ended well, None before and otherwise.
    """

    def __init__(self, code: Code, seed: int, ragged: int = 0, twin: Callable[[], Code] | None = None) -> None:
        self.model, self.optimizer = code.model, code.optimizer
        self.steps = 0
        self.listeners: list[Any] = []
        self.captured: _Captured | None = None
        self.reloads = 0
        self.recorder: Recorder | None = None
        self._code, self._seed, self._ragged, self._twin = code, seed, ragged, twin
        self._state: State = {}

    @property
    def run(self) -> Run | None:
        return self.recorder.run if self.recorder else None

    def take_up(self, run: Run) -> None:
        """Be the step of a run that is there; the state comes by `resume`."""
        if run.task is None or run.task.program.nodes:
            raise BundleError(f"{run.url} is no run of recorded code: nothing to resume")
        check_same(self._code, run.task.program)
        first = run.task.initial_state()
        if first[CODE].tobytes() != self._code.digest:
            raise BundleError(
                f"{run.url} was recorded with code of digest {first[CODE].tobytes().hex()}; {self._code.where} has "
                f"{self._code.digest.hex()}"
            )
        if read_seed(first)[0] != self._seed:
            raise BundleError(f"{run.url} was recorded with seed {read_seed(first)[0]}, not {self._seed}")
        self._capture(run.task.program.inputs_of("batch"), first)

    def _capture(self, batch: Mapping[str, TensorType], state: State) -> None:
        self.captured = _Captured(self._code.program(batch), state, lambda step: self._code.read(self._seed, step))

    def resume(self, state: Mapping[str, Array]) -> None:
        """Go on from a state of the run; what a recorder calls."""
        self._code.write(state)
        self.steps = read_seed(state)[1]
        self._state = self._code.read(self._seed, self.steps)

    def __call__(self, batch: Any) -> Any:
        """One step; what the user's step returns. CaptureError where the batch or the model has another form."""
        if torch.is_autocast_enabled(self._code.device.type):
            raise CaptureError("a recorded step begins outside of torch.autocast: enter it inside of the step")
        arrays = values.flatten(batch)
        if self._ragged:
            arrays = pack(arrays, self._ragged)
        types = {name: values.carried(array) for name, array in arrays.items()}
        scalars = self._code.scalars()
        if self.captured is None:
            self._state = self._code.read(self._seed, self.steps)
            self._capture(types, self._state)
        assert self.captured is not None
        if types != (wanted := self.captured.program.inputs_of("batch")):
            raise CaptureError(
                f"the batch is {_listed(types)}, the first one was {_listed(wanted)}. A run has static shapes: "
                "pad, drop a last smaller batch (drop_last=True), or say ragged=BYTES, which every batch fits into"
            )
        self._check_untouched()
        before = self._state
        result = self._code.step(arrays, scalars, self._seed, self.steps)
        self.steps += 1
        self._state = self._code.read(self._seed, self.steps)
        self._check_repeatable(before, arrays, scalars)
        for listener in self.listeners:
            listener(self.steps, arrays, scalars, self._state, {})
        return result

    def _check_repeatable(self, before: State, batch: State, scalars: State) -> None:
        """Take the first step once more, as a verifier will: with a model and an optimizer that were built anew."""
        if self._twin is None:
            return
        with seeded(0, 0):
            twin = self._twin()
        self._twin = None
        assert self.captured is not None
        check_same(twin, self.captured.program)
        twin.write(before)
        twin.step(batch, scalars, self._seed, self.steps - 1)
        for name, array in twin.read(self._seed, self.steps).items():
            if not values.same_bits(array, self._state[name]):
                raise CaptureError(
                    f"a step that was taken twice from one state, batch and seed gave two different {name}: it reads "
                    "what is not recorded (a closure, a global, an attribute, a generator of its own), or PyTorch "
                    "computes it otherwise each time (torch.use_deterministic_algorithms). State of your own belongs "
                    "into buffers of the model"
                )

    def _check_untouched(self) -> None:
        live = self._code.read(self._seed, self.steps, copy=False)
        for name, array in live.items():
            if not values.same_bits(array, self._state[name]):
                raise BundleError(
                    f"{name} was written to before step {self.steps}, so it did not begin with the state that the step "
                    "before it left; record from here on as a run of its own"
                )


def _listed(types: Mapping[str, TensorType]) -> str:
    return ", ".join(f"{name} {type}" for name, type in types.items())


def _builder(what: str | Callable[[], Built] | Built) -> Callable[[], Code]:
    """What builds the code to record: FILE.py:FUNCTION, that function, or (once) what it would return."""
    if isinstance(what, str):
        return builder(Source.read(what))
    function = what if callable(what) else what[2]
    file = inspect.getsourcefile(inspect.unwrap(function))
    if file is None or not os.path.isfile(file):
        raise CaptureError(
            f"{function!r} comes from no file, so nothing says which code is recorded; put it into a .py file"
        )
    with open(file, "rb") as content:
        digest = Source(file, function.__name__, content.read()).digest
    return lambda: Code(what() if callable(what) else what, digest, file)


def _environment(code: Code) -> dict[str, str]:
    """What a run says of where it was made."""
    own = {"backend": "code", "code": code.digest.hex(), "device": str(code.device)}
    return {**machine("reference"), **versions(), **own}


@contextlib.contextmanager
def record_loop(
    what: str | Callable[[], Built] | Built,
    out: str | os.PathLike[str],
    *,
    interval: int = INTERVAL,
    seed: int = 0,
    ragged: int = 0,
    policy: Policy | None = None,
    identity: Identity | None = None,
    salt: bytes | None = None,
    resume: bool = False,
    check: bool = True,
) -> Iterator[Loop]:
    """Record a loop whose step is any Python function into a run bundle at `out`: classic proof-of-learning.

        def build():
            return model, optimizer, step    # step(model, optimizer, batch) -> loss: zero_grad to optimizer.step()

        with gv.record_loop("train.py:build", "run") as loop:
            for batch in loader:
                loss = loop(batch)

    For what `gv.compile` cannot capture; where it can, `gv.record` proves more. `what` is "FILE.py:FUNCTION", that
    function, or the (model, optimizer, step) that it returns; the optimizer may be several. The BLAKE3 digest of the
    file that the function is in goes into the task. The run holds every batch (nests of tensors and numbers), the
    hyperparameters of every step, and every `interval` steps the state: parameters, buffers, optimizer. Batches are all
    of one shape, or else `ragged` is a number of bytes that each fits into, with some 40 for the name of a tensor.
    Random numbers of a step are drawn from (`seed`, step), whatever the loop draws around it.

    What else the code keeps from step to step is not seen, and a replay will differ: state of your own belongs into
    buffers of the model. To find that out at once, `check` takes the first step a second time, with a model and an
    optimizer that the function builds anew (not with a policy of distances, nor where `what` is no function).

    With `resume` a run that is there goes on from its last checkpoint, with batch number `loop.steps`; the loop's own
    schedulers are for the loop to bring there. Other arguments as of `record`. An error inside the block leaves an
    unfinished run that holds every step before it.

    Who verifies needs the file, reads it, and runs `gv.replay("run", trust_code="train.py:build")`. Raises CaptureError
    for what cannot be recorded, BundleError where `out` holds a run or the model is written to between steps.
    """
    if not 0 <= seed < 1 << 64:
        raise MalformedError(f"seed {seed} is not from 0 to 2^64 - 1")
    if ragged < 0:
        raise MalformedError(f"ragged is {ragged}; expected the bytes of the largest batch, or 0")
    build = _builder(what)
    code = build()
    exact = policy is None or policy.mode == "exact"
    loop = Loop(code, seed, ragged, build if check and exact and not isinstance(what, tuple) else None)
    if resume and open_folder(out).size(RUN_FILE) is not None:
        loop.take_up(open_run(out))
    with record(
        loop, out, interval=interval, policy=policy, identity=identity, salt=salt, resume=resume,
        environment=_environment(code),
    ) as loop.recorder:  # fmt: skip
        yield loop

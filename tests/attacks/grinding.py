"""Some intervals are not trained, and salts are tried until a draw of intervals misses them.

    seed-grinding-known-beacon  the beacon is known before the commitment: a salt is found whose draw is harmless
    seed-grinding-later-beacon  the beacon is not known: salts are tried under one that is made up

What it saves: a quarter of the training. A try costs two hashes.

Source: grinding of the public seed by which a verifier samples is the classic attack on Fiat-Shamir challenges; where
order of data and initial state are the solver's choice, as in Jia et al. 2021 (arXiv 2103.05633), it can grind those
too. Here they are the task's, and what is left is the salt, the address and the forged part itself.

Why it fails here: intervals are drawn from the commitment and a beacon that nobody knew when the commitment was
published. Then every salt is as good as every other, and the draw meets the forged intervals with the probability that
the report states. With a beacon that was known it succeeds: verification must not take one.
"""

from __future__ import annotations

from gensyn_verify.attacks.solver import Inputs, Log, Solver, State
from gensyn_verify.commit import run_commitment
from gensyn_verify.errors import BundleError
from gensyn_verify.protocol import sampling
from gensyn_verify.protocol.run import Run

BEACON = b"a beacon that was published before the commitment"
TRIES = 100_000


class Grinding(Solver):
    def prepare(self) -> None:
        task = self.task
        lazy = max(1, task.intervals // 4)
        if task.policy.samples + lazy > task.intervals:
            raise BundleError(
                f"attack {self.name}: every draw of {task.policy.samples} of {task.intervals} intervals meets one of "
                f"{lazy} forged; there is nothing to grind"
            )
        chosen = self.random.choice(task.intervals, lazy, replace=False)
        self.lazy = frozenset(int(n) for n in chosen)

    def advance(self, step: int, state: State, inputs: Inputs) -> tuple[State, State]:
        if self.interval(step) not in self.lazy:
            return self.engine(state, inputs)
        self.forged.add(step)
        return self.skip(state), self.quiet(step)

    def seal(self, log: Log) -> Run:
        log.rename(log.header.solver, self._ground(log))
        return log.finish()

    def _ground(self, log: Log) -> bytes:
        """A salt under which the draw from `BEACON` misses every forged interval."""
        header, root, task = log.header, log.accumulator.root(), self.task
        for _ in range(TRIES):
            salt = self.random.bytes(32)
            commitment = run_commitment(header.task, header.solver, salt, task.steps, root)
            if not self.lazy & set(sampling.draw(BEACON, commitment, task.intervals, task.policy.samples)):
                return salt
        raise BundleError(f"attack {self.name}: {TRIES} salts were tried, and every draw met a forged interval")


class KnownBeacon(Grinding):
    def prepare(self) -> None:
        super().prepare()
        self.beacon = BEACON


class LaterBeacon(Grinding):
    """The verifier's beacon is another one."""

"""Work of others under one's own name.

    copied-run           a published run with its address swapped for one's own
    replayed-commitment  another's published commitment, over a log of one's own

What it saves: everything (cost 0).

Sources: replay and copying are what Jia et al. 2021 (arXiv 2103.05633) leave to a time stamp; proofs that are copied
from a public pool, and sealed proofs of others, were seen in markets for outsourced work.

Why it fails here: a commitment binds task, address, salt and log, and is published before anything under it is shown.
A copier can commit only to what it can see by then, which is another's 32 bytes, and these do not open to its address.
Copied openly, with the commitment as it was, that shows at once. In disguise, with a commitment computed afresh after
the victim has shown its run, everything in the bundle is consistent, and it is true work; it shows where the verifier
knows what the copier had published in time: `replay(run, commitment=...)`, which is what a settlement contract does.
"""

from __future__ import annotations

from typing import ClassVar

from gensyn_verify.attacks.interpolation import InfinitesimalUpdate
from gensyn_verify.attacks.solver import Log, Solver
from gensyn_verify.protocol.run import COMMITMENT_FILE, Run, open_run
from gensyn_verify.protocol.steps import StepRecord


class Copier(Solver):
    needs: ClassVar[tuple[str, ...]] = ("victim",)

    def prepare(self) -> None:
        assert self.victim.commitment is not None
        self.published = self.victim.commitment.digest

    def under_stolen_commitment(self, log: Log) -> Run:
        """The run with the victim's commitment file in place of its own."""
        log.finish()
        with self.victim.folder.open(COMMITMENT_FILE) as (file, _):
            log.folder.write(COMMITMENT_FILE, [file.read()])
        return open_run(log.folder.url, self.task)


class CopiedRun(Copier):
    def steal(self, step: int) -> StepRecord | None:
        return self.record(step)

    def seal(self, log: Log) -> Run:
        if self.disguise:
            return log.finish()
        log.rename(log.header.solver, self.victim.header.salt)
        return self.under_stolen_commitment(log)


class ReplayedCommitment(Copier, InfinitesimalUpdate):
    def seal(self, log: Log) -> Run:
        if self.disguise:  # address and salt too, so that only the log is another
            log.rename(self.victim.header.solver, self.victim.header.salt)
        return self.under_stolen_commitment(log)

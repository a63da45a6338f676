"""The attack zoo: dishonest solvers to try a verification policy on. Ships as `gensyn_verify.attacks`.

    from gensyn_verify.attacks import KINDS, forge

    forgery = forge("drift", task, "forged", victim=honest_run, seed=0, backend="cpu", disguise=True)
    report = gv.replay(forgery.run, task, everything=True)

An attack is the honest solver with one or two methods changed (`solver`, which has the tour of them). What it commits
to is consistent: the commitment is of the forged log, checkpoints have the roots that the log names. With `disguise`
the log names the task's batches and learning rates whatever was used, so that only states can betray it; without, it
names its own. Files, by idea:

interpolation  states on a line to a stolen model; initial states by ranks; true updates where a verifier looks
adversarial    inputs computed so that steps lead where they should (gradient: how)
splice         two runs in one; the best of some
moments        optimizer state invented: noise, aimed, plausible, a jump
edits          noise on weights, buffers, drift
data           rows added, left out, blanked, relabelled, reordered, denied
shortcuts      fewer steps, larger steps, narrower arithmetic
grinding       salts tried until the draw misses
copies         another's run, another's commitment
jia            the verification rule of Jia et al. 2021, for comparison
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gensyn_verify.attacks import (
    adversarial,
    copies,
    data,
    edits,
    grinding,
    interpolation,
    moments,
    shortcuts,
    splice,
)
from gensyn_verify.attacks.solver import Forgery, Solver
from gensyn_verify.errors import MalformedError
from gensyn_verify.protocol.run import Run
from gensyn_verify.protocol.task import Task


@dataclass(frozen=True)
class Attack:
    """One kind of forgery: who does it, and what it is in a line."""

    solver: type[Solver]
    summary: str


KINDS: dict[str, Attack] = {
    "adversarial-1": Attack(adversarial.SuitedGradient, "inputs computed so that steps lead to made-up checkpoints"),
    "adversarial-2": Attack(adversarial.ZeroGradient, "inputs computed so that steps stand still"),
    "adversarial-3": Attack(adversarial.ZeroGradientOnce, "the same, one optimisation an interval"),
    "batchnorm-tamper": Attack(edits.BatchnormTamper, "buffers of normalization changed after an interval"),
    "blindfold-topq": Attack(interpolation.BlindfoldTopQ, "a line to a stolen model; the longest updates are true"),
    "cherry-picked": Attack(splice.CherryPicked, "the best of three runs with other orders of batches"),
    "copied-run": Attack(copies.CopiedRun, "another's run under one's own address"),
    "data-addition": Attack(data.DataAddition, "rows that are not in the data, in an interval"),
    "data-interpolation": Attack(interpolation.DataInterpolation, "honest for a third, then a line to a stolen model"),
    "data-subtraction": Attack(data.DataSubtraction, "rows left out, in an interval"),
    "drift": Attack(edits.Drift, "a push below the tolerance after every interval"),
    "elided-data": Attack(data.ElidedData, "the middle of every row zeroed, which a hash of its print does not see"),
    "fewer-steps": Attack(shortcuts.FewerSteps, "every second step skipped"),
    "forged-moments-aligned": Attack(moments.AlignedMoments, "moments aim the next update at a stolen model"),
    "forged-moments-calibrated": Attack(moments.CalibratedMoments, "the same, each as long as it should be"),
    "forged-moments-plain": Attack(moments.PlainMoments, "moments that close an interval are noise"),
    "gaussian-edits": Attack(edits.GaussianEdits, "noise on the weights after one step"),
    "infinitesimal-update": Attack(interpolation.InfinitesimalUpdate, "a line to a stolen model, rates of almost zero"),
    "initialisation-break": Attack(interpolation.InitialisationBreak, "the same, from an initial state by its ranks"),
    "interpolated-checkpoints": Attack(
        interpolation.InterpolatedCheckpoints, "means of stolen ones between stolen ones"
    ),
    "label-change": Attack(data.LabelChange, "labels change places, in an interval"),
    "larger-rate": Attack(shortcuts.LargerRate, "one step at twice the rate instead of two"),
    "lower-precision": Attack(shortcuts.LowerPrecision, "arithmetic in bfloat16"),
    "minibatch-forging": Attack(data.MinibatchForging, "a row denied: other batches with nearly the same gradient"),
    "optimizer-injection": Attack(moments.OptimizerInjection, "momentum that jumps to a stolen model"),
    "order-change": Attack(data.OrderChange, "two batches change places"),
    "replayed-commitment": Attack(copies.ReplayedCommitment, "another's commitment over a log of one's own"),
    "seed-grinding-known-beacon": Attack(grinding.KnownBeacon, "salts tried under a beacon that is known; succeeds"),
    "seed-grinding-later-beacon": Attack(grinding.LaterBeacon, "salts tried before the beacon is known; fails"),
    "splice": Attack(splice.Splice, "the beginning of one's own run and the end of a stolen one"),
}


def forge(
    kind: str,
    task: Task,
    out: str | os.PathLike[str],
    *,
    victim: Run | None = None,
    seed: int = 0,
    backend: str = "cpu",
    disguise: bool = True,
    strength: float | None = None,
) -> Forgery:
    """A forged run of `task` at `out`.

    `victim` is an honest, finished run of the task, which thieves read; `seed` decides what the forger draws. The same
    arguments give the same run on a reproducible backend. `strength` replaces the length of drift's pushes (1e-3 of an
    interval's update) and of gaussian edits (1, the step's update). Raises MalformedError for an unknown kind and
    BundleError where the task lacks what the attack works on, naming it.
    """
    if kind not in KINDS:
        raise MalformedError(f"attack {kind!r} is unknown; known are {', '.join(KINDS)}")
    return KINDS[kind].solver(kind, task, victim, seed, backend, strength).forge(out, disguise)


__all__ = ["KINDS", "Attack", "Forgery", "Solver", "forge"]

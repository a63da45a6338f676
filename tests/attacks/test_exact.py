"""In exact mode a full replay rejects every forgery, for the right reason and at the steps that were forged."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from attacks.tasks import BATCH, FEATURES, INTERVAL, STEPS, linear_task
from gensyn_verify.attacks import KINDS, Solver, forge
from gensyn_verify.attacks.adversarial import SuitedGradient
from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.program import Dtype, ProgramBuilder, TensorType
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.roots import roots_of
from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.sampler import Sampler
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task, write_task

BY_BATCH = {
    "adversarial-1", "adversarial-2", "adversarial-3", "cherry-picked", "data-addition", "data-subtraction",
    "elided-data", "label-change", "minibatch-forging", "order-change", "splice",
}  # fmt: skip
BY_SCALAR = {"blindfold-topq", "fewer-steps", "infinitesimal-update", "initialisation-break", "larger-rate"}
BY_COMMITMENT = {"copied-run", "replayed-commitment"}
COST = {
    "adversarial-1": 0, "batchnorm-tamper": 1, "cherry-picked": 3, "copied-run": 0, "data-addition": 1,
    "data-interpolation": 2 / 8, "drift": 1, "fewer-steps": 1 / 2, "forged-moments-plain": 1, "gaussian-edits": 1,
    "infinitesimal-update": 0, "initialisation-break": 0, "interpolated-checkpoints": 0, "larger-rate": 1 / 2,
    "lower-precision": 1, "order-change": 1, "replayed-commitment": 0, "seed-grinding-later-beacon": 6 / 8,
    "splice": 2 / 8,
}  # fmt: skip
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="gradients with respect to inputs need torch")
ALL = [pytest.param(k, marks=needs_torch) if k.startswith("adversarial") else k for k in KINDS]


@pytest.mark.parametrize("disguise", [False, True], ids=["open", "disguised"])
@pytest.mark.parametrize("kind", ALL)
def test_full_replay_rejects_for_the_right_reason(
    kind: str, disguise: bool, task: Task, honest: Run, tmp_path: Path
) -> None:
    forgery = forge(kind, task, tmp_path / "forged", victim=honest, seed=1, disguise=disguise)
    report = replay(open_run(tmp_path / "forged"), task, everything=True, commitment=forgery.published)
    assert report.verdict is Verdict.MISMATCH
    kinds = {f.kind for f in report.findings}
    first = report.findings[0].kind
    if kind in BY_COMMITMENT:
        assert first == "commitment"
    elif disguise:
        assert first == "state"
        assert not kinds & {"batch", "scalar"}
    else:
        assert first == ("batch" if kind in BY_BATCH else "scalar" if kind in BY_SCALAR else "state")
    if kind not in BY_COMMITMENT:
        assert kinds <= {"batch", "scalar", "state", "metric"}  # commitment, log and checkpoints are consistent
    met = {f.interval for f in report.findings if f.interval is not None}
    assert met == {step // INTERVAL for step in forgery.steps_forged}
    assert {f.step for f in report.findings if f.interval is not None} <= set(forgery.steps_forged)


@pytest.mark.parametrize("kind", ALL)
def test_the_log_names_what_is_claimed(kind: str, task: Task, honest: Run, tmp_path: Path) -> None:
    forgery = forge(kind, task, tmp_path / "forged", victim=honest, seed=2, disguise=False)
    for n in range(task.intervals):
        for step, record in enumerate(forgery.run.segment(n).steps, n * INTERVAL):
            batch, scalars = forgery.claims(step)
            assert roots_of(batch) == record.batch
            assert roots_of(scalars) == record.scalar


@pytest.mark.parametrize("kind", COST)
def test_cost_is_what_the_forger_executed(kind: str, task: Task, honest: Run, tmp_path: Path) -> None:
    assert forge(kind, task, tmp_path / "forged", victim=honest, seed=1).cost == pytest.approx(COST[kind])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("disguise", [False, True])
def test_the_loop_without_a_patch_is_the_honest_solver(task: Task, tmp_path: Path, seed: int, disguise: bool) -> None:
    forgery = Solver("honest", task, None, seed, "cpu", None).forge(tmp_path / "run", disguise)
    assert forgery.steps_forged == ()
    assert forgery.cost == 1
    for options in ({"everything": True}, {"beacon": bytes([seed])}):
        assert replay(forgery.run, task, **options).verdict is Verdict.VERIFIED  # type: ignore[arg-type]


def test_copied_run_is_true_work_and_fails_only_by_what_was_published(task: Task, honest: Run, tmp_path: Path) -> None:
    forgery = forge("copied-run", task, tmp_path / "forged", victim=honest, disguise=True)
    assert forgery.published == honest.commitment.digest  # type: ignore[union-attr]
    assert replay(forgery.run, task, everything=True).verdict is Verdict.VERIFIED
    report = replay(forgery.run, task, everything=True, commitment=forgery.published)
    assert [f.kind for f in report.findings] == ["commitment"]


def test_same_arguments_give_the_same_forgery(task: Task, honest: Run, tmp_path: Path) -> None:
    forgeries = [forge("drift", task, tmp_path / str(i), victim=honest, seed=seed) for i, seed in enumerate((7, 7, 8))]
    a, b, c = (f.run.commitment.digest for f in forgeries)  # type: ignore[union-attr]
    assert a == b != c


def test_injection_jumps_to_the_stolen_weights_in_one_interval(task: Task, honest: Run, tmp_path: Path) -> None:
    forgery = forge("optimizer-injection", task, tmp_path / "forged", victim=honest, disguise=False)
    start, goal = task.initial_state()["param.w"], honest.checkpoint()["param.w"]
    landed = forgery.run.checkpoint(1)["param.w"]
    assert np.linalg.norm(landed - goal) < 1e-6 * np.linalg.norm(start - goal)


@needs_torch
def test_forgers_on_vendor_kernels_solve_on_vendor_kernels(task: Task, honest: Run, tmp_path: Path) -> None:
    vendor = solve(task, tmp_path / "vendor", backend="vendor").checkpoint()["param.w"]

    def away(kind: str) -> float:
        forged = forge(kind, task, tmp_path / kind, victim=honest, seed=1, backend="vendor").run.checkpoint()
        return float(np.linalg.norm(forged["param.w"] - vendor))

    assert away("batchnorm-tamper") == 0  # weights are those of the honest vendor solver, bit for bit
    assert 1e-5 < away("lower-precision") < 1e-1  # products of bfloat16


@needs_torch
def test_adversarial_inputs_lead_closer_to_what_is_wanted(
    task: Task, honest: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # as many evaluations as an attack takes
    attack = SuitedGradient("adversarial-1", task, honest, 0, "cpu", None)
    attack.prepare()
    step, state = 0, task.initial_state()
    wanted = attack.wanted(step, state)
    batch = attack.optimised(state, attack.honest(step), wanted)

    def miss(batch: dict[str, np.ndarray]) -> float:
        after = attack.engine(state, (batch, task.scalars(step)))[0]
        return float(np.linalg.norm(after["param.w"] - wanted["param.w"]))

    assert not np.array_equal(batch["x"], task.batch(step)["x"])
    assert miss(batch) < 0.5 * miss(task.batch(step))


def test_forged_initial_weights_have_the_ranks_of_the_stolen_ones(task: Task, honest: Run, tmp_path: Path) -> None:
    forgery = forge("initialisation-break", task, tmp_path / "forged", victim=honest)
    assert forgery.initial is not None
    stolen = honest.checkpoint()["param.w"]
    assert (np.argsort(forgery.initial["param.w"]) == np.argsort(stolen)).all()


def test_drift_grows_with_its_strength(task: Task, honest: Run, tmp_path: Path) -> None:
    ends = [
        forge("drift", task, tmp_path / str(s), victim=honest, seed=3, strength=s).run.checkpoint()["param.w"]
        for s in (0.01, 0.1)
    ]
    near, far = (np.linalg.norm(end - honest.checkpoint()["param.w"]) for end in ends)
    assert 0 < near < far


# ---- what an attack needs --------------------------------------------------------------------------------------


def bare_task(path: Path, names: tuple[str, ...] = ("w",)) -> Task:
    """State without the names of a captured program, integer inputs, no learning rate."""
    g = ProgramBuilder()
    state = [g.input("state", n, TensorType(Dtype.f32, (FEATURES,))) for n in names]
    x = g.input("batch", "x", TensorType(Dtype.i32, (BATCH, FEATURES)))
    mean = g.reduce("sum", g.map(lambda v: v.to(state[0].dtype.reg), x), [0])
    for name, value in zip(names, state, strict=True):
        g.output("state", name, g.map(lambda a, b: a * 0.5 + b, value, mean))
    return write_task(
        path,
        g.build(),
        {n: np.ones(FEATURES, np.float32) for n in names},
        data={"x": np.arange(2 * BATCH * FEATURES, dtype=np.int32).reshape(-1, FEATURES)},
        schedule={},
        sampler=Sampler((1, 2), 2 * BATCH, BATCH),
        steps=4,
        interval=2,
    )


@pytest.mark.parametrize(
    ("kind", "names", "missing"),
    [
        ("gaussian-edits", ("w",), "param"),
        ("forged-moments-plain", ("param.w",), "momentum or first moments"),
        ("batchnorm-tamper", ("param.w",), "float tensor in the state beside parameters"),
        ("adversarial-1", ("param.w",), "float batch input"),
        ("fewer-steps", ("param.w",), "learning rate among the scalars"),
    ],
)
def test_a_task_without_what_is_needed_is_refused_by_name(
    kind: str, names: tuple[str, ...], missing: str, tmp_path: Path
) -> None:
    task = bare_task(tmp_path / "task", names)
    victim = solve(task, tmp_path / "honest")
    with pytest.raises(BundleError, match=missing):
        forge(kind, task, tmp_path / "forged", victim=victim, disguise=False)


def test_a_thief_needs_a_victim_of_the_same_task(task: Task, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="splice needs an honest run"):
        forge("splice", task, tmp_path / "forged")
    other = linear_task(tmp_path / "other", steps=STEPS - INTERVAL)
    with pytest.raises(BundleError, match="the stolen run is of task"):
        forge("splice", task, tmp_path / "forged", victim=solve(other, tmp_path / "run"))


def test_unknown_kinds_are_named_with_the_known_ones(task: Task, tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=r"'magic' is unknown.*drift"):
        forge("magic", task, tmp_path / "forged")

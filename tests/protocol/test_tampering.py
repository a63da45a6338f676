"""Every way to tamper with a run that the project names: caught, and named in the report."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import INTERVAL, SALT, SOLVER, STEPS, dishonest_solve, flip, linear_task

from gensyn_verify.protocol import manifest, store
from gensyn_verify.protocol.identity import Identity
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Finding, Report, Verdict
from gensyn_verify.protocol.run import Run, open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import Task

Copy = tuple[Path, Callable[[], Run]]
STEP = 17


def verify(run: Run, task: Task, **options: object) -> Report:
    return replay(run, task, everything=True, backend="reference", **options)  # type: ignore[arg-type]


def only_finding(report: Report) -> Finding:
    assert report.verdict is Verdict.MISMATCH
    assert report.exit_code == 1
    (finding,) = report.findings
    return finding


def test_honest_run_is_verified_and_executed_completely(honest: Run, task: Task) -> None:
    report = verify(honest, task)
    assert report.verdict is Verdict.VERIFIED
    assert report.exit_code == 0
    assert report.steps_replayed == STEPS
    assert report.commitment == honest.commitment.digest.hex()  # type: ignore[union-attr]


# ---- a solver who does something else and commits to it consistently -------------------------------------------


@pytest.mark.parametrize("tensor", ["w", "m", "running", "step"])
def test_flipped_bit_of_the_state_names_step_tensor_and_both_digests(task: Task, tmp_path: Path, tensor: str) -> None:
    def patch(step: int, state: dict, batch: dict, scalars: dict) -> None:
        if step == STEP:
            flip(state[tensor])

    run = dishonest_solve(task, tmp_path / "run", after=patch)
    report = verify(run, task)
    finding = report.findings[0]
    assert (finding.kind, finding.step, finding.interval, finding.tensor) == ("state", STEP, STEP // INTERVAL, tensor)
    committed = run.segment(STEP // INTERVAL).steps[STEP % INTERVAL].state[tensor].hex()
    assert committed in finding.found
    assert finding.expected.split()[0] != committed
    assert f"step {STEP}" in str(report)
    assert tensor in str(report)


def test_flipped_bit_in_a_label_is_named_as_batch(task: Task, tmp_path: Path) -> None:
    def patch(step: int, state: dict, batch: dict, scalars: dict) -> None:
        if step == STEP:
            flip(batch["label"])

    findings = verify(dishonest_solve(task, tmp_path / "run", before=patch), task).findings
    assert (findings[0].kind, findings[0].step, findings[0].tensor) == ("batch", STEP, "label")
    assert "x" not in [f.tensor for f in findings if f.kind == "batch"]


def test_another_order_of_batches_is_named_as_batch(task: Task, tmp_path: Path) -> None:
    def patch(step: int, state: dict, batch: dict, scalars: dict) -> None:
        if step in (STEP, STEP + 1):  # the two batches swapped
            batch.update(task.batch(2 * STEP + 1 - step))

    findings = verify(dishonest_solve(task, tmp_path / "run", before=patch), task).findings
    assert {(f.kind, f.step) for f in findings[:2]} == {("batch", STEP)}
    assert {f.tensor for f in findings if f.kind == "batch"} >= {"x"}


def test_another_schedule_scalar_is_named(task: Task, tmp_path: Path) -> None:
    def patch(step: int, state: dict, batch: dict, scalars: dict) -> None:
        if step == STEP:
            flip(scalars["lr"])

    findings = verify(dishonest_solve(task, tmp_path / "run", before=patch), task).findings
    assert (findings[0].kind, findings[0].step, findings[0].tensor) == ("scalar", STEP, "lr")


def test_fewer_steps_than_the_task_asks_for_are_named(task: Task, tmp_path: Path) -> None:
    finding = only_finding(verify(dishonest_solve(task, tmp_path / "run", steps=STEPS - 3), task))
    assert finding.kind == "log"
    assert finding.expected == f"{STEPS} steps"
    assert f"{STEPS - 3} committed" in finding.found


def test_forged_metric_is_named(task: Task, tmp_path: Path) -> None:
    from gensyn_verify.protocol import run as run_module

    append = run_module.RunWriter.append

    def forged(self, state, batch, scalars, metrics):  # type: ignore[no-untyped-def]
        append(self, state, batch, scalars, {"loss": np.float32(metrics["loss"] / 2)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module.RunWriter, "append", forged)
        run = dishonest_solve(task, tmp_path / "run")
    finding = verify(run, task).findings[0]
    assert (finding.kind, finding.tensor, finding.step) == ("metric", "loss", 0)


def test_momentum_injection_that_lands_on_a_wanted_model_is_caught(task: Task, tmp_path: Path) -> None:
    """The published attack on audits that hash parameters only: put the jump into the optimizer state."""

    def patch(step: int, state: dict, batch: dict, scalars: dict) -> None:
        if step == STEP:
            state["m"] -= np.float32(1 / 0.002)

    finding = verify(dishonest_solve(task, tmp_path / "run", after=patch), task).findings[0]
    assert (finding.kind, finding.step, finding.tensor) == ("state", STEP, "m")


# ---- an honest bundle edited afterwards ------------------------------------------------------------------------


def checkpoint_files(run: Run, interval: int) -> dict[str, Path]:
    types = run.task.program.inputs_of("state")  # type: ignore[union-attr]
    roots = run.segment(interval).steps[-1].state
    return {n: Path(run.url) / store.file_name(roots[n], t) for n, t in types.items()}


@pytest.mark.parametrize("tensor", ["w", "m", "running"])
def test_flipped_bit_in_a_stored_checkpoint_names_step_tensor_and_both_digests(
    copy: Copy, task: Task, tensor: str
) -> None:
    _, reopen = copy
    file = checkpoint_files(reopen(), 2)[tensor]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    report = verify(reopen(), task)
    finding = only_finding(report)
    assert (finding.kind, finding.step, finding.interval, finding.tensor) == ("checkpoint", 3 * INTERVAL - 1, 2, tensor)
    assert finding.expected == file.name.split("-")[0]
    assert len(finding.found) == 64
    assert finding.found in str(report)
    assert 3 not in report.replayed  # it would start from the spoilt checkpoint
    assert {0, 1, 2, 4, 5} == set(report.replayed)


def test_swapped_checkpoints_are_caught(copy: Copy, task: Task) -> None:
    _, reopen = copy
    a, b = checkpoint_files(reopen(), 1)["w"], checkpoint_files(reopen(), 3)["w"]
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    findings = verify(reopen(), task).findings
    assert {(f.kind, f.tensor, f.step) for f in findings} == {
        ("checkpoint", "w", 2 * INTERVAL - 1),
        ("checkpoint", "w", 4 * INTERVAL - 1),
    }


def test_missing_checkpoint_leaves_the_verdict_open(copy: Copy, task: Task) -> None:
    _, reopen = copy
    checkpoint_files(reopen(), 1)["m"].unlink()
    report = verify(reopen(), task)
    assert report.verdict is Verdict.UNDECIDED
    assert report.exit_code == 3
    assert "'m'" in report.gaps[0]
    assert f"step {2 * INTERVAL - 1}" in report.gaps[0]


def test_truncated_interval_is_named(copy: Copy, task: Task) -> None:
    path, reopen = copy
    run = reopen()
    segment = run.segment(2)
    shorter = dataclasses.replace(segment, steps=segment.steps[:-2])
    write_segment(path, run, shorter, 2)
    finding = only_finding(verify(reopen(), task))
    assert (finding.kind, finding.interval) == ("log", 2)
    assert finding.expected == f"interval 2: {INTERVAL} steps from step {2 * INTERVAL}"
    assert finding.found == f"interval 2: {INTERVAL - 2} steps from step {2 * INTERVAL}"


def test_truncated_last_interval_is_named(copy: Copy, task: Task) -> None:
    path, reopen = copy
    (path / "steps" / "00000005.steps").unlink()
    report = verify(reopen(), task)
    assert report.verdict is Verdict.MISMATCH
    assert [f.kind for f in report.findings[:1]] == ["log"]
    assert report.findings[0].found == f"{STEPS} committed, 35 in the log"


@pytest.mark.parametrize("renumbered", [False, True])
def test_duplicated_interval_is_named(copy: Copy, task: Task, renumbered: bool) -> None:
    path, reopen = copy
    run = reopen()
    segment = run.segment(2)
    if renumbered:
        segment = dataclasses.replace(segment, interval=3, first=3 * INTERVAL)
    write_segment(path, run, segment, 3)
    finding = verify(reopen(), task).findings[0]
    if renumbered:
        assert finding.kind == "commitment"
        assert "step log" in finding.message
    else:
        assert (finding.kind, finding.interval) == ("log", 3)
        assert f"interval 2: {INTERVAL} steps" in finding.found


def test_missing_interval_in_the_middle_is_named(copy: Copy, task: Task) -> None:
    path, reopen = copy
    (path / "steps" / "00000003.steps").unlink()
    finding = only_finding(verify(reopen(), task))
    assert (finding.kind, finding.interval, finding.step) == ("log", 3, 3 * INTERVAL)


def test_intervals_beyond_the_last_step_are_named(copy: Copy, task: Task) -> None:
    path, reopen = copy
    run = reopen()
    segment = run.segment(5)
    write_segment(path, run, dataclasses.replace(segment, interval=6, first=6 * INTERVAL), 6)
    assert only_finding(verify(reopen(), task)).kind == "log"


def test_edited_step_root_breaks_the_commitment(copy: Copy, task: Task) -> None:
    path, reopen = copy
    run = reopen()
    segment = run.segment(4)
    record = segment.steps[3]
    forged = dataclasses.replace(record, state={**record.state, "w": bytes(32)})
    steps = (*segment.steps[:3], forged, *segment.steps[4:])
    write_segment(path, run, dataclasses.replace(segment, steps=steps), 4)
    findings = verify(reopen(), task).findings
    assert findings[0].kind == "commitment"
    assert ("state", 4 * INTERVAL + 3, "w") in [(f.kind, f.step, f.tensor) for f in findings]


@pytest.mark.parametrize("key", ["solver", "salt"])
def test_edited_run_manifest_breaks_the_commitment(copy: Copy, task: Task, key: str) -> None:
    path, reopen = copy
    edit(path / "run.json", **{key: ("ab" * 20 if key == "solver" else "ab" * 32)})
    finding = only_finding(verify(reopen(), task))
    assert finding.kind == "commitment"
    assert "solver" in finding.message


@pytest.mark.parametrize(("key", "value"), [("steps", STEPS - 1), ("root", "00" * 32), ("commitment", "00" * 32)])
def test_edited_commitment_is_named(copy: Copy, task: Task, key: str, value: object) -> None:
    path, reopen = copy
    edit(path / "commitment.json", **{key: value})
    finding = only_finding(verify(reopen(), task))
    assert finding.kind == ("log" if key == "steps" else "commitment")


def test_run_copied_under_another_identity_is_not_the_one_committed_to(copy: Copy, honest: Run, task: Task) -> None:
    """A thief may recompute the commitment for an own address; it is then another than the one published first."""
    path, reopen = copy
    thief = Identity.unsigned("0x" + "77" * 20)
    edit(path / "run.json", solver=thief.address.hex())
    copied = reopen()
    from gensyn_verify.commit import run_commitment

    digest = run_commitment(task.digest, thief.address, SALT, STEPS, copied.commitment.root)  # type: ignore[union-attr]
    edit(path / "commitment.json", commitment=digest.hex())
    published = honest.commitment.digest  # type: ignore[union-attr]
    report = verify(reopen(), task, commitment=published, solver=SOLVER.address)
    assert [f.kind for f in report.findings] == ["solver", "commitment"]
    assert report.findings[0].found == thief.address.hex()
    assert report.findings[1].expected == published.hex()


def test_signed_run_copied_under_another_address_fails_its_signature(task: Task, tmp_path: Path) -> None:
    pytest.importorskip("eth_keys")
    solver = Identity.from_key(b"\x11" * 32)
    run = solve(task, tmp_path / "run", identity=solver, salt=SALT, backend="reference")
    assert verify(run, task).signed
    thief = Identity.from_key(b"\x22" * 32)
    edit(tmp_path / "run" / "commitment.json", signature=thief.sign(run.commitment.digest).hex())  # type: ignore[union-attr]
    report = verify(open_run(tmp_path / "run", task), task)
    finding = only_finding(report)
    assert finding.kind == "signature"
    assert (finding.expected, finding.found) == (solver.address.hex(), thief.address.hex())
    assert not report.signed


def test_run_of_another_task_is_named_with_both_digests(honest: Run, tmp_path: Path) -> None:
    other = linear_task(tmp_path / "other", seed=(1, 3))
    report = verify(honest, other)
    finding = only_finding(report)
    assert finding.kind == "task"
    assert (finding.expected, finding.found) == (other.digest.hex(), honest.header.task.hex())
    assert report.steps_replayed == 0


def test_unfinished_run_is_undecided_and_says_how_far_it_got(copy: Copy, task: Task) -> None:
    path, reopen = copy
    (path / "commitment.json").unlink()
    for n in (4, 5):
        (path / "steps" / f"0000000{n}.steps").unlink()
    assert reopen().steps_done == 4 * INTERVAL
    assert not reopen().finished
    report = verify(reopen(), task)
    assert report.verdict is Verdict.UNDECIDED
    assert f"{4 * INTERVAL} of {STEPS} steps" in report.gaps[0]
    assert report.steps_replayed == 4 * INTERVAL


def test_log_that_changes_between_check_and_use_is_refused(copy: Copy, task: Task) -> None:
    """The log is read twice; the second reading must be the one that the commitment was checked against."""
    from gensyn_verify.errors import BundleError
    from gensyn_verify.protocol import replay as replay_module

    path, reopen = copy
    run = reopen()
    segment = run.segment(1)
    forged = dataclasses.replace(segment.steps[0], batch={"x": bytes(32), "label": bytes(32)})
    steps = (forged, *segment.steps[1:])

    class Swapping(replay_module._Audit):
        def choose(self, *args: object, **kwargs: object) -> None:
            super().choose(*args, **kwargs)  # type: ignore[arg-type]
            write_segment(path, run, dataclasses.replace(segment, steps=steps), 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "_Audit", Swapping)
        with pytest.raises(BundleError, match="changed while it was verified"):
            verify(run, task)


def write_segment(path: Path, run: Run, segment: object, number: int) -> None:
    from gensyn_verify.protocol.steps import Layout, file_name

    layout = Layout.of(run.task.program)  # type: ignore[union-attr]
    (path / file_name(number)).write_bytes(layout.encode(segment))  # type: ignore[arg-type]


def edit(file: Path, **changes: object) -> None:
    """Change fields of a manifest, keeping it canonical."""
    file.write_bytes(manifest.encode({**json.loads(file.read_bytes()), **changes}))


def test_copytree_of_a_run_verifies_like_the_original(honest: Run, task: Task, tmp_path: Path) -> None:
    shutil.copytree(honest.url, tmp_path / "elsewhere")
    assert verify(open_run(tmp_path / "elsewhere", task), task).verdict is Verdict.VERIFIED

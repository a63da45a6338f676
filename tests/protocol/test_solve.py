"""Solving: the same commitment from everywhere, resuming, stopping at a NaN."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import INTERVAL, SALT, SOLVER, STEPS, dataset, linear_task

from gensyn_verify.errors import BundleError, MalformedError, NonFiniteError
from gensyn_verify.program.keccak import keccak256
from gensyn_verify.protocol import diagnose, folder
from gensyn_verify.protocol.identity import Identity, signer
from gensyn_verify.protocol.replay import replay
from gensyn_verify.protocol.report import Verdict
from gensyn_verify.protocol.run import Run, RunWriter, open_run
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.store import file_name
from gensyn_verify.protocol.task import Task, open_task


def commitment(run: Run) -> bytes:
    assert run.commitment is not None
    return run.commitment.digest


def test_backends_give_the_same_commitment(honest: Run, task: Task, tmp_path: Path) -> None:
    run = solve(task, tmp_path / "run", identity=SOLVER, salt=SALT, backend="cpu")
    assert commitment(run) == commitment(honest)
    assert replay(run, task, everything=True, backend="cpu").verdict is Verdict.VERIFIED
    assert replay(honest, task, everything=True, backend="cpu").verdict is Verdict.VERIFIED


def test_any_fsspec_url_holds_task_and_run(honest: Run, task: Task) -> None:
    name = "memory://protocol-tests"
    linear_task(f"{name}/task")
    remote = open_task(f"{name}/task")
    assert remote.digest == task.digest
    run = solve(remote, f"{name}/run", identity=SOLVER, salt=SALT, backend="reference")
    assert commitment(run) == commitment(honest)
    assert replay(f"{name}/run", f"{name}/task", everything=True, backend="reference").verdict is Verdict.VERIFIED
    assert solve(remote, f"{name}/run", backend="reference").commitment == run.commitment  # taken up, nothing to do


def test_unreachable_url_is_one_clear_error() -> None:
    with pytest.raises(BundleError, match="nosuchprotocol://x"):
        open_task("nosuchprotocol://x/task")


def test_interval_does_not_change_what_was_trained(honest: Run, tmp_path: Path) -> None:
    task = linear_task(tmp_path / "task", interval=11)
    run = solve(task, tmp_path / "run", identity=SOLVER, salt=SALT, backend="reference")
    assert run.commitment.root == honest.commitment.root  # type: ignore[union-attr]
    assert commitment(run) != commitment(honest)  # the interval is part of the task


def test_salt_and_address_are_in_the_commitment(task: Task, honest: Run, tmp_path: Path) -> None:
    other = Identity.unsigned("11" * 20)
    digests = {
        commitment(honest),
        commitment(solve(task, tmp_path / "a", identity=other, salt=SALT, backend="reference")),
        commitment(solve(task, tmp_path / "b", identity=SOLVER, salt=bytes(32), backend="reference")),
        commitment(solve(task, tmp_path / "c", identity=SOLVER, backend="reference")),
    }
    assert len(digests) == 4


def test_tensor_that_did_not_change_is_stored_once(tmp_path: Path) -> None:
    task = linear_task(tmp_path / "task", lr=np.zeros(STEPS, np.float32))
    run = solve(task, tmp_path / "run", backend="reference")
    names = [p.name for p in (tmp_path / "run" / "tensors").iterdir()]
    assert len([n for n in names if n.startswith(task.state["w"].hex())]) == 1
    assert len(run.intervals) == 6


def test_tensors_reach_the_disk_before_the_log_that_names_them(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves: a log must never be there without the checkpoint that it closes with."""
    events: list[tuple[str, str]] = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def fsync(self, fd: int) -> None:
            events.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
            os.fsync(fd)

        def rename(self, old: str, new: str, **folders: int) -> None:
            events.append(("rename", new))
            os.rename(old, new, **folders)

    monkeypatch.setattr(folder, "os", Watched())
    run = solve(task, tmp_path / "run", identity=SOLVER, salt=SALT, backend="reference")
    for interval in run.intervals:
        closed = events.index(("rename", f"{interval:08d}.steps"))
        roots = run.segment(interval).steps[-1].state
        for name, type in task.program.inputs_of("state").items():
            file = file_name(roots[name], type).partition("/")[2]
            assert events.index(("rename", file)) < events.index(("fsync", file)) < closed
        assert ("fsync", "tensors") in events[:closed]  # the names too


def test_progress_sees_every_step_and_its_metrics(task: Task, tmp_path: Path) -> None:
    seen = []
    run = solve(
        task,
        tmp_path / "run",
        backend="reference",
        progress=lambda done, of, m: seen.append((done, of, float(m["loss"]))),
    )
    assert [(d, n) for d, n, _ in seen] == [(i + 1, STEPS) for i in range(STEPS)]
    logged = [float(r.metrics["loss"]) for i in run.intervals for r in run.segment(i).steps]
    assert logged == [loss for _, _, loss in seen]


class Interrupted(Exception):  # noqa: N818
    pass


def interrupt_at(step: int):  # type: ignore[no-untyped-def]
    def progress(done: int, of: int, metrics: object) -> None:
        if done == step:
            raise Interrupted

    return progress


@pytest.mark.parametrize("step", [1, INTERVAL - 1, INTERVAL, 3 * INTERVAL + 1, STEPS - 1, STEPS])
def test_interrupted_run_resumes_to_the_same_bundle(honest: Run, task: Task, tmp_path: Path, step: int) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        solve(task, out, identity=SOLVER, salt=SALT, backend="reference", progress=interrupt_at(step))
    kept = open_run(out, task)
    assert kept.steps_done == (STEPS if step == STEPS else step // INTERVAL * INTERVAL)
    assert not kept.finished
    run = solve(task, out, backend="reference")  # identity and salt are those that the run began with
    assert commitment(run) == commitment(honest)
    compared = filecmp.dircmp(out, honest.url)
    assert compared.left_only == compared.right_only == compared.diff_files == []
    assert not filecmp.dircmp(out / "steps", Path(honest.url) / "steps").diff_files


def test_interval_closed_early_is_taken_up_and_completed(honest: Run, task: Task, tmp_path: Path) -> None:
    from gensyn_verify import backends

    out = tmp_path / "run"
    with RunWriter(task, out, SOLVER, salt=SALT, resume=True, environment={}) as writer:
        executor = backends.make("reference", task.program)
        executor.load(writer.saved_state())
        for step in range(INTERVAL + 3):
            batch, scalars = task.batch(step), task.scalars(step)
            metrics = executor.step(batch, scalars)
            writer.append(executor.state(), batch, scalars, metrics)
        writer.close_interval(executor.state())
    assert open_run(out).steps_done == INTERVAL + 3
    assert commitment(solve(task, out, backend="reference")) == commitment(honest)


def test_finished_run_is_returned_as_it_is(honest: Run, task: Task, tmp_path: Path) -> None:
    out = Path(shutil.copytree(honest.url, tmp_path / "run"))
    before = {p: p.stat().st_mtime_ns for p in (out / "tensors").iterdir()}
    assert commitment(solve(task, out, backend="reference")) == commitment(honest)
    assert {p: p.stat().st_mtime_ns for p in (out / "tensors").iterdir()} == before


def test_run_is_not_resumed_when_told_not_to(honest: Run, task: Task) -> None:
    with pytest.raises(BundleError, match="holds a run already"):
        solve(task, honest.url, resume=False, backend="reference")


def test_run_of_another_task_identity_or_salt_is_not_taken_up(honest: Run, task: Task, tmp_path: Path) -> None:
    out = shutil.copytree(honest.url, tmp_path / "run")
    other = linear_task(tmp_path / "other", seed=(7, 7))
    with pytest.raises(BundleError, match=f"holds a run of task {task.digest.hex()}"):
        solve(other, out, backend="reference")
    with pytest.raises(BundleError, match="by 0x5a5a"):
        solve(task, out, identity=Identity.unsigned("11" * 20), backend="reference")
    with pytest.raises(BundleError, match="another salt"):
        solve(task, out, salt=bytes(32), backend="reference")


def test_two_writers_of_one_run_are_kept_apart(task: Task, tmp_path: Path) -> None:
    with (
        RunWriter(task, tmp_path / "run", SOLVER, salt=SALT, resume=True, environment={}),
        pytest.raises(BundleError, match="another process"),
    ):
        solve(task, tmp_path / "run", backend="reference")


def test_resuming_from_a_spoilt_checkpoint_is_refused(honest: Run, task: Task, tmp_path: Path) -> None:
    out = Path(shutil.copytree(honest.url, tmp_path / "run"))
    (out / "commitment.json").unlink()
    (out / "steps" / "00000005.steps").unlink()
    root = honest.segment(4).steps[-1].state["w"].hex()
    (file,) = (out / "tensors").glob(f"{root}*")
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(BundleError, match=r"checkpoint after step 34, tensor 'w'.*content has root"):
        solve(task, out, backend="reference")


def test_resuming_over_a_gap_in_the_log_is_refused(honest: Run, task: Task, tmp_path: Path) -> None:
    out = Path(shutil.copytree(honest.url, tmp_path / "run"))
    (out / "steps" / "00000002.steps").unlink()
    with pytest.raises(BundleError, match="interval 3 holds steps 21 to 27"):
        solve(task, out, backend="reference")


# ---- NaN and infinity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_exploding_run_stops_keeps_the_good_steps_and_names_the_node(tmp_path: Path, backend: str) -> None:
    lr = np.full(STEPS, 0.002, np.float32)
    lr[2 * INTERVAL + 3] = 1e25  # the weights are finite after this step, their error squared is not
    task = open_task(linear_task(tmp_path / "task", lr=lr).store.folder.url)
    bad = 2 * INTERVAL + 4
    with pytest.raises(NonFiniteError) as caught:
        solve(task, tmp_path / "run", identity=SOLVER, salt=SALT, backend=backend)
    message = str(caught.value)
    assert f"metric 'loss' is not finite at step {bad}; at step {bad} metric 'loss' becomes an infinity" in message
    assert "(map" in message
    run = open_run(tmp_path / "run", task)
    assert run.steps_done == bad
    report = replay(run, everything=True, backend=backend)
    assert report.verdict is Verdict.UNDECIDED
    assert not report.findings
    assert report.steps_replayed == bad
    with pytest.raises(NonFiniteError) as again:
        solve(task, tmp_path / "run", backend=backend)
    assert str(again.value) == message
    assert open_run(tmp_path / "run").steps_done == bad


def test_a_vendor_run_that_stops_is_looked_at_on_its_own_kernels(tmp_path: Path) -> None:
    """The steps since the last checkpoint run again on the kernels that took them: other bits would spoil the run."""
    pytest.importorskip("torch")
    lr = np.full(STEPS, 0.002, np.float32)
    bad = 2 * INTERVAL + 4
    lr[bad - 1] = 1e25
    task = linear_task(tmp_path / "task", lr=lr)
    words = f"at step {bad} metric 'loss' becomes an infinity: node .* up to step {bad - 1}$"
    with pytest.raises(NonFiniteError, match=words):
        solve(task, tmp_path / "run", backend="vendor")
    run = open_run(tmp_path / "run", task)
    assert run.steps_done == bad
    assert replay(run, samples=0, largest=0).findings == ()  # checkpoints are what the log names


def test_kernels_that_do_not_repeat_their_bits_lose_the_steps_since_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    keeping = diagnose._keeping
    monkeypatch.setattr(diagnose, "_keeping", lambda program, backend: keeping(program, "reference"))  # other bits
    lr = np.full(STEPS, 0.002, np.float32)
    lr[2 * INTERVAL + 3] = 1e25
    task = linear_task(tmp_path / "task", lr=lr)
    with pytest.raises(NonFiniteError, match=f"The run is kept up to step {2 * INTERVAL - 1}"):
        solve(task, tmp_path / "run", backend="vendor")
    run = open_run(tmp_path / "run", task)
    assert run.steps_done == 2 * INTERVAL
    assert replay(run, samples=0, largest=0).findings == ()


def test_fault_that_enters_the_state_first_is_traced_to_its_step(tmp_path: Path) -> None:
    lr = np.full(STEPS, 0.002, np.float32)
    lr[INTERVAL + 1] = np.inf
    task = linear_task(tmp_path / "task", lr=lr)
    with pytest.raises(NonFiniteError) as caught:
        solve(task, tmp_path / "run", backend="reference")
    message = str(caught.value)
    assert f"metric 'loss' is not finite at step {INTERVAL + 2}" in message
    assert f"at step {INTERVAL + 1} state 'w' becomes an infinity: scalar input 'lr' already holds" in message


def test_nan_in_the_data_is_named_as_the_batch(tmp_path: Path) -> None:
    data = dataset()
    data["x"][:] = np.nan
    task = linear_task(tmp_path / "task", data=data)
    with pytest.raises(NonFiniteError) as caught:
        solve(task, tmp_path / "run", backend="reference")
    assert "batch input 'x' already holds NaN" in str(caught.value)
    assert "Nothing was trained" in str(caught.value)
    assert open_run(tmp_path / "run").steps_done == 0


# ---- identities -------------------------------------------------------------------------------------------------


def test_address_is_the_ethereum_address_of_the_key() -> None:
    pytest.importorskip("eth_keys")
    # the first account of the well-known development mnemonic "test test ... junk"
    key = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    assert Identity.from_key(key).address.hex() == "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"


def test_signature_recovers_to_the_signer_and_to_nobody_else() -> None:
    pytest.importorskip("eth_keys")
    identity = Identity.generate()
    digest = keccak256(b"run")
    signature = identity.sign(digest)
    assert len(signature) == 65
    assert signer(digest, signature) == identity.address
    assert signer(keccak256(b"other run"), signature) != identity.address
    assert signer(digest, bytes(65)) is None
    assert signer(digest, b"\xff" * 65) is None


@pytest.mark.parametrize("address", ["", "0x12", "zz" * 20, "0x" + "00" * 21])
def test_addresses_have_20_bytes(address: str) -> None:
    with pytest.raises(MalformedError):
        Identity.unsigned(address)


@pytest.mark.parametrize("key", [b"", bytes(32), b"\xff" * 32])
def test_impossible_keys_are_refused(key: bytes) -> None:
    pytest.importorskip("eth_keys")
    with pytest.raises(MalformedError):
        Identity.from_key(key)


def test_the_key_is_not_shown() -> None:
    pytest.importorskip("eth_keys")
    assert "key" not in repr(Identity.from_key(b"\x01" * 32))

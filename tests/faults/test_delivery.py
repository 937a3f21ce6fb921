"""Messages that come twice, workers that come late, and clocks that are wrong: one part a shard, one manifest a job."""

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from jobs.control.controller import Control
from jobs.storage.job_folder import JobFolder
from schemas.manifest import JobStatus, Manifest
from tests.faults.conftest import Note
from tests.faults.stage import Stage, Submitted, write_table
from tests.servers import wait_for


def test_each_message_is_delivered_eight_times(stage: Stage, note: Note) -> None:
    """Shards, plans and ends alike; two processes take the copies."""
    with stage.worker("--processes", "2", FAULTS_DELIVERIES="8"):
        job = stage.job("job", 100, params={"batch_ms": 20})
        ended = stage.ended(job)
        wait_for("the copies are taken too", lambda: stage.failpoints.in_vain >= 8)
    manifest = stage.check(ended, job)
    assert (manifest.status, manifest.rows) == (JobStatus.SUCCEEDED, 100)
    note("each message delivered 8 times", stage.failpoints.in_vain, "each shard ran once, one part each, one manifest")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["batch-2", "before_commit"])
def test_a_worker_stopped_past_its_lease_comes_late(stage: Stage, note: Note, step: str) -> None:
    """SIGSTOP until another process has done the shard, then SIGCONT: the late one loses."""
    stage.failpoints.arm(step, "stop", 1)
    with stage.worker("--processes", "2") as worker:
        job = stage.job("job", 60, params={"batch_ms": 20})
        wait_for("a process stops", lambda: stage.failpoints.fired(step))
        (late,) = stage.failpoints.fired(step)
        ended = stage.ended(job)
        os.kill(late, signal.SIGCONT)
        wait_for("the late one gives up", lambda: _lost(worker.log.read_text()))
    manifest = stage.check(ended, job, attempts=2)
    assert manifest.status is JobStatus.SUCCEEDED
    note(f"SIGSTOP at {step} past the lease, then SIGCONT", 1, "the late one lost; one part")


def _lost(log: str) -> bool:
    return any("shard=1 " in line and ("LeaseLost" in line or "event=shard_found" in line) for line in log.splitlines())


@pytest.mark.slow
def test_clocks_two_hours_apart(stage: Stage, note: Note) -> None:
    """Two workers, one 2 h ahead and one 2 h behind, and one 30 h ahead, which takes every message for lost."""
    with (
        stage.worker("--groups", "text,control", FAULTS_CLOCK_S="7200"),
        stage.worker("--groups", "text,control", FAULTS_CLOCK_S="-7200"),
        stage.worker("--groups", "text,control", FAULTS_CLOCK_S="108000"),
    ):
        wait_for("all three report", lambda: len(stage.state.workers.alive()) == 3, timeout_s=120)
        job = stage.job("job", 200, params={"batch_ms": 100})
        ended = stage.ended(job)
    manifest = stage.check(ended, job)
    assert manifest.status is JobStatus.SUCCEEDED
    note("clocks of three workers at +2 h, -2 h and +30 h", 1, "each shard ran once")


@pytest.mark.slow
def test_many_finishers_write_one_manifest(stage: Stage, note: Note) -> None:
    """Eight at once, against a cancel: whichever way it ends, it ends once."""
    with stage.worker():
        job = stage.job("job", 20)
        progress = stage.state.jobs.progress
        wait_for("all parts", lambda: (p := progress(job.id)) and p.shards and p.shards_done == p.shards)
        start = threading.Barrier(9)

        def finish(number: int) -> None:
            control = Control(stage.settings, stage.state, stage.broker, stage.storage, f"finisher-{number}")
            start.wait()
            control.finish_job(job.id, job.output)

        def cancel() -> None:
            start.wait()
            stage.state.jobs.cancel(job.id)

        threads = [threading.Thread(target=finish, args=(n,)) for n in range(8)] + [threading.Thread(target=cancel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = stage.ended(job)
        wait_for("the end is known", lambda: (s := stage.state.jobs.status(job.id)) and s.final)
    manifest = stage.check(ended, job)
    assert manifest.status in (JobStatus.SUCCEEDED, JobStatus.CANCELLED)
    assert stage.state.jobs.status(job.id) is manifest.status
    assert len(manifest.parts) == 2
    note("8 finishers and a cancel at once", 1, f"one manifest, {manifest.status}")


@pytest.mark.slow
def test_a_cancel_against_the_finish(stage: Stage, note: Note) -> None:
    """A cancel at the moment the finisher holds its manifest and hasn't written it: the manifest stands."""
    stage.failpoints.arm("before_manifest", "stop")
    with stage.worker():
        job = stage.job("job", 20)
        wait_for("the finisher stops", lambda: stage.failpoints.fired("before_manifest"))
        (finisher,) = stage.failpoints.fired("before_manifest")
        stage.state.jobs.cancel(job.id)
        os.kill(finisher, signal.SIGCONT)
        ended = stage.ended(job)
        wait_for("the end is known", lambda: (s := stage.state.jobs.status(job.id)) and s.final)
    manifest: Manifest = stage.check(ended, job)
    assert stage.state.jobs.status(job.id) is manifest.status
    note("a cancel while the manifest is being written", 1, f"one manifest, {manifest.status}; Redis says the same")


@pytest.mark.slow
def test_two_schedulers_submit_the_same_jobs(stage: Stage, note: Note, tmp_path: Path) -> None:
    """Two hosts whose cron submits the same spec at each of six due times: one job a due time, run once."""
    file = str(write_table(tmp_path / "in.parquet", [f"text {i}" for i in range(30)]))
    spec = ("--task", "noise", "--model", stage.model, "--input", file, "--set", "shard.rows=10")
    with stage.worker():
        for due in range(6):
            output = str(tmp_path / "out" / f"2026-11-{20 + due}")
            both = [stage.cli("submit", *spec, "--output", output) for _ in range(2)]
            ids = {process.communicate(timeout=120)[0].strip() for process in both}
            assert [process.returncode for process in both] == [0, 0]
            accepted = JobFolder(output, stage.storage).read_job()
            assert accepted is not None
            assert ids == {accepted.id}
            job = Submitted(accepted, [file])
            stage.check(stage.ended(job), job)
    note(
        "two hosts submit the same job at the same moment, at each of 6 due times",
        6,
        "one job each, each shard ran once",
    )


@pytest.mark.slow
def test_sigterm_in_a_batch(stage: Stage, note: Note) -> None:
    with stage.worker() as first:
        job = stage.job("job", 20, params={"batch_ms": 2000})
        wait_for("a shard half done", lambda: (p := stage.state.jobs.progress(job.id)) and p.rows_live)
        first.process.terminate()
        assert first.process.wait(60) == 0
    progress = stage.state.jobs.progress(job.id)
    assert progress is not None
    assert (progress.shards_running, progress.shards_failed) == (0, 0)
    with stage.worker():
        ended = stage.ended(job)
    stage.check(ended, job, attempts=2)
    note("SIGTERM in a batch", 1, "put back, complete")


@pytest.mark.slow
def test_sigterm_then_sigkill(stage: Stage, note: Note) -> None:
    """Orchestrators kill what hasn't gone after its grace period: here in the middle of a batch that outlasts it."""
    stage.failpoints.arm("batch-2", "hang")
    with stage.worker() as first:
        job = stage.job("job", 20)
        wait_for("a shard hangs", lambda: stage.failpoints.fired("batch-2"))
        family = first.family()
        first.process.terminate()
        wait_for("it is stopping", lambda: "supervisor_stopping" in first.log.read_text())
        for member in family:
            if member.is_running():
                member.kill()
        psutil.wait_procs(family, timeout=30)
    with stage.worker():
        ended = stage.ended(job)
    stage.check(ended, job, attempts=2)
    note("SIGTERM, then SIGKILL before the batch is over", 1, "complete, by another worker")

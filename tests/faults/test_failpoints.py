"""kill -9 at each step of a shard and of a job's end: of the child alone, and of the whole worker."""

import pytest

from schemas.manifest import JobStatus
from tests.faults.conftest import Note
from tests.faults.stage import Stage
from tests.servers import wait_for

SHARD_STEPS = ["claimed", "read", "batch-1", "batch-2", "before_commit", "after_commit", "told"]
JOB_STEPS = ["before_plan", "after_plan", "before_manifest", "after_manifest"]


@pytest.mark.slow
def test_the_child_is_killed_at_each_step(stage: Stage, note: Note) -> None:
    """One job, whose shard n loses its child at step n, and whose planner and finisher are killed twice each."""
    for shard, step in enumerate(SHARD_STEPS):
        stage.failpoints.arm(step, "kill", shard)
    for step in JOB_STEPS:
        stage.failpoints.arm(step, "kill")
    with stage.worker("--processes", "2"):
        job = stage.job("job", 10 * len(SHARD_STEPS))
        ended = stage.ended(job)
    manifest = stage.check(ended, job, attempts=2)
    assert manifest.status is JobStatus.SUCCEEDED
    assert stage.failpoints.waiting == []
    claims = stage.failpoints.claims(job.id)
    assert [claims[n] for n, _ in enumerate(SHARD_STEPS)] == [2, 2, 2, 2, 2, 2, 1]
    note("kill -9 of the child at each failpoint", len(SHARD_STEPS) + len(JOB_STEPS), "complete, each shard once more")


@pytest.mark.slow
@pytest.mark.parametrize("step", [*SHARD_STEPS, *JOB_STEPS])
def test_the_worker_is_killed_at_a_step(stage: Stage, note: Note, step: str) -> None:
    """The supervisor and all its processes at once; another worker goes on."""
    stage.failpoints.arm(step, "stop")
    with stage.worker() as first:
        job = stage.job("job", 40)
        wait_for(f"a process reaches {step}", lambda: stage.failpoints.fired(step))
        first.kill()
    with stage.worker():
        ended = stage.ended(job)
    manifest = stage.check(ended, job, attempts=2)
    assert manifest.status is JobStatus.SUCCEEDED
    note(f"kill -9 of the worker at {step}", 1, "complete, by another worker")

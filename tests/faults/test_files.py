"""A job's files are deleted or damaged while it runs: it ends, and its tenant's next job goes on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.layout import JOB, MANIFEST, PLAN
from schemas.manifest import JobStatus
from tests.faults.conftest import Note
from tests.faults.stage import BOUND_S, Stage, Submitted
from tests.servers import wait_for


def entry(stage: Stage, job: Submitted) -> Path:
    return Path(stage.settings.catalog_uri, "jobs", f"{job.id}.json")


def delete_output(stage: Stage, job: Submitted) -> None:
    shutil.rmtree(job.output, ignore_errors=True)
    shutil.rmtree(job.output, ignore_errors=True)  # a part that was being written


def delete_plan(stage: Stage, job: Submitted) -> None:
    Path(job.output, PLAN).unlink()


def damage_manifest(stage: Stage, job: Submitted) -> None:
    Path(job.output, MANIFEST).write_text("{")


def delete_entry(stage: Stage, job: Submitted) -> None:
    entry(stage, job).unlink()


def add_fields(stage: Stage, job: Submitted) -> None:
    for file in (entry(stage, job), Path(job.output, JOB)):
        told = json.loads(file.read_text())
        told.get("job", told)["of_a_newer_version"] = 1
        file.write_text(json.dumps(told))


SCENES = [
    (delete_output, "output deleted"),
    (delete_plan, "plan deleted"),
    (damage_manifest, "damaged manifest put there"),
    (delete_entry, "catalog's entry deleted"),
    (add_fields, "a field more in _job.json and the catalog's entry"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "what"), SCENES, ids=[harm.__name__ for harm, _ in SCENES])
@pytest.mark.parametrize("cancelled", [False, True], ids=["", "cancelled"])
def test_a_job_ends_whatever_becomes_of_its_files(
    stage: Stage, note: Note, harm: Callable[[Stage, Submitted], None], what: str, cancelled: bool
) -> None:
    with stage.worker("--groups", "text,control"):
        job = stage.job("job", 60, params={"batch_ms": 200})
        wait_for("a part", lambda: list(Path(job.output).glob("data/part-*")))
        harm(stage, job)
        if cancelled:
            assert stage.state.jobs.cancel(job.id)
        status = stage.state.jobs.status
        wait_for("the job has ended", lambda: (s := status(job.id)) and s.final, timeout_s=BOUND_S)
        next_job = stage.job("next", 20)
        assert stage.check(stage.ended(next_job), next_job).status is JobStatus.SUCCEEDED
    progress = stage.state.jobs.progress(job.id)
    assert progress is not None
    assert stage.state.jobs.active() == []
    if cancelled:
        assert progress.status is JobStatus.CANCELLED
    assert list(stage.storage.list(f"{stage.settings.catalog_uri}/ended/{job.id}"))
    when = " while a job is cancelled" if cancelled else " while a job runs"
    error = f", {progress.error.code}" if progress.error is not None else ""
    note(f"{what}{when}", 1, f"{progress.status}{error}; the next job complete")

"""Records that end the process they are worked on in: they alone are lost, named, and other jobs go on meanwhile."""

from pathlib import Path

import pyarrow.dataset as ds
import pytest

from schemas.manifest import JobStatus
from tests.faults.conftest import Note
from tests.faults.stage import Stage
from tests.servers import wait_for

pytestmark = pytest.mark.slow

CODES = {13: "worker_lost", 47: "timeout", 88: "memory_exceeded"}
TEXTS = {13: "!segfault", 47: "!hang", 88: "!eat"}


def test_records_that_crash_hang_and_eat(stage: Stage, note: Note) -> None:
    limits = {"NIGHTSHIFT_RECORD_TIMEOUT_S": "4", "NIGHTSHIFT_PROCESS_MEMORY_GB": "1.5"}
    with stage.worker("--groups", "text,control", "--processes", "2", **limits):
        job = stage.job("job", 100, texts=[TEXTS.get(row, f"text {row}") for row in range(100)])
        wait_for("a part", lambda: list(Path(job.output).glob("data/part-*")))
        other = stage.job("other", 50)
        beside = stage.ended(other)
        ended = stage.ended(job, bound_s=300)
    stage.check(beside, other)
    manifest = stage.check(ended, job, bound_s=300, attempts=6, meanwhile=[beside])
    assert manifest.status is JobStatus.SUCCEEDED
    rows = ds.dataset(job.output, format="parquet").to_table(columns=["id", "error"]).to_pylist()
    assert {row["id"]: row["error"]["code"] for row in rows if row["error"]} == CODES
    most = max(stage.failpoints.claims(job.id).values())
    note(
        "a record that segfaults, one that hangs, one that eats all memory",
        1,
        f"3 error rows; a shard ran {most} times",
    )

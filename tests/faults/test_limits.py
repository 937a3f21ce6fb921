"""Memory and disks that are full."""

import secrets
from pathlib import Path

import psutil
import pytest

from schemas.manifest import JobStatus
from tests.faults.conftest import Note
from tests.faults.stage import Stage
from tests.servers import wait_for

pytestmark = pytest.mark.slow


def test_memory_for_three_records_at_a_time(stage: Stage, note: Note) -> None:
    with stage.worker():
        job = stage.job("job", 100, shard={"rows": 50}, batch_size=32, params={"fits": 3})
        ended = stage.ended(job)
    manifest = stage.check(ended, job)
    assert (manifest.status, manifest.rows, manifest.error_rows) == (JobStatus.SUCCEEDED, 100, 0)
    note("out of memory above a batch of 3", 1, "halved; order kept, no error row")


def test_no_memory_for_a_single_record(stage: Stage, note: Note) -> None:
    """Error rows, and a job that says that its model can't work here."""
    with stage.worker():
        job = stage.job("job", 20, shard={"rows": 10}, batch_size=8, params={"fits": 0})
        ended = stage.ended(job)
    manifest = stage.check(ended, job)
    assert manifest.errors == {"out_of_memory": 20}
    note("out of memory for every single record", 1, "20 error rows `out_of_memory`")


def test_a_full_disk(stage: Stage, note: Note, tmp_path: Path) -> None:
    """No file may be longer than 512 KiB for a while, as on a full disk, and a part is; then there is room."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    texts = [secrets.token_hex(100_000) for _ in range(20)]
    stage.failpoints.arm("claimed", "stop")
    with stage.worker(TMPDIR=str(temporary)) as worker:
        job = stage.job("job", 20, texts=texts)
        wait_for("a shard is claimed", lambda: stage.failpoints.fired("claimed"))
        child = psutil.Process(stage.failpoints.fired("claimed")[0])
        child.rlimit(psutil.RLIMIT_FSIZE, (512 << 10, psutil.RLIM_INFINITY))
        child.resume()
        wait_for("a shard is put back", lambda: "File too large" in worker.log.read_text())
        assert not list(Path(job.output).glob("data/part-*"))
        child.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        ended = stage.ended(job)
        assert not list(temporary.glob("nightshift-part-*"))
    manifest = stage.check(ended, job, attempts=6)
    assert manifest.status is JobStatus.SUCCEEDED
    assert not list(Path(job.output).glob("_tmp-*"))
    note("disk full while a part is written", 1, "error in the log, nothing left behind, done later")

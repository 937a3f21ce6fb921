"""Processes of this version and of an earlier one side by side, with jobs in flight, there and back."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.storage.job_folder import JobFolder
from schemas.manifest import JobStatus
from tests.acceptance.cli import NIGHTSHIFT, environment
from tests.faults.conftest import Note
from tests.faults.stage import OVERLAY, Stage, Submitted, Worker, with_failpoints, write_table
from tests.packages import PACKAGES, ROOT, overlaid
from tests.servers import wait_for

pytestmark = pytest.mark.slow

#: The last version whose Redis has no blame in it (docs/decisions/0019).
EARLIER = "2df9c9c"
SHARDS = 60


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the earlier version, with the stub task and the failpoints in them."""
    archived = subprocess.run(["git", "archive", EARLIER, *PACKAGES], cwd=ROOT, capture_output=True, check=False)
    if archived.returncode:
        pytest.skip(f"this checkout doesn't have the earlier version {EARLIER}: {archived.stderr.decode().strip()}")
    root = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(root, filter="data")
    return with_failpoints(overlaid(root, OVERLAY))


@contextmanager
def worker_of(stage: Stage, packages: Path) -> Iterator[Worker]:
    command = [*NIGHTSHIFT, "worker", "--groups", "text,control"]
    with stage.started(command, PYTHONPATH=str(packages), PYTHONSAFEPATH="1") as worker:
        yield worker


def submit_with(stage: Stage, packages: Path, name: str) -> None:
    """A job that the command line of these packages hands in."""
    file = write_table(stage.folder / f"{name}.parquet", [f"text {i}" for i in range(2 * SHARDS)])
    options = ["--task", "noise", "--model", stage.model, "--input", file, "--output", stage.folder / name]
    sizes = ["--set", "shard.rows=2", "--param", "batch_ms=200"]
    # As docs/results.md has it: the earlier version finds parts in one place alone. It doesn't know the setting.
    flat = {"NIGHTSHIFT_FLAT_OUTPUT": "true"}
    env = environment(**stage.settings.environment({"PYTHONPATH": str(packages), "PYTHONSAFEPATH": "1"} | flat))
    subprocess.run([*NIGHTSHIFT, "submit", *map(str, [*options, *sizes])], env=env, cwd=stage.folder, check=True)


def submitted(stage: Stage, name: str) -> Submitted:
    job = JobFolder(f"{stage.folder}/{name}", stage.storage).read_job()
    assert job is not None
    return Submitted(job, [f"{stage.folder}/{name}.parquet"])


def parts(stage: Stage, *names: str) -> int:
    return sum(len(list((stage.folder / name).glob("part-*"))) for name in names)


@pytest.mark.parametrize("order", ["upgrade", "downgrade"])
def test_nothing_is_lost_while_versions_change(stage: Stage, copy: Path, earlier: Path, note: Note, order: str) -> None:
    first, second = (earlier, copy) if order == "upgrade" else (copy, earlier)
    with worker_of(stage, first) as leaving:
        submit_with(stage, first, "begun")
        wait_for("some shards are done", lambda: parts(stage, "begun") > 5)
        submit_with(stage, second, "from-the-other")
        with worker_of(stage, second):
            both = parts(stage, "begun", "from-the-other")
            wait_for("both work", lambda: parts(stage, "begun", "from-the-other") > both + 30)
            leaving.terminate()
            leaving.process.wait(60)
            submit_with(stage, first, "late")
            jobs = [submitted(stage, name) for name in ("begun", "from-the-other", "late")]
            for job in jobs:
                manifest = stage.check(stage.ended(job), job, attempts=2)
                assert (manifest.status, manifest.rows, manifest.lost) == (JobStatus.SUCCEEDED, 2 * SHARDS, [])
    note(
        f"{order} between two versions, one process after the other, three jobs in flight", 1, "complete, nothing lost"
    )

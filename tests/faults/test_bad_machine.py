"""Nine workers, one of them bad: the job is done by the others, and the bad one takes hardly any of its shards."""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from jobs.storage import Storage
from schemas.manifest import JobStatus
from tests.acceptance.cli import NIGHTSHIFT
from tests.faults.conftest import Note, make_stage
from tests.faults.proxy import Fault, s3_proxy
from tests.faults.redis_server import RedisServer
from tests.faults.stage import Stage, Submitted, write_table
from tests.servers import S3_ENV, s3_client, wait_for
from workers.execution.breaker import FAILURES

pytestmark = pytest.mark.slow

SHARDS = 3000
GOOD = 8
#: Of all attempts, those that the bad worker may waste.
WASTED = 0.02


def own_mounts(script: str) -> list[str]:
    """A worker whose own view of the file system `script` changes."""
    command = shlex.join([*NIGHTSHIFT, "worker", "--groups", "text"])
    return ["unshare", "--mount", "sh", "-c", f"set -e; {script}; exec {command}"]


def can_mount() -> bool:
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="mounting a file system needs rights that are lacking here")


@contextmanager
def nine(stage: Stage, bad: list[str] | None, **env: str) -> Iterator[None]:
    """Eight good workers, one of which plans too, and a bad one."""
    with ExitStack() as stack:
        stack.enter_context(stage.worker("--groups", "text,control", NIGHTSHIFT_HOST="good-0"))
        for number in range(1, GOOD):
            stack.enter_context(stage.worker("--groups", "text", NIGHTSHIFT_HOST=f"good-{number}"))
        command = bad or [*NIGHTSHIFT, "worker", "--groups", "text"]
        stack.enter_context(stage.started(command, NIGHTSHIFT_HOST="bad", **env))
        wait_for("nine report", lambda: len(stage.state.workers.alive()) == GOOD + 1, timeout_s=240)
        yield


def outcome(stage: Stage, job: Submitted, expect_why: str, good_before: int = 0) -> str:
    """Check that all is done, and that the bad worker is named and took little. Return what came out.

    `good_before` are the shards that it claimed while it was well.
    """
    said: set[str] = set()

    def ended() -> bool:
        said.update(one.why for worker in stage.state.workers.alive() for one in worker.suspended)
        assert {worker.host for worker in stage.state.workers.alive() if worker.suspended} <= {"bad"}
        return bool(stage.has_manifest(job))

    wait_for(f"job {job.id} has ended", ended, timeout_s=900, every_s=0.5)
    manifest = stage.check(stage.ended(job), job, bound_s=900, attempts=5)
    assert (manifest.status, manifest.lost, manifest.error_rows) == (JobStatus.SUCCEEDED, [], 0)
    claims = stage.failpoints.claims_by_host(job.id)
    if claims["bad"] - good_before >= FAILURES:
        assert any(expect_why in why for why in said), said
    wasted = claims["bad"] - good_before
    assert wasted < WASTED * claims.total(), claims
    end = "the bad one suspended; " if said else ""
    return f"complete, no shard given up; {end}{wasted} of {claims.total():,} attempts wasted"


def local_job(stage: Stage) -> Submitted:
    data = stage.folder / "data"
    data.mkdir(exist_ok=True)
    file = write_table(data / "in.parquet", [f"text {i}" for i in range(SHARDS * 2)])
    return stage.submit(str(file), f"{data}/out/", shard={"rows": 2})


@pytest.mark.parametrize("device", ["fails", "dies"])
def test_a_bad_device(stage: Stage, note: Note, device: str) -> None:
    with nine(stage, None, FAULTS_DEVICE=device):
        job = local_job(stage)
        found = outcome(stage, job, "the device is broken" if device == "fails" else "the process was lost")
    note(f"nine workers, 3,000 shards, one's device {device} at each batch", 1, found)


@needs_mounts
def test_no_mount(stage: Stage, note: Note) -> None:
    data = stage.folder / "data"
    data.mkdir()
    with nine(stage, own_mounts(f"mount -t tmpfs none {data}")):
        found = outcome(stage, local_job(stage), "be seen from here")
    note("nine workers, 3,000 shards, one lacks the mount with the data", 1, found)


@needs_mounts
def test_a_disk_that_fills_up(stage: Stage, note: Note, tmp_path: Path) -> None:
    """There is room when the worker starts, and none once it has done some shards."""
    small, go = tmp_path / "small", tmp_path / "go"
    small.mkdir()
    fill = (
        f"while [ ! -e {go} ]; do sleep 0.1; done; while [ -e {go} ]; do cat /dev/zero >> {small}/fill; sleep 0.1; done"
    )
    script = f"mount -t tmpfs -o size=32m none {small}; ({fill}) 2>/dev/null & true"
    with nine(stage, own_mounts(script), TMPDIR=str(small), FAULTS_ON_DISK="1"):
        job = local_job(stage)
        wait_for("the bad one does shards", lambda: stage.failpoints.claims_by_host(job.id)["bad"] > 2)
        before = stage.failpoints.claims_by_host(job.id)["bad"]
        go.touch()
        found = outcome(stage, job, "No space left", before)
        go.unlink()
    note("nine workers, 3,000 shards, one's disk fills up", 1, found)


@pytest.mark.parametrize("fault", ["403", "reset"])
def test_a_store_that_one_can_t_use(
    copy: Path, stub_task: None, s3: str, s3_endpoint: str, tmp_path: Path, note: Note, fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in (S3_ENV | {"AWS_ENDPOINT_URL_S3": s3_endpoint}).items():
        monkeypatch.setenv(name, value)
    with RedisServer(tmp_path) as redis_server, s3_proxy(s3_endpoint) as proxy:
        stage = make_stage(copy, tmp_path, redis_server.url)
        stage.storage = Storage()
        stage.env = {**S3_ENV, "AWS_ENDPOINT_URL_S3": s3_endpoint}
        proxy.fail(fault, "*", "", times=10**9)
        s3_client(s3_endpoint).upload_file(
            str(write_table(tmp_path / "in.parquet", [f"text {i}" for i in range(SHARDS * 2)])),
            s3.removeprefix("s3://"), "in.parquet",
        )  # fmt: skip
        with nine(stage, None, AWS_ENDPOINT_URL_S3=proxy.url):
            job = stage.submit(f"{s3}/in.parquet", f"{s3}/out/", shard={"rows": 2})
            found = outcome(stage, job, "AccessDenied" if fault == "403" else "Transient")
    note(f"nine workers, 3,000 shards, one's requests to the store end in {fault}", 1, found)

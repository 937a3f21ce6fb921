"""A store that neither answers nor fails, or refuses for a while: its shards are run again, and no row is lost."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage import Storage
from schemas.heartbeat import FETCH, OPEN, READ, UPLOAD
from schemas.manifest import JobStatus, Manifest
from tests import pictures
from tests.checkpoints import make_classifier
from tests.checkpoints_vision import make_image_classifier
from tests.faults.conftest import Note
from tests.faults.proxy import S3Proxy, s3_proxy
from tests.faults.stage import Stage, Worker
from tests.servers import S3_ENV, s3_client

pytestmark = pytest.mark.slow
SILENT = {"NIGHTSHIFT_IO_TIMEOUT_S": "4"}


@contextmanager
def workers(stage: Stage, s3_endpoint: str) -> Iterator[tuple[S3Proxy, Worker]]:
    """A worker behind a proxy. Another without one plans and finishes."""
    env = S3_ENV | {"AWS_ENDPOINT_URL_S3": s3_endpoint}
    with (
        s3_proxy(s3_endpoint) as proxy,
        stage.worker("--groups", "control", **env),
        stage.worker("--groups", "text", **env | SILENT | {"AWS_ENDPOINT_URL_S3": proxy.url}) as worker,
    ):
        yield proxy, worker


def put_table(s3: str, s3_endpoint: str, rows: int, row_group: int) -> str:
    buffer = io.BytesIO()
    table = pa.table({"id": range(rows), "text": [f"text {i}" for i in range(rows)]})
    pq.write_table(table, buffer, row_group_size=row_group)
    s3_client(s3_endpoint).put_object(Bucket=s3.removeprefix("s3://"), Key="in.parquet", Body=buffer.getvalue())
    return f"{s3}/in.parquet"


def put_model(s3: str, s3_endpoint: str, folder: Path) -> str:
    for file in make_classifier(folder).iterdir():
        s3_client(s3_endpoint).upload_file(str(file), s3.removeprefix("s3://"), f"model/{file.name}")
    return f"{s3}/model/"


def ended_stages(worker: Worker) -> list[str]:
    """The stages that processes of this worker were ended for."""
    return re.findall(r"stage_late.* stage=(\S+)", worker.log.read_text())


@pytest.mark.parametrize(
    ("path", "stage_name", "what"),
    [
        ("in.parquet", READ, "reading the input"),
        ("out/_plan", OPEN, "reading the plan"),
        ("model/model.safetensors", FETCH, "fetching the model"),
    ],
)
def test_a_store_that_sends_a_byte_a_second(
    stage: Stage, s3: str, s3_endpoint: str, note: Note, tmp_path: Path, path: str, stage_name: str, what: str
) -> None:
    """No time limit of a client's ends this: each byte is a sign of life."""
    stage.storage = Storage()
    changes = {"shard": {"rows": 10}, "batch_size": 5}
    if path.startswith("model"):
        changes |= {"task": "text-classification", "model": put_model(s3, s3_endpoint, tmp_path / "bert")}
    with workers(stage, s3_endpoint) as (proxy, worker):
        rule = proxy.fail("trickle", "GET", path)
        job = stage.submit(put_table(s3, s3_endpoint, 10, 10), f"{s3}/out/", **changes)
        ended = stage.ended(job, bound_s=120)
    manifest = stage.check(ended, job, bound_s=120, attempts=2)
    assert rule.done == 1
    assert (manifest.status, manifest.rows, manifest.error_rows) == (JobStatus.SUCCEEDED, 10, 0)
    assert ended_stages(worker) == [stage_name]
    note(f"a store that sends a byte a second: {what}", 1, "complete; the shard ran once more")


def test_an_upload_that_hangs(stage: Stage, note: Note) -> None:
    stage.failpoints.arm("before_commit", "hang")
    with stage.worker(**SILENT) as worker:
        job = stage.job("job", 10)
        ended = stage.ended(job, bound_s=120)
    manifest = stage.check(ended, job, bound_s=120, attempts=2)
    assert (manifest.status, manifest.rows, manifest.error_rows) == (JobStatus.SUCCEEDED, 10, 0)
    assert ended_stages(worker) == [UPLOAD]
    note("a part whose upload hangs", 1, "complete; the shard ran once more")


def test_a_store_that_is_slow_and_moves_is_waited_for(stage: Stage, s3: str, s3_endpoint: str, note: Note) -> None:
    """A block of rows that takes far longer than the limit, in many answers that each take less."""
    stage.storage = Storage()
    with workers(stage, s3_endpoint) as (proxy, worker):
        rule = proxy.fail("slow", "GET", "in.parquet", times=10**6, stall_s=1)
        job = stage.submit(put_table(s3, s3_endpoint, 12, 1), f"{s3}/out/", shard={"rows": 12})
        ended = stage.ended(job)
    manifest = stage.check(ended, job)
    assert rule.done >= 12, "the block was read in fewer answers"
    assert (manifest.status, manifest.rows, ended_stages(worker)) == (JobStatus.SUCCEEDED, 12, [])
    note("a store that takes a second for each answer", rule.done, "complete; no shard run again")


def test_pictures_that_are_refused_for_a_while(
    stage: Stage, s3: str, s3_endpoint: str, note: Note, tmp_path: Path
) -> None:
    """As with credentials that expire and are renewed."""
    stage.storage = Storage()
    for n in range(60):
        body = pictures.encoded(pictures.picture(40, 50, seed=n), "PNG")
        s3_client(s3_endpoint).put_object(Bucket=s3.removeprefix("s3://"), Key=f"in/{n:02}.png", Body=body)
    changes = {"task": "image-classification", "model": str(make_image_classifier(tmp_path / "vit"))}
    with s3_proxy(s3_endpoint) as proxy:
        rule = proxy.fail("403", "GET", r"in/\d", times=300)
        with stage.worker("--groups", "vision,control", **S3_ENV, AWS_ENDPOINT_URL_S3=proxy.url):
            job = stage.submit(f"{s3}/in/", f"{s3}/out/", shard={"rows": 20}, **changes)
            ended = stage.ended(job)
    manifest = Manifest.model_validate_json(ended.manifest)
    assert rule.done == 300
    assert (manifest.status, manifest.rows, manifest.error_rows) == (JobStatus.SUCCEEDED, 60, 0)
    tries = sum(stage.failpoints.claims(job.id).values()) - manifest.shards
    note("store: 403 to GET of 60 pictures", rule.done, f"complete, no error row; {tries} shards put back for later")

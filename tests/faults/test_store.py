"""A store that fails: errors, resets, bodies that stall or end early, answers that are lost, conflicts at a commit."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage import Storage
from schemas.errors import AlreadyExists
from schemas.manifest import JobStatus
from tests.faults.conftest import Note, make_stage
from tests.faults.proxy import Fault, S3Proxy, s3_proxy
from tests.faults.redis_server import RedisServer
from tests.faults.stage import Stage, Submitted, Worker
from tests.servers import S3_ENV, s3_client


@dataclass
class Shop:
    """A stage whose worker reaches its store through a proxy, and which serves all the tests of this file."""

    stage: Stage
    worker: Worker
    proxy: S3Proxy


@contextmanager
def _shop(copy: Path, folder: Path, s3_endpoint: str) -> Iterator[Shop]:
    with RedisServer(folder) as redis_server, s3_proxy(s3_endpoint) as proxy:
        stage = make_stage(copy, folder, redis_server.url)
        with stage.worker("--groups", "text,control", **S3_ENV, AWS_ENDPOINT_URL_S3=proxy.url) as worker:
            yield Shop(stage, worker, proxy)


@pytest.fixture(scope="module")
def shop(copy: Path, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with _shop(copy, tmp_path_factory.mktemp("shop"), s3_endpoint) as shop:
        yield shop


@pytest.fixture
def proxy(shop: Shop, s3: str, stub_task: None) -> S3Proxy:
    """The proxy without rules. This process goes to the store directly."""
    shop.proxy.rules.clear()
    shop.stage.storage = Storage()
    return shop.proxy


def submit(shop: Shop, bucket: str, s3_endpoint: str, rows: int = 30, texts: list[str] | None = None) -> Submitted:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": range(rows), "text": texts or [f"text {i}" for i in range(rows)]}), buffer)
    body = buffer.getvalue()
    s3_client(s3_endpoint).put_object(Bucket=bucket.removeprefix("s3://"), Key="in.parquet", Body=body)
    return shop.stage.submit(f"{bucket}/in.parquet", f"{bucket}/out/", shard={"rows": 10}, batch_size=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "method", "path", "times"),
    [
        ("500", "GET", "in.parquet", 12),
        ("503", "GET", "in.parquet", 12),
        ("reset", "GET", "in.parquet", 40),
        ("truncate", "GET", "in.parquet", 6),
        ("stall", "GET", "in.parquet", 1),
        ("500", "PUT", "out/data/part-", 12),
        ("503", "PUT", "out/data/part-", 20),
        ("reset", "PUT", "out/data/part-", 12),
        ("503", "PUT", "out/_", 12),
        ("500", "GET", "list-type=2", 20),
        ("truncate", "GET", "list-type=2", 4),
        ("truncate", "GET", "out/_", 4),
        ("503", "*", "out/", 60),
    ],
)
def test_a_store_that_fails_costs_time_and_nothing_else(
    shop: Shop, proxy: S3Proxy, s3: str, s3_endpoint: str, note: Note, fault: Fault, method: str, path: str, times: int
) -> None:
    job = submit(shop, s3, s3_endpoint)
    rule = proxy.fail(fault, method, path, times)
    ended = shop.stage.ended(job, bound_s=300)
    manifest = shop.stage.check(ended, job, bound_s=300, attempts=12)
    assert (manifest.status, manifest.rows, manifest.error_rows) == (JobStatus.SUCCEEDED, 30, 0)
    assert rule.done, "nothing failed"
    tries = sum(shop.stage.failpoints.claims(job.id).values()) - 3
    note(f"store: {fault} to {method} {path}", rule.done, f"complete; {tries} shards put back for later")


@pytest.mark.parametrize("fault", ["lose", "409"])
def test_an_answer_lost_after_a_put_and_a_conflict(
    shop: Shop, proxy: S3Proxy, s3: str, s3_endpoint: str, note: Note, fault: Fault
) -> None:
    """Of each part, the plan and the manifest: the attempt takes the object for its own, or tries again."""
    names = ("data/part-00000", "data/part-00002", "_plan", "_manifest")
    rules = [proxy.fail(fault, "PUT", f"out/{name}") for name in names]
    job = submit(shop, s3, s3_endpoint)
    ended = shop.stage.ended(job)
    manifest = shop.stage.check(ended, job)
    assert (manifest.status, manifest.rows) == (JobStatus.SUCCEEDED, 30)
    assert [rule.done for rule in rules] == [1, 1, 1, 1]
    what = "answer lost after a conditional put" if fault == "lose" else "409 at a conditional put"
    note(f"store: {what} (2 parts, plan, manifest)", 4, "each shard ran once, nothing failed")


@pytest.mark.parametrize("fault", ["lose", "409", "500", "reset"])
def test_the_end_of_a_multipart_upload(
    proxy: S3Proxy, s3: str, note: Note, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """A large part: uploaded again where the end failed, and taken for its own where only the answer was lost."""
    body = os.urandom(33 << 20)
    rule = proxy.fail(fault, "POST", "uploadId=")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    storage = Storage()
    info = storage.create(f"{s3}/out/part-00000.parquet", body, owner="one")
    assert info.size == len(body)
    assert rule.done == 1
    with pytest.raises(AlreadyExists):
        storage.create(f"{s3}/out/part-00000.parquet", body, owner="two")
    assert storage.read(f"{s3}/out/part-00000.parquet") == body
    note(f"store: {fault} at the end of a multipart upload", 1, "created once, by its owner")

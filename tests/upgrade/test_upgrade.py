"""A deployment that an earlier version left goes on with this one: its files, its Redis and its answers (kept/)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pytest
import redis

from jobs.settings import Settings
from tests.acceptance.api import new_token, server
from tests.acceptance.cli import nightshift, worker
from tests.servers import s3_client, wait_for
from tests.upgrade.kept import BUCKET, TEXTS, fill_redis, job_spec, kept_answers, put_objects

KEPT = kept_answers()
JOBS: dict[str, str] = KEPT["jobs"]


@pytest.fixture
def http(
    s3: str, s3_endpoint: str, settings: Settings, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx2.Client]:
    """This version's API on what the earlier one left, asked by the tenant whose jobs these are."""
    monkeypatch.setenv("NIGHTSHIFT_CATALOG", f"s3://{BUCKET}/catalog/")
    put_objects(s3_endpoint)
    fill_redis(redis_url)
    headers = new_token(
        "search", "--inputs", f"s3://{BUCKET}/in/", "--outputs", f"s3://{BUCKET}/out/", "--scopes", "submit,read,admin"
    )
    with (
        server(tmp_path / "api.log") as url,
        httpx2.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        yield client


def rows_of(endpoint: str, output: str) -> pa.Table:
    s3 = pyarrow.fs.S3FileSystem(
        endpoint_override=endpoint, access_key="testing", secret_key="s3/Secret+Key/0", region="us-east-1"
    )
    table: pa.Table = ds.dataset(f"{BUCKET}/out/{output}", format="parquet", filesystem=s3).to_table()
    return table.sort_by("id")


def parts_of(endpoint: str, output: str) -> dict[str, str]:
    listed = s3_client(endpoint).list_objects_v2(Bucket=BUCKET, Prefix=f"out/{output}/part-")
    return {item["Key"]: item["ETag"] for item in listed["Contents"]}


def as_before(answer: Any, before: Any) -> Any:
    """An answer without what changes while nothing happens: how long a running job still takes, by the time since.

    Nor with what is new, and null for a job of before.
    """
    if isinstance(answer, list) and isinstance(before, list) and len(answer) == len(before):
        return [as_before(*pair) for pair in zip(answer, before, strict=True)]
    if isinstance(answer, dict) and isinstance(before, dict):
        return {
            name: before.get(name) if name in ("records_per_s", "seconds_left") else as_before(value, before.get(name))
            for name, value in answer.items()
            if name in before or value is not None
        }
    return answer


def test_its_jobs_are_answered_as_before(http: httpx2.Client) -> None:
    """Every answer that was kept: lists, progress, shards, errors, results and manifests."""
    for path, (status, before) in KEPT["answers"].items():
        answer = http.get(path)
        assert answer.status_code == status, path
        assert as_before(answer.json(), before) == before, path


@pytest.mark.parametrize("redis_lost", [False, True], ids=["with its Redis", "with an empty Redis"])
def test_a_job_in_the_middle_goes_on(
    http: httpx2.Client, redis_url: str, s3_endpoint: str, tmp_path: Path, redis_lost: bool
) -> None:
    if redis_lost:
        redis.Redis.from_url(redis_url).flushall()
    job = JOBS["running"]
    before = parts_of(s3_endpoint, "running")
    assert 2 <= len(before) < 60
    with worker(tmp_path / "worker.log"):
        wait_for("the job ends", lambda: http.get(f"/v1/jobs/{job}").json()["status"] == "succeeded")
    table, whole = rows_of(s3_endpoint, "running"), rows_of(s3_endpoint, "succeeded")
    assert table["id"].to_pylist() == list(range(60))
    assert before.items() <= parts_of(s3_endpoint, "running").items()
    assert [row["label"] if row else None for row in table["prediction"].to_pylist()] == [
        row["label"] if row else None for row in whole["prediction"].to_pylist()
    ]
    assert table["error"].is_null().to_pylist() == [text is not None for text in TEXTS]


def test_a_job_sent_again_is_the_same_job(http: httpx2.Client) -> None:
    again = job_spec("succeeded", labels={"team": "search"})
    answer = http.post("/v1/jobs", json=again, headers={"Idempotency-Key": "a-key"})
    assert (answer.status_code, answer.json()["id"], answer.json()["found"]) == (202, JOBS["succeeded"], "ended")
    other = http.post("/v1/jobs", json=job_spec("elsewhere"), headers={"Idempotency-Key": "a-key"})
    assert other.status_code == 422


def test_what_ended_is_retried(http: httpx2.Client, s3_endpoint: str, tmp_path: Path) -> None:
    """A job that gave up with rows left undone, by the spec, plan and parts that the earlier version wrote."""
    answer = http.post(f"/v1/jobs/{JOBS['failed']}:retry", json={"output": f"s3://{BUCKET}/out/again/"})
    assert answer.status_code == 202, answer.text
    retry: Any = answer.json()["id"]
    with worker(tmp_path / "worker.log"):
        wait_for("the retry ends", lambda: http.get(f"/v1/jobs/{retry}").json()["status"] in ("succeeded", "failed"))
    assert set(rows_of(s3_endpoint, "again")["id"].to_pylist()) <= set(range(60))


def test_the_command_line_reads_it(http: httpx2.Client) -> None:
    done = nightshift("status", f"s3://{BUCKET}/out/succeeded/", "--json")
    assert (done.code, done.json["status"], done.json["job"]) == (0, "succeeded", JOBS["succeeded"])

"""A deployment as an earlier version left it: its objects, its Redis, and the answers of its API.

`python -m tests.upgrade.kept CHECKOUT` makes the folder anew with the code in CHECKOUT, which runs in this environment:
jobs that succeeded, were cancelled, were retried, and one in the middle of its shards.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from tests.checkpoints import make_classifier
from tests.servers import S3_ENV, free_ports, redis_at, running, s3_client, seaweedfs, wait_for
from tests.texts import sentences

KEPT = Path(__file__).parent / "kept"
BUCKET = "kept"
#: How Redis's bytes are written as text: a character each.
BYTES = "latin-1"
#: What the jobs' tables hold: 60 texts, of which two are none.
TEXTS: list[str | None] = [None if number in (7, 41) else text for number, text in enumerate(sentences(60))]


def job_spec(output: str, **more: Any) -> dict[str, Any]:
    """A text classification of the kept table in shards of ten rows."""
    return {
        "task": "text-classification",
        "model": f"s3://{BUCKET}/in/model/",
        "input": {"uri": f"s3://{BUCKET}/in/reviews.parquet", "columns": {"text": "review"}},
        "output": {"uri": f"s3://{BUCKET}/out/{output}/"},
        "shard": {"rows": 10},
    } | more


def put_objects(endpoint: str) -> None:
    """Put the kept objects into their bucket, and nothing else."""
    s3 = s3_client(endpoint)
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)
    kept = {str(path.relative_to(KEPT / "s3")): path for path in (KEPT / "s3").rglob("*") if path.is_file()}
    for key in _keys(endpoint) - kept.keys():
        s3.delete_object(Bucket=BUCKET, Key=key)
    for key, path in kept.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


def fill_redis(url: str) -> None:
    """Put the kept keys into an empty Redis."""
    client = redis.Redis.from_url(url, encoding=BYTES)
    client.flushall()
    for key, (kind, value) in json.loads((KEPT / "redis.json").read_text()).items():
        if kind == "string":
            client.set(key, value)
        elif kind == "hash":
            client.hset(key, mapping=value)
        elif kind == "list":
            client.rpush(key, *value)
        elif kind == "set":
            client.sadd(key, *value)
        else:
            client.zadd(key, value)


def kept_answers() -> dict[str, Any]:
    """The ids of the jobs by how they ended, and what each path was answered, with its status."""
    answers: dict[str, Any] = json.loads((KEPT / "http.json").read_text())
    return answers


def _keys(endpoint: str) -> set[str]:
    pages = s3_client(endpoint).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {item["Key"] for page in pages for item in page.get("Contents", [])}


def _read_redis(url: str) -> dict[str, tuple[str, Any]]:
    client: Any = redis.Redis.from_url(url, decode_responses=True, encoding=BYTES)
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: dict(client.zrange(key, 0, -1, withscores=True)),
    }
    return {key: (kind := client.type(key), read[kind](key)) for key in sorted(client.scan_iter())}


@contextmanager
def _deployment(checkout: Path, folder: Path) -> Iterator[tuple[str, str, dict[str, str], list[str]]]:
    """Redis, S3 and an API of the earlier version: the URLs, the environment of its commands, and how they begin."""
    python = [sys.executable, "-m", "nightshift" if (checkout / "nightshift").is_dir() else "jobs.cli.main"]
    with ExitStack() as stack:
        data = folder / "s3" / "data"
        data.mkdir(parents=True)
        endpoint = stack.enter_context(seaweedfs(data))
        redis_url = stack.enter_context(redis_at(folder))
        env = dict(os.environ) | S3_ENV
        env |= {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        env |= {"AWS_ENDPOINT_URL_S3": endpoint, "NIGHTSHIFT_REDIS_URL": redis_url, "NIGHTSHIFT_HOME": f"{folder}/home"}
        env |= {"NIGHTSHIFT_CATALOG": f"s3://{BUCKET}/catalog/", "NIGHTSHIFT_LEASE_S": "20"}
        s3_client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint, redis_url, env, python


def _keep(checkout: Path, folder: Path) -> None:
    with _deployment(checkout, folder) as (endpoint, redis_url, env, python), ExitStack() as stack:
        s3 = s3_client(endpoint)
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": range(60), "review": TEXTS}), buffer)
        s3.put_object(Bucket=BUCKET, Key="in/reviews.parquet", Body=buffer.getvalue())
        for path in make_classifier(folder / "model").iterdir():
            s3.upload_file(str(path), BUCKET, f"in/model/{path.name}")
        new = [*python, "token", "new", "--tenant", "search", "--inputs", f"s3://{BUCKET}/in/"]
        new += ["--outputs", f"s3://{BUCKET}/out/", "--scopes", "submit,read,admin", "--json"]
        token = json.loads(subprocess.check_output(new, env=env, cwd=checkout))["token"]
        port = free_ports(1)[0]
        url = f"http://127.0.0.1:{port}"
        stack.enter_context(running([*python, "api", "--port", str(port)], env, folder / "api.log", checkout))
        http = stack.enter_context(
            httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        )
        wait_for("the API answers", lambda: _answers(http))

        def submit(output: str, key: str | None = None, **more: Any) -> str:
            headers = {"Idempotency-Key": key} if key else {}
            answer = http.post("/v1/jobs", json=job_spec(output, **more), headers=headers)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        def status(job: str) -> str:
            return str(http.get(f"/v1/jobs/{job}").json()["status"])

        def ends(job: str) -> None:
            wait_for(f"{job} ends", lambda: status(job) in ("succeeded", "failed", "cancelled"))

        worker = [*python, "worker"]
        with running(worker, env, folder / "worker.log", checkout):
            jobs = {"succeeded": submit("succeeded", "a-key", labels={"team": "search"})}
            ends(jobs["succeeded"])
            retried = http.post(f"/v1/jobs/{jobs['succeeded']}:retry", json={"output": f"s3://{BUCKET}/out/retried/"})
            jobs["retried"] = retried.json()["id"]
            ends(jobs["retried"])
            jobs["failed"] = submit("failed", max_errors=1)
            ends(jobs["failed"])
            jobs["cancelled"] = submit("cancelled")
            http.post(f"/v1/jobs/{jobs['cancelled']}:cancel")
            ends(jobs["cancelled"])
        # A worker that dies with its process group in the middle of a job: two parts are there, and a shard is held.
        process = subprocess.Popen(worker, env=env, cwd=checkout, start_new_session=True)
        jobs["running"] = submit("running", shard={"rows": 1})

        def parts() -> int:
            return sum(key.startswith("out/running/part-") for key in _keys(endpoint))

        wait_for("two parts", lambda: parts() >= 2, every_s=0.002)
        os.killpg(process.pid, 9)
        process.wait()
        paths = ["/v1/jobs"]
        paths += [f"/v1/jobs/{job}{more}" for job in jobs.values() for more in ("", "/shards", "/errors")]
        ended = [job for name, job in jobs.items() if name != "running"]
        paths += [f"/v1/jobs/{job}{more}" for job in ended for more in ("/manifest", "/results?limit=70")]
        answers = {path: ((answer := http.get(path)).status_code, answer.json()) for path in paths}
        _write(endpoint, redis_url, {"jobs": jobs, "answers": answers})


def _answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def _write(endpoint: str, redis_url: str, http: dict[str, Any]) -> None:
    shutil.rmtree(KEPT, ignore_errors=True)
    for key in _keys(endpoint):
        path = KEPT / "s3" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3_client(endpoint).get_object(Bucket=BUCKET, Key=key)["Body"].read())
    (KEPT / "redis.json").write_text(json.dumps(_read_redis(redis_url), indent=1) + "\n")
    (KEPT / "http.json").write_text(json.dumps(http, indent=1) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        _keep(Path(sys.argv[1]).resolve(), Path(work))

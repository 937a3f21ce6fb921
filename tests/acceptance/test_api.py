"""The HTTP API by its own server process, with a real Redis, S3, worker and model: what users of it are promised."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.client import Client, Conflict, JobFailed
from jobs.settings import Settings
from schemas.errors import NotFound, ServiceUnavailable, SpecError, Unauthenticated
from tests.acceptance.api import new_token, secret_of, server, sse
from tests.acceptance.cli import NIGHTSHIFT, environment, nightshift, worker
from tests.checkpoints_vision import make_image_classifier
from tests.integration.harness import read_output, write_reviews
from tests.pictures import encoded, picture
from tests.servers import free_ports, redis_at, running, s3_client, wait_for
from tests.texts import sentences


def spec(model: object, source: object, output: object, **more: Any) -> dict[str, Any]:
    """A text classification whose input column is called `review`."""
    table = {"uri": str(source), "columns": {"text": "review"}}
    return {
        "task": "text-classification", "model": str(model), "input": table, "output": {"uri": str(output)},
    } | more  # fmt: skip


def put_reviews(endpoint: str, uri: str, texts: list[str]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": range(len(texts)), "review": texts}), buffer)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3_client(endpoint).put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())


def upload(endpoint: str, folder: Path, uri: str) -> None:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for path in folder.iterdir():
        s3_client(endpoint).upload_file(str(path), bucket, f"{prefix}/{path.name}")


@pytest.fixture
def api(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """The API of a deployment that allows local files, and the headers of one who may use all of it."""
    monkeypatch.setenv("NIGHTSHIFT_ALLOW_FILES", "true")
    headers = new_token("tests", "--inputs", "*", "--outputs", "*")
    with server(tmp_path / "api.log") as url:
        yield url, headers


def client_of(api: tuple[str, dict[str, str]], **options: Any) -> Client:
    return Client(api[0], api[1]["Authorization"].removeprefix("Bearer "), **options)


def test_a_user_with_a_token_from_curl_to_results(
    s3: str, s3_endpoint: str, settings: Settings, classifier: Path, tmp_path: Path
) -> None:
    """Submitted by curl, followed by its events, results paged; in S3, within the token's prefixes."""
    put_reviews(s3_endpoint, f"{s3}/raw/search/in.parquet", sentences(300))
    upload(s3_endpoint, classifier, f"{s3}/raw/search/model")
    headers = new_token("search", "--inputs", f"{s3}/raw/search/", "--outputs", f"{s3}/annotated/search/")
    asked = spec(
        f"{s3}/raw/search/model", f"{s3}/raw/search/in.parquet", f"{s3}/annotated/search/one/", labels={"a": "b"}
    )
    asked |= {"shard": {"rows": 100}}
    with server(tmp_path / "api.log") as url, worker(tmp_path / "worker.log"):
        command = ["curl", "-sS", "-i", "-X", "POST", f"{url}/v1/jobs", "-H", "Content-Type: application/json"]
        command += ["-H", f"Authorization: {headers['Authorization']}", "-d", json.dumps(asked)]
        answered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        head, _, body = answered.partition("\n\n")
        assert head.startswith("HTTP/1.1 202")
        job = json.loads(body)
        assert f"location: /v1/jobs/{job['id']}" in head.lower()
        assert (job["found"], job["labels"]) == ("nothing", {"a": "b", "tenant": "search"})
        with httpx2.stream("GET", f"{url}/v1/jobs/{job['id']}/events", headers=headers, timeout=120) as stream:
            seen = list(sse(stream))
        assert {name for name, _ in seen[:-1]} == {"progress"}
        assert seen[-1][0] == "end"
        assert (seen[-1][1]["status"], seen[-1][1]["end"]["records"]) == ("succeeded", 300)
        rows, cursor = [], None
        while True:
            params = {"limit": 70} | ({"cursor": cursor} if cursor else {})
            page = httpx2.get(f"{url}/v1/jobs/{job['id']}/results", headers=headers, params=params).json()
            rows += page["rows"]
            cursor = page["next"]
            if cursor is None:
                break
        assert [row["id"] for row in rows] == list(range(300))
        assert all(row["prediction"]["label"] for row in rows)
        listed = httpx2.get(f"{url}/v1/jobs", headers=headers, params={"label": "a:b"}).json()
        assert [one["id"] for one in listed["jobs"]] == [job["id"]]
    for log in ("api.log", "worker.log"):
        assert secret_of(headers["Authorization"]) not in (tmp_path / log).read_text()
    bucket = s3.removeprefix("s3://")
    stored = s3_client(s3_endpoint).get_object(Bucket=bucket, Key="annotated/search/one/_job.json")
    written = json.loads(stored["Body"].read())
    assert written["allowed_inputs"] == [f"{s3}/raw/search/"]
    assert written["accepted_by"].startswith("token ")


def test_who_may_not_is_refused(
    s3: str, s3_endpoint: str, settings: Settings, classifier: Path, tmp_path: Path
) -> None:
    """Tokens missing, wrong, foreign; inputs, outputs and models outside the prefixes, by every trick."""
    put_reviews(s3_endpoint, f"{s3}/raw/search/in.parquet", sentences(20))
    put_reviews(s3_endpoint, f"{s3}/raw/ads/in.parquet", sentences(20))
    upload(s3_endpoint, classifier, f"{s3}/raw/search/model")
    prefixes = ["--inputs", f"{s3}/raw/search/", "--outputs", f"{s3}/annotated/search/"]
    own, other = new_token("search", *prefixes), new_token("ads", *prefixes)
    readonly = new_token("search", "--scopes", "read")
    model, output = f"{s3}/raw/search/model", f"{s3}/annotated/search/x/"
    good = spec(model, f"{s3}/raw/search/in.parquet", output)
    with server(tmp_path / "api.log") as url, httpx2.Client(base_url=url, timeout=60) as http:
        assert http.post("/v1/jobs", json=good).status_code == 401
        assert http.get("/v1/jobs", headers={"Authorization": "Bearer nst_0_wrong"}).status_code == 401
        assert http.post("/v1/jobs", json=good, headers=readonly).status_code == 403
        assert http.get("/metrics", headers=own).status_code == 403
        for uri in (
            f"{s3}/raw/ads/in.parquet",
            f"{s3}/raw/",
            f"{s3}/raw/search",
            f"{s3}/raw/*/in.parquet",
            f"{s3}/raw/search/../ads/in.parquet",
            f"{s3}/raw/search/%2e%2e/ads/in.parquet",
            f"{s3}/raw/search/%252e%252e/ads/in.parquet",
            f"{s3}/raw/search/..%2fads/in.parquet",
            "s3://another-bucket/raw/search/in.parquet",
            "/etc/passwd",
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data/",
            "raw/search/in.parquet\0",
        ):
            refused = http.post("/v1/jobs", json=spec(model, uri, output), headers=own)
            assert refused.status_code == 422, (uri, refused.text)
            assert refused.json()["errors"][0]["field"].startswith("input.uri"), uri
        for place in (f"{s3}/annotated/ads/", f"{s3}/annotated/search/../ads/", "/tmp/somewhere/"):
            refused = http.post("/v1/jobs", json=good | {"output": {"uri": place}}, headers=own)
            assert refused.json()["errors"][0]["field"] == "output.uri", place
        for place in (f"{s3}/raw/ads/model", str(classifier)):
            refused = http.post("/v1/jobs", json=good | {"model": place}, headers=own)
            assert refused.json()["errors"][0]["field"] == "model", place
        refused = http.post("/v1/jobs", json=good | {"labels": {"tenant": "ads"}}, headers=own)
        assert refused.json()["errors"][0]["field"] == "labels.tenant"

        job = http.post("/v1/jobs", json=good, headers=own)
        assert job.status_code == 202, job.text
        id = job.json()["id"]
        assert http.get(f"/v1/jobs/{id}", headers=own).json()["status"] == "planning"
        for path in ("", "/events", "/shards", "/errors", "/results", "/manifest"):
            assert http.get(f"/v1/jobs/{id}{path}", headers=other).status_code == 404, path
        for action in ("cancel", "pause", "continue", "resume", "retry"):
            assert http.post(f"/v1/jobs/{id}:{action}", headers=other).status_code == 404, action
        assert http.get("/v1/jobs", headers=other).json()["jobs"] == []
        taken = http.post("/v1/jobs", json=good, headers=other)
        assert taken.status_code == 422
        assert id not in taken.text, "whose output it is is not told"


def test_uris_in_rows_are_held_to_the_token(s3: str, s3_endpoint: str, settings: Settings, tmp_path: Path) -> None:
    folder = make_image_classifier(tmp_path / "vit")
    bucket = s3.removeprefix("s3://")
    for key in ("raw/search/a.png", "raw/ads/b.png"):
        s3_client(s3_endpoint).put_object(Bucket=bucket, Key=key, Body=encoded(picture()))
    upload(s3_endpoint, folder, f"{s3}/raw/search/model")
    uris = ["a.png", f"{s3}/raw/ads/b.png", "../ads/b.png", "%2e%2e/ads/b.png", "/etc/passwd", "http://127.0.0.1/b.png"]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": uris}), buffer)
    s3_client(s3_endpoint).put_object(Bucket=bucket, Key="raw/search/in.parquet", Body=buffer.getvalue())
    headers = new_token("search", "--inputs", f"{s3}/raw/search/", "--outputs", f"{s3}/annotated/search/")
    asked = {
        "task": "image-classification", "model": f"{s3}/raw/search/model",
        "input": {"uri": f"{s3}/raw/search/in.parquet"}, "output": {"uri": f"{s3}/annotated/search/x/"},
    }  # fmt: skip
    with (
        server(tmp_path / "api.log") as url,
        worker(tmp_path / "worker.log"),
        client_of((url, headers)) as client,
    ):
        job = client.wait(client.submit(asked).id, timeout_s=120)
        rows = client.results(job.id).to_pylist()
    assert [row["error"] and row["error"]["code"] for row in rows] == [None] + ["uri_not_allowed"] * 5


def test_one_key_from_twenty_threads_makes_one_job(
    api: tuple[str, dict[str, str]], classifier: Path, tmp_path: Path
) -> None:
    url, headers = api
    file = write_reviews(tmp_path / "in.parquet", sentences(30))
    headers = headers | {"Idempotency-Key": "night-of-the-20th"}

    def send(number: int) -> httpx2.Response:
        return httpx2.post(
            f"{url}/v1/jobs", json=spec(classifier, file, tmp_path / "out"), headers=headers, timeout=120
        )

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert {answer.status_code for answer in answers} == {202}, {a.text for a in answers if a.status_code != 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(list((tmp_path / "home" / "catalog" / "jobs").iterdir())) == 1
    other = httpx2.post(f"{url}/v1/jobs", json=spec(classifier, file, tmp_path / "two"), headers=headers)
    assert other.status_code == 422
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"


def test_killed_right_after_202_the_job_runs(settings: Settings, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(50))
    headers = new_token("tests", "--inputs", "*", "--outputs", "*")
    port = free_ports(1)[0]
    command = [*NIGHTSHIFT, "api", "--port", str(port)]
    process = subprocess.Popen(command, env=environment(NIGHTSHIFT_ALLOW_FILES="true"), stderr=subprocess.DEVNULL)
    try:
        with client_of((f"http://127.0.0.1:{port}", headers), tries=20) as client:
            job = client.submit(spec(classifier, file, tmp_path / "out"))
    finally:
        process.kill()
        process.wait()
    with worker(tmp_path / "worker.log"):
        done = nightshift("watch", job.id, "--json")
    assert done.code == 0, done
    assert len(read_output(str(tmp_path / "out"))) == 50


def test_the_client_from_submit_to_table(api: tuple[str, dict[str, str]], classifier: Path, tmp_path: Path) -> None:
    """Everything that the command line can do, over HTTP, in Python."""
    texts: list[Any] = sentences(200)
    texts[7] = None
    file = write_reviews(tmp_path / "in.parquet", texts)
    with worker(tmp_path / "worker.log"), client_of(api) as client:
        planned = client.plan(spec(classifier, file, tmp_path / "out", shard={"rows": 64}))
        assert (planned["shards"], planned["records"], planned["complete"]) == (4, 200, True)
        assert not (tmp_path / "out").exists()
        job = client.submit(spec(classifier, file, tmp_path / "out", shard={"rows": 64}))
        seen: list[Any] = []
        ended = client.wait(job.id, progress=seen.append, timeout_s=120, every_s=0.1)
        assert (ended.status, ended.records, ended.error_rows) == ("succeeded", 200, 1)
        assert seen[-1] == ended

        table = client.results(job.id)
        assert table.to_pylist() == read_output(str(tmp_path / "out"))
        assert client.dataset(job.id, tmp_path / "copy").count_rows() == 200
        assert client.results(job.id, errors=True)["id"].to_pylist() == [7]
        errors = client.errors(job.id)
        assert (errors["errors"], [row["id"] for row in errors["rows"]]) == ({"null_input": 1}, [7])
        assert client.manifest(job.id)["rows"] == 200

        shards = client._json("GET", f"/v1/jobs/{job.id}/shards", params={"limit": 3})
        assert [(one["shard"], one["status"], one["records"]) for one in shards["shards"]] == [
            (0, "done", 64), (1, "done", 64), (2, "done", 64),
        ]  # fmt: skip
        rest = client._json("GET", f"/v1/jobs/{job.id}/shards", params={"cursor": shards["next"]})
        assert [one["shard"] for one in rest["shards"]] == [3]

        retried = client.wait(client.retry(job.id).id, timeout_s=120)
        assert (retried.records, retried.data["parent"]["job"]) == (1, job.id)
        assert client.results(job.id, with_retries=True).num_rows == 200
        again = client.submit(spec(classifier, file, tmp_path / "out", shard={"rows": 64}))
        assert (again.id, again.data["found"]) == (job.id, "ended")
        with pytest.raises(Conflict):
            client.cancel(job.id)
        with pytest.raises(SpecError) as refused:
            client.submit(spec(classifier, tmp_path / "nothing.parquet", tmp_path / "none"))
        assert refused.value.problems[0].field == "input.uri"
        with pytest.raises(NotFound):
            client.job("20200101-000000-aaaaaa")
        assert [one.id for one in client.jobs(limit=1)] == [retried.id, job.id]
        assert [one.id for one in client.jobs(status=["succeeded"], until="2020-01-01T00:00:00Z")] == []
        assert client.workers()["workers"][0]["processes"] == 1
        assert {one["id"] for one in client.tasks()} >= {"text-classification", "depth-estimation"}
    with pytest.raises(Unauthenticated), Client(api[0], "nst_no_token") as stranger:
        stranger.job(job.id)


def test_a_job_is_paused_continued_and_cancelled(
    api: tuple[str, dict[str, str]], classifier: Path, tmp_path: Path
) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(2000))
    with worker(tmp_path / "worker.log"), client_of(api) as client:
        job = client.submit(spec(classifier, file, tmp_path / "out", shard={"rows": 1}))
        wait_for("a part", lambda: client.job(job.id).records)
        assert client.pause(job.id).status == "paused"
        assert client.pause(job.id).status == "paused", "asked twice"
        with pytest.raises(Conflict, match="has not ended"):
            client.results(job.id)
        assert client.results(job.id, partial=True).num_rows >= 0
        assert client.continue_(job.id).status == "running"
        assert client.cancel(job.id).status in ("cancelling", "cancelled")
        with pytest.raises(JobFailed) as failed:
            client.wait(job.id, timeout_s=120)
        assert failed.value.job.status == "cancelled"


def test_without_redis_it_says_what_storage_knows(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_ports(1)[0]
    (tmp_path / "redis").mkdir()
    for name, value in {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "ALLOW_FILES": "true"}.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    headers = new_token("tests", "--inputs", "*", "--outputs", "*")
    file = write_reviews(tmp_path / "in.parquet", sentences(60))
    with server(tmp_path / "api.log") as url, client_of((url, headers), tries=1) as client:
        with redis_at(tmp_path / "redis", port), worker(tmp_path / "worker.log"):
            done = client.wait(client.submit(spec(classifier, file, tmp_path / "one")).id, timeout_s=120)
        with redis_at(tmp_path / "redis", port):
            waiting = client.submit(spec(classifier, file, tmp_path / "two"))
        assert client.job(done.id).status == "succeeded"
        assert client.results(done.id).num_rows == 60
        assert client.job(waiting.id).status == "unknown"
        assert [one.status for one in client.jobs()] == ["unknown", "succeeded"]
        assert httpx2.get(f"{url}/readyz").json() == {"status": "ready", "redis": "away"}
        for ask in (
            lambda: client.submit(spec(classifier, file, tmp_path / "three")),
            lambda: client.cancel(waiting.id),
            client.workers,
        ):
            with pytest.raises(ServiceUnavailable, match="Redis"):
                ask()
        assert not (tmp_path / "three").exists(), "nothing was written for a job that nobody could be told of"
        refused = httpx2.get(f"{url}/v1/workers", headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        with redis_at(tmp_path / "redis", port), worker(tmp_path / "worker.log"):
            wait_for("the API finds Redis again", lambda: client.job(waiting.id).status != "unknown")
            client.resume(waiting.id)
            assert client.wait(waiting.id, timeout_s=120).records == 60


def test_embedded_on_loopback_no_token_is_needed(classifier: Path, tmp_path: Path) -> None:
    """Redis and a worker of its own; gone with the server. Other sites' pages may not ask."""
    file = write_reviews(tmp_path / "in.parquet", sentences(40))
    with server(tmp_path / "api.log") as url:
        with Client(url) as client:
            job = client.submit(spec(classifier, file, tmp_path / "out"))
            assert client.wait(job.id, timeout_s=120).records == 40
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            assert httpx2.get(f"{url}/v1/jobs", headers=headers).status_code == 403
        metrics = httpx2.get(f"{url}/metrics").text
        assert 'nightshift_http_requests_total{method="POST",route="/v1/jobs",status="202"} 1.0' in metrics
        assert "nightshift_redis_up 1.0" in metrics


def test_anywhere_else_it_refuses_to_start_without_a_token(settings: Settings, tmp_path: Path) -> None:
    for arguments in ([], ["--host", "0.0.0.0"]):
        done = nightshift("api", "--port", free_ports(1)[0], *arguments)
        assert done.code == 2
        assert "nightshift token new" in done.err
    done = nightshift("api", "--port", free_ports(1)[0], "--host", "0.0.0.0", NIGHTSHIFT_REDIS_URL="")
    assert done.code == 2, "embedded, and not on loopback"


def test_sigterm_ends_it_with_streams_open(settings: Settings, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(10))
    headers = new_token("tests", "--inputs", "*", "--outputs", "*")
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    command, log = [*NIGHTSHIFT, "api", "--port", str(port)], tmp_path / "api.log"
    with running(command, environment(NIGHTSHIFT_ALLOW_FILES="true"), log) as process:
        with client_of((url, headers), tries=20) as client:
            job = client.submit(spec(classifier, file, tmp_path / "out"))
        with httpx2.stream("GET", f"{url}/v1/jobs/{job.id}/events", headers=headers, timeout=120) as stream:
            events = sse(stream)
            assert next(events)[1]["status"] == "planning"
            process.send_signal(signal.SIGTERM)
            assert list(events) == []
        assert process.wait(120) == 0
    assert "graceful shutdown exceeded" not in log.read_text(), "it was held up until its grace was over"


def test_it_starts_without_torch() -> None:
    script = "import sys, jobs.api.serve; print(sorted({'torch', 'transformers', 'boto3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_quota_of_running_jobs(settings: Settings, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(10))
    headers = new_token("small", "--inputs", "*", "--outputs", "*", "--max-running-jobs", "2")
    with server(tmp_path / "api.log", NIGHTSHIFT_ALLOW_FILES="true") as url:

        def send(number: int) -> int:
            body = spec(classifier, file, tmp_path / f"out-{number}")
            return httpx2.post(f"{url}/v1/jobs", json=body, headers=headers, timeout=60).status_code

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(send, range(6))) == [202, 202, 429, 429, 429, 429]


def test_bodies_that_are_no_specs(api: tuple[str, dict[str, str]]) -> None:
    url, headers = api
    as_json = headers | {"Content-Type": "application/json"}
    ask: Callable[..., httpx2.Response] = httpx2.post
    for body, status in (
        (b"", 400), (b"{", 400), (b"[]", 422), (b"NaN", 400), (b"1" * 5000, 400), (b"[" * 100_000, 400),
        (b'{"task": "\\ud800"}', 400), (b" " * (2 << 20), 413), (b'{"task": {"a": []}}', 422),
    ):  # fmt: skip
        answer = ask(f"{url}/v1/jobs", content=body, headers=as_json)
        assert answer.status_code == status, (body[:20], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
    assert ask(f"{url}/v1/jobs", content=b"{}", headers=headers | {"Content-Type": "text/plain"}).status_code == 415

"""A deployment with two tenants: one works, one attacks. API, worker, Valkey and SeaweedFS, all of them real."""

import io
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage import Storage
from tests.acceptance.api import new_token, server
from tests.acceptance.cli import worker
from tests.checkpoints import make_classifier
from tests.servers import S3_ENV, redis_at, s3_client, wait_for
from tests.texts import sentences

BUCKET = "attacked"
#: What stands in the honest tenant's table, and must never reach the other.
SECRET = "the patient's name is Annie"


@dataclass
class Tenant:
    """A tenant of the API: their prefixes in the bucket, and their requests."""

    name: str
    endpoint: str
    http: httpx2.Client

    def uri(self, name: str) -> str:
        return f"s3://{BUCKET}/{self.name}/{name}"

    def put(self, name: str, body: bytes | str) -> str:
        """Write an object under the tenant's prefix, as they can by themselves."""
        data = body.encode() if isinstance(body, str) else body
        s3_client(self.endpoint).put_object(Bucket=BUCKET, Key=f"{self.name}/{name}", Body=data)
        return self.uri(name)

    def put_table(self, name: str, texts: Sequence[str | None], **options: Any) -> str:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), buffer, **options)
        return self.put(name, buffer.getvalue())

    def put_folder(self, name: str, folder: Path) -> str:
        for path in folder.iterdir():
            self.put(f"{name}/{path.name}", path.read_bytes())
        return self.uri(f"{name}/")

    def objects(self, name: str) -> list[str]:
        listed = s3_client(self.endpoint).list_objects_v2(Bucket=BUCKET, Prefix=f"{self.name}/{name}")
        return [item["Key"].removeprefix(f"{self.name}/") for item in listed.get("Contents", [])]

    def read(self, name: str) -> bytes:
        body = s3_client(self.endpoint).get_object(Bucket=BUCKET, Key=f"{self.name}/{name}")["Body"]
        return bytes(body.read())

    def spec(self, output: str, source: str = "in.parquet", model: str = "model/", **more: Any) -> dict[str, Any]:
        places = {"input": {"uri": self.uri(source)}, "output": {"uri": self.uri(output)}}
        return {"task": "text-classification", "model": self.uri(model)} | places | more

    def submit(self, output: str, *arguments: str, **more: Any) -> httpx2.Response:
        return self.http.post("/v1/jobs", json=self.spec(output, *arguments, **more))

    def job(self, id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"/v1/jobs/{id}").raise_for_status().json()
        return answer

    def ends(self, id: str, seconds: float = 120) -> dict[str, Any]:
        """The job once it has ended."""
        wait_for(f"{id} ends", lambda: self.job(id)["end"] is not None, seconds)
        return self.job(id)

    def run(self, output: str, *arguments: str, **more: Any) -> dict[str, Any]:
        submitted = self.submit(output, *arguments, **more)
        assert submitted.status_code == 202, submitted.text
        return self.ends(submitted.json()["id"])

    def rows(self, id: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get(f"/v1/jobs/{id}/results").raise_for_status().json()["rows"]
        return rows


@dataclass
class Waits:
    """How long the honest tenant's requests took, in seconds, while something else went on."""

    seconds: list[float] = field(default_factory=list)

    def check(self) -> None:
        """In `make attack`, which may have the machine for itself: 95% of the requests took less than ATTACK_P95_S."""
        limit = float(os.environ.get("ATTACK_P95_S", "inf"))
        if self.seconds:
            assert sorted(self.seconds)[int(0.95 * len(self.seconds))] < limit


@dataclass
class Scene:
    honest: Tenant
    hostile: Tenant
    api_log: Path
    worker_log: Path

    @contextmanager
    def honest_at_work(self) -> Iterator[Waits]:
        """The honest tenant asks for their jobs ten times a second, for as long as the context lasts."""
        waits, over = Waits(), threading.Event()

        def ask() -> None:
            while not over.wait(0.1):
                answer = self.honest.http.get("/v1/jobs", params={"limit": 1})
                waits.seconds.append(answer.elapsed.total_seconds())
                assert answer.status_code == 200

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield waits
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module")
def scene(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("attack")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in (S3_ENV | {"AWS_ENDPOINT_URL_S3": s3_endpoint}).items():
            patch.setenv(name, value)
        store = s3_client(s3_endpoint)
        if BUCKET in [bucket["Name"] for bucket in store.list_buckets()["Buckets"]]:
            for item in store.list_objects_v2(Bucket=BUCKET).get("Contents", []):
                store.delete_object(Bucket=BUCKET, Key=item["Key"])
        else:
            store.create_bucket(Bucket=BUCKET)
        url = stack.enter_context(redis_at(folder))
        own = {
            "NOTIFY_SECRET": "attack",
            "REDIS_URL": url,
            "HOME": str(folder / "home"),
            "CATALOG": f"s3://{BUCKET}/_catalog/",
            "SWEEP_S": "0.5",
        }
        for name, value in own.items():
            patch.setenv(f"NIGHTSHIFT_{name}", value)
        headers = {}
        for name in ("honest", "hostile"):
            place = f"s3://{BUCKET}/{name}/"
            headers[name] = new_token(name, "--inputs", place, "--outputs", place, "--requests-per-s", "1000")
        api_log, worker_log = folder / "api.log", folder / "worker.log"
        api = stack.enter_context(server(api_log))
        stack.enter_context(worker(worker_log))
        tenants = []
        model = make_classifier(folder / "model")
        for name, header in headers.items():
            http = stack.enter_context(httpx2.Client(base_url=api, headers=header, timeout=120))
            tenant = Tenant(name, s3_endpoint, http)
            tenant.put_folder("model", model)
            tenants.append(tenant)
        honest, hostile = tenants
        honest.put_table("in.parquet", [SECRET, *sentences(20)])
        hostile.put_table("in.parquet", sentences(20))
        assert honest.run("warm/")["status"] == "succeeded"
        yield Scene(honest, hostile, api_log, worker_log)


@pytest.fixture
def storage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The store, as the operator of the deployment sees it."""
    for name, value in (S3_ENV | {"AWS_ENDPOINT_URL_S3": scene.honest.endpoint}).items():
        monkeypatch.setenv(name, value)
    return Storage()


@pytest.fixture(autouse=True)
def _nobody_is_harmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each attack: nothing of the honest tenant's is with the other, who has crashed nothing; work goes on."""
    yield
    if "scene" not in request.fixturenames:
        return
    scene: Scene = request.getfixturevalue("scene")
    for name in scene.hostile.objects(""):
        body = scene.hostile.read(name)
        if name.endswith(".parquet") and "part-" in name:
            body = json.dumps(pq.read_table(io.BytesIO(body)).to_pylist(), default=str).encode()
        assert SECRET.encode() not in body, name
    for log in (scene.api_log, scene.worker_log):
        assert "Traceback" not in log.read_text(), log.read_text()[-5000:]

"""The API's routes inside the test's own process, on real Redis and storage: pages, filters, actions, tenants."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from jobs.api.app import make_app
from jobs.api.auth import Authenticator
from jobs.api.responses import JobPage
from jobs.api.service import Service
from jobs.api.tokens import Scope, Tokens
from jobs.settings import Settings
from schemas.errors import ServiceUnavailable
from schemas.plan import ShardOrder
from schemas.tasks import all_tasks
from tests.integration.harness import House, read_output, write_reviews
from tests.texts import sentences

ARROW = {"Accept": "application/vnd.apache.arrow.stream"}


class Api:
    """A server's application, asked as this tenant."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.tokens = Tokens(house.settings.tokens_path)
        authenticator = Authenticator(house.settings, self.tokens, "127.0.0.1")
        self.service = Service(house.settings, house.state, house.broker, house.storage, authenticator)
        self.http = TestClient(make_app(self.service), raise_server_exceptions=False)

    def login(self, tenant: str, *scopes: Scope, prefixes: tuple[str, ...] = ("*",)) -> dict[str, str]:
        chosen = scopes or (Scope.SUBMIT, Scope.READ)
        _, secret = self.tokens.new(tenant, chosen, prefixes, prefixes, requests_per_s=1e6)
        return {"Authorization": f"Bearer {secret}"}

    def run(self, job: dict[str, Any]) -> None:
        """What workers do for a submitted job."""
        accepted = self.service._read_job(job["id"])
        assert accepted is not None
        shards = self.house.plan(accepted)
        for shard in range(shards):
            self.house.attempt(accepted, shard, id=f"{accepted.id}-{shard}")
        self.house.finish(accepted)


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    made = Api(House(settings))
    with made.http:
        yield made


def spec(model: Path, source: object, output: object, **more: Any) -> dict[str, Any]:
    table = {"uri": str(source), "columns": {"text": "review"}}
    asked = {"task": "text-classification", "model": str(model), "input": table, "output": {"uri": str(output)}}
    return asked | more


def pages(api: Api, path: str, key: str, headers: dict[str, str], **params: Any) -> list[Any]:
    """All that a list has, page by page."""
    found: list[Any] = []
    while True:
        answer = api.http.get(path, params=params, headers=headers)
        assert answer.status_code == 200, answer.text
        found += answer.json()[key]
        if answer.json()["next"] is None:
            return found
        params["cursor"] = answer.json()["next"]


def test_a_job_read_in_every_way(api: Api, classifier: Path, tmp_path: Path) -> None:
    texts: list[Any] = sentences(120)
    texts[3] = texts[70] = None
    file = write_reviews(tmp_path / "in.parquet", texts, row_group=40)
    me = api.login("search")
    submitted = api.http.post("/v1/jobs", json=spec(classifier, file, tmp_path / "out", shard={"rows": 32}), headers=me)
    assert submitted.status_code == 202, submitted.text
    job = submitted.json()
    at = f"/v1/jobs/{job['id']}"
    assert job["status"] == "planning"
    assert api.http.get(f"{at}/shards", headers=me).json() == {"shards": [], "next": None}
    early = api.http.get(f"{at}/results", headers=me)
    assert (early.status_code, early.json()["code"]) == (409, "not_finished")
    assert api.http.get(f"{at}/manifest", headers=me).status_code == 409
    api.run(job)

    rows = pages(api, f"{at}/results", "rows", me, limit=13)
    whole = read_output(str(tmp_path / "out"))
    assert [row["id"] for row in rows] == [row["id"] for row in whole] == list(range(120))
    stream = api.http.get(f"{at}/results", headers=me | ARROW)
    assert stream.headers["content-type"] == ARROW["Accept"]
    assert pa.ipc.open_stream(io.BytesIO(stream.content)).read_all().to_pylist() == whole
    some = api.http.get(f"{at}/results", headers=me | ARROW, params={"limit": 50, "cursor": "1.5"}).content
    assert pa.ipc.open_stream(io.BytesIO(some)).read_all()["id"].to_pylist() == list(range(37, 87))
    assert [row["id"] for row in pages(api, f"{at}/results", "rows", me, limit=1, errors="true")] == [3, 70]
    assert [row["id"] for row in pages(api, f"{at}/errors", "rows", me, limit=1)] == [3, 70]
    assert api.http.get(f"{at}/errors", headers=me).json()["errors"] == {"null_input": 2}
    bad = api.http.get(f"{at}/errors", headers=me | ARROW | {"Accept": "text/csv"})
    assert bad.status_code == 200, "what can't be chosen is not looked at"
    assert api.http.get(f"{at}/results", headers=me | {"Accept": "text/csv"}).status_code == 406
    shards = pages(api, f"{at}/shards", "shards", me, limit=3)
    assert [(one["shard"], one["status"]) for one in shards] == [(number, "done") for number in range(4)]
    assert sum(one["records"] for one in shards) == 120
    assert api.http.get(f"{at}/manifest", headers=me).json()["error_rows"] == 2
    detail = api.http.get(at, headers=me).json()
    assert (detail["status"], detail["end"]["records"], detail["progress"]) == ("succeeded", 120, None)
    ended = api.http.get(f"{at}/events", headers=me).text
    assert ended.count("event: end\n") == ended.count("event: ") == 1
    for action in ("cancel", "pause", "continue", "resume"):
        assert api.http.post(f"{at}:{action}", headers=me).status_code == 409

    retried = api.http.post(f"{at}:retry", headers=me)
    assert retried.status_code == 202, retried.text
    api.run(retried.json())
    merged = pages(api, f"{at}/results", "rows", me, limit=50, with_retries="true")
    assert [row["id"] for row in merged] == list(range(120))


def test_a_stream_of_events(api: Api, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(10))
    me = api.login("search")
    id = api.http.post("/v1/jobs", json=spec(classifier, file, tmp_path / "out"), headers=me).json()["id"]
    job = api.service._read_job(id)
    assert job is not None
    said = f"event: progress\ndata: {api.service.view(job).model_dump_json()}"
    # It looks at the job twice, with a silence of half a second after each; then an hour is over.
    monkeypatch.setattr("jobs.api.events.time", Mock(monotonic=Mock(side_effect=[0, 0, 1, 3600])))
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.1)
    answer = api.http.get(f"/v1/jobs/{id}/events", headers=me)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "no-store" in answer.headers["cache-control"]
    assert answer.headers["x-accel-buffering"] == "no"
    first, second, *silence, rest = answer.text.split("\n\n")
    assert (first, second, set(silence), rest) == ("retry: 2000", said, {": ping"}, "")

    unknown = api.http.get("/v1/jobs/20261120-031500-k3v9x2/events", headers=me)
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    assert unknown.json()["code"] == "not_found"


def test_actions_on_a_job_under_way(api: Api, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(60))
    me = api.login("search")
    job = api.http.post(
        "/v1/jobs", json=spec(classifier, file, tmp_path / "out", shard={"rows": 20}), headers=me
    ).json()
    accepted = api.service._read_job(job["id"])
    assert accepted is not None
    at = f"/v1/jobs/{job['id']}"
    api.house.plan(accepted)
    assert api.http.post(f"{at}:pause", headers=me).json()["status"] == "paused"
    assert api.http.post(f"{at}:pause", headers=me).json()["status"] == "paused", "asked twice"
    assert api.http.post(f"{at}:continue", headers=me).json()["status"] == "running"
    api.house.attempt(accepted, 1)
    states = [one["status"] for one in api.http.get(f"{at}/shards", headers=me).json()["shards"]]
    assert states == ["waiting", "done", "waiting"]
    partial = pages(api, f"{at}/results", "rows", me, partial="true", limit=7)
    assert [row["id"] for row in partial] == list(range(20, 40))
    assert api.http.post(f"{at}:resume", headers=me).json()["status"] == "running"
    assert api.http.post(f"{at}:cancel", headers=me).json()["status"] == "cancelling"
    api.house.finish(accepted)
    assert api.http.get(at, headers=me).json()["status"] == "cancelled"


def test_the_list_is_each_tenants_own(api: Api, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(5))
    one, two, admin = api.login("one"), api.login("two"), api.login("boss", Scope.ADMIN)
    ids: dict[str, list[str]] = {"one": [], "two": []}
    for number in range(5):
        tenant, headers = ("one", one) if number % 2 else ("two", two)
        asked = spec(classifier, file, tmp_path / f"out-{number}", labels={"n": str(number)})
        ids[tenant].insert(0, api.http.post("/v1/jobs", json=asked, headers=headers).json()["id"])
    api.service.index._ids.clear()
    # Ids of one second are in no order among themselves.
    for limit in (1, 2, 50):
        mine = [job["id"] for job in pages(api, "/v1/jobs", "jobs", one, limit=limit)]
        assert mine == sorted(ids["one"], reverse=True)
    both = [job["id"] for job in pages(api, "/v1/jobs", "jobs", admin, limit=2)]
    assert both == sorted(ids["one"] + ids["two"], reverse=True)
    for params, count in (
        ({"label": "n:3"}, 1), ({"label": ["n:3", "tenant:one"]}, 1), ({"label": "n:9"}, 0), ({"task": "fill-mask"}, 0),
        ({"status": "planning"}, 2), ({"status": "succeeded"}, 0), ({"since": "2020-01-01T00:00:00Z"}, 2),
        ({"until": "2020-01-01T00:00:00Z"}, 0),
    ):  # fmt: skip
        assert len(pages(api, "/v1/jobs", "jobs", one, **params)) == count, params
    for wrong in ({"since": "yesterday"}, {"limit": "0"}, {"cursor": "x"}, {"status": "odd"}, {"label": "plain"}):
        refused = api.http.get("/v1/jobs", headers=one, params=wrong)
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
        assert refused.json()["errors"][0]["field"].startswith(next(iter(wrong)))
    for path, said in (
        ("/v1/jobs?limt=5", "unknown parameter; did you mean 'limit'?"),
        ("/v1/workers?a=1", "unknown parameter; known parameters: none"),
    ):
        refused = api.http.get(path, headers=admin)
        assert (refused.status_code, refused.json()["errors"][0]["message"]) == (422, said)
    assert api.http.get(f"/v1/jobs/{ids['two'][0]}", headers=one).status_code == 404
    assert api.http.get(f"/v1/jobs/{ids['two'][0]}", headers=admin).status_code == 200
    JobPage.model_validate(api.http.get("/v1/jobs", headers=admin).json())


def test_the_same_key_again(api: Api, classifier: Path, tmp_path: Path) -> None:
    """A key whose server died before the job was written stands for that very job."""
    file = write_reviews(tmp_path / "in.parquet", sentences(5))
    me = api.login("search") | {"Idempotency-Key": "k1"}
    asked = spec(classifier, file, tmp_path / "out")
    first = api.http.post("/v1/jobs", json=asked, headers=me).json()["id"]
    assert api.http.post("/v1/jobs", json=asked, headers=me).json()["id"] == first
    assert api.http.post("/v1/jobs", json=asked | {"priority": 9}, headers=me).status_code == 422
    (tmp_path / "out" / "_job.json").unlink()
    file.unlink()
    again = api.http.post("/v1/jobs", json=asked, headers=me)
    assert (again.status_code, again.json()["id"]) == (202, first)
    assert (tmp_path / "out" / "_job.json").exists()
    other = api.login("another") | {"Idempotency-Key": "k1"}
    refused = api.http.post("/v1/jobs", json=asked, headers=other)
    assert refused.status_code == 422, "another tenant's key is another key"


def test_prefixes_narrow_what_the_settings_allow(api: Api, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "mine" / "in.parquet", sentences(5))
    outside = write_reviews(tmp_path / "mine-too" / "in.parquet", sentences(5))
    me = api.login("search", prefixes=(f"{tmp_path}/mine/", f"{classifier}/"))
    good = spec(classifier, file, tmp_path / "mine" / "out")
    assert api.http.post("/v1/jobs", json=good, headers=me).status_code == 202
    for change, field in (
        ({"input": {"uri": str(outside)}}, "input.uri"),
        ({"input": {"uri": f"{tmp_path}/mine/../mine-too/in.parquet"}}, "input.uri"),
        ({"output": {"uri": f"{tmp_path}/mine-too/out"}}, "output.uri"),
        ({"model": str(tmp_path)}, "model"),
        ({"labels": {"tenant": "another"}}, "labels.tenant"),
    ):
        refused = api.http.post("/v1/jobs", json=good | change, headers=me)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field), refused.text
        assert refused.json()["instance"] == "/v1/jobs"


def test_while_redis_is_away_only_one_request_waits_for_it(api: Api) -> None:
    calls = []

    def away(state: object) -> None:
        calls.append(state)
        with pytest.raises(ServiceUnavailable, match="gone"):
            api.service.ask(lambda state: calls.append("not asked"))
        raise ServiceUnavailable("gone")

    with pytest.raises(ServiceUnavailable):
        api.service.ask(lambda state: (_ for _ in ()).throw(ServiceUnavailable("gone")))
    with pytest.raises(ServiceUnavailable):
        api.service.ask(away)
    assert calls == [api.house.state]
    assert api.service.ask(lambda state: 1) == 1


def test_workers_and_what_of_mine_they_have_in_hand(api: Api, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(5))
    me, other = api.login("search"), api.login("other")
    job = api.http.post("/v1/jobs", json=spec(classifier, file, tmp_path / "out"), headers=me).json()
    order = ShardOrder(job=job["id"], task="text-classification", output=job["output"], shard=2, shards=4)
    api.house.state.workers.report("w", ["text"], 1, ["cuda:0"], [order])
    mine = api.http.get("/v1/workers", headers=me).json()["workers"]
    assert [(one["devices"], [(w["job"], w["shard"]) for w in one["work"]]) for one in mine] == [
        (["cuda:0"], [(job["id"], 2)])
    ]
    assert mine[0]["work"][0]["model"]["source"] == str(classifier)
    assert [one["work"] for one in api.http.get("/v1/workers", headers=other).json()["workers"]] == [[]]


def test_what_the_tasks_are(api: Api) -> None:
    me = api.login("search")
    found = {one["id"]: one for one in api.http.get("/v1/tasks", headers=me).json()["tasks"]}
    assert set(found) == set(all_tasks())
    for id, task in all_tasks().items():
        names = [task.prediction.field(index).name for index in range(task.prediction.num_fields)]
        assert list(found[id]["prediction"]["properties"]) == names
        assert found[id]["params"]["type"] == "object"
    for path, allowed in (("/v1/jobs", "GET, POST"), ("/v1/jobs/x:cancel", "POST"), ("/healthz", "GET")):
        assert api.http.delete(path).headers["allow"] == allowed
    assert api.http.get("/v1/tasks/ner", headers=me).json()["id"] == "token-classification"
    assert api.http.get("/v1/tasks/nope", headers=me).status_code == 404

"""The routes of schedules: who may see and change whose, what is answered, and what the client makes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.api.tokens import Scope
from jobs.client import Client
from jobs.client import Conflict as ClientConflict
from jobs.settings import Settings
from schemas.errors import NotFound, SpecError
from tests.integration.api.test_api import Api
from tests.integration.harness import House, write_reviews


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    made = Api(House(settings))
    with made.http:
        yield made


def schedule(model: Path, folder: Path, name: str = "nightly", **changes: Any) -> dict[str, Any]:
    spec = {
        "task": "text-classification",
        "model": str(model),
        "input": {"uri": f"{folder}/in/{{date}}/", "columns": {"text": "review"}},
        "output": {"uri": f"{folder}/out/{{name}}/{{date}}/"},
    } | changes.pop("spec", {})
    return {"name": name, "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "spec": spec} | changes


def test_a_schedule_from_its_addition_to_its_removal(api: Api, classifier: Path, tmp_path: Path) -> None:
    search, own = api.login("search"), schedule(classifier, tmp_path)
    added = api.http.post("/v1/schedules", json=own, headers=search)
    assert (added.status_code, added.headers["Location"]) == (201, "/v1/schedules/nightly"), added.text
    assert {"standing": "active", "number": 1, "tenant": "search"}.items() <= added.json().items()
    assert added.json()["next"][11:16] in ("02:30", "03:00")
    assert api.http.post("/v1/schedules", json=own, headers=search).json() == added.json(), "the same again"
    other = own | {"overlap": "queue"}
    refused = api.http.post("/v1/schedules", json=other, headers=search)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    changed = api.http.post("/v1/schedules?replace=true", json=other, headers=search).json()
    assert (changed["number"], changed["schedule"]["overlap"]) == (2, "queue")
    coming = api.http.get("/v1/schedules/nightly/next?count=2", headers=search).json()["runs"]
    assert [run["output"] for run in coming] == [f"{tmp_path}/out/nightly/{run['due'][:10]}/" for run in coming]

    assert api.http.post("/v1/schedules/nightly:pause", headers=search).json()["next"] is None
    assert api.http.get("/v1/schedules/nightly/next", headers=search).json() == {"runs": []}
    assert api.http.post("/v1/schedules/nightly:resume", headers=search).json()["standing"] == "active"
    assert api.http.delete("/v1/schedules/nightly", headers=search).json()["standing"] == "removed"
    assert api.http.get("/v1/schedules/nightly", headers=search).status_code == 404
    assert api.http.get("/v1/schedules", headers=search).json() == {"schedules": [], "next": None}


def test_a_run_by_hand_is_a_job_of_the_tenant(api: Api, classifier: Path, tmp_path: Path) -> None:
    search = api.login("search")
    api.http.post("/v1/schedules", json=schedule(classifier, tmp_path), headers=search)
    write_reviews(tmp_path / "in" / "2026-11-18" / "a.parquet", ["a fine film"])
    due, key = {"due": "2026-11-18T02:30"}, {"Idempotency-Key": "k1"}
    run = api.http.post("/v1/schedules/nightly:run-now", json=due, headers=search | key)
    assert run.status_code == 202, run.text
    again = api.http.post("/v1/schedules/nightly:run-now", json=due, headers=search | key)
    assert again.json() == run.json()
    job = api.http.get(f"/v1/jobs/{run.json()['jobs'][0]}", headers=search).json()
    assert job["labels"] == {"tenant": "search", "schedule": "nightly", "due": "2026-11-18T02:30:00+01:00"}
    listed = api.http.get("/v1/jobs?label=schedule:nightly", headers=search).json()["jobs"]
    assert [one["id"] for one in listed] == [job["id"]]
    page = api.http.get("/v1/schedules/nightly/runs", headers=search).json()
    assert [(one["run"], one["status"], one["by_hand"]) for one in page["runs"]] == [
        (run.json()["run"], "running", True)
    ]
    missing = api.http.post("/v1/schedules/nightly:run-now", json={"due": "2026-11-17T02:30"}, headers=search)
    assert (missing.status_code, missing.json()["errors"][0]["field"]) == (422, "spec.input.uri")
    bodies: tuple[Any, ...] = ({"due": "last night"}, {"due": 5}, {"do": "it"}, [])
    for body in bodies:
        assert api.http.post("/v1/schedules/nightly:run-now", json=body, headers=search).status_code == 422, body


def test_another_tenant_s_schedule_is_a_404(api: Api, classifier: Path, tmp_path: Path) -> None:
    search, ads, admin = api.login("search"), api.login("ads"), api.login("ops", Scope.ADMIN)
    for name in ("a", "b", "c"):
        api.http.post("/v1/schedules", json=schedule(classifier, tmp_path, name), headers=search)
    for method, path in [
        ("GET", "a"), ("DELETE", "a"), ("POST", "a:pause"), ("POST", "a:resume"), ("POST", "a:run-now"),
        ("GET", "a/runs"), ("GET", "a/next"), ("GET", "a?tenant=search"), ("DELETE", "a?tenant=search"),
        ("GET", "..%2Fsearch%2Fa"), ("GET", "no-such"),
    ]:  # fmt: skip
        answer = api.http.request(method, f"/v1/schedules/{path}", headers=ads)
        assert answer.status_code == 404, (method, path, answer.text)
    assert api.http.get("/v1/schedules?tenant=search", headers=ads).json()["schedules"] == []
    first = api.http.get("/v1/schedules?limit=2", headers=admin).json()
    rest = api.http.get(f"/v1/schedules?limit=2&cursor={first['next']}", headers=admin).json()
    assert [one["name"] for one in first["schedules"] + rest["schedules"]] == ["a", "b", "c"]
    assert rest["next"] is None
    assert api.http.get("/v1/schedules/a?tenant=search", headers=admin).json()["tenant"] == "search"
    assert api.http.get(f"/v1/schedules?tenant={'é' * 200}", headers=admin).json()["schedules"] == []
    assert api.http.get(f"/v1/schedules/a?tenant={'é' * 200}", headers=admin).status_code == 404
    reader = api.login("search", Scope.READ)
    assert api.http.get("/v1/schedules/a", headers=reader).status_code == 200
    assert api.http.post("/v1/schedules/a:pause", headers=reader).status_code == 403


def test_what_a_token_does_not_allow_is_refused(api: Api, classifier: Path, tmp_path: Path) -> None:
    narrow = api.login("search", prefixes=(f"{tmp_path}/in/", f"{classifier}/"))
    refused = api.http.post("/v1/schedules", json=schedule(classifier, tmp_path), headers=narrow)
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["errors"]] == ["spec.output.uri"]
    labels = {"labels": {"tenant": "ads"}}
    named = api.http.post(
        "/v1/schedules", json=schedule(classifier, tmp_path, spec=labels), headers=api.login("search")
    )
    assert (named.status_code, named.json()["errors"][0]["field"]) == (422, "spec.labels.tenant")
    bodies: tuple[Any, ...] = ([], {"name": "x"}, schedule(classifier, tmp_path, cron="* * *"))
    for body in bodies:
        answer = api.http.post("/v1/schedules", json=body, headers=narrow)
        assert answer.status_code == 422, answer.text
    assert api.http.get("/v1/schedules?limt=2", headers=narrow).json()["errors"][0]["message"].endswith("'limit'?")


def test_an_embedded_server_says_that_it_fires_none(api: Api, classifier: Path, tmp_path: Path) -> None:
    api.service.settings = api.service.settings.model_copy(update={"redis_url": None})
    answer = api.http.post("/v1/schedules", json=schedule(classifier, tmp_path), headers=api.login("search"))
    assert answer.status_code == 422
    assert "NIGHTSHIFT_REDIS_URL" in answer.json()["detail"]


def test_the_client_does_the_same(api: Api, classifier: Path, tmp_path: Path) -> None:
    client = Client("http://testserver", tries=1)
    api.http.headers |= api.login("search")
    client._http = api.http
    schedules = client.schedules
    with pytest.raises(SpecError, match="time_zone"):
        schedules.add(schedule(classifier, tmp_path, time_zone="Mars"))
    assert schedules.add(schedule(classifier, tmp_path))["number"] == 1
    with pytest.raises(ClientConflict):
        schedules.add(schedule(classifier, tmp_path, overlap="queue"))
    assert schedules.add(schedule(classifier, tmp_path, overlap="queue"), replace=True)["number"] == 2
    assert [one["name"] for one in schedules.all()] == ["nightly"]
    assert len(schedules.next("nightly", 3)) == 3
    write_reviews(tmp_path / "in" / "2026-11-18" / "a.parquet", ["a fine film"])
    run = schedules.run_now("nightly", "2026-11-18T02:30")
    assert [one["run"] for one in schedules.history("nightly")] == [run["run"]]
    assert schedules.pause("nightly")["standing"] == "paused"
    assert schedules.resume("nightly")["standing"] == "active"
    assert schedules.show("nightly")["number"] == 4
    assert schedules.remove("nightly")["standing"] == "removed"
    with pytest.raises(NotFound):
        schedules.show("nightly")

"""Every route of the API while Redis is away: what storage knows, and a clear 503 for the rest."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from jobs.settings import Settings
from tests.acceptance.api import new_token, server, sse
from tests.acceptance.test_api import spec
from tests.integration.harness import House, spec_for, write_reviews
from tests.servers import free_ports
from tests.texts import sentences

AWAY = 503
#: Each route, with its answers: of a job that has ended with an error row, and of one that has not ended.
ROUTES: dict[str, tuple[int, int]] = {
    "GET /v1/jobs/{id}": (200, 200),
    "GET /v1/jobs/{id}/events": (200, 200),
    "GET /v1/jobs/{id}/shards": (200, 200),
    "GET /v1/jobs/{id}/errors": (200, 409),
    "GET /v1/jobs/{id}/results": (200, 409),
    "GET /v1/jobs/{id}/manifest": (200, 409),
    "POST /v1/jobs/{id}:cancel": (409, AWAY),
    "POST /v1/jobs/{id}:pause": (409, AWAY),
    "POST /v1/jobs/{id}:continue": (409, AWAY),
    "POST /v1/jobs/{id}:resume": (409, AWAY),
    "POST /v1/jobs/{id}:retry": (AWAY, AWAY),
}
#: Each of the others, with its answer.
OTHERS: dict[str, int] = {
    "GET /v1/jobs": 200,
    "POST /v1/jobs": AWAY,
    "POST /v1/jobs:plan": AWAY,
    "GET /v1/tasks": 200,
    "GET /v1/tasks/{id}": 200,
    "GET /v1/workers": AWAY,
    "GET /v1/schedules": 200,
    "POST /v1/schedules": 400,
    "GET /v1/schedules/{name}": 404,
    "DELETE /v1/schedules/{name}": AWAY,
    "GET /v1/schedules/{name}/next": 404,
    "GET /v1/schedules/{name}/runs": 404,
    "POST /v1/schedules/{name}:pause": AWAY,
    "POST /v1/schedules/{name}:resume": AWAY,
    "POST /v1/schedules/{name}:run-now": 404,
    "GET /healthz": 200,
    "GET /readyz": 200,
    "GET /metrics": 200,
}


def test_every_route_while_redis_is_away(settings: Settings, classifier: Path, tmp_path: Path) -> None:
    texts: list[Any] = sentences(20)
    texts[3] = None
    file = str(write_reviews(tmp_path / "in.parquet", texts))
    house = House(settings)
    jobs = [house.submit(spec_for(classifier, file, str(tmp_path / name))) for name in ("ended", "waiting")]
    for job in jobs:
        assert house.plan(job) == 1
    house.attempt(jobs[0], 0)
    house.finish(jobs[0])
    ended, waiting = (job.id for job in jobs)
    expected = {
        route.replace("{id}", id): status
        for route, statuses in ROUTES.items()
        for id, status in zip((ended, waiting), statuses, strict=True)
    } | {route.replace("{id}", "ner").replace("{name}", "nightly"): status for route, status in OTHERS.items()}
    headers = new_token("tests", "--inputs", "*", "--outputs", "*", "--scopes", "submit,read,admin")
    nowhere = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    with (
        server(tmp_path / "api.log", NIGHTSHIFT_ALLOW_FILES="true", NIGHTSHIFT_REDIS_URL=nowhere) as url,
        httpx2.Client(base_url=url, headers=headers, timeout=60) as http,
    ):
        new = spec(classifier, file, tmp_path / "new")

        def ask(route: str) -> tuple[httpx2.Response, Any]:
            method, path = route.split()
            body = new if route in ("POST /v1/jobs", "POST /v1/jobs:plan") else None
            with http.stream(method, path, json=body) as answer:
                if answer.status_code == 200 and path.endswith("/events"):  # of a job that goes on, it goes on too
                    return answer, next(sse(answer))
                answer.read()
            return answer, answer.json() if "json" in answer.headers["content-type"] else answer.text

        document = http.get("/openapi.json").json()
        listed = {f"{method.upper()} {path}" for path, found in document["paths"].items() for method in found}
        assert listed == ROUTES.keys() | OTHERS.keys(), "each route has its answer here"
        with ThreadPoolExecutor(8) as pool:
            answers = dict(zip(expected, pool.map(ask, expected), strict=True))
    assert {route: answer.status_code for route, (answer, _) in answers.items()} == expected
    for answer, said in answers.values():
        if answer.status_code == AWAY:
            assert (said["code"], answer.headers["retry-after"]) == ("service_unavailable", "5")
            assert "Redis at 127.0.0.1:" in said["detail"]
    said = {route: said for route, (_, said) in answers.items()}
    assert [said[f"GET /v1/jobs/{id}"]["status"] for id in (ended, waiting)] == ["succeeded", "unknown"]
    assert [one["status"] for one in said["GET /v1/jobs"]["jobs"]] == ["unknown", "succeeded"]
    assert [said[f"GET /v1/jobs/{id}/events"][0] for id in (ended, waiting)] == ["end", "progress"]
    assert [said[f"GET /v1/jobs/{id}/shards"]["shards"][0]["status"] for id in (ended, waiting)] == ["done", "unknown"]
    assert (len(said[f"GET /v1/jobs/{ended}/results"]["rows"]), said[f"GET /v1/jobs/{ended}/errors"]["errors"]) == (
        20,
        {"null_input": 1},
    )
    assert said["GET /readyz"] == {"status": "ready", "redis": "away"}
    assert "nightshift_redis_up 0.0" in said["GET /metrics"]
    assert not (tmp_path / "new").exists(), "nothing is written for a job that nobody can be told of"

"""Schedules, for the Python client: `client.schedules.add(…)`, `client.schedules.history("nightly-reviews")`."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote


class Schedules:
    """The schedules that a client's token may see. Schedules and runs are dicts, as the API answers them."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def add(self, schedule: Mapping[str, Any], *, replace: bool = False) -> dict[str, Any]:
        """Add a schedule: a name, `cron`, `time_zone`, `spec` and policies. Raises SpecError, Conflict if another one
        has the name and isn't to be replaced."""
        params = {"replace": "true"} if replace else {}
        return self._answer("POST", "/v1/schedules", json=json.loads(json.dumps(schedule)), params=params)

    def all(self) -> Iterator[dict[str, Any]]:
        """All schedules, by name."""
        return self._pages("/v1/schedules", "schedules")

    def show(self, name: str) -> dict[str, Any]:
        """A schedule with its template. Raises NotFound."""
        return self._answer("GET", _path(name))

    def pause(self, name: str) -> dict[str, Any]:
        """Fire a schedule no more until it is resumed."""
        return self._answer("POST", f"{_path(name)}:pause")

    def resume(self, name: str) -> dict[str, Any]:
        """Let a paused schedule go on, from its next due time."""
        return self._answer("POST", f"{_path(name)}:resume")

    def remove(self, name: str) -> dict[str, Any]:
        """Remove a schedule. Its history stays."""
        return self._answer("DELETE", _path(name))

    def run_now(self, name: str, due: str | None = None) -> dict[str, Any]:
        """Run a schedule by hand, for now or for a time such as `2026-11-20T03:15`; the run, with its job's id."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        body = {} if due is None else {"due": due}
        return self._answer("POST", f"{_path(name)}:run-now", json=body, headers=headers)

    def history(self, name: str) -> Iterator[dict[str, Any]]:
        """What became of a schedule's runs, newest first."""
        return self._pages(f"{_path(name)}/runs", "runs")

    def next(self, name: str, count: int = 5) -> list[dict[str, Any]]:
        """The next due times, with what their runs will read and write."""
        found: list[dict[str, Any]] = self._answer("GET", f"{_path(name)}/next", params={"count": count})["runs"]
        return found

    def _answer(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(method, path, **more)
        return found

    def _pages(self, path: str, kind: str) -> Iterator[dict[str, Any]]:
        params: dict[str, str] = {}
        while True:
            page = self._ask("GET", path, params=params)
            yield from page[kind]
            if page["next"] is None:
                return
            params["cursor"] = page["next"]


def _path(name: str) -> str:
    return f"/v1/schedules/{quote(name, safe='')}"

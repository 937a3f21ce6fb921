"""The HTTP API: how soon a server answers after its start, and how long 200 clients at once wait that submit and poll.

Real server processes with a real Redis and no worker: what is measured is the API alone, its storage a folder here.
Each client has a connection of its own: a pool of 200 took more of the client's time than all the server did.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

import httpx2
import psutil

from benchmarks.inputs import TINY, make_model
from jobs.api.tokens import Scope, Tokens
from tests.acceptance.api import server
from tests.integration.harness import write_reviews
from tests.servers import redis_at

CLIENTS = 200
SUBMISSIONS = 2
POLLS = 10
STARTS = 5
#: Requests of a kind, one after the other, that its CPU time is taken of.
ALONE = 200

SUBMIT = "POST /v1/jobs"
LOOK = "GET /v1/jobs/{id}"


def main() -> bool:
    """Whether every request was answered as it should be."""
    with tempfile.TemporaryDirectory(prefix="nightshift-api-") as name:
        folder = Path(name)
        secret = Tokens(folder / "home" / "tokens.json").new(
            "bench", [Scope.SUBMIT, Scope.READ], ["*"], ["*"], requests_per_s=1e6
        )[1]
        env = {"NIGHTSHIFT_HOME": str(folder / "home"), "NIGHTSHIFT_ALLOW_FILES": "true", "HF_HUB_OFFLINE": "1"}
        with redis_at(folder) as url, patch.dict(os.environ, env | {"NIGHTSHIFT_REDIS_URL": url}):
            _starts(folder)
            with server(folder / "api.log", NIGHTSHIFT_LOG_LEVEL="warning") as base:
                return asyncio.run(_Load(base, secret, folder).run())


def _starts(folder: Path) -> None:
    """Turn by turn: the server until it is ready, its imports alone, and those of what it is built on."""
    imports = {
        "importing the server": "import jobs.cli.api, jobs.api.serve",
        "importing fastapi and uvicorn": "import fastapi, uvicorn",
    }
    ready = "the server, until /readyz answers 200"
    seconds: dict[str, list[float]] = {name: [] for name in (ready, *imports)}
    for _ in range(STARTS):
        begun = time.perf_counter()
        with server(folder / "start.log") as base:
            httpx2.get(f"{base}/readyz", verify=False).raise_for_status()
            seconds[ready].append(time.perf_counter() - begun)
        for name, code in imports.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - begun)
    print(f"\nStarts, of {STARTS} each the median and the fastest")
    for name, times in seconds.items():
        print(f"  {name:<40}{median(times):>6.2f} s{min(times):>7.2f} s")


class _Load:
    """Requests to one server, and how long each took."""

    def __init__(self, base: str, secret: str, folder: Path) -> None:
        # No TLS here: the certificates that `verify` reads for each client would take longer than the requests.
        self._options: dict[str, Any] = {"base_url": base, "timeout": 120, "verify": False}
        self._options["headers"] = {"Authorization": f"Bearer {secret}"}
        self._folder = folder
        self._model = make_model(folder / "model", TINY)
        self._table = write_reviews(folder / "in.parquet", ["a text"] * 10)
        self._seconds: dict[str, list[float]] = {SUBMIT: [], LOOK: []}
        self._wrong: list[str] = []
        (self._server,) = [p for p in psutil.Process().children() if {"nightshift", "api"} <= set(p.cmdline())]

    async def run(self) -> bool:
        print(f"\nThe API, {CLIENTS} clients at once, no pause between a client's requests")
        before, begun = self._cpu(), time.perf_counter()
        await asyncio.gather(*(self._client(f"client-{n}", SUBMISSIONS, POLLS) for n in range(CLIENTS)))
        took, cpu = time.perf_counter() - begun, self._cpu() - before
        for kind, times in self._seconds.items():
            cuts = quantiles(times, n=100)
            print(f"  {kind:<20}{len(times):>6} requests  p50 {cuts[49] * 1000:,.0f} ms  p95 {cuts[94] * 1000:,.0f} ms")
        count = sum(map(len, self._seconds.values()))
        print(
            f"  {count / took:,.0f} requests/s in all, {len(self._wrong)} errors; server CPU {cpu / took:.0%} of a core"
        )
        before = self._cpu()
        await self._client("alone", ALONE, 0)
        submitted = self._cpu()
        await self._client("polling", 1, ALONE * 10)
        print(f"  CPU of the server, one client alone: {SUBMIT} {(submitted - before) / ALONE * 1000:.1f} ms", end="")
        print(f", {LOOK} {(self._cpu() - submitted) / (ALONE * 10) * 1000:.1f} ms")
        for line in self._wrong[:5]:
            print(f"  {line}")
        return not self._wrong

    def _cpu(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system)

    async def _client(self, name: str, submissions: int, polls: int) -> None:
        async with httpx2.AsyncClient(**self._options) as http:
            for number in range(submissions):
                spec = {
                    "task": "text-classification",
                    "model": str(self._model),
                    "input": {"uri": str(self._table), "columns": {"text": "review"}},
                    "output": {"uri": str(self._folder / "out" / f"{name}-{number}")},
                }
                answer = await self._ask(http, SUBMIT, "POST", "/v1/jobs", 202, spec)
                for _ in range(polls if answer.status_code == 202 else 0):
                    await self._ask(http, LOOK, "GET", f"/v1/jobs/{answer.json()['id']}", 200)

    async def _ask(
        self, http: httpx2.AsyncClient, kind: str, method: str, path: str, status: int, body: object = None
    ) -> httpx2.Response:
        begun = time.perf_counter()
        answer = await http.request(method, path, json=body)
        self._seconds[kind].append(time.perf_counter() - begun)
        if answer.status_code != status:
            self._wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

"""The HTTP API under 200 clients at once, each submitting jobs and polling them: p50 and p95 of both, and errors.

A real server process with a real Redis and no worker: what is measured is the API alone, its storage a folder here.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from unittest.mock import patch

import httpx

from benchmarks.material import TINY, make_model
from jobs.tokens import Scope, Tokens
from tests.acceptance.api import server
from tests.integration.harness import write_reviews
from tests.servers import redis_at

CLIENTS = 200
SUBMISSIONS = 2
POLLS = 10


def main() -> bool:
    """Whether every request was answered as it should be."""
    with tempfile.TemporaryDirectory(prefix="nightshift-api-") as name:
        folder = Path(name)
        model = make_model(folder / "model", TINY)
        table = write_reviews(folder / "in.parquet", ["a text"] * 10)
        secret = Tokens(folder / "home" / "tokens.json").new(
            "bench", [Scope.SUBMIT, Scope.READ], ["*"], ["*"], requests_per_s=1e6
        )[1]
        env = {"NIGHTSHIFT_HOME": str(folder / "home"), "NIGHTSHIFT_ALLOW_FILES": "true", "HF_HUB_OFFLINE": "1"}
        with (
            redis_at(folder) as url,
            patch.dict(os.environ, env | {"NIGHTSHIFT_REDIS_URL": url}),
            server(folder / "api.log", NIGHTSHIFT_LOG_LEVEL="warning") as base,
        ):
            return asyncio.run(_all(base, secret, folder, model, table))


async def _all(base: str, secret: str, folder: Path, model: Path, table: Path) -> bool:
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    headers = {"Authorization": f"Bearer {secret}"}
    seconds: dict[str, list[float]] = {"POST /v1/jobs": [], "GET /v1/jobs/{id}": []}
    wrong: list[str] = []

    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=120, limits=limits) as http:

        async def ask(kind: str, method: str, path: str, status: int, body: object = None) -> httpx.Response:
            begun = time.perf_counter()
            answer = await http.request(method, path, json=body)
            seconds[kind].append(time.perf_counter() - begun)
            if answer.status_code != status:
                wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            return answer

        async def client(number: int) -> None:
            for one in range(SUBMISSIONS):
                spec = {
                    "task": "text-classification",
                    "model": str(model),
                    "input": {"uri": str(table), "columns": {"text": "review"}},
                    "output": {"uri": str(folder / "out" / f"{number}-{one}")},
                }
                answer = await ask("POST /v1/jobs", "POST", "/v1/jobs", 202, spec)
                for _ in range(POLLS if answer.status_code == 202 else 0):
                    await ask("GET /v1/jobs/{id}", "GET", f"/v1/jobs/{answer.json()['id']}", 200)

        begun = time.perf_counter()
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        took = time.perf_counter() - begun
    print(f"\nThe API, {CLIENTS} clients at once, no pause between a client's requests")
    for kind, times in seconds.items():
        cuts = quantiles(times, n=100)
        print(f"  {kind:<20}{len(times):>6} requests  p50 {cuts[49] * 1000:,.0f} ms  p95 {cuts[94] * 1000:,.0f} ms")
    print(f"  {sum(map(len, seconds.values())) / took:,.0f} requests/s in all, {len(wrong)} errors")
    for line in wrong[:5]:
        print(f"  {line}")
    return not wrong

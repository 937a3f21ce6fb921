"""The HTTP API as a user meets it: a server process of its own, asked over the network."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.acceptance.cli import NIGHTSHIFT, environment, nightshift
from tests.servers import free_ports, running, wait_for


def secret_of(token: str) -> str:
    """The secret part of a token, or of the header that has it: what comes after its id, and may have a `_` in it."""
    return token.split("_", 2)[2]


@contextmanager
def server(log: Path, *arguments: str, cwd: Path | None = None, **env: str) -> Iterator[str]:
    """The URL of a `nightshift api` that answers."""
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    command = [*NIGHTSHIFT, "api", "--port", str(port), *arguments]
    with running(command, environment(**env), log, cwd) as process, httpx2.Client(base_url=url) as http:

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return http.get("/healthz").status_code == 200
            except httpx2.TransportError:
                return False

        wait_for("the API answers", up, every_s=0.02)
        yield url


def new_token(tenant: str, *arguments: str) -> dict[str, str]:
    """The headers of a new token's user."""
    done = nightshift("token", "new", "--tenant", tenant, *arguments, "--json")
    assert done.code == 0, done
    return {"Authorization": f"Bearer {done.json['token']}"}


def sse(response: httpx2.Response) -> Iterator[tuple[str, Any]]:
    """The events of a stream, with their data."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))

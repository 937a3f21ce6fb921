"""Where a deployment could let a secret out, watched while it runs: Redis, processes' arguments, HTTP's other sides."""

import json
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import psutil
import redis

from tests.acceptance.leaks import Search

COMMIT = "a" * 40


@contextmanager
def commands_of_redis(url: str, file: Path) -> Iterator[None]:
    """Every command that Redis gets, as its MONITOR tells them, is written to the file."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port)) as connection, file.open("wb", buffering=0) as out:
        connection.sendall(f"AUTH {unquote(parts.password or '')}\r\nMONITOR\r\n".encode())

        def read() -> None:
            with suppress(OSError):
                while data := connection.recv(1 << 16):
                    out.write(data)

        thread = threading.Thread(target=read, name="monitor")
        thread.start()
        try:
            yield
        finally:
            with suppress(OSError):  # Redis may have gone first
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()


def all_of_redis(url: str) -> str:
    """Every key and all that is in it."""
    read = {"string": "get", "hash": "hgetall", "set": "smembers"}
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="surrogateescape") as client:

        def value(key: str) -> Any:
            kind = client.type(key)
            if kind == "list":
                return client.lrange(key, 0, -1)
            return client.zrange(key, 0, -1) if kind == "zset" else kind in read and getattr(client, read[kind])(key)

        return "\n".join(f"{key} {value(key)}" for key in client.scan_iter())


@contextmanager
def arguments_of_processes() -> Iterator[set[str]]:
    """The arguments of every process that this one starts, and that those start, while the context lasts."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.3):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    seen.add(" ".join(child.cmdline()))

    thread = threading.Thread(target=look, name="processes")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@dataclass
class OtherSide:
    """A server that gets webhooks, and stands for the hub: a model `org/model` that it shows until it `refuses`."""

    files: dict[str, bytes]
    url: str = ""
    refuses: bool = False
    webhooks: list[str] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)


class _Handler(BaseHTTPRequestHandler):
    side: OtherSide

    def log_message(self, format: str, *args: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.side.webhooks.append(f"{self.headers}\n{body.decode()}")
        self._answer(200, b"")

    def do_GET(self) -> None:
        self.side.authorizations.add(self.headers.get("Authorization", ""))
        path = self.path.partition("?")[0]
        if self.side.refuses or "private" in path:
            self._answer(401, b'{"error": "Invalid credentials in Authorization header"}')
        elif path.startswith("/api/models/org/model"):
            siblings = [{"rfilename": name} for name in self.side.files]
            self._answer(200, json.dumps({"id": "org/model", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            content = self.side.files.get(path.rpartition("/")[2])
            self._answer(404 if content is None else 200, content or b"")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), ("ETag", '"1"'), ("X-Repo-Commit", COMMIT)):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def other_side(model: Path) -> Iterator[OtherSide]:
    """The server, with this folder's files as the hub's model."""
    side = OtherSide({path.name: path.read_bytes() for path in model.iterdir()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"side": side}))
    side.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="other-side")
    thread.start()
    try:
        yield side
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Asked:
    """Requests to the API: each answer, with its headers, is searched."""

    def __init__(self, url: str, tokens: dict[str, str], search: Search) -> None:
        self._tokens = tokens
        self._search = search
        self._http = httpx2.Client(base_url=url, timeout=120, event_hooks={"response": [self._read]})

    def _read(self, answer: httpx2.Response) -> None:
        said = f"{answer.status_code} {answer.headers.raw}\n".encode() + answer.read()
        self._search.add(f"answer: {answer.request.method} {answer.request.url.path}", said)
        self._search.add(f"answer: {answer.request.method} {answer.request.url.path}", answer.content)

    def __call__(self, method: str, path: str, token: str | None = "search", **more: Any) -> httpx2.Response:
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {self._tokens[token]}"} if token else {})
        return self._http.request(method, path, headers=headers, **more)

    def job(self, body: dict[str, Any]) -> str:
        answer = self("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": secrets.token_hex(8)})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def ended(self, job: str) -> dict[str, Any]:
        """The job, once it has ended."""
        assert "event: end" in self("GET", f"/v1/jobs/{job}/events").text
        found: dict[str, Any] = self("GET", f"/v1/jobs/{job}").json()
        return found

    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

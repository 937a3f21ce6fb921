"""The client against a server that misbehaves: busy, away, breaking off, and not ours."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.client import ARROW, ApiError, Client, Conflict, RateLimited
from schemas.errors import Forbidden, NotFound, ServiceUnavailable, SpecError, Unauthenticated
from tests.servers import free_ports

Answer = tuple[int, dict[str, str], bytes]


class Odd(ThreadingHTTPServer):
    """Answers what it was told to, in turn, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, dict[str, str]]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Odd

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.path, dict(self.headers)))
        status, headers, body = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def odd() -> Iterator[Odd]:
    with Odd(free_ports(1)[0]) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(server: Odd) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def problem(status: int, *fields: str, **headers: str) -> Answer:
    errors = [{"field": name, "message": "wrong"} for name in fields]
    return status, headers, json.dumps({"code": "c", "detail": "what", "errors": errors}).encode()


def job(status: str) -> Answer:
    end = {"errors": {}, "records": 3} if status == "succeeded" else None
    data = {"id": "j", "status": status, "output": "o", "end": end, "progress": None, "error": None}
    return 200, {}, json.dumps(data).encode()


def test_what_may_pass_is_asked_again_with_the_same_key(odd: Odd) -> None:
    odd.answers = [problem(503, **{"Retry-After": "0"}), problem(429, **{"Retry-After": "0"}), job("planning")]
    with Client(url_of(odd), "t0ken") as client:
        assert client.submit({"task": "x"}).status == "planning"
    keys = {headers["Idempotency-Key"] for _, headers in odd.asked}
    assert (len(odd.asked), len(keys)) == (3, 1)
    assert {headers["Authorization"] for _, headers in odd.asked} == {"Bearer t0ken"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthenticated), (403, Forbidden), (404, NotFound), (409, Conflict), (422, SpecError), (500, ApiError)],
)
def test_errors_have_types(odd: Odd, status: int, kind: type[Exception]) -> None:
    odd.answers = [problem(status, "input.uri")]
    with Client(url_of(odd)) as client, pytest.raises(kind) as caught:
        client.job("j")
    assert len(odd.asked) == 1, "what won't pass is not asked again"
    if isinstance(caught.value, SpecError):
        assert caught.value.problems[0].field == "input.uri"


def test_it_gives_up(odd: Odd) -> None:
    odd.answers = [problem(503, **{"Retry-After": "0"})] * 3 + [problem(429, **{"Retry-After": "3600"})]
    with Client(url_of(odd), tries=3) as client:
        with pytest.raises(ServiceUnavailable):
            client.job("j")
        with pytest.raises(RateLimited):
            client.job("j")
    with Client(f"http://127.0.0.1:{free_ports(1)[0]}", tries=2) as nobody, pytest.raises(ServiceUnavailable):
        nobody.job("j")


def test_a_proxys_answer_is_an_error_too(odd: Odd) -> None:
    odd.answers = [(418, {}, b"<html>teapot</html>")]
    with Client(url_of(odd)) as client, pytest.raises(ApiError, match="teapot"):
        client.job("j")


def test_it_waits_until_the_job_has_ended(odd: Odd, capsys: pytest.CaptureFixture[str]) -> None:
    odd.answers = [job("planning"), job("running"), job("succeeded")]
    with Client(url_of(odd)) as client:
        assert client.wait("j", progress=True, every_s=0.01).records == 3
        odd.answers = [job("running")] * 100
        with pytest.raises(TimeoutError):
            client.wait("j", timeout_s=0.05, every_s=0.01)
    said = capsys.readouterr().err.rpartition("\r")[2]
    assert "j succeeded" in said
    assert "3/3" in said


def stream_of(change: Callable[[bytes], bytes]) -> Answer:
    sink = io.BytesIO()
    batch = pa.record_batch({"id": pa.array(range(1000)), "word": pa.array(["a"] * 1000).dictionary_encode()})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(3):
            writer.write_batch(batch)
    whole = sink.getvalue()
    return 200, {"Content-Type": ARROW, "Content-Length": str(len(whole))}, change(whole)


def test_results_that_break_off_are_an_error_and_never_a_short_table(odd: Odd, tmp_path: Path) -> None:
    odd.answers = [stream_of(lambda data: data)] * 2 + [stream_of(lambda data: data[: len(data) // 2])]
    with Client(url_of(odd)) as client:
        assert client.results("j").num_rows == 3000
        assert client.dataset("j", tmp_path / "copy").count_rows() == 3000
        with pytest.raises(ServiceUnavailable, match="broke off"):
            client.results("j")

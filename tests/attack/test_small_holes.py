"""What is said to whom, and what is let in: the small holes."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.storage import Storage
from jobs.webhooks import ssrf_safe_post
from schemas.errors import Permanent, SpecError
from schemas.job import parse_spec
from tests.acceptance.api import server
from tests.attack.conftest import BUCKET, Scene


@pytest.mark.parametrize("place", ["/proc/self/exe", ".", "~", "file:///proc/self/cwd"])
def test_a_refusal_quotes_what_was_sent(scene: Scene, place: str) -> None:
    for change in ({"input": {"uri": place}}, {"output": {"uri": place}}, {"model": place}):
        answer = scene.hostile.http.post("/v1/jobs", json=scene.hostile.spec("x/") | change)
        assert answer.status_code == 422
        for path in ("python", "/root", "/tmp", "/work", "/home"):
            assert path not in answer.text, answer.text


def test_readiness_says_nothing_of_the_store(scene: Scene, tmp_path: Path) -> None:
    """Least of all while the catalog can't be read; and it isn't listed once for each who asks."""
    with server(tmp_path / "api.log", NIGHTSHIFT_CATALOG="s3://no-such-bucket/catalog/") as url:
        for _ in range(3):
            answer = httpx2.get(f"{url}/readyz")
            assert answer.status_code == 503
            assert "no-such-bucket" not in answer.text
    assert (tmp_path / "api.log").read_text().count("event=not_ready") == 1


@pytest.mark.parametrize("host", ["[fec0::1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[::]", "[64:ff9b::7f00:1]"])
def test_addresses_that_are_not_public(host: str) -> None:
    with pytest.raises(Permanent, match="no public address"):
        ssrf_safe_post.check_literal(host, [])


def test_a_zero_byte_in_a_uri(scene: Scene) -> None:
    odd = scene.hostile.uri("a\0b")
    for change in ({"input": {"uri": odd}}, {"output": {"uri": f"{odd}/"}}, {"model": odd}):
        answer = scene.hostile.http.post("/v1/jobs", json=scene.hostile.spec("x/") | change)
        assert answer.status_code == 422, answer.text


def test_a_body_that_ends_early_is_no_crash(scene: Scene) -> None:
    url = httpx2.URL(str(scene.honest.http.base_url))
    assert url.port is not None
    head = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    head += f"Authorization: {scene.hostile.http.headers['Authorization']}\r\n\r\n{{"
    for _ in range(5):
        with socket.create_connection((url.host, url.port)) as some:
            some.sendall(head.encode())
    assert scene.hostile.http.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {f"label-{n}": "x" for n in range(100)}},
        {"labels": {"a": "x" * 100_000}},
        {"params": {"top_k": 10**9}},
        {"batch_size": 10**30},
        {"shard": {"rows": 10**30}},
    ],
)
def test_numbers_and_labels_have_limits(change: dict[str, Any]) -> None:
    spec = {"task": "text-classification", "model": "m", "input": {"uri": "a"}, "output": {"uri": "b"}}
    with pytest.raises(SpecError):
        parse_spec(spec | change)


def test_a_long_text_is_masked_in_little_time(scene: Scene) -> None:
    """1 MB of `://a:` cost 9 s."""
    text = "://a:" * 100_000 + "@"
    with scene.honest_at_work() as waits:
        for field in ("model", "task"):
            answer = scene.hostile.http.post("/v1/jobs", json=scene.hostile.spec("x/") | {field: text})
            assert answer.status_code == 422
    waits.check()


def test_the_key_of_a_webhook_is_in_no_idempotency_key(scene: Scene, storage: Storage) -> None:
    spec = scene.hostile.spec("keyed/") | {"notify": "https://example.com/hook?key=a-secret-of-theirs"}
    answer = scene.hostile.http.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202, answer.text
    ended = scene.hostile.ends(answer.json()["id"])
    assert "a-secret-of-theirs" not in json.dumps(ended)
    for place in (scene.hostile.uri("keyed/"), f"s3://{BUCKET}/_catalog/keys/"):
        found = [info.uri for info in storage.list(place)]
        assert found
        for uri in found:
            assert b"a-secret-of-theirs" not in storage.read(uri), uri

"""Fixtures: servers started once a session, checkpoints built once a session, clean settings for each test."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis

from jobs.settings import Settings
from jobs.state import State
from tests.checkpoints import make_classifier
from tests.servers import S3_ENV, redis_at, s3_client, seaweedfs

os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny models: more threads would only wait for each other.
torch.set_num_threads(1)
# How long an example takes says how busy the machine is: by default 0.2 s would fail the test.
# The same examples each time, but for those who look for more: a chance find would fail the change at hand.
hypothesis.register_profile(
    "untimed",
    hypothesis(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="FUZZ" not in os.environ,
)
hypothesis.load_profile("untimed")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of whoever runs the tests reaches them, and none of theirs the tests that come after."""
    for name in [name for name in os.environ if name.startswith(("NIGHTSHIFT_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    yield
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN, "a client that hangs up would end this process"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a process that ran tests came to its end."""
    if error is not None:
        print(f"{node.gateway.id} ended with status {node.gateway._io.popen.wait(10)}", file=sys.__stderr__)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("s3") / "data"
    folder.mkdir()
    with seaweedfs(folder) as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty bucket; this process and those it starts use it through AWS's own environment."""
    for name, value in (S3_ENV | {"AWS_ENDPOINT_URL_S3": s3_endpoint}).items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{secrets.token_hex(6)}"
    s3_client(s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded run's Redis, or the server that the test asks for."""
    with redis_at(tmp_path_factory.mktemp("redis"), server=getattr(request, "param", None)) as url:
        yield url


@pytest.fixture
def settings(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a deployment with an empty Redis. Workers look after their jobs often, and keep leases for long."""
    redis.Redis.from_url(redis_url).flushall()
    values = {"REDIS_URL": redis_url, "LEASE_S": "20", "RENEW_S": "0.5", "SWEEP_S": "0.3", "GRACE_S": "20"}
    for name, value in values.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    return Settings.read()


@pytest.fixture
def state(settings: Settings) -> State:
    return State(settings)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier."""
    return make_classifier(tmp_path_factory.mktemp("bert"))

"""A Redis that is there and can't serve now, since it is full, a replica, or busy, is one that is away for a moment."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from jobs.settings import Settings
from jobs.state import State
from schemas.errors import ServiceUnavailable

TASK = "text-classification"


@contextmanager
def full(server: Any) -> Iterator[None]:
    server.config_set("maxmemory", "1")
    try:
        yield
    finally:
        server.config_set("maxmemory", "0")


@contextmanager
def a_replica(server: Any) -> Iterator[None]:
    server.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        server.replicaof("NO", "ONE")


@contextmanager
def busy(server: Any) -> Iterator[None]:
    server.config_set("lua-time-limit", "20")
    runs = threading.Thread(target=_runs_for_ever, args=(server,))
    runs.start()
    while True:
        try:
            server.ping()
        except redis.ResponseError:
            break
    try:
        yield
    finally:
        server.script_kill()
        runs.join()
        server.config_set("lua-time-limit", "5000")


def _runs_for_ever(server: Any) -> None:
    with pytest.raises(redis.ResponseError):
        server.eval("while true do end", 0)


@pytest.mark.parametrize("such", [full, a_replica, busy])
def test_it_is_away_for_a_moment(state: State, settings: Settings, such: Callable[[Any], Any]) -> None:
    assert settings.redis_url is not None
    state.jobs.add("job", TASK, "/out/", 5, 1.0)
    state.jobs.start("job", 3, 3, None, [], 0, {})
    server: Any = redis.Redis.from_url(settings.redis_url.get_secret_value())
    calls: list[Callable[[], object]] = [
        lambda: state.locks.take("a lock", "me", 5),
        lambda: state.webhooks.add("job", "/out/"),
    ]
    if such is not full:  # which lets a script go on that began by deleting something
        calls.append(lambda: state.jobs.add("another", TASK, "/out2/", 5, 1.0))
        calls.append(lambda: state.shards.take({TASK}, [], "a1"))
    with such(server):
        for call in calls:
            with pytest.raises(ServiceUnavailable):
                call()
    for call in calls:
        call()
    server.close()

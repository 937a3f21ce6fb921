"""A Celery process of a supervisor, as it is told to stop."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from jobs.broker import CONTROL_QUEUE
from jobs.settings import Settings
from tests.servers import running, wait_for

ROUNDS = 3


def test_many_signals_at_once_end_it(settings: Settings, tmp_path: Path) -> None:
    """Celery's own handler waits for itself if it is interrupted by the same signal."""
    command = [sys.executable, "-m", "jobs.supervisor.celery_worker", "jobs.control.celery_app", "one", CONTROL_QUEUE]
    assert settings.redis_url is not None
    server: Any = redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
    for number in range(ROUNDS):
        log = tmp_path / f"{number}.log"
        with running(command, settings.environment(os.environ), log) as process:
            wait_for("it serves", lambda: "brpop" in {client["cmd"] for client in server.client_list()}, 60)
            for _ in range(2000):
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
                time.sleep(0.00005)
            assert process.wait(60) == 0
    server.close()

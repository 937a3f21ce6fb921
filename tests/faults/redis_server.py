"""A Redis that can be killed and started again, on the same port, with its data or without."""

import os
import subprocess
from pathlib import Path
from types import TracebackType

import redis

from jobs.supervisor.embedded import redis_server
from tests.servers import free_ports, redis_client, wait_for


class RedisServer:
    """`persistent` Redis writes each change to disk before it answers. Runs for as long as the context lasts."""

    def __init__(self, folder: Path, persistent: bool = False) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self._persistent = persistent
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis_client(self.port, decode_responses=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        append = ["--appendonly", "yes", "--appendfsync", "always"] if self._persistent else []
        command = [str(redis_server()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *append]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._folder)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ
            )
        wait_for("Redis answers", self._up)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "redis.log").read_text()
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.client.close()

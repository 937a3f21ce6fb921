"""How does the API's server run? On a deployment, or with Redis and a worker of its own."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from jobs.api.app import make_app
from jobs.api.auth import Authenticator
from jobs.api.connection import LimitedProtocol
from jobs.api.service import Service
from jobs.api.tokens import Tokens
from jobs.broker import Broker
from jobs.broker import make_app as make_celery
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.supervisor.embedded import embedded
from schemas.errors import ServiceUnavailable
from schemas.extras import installed_groups

#: Seconds that requests under way have when the server stops.
_GRACE_S = 10
#: Seconds that a connection may rest: longer than clients and proxies keep one (most a minute), since a request sent on
#: one that the server closes in that moment gets no answer.
_KEEP_ALIVE_S = 75
#: Seconds that a thread may go on running Python while others wait to: Python's own 5 ms is what each of a submission's
#: hundred reads and writes would wait for, while the event loop has requests to answer.
_SWITCH_S = 0.0005


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raise SpecError if the server needs tokens and no token works, ServiceUnavailable if its own Redis or worker has
    died.
    """
    authenticator = Authenticator(settings, Tokens(settings.tokens_path), host)
    authenticator.check_start()
    if settings.redis_url is not None and "allow_files" not in settings.model_fields_set:
        # The files of this machine are no inputs unless the settings say so.
        settings = settings.model_copy(update={"allow_files": False})
    sys.setswitchinterval(_SWITCH_S)
    with _deployment(settings) as (own, alive):
        service = Service(settings, State(own), Broker(make_celery(own, "api")), Storage(), authenticator)
        server = _Server(make_app(service), host, port, settings.max_connections)
        watcher = _Watcher(alive, server)
        watcher.start()
        try:
            server.run()
        finally:
            watcher.stop()
        if watcher.error is not None:
            raise watcher.error


@contextmanager
def _deployment(settings: Settings) -> Iterator[tuple[Settings, Callable[[], None]]]:
    if settings.redis_url is not None:
        yield settings, lambda: None
        return
    with embedded(settings, installed_groups(), None, "api-worker.log") as (own, alive):
        yield own, alive


class _Server(uvicorn.Server):
    """Ends the event streams when it is told to stop: they would hold it up until its grace is over."""

    def __init__(self, app: FastAPI, host: str, port: int, max_connections: int) -> None:
        config = uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, server_header=False, ws="none",
            http=LimitedProtocol, limit_concurrency=max_connections, backlog=2048, timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )  # fmt: skip
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.end()
        super().handle_exit(sig, frame)

    def end(self) -> None:
        loop = getattr(self._app.state, "loop", None)
        if loop is not None:
            loop.call_soon_threadsafe(self._app.state.shutdown.set)
        self.should_exit = True


class _Watcher(threading.Thread):
    """Ends the server if the Redis or the worker that it started has died."""

    def __init__(self, alive: Callable[[], None], server: _Server) -> None:
        super().__init__(name="watcher", daemon=True)
        self.error: ServiceUnavailable | None = None
        self._alive = alive
        self._server = server
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(1):
            try:
                self._alive()
            except ServiceUnavailable as error:
                self.error = error
                self._server.end()
                return

    def stop(self) -> None:
        self._stopping.set()
        self.join()

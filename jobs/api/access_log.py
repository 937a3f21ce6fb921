"""What is noted of each request? An id, which the answer and the log line have; counts; seconds."""

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.api.metrics import Metrics
from jobs.logs import event

_log = logging.getLogger(__name__)
#: Methods that are counted by their own name. Others could make any number of counters.
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_ID = re.compile(r"[\w.-]{1,100}")


class AccessLog:
    """A wrapper around the application. Queries and headers aren't logged: there may be secrets in them."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500
        id = _request_id(scope)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.monotonic() - begun
            self._metrics.requests.labels(method, route, str(status)).inc()
            if not route.endswith("/events"):
                self._metrics.seconds.labels(method, route).observe(seconds)
            event(_log, "request", request=id, method=method, path=scope["path"], status=status, seconds=seconds)


def _request_id(scope: Scope) -> str:
    """Return the caller's own id if it is a plain one, or else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return secrets.token_hex(8)

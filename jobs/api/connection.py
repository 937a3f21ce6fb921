"""How long may a client take? A connection that sends half a request, and then nothing, is closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds that the headers of a request may take, and its body, which is small.
LIMITS_S = {"headers": 15.0, "body": 60.0}
_TICK_S = 1.0


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which alone waits for ever for the rest of a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._last: tuple[str, object] = ("", None)
        self._since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._tick()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _tick(self) -> None:
        now, state = self.loop.time(), self._waiting_for()
        if state != self._last:
            self._last, self._since = state, now
        elif now - self._since > LIMITS_S.get(state[0], float("inf")):
            self.transport.close()
            return
        self._timer = self.loop.call_later(_TICK_S, self._tick)

    def _waiting_for(self) -> tuple[str, object]:
        """Return what the connection waits for, and in which request."""
        request = self.cycle
        if request is None:  # a new connection
            return "headers", request
        if request.response_complete:
            return "nothing" if self.timeout_keep_alive_task is not None else "headers", request
        return "body" if request.more_body else "the answer", request

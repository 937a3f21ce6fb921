"""What does an answer of the server mean? Errors of their kinds, how long to wait, a stream as a file."""

import email.utils
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import httpx2

from schemas.errors import Forbidden, NightshiftError, NotFound, Problem, ServiceUnavailable, SpecError, Unauthenticated

#: Answers that may be others when asked again.
PASSING = (429, 502, 503, 504)
#: Seconds that a client waits at most if the server asks for it.
LONGEST_WAIT_S = 20.0


class ApiError(NightshiftError):
    """The server refused; `status` is HTTP's, `code` and `message` are the problem document's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Conflict(ApiError):
    """The job is not in a state that allows what was asked for: it has not ended, or it has."""


class RateLimited(ApiError):
    """More requests, or more running jobs, than the token allows."""


def backoff(tried: int) -> float:
    """Return the seconds before the next try."""
    return float(min(10.0, 0.2 * 2.0**tried) * random.uniform(0.5, 1))


def retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds that the server asks to wait; None if it doesn't say."""
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    if text.isdecimal():
        return float(text)
    when = email.utils.parsedate_to_datetime(text)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def error_of(response: httpx2.Response) -> NightshiftError:
    """Return the problem document as an error of its kind."""
    try:
        problem = response.json()
        code, message = str(problem["code"]), str(problem["detail"])
        fields = [Problem(one["field"], one["message"]) for one in problem["errors"]]
    except (ValueError, KeyError, TypeError):  # a proxy's answer, not the server's
        code, message, fields = "http_error", f"HTTP {response.status_code}: {response.text[:200]}", []
    status = response.status_code
    if status == 422:
        return SpecError(fields or [Problem("", message)])
    plain = {401: Unauthenticated, 403: Forbidden, 404: NotFound, 503: ServiceUnavailable}
    if status in plain:
        return plain[status](message)
    return {409: Conflict, 429: RateLimited}.get(status, ApiError)(status, code, message)


class Pieces:
    """The pieces of an answer as a file that can only be read on."""

    closed = False

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = bytearray()

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        end = len(self._rest) if size < 0 else size
        taken = bytes(self._rest[:end])
        del self._rest[:end]
        return taken

    def readable(self) -> Literal[True]:
        return True

    def writable(self) -> Literal[False]:
        return False

    def seekable(self) -> Literal[False]:
        return False

    def flush(self) -> None: ...

    def close(self) -> None: ...

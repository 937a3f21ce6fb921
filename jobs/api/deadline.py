"""How long may one request list and count? A deadline is looked at while it does so, and ends it."""

import time


class DeadlineExceeded(Exception):
    """The time is over."""


class Deadline:
    """Ends in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise DeadlineExceeded once the time is over."""
        if time.monotonic() > self._end:
            raise DeadlineExceeded

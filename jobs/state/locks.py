"""A lock in Redis, held for as long as something takes. It only saves work: what is done under it may be done twice."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.logs import event
from jobs.state import State
from schemas.errors import ServiceUnavailable

_log = logging.getLogger(__name__)


@contextmanager
def alone(state: State, name: str, owner: str, seconds: float) -> Iterator[bool]:
    """Hold a lock within, renewed by a thread; whether it could be had. It outlives a killed process by `seconds`."""
    if not state.lock(name, owner, seconds):
        yield False
        return
    over = threading.Event()

    def renew() -> None:
        while not over.wait(seconds / 4):
            try:
                state.lock(name, owner, seconds)
            except ServiceUnavailable as error:
                event(_log, "lock_not_renewed", logging.WARNING, lock=name, error=error.message)

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield True
    finally:
        over.set()
        thread.join()
        state.unlock(name, owner)

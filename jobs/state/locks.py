"""A lock in Redis, held for as long as something takes. It only saves work: what is done under it may be done twice."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.logs import event
from jobs.state.connection import Connection
from schemas.errors import ServiceUnavailable

_log = logging.getLogger(__name__)


class Locks:
    def __init__(self, connection: Connection) -> None:
        self._redis = connection.redis

    def take(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lock for so long. Return False if another owner has it."""
        if self._redis.set(_key(name), owner, nx=True, px=int(seconds * 1000)):
            return True
        return self._redis.get(_key(name)) == owner and bool(self._redis.pexpire(_key(name), int(seconds * 1000)))

    def is_held(self, name: str) -> bool:
        """Return whether any owner has the lock."""
        return bool(self._redis.exists(_key(name)))

    def release(self, name: str, owner: str) -> None:
        """Release the lock if this owner has it."""
        if self._redis.get(_key(name)) == owner:
            self._redis.delete(_key(name))

    @contextmanager
    def alone(self, name: str, owner: str, seconds: float) -> Iterator[bool]:
        """Hold a lock inside the block, renewed by a thread; yield whether it could be taken.

        It outlives a killed process by `seconds`.
        """
        if not self.take(name, owner, seconds):
            yield False
            return
        over = threading.Event()

        def renew() -> None:
            while not over.wait(seconds / 4):
                try:
                    self.take(name, owner, seconds)
                except ServiceUnavailable as error:
                    event(_log, "lock_not_renewed", logging.WARNING, lock=name, error=error.message)

        thread = threading.Thread(target=renew, name="lock", daemon=True)
        thread.start()
        try:
            yield True
        finally:
            over.set()
            thread.join()
            self.release(name, owner)


def _key(name: str) -> str:
    return f"nightshift:lock:{name}"

"""The lease: a worker's claim on a shard. A thread renews it during the work, and each batch checks it first."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from jobs.logs import event
from jobs.settings import Settings
from jobs.state import State
from schemas.errors import JobEnded, LeaseLost, ServiceUnavailable, ShuttingDown
from schemas.manifest import JobStatus
from schemas.plan import ShardOrder

_log = logging.getLogger(__name__)
#: The statuses that Redis gives for a lease after it was emptied, until it is rebuilt.
_FORGOTTEN = ("unknown", "planning")


class Lease:
    """A context manager that holds the lease of a claimed shard.

    If Redis is away, no work is lost: the attempt goes on, and the commit in storage decides. A lease that could not be
    renewed in time may be another worker's by now, so nothing is committed under it. If Redis was emptied, the attempt
    goes on too, and takes its lease again once the job is known there.
    """

    def __init__(
        self,
        state: State,
        settings: Settings,
        order: ShardOrder,
        attempt: str,
        stop_file: Path | None,
        asked: float,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`asked` is the `time.monotonic()` at which the shard was requested, before Redis gave it out.

        `on_end` is called by the lease's thread while the job has ended and the attempt has not.
        """
        self._state = state
        self._settings = settings
        self._order = order
        self._attempt = attempt
        self._stop_file = stop_file
        self._rows = 0
        self._status = "running"
        self._asked = asked
        self._on_end = on_end
        self._renewed = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(self._settings.renew_s):
            self._renew()
            try:
                self._raise_for_status()
            except JobEnded:
                self._on_end()
            except LeaseLost:  # what is being loaded may be of use to the next shard
                continue

    def _renew(self) -> None:
        with self._lock:
            began = time.monotonic()
            try:
                self._status = self._ask(began)
            except ServiceUnavailable as error:
                event(_log, "lease_not_renewed", logging.WARNING, error=error.message)
                return
            except Exception:  # noqa: BLE001 (this thread is all that keeps the lease: it goes on)
                _log.exception("lease_not_renewed")
                return
            if self._status not in _FORGOTTEN:
                self._renewed = began

    def _ask(self, now: float) -> str:
        status = self._state.shards.renew(self._order, self._attempt, self._rows)
        if status != "lost":
            return status
        return self._state.shards.reclaim(self._order, self._attempt, now - self._asked)

    def check(self, rows: int) -> None:
        """Note how many rows are done, and raise Interrupted if the attempt should end. Called before each batch.

        Never wait for Redis; only the thread does.
        """
        self._rows = rows
        if self._stop_file is not None and self._stop_file.exists():
            raise ShuttingDown("the worker is shutting down")
        self._raise_for_status()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Mark the model as loading in Redis, so that a crash is attributed to it. Raise what `name` raises."""
        self.name("load")
        yield
        self.name(None)

    def name(self, work: tuple[int, int] | Literal["load"] | None) -> None:
        """Record in Redis what is worked on next: a span of rows, or loading the model.

        Wait while Redis is away or being rebuilt. Raise Interrupted if the attempt should end.
        """
        began = time.monotonic()
        while not self._named(work):
            time.sleep(self._settings.renew_s)
            self._renew()
            self.check(self._rows)
            if self._status in _FORGOTTEN and time.monotonic() - began > self._settings.lease_s:
                raise LeaseLost("Redis was emptied, and not rebuilt in time")

    def _named(self, work: tuple[int, int] | Literal["load"] | None) -> bool:
        try:
            return self._state.shards.set_position(self._order, self._attempt, work)
        except ServiceUnavailable as error:
            event(_log, "work_not_named", logging.WARNING, error=error.message)
            return False

    def check_for_commit(self) -> None:
        """Raise Interrupted unless the lease is certainly still this attempt's. Wait while Redis is being rebuilt."""
        self._renew()
        deadline = time.monotonic() + self._settings.lease_s
        while self._status in _FORGOTTEN and time.monotonic() < deadline:
            self.check(self._rows)
            time.sleep(self._settings.renew_s)
            self._renew()
        self._raise_for_status()
        if self._status in _FORGOTTEN:
            raise LeaseLost("Redis was emptied, and not rebuilt in time")
        if time.monotonic() - self._renewed > 0.8 * self._settings.lease_s:
            raise LeaseLost("the lease could not be renewed in time")

    def _raise_for_status(self) -> None:
        if self._status == "lost":
            raise LeaseLost("another worker may have this shard by now")
        if self._status not in (JobStatus.RUNNING, JobStatus.PAUSED) and self._status not in _FORGOTTEN:
            raise JobEnded(f"the job is {self._status}")

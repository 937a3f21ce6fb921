"""The supervisor: keeps a machine's Celery processes running, sweeps on a timer of its own, so that the sweep goes on
while every process is busy, and oversees what they have in hand. `nightshift worker` is one; an embedded run has one in
its own process.
"""

import logging
import signal
import threading
from collections.abc import Callable

from jobs.broker import Broker, make_app
from jobs.logs import event
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.supervisor.celery_processes import CeleryProcesses
from jobs.supervisor.recovery import rebuild_if_new
from jobs.supervisor.sweep import sweep
from jobs.supervisor.watchdog import Watchdog
from schemas.errors import NightshiftError, ServiceUnavailable

_log = logging.getLogger(__name__)
#: Seconds between two checks that each process runs.
_KEEP_EVERY_S = 0.2
#: Seconds at most until a rebuilding of Redis that failed is tried again.
_LONGEST_WAIT_S = 60.0


class Supervisor:
    """Supervises these processes, which may have been started already."""

    def __init__(self, settings: Settings, processes: CeleryProcesses) -> None:
        self._settings = settings
        self._processes = processes
        self._name = processes.name
        self._state = State(settings)
        self._broker = Broker(make_app(settings, "supervisor"))
        limited = settings.model_copy(update={"process_memory_gb": processes.process_memory_gb})
        self._watchdog = Watchdog(processes.work, self._state, self._broker, limited)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, then let each process put its shard back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        self.start()
        try:
            self._stopping.wait()
        finally:
            self.stop()

    def start(self) -> None:
        """Supervise from threads, until `stop`."""
        event(
            _log,
            "supervisor_started",
            groups=",".join(self._processes.groups),
            processes=self._processes.workers,
            name=self._name,
        )
        self._thread("keep", self._keep)
        self._thread("sweep", self._sweep_on_time)
        self._thread("watchdog", lambda: self._watchdog.run(self._stopping))
        if self._settings.rebuild:
            # Not waited for at the end: it may be reading a large catalog.
            threading.Thread(target=self._rebuild_when_new, name="rebuild", daemon=True).start()
        if self._settings.schedules:
            # Nor is this: it may be validating a run's spec. What it leaves half done, another supervisor goes on with.
            threading.Thread(target=self._fire_schedules, name="schedules", daemon=True).start()

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self, kill_idle: bool = False) -> None:
        """Let each process put its shard back, and end all of them.

        Celery takes a second to end. With `kill_idle` processes that have nothing in hand are not given it, which suits
        a Redis that ends with them: in another, what they had reserved would stay so.
        """
        event(_log, "supervisor_stopping")
        self._stopping.set()
        for thread in self._threads:
            thread.join(self._settings.sweep_s)
        self._processes.tell_to_stop()
        if kill_idle and not self._watchdog.in_hand():
            self._processes.kill()
        else:
            self._processes.stop(self._settings.grace_s)
        try:
            self._watchdog.put_back()
            self._state.workers.forget(self._name)
        except ServiceUnavailable as error:
            event(_log, "redis_away", logging.WARNING, error=error.message)

    def _keep(self) -> None:
        while True:
            try:
                self._processes.keep()
            except OSError as error:  # no process can be started now; the next try may go well
                event(_log, "process_not_started", logging.WARNING, error=str(error))
            if self._stopping.wait(_KEEP_EVERY_S):
                return

    def _sweep_on_time(self) -> None:
        processes = self._processes
        while True:
            try:
                in_hand = self._watchdog.in_hand()
                self._state.workers.begin()
                self._state.workers.report(
                    self._name, processes.groups, processes.workers, processes.devices, in_hand, self._settings.host
                )
                sweep(self._state, self._broker, self._settings, self._name)
            except ServiceUnavailable as error:
                event(_log, "sweep_failed", logging.WARNING, error=error.message)
            except Exception:  # noqa: BLE001 (the sweep is what everything else relies on: it goes on)
                _log.exception("sweep_failed")
            if self._stopping.wait(self._settings.sweep_s):
                return

    def _fire_schedules(self) -> None:
        """Fire what is due at each sweep, in a thread of its own: a sweep waits for no store and no model hub."""
        from jobs.schedules.scheduler import Scheduler  # not imported by an embedded run, which fires none

        scheduler = Scheduler(self._settings, self._state, self._broker, self._name)
        while True:
            try:
                scheduler.round()
            except NightshiftError as error:
                event(_log, "schedules_failed", logging.WARNING, error=error.message)
            except Exception:  # noqa: BLE001 (to be tried again)
                _log.exception("schedules_failed")
            if self._stopping.wait(self._settings.sweep_s):
                return

    def _rebuild_when_new(self) -> None:
        catalog, failures = Catalog(self._settings.catalog_uri, Storage()), 0
        while True:
            try:
                rebuild_if_new(self._state, self._broker, catalog, self._settings, self._name)
                failures = 0
            except NightshiftError as error:
                failures += 1
                event(_log, "rebuild_failed", logging.WARNING, error=error.message)
            except Exception:  # noqa: BLE001 (to be tried again)
                failures += 1
                _log.exception("rebuild_failed")
            if self._stopping.wait(min(_LONGEST_WAIT_S, self._settings.sweep_s * 2 ** min(failures, 10))):
                return

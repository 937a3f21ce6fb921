"""What happens when a worker process crashes, hangs or outgrows its memory? The watchdog of its supervisor sees it.

The shard of a process that is gone is given back at once, not when its lease runs out. A process whose step is late, or
that has outgrown its memory, is ended. Only another process can do this: code that hangs may hold Python's lock.
"""

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.broker import Broker
from jobs.logs import bound, event
from jobs.settings import Settings
from jobs.state import State
from schemas.errors import ServiceUnavailable
from schemas.heartbeat import IO, PULSE, STAGES, WorkInHand, failures_file, read_work
from schemas.loss import NO_ROWS, Loss
from schemas.plan import ShardOrder
from schemas.tasks import find_task

_log = logging.getLogger(__name__)
#: Seconds between two checks.
_EVERY_S = 0.2


class Watchdog:
    """Watches the processes whose heartbeat files are in `folder`."""

    def __init__(self, folder: Path, state: State, broker: Broker, settings: Settings) -> None:
        self._folder = folder
        self._state = state
        self._broker = broker
        self._settings = settings
        #: Why processes were ended here, by the attempt that each had in hand.
        self._ended: dict[str, Loss] = {}
        #: The deadlines that had passed at the last check, by attempt. A process that was stopped gets one more check.
        self._late: dict[str, set[tuple[str, float]]] = {}

    def run(self, stopping: threading.Event) -> None:
        """Check again and again, until `stopping` is set."""
        while not stopping.wait(_EVERY_S):
            try:
                self.check()
            except ServiceUnavailable as error:  # the file stays, and is found again
                event(_log, "redis_away", logging.WARNING, error=error.message)
            except Exception:  # noqa: BLE001 (leases go on to run out; the next check may go well)
                _log.exception("watchdog_failed")

    def check(self) -> None:
        """End the processes that must be ended, and give back the shards of those that are gone."""
        found = [(file, read_work(_read(file))) for file in self._folder.glob("*.work")]
        current = {known[0].attempt for _, known in found if known is not None}
        self._late = {attempt: late for attempt, late in self._late.items() if attempt in current}
        for file, known in found:
            if known is None:
                continue
            work, times = known
            seen = _process(work.pid)
            if seen is None:
                self._lost(work, file)
            elif work.attempt not in self._ended:
                late = self._late_stages(work, seen, times)
                if self._is_outgrown(seen):
                    self._end(work, Loss.MEMORY_EXCEEDED)
                elif late:
                    event(_log, "stage_late", logging.WARNING, pid=work.pid, stage=",".join(sorted(late)))
                    self._end(work, Loss.TIMEOUT)
                    if late <= set(IO):  # no record's fault, which the shard's next attempt is told
                        self._state.shards.set_position(work.order, work.attempt, NO_ROWS)

    def _end(self, work: WorkInHand, why: Loss) -> None:
        self._ended[work.attempt] = why
        with suppress(ProcessLookupError):  # gone by itself meanwhile
            os.kill(work.pid, signal.SIGKILL)

    def _is_outgrown(self, seen: "_Process") -> bool:
        limit = self._settings.process_memory_gb
        return limit is not None and seen.resident > limit * (1 << 30)

    def _late_stages(self, work: WorkInHand, seen: "_Process", times: dict[str, float]) -> set[str]:
        """Return the stages that were late at the last check and still are."""
        # Outside of a step, as while a model is loaded, silence is no fault of a record.
        running = times if times.keys() & STAGES else {name: at for name, at in times.items() if name != PULSE}
        late = {item for item in running.items() if time.monotonic() > item[1]}
        before, self._late[work.attempt] = self._late.get(work.attempt, set()), late
        return set() if seen.stopped else {name for name, _ in late & before}

    def _lost(self, work: WorkInHand, file: Path) -> None:
        order = work.order
        why = self._ended.get(work.attempt, Loss.WORKER_LOST)
        verdict = self._state.shards.lost(order, work.attempt, why)
        file.unlink(missing_ok=True)
        self._ended.pop(work.attempt, None)
        if not verdict.stands:
            return
        if verdict.suspect:  # others do such shards: the process that replaces this one is to know
            with failures_file(self._folder, work.slot).open("a") as failures:
                failures.write(f"the process was lost over a shard ({why.value})\n")
        with bound(job=order.job, shard=order.shard, attempt=work.attempt, task=order.task):
            event(_log, "process_lost", logging.WARNING, pid=work.pid, why=why.value)
        if verdict.finish:
            self._broker.finish_job(order.job, order.output)
        self._broker.release(self._state, find_task(order.task))

    def in_hand(self) -> list[ShardOrder]:
        """Return the shards that the processes work on."""
        found = (read_work(_read(file)) for file in sorted(self._folder.glob("*.work")))
        return [known[0].order for known in found if known is not None]

    def put_back(self) -> None:
        """Give back the shards of processes that were ended because this worker stops. No loss is counted."""
        for file in self._folder.glob("*.work"):
            found = read_work(_read(file))
            if found is not None and self._state.shards.requeue(found[0].order, found[0].attempt):
                self._broker.finish_job(found[0].order.job, found[0].order.output)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:  # its attempt is over
        return b""


@dataclass(frozen=True)
class _Process:
    """A process that lives: its resident size in bytes, 0 if unknown, and whether a signal stopped it."""

    resident: int
    stopped: bool


def _process(pid: int) -> _Process | None:
    """Return what the system says of a process; None if it is gone, or dead and not yet waited for."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        if fields[0] in ("Z", "X"):
            return None
        return _Process(int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), stopped=fields[0] in ("T", "t"))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    return _Process(0, stopped=False)

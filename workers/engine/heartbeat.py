"""Heartbeat file: each stage's deadline, and the rows that are worked on, for the supervisor to read.

The supervisor's watchdog (`jobs/supervisor/watchdog.py`) ends a process whose stage is late, or that has outgrown its
memory, and gives back the shard of one that is gone. It watches from outside: a library that hangs or crashes leaves no
thread in this process that could.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.logs import event
from schemas.heartbeat import PULSE, TOGETHER, WorkInHand, place_of, time_to_bytes
from schemas.shard import ShardOrder

_log = logging.getLogger(__name__)
#: Seconds between two signs of life.
_PULSE_S = 1.0


class Watch:
    """The steps of one attempt. Without a file nobody is told of them. `alone` says that they are on one record."""

    def __init__(self, file: int | None = None, limit_s: float = 0) -> None:
        self._file = file
        self._limit_s = limit_s
        self.alone = False

    def begin(self, stage: str) -> None:
        """A step of this stage begins; one that was under way is over."""
        self.expect(stage, self._limit_s * (1 if self.alone else TOGETHER))

    def expect(self, name: str, within_s: float) -> None:
        """This stage is heard of again within so many seconds."""
        if self._file is not None:
            os.pwrite(self._file, time_to_bytes(time.monotonic() + within_s), place_of(name))

    def end(self, stage: str) -> None:
        if self._file is not None:
            os.pwrite(self._file, time_to_bytes(0), place_of(stage))


@contextmanager
def watched(folder: Path | None, order: ShardOrder, attempt: str, limit_s: float, silence_s: float) -> Iterator[Watch]:
    """A watch over an attempt, for as long as it lasts. Without a folder, which a supervisor makes, nobody watches.

    `limit_s` is for a step on one record, `silence_s` for code that lets no other thread run.
    """
    if folder is None:
        yield Watch()
        return
    work = WorkInHand(pid=os.getpid(), order=order, attempt=attempt)
    name, making = folder / f"{work.pid}.work", folder / f"{work.pid}.new"
    try:
        making.write_bytes(work.to_bytes())
        file = os.open(making, os.O_WRONLY)
    except OSError as error:  # a full disk, say: the lease still finds what is lost, only later
        event(_log, "not_watched", logging.WARNING, error=str(error))
        yield Watch()
        return
    watch, over = Watch(file, limit_s), threading.Event()

    def pulse() -> None:
        while not over.is_set():
            watch.expect(PULSE, silence_s)
            over.wait(_PULSE_S)

    thread = threading.Thread(target=pulse, name="pulse", daemon=True)
    thread.start()
    making.replace(name)
    try:
        yield watch
    finally:
        name.unlink(missing_ok=True)
        over.set()
        thread.join()
        os.close(file)

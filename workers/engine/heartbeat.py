"""The heartbeat file: each stage's deadline, and the rows that are worked on, for the supervisor to read.

The supervisor's watchdog (`jobs/supervisor/watchdog.py`) ends a process if a stage is late or its memory is outgrown,
and gives back the shard of a process that is gone. It watches from outside, because after a library hangs or crashes no
thread in this process could.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from jobs.logs import event
from schemas.heartbeat import LOAD, PULSE, TOGETHER, WorkInHand, place_of, time_to_bytes
from schemas.plan import ShardOrder

_log = logging.getLogger(__name__)
#: Seconds between two signs of life.
_PULSE_S = 1.0
#: Seconds that a model may take to load once its job has ended: others will need the next one, and it may be theirs.
HURRY_S = 60.0


class Watch:
    """Writes the deadlines of an attempt's steps, if there is a file. `alone`: the steps are on a single record.

    `limit_s` is the limit for a step on one record, `io_s` the limit on the silence of input and output.
    """

    def __init__(self, file: int | None = None, limit_s: float = 0, io_s: float = 0) -> None:
        self._file = file
        self._limit_s = limit_s
        self._io_s = io_s
        self.alone = False
        self._is_loading = False
        self._moving: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, stage: str) -> None:
        """Note that a step of this stage begins. It replaces the stage's earlier step."""
        self.expect(stage, self._limit_s * (1 if self.alone else TOGETHER))

    def expect(self, name: str, within_s: float) -> None:
        """Set this stage's deadline: its next sign of life comes within so many seconds."""
        if self._file is not None:
            os.pwrite(self._file, time_to_bytes(time.monotonic() + within_s), place_of(name))

    @contextmanager
    def moving(self, stage: str) -> Iterator[Callable[[], None]]:
        """Limit the silence of input or output. What this yields is to be called whenever bytes have moved."""
        with self._lock:
            self._moving.add(stage)
            self.expect(stage, self._io_s)
        try:
            yield partial(self.moved, stage)
        finally:
            with self._lock:
                self._moving.discard(stage)
                self.end(stage)

    def moved(self, stage: str) -> None:
        """Note that bytes have moved, if this stage is under way. Any thread may call it."""
        with self._lock:
            if stage in self._moving:
                self.expect(stage, self._io_s)

    @contextmanager
    def loading(self, limit_s: float) -> Iterator[None]:
        """Set a limit for the loading of a model, which no other thread in this process could end."""
        self.expect(LOAD, limit_s)
        self._is_loading = True
        try:
            yield
        finally:
            self._is_loading = False
            self.end(LOAD)

    def hurry(self) -> None:
        """Let the loading of a model that is under way end soon: its job has ended."""
        if self._is_loading:
            self._is_loading = False
            self.expect(LOAD, HURRY_S)

    def end(self, stage: str) -> None:
        if self._file is not None:
            os.pwrite(self._file, time_to_bytes(0), place_of(stage))


@contextmanager
def watched(
    folder: Path | None,
    slot: int,
    order: ShardOrder,
    attempt: str,
    limit_s: float,
    io_s: float,
    silence_s: float,
) -> Iterator[Watch]:
    """Keep a heartbeat file while the attempt lasts. Write no file if there is no folder, which a supervisor makes.

    `limit_s` is the limit for a step on one record, `io_s` for the silence of input and output, `silence_s` for code
    that lets no other thread run.
    """
    if folder is None:
        yield Watch()
        return
    work = WorkInHand(pid=os.getpid(), slot=slot, order=order, attempt=attempt)
    name, making = folder / f"{work.pid}.work", folder / f"{work.pid}.new"
    try:
        making.write_bytes(work.to_bytes())
        file = os.open(making, os.O_WRONLY)
    except OSError as error:  # a full disk, say; a lost shard is still found when its lease ends, only later
        event(_log, "not_watched", logging.WARNING, error=str(error))
        yield Watch()
        return
    watch, over = Watch(file, limit_s, io_s), threading.Event()

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

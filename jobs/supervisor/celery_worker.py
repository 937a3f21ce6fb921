"""One Celery worker process: `python -m jobs.supervisor.celery_worker APP NAME QUEUE…`, started by the supervisor.

What `celery -A APP worker` does, without importing Celery's command line, and without looking for APP in the working
folder.
"""

import os
import signal
import sys
from importlib import import_module
from typing import Any


def main(module: str, name: str, queues: list[str]) -> int:
    """Serve the queues until stopped. Return the exit status."""
    from celery.signals import worker_ready

    worker_ready.connect(_wake_on_signals, weak=False)
    worker_ready.connect(_be_told_once, weak=False)
    app = import_module(module).app
    worker = app.Worker(
        hostname=f"{name}@%h",
        queues=queues,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _wake_on_signals(**_: Any) -> None:
    """Let a signal end the event loop's sleep: Celery looks at most once a second whether it should stop."""
    from kombu.asynchronous import get_event_loop

    hub: Any = get_event_loop()
    if hub is None:
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    hub.add_reader(reading, lambda: os.read(reading, 4096))
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)


def _be_told_once(**_: Any) -> None:
    """Let SIGTERM be handled once: Celery's handler takes a lock, and waits for itself if a second one interrupts it.

    Several come if a supervisor and the process group are ended at once, and this process's parent with them.
    """
    handle: Any = signal.getsignal(signal.SIGTERM)

    def handle_once(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        handle(number, frame)

    signal.signal(signal.SIGTERM, handle_once)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))

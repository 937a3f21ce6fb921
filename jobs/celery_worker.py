"""One Celery worker process: `python -m jobs.celery_worker APP NAME QUEUE…`, started by the supervisor.

What `celery -A APP worker` does, without importing Celery's command line, and without looking for APP in the working
folder.
"""

import sys
from importlib import import_module


def main(module: str, name: str, queues: list[str]) -> int:
    """Serve the queues until stopped. Return the exit status."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))

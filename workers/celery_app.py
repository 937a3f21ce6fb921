"""The Celery application of a worker process: `celery -A workers.celery_app worker`. An entry point.

Celery's parent, which only moves messages, imports this module, and so does the child that it spawns, which does the
work. Only the child has torch and the models.
"""

from functools import cache
from typing import TYPE_CHECKING

from celery.signals import worker_process_init

from jobs.broker import RUN_SHARD, Broker, make_app, serve
from jobs.settings import Settings

if TYPE_CHECKING:
    from workers.execution.process import Process

settings = Settings.read()
app = make_app(settings, "workers.celery_app")
serve(app, settings, "workers.celery_app")


@cache
def _process() -> "Process":
    from workers.execution.process import Process

    return Process(settings, Broker(app))


# The child imports torch at its start, while a job is still being planned, and not when the first shard waits for it.
worker_process_init.connect(lambda **_: _process(), weak=False)


@app.task(name=RUN_SHARD)  # type: ignore[untyped-decorator]
def run_shard(task: str) -> None:
    """Take a ticket of `task` and run shards. Outcomes, errors included, go to Redis and are never raised to Celery."""
    from workers.execution.ticket import run_turns

    run_turns(task, _process())

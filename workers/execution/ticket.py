"""What does a message in the queue stand for? A ticket: permission to run the next shard, and more if they are short.

A ticket names no shard. Redis chooses the shard when the ticket is taken (docs/decisions/0010).
"""

import logging
import secrets
import time

from jobs.logs import event
from schemas.errors import ServiceUnavailable
from schemas.plan import ShardOrder
from schemas.tasks import find_task
from workers.execution.attempt import Attempt, Outcome, run_attempt
from workers.execution.process import Process

_log = logging.getLogger(__name__)
#: Seconds during which a ticket is good for another shard, so that the cost of the message itself matters little.
TOGETHER_S = 1.0


def run_turns(task: str, process: Process) -> None:
    """Take a ticket of `task`: run waiting shards of all tasks that this process serves, for about a second."""
    began = time.monotonic()
    outcome = run_next(task, process)
    while outcome is not None and outcome.report is not None and time.monotonic() - began < TOGETHER_S:
        if process.stop_file is not None and process.stop_file.exists():
            return
        outcome = run_next(None, process)


def run_next(message: str | None, process: Process) -> Outcome | None:
    """Run the next shard and return its outcome, or None if no shard waits.

    `message` is the task of the ticket, if there is one. Further tickets are then sent for the shards that still wait.
    """
    id, asked = secrets.token_hex(8), time.monotonic()
    order: ShardOrder | None = None
    served = {*process.settings.serves, *([message] if message else [])}
    try:
        order = process.state.shards.take(served, process.models.warm, id)
        if message is not None:
            for task in {message, order.task if order else message}:
                process.broker.release(process.state, find_task(task))
    except ServiceUnavailable as error:
        event(_log, "redis_away", logging.WARNING, error=error.message)
    # A shard that was taken runs, even if Redis went away right afterwards: its lease is valid.
    return None if order is None else run_attempt(Attempt(order, id, process, asked))

"""What does a message in the queue stand for? A ticket: permission to run the next shard, and more if they are short.

A ticket names no shard. Redis chooses the shard when the ticket is taken (docs/decisions/0010).
"""

import logging
import secrets
import time

from jobs.logs import event
from schemas.errors import LeftToOthers, ServiceUnavailable
from schemas.plan import ShardOrder
from schemas.tasks import find_task
from workers.execution.attempt import Attempt, Outcome, run_attempt
from workers.execution.process import Process
from workers.execution.suspension import wait_until_fit

_log = logging.getLogger(__name__)
#: Seconds during which a ticket is good for another shard, so that the cost of the message itself matters little.
TOGETHER_S = 1.0
#: Seconds until this process asks again, after all shards that waited were left to other machines.
LEFT_S = 1.0


def run_turns(task: str, process: Process) -> None:
    """Take a ticket of `task`: run waiting shards of all tasks that this process serves, for about a second."""
    if not wait_until_fit(process):
        return
    began = time.monotonic()
    outcome = run_next(task, process)
    while outcome is not None and outcome.report is not None and time.monotonic() - began < TOGETHER_S:
        if process.is_stopping:
            return
        outcome = run_next(None, process)


def run_next(message: str | None, process: Process) -> Outcome | None:
    """Run the next shard and return its outcome, or None if no shard waits.

    `message` is the task of the ticket, if there is one. Further tickets are then sent for the shards that still wait.
    """
    id, asked = secrets.token_hex(8), time.monotonic()
    order: ShardOrder | None = None
    served = {*process.settings.serves, *([message] if message else [])}
    left = False
    try:
        _return_unanswered(process)
        process.unanswered.append(id)
        try:
            order = process.state.shards.take(served, process.models.warm, id, process.breaker.avoided)
        except LeftToOthers:
            left = True
        process.unanswered.remove(id)
        if message is not None:
            for task in {message, order.task if order else message}:
                process.broker.release(process.state, find_task(task))
    except ServiceUnavailable as error:
        event(_log, "redis_away", logging.WARNING, error=error.message)
    if left:
        _pause(process, LEFT_S)
    # A shard that was taken runs, even if Redis went away right afterwards: its lease is valid.
    return None if order is None else run_attempt(Attempt(order, id, process, asked))


def _return_unanswered(process: Process) -> None:
    """Give back the shards of requests whose answer was lost: else their leases would run out, as if a worker died."""
    while process.unanswered:
        process.state.shards.give_back(process.unanswered[-1])
        process.unanswered.pop()


def _pause(process: Process, seconds: float) -> None:
    """Wait so long, or until the process is to stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not process.is_stopping:
        time.sleep(min(0.2, seconds))

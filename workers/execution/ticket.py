"""Turns: what a message stands for. The shard whose turn it is, and as long as they are short those after it too.

A message names no shard: which one runs is chosen when it is taken (docs/decisions/0010).
"""

import logging
import secrets
import time

from jobs.logs import event
from schemas.errors import ServiceUnavailable
from schemas.shard import ShardOrder
from schemas.tasks import find_task
from workers.execution.attempt import Attempt, Outcome, run_attempt
from workers.execution.process import Process

_log = logging.getLogger(__name__)
#: Seconds for which a message is good for another shard: what a message itself costs then counts for little.
TOGETHER_S = 1.0


def run_turns(task: str, process: Process) -> None:
    """On a message of `task`: run what waits, of all tasks that this process serves, for about a second."""
    began = time.monotonic()
    outcome = run_next(task, process)
    while outcome is not None and outcome.report is not None and time.monotonic() - began < TOGETHER_S:
        if process.stop_file is not None and process.stop_file.exists():
            return
        outcome = run_next(None, process)


def run_next(message: str | None, process: Process) -> Outcome | None:
    """Run the shard whose turn it is; None where none waits. After a message, by its task, others are sent for the
    shards that still wait."""
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
    # What was taken runs, even where Redis went away right afterwards: its lease stands.
    return None if order is None else run_attempt(Attempt(order, id, process, asked))

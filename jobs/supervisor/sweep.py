"""The sweep: what keeps jobs going whatever got lost. Each supervisor runs it; a lock lets one at a time do so."""

import logging

from jobs.broker import CONTROL_QUEUE, Broker
from jobs.logs import event
from jobs.settings import Settings
from jobs.state import State
from schemas.tasks import all_tasks

_log = logging.getLogger(__name__)
#: Messages to control that no webhook is added to: it is away, or has enough to do.
MANY_WAIT = 1000


def sweep(state: State, broker: Broker, settings: Settings, name: str) -> None:
    """Release the shards of lost workers and due retries, refill the queues, ask for plans, ends and webhooks that are
    due."""
    if not state.locks.take("sweep", name, 2 * settings.sweep_s):
        return
    swept = state.shards.sweep(CONTROL_QUEUE)
    if swept.expired:
        event(_log, "leases_expired", logging.WARNING, shards=swept.expired)
    for jobs, ask in ((swept.finish, broker.finish_job), (swept.plan, broker.plan_job)):
        for job, output in jobs:
            ask(job, output)
    if state.queue_length(CONTROL_QUEUE) < MANY_WAIT:
        # Long enough for a control process that is busy planning, or that has many to send.
        for job, output in state.webhooks.take_due(max(60.0, 2 * settings.notify_timeout_s)):
            broker.notify_job(job, output)
    for task in all_tasks().values():
        broker.release(state, task)

"""The sweep: what keeps jobs going whatever got lost. Each supervisor runs it; a lock lets one at a time do so."""

import logging

from jobs.broker import Broker
from jobs.logs import event
from jobs.settings import Settings
from jobs.state import State
from schemas.tasks import all_tasks

_log = logging.getLogger(__name__)


def sweep(state: State, broker: Broker, settings: Settings, name: str) -> None:
    """Release the shards of lost workers and due retries, refill the queues, ask for plans, ends and webhooks that are
    due."""
    if not state.locks.take("sweep", name, 2 * settings.sweep_s):
        return
    finish, plan, expired = state.shards.sweep()
    if expired:
        event(_log, "leases_expired", logging.WARNING, shards=expired)
    for jobs, ask in ((finish, broker.finish_job), (plan, broker.plan_job)):
        for job in jobs:
            progress = state.jobs.progress(job)
            # Asked again only now and then: the first message may still wait, or its work be under way.
            asking = f"ask:{ask.__name__}:{job}"
            if progress is not None and state.locks.take(asking, f"{name}-{progress.now}", settings.lease_s / 4):
                ask(job, progress.output)
    # Long enough for a control process that is busy planning, or that has many to send.
    for job, output in state.webhooks.take_due(max(60.0, 2 * settings.notify_timeout_s)):
        broker.notify_job(job, output)
    for task in all_tasks().values():
        broker.release(state, task)

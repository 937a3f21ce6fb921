"""The sweep: what keeps jobs going whatever got lost. Each supervisor runs it; a lock lets one at a time do so."""

import logging

from jobs.broker import Broker, task_queue
from jobs.logs import event
from jobs.settings import Settings
from jobs.state import State
from schemas.tasks import all_tasks

_log = logging.getLogger(__name__)


def sweep(state: State, broker: Broker, settings: Settings, name: str) -> None:
    """Release the shards of lost workers and due retries, refill the queues, ask for plans and ends that are due."""
    if not state.lock("sweep", name, 2 * settings.sweep_s):
        return
    finish, plan, expired = state.sweep()
    if expired:
        event(_log, "leases_expired", logging.WARNING, shards=expired)
    for jobs, ask in ((finish, broker.finish_job), (plan, broker.plan_job)):
        for job in jobs:
            progress = state.progress(job)
            # Asked again only now and then: the first message may still wait, or its work be under way.
            if progress is not None and state.lock(f"ask:{ask.__name__}:{job}", f"{name}-{progress.now}", 15):
                ask(job, progress.output)
    for task in all_tasks().values():
        lost = state.requeue_lost(task.id, task_queue(task.id), older_than_s=settings.lease_s)
        if lost:
            event(_log, "messages_lost", logging.WARNING, task=task.id, shards=lost)
        broker.release(state, task)

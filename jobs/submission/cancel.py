"""How is a job stopped? The catalog notes it first, so that it holds even if Redis is lost before it is carried out."""

import logging

from jobs.broker import Broker
from jobs.logs import event
from jobs.state import State
from jobs.storage.catalog import Catalog
from schemas.errors import NightshiftError
from schemas.manifest import JobStatus

_log = logging.getLogger(__name__)
_UNDER_WAY = (JobStatus.PLANNING, JobStatus.RUNNING, JobStatus.PAUSED)


def cancel_job(job: str, output: str, catalog: Catalog, state: State, broker: Broker) -> bool:
    """Stop the job. Return False if it had ended, was being stopped, or isn't known to Redis.

    Nothing of the job is read: it is stopped whatever its files look like.
    """
    if state.jobs.status(job) not in _UNDER_WAY:
        return False
    try:
        catalog.mark_cancelled(job)
    except NightshiftError as error:  # Redis alone knows it then
        event(_log, "cancel_not_marked", logging.WARNING, job=job, error=error.message)
    if state.jobs.cancel(job):
        broker.finish_job(job, output)
        return True
    return state.jobs.status(job) is None  # Redis was emptied just now: the note holds

"""What does a process do while its breaker is open? It says so, waits, and looks whether its machine is sound again."""

import logging
import time

from jobs.logs import event
from jobs.state import Suspension
from schemas.errors import ServiceUnavailable
from workers.execution.process import Process
from workers.execution.self_check import unfit

_log = logging.getLogger(__name__)
#: Seconds between two looks whether the process is to stop.
_STEP_S = 0.2


def wait_until_fit(process: Process) -> bool:
    """Wait while the breaker is open. Return False if the process is to stop.

    The machine is checked at the first call, and before a shard is taken to try it.
    """
    if process.is_checked and not process.breaker.is_open:
        return True
    if process.breaker.is_open and process.suspended_since is None:
        suspended(process)  # by the failures of processes that this one replaces
    while not process.is_stopping:
        left = process.breaker.wait_s
        if left > 0:
            time.sleep(min(_STEP_S, left))
            continue
        why = unfit(process.models.device, process.suspect_folder)
        process.is_checked = True
        if why is None:
            if not process.breaker.is_open:
                _told(process)  # the process that this one replaces may have been suspended
            return True
        process.breaker.trip(why)
        suspended(process)
    return False


def suspended(process: Process) -> None:
    """Say that this process takes no shards for now: in the log, and to those who look at the workers."""
    breaker = process.breaker
    event(_log, "worker_suspended", logging.ERROR, why=breaker.why, failures=breaker.failures, seconds=breaker.wait_s)
    now = time.time()
    one = Suspension(
        process=process.name,
        worker=process.settings.worker,
        why=breaker.why,
        failures=breaker.failures,
        since=process.suspended_since or now,
        until=now + breaker.wait_s,
    )
    process.suspended_since = one.since
    try:
        process.state.workers.suspend(one)
    except ServiceUnavailable as error:
        event(_log, "redis_away", logging.WARNING, error=error.message)


def resumed(process: Process) -> None:
    """Say that this process takes shards again."""
    event(_log, "worker_resumed", seconds=time.time() - (process.suspended_since or time.time()))
    process.suspended_since = None
    _told(process)


def _told(process: Process) -> None:
    try:
        process.state.workers.resume(process.name)
    except ServiceUnavailable as error:
        event(_log, "redis_away", logging.WARNING, error=error.message)
